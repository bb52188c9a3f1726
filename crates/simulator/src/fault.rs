//! What goes wrong in a world, where, when, for whom and how.

use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::{Failure, FailureClass, Now};
use serde::Deserialize;

/// How long an overloaded deployment or a used-up credential wants to be left alone.
const ASKS_TO_WAIT: Duration = Duration::from_secs(1);

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
    /// The routers that meet it, by their place from 0: a partition. Empty: all.
    #[serde(default)]
    pub routers: Vec<usize>,
    /// It comes and goes meanwhile.
    #[serde(default)]
    pub flapping: Option<Flapping>,
    /// What happens.
    pub what: What,
}

/// How a fault comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flapping {
    /// How long it holds each time, seconds.
    pub on_s: f64,
    /// How long it does not, seconds.
    pub off_s: f64,
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
    /// The same, but it gets there slowly: as usual at the beginning, so many times as long at the end.
    Drift(f64),
    /// It answers this share of requests with 500 and no usage.
    Errors(f64),
    /// It answers this share of requests with 503 and a `retry-after` of one second.
    Overloaded(f64),
    /// It answers this share of requests with 429 and a `retry-after` of one second.
    Quota(f64),
    /// It sends the head of this share of answers, and then nothing.
    HangAfterHead(f64),
    /// It stops in the middle of this share of answers and keeps the connection.
    HangMidStream(f64),
    /// It loses the connection in the middle of this share of answers.
    Cut(f64),
    /// It answers 401 to every request.
    CredentialDead,
    /// It answers 404: it has lost the model.
    ModelMissing,
    /// Its health check says so, whatever is true.
    ProbeSays(Says),
}

/// What a health check claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// That all is well.
    Healthy,
    /// That nothing is.
    Unhealthy,
}

impl Fault {
    /// A fault that every router meets all the time.
    pub fn new(deployment: &str, from_s: f64, until_s: f64, what: What) -> Self {
        Self { deployment: deployment.to_owned(), from_s, until_s, routers: Vec::new(), flapping: None, what }
    }

    /// Whether it holds for this deployment at this moment, as this router meets it.
    pub fn holds(&self, deployment: &str, router: usize, at: Now) -> bool {
        let at_s = at.as_secs_f64();
        let on = self
            .flapping
            .is_none_or(|flaps| (at_s - self.from_s).rem_euclid(flaps.on_s + flaps.off_s) < flaps.on_s);
        self.concerns(deployment, router) && (self.from_s..self.until_s).contains(&at_s) && on
    }

    /// Whether it is about this deployment as this router meets it.
    pub(crate) fn concerns(&self, deployment: &str, router: usize) -> bool {
        self.deployment == deployment && (self.routers.is_empty() || self.routers.contains(&router))
    }

    /// When it begins next after a moment, if it does.
    pub(crate) fn begins_after(&self, at: Now) -> Option<Now> {
        let at_s = at.as_secs_f64();
        let begins_s = match self.flapping {
            Some(flaps) if at_s >= self.from_s => {
                let period_s = flaps.on_s + flaps.off_s;
                self.from_s + (((at_s - self.from_s) / period_s).floor() + 1.0) * period_s
            }
            Some(_) | None => self.from_s,
        };
        let begins = Now::from_nanos((begins_s * 1e9) as u64);
        (begins > at && begins_s < self.until_s).then_some(begins)
    }

    /// Whether a request that meets it can fail for it.
    pub(crate) fn can_fail(&self) -> bool {
        match self.what {
            What::Slow(_) | What::Drift(_) | What::ProbeSays(_) => false,
            What::Crash
            | What::BlackHole
            | What::Errors(_)
            | What::Overloaded(_)
            | What::Quota(_)
            | What::HangAfterHead(_)
            | What::HangMidStream(_)
            | What::Cut(_)
            | What::CredentialDead
            | What::ModelMissing => true,
        }
    }

