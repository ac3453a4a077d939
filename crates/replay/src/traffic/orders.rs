//! What the accounts of the traffic have open, and what a step sends.

use super::{AccountView, MAX_CANCELS_PER_STEP, MAX_PLACED_PER_STEP, Submit, TrafficStats};
use crate::rebuild::Level;
use seawall_types::{
    Action, Cloid, Height, Lots, MarketId, Name, Side, Terms, limits::MAX_ORDERS_PER_ACTION,
};
use std::collections::{BTreeMap, BTreeSet};

/// What an account may have in a market.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caps {
    /// Most lots, in either direction, all orders of a side filled.
    pub lots: i64,
    /// Most orders, those on their way in or out included.
    pub orders: usize,
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Sent, and not seen open yet.
    Sent,
    /// Seen open.
    Open,
    /// Cancelled by us, or seen on its way out. It is not cancelled again while that can still be executed.
    Leaving,
}

/// An order of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub terms: Terms,
    /// Lots that can still fill.
    pub lots: i64,
    pub stage: Stage,
    /// The level of the tape that it belongs to.
    pub level: Option<Level>,
    /// Whether it was ever seen open.
    seen: bool,
    /// Until when it can still be accepted.
    until: Height,
    /// Until when our cancel can still be executed.
    ending: Height,
}

/// An order that is no more.
pub(super) struct Gone {
    pub market: usize,
    pub cloid: Cloid,
    pub level: Option<Level>,
    /// It was never seen.
    pub unseen: bool,
}

/// An account's orders in a market, summed, with its position.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    position: i64,
    buys: i64,
    sells: i64,
    orders: usize,
}

impl Sums {
    fn count(&mut self, side: Side, lots: i64) {
        match side {
            Side::Buy => self.buys = self.buys.saturating_add(lots),
            Side::Sell => self.sells = self.sells.saturating_add(lots),
        }
        self.orders += 1;
    }
}

/// An account.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    orders: BTreeMap<(usize, Cloid), Own>,
    sums: Vec<Sums>,
}

impl Desk {
    pub fn new(markets: usize) -> Self {
        Self { orders: BTreeMap::new(), sums: vec![Sums::default(); markets] }
    }

    /// Believes what settlement says: what is not open and cannot be any more is gone.
    pub fn reconcile(&mut self, view: &AccountView, height: Height) -> Vec<Gone> {
        self.sums.fill(Sums::default());
        for (market, lots) in &view.positions {
            if let Some(sums) = self.sums.get_mut(usize::from(market.0)) {
                sums.position = lots.0;
            }
        }
        let mut seen = BTreeSet::new();
        for open in &view.orders {
            let market = usize::from(open.market.0);
            if let Some(sums) = self.sums.get_mut(market) {
                sums.count(open.side, open.lots.0);
            }
            let Some(cloid) = open.cloid else { continue };
            if let Some(own) = self.orders.get_mut(&(market, cloid)) {
                seen.insert((market, cloid));
                own.lots = open.lots.0;
                own.seen = true;
                own.stage = match own.stage {
                    _ if open.leaving => Stage::Leaving,
                    Stage::Leaving if height <= own.ending => Stage::Leaving,
                    _ => Stage::Open,
                };
            }
        }
        let mut gone = Vec::new();
        let sums = &mut self.sums;
        self.orders.retain(|(market, cloid), own| {
            if seen.contains(&(*market, *cloid)) {
                return true;
            }
            // Even if all orders were cancelled since: that may be executed before an order that was sent earlier.
            let comes = !own.seen && height <= own.until;
            if comes {
                sums[*market].count(own.terms.side, own.lots);
            } else {
                gone.push(Gone { market: *market, cloid: *cloid, level: own.level, unseen: !own.seen });
            }
            comes
        });
        gone
    }

    pub fn position(&self, market: usize) -> i64 {
        self.sums[market].position
    }

    /// Lots that may be added to a side.
    pub fn room(&self, market: usize, side: Side, caps: Caps) -> i64 {
        let sums = &self.sums[market];
        let (toward, open) = match side {
            Side::Buy => (sums.position, sums.buys),
            Side::Sell => (-sums.position, sums.sells),
        };
        caps.lots.saturating_sub(toward).saturating_sub(open).max(0)
    }

    /// Orders that may be added.
    pub fn slots(&self, market: usize, caps: Caps) -> usize {
        caps.orders.saturating_sub(self.sums[market].orders)
    }

    /// Orders that are open or sent.
    pub fn live(&self) -> usize {
        self.orders.values().filter(|own| own.stage != Stage::Leaving).count()
    }

