//! Chance as an argument: a small seeded generator.

/// A generator of random numbers: xoshiro256++ (Blackman and Vigna, "Scrambled Linear Pseudorandom Number
/// Generators", 2018), seeded through SplitMix64. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose numbers follow from `seed` alone.
    pub fn seeded(seed: u64) -> Self {
        let mut at = seed;
        let mut next = || {
            at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(at)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// A generator of its own for `purpose`. Draws from it do not shift the draws of this one, beyond the one that
    /// seeds it.
    #[must_use]
    pub fn fork(&mut self, purpose: &str) -> Self {
        Self::seeded(self.next_u64() ^ hash(purpose.as_bytes()))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`, each equally likely; 0 if the bound is 0 (Lemire, "Fast Random Integer Generation in an
    /// Interval", 2019; the bias for bounds of this size is below 2^-32 and accepted).
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Spreads the bits of a number over all others (the finaliser of SplitMix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// A hash of a name that is the same in every process: FNV-1a, finalised.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    mix(fnv)
}

/// How far a node of this weight is from a key: weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted
/// Distributed Hash Tables", 2005). The nearest wins; a node's share of keys is its share of the weight, and a change
/// of one node moves only the keys it gains or loses.
pub(crate) fn rendezvous(key: u64, node: u64, weight: f64) -> f64 {
    let hash = mix(key ^ node.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // In (0, 1), never 0 or 1.
    let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -ln(unit) / weight
}

/// The natural logarithm of a number in (0, 1), to nine digits: by the exponent, and the series of the inverse
/// hyperbolic tangent for the rest. Plain arithmetic, so it is the same number on every platform, and it vectorises.
fn ln(number: f64) -> f64 {
    const MANTISSA_BITS: u32 = 52;
    // The mantissa is brought to [√½, √2), where the series converges fastest.
    const SHIFT: u64 = 0x3FE6_A09E_667F_3BCD;
    let bits = number.to_bits();
    let exponent = (bits.wrapping_sub(SHIFT) as i64) >> MANTISSA_BITS;
    let mantissa = f64::from_bits(bits.wrapping_sub((exponent << MANTISSA_BITS) as u64));
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = 1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0)));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut rng = Rng::seeded(seed);
            (0..8).map(|_| rng.next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn logarithms_are_right_to_nine_digits() {
        let mut rng = Rng::seeded(3);
        let edges = [f64::EPSILON / 4.0, 0.5, std::f64::consts::FRAC_1_SQRT_2, 0.7, 0.75, 1.0 - f64::EPSILON];
        for number in
            edges.into_iter().chain((0..10_000).map(|_| (rng.next_u64() >> 12) as f64 / 4.6e15 + 1e-17))
        {
            let (got, expected) = (ln(number), number.ln());
            assert!((got - expected).abs() <= 3e-9 * expected.abs(), "{number}: {got} {expected}");
        }
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut rng = Rng::seeded(1);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[rng.below(10)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert!((0..1000).map(|_| rng.unit()).all(|unit| (0.0..1.0).contains(&unit)));
        assert_eq!(rng.below(0), 0);
    }
}
