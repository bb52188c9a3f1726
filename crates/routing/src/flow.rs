//! The life of one request, as a state machine: inputs in, one action out.

use crate::decision::{Decision, Rejection};
use crate::facts::Facts;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::rng::Rng;
use crate::time::Now;

/// What happened to a request.
#[derive(Debug, Clone)]
pub enum Input {
    /// It was validated and authorised, and its facts are known.
    Arrived,
    /// The fleet granted it a slot while it waited.
    Granted,
    /// The connection stands and the request is being sent.
    Connected,
    /// The head of a good (2xx) response came.
    Headers,
    /// The first content came: the first content event of a stream, the first byte of another body.
    FirstContent,
    /// The answer came to its end.
    Done(Usage),
    /// The attempt failed.
    Failed(Failure),
    /// The moment of [`Flow::wake_at`] came.
    TimerFired,
    /// The client left.
    ClientGone,
}

/// What an answer used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens.
    pub tokens_in: u64,
    /// Prompt tokens that the provider had cached; part of `tokens_in`.
    pub tokens_in_cached: u64,
    /// Output tokens.
    pub tokens_out: u64,
    /// Whether the numbers are estimates because the provider gave none.
    pub estimated: bool,
    /// Whether a stream ended without its proper end.
    pub truncated: bool,
}

/// What is to be done next. It leaves the shell no choice.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send the request as the decision says. An attempt that is under way is to be dropped first.
    Forward(Decision),
    /// Nothing, until an input comes or [`Flow::wake_at`] is reached.
    Wait,
    /// Give the client the head of the response and everything that came and will come.
    Relay,
    /// Drop the attempt under way and answer with an error. The flow is over.
    Reject(Refusal),
    /// Drop the attempt under way and end the running response with an in-band error. The flow is over.
    Truncate(Failure),
    /// Nothing is left to do; drop whatever is under way. The flow is over.
    Finish,
}

/// Why a request is answered with an error.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// No deployment could be chosen; the decision says why.
    NotRouted(Decision, Rejection),
    /// The last attempt failed and there is no other.
    Failed(Failure),
}

/// The life of one request.
#[derive(Debug)]
pub struct Flow;

impl Flow {
    /// A request that arrived at `now`.
    pub fn new(_facts: Facts, _now: Now) -> Self {
        Self
    }

    /// Takes one input and says what is to be done.
    pub fn step(&mut self, _fleet: &mut Fleet, _now: Now, _rng: &mut Rng, _input: Input) -> Action {
        Action::Finish
    }
}
