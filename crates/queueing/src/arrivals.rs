//! How many actions arrive in a slot.
//!
//! Bursts come as a Poisson process, and each brings a batch of actions. Slots last equally long, or their
//! lengths are independent and gamma distributed with a given squared coefficient of variation (scv). The number
//! `A` that arrives in a slot then has the probability generating function (pgf)
//!
//! ```text
//! A(z) = exp(-e(z))                          slots of one length
//! A(z) = (1 + scv e(z))^(-1/scv)             gamma distributed slots
//! e(z) = sum over streams of  bursts per slot * (1 - B(z)),     B the pgf of the stream's batch
//! ```
//!
//! Poisson arrivals are batches of one. The negative binomial law is a Poisson number of logarithmic batches
//! (Quenouille 1949, "A relation between the logarithmic, Poisson, and negative binomial series", Biometrics 5).
//!
//! All of these are infinitely divisible: `A(z)^u` is a pgf for every `u > 0`, and has no zero in the closed unit
//! disk. [`bulk`](crate::bulk) rests on that.

use crate::units::{Invalid, between};
use num_complex::Complex64;

/// Largest mean of a batch, and of what arrives in a slot.
pub const MAX_MEAN: f64 = 1e9;
/// Longest list of probabilities of a batch.
pub const MAX_BATCH: usize = 1024;
/// Largest squared coefficient of variation of a slot's length; 1 is the exponential law.
pub const MAX_SLOT_SCV: f64 = 100.0;

/// How far the probabilities of a batch may miss 1 together.
const SUM_TOLERANCE: f64 = 1e-9;

/// How many actions come at once: never none.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    One,
    /// `P(B = j) = (1 - q) q^(j-1)`.
    Geometric {
        q: f64,
    },
    /// `P(B = j) = q^j / (-j ln(1 - q))`.
    Logarithmic {
        q: f64,
    },
    /// `over[i] = P(B > i)`.
    Given {
        over: Vec<f64>,
    },
}

impl Batch {
    /// Always one: Poisson arrivals.
    pub const ONE: Self = Self(Kind::One);

    /// `P(B = j) = (1 - q) q^(j-1)` with mean `mean`.
    ///
    /// # Errors
    /// If the mean is not finite, less than 1 or more than [`MAX_MEAN`].
    pub fn geometric(mean: f64) -> Result<Self, Invalid> {
        let mean = between("the mean of a batch", mean, 1.0, MAX_MEAN)?;
        Ok(Self(if mean > 1.0 { Kind::Geometric { q: 1.0 - 1.0 / mean } } else { Kind::One }))
    }

    /// Batches that make the arrivals negative binomial with variance `dispersion * mean`.
    ///
    /// # Errors
    /// If the dispersion is not finite, less than 1 or more than [`MAX_MEAN`].
    pub fn logarithmic(dispersion: f64) -> Result<Self, Invalid> {
        let dispersion = between("the dispersion of arrivals", dispersion, 1.0, MAX_MEAN)?;
        let q = 1.0 - 1.0 / dispersion;
        Ok(Self(if q > 0.0 { Kind::Logarithmic { q } } else { Kind::One }))
    }

