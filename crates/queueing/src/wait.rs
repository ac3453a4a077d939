//! The law of a wait from the law of the blocks missed.
//!
//! An action that comes when a share `u` of its slot is over waits for the rest of the slot, `1 - u`, and for
//! the blocks that it misses. `u` is uniform. With `F(u, k)` the probability that it misses `k` blocks or more,
//!
//! ```text
//! P(wait > m + f) = integral of F(u, m) over u below 1 - f, plus integral of F(u, m + 1) over u above      0 <= f < 1
//! ```
//!
//! `F` costs a sum over a circle each time and is smooth in `u`, so it is computed at a few points of a slot and
//! integrated as a parabola between them (Simpson's rule).

use std::collections::BTreeMap;

/// Parabolas in a slot.
const PARABOLAS: u8 = 4;
const POINTS: usize = 2 * PARABOLAS as usize + 1;
/// Longest wait that is looked for, in slots.
pub const MAX_WAIT_SLOTS: f64 = 1e9;
/// How finely a quantile is looked for: in slots up to one, and in shares of itself beyond.
const PRECISION: f64 = 1e-6;
/// Steps of the search for a quantile; each halves the interval.
const MAX_STEPS: u32 = 64;

/// Probabilities of missing blocks, kept for the next question.
pub struct WaitTable<'a> {
    misses: Box<dyn Fn(f64, f64) -> f64 + 'a>,
    slots: BTreeMap<u64, [f64; POINTS]>,
    stretch: f64,
    cap: Option<Box<WaitTable<'a>>>,
}

impl<'a> WaitTable<'a> {
    /// `misses(u, k)` is asked for `k > 0` only.
    pub(crate) fn new(misses: impl Fn(f64, f64) -> f64 + 'a) -> Self {
        Self { misses: Box::new(misses), slots: BTreeMap::new(), stretch: 1.0, cap: None }
    }

    /// The same law with every time multiplied.
    pub(crate) fn stretched(self, by: f64) -> Self {
        Self { stretch: self.stretch * by, ..self }
    }

    /// The same law, but never later than this one.
    pub(crate) fn capped(self, by: WaitTable<'a>) -> Self {
        Self { cap: Some(Box::new(by)), ..self }
    }

    /// The integral of `F(., k)` from 0 to `until`.
    fn integral(&mut self, k: f64, until: f64) -> f64 {
        if k <= 0.0 {
            return until;
        }
        let values = *self.slots.entry(k as u64).or_insert_with(|| {
            let mut point = 0u8;
            [(); POINTS].map(|()| {
                let u = f64::from(point) / f64::from(2 * PARABOLAS);
                point += 1;
                (self.misses)(u, k)
            })
        });
        // In half widths of a parabola.
        let step = 1.0 / f64::from(2 * PARABOLAS);
        let mut left = until / step;
        let mut sum = 0.0;
        for parabola in values.windows(3).step_by(2) {
            let t = left.clamp(0.0, 2.0);
            let [a, b, c] = [parabola[0], parabola[1], parabola[2]];
            sum += t * (a + t * ((4.0 * b - 3.0 * a - c) / 4.0 + t * (a - 2.0 * b + c) / 6.0));
            left -= 2.0;
        }
        sum * step
    }

    /// `P(wait > slots)`.
    pub fn exceeds(&mut self, slots: f64) -> f64 {
        if slots.is_nan() || slots < 0.0 {
            return 1.0;
        }
        if slots > MAX_WAIT_SLOTS {
            return 0.0;
        }
        let most = self.cap.as_mut().map_or(1.0, |cap| cap.exceeds(slots));
        let slots = slots / self.stretch;
        let (whole, until) = (slots.floor(), 1.0 - slots.fract());
        let later = self.integral(whole + 1.0, 1.0) - self.integral(whole + 1.0, until);
        (self.integral(whole, until) + later).clamp(0.0, most)
    }

    /// The shortest time that a share `p` does not exceed, in slots; at most [`MAX_WAIT_SLOTS`].
    pub fn quantile(&mut self, p: f64) -> f64 {
        let mut high = 1.0;
        while high < MAX_WAIT_SLOTS && self.exceeds(high) > 1.0 - p {
            high *= 2.0;
        }
        let mut low = if high > 1.0 { high / 2.0 } else { 0.0 };
        for _ in 0..MAX_STEPS {
            if high - low < PRECISION * high.max(1.0) {
                break;
            }
            let middle = 0.5 * (low + high);
            if self.exceeds(middle) > 1.0 - p {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_misses_a_block_waits_uniformly() {
        let mut wait = WaitTable::new(|_, _| 0.0);
        for p in [0.01, 0.5, 0.99] {
            assert!((wait.quantile(p) - p).abs() < 1e-5);
            assert!((wait.exceeds(p) - (1.0 - p)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_stretched_law_takes_longer_and_a_capped_one_no_longer_than_its_cap() {
        let uniform = || WaitTable::new(|_, _| 0.0);
        assert!((uniform().stretched(3.0).quantile(0.5) - 1.5).abs() < 1e-5);
        assert!((uniform().stretched(3.0).capped(uniform()).quantile(0.5) - 0.5).abs() < 1e-5);
        assert!((uniform().capped(uniform().stretched(3.0)).quantile(0.5) - 0.5).abs() < 1e-5);
    }

    #[test]
    fn a_law_that_is_a_parabola_is_integrated_exactly() {
        // Misses the first block with probability u^2, and no other.
        let mut wait = WaitTable::new(|u, k| if k > 1.0 { 0.0 } else { u * u });
        for f in [0.0, 0.3, 0.77] {
            let until: f64 = 1.0 - f;
            let right = until + (1.0 - until.powi(3)) / 3.0;
            assert!((wait.exceeds(f) - right).abs() < 1e-12, "{f}");
            assert!((wait.exceeds(1.0 + f) - until.powi(3) / 3.0).abs() < 1e-12, "{f}");
        }
        assert_eq!(wait.exceeds(2.0), 0.0);
        assert_eq!((wait.exceeds(f64::NAN), wait.exceeds(f64::INFINITY)), (1.0, 0.0));
    }
}
