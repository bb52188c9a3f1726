//! What models take and give, and who can be sent tensors.

use pointsman_routing::catalog::Capabilities;
use pointsman_wire::kserve::Datatype;

use super::read;

const TEXT: &str = "\
limits: { body_bytes_max_by_route: { '/v2/models/{model}/infer': 2048 } }
providers:
  k: { kind: kserve, base_url: 'http://a:8000' }
  t: { kind: triton, base_url: 'http://b:8000' }
  o: { kind: openai, keys: [ k1-long-enough ] }
models:
  m:
    inputs:
      - { name: x, datatype: FP32, shape: [-1, 3] }
      - { name: mask, datatype: BOOL, shape: [1], optional: true }
    outputs: [ { name: y, datatype: BF16, shape: [] } ]
    deployments:
      - { provider: k, version: '1', upstream_version: '' }
      - { name: t, provider: t, capabilities: [infer, chat] }
      - { provider: o }
";

#[test]
fn tensors_are_known_and_sent_only_to_who_takes_them() {
    let config = read(TEXT).expect("a good config");
    let rules = config.rules("m");
    let inputs: Vec<_> = rules
        .signature
        .inputs
        .iter()
        .map(|one| (&*one.name, one.datatype, &*one.shape, one.optional))
        .collect();
    assert_eq!(
        inputs,
        [("x", Datatype::Fp32, &[-1, 3][..], false), ("mask", Datatype::Bool, &[1][..], true)]
    );
    assert_eq!(
        (rules.signature.outputs[0].datatype, rules.signature.outputs[0].shape.len()),
        (Datatype::Bf16, 0)
    );
    assert!(rules.capabilities.infer && rules.capabilities.chat);
    let catalog = config.catalog();
    let can = |at: usize, what| catalog.models["m"].deployments[at].capabilities.contains(what);
    assert_eq!((can(0, Capabilities::INFER), can(0, Capabilities::CHAT)), (true, false), "kserve");
    assert_eq!(
        (can(1, Capabilities::INFER), can(1, Capabilities::EMBEDDINGS)),
        (true, false),
        "triton, as listed"
    );
    assert_eq!((can(2, Capabilities::INFER), can(2, Capabilities::CHAT)), (false, true), "openai");
}

#[test]
fn who_is_spoken_to_over_grpc_takes_tensors_only() {
    let text = TEXT.replace("http://b:8000", "grpcs://b:8001").replace("[infer, chat]", "[infer]");
    let config = read(&text.replace("limits:", "grpc: 127.0.0.1:8001\nlimits:")).expect("a good config");
    let catalog = config.catalog();
    let capabilities = catalog.models["m"].deployments[1].capabilities;
    assert!(capabilities.contains(Capabilities::INFER) && !capabilities.contains(Capabilities::CHAT));
    assert!(config.providers["t"].engine_plan().is_none(), "metrics are at a port that has to be said");
    let port = text.replace("b:8001'", "b:8001', engine: { port: 8002 }");
    assert!(read(&port).expect("a good config").providers["t"].engine_plan().is_some());
    let all = TEXT.replace("http://b:8000", "grpc://b:8001").replace(", capabilities: [infer, chat]", "");
    let catalog = read(&all).expect("a good config").catalog();
    assert_eq!(catalog.models["m"].deployments[1].capabilities, Capabilities::INFER);
}

#[test]
fn l1_tensors_that_cannot_be_are_told() {
    for (from, to, says) in [
        ("name: mask", "name: x", "models.m.inputs[1].name: there is another tensor named `x`"),
        ("name: y", "name: ''", "models.m.outputs[0].name: must have 1 to 1024 bytes"),
        (
            "shape: [-1, 3]",
            "shape: [-2, 3]",
            "models.m.inputs[0].shape: -2 is no length; give 0 or more, or -1",
        ),
        ("datatype: FP32", "datatype: FLOAT", "FLOAT"),
        ("datatype: BF16, shape: []", "datatype: BF16, shape: [], optional: true", "optional"),
        ("- { provider: o }", "- { provider: o, capabilities: [infer] }", "provider `o` takes no tensors"),
        ("{model}/infer", "{model}/infers", "there is no route"),
        (
            "kind: openai,",
            "kind: openai, base_url: 'grpc://a:1',",
            "kind `openai` are not spoken to over gRPC",
        ),
        (
            "limits:",
            "grpc: 0.0.0.0:8001\nlimits:",
            "grpc: 0.0.0.0:8001 is reachable from elsewhere, and no client",
        ),
        ("limits:", "grpc: 127.0.0.1:8080\nlimits:", "grpc: gRPC needs an address of its own"),
    ] {
        let said = read(&TEXT.replacen(from, to, 1)).expect_err("it is refused");
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|one| one.contains(says)), "{says}: {said:?}");
    }
    let nobody = TEXT
        .replace("kind: kserve", "kind: vllm")
        .replace("kind: triton", "kind: vllm")
        .replace("[infer, chat]", "[chat]");
    let said = read(&nobody).expect_err("it is refused");
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    assert!(
        said.iter().any(|one| one
            .contains("models.m.inputs: no deployment of the model is at a provider that takes tensors")),
        "{said:?}"
    );
}
