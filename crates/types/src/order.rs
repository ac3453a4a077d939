//! Orders: their names, terms and kinds.

use crate::{AccountId, Height, Lots, MarketId, PriceTicks, Side, inbox::is_price, limits::FIRST_TRIGGER};
use core::fmt;

/// An order, by the height at which settlement accepted it and its place among the entries of that height.
/// The height is the auction it arrived in, which is its priority.
///
/// An order that waits for its trigger is in no inbox. Its height is that of the block that placed it, its index is
/// [`FIRST_TRIGGER`] or above, and when it enters its zone it gets another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId {
    /// The auction it arrived in.
    pub height: Height,
    /// Its place in that height's inbox.
    pub index: u32,
}

impl OrderId {
    /// Whether it is the id of an order that waits for its trigger.
    pub const fn is_trigger(self) -> bool {
        self.index >= FIRST_TRIGGER
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.height, self.index)
    }
}

/// An order by the name its owner gave it: unique among the owner's open orders in one market.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cloid(pub u64);

/// What happens to a post-only order that would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnCross {
    /// It is cancelled.
    Cancel,
    /// Its limit moves to the tick before the best order that it would take.
    Slide,
}

/// How an order behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What does not trade rests.
    Limit,
    /// The same, but it never takes from an order that rested before it arrived.
    PostOnly(OnCross),
    /// What does not trade at once ends.
    Ioc,
    /// Settlement's order that closes a position in breach. Immediate, first at the margin, and never
    /// cancelled in favour of its account's other orders.
    Liquidation,
}

impl Kind {
    /// Whether it takes part in one auction only.
    pub const fn is_immediate(self) -> bool {
        matches!(self, Self::Ioc | Self::Liquidation)
    }
}

/// What an order asks for. Of an open order, `lots` are those that are still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The market.
    pub market: MarketId,
    /// Buy or sell.
    pub side: Side,
    /// The highest price it pays, or the lowest it takes.
    pub limit: PriceTicks,
    /// Its size: `1..=MAX_LOTS`.
    pub lots: Lots,
    /// How it behaves.
    pub kind: Kind,
    /// It closes lots that settlement reserved for it, and so can be of any size.
    pub reduce_only: bool,
    /// The last height at which it takes part; `None` is forever.
    pub good_til: Option<Height>,
    /// Its owner's name for it.
    pub cloid: Option<Cloid>,
}

impl Terms {
    /// Whether it only ever closes.
    pub const fn closes(&self) -> bool {
        self.reduce_only || matches!(self.kind, Kind::Liquidation)
    }

    /// Whether it accepts this price.
    pub fn accepts(&self, price: PriceTicks) -> bool {
        match self.side {
            Side::Buy => price <= self.limit,
            Side::Sell => price >= self.limit,
        }
    }
}

/// Which way the mark has to go to cross a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Crossing {
    /// It is at the price or above.
    Above,
    /// It is at the price or below.
    Below,
}

/// What an order waits for before it enters its zone: a stop-loss and a take-profit are reduce-only orders that
/// wait for prices on either side of the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The price. Never zero.
    pub price: PriceTicks,
    /// From where it is crossed.
    pub crossing: Crossing,
}

impl Trigger {
    /// Whether a mark is at the price or beyond.
    pub fn is_crossed(&self, mark: PriceTicks) -> bool {
        match self.crossing {
            Crossing::Above => mark >= self.price,
            Crossing::Below => mark <= self.price,
        }
    }

    /// Whether its price is in its range.
    pub const fn is_valid(&self) -> bool {
        is_price(self.price)
    }
}

/// An order of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its name.
    pub id: OrderId,
    /// Its owner.
    pub account: AccountId,
    /// What it asks for.
    pub terms: Terms,
}

impl Order {
    /// Whether the two are on opposite sides and some price suits both.
    pub fn crosses(&self, other: &Self) -> bool {
        self.terms.side != other.terms.side && self.terms.accepts(other.terms.limit)
    }
}
