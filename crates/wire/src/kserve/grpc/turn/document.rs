//! Requests and answers that came over HTTP, read for gRPC.

use bytes::Bytes;

use crate::json::{JsonError, Kind, Scanner, Span};
use crate::kserve::TENSORS_MAX;
use crate::kserve::datatype::Datatype;

use super::super::raw;
use super::super::{InferRequest, InferResponse, Output, Parameters, Tensor};
use super::{PLACES, parameter};

/// Nesting in a body.
const DEPTH_MAX: usize = 64;

/// Which outputs a client wants in binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    named: Vec<(String, bool)>,
    others: bool,
}

impl Wants {
    /// All of them.
    pub fn all() -> Self {
        Self { named: Vec::new(), others: true }
    }

    /// Whether it wants this one in binary.
    pub fn binary(&self, name: &str) -> bool {
        self.named.iter().find(|(known, _)| known == name).map_or(self.others, |(_, binary)| *binary)
    }
}

/// A request that came over HTTP, and how its answer is wanted. The model stands in the path.
pub fn of_http(json_bytes: Option<u64>, body: &Bytes) -> Result<(InferRequest, Wants), String> {
    let read = Document::read(json_bytes, body, "inputs")?;
    let mut wants = Wants { named: Vec::new(), others: read.binary_output };
    let outputs = read.asked.into_iter().map(|asked| {
        wants.named.push((asked.name.clone(), asked.binary.unwrap_or(wants.others)));
        Output { name: asked.name, parameters: asked.parameters }
    });
    let outputs = outputs.collect();
    let request = InferRequest {
        id: read.id,
        parameters: read.parameters,
        inputs: read.tensors,
        outputs,
        raw: read.raw,
        ..InferRequest::default()
    };
    Ok((request, wants))
}

/// An answer that came over HTTP. An error is the provider's fault, in words.
pub fn answer_of_http(json_bytes: Option<u64>, body: &Bytes) -> Result<InferResponse, String> {
    let read = Document::read(json_bytes, body, "outputs")?;
    Ok(InferResponse {
        model_name: read.model_name,
        model_version: read.model_version,
        id: read.id,
        parameters: read.parameters,
        outputs: read.tensors,
        raw: read.raw,
    })
}

#[derive(Default)]
struct Document {
    model_name: String,
    model_version: String,
    id: String,
    parameters: Parameters,
    binary_output: bool,
    tensors: Vec<Tensor>,
    raw: Vec<Bytes>,
    asked: Vec<Asked>,
}

/// An output that is asked for.
struct Asked {
    name: String,
    parameters: Parameters,
    binary: Option<bool>,
}

/// What is said of elements beside a tensor.
#[derive(Default)]
struct Said {
    parameters: Parameters,
    size: Option<u64>,
    binary: Option<bool>,
    binary_output: bool,
}

impl Document {
    /// `tensors` is the field that has them.
    fn read(json_bytes: Option<u64>, body: &Bytes, tensors: &str) -> Result<Self, String> {
        let at = json_bytes.map_or(Some(body.len()), |bytes| usize::try_from(bytes).ok());
        let (json, mut behind) = at
            .filter(|at| *at <= body.len())
            .map(|at| (body.slice(..at), body.slice(at..)))
            .ok_or_else(|| format!("its JSON is longer than it: it has only {} bytes", body.len()))?;
        let text = std::str::from_utf8(&json).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut scanner = Scanner::new(text, DEPTH_MAX);
        let (mut all, mut seen) = (Self::default(), false);
        let mut walk = scanner.object().map_err(plain)?;
        while let Some(key) = scanner.next_key(&mut walk).map_err(plain)? {
            let kind = scanner.peek().map_err(plain)?;
            if key.is(tensors) && kind == Kind::Array {
                all.read_tensors(&mut scanner, &mut behind)?;
                seen = true;
            } else if key.is("outputs") && kind == Kind::Array {
                all.read_asked(&mut scanner)?;
            } else if key.is("parameters") && kind == Kind::Object {
                let said = said(&mut scanner)?;
                (all.parameters, all.binary_output) = (said.parameters, said.binary_output);
            } else if key.is("id") && kind == Kind::String {
                all.id = text_of(&mut scanner)?;
            } else if key.is("model_name") && kind == Kind::String {
                all.model_name = text_of(&mut scanner)?;
            } else if key.is("model_version") && kind == Kind::String {
                all.model_version = text_of(&mut scanner)?;
            } else {
                scanner.skip_value().map_err(plain)?;
            }
        }
        if seen { Ok(all) } else { Err(format!("it has no `{tensors}`")) }
    }

