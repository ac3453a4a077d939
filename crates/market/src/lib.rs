//! The first kind of zone: open orders, and one uniform-price auction per block and market.
//!
//! A [`Zone`] holds the open orders of its markets. [`Zone::apply`] takes an [`Inbox`], which is what
//! settlement accepted at one height, and returns an [`Outcome`], which is what settlement has to do
//! about it. Everyone who trades in an auction trades at one price. The zone is a function of its orders
//! and its inbox: no clock, no I/O, no float, no hash order, no randomness of its own.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`order`] | names, terms and kinds of orders |
//! | [`inbox`] | what comes in, and when an inbox is refused as a whole |
//! | [`outcome`] | what comes out, how it is split, and what settlement checks in an outcome it did not compute |
//! | [`zone`] | the open orders, and the round of one height |
//! | [`limits`] | every bound |
//! | | (the words `order`, `inbox`, `outcome` and their `codec` are those of `seawall-types`) |
//! | `codec` (feature) | the canonical encoding of orders, inboxes and outcomes |
//! | `auction`, `book`, `index` | price and allocation; the open orders in memory; a map for searching (private) |
//!
//! # The round of a height
//!
//! 1. **Expiry.** An order takes part up to and including its good-til height.
//! 2. **Entries**, by index. Each touches orders of its own account only, so the order of a block decides
//!    nothing between accounts. A cancel finds what rests and what the same inbox placed before it.
//!    - *Place*: refused if expired, below the market's minimum, beyond the account's cap, or if the
//!      account has an open order of that client id in that market. Closes (reduce-only, liquidation) have
//!      no minimum; IOCs count apart from what rests; liquidation closes have no cap.
//!    - *Modify*: fewer lots (or as many) at the same limit keep id and priority. Everything else ends
//!      the order and places another one, whose id is that of the modification. A modification that asks
//!      for less than the minimum changes nothing.
//!    - *Cancel*, *cancel all*, *reduce*: what they do not find, they ignore. Nobody but settlement's own
//!      round ends a liquidation close.
//! 3. **Post-only**, judged against the carried-over book: orders that rested before this inbox, are still
//!    there after its entries, and lie inside the band. A post-only order that would take from them is
//!    cancelled, or slides to the tick before the best of them. New orders do not count.
//! 4. **Room.** If the market's book would hold more than its cap, new orders that would rest are let in by
//!    lot, reduce-only orders first.
//! 5. **Immediate orders** (IOC, liquidation closes) have their limit tightened to the band, so an IOC at
//!    the highest or lowest price is a market order. One that cannot trade inside the band ends.
//! 6. **Self-crossing** quantity is cancelled.
//! 7. **Auction**, then immediate orders end.
//!
//! A market without a reference (its mark is not fresh) has no auction: 1 to 4 happen, immediate orders end,
//! nothing trades, and post-only is judged against all that rests.
//!
//! # Price
//!
//! Orders whose limit lies outside the band sit out: they rest, and neither trade nor count. For a tick `p`,
//! bids at or above it are demand and asks at or below it supply; volume is the smaller, imbalance the
//! difference. Among all ticks the price is the one with
//!
//! 1. most volume,
//! 2. then least imbalance,
//! 3. then on which every order strictly better than it fills whole (there is always one),
//! 4. then nearest the mark,
//! 5. then lower.
//!
//! The third rule matters where one side is left over between two levels: a small market order against a
//! large ask trades at that ask, wherever the mark is.
//!
//! # Allocation
//!
//! Orders strictly better than the price fill whole. At the price, on the side with more: liquidation closes
//! first, then orders of earlier auctions, and inside one auction pro rata by largest remainder. Equal
//! remainders go by lot. Neither the place in a block nor the time of submission enters.
//!
//! **Lots** are drawn by SipHash-2-4 over the order's id, keyed by the inbox's salt. The salt is the hash of the committee's
//! signature under the inbox's block, which neither submitters nor that block's leader know when they choose.
//!
//! # Self-crossing
//!
//! Of each account, among its orders that take part:
//!
//! 1. every order that crosses a liquidation close of the account is cancelled whole;
//! 2. then its other orders, newest first: each is set against the account's older orders of the other side
//!    that it crosses, newest first, and both lose the smaller of the two sizes, until nothing crosses.
//!
//! Both sides lose the same quantity, so what the account wants on balance is unchanged, and the orders with
//! the best priority last longest. *Newest* is the greatest [`OrderId`].
//!
//! # Invariants
//!
//! 1. In each market, bought = sold, at one price inside the band and inside every filled order's limit.
//! 2. placed = filled + cut + ended + open, in lots, for every order at every height.
//! 3. Every id that enters an inbox as a placement or modification, and is not open afterwards, ended exactly
//!    once, for one reason.
//! 4. After an auction no bid inside the band reaches an ask inside the band.
//! 5. A zone is its open orders and its height: [`Zone::from_orders`] gives an equal zone.
//!
//! # Cost
//!
//! An auction walks price levels from the best on both sides and stops where they stop crossing. It costs in
//! proportion to the inbox and to what trades, times the logarithm of the book, plus the last group at the
//! margin, which shares pro rata. Orders that do not trade are not looked at. After a band moved over a
//! crossed book, it costs once in proportion to what crosses.
//!
//! # Deliberately absent
//!
//! Margin: settlement reserves before it fills the inbox. Fees and positions: settlement books them. Undo: a
//! zone runs on final blocks.

#![forbid(unsafe_code)]

mod auction;
mod book;
mod index;
pub mod limits;
pub mod zone;

#[cfg(feature = "codec")]
pub use seawall_types::codec::orders as codec;
pub use seawall_types::{inbox, order, outcome};

pub use inbox::{Band, Entry, Inbox, InboxError, Name, Reference, Request};
pub use order::{Cloid, Kind, OnCross, Order, OrderId, Terms};
pub use outcome::{Cut, CutReason, End, EndReason, Fault, Fill, MarketOutcome, Outcome, Slide};
pub use zone::{Level, Levels, MarketParams, Params, ParamsError, RestoreError, Zone};
