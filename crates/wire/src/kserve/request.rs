//! What an inference request asks for, read in one pass.
//!
//! Fields that decide what is run may appear once, in one spelling: a second reader downstream must not see another
//! request than the one that was checked. Fields nobody here knows pass, as parameters do. What names memory that a client
//! shares with a server does not: behind a router that would be another's machine.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::json::{Kind, Scanner, Text, quote};
use crate::openai::error::Invalid;
use crate::openai::request::forbidden::forbidden_key;
use crate::openai::request::members::utf8;
use crate::openai::request::{BodyLimits, Tensors};

use super::datatype::Datatype;
use super::{HEADER_LENGTH, NAME_BYTES_MAX, TENSORS_MAX, binary, tensor};

/// A valid inference request.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference<'a> {
    /// Its tensors.
    pub inputs: SmallVec<[Tensor<'a>; 2]>,
    /// The names of the outputs it asks for; none is all of them.
    pub outputs: SmallVec<[Cow<'a, str>; 2]>,
    /// Bytes of its JSON, if binary tensors follow.
    pub json_bytes: Option<u64>,
    /// Bytes of the body.
    pub bytes: u64,
}

impl Inference<'_> {
    /// What is counted of it.
    pub fn tensors(&self) -> Tensors {
        Tensors {
            count: u32::try_from(self.inputs.len()).unwrap_or(u32::MAX),
            elements: self.inputs.iter().fold(0, |all, input| input.elements.saturating_add(all)),
            bytes: self.bytes,
            json_bytes: self.json_bytes,
        }
    }
}

/// A tensor whose data fits its datatype and shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// What its elements are.
    pub datatype: Datatype,
    /// Its length on each axis.
    pub shape: SmallVec<[u64; 4]>,
    /// How many elements it has: the product of its shape.
    pub elements: u64,
    /// Bytes of its data behind the JSON, if it is there.
    pub binary_bytes: Option<u64>,
}

/// Reads and checks a body. `json_bytes` is what the header [`HEADER_LENGTH`] says, if it is there.
pub fn parse<'a>(
    body: &'a [u8],
    json_bytes: Option<u64>,
    limits: &BodyLimits,
) -> Result<Inference<'a>, Invalid> {
    let (json, data) = split(body, json_bytes)?;
    let text = utf8(json)?;
    let mut scanner = Scanner::new(text, limits.depth_max);
    let (inputs, outputs) = members(&mut scanner)?;
    scanner.finish()?;
    binary::check(&inputs, data, json_bytes.is_some())?;
    Ok(Inference { inputs, outputs, json_bytes, bytes: body.len() as u64 })
}

fn split(body: &[u8], json_bytes: Option<u64>) -> Result<(&[u8], &[u8]), Invalid> {
    let Some(json_bytes) = json_bytes else { return Ok((body, &[])) };
    usize::try_from(json_bytes).ok().and_then(|at| body.split_at_checked(at)).ok_or_else(|| {
        let text = format!("`{HEADER_LENGTH}` is {json_bytes}, the body has only {} bytes", body.len());
        Invalid::field(HEADER_LENGTH, text)
    })
}

type Inputs<'a> = SmallVec<[Tensor<'a>; 2]>;
type Outputs<'a> = SmallVec<[Cow<'a, str>; 2]>;

fn members<'a>(scanner: &mut Scanner<'a>) -> Result<(Inputs<'a>, Outputs<'a>), Invalid> {
    if scanner.peek()? != Kind::Object {
        return Err(Invalid::body("the body must be a JSON object"));
    }
    let mut seen = Seen::default();
    let (mut inputs, mut outputs) = (None, None);
    let mut walk = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut walk)? {
        match seen.field(&key, &["inputs", "outputs", "id", "parameters"], "")? {
            Some("inputs") => inputs = Some(read_inputs(scanner)?),
            Some("outputs") => outputs = Some(read_outputs(scanner)?),
            Some("id") => {
                string(scanner, "id", || "`id`".to_owned())?;
            }
            Some("parameters") => {
                parameters(scanner, "", |_, _| Ok(false))?;
            }
            Some(_) | None => {
                not_the_operators(&key, "", &[])?;
                scanner.skip_value()?;
            }
        }
    }
    let inputs = inputs.ok_or_else(|| Invalid::field("inputs", "`inputs` is missing"))?;
    Ok((inputs, outputs.unwrap_or_default()))
}

fn read_inputs<'a>(scanner: &mut Scanner<'a>) -> Result<Inputs<'a>, Invalid> {
    let mut inputs = Inputs::new();
    list(scanner, "inputs", |scanner, at| {
        inputs.push(tensor::read(scanner, at)?);
        Ok(())
    })?;
    if inputs.is_empty() {
        return Err(Invalid::field("inputs", "`inputs` is empty; a request has at least one tensor"));
    }
    unique("inputs", inputs.iter().map(|input| &*input.name))?;
    Ok(inputs)
}

fn read_outputs<'a>(scanner: &mut Scanner<'a>) -> Result<Outputs<'a>, Invalid> {
    let mut outputs = Outputs::new();
    list(scanner, "outputs", |scanner, at| {
        let path = format!("outputs[{at}]");
        let mut seen = Seen::default();
        let mut name = None;
        object(scanner, &path)?;
        let mut walk = scanner.object()?;
        while let Some(key) = scanner.next_key(&mut walk)? {
            match seen.field(&key, &["name", "parameters"], &path)? {
                Some("name") => name = Some(read_name(scanner, &path)?),
                Some("parameters") => parameters(scanner, &path, |_, _| Ok(false))?,
                Some(_) | None => {
                    scanner.skip_value()?;
                }
            }
        }
        outputs.push(name.ok_or_else(|| missing(&path, "name"))?);
        Ok(())
    })?;
    unique("outputs", outputs.iter().map(|name| &**name))?;
    Ok(outputs)
}

