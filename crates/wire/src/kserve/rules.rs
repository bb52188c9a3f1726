//! What a registered model takes and gives, and whether a request keeps to it.

use crate::openai::error::Invalid;

use super::datatype::Datatype;
use super::request::{Inference, Tensor, shown};
use super::tensor::list;

/// A tensor that a model takes or gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its length on each axis; −1 is any.
    pub shape: Vec<i64>,
    /// Whether a request may leave it out.
    pub optional: bool,
}

/// What a model takes and gives. Where nothing is listed nothing is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// The tensors it takes.
    pub inputs: Vec<TensorSpec>,
    /// The tensors it gives.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }
}

/// Holds a request to what the model takes.
pub fn check(request: &Inference<'_>, model: &str, signature: &Signature) -> Result<(), Invalid> {
    if !signature.inputs.is_empty() {
        for (at, input) in request.inputs.iter().enumerate() {
            check_input(input, at, model, &signature.inputs)?;
        }
        let given = |spec: &TensorSpec| request.inputs.iter().any(|input| input.name == spec.name);
        if let Some(absent) = signature.inputs.iter().find(|spec| !spec.optional && !given(spec)) {
            let text = format!(
                "input `{}` is missing; the model `{model}` takes {}",
                absent.name,
                described(&signature.inputs)
            );
            return Err(Invalid::field("inputs", text));
        }
    }
    if signature.outputs.is_empty() {
        return Ok(());
    }
    for (at, name) in request.outputs.iter().enumerate() {
        if !signature.outputs.iter().any(|spec| spec.name == *name) {
            let text = format!(
                "the model `{model}` has no output {}; it gives {}",
                shown(name),
                described(&signature.outputs)
            );
            return Err(Invalid::field(format!("outputs[{at}].name"), text));
        }
    }
    Ok(())
}

fn check_input(input: &Tensor<'_>, at: usize, model: &str, specs: &[TensorSpec]) -> Result<(), Invalid> {
    let Some(spec) = specs.iter().find(|spec| spec.name == input.name) else {
        let name = shown(&input.name);
        let text = format!("the model `{model}` has no input {name}; it takes {}", described(specs));
        return Err(Invalid::field(format!("inputs[{at}].name"), text));
    };
    let name = &spec.name;
    if input.datatype != spec.datatype {
        let (given, takes) = (input.datatype, spec.datatype);
        let text = format!("input `{name}` is {given}, the model `{model}` takes {takes}");
        return Err(Invalid::field(format!("inputs[{at}].datatype"), text));
    }
    let fits = |(length, allowed): (&u64, &i64)| {
        u64::try_from(*allowed).is_ok_and(|one| one == *length) || *allowed == -1
    };
    let same = input.shape.len() == spec.shape.len() && input.shape.iter().zip(&spec.shape).all(fits);
    if !same {
        let text = format!(
            "input `{name}` has the shape {}, the model `{model}` takes {}{}",
            list(&input.shape),
            list(&spec.shape),
            if spec.shape.contains(&-1) { ", where -1 is any length" } else { "" }
        );
        return Err(Invalid::field(format!("inputs[{at}].shape"), text));
    }
    Ok(())
}

/// Tensors for a message.
fn described(specs: &[TensorSpec]) -> String {
    const SHOWN_MAX: usize = 16;
    let one = |spec: &TensorSpec| format!("`{}` ({} {})", spec.name, spec.datatype, list(&spec.shape));
    let mut all = specs.iter().take(SHOWN_MAX).map(one).collect::<Vec<_>>().join(", ");
    if specs.len() > SHOWN_MAX {
        all.push_str(", …");
    }
    all
}
