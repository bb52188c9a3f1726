//! Idempotency keys: which request is the first with its key, who gets the first one's answer, and for how long it is
//! kept (the IETF draft `httpapi-idempotency-key-header`).
//!
//! The ledger holds a handle to each answer, never a byte of it; the shell that owns the bytes says how many there are.
//! A key is free, running (its first request is under way), kept (its answer can be given again) or spent (it was
//! answered, but the answer cannot be given again: it was too large, or room was needed). A spent key stays taken, for
//! to run its request again would be the second call that the key is there to prevent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Now;

/// Who a key belongs to and for what: a digest over tenant, operation and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(pub [u8; 32]);

/// What was asked under a key: a digest over the operation and the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// Bounds of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Keys that are remembered. 0: none, so that no key means anything.
    pub entries_max: usize,
    /// Bytes an answer may have to be kept.
    pub answer_bytes_max: u64,
    /// Bytes of all answers together.
    pub bytes_max: u64,
    /// How long a key is remembered after its answer came to its end.
    pub ttl: Duration,
}

/// What a request with a key is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim<A> {
    /// It is the first: it asks upstream, and ends its turn with [`Ledger::end`].
    Lead(Turn, A),
    /// The first is under way: it gets what the first gets.
    Join(A),
    /// The first was answered: it gets the same.
    Replay(A),
    /// The key was used for something else.
    Conflict,
    /// The first was answered, or is about to be, with more than can be given again.
    Spent,
    /// Every key that may be remembered is under way.
    Full,
}

/// The right and the duty to end what was begun under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    scope: Scope,
    serial: u64,
}

#[derive(Debug, Clone)]
struct Entry<A> {
    fingerprint: Fingerprint,
    serial: u64,
    /// Bytes of its answer that count against the limits.
    bytes: u64,
    state: State<A>,
}

#[derive(Debug, Clone)]
enum State<A> {
    /// The first request is under way; others may join.
    Running(A),
    /// It is under way, and its answer is too large to be given again.
    Overflowing,
    /// Its answer can be given again until then.
    Kept(A, Now),
    /// It was answered, and the answer cannot be given again; the key is taken until then.
    Spent(Now),
}

/// What is known of all keys.
#[derive(Debug)]
pub struct Ledger<A> {
    limits: Limits,
    entries: BTreeMap<Scope, Entry<A>>,
    /// Ended ones by when they are forgotten.
    ended: BTreeMap<(Now, u64), Scope>,
    /// Of those, the ones whose answers take room.
    kept: BTreeMap<(Now, u64), Scope>,
    serial: u64,
    bytes: u64,
    evicted: u64,
}

