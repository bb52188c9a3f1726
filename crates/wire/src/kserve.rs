//! KServe v2, also called the Open Inference Protocol, over HTTP: tensors in, tensors out.
//!
//! The model and its version stand in the path, and the body is passed on as it came: nothing here rewrites anything.
//! - [`request`]: what an inference request asks for, every tensor held to its own datatype and shape.
//! - [`rules`]: whether that is what the registered model takes.
//! - [`answer`]: what servers and models are told to be, and what an upstream answered with.
//! - [`datatype`]: what elements can be.
//! - [`grpc`]: the same over gRPC.

pub mod answer;
mod binary;
mod client;
pub mod datatype;
pub mod grpc;
pub mod request;
pub mod rules;
mod tensor;

pub use client::DEF;
pub use datatype::Datatype;
pub use request::{Inference, Tensor, parse};
pub use rules::{Signature, TensorSpec, check};

/// The header that says where the JSON of a body ends and its binary tensors begin.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Tensors in a request, and outputs that it may ask for.
pub const TENSORS_MAX: usize = 1024;
/// Axes of a tensor.
pub const AXES_MAX: usize = 32;
/// Bytes of a tensor's name.
pub const NAME_BYTES_MAX: usize = 1024;
