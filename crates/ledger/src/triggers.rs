//! Orders that wait for a trigger: stop-losses, take-profits, and entries at a price that is not there yet.
//!
//! # The life of a trigger
//!
//! An action places an order with a price and the side from which the mark has to cross it. Until then the order is
//! the account's and not the zone's: it is in no inbox, no outcome can name it, a zone is not rebuilt with it, and it
//! ends at once when it is cancelled. Its id is none of an entry.
//!
//! In every block, after the sweep, each trigger that the block's fresh mark has crossed is recorded as crossed at this
//! height. That is never lost: wherever the mark goes afterwards, the order has its turn. When it has it, it enters
//! its zone's inbox as any order does, under the id of that entry, which an [`Event`] gives beside its old one. A market
//! that has no auction in this block, because its mark is not fresh, activates nothing, and nothing loses its place.
//!
//! Turns: orders that only close before those that add risk, then by height of crossing, then by id.
//!
//! # What it reserves
//!
//! An order that adds risk reserves margin and counts against every cap from its placement on, as if it was in its
//! zone. So it can enter without asking, unless the account has come below its initial margin since.
//!
//! An order that only closes reserves nothing while it waits, because a stop-loss and a take-profit wait for the same
//! lots. There is one only while its account has a position that it would close: when that is gone or has turned,
//! however that came, it ends. At its turn it takes the lots that no other order of its side may close, and is cut to
//! these, or ends if there are none. So it flips nothing and nothing closes twice. Closes that rest in the zone hold
//! their lots: whoever wants a stop behind a resting take-profit lets the take-profit wait for a trigger, too.
//!
//! # Why one ends before its turn
//!
//! [`TriggerEnd`] names the reasons, and an event reports each. Nothing else keeps a crossed trigger from its turn but
//! the bounds below and a mark that is not fresh, so none is stranded: a market that stays blind is quarantined, and
//! then its crossed triggers end.
//!
//! | queue | bound | beyond it |
//! | --- | --- | --- |
//! | orders of an account in a market, in the zone or waiting | `max_per_account` | [`Refusal::TooManyOrders`] |
//! | waiting orders of a market | `MAX_TRIGGERS_PER_MARKET` | [`Refusal::TooManyTriggers`] |
//! | turns of a block in a market | `max_activations` | the next block |
//! | entries of a block | `MAX_ENTRIES_PER_INBOX` | the next block |
//! | waiting orders that expire in a block | `MAX_EXPIRIES_PER_BLOCK` | the next block; at their turn they end anyway |
//!
//! Crossings are found by price, and expiries by height, without looking at other triggers.

use std::collections::{BTreeMap, BTreeSet};

use seawall_types::{
    AccountId, Crossing, Height, Kind, Lots, MarketId, OrderId, PriceTicks, Refusal, Terms, Trigger, limits,
};

use crate::{
    ladder::Event,
    ledger::Ledger,
    orders::{Placing, closable},
    state::{OpenOrder, Waiting},
};

/// Why an order ended while it waited for its trigger, or for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TriggerEnd {
    /// Its account cancelled it.
    Cancelled,
    /// The scheduled cancel of its account came due.
    Scheduled,
    /// Its good-til height has passed.
    Expired,
    /// It adds risk, and its account has come below its initial margin.
    MarginLost,
    /// The position that it would close is gone, or has turned.
    PositionGone,
    /// At its turn, other orders may close all of the position.
    NoClosingLots,
    /// At its turn, its market was out of service.
    MarketQuarantined,
}

/// What a block did to orders that wait for a trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TriggerReport {
    /// Triggers that the block's marks crossed.
    pub crossed: u64,
    /// Orders that entered their zones.
    pub activated: u64,
    /// Orders that ended instead, or whose good-til height has passed.
    pub ended: u64,
    /// Crossed triggers that are left for later blocks.
    pub waiting: u64,
}

/// Where a block finds orders that wait for a trigger. Derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Triggers {
    markets: BTreeMap<MarketId, Index>,
    /// By good-til height.
    expiring: BTreeSet<(Height, OrderId)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Index {
    /// To be crossed from below, by price.
    above: BTreeSet<(PriceTicks, OrderId)>,
    /// To be crossed from above, by price.
    below: BTreeSet<(PriceTicks, OrderId)>,
    /// Crossed, in the order of their turns: whether it adds risk, the height of its crossing, its id.
    crossed: BTreeSet<(bool, Height, OrderId)>,
}

fn set<K: Ord>(of: &mut BTreeSet<K>, key: K, there: bool) {
    if there {
        of.insert(key);
    } else {
        of.remove(&key);
    }
}

