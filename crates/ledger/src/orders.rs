//! Settlement's side of matching beside it: open orders, what is reserved for them, the inboxes of zones, and what
//! their outcomes do.
//!
//! # The life of an order
//!
//! An action places it: it is checked, its worst case is reserved, and it enters the inbox of its market's zone at
//! this height. The zone answers with an outcome some blocks later. Until then the order can trade in any
//! auction whose outcome is not settled, so settlement assumes all of them: nothing that may still fill is
//! ever forgotten, and nothing is shown as filled before.
//!
//! A cancel enters the inbox of its height, too. Auctions before that height can still fill the order, so it stays
//! open and reserved, *leaving*, until the outcome of that height is settled or void. A modification stands
//! beside the order that it would replace until the outcome says which of them there is: an order that is filled
//! in part on the way and then replaced trades more than either, so both are reserved.
//!
//! # Reservation
//!
//! Of each market, in which the account has orders that add risk, what the initial margin can grow by when any of
//! them fill ([`kernel::worst_growth`]), and what all of them can lose against the mark at the worst price, with
//! the fees there ([`kernel::friction`]). The worst price is that of the band around the last known mark, or
//! that of the band of any auction that is not settled, if it is worse. Rounded up once a market. It is a
//! function of the records, at every moment, and the audit recomputes it.
//!
//! It is recomputed when an order, a position or the inboxes of the market change, and when its mark has moved: for
//! accounts with orders there, not for others. A fill may cost one atom more than was reserved when it is
//! settled in several parts, each of which rounds its fee up.
//!
//! Orders that only close reserve closing lots instead of margin, because closing lowers the requirement by more
//! than it costs inside the band. Together with the account's other orders of their side they are never more than
//! the position, so that none can flip it whatever fills first. What would break this is refused, a quoted fill
//! included. Liquidation is not refused anything: when it takes the position away, the orders that closed
//! it are cancelled, and what still fills of them on the way is booked to the market's backstop, which took the
//! position over. So nothing closes twice.
//!
//! # Orders that wait
//!
//! An order with a trigger is an open order of the account that its zone does not know: see the `triggers` module. The
//! account's cancels end it at once.
//!
//! # Where available margin is below zero
//!
//! All orders of the account that add risk are cancelled, in cross and isolated markets, before any liquidation;
//! in an isolated market also when the isolated position alone does not cover its initial margin. Only
//! accounts with such orders are looked at.
//!
//! # Liquidation
//!
//! Closes of the ladder are orders of the account that nobody can cancel, placed without asking. They end with the
//! outcome of their height. What has not filled then goes down the ladder in the same block; so does everything
//! when the zone is late. A close that fills after that closes what the backstop took over.
//!
//! # Outcomes
//!
//! Inboxes of a zone end in order, each once: by the last part of its outcome, or void, when it, or an earlier one, is
//! `void_after` blocks old. A part that does not hold is refused whole and changes nothing. A fill is settled
//! whatever the equity: the sweep of the same block sees the result. A void inbox's orders and modifications end,
//! its cancels hold, and everything else is as if the auction had not been.
//!
//! | queue | bound | beyond it |
//! | --- | --- | --- |
//! | orders of an account in a market, those that wait included | `max_per_account` | [`Refusal::TooManyOrders`] |
//! | entries of a block that accounts ask for | half of `MAX_ENTRIES_PER_INBOX` | [`Refusal::InboxFull`] |
//! | orders of a block that add risk, in a zone that is more than `shed_after` blocks behind | half of those above, halved again for every further block | [`Refusal::ZoneLate`] |
//! | entries of a block in all | `MAX_ENTRIES_PER_INBOX` | settlement's own cancels wait for the next block |
//! | inboxes of a zone without an outcome | `void_after` | all of them are void |
//! | records that a zone settles in a block | `max_records` | [`SettleFault::TooManyRecords`]; the part waits |

use std::collections::{BTreeMap, BTreeSet};

use seawall_types::{
    AccountId, Atoms, Band, End, Entry, Fault, Fill, Height, Inbox, Kind, Lots, MarginMode, MarketId, Name,
    Order, OrderId, Outcome, PriceTicks, Reference, Refusal, Request, Side, Terms, limits,
};
use thiserror::Error;

use crate::{
    health::{self, Valuation},
    kernel::{self, Int, million},
    ladder::SweepReport,
    ledger::{Ledger, SweepMode},
    open_orders::OpenOrders,
    state::{
        Account, Compartment, Market, OpenOrder, Record, RecordKey, Waiting, ZoneEntry, ZoneInbox, ZoneState,
    },
    triggers::{TriggerEnd, Triggers},
};

/// Entries of a block that are left to settlement.
const MAX_ASKED_ENTRIES: usize = limits::MAX_ENTRIES_PER_INBOX / 2;

/// Why an outcome, or its end, is refused. The ledger is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettleFault {
    /// The zone has no inbox that waits.
    #[error("zone {0} waits for nothing")]
    Nothing(u8),
    /// Another height is the oldest that waits.
    #[error("height {0} is the oldest that waits for its outcome")]
    NotNext(Height),
    /// Another part is next.
    #[error("part {0} is next")]
    NotNextPart(u32),
    /// More records than the zone may settle in this block.
    #[error("{0} records are more than are left to the zone in this block")]
    TooManyRecords(usize),
    /// Too late: the inbox is void.
    #[error("the inbox is too old; it is void")]
    Overdue,
    /// A market of another zone.
    #[error("market {0} is not in the zone")]
    ForeignMarket(MarketId),
    /// An immediate order of the inbox has not ended.
    #[error("order {0} is immediate and goes on")]
    GoesOn(OrderId),
    /// The outcome contradicts itself, the inbox or the orders.
    #[error(transparent)]
    Outcome(#[from] Fault),
}

/// A fill that was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledFill {
    /// Which order.
    pub order: OrderId,
    /// Its owner.
    pub account: AccountId,
    /// Market.
    pub market: MarketId,
    /// Its side.
    pub side: Side,
    /// How much.
    pub lots: Lots,
    /// At which price.
    pub price: PriceTicks,
    /// Fee, to the insurance fund. Of a liquidation close, the penalty, to the market's ring-fenced fund.
    pub fee: Atoms,
    /// Whether a liquidation closed with it.
    pub liquidation: bool,
    /// The mark at which its auction was held.
    pub mark: PriceTicks,
    /// Of the lots, those that the market's backstop had taken over with the position. They pay no fee.
    pub carried: Lots,
}

/// What settling did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleReport {
    /// Fills, by market, then order.
    pub fills: Vec<SettledFill>,
    /// Orders that are gone.
    pub ends: Vec<End>,
    /// Deficits that fills left where no position is left, and who paid them.
    pub deficits: SweepReport,
}

/// What became of each order that one action names, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdicts {
    count: u8,
    refused: [Option<Refusal>; limits::MAX_ORDERS_PER_ACTION],
}

impl Verdicts {
    /// Judges one by one. `judge` sees what came of those before.
    fn of<T>(orders: &[T], mut judge: impl FnMut(&T) -> Result<(), Refusal>) -> Self {
        let mut verdicts = Self { count: orders.len() as u8, refused: [None; limits::MAX_ORDERS_PER_ACTION] };
        for (order, refused) in orders.iter().zip(&mut verdicts.refused) {
            *refused = judge(order).err();
        }
        verdicts
    }

    /// For each order why it is refused, if it is.
    pub fn iter(&self) -> impl Iterator<Item = Result<(), Refusal>> + '_ {
        self.refused.iter().take(usize::from(self.count)).map(|refused| refused.map_or(Ok(()), Err))
    }
}

/// What became of the orders that one action places, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    first: OrderId,
    verdicts: Verdicts,
}

impl Statuses {
    /// For each order its id, or why it is refused.
    pub fn iter(&self) -> impl Iterator<Item = Result<OrderId, Refusal>> + '_ {
        let mut next = self.first;
        self.verdicts.iter().map(move |verdict| {
            verdict.map(|()| {
                let id = next;
                next.index += 1;
                id
            })
        })
    }
}

/// Open orders of an account in a market, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// Lots that add risk, by side.
    pub buys: i64,
    pub sells: i64,
    /// Lots that close, by side.
    pub closing_buys: i64,
    pub closing_sells: i64,
    /// What the first may cost against the mark, with fees, in atoms.
    pub friction: i128,
    /// How many orders, and whether some of them add risk.
    pub orders: usize,
    pub adds: bool,
}

/// Open orders of an account in one market.
struct Exposed {
    market: MarketId,
    /// The prices at which they can fill.
    envelope: Option<Band>,
    exposure: Exposure,
    /// Where the mark may go without changing that.
    limits: Limits,
    /// Whether all this was known without looking at the orders.
    known: bool,
    /// What is reserved for that, if it was computed since it changed.
    need: Option<i128>,
}

/// An account while its orders are checked one after the other. What does not change meanwhile is computed once.
struct Beside {
    /// Its open orders, those included that were accepted before.
    exposures: Vec<Exposed>,
    /// Its cross compartment.
    cross: Option<health::Sums>,
}

/// Extreme limits of orders that add risk.
#[derive(Clone, Copy, Debug)]
struct Limits {
    highest_buy: PriceTicks,
    lowest_sell: PriceTicks,
    highest_sell: PriceTicks,
}

