//! The mock by the Open Inference Protocol: a model that gives back the tensors it is given.

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use pointsman_wire::kserve::{HEADER_LENGTH, answer};
use serde_json::{Value, json};

use super::answer::Asked;
use super::server::{Answer, Step, Steps, json_answer};

/// What a server says of itself and of its models, all of which are ready.
pub(super) fn told(method: &Method, path: &str) -> Option<Answer> {
    if method != Method::GET {
        return None;
    }
    let parts: Vec<&str> = path.strip_prefix("/v2")?.trim_matches('/').split('/').collect();
    let told = match parts.as_slice() {
        [""] => {
            json!({"name": "mock", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]})
        }
        ["health", "live"] => json!({"live": true}),
        ["health", "ready"] => json!({"ready": true}),
        ["models", model] | ["models", model, "versions", _] => {
            json!({"name": model, "versions": ["1"], "platform": "mock", "inputs": [], "outputs": []})
        }
        ["models", model, "ready"] | ["models", model, "versions", _, "ready"] => {
            json!({"name": model, "ready": true})
        }
        _ => return None,
    };
    Some(json_answer(200, &told))
}

/// Whether an inference is asked for.
pub(super) fn is_inference(path: &str) -> bool {
    path.starts_with("/v2/models/") && path.ends_with("/infer")
}

/// Where the JSON of a body ends.
pub(super) fn json_end(headers: &HeaderMap, body: &Bytes) -> usize {
    let told = headers.get(HEADER_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    told.unwrap_or(body.len()).min(body.len())
}

/// The tensors that were asked with, under the names that outputs were asked for by if they were. Those that came in binary
/// go back so.
pub(super) fn answer(asked: &Asked) -> Answer {
    let inputs = asked.body["inputs"].as_array().map_or(&[][..], Vec::as_slice);
    let mut binary_bytes = 0;
    let outputs: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(at, input)| {
            let wanted = &asked.body["outputs"][at]["name"];
            let name = if wanted.is_string() { wanted } else { &input["name"] };
            let mut output = json!({"name": name, "datatype": input["datatype"], "shape": input["shape"]});
            match input["parameters"]["binary_data_size"].as_u64() {
                Some(size) => {
                    binary_bytes += size;
                    output["parameters"] = json!({"binary_data_size": size});
                }
                None => output["data"] = input["data"].clone(),
            }
            output
        })
        .collect();
    let mut parts = asked.path.split('/').skip(3);
    let (model, version) =
        (parts.next().unwrap_or_default(), parts.nth(1).filter(|version| !version.is_empty()));
    let mut told = json!({"model_name": model, "model_version": version.unwrap_or("1"), "outputs": outputs});
    if asked.body["id"].is_string() {
        told["id"] = asked.body["id"].clone();
    }
    if asked.body.get("inputs").is_none() {
        return json_answer(
            400,
            &serde_json::from_str(&answer::error("there are no inputs")).unwrap_or_default(),
        );
    }
    if binary_bytes == 0 {
        return json_answer(200, &told);
    }
    let json = told.to_string();
    let length = json.len();
    let whole: Bytes = [json.as_bytes(), &asked.tail].concat().into();
    let mut response = Response::new(Steps::new([Step::Data(whole)].into()));
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/octet-stream"));
    headers.insert(HEADER_LENGTH, length.into());
    response
}
