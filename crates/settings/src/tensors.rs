//! The tensors that a model takes and gives, by the Open Inference Protocol.

use pointsman_wire::kserve::{Datatype, Signature, TensorSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::ModelConfig;

/// A tensor that a model takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its length on each axis; -1 is any, such as the first where requests are batched.
    pub shape: Vec<i64>,
    /// Whether a request may leave it out. Default: false.
    #[serde(default)]
    pub optional: bool,
}

/// A tensor that a model gives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its length on each axis; -1 is any.
    pub shape: Vec<i64>,
}

/// What requests for the model are held to.
pub(crate) fn signature(model: &ModelConfig) -> Signature {
    let inputs = model.inputs.iter().map(|input| TensorSpec {
        name: input.name.clone(),
        datatype: input.datatype,
        shape: input.shape.clone(),
        optional: input.optional,
    });
    let outputs = model.outputs.iter().map(|output| TensorSpec {
        name: output.name.clone(),
        datatype: output.datatype,
        shape: output.shape.clone(),
        optional: false,
    });
    Signature { inputs: inputs.collect(), outputs: outputs.collect() }
}
