//! What a zone takes in: everything settlement accepted for it at one height.

use crate::{
    AccountId, Cloid, Height, Lots, MarketId, OrderId, PriceTicks, Terms,
    limits::{MAX_ENTRIES_PER_INBOX, MAX_LOTS, MAX_PRICE_TICKS},
};
use std::collections::BTreeMap;
use thiserror::Error;

/// Prices from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// The lowest.
    pub low: PriceTicks,
    /// The highest.
    pub high: PriceTicks,
}

impl Band {
    /// Whether it holds this price.
    pub fn contains(&self, price: PriceTicks) -> bool {
        self.low <= price && price <= self.high
    }
}

/// What an auction is held at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The fresh mark: among prices that are equal otherwise, the nearest to it wins.
    pub mark: PriceTicks,
    /// Where the auction's price must lie.
    pub band: Band,
}

/// How an owner names an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// By its id.
    Id(OrderId),
    /// By the name its owner gave it.
    Cloid(Cloid),
}

/// What is asked of the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new order. Its id is the inbox's height and the entry's index. Liquidation closes are placed so, too.
    Place(Terms),
    /// End one order.
    Cancel {
        /// Its market.
        market: MarketId,
        /// Which one.
        order: Name,
    },
    /// End all orders of the account.
    CancelAll {
        /// In this market only.
        market: Option<MarketId>,
        /// Leave reduce-only orders where they are.
        keep_reduce_only: bool,
    },
    /// Change limit and open lots of one order. The id of what replaces it is that of this entry.
    Modify {
        /// Its market.
        market: MarketId,
        /// Which one.
        order: Name,
        /// Its new limit.
        limit: PriceTicks,
        /// How many lots it shall have open: `1..=MAX_LOTS`.
        lots: Lots,
    },
    /// Settlement takes back lots of a reduce-only order, because the position it closes has shrunk. It says
    /// by how many, not down to how many: fills that are not settled yet stay counted.
    Reduce {
        /// Its market.
        market: MarketId,
        /// Which one.
        order: OrderId,
        /// By how many lots: `1..=MAX_LOTS`. By all or more ends it.
        by: Lots,
    },
}

/// A request of an account. The zone trusts the caller that the account asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose orders it touches.
    pub account: AccountId,
    /// What it asks for.
    pub request: Request,
}

/// Everything that happens to a zone at one height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    /// The height, above that of the last inbox.
    pub height: Height,
    /// Bytes that nobody could choose: they decide by lot.
    pub salt: [u8; 32],
    /// Markets that hold an auction. The others have no fresh mark.
    pub references: BTreeMap<MarketId, Reference>,
    /// Requests by index. An account's own requests take effect in this order; between accounts it decides
    /// nothing.
    pub entries: BTreeMap<u32, Entry>,
}

/// Why an inbox is refused as a whole: settlement made it wrong. The zone is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InboxError {
    /// This height, or a later one, was applied before.
    #[error("height {height} is not above {applied}, which was applied before")]
    Height {
        /// That of the inbox.
        height: Height,
        /// That of the zone.
        applied: Height,
    },
    /// More entries than [`MAX_ENTRIES_PER_INBOX`].
    #[error("{0} entries are more than an inbox can hold")]
    TooManyEntries(usize),
    /// Not a market of this zone.
    #[error("market {0} is not in this zone")]
    UnknownMarket(MarketId),
    /// The band is empty or not made of prices, or the mark is no price.
    #[error("the mark or the band of market {0} is no price")]
    BadReference(MarketId),
    /// A size or limit is out of its range.
    #[error("entry {0} has a size or a limit out of its range")]
    OutOfRange(u32),
}

pub(crate) const fn is_price(price: PriceTicks) -> bool {
    0 < price.0 && price.0 <= MAX_PRICE_TICKS
}

const fn is_size(lots: Lots) -> bool {
    0 < lots.0 && lots.0 <= MAX_LOTS
}

impl Reference {
    /// Whether mark and band are prices, and some price is in the band.
    pub fn is_valid(&self) -> bool {
        is_price(self.mark)
            && is_price(self.band.low)
            && is_price(self.band.high)
            && self.band.low <= self.band.high
    }
}

impl Terms {
    /// Whether size and limit are in their ranges.
    pub const fn is_valid(&self) -> bool {
        is_price(self.limit) && is_size(self.lots)
    }
}

impl Inbox {
    /// Whether counts, sizes, limits and bands are in their ranges. Which markets there are is the zone's to
    /// say.
    pub fn check(&self) -> Result<(), InboxError> {
        self.check_and(|_, _| ())
    }

    /// The same, and shows each entry on the way, so that who asks more of them need not go through them again.
    pub fn check_and<'a>(&'a self, mut see: impl FnMut(u32, &'a Entry)) -> Result<(), InboxError> {
        if self.entries.len() > MAX_ENTRIES_PER_INBOX {
            return Err(InboxError::TooManyEntries(self.entries.len()));
        }
        if let Some((market, _)) = self.references.iter().find(|(_, reference)| !reference.is_valid()) {
            return Err(InboxError::BadReference(*market));
        }
        for (index, entry) in &self.entries {
            see(*index, entry);
            let fits = match entry.request {
                Request::Place(ref terms) => terms.is_valid(),
                Request::Modify { limit, lots, .. } => is_price(limit) && is_size(lots),
                Request::Reduce { by, .. } => is_size(by),
                Request::Cancel { .. } | Request::CancelAll { .. } => true,
            };
            if !fits {
                return Err(InboxError::OutOfRange(*index));
            }
        }
        Ok(())
    }
}

impl Request {
    /// The market it names, if it names one.
    pub const fn market(&self) -> Option<MarketId> {
        match *self {
            Self::Place(terms) => Some(terms.market),
            Self::Cancel { market, .. } | Self::Modify { market, .. } | Self::Reduce { market, .. } => {
                Some(market)
            }
            Self::CancelAll { market, .. } => market,
        }
    }
}
