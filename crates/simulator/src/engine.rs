//! An inference engine by steps: prompts in chunks, answers a token a step, a KV cache that fills, a prefix cache.
//!
//! A step works on a chunk of the prompts that wait, first come first served, and gives every answer under way its next
//! token. It takes `a0 + a1·p + a2·p·c + d1·n + d2·s` milliseconds (see [`Kind`]). A first token comes at the end of the
//! step that finishes its prompt. When the KV cache is full the youngest request loses its place and begins again.
//! Steps in which nothing changes but the length of answers are taken together, and taken apart when something comes.

mod cache;
mod kind;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pointsman_routing::engine::Report;
use pointsman_routing::facts::PrefixBlock;

use cache::Cache;
pub use kind::{Kind, kinds};

/// What an engine is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Whose it is.
    pub(crate) id: u64,
    pub(crate) tokens_in: u32,
    pub(crate) tokens_out: u32,
    /// The whole blocks of the prompt.
    pub(crate) prefix: Arc<[PrefixBlock]>,
}

/// What an engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The first token of a request, with how much of its prompt was cached.
    First { id: u64, tokens_cached: u32 },
    /// The last.
    Done { id: u64, tokens_cached: u32 },
}

/// A request in the engine.
#[derive(Debug)]
struct Sequence {
    job: Job,
    /// Tokens it was given so far.
    generated: u32,
    /// Tokens that must be in the KV cache before the next is generated.
    target: u32,
    /// Of those, that are.
    done: u32,
    /// Blocks of its prompt that it uses, from the first on.
    pinned: usize,
    /// Tokens of its own in the KV cache.
    own: u64,
    /// Steps the engine had made when its answer began.
    joined: u64,
    /// The step that gives it its last token.
    last_step: u64,
    tokens_cached: Option<u32>,
}

/// What is being done.
#[derive(Debug, Clone, Copy)]
struct Run {
    from_ns: u64,
    until_ns: u64,
    /// Steps of this run; more than 1 only if no prompt is worked on.
    steps: u64,
}

/// An engine.
#[derive(Debug)]
pub(crate) struct Engine {
    kind: Arc<Kind>,
    waiting: VecDeque<Sequence>,
    /// By the order they were let in.
    running: BTreeMap<u64, Sequence>,
    admitted: u64,
    /// Those whose prompt is worked on, in order.
    prefilling: VecDeque<u64>,
    /// What the present step does for them.
    chunks: Vec<(u64, u32)>,
    /// By the step that ends them.
    decoding: BTreeSet<(u64, u64)>,
    cache: Cache,
    /// Tokens in the KV cache that belong to one request alone.
    own: u64,
    /// Tokens in the contexts of answers under way.
    context: u64,
    steps: u64,
    run: Option<Run>,
    /// Tokens to be loaded from the host in the next step.
    loading: u64,
    busy_ns: u64,
    pub(crate) preempted: u64,
    pub(crate) tokens_prefilled: u64,
}

impl Engine {
    pub(crate) fn new(kind: Arc<Kind>) -> Self {
        Self {
            cache: Cache::new(kind.host_tokens),
            kind,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            admitted: 0,
            prefilling: VecDeque::new(),
            chunks: Vec::new(),
            decoding: BTreeSet::new(),
            own: 0,
            context: 0,
            steps: 0,
            run: None,
            loading: 0,
            busy_ns: 0,
            preempted: 0,
            tokens_prefilled: 0,
        }
    }

    /// Whether a request fits it at all.
    pub(crate) fn fits(&self, tokens_in: u32, tokens_out: u32) -> bool {
        u64::from(tokens_in) + u64::from(tokens_out) <= self.kind.kv_tokens
    }

