//! What goes wrong in a world, where, when and how.

use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::{Failure, FailureClass, Now};
use serde::Deserialize;

/// Something that goes wrong with one deployment for a time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The deployment, by name.
    pub deployment: String,
    /// When it begins, seconds.
    pub from_s: f64,
    /// When it ends, seconds.
    pub until_s: f64,
    /// What happens.
    pub what: What,
}

/// What happens to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// It refuses connections, and what it has in flight is lost.
    Crash,
    /// Connections to it are never answered.
    BlackHole,
    /// It takes so many times as long.
    Slow(f64),
    /// It answers this share of requests with 500 and no usage.
    Errors(f64),
    /// It answers this share of requests with 429 and a `retry-after` of one second.
    Quota(f64),
}

impl Fault {
    /// Whether it holds for this deployment at this moment.
    pub fn holds(&self, deployment: &str, at: Now) -> bool {
        self.deployment == deployment && (self.from_s..self.until_s).contains(&at.as_secs_f64())
    }

    /// When it begins.
    pub fn begins(&self) -> Now {
        Now::from_nanos((self.from_s * 1e9) as u64)
    }

    /// When it ends.
    pub fn ends(&self) -> Now {
        Now::from_nanos((self.until_s * 1e9) as u64)
    }
}

/// What a deployment does with one attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// It answers, so many times slower than usual.
    Answer(f64),
    /// It fails after this time.
    Fail(Duration, Failure),
    /// It is never heard of.
    Silence,
}

/// The fate of an attempt on `deployment`, where `dice` is a number from 0 to 1 drawn for it.
pub(crate) fn fate(faults: &[Fault], deployment: &str, at: Now, dice: f64) -> Fate {
    let failure = |class, processed, retry_after| Failure { class, processed, status: None, retry_after };
    let mut slow = 1.0;
    let mut below = 0.0;
    for fault in faults.iter().filter(|fault| fault.holds(deployment, at)) {
        match fault.what {
            What::Crash => {
                let refused = failure(FailureClass::Connect, Processed::No, None);
                return Fate::Fail(Duration::from_millis(1), refused);
            }
            What::BlackHole => return Fate::Silence,
            What::Slow(times) => slow *= times,
            What::Errors(share) => {
                below += share;
                if dice < below {
                    let error = failure(FailureClass::Transient, Processed::RefusedWithError, None);
                    return Fate::Fail(Duration::from_millis(20), error);
                }
            }
            What::Quota(share) => {
                below += share;
                if dice < below {
                    let wait = Some(Duration::from_secs(1));
                    let quota = failure(FailureClass::CredentialQuota, Processed::No, wait);
                    return Fate::Fail(Duration::from_millis(5), quota);
                }
            }
        }
    }
    Fate::Answer(slow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(what: What) -> Fault {
        Fault { deployment: "a".to_owned(), from_s: 10.0, until_s: 20.0, what }
    }

    #[test]
    fn faults_hold_where_and_when_they_say() {
        let faults = [fault(What::Slow(2.0)), fault(What::Errors(0.3)), fault(What::Quota(0.2))];
        let at = |second: u64, dice: f64| fate(&faults, "a", Now::from_millis(second * 1000), dice);
        assert_eq!(at(9, 0.0), Fate::Answer(1.0));
        assert_eq!(at(20, 0.0), Fate::Answer(1.0));
        assert_eq!(at(10, 0.5), Fate::Answer(2.0));
        assert!(matches!(at(10, 0.29), Fate::Fail(_, failure) if failure.class == FailureClass::Transient));
        assert!(
            matches!(at(10, 0.49), Fate::Fail(_, failure) if failure.class == FailureClass::CredentialQuota)
        );
        assert_eq!(fate(&faults, "b", Now::from_millis(15_000), 0.0), Fate::Answer(1.0));
        assert_eq!(fate(&[fault(What::BlackHole)], "a", Now::from_millis(15_000), 0.9), Fate::Silence);
    }
}
