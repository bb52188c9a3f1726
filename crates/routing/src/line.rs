//! A line through times that fade: weighted least squares, one time after the other.
//!
//! Recursive least squares with forgetting in its information form: what is kept are averages of products, and the
//! factors follow from them by a few rounds of projected Gauss-Seidel, begun where the last time left them. No factor is
//! ever below nothing (a term never makes a request faster), nothing is inverted, and so nothing can blow up when a term
//! has not varied for long. O(terms²) a time.

/// A line over `N` terms, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line<const N: usize> {
    squares: [[f64; N]; N],
    products: [f64; N],
    pub(crate) factors: [f64; N],
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::of([0.0; N])
    }
}

impl<const N: usize> Line<N> {
    /// With these factors, as yet through nothing.
    pub(crate) const fn of(factors: [f64; N]) -> Self {
        Self { squares: [[0.0; N]; N], products: [0.0; N], factors }
    }

    /// Its height there.
    pub(crate) fn at(&self, terms: &[f64; N]) -> f64 {
        terms.iter().zip(self.factors).map(|(term, factor)| term * factor).sum()
    }

    /// Takes a time in, which counts `weight`; `gain` is its share beside all that came before.
    pub(crate) fn take(&mut self, seconds: f64, terms: &[f64; N], gain: f64, weight: f64) {
        let weight = gain * weight;
        for (row, term) in terms.iter().enumerate() {
            self.products[row] += weight * term * seconds - gain * self.products[row];
            for (square, other) in self.squares[row].iter_mut().zip(terms) {
                *square += weight * term * other - gain * *square;
            }
        }
    }

    /// Everything it went through took so many times as long.
    pub(crate) fn scale(&mut self, times: f64) {
        self.factors.iter_mut().for_each(|factor| *factor *= times);
        // A time counts by the inverse of its square.
        self.products.iter_mut().for_each(|product| *product /= times);
        self.squares.iter_mut().flatten().for_each(|square| *square /= times * times);
    }

    /// Everything it went through was as if each factor were that many times as great: what is known is wrong by that, and
    /// as sure as before.
    pub(crate) fn mistake(&mut self, times: impl Fn(usize) -> f64) {
        self.factors.iter_mut().enumerate().for_each(|(term, factor)| *factor *= times(term));
        for row in 0..N {
            self.products[row] = (0..N).map(|at| self.squares[row][at] * self.factors[at]).sum();
        }
    }

    /// Moves each factor to where the others want it, and none below nothing. The factors are nearly right from the
    /// time before, so that twice is enough.
    pub(crate) fn fit(&mut self) {
        for row in (0..N).chain(0..N) {
            let square = self.squares[row][row];
            if square > 0.0 {
                let others: f64 =
                    (0..N).filter(|at| *at != row).map(|at| self.squares[row][at] * self.factors[at]).sum();
                self.factors[row] = ((self.products[row] - others) / square).max(0.0);
            }
        }
    }

    /// The same with another line that counts `share` and says `times` what it says; this one counts the rest.
    pub(crate) fn fit_with(&mut self, other: &Self, share: f64, times: f64) {
        let (mut both, mut other) = (*self, *other);
        other.scale(times);
        for row in 0..N {
            both.products[row] += (other.products[row] - both.products[row]) * share;
            for at in 0..N {
                both.squares[row][at] += (other.squares[row][at] - both.squares[row][at]) * share;
            }
        }
        both.fit();
        self.factors = both.factors;
    }
}
