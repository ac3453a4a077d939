//! What people pay for block space, and the pool that sells it to the highest fee.
//!
//! Fees are millions of wei for a unit of gas ("Mwei"), drawn from recorded percentiles. Between two percentiles the
//! logarithm of the fee is linear in the logarithm of the share that paid more, as in a Pareto distribution; beyond the
//! highest, nobody pays more than the recorded maximum. Logarithms are `libm`'s, so that every machine draws the same.

use crate::extracts::Gas;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use std::collections::BTreeMap;

/// Most transactions in the pool. Beyond it the lowest fee leaves, as in the pools of fee-ordered chains.
pub const MAX_POOLED: usize = 65_536;

/// A fee for a unit of gas, in millions of wei.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct FeeMwei(pub u64);

impl FeeMwei {
    /// In 10^9 wei, for people.
    pub fn gwei(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// `ppm` parts per million more, rounded up, and at least one unit more.
    pub fn raised(self, ppm: u64) -> Self {
        let more = u128::from(self.0) * u128::from(ppm);
        Self(self.0.saturating_add(u64::try_from(more.div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)))
    }
}

/// A distribution of fees.
#[derive(Clone, Debug)]
pub struct FeeCurve {
    /// (logarithm of the share that pays more, logarithm of the fee), by falling share.
    knots: [(f64, f64); 5],
}

impl FeeCurve {
    /// As recorded. Below the lowest percentile fees fall to half of it.
    pub fn new(gas: &Gas) -> Self {
        let ln = |wei: f64| libm::log((wei / 1e6).max(1.0));
        let most = 1.0 / gas.tx_count.max(20) as f64;
        Self {
            knots: [
                (0.0, ln(gas.p30_wei / 2.0)),
                (libm::log(0.7), ln(gas.p30_wei)),
                (libm::log(0.4), ln(gas.p60_wei)),
                (libm::log(0.1), ln(gas.p90_wei)),
                (libm::log(most), ln(gas.max_wei)),
            ],
        }
    }

    /// The fee that a share `exp(ln_share)` of all exceeds. Rounded to the nearest.
    pub fn at(&self, ln_share: f64) -> FeeMwei {
        let last = self.knots[self.knots.len() - 1];
        let fee = if ln_share <= last.0 {
            last.1
        } else {
            let next = self.knots.iter().position(|knot| knot.0 <= ln_share).unwrap_or(0).max(1);
            let (from, to) = (self.knots[next - 1], self.knots[next]);
            from.1 + (to.1 - from.1) * (ln_share - from.0) / (to.0 - from.0)
        };
        FeeMwei(libm::round(libm::exp(fee)) as u64)
    }

    /// One draw.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> FeeMwei {
        self.at(libm::log(open_unit(rng)))
    }

    /// The highest `most` of `count` draws, highest first, without drawing the others: of `n` uniform shares the smallest
    /// is distributed as `1 - U^(1/n)`, and given it, the next is the smallest of `n - 1` above it.
    pub fn highest(&self, rng: &mut ChaCha8Rng, count: u64, most: usize) -> Vec<FeeMwei> {
        let mut fees = Vec::with_capacity(most.min(usize::try_from(count).unwrap_or(most)));
        let mut ln_left = 0.0; // Logarithm of 1 - share.
        for left in (1..=count).rev().take(most) {
            ln_left += libm::log(open_unit(rng)) / left as f64;
            fees.push(self.at(libm::log(-libm::expm1(ln_left))));
        }
        fees
    }
}

/// Uniform in (0, 1), never an end of it.
pub fn open_unit(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// A transaction that the baseline follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tx {
    /// A trader's. Leaves the pool after this block.
    Trade {
        /// Last block that may carry it.
        until: u64,
    },
    /// A rescue, by its place in the run's traces.
    Rescue(usize),
    /// A keeper's, by its name in the list of what keepers have on the way.
    Keeper(u64),
}

/// Place in the pool: higher fees first, then who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    fee: core::cmp::Reverse<FeeMwei>,
    arrival: u64,
}

impl Place {
    /// The fee that was bid.
    pub fn fee(&self) -> FeeMwei {
        self.fee.0
    }
}

/// Everything that waits for a block.
#[derive(Debug, Default)]
pub struct Pool {
    waiting: BTreeMap<Place, Tx>,
    arrivals: u64,
}

impl Pool {
    /// Adds a transaction and gives its place; takes the lowest out if there are too many, which may be the new one.
    pub fn add(&mut self, fee: FeeMwei, tx: Tx) -> (Place, Option<Tx>) {
        let place = Place { fee: core::cmp::Reverse(fee), arrival: self.arrivals };
        self.arrivals += 1;
        self.waiting.insert(place, tx);
        let dropped = if self.waiting.len() > MAX_POOLED { self.waiting.pop_last() } else { None };
        (place, dropped.map(|(_, tx)| tx))
    }

