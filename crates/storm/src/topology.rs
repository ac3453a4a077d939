//! Places, the time between them, and the bound that it sets on finality.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Round trips between AWS regions; `PROVENANCE.md` beside the file says whose.
const AWS_RTT: &str = include_str!("../../../data/network/aws-rtt.csv");
/// Four regions on three continents.
pub const FOUR: [&str; 4] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1"];
/// Ten on five.
pub const TEN: [&str; 10] = [
    "us-east-1",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "sa-east-1",
];

#[derive(Deserialize)]
struct Row {
    from_region: String,
    to_region: String,
    rtt_p50_ms: f64,
}

/// One-way times between places, in the order of the places.
#[derive(Clone, Debug, Serialize)]
pub struct Topology {
    /// Names.
    pub places: Vec<String>,
    /// `one_way_ms[from][to]`: half the median round trip, averaged over both directions.
    pub one_way_ms: Vec<Vec<f64>>,
}

impl Topology {
    /// One validator in each of these AWS regions.
    ///
    /// # Errors
    /// If a region is not in the table.
    pub fn aws(places: &[&str]) -> anyhow::Result<Self> {
        let mut rtt: BTreeMap<(String, String), f64> = BTreeMap::new();
        for row in csv::Reader::from_reader(AWS_RTT.as_bytes()).deserialize() {
            let Row { from_region, to_region, rtt_p50_ms } = row?;
            rtt.insert((from_region, to_region), rtt_p50_ms);
        }
        let one = |from: &str, to: &str| {
            rtt.get(&(from.to_owned(), to.to_owned()))
                .copied()
                .ok_or_else(|| anyhow::anyhow!("no round trip from {from} to {to}"))
        };
        let mut one_way_ms = Vec::with_capacity(places.len());
        for from in places {
            let row: anyhow::Result<Vec<f64>> = places
                .iter()
                .map(|to| Ok(if from == to { 0.0 } else { (one(from, to)? + one(to, from)?) / 4.0 }))
                .collect();
            one_way_ms.push(row?);
        }
        Ok(Self { places: places.iter().map(|place| (*place).to_owned()).collect(), one_way_ms })
    }

    /// One way from a place to another.
    pub fn one_way(&self, from: usize, to: usize) -> Duration {
        Duration::from_secs_f64(self.one_way_ms[from][to] / 1e3)
    }

    /// When `leader`'s proposal is final at the median validator, in ms from its start, if nothing but distance
    /// takes time. Three hops: the proposal to everyone; notarize votes to everyone, of which the q-th to arrive
    /// completes a quorum q = n - (n - 1) / 3; finalize votes likewise. A validator's own vote takes no time.
    pub fn bound_ms(&self, leader: usize) -> f64 {
        let n = self.places.len();
        let quorum = n - (n - 1) / 3;
        let quorum_at = |ready: &[f64]| -> Vec<f64> {
            (0..n)
                .map(|at| {
                    let mut arrivals: Vec<f64> =
                        (0..n).map(|from| ready[from] + self.one_way_ms[from][at]).collect();
                    arrivals.sort_by(f64::total_cmp);
                    arrivals[quorum - 1]
                })
                .collect()
        };
        let notarized = quorum_at(&self.one_way_ms[leader]);
        let mut finalized = quorum_at(&notarized);
        median(&mut finalized)
    }
}

/// The upper median.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_three_hops_to_a_quorum() {
        // Everybody 10 ms from everybody: three hops, and one's own vote waits for the others'.
        let same = |n: usize| Topology {
            places: vec![String::new(); n],
            one_way_ms: (0..n).map(|a| (0..n).map(|b| if a == b { 0.0 } else { 10.0 }).collect()).collect(),
        };
        assert!((same(1).bound_ms(0) - 0.0).abs() < 1e-9);
        assert!((same(4).bound_ms(0) - 30.0).abs() < 1e-9);
        assert!((same(10).bound_ms(3) - 30.0).abs() < 1e-9);
        // One of four far away is not waited for, unless it leads.
        let far = Topology {
            places: vec![String::new(); 4],
            one_way_ms: (0..4)
                .map(|a| {
                    (0..4)
                        .map(|b| {
                            if a == b {
                                0.0
                            } else if a == 3 || b == 3 {
                                100.0
                            } else {
                                10.0
                            }
                        })
                        .collect()
                })
                .collect(),
        };
        assert!((far.bound_ms(0) - 30.0).abs() < 1e-9);
        assert!((far.bound_ms(3) - 120.0).abs() < 1e-9);
    }

    #[test]
    fn distances_are_symmetric_and_of_the_order_that_light_allows() {
        let ten = Topology::aws(&TEN).unwrap();
        for a in 0..10 {
            for b in 0..10 {
                assert!((ten.one_way_ms[a][b] - ten.one_way_ms[b][a]).abs() < 1e-9);
                assert!(a == b || (1.0..200.0).contains(&ten.one_way_ms[a][b]));
            }
        }
        assert!(Topology::aws(&["us-east-1", "the-moon-1"]).is_err());
    }
}
