//! Exact decimal prices, and the rule that chooses a market's tick and lot.
//!
//! # The rule
//! * **tick**: the largest of {1, 2, 5} x 10^k USD that is at most 1 bp of the reference price, hence
//!   between 0.4 and 1 bp of it: fine enough that a tick is below any spread in a crash, coarse enough
//!   that a price stays far below [`MAX_PRICE_TICKS`](seawall_types::limits::MAX_PRICE_TICKS);
//! * **lot**: the largest of {1, 2, 5} x 10^k units of the asset that is worth at most 5 USD at the
//!   reference price, hence worth between 2 and 5 USD: the smallest accounts still hold several lots.
//!
//! Tick x lot is then a whole number of atoms (10^-6 USD): it is worth at least 0.4 bp of 2 USD, that
//! is 80 atoms, and the product of two leading digits is one of 1, 2, 4, 5, 10, 25, so its last
//! non-zero decimal is never more than one place below its first.

use std::fmt;

/// Pico-USD in a USD: prices are held as whole multiples of 10^-12 USD.
pub const PICO_PER_USD: u128 = 1_000_000_000_000;
/// Decimals that a price may have.
pub const MAX_DECIMALS: usize = 12;
/// Digits that a price may have before its point.
pub const MAX_WHOLE_DIGITS: usize = 12;
/// A tick is at most this fraction of the reference price: 1 bp.
pub const TICK_FRACTION: u128 = 10_000;
/// A lot is worth at most this many USD at the reference price.
pub const LOT_VALUE_USD: u128 = 5;
/// Atoms of the settlement asset in a USD.
pub const ATOMS_PER_USD: u128 = 1_000_000;

/// A price of one unit of an asset, in 10^-12 USD. Exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PicoUsd(pub u128);

impl PicoUsd {
    /// Reads plain decimal text: digits, at most one point, no sign, no exponent; positive.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.is_empty() || text.ends_with('.') {
            return Err(format!("{text:?} is not a positive decimal number"));
        }
        if whole.len() > MAX_WHOLE_DIGITS || fraction.len() > MAX_DECIMALS {
            return Err(format!(
                "{text:?} has more than {MAX_WHOLE_DIGITS} digits before or {MAX_DECIMALS} after its point"
            ));
        }
        let value = whole
            .bytes()
            .chain(fraction.bytes())
            .fold(0u128, |value, byte| value * 10 + u128::from(byte - b'0'));
        let scale = 10u128.pow((MAX_DECIMALS - fraction.len()) as u32);
        match value * scale {
            0 => Err("a price of zero is no price".to_owned()),
            pico => Ok(Self(pico)),
        }
    }

    /// The price in ticks of `tick`, to the nearest tick, halves to the even one.
    pub const fn to_ticks(self, tick: Self) -> u128 {
        let (quotient, remainder) = (self.0 / tick.0, self.0 % tick.0);
        let twice = remainder * 2;
        if twice > tick.0 || (twice == tick.0 && quotient % 2 == 1) { quotient + 1 } else { quotient }
    }

    /// In USD, for statistics only.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / PICO_PER_USD as f64
    }
}

/// A number of the form {1, 2, 5} x 10^exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    digit: u8,
    exponent: i32,
}

impl Round {
    /// As a multiple of 10^-12, if it is a whole one.
    pub fn pico(self) -> Option<u128> {
        let exponent = u32::try_from(self.exponent + MAX_DECIMALS as i32).ok()?;
        10u128.checked_pow(exponent)?.checked_mul(u128::from(self.digit))
    }

    /// Largest one with `fits`, which must hold for all small numbers and fail for all large ones.
    fn largest(fits: impl Fn(Self) -> bool) -> Option<Self> {
        (-(MAX_DECIMALS as i32)..=MAX_WHOLE_DIGITS as i32)
            .flat_map(|exponent| [1, 2, 5].map(|digit| Self { digit, exponent }))
            .take_while(|&number| fits(number))
            .last()
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.exponent) {
            Ok(zeros) => write!(f, "{}{}", self.digit, "0".repeat(zeros)),
            Err(_) => {
                let zeros = self.exponent.unsigned_abs() as usize - 1;
                write!(f, "0.{}{}", "0".repeat(zeros), self.digit)
            }
        }
    }
}