impl<A: Clone> Ledger<A> {
    /// An empty ledger.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            ended: BTreeMap::new(),
            kept: BTreeMap::new(),
            serial: 0,
            bytes: 0,
            evicted: 0,
        }
    }

    /// Other bounds hold from now on. What is under way stays, whatever its number.
    pub fn configure(&mut self, limits: Limits) {
        self.limits = limits;
        while self.entries.len() > limits.entries_max && self.forget_oldest() {}
        self.make_room(0);
    }

    /// Whether keys mean anything.
    pub const fn is_on(&self) -> bool {
        self.limits.entries_max > 0
    }

    /// A request with a key came; `answer` makes the handle of its answer if it is the first.
    pub fn claim(
        &mut self,
        scope: Scope,
        fingerprint: Fingerprint,
        now: Now,
        answer: impl FnOnce(Turn) -> A,
    ) -> Claim<A> {
        self.expire(now);
        if let Some(entry) = self.entries.get(&scope) {
            if entry.fingerprint != fingerprint {
                return Claim::Conflict;
            }
            return match &entry.state {
                State::Running(answer) => Claim::Join(answer.clone()),
                State::Kept(answer, _) => Claim::Replay(answer.clone()),
                State::Overflowing | State::Spent(_) => Claim::Spent,
            };
        }
        if self.entries.len() >= self.limits.entries_max && !self.forget_oldest() {
            return Claim::Full;
        }
        self.serial += 1;
        let turn = Turn { scope, serial: self.serial };
        let answer = answer(turn);
        let state = State::Running(answer.clone());
        self.entries.insert(scope, Entry { fingerprint, serial: self.serial, bytes: 0, state });
        Claim::Lead(turn, answer)
    }

    /// The answer has so many bytes more. `false`: it is too large to be given again, and nobody can join any more; its
    /// bytes count no longer.
    pub fn grow(&mut self, turn: Turn, bytes: u64) -> bool {
        let Some(entry) = self.entry(turn).filter(|entry| matches!(entry.state, State::Running(_))) else {
            return false;
        };
        let total = entry.bytes + bytes;
        if total <= self.limits.answer_bytes_max && self.make_room(bytes) {
            self.bytes += bytes;
            if let Some(entry) = self.entry(turn) {
                entry.bytes = total;
            }
            return true;
        }
        if let Some(entry) = self.entry(turn) {
            let freed = std::mem::take(&mut entry.bytes);
            entry.state = State::Overflowing;
            self.bytes -= freed;
        }
        false
    }

    /// The first request of a key is over. If its answer is not worth keeping the key is free again. Whoever ends a turn
    /// that is over already changes nothing.
    pub fn end(&mut self, turn: Turn, keep: bool, now: Now) {
        let until = now + self.limits.ttl;
        let Some(entry) = self.entry(turn) else { return };
        let place = (until, turn.serial);
        match &entry.state {
            State::Kept(..) | State::Spent(_) => return,
            State::Running(answer) if keep => {
                entry.state = State::Kept(answer.clone(), until);
                self.kept.insert(place, turn.scope);
            }
            State::Overflowing if keep => entry.state = State::Spent(until),
            State::Running(_) | State::Overflowing => {
                self.remove(turn.scope);
                return;
            }
        }
        self.ended.insert(place, turn.scope);
    }

    /// Forgets what is over its time.
    pub fn expire(&mut self, now: Now) {
        while let Some((&(until, _), &scope)) = self.ended.first_key_value() {
            if until > now {
                return;
            }
            self.remove(scope);
        }
    }

    /// Keys that are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all answers.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keys or answers that were given up before their time because room was needed.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn entry(&mut self, turn: Turn) -> Option<&mut Entry<A>> {
        self.entries.get_mut(&turn.scope).filter(|entry| entry.serial == turn.serial)
    }

    /// Gives up the oldest answers until so many bytes fit. Their keys stay taken.
    fn make_room(&mut self, bytes: u64) -> bool {
        while self.bytes + bytes > self.limits.bytes_max {
            let Some((place, scope)) = self.kept.pop_first() else { return false };
            self.evicted += 1;
            if let Some(entry) = self.entries.get_mut(&scope) {
                self.bytes -= std::mem::take(&mut entry.bytes);
                entry.state = State::Spent(place.0);
            }
        }
        true
    }

    /// Forgets the key that would be forgotten next. `false`: all are under way.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, &scope)) = self.ended.first_key_value() else { return false };
        self.evicted += 1;
        self.remove(scope);
        true
    }

    fn remove(&mut self, scope: Scope) {
        let Some(entry) = self.entries.remove(&scope) else { return };
        self.bytes -= entry.bytes;
        if let State::Kept(_, until) | State::Spent(until) = entry.state {
            self.ended.remove(&(until, entry.serial));
            self.kept.remove(&(until, entry.serial));
        }
    }
}

/// How an answer ended, as far as it matters to whether it is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The status it had.
    pub status: u16,
    /// Whether all of it came, properly ended.
    pub complete: bool,
    /// Whether a deployment gave it, rather than the router itself.
    pub by_deployment: bool,
}

