//! What becomes of answers that are held to a JSON schema and do not fit it.

use pointsman_routing::flow::misfit::OnMismatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checks answers that a request holds to a JSON schema (`response_format`, `output_config.format`, `responseSchema`,
/// `format`), in every chat dialect, before the client gets any of them. A schema that is broken itself, refers to another
/// document, or is too costly to check by is the client's 400. A stream is relayed as it comes; that it did not fit is told
/// afterwards, in the decision record and by `pointsman_answer_events_total`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StructuredOutputConfig {
    /// What becomes of an answer that does not fit. Default: `off`.
    pub on_mismatch: MismatchConfig,
}

/// What becomes of an answer that does not fit its schema. Refusals, calls of tools and answers that were cut short are no
/// mismatch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MismatchConfig {
    /// Answers are not checked.
    #[default]
    Off,
    /// Another deployment is asked, within `attempts_max` and the budget for what is sent again. Each attempt is billed.
    FailOver,
    /// The model is told its answer and what is wrong with it, and asked once more; what does not fit then is refused
    /// with 502.
    Repair,
    /// The request is refused with 502 (`schema_mismatch`) at once.
    Refuse,
}

impl MismatchConfig {
    /// The same for routing; `None`: nothing is checked.
    pub const fn policy(self) -> Option<OnMismatch> {
        match self {
            Self::Off => None,
            Self::FailOver => Some(OnMismatch::FailOver),
            Self::Repair => Some(OnMismatch::Repair),
            Self::Refuse => Some(OnMismatch::Refuse),
        }
    }

    /// Whether a request has to be sent a second time for it.
    pub(crate) const fn sends_again(self) -> Option<&'static str> {
        match self {
            Self::Off | Self::Refuse => None,
            Self::FailOver => Some("fail_over"),
            Self::Repair => Some("repair"),
        }
    }
}
