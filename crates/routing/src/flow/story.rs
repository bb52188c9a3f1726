//! What happens to a request, what is done about it, and how it is told afterwards.

use crate::catalog::Name;
use crate::decision::{Choice, Decision, Rejection, Why};
use crate::failure::Failure;
use crate::ids::DeploymentId;
use crate::said::Said;
use crate::time::Now;

/// What happened to a request.
#[derive(Debug, Clone)]
pub enum Input {
    /// It was validated and authorised, and its facts are known.
    Arrived,
    /// The fleet told it something by [`Flow::wakes_by`](super::Flow::wakes_by): it was granted a slot while it waited, or
    /// its slot is wanted back.
    Granted,
    /// The connection stands and the request is being sent.
    Connected,
    /// The head of a good (2xx) response came.
    Headers,
    /// The first content came: the first content event of a stream, the first byte of another body.
    FirstContent,
    /// The answer came to its end.
    Done(Usage),
    /// The answer came to its end and does not fit the schema that it is held to. Nothing of it was relayed.
    Misfit(Usage),
    /// The attempt failed.
    Failed(Failure),
    /// Something happened to the hedge that runs beside the attempt.
    Hedge(HedgeInput),
    /// The drain of some deployment is over.
    Recalled,
    /// The moment of [`Flow::wake_at`] came.
    TimerFired,
    /// The client left.
    ClientGone,
}

impl Input {
    /// The same as it is told of a hedge.
    #[must_use]
    pub fn of_hedge(self) -> Self {
        match self {
            Self::Connected => Self::Hedge(HedgeInput::Connected),
            Self::Headers => Self::Hedge(HedgeInput::Headers),
            Self::FirstContent => Self::Hedge(HedgeInput::FirstContent),
            Self::Failed(failure) => Self::Hedge(HedgeInput::Failed(failure)),
            other @ (Self::Arrived
            | Self::Granted
            | Self::Done(_)
            | Self::Misfit(_)
            | Self::Hedge(_)
            | Self::Recalled
            | Self::TimerFired
            | Self::ClientGone) => {
                debug_assert!(
                    false,
                    "an attempt tells of its first content before its end, and of nothing else"
                );
                other
            }
        }
    }
}

/// What happened to a hedge. It has no end of its own: its first content makes it the attempt.
#[derive(Debug, Clone)]
pub enum HedgeInput {
    /// The connection stands and the request is being sent.
    Connected,
    /// The head of a good (2xx) response came.
    Headers,
    /// The first content came.
    FirstContent,
    /// It failed.
    Failed(Failure),
}

/// What an answer used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens.
    pub tokens_in: u64,
    /// Prompt tokens that the provider had cached; part of `tokens_in`.
    pub tokens_in_cached: u64,
    /// Prompt tokens that were written to its cache; part of `tokens_in`.
    pub tokens_in_cache_written: u64,
    /// Prompt tokens that were written to it for an hour; part of those.
    pub tokens_in_cache_written_1h: u64,
    /// Prompt tokens of images; part of `tokens_in`.
    pub tokens_in_image: u64,
    /// Prompt tokens of sounds; part of `tokens_in`.
    pub tokens_in_audio: u64,
    /// Thoughts; part of `tokens_out`.
    pub tokens_out_reasoning: u64,
    /// Output tokens of sounds; part of `tokens_out`.
    pub tokens_out_audio: u64,
    /// Output tokens.
    pub tokens_out: u64,
    /// Whether it is billed otherwise than by its tokens at the usual price.
    pub off_list: bool,
    /// Whether the numbers are estimates because the provider gave none.
    pub estimated: bool,
}

/// What is to be done next. It leaves the shell no choice.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send the request there; if an answer is being relayed, for its rest. All that is under way is to be dropped first.
    /// Why stands in the last of [`Flow::decisions`].
    Forward(Choice),
    /// Send the request there as well, as a hedge; the attempt under way goes on.
    Hedge(Choice),
    /// Drop the hedge; the attempt under way goes on.
    DropHedge,
    /// The attempt under way is over; the hedge takes its place.
    Promote,
    /// The hedge was faster: drop the attempt under way, put the hedge in its place, and relay as with
    /// [`Action::Relay`].
    RelayHedge,
    /// Drop all that is under way, then as with [`Action::Wait`].
    Yield,
    /// Nothing, until an input comes or [`Flow::wake_at`] is reached.
    Wait,
    /// Give the client the head of the response and everything that came and will come. A hedge is to be dropped.
    Relay,
    /// Drop all that is under way and answer with an error. The flow is over.
    Reject(Refusal),
    /// Drop the attempt under way and end the running response with an in-band error. The flow is over.
    Truncate(Failure),
    /// Nothing is left to do; drop whatever is under way. The flow is over.
    Finish,
}

