//! One tensor of a request, held to its own datatype and shape.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::json::elements::Misfit;
use crate::json::{Kind, Scanner};
use crate::openai::error::Invalid;

use super::AXES_MAX;
use super::datatype::Datatype;
use super::request::{Seen, Tensor, missing, object, parameters, read_name, shown, string};

type Shape = SmallVec<[u64; 4]>;

/// Where data stands that came before what it has to fit.
enum Data<'a> {
    /// There is none.
    None,
    /// It was checked.
    Checked,
    /// It has to be looked at again.
    Unchecked(&'a str),
}

#[derive(Default)]
struct Parts<'a> {
    name: Option<Cow<'a, str>>,
    datatype: Option<Datatype>,
    shape: Option<Shape>,
    binary_bytes: Option<u64>,
}

/// Reads the tensor at this place of `inputs`.
pub(super) fn read<'a>(scanner: &mut Scanner<'a>, at: usize) -> Result<Tensor<'a>, Invalid> {
    let path = format!("inputs[{at}]");
    object(scanner, &path)?;
    let mut parts = Parts::default();
    let mut data = Data::None;
    let mut seen = Seen::default();
    let mut walk = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut walk)? {
        match seen.field(&key, &["name", "datatype", "shape", "data", "parameters"], &path)? {
            Some("name") => parts.name = Some(read_name(scanner, &path)?),
            Some("datatype") => parts.datatype = Some(read_datatype(scanner, &path)?),
            Some("shape") => parts.shape = Some(read_shape(scanner, &path)?),
            // Clients write it last, and nearly all of the body is there: it is read once.
            Some("data") => data = read_data(scanner, &path, &parts)?,
            Some("parameters") => parts.binary_bytes = read_parameters(scanner, &path)?,
            Some(_) | None => {
                scanner.skip_value()?;
            }
        }
    }
    finish(parts, &data, &path)
}

fn finish<'a>(parts: Parts<'a>, data: &Data<'a>, path: &str) -> Result<Tensor<'a>, Invalid> {
    let name = parts.name.ok_or_else(|| missing(path, "name"))?;
    let datatype = parts.datatype.ok_or_else(|| missing(path, "datatype"))?;
    let shape = parts.shape.ok_or_else(|| missing(path, "shape"))?;
    let elements = count(&shape, path)?;
    match (data, parts.binary_bytes) {
        (Data::None, None) => return Err(missing(path, "data")),
        (Data::None, Some(_)) | (Data::Checked, None) => {}
        (Data::Unchecked(text), None) => {
            let mut scanner = Scanner::new(text, AXES_MAX + 1);
            let read = scanner.elements(datatype.wanted(), &shape, elements);
            read.map_err(|misfit| told(misfit, Some(&name), datatype, &shape, path))?;
        }
        (Data::Checked | Data::Unchecked(_), Some(_)) => {
            let text = format!(
                "input {} has both `data` and `parameters.binary_data_size`; its data is in one place",
                shown(&name)
            );
            return Err(Invalid::field(format!("{path}.data"), text));
        }
    }
    Ok(Tensor { name, datatype, shape, elements, binary_bytes: parts.binary_bytes })
}

fn read_data<'a>(scanner: &mut Scanner<'a>, path: &str, parts: &Parts<'a>) -> Result<Data<'a>, Invalid> {
    let kind = scanner.peek()?;
    if kind != Kind::Array {
        let text = format!("`{path}.data` must be an array, not {}", kind.name());
        return Err(Invalid::field(format!("{path}.data"), text));
    }
    let (Some(datatype), Some(shape)) = (parts.datatype, &parts.shape) else {
        let span = scanner.skip_value()?;
        return Ok(Data::Unchecked(scanner.slice(span)));
    };
    let elements = count(shape, path)?;
    match scanner.elements(datatype.wanted(), shape, elements) {
        Ok(()) => Ok(Data::Checked),
        Err(misfit) => Err(told(misfit, parts.name.as_deref(), datatype, shape, path)),
    }
}

fn read_datatype(scanner: &mut Scanner<'_>, path: &str) -> Result<Datatype, Invalid> {
    let field = format!("{path}.datatype");
    let text = string(scanner, &field, || format!("`{field}`"))?;
    let named = text.decode();
    named.as_deref().and_then(Datatype::of).ok_or_else(|| {
        let known = Datatype::ALL.map(Datatype::name).join(", ");
        let named = named.as_deref().unwrap_or_default();
        let text = format!("`{field}` is {}, which is no datatype; known are {known}", shown(named));
        Invalid::field(field, text)
    })
}

