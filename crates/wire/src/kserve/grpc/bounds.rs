//! What a message may consist of. A field of two bytes can become a hundred in memory; so fields are counted before they
//! are decoded. The elements of tensors are no fields here: they are never decoded into values of their own.

use super::super::TENSORS_MAX;

/// Fields of a message and of those in it, tensors' elements not counted.
const FIELDS_MAX: usize = 16 * TENSORS_MAX;

/// Whether a message can be decoded at little cost. `inner` are its fields that are messages whose fields count too.
pub(super) fn check(message: &[u8], inner: &[u64]) -> Result<(), String> {
    let mut fields = 0;
    count(message, inner, &mut fields)
}

fn count(mut bytes: &[u8], inner: &[u64], fields: &mut usize) -> Result<(), String> {
    let broken = || "the message cannot be read: it ends within a field".to_owned();
    while !bytes.is_empty() {
        *fields += 1;
        if *fields > FIELDS_MAX {
            return Err(format!("the message has more than {FIELDS_MAX} fields"));
        }
        let key = varint(&mut bytes).ok_or_else(broken)?;
        let within = match key & 7 {
            0 => varint(&mut bytes).map(|_| &[][..]),
            1 => take(&mut bytes, 8),
            2 => varint(&mut bytes).and_then(|length| take(&mut bytes, length)),
            5 => take(&mut bytes, 4),
            _ => return Err("the message cannot be read: it has a field of no known kind".to_owned()),
        };
        let within = within.ok_or_else(broken)?;
        if inner.contains(&(key >> 3)) {
            count(within, &[], fields)?;
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_and_elements_are_not() {
        let tensor = [0x2A, 0x02, 0x0A, 0x00];
        assert_eq!(check(&tensor, &[5]), Ok(()));
        assert!(check(&tensor.repeat(FIELDS_MAX / 2), &[5]).is_ok());
        assert!(check(&tensor.repeat(FIELDS_MAX / 2 + 1), &[5]).is_err_and(|why| why.contains("more than")));
        let raw = [&[0x3A, 0x80, 0x80, 0x04][..], &vec![0; 1 << 16]].concat();
        assert_eq!(check(&raw, &[5]), Ok(()));
        for broken in [&[0x2A, 0x05][..], &[0x80], &[0x08], &[0x09, 1, 2], &[0x0B], &[0x2A, 0x01, 0x08]] {
            assert!(check(broken, &[5]).is_err(), "{broken:?}");
        }
    }
}
