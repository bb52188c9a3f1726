//! How much may be sent again: a share of what is sent anyway, so that a failing provider does not get a storm.

use std::time::Duration;

use crate::time::Now;

/// Seconds that the budget looks back.
const WINDOW_S: usize = 10;
/// Share of requests, and of their tokens, that may be sent again.
const SHARE: f64 = 0.2;
/// Sendings again a second that are always allowed, so that a model with little traffic can fail over at all.
const MIN_PER_S: u64 = 10;

/// One budget for everything that sends a request again: retries, failovers, hedges (the retry budget of Finagle: 20 %
/// of the requests of the last ten seconds, at least ten a second). Counted in requests and in tokens; both must
/// suffice, for one request again can be worth a hundred others. O(1) in time and space.
#[derive(Debug, Clone, Default)]
pub struct RetryBudget {
    seconds: [Second; WINDOW_S],
    /// The second that is counted in now.
    at_s: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    requests: u64,
    tokens: u64,
    again: u64,
    tokens_again: u64,
}

impl RetryBudget {
    /// A request of this many tokens arrived.
    pub fn note_request(&mut self, tokens: u64, now: Now) {
        let second = self.second(now);
        second.requests += 1;
        second.tokens = second.tokens.saturating_add(tokens);
    }

    /// Takes what sending a request of this many tokens again costs, if there is as much.
    pub fn withdraw(&mut self, tokens: u64, now: Now) -> bool {
        if self.remaining(tokens, now) == 0 {
            return false;
        }
        let second = self.second(now);
        second.again += 1;
        second.tokens_again = second.tokens_again.saturating_add(tokens);
        true
    }

    /// How many requests of this many tokens may be sent again now.
    pub fn remaining(&mut self, tokens: u64, now: Now) -> u64 {
        self.second(now);
        let sum = |of: fn(&Second) -> u64| self.seconds.iter().map(of).fold(0, u64::saturating_add);
        let (requests, all_tokens) = (sum(|second| second.requests), sum(|second| second.tokens));
        let always = MIN_PER_S * WINDOW_S as u64;
        let allowed = always.max((requests as f64 * SHARE) as u64);
        let left = allowed.saturating_sub(sum(|second| second.again));
        // What is always allowed is worth as many usual requests.
        let usual = all_tokens.checked_div(requests).unwrap_or(tokens).max(1);
        let allowed_tokens = always.saturating_mul(usual).max((all_tokens as f64 * SHARE) as u64);
        let left_tokens = allowed_tokens.saturating_sub(sum(|second| second.tokens_again));
        // One that is larger than what is left may go on credit, or no large request could ever fail over.
        left.min(left_tokens.div_ceil(tokens.max(1)))
    }

    /// How many requests of the usual size may be sent again now.
    pub fn remaining_usual(&mut self, now: Now) -> u64 {
        self.second(now);
        let sum = |of: fn(&Second) -> u64| self.seconds.iter().map(of).fold(0, u64::saturating_add);
        let usual = sum(|second| second.tokens).checked_div(sum(|second| second.requests)).unwrap_or(1);
        self.remaining(usual, now)
    }

    fn second(&mut self, now: Now) -> &mut Second {
        let now_s = now.since(Now::ZERO).as_secs();
        let passed = now_s.saturating_sub(self.at_s).min(WINDOW_S as u64);
        for past in 0..passed {
            self.seconds[((now_s - past) % WINDOW_S as u64) as usize] = Second::default();
        }
        self.at_s = self.at_s.max(now_s);
        &mut self.seconds[(self.at_s % WINDOW_S as u64) as usize]
    }
}

/// How long to wait before a request is sent to the same place again: twice as long each time, with a jitter of a half.
pub(crate) fn backoff(times: u32, unit: f64) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    FIRST.saturating_mul(1 << times.min(8)).mul_f64(0.5 + unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now::from_millis(second * 1000)
    }

    fn withdrawn(budget: &mut RetryBudget, tokens: u64, now: Now) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(tokens, now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_sent_again() {
        let mut budget = RetryBudget::default();
        for second in 0..20 {
            for _ in 0..200 {
                budget.note_request(100, at(second));
            }
        }
        assert_eq!(withdrawn(&mut budget, 100, at(19)), 400, "of 2,000 in ten seconds");
        assert_eq!(withdrawn(&mut budget, 100, at(19)), 0);
    }

    #[test]
    fn little_traffic_may_fail_over_too() {
        let mut budget = RetryBudget::default();
        budget.note_request(100, at(5));
        assert_eq!(withdrawn(&mut budget, 100, at(5)), 100, "ten a second over ten seconds");
        assert_eq!(withdrawn(&mut budget, 100, at(14)), 0);
        assert_eq!(withdrawn(&mut budget, 100, at(15)), 100, "what is ten seconds old is forgotten");
    }

    #[test]
    fn tokens_count_as_well() {
        let mut budget = RetryBudget::default();
        for _ in 0..2000 {
            budget.note_request(100, at(1));
        }
        assert_eq!(withdrawn(&mut budget, 10_000, at(1)), 4, "each is worth a hundred others");
    }

    #[test]
    fn waits_double_with_jitter() {
        assert_eq!(backoff(0, 0.5), Duration::from_millis(100));
        assert_eq!(backoff(2, 0.0), Duration::from_millis(200));
        assert!(backoff(99, 1.0) < Duration::from_mins(1));
    }
}
