//! Mirroring: which requests are copied to a shadow model, whose answer nobody gets.

use crate::catalog::Name;

/// How a model's requests are mirrored.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorSpec {
    /// The shadow: another model, which is not mirrored itself.
    pub to: Name,
    /// Share of the requests, from 0 to 1.
    pub share: f64,
}

/// Whether a request is mirrored; `chance` is any number drawn evenly from all there are, such as half of its id, so that
/// it can be told afterwards.
pub fn is_mirrored(spec: &MirrorSpec, chance: u64) -> bool {
    // As many bits as a float holds exactly.
    const BITS: u32 = 53;
    ((chance >> (u64::BITS - BITS)) as f64) < spec.share * (1_u64 << BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_share_is_kept_over_a_thousand_decisions() {
        let mirrored = |share: f64, seed: u64| {
            let spec = MirrorSpec { to: "shadow".into(), share };
            let mut rng = Rng::seeded(seed);
            (0..1_000).filter(|_| is_mirrored(&spec, rng.next_u64())).count()
        };
        for seed in 0..20 {
            assert_eq!((mirrored(0.0, seed), mirrored(1.0, seed)), (0, 1_000));
            // Four standard deviations about the mean.
            assert!((23..=77).contains(&mirrored(0.05, seed)), "{}", mirrored(0.05, seed));
            assert!((437..=563).contains(&mirrored(0.5, seed)), "{}", mirrored(0.5, seed));
        }
        assert_eq!(mirrored(0.05, 7), mirrored(0.05, 7), "the same chance is the same choice");
    }

    #[test]
    fn the_ends_of_chance_belong_to_the_ends_of_the_share() {
        let spec = |share| MirrorSpec { to: "shadow".into(), share };
        assert!(is_mirrored(&spec(1.0), u64::MAX) && is_mirrored(&spec(1e-9), 0));
        assert!(!is_mirrored(&spec(0.0), 0) && !is_mirrored(&spec(0.999), u64::MAX));
    }
}
