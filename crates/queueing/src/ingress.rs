//! The queue before the signature check: one server, classes with priority, a check that has begun is finished.
//!
//! Class `i` (0 goes first) arrives as a Poisson process with rate `lambda_i` and takes `S_i`; within a class
//! first come, first served; the queue is unbounded (M/G/1 with non-preemptive priority). With
//! `rho_i = lambda_i E[S_i]` and `sigma_i = rho_0 + .. + rho_i`,
//!
//! ```text
//! W_i = R / ((1 - sigma_(i-1)) (1 - sigma_i)),     R = sum of lambda_j E[S_j^2] / 2
//! ```
//!
//! (Cobham 1954, "Priority assignment in waiting line problems", Operations Research 2). Classes with
//! `sigma_i >= 1` wait without bound. Where there is one, the first such class fills all the time that those
//! before it leave, and later ones get nothing: `R` then counts it with a share `1 - sigma_(i-1)` of the time,
//! in which its residual service is `E[S^2] / (2 E[S])`, and later ones not at all. So the waits of the others
//! stay exact however large the overload, and are bounded whatever it is: that is what separates a lane's wait
//! from the load of the lanes below it.
//!
//! For one class this is Pollaczek's and Khinchine's formula. For stable systems
//! `sum of rho_i W_i = rho R / (1 - rho)`, whatever the order of the classes (Kleinrock 1965, "A conservation
//! law for a wide class of queueing disciplines", Naval Research Logistics Quarterly 12).

use crate::{
    kingman::Law,
    units::{Invalid, Ms, PerSecond, count},
};

/// Most classes.
pub const MAX_CLASSES: u32 = 64;

/// What arrives in a class and what it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Class {
    /// How often.
    pub rate: PerSecond,
    /// How long one takes.
    pub service: Law,
}

impl Class {
    fn per_ms(&self) -> f64 {
        self.rate.get() / 1e3
    }

    /// The share of the server's time that it asks for.
    pub fn utilisation(&self) -> f64 {
        self.per_ms() * self.service.mean_ms().get()
    }

    /// What is left of a service that is met halfway, weighted with how often one is.
    fn residual(&self) -> f64 {
        self.per_ms() * self.service.second_moment() / 2.0
    }
}

/// How long a class waits before its service begins.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Wait {
    /// In the mean.
    Mean(Ms),
    /// The queue of the class grows for as long as this load lasts.
    Unbounded,
}

/// The mean wait of each class, first class first.
///
/// # Errors
/// If there are no classes or more than [`MAX_CLASSES`].
pub fn waits(classes: &[Class]) -> Result<Vec<Wait>, Invalid> {
    count("the number of classes", u32::try_from(classes.len()).unwrap_or(u32::MAX), 1, MAX_CLASSES)?;
    let (mut residual, mut before) = (0.0, 0.0);
    for class in classes {
        let load = class.utilisation();
        if before + load >= 1.0 {
            residual += class.residual() / load * (1.0 - before);
            break;
        }
        residual += class.residual();
        before += load;
    }
    let mut before = 0.0;
    let waits = classes.iter().map(|class| {
        let until = before + class.utilisation();
        let wait = if until < 1.0 {
            Wait::Mean(Ms::clamped(residual / ((1.0 - before) * (1.0 - until))))
        } else {
            Wait::Unbounded
        };
        before = until;
        wait
    });
    Ok(waits.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(rate: f64, mean_ms: f64, scv: f64) -> Class {
        Class {
            rate: PerSecond::new(rate).unwrap(),
            service: Law::new(Ms::new(mean_ms).unwrap(), scv).unwrap(),
        }
    }

    fn mean(wait: Wait) -> f64 {
        match wait {
            Wait::Mean(ms) => ms.get(),
            Wait::Unbounded => f64::INFINITY,
        }
    }

    #[test]
    fn one_class_is_pollaczek_and_khinchine() {
        // lambda E[S^2] / (2 (1 - rho)) with rho = 0.8.
        for (scv, right) in [(0.0, 2.0), (1.0, 4.0), (3.0, 8.0)] {
            let wait = mean(waits(&[class(800.0, 1.0, scv)]).unwrap()[0]);
            assert!((wait - right).abs() < 1e-9, "{scv}: {wait}");
        }
    }

    #[test]
    fn overload_below_a_class_costs_it_at_most_one_service() {
        let rescue = class(100.0, 1.0, 0.0);
        for load in [10.0, 890.0, 900.0, 1e6, 1e9] {
            let found = waits(&[rescue, class(load, 1.0, 0.0)]).unwrap();
            // 0.1 * 0.5 + at most 0.9 * 0.5, by 0.9.
            assert!(mean(found[0]) <= 0.5 / 0.9 + 1e-12, "{load}: {found:?}");
            assert_eq!(found[1] == Wait::Unbounded, load >= 900.0, "{load}");
        }
    }

    #[test]
    fn a_class_beyond_the_first_that_is_saturated_is_never_met() {
        let with = waits(&[class(10.0, 1.0, 0.0), class(2000.0, 1.0, 0.0), class(10.0, 50.0, 1.0)]).unwrap();
        let without = waits(&[class(10.0, 1.0, 0.0), class(2000.0, 1.0, 0.0)]).unwrap();
        assert_eq!(with[0], without[0]);
        assert_eq!(with[2], Wait::Unbounded);
        assert!(waits(&[]).is_err());
        assert_eq!(waits(&[class(0.0, 0.0, 0.0)]).unwrap(), [Wait::Mean(Ms::ZERO)]);
    }
}