    /// Takes one out, wherever it stands. False if it is not there any more.
    pub fn remove(&mut self, place: Place) -> bool {
        self.waiting.remove(&place).is_some()
    }

    /// The highest bid.
    pub fn take_highest(&mut self) -> Option<(FeeMwei, Tx)> {
        self.waiting.pop_first().map(|(place, tx)| (place.fee(), tx))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    fn gas() -> Gas {
        Gas {
            bucket_start: String::new(),
            tx_count: 1_000,
            avg_gas_price_wei: 0.0,
            p30_wei: 10e9,
            p60_wei: 20e9,
            p90_wei: 40e9,
            max_wei: 400e9,
        }
    }

    #[test]
    fn a_curve_goes_through_its_percentiles_and_never_above_the_maximum() {
        let curve = FeeCurve::new(&gas());
        for (share, gwei) in
            [(1.0, 5.0), (0.7, 10.0), (0.4, 20.0), (0.1, 40.0), (0.001, 400.0), (1e-9, 400.0)]
        {
            assert_eq!(curve.at(libm::log(share)).gwei(), gwei, "{share}");
        }
        // Half way between 0.1 and 0.001 on a logarithmic scale, half way between 40 and 400: 40 x sqrt(10).
        assert_eq!(curve.at(libm::log(0.01)), FeeMwei(126_491));
    }

    #[test]
    fn the_highest_of_many_draws_are_those_that_drawing_all_of_them_gives() {
        let (curve, count, most, rounds) = (FeeCurve::new(&gas()), 200, 10, 2_000);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut sums = [[0.0; 2]; 10];
        assert_eq!(sums.len(), most);
        for _ in 0..rounds {
            let quick = curve.highest(&mut rng, count, most);
            let mut all: Vec<_> = (0..count).map(|_| curve.draw(&mut rng)).collect();
            all.sort_by(|a, b| b.cmp(a));
            assert!(quick.is_sorted_by(|a, b| a >= b) && quick.len() == most);
            for (sum, (quick, all)) in sums.iter_mut().zip(quick.iter().zip(all)) {
                sum[0] += libm::log(quick.gwei());
                sum[1] += libm::log(all.gwei());
            }
        }
        for (rank, [quick, all]) in sums.into_iter().enumerate() {
            let (quick, all) = (quick / f64::from(rounds), all / f64::from(rounds));
            // The spread of a mean of 2,000 is below 0.01 at every rank but the first.
            assert!((quick - all).abs() < 0.05, "rank {rank}: {quick} by order statistics, {all} by sorting");
        }
        assert_eq!(curve.highest(&mut rng, 3, 10).len(), 3, "not more than there are");
        assert!(curve.highest(&mut rng, 0, 10).is_empty());
    }

    #[test]
    fn a_pool_serves_the_highest_fee_and_drops_the_lowest() {
        let mut pool = Pool::default();
        let (low, _) = pool.add(FeeMwei(1), Tx::Rescue(0));
        pool.add(FeeMwei(5), Tx::Rescue(1));
        pool.add(FeeMwei(5), Tx::Rescue(2));
        assert_eq!(
            pool.take_highest(),
            Some((FeeMwei(5), Tx::Rescue(1))),
            "of two that pay the same, the first"
        );
        assert!(pool.remove(low) && !pool.remove(low));
        assert_eq!(pool.take_highest(), Some((FeeMwei(5), Tx::Rescue(2))));
        assert_eq!(pool.take_highest(), None);
        for rescue in 0..MAX_POOLED {
            assert_eq!(pool.add(FeeMwei(9), Tx::Rescue(rescue)).1, None);
        }
        assert_eq!(pool.add(FeeMwei(8), Tx::Keeper(3)).1, Some(Tx::Keeper(3)), "it is itself the lowest");
        assert_eq!(pool.add(FeeMwei(10), Tx::Keeper(4)).1, Some(Tx::Rescue(MAX_POOLED - 1)));
        assert_eq!(pool.waiting(), MAX_POOLED);
    }

    #[test]
    fn a_raise_rounds_up() {
        assert_eq!(FeeMwei(1_000).raised(125_000), FeeMwei(1_125));
        assert_eq!(FeeMwei(1).raised(125_000), FeeMwei(2));
        assert_eq!(FeeMwei(0).raised(125_000), FeeMwei(1));
    }
}