    /// `probabilities[i]` is that of `i + 1` actions. What their sum misses by rounding is divided out.
    ///
    /// # Errors
    /// If there are none or more than [`MAX_BATCH`], one is not a probability, or they do not add to 1.
    pub fn given(probabilities: &[f64]) -> Result<Self, Invalid> {
        let what = "a batch";
        between("the largest batch", probabilities.len() as f64, 1.0, MAX_BATCH as f64)?;
        for probability in probabilities {
            between("a probability of a batch", *probability, 0.0, 1.0)?;
        }
        let sum: f64 = probabilities.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(Invalid::NotADistribution { what, sum });
        }
        let mut over: Vec<f64> = Vec::with_capacity(probabilities.len());
        let mut rest = 0.0;
        for probability in probabilities.iter().rev() {
            rest += probability / sum;
            over.push(rest);
        }
        over.reverse();
        Ok(Self(Kind::Given { over }))
    }

    /// `E[B]`.
    pub fn mean(&self) -> f64 {
        match &self.0 {
            Kind::One => 1.0,
            Kind::Geometric { q } => 1.0 / (1.0 - q),
            Kind::Logarithmic { q } => q / ((1.0 - q) * -libm::log1p(-q)),
            Kind::Given { over } => over.iter().sum(),
        }
    }

    /// `E[B^2]`.
    pub fn second_moment(&self) -> f64 {
        match &self.0 {
            Kind::One => 1.0,
            Kind::Geometric { q } => (1.0 + q) / (1.0 - q).powi(2),
            Kind::Logarithmic { q } => q / ((1.0 - q).powi(2) * -libm::log1p(-q)),
            // E[B^2] = sum of (2 i + 1) P(B > i).
            Kind::Given { over } => (0u32..).zip(over).map(|(i, over)| f64::from(2 * i + 1) * over).sum(),
        }
    }

    /// `(1 - B(z)) / (1 - z)`, the pgf of the number ahead in one's own batch times `E[B]`.
    fn ahead(&self, z: Complex64) -> Complex64 {
        match &self.0 {
            Kind::One => Complex64::ONE,
            Kind::Geometric { q } => (1.0 - q * z).inv(),
            Kind::Logarithmic { q } => {
                let step = (1.0 - z) * (q / (1.0 - q));
                let limit = q / (1.0 - q);
                let slope = if step.norm_sqr() == 0.0 { Complex64::ONE } else { ln_1p(step) / step };
                slope * (limit / -libm::log1p(-q))
            }
            Kind::Given { over } => over.iter().rev().fold(Complex64::ZERO, |sum, over| sum * z + over),
        }
    }

    /// `B'(z)`.
    fn slope(&self, z: Complex64) -> Complex64 {
        match &self.0 {
            Kind::One => Complex64::ONE,
            Kind::Geometric { q } => (1.0 - q) / (1.0 - q * z).powu(2),
            Kind::Logarithmic { q } => q / ((1.0 - q * z) * -libm::log1p(-q)),
            Kind::Given { over } => {
                // B(z) = 1 - (1 - z) T(z), so B' = T - (1 - z) T'.
                let (mut sum, mut slope) = (Complex64::ZERO, Complex64::ZERO);
                for over in over.iter().rev() {
                    slope = slope * z + sum;
                    sum = sum * z + over;
                }
                sum - (1.0 - z) * slope
            }
        }
    }

    /// `ln` of the radius in which the pgf converges.
    fn ln_radius(&self) -> f64 {
        match &self.0 {
            Kind::One | Kind::Given { .. } => f64::INFINITY,
            Kind::Geometric { q } | Kind::Logarithmic { q } => -q.ln(),
        }
    }
}

/// `ln E[exp(-exponent T)]` for the length `T` of a slot, of mean 1.
pub(crate) fn ln_of_slots(exponent: Complex64, slot_scv: f64) -> Complex64 {
    if slot_scv > 0.0 { -ln_1p(slot_scv * exponent) / slot_scv } else { -exponent }
}

/// The same for the length of the slot in which an arbitrary action comes: `ln E[T exp(-exponent T)]`.
pub(crate) fn ln_of_own_slot(exponent: Complex64, slot_scv: f64) -> Complex64 {
    (1.0 + slot_scv) * ln_of_slots(exponent, slot_scv)
}

/// `ln(1 + z)` without loss near zero.
fn ln_1p(z: Complex64) -> Complex64 {
    Complex64::new(0.5 * libm::log1p(2.0 * z.re + z.norm_sqr()), libm::atan2(z.im, 1.0 + z.re))
}

/// The law of the number of actions that arrive in a slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrivals {
    /// Bursts a slot of mean length, and what each brings.
    streams: Vec<(f64, Batch)>,
    slot_scv: f64,
}

impl Arrivals {
    /// `mean` actions in a slot of mean length, in batches; slots of one length.
    ///
    /// # Errors
    /// If the mean is not finite, negative or more than [`MAX_MEAN`].
    pub fn new(mean: f64, batch: Batch) -> Result<Self, Invalid> {
        let bursts = between("actions per slot", mean, 0.0, MAX_MEAN)? / batch.mean();
        Ok(Self { streams: vec![(bursts, batch)], slot_scv: 0.0 })
    }

    /// Poisson arrivals.
    ///
    /// # Errors
    /// If the mean is not finite, negative or more than [`MAX_MEAN`].
    pub fn poisson(mean: f64) -> Result<Self, Invalid> {
        Self::new(mean, Batch::ONE)
    }

    /// Negative binomial arrivals with variance `dispersion * mean`.
    ///
    /// # Errors
    /// If the mean is refused by [`Arrivals::new`] or the dispersion by [`Batch::logarithmic`].
    pub fn negative_binomial(mean: f64, dispersion: f64) -> Result<Self, Invalid> {
        Self::new(mean, Batch::logarithmic(dispersion)?)
    }

    /// The same bursts in slots whose lengths are gamma distributed.
    ///
    /// # Errors
    /// If the squared coefficient of variation is not finite, negative or more than [`MAX_SLOT_SCV`].
    pub fn in_slots(mut self, scv: f64) -> Result<Self, Invalid> {
        self.slot_scv = between("the scv of slots", scv, 0.0, MAX_SLOT_SCV)?;
        Ok(self)
    }