    /// What is wrong with it as it is written, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let (fits, needs) = match self.what {
            What::Slow(times) | What::Drift(times) => (times > 0.0 && times.is_finite(), "a factor above 0"),
            What::Errors(part)
            | What::Overloaded(part)
            | What::Quota(part)
            | What::HangAfterHead(part)
            | What::HangMidStream(part)
            | What::Cut(part) => (share(part), "a share from 0 to 1"),
            What::Crash
            | What::BlackHole
            | What::CredentialDead
            | What::ModelMissing
            | What::ProbeSays(_) => (true, ""),
        };
        let flaps = self.flapping.is_none_or(|flaps| flaps.on_s > 0.0 && flaps.off_s > 0.0);
        let of = &self.deployment;
        if self.from_s >= self.until_s {
            return Some(format!(
                "the fault of `{of}` ends before it begins: `until_s` must be later than `from_s`"
            ));
        }
        if !flaps {
            return Some(format!("the fault of `{of}` flaps in no time: `on_s` and `off_s` must be above 0"));
        }
        (!fits).then(|| format!("the fault of `{of}` needs {needs}"))
    }
}

/// What a deployment does with one attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// It answers, so many times slower than usual, and this far.
    Answer(f64, Extent),
    /// It fails after this time.
    Fail(Duration, Failure),
    /// It is never heard of.
    Silence,
}

/// How far an answer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To its end.
    Whole,
    /// To its head; then nothing comes.
    Head,
    /// To the middle; then nothing comes.
    Middle,
    /// To the middle, where the connection is lost.
    Cut,
}

/// A failure as a provider's answer is understood.
pub(crate) fn failure(
    class: FailureClass,
    processed: Processed,
    status: Option<u16>,
    retry_after: Option<Duration>,
) -> Failure {
    Failure { class, processed, status, retry_after }
}

/// What a deployment says that has too much to do.
pub(crate) fn overloaded() -> Failure {
    failure(FailureClass::Overloaded, Processed::RefusedWithError, Some(503), Some(ASKS_TO_WAIT))
}

/// The fate of an attempt of `router` on `deployment`, where `dice` is a number from 0 to 1 drawn for it.
pub(crate) fn fate(faults: &[Fault], deployment: &str, router: usize, at: Now, dice: f64) -> Fate {
    let (mut slow, mut extent, mut below) = (1.0, Extent::Whole, 0.0);
    // Of several faults the dice meets at most one: each takes its share of the range.
    let mut met = |share: f64| {
        let range = below..below + share;
        below += share;
        range.contains(&dice)
    };
    for fault in faults.iter().filter(|fault| fault.holds(deployment, router, at)) {
        let fail = |ms: u64, failure| Fate::Fail(Duration::from_millis(ms), failure);
        match fault.what {
            What::Crash => return fail(1, failure(FailureClass::Connect, Processed::No, None, None)),
            What::BlackHole => return Fate::Silence,
            What::Slow(times) => slow *= times,
            What::Drift(times) => {
                let progress = (at.as_secs_f64() - fault.from_s) / (fault.until_s - fault.from_s);
                slow *= 1.0 + (times - 1.0) * progress;
            }
            What::Errors(share) if met(share) => {
                let error = failure(FailureClass::Transient, Processed::RefusedWithError, Some(500), None);
                return fail(20, error);
            }
            What::Overloaded(share) if met(share) => return fail(5, overloaded()),
            What::Quota(share) if met(share) => {
                let wait = Some(ASKS_TO_WAIT);
                return fail(5, failure(FailureClass::CredentialQuota, Processed::No, Some(429), wait));
            }
            What::CredentialDead => {
                return fail(5, failure(FailureClass::CredentialDead, Processed::No, Some(401), None));
            }
            What::ModelMissing => {
                return fail(5, failure(FailureClass::ModelMissing, Processed::No, Some(404), None));
            }
            What::HangAfterHead(share) if met(share) => extent = Extent::Head,
            What::HangMidStream(share) if met(share) => extent = Extent::Middle,
            What::Cut(share) if met(share) => extent = Extent::Cut,
            What::Errors(_)
            | What::Overloaded(_)
            | What::Quota(_)
            | What::HangAfterHead(_)
            | What::HangMidStream(_)
            | What::Cut(_)
            | What::ProbeSays(_) => {}
        }
    }
    Fate::Answer(slow, extent)
}