impl Default for Limits {
    fn default() -> Self {
        Self { highest_buy: PriceTicks(0), lowest_sell: PriceTicks(u64::MAX), highest_sell: PriceTicks(0) }
    }
}

impl Limits {
    fn add(&mut self, side: Side, limit: PriceTicks) {
        match side {
            Side::Buy => self.highest_buy = self.highest_buy.max(limit),
            Side::Sell => {
                self.lowest_sell = self.lowest_sell.min(limit);
                self.highest_sell = self.highest_sell.max(limit);
            }
        }
    }

    /// Whether every order fills at its own limit at worst, and costs nothing against the mark there.
    fn are_calm(&self, mark: PriceTicks, envelope: Band) -> bool {
        self.highest_buy <= mark
            && mark <= self.lowest_sell
            && self.highest_buy <= envelope.high
            && envelope.low <= self.lowest_sell
            && self.highest_sell <= envelope.high
    }
}

/// What orders come to for as long as the mark is between those that buy and those that sell: then all that they can cost
/// is their fees, at their own limits. So it holds at every such mark, and needs no second look at the orders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calm {
    exposure: Exposure,
    limits: Limits,
}

impl Exposed {
    /// What there is for a market among what is sorted by market.
    fn of(
        found: &mut Vec<Self>,
        market: MarketId,
        envelope: impl FnOnce(MarketId) -> Option<Band>,
    ) -> &mut Self {
        // They come by ascending market, most of the time.
        let at = match found.last() {
            Some(last) if market <= last.market => found.partition_point(|own| own.market < market),
            _ => found.len(),
        };
        if found.get(at).is_none_or(|own| own.market != market) {
            let (exposure, limits) = (Exposure::default(), Limits::default());
            let envelope = envelope(market);
            found.insert(at, Self { market, envelope, exposure, limits, known: false, need: None });
        }
        &mut found[at]
    }
}

impl Exposure {
    /// Lots of a side, of all its orders.
    pub fn on(&self, side: Side) -> i64 {
        match side {
            Side::Buy => self.buys + self.closing_buys,
            Side::Sell => self.sells + self.closing_sells,
        }
    }
}

/// Orders, entries and inboxes in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub orders: OpenOrders,
    /// By height, then index.
    pub entries: BTreeMap<Height, BTreeMap<u32, ZoneEntry>>,
    pub inboxes: BTreeMap<(u8, Height), ZoneInbox>,
    pub zones: BTreeMap<u8, ZoneState>,
    // Derived from here on.
    /// By market: lots of orders that add risk, bought and sold.
    potential: Vec<(i64, i64)>,
    /// By zone: whose orders settled parts touched, and which. Each at least once, and perhaps others: whoever reads
    /// it looks at the order.
    touched: BTreeMap<u8, Vec<(u32, OrderId)>>,
    /// By market: orders that do not wait for a trigger, which are those that a zone knows or will.
    zoned: Vec<u32>,
    /// Orders that wait for a trigger.
    pub triggers: Triggers,
}

/// What is kept for a market.
fn at<T: Clone + Default>(markets: &mut Vec<T>, market: MarketId) -> &mut T {
    let at = usize::from(market.0);
    if markets.len() <= at {
        markets.resize(at + 1, T::default());
    }
    &mut markets[at]
}

impl Book {
    /// Adds an order to what is derived, or takes it out. The orders themselves are up to date.
    fn tally(&mut self, id: OrderId, order: &OpenOrder, zone: u8, sign: i64) {
        let (account, market) = (order.account.0 as u32, order.terms.market);
        match order.waiting {
            Some(waiting) => self.triggers.tally(id, order, waiting, sign > 0),
            None => {
                let zoned = at(&mut self.zoned, market);
                *zoned = (i64::from(*zoned) + sign) as u32;
            }
        }
        if !order.terms.closes() {
            let lots = sign * order.live().0;
            if lots != 0 {
                let potential = at(&mut self.potential, market);
                match order.terms.side {
                    Side::Buy => potential.0 += lots,
                    Side::Sell => potential.1 += lots,
                }
            }
        }
        if order.is_touched() && sign > 0 {
            self.touched.entry(zone).or_default().push((account, id));
        }
    }

    /// Follows an order that changed and is still of the same account, market, side and purpose. The same as to
    /// take the old one out and to add the new one, without searching for what stays as it is.
    fn retally(&mut self, id: OrderId, old: &OpenOrder, new: &OpenOrder, zone: u8) {
        if old.waiting != new.waiting {
            self.tally(id, old, zone, -1);
            self.tally(id, new, zone, 1);
            return;
        }
        let (account, terms) = (new.account.0 as u32, &new.terms);
        if !terms.closes() {
            let more = new.live().0 - old.live().0;
            if more != 0 {
                let potential = at(&mut self.potential, terms.market);
                match terms.side {
                    Side::Buy => potential.0 += more,
                    Side::Sell => potential.1 += more,
                }
            }
        }
        if new.is_touched() && !old.is_touched() {
            self.touched.entry(zone).or_default().push((account, id));
        }
    }

    /// Whether records that come from outside fit together; else names one that does not. Markets and accounts
    /// of orders exist.
    pub fn check(&self, height: Height, markets: &[Market]) -> Result<(), RecordKey> {
        let params = |market: MarketId| markets.get(usize::from(market.0)).map(|market| market.params.orders);
        let zones: BTreeSet<u8> = markets.iter().map(|market| market.params.orders.zone).collect();
        let ended = |zone: u8| self.zones.get(&zone).map_or(Height(0), |zone| zone.ended);
        for (zone, state) in &self.zones {
            if !zones.contains(zone) || state.ended > height || state.voided > state.ended {
                return Err(RecordKey::Zone(*zone));
            }
        }
        for ((zone, at), inbox) in &self.inboxes {
            let own = inbox.references.iter().all(|(market, reference)| {
                params(*market).is_some_and(|own| own.zone == *zone) && reference.is_valid()
            });
            if !zones.contains(zone) || *at > height || *at <= ended(*zone) || !own {
                return Err(RecordKey::Inbox(*zone, *at));
            }
        }
        for (id, own) in self.entries() {
            let market = own.entry.request.market();
            let fits =
                market.is_none_or(|market| params(market).is_some_and(|params| params.zone == own.zone));
            let placed = (id.index as usize) < limits::MAX_ENTRIES_PER_INBOX;
            if !self.inboxes.contains_key(&(own.zone, id.height)) || !fits || !placed {
                return Err(RecordKey::Entry(id));
            }
        }
        for (id, order) in self.orders.iter() {
            let zone = params(order.terms.market).map_or(0, |params| params.zone);
            let waits = |at: Height| self.inboxes.contains_key(&(zone, at));
            let sound = match order.waiting {
                Some(waiting) => crate::triggers::is_sound(*id, order, waiting, height),
                None => {
                    !id.is_trigger()
                        && (0..=order.terms.lots.0).contains(&order.spent.0)
                        && (id.height <= ended(zone) || waits(id.height))
                        && order.leaving.is_none_or(waits)
                }
            };
            if !sound || !order.terms.is_valid() {
                return Err(RecordKey::Order(*id));
            }
        }
        Ok(())
    }

    pub fn has_orders(&self, account: u32) -> bool {
        self.orders.has_any(account)
    }

    /// Open orders of an account, oldest first.
    pub fn of(&self, account: u32) -> impl Iterator<Item = (OrderId, &OpenOrder)> {
        self.orders.of(account)
    }

    /// An entry.
    pub fn entry(&self, id: OrderId) -> Option<&ZoneEntry> {
        self.entries.get(&id.height)?.get(&id.index)
    }

    /// The entries of a height, by ascending id.
    pub fn entries_at(&self, height: Height) -> impl Iterator<Item = (OrderId, &ZoneEntry)> {
        let own = self.entries.get(&height).into_iter().flatten();
        own.map(move |(index, own)| (OrderId { height, index: *index }, own))
    }

    /// Every entry, by ascending id.
    fn entries(&self) -> impl Iterator<Item = (OrderId, &ZoneEntry)> {
        self.entries.keys().flat_map(|height| self.entries_at(*height))
    }

    /// By how much the open interest of a market can grow at most.
    pub fn potential(&self, market: MarketId) -> i64 {
        self.potential.get(usize::from(market.0)).map_or(0, |(buys, sells)| *buys.min(sells))
    }