    /// These and others in the same slots, independent but for the slots' lengths.
    ///
    /// # Errors
    /// If they are given for slots of other lengths, or are more than [`MAX_MEAN`] together.
    pub fn with(&self, others: &Self) -> Result<Self, Invalid> {
        if self.slot_scv.to_bits() != others.slot_scv.to_bits() {
            return Err(Invalid::Different { what: "slots" });
        }
        let streams = self.streams.iter().chain(&others.streams).cloned().collect();
        let both = Self { streams, slot_scv: self.slot_scv };
        between("actions per slot", both.mean(), 0.0, MAX_MEAN)?;
        Ok(both)
    }

    /// Squared coefficient of variation of the slots' lengths.
    pub const fn slot_scv(&self) -> f64 {
        self.slot_scv
    }

    /// `E[A]`.
    pub fn mean(&self) -> f64 {
        self.streams.iter().map(|(bursts, batch)| bursts * batch.mean()).sum()
    }

    /// `Var[A]`.
    pub fn variance(&self) -> f64 {
        let bursts: f64 = self.streams.iter().map(|(bursts, batch)| bursts * batch.second_moment()).sum();
        bursts + self.slot_scv * self.mean().powi(2)
    }

    /// `e(z)` by `1 - z`; at `z = 1` it is the mean.
    fn exponent_slope(&self, z: Complex64) -> Complex64 {
        self.streams.iter().map(|(bursts, batch)| *bursts * batch.ahead(z)).sum()
    }

    /// `e(z)`.
    pub(crate) fn exponent(&self, z: Complex64) -> Complex64 {
        (1.0 - z) * self.exponent_slope(z)
    }

    /// `ln A(z)`, analytic wherever `A` is and has no zero.
    pub(crate) fn ln_pgf(&self, z: Complex64) -> Complex64 {
        ln_of_slots(self.exponent(z), self.slot_scv)
    }

    /// The derivative of `ln A(z)`.
    pub(crate) fn ln_pgf_slope(&self, z: Complex64) -> Complex64 {
        let slope: Complex64 = self.streams.iter().map(|(bursts, batch)| *bursts * batch.slope(z)).sum();
        slope / (1.0 + self.slot_scv * self.exponent(z))
    }

    /// The pgf of the number that has arrived since the last block at an arbitrary time: `(1 - A(z)) / e(z)`, because
    /// `E[integral of exp(-e t) dt from 0 to T] = (1 - E[exp(-e T)]) / e` for a slot of length `T` and mean 1.
    pub(crate) fn since_block(&self, z: Complex64) -> Complex64 {
        let exponent = self.exponent(z);
        // The series where the quotient would be rounding: it leaves the square.
        if exponent.norm() < 1e-7 {
            1.0 - 0.5 * (1.0 + self.slot_scv) * exponent
        } else {
            (1.0 - ln_of_slots(exponent, self.slot_scv).exp()) / exponent
        }
    }

    /// The pgf of the number ahead of an arbitrary action in its own batch.
    pub(crate) fn ahead_in_batch(&self, z: Complex64) -> Complex64 {
        let mean = self.mean();
        if mean > 0.0 { self.exponent_slope(z) / mean } else { Complex64::ONE }
    }

    /// `ln A(e^s)` for real `s`; infinite where the pgf does not converge.
    pub(crate) fn cumulant(&self, s: f64) -> f64 {
        let radius = self.streams.iter().map(|(_, batch)| batch.ln_radius()).fold(f64::INFINITY, f64::min);
        if s >= radius {
            return f64::INFINITY;
        }
        // 1 - e^s without loss near zero.
        let exponent = -libm::expm1(s) * self.exponent_slope(Complex64::new(s.exp(), 0.0)).re;
        let value = if self.slot_scv > 0.0 {
            -libm::log1p(self.slot_scv * exponent) / self.slot_scv
        } else {
            -exponent
        };
        if value.is_nan() { f64::INFINITY } else { value }
    }

    /// A number that is exceeded with probability at most `e^-exponent`, by Chernoff's bound.
    pub(crate) fn rarely_above(&self, exponent: f64) -> f64 {
        powers_of_two().map(|s| (self.cumulant(s) + exponent) / s).fold(f64::INFINITY, f64::min)
    }

    /// A number below which it is with probability at most `e^-exponent`, by Chernoff's bound.
    pub(crate) fn rarely_below(&self, exponent: f64) -> f64 {
        powers_of_two().map(|s| -(self.cumulant(-s) + exponent) / s).fold(0.0, f64::max)
    }
}

