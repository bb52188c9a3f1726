//! From values to places on a chart, with ticks at round numbers.

/// Ticks of an axis, about.
const TICKS: f64 = 6.0;
/// Decades below the highest value that a logarithmic axis shows at most.
const DECADES_MAX: i32 = 6;

/// A range of values on a length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// The scale that shows all `values` between the places `from` and `to`. Nothing finite: 0 to 1.
    pub(super) fn of(
        values: impl Iterator<Item = f64> + Clone,
        logarithmic: bool,
        from: f64,
        to: f64,
    ) -> Self {
        let usable = values.filter(|value| value.is_finite() && (!logarithmic || *value > 0.0));
        let high = usable.clone().fold(f64::NEG_INFINITY, f64::max);
        let low = usable.fold(f64::INFINITY, f64::min);
        let (low, high) = match (logarithmic, high.is_finite()) {
            (false, false) => (0.0, 1.0),
            (true, false) => (1.0, 10.0),
            (false, true) => {
                let low = low.min(0.0);
                let step = step(high - low);
                (low, ((high / step).ceil() * step).max(low + step))
            }
            (true, true) => {
                let top = high.log10().ceil();
                let bottom = low.log10().floor().max(top - f64::from(DECADES_MAX)).min(top - 1.0);
                (10f64.powf(bottom), 10f64.powf(top))
            }
        };
        Self { low, high, logarithmic, from, to }
    }

    /// Where a value stands; what is out of range stands at the edge.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values to mark.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades).map(|decade| self.low * 10f64.powi(decade)).collect();
        }
        let step = step(self.high - self.low);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|tick| tick as f64 * step).collect()
    }
}

/// 1, 2 or 5 times a power of ten, so that a span has some ticks.
fn step(span: f64) -> f64 {
    let raw = (span / TICKS).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= raw).unwrap_or(raw)
}

/// A number as short as it can be read.
pub(super) fn short(value: f64) -> String {
    let magnitude = value.abs();
    let digits = match magnitude {
        _ if magnitude == 0.0 || magnitude >= 100.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let scaled = |divisor: f64, unit: &str| trimmed(format!("{:.1}", value / divisor)) + unit;
    match magnitude {
        _ if magnitude >= 1e9 => scaled(1e9, "G"),
        _ if magnitude >= 1e6 => scaled(1e6, "M"),
        _ if magnitude >= 1e4 => scaled(1e3, "k"),
        _ => trimmed(format!("{value:.digits$}")),
    }
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let scale = Scale::of([3.0, 87.0].into_iter(), false, 0.0, 100.0);
        assert_eq!(scale.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!((scale.place(50.0) - 50.0).abs() < 1e-9 && (scale.place(1e9) - 100.0).abs() < 1e-9);
        let scale = Scale::of([12.0, 4_000.0].into_iter(), true, 100.0, 0.0);
        assert_eq!(scale.ticks(), [10.0, 100.0, 1_000.0, 10_000.0]);
        assert!((scale.place(10_000.0)).abs() < 1e-9 && (scale.place(0.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_and_nonsense_have_a_scale_too() {
        for logarithmic in [false, true] {
            for values in [vec![], vec![f64::NAN], vec![0.0], vec![f64::INFINITY, 0.0]] {
                let scale = Scale::of(values.into_iter(), logarithmic, 0.0, 10.0);
                assert!(scale.place(1.0).is_finite() && scale.ticks().len() >= 2, "{scale:?}");
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        let told: Vec<String> =
            [0.0, 0.25, 1.5, 12.34, 999.0, 1_000.0, 20_000.0, 1.25e6, 3e9].map(short).into();
        assert_eq!(told, ["0", "0.25", "1.5", "12.3", "999", "1000", "20k", "1.2M", "3G"]);
    }
}
