//! Kingman's bounds: what any queue with one server waits at most, from two moments and from the tails.
//!
//! Jobs arrive at intervals `T` and take `S`, all independent (GI/GI/1), first come, first served. `W` is the
//! wait before service. Both laws are gamma laws here ([`Law`]): constant, exponential, Erlang, or more bursty
//! than any of them.
//!
//! - **Mean.** `E[W] <= lambda (Var[T] + Var[S]) / (2 (1 - rho))`, for every law with these moments (Kingman
//!   1962, "Some inequalities for the queue GI/G/1", Biometrika 49). In heavy traffic it is also the limit
//!   (Kingman 1961, "The single server queue in heavy traffic", Proc. Cambridge Philosophical Society 57).
//! - **Tail.** `P(W > x) <= e^(-theta x)` with `theta` the positive root of `E[e^(theta (S - T))] = 1` (Kingman 1964,
//!   "A martingale inequality in the theory of queues", Proc. Cambridge Philosophical Society 60).
//!
//! For the queue of blocks the same root is [`Pole`](crate::bulk::Pole).

use crate::units::{Invalid, Ms, Probability, between};

/// Largest squared coefficient of variation of a [`Law`].
pub const MAX_SCV: f64 = 1e6;
/// Steps of the search for `theta`; each halves the interval.
const MAX_STEPS: u32 = 200;

/// The law of a time: a gamma law with this mean and variance `scv * mean^2`. An `scv` of 0 is a constant, 1
/// the exponential law, `1/k` Erlang's with `k` stages.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Law {
    mean_ms: Ms,
    scv: f64,
}

impl Law {
    /// A gamma law.
    ///
    /// # Errors
    /// If the squared coefficient of variation is not finite, negative or more than [`MAX_SCV`].
    pub fn new(mean_ms: Ms, scv: f64) -> Result<Self, Invalid> {
        Ok(Self { mean_ms, scv: between("a squared coefficient of variation", scv, 0.0, MAX_SCV)? })
    }

    /// Always the same time.
    pub const fn constant(mean_ms: Ms) -> Self {
        Self { mean_ms, scv: 0.0 }
    }

    /// The exponential law.
    pub const fn exponential(mean_ms: Ms) -> Self {
        Self { mean_ms, scv: 1.0 }
    }

    /// The mean.
    pub const fn mean_ms(self) -> Ms {
        self.mean_ms
    }

    /// Variance by mean squared.
    pub const fn scv(self) -> f64 {
        self.scv
    }

    /// The mean of the square, in ms squared.
    pub fn second_moment(self) -> f64 {
        self.mean_ms.get().powi(2) * (1.0 + self.scv)
    }

    /// `ln E[e^(s X)]`; infinite where there is none.
    fn cumulant(self, s: f64) -> f64 {
        let at = s * self.mean_ms.get();
        if self.scv > 0.0 {
            let rest = -self.scv * at;
            if rest > -1.0 { -libm::log1p(rest) / self.scv } else { f64::INFINITY }
        } else {
            at
        }
    }
}

/// What a queue with one server waits at most.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Kingman {
    /// Bound on the mean wait.
    pub mean_wait_ms: Ms,
    /// `theta`: how fast the bound on the tail falls, by ms. Infinite if nobody ever waits.
    pub theta_per_ms: f64,
}

impl Kingman {
    /// The bounds for these intervals and service times. `None` if jobs come as fast as they are served or faster.
    pub fn new(interval: Law, service: Law) -> Option<Self> {
        let (between_ms, service_ms) = (interval.mean_ms.get(), service.mean_ms.get());
        let load = service_ms / between_ms;
        if load.is_nan() || load >= 1.0 {
            return None;
        }
        let variance = interval.scv * between_ms.powi(2) + service.scv * service_ms.powi(2);
        let mean_wait_ms = Ms::clamped(variance / between_ms / (2.0 * (1.0 - load)));
        // Convex, zero at zero, and falling there.
        let beyond = |s: f64| service.cumulant(s) + interval.cumulant(-s) > 0.0;
        let mut high = 1.0 / between_ms;
        let mut steps = 0;
        while !beyond(high) && high.is_finite() && steps < 2 * MAX_STEPS {
            high *= 2.0;
            steps += 1;
        }
        if !beyond(high) {
            return Some(Self { mean_wait_ms, theta_per_ms: f64::INFINITY });
        }
        let mut low = 0.0;
        for _ in 0..MAX_STEPS {
            let middle = 0.5 * (low + high);
            if beyond(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(Self { mean_wait_ms, theta_per_ms: low })
    }

    /// A bound on `P(W > wait)`.
    pub fn exceeds(&self, wait: Ms) -> Probability {
        if wait.get() > 0.0 {
            Probability::clamped((-self.theta_per_ms * wait.get()).exp())
        } else {
            Probability::MAX
        }
    }

    /// A wait that is exceeded with at most this probability: the longest time there is, for 0.
    pub fn quantile_ms(&self, exceeded: Probability) -> Ms {
        Ms::clamped(-exceeded.get().ln() / self.theta_per_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: f64) -> Ms {
        Ms::new(value).unwrap()
    }

    #[test]
    fn of_exponential_laws_theta_is_the_gap_between_the_rates() {
        for load in [0.1, 0.5, 0.99] {
            let bounds = Kingman::new(Law::exponential(ms(2.0)), Law::exponential(ms(2.0 * load))).unwrap();
            let gap = 1.0 / (2.0 * load) - 0.5;
            assert!((bounds.theta_per_ms - gap).abs() < 1e-9, "{load}: {bounds:?}");
            // M/M/1 waits load / (mu - lambda).
            assert!(bounds.mean_wait_ms.get() >= load / gap);
        }
    }

    #[test]
    fn the_mean_is_right_in_heavy_traffic() {
        // M/D/1 waits lambda S^2 / (2 (1 - rho)).
        let (interval, service) = (ms(1.0), ms(0.999));
        let bounds = Kingman::new(Law::exponential(interval), Law::constant(service)).unwrap();
        let right = 0.999 * 0.999 / (2.0 * 0.001);
        assert!((bounds.mean_wait_ms.get() / right - 1.0).abs() < 0.01, "{bounds:?}");
    }

    #[test]
    fn a_clockwork_never_waits_and_an_overloaded_server_has_no_bound() {
        let bounds = Kingman::new(Law::constant(ms(2.0)), Law::constant(ms(1.0))).unwrap();
        assert_eq!(bounds.mean_wait_ms, Ms::ZERO);
        assert_eq!(bounds.exceeds(ms(0.001)), Probability::ZERO);
        assert!(Kingman::new(Law::constant(ms(1.0)), Law::constant(ms(1.0))).is_none());
        assert!(Kingman::new(Law::constant(Ms::ZERO), Law::constant(Ms::ZERO)).is_none());
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Law::new(ms(1.0), bad).is_err());
        }
    }
}