/// Where Chernoff's bound is tried: it is flat around its best point, so octaves are enough.
fn powers_of_two() -> impl Iterator<Item = f64> {
    (-40..6).map(|power| f64::from(power).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laws() -> Vec<(&'static str, Arrivals)> {
        let given = Batch::given(&[0.5, 0.0, 0.3, 0.2]).unwrap();
        vec![
            ("poisson", Arrivals::poisson(2.5).unwrap()),
            ("geometric batches", Arrivals::new(2.5, Batch::geometric(3.0).unwrap()).unwrap()),
            ("negative binomial", Arrivals::negative_binomial(2.5, 4.0).unwrap()),
            ("given batches", Arrivals::new(2.5, given.clone()).unwrap()),
            ("gamma slots", Arrivals::new(2.5, given).unwrap().in_slots(0.5).unwrap()),
            (
                "two streams",
                Arrivals::poisson(1.0)
                    .unwrap()
                    .with(&Arrivals::negative_binomial(1.5, 2.0).unwrap())
                    .unwrap(),
            ),
        ]
    }

    #[test]
    fn moments_are_the_derivatives_of_the_pgf() {
        for (name, law) in laws() {
            let h = 1e-4;
            let (up, down) = (law.cumulant(h), law.cumulant(-h));
            let mean = (up - down) / (2.0 * h);
            let variance = (up + down) / (h * h);
            assert!((mean - law.mean()).abs() < 1e-5, "{name}: {mean} for {}", law.mean());
            assert!((variance - law.variance()).abs() < 1e-4, "{name}: {variance} for {}", law.variance());
            let z = Complex64::new(0.3, 0.4);
            let step = Complex64::new(1e-6, 0.0);
            let slope = (law.ln_pgf(z + step) - law.ln_pgf(z - step)) / (2.0 * step);
            assert!((slope - law.ln_pgf_slope(z)).norm() < 1e-8, "{name}");
            assert!((law.ahead_in_batch(Complex64::ONE) - 1.0).norm() < 1e-12, "{name}");
        }
    }

    #[test]
    fn the_negative_binomial_law_has_its_own_pgf() {
        // Variance d * mean: success probability 1 / d, size mean / (d - 1).
        let (mean, d) = (3.0, 2.5);
        let law = Arrivals::negative_binomial(mean, d).unwrap();
        for z in [Complex64::new(-0.7, 0.1), Complex64::new(0.2, -0.9), Complex64::new(1.2, 0.0)] {
            let right = -(mean / (d - 1.0)) * (d - (d - 1.0) * z).ln();
            assert!((law.ln_pgf(z) - right).norm() < 1e-12, "{z}");
        }
    }

    #[test]
    fn poisson_in_gamma_slots_is_negative_binomial() {
        // Variance mean + scv mean^2.
        let slots = Arrivals::poisson(4.0).unwrap().in_slots(0.25).unwrap();
        let direct = Arrivals::negative_binomial(4.0, 2.0).unwrap();
        for z in [Complex64::new(-0.7, 0.1), Complex64::new(0.2, -0.9), Complex64::new(1.2, 0.0)] {
            assert!((slots.ln_pgf(z) - direct.ln_pgf(z)).norm() < 1e-12, "{z}");
        }
    }

    #[test]
    fn bounds_on_the_tails_hold_and_are_not_wide() {
        let law = Arrivals::poisson(100.0).unwrap();
        let (low, high) = (law.rarely_below(40.0), law.rarely_above(40.0));
        assert!(low > 10.0 && low < 30.0, "{low}");
        assert!(high > 200.0 && high < 250.0, "{high}");
        assert_eq!(Arrivals::poisson(0.1).unwrap().rarely_below(40.0), 0.0);
    }

    #[test]
    fn what_is_no_law_is_refused() {
        let bad = [f64::NAN, f64::INFINITY, -1.0, 1e300];
        for value in bad {
            assert!(Arrivals::poisson(value).is_err(), "{value}");
            assert!(Batch::geometric(value).is_err(), "{value}");
            assert!(Batch::logarithmic(value).is_err(), "{value}");
            assert!(Batch::given(&[value]).is_err(), "{value}");
            assert!(Arrivals::poisson(1.0).unwrap().in_slots(value).is_err(), "{value}");
        }
        assert!(matches!(Batch::given(&[0.4, 0.5]), Err(Invalid::NotADistribution { .. })));
        assert!(matches!(Batch::given(&[]), Err(Invalid::TooSmall { .. })));
        assert!(matches!(Batch::given(&[0.0; MAX_BATCH + 1]), Err(Invalid::TooLarge { .. })));
        let slots = Arrivals::poisson(1.0).unwrap();
        assert!(slots.with(&slots.clone().in_slots(1.0).unwrap()).is_err());
    }
}
