//! What the router knows of a request.

use smallvec::SmallVec;

use crate::catalog::{Capabilities, Name};
use crate::ids::ModelId;
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
    /// The region the client would like.
    pub region: Option<Name>,
    /// Tags a deployment must carry, all of them.
    pub tags: SmallVec<[Name; 2]>,
    /// When the whole answer must be there: as the client asked, or by the model's total timeout if that is sooner.
    pub deadline: Option<Now>,
}

impl Facts {
    /// Whether the first content tells how fast a deployment is. Of a generation that is not streamed it is the whole
    /// answer, which tells more of the request.
    pub fn tells_speed(&self) -> bool {
        self.stream || self.needs.contains(Capabilities::EMBEDDINGS)
    }
}

/// Which traffic a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