    pub fn record(&self, key: RecordKey) -> Option<Record> {
        match key {
            RecordKey::Zone(zone) => self.zones.get(&zone).copied().map(Record::Zone),
            RecordKey::Inbox(zone, height) => self.inboxes.get(&(zone, height)).cloned().map(Record::Inbox),
            RecordKey::Entry(id) => self.entry(id).copied().map(Record::Entry),
            RecordKey::Order(id) => self.orders.get(&id).copied().map(Record::Order),
            _ => None,
        }
    }

    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Record)> + '_ {
        let zones = self.zones.iter().map(|(zone, state)| (RecordKey::Zone(*zone), Record::Zone(*state)));
        let inboxes = self
            .inboxes
            .iter()
            .map(|((zone, height), inbox)| (RecordKey::Inbox(*zone, *height), Record::Inbox(inbox.clone())));
        let entries = self.entries().map(|(id, entry)| (RecordKey::Entry(id), Record::Entry(*entry)));
        let orders = self.orders.iter().map(|(id, order)| (RecordKey::Order(*id), Record::Order(*order)));
        zones.chain(inboxes).chain(entries).chain(orders)
    }

    /// Puts a record, or takes it away. `zone_of` names the zone of a market. `false` if key and record do not
    /// match.
    pub fn put(&mut self, key: RecordKey, record: Option<&Record>, zone_of: impl Fn(MarketId) -> u8) -> bool {
        fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        match (key, record) {
            (RecordKey::Zone(zone), None) => set(&mut self.zones, zone, None),
            (RecordKey::Zone(zone), Some(Record::Zone(state))) => set(&mut self.zones, zone, Some(*state)),
            (RecordKey::Inbox(zone, height), None) => set(&mut self.inboxes, (zone, height), None),
            (RecordKey::Inbox(zone, height), Some(Record::Inbox(inbox))) => {
                set(&mut self.inboxes, (zone, height), Some(inbox.clone()));
            }
            (RecordKey::Entry(id), None) => {
                if let Some(own) = self.entries.get_mut(&id.height) {
                    own.remove(&id.index);
                    if own.is_empty() {
                        self.entries.remove(&id.height);
                    }
                }
            }
            (RecordKey::Entry(id), Some(Record::Entry(entry))) => {
                self.entries.entry(id.height).or_default().insert(id.index, *entry);
            }
            (RecordKey::Order(id), None) => self.put_order(id, None, 0, zone_of),
            (RecordKey::Order(id), Some(Record::Order(order))) => {
                self.put_order(id, Some(*order), 0, zone_of);
            }
            _ => return false,
        }
        true
    }

    /// Puts an order, or takes it away. `stamp` says in which block.
    pub fn put_order(
        &mut self,
        id: OrderId,
        new: Option<OpenOrder>,
        stamp: u32,
        zone_of: impl Fn(MarketId) -> u8,
    ) {
        let old = match new {
            Some(order) => self.orders.insert(id, order, stamp),
            None => self.orders.remove(id),
        };
        let what = |of: &OpenOrder| (of.account, of.terms.market, of.terms.side, of.terms.closes());
        match (old, new) {
            (Some(old), Some(new)) if what(&old) == what(&new) => {
                self.retally(id, &old, &new, zone_of(new.terms.market));
            }
            (old, new) => {
                if let Some(old) = old {
                    self.tally(id, &old, zone_of(old.terms.market), -1);
                }
                if let Some(new) = new {
                    self.tally(id, &new, zone_of(new.terms.market), 1);
                }
            }
        }
    }
}

impl Ledger {
    // -----------------------------------------------------------------------------------------
    // Readers

    /// The zone of a market. Zero for a market that does not exist.
    pub fn zone_of(&self, market: MarketId) -> u8 {
        self.market(market).map_or(0, |market| market.params.orders.zone)
    }

    /// Zones with their markets, ascending.
    pub fn zones(&self) -> BTreeMap<u8, Vec<MarketId>> {
        let mut zones: BTreeMap<u8, Vec<MarketId>> = BTreeMap::new();
        for (id, market) in self.markets() {
            zones.entry(market.params.orders.zone).or_default().push(id);
        }
        zones
    }

    /// An open order.
    pub fn order(&self, id: OrderId) -> Option<&OpenOrder> {
        self.book.orders.get(&id)
    }

    /// Every open order, oldest first.
    pub fn open_orders(&self) -> impl Iterator<Item = (OrderId, &OpenOrder)> {
        self.book.orders.iter().map(|(id, order)| (*id, order))
    }

    /// Open orders of an account, oldest first.
    pub fn orders_of(&self, account: AccountId) -> impl Iterator<Item = (OrderId, &OpenOrder)> {
        self.book.of(account.0 as u32)
    }

