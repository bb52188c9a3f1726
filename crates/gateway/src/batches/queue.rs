//! Which line of which batch is next: tenants take turns, then batches, and lines of a model that had no room wait together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::line::Job;
use super::lines::Line;
use super::rows::BatchRow;

/// Lines of one batch that may be looked past because their models have no room.
const PARKED_MAX: usize = 1024;
/// The longest that a model is left alone that had no room and does not say for how long.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// The batches that this process carries out.
#[derive(Default)]
pub struct Queue {
    /// By age.
    pub active: BTreeMap<i64, Active>,
    /// Models that had no room.
    pauses: BTreeMap<String, Pause>,
    under_way: u32,
    /// The batch that had its turn last.
    last: i64,
}

/// A batch that this process carries out.
pub struct Active {
    /// As it stood in the store at the last look.
    pub row: BatchRow,
    /// Once its input is open.
    pub job: Option<Rc<Job>>,
    /// A step of the whole batch is under way.
    pub busy: bool,
    /// Its lines that are under way.
    pub under_way: u32,
    /// The last line that was taken from the store.
    pub cursor: i64,
    /// There are no more lines to take from the store.
    exhausted: bool,
    ready: VecDeque<Line>,
    /// Lines that wait for their models, by model.
    parked: BTreeMap<String, VecDeque<Line>>,
}

/// A model that had no room.
struct Pause {
    until_ms: i64,
    /// How often in a row.
    times: u32,
    /// A line looks whether there is room again.
    probing: bool,
}

impl Active {
    fn new(row: BatchRow) -> Self {
        Self {
            row,
            job: None,
            busy: false,
            under_way: 0,
            cursor: 0,
            exhausted: false,
            ready: VecDeque::new(),
            parked: BTreeMap::new(),
        }
    }

    /// Nothing more of it is sent.
    pub fn stop(&mut self) {
        self.ready.clear();
        self.parked.clear();
        self.exhausted = true;
        if let Some(job) = &self.job {
            job.stop.send_replace(true);
        }
    }

    /// Whether every line was taken and has ended.
    pub fn is_done(&self) -> bool {
        self.job.is_some()
            && self.exhausted
            && self.under_way == 0
            && self.ready.is_empty()
            && self.parked.is_empty()
    }

    /// Takes in lines from the store, where `asked` were wanted.
    pub fn add(&mut self, lines: Vec<Line>, asked: usize) {
        self.exhausted |= lines.len() < asked;
        self.cursor = lines.last().map_or(self.cursor, |line| line.number);
        self.ready.extend(lines);
    }

    fn parked(&self) -> usize {
        self.parked.values().map(VecDeque::len).sum()
    }
}

impl Queue {
    /// Takes in what this process holds. What it holds no longer is stopped, and forgotten once nothing of it is under
    /// way.
    pub fn take_in(&mut self, held: Vec<BatchRow>) {
        let known: BTreeSet<i64> = held.iter().map(|row| row.seq).collect();
        for (_, gone) in self.active.iter_mut().filter(|(seq, _)| !known.contains(seq)) {
            gone.stop();
        }
        self.active.retain(|seq, one| known.contains(seq) || one.busy || one.under_way > 0);
        for row in held {
            match self.active.get_mut(&row.seq) {
                Some(active) => active.row = row,
                None => drop(self.active.insert(row.seq, Active::new(row))),
            }
        }
    }

    /// Lines under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Batches that need lines from the store to go on, while fewer than `most` lines are under way.
    pub fn hungry(&self, most: u32) -> Vec<i64> {
        if self.under_way >= most {
            return Vec::new();
        }
        let hungry = |one: &Active| {
            one.job.is_some()
                && !one.busy
                && !one.exhausted
                && one.ready.is_empty()
                && one.parked() < PARKED_MAX
        };
        self.active.iter().filter(|(_, one)| hungry(one)).map(|(seq, _)| *seq).collect()
    }

