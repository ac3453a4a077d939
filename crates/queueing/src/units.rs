//! Quantities that are easily taken for each other, and the one way in which a number is refused.
//!
//! A quantity that exists is finite, not negative, and at most its `MAX`. The bounds are far beyond anything
//! that a chain can mean; they keep sums and squares of quantities finite, so that no formula has to ask.

use thiserror::Error;

/// Why a parameter is refused. `what` is its name.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum Invalid {
    /// NaN or an infinity.
    #[error("{what} is not a finite number")]
    NotFinite {
        /// The parameter.
        what: &'static str,
    },
    /// Below the least value that it can have.
    #[error("{what} is {value}, less than {least}")]
    TooSmall {
        /// The parameter.
        what: &'static str,
        /// What it was.
        value: f64,
        /// What it may be.
        least: f64,
    },
    /// Above a named limit.
    #[error("{what} is {value}, more than {most}")]
    TooLarge {
        /// The parameter.
        what: &'static str,
        /// What it was.
        value: f64,
        /// What it may be.
        most: f64,
    },
    /// Probabilities that do not add to one.
    #[error("the probabilities of {what} add to {sum}, not to 1")]
    NotADistribution {
        /// Of what.
        what: &'static str,
        /// Their sum.
        sum: f64,
    },
    /// Two flows that share slots say different things about them.
    #[error("{what} of flows that share slots differ")]
    Different {
        /// What differs.
        what: &'static str,
    },
}

/// `value` if it is finite and between `least` and `most`.
pub(crate) fn between(what: &'static str, value: f64, least: f64, most: f64) -> Result<f64, Invalid> {
    if !value.is_finite() {
        Err(Invalid::NotFinite { what })
    } else if value < least {
        Err(Invalid::TooSmall { what, value, least })
    } else if value > most {
        Err(Invalid::TooLarge { what, value, most })
    } else {
        Ok(value)
    }
}

/// A count between `least` and `most`.
pub(crate) fn count(what: &'static str, value: u32, least: u32, most: u32) -> Result<u32, Invalid> {
    between(what, f64::from(value), f64::from(least), f64::from(most)).map(|_| value)
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Serialize, serde::Deserialize),
            serde(try_from = "f64", into = "f64")
        )]
        pub struct $name(f64);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0.0);
            /// The largest that there is.
            pub const MAX: Self = Self($most);

            /// The quantity.
            ///
            /// # Errors
            /// If the number is not finite, negative, or above [`Self::MAX`].
            pub fn new(value: f64) -> Result<Self, Invalid> {
                // Adding zero makes a negative zero positive.
                between($what, value, 0.0, $most).map(|value| Self(value + 0.0))
            }

            /// What a formula found; NaN and what lies outside become the nearest bound.
            pub(crate) fn clamped(value: f64) -> Self {
                Self(if value > 0.0 { value.min($most) } else { 0.0 })
            }

            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = Invalid;

            fn try_from(value: f64) -> Result<Self, Invalid> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

quantity!(
    /// A time in milliseconds, at most about 30,000 years.
    Ms,
    "a time in ms",
    1e15
);
quantity!(
    /// A distance or a move of a price, in hundredths of a percent.
    Bps,
    "a distance in bps",
    1e9
);
quantity!(
    /// Events a second.
    PerSecond,
    "a rate per second",
    1e9
);
quantity!(
    /// From 0 to 1.
    Probability,
    "a probability",
    1.0
);

/// What a figure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Worth {
    /// A theorem gives it for the model as stated; what is left is rounding.
    Exact,
    /// Something in it was simplified. The function that returns it says what, and in which direction.
    Approximation,
}

impl Worth {
    /// What a figure made of two others is worth.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finite_numbers_in_range_are_quantities() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-300, 1e300] {
            assert!(Ms::new(bad).is_err() && Bps::new(bad).is_err() && PerSecond::new(bad).is_err(), "{bad}");
        }
        assert!(Probability::new(1.0).is_ok() && Probability::new(1.0 + f64::EPSILON).is_err());
        assert!(Ms::new(-0.0).unwrap().get().is_sign_positive());
        assert_eq!(Ms::clamped(f64::NAN), Ms::ZERO);
        assert_eq!(Probability::clamped(1.5), Probability::MAX);
    }
}
