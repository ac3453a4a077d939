//! Quantities. One newtype each, with the unit in its documentation and in the names of its users.

use core::fmt;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl $name {
            /// The raw integer, in the unit of this type.
            #[inline]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity! {
    /// A price, in ticks of its market. Valid prices are `1..=MAX_PRICE_TICKS`; zero is no price.
    PriceTicks(u64)
}
quantity! {
    /// A signed position or unsigned trade size, in lots of its market. Positive is long.
    Lots(i64)
}
quantity! {
    /// An amount of the settlement asset, in atoms: the indivisible unit (10^-6 USD on the devnet).
    ///
    /// The width is chosen so that no sum or product of bounded quantities can overflow: a notional
    /// is below 2^40 ticks x 2^40 lots x 2^24 atoms = 2^104.
    Atoms(i128)
}
quantity! {
    /// A rate in parts per million.
    Ppm(u32)
}
quantity! {
    /// A block height. Genesis is 0.
    Height(u64)
}
quantity! {
    /// A block time, in milliseconds since the Unix epoch. On a replay this is replayed time.
    TimeMs(u64)
}
quantity! {
    /// Cumulative funding of one lot since genesis, in atoms scaled by
    /// [`FUNDING_SCALE`](crate::limits::FUNDING_SCALE). A long pays its growth, a short receives it.
    FundingIndex(i128)
}

impl Atoms {
    /// No value.
    pub const ZERO: Self = Self(0);
}

impl Lots {
    /// A flat position.
    pub const ZERO: Self = Self(0);

    /// The size without its direction.
    #[inline]
    pub const fn abs(self) -> Self {
        Self(self.0.abs())
    }
}

impl Height {
    /// The height of the next block.
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! additive {
    ($name:ident) => {
        impl core::ops::Add for $name {
            type Output = Self;
            #[inline]
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }
        impl core::ops::Sub for $name {
            type Output = Self;
            #[inline]
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }
        impl core::ops::Neg for $name {
            type Output = Self;
            #[inline]
            fn neg(self) -> Self {
                Self(-self.0)
            }
        }
        impl core::ops::AddAssign for $name {
            #[inline]
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }
        impl core::ops::SubAssign for $name {
            #[inline]
            fn sub_assign(&mut self, other: Self) {
                self.0 -= other.0;
            }
        }
        impl core::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self(0), |a, b| a + b)
            }
        }
    };
}

additive!(Atoms);
additive!(Lots);
additive!(FundingIndex);