impl Ending {
    /// Whether the answer is given again: a good one, or an error of a deployment about the request itself. What speaks
    /// of the moment, of rights or of quotas may be another answer a second later.
    pub const fn is_worth_keeping(self) -> bool {
        let about_the_request = match self.status {
            401..=404 | 407..=409 | 423..=425 | 429 => false,
            200..=299 | 400..=498 => true,
            _ => false,
        };
        self.complete && self.by_deployment && about_the_request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { entries_max: 3, answer_bytes_max: 100, bytes_max: 150, ttl: Duration::from_secs(60) };

    fn ask(ledger: &mut Ledger<u64>, key: u8, body: u8, now: Now) -> Claim<u64> {
        ledger.claim(Scope([key; 32]), Fingerprint([body; 32]), now, |turn| turn.serial)
    }

    fn lead(ledger: &mut Ledger<u64>, key: u8, now: Now) -> Turn {
        let claim = ask(ledger, key, key, now);
        let Claim::Lead(turn, _) = claim else { panic!("{claim:?}") };
        turn
    }

    fn at(seconds: u64) -> Now {
        Now::ZERO + Duration::from_secs(seconds)
    }

    /// One answered request of `bytes` under `key`.
    fn answer(ledger: &mut Ledger<u64>, key: u8, bytes: u64, now: Now) {
        let turn = lead(ledger, key, now);
        ledger.grow(turn, bytes);
        ledger.end(turn, true, now);
    }

    #[test]
    fn e7_one_leads_others_join_and_later_ones_replay() {
        let mut ledger = Ledger::new(LIMITS);
        let turn = lead(&mut ledger, 1, at(0));
        assert_eq!(ask(&mut ledger, 1, 1, at(1)), Claim::Join(1));
        assert_eq!(ask(&mut ledger, 1, 2, at(1)), Claim::Conflict, "another body");
        assert!(ledger.grow(turn, 40));
        ledger.end(turn, true, at(2));
        assert_eq!(ask(&mut ledger, 1, 1, at(61)), Claim::Replay(1));
        assert_eq!(ask(&mut ledger, 1, 2, at(61)), Claim::Conflict, "another body");
        assert_eq!(ledger.bytes(), 40);
        assert!(matches!(ask(&mut ledger, 1, 2, at(62)), Claim::Lead(..)), "after its time it is forgotten");
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn what_is_not_worth_keeping_frees_its_key() {
        let mut ledger = Ledger::new(LIMITS);
        let first = lead(&mut ledger, 1, at(0));
        ledger.grow(first, 10);
        ledger.end(first, false, at(1));
        assert_eq!((ledger.len(), ledger.bytes()), (0, 0));
        let second = lead(&mut ledger, 1, at(1));
        ledger.end(first, false, at(1));
        assert_eq!(ask(&mut ledger, 1, 1, at(1)), Claim::Join(2), "an old turn ends nothing");
        ledger.end(second, true, at(1));
        ledger.end(second, false, at(1));
        assert_eq!(ask(&mut ledger, 1, 1, at(1)), Claim::Replay(2), "nor does one that is over");
    }

    #[test]
    fn an_answer_that_is_too_large_leaves_its_key_spent() {
        let mut ledger = Ledger::new(LIMITS);
        let turn = lead(&mut ledger, 1, at(0));
        assert!(ledger.grow(turn, 100));
        assert!(!ledger.grow(turn, 1));
        assert!(!ledger.grow(turn, 0), "it stays so");
        assert_eq!((ask(&mut ledger, 1, 1, at(0)), ledger.bytes()), (Claim::Spent, 0));
        ledger.end(turn, true, at(0));
        assert_eq!(ask(&mut ledger, 1, 1, at(1)), Claim::Spent);
        assert!(matches!(ask(&mut ledger, 1, 1, at(60)), Claim::Lead(..)));
    }

    #[test]
    fn answers_give_way_oldest_first_and_their_keys_stay_taken() {
        let mut ledger = Ledger::new(LIMITS);
        answer(&mut ledger, 1, 80, at(0));
        answer(&mut ledger, 2, 60, at(1));
        let third = lead(&mut ledger, 3, at(2));
        assert!(ledger.grow(third, 90));
        assert_eq!((ledger.bytes(), ledger.evicted()), (150, 1));
        assert_eq!(ask(&mut ledger, 1, 1, at(2)), Claim::Spent);
        assert_eq!(ask(&mut ledger, 2, 2, at(2)), Claim::Replay(2));
        let mut small = Ledger::new(Limits { bytes_max: 50, ..LIMITS });
        let turn = lead(&mut small, 1, at(0));
        assert!(!small.grow(turn, 60), "nothing gives way to what would not fit at all");
    }

    #[test]
    fn keys_are_bounded_and_those_under_way_are_never_forgotten() {
        let mut ledger = Ledger::new(LIMITS);
        let running = lead(&mut ledger, 1, at(0));
        answer(&mut ledger, 2, 1, at(0));
        answer(&mut ledger, 3, 1, at(1));
        lead(&mut ledger, 4, at(2));
        assert_eq!(ask(&mut ledger, 1, 1, at(2)), Claim::Join(1));
        assert!(matches!(ask(&mut ledger, 2, 2, at(2)), Claim::Lead(..)), "3 gave way to 2");
        assert_eq!(ask(&mut ledger, 5, 5, at(2)), Claim::Full);
        ledger.end(running, false, at(3));
        assert!(matches!(ask(&mut ledger, 5, 5, at(3)), Claim::Lead(..)));
        assert_eq!(ledger.len(), 3);
    }

    #[test]
    fn other_bounds_hold_at_once() {
        let mut ledger = Ledger::new(LIMITS);
        answer(&mut ledger, 1, 50, at(0));
        answer(&mut ledger, 2, 50, at(0));
        ledger.configure(Limits { entries_max: 1, ..LIMITS });
        assert_eq!((ledger.len(), ledger.bytes()), (1, 50));
        ledger.configure(Limits { bytes_max: 10, ..LIMITS });
        assert_eq!((ask(&mut ledger, 2, 2, at(0)), ledger.bytes()), (Claim::Spent, 0));
        ledger.configure(Limits { entries_max: 0, ..LIMITS });
        assert!(ledger.is_empty() && !ledger.is_on());
    }

    #[test]
    fn what_is_worth_keeping_is_about_the_request() {
        for (status, expected) in [
            (200, true),
            (201, true),
            (400, true),
            (413, true),
            (422, true),
            (401, false),
            (403, false),
            (404, false),
            (408, false),
            (409, false),
            (429, false),
            (499, false),
            (500, false),
            (503, false),
        ] {
            let ending = Ending { status, complete: true, by_deployment: true };
            assert_eq!(ending.is_worth_keeping(), expected, "{status}");
            assert!(!Ending { complete: false, ..ending }.is_worth_keeping());
            assert!(!Ending { by_deployment: false, ..ending }.is_worth_keeping());
        }
    }
}