    fn read_tensors(&mut self, scanner: &mut Scanner<'_>, behind: &mut Bytes) -> Result<(), String> {
        let mut walk = scanner.array().map_err(plain)?;
        while scanner.next_element(&mut walk).map_err(plain)? {
            if self.tensors.len() == TENSORS_MAX {
                return Err(format!("it has more than {TENSORS_MAX} tensors"));
            }
            let (tensor, raw) = tensor(scanner, behind)?;
            self.tensors.push(tensor);
            self.raw.push(raw);
        }
        Ok(())
    }

    fn read_asked(&mut self, scanner: &mut Scanner<'_>) -> Result<(), String> {
        let mut walk = scanner.array().map_err(plain)?;
        while scanner.next_element(&mut walk).map_err(plain)? {
            if self.asked.len() == TENSORS_MAX {
                return Err(format!("it asks for more than {TENSORS_MAX} outputs"));
            }
            let mut one = Asked { name: String::new(), parameters: Parameters::new(), binary: None };
            let mut members = scanner.object().map_err(plain)?;
            while let Some(key) = scanner.next_key(&mut members).map_err(plain)? {
                if key.is("name") {
                    one.name = text_of(scanner)?;
                } else if key.is("parameters") {
                    let said = said(scanner)?;
                    (one.parameters, one.binary) = (said.parameters, said.binary);
                } else {
                    scanner.skip_value().map_err(plain)?;
                }
            }
            self.asked.push(one);
        }
        Ok(())
    }
}

fn tensor(scanner: &mut Scanner<'_>, behind: &mut Bytes) -> Result<(Tensor, Bytes), String> {
    let mut tensor = Tensor::default();
    let mut size = None;
    let mut data: Option<Span> = None;
    let mut members = scanner.object().map_err(plain)?;
    while let Some(key) = scanner.next_key(&mut members).map_err(plain)? {
        if key.is("name") {
            tensor.name = text_of(scanner)?;
        } else if key.is("datatype") {
            tensor.datatype = text_of(scanner)?;
        } else if key.is("shape") {
            let mut axes = scanner.array().map_err(plain)?;
            while scanner.next_element(&mut axes).map_err(plain)? {
                let length = scanner.number().map_err(plain)?;
                tensor.shape.push(length.parse().map_err(|_| format!("{length} is no length of an axis"))?);
            }
        } else if key.is("parameters") {
            let said = said(scanner)?;
            (tensor.parameters, size) = (said.parameters, said.size);
        } else {
            let span = scanner.skip_value().map_err(plain)?;
            data = if key.is("data") { Some(span) } else { data };
        }
    }
    let named = |why: String| format!("tensor {}: {why}", crate::kserve::request::shown(&tensor.name));
    if let Some(size) = size {
        let size = usize::try_from(size).ok().filter(|size| *size <= behind.len());
        let left = behind.len();
        let size = size.ok_or_else(|| named(format!("only {left} bytes are left for its data")))?;
        let raw = behind.split_to(size);
        return Ok((tensor, raw));
    }
    let data = data.ok_or_else(|| named("it has no data".to_owned()))?;
    let datatype = Datatype::of(&tensor.datatype).ok_or_else(|| {
        named(format!("{} is no datatype", crate::kserve::request::shown(&tensor.datatype)))
    })?;
    let mut elements = Scanner::new(scanner.slice(data), DEPTH_MAX);
    let raw = raw::of_json(&mut elements, datatype).map_err(named)?;
    Ok((tensor, raw.into()))
}

fn said(scanner: &mut Scanner<'_>) -> Result<Said, String> {
    let mut all = Said::default();
    let mut walk = scanner.object().map_err(plain)?;
    while let Some(key) = scanner.next_key(&mut walk).map_err(plain)? {
        let Some(name) = key.decode() else {
            scanner.skip_value().map_err(plain)?;
            continue;
        };
        let kind = scanner.peek().map_err(plain)?;
        match (&*name, kind) {
            ("binary_data_size", Kind::Number) => all.size = scanner.number().map_err(plain)?.parse().ok(),
            ("binary_data", Kind::Bool) => all.binary = Some(scanner.boolean().map_err(plain)?),
            ("binary_data_output", Kind::Bool) => all.binary_output = scanner.boolean().map_err(plain)?,
            _ if PLACES.contains(&&*name) => {
                scanner.skip_value().map_err(plain)?;
            }
            _ => {
                if all.parameters.len() == TENSORS_MAX {
                    return Err(format!("there are more than {TENSORS_MAX} parameters"));
                }
                all.parameters.insert(name.into_owned(), parameter(scanner)?);
            }
        }
    }
    Ok(all)
}

fn text_of(scanner: &mut Scanner<'_>) -> Result<String, String> {
    let text = scanner.string().map_err(plain)?.decode();
    text.map(Into::into).ok_or_else(|| "a text has half a character".to_owned())
}

fn plain(error: JsonError) -> String {
    error.to_string()
}
