//! What the router knows of a request.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::catalog::{Capabilities, Name};
use crate::ids::{CredentialId, DeploymentId, ModelId};
use crate::time::Now;

/// What the router knows of a request. Made by the gateway from the validated request, never from its content.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The model asked for.
    pub model: ModelId,
    /// The version asked for by `model@version`.
    pub version: Option<Name>,
    /// What the request needs of a deployment.
    pub needs: Capabilities,
    /// Prompt tokens, estimated. Counts as load.
    pub tokens_in_estimate: u32,
    /// Prompt tokens there are at the very least; of several prompts, those of the longest. Held to context lengths.
    pub tokens_in_min: u32,
    /// The most output the client asked for, if it said.
    pub tokens_out_max: Option<u32>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Live or batch traffic.
    pub lane: Lane,
    /// Who asks.
    pub tenant: Name,
    /// Hash of the tenant's name.
    pub tenant_hash: u64,
    /// Hash of the session, salted with the tenant.
    pub session_hash: Option<u64>,
    /// Hash of the `user` field, salted with the tenant.
    pub user_hash: Option<u64>,
    /// Hash of the first two or more prompt blocks, salted with the tenant; `None` if the prompt is shorter.
    pub prefix_hash: Option<u64>,
    /// The prompt's beginnings, ascending in length; empty if it is too short to matter, or not known.
    pub prefix: Arc<[PrefixBlock]>,
    /// How important it is beside others.
    pub class: Class,
    /// How fast its client would like the answer.
    pub objective: Objective,
    /// The region the client would like.
    pub region: Option<Name>,
    /// The account that keeps what the request names; no other can go on with it.
    pub pinned: Option<Pin>,
    /// Tags a deployment must carry, all of them.
    pub tags: SmallVec<[Name; 2]>,
    /// When the whole answer must be there: as the client asked, or by the model's total timeout if that is sooner.
    pub deadline: Option<Now>,
}

impl Facts {
    /// Whether the first content tells how fast a deployment is. Of a generation that is not streamed it is the whole
    /// answer, which tells more of the request.
    pub fn tells_speed(&self) -> bool {
        self.stream || self.needs.is_one_pass()
    }
}

/// An account of a provider, by who used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// A deployment of the provider.
    pub deployment: DeploymentId,
    /// The credential; `None`: the provider has none.
    pub credential: Option<CredentialId>,
}

/// A beginning of a prompt. Two prompts that begin alike have the same hashes up to where they part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixBlock {
    /// How long it is, in estimated tokens.
    pub tokens: u32,
    /// Hash of all of it, salted with the tenant.
    pub hash: u64,
}

/// How fast a client would like its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objective {
    /// Time to the first token.
    pub first_token: Option<Duration>,
    /// Time per token after that.
    pub per_token: Option<Duration>,
}

/// How important a request is beside others that wait for the same slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// The operator's own: before everything else.
    System = 0,
    /// Somebody sits and waits.
    Interactive = 1,
    /// As usual.
    #[default]
    Standard = 2,
    /// Whenever there is room.
    Batch = 3,
}

impl Class {
    /// Every class, the most important first.
    pub const ALL: [Self; 4] = [Self::System, Self::Interactive, Self::Standard, Self::Batch];

    /// The name in headers, configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Interactive => "interactive",
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }
}

/// Which traffic a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Lane {
    /// Somebody waits.
    #[default]
    Live = 0,
    /// Nobody waits.
    Batch = 1,
}

impl Lane {
    /// The name in headers, configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Batch => "batch",
        }
    }
}