impl Triggers {
    /// Adds an order, or takes it out.
    pub fn tally(&mut self, id: OrderId, order: &OpenOrder, waiting: Waiting, there: bool) {
        let market = order.terms.market;
        let own = self.markets.entry(market).or_default();
        let Trigger { price, crossing } = waiting.trigger;
        match (waiting.crossed, crossing) {
            (Some(height), _) => set(&mut own.crossed, (!order.terms.closes(), height, id), there),
            (None, Crossing::Above) => set(&mut own.above, (price, id), there),
            (None, Crossing::Below) => set(&mut own.below, (price, id), there),
        }
        if own.count() == 0 {
            self.markets.remove(&market);
        }
        if let Some(good_til) = order.terms.good_til {
            set(&mut self.expiring, (good_til, id), there);
        }
    }

    fn count(&self, market: MarketId) -> usize {
        self.markets.get(&market).map_or(0, Index::count)
    }
}

impl Index {
    fn count(&self) -> usize {
        self.above.len() + self.below.len() + self.crossed.len()
    }

    /// What this mark crosses.
    fn crossed_by(&self, mark: PriceTicks) -> Vec<OrderId> {
        let first = OrderId { height: Height(0), index: 0 };
        let last = OrderId { height: Height(u64::MAX), index: u32::MAX };
        let above = self.above.range(..=(mark, last));
        above.chain(self.below.range((mark, first)..)).map(|(_, id)| *id).collect()
    }
}

/// Whether the record of an order that waits for a trigger can be one at this height. That its terms are valid is
/// checked with all others.
pub(crate) fn is_sound(id: OrderId, order: &OpenOrder, waiting: Waiting, height: Height) -> bool {
    id.is_trigger()
        && id.height <= height
        && waiting.trigger.is_valid()
        && waiting.crossed.is_none_or(|crossed| (id.height..=height).contains(&crossed))
        && can_wait(order.terms.kind)
        && order.spent == Lots::ZERO
        && order.slid.is_none()
        && !order.ended
        && order.leaving.is_none()
}

const fn can_wait(kind: Kind) -> bool {
    matches!(kind, Kind::Limit | Kind::Ioc)
}

impl Ledger {
    /// What an order that waits for a trigger is refused for.
    pub(crate) fn check_trigger(
        &self,
        account: AccountId,
        trigger: &Trigger,
        terms: &Terms,
    ) -> Result<(), Refusal> {
        let market = self.market(terms.market).ok_or(Refusal::UnknownMarket)?;
        match trigger.price.0 {
            0 => return Err(Refusal::NotPositive),
            1..=limits::MAX_PRICE_TICKS => {}
            _ => return Err(Refusal::TooLarge),
        }
        if !can_wait(terms.kind) {
            return Err(Refusal::TriggerKind);
        }
        // The block's crossings are recorded before its trades.
        if market.mark.and_then(|mark| mark.fresh()).is_some_and(|mark| trigger.is_crossed(mark)) {
            return Err(Refusal::TriggerCrossed);
        }
        if self.book.triggers.count(terms.market) >= limits::MAX_TRIGGERS_PER_MARKET {
            return Err(Refusal::TooManyTriggers);
        }
        self.check_order(account, terms, Placing::Later)
    }

    pub(crate) fn place_trigger(&mut self, account: AccountId, trigger: Trigger, terms: Terms) -> OrderId {
        let index = limits::FIRST_TRIGGER + self.count_trigger();
        let id = OrderId { height: self.globals.height, index };
        self.hold(account, id, terms, Some(Waiting { trigger, crossed: None }));
        id
    }

    /// Ends an order that waits for its trigger, at once: no auction knows it.
    pub(crate) fn end_trigger(&mut self, trigger: OrderId, reason: TriggerEnd) {
        let Some(order) = self.book.orders.get(&trigger).copied() else { return };
        debug_assert!(order.waiting.is_some(), "{trigger} is its zone's to end");
        self.set_order(trigger, None);
        let OpenOrder { account, terms: Terms { market, .. }, .. } = order;
        self.push_event(Event::TriggerEnded { trigger, account, market, reason });
        self.reserve(account.0 as u32);
    }

    /// Ends those of an account's orders that wait for a trigger, and are `meant`. Returns how many.
    pub(crate) fn end_triggers(
        &mut self,
        account: u32,
        why: TriggerEnd,
        meant: impl Fn(&OpenOrder) -> bool,
    ) -> u32 {
        let waiting = self.book.of(account).filter(|(_, order)| order.waiting.is_some() && meant(order));
        let waiting: Vec<OrderId> = waiting.map(|(id, _)| id).collect();
        for id in &waiting {
            self.end_trigger(*id, why);
        }
        waiting.len() as u32
    }