    /// Orders of a market that are open or sent.
    pub fn live_in(&self, market: usize) -> impl Iterator<Item = (Cloid, &Own)> {
        self.orders
            .range((market, Cloid(0))..=(market, Cloid(u64::MAX)))
            .filter(|(_, own)| own.stage != Stage::Leaving)
            .map(|((_, cloid), own)| (*cloid, own))
    }
}

/// What a step sends.
pub(super) struct Outbox {
    height: Height,
    life: Height,
    expiry: Height,
    /// By account.
    ends: Vec<Vec<Action>>,
    placements: Vec<Vec<Terms>>,
    placed: usize,
    cancels: usize,
    pub stats: TrafficStats,
}

/// Bits of a client id that number the orders of a step.
const CLOID_BITS: u32 = 20;
const _: () = assert!(MAX_PLACED_PER_STEP < 1 << CLOID_BITS);

impl Outbox {
    pub fn new(height: Height, life: Height, expiry: Height, accounts: usize) -> Self {
        Self {
            height,
            life,
            expiry,
            ends: vec![Vec::new(); accounts],
            placements: vec![Vec::new(); accounts],
            placed: 0,
            cancels: 0,
            stats: TrafficStats::default(),
        }
    }

    pub const fn height(&self) -> Height {
        self.height
    }

    /// Until when what the step sends can be executed.
    pub const fn expiry(&self) -> Height {
        self.expiry
    }

    /// Places an order. `None`, and counted, if the step is full. Names are made of the height and the place in the
    /// step, so that not even a restarted client uses one twice.
    pub fn place(
        &mut self,
        account: usize,
        desk: &mut Desk,
        mut terms: Terms,
        level: Option<Level>,
    ) -> Option<Cloid> {
        if self.placed == MAX_PLACED_PER_STEP {
            self.stats.dropped += 1;
            return None;
        }
        let cloid = Cloid((self.height.0 << CLOID_BITS) | self.placed as u64);
        self.placed += 1;
        terms.cloid = Some(cloid);
        terms.good_til = Some(self.life);
        let market = usize::from(terms.market.0);
        let lots = terms.lots.0;
        desk.sums[market].count(terms.side, lots);
        let (seen, until, ending) = (false, self.expiry, self.expiry);
        let own = Own { terms, lots, stage: Stage::Sent, level, seen, until, ending };
        desk.orders.insert((market, cloid), own);
        self.placements[account].push(terms);
        Some(cloid)
    }

    /// Cancels an order that is open. `false` if it is not, or the step is full: try again in the next.
    pub fn cancel(&mut self, account: usize, desk: &mut Desk, market: usize, cloid: Cloid) -> bool {
        if self.cancels == MAX_CANCELS_PER_STEP {
            return false;
        }
        let Some(own) = desk.orders.get_mut(&(market, cloid)).filter(|own| own.stage == Stage::Open) else {
            return false;
        };
        (own.stage, own.level, own.ending) = (Stage::Leaving, None, self.expiry);
        self.cancels += 1;
        self.stats.cancelled += 1;
        self.ends[account].push(Action::Cancel { market: own.terms.market, order: Name::Cloid(cloid) });
        true
    }

    /// Cancels everything that an account has in a market, if it has anything.
    pub fn clear(&mut self, account: usize, desk: &mut Desk, market: usize) {
        let range = (market, Cloid(0))..=(market, Cloid(u64::MAX));
        let mut any = false;
        for (_, own) in desk.orders.range_mut(range) {
            if own.stage != Stage::Leaving {
                any = true;
                (own.stage, own.level, own.ending) = (Stage::Leaving, None, self.expiry);
            }
        }
        if any {
            self.stats.cleared += 1;
            let market = Some(MarketId(market as u16));
            self.ends[account].push(Action::CancelAll { market, keep_reduce_only: false });
        }
    }

    /// Everything to sign: by account, ends before placements. The flow signs up to `batch` orders at once, makers as
    /// many as an action can hold.
    pub fn submits(self, flow_accounts: usize, batch: usize) -> Vec<Submit> {
        let expiry = self.expiry;
        let mut submits = Vec::new();
        for (account, (ends, placements)) in self.ends.into_iter().zip(self.placements).enumerate() {
            let submit = |action| Submit { account, expiry, action };
            submits.extend(ends.into_iter().map(submit));
            let most = if account < flow_accounts { batch } else { MAX_ORDERS_PER_ACTION };
            submits.extend(placements.chunks(most).map(|orders| submit(Action::PlaceMany(orders.to_vec()))));
        }
        submits
    }
}

/// Lots as a number of an order.
pub(super) fn lots(lots: i128) -> Lots {
    Lots(i64::try_from(lots).unwrap_or(i64::MAX))
}
