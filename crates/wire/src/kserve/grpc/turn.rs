//! Requests and answers from what stands over HTTP into what stands over gRPC, and back.
//!
//! Between the two lies the form with binary tensors: JSON that describes them, and behind it their elements as a machine
//! has them. Those are copied once at most and never looked at here; whether they fit is for the rules to say.

use bytes::Bytes;

use crate::json::write::{Object, object};
use crate::json::{Kind, Scanner, quote};
use crate::kserve::TENSORS_MAX;
use crate::kserve::datatype::Datatype;
use crate::kserve::request::shown;
use crate::kserve::tensor::list;
use crate::openai::error::Invalid;

use super::{Choice, InferRequest, InferResponse, Parameter, Parameters, Tensor};

mod document;

pub use document::{Wants, answer_of_http, of_http};

/// A body as it goes over HTTP: JSON, and binary tensors behind it if `json_bytes` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// All of it.
    pub body: Bytes,
    /// Bytes of its JSON, if something follows.
    pub json_bytes: Option<u64>,
}

/// Parameters that say where elements are, which each form has in its own way.
const PLACES: [&str; 3] = ["binary_data_size", "binary_data", "binary_data_output"];

/// A request as it would have come over HTTP. The model and its version stand in the path there.
pub fn to_http(request: &InferRequest) -> Result<Whole, Invalid> {
    let raw = raw_of(&request.inputs, &request.raw, "raw_input_contents")
        .map_err(|(at, why)| at_input(request, at, why))?;
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for (at, (input, raw)) in request.inputs.iter().zip(&raw).enumerate() {
        fits(input, raw.len()).map_err(|why| at_input(request, Some(at), why))?;
        inputs.push(describe(input, |parameters| {
            parameters.count("binary_data_size", raw.len() as u64);
        })?);
    }
    let outputs = request.outputs.iter().map(|output| {
        let parameters = written(&output.parameters)?;
        Ok(object(|one| {
            one.text("name", &output.name).object("parameters", |all| {
                put(all, &parameters);
                all.boolean("binary_data", true);
            });
        }))
    });
    let outputs = outputs.collect::<Result<Vec<_>, Invalid>>()?;
    let parameters = written(&request.parameters)?;
    let json = object(|whole| {
        whole.text_if("id", Some(&*request.id).filter(|id| !id.is_empty()));
        whole.object("parameters", |all| {
            put(all, &parameters);
            all.boolean("binary_data_output", true);
        });
        whole.array("inputs", &inputs);
        if !outputs.is_empty() {
            whole.array("outputs", &outputs);
        }
    });
    Ok(join(json, &raw))
}

/// An answer as the client wants it over HTTP. An error is the provider's fault, in words.
pub fn answer_to_http(response: &InferResponse, wants: &Wants) -> Result<Whole, String> {
    let raw = raw_of(&response.outputs, &response.raw, "raw_output_contents").map_err(|(_, why)| why)?;
    let mut behind = Vec::new();
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for (output, raw) in response.outputs.iter().zip(raw) {
        let plain = |invalid: Invalid| invalid.message;
        if wants.binary(&output.name) {
            let size = raw.len() as u64;
            let described = describe(output, |parameters| {
                parameters.count("binary_data_size", size);
            });
            outputs.push(described.map_err(plain)?);
            behind.push(raw);
            continue;
        }
        let named = |why: &str| format!("output {}: {why}", shown(&output.name));
        let datatype = Datatype::of(&output.datatype).ok_or_else(|| named("its datatype is unknown"))?;
        let data = super::raw::to_json(&raw, datatype).map_err(|why| named(&why))?;
        let described = describe(output, |_| {}).map_err(plain)?;
        outputs.push(format!("{},\"data\":{data}}}", described.strip_suffix('}').unwrap_or(&described)));
    }
    let parameters = written(&response.parameters).map_err(|invalid| invalid.message)?;
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let json = object(|whole| {
        whole.text_if("id", some(&response.id).as_deref());
        whole.text("model_name", &response.model_name);
        whole.text_if("model_version", some(&response.model_version).as_deref());
        if !parameters.is_empty() {
            whole.object("parameters", |all| put(all, &parameters));
        }
        whole.array("outputs", &outputs);
    });
    if behind.is_empty() {
        return Ok(Whole { body: json.into(), json_bytes: None });
    }
    Ok(join(json, &behind))
}

