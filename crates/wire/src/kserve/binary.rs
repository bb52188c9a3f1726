//! Tensors whose data follows the JSON, one after the other, as the machine has them: the binary tensor extension.

use crate::openai::error::Invalid;

use super::HEADER_LENGTH;
use super::datatype::Datatype;
use super::request::{Tensor, shown};
use super::tensor::list;

/// Bytes that stand before each element that has its own length, and say what it is.
const LENGTH_BYTES: usize = 4;

/// Holds the data behind the JSON to the tensors that have theirs there.
pub(super) fn check(inputs: &[Tensor<'_>], data: &[u8], announced: bool) -> Result<(), Invalid> {
    let mut rest = data;
    for (at, input) in inputs.iter().enumerate() {
        let Some(size) = input.binary_bytes else { continue };
        let field = format!("inputs[{at}].parameters.binary_data_size");
        let bad =
            |text: String| Invalid::field(field.clone(), format!("input {}: {text}", shown(&input.name)));
        if !announced {
            return Err(bad(format!(
                "`binary_data_size` is given, but not the header `{HEADER_LENGTH}`, which tells where the JSON ends"
            )));
        }
        let own = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size));
        let Some((own, behind)) = own else {
            let left = rest.len();
            return Err(bad(format!("`binary_data_size` is {size}, the body has only {left} bytes for it")));
        };
        check_one(input, own).map_err(bad)?;
        rest = behind;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let text = format!("{} bytes behind the JSON belong to no input; check `binary_data_size`", rest.len());
    Err(Invalid::body(text))
}

fn check_one(input: &Tensor<'_>, own: &[u8]) -> Result<(), String> {
    let (datatype, shape, elements) = (input.datatype, list(&input.shape), input.elements);
    let Some(width) = datatype.width() else { return check_lengths(own, elements, &shape) };
    let needed = elements.checked_mul(width);
    if needed != Some(own.len() as u64) {
        let needed = needed.map_or_else(|| "more than can be counted".to_owned(), |bytes| bytes.to_string());
        return Err(format!(
            "`binary_data_size` is {}, {datatype} of the shape {shape} takes {needed}",
            own.len()
        ));
    }
    // Without a branch per byte this becomes vector code; the place matters only when there is one.
    if datatype == Datatype::Bool && own.iter().fold(0, |all, byte| all | byte) > 1 {
        let at = own.iter().position(|byte| *byte > 1).unwrap_or_default();
        return Err(format!("element {at} is {}; BOOL takes 0 or 1 in binary", own[at]));
    }
    Ok(())
}

/// Elements with lengths of their own, four bytes each, little end first.
fn check_lengths(own: &[u8], elements: u64, shape: &str) -> Result<(), String> {
    let mut rest = own;
    let mut found = 0_u64;
    while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_le_bytes(*length);
        let next = usize::try_from(length).ok().and_then(|length| behind.get(length..));
        rest = next.ok_or_else(|| {
            format!("element {found} has {length} bytes by its length, only {} are left", behind.len())
        })?;
        found += 1;
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left behind element {found}, too few for a length", rest.len()));
    }
    if found == elements {
        Ok(())
    } else {
        Err(format!("the data has {found} elements, the shape {shape} takes {elements}"))
    }
}
