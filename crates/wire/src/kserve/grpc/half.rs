//! Numbers of 16 bits.

/// A number in half precision, rounded to the nearest, and to the even of two.
pub(super) fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xFF) as i32 - 127;
    let fraction = bits & 0x007F_FFFF;
    if exponent == 128 {
        // What is no number stays none.
        return sign | 0x7C00 | if fraction == 0 { 0 } else { 0x0200 };
    }
    if exponent < -25 {
        return sign;
    }
    // The leading one, and how many bits of it all are dropped.
    let (whole, dropped, base) = if exponent >= -14 {
        (fraction, 13, ((exponent + 15) as u32) << 10)
    } else {
        (fraction | 0x0080_0000, (-1 - exponent) as u32, 0)
    };
    if exponent > 15 {
        return sign | 0x7C00;
    }
    let kept = whole >> dropped;
    let rest = whole & ((1 << dropped) - 1);
    let middle = 1 << (dropped - 1);
    let up = u32::from(rest > middle || (rest == middle && kept & 1 == 1));
    // What is carried over goes into the exponent, as it should.
    sign | (base + kept + up) as u16
}

/// The number that half precision has.
pub(super) fn of_half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1F);
    let fraction = f32::from(bits & 0x03FF);
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    }
}

/// The upper half of a number, rounded in the same way.
pub(super) fn upper(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// The number whose upper half that is.
pub(super) fn of_upper(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_16_bits_comes_back() {
        for bits in 0..=u16::MAX {
            let (one, other) = (of_half(bits), of_upper(bits));
            assert!(one.is_nan() || half(one) == bits, "{bits:04x}");
            assert!(other.is_nan() || upper(other) == bits, "{bits:04x}");
        }
        assert!(of_half(half(f32::NAN)).is_nan() && of_upper(upper(f32::NAN)).is_nan());
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest() {
        for (value, bits) in [
            (1.0, 0x3C00),
            (65504.0, 0x7BFF),
            (65519.9, 0x7BFF),
            (65520.0, 0x7C00),
            (1e9, 0x7C00),
            (1.000_488_3, 0x3C00),
            (1.001_464_9, 0x3C02),
            (6e-8, 0x0001),
            (2e-8, 0x0000),
            (-0.0, 0x8000),
        ] {
            assert_eq!(half(value), bits, "{value}");
        }
        assert_eq!(upper(f32::from_bits(0x3F80_8000)), 0x3F80);
        assert_eq!(upper(f32::from_bits(0x3F81_8000)), 0x3F82);
    }
}
