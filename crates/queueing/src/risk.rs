//! From a delay to bad debt: what a price can do before a liquidation, a top-up or a close is in a block.
//!
//! A position is `distance` away from bankruptcy, and its price moves as a driftless Brownian motion with a
//! volatility of `sigma` a square root of a day, both in basis points of the price now (Bachelier 1900,
//! "Theorie de la speculation", Annales scientifiques de l'ENS 17). In a time `t`:
//!
//! ```text
//! P(it crosses before t)            = 2 (1 - Phi(d / (sigma sqrt t)))                 the reflection principle
//! E[loss beyond the barrier at t]   = sigma sqrt t phi(x) - d (1 - Phi(x))            x = d / (sigma sqrt t)
//! E[largest loss beyond it until t] = twice that
//! ```
//!
//! The last is what an adversary who chooses the moment of closing costs at most. Prices jump, too: jumps come as a
//! Poisson process, and each counts as a crossing. The probability of a crossing is then at most the sum of both
//! probabilities (the union bound), and the expected loss at most the sum of the losses.
//!
//! Without jumps the formulas are exact for that motion. Over the seconds for which a lane delays, drift is
//! nothing and volatility a constant; what the model misses is that both rise together with load, so `sigma`
//! has to be that of the storm and not that of the year.

use crate::units::{Bps, Ms, PerSecond, Probability};

/// Milliseconds of a day.
pub const DAY_MS: f64 = 86_400_000.0;
/// Days of a year: these markets never close.
pub const YEAR_DAYS: f64 = 365.0;
/// Steps of the search for a deadline; each halves the interval.
const MAX_STEPS: u32 = 200;

/// A position and its market.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Exposure {
    /// How far the price is from the one at which the position's equity is gone.
    pub distance: Bps,
    /// Volatility by the square root of a day.
    pub volatility_per_sqrt_day: Bps,
    /// How often the price jumps.
    pub jumps: PerSecond,
    /// What a jump costs beyond the barrier, in the mean.
    pub jump_loss: Bps,
}

/// How long something may take.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Deadline {
    /// At most this long.
    Within(Ms),
    /// For as long as there are times: the target is met whatever the delay.
    Never,
}

impl Exposure {
    /// Volatility by the square root of a day from that of a year.
    pub fn daily(volatility_per_sqrt_year: Bps) -> Bps {
        Bps::clamped(volatility_per_sqrt_year.get() / YEAR_DAYS.sqrt())
    }

    /// The standard deviation of the price after this time, in bps.
    fn deviation(&self, delay: Ms) -> f64 {
        self.volatility_per_sqrt_day.get() * (delay.get() / DAY_MS).sqrt()
    }

    fn jumped(&self, delay: Ms) -> f64 {
        self.jumps.get() * delay.get() / 1e3
    }

    /// The probability that the price crosses the barrier before `delay` is over. An upper bound if there are jumps,
    /// exact otherwise. A position without distance has crossed.
    pub fn crosses(&self, delay: Ms) -> Probability {
        let (distance, deviation) = (self.distance.get(), self.deviation(delay));
        let diffused = if distance <= 0.0 {
            1.0
        } else if deviation > 0.0 {
            libm::erfc(distance / deviation * std::f64::consts::FRAC_1_SQRT_2)
        } else {
            0.0
        };
        Probability::clamped(diffused - libm::expm1(-self.jumped(delay)))
    }

    /// The expected loss beyond the barrier of a position that is closed after `delay`, in bps of its value.
    /// An upper bound if there are jumps.
    pub fn loss_at(&self, delay: Ms) -> Bps {
        Bps::clamped(self.diffused(delay) + self.jumped(delay) * self.jump_loss.get())
    }

    /// The expected largest loss beyond the barrier until `delay`: a bound for every moment of closing before.
    /// An upper bound if there are jumps.
    pub fn worst_loss_until(&self, delay: Ms) -> Bps {
        Bps::clamped(2.0 * self.diffused(delay) + self.jumped(delay) * self.jump_loss.get())
    }

    fn diffused(&self, delay: Ms) -> f64 {
        let deviation = self.deviation(delay);
        if deviation <= 0.0 {
            return 0.0;
        }
        let x = self.distance.get() / deviation;
        let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let beyond = 0.5 * libm::erfc(x * std::f64::consts::FRAC_1_SQRT_2);
        // Far away both terms agree in all digits.
        (deviation * (density - x * beyond)).max(0.0)
    }

    /// The longest delay for which a crossing is no likelier than `target`. Zero if no delay is short enough.
    pub fn deadline(&self, target: Probability) -> Deadline {
        let fits = |ms: f64| self.crosses(Ms::clamped(ms)) <= target;
        if fits(Ms::MAX.get()) {
            return Deadline::Never;
        }
        let (mut low, mut high) = (0.0, Ms::MAX.get());
        for _ in 0..MAX_STEPS {
            let middle = 0.5 * (low + high);
            if fits(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Deadline::Within(Ms::clamped(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposure(distance: f64, daily: f64) -> Exposure {
        Exposure {
            distance: Bps::new(distance).unwrap(),
            volatility_per_sqrt_day: Bps::new(daily).unwrap(),
            ..Exposure::default()
        }
    }

    fn ms(value: f64) -> Ms {
        Ms::new(value).unwrap()
    }

    #[test]
    fn one_deviation_away_a_day_crosses_with_the_probability_of_tables() {
        // 2 (1 - Phi(1)) and phi(1) - (1 - Phi(1)).
        let one = exposure(500.0, 500.0);
        assert!((one.crosses(ms(DAY_MS)).get() - 0.317_310_507_862_914).abs() < 1e-12);
        assert!((one.loss_at(ms(DAY_MS)).get() / 500.0 - 0.083_315_470_588_057_7).abs() < 1e-9);
        assert!((one.worst_loss_until(ms(DAY_MS)).get() - 2.0 * one.loss_at(ms(DAY_MS)).get()).abs() < 1e-9);
    }

    #[test]
    fn a_deadline_is_the_inverse_of_the_probability() {
        // Phi^-1(0.995) = 2.5758293035489004.
        let target = Probability::new(0.01).unwrap();
        let Deadline::Within(found) = exposure(100.0, 1000.0).deadline(target) else { panic!("no deadline") };
        let right = (0.1f64 / 2.575_829_303_548_900_4).powi(2) * DAY_MS;
        assert!((found.get() / right - 1.0).abs() < 1e-9, "{found:?} for {right}");
    }

    #[test]
    fn jumps_alone_leave_their_own_deadline() {
        let jumps = PerSecond::new(1e-3).unwrap();
        let exposure = Exposure { jumps, ..exposure(100.0, 0.0) };
        let Deadline::Within(found) = exposure.deadline(Probability::new(0.1).unwrap()) else {
            panic!("no deadline")
        };
        assert!((found.get() / (-(0.9f64.ln()) * 1e6) - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_cannot_cross_has_no_deadline_and_what_has_crossed_no_time() {
        let target = Probability::new(1e-6).unwrap();
        assert_eq!(exposure(100.0, 0.0).deadline(target), Deadline::Never);
        assert_eq!(exposure(100.0, 1e9).deadline(Probability::MAX), Deadline::Never);
        assert_eq!(exposure(0.0, 100.0).deadline(target), Deadline::Within(Ms::ZERO));
        assert_eq!(exposure(0.0, 0.0).crosses(Ms::ZERO), Probability::MAX);
        let yearly = Exposure::daily(Bps::new(36_500.0 / 365.0f64.sqrt()).unwrap());
        assert!((yearly.get() - 100.0).abs() < 1e-9);
    }
}