    /// Heights whose outcomes a zone owes, oldest first.
    pub fn unsettled(&self, zone: u8) -> impl Iterator<Item = Height> + '_ {
        self.book.inboxes.range((zone, Height(0))..=(zone, Height(u64::MAX))).map(|((_, height), _)| *height)
    }

    /// The last height of a zone whose inbox was voided; zero if none was.
    pub fn last_void(&self, zone: u8) -> Height {
        self.book.zones.get(&zone).map_or(Height(0), |zone| zone.voided)
    }

    /// What a zone owes next: the height, and which part of its outcome.
    pub fn next_part(&self, zone: u8) -> Option<(Height, u32)> {
        let height = self.unsettled(zone).next()?;
        self.book.inboxes.get(&(zone, height)).map(|inbox| (height, inbox.parts))
    }

    /// What a zone gets for a height: there is one from the end of that block until its outcome is settled or void,
    /// unless the zone had neither orders nor requests. Before the block that brings its salt, the salt is zero, and no
    /// auction may be held: see [`Ledger::is_salted`].
    pub fn inbox(&self, zone: u8, height: Height) -> Option<Inbox> {
        let inbox = self.book.inboxes.get(&(zone, height))?;
        let salt = inbox.salt.unwrap_or_default();
        let entries = self.entries_of(zone, height).map(|(id, own)| (id.index, own.entry)).collect();
        Some(Inbox { height, salt, references: inbox.references.clone(), entries })
    }

    /// Whether the inbox of a zone at a height has the salt of its auctions.
    pub fn is_salted(&self, zone: u8, height: Height) -> bool {
        self.book.inboxes.get(&(zone, height)).is_some_and(|inbox| inbox.salt.is_some())
    }

    /// The orders that rest in a zone after the last height that ended, with that height: what the zone is
    /// rebuilt from, before it takes the inboxes that are not settled.
    pub fn resting(&self, zone: u8) -> (Height, Vec<Order>) {
        let ended = self.book.zones.get(&zone).map_or(Height(0), |zone| zone.ended);
        let rests = |(id, order): (&OrderId, &OpenOrder)| {
            let own =
                self.zone_of(order.terms.market) == zone && id.height <= ended && order.waiting.is_none();
            own.then_some(Order { id: *id, account: order.account, terms: order.terms })
        };
        (ended, self.book.orders.iter().filter_map(rests).collect())
    }

    fn entries_of(&self, zone: u8, height: Height) -> impl Iterator<Item = (OrderId, &ZoneEntry)> {
        self.book.entries_at(height).filter(move |(_, own)| own.zone == zone)
    }

    // -----------------------------------------------------------------------------------------
    // Reservation

    /// Around the mark, the prices at which an auction may be held now; none without a price.
    fn band(&self, market: MarketId) -> Option<Reference> {
        let market = self.market(market)?;
        let (mark, _) = market.mark?.last_known();
        let params = &market.params;
        let (price, band) = (i128::from(mark.0), i128::from(params.band_ppm.0));
        // Inwards, so that no price of the band is further from the mark than the rate.
        let low = (price * (1_000_000 - band)).ceil_div(million()) as u64;
        let high = (price * (1_000_000 + band)).floor_div(million()) as u64;
        let band = Band {
            low: PriceTicks(low.clamp(params.min_price.0, mark.0)),
            high: PriceTicks(high.clamp(mark.0, params.max_price.0)),
        };
        Some(Reference { mark, band })
    }

    /// The prices at which an order of the market can fill, now or in an auction that is not settled.
    fn envelope(&self, market: MarketId) -> Option<Band> {
        let Band { mut low, mut high } = self.band(market)?.band;
        let zone = self.zone_of(market);
        for inbox in self.book.inboxes.range((zone, Height(0))..=(zone, Height(u64::MAX))) {
            if let Some(reference) = inbox.1.references.get(&market) {
                low = low.min(reference.band.low);
                high = high.max(reference.band.high);
            }
        }
        Some(Band { low, high })
    }

    /// What waits for a trigger counts as if it was in its zone, but for closing lots: several triggers may wait for
    /// the same, and take what is there when they are crossed.
    fn add_exposure(
        &self,
        of: &mut Exposure,
        terms: &Terms,
        limit: PriceTicks,
        lots: i64,
        waits: bool,
        envelope: Option<Band>,
    ) {
        if waits && terms.closes() {
            of.orders += 1;
            return;
        }
        let side = match (terms.side, terms.closes()) {
            (Side::Buy, false) => &mut of.buys,
            (Side::Sell, false) => &mut of.sells,
            (Side::Buy, true) => &mut of.closing_buys,
            (Side::Sell, true) => &mut of.closing_sells,
        };
        *side += lots;
        of.orders += 1;
        of.adds |= !terms.closes();
        let at = usize::from(terms.market.0);
        let (Some(envelope), false) = (envelope, terms.closes()) else { return };
        let params = &self.markets[at].params;
        let buys = terms.side == Side::Buy;
        let worst = if buys { limit.min(envelope.high) } else { limit.max(envelope.low) };
        let worst = params.unit(worst.min(envelope.high));
        let rate = i128::from(params.taker_fee_ppm.max(params.maker_fee_ppm).0);
        of.friction +=
            kernel::friction(i128::from(self.sheets[at].unit), worst, buys, i128::from(lots), rate);
    }

    /// Open orders of an account by ascending market.
    fn exposures(&self, account: u32) -> Vec<Exposed> {
        let mut found = Vec::new();
        self.exposed(account, |market| self.envelope(market), &mut found);
        found
    }

    /// The same at these envelopes. There are few: adding orders are in markets of positions that there are or may be,
    /// closing ones in those that there are.
    fn exposed(&self, account: u32, envelope: impl Fn(MarketId) -> Option<Band>, found: &mut Vec<Exposed>) {
        found.clear();
        let mut all = true;
        for own in self.book.orders.markets(account) {
            let to = Exposed::of(found, own.market, &envelope);
            let calm = own.calm.filter(|calm| self.is_calm(own.market, &calm.limits, to.envelope));
            match calm {
                Some(Calm { exposure, limits }) => {
                    (to.exposure, to.limits, to.known) = (exposure, limits, true);
                }
                None => all = false,
            }
        }
        if all {
            return;
        }
        for (_, order) in self.book.of(account) {
            let to = Exposed::of(found, order.terms.market, &envelope);
            if !to.known && !order.ended {
                let limit = order.slid.unwrap_or(order.terms.limit);
                let (lots, waits) = (order.live().0, order.waiting.is_some());
                if !order.terms.closes() {
                    to.limits.add(order.terms.side, limit);
                }
                self.add_exposure(&mut to.exposure, &order.terms, limit, lots, waits, to.envelope);
            }
        }
    }

    fn is_calm(&self, market: MarketId, limits: &Limits, envelope: Option<Band>) -> bool {
        let mark = self.market(market).and_then(|market| market.mark).map(|mark| mark.last_known().0);
        mark.zip(envelope).is_some_and(|(mark, envelope)| limits.are_calm(mark, envelope))
    }

    /// Keeps what was summed and will hold for a while.
    fn keep_calm(&mut self, account: u32, found: &[Exposed]) {
        for own in found {
            if !own.known && self.is_calm(own.market, &own.limits, own.envelope) {
                let calm = Calm { exposure: own.exposure, limits: own.limits };
                self.book.orders.keep(account, own.market, calm);
            }
        }
    }

    pub(crate) fn exposure(&self, account: u32, market: MarketId) -> Exposure {
        if !self.book.has_orders(account) {
            return Exposure::default();
        }
        let own = self.exposures(account).into_iter().find(|own| own.market == market);
        own.map_or(Exposure::default(), |own| own.exposure)
    }

    /// What is reserved for the orders of an account in a market.
    fn need(&self, account: &Account, of: &Exposed) -> i128 {
        let Exposed { market, exposure: own, .. } = of;
        let sheet = &self.sheets[usize::from(market.0)];
        let growth = kernel::worst_growth(
            i128::from(sheet.unit),
            i128::from(account.lots(*market).0),
            i128::from(own.buys),
            i128::from(own.sells),
            &sheet.tiers,
            account.own_rate(*market),
        );
        growth.ceil_div(million()) + own.friction
    }

    fn reserved_for(&self, account: &Account, exposures: &[Exposed]) -> Atoms {
        Atoms(exposures.iter().map(|own| own.need.unwrap_or_else(|| self.need(account, own))).sum())
    }

    /// What an account's open orders need to have reserved, at these positions.
    pub(crate) fn reservation(&self, id: u32, account: &Account) -> Atoms {
        if !self.book.has_orders(id) {
            return Atoms::ZERO;
        }
        self.reserved_for(account, &self.exposures(id))
    }

    /// The same from every single order, for the audit.
    pub(crate) fn reservation_anew(&self, id: u32, account: &Account) -> Atoms {
        let mut anew: Vec<Exposed> = Vec::new();
        for (_, order) in self.book.of(id).filter(|(_, order)| !order.ended) {
            let own = Exposed::of(&mut anew, order.terms.market, |market| self.envelope(market));
            let limit = order.slid.unwrap_or(order.terms.limit);
            let waits = order.waiting.is_some();
            self.add_exposure(&mut own.exposure, &order.terms, limit, order.live().0, waits, own.envelope);
        }
        self.reserved_for(account, &anew)
    }

    /// Computes what is reserved for everybody, when records were read: none of them says it.
    pub(crate) fn reserve_anew(&mut self) {
        for id in 0..self.slots.len() as u32 {
            let reserved = self.reservation_anew(id, &self.slots[id as usize].account);
            self.slots[id as usize].account.reserved = reserved;
        }
    }

    /// Recomputes what is reserved for an account's orders.
    pub(crate) fn reserve(&mut self, id: u32) {
        let exposed = self.exposures(id);
        self.reserve_for(id, &exposed);
    }

    /// The same where it is known what the orders come to.
    fn reserve_for(&mut self, id: u32, exposed: &[Exposed]) {
        self.keep_calm(id, exposed);
        let account = &self.slots[id as usize].account;
        let reserved = self.reserved_for(account, exposed);
        if reserved != account.reserved {
            self.set_reserved(id, reserved);
        }
    }

    /// Recomputes what is reserved for everybody with orders in these markets.
    pub(crate) fn reserve_in(&mut self, markets: impl Iterator<Item = MarketId>) {
        let owners = self.owners_in(markets);
        self.reserve_all(owners);
    }

    fn owners_in(&self, markets: impl Iterator<Item = MarketId>) -> Vec<u32> {
        markets.flat_map(|market| self.book.orders.traders(market)).collect()
    }

    /// Recomputes what is reserved for each of these. The envelopes are the same for all of them.
    fn reserve_all(&mut self, mut accounts: Vec<u32>) {
        accounts.sort_unstable();
        accounts.dedup();
        let envelopes: Vec<Option<Band>> = self.markets().map(|(market, _)| self.envelope(market)).collect();
        let envelope = |market: MarketId| envelopes.get(usize::from(market.0)).copied().flatten();
        let mut exposed = Vec::new();
        for id in accounts {
            self.exposed(id, envelope, &mut exposed);
            self.reserve_for(id, &exposed);
        }
    }

    // -----------------------------------------------------------------------------------------
    // Changes

    pub(crate) fn set_book(&mut self, key: RecordKey, record: Option<Record>) {
        self.remember(key);
        let Self { book, markets, .. } = self;
        let put = book.put(key, record.as_ref(), |market| {
            markets.get(usize::from(market.0)).map_or(0, |market| market.params.orders.zone)
        });
        debug_assert!(put, "{key:?} does not hold this record");
    }

    pub(crate) fn set_order(&mut self, id: OrderId, order: Option<OpenOrder>) {
        let held = self.book.orders.owner(id).and_then(|owner| self.book.orders.held(owner, id));
        match (held, order) {
            (Some(held), _) if held.stamp == self.sequence => {}
            (Some(held), _) => {
                let before = held.order;
                self.remember_order(id, before.account.0 as u32, Some(before));
            }
            (None, Some(order)) => self.remember_order(id, order.account.0 as u32, None),
            (None, None) => return,
        }
        self.put_order(id, order);
    }

    /// The same for an order that is remembered.
    fn put_order(&mut self, id: OrderId, order: Option<OpenOrder>) {
        let Self { book, markets, sequence, .. } = self;
        book.put_order(id, order, *sequence, |market| {
            markets.get(usize::from(market.0)).map_or(0, |market| market.params.orders.zone)
        });
    }

    /// The id of the next entry of this block.
    fn next_entry(&self) -> OrderId {
        let height = self.globals.height;
        let index = self.entries_in_block().unwrap_or_else(|| {
            // Between blocks, as if the last one went on.
            let last = self.book.entries.get(&height).and_then(BTreeMap::last_key_value);
            last.map_or(0, |(index, _)| index + 1)
        });
        OrderId { height, index }
    }

    /// Whether the block takes so many entries more.
    pub(crate) fn has_room(&self, more: usize, most: usize) -> bool {
        self.next_entry().index as usize + more <= most
    }

    /// Whether the zone takes another order that adds risk in this block: fewer with every block that it is late, so
    /// that it can catch up.
    fn admits_risk(&self, zone: u8) -> bool {
        let lag = self.unsettled(zone).next().map_or(0, |oldest| self.globals.height.0 - oldest.0);
        let late = lag.saturating_sub(u64::from(self.zone_params(zone).shed_after));
        let most = u32::try_from(late).ok().and_then(|late| MAX_ASKED_ENTRIES.checked_shr(late)).unwrap_or(0);
        self.entered_before(zone) < most
    }

    fn enter(&mut self, zone: u8, account: AccountId, request: Request) -> OrderId {
        let id = self.next_entry();
        self.count_entry(zone);
        let entry = ZoneEntry { zone, entry: Entry { account, request } };
        // Nothing is to be kept: an entry of this height is this block's.
        self.book.entries.entry(id.height).or_default().insert(id.index, entry);
        id
    }

    /// What an order, or what a modification would make of it, is refused for.
    pub(crate) fn check_order(
        &self,
        account: AccountId,
        terms: &Terms,
        placing: Placing,
    ) -> Result<(), Refusal> {
        self.check_beside(account, terms, placing, &mut self.beside(account))
    }

    fn beside(&self, account: AccountId) -> Beside {
        Beside { exposures: self.exposures(account.0 as u32), cross: None }
    }

    /// The same beside what is exposed already, to which it is added if it is accepted.
    fn check_beside(
        &self,
        account: AccountId,
        terms: &Terms,
        placing: Placing,
        beside: &mut Beside,
    ) -> Result<(), Refusal> {
        self.check_terms(account, terms, placing)?;
        let own = Exposed::of(&mut beside.exposures, terms.market, |market| self.envelope(market));
        let before = (own.exposure, own.need);
        let waits = placing == Placing::Later;
        self.add_exposure(&mut own.exposure, terms, terms.limit, terms.lots.0, waits, own.envelope);
        own.need = None;
        let after = own.exposure;
        let verdict = self.check_exposed(account, terms, waits, &after, beside);
        let own = Exposed::of(&mut beside.exposures, terms.market, |market| self.envelope(market));
        match verdict {
            Ok(()) => {
                own.known = false;
                if !terms.closes() {
                    own.limits.add(terms.side, terms.limit);
                }
            }
            Err(_) => (own.exposure, own.need) = before,
        }
        verdict
    }

    /// What an order is refused for by itself, or because another one has its name.
    fn check_terms(&self, account: AccountId, terms: &Terms, placing: Placing) -> Result<(), Refusal> {
        let id = account.0 as u32;
        let params = &self.market(terms.market).ok_or(Refusal::UnknownMarket)?.params;
        if terms.lots.0 <= 0 || terms.limit.0 == 0 {
            return Err(Refusal::NotPositive);
        }
        if terms.lots.0 > limits::MAX_LOTS || terms.limit.0 > limits::MAX_PRICE_TICKS {
            return Err(Refusal::TooLarge);
        }
        if terms.kind == Kind::Liquidation {
            return Err(Refusal::OrderKind);
        }
        if terms.good_til.is_some_and(|good_til| good_til < self.globals.height) {
            return Err(Refusal::OrderExpired);
        }
        if !self.market_in_service(terms.market) {
            return Err(Refusal::MarketQuarantined);
        }
        if terms.lots < params.orders.min_lots && !terms.closes() {
            return Err(Refusal::BelowMinimum);
        }
        let named = |(_, order): (OrderId, &OpenOrder)| {
            terms.cloid.is_some() && order.terms.cloid == terms.cloid && order.terms.market == terms.market
        };
        if placing != Placing::Instead && self.book.of(id).any(named) {
            return Err(Refusal::DuplicateCloid);
        }
        if placing != Placing::Later && !self.has_room(1, MAX_ASKED_ENTRIES) {
            return Err(Refusal::InboxFull);
        }
        Ok(())
    }

    /// What an order is refused for beside the account's others: `own` are those of its market, itself included.
    fn check_exposed(
        &self,
        account: AccountId,
        terms: &Terms,
        waits: bool,
        own: &Exposure,
        beside: &mut Beside,
    ) -> Result<(), Refusal> {
        let signer = &self.slots[account.0 as usize].account;
        let market = self.market(terms.market).ok_or(Refusal::UnknownMarket)?;
        let params = &market.params;
        if own.orders > usize::from(params.orders.max_per_account) {
            return Err(Refusal::TooManyOrders);
        }
        let held = signer.lots(terms.market).0;
        if waits && terms.closes() && terms.lots.0 > closable(held, terms.side) {
            return Err(Refusal::ClosingLots);
        }
        require_closing_lots(held, own)?;
        if terms.closes() {
            return Ok(());
        }
        if !self.admits_risk(params.orders.zone) {
            return Err(Refusal::ZoneLate);
        }
        let sheet = &self.sheets[usize::from(terms.market.0)];
        if !sheet.fresh {
            return Err(Refusal::PriceNotFresh);
        }
        let cap = params.account_cap.0;
        if held + own.buys > cap || own.sells - held > cap {
            return Err(Refusal::PositionCap);
        }
        if Self::markets_used(signer, &beside.exposures) > limits::MAX_POSITIONS_PER_ACCOUNT {
            return Err(Refusal::TooManyPositions);
        }
        let (mut buys, mut sells) =
            self.book.potential.get(usize::from(terms.market.0)).copied().unwrap_or_default();
        match terms.side {
            Side::Buy => buys += terms.lots.0,
            Side::Sell => sells += terms.lots.0,
        }
        let grows = buys.min(sells) - self.book.potential(terms.market);
        if grows > 0 && market.open_interest.0 + buys.min(sells) > params.open_interest_cap.0 {
            return Err(Refusal::OpenInterestCap);
        }
        for own in &mut beside.exposures {
            own.need = own.need.or_else(|| Some(self.need(signer, own)));
        }
        let reserved = self.reserved_for(signer, &beside.exposures);
        let cross = beside.cross.get_or_insert_with(|| self.cross(signer));
        if self.covers(signer, cross, terms.market, true, reserved) {
            Ok(())
        } else {
            Err(Refusal::InsufficientMargin)
        }
    }

    /// The cross compartment as it counts against new risk.
    fn cross(&self, account: &Account) -> health::Sums {
        health::sums(account, Compartment::Cross, &self.sheets, Valuation::Adverse)
    }

    /// Whether an account covers its initial margin with this much reserved, in cross and in this market. If it is
    /// isolated there and orders may `open` something, what they need is moved when they are filled, so unrealised
    /// profit does not count.
    fn covers(
        &self,
        account: &Account,
        cross: &health::Sums,
        market: MarketId,
        open: bool,
        reserved: Atoms,
    ) -> bool {
        let moves = open && self.opens_isolated(account, market);
        let safe = if moves { cross.equity.min(account.collateral.0) } else { cross.equity };
        safe - cross.initial_atoms() >= reserved.0 && !self.lacks_isolated(account, market)
    }

    /// Whether an account, with what it has reserved, covers its initial margin in cross and in this market.
    pub(crate) fn covers_orders(&self, account: &Account, market: MarketId, open: bool) -> bool {
        self.covers(account, &self.cross(account), market, open, account.reserved)
    }

    /// Markets in which an account has a position or may get one.
    pub(crate) fn markets_in_use(&self, id: u32, account: &Account) -> usize {
        Self::markets_used(account, &self.exposures(id))
    }

    fn markets_used(account: &Account, exposures: &[Exposed]) -> usize {
        let more = |own: &&Exposed| own.exposure.adds && account.position(own.market).is_none();
        account.positions.len() + exposures.iter().filter(more).count()
    }

    /// Whether a position opened now would be isolated, or the one that is open is.
    fn opens_isolated(&self, account: &Account, market: MarketId) -> bool {
        let opens = if self.markets[usize::from(market.0)].params.isolated_only {
            MarginMode::Isolated
        } else {
            account.mode(market)
        };
        account.position(market).map_or(opens, |position| position.mode) == MarginMode::Isolated
    }

    /// Whether the account has an isolated position there that does not cover its initial margin.
    fn lacks_isolated(&self, account: &Account, market: MarketId) -> bool {
        let isolated = |position: &&crate::state::Position| position.mode == MarginMode::Isolated;
        account.position(market).filter(isolated).is_some_and(|_| {
            let compartment = Compartment::Isolated(market);
            !health::sums(account, compartment, &self.sheets, Valuation::Adverse).covers_initial()
        })
    }

    pub(crate) fn place(&mut self, account: AccountId, terms: Terms) -> OrderId {
        let id = self.enter(self.zone_of(terms.market), account, Request::Place(terms));
        self.hold(account, id, terms, None);
        id
    }

    pub(crate) fn hold(&mut self, account: AccountId, id: OrderId, terms: Terms, waiting: Option<Waiting>) {
        self.open(account, id, terms, waiting);
        self.reserve(account.0 as u32);
    }

    /// Opens an order for which the caller reserves.
    fn open(&mut self, account: AccountId, id: OrderId, terms: Terms, waiting: Option<Waiting>) {
        let open =
            OpenOrder { account, terms, spent: Lots::ZERO, slid: None, ended: false, leaving: None, waiting };
        // Its id was never used before.
        self.remember_order(id, account.0 as u32, None);
        self.put_order(id, Some(open));
    }

    /// What they need together is reserved once. Each is checked beside those before it.
    pub(crate) fn place_many(&mut self, account: AccountId, orders: &[Terms]) -> Statuses {
        let first = self.next_entry();
        let mut beside = self.beside(account);
        let verdicts = Verdicts::of(orders, |terms| {
            self.check_beside(account, terms, Placing::Now, &mut beside)?;
            let id = self.enter(self.zone_of(terms.market), account, Request::Place(*terms));
            self.open(account, id, *terms, None);
            Ok(())
        });
        // What was refused left nothing behind.
        self.reserve_for(account.0 as u32, &beside.exposures);
        Statuses { first, verdicts }
    }

    /// The account's orders of this name in a market that can still be named: the newest first.
    fn named(&self, account: AccountId, market: MarketId, name: Name) -> Vec<OrderId> {
        let open = |order: &OpenOrder| order.terms.market == market && order.stays();
        match name {
            Name::Id(id) => {
                let own =
                    u32::try_from(account.0).ok().and_then(|account| self.book.orders.held(account, id));
                own.filter(|held| open(&held.order)).map(|_| id).into_iter().collect()
            }
            Name::Cloid(cloid) => {
                let fits = |order: &OpenOrder| order.terms.cloid == Some(cloid) && open(order);
                let own = self.book.of(account.0 as u32).filter(|(_, order)| fits(order));
                let mut own: Vec<OrderId> = own.map(|(id, _)| id).collect();
                own.reverse();
                own
            }
        }
    }

    pub(crate) fn plan_cancel(
        &self,
        account: AccountId,
        market: MarketId,
        name: Name,
    ) -> Result<Vec<OrderId>, Refusal> {
        self.market(market).ok_or(Refusal::UnknownMarket)?;
        let own = self.named(account, market, name);
        if own.is_empty() {
            return Err(Refusal::UnknownOrder);
        }
        let zoned = own.iter().any(|id| !id.is_trigger());
        if zoned && !self.has_room(1, MAX_ASKED_ENTRIES) {
            return Err(Refusal::InboxFull);
        }
        Ok(own)
    }

    /// Orders of one name. They either wait for a trigger, or are in their zone.
    pub(crate) fn cancel(&mut self, account: AccountId, market: MarketId, name: Name, orders: &[OrderId]) {
        if orders.iter().any(|id| id.is_trigger()) {
            orders.iter().for_each(|id| self.end_trigger(*id, TriggerEnd::Cancelled));
            return;
        }
        self.enter(self.zone_of(market), account, Request::Cancel { market, order: name });
        self.leave(account, orders);
    }

    pub(crate) fn cancel_many(&mut self, account: AccountId, names: &[(MarketId, Name)]) -> (u32, Verdicts) {
        let mut leaving = 0;
        let verdicts = Verdicts::of(names, |(market, name)| {
            let orders = self.plan_cancel(account, *market, *name)?;
            self.cancel(account, *market, *name, &orders);
            leaving += orders.len() as u32;
            Ok(())
        });
        (leaving, verdicts)
    }

    /// These orders are cancelled in this block's inbox.
    fn leave(&mut self, account: AccountId, orders: &[OrderId]) {
        let height = self.globals.height;
        for id in orders {
            self.touch(account.0 as u32, *id, |order| order.leaving = Some(height));
        }
    }

    /// Orders of an account that a cancel of all would end in their zones, by zone.
    pub(crate) fn plan_cancel_all(
        &self,
        account: AccountId,
        market: Option<MarketId>,
        keep_reduce_only: bool,
    ) -> Result<BTreeMap<u8, Vec<OrderId>>, Refusal> {
        if let Some(market) = market {
            self.market(market).ok_or(Refusal::UnknownMarket)?;
        }
        let zones = self.leaving_by_zone(account.0 as u32, |order| is_meant(order, market, keep_reduce_only));
        if !self.has_room(zones.len(), MAX_ASKED_ENTRIES) {
            return Err(Refusal::InboxFull);
        }
        Ok(zones)
    }

    pub(crate) fn leaving_by_zone(
        &self,
        id: u32,
        which: impl Fn(&OpenOrder) -> bool,
    ) -> BTreeMap<u8, Vec<OrderId>> {
        let mut zones: BTreeMap<u8, Vec<OrderId>> = BTreeMap::new();
        for (id, order) in self.book.of(id) {
            if !order.ended && order.leaving.is_none() && order.waiting.is_none() && which(order) {
                zones.entry(self.zone_of(order.terms.market)).or_default().push(id);
            }
        }
        zones
    }

    pub(crate) fn cancel_all(
        &mut self,
        account: AccountId,
        market: Option<MarketId>,
        keep_reduce_only: bool,
        zones: BTreeMap<u8, Vec<OrderId>>,
        why: TriggerEnd,
    ) -> u32 {
        let meant = |order: &OpenOrder| is_meant(order, market, keep_reduce_only);
        let mut leaving = self.end_triggers(account.0 as u32, why, meant);
        for (zone, orders) in zones {
            self.enter(zone, account, Request::CancelAll { market, keep_reduce_only });
            self.leave(account, &orders);
            leaving += orders.len() as u32;
        }
        leaving
    }

    /// What a modification would make of an order.
    pub(crate) fn plan_modify(
        &self,
        account: AccountId,
        market: MarketId,
        name: Name,
        limit: PriceTicks,
        lots: Lots,
    ) -> Result<Terms, Refusal> {
        self.market(market).ok_or(Refusal::UnknownMarket)?;
        let id = *self.named(account, market, name).first().ok_or(Refusal::UnknownOrder)?;
        let order = self.book.orders.get_of(account, &id).ok_or(Refusal::UnknownOrder)?;
        if order.waiting.is_some() {
            return Err(Refusal::TriggerWaits);
        }
        let terms = Terms { limit, lots, ..order.terms };
        self.check_order(account, &terms, Placing::Instead)?;
        Ok(terms)
    }

    pub(crate) fn modify(&mut self, account: AccountId, name: Name, terms: Terms) -> OrderId {
        let Terms { market, limit, lots, .. } = terms;
        let request = Request::Modify { market, order: name, limit, lots };
        let id = self.enter(self.zone_of(market), account, request);
        self.hold(account, id, terms, None);
        id
    }

    // -----------------------------------------------------------------------------------------
    // The block

    /// Cancels the orders that add risk of every account whose available margin is below zero. Returns how many
    /// accounts that were.
    pub(crate) fn drop_risk(&mut self) -> u64 {
        let accounts: Vec<u32> = match self.mode {
            SweepMode::Indexed => self.book.orders.adding().collect(),
            SweepMode::FullScan => (0..self.slots.len() as u32).collect(),
        };
        let mut dropped = 0;
        for id in accounts {
            if !self.book.has_orders(id) {
                continue;
            }
            let account = &self.slots[id as usize].account;
            let cross = health::sums(account, Compartment::Cross, &self.sheets, Valuation::Adverse);
            let below = cross.equity - cross.initial_atoms() < account.reserved.0;
            let lacks = |position: &crate::state::Position| self.lacks_isolated(account, position.market);
            // Most accounts, in every block.
            if !below && !account.positions.iter().any(lacks) {
                continue;
            }
            let leaves = |order: &OpenOrder| {
                !order.terms.closes() && (below || self.lacks_isolated(account, order.terms.market))
            };
            let mut markets: BTreeMap<MarketId, Vec<OrderId>> = BTreeMap::new();
            for orders in self.leaving_by_zone(id, leaves).into_values() {
                for order in orders {
                    let market = self.book.orders.get(&order).map_or(MarketId(0), |own| own.terms.market);
                    markets.entry(market).or_default().push(order);
                }
            }
            let waiting: Vec<OrderId> = self
                .book
                .of(id)
                .filter(|(_, order)| order.waiting.is_some() && leaves(order))
                .map(|(id, _)| id)
                .collect();
            dropped += u64::from(!markets.is_empty() || !waiting.is_empty());
            for order in waiting {
                self.end_trigger(order, TriggerEnd::MarginLost);
            }
            // What finds no room waits for the next block. What waits for a trigger needs none.
            if !self.has_room(markets.len(), limits::MAX_ENTRIES_PER_INBOX) {
                continue;
            }
            for (market, orders) in markets {
                let request = Request::CancelAll { market: Some(market), keep_reduce_only: true };
                let account = AccountId(u64::from(id));
                self.enter(self.zone_of(market), account, request);
                self.leave(account, &orders);
            }
        }
        dropped
    }

    /// Cancels reduce-only orders that a position does not cover any more, because the ladder or a fill has made it
    /// smaller, or an auction closes it: the newest first, whole.
    pub(crate) fn drop_uncovered(&mut self) {
        for id in self.forced() {
            let mut uncovered: Vec<(OrderId, MarketId)> = Vec::new();
            let account = &self.slots[id as usize].account;
            for Exposed { market, exposure: own, .. } in self.exposures(id) {
                let held = account.lots(market).0;
                for (side, closing, room) in [
                    (Side::Sell, own.closing_sells, held.max(0)),
                    (Side::Buy, own.closing_buys, (-held).max(0)),
                ] {
                    let mut over = closing - room;
                    let own: Vec<_> = self.book.of(id).map(|(id, order)| (id, *order)).collect();
                    for (order_id, order) in own.into_iter().rev() {
                        let fits = order.terms.market == market
                            && order.terms.side == side
                            && order.terms.closes()
                            && order.terms.kind != Kind::Liquidation
                            && order.waiting.is_none()
                            && !order.ended;
                        if over > 0 && fits {
                            over -= order.live().0;
                            if order.leaving.is_none() {
                                uncovered.push((order_id, market));
                            }
                        }
                    }
                }
            }
            for (order, market) in uncovered {
                if self.has_room(1, limits::MAX_ENTRIES_PER_INBOX) {
                    self.cancel(AccountId(u64::from(id)), market, Name::Id(order), &[order]);
                }
            }
        }
    }

    /// Closes the inboxes of this height: a zone gets one if it has orders or requests.
    pub(crate) fn close_inboxes(&mut self) {
        let height = self.globals.height;
        let busy: BTreeSet<u8> = self
            .book
            .zoned
            .iter()
            .zip(&self.markets)
            .filter(|(orders, _)| **orders > 0)
            .map(|(_, market)| market.params.orders.zone)
            .chain(self.book.entries.get(&height).into_iter().flat_map(BTreeMap::values).map(|own| own.zone))
            .collect();
        for zone in busy {
            let references = self
                .markets()
                .filter(|(id, market)| {
                    market.params.orders.zone == zone && self.sheets[usize::from(id.0)].fresh
                })
                .filter_map(|(id, _)| self.band(id).map(|reference| (id, reference)))
                .collect();
            let end = self.next_entry().index;
            let inbox = ZoneInbox { references, parts: 0, end, salt: None };
            self.set_book(RecordKey::Inbox(zone, height), Some(Record::Inbox(inbox)));
        }
    }

    /// Gives the inboxes of the block before this one the salt of their auctions.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn salt_inboxes(&mut self, salt: [u8; 32]) {
        let before = Height(self.globals.height.0 - 1);
        let zones: Vec<u8> = self.zones().into_keys().collect();
        for zone in zones {
            if let Some(inbox) = self.book.inboxes.get(&(zone, before)).cloned() {
                let salted = ZoneInbox { salt: Some(salt), ..inbox };
                self.set_book(RecordKey::Inbox(zone, before), Some(Record::Inbox(salted)));
            }
        }
    }

    /// Lots of a market that liquidation has on their way for an account.
    pub(crate) fn closes_on_way(&self, id: u32, market: MarketId) -> i64 {
        let on_way =
            |order: &OpenOrder| order.terms.kind == Kind::Liquidation && order.terms.market == market;
        self.book.of(id).filter(|(_, order)| on_way(order)).map(|(_, order)| order.live().0).sum()
    }

    /// Whether liquidation goes on without the market's zone: it never waits for it, or has waited long enough.
    pub(crate) fn is_late(&self, market: MarketId) -> bool {
        let orders = self.markets[usize::from(market.0)].params.orders;
        let oldest = self.unsettled(orders.zone).next();
        let lag = oldest.map_or(0, |oldest| self.globals.height.0 - oldest.0);
        lag >= u64::from(orders.late_after)
    }

    fn zone_params(&self, zone: u8) -> crate::params::OrderParams {
        let own = self.markets.iter().map(|market| market.params.orders).find(|orders| orders.zone == zone);
        own.unwrap_or_default()
    }

    /// Settles the next part of the oldest outcome that a zone owes. Everything is checked before anything is
    /// changed.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn settle(&mut self, zone: u8, outcome: &Outcome) -> Result<SettleReport, SettleFault> {
        let references = self.check_outcome(zone, outcome)?;
        let records: usize = outcome.markets.iter().map(seawall_types::MarketOutcome::records).sum();
        self.expect_changes(records);
        *self.settled_in_block().entry(zone).or_default() += records;
        let (mut report, mut accounts) = (SettleReport::default(), Vec::with_capacity(records));
        report.fills.reserve_exact(outcome.markets.iter().map(|market| market.fills.len()).sum());
        report.ends.reserve_exact(outcome.markets.iter().map(|market| market.ends.len()).sum());
        for market in &outcome.markets {
            // There is one where anything was filled.
            let mark = references.get(&market.market).map_or(PriceTicks(0), |reference| reference.mark);
            for slide in &market.slides {
                let Some(account) = self.book.orders.owner(slide.order) else { continue };
                self.touch(account, slide.order, |order| {
                    if outcome.last {
                        (order.terms.limit, order.slid) = (slide.limit, None);
                    } else {
                        order.slid = Some(slide.limit);
                    }
                });
                accounts.push(account);
            }
            for cut in &market.cuts {
                let Some(account) = self.book.orders.owner(cut.order) else { continue };
                self.spend(account, cut.order, cut.lots, outcome.last);
                accounts.push(account);
            }
            let mut ends = market.ends.iter().peekable();
            for (fill, price) in market.fills.iter().zip(market.price.into_iter().cycle()) {
                // Both lists ascend. An order that ends with its fill is changed once.
                while ends.next_if(|end| end.order < fill.order).is_some() {}
                let over = ends.peek().is_some_and(|end| end.order == fill.order && end.lots == Lots::ZERO);
                // The outcome was checked: the order is of the fill's account.
                let account = fill.account.0 as u32;
                let order = if over {
                    self.end_order(account, fill.order, fill.lots, outcome.last)
                } else {
                    self.spend(account, fill.order, fill.lots, outcome.last)
                };
                let settled = self.settle_fill(market.market, fill, order, price, mark, &mut report.deficits);
                report.fills.push(settled);
                accounts.push(account);
            }
            let mut fills = market.fills.iter().peekable();
            for end in &market.ends {
                report.ends.push(*end);
                while fills.next_if(|fill| fill.order < end.order).is_some() {}
                if end.lots == Lots::ZERO && fills.peek().is_some_and(|fill| fill.order == end.order) {
                    continue;
                }
                let Some(account) = self.book.orders.owner(end.order) else { continue };
                let Some(order) = self.end_order(account, end.order, Lots::ZERO, outcome.last) else {
                    continue;
                };
                if order.terms.kind == Kind::Liquidation && order.live() > Lots::ZERO {
                    self.note_unfilled(account, market.market);
                }
                accounts.push(account);
            }
        }
        if outcome.last {
            // The band of this height does not count any more. Where another one is as wide, nothing changes.
            let before: Vec<(MarketId, Option<Band>)> =
                references.into_keys().map(|market| (market, self.envelope(market))).collect();
            self.end_height(zone, outcome.height, false);
            let moved = before.into_iter().filter(|(market, band)| self.envelope(*market) != *band);
            accounts.extend(self.owners_in(moved.map(|(market, _)| market)));
        } else {
            let key = RecordKey::Inbox(zone, outcome.height);
            if let Some(inbox) = self.book.inboxes.get(&(zone, outcome.height)).cloned() {
                self.set_book(key, Some(Record::Inbox(ZoneInbox { parts: inbox.parts + 1, ..inbox })));
            }
        }
        self.reserve_all(accounts);
        Ok(report)
    }

    fn check_outcome(
        &self,
        zone: u8,
        outcome: &Outcome,
    ) -> Result<BTreeMap<MarketId, Reference>, SettleFault> {
        let oldest = self.unsettled(zone).next().ok_or(SettleFault::Nothing(zone))?;
        if outcome.height != oldest {
            return Err(SettleFault::NotNext(oldest));
        }
        let params = self.zone_params(zone);
        if self.globals.height.0 >= oldest.0 + u64::from(params.void_after) {
            return Err(SettleFault::Overdue);
        }
        let inbox = self.book.inboxes.get(&(zone, oldest)).ok_or(SettleFault::Nothing(zone))?;
        if outcome.part != inbox.parts {
            return Err(SettleFault::NotNextPart(inbox.parts));
        }
        let records: usize = outcome.markets.iter().map(seawall_types::MarketOutcome::records).sum();
        let before = self.settled_before(zone);
        if before + records > params.max_records as usize {
            return Err(SettleFault::TooManyRecords(records));
        }
        if let Some(market) = outcome
            .markets
            .iter()
            .find(|own| self.market(own.market).is_none_or(|market| market.params.orders.zone != zone))
        {
            return Err(SettleFault::ForeignMarket(market.market));
        }
        let orders = &self.book.orders;
        let standing = |id: OrderId, of: Option<AccountId>| {
            of.map_or_else(|| orders.get(&id), |of| orders.get_of(of, &id))?.standing(id)
        };
        outcome.check_among(standing, &inbox.references)?;
        if outcome.last {
            let ends = outcome.markets.iter().flat_map(|own| &own.ends).map(|end| end.order);
            let mut over: Vec<OrderId> = ends.filter(|id| id.height == oldest).collect();
            // As many runs that ascend as there are markets: the stable sort merges them.
            over.sort();
            let mut over = over.into_iter().peekable();
            for (id, own) in self.entries_of(zone, oldest) {
                while over.next_if(|over| *over < id).is_some() {}
                let rests = matches!(own.entry.request, Request::Place(terms) if !terms.kind.is_immediate());
                let immediate = |order: &OpenOrder| order.terms.kind.is_immediate() && !order.ended;
                let goes_on = || orders.get_of(own.entry.account, &id).is_some_and(immediate);
                if !rests && over.peek() != Some(&id) && goes_on() {
                    return Err(SettleFault::GoesOn(id));
                }
            }
        }
        Ok(inbox.references.clone())
    }

    /// Changes an order of an account in place, but not whose it is, nor its market, side or purpose. Returns it as it
    /// was.
    fn touch(&mut self, account: u32, id: OrderId, change: impl FnOnce(&mut OpenOrder)) -> Option<OpenOrder> {
        let sequence = self.sequence;
        let held = self.book.orders.held_mut(account, id)?;
        let old = held.order;
        change(&mut held.order);
        let new = held.order;
        let known = core::mem::replace(&mut held.stamp, sequence) == sequence;
        if !known {
            self.remember_order(id, account, Some(old));
        }
        let zone = self.zone_of(new.terms.market);
        self.book.orders.changed(account, &old, &new);
        self.book.retally(id, &old, &new, zone);
        Some(old)
    }

    /// Takes lots of an order that goes on, or whose end is yet to come. In the last part of an outcome its terms follow
    /// at once: the height ends with it.
    fn spend(&mut self, account: u32, id: OrderId, lots: Lots, last: bool) -> Option<OpenOrder> {
        self.touch(account, id, |order| {
            if last {
                order.terms.lots -= lots;
            } else {
                order.spent += lots;
            }
        })
    }

    /// Ends an order of which this many lots were filled: it goes at once if the height ends with this part. Returns it
    /// as it was.
    fn end_order(&mut self, account: u32, id: OrderId, filled: Lots, last: bool) -> Option<OpenOrder> {
        if !last {
            return self.touch(account, id, |order| {
                order.spent += filled;
                order.ended = true;
            });
        }
        let held = self.book.orders.held(account, id)?;
        let (old, known) = (held.order, held.stamp == self.sequence);
        if !known {
            self.remember_order(id, account, Some(old));
        }
        self.put_order(id, None);
        Some(old)
    }

    /// Trades one fill of an order, which is given as it was before. Lots of a closing order that the position does not
    /// have any more go to the backstop. What is reserved for its account follows when all of the part is settled.
    fn settle_fill(
        &mut self,
        market: MarketId,
        fill: &Fill,
        order: Option<OpenOrder>,
        price: PriceTicks,
        mark: PriceTicks,
        deficits: &mut SweepReport,
    ) -> SettledFill {
        let at = usize::from(market.0);
        let (closes, liquidation) = order
            .map_or((false, false), |order| (order.terms.closes(), order.terms.kind == Kind::Liquidation));
        let id = fill.account.0 as u32;
        let held = self.slots[id as usize].account.lots(market).0;
        let sign = if fill.side == Side::Buy { 1 } else { -1 };
        let own = if closes { fill.lots.0.min((-sign * held).max(0)) } else { fill.lots.0 };
        let carried = fill.lots.0 - own;
        let params = &self.markets[at].params;
        let (unit, backstop) = (params.unit(price), self.markets[at].backstop.0 as u32);
        let rate = if fill.maker { params.maker_fee_ppm } else { params.taker_fee_ppm };
        let notional = kernel::value(unit, i128::from(own));
        let mut fee = if liquidation { 0 } else { kernel::fee(notional, i128::from(rate.0)) };
        if own > 0 {
            let quote = kernel::value(unit, i128::from(sign * own));
            let isolated = self.opens_isolated(&self.slots[id as usize].account, market);
            let mode = if isolated { MarginMode::Isolated } else { MarginMode::Cross };
            if liquidation {
                let compartment = if isolated { Compartment::Isolated(market) } else { Compartment::Cross };
                let account = &self.slots[id as usize].account;
                let equity = health::sums(account, compartment, &self.sheets, Valuation::Favourable).equity;
                // What the trade itself loses against the mark comes off first.
                let lost = quote - kernel::value(i128::from(self.sheets[at].unit), i128::from(sign * own));
                let rate = i128::from(self.markets[at].params.liquidation.penalty_ppm.0);
                fee = kernel::penalty(notional, rate, equity - lost);
            }
            self.imposed_trade_unreserved(id, market, sign * own, quote, fee, mode, deficits);
            if liquidation {
                self.account_mut(backstop).collateral += Atoms(fee);
            } else {
                self.credit_insurance(fee);
            }
            if isolated {
                // What cross can spare depends on what is reserved.
                self.reserve(id);
                self.top_up(id, market);
            }
            // An order that was cancelled too late may have closed what another one was to close.
            self.force(id);
        }
        if carried > 0 {
            let quote = kernel::value(unit, i128::from(sign * carried));
            self.imposed_trade(backstop, market, sign * carried, quote, 0, MarginMode::Cross, deficits);
        }
        SettledFill {
            order: fill.order,
            account: fill.account,
            market,
            side: fill.side,
            lots: fill.lots,
            price,
            fee: Atoms(fee),
            liquidation,
            mark,
            carried: Lots(carried),
        }
    }

    /// Moves to an isolated position what it lacks for its initial margin, or as much of it as cross can spare.
    fn top_up(&mut self, id: u32, market: MarketId) {
        let account = &self.slots[id as usize].account;
        if account.position(market).is_none() {
            return;
        }
        let compartment = Compartment::Isolated(market);
        let sums = health::sums(account, compartment, &self.sheets, Valuation::Adverse);
        let lacks = (sums.initial_atoms() - sums.equity).max(0);
        let moved = Atoms(lacks.min(health::spare(account, Compartment::Cross, &self.sheets)));
        if moved > Atoms::ZERO {
            let account = self.account_mut(id);
            account.collateral -= moved;
            *account.collateral_of_mut(compartment) += moved;
        }
    }

    /// A height of a zone is over: what its parts did to orders becomes their terms.
    fn end_height(&mut self, zone: u8, height: Height, void: bool) {
        for (account, id) in self.book.touched.remove(&zone).unwrap_or_default() {
            let Some(order) = self.book.orders.held(account, id).map(|held| held.order) else { continue };
            if !order.is_touched() || self.zone_of(order.terms.market) != zone {
                continue;
            }
            match order.standing(id) {
                Some(own) => drop(self.touch(account, id, |order| {
                    (order.terms, order.spent, order.slid) = (own.terms, Lots::ZERO, None);
                })),
                None => drop(self.end_order(account, id, Lots::ZERO, true)),
            }
        }
        self.drop_entries(zone, height);
        self.set_book(RecordKey::Inbox(zone, height), None);
        let voided = if void { height } else { self.last_void(zone) };
        self.set_book(RecordKey::Zone(zone), Some(Record::Zone(ZoneState { ended: height, voided })));
    }

    /// Takes away what a zone was asked for at a height.
    fn drop_entries(&mut self, zone: u8, height: Height) {
        let Some(mut over) = self.book.entries.remove(&height) else { return };
        if over.values().any(|own| own.zone != zone) {
            let own = over.extract_if(.., |_, own| own.zone == zone).collect();
            self.book.entries.insert(height, core::mem::replace(&mut over, own));
        }
        self.remember_entries(height, over);
    }

    /// Where the oldest inbox of a zone is `void_after` blocks old, voids all of its inboxes: the later ones were answered,
    /// if at all, as if that one had been settled. The zone then has as many blocks to start again in. Orders and
    /// modifications of a void inbox end, its cancels hold, what has expired meanwhile ends, and everything is released. A chain calls this before it
    /// settles outcomes.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn void_overdue(&mut self) -> Vec<(u8, Height)> {
        let mut voided = Vec::new();
        let zones: BTreeSet<u8> = self.book.inboxes.keys().map(|(zone, _)| *zone).collect();
        for zone in zones {
            let Some(oldest) = self.unsettled(zone).next() else { continue };
            if self.globals.height.0 >= oldest.0 + u64::from(self.zone_params(zone).void_after) {
                voided.extend(self.void(zone, oldest).into_iter().map(|height| (zone, height)));
            }
        }
        voided
    }

    /// Voids every inbox of a zone, of which this is the oldest.
    fn void(&mut self, zone: u8, oldest: Height) -> Vec<Height> {
        let heights: Vec<Height> = self.unsettled(zone).collect();
        let newest = heights.last().copied().unwrap_or(oldest);
        // No auction will say that these have expired.
        let expired = |order: &OpenOrder| order.terms.good_til.is_some_and(|good_til| good_til < newest);
        let over: Vec<OrderId> = self
            .book
            .orders
            .iter()
            .filter(|(id, order)| {
                self.zone_of(order.terms.market) == zone
                    && order.waiting.is_none()
                    && (id.height >= oldest || order.leaving.is_some() || expired(order))
            })
            .map(|(id, _)| *id)
            .collect();
        let mut accounts = BTreeSet::new();
        for id in over {
            if let Some(order) = self.book.orders.get(&id).copied() {
                accounts.insert(order.account.0 as u32);
                if order.terms.kind == Kind::Liquidation {
                    self.note_unfilled(order.account.0 as u32, order.terms.market);
                }
            }
            self.set_order(id, None);
        }
        let mut markets: BTreeSet<MarketId> = BTreeSet::new();
        for height in &heights {
            let inbox = self.book.inboxes.get(&(zone, *height));
            markets.extend(inbox.into_iter().flat_map(|inbox| inbox.references.keys()));
            self.end_height(zone, *height, true);
        }
        self.reserve_in(markets.into_iter());
        for id in accounts {
            self.reserve(id);
        }
        heights
    }
}

/// How an order is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placing {
    /// Into its zone.
    Now,
    /// In the place of another one, if that is still open then.
    Instead,
    /// When its trigger is crossed.
    Later,
}

/// Whether a cancel of all means this order.
fn is_meant(order: &OpenOrder, market: Option<MarketId>, keep_reduce_only: bool) -> bool {
    market.is_none_or(|market| market == order.terms.market) && !(keep_reduce_only && order.terms.reduce_only)
}

/// Lots of a position that orders of this side close.
pub(crate) fn closable(held: i64, side: Side) -> i64 {
    match side {
        Side::Sell => held.max(0),
        Side::Buy => (-held).max(0),
    }
}

/// Closing orders with the other orders of their side are never more than the position.
pub(crate) fn require_closing_lots(held: i64, own: &Exposure) -> Result<(), Refusal> {
    let fits = |closing: i64, others: i64, held: i64| closing == 0 || closing + others <= held.max(0);
    if fits(own.closing_sells, own.sells, held) && fits(own.closing_buys, own.buys, -held) {
        Ok(())
    } else {
        Err(Refusal::ClosingLots)
    }
}
