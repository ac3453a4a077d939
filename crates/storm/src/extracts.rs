//! Recorded facts that every binary carries: where validators stand, and what a crowded chain charged.
//!
//! Origin, licence note, columns and checksums are in the `PROVENANCE.md` beside each file; the tests hold rows and
//! checksums against it. Reading panics if an embedded file is malformed, which cannot happen after the tests.

use serde::Deserialize;
use std::{collections::BTreeSet, sync::LazyLock};

const VALIDATORS: &str = include_str!("../../../data/validators/validators.csv");
const REGIONS: &str = include_str!("../../../data/validators/regions.csv");
const GAS: &str = include_str!("../../../data/congestion/eth-gas-2020-03-12.csv");

/// Length of a bucket of [`gas`], ms.
pub const GAS_BUCKET_MS: u64 = 600_000;
/// When the first bucket of [`gas`] begins, ms since the Unix epoch: 2020-03-12 00:00 UTC.
pub const GAS_START_MS: u64 = 1_583_971_200_000;

/// A validator of another chain, at the nearest of ten AWS regions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Placed {
    /// `sui` or `solana-860`.
    pub set: String,
    /// As in `data/network/aws-rtt.csv`.
    pub region: String,
    /// In whole coins of its chain.
    pub stake: u64,
}

/// A region's part of a set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Region {
    /// `sui` or `solana-860`.
    pub set: String,
    /// As in `data/network/aws-rtt.csv`.
    pub region: String,
    /// How many validators stand there.
    pub validators: u32,
    /// Their stake, in whole coins.
    pub stake: u64,
    /// That in parts per million of the set, rounded down.
    pub stake_ppm: u32,
}

/// What transactions paid in ten minutes, in wei for a unit of gas.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gas {
    /// Begin, RFC 3339, UTC.
    pub bucket_start: String,
    /// How many were in blocks.
    pub tx_count: u64,
    /// Mean.
    pub avg_gas_price_wei: f64,
    /// 30 of 100 paid at most this.
    pub p30_wei: f64,
    /// 60 of 100.
    pub p60_wei: f64,
    /// 90 of 100.
    pub p90_wei: f64,
    /// All.
    pub max_wei: f64,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str, text: &str) -> Vec<T> {
    csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .map(|row| row.unwrap_or_else(|error| panic!("data/{name}: {error}")))
        .collect()
}

/// Every validator of every set, in the order of its source.
pub fn validators() -> &'static [Placed] {
    static ROWS: LazyLock<Vec<Placed>> = LazyLock::new(|| read("validators/validators.csv", VALIDATORS));
    &ROWS
}

/// What each region holds of a set; nothing if no set has that name.
pub fn regions(set: &str) -> Vec<&'static Region> {
    static ROWS: LazyLock<Vec<Region>> = LazyLock::new(|| read("validators/regions.csv", REGIONS));
    ROWS.iter().filter(|row| row.set == set).collect()
}

/// `members` seats given to the regions of a set in proportion to stake: whole shares first, then the largest remainders,
/// ties to the region that stands first in the file. Regions without a seat are left out.
pub fn seats(set: &str, members: u32) -> Vec<(&'static str, u32)> {
    let regions = regions(set);
    let total: u128 = regions.iter().map(|region| u128::from(region.stake)).sum();
    if total == 0 {
        return Vec::new();
    }
    let share = |region: &Region| u128::from(region.stake) * u128::from(members);
    let mut seats: Vec<u32> = regions.iter().map(|region| (share(region) / total) as u32).collect();
    let mut order: Vec<usize> = (0..regions.len()).collect();
    order.sort_by_key(|&at| core::cmp::Reverse(share(regions[at]) % total));
    let left = members - seats.iter().sum::<u32>();
    for &at in order.iter().take(left as usize) {
        seats[at] += 1;
    }
    let all = regions.into_iter().zip(seats);
    all.filter(|(_, seats)| *seats > 0).map(|(region, seats)| (region.region.as_str(), seats)).collect()
}

/// What transactions paid on Ethereum on 12 March 2020, by ten minutes from midnight.
pub fn gas() -> &'static [Gas] {
    static ROWS: LazyLock<Vec<Gas>> = LazyLock::new(|| read("congestion/eth-gas-2020-03-12.csv", GAS));
    &ROWS
}

/// Names of the sets of validators.
pub fn sets() -> Vec<&'static str> {
    let names: BTreeSet<&str> = validators().iter().map(|row| row.set.as_str()).collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    const NETWORK: &str = include_str!("../../../data/network/aws-rtt.csv");

    fn stands_in(provenance: &str, name: &str, text: &str) {
        let sum: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{} rows, sha256 {sum}", text.lines().count() - 1);
        assert!(provenance.contains(&line), "{name}: its provenance does not say `{line}`");
    }

    #[test]
    fn extracts_are_those_that_their_provenance_describes() {
        let provenance = include_str!("../../../data/validators/PROVENANCE.md");
        stands_in(provenance, "validators.csv", VALIDATORS);
        stands_in(provenance, "regions.csv", REGIONS);
        stands_in(include_str!("../../../data/congestion/PROVENANCE.md"), "eth-gas-2020-03-12.csv", GAS);
    }

    #[test]
    fn regions_are_the_sums_of_their_validators_and_have_round_trip_times() {
        assert_eq!(sets(), ["solana-860", "sui"]);
        for set in sets() {
            let regions = regions(set);
            assert_eq!(regions.len(), 10);
            let of_set: Vec<_> = validators().iter().filter(|row| row.set == set).collect();
            let total: u64 = of_set.iter().map(|row| row.stake).sum();
            for region in regions {
                let there: Vec<_> = of_set.iter().filter(|row| row.region == region.region).collect();
                assert_eq!(there.len(), region.validators as usize, "{set} {}", region.region);
                let stake: u64 = there.iter().map(|row| row.stake).sum();
                assert_eq!(stake, region.stake, "{set} {}", region.region);
                assert_eq!(u128::from(stake) * 1_000_000 / u128::from(total), region.stake_ppm.into());
                assert!(NETWORK.contains(&format!("\n{},", region.region)), "{}", region.region);
            }
        }
    }

    #[test]
    fn seats_follow_stake_and_sum_to_the_committee() {
        for set in sets() {
            for members in [1, 4, 7, 10, 25, 100] {
                let seats = seats(set, members);
                assert_eq!(seats.iter().map(|(_, seats)| seats).sum::<u32>(), members);
                for (name, count) in seats {
                    let region = regions(set).into_iter().find(|region| region.region == name);
                    let exact = f64::from(region.unwrap().stake_ppm) * f64::from(members) / 1e6;
                    assert!((f64::from(count) - exact).abs() < 1.0, "{set} {name}: {count} of {exact}");
                }
            }
        }
        assert!(seats("no such set", 4).is_empty());
    }

    #[test]
    fn gas_covers_the_day_without_a_gap_and_its_percentiles_rise() {
        assert_eq!(gas().len(), 144);
        for (at, row) in gas().iter().enumerate() {
            let start = format!("2020-03-12T{:02}:{:02}:00Z", at / 6, at % 6 * 10);
            assert_eq!(row.bucket_start, start);
            assert!(row.tx_count > 0);
            assert!(0.0 < row.p30_wei && row.p30_wei <= row.p60_wei, "{start}");
            assert!(row.p60_wei <= row.p90_wei && row.p90_wei <= row.max_wei, "{start}");
        }
    }
}