    /// When something happens in it next.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        self.run.map(|run| run.until_ns)
    }

    /// Time in which it worked, up to a moment.
    pub(crate) fn busy_ns(&self, now_ns: u64) -> u64 {
        self.busy_ns + self.run.map_or(0, |run| now_ns.saturating_sub(run.from_ns))
    }

    /// Requests in it, those that wait included.
    pub(crate) fn requests(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Tokens of requests it works on that its KV cache holds.
    pub(crate) fn tokens_used(&self) -> u64 {
        self.own + self.cache.resident() - self.cache.idle()
    }

    /// What it says of itself.
    pub(crate) fn report(&self) -> Report {
        let count = |number: usize| Some(u32::try_from(number).unwrap_or(u32::MAX));
        Report {
            running: count(self.running.len()),
            waiting: count(self.waiting.len()),
            kv_used: Some((self.tokens_used() as f64 / self.kind.kv_tokens as f64) as f32),
            kv_capacity_tokens: Some(self.kind.kv_tokens),
            slots: count(self.kind.sequences_max),
            ..Report::default()
        }
    }

    /// Takes a request.
    pub(crate) fn push(&mut self, now_ns: u64, job: Job) {
        let target = job.tokens_in.max(1);
        self.waiting.push_back(Sequence {
            job,
            generated: 0,
            target,
            done: 0,
            pinned: 0,
            own: 0,
            joined: 0,
            last_step: 0,
            tokens_cached: None,
        });
        self.interrupt(now_ns);
    }

    /// Drops a request.
    pub(crate) fn cancel(&mut self, now_ns: u64, id: u64) {
        if let Some(place) = self.waiting.iter().position(|one| one.job.id == id) {
            self.waiting.remove(place);
            return;
        }
        let Some(key) = self.running.iter().find(|(_, one)| one.job.id == id).map(|(key, _)| *key) else {
            return;
        };
        // What is done so far is done; the step under way goes on without it.
        self.settle_until(now_ns);
        if let Some(sequence) = self.take(key) {
            self.cache.unpin(&sequence.job.prefix[..sequence.pinned]);
        }
    }

    /// The present run is over: says what came of it and begins the next.
    pub(crate) fn advance(&mut self, now_ns: u64, said: &mut Vec<Said>) {
        let Some(run) = self.run.take_if(|run| run.until_ns <= now_ns) else { return };
        self.busy_ns += run.until_ns - run.from_ns;
        self.grow(run.steps);
        self.end_chunks(said);
        while let Some((last, key)) = self.decoding.first().copied().filter(|(last, _)| *last <= self.steps) {
            debug_assert_eq!(last, self.steps, "no answer ends within a run");
            if let Some(sequence) = self.take(key) {
                self.finish(&sequence, said);
            }
        }
        self.begin(now_ns);
    }

    /// Answers under way were given so many tokens.
    fn grow(&mut self, steps: u64) {
        self.steps += steps;
        let tokens = steps * self.decoding.len() as u64;
        self.own += tokens;
        self.context += tokens;
    }

    fn end_chunks(&mut self, said: &mut Vec<Said>) {
        let chunks = std::mem::take(&mut self.chunks);
        for (key, tokens) in &chunks {
            let Some(sequence) = self.running.get_mut(key) else { continue };
            sequence.done += tokens;
            self.tokens_prefilled += u64::from(*tokens);
            let prefix = &sequence.job.prefix;
            while let Some(block) = prefix.get(sequence.pinned).filter(|block| block.tokens <= sequence.done)
            {
                let from = sequence.pinned.checked_sub(1).map_or(0, |last| prefix[last].tokens);
                // What others have cached meanwhile is shared with them.
                self.cache.pin(block.hash, block.tokens - from);
                sequence.own -= u64::from(block.tokens - from);
                self.own -= u64::from(block.tokens - from);
                sequence.pinned += 1;
            }
            if sequence.done < sequence.target {
                continue;
            }
            self.prefilling.retain(|one| one != key);
            sequence.generated += 1;
            let (id, tokens_cached) = (sequence.job.id, sequence.tokens_cached.unwrap_or(0));
            if sequence.generated == 1 {
                said.push(Said::First { id, tokens_cached });
            }
            sequence.own += 1;
            self.own += 1;
            sequence.joined = self.steps;
            let left = sequence.job.tokens_out.max(1).saturating_sub(sequence.generated);
            sequence.last_step = self.steps + u64::from(left);
            self.decoding.insert((sequence.last_step, *key));
            self.context += u64::from(sequence.job.tokens_in + sequence.generated);
        }
        self.chunks = chunks;
        self.chunks.clear();
    }

    fn finish(&mut self, sequence: &Sequence, said: &mut Vec<Said>) {
        self.cache.unpin(&sequence.job.prefix[..sequence.pinned]);
        let tokens_cached = sequence.tokens_cached.unwrap_or(0);
        said.push(Said::Done { id: sequence.job.id, tokens_cached });
    }

    /// Takes a request out of all that is under way. Its blocks stay pinned.
    fn take(&mut self, key: u64) -> Option<Sequence> {
        let mut sequence = self.running.remove(&key)?;
        if self.decoding.remove(&(sequence.last_step, key)) {
            let since = self.steps - sequence.joined;
            sequence.generated += since as u32;
            sequence.own += since;
            self.context -= u64::from(sequence.job.tokens_in) + u64::from(sequence.generated);
        } else {
            self.prefilling.retain(|one| *one != key);
            self.chunks.retain(|(one, _)| *one != key);
        }
        self.own -= sequence.own;
        Some(sequence)
    }

    /// A long run ends with the step that is under way, so that what came can begin.
    fn interrupt(&mut self, now_ns: u64) {
        let Some(run) = self.run else { return self.begin(now_ns) };
        if run.steps > 1 {
            let steps = (self.steps_within(now_ns - run.from_ns, run.steps) + 1).min(run.steps);
            self.run = Some(Run { until_ns: run.from_ns + self.run_ns(steps), steps, ..run });
        }
    }

    /// Takes the steps of a run that are over by now as done; the run then ends with the one under way.
    fn settle_until(&mut self, now_ns: u64) {
        let Some(run) = self.run.filter(|run| run.steps > 1) else { return };
        let over = self.steps_within(now_ns - run.from_ns, run.steps - 1);
        let (from_ns, until_ns) = (run.from_ns + self.run_ns(over), run.from_ns + self.run_ns(over + 1));
        self.grow(over);
        self.busy_ns += from_ns - run.from_ns;
        self.run = Some(Run { from_ns, until_ns, steps: 1 });
    }

    /// How many whole steps of the present run fit into a time.
    fn steps_within(&self, span_ns: u64, most: u64) -> u64 {
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            (low, high) = if self.run_ns(middle) <= span_ns { (middle, high) } else { (low, middle - 1) };
        }
        low
    }

    /// Time of so many steps in which nothing changes but the length of answers.
    fn run_ns(&self, steps: u64) -> u64 {
        let kind = &self.kind;
        let (n, k) = (self.decoding.len() as f64, steps as f64);
        let one = kind.a0 + kind.d1 * n + kind.d2 * self.context as f64;
        nanos((k * one + kind.d2 * n * k * (k - 1.0) / 2.0) * kind.slow)
    }

    /// Begins the next step, or several if nothing comes between.
    fn begin(&mut self, now_ns: u64) {
        debug_assert!(self.run.is_none());
        let preempted = self.preempted;
        self.make_room();
        // Whoever just lost its place must not take it from the others again.
        self.plan(self.preempted == preempted);
        if self.running.is_empty() {
            return;
        }
        let answers = self.decoding.len() as u64;
        if !self.chunks.is_empty() {
            let ms =
                self.chunks_ms() + std::mem::take(&mut self.loading) as f64 * self.kind.host * self.kind.slow;
            let until_ns = now_ns + nanos(ms).max(1);
            self.run = Some(Run { from_ns: now_ns, until_ns, steps: 1 });
            return;
        }
        let first = self.decoding.first().map_or(1, |(last, _)| last - self.steps);
        let room = self.kind.kv_tokens.saturating_sub(self.tokens_used()) / answers.max(1);
        let steps = first.min(room).max(1);
        self.run = Some(Run { from_ns: now_ns, until_ns: now_ns + self.run_ns(steps).max(1), steps });
    }

    fn chunks_ms(&self) -> f64 {
        let kind = &self.kind;
        let mut ms = kind.a0 + kind.d1 * self.decoding.len() as f64 + kind.d2 * self.context as f64;
        for (key, tokens) in &self.chunks {
            let before = self.running.get(key).map_or(0.0, |one| f64::from(one.done));
            let p = f64::from(*tokens);
            ms += kind.a1 * p + kind.a2 * p * (before + p / 2.0);
        }
        ms * kind.slow
    }

    /// Every answer under way needs room for its next token: cached blocks go, and then the youngest request.
    fn make_room(&mut self) {
        loop {
            let needed = self.own + self.cache.resident() + self.decoding.len() as u64;
            let over = needed.saturating_sub(self.kind.kv_tokens);
            self.cache.evict(over.min(self.cache.idle()));
            if over <= self.cache.idle() || self.running.len() <= 1 {
                return self.cache.evict(over);
            }
            let Some(youngest) = self.running.keys().next_back().copied() else { return };
            let Some(mut sequence) = self.take(youngest) else { return };
            self.cache.unpin(&sequence.job.prefix[..sequence.pinned]);
            self.preempted += 1;
            (sequence.pinned, sequence.own, sequence.done) = (0, 0, 0);
            sequence.target = sequence.job.tokens_in + sequence.generated;
            self.waiting.push_front(sequence);
        }
    }

    /// What the next step does for prompts: those begun, and as many new ones as there is room for.
    fn plan(&mut self, admitting: bool) {
        let mut budget = self.kind.chunk_tokens;
        self.chunks.clear();
        for key in &self.prefilling {
            let Some(sequence) = self.running.get(key).filter(|_| budget > 0) else { continue };
            let tokens = (sequence.target - sequence.done).min(budget);
            self.chunks.push((*key, tokens));
            budget -= tokens;
        }
        while admitting && budget > 0 && self.running.len() < self.kind.sequences_max {
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            if !self.admit(&mut sequence) {
                return self.waiting.push_front(sequence);
            }
            self.admitted += 1;
            let tokens = (sequence.target - sequence.done).min(budget);
            self.chunks.push((self.admitted, tokens));
            self.prefilling.push_back(self.admitted);
            budget -= tokens;
            self.running.insert(self.admitted, sequence);
        }
    }

    /// Gives a request its place in the KV cache, if there is one.
    fn admit(&mut self, sequence: &mut Sequence) -> bool {
        let prefix = &sequence.job.prefix;
        // The last token is always computed: the next one comes from it.
        let whole = prefix.iter().take_while(|block| block.tokens < sequence.target).count();
        let matched = self.cache.matched(&prefix[..whole]);
        let (mut before, mut loaded) = (0, 0);
        for block in &prefix[..matched] {
            loaded += self.cache.pin(block.hash, block.tokens - before).unwrap_or(0);
            before = block.tokens;
        }
        let own = u64::from(sequence.target - before);
        let needed = self.own + self.cache.resident() + own + self.decoding.len() as u64;
        let over = needed.saturating_sub(self.kind.kv_tokens);
        if over > self.cache.idle() && !self.running.is_empty() {
            self.cache.unpin(&prefix[..matched]);
            let over = (self.own + self.cache.resident()).saturating_sub(self.kind.kv_tokens);
            self.cache.evict(over);
            return false;
        }
        self.cache.evict(over);
        self.own += own;
        self.loading += u64::from(loaded);
        (sequence.own, sequence.done, sequence.pinned) = (own, before, matched);
        sequence.tokens_cached.get_or_insert(before);
        true
    }
}

fn nanos(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

#[cfg(test)]
mod tests;