/// A market's grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Price step in USD.
    pub tick: Round,
    /// Size step in units of the asset.
    pub lot: Round,
    /// What one lot gains when its price rises by one tick.
    pub atoms_per_tick_lot: u32,
}

impl Grid {
    /// The grid for a market around `reference`, by the rule of this module.
    pub fn around(reference: PicoUsd) -> Option<Self> {
        let tick =
            Round::largest(|tick| tick.pico().is_some_and(|pico| pico * TICK_FRACTION <= reference.0))?;
        let limit = LOT_VALUE_USD * PICO_PER_USD * PICO_PER_USD;
        let lot = Round::largest(|lot| {
            lot.pico().and_then(|pico| pico.checked_mul(reference.0)).is_some_and(|value| value <= limit)
        })?;
        let value = tick.pico()?.checked_mul(lot.pico()?)?.checked_mul(ATOMS_PER_USD)?;
        let one = PICO_PER_USD * PICO_PER_USD;
        let atoms_per_tick_lot = u32::try_from(value / one).ok()?;
        (value % one == 0 && atoms_per_tick_lot > 0).then_some(Self { tick, lot, atoms_per_tick_lot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_exactly() {
        assert_eq!(PicoUsd::parse("123277.83064680"), Ok(PicoUsd(123_277_830_646_800_000)));
        assert_eq!(PicoUsd::parse("7"), Ok(PicoUsd(7 * PICO_PER_USD)));
        assert_eq!(PicoUsd::parse("0.000000000001"), Ok(PicoUsd(1)));
    }

    #[test]
    fn anything_but_a_plain_positive_decimal_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "NaN",
            "inf",
            "1,5",
            " 1",
            "0",
            "0.000",
            "1.2.3",
            "1234567890123",
            "0.0000000000001",
        ] {
            assert!(PicoUsd::parse(text).is_err(), "{text:?} was read as a price");
        }
    }

    #[test]
    fn halves_go_to_the_even_tick() {
        let tick = PicoUsd(10);
        let ticks = [15, 25, 35, 24, 26].map(|pico| PicoUsd(pico).to_ticks(tick));
        assert_eq!(ticks, [2, 2, 4, 2, 3]);
    }

    #[test]
    fn every_reference_price_gets_a_grid_within_the_rule() {
        let (mut price, mut seen) = (10_000u128, 0);
        while price < 10_000_000 * PICO_PER_USD {
            // Below 0.1 mUSD a tick would need more decimals than a price can have.
            if let Some(grid) = Grid::around(PicoUsd(price)) {
                seen += 1;
                let (tick, lot) = (grid.tick.pico().unwrap(), grid.lot.pico().unwrap());
                assert!(tick * 10_000 <= price && tick * 25_000 >= price, "tick {} at {price}", grid.tick);
                assert!(lot * price <= 5 * PICO_PER_USD * PICO_PER_USD, "lot {} at {price}", grid.lot);
                assert!(lot * price >= 2 * PICO_PER_USD * PICO_PER_USD, "lot {} at {price}", grid.lot);
                assert!((50..1_000).contains(&grid.atoms_per_tick_lot), "{grid:?} at {price}");
            } else {
                panic!("no grid at {price}");
            }
            price += price / 7;
        }
        assert!(seen > 200);
    }

    #[test]
    fn round_numbers_print_as_plain_decimals() {
        let show = |digit, exponent| Round { digit, exponent }.to_string();
        assert_eq!([show(5, -2), show(1, 0), show(2, 1), show(1, -1)], ["0.05", "1", "20", "0.1"]);
    }
}
