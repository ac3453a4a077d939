//! From a recorded order book to orders that explain it.
//!
//! A feed of price levels says how much stood at each price, not who put it there. What happened in one frame to
//! one cell (a side, and a range of prices) is therefore explained by the fewest orders that could have done it:
//! * what was traded against the cell was traded: an immediate order of the other side, of that size, at that price;
//! * what the cell shrank by beyond that was cancelled;
//! * what it grew by, and what was refilled behind a trade, was placed.
//!
//! So in every frame and cell `placed - cancelled - traded` is exactly how the cell changed, and a sum over frames
//! is exact, too. The test over the whole recording holds that against books that are read from the levels alone.
//!
//! # What cannot be known from levels
//! * **Identity.** Two placements at a price in one frame are one; one order moved by its owner is a cancel and a
//!   placement.
//! * **Queue position.** Which of the orders at a price a cancel took away.
//! * **Icebergs.** A refill of a hidden order looks like a placement.
//! * **What lived shorter than a frame**, or moved inside a cell: it nets to nothing.
//! * **What the snapshot left out.** It holds a thousand levels a side; a level beyond them is first seen when it
//!   changes, and then all of it counts as placed.
//! * **The aggressor's limit.** It is taken to be the price of the trade.

use seawall_types::Side;
use std::collections::BTreeMap;

/// Price steps of the recording in a cell.
pub const STEPS_PER_CELL: u64 = 10;

/// One cell: what rests on one side, in one range of prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level {
    /// Side of what rests there.
    pub side: Side,
    /// Its price: for bids the lowest of the cell and for asks the highest, so that nothing rests nearer to the
    /// other side than it did.
    pub price: u32,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Twice the middle between the best bid and the best ask, in price steps of the recording: what owners saw from
    /// now on.
    Middle(u32),
    /// An immediate order of the other side took so much from this level.
    Trade(Level, u32),
    /// So much of this level was cancelled.
    Cancel(Level, u32),
    /// An order of this size was placed.
    Place(Level, u32),
}

/// A book by its recorded price steps, and what changed in it since the last frame.
#[derive(Clone, Debug)]
pub struct Rebuild {
    range: (u64, u64),
    /// Recorded levels, in range or not: the best of each side is the best of all.
    bids: BTreeMap<u64, u64>,
    asks: BTreeMap<u64, u64>,
    /// By cell: change, and what was traded against it.
    frame: BTreeMap<Level, (i64, u64)>,
    middle: u64,
}

impl Rebuild {
    /// An empty book. Cells are told of prices from the first to the second alone, both included, in price steps.
    pub const fn new(range: (u64, u64)) -> Self {
        Self { range, bids: BTreeMap::new(), asks: BTreeMap::new(), frame: BTreeMap::new(), middle: 0 }
    }

    /// The cell of a price.
    pub fn level(side: Side, price: u64) -> Level {
        let cell = match side {
            Side::Buy => price / STEPS_PER_CELL,
            Side::Sell => price.div_ceil(STEPS_PER_CELL),
        };
        Level { side, price: u32::try_from(cell).unwrap_or(u32::MAX) }
    }

    fn in_range(&self, price: u64) -> bool {
        (self.range.0..=self.range.1).contains(&price)
    }

    /// The recording says that so much rests at a price now.
    pub fn set(&mut self, side: Side, price: u64, size: u64) {
        let levels = match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        };
        let before = if size == 0 { levels.remove(&price) } else { levels.insert(price, size) }.unwrap_or(0);
        if self.in_range(price) && before != size {
            self.frame.entry(Self::level(side, price)).or_default().0 += size as i64 - before as i64;
        }
    }

    /// The recording says that so much of what rested on `side` was taken at a price.
    pub fn trade(&mut self, side: Side, price: u64, size: u64) {
        if self.in_range(price) {
            self.frame.entry(Self::level(side, price)).or_default().1 += size;
        }
    }

    /// Twice the middle between best bid and best ask, in price steps; `None` if a side is empty.
    pub fn middle(&self) -> Option<u64> {
        Some(self.bids.last_key_value()?.0 + self.asks.first_key_value()?.0)
    }

    /// Ends a frame: what explains it. Trades come first, because they happened at the middle that was there before,
    /// then the middle if it moved, then cancels and placements.
    pub fn frame(&mut self) -> Vec<What> {
        let narrow = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
        let frame = std::mem::take(&mut self.frame);
        let mut events: Vec<What> = frame
            .iter()
            .filter(|(_, (_, traded))| *traded > 0)
            .map(|(level, (_, traded))| What::Trade(*level, narrow(*traded)))
            .collect();
        if let Some(middle) = self.middle().filter(|middle| *middle != self.middle) {
            self.middle = middle;
            events.push(What::Middle(narrow(middle)));
        }
        let rest = |(level, (change, traded)): (&Level, &(i64, u64))| (*level, change + *traded as i64);
        let quiet = frame.iter().map(rest);
        events.extend(
            quiet
                .clone()
                .filter(|(_, rest)| *rest < 0)
                .map(|(level, rest)| What::Cancel(level, narrow(rest.unsigned_abs()))),
        );
        events.extend(
            quiet
                .filter(|(_, rest)| *rest > 0)
                .map(|(level, rest)| What::Place(level, narrow(rest.unsigned_abs()))),
        );
        events
    }

    /// What rests in range, by cell, as the levels say it, whatever was explained.
    pub fn book(&self) -> BTreeMap<Level, u64> {
        let mut book = BTreeMap::new();
        for (side, levels) in [(Side::Buy, &self.bids), (Side::Sell, &self.asks)] {
            for (price, size) in levels.range(self.range.0..=self.range.1) {
                *book.entry(Self::level(side, *price)).or_default() += size;
            }
        }
        book
    }
}
