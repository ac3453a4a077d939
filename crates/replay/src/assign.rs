//! Which validator listens to which venues.

use crate::Replay;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use seawall_types::MarketId;

/// Sources that a validator gets in each market that has as many.
///
/// Three is the smallest number at which one lying venue cannot carry a median outside what the other
/// two say, and fewer listeners to each venue follow from it, not more safety. In a market with one or
/// two venues every validator listens to all of them, and the chain cannot tell a lie from a fact.
pub const SOURCES: usize = 3;

/// For each of `validators`, the feeds it polls, as ascending places in [`Replay::feeds`].
///
/// Within a market every venue has as many listeners as any other, or one more or less. The same
/// replay, number and seed give the same answer.
pub fn assign_feeds(replay: &Replay, validators: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut assigned = vec![Vec::new(); validators];
    for market in 0..replay.markets.len() {
        let feeds: Vec<usize> = replay.feeds_of(MarketId(market as u16)).collect();
        let mut listeners = vec![0usize; feeds.len()];
        let mut order: Vec<usize> = (0..validators).collect();
        order.shuffle(&mut rng);
        for validator in order {
            // Venues with the fewest listeners first, ties by lot: the load stays even, the subsets vary.
            let mut venues: Vec<(usize, u32, usize)> =
                listeners.iter().enumerate().map(|(venue, count)| (*count, rng.next_u32(), venue)).collect();
            venues.sort_unstable();
            for (_, _, venue) in venues.into_iter().take(SOURCES) {
                listeners[venue] += 1;
                assigned[validator].push(feeds[venue]);
            }
        }
    }
    for feeds in &mut assigned {
        feeds.sort_unstable();
    }
    assigned
}
