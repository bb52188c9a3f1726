//! Inference requests, which are read by another dialect and go the same way from there.

use super::{Needs, Operation, Params, Request, Shape, Spans};

/// The tensors of an inference request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensors {
    /// How many there are.
    pub count: u32,
    /// Their elements.
    pub elements: u64,
    /// Bytes of the body.
    pub bytes: u64,
    /// Bytes of JSON before binary tensors, if there are any.
    pub json_bytes: Option<u64>,
}

impl Request {
    /// An inference request for a model, both named by its path. Its size counts as a prompt's of as many bytes.
    pub fn infer(model: String, version: Option<String>, tensors: Tensors) -> Self {
        Self {
            operation: Operation::Infer,
            shape: Shape::OpenAi,
            model,
            version,
            stream: false,
            include_usage: None,
            needs: Needs::default(),
            prompt_bytes: tensors.bytes,
            prompt_tokens_given: 0,
            tokens_in_min: 0,
            messages: 0,
            images: 0,
            tokens_out_max: None,
            choices: 1,
            params: Params::default(),
            fallbacks: Vec::new(),
            tensors: Some(tensors),
            user_hash: None,
            prefix_hash: None,
            prefix: Vec::new(),
            kept_by_provider: false,
            kept: Vec::new(),
            parts: None,
            formatted: false,
            forbidden: smallvec::SmallVec::new(),
            spans: Spans::default(),
        }
    }
}
