//! Who gets which slot of a pool: everything is counted anew from the list of those that run, whenever it is asked for.

/// A pool as it is meant to be.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Requests that may run.
    pub slots: Option<u64>,
    /// Tokens that those may have.
    pub tokens: Option<u64>,
    /// By model.
    pub shares: Vec<Share>,
}

/// What a model gets of it.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Whether it is in the pool; one that is not runs whatever comes.
    pub inside: bool,
    /// Slots it has whenever it needs them.
    pub guarantee: u64,
    /// The same in tokens.
    pub guarantee_tokens: u64,
    /// Its share of the rest.
    pub weight: u64,
    /// The most slots it may have.
    pub cap: u64,
    /// The most tokens.
    pub cap_tokens: u64,
    /// Whether others may use what it is guaranteed.
    pub lend: bool,
}

/// A request: who it is, of which model, how many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub id: u64,
    /// The place of its model.
    pub model: usize,
    /// Its tokens.
    pub tokens: u64,
}

/// Why a request does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum No {
    Slot,
    OwnTokens,
    Tokens,
    KeptTokens,
}

/// A pool, slow.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// What it is meant to be.
    pub rules: Rules,
    /// What runs, in no order.
    pub running: Vec<Request>,
    /// What waits, by arrival.
    pub waiting: Vec<Request>,
    /// Who keeps those with a smaller claim waiting until it has its tokens.
    holder: Option<Request>,
    /// Who keeps others of its own model waiting.
    own_holders: Vec<Request>,
    /// Turns by weight.
    turns: Vec<u64>,
    turn: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(rules: Rules) -> Self {
        Self { turns: vec![0; rules.shares.len()], rules, ..Self::default() }
    }

    /// One comes: whether it runs at once.
    pub fn arrive(&mut self, request: Request) -> bool {
        let runs = self.obstacle(&request).is_none();
        if runs {
            self.run(request);
        } else {
            self.waiting.push(request);
        }
        runs
    }

    /// One that ran has ended: who runs now.
    pub fn end(&mut self, id: u64) -> Vec<u64> {
        let inside = self.running.iter().any(|one| one.id == id && self.rules.shares[one.model].inside);
        self.running.retain(|one| one.id != id);
        if inside { self.serve() } else { Vec::new() }
    }

    /// One that waited leaves: who runs now.
    pub fn leave(&mut self, id: u64) -> Vec<u64> {
        self.waiting.retain(|one| one.id != id);
        let held = self.holder.iter().chain(&self.own_holders).any(|one| one.id == id);
        if held { self.serve() } else { Vec::new() }
    }

    /// It is meant to be otherwise: who runs now.
    pub fn reload(&mut self, rules: Rules) -> Vec<u64> {
        self.rules = rules;
        let outside: Vec<Request> =
            self.waiting.iter().filter(|one| !self.rules.shares[one.model].inside).copied().collect();
        let mut served = Vec::new();
        for request in outside {
            self.waiting.retain(|one| one.id != request.id);
            self.run(request);
            served.push(request.id);
        }
        served.extend(self.serve());
        served
    }

    fn run(&mut self, request: Request) {
        if self.rules.shares[request.model].inside {
            self.turn = self.turn.max(self.turns[request.model]);
            self.turns[request.model] = self.turn + (1 << 32) / self.rules.shares[request.model].weight;
        }
        self.running.push(request);
    }

    /// Slots and tokens that a model has.
    pub fn used(&self, model: usize) -> (u64, u64) {
        let own = || self.running.iter().filter(|one| one.model == model);
        if self.rules.shares[model].inside {
            (own().count() as u64, own().map(|one| one.tokens).sum())
        } else {
            (0, 0)
        }
    }

    fn used_in_all(&self) -> (u64, u64) {
        let all = (0..self.rules.shares.len()).map(|model| self.used(model));
        all.fold((0, 0), |(slots, tokens), (more, and)| (slots + more, tokens + and))
    }

    /// How much a model has of its guarantee, as a fraction, if that is less than all of it.
    pub fn shortfall(&self, model: usize) -> Option<(u64, u64)> {
        let (slots, tokens) = self.used(model);
        let share = &self.rules.shares[model];
        let parts = [(slots, share.guarantee), (tokens, share.guarantee_tokens)];
        let parts = parts.into_iter().filter(|(_, whole)| *whole > 0);
        let most = parts.max_by(|a, b| less(*a, *b))?;
        (most.0 < most.1).then_some(most)
    }

    fn has_slot(&self, model: usize) -> bool {
        let share = &self.rules.shares[model];
        let free = self.rules.slots.map_or(u64::MAX, |slots| slots.saturating_sub(self.used_in_all().0));
        let kept: u64 = self
            .others(model)
            .map(|other| self.rules.shares[other].guarantee.saturating_sub(self.used(other).0))
            .sum();
        free > 0 && self.used(model).0 < share.cap && (free > kept || self.shortfall(model).is_some())
    }

    /// Other models that keep their guarantees to themselves.
    fn others(&self, model: usize) -> impl Iterator<Item = usize> {
        let shares = self.rules.shares.iter().enumerate();
        shares.filter(move |(at, one)| *at != model && one.inside && !one.lend).map(|(at, _)| at)
    }

    /// What speaks against a request.
    fn obstacle(&self, request: &Request) -> Option<No> {
        let model = request.model;
        let share = &self.rules.shares[model];
        if !share.inside {
            return None;
        }
        let ((own_slots, own_tokens), (slots, tokens)) = (self.used(model), self.used_in_all());
        if !self.has_slot(model) {
            return Some(No::Slot);
        }
        let own_waits = self.own_holders.iter().any(|holder| holder.model == model);
        if own_waits || (own_slots > 0 && own_tokens + request.tokens > share.cap_tokens) {
            return Some(No::OwnTokens);
        }
        let first = |holder: &Request| {
            model != holder.model && self.shortfall(model).is_some() && self.shortfall(holder.model).is_none()
        };
        let waits = self.holder.as_ref().is_some_and(|holder| !first(holder));
        let most = self.rules.tokens.unwrap_or(u64::MAX);
        if waits || (slots > 0 && tokens + request.tokens > most) {
            return Some(No::Tokens);
        }
        let kept: u64 = self
            .others(model)
            .map(|other| self.rules.shares[other].guarantee_tokens.saturating_sub(self.used(other).1))
            .sum();
        let short = most.saturating_sub(tokens).saturating_sub(kept) < request.tokens;
        (kept > 0 && slots > 0 && short && self.shortfall(model).is_none()).then_some(No::KeptTokens)
    }

    /// Gives what is free to whoever waits, one by one, the largest claim first.
    fn serve(&mut self) -> Vec<u64> {
        (self.holder, self.own_holders) = (None, Vec::new());
        let (mut served, mut passed) = (Vec::new(), Vec::new());
        loop {
            let models = 0..self.rules.shares.len();
            let heads = models.filter_map(|model| self.waiting.iter().find(|one| one.model == model));
            let able = heads.filter(|one| !passed.contains(&one.model) && self.has_slot(one.model));
            let Some(next) = able.min_by(|a, b| self.claim(a.model, b.model)).copied() else { return served };
            match self.obstacle(&next) {
                None => {
                    self.waiting.retain(|one| one.id != next.id);
                    self.run(next);
                    served.push(next.id);
                }
                Some(No::Tokens) => {
                    self.holder = Some(next);
                    return served;
                }
                Some(No::OwnTokens) => {
                    self.own_holders.push(next);
                    passed.push(next.model);
                }
                Some(No::KeptTokens | No::Slot) => passed.push(next.model),
            }
        }
    }

    /// Which of two models has the larger claim; that one is less.
    fn claim(&self, a: usize, b: usize) -> std::cmp::Ordering {
        use std::cmp::Ordering::{Greater, Less};
        let shares = match (self.shortfall(a), self.shortfall(b)) {
            (Some(_), None) => Less,
            (None, Some(_)) => Greater,
            (Some(a), Some(b)) => less(a, b),
            (None, None) => less(self.per_weight(a), self.per_weight(b)),
        };
        shares.then(self.turns[a].cmp(&self.turns[b])).then(a.cmp(&b))
    }

    fn per_weight(&self, model: usize) -> (u64, u64) {
        let (slots, tokens) = self.used(model);
        let weight = self.rules.shares[model].weight;
        let parts = [(slots, self.rules.slots), (tokens, self.rules.tokens)];
        let parts = parts.into_iter().filter_map(|(used, size)| Some((used, size? * weight)));
        parts.max_by(|a, b| less(*a, *b)).unwrap_or((slots, weight))
    }
}

fn less(a: (u64, u64), b: (u64, u64)) -> std::cmp::Ordering {
    (u128::from(a.0) * u128::from(b.1)).cmp(&(u128::from(b.0) * u128::from(a.1)))
}