fn read_shape(scanner: &mut Scanner<'_>, path: &str) -> Result<Shape, Invalid> {
    let field = format!("{path}.shape");
    let bad = |text: String| Invalid::field(field.clone(), text);
    let kind = scanner.peek()?;
    if kind != Kind::Array {
        return Err(bad(format!("`{field}` must be an array, not {}", kind.name())));
    }
    let mut shape = Shape::new();
    let mut walk = scanner.array()?;
    while scanner.next_element(&mut walk)? {
        if shape.len() == AXES_MAX {
            return Err(bad(format!("`{field}` has more than {AXES_MAX} axes")));
        }
        let kind = scanner.peek()?;
        let length = if kind == Kind::Number { scanner.number()?.parse().ok() } else { None };
        let length = length.filter(|length| i64::try_from(*length).is_ok());
        shape.push(length.ok_or_else(|| {
            bad(format!(
                "`{field}[{}]` must be an integer of at least 0; a request's shape is whole",
                shape.len()
            ))
        })?);
    }
    Ok(shape)
}

fn read_parameters(scanner: &mut Scanner<'_>, path: &str) -> Result<Option<u64>, Invalid> {
    let mut size = None;
    parameters(scanner, path, |scanner, key| {
        if !key.is("binary_data_size") {
            return Ok(false);
        }
        let number = if scanner.peek()? == Kind::Number { scanner.number()?.parse().ok() } else { None };
        size = number;
        if number.is_some() {
            return Ok(true);
        }
        let field = format!("{path}.parameters.binary_data_size");
        let text = format!("`{field}` must be a number of bytes");
        Err(Invalid::field(field, text))
    })?;
    Ok(size)
}

/// Elements of a shape. More than any body can hold are as bad as more than can be counted.
fn count(shape: &[u64], path: &str) -> Result<u64, Invalid> {
    let empty = shape.contains(&0);
    let product = shape.iter().try_fold(1_u64, |product, length| product.checked_mul(*length));
    if empty {
        return Ok(0);
    }
    product.ok_or_else(|| {
        let field = format!("{path}.shape");
        let text = format!("`{field}` has more elements than can be counted");
        Invalid::field(field, text)
    })
}

/// What is told of elements that do not fit.
fn told(misfit: Misfit<'_>, name: Option<&str>, datatype: Datatype, shape: &[u64], path: &str) -> Invalid {
    let label = name.map_or_else(|| format!("`{path}`"), |name| format!("input {}", shown(name)));
    let takes = datatype.takes();
    let text = match misfit {
        Misfit::Json(error) => return error.into(),
        Misfit::Kind { element, found } => {
            format!("{label}: element {element} is {}; {datatype} takes {takes}", found.name())
        }
        Misfit::Fraction { element, text } => {
            format!(
                "{label}: element {element} is {}, which is no integer; {datatype} takes {takes}",
                short(text)
            )
        }
        Misfit::Range { element, text } => {
            format!("{label}: element {element} is {}, out of range; {datatype} takes {takes}", short(text))
        }
        Misfit::Count { found } => {
            let needs = count(shape, path).unwrap_or_default();
            format!("{label}: `data` has {found} elements, the shape {} takes {needs}", list(shape))
        }
        Misfit::Nesting => format!(
            "{label}: `data` must be flat, or nested as the shape {} is, with {takes} at the innermost",
            list(shape)
        ),
        Misfit::Axis { axis, found } => format!(
            "{label}: `data` has {found} elements on axis {axis}, the shape {} takes {}",
            list(shape),
            shape.get(axis).copied().unwrap_or_default()
        ),
    };
    Invalid::field(format!("{path}.data"), text)
}

/// A shape for a message.
pub(super) fn list<T: ToString>(shape: &[T]) -> String {
    let lengths: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", lengths.join(", "))
}

/// A number for a message: it may have as many digits as a body has bytes.
fn short(number: &str) -> String {
    const SHOWN_BYTES_MAX: usize = 40;
    match number.get(..SHOWN_BYTES_MAX) {
        Some(beginning) if number.len() > SHOWN_BYTES_MAX => format!("{beginning}…"),
        Some(_) | None => number.to_owned(),
    }
}