    /// Ends an account's orders that wait to close a position that it does not have any more. Called whenever a
    /// position has changed.
    pub(crate) fn drop_orphans(&mut self, account: u32, market: MarketId) {
        if !self.book.has_orders(account) {
            return;
        }
        let held = self.slots[account as usize].account.lots(market).0;
        self.end_triggers(account, TriggerEnd::PositionGone, |order| {
            order.terms.market == market && order.terms.closes() && closable(held, order.terms.side) == 0
        });
    }

    /// An order that waits to close a position that is not there. There is none.
    pub(crate) fn orphan(&self) -> Option<OrderId> {
        let orphan = |(_, order): &(&OrderId, &OpenOrder)| {
            let held = self.account(order.account).map_or(0, |account| account.lots(order.terms.market).0);
            order.waiting.is_some() && order.terms.closes() && closable(held, order.terms.side) == 0
        };
        self.book.orders.iter().find(orphan).map(|(id, _)| *id)
    }

    /// Records which triggers the block's fresh marks have crossed, and gives those that were crossed their turns. A
    /// chain calls this after the sweep, so that what liquidation takes is not closed or backed a second time, and
    /// before trades, so that these find the mark's crossings done.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn activate_triggers(&mut self) -> TriggerReport {
        let mut report = TriggerReport::default();
        self.expire_triggers(&mut report);
        let markets: Vec<MarketId> = self.book.triggers.markets.keys().copied().collect();
        for market in markets {
            self.note_crossings(market, &mut report);
            self.give_turns(market, &mut report);
            let left = self.book.triggers.markets.get(&market);
            report.waiting += left.map_or(0, |left| left.crossed.len() as u64);
        }
        report
    }

    fn expire_triggers(&mut self, report: &mut TriggerReport) {
        let height = self.globals.height;
        let over = self.book.triggers.expiring.iter().take_while(|(good_til, _)| *good_til < height);
        let over: Vec<OrderId> = over.take(limits::MAX_EXPIRIES_PER_BLOCK).map(|(_, id)| *id).collect();
        report.ended += over.len() as u64;
        for id in over {
            self.end_trigger(id, TriggerEnd::Expired);
        }
    }

    fn note_crossings(&mut self, market: MarketId, report: &mut TriggerReport) {
        let fresh = self.markets[usize::from(market.0)].mark.and_then(|mark| mark.fresh());
        let (Some(mark), Some(own)) = (fresh, self.book.triggers.markets.get(&market)) else { return };
        let crossed = Some(self.globals.height);
        for id in own.crossed_by(mark) {
            let Some(order) = self.book.orders.get(&id).copied() else { continue };
            let waiting = order.waiting.map(|waiting| Waiting { crossed, ..waiting });
            self.set_order(id, Some(OpenOrder { waiting, ..order }));
            report.crossed += 1;
        }
    }

    fn give_turns(&mut self, market: MarketId, report: &mut TriggerReport) {
        let at = usize::from(market.0);
        // Without a fresh mark there is no auction to enter.
        if self.market_in_service(market) && !self.sheets[at].fresh {
            return;
        }
        let most = usize::from(self.markets[at].params.orders.max_activations);
        let own = self.book.triggers.markets.get(&market);
        let turns: Vec<OrderId> =
            own.iter().flat_map(|own| &own.crossed).take(most).map(|(_, _, id)| *id).collect();
        for trigger in turns {
            let Some(order) = self.book.orders.get(&trigger).copied() else { continue };
            match self.fate(&order) {
                Err(reason) => {
                    self.end_trigger(trigger, reason);
                    report.ended += 1;
                }
                Ok(lots) if self.has_room(1, limits::MAX_ENTRIES_PER_INBOX) => {
                    let account = order.account;
                    self.set_order(trigger, None);
                    let order = self.place(account, Terms { lots, ..order.terms });
                    self.push_event(Event::Activated { trigger, order, account, market, lots });
                    report.activated += 1;
                }
                Ok(_) => break,
            }
        }
    }

    /// With how many lots an order enters its zone now, or why it ends.
    fn fate(&self, order: &OpenOrder) -> Result<Lots, TriggerEnd> {
        let Terms { market, side, lots, good_til, .. } = order.terms;
        let id = order.account.0 as u32;
        let account = &self.slots[id as usize].account;
        if good_til.is_some_and(|good_til| good_til < self.globals.height) {
            return Err(TriggerEnd::Expired);
        }
        if !self.market_in_service(market) {
            return Err(TriggerEnd::MarketQuarantined);
        }
        if order.terms.closes() {
            let there = closable(account.lots(market).0, side) - self.exposure(id, market).on(side);
            return if there > 0 { Ok(Lots(lots.0.min(there))) } else { Err(TriggerEnd::NoClosingLots) };
        }
        if self.covers_orders(account, market, false) { Ok(lots) } else { Err(TriggerEnd::MarginLost) }
    }
}