/// The elements of each tensor: raw ones as they are, others turned. An error is at a tensor, or none in particular.
fn raw_of(tensors: &[Tensor], raw: &[Bytes], field: &str) -> Result<Vec<Bytes>, (Option<usize>, String)> {
    if tensors.len() > TENSORS_MAX {
        return Err((None, format!("there are more than {TENSORS_MAX} tensors")));
    }
    if raw.is_empty() {
        let turn = |(at, tensor): (usize, &Tensor)| typed(tensor).map_err(|why| (Some(at), why));
        return tensors.iter().enumerate().map(turn).collect();
    }
    if raw.len() != tensors.len() {
        let text =
            format!("`{field}` has {} entries for {} tensors; it has one for each", raw.len(), tensors.len());
        return Err((None, text));
    }
    if let Some(at) = tensors.iter().position(|tensor| tensor.contents.is_some()) {
        return Err((Some(at), format!("it has both `contents` and `{field}`; its data is in one place")));
    }
    Ok(raw.to_vec())
}

fn typed(tensor: &Tensor) -> Result<Bytes, String> {
    // What it is instead of a datatype is told where all is checked.
    let Some(datatype) = Datatype::of(&tensor.datatype) else { return Ok(Bytes::new()) };
    let contents = tensor.contents.as_deref().unwrap_or_default();
    let (raw, found) = super::raw::of_contents(contents, datatype)?;
    match elements(tensor) {
        Some(needed) if needed != found => {
            let shape = list(&tensor.shape);
            Err(format!("`contents` has {found} elements, the shape {shape} takes {needed}"))
        }
        Some(_) | None => Ok(raw.into()),
    }
}