/// Two tensors of one name could be taken for each other. Names are compared in order, for there may be many.
fn unique<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Invalid> {
    let mut names: SmallVec<[&str; 8]> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            Err(Invalid::field(field, format!("`{field}` has more than one tensor named {}", shown(pair[0]))))
        }
    }
}

fn list<'a>(
    scanner: &mut Scanner<'a>,
    field: &str,
    mut each: impl FnMut(&mut Scanner<'a>, usize) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let kind = scanner.peek()?;
    if kind != Kind::Array {
        return Err(Invalid::field(field, format!("`{field}` must be an array, not {}", kind.name())));
    }
    let mut walk = scanner.array()?;
    let mut at = 0;
    while scanner.next_element(&mut walk)? {
        if at == TENSORS_MAX {
            return Err(Invalid::field(field, format!("`{field}` has more than {TENSORS_MAX} tensors")));
        }
        each(scanner, at)?;
        at += 1;
    }
    Ok(())
}

/// Holds the next value to be an object.
pub(super) fn object(scanner: &mut Scanner<'_>, path: &str) -> Result<(), Invalid> {
    let kind = scanner.peek()?;
    if kind == Kind::Object {
        return Ok(());
    }
    Err(Invalid::field(path, format!("`{path}` must be an object, not {}", kind.name())))
}

pub(super) fn missing(path: &str, field: &str) -> Invalid {
    Invalid::field(format!("{path}.{field}"), format!("`{path}` has no `{field}`"))
}

/// The name of a tensor.
pub(super) fn read_name<'a>(scanner: &mut Scanner<'a>, path: &str) -> Result<Cow<'a, str>, Invalid> {
    let field = || format!("{path}.name");
    let text = string(scanner, &field(), || format!("`{}`", field()))?;
    let name = text.decode().filter(|name| {
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
    });
    name.ok_or_else(|| {
        let text = format!("`{}` must have 1 to {NAME_BYTES_MAX} bytes and no control characters", field());
        Invalid::field(field(), text)
    })
}

pub(super) fn string<'a>(
    scanner: &mut Scanner<'a>,
    field: &str,
    label: impl Fn() -> String,
) -> Result<Text<'a>, Invalid> {
    let kind = scanner.peek()?;
    if kind != Kind::String {
        return Err(Invalid::field(field, format!("{} must be a string, not {}", label(), kind.name())));
    }
    Ok(scanner.string()?)
}

/// Reads parameters. `take` may read the value of one it knows, and says whether it did.
pub(super) fn parameters<'a>(
    scanner: &mut Scanner<'a>,
    path: &str,
    mut take: impl FnMut(&mut Scanner<'a>, &Text<'a>) -> Result<bool, Invalid>,
) -> Result<(), Invalid> {
    const KNOWN: [&str; 6] = [
        "binary_data_size",
        "binary_data",
        "binary_data_output",
        "shared_memory_region",
        "shared_memory_offset",
        "shared_memory_byte_size",
    ];
    let field = if path.is_empty() { "parameters".to_owned() } else { format!("{path}.parameters") };
    object(scanner, &field)?;
    let mut seen = Seen::default();
    let mut walk = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut walk)? {
        let known = seen.field(&key, &KNOWN, &field)?;
        if let Some(name) = known.filter(|name| name.starts_with("shared_memory")) {
            let text = format!(
                "`{field}.{name}` names memory shared with a server, which a router cannot reach; send the data itself"
            );
            return Err(Invalid::field(format!("{field}.{name}"), text));
        }
        if known.is_none() {
            // Triton's own, how long a request may wait for its turn, and MLServer's, what a codec is told.
            not_the_operators(&key, &field, &["headers", "timeout"])?;
        }
        if !take(scanner, &key)? {
            scanner.skip_value()?;
        }
    }
    Ok(())
}

/// Refuses a field that would tell the server behind where to go: the body is passed on as it came, so it cannot be left out.
fn not_the_operators(key: &Text<'_>, path: &str, fine: &[&str]) -> Result<(), Invalid> {
    let Some(name) = forbidden_key(key).filter(|name| !fine.contains(name)) else { return Ok(()) };
    let got = shown(&key.decode().unwrap_or_default());
    let field = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let text = format!("{got} is not for clients to say; leave it out");
    Err(Invalid::field(field, text))
}

/// The fields an object had so far.
#[derive(Debug, Default)]
pub(super) struct Seen(u32);

impl Seen {
    /// Which of `known` a member's name is. One that comes twice, or in other capitals, is refused: readers differ in which
    /// they take.
    pub(super) fn field(
        &mut self,
        key: &Text<'_>,
        known: &[&'static str],
        path: &str,
    ) -> Result<Option<&'static str>, Invalid> {
        let Some(key) = key.decode() else { return Ok(None) };
        let Some(at) = known.iter().position(|name| key.eq_ignore_ascii_case(name)) else { return Ok(None) };
        let name = known[at];
        let field = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if key != name {
            let text = format!("{} is spelt `{name}`; names are told apart by their capitals", shown(&key));
            return Err(Invalid::field(field, text));
        }
        if self.0 >> at & 1 == 1 {
            let text = format!("`{field}` is given more than once");
            return Err(Invalid::field(field, text));
        }
        self.0 |= 1 << at;
        Ok(Some(name))
    }
}

/// A client's text for a message: quoted and short.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let ellipsis = if end < text.len() { "…" } else { "" };
    quote(&format!("{}{ellipsis}", &text[..end]))
}