    /// The line whose turn it is, which is under way from now on.
    pub fn next(&mut self, now_ms: i64) -> Option<(i64, Rc<Job>, Line)> {
        let after: Vec<i64> = self.active.range(self.last + 1..).map(|(seq, _)| *seq).collect();
        let before = self.active.range(..=self.last).map(|(seq, _)| *seq);
        let mut turns: Vec<i64> = after.into_iter().chain(before).collect();
        // However many batches a tenant has, it has no more lines under way than the others.
        let mut of_tenant: BTreeMap<&str, u32> = BTreeMap::new();
        for active in self.active.values() {
            *of_tenant.entry(&active.row.tenant).or_default() += active.under_way;
        }
        turns.sort_by_key(|seq| self.active.get(seq).and_then(|one| of_tenant.get(&*one.row.tenant)));
        for seq in turns {
            let Some(active) = self.active.get_mut(&seq) else { continue };
            let (Some(job), false) = (active.job.clone(), active.busy) else { continue };
            if let Some(line) = startable(active, &mut self.pauses, now_ms) {
                active.under_way += 1;
                self.under_way += 1;
                self.last = seq;
                return Some((seq, job, line));
            }
        }
        None
    }

    /// A line is not under way any more.
    pub fn ended(&mut self, seq: i64) {
        self.under_way -= 1;
        if let Some(active) = self.active.get_mut(&seq) {
            active.under_way -= 1;
        }
    }

    /// A model answered, however it did: there is room.
    pub fn served(&mut self, model: &str) {
        self.pauses.remove(model);
    }

    /// A model had no room for a line, which waits for it from now on.
    pub fn refused(&mut self, seq: i64, line: Line, after: Duration, now_ms: i64) {
        let pause = self.pauses.entry(line.model.clone()).or_insert(Pause {
            until_ms: i64::MIN,
            times: 0,
            probing: false,
        });
        // Those that were sent along with the first to be refused say nothing new.
        if now_ms >= pause.until_ms {
            let doubled = Duration::from_millis(500 << pause.times.min(10)).min(PAUSE_MAX);
            pause.times += 1;
            pause.until_ms = now_ms.saturating_add(after.max(doubled).as_millis() as i64);
        }
        pause.probing = false;
        if let Some(active) = self.active.get_mut(&seq).filter(|active| !active.is_stopped()) {
            active.parked.entry(line.model.clone()).or_default().push_front(line);
        }
    }

    /// Time until a model that had no room may be asked again.
    pub fn until_next(&self, now_ms: i64) -> Duration {
        let next = self.pauses.values().filter(|pause| !pause.probing).map(|pause| pause.until_ms);
        let next = next.filter(|until_ms| *until_ms > now_ms).min();
        next.map_or(Duration::MAX, |until_ms| Duration::from_millis((until_ms - now_ms).cast_unsigned()))
    }
}

impl Active {
    fn is_stopped(&self) -> bool {
        self.job.as_ref().is_some_and(|job| *job.stop.borrow())
    }
}

/// Whether a line of the model may be started; the first after a pause looks for the others.
fn may_ask(pauses: &mut BTreeMap<String, Pause>, model: &str, now_ms: i64) -> bool {
    let Some(pause) = pauses.get_mut(model) else { return true };
    let may = now_ms >= pause.until_ms && !pause.probing;
    pause.probing |= may;
    may
}

