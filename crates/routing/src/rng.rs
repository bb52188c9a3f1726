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
/// of one node moves only the keys it gains or loses. `node` is a hash of its name.
pub(crate) fn rendezvous(key: u64, node: u64, weight: f64) -> f64 {
    halvings(mix(key ^ node.rotate_left(32))) / weight
}

/// How often 1 is halved to get to the fraction that the bits are of 2⁶⁴: its negative binary logarithm, to within
/// 3e-6. Plain arithmetic, so it is the same number on every platform, and much faster than a logarithm that is exact.
fn halvings(bits: u64) -> f64 {
    const ONE: u64 = 0x3FF0_0000_0000_0000;
    // log2(1 + x) / x by least squares; with 1 in sum, so that there is no step between powers of two.
    const SERIES: [f64; 6] =
        [1.442_527_273, -0.717_913_482, 0.456_540_422, -0.275_968_977, 0.120_100_277, -0.025_285_513];
    let bits = bits | 1;
    let zeros = bits.leading_zeros();
    let x = f64::from_bits(((bits << zeros) << 1) >> 12 | ONE) - 1.0;
    f64::from(zeros + 1) - x * SERIES.iter().rev().fold(0.0, |sum, factor| sum * x + factor)
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
    fn halvings_are_binary_logarithms() {
        let mut rng = Rng::seeded(3);
        let edges = [0, 1, 2, 3, u64::MAX, u64::MAX / 2, u64::MAX / 2 + 1];
        for bits in edges.into_iter().chain((0..10_000).map(|shift| rng.next_u64() >> (shift % 60))) {
            let expected = 64.0 - ((bits | 1) as f64).log2();
            assert!((halvings(bits) - expected).abs() < 3e-6, "{bits}: {} {expected}", halvings(bits));
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
