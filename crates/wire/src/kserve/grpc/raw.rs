//! Elements of tensors as a machine has them, little end first, out of the other forms that they come in and back.

use std::fmt::Write as _;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::json::{Kind, Scanner, quote_into};
use crate::kserve::AXES_MAX;
use crate::kserve::datatype::Datatype;

use super::half::{half, of_half, of_upper, upper};

/// The field of `InferTensorContents` that a datatype's elements are in; `None` if they can only be raw.
const fn field(datatype: Datatype) -> Option<(u32, &'static str)> {
    match datatype {
        Datatype::Bool => Some((1, "bool_contents")),
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Some((2, "int_contents")),
        Datatype::Int64 => Some((3, "int64_contents")),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Some((4, "uint_contents")),
        Datatype::Uint64 => Some((5, "uint64_contents")),
        Datatype::Fp32 => Some((6, "fp32_contents")),
        Datatype::Fp64 => Some((7, "fp64_contents")),
        Datatype::Bytes => Some((8, "bytes_contents")),
        Datatype::Fp16 | Datatype::Bf16 => None,
    }
}

/// The fields of `InferTensorContents`, by their numbers from 1.
const FIELDS: [&str; 8] = [
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

/// The elements of an `InferTensorContents`, and how many there are.
pub(super) fn of_contents(mut contents: &[u8], datatype: Datatype) -> Result<(Vec<u8>, u64), String> {
    let Some((wanted, name)) = field(datatype) else {
        return Err(format!("{datatype} has no typed contents; send it in `raw_input_contents`"));
    };
    let mut out = Vec::with_capacity(contents.len());
    let mut count = 0;
    while !contents.is_empty() {
        let (tag, wire) = decode_key(&mut contents).map_err(unreadable)?;
        if tag != wanted {
            if let Some(other) = FIELDS.get((tag as usize).wrapping_sub(1)) {
                return Err(format!("its data is in `{other}`; {datatype} belongs into `{name}`"));
            }
            skip_field(wire, tag, &mut contents, DecodeContext::default()).map_err(unreadable)?;
            continue;
        }
        if wire != WireType::LengthDelimited {
            element(wire, &mut contents, datatype, count, &mut out)?;
            count += 1;
            continue;
        }
        let length = decode_varint(&mut contents).map_err(unreadable)?;
        let split = usize::try_from(length).ok().and_then(|length| contents.split_at_checked(length));
        let Some((mut part, rest)) = split else { return Err(unreadable("it ends within a field")) };
        contents = rest;
        if datatype == Datatype::Bytes {
            put_bytes(part, &mut out);
            count += 1;
            continue;
        }
        while !part.is_empty() {
            element(packed(datatype), &mut part, datatype, count, &mut out)?;
            count += 1;
        }
    }
    Ok((out, count))
}

fn unreadable(why: impl std::fmt::Display) -> String {
    format!("its contents cannot be read: {why}")
}

/// How an element is written where many stand in a row.
const fn packed(datatype: Datatype) -> WireType {
    match datatype {
        Datatype::Fp32 => WireType::ThirtyTwoBit,
        Datatype::Fp64 => WireType::SixtyFourBit,
        Datatype::Bytes => WireType::LengthDelimited,
        Datatype::Bool
        | Datatype::Uint8
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Int8
        | Datatype::Int16
        | Datatype::Int32
        | Datatype::Int64
        | Datatype::Fp16
        | Datatype::Bf16 => WireType::Varint,
    }
}

fn element(
    wire: WireType,
    bytes: &mut &[u8],
    datatype: Datatype,
    at: u64,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if wire != packed(datatype) {
        return Err(unreadable("a field has another type than it should"));
    }
    let width = match wire {
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::Varint | WireType::LengthDelimited | WireType::StartGroup | WireType::EndGroup => {
            let value = decode_varint(bytes).map_err(unreadable)?;
            return integer(datatype, value, at, out);
        }
    };
    let (taken, rest) =
        bytes.split_at_checked(width).ok_or_else(|| unreadable("it ends within an element"))?;
    out.extend_from_slice(taken);
    *bytes = rest;
    Ok(())
}

/// Numbers below zero stand there as 64 bits, whatever their own are.
fn integer(datatype: Datatype, value: u64, at: u64, out: &mut Vec<u8>) -> Result<(), String> {
    let (signed, unsigned) = (value as i32, value as u32);
    let range = |shown: String| {
        format!("element {at} is {shown}, out of range; {datatype} takes {}", datatype.takes())
    };
    match datatype {
        Datatype::Bool => out.push(u8::from(value != 0)),
        Datatype::Int8 => {
            out.extend(i8::try_from(signed).map_err(|_| range(signed.to_string()))?.to_le_bytes());
        }
        Datatype::Int16 => {
            out.extend(i16::try_from(signed).map_err(|_| range(signed.to_string()))?.to_le_bytes());
        }
        Datatype::Int32 => out.extend(signed.to_le_bytes()),
        Datatype::Uint8 => out.push(u8::try_from(unsigned).map_err(|_| range(unsigned.to_string()))?),
        Datatype::Uint16 => {
            out.extend(u16::try_from(unsigned).map_err(|_| range(unsigned.to_string()))?.to_le_bytes());
        }
        Datatype::Uint32 => out.extend(unsigned.to_le_bytes()),
        Datatype::Int64 | Datatype::Uint64 => out.extend(value.to_le_bytes()),
        Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bytes | Datatype::Bf16 => {
            return Err(unreadable("a field has another type than it should"));
        }
    }
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // No body has so many bytes that their number does not fit.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The elements of an array in JSON, flat or nested, which the scanner stands before.
pub(super) fn of_json(scanner: &mut Scanner<'_>, datatype: Datatype) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    if read(scanner, Kind::Array)? {
        nested(scanner, datatype, 0, &mut out)?;
        return Ok(out);
    }
    Err("`data` is no array".to_owned())
}

/// Whether the next value is of a kind.
fn read(scanner: &mut Scanner<'_>, kind: Kind) -> Result<bool, String> {
    Ok(scanner.peek().map_err(|error| error.to_string())? == kind)
}

fn nested(
    scanner: &mut Scanner<'_>,
    datatype: Datatype,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if depth > AXES_MAX {
        return Err(format!("`data` is nested deeper than {AXES_MAX} axes"));
    }
    let plain = |error: crate::json::JsonError| error.to_string();
    let mut walk = scanner.array().map_err(plain)?;
    while scanner.next_element(&mut walk).map_err(plain)? {
        if read(scanner, Kind::Array)? {
            nested(scanner, datatype, depth + 1, out)?;
        } else {
            scalar(scanner, datatype, out)?;
        }
    }
    Ok(())
}

fn scalar(scanner: &mut Scanner<'_>, datatype: Datatype, out: &mut Vec<u8>) -> Result<(), String> {
    fn number<T: std::str::FromStr>(text: &str, datatype: Datatype) -> Result<T, String> {
        text.parse().map_err(|_| format!("{text} is an element; {datatype} takes {}", datatype.takes()))
    }
    match datatype {
        Datatype::Bool => {
            out.push(u8::from(scanner.boolean().map_err(|error| error.to_string())?));
            return Ok(());
        }
        Datatype::Bytes => {
            let text = scanner.string().map_err(|error| error.to_string())?;
            let text = text.decode().ok_or("an element has half a character")?;
            put_bytes(text.as_bytes(), out);
            return Ok(());
        }
        Datatype::Uint8
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Int8
        | Datatype::Int16
        | Datatype::Int32
        | Datatype::Int64
        | Datatype::Fp16
        | Datatype::Fp32
        | Datatype::Fp64
        | Datatype::Bf16 => {}
    }
    let text = scanner.number().map_err(|error| error.to_string())?;
    match datatype {
        Datatype::Uint8 => out.push(number(text, datatype)?),
        Datatype::Uint16 => out.extend(number::<u16>(text, datatype)?.to_le_bytes()),
        Datatype::Uint32 => out.extend(number::<u32>(text, datatype)?.to_le_bytes()),
        Datatype::Uint64 => out.extend(number::<u64>(text, datatype)?.to_le_bytes()),
        Datatype::Int8 => out.extend(number::<i8>(text, datatype)?.to_le_bytes()),
        Datatype::Int16 => out.extend(number::<i16>(text, datatype)?.to_le_bytes()),
        Datatype::Int32 => out.extend(number::<i32>(text, datatype)?.to_le_bytes()),
        Datatype::Int64 => out.extend(number::<i64>(text, datatype)?.to_le_bytes()),
        Datatype::Fp16 => out.extend(half(number(text, datatype)?).to_le_bytes()),
        Datatype::Fp32 => out.extend(number::<f32>(text, datatype)?.to_le_bytes()),
        Datatype::Fp64 => out.extend(number::<f64>(text, datatype)?.to_le_bytes()),
        Datatype::Bf16 => out.extend(upper(number(text, datatype)?).to_le_bytes()),
        Datatype::Bool | Datatype::Bytes => {}
    }
    Ok(())
}

/// Elements as a flat array in JSON.
pub(super) fn to_json(raw: &[u8], datatype: Datatype) -> Result<String, String> {
    let mut out = String::with_capacity(raw.len() * 2);
    out.push('[');
    match datatype.width() {
        None => texts(raw, &mut out)?,
        Some(width) => {
            let elements = raw.chunks_exact(width as usize);
            if !elements.remainder().is_empty() {
                return Err(format!("{} bytes are no whole number of elements of {datatype}", raw.len()));
            }
            for (at, element) in elements.enumerate() {
                if at > 0 {
                    out.push(',');
                }
                let mut wide = [0; 8];
                wide[..element.len()].copy_from_slice(element);
                write_element(u64::from_le_bytes(wide), datatype, &mut out)?;
            }
        }
    }
    out.push(']');
    Ok(out)
}

fn write_element(bits: u64, datatype: Datatype, out: &mut String) -> Result<(), String> {
    let mut float = |value: f64, short: Option<f32>| {
        if !value.is_finite() {
            return Err(format!("{value} is an element, which JSON has no word for; ask for binary data"));
        }
        // The shortest digits that mean the number, with an exponent where it is long.
        let wrote = match short {
            Some(short) => write!(out, "{short:?}"),
            None => write!(out, "{value:?}"),
        };
        wrote.map_err(|error| error.to_string())
    };
    let single = |value: f32| (f64::from(value), Some(value));
    let integer = match datatype {
        Datatype::Bool => {
            out.push_str(if bits == 0 { "false" } else { "true" });
            return Ok(());
        }
        Datatype::Fp16 => {
            let (value, short) = single(of_half(bits as u16));
            return float(value, short);
        }
        Datatype::Bf16 => {
            let (value, short) = single(of_upper(bits as u16));
            return float(value, short);
        }
        Datatype::Fp32 => {
            let (value, short) = single(f32::from_bits(bits as u32));
            return float(value, short);
        }
        Datatype::Fp64 => return float(f64::from_bits(bits), None),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => i128::from(bits),
        Datatype::Int8 => i128::from(bits as i8),
        Datatype::Int16 => i128::from(bits as i16),
        Datatype::Int32 => i128::from(bits as i32),
        Datatype::Int64 => i128::from(bits as i64),
        Datatype::Bytes => return Err("texts have lengths of their own".to_owned()),
    };
    write!(out, "{integer}").map_err(|error| error.to_string())
}

/// Texts, each behind its length.
fn texts(raw: &[u8], out: &mut String) -> Result<(), String> {
    let (mut rest, mut first) = (raw, true);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok();
        let Some((text, next)) = length.and_then(|length| behind.split_at_checked(length)) else {
            return Err("a text is longer than its tensor".to_owned());
        };
        let text = std::str::from_utf8(text).map_err(|_| {
            "an element is no text, which JSON has no word for; ask for binary data".to_owned()
        })?;
        if !std::mem::replace(&mut first, false) {
            out.push(',');
        }
        quote_into(text, out);
        rest = next;
    }
    if rest.is_empty() { Ok(()) } else { Err("bytes are left behind the last text".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn both_ways(datatype: Datatype, json: &str) {
        let raw = of_json(&mut Scanner::new(json, 64), datatype).expect(json);
        assert_eq!(to_json(&raw, datatype).as_deref(), Ok(json), "{datatype}");
    }

    #[test]
    fn elements_come_back_as_they_went() {
        both_ways(Datatype::Bool, "[true,false]");
        both_ways(Datatype::Int8, "[-128,127]");
        both_ways(Datatype::Int16, "[-32768,32767]");
        both_ways(Datatype::Int32, "[-2147483648,2147483647]");
        both_ways(Datatype::Int64, "[-9223372036854775808,9223372036854775807]");
        both_ways(Datatype::Uint8, "[0,255]");
        both_ways(Datatype::Uint16, "[65535]");
        both_ways(Datatype::Uint32, "[4294967295]");
        both_ways(Datatype::Uint64, "[18446744073709551615]");
        both_ways(Datatype::Fp16, "[0.5,-65504.0]");
        both_ways(Datatype::Bf16, "[1.0,-0.0]");
        both_ways(Datatype::Fp32, "[0.1,-3e38,1e-45]");
        both_ways(Datatype::Fp64, "[0.1,1.7976931348623157e308]");
        both_ways(Datatype::Bytes, r#"["a","","é\"\n"]"#);
        both_ways(Datatype::Fp32, "[]");
        let nested = of_json(&mut Scanner::new("[[1,2],[3,4]]", 64), Datatype::Uint8);
        assert_eq!(nested, Ok(vec![1, 2, 3, 4]));
        for (json, datatype) in [
            ("[256]", Datatype::Uint8),
            ("[1.5]", Datatype::Int8),
            ("1", Datatype::Int8),
            ("[1]", Datatype::Bytes),
        ] {
            assert!(of_json(&mut Scanner::new(json, 64), datatype).is_err(), "{json}");
        }
        for (raw, datatype) in [
            (&f32::NAN.to_le_bytes()[..], Datatype::Fp32),
            (&[1, 2, 3], Datatype::Fp16),
            (&[1, 0, 0, 0, 0xFF], Datatype::Bytes),
            (&[2, 0, 0, 0, b'a'], Datatype::Bytes),
            (&[1], Datatype::Bytes),
        ] {
            assert!(to_json(raw, datatype).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn typed_contents_become_raw() {
        let minus_one = [0xFF; 9].into_iter().chain([1]);
        let ints: Vec<u8> = [0x12, 11, 5].into_iter().chain(minus_one.clone()).collect();
        assert_eq!(of_contents(&ints, Datatype::Int8), Ok((vec![5, 0xFF], 2)));
        assert_eq!(
            of_contents(&[0x10, 5, 0x10, 6], Datatype::Int16),
            Ok((vec![5, 0, 6, 0], 2)),
            "one by one"
        );
        assert_eq!(
            of_contents(&[0x32, 4, 0, 0, 0x80, 0x3F], Datatype::Fp32),
            Ok((vec![0, 0, 0x80, 0x3F], 1))
        );
        assert_eq!(
            of_contents(&[0x42, 1, b'a', 0x42, 0], Datatype::Bytes),
            Ok((vec![1, 0, 0, 0, b'a', 0, 0, 0, 0], 2))
        );
        assert_eq!(of_contents(&[], Datatype::Fp32), Ok((vec![], 0)));
        for (contents, datatype, says) in [
            (&[0x12, 2, 0x80, 1][..], Datatype::Int8, "element 0 is 128, out of range"),
            (&[0x12, 1, 1], Datatype::Fp32, "`int_contents`; FP32 belongs into `fp32_contents`"),
            (&[0x32, 3, 0, 0, 0], Datatype::Fp32, "ends within"),
            (&[0x32, 9, 0], Datatype::Fp32, "ends within"),
            (&[0x30, 1], Datatype::Fp32, "another type"),
            (&[0x32, 0], Datatype::Fp16, "raw_input_contents"),
        ] {
            assert!(of_contents(contents, datatype).is_err_and(|why| why.contains(says)), "{says}");
        }
    }
}