fn startable(active: &mut Active, pauses: &mut BTreeMap<String, Pause>, now_ms: i64) -> Option<Line> {
    for (model, lines) in &mut active.parked {
        if may_ask(pauses, model, now_ms)
            && let Some(line) = lines.pop_front()
        {
            active.parked.retain(|_, lines| !lines.is_empty());
            return Some(line);
        }
    }
    while let Some(line) = active.ready.pop_front() {
        if may_ask(pauses, &line.model, now_ms) {
            return Some(line);
        }
        active.parked.entry(line.model.clone()).or_default().push_back(line);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::lines::Claim;
    use crate::batches::rows::Status;

    fn row(seq: i64) -> BatchRow {
        BatchRow {
            seq,
            id: format!("batch_{seq}"),
            tenant: "t".into(),
            key: None,
            endpoint: "/v1/embeddings".into(),
            input_file_id: "file-1".into(),
            metadata: None,
            status: Status::InProgress,
            errors: None,
            output_file_id: None,
            error_file_id: None,
            output_keep_s: None,
            created_at: 0,
            in_progress_at: None,
            expires_at: 0,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            total: 0,
            completed: 0,
            failed: 0,
            tokens: (0, 0, 0),
        }
    }

    fn line(number: i64, model: &str) -> Line {
        Line { number, start: 0, bytes: 0, custom_id: String::new(), model: model.into() }
    }

    /// Batches with these models in their lines.
    fn queue(batches: &[&[&str]]) -> Queue {
        let folder = tempfile::tempdir().expect("a folder");
        let config = pointsman_settings::batches::BatchesConfig {
            directory: folder.path().to_owned(),
            ..Default::default()
        };
        let config = pointsman_settings::Config { batches: Some(config), ..Default::default() };
        let shared = crate::batches::Batches::open(&config, 1).expect("opens").expect("configured");
        let mut queue = Queue::default();
        queue.take_in((1..=batches.len() as i64).map(row).collect());
        for (seq, active) in &mut queue.active {
            active.job = Some(Rc::new(Job {
                batches: std::sync::Arc::clone(&shared),
                claim: Claim { owner: "o".into(), batch: *seq },
                id: "b".into(),
                tenant: "t".into(),
                key: None,
                operation: pointsman_wire::openai::request::Operation::Embedding,
                input: std::sync::Arc::new(std::fs::File::open(folder.path()).expect("open")),
                stop: tokio::sync::watch::Sender::new(false),
            }));
            let models = batches[*seq as usize - 1];
            let lines = models.iter().enumerate().map(|(at, model)| line(at as i64 + 1, model));
            active.add(lines.collect(), usize::MAX);
        }
        queue
    }

    fn started(queue: &mut Queue, now_ms: i64) -> Vec<(i64, i64)> {
        std::iter::from_fn(|| queue.next(now_ms).map(|(seq, _, line)| (seq, line.number))).collect()
    }

    #[test]
    fn batches_take_turns() {
        let mut queue = queue(&[&["a"; 3], &["a"; 1], &["a"; 2]]);
        assert_eq!(started(&mut queue, 0), [(1, 1), (2, 1), (3, 1), (1, 2), (3, 2), (1, 3)]);
        assert_eq!(queue.under_way(), 6);
    }

    #[test]
    fn a_tenant_with_many_batches_has_no_more_lines_under_way_than_another() {
        let mut queue = queue(&[&["a"; 4], &["a"; 4], &["a"; 4], &["a"; 4]]);
        if let Some(active) = queue.active.get_mut(&4) {
            active.row.tenant = "small".into();
        }
        let first: Vec<i64> = started(&mut queue, 0).into_iter().take(8).map(|(seq, _)| seq).collect();
        assert_eq!(first.iter().filter(|seq| **seq == 4).count(), 4, "{first:?}");
    }

    #[test]
    fn a_model_without_room_is_looked_past_and_asked_again_by_one_line() {
        let mut queue = queue(&[&["full", "free", "full", "full", "free"]]);
        let (seq, _, first) = queue.next(0).expect("the first");
        queue.refused(seq, first, Duration::from_secs(2), 0);
        queue.ended(seq);
        assert_eq!(started(&mut queue, 0), [(1, 2), (1, 5)], "those of the other model go on");
        assert_eq!(queue.until_next(0), Duration::from_secs(2));
        assert_eq!(started(&mut queue, 1_999), []);
        assert_eq!(started(&mut queue, 2_000), [(1, 1)], "one looks for all");
        queue.served("full");
        assert_eq!(started(&mut queue, 2_000), [(1, 3), (1, 4)]);
        assert!(!queue.active[&1].is_done(), "its lines are under way");
        (0..5).for_each(|_| queue.ended(1));
        assert!(queue.active[&1].is_done() && queue.under_way() == 0);
    }

    #[test]
    fn pauses_grow_with_each_refusal_in_a_row_and_not_with_those_beside_the_first() {
        let mut queue = queue(&[&["m"; 3]]);
        let mut now_ms = 0;
        let three: Vec<_> = (0..3).filter_map(|_| queue.next(now_ms)).collect();
        for (seq, _, line) in three {
            queue.refused(seq, line, Duration::ZERO, now_ms);
        }
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(queue.until_next(now_ms).as_millis());
            now_ms += *waits.last().expect("a wait") as i64;
            let (seq, _, line) = queue.next(now_ms).expect("one may ask");
            queue.refused(seq, line, Duration::ZERO, now_ms);
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn what_another_process_holds_is_stopped() {
        let mut queue = queue(&[&["m"; 2], &["m"; 2]]);
        let (_, job, _) = queue.next(0).expect("of the first");
        queue.take_in(vec![row(2)]);
        assert!(*job.stop.borrow());
        assert_eq!(started(&mut queue, 0), [(2, 1), (2, 2)]);
        queue.ended(1);
        queue.take_in(vec![row(2)]);
        assert!(!queue.active.contains_key(&1), "forgotten with its last line");
    }
}
