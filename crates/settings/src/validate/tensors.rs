//! Tensors have names of their own and possible shapes, and somebody who takes them.

use std::collections::BTreeSet;

use pointsman_wire::kserve::{AXES_MAX, NAME_BYTES_MAX, TENSORS_MAX};
use pointsman_wire::vendor::Kserve;

use crate::Config;
use crate::diagnostic::Problem;
use crate::models::{Capability, DeploymentConfig, ModelConfig};
use crate::providers::ProviderConfig;
use crate::tree::join;

pub(super) fn check(config: &Config, path: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let inputs = model.inputs.iter().map(|one| (&*one.name, &*one.shape));
    check_tensors(&join(path, "inputs"), inputs, found);
    let outputs = model.outputs.iter().map(|one| (&*one.name, &*one.shape));
    check_tensors(&join(path, "outputs"), outputs, found);
    // A provider that does not exist is told of elsewhere.
    let speaks = |one: &DeploymentConfig| {
        config.providers.get(&one.provider).map_or(Kserve::Also, ProviderConfig::kserve) != Kserve::No
    };
    let known = if model.inputs.is_empty() { "outputs" } else { "inputs" };
    let described = !(model.inputs.is_empty() && model.outputs.is_empty());
    if described && !model.deployments.is_empty() && !model.deployments.iter().any(speaks) {
        let text = "no deployment of the model is at a provider that takes tensors";
        let help = "the kinds `kserve` and `triton` speak the Open Inference Protocol";
        found.push(Problem::new(join(path, known), text).help(help));
    }
    for (at, deployment) in model.deployments.iter().enumerate() {
        let infers = deployment.capabilities.as_deref().is_some_and(|list| list.contains(&Capability::Infer));
        if infers && !speaks(deployment) {
            let text =
                format!("provider `{}` takes no tensors, so `infer` cannot be served", deployment.provider);
            let help = "the kinds `kserve` and `triton` speak the Open Inference Protocol";
            found.push(Problem::new(format!("{path}.deployments[{at}].capabilities"), text).help(help));
        }
    }
}

fn check_tensors<'a>(
    path: &str,
    tensors: impl ExactSizeIterator<Item = (&'a str, &'a [i64])>,
    found: &mut Vec<Problem>,
) {
    if tensors.len() > TENSORS_MAX {
        found.push(Problem::new(path, format!("a model has at most {TENSORS_MAX} of them")));
    }
    let mut names = BTreeSet::new();
    for (at, (name, shape)) in tensors.enumerate() {
        let path = format!("{path}[{at}]");
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let text = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
            found.push(Problem::new(join(&path, "name"), text));
        }
        if !names.insert(name) {
            found.push(Problem::new(join(&path, "name"), format!("there is another tensor named `{name}`")));
        }
        if shape.len() > AXES_MAX {
            found.push(Problem::new(join(&path, "shape"), format!("a tensor has at most {AXES_MAX} axes")));
        }
        if let Some(length) = shape.iter().find(|length| **length < -1) {
            let text = format!("{length} is no length; give 0 or more, or -1 for any");
            found.push(Problem::new(join(&path, "shape"), text));
        }
    }
}
