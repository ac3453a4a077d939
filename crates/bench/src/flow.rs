//! A seeded flow of orders for one market: 45 % cancel, 45 % rest, 10 % cross.
//!
//! Who rests does so 1 to 200 ticks behind the middle, most of them close to it. Who crosses is immediate, twice
//! as large, and reaches five ticks beyond the middle, which drifts by a tick now and then. A cancel names any
//! order that was placed and not cancelled before, all alike; it may have traded since. These numbers are made up.
//! They are the same for everything that is measured with them.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use seawall_types::Side;

/// Where the middle begins, in ticks.
pub const MIDDLE: u64 = 100_000;
/// Ticks between the middle and the last order behind it.
const DEPTH: u64 = 200;
/// Ticks beyond the middle that an immediate order reaches.
const REACH: u64 = 5;
/// Lots of the largest order that rests.
const LOTS: i64 = 100;
/// With fewer orders to cancel than this, orders are placed instead.
const FEWEST_OPEN: usize = 100;

/// An order that is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Buy or sell.
    pub side: Side,
    /// Limit, in ticks.
    pub limit: u64,
    /// Size.
    pub lots: i64,
    /// What does not trade at once ends.
    pub immediate: bool,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new order.
    Place(Placement),
    /// The end of the order that the step of this number placed.
    Cancel(u32),
}

/// The flow from its beginning. Steps are numbered from 0.
#[derive(Clone, Debug)]
pub struct Flow {
    rng: ChaCha8Rng,
    middle: u64,
    next: u32,
    open: Vec<u32>,
}

impl Flow {
    /// A flow before its first step.
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), middle: MIDDLE, next: 0, open: Vec::new() }
    }

    /// The middle after the last step.
    pub const fn middle(&self) -> u64 {
        self.middle
    }

    /// The number of the next step.
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// Names only these orders in cancels from now on.
    pub fn retain(&mut self, rests: impl Fn(u32) -> bool) {
        self.open.retain(|number| rests(*number));
    }

    /// So many orders that rest.
    pub fn resting(&mut self, count: u32) -> Vec<Step> {
        (0..count).map(|_| self.rest()).collect()
    }

    /// So many steps of the mix.
    pub fn mixed(&mut self, count: u32) -> Vec<Step> {
        (0..count).map(|_| self.step()).collect()
    }

    fn side(&mut self) -> Side {
        if self.rng.random() { Side::Buy } else { Side::Sell }
    }

    fn rest(&mut self) -> Step {
        let away = 1 + self.rng.random_range(0..DEPTH) * self.rng.random_range(0..DEPTH) / DEPTH;
        let (side, lots) = (self.side(), self.rng.random_range(1..=LOTS));
        let limit = if side == Side::Buy { self.middle - away } else { self.middle + away };
        self.open.push(self.next);
        self.next += 1;
        Step::Place(Placement { side, limit, lots, immediate: false })
    }

    fn step(&mut self) -> Step {
        if self.rng.random_range(0..64) == 0 {
            self.middle = self.middle - 1 + self.rng.random_range(0..3u64);
        }
        match self.rng.random_range(0..100) {
            0..45 if self.open.len() > FEWEST_OPEN => {
                let at = self.rng.random_range(0..self.open.len());
                self.next += 1;
                Step::Cancel(self.open.swap_remove(at))
            }
            0..90 => self.rest(),
            _ => {
                let (side, lots) = (self.side(), 2 * self.rng.random_range(1..=LOTS));
                let limit = if side == Side::Buy { self.middle + REACH } else { self.middle - REACH };
                self.next += 1;
                Step::Place(Placement { side, limit, lots, immediate: true })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_what_it_says() {
        let mut flow = Flow::new(1);
        flow.resting(1_000);
        let steps = flow.mixed(20_000);
        let share = |which: fn(&Step) -> bool| steps.iter().filter(|step| which(step)).count() * 100 / 20_000;
        assert!((44..=46).contains(&share(|step| matches!(step, Step::Cancel(_)))));
        assert!((9..=10).contains(&share(|step| matches!(step, Step::Place(own) if own.immediate))));
        assert_eq!(flow.next(), 21_000);
    }

    #[test]
    fn a_cancel_names_an_order_that_rests_and_each_once() {
        let mut flow = Flow::new(2);
        let mut steps = flow.resting(500);
        steps.extend(flow.mixed(10_000));
        let mut named: Vec<u32> = Vec::new();
        for (number, step) in (0..).zip(&steps) {
            if let Step::Cancel(of) = step {
                assert!(*of < number);
                assert!(matches!(steps[*of as usize], Step::Place(own) if !own.immediate));
                named.push(*of);
            }
        }
        let all = named.len();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), all);
    }

    #[test]
    fn a_flow_is_a_function_of_its_seed() {
        assert_eq!(Flow::new(3).mixed(1_000), Flow::new(3).mixed(1_000));
        assert_ne!(Flow::new(3).mixed(1_000), Flow::new(4).mixed(1_000));
    }
}