/// Whether raw elements fill their shape; what has no width of its own is looked at later.
fn fits(tensor: &Tensor, bytes: usize) -> Result<(), String> {
    let width = Datatype::of(&tensor.datatype).and_then(Datatype::width);
    let needed = elements(tensor).zip(width).and_then(|(elements, width)| elements.checked_mul(width));
    match needed {
        Some(needed) if needed != bytes as u64 => {
            let (datatype, shape) = (&tensor.datatype, list(&tensor.shape));
            Err(format!("its data has {bytes} bytes, {datatype} of the shape {shape} takes {needed}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Elements that a shape takes; `None` if that cannot be said, which is told where all is checked.
fn elements(tensor: &Tensor) -> Option<u64> {
    let lengths = tensor.shape.iter().map(|length| u64::try_from(*length).ok());
    lengths.reduce(|all, length| all?.checked_mul(length?)).unwrap_or(Some(1))
}

fn at_input(request: &InferRequest, at: Option<usize>, why: String) -> Invalid {
    let Some((at, input)) = at.and_then(|at| Some((at, request.inputs.get(at)?))) else {
        return Invalid::body(why);
    };
    Invalid::field(format!("inputs[{at}]"), format!("input {}: {why}", shown(&input.name)))
}

/// A tensor without its data.
fn describe(tensor: &Tensor, more: impl FnOnce(&mut Object)) -> Result<String, Invalid> {
    let parameters = written(&tensor.parameters)?;
    Ok(object(|one| {
        one.text("name", &tensor.name).text("datatype", &tensor.datatype);
        one.array("shape", tensor.shape.iter().map(ToString::to_string));
        one.object("parameters", |all| {
            put(all, &parameters);
            more(all);
        });
    }))
}

/// Parameters as JSON, but for those that say where elements are.
fn written(parameters: &Parameters) -> Result<Vec<(&str, String)>, Invalid> {
    if parameters.len() > TENSORS_MAX {
        return Err(Invalid::field("parameters", format!("there are more than {TENSORS_MAX} parameters")));
    }
    let kept = parameters.iter().filter(|(name, _)| !PLACES.contains(&name.as_str()));
    let written = kept.map(|(name, parameter)| {
        let json = match &parameter.choice {
            None => "null".to_owned(),
            Some(Choice::Bool(value)) => value.to_string(),
            Some(Choice::Int64(value)) => value.to_string(),
            Some(Choice::Uint64(value)) => value.to_string(),
            Some(Choice::String(value)) => quote(value),
            Some(Choice::Double(value)) if value.is_finite() => format!("{value:?}"),
            Some(Choice::Double(value)) => {
                let text = format!("parameter {} is {value}, which is no number", shown(name));
                return Err(Invalid::field("parameters", text));
            }
        };
        Ok((name.as_str(), json))
    });
    written.collect()
}

fn put(all: &mut Object, parameters: &[(&str, String)]) {
    for (name, json) in parameters {
        all.raw(name, json);
    }
}

fn join(json: String, behind: &[Bytes]) -> Whole {
    let json_bytes = Some(json.len() as u64);
    let mut body = json.into_bytes();
    body.reserve_exact(behind.iter().map(Bytes::len).sum());
    for part in behind {
        body.extend_from_slice(part);
    }
    Whole { body: body.into(), json_bytes }
}

/// A parameter out of JSON: what has no word here becomes a text of JSON.
fn parameter(scanner: &mut Scanner<'_>) -> Result<Parameter, String> {
    let plain = |error: crate::json::JsonError| error.to_string();
    let kind = scanner.peek().map_err(plain)?;
    let span = scanner.skip_value().map_err(plain)?;
    let text = scanner.slice(span);
    let choice = match kind {
        Kind::Bool => Choice::Bool(text == "true"),
        Kind::Null => return Ok(Parameter { choice: None }),
        Kind::Number => match (text.parse(), text.parse(), text.parse()) {
            (Ok(value), ..) => Choice::Int64(value),
            (_, Ok(value), _) => Choice::Uint64(value),
            (.., Ok(value)) => Choice::Double(value),
            _ => Choice::String(text.to_owned()),
        },
        Kind::String => {
            let decoded = Scanner::new(text, 1).string().map_err(plain)?.decode().map(Into::into);
            Choice::String(decoded.ok_or("a parameter has half a character")?)
        }
        Kind::Array | Kind::Object => Choice::String(text.to_owned()),
    };
    Ok(Parameter { choice: Some(choice) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kserve::{self, HEADER_LENGTH};
    use crate::openai::request::BodyLimits;

    fn tensor(name: &str, datatype: &str, shape: &[i64], contents: Option<&'static [u8]>) -> Tensor {
        Tensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            contents: contents.map(Bytes::from_static),
            ..Tensor::default()
        }
    }

    fn one(tensor: Tensor, raw: &[&'static [u8]]) -> InferRequest {
        InferRequest {
            id: "7".to_owned(),
            inputs: vec![tensor],
            raw: raw.iter().map(|raw| Bytes::from_static(raw)).collect(),
            ..InferRequest::default()
        }
    }

    #[test]
    fn requests_go_over_http_and_come_back() {
        let mut request = one(tensor("x", "FP32", &[1, 2], None), &[b"abcdefgh"]);
        request.inputs.push(tensor("y", "BYTES", &[1], None));
        request.raw.push(Bytes::from_static(b"\x01\0\0\0z"));
        let say = |choice| Parameter { choice: Some(choice) };
        request.parameters.insert("priority".to_owned(), say(Choice::Uint64(u64::MAX)));
        request.parameters.insert("why".to_owned(), say(Choice::String("é\"".to_owned())));
        request.inputs[0].parameters.insert("half".to_owned(), say(Choice::Double(0.5)));
        request.outputs.push(super::super::Output { name: "z".to_owned(), ..Default::default() });
        let whole = to_http(&request).expect("it goes");
        let read = kserve::parse(&whole.body, whole.json_bytes, &BodyLimits::default()).expect("it is valid");
        assert_eq!((read.inputs.len(), &*read.outputs[0]), (2, "z"));
        let (back, wants) = of_http(whole.json_bytes, &whole.body).expect("it comes back");
        assert!(wants.binary("z") && wants.binary("other"));
        assert_eq!(back, request, "{HEADER_LENGTH}");
    }

    #[test]
    fn json_and_typed_contents_become_raw() {
        let request = one(tensor("x", "INT8", &[2], Some(&[0x12, 2, 1, 2])), &[]);
        let whole = to_http(&request).expect("it goes");
        let (back, _) = of_http(whole.json_bytes, &whole.body).expect("it comes back");
        assert_eq!(back.raw, [Bytes::from_static(&[1, 2])]);
        let json = r#"{"inputs":[{"data":[[1.5],[2]],"name":"x","datatype":"FP16","shape":[2,1]}],"outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"z"}]}"#;
        let (request, wants) = of_http(None, &Bytes::from_static(json.as_bytes())).expect("it goes");
        assert_eq!(request.raw, [Bytes::from_static(&[0, 0x3E, 0, 0x40])]);
        assert!(wants.binary("y") && !wants.binary("z"));
        assert_eq!(request.outputs.len(), 2);
    }

    #[test]
    fn answers_go_both_ways() {
        let response = InferResponse {
            model_name: "m".to_owned(),
            model_version: "3".to_owned(),
            id: "7".to_owned(),
            outputs: vec![tensor("y", "INT16", &[2], None), tensor("z", "BOOL", &[1], None)],
            raw: vec![Bytes::from_static(&[1, 0, 0xFF, 0xFF]), Bytes::from_static(&[1])],
            ..InferResponse::default()
        };
        for (wants, json_bytes) in [(Wants::all(), true), (Wants::default(), false)] {
            let whole = answer_to_http(&response, &wants).expect("it goes");
            assert_eq!(whole.json_bytes.is_some(), json_bytes);
            assert_eq!(answer_of_http(whole.json_bytes, &whole.body), Ok(response.clone()));
        }
        let whole = answer_to_http(&response, &Wants::default()).expect("it goes");
        assert_eq!(
            &whole.body[..],
            br#"{"id":"7","model_name":"m","model_version":"3","outputs":[{"name":"y","datatype":"INT16","shape":[2],"parameters":{},"data":[1,-1]},{"name":"z","datatype":"BOOL","shape":[1],"parameters":{},"data":[true]}]}"#
        );
        for (bytes, json_bytes, says) in [
            (&b"{}"[..], None, "no `outputs`"),
            (b"no", None, "byte 0"),
            (br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1]}]}"#, None, "no data"),
            (br#"{"outputs":[{"name":"y","datatype":"X","shape":[1],"data":[1]}]}"#, None, "datatype"),
            (br#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":9}}]}abc"#, Some(92), "only 3"),
            (b"{}", Some(9), "only 2"),
        ] {
            let told = answer_of_http(json_bytes, &Bytes::from_static(bytes)).expect_err(says);
            assert!(told.contains(says), "{says}: {told}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let f = |shape: &[i64], contents| tensor("x", "FP32", shape, contents);
        for (request, says) in [
            (
                one(f(&[2], None), &[b"abcd"]),
                "input \"x\": its data has 4 bytes, FP32 of the shape [2] takes 8",
            ),
            (
                one(f(&[2], Some(&[0x32, 4, 0, 0, 0, 0])), &[]),
                "input \"x\": `contents` has 1 elements, the shape [2] takes 2",
            ),
            (
                one(f(&[1], Some(&[])), &[b"abcd"]),
                "input \"x\": it has both `contents` and `raw_input_contents`",
            ),
            (one(f(&[1], None), &[b"abcd", b"abcd"]), "`raw_input_contents` has 2 entries for 1 tensors"),
            (one(f(&[1], Some(&[0x12, 1, 1])), &[]), "`int_contents`"),
        ] {
            let told = to_http(&request).expect_err(says);
            assert!(told.message.contains(says), "{says}: {}", told.message);
        }
        // What the rules tell better passes here.
        for shape in [&[-1][..], &[i64::MAX, 3]] {
            assert!(to_http(&one(f(shape, None), &[b"abcd"])).is_ok(), "{shape:?}");
        }
    }
}