/// What a health check of `router` says of `deployment`.
pub(crate) fn probe(faults: &[Fault], deployment: &str, router: usize, at: Now) -> bool {
    let mut healthy = true;
    for fault in faults.iter().filter(|fault| fault.holds(deployment, router, at)) {
        match fault.what {
            What::ProbeSays(says) => return says == Says::Healthy,
            What::Crash | What::BlackHole | What::CredentialDead => healthy = false,
            What::Slow(_)
            | What::Drift(_)
            | What::Errors(_)
            | What::Overloaded(_)
            | What::Quota(_)
            | What::HangAfterHead(_)
            | What::HangMidStream(_)
            | What::Cut(_)
            | What::ModelMissing => {}
        }
    }
    healthy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(what: What) -> Fault {
        Fault::new("a", 10.0, 20.0, what)
    }

    fn second(second: u64) -> Now {
        Now::from_millis(second * 1000)
    }

    fn class(fate: &Fate) -> Option<FailureClass> {
        match fate {
            Fate::Fail(_, failure) => Some(failure.class),
            Fate::Answer(..) | Fate::Silence => None,
        }
    }

    #[test]
    fn faults_hold_where_and_when_they_say() {
        let faults = [fault(What::Slow(2.0)), fault(What::Errors(0.3)), fault(What::Quota(0.2))];
        let at = |at: u64, dice: f64| fate(&faults, "a", 0, second(at), dice);
        let usual = Fate::Answer(1.0, Extent::Whole);
        assert_eq!((at(9, 0.0), at(20, 0.0)), (usual.clone(), usual.clone()));
        assert_eq!(at(10, 0.5), Fate::Answer(2.0, Extent::Whole));
        assert_eq!(class(&at(10, 0.29)), Some(FailureClass::Transient));
        assert_eq!(class(&at(10, 0.49)), Some(FailureClass::CredentialQuota));
        assert_eq!(fate(&faults, "b", 0, second(15), 0.0), usual);
        assert_eq!(fate(&[fault(What::BlackHole)], "a", 0, second(15), 0.9), Fate::Silence);
    }

    #[test]
    fn a_partition_is_met_by_some_routers_only() {
        let faults = [Fault { routers: vec![1], ..fault(What::Crash) }];
        assert_eq!(class(&fate(&faults, "a", 1, second(15), 0.5)), Some(FailureClass::Connect));
        assert_eq!(fate(&faults, "a", 0, second(15), 0.5), Fate::Answer(1.0, Extent::Whole));
        assert!(probe(&faults, "a", 0, second(15)) && !probe(&faults, "a", 1, second(15)));
    }

    #[test]
    fn what_flaps_comes_and_goes() {
        let flapping = Some(Flapping { on_s: 1.0, off_s: 2.0 });
        let fault = Fault { flapping, ..fault(What::Crash) };
        let held: Vec<u64> = (8..22).filter(|at| fault.holds("a", 0, second(*at))).collect();
        assert_eq!(held, [10, 13, 16, 19]);
        assert_eq!(fault.begins_after(second(5)), Some(second(10)));
        assert_eq!(fault.begins_after(second(10)), Some(second(13)));
        assert_eq!(fault.begins_after(second(19)), None);
    }

    #[test]
    fn drift_grows_and_liars_lie() {
        let slow = fate(&[fault(What::Drift(3.0))], "a", 0, second(15), 0.5);
        assert_eq!(slow, Fate::Answer(2.0, Extent::Whole));
        assert!(probe(&[fault(What::ProbeSays(Says::Healthy)), fault(What::Crash)], "a", 0, second(15)));
        assert!(!probe(&[fault(What::ProbeSays(Says::Unhealthy))], "a", 0, second(15)));
    }

    #[test]
    fn each_answers_as_it_is_called() {
        for (what, expected) in [
            (What::Overloaded(1.0), FailureClass::Overloaded),
            (What::CredentialDead, FailureClass::CredentialDead),
            (What::ModelMissing, FailureClass::ModelMissing),
        ] {
            assert_eq!(class(&fate(&[fault(what)], "a", 0, second(12), 0.5)), Some(expected));
        }
        for (what, extent) in [
            (What::HangAfterHead(1.0), Extent::Head),
            (What::HangMidStream(1.0), Extent::Middle),
            (What::Cut(1.0), Extent::Cut),
        ] {
            assert_eq!(fate(&[fault(what)], "a", 0, second(12), 0.5), Fate::Answer(1.0, extent));
        }
        assert!(fault(What::Errors(1.5)).problem().is_some() && fault(What::Errors(0.5)).problem().is_none());
    }
}