impl Action {
    /// The same where what was given up may still be under way: it has no permit any more.
    pub(super) fn dropping_all(self) -> Self {
        if matches!(self, Self::Wait) { Self::Yield } else { self }
    }
}

/// Why a request is answered with an error.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// No deployment could be chosen; the decision says why.
    NotRouted(Box<Decision>, Rejection),
    /// The last attempt failed and there is no other.
    Failed(Failure),
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not decided on yet.
    New,
    /// Waiting for a slot.
    Queued,
    /// Waiting before it is sent to the same place again.
    BackingOff,
    /// Waiting for a connection.
    Connecting,
    /// Sent; nothing came back yet.
    AwaitingHeaders,
    /// A good response began; its head is held back for its first content.
    HoldingHeaders,
    /// The head was released; the first content is awaited.
    AwaitingContent,
    /// Content is on its way to the client.
    Relaying,
    /// At its end.
    Over,
}

impl Phase {
    /// The name in records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Queued => "queued",
            Self::BackingOff => "backing_off",
            Self::Connecting => "connecting",
            Self::AwaitingHeaders => "awaiting_headers",
            Self::HoldingHeaders => "holding_headers",
            Self::AwaitingContent => "awaiting_content",
            Self::Relaying => "relaying",
            Self::Over => "over",
        }
    }
}

/// What an attempt is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptKind {
    /// The answer, for the first time or after another attempt failed.
    Usual,
    /// The answer, beside another attempt whose first content was late.
    Hedge,
    /// An answer in place of one that did not fit; it is told that one, and what was wrong with it.
    Repair,
    /// The rest of an answer that broke off.
    Continuation,
}

impl AttemptKind {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Hedge => "hedge",
            Self::Repair => "repair",
            Self::Continuation => "continuation",
        }
    }
}

/// One forward of a request, as it went.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// Where it went.
    pub deployment: DeploymentId,
    /// That deployment's name.
    pub name: Name,
    /// That deployment's provider.
    pub provider: Name,
    /// The credential it was sent with.
    pub credential_name: Option<Name>,
    /// Why it went there.
    pub why: Why,
    /// Whether a request costs nothing there.
    pub free: bool,
    /// What it was sent for.
    pub kind: AttemptKind,
    /// The decision that sent it, by its place in [`Flow::decisions`](super::Flow::decisions).
    pub decision: usize,
    /// Whether it was given up because the other of the two was faster, or was released first.
    pub outrun: bool,
    /// Whether it gave its slot to a live request before anything came of it.
    pub taken_back: bool,
    /// When it began.
    pub started: Now,
    /// When its connection stood.
    pub connected: Option<Now>,
    /// When the head of a good response came.
    pub headers: Option<Now>,
    /// When the first content came.
    pub first_content: Option<Now>,
    /// When it ended.
    pub ended: Option<Now>,
    /// What its provider said of itself.
    pub said: Option<Said>,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
}

impl AttemptRecord {
    /// One that begins.
    pub(super) fn new(choice: &Choice, kind: AttemptKind, free: bool, decision: usize, now: Now) -> Self {
        Self {
            deployment: choice.deployment,
            name: Name::clone(&choice.name),
            provider: Name::clone(&choice.provider),
            credential_name: choice.credential_name.clone(),
            why: choice.why,
            free,
            kind,
            decision,
            outrun: false,
            taken_back: false,
            started: now,
            connected: None,
            headers: None,
            first_content: None,
            ended: None,
            said: None,
            failure: None,
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone)]
pub enum FlowOutcome {
    /// The whole answer was relayed.
    Completed {
        /// What it used.
        usage: Usage,
    },
    /// No deployment could be chosen.
    Rejected {
        /// Why.
        why: Rejection,
    },
    /// The last attempt failed.
    Failed {
        /// How.
        failure: Failure,
    },
    /// The answer broke off after its head was released.
    Truncated {
        /// How.
        failure: Failure,
    },
    /// The client left.
    ClientGone {
        /// Where the request was then.
        phase: Phase,
    },
}
