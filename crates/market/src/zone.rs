//! The open orders of a zone's markets, and what one inbox does to them. The rules are in the documentation
//! of the crate.

use crate::{
    Cut, CutReason, End, EndReason, Fill, Inbox, InboxError, Kind, MarketOutcome, Name, OnCross, Order,
    OrderId, Outcome, Reference, Request, Slide, Terms,
    auction::{Clearing, allocate, clear, lottery},
    book::{Book, PriceLevel},
    limits::{MAX_ORDERS_PER_ACCOUNT, MAX_ORDERS_PER_MARKET},
};
use seawall_types::{
    AccountId, Height, Lots, MarketId, PriceTicks, Side,
    limits::{MAX_LOTS, MAX_MARKETS},
};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// What is fixed about a market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketParams {
    /// The smallest order that does not close a position: `1..=MAX_LOTS`.
    pub min_lots: Lots,
    /// Most orders that rest: `1..=MAX_ORDERS_PER_MARKET`.
    pub max_orders: usize,
}

/// What is fixed about a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Its markets.
    pub markets: BTreeMap<MarketId, MarketParams>,
    /// Most orders of an account that rest in one market, and most IOCs that it has in one auction:
    /// `1..=MAX_ORDERS_PER_ACCOUNT`.
    pub max_orders_per_account: usize,
}

/// Why parameters are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// More markets than a chain has.
    #[error("too many markets")]
    TooManyMarkets,
    /// A number is out of its range.
    #[error("market {0}: a parameter is out of its range")]
    Market(MarketId),
    /// The cap per account is out of its range.
    #[error("the cap of orders per account is out of its range")]
    AccountCap,
}

/// Why open orders are not those of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The parameters are refused.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// No zone of this height and these parameters holds this order beside those before it.
    #[error("order {0} cannot rest here")]
    Order(OrderId),
}

/// The lots at one price, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The price.
    pub price: PriceTicks,
    /// Open lots, of all orders. May exceed what one order can have.
    pub lots: Lots,
    /// How many orders.
    pub orders: usize,
}

/// The best levels of a market, for display. Orders that sit out are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// From the highest down.
    pub bids: Vec<Level>,
    /// From the lowest up.
    pub asks: Vec<Level>,
}

/// Open orders and the auctions over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    params: Params,
    height: Height,
    books: BTreeMap<MarketId, Book>,
}

impl Params {
    fn check(&self) -> Result<(), ParamsError> {
        if self.markets.len() > MAX_MARKETS {
            return Err(ParamsError::TooManyMarkets);
        }
        for (market, params) in &self.markets {
            if !(1..=MAX_LOTS).contains(&params.min_lots.0)
                || !(1..=MAX_ORDERS_PER_MARKET).contains(&params.max_orders)
            {
                return Err(ParamsError::Market(*market));
            }
        }
        if !(1..=MAX_ORDERS_PER_ACCOUNT).contains(&self.max_orders_per_account) {
            return Err(ParamsError::AccountCap);
        }
        Ok(())
    }
}

impl Zone {
    /// A zone without orders, before the first height.
    pub fn new(params: Params) -> Result<Self, ParamsError> {
        params.check()?;
        let books = params.markets.keys().map(|market| (*market, Book::default())).collect();
        Ok(Self { params, height: Height(0), books })
    }

    /// The zone that has these open orders after this height, whatever their sequence. Equal to the zone that
    /// they were taken from.
    pub fn from_orders(
        params: Params,
        height: Height,
        orders: impl IntoIterator<Item = Order>,
    ) -> Result<Self, RestoreError> {
        let mut zone = Self::new(params)?;
        zone.height = height;
        let mut ids = BTreeSet::new();
        for order in orders {
            let Order { id, account, terms } = order;
            let refused = RestoreError::Order(id);
            let (Some(book), Some(params)) =
                (zone.books.get_mut(&terms.market), zone.params.markets.get(&terms.market))
            else {
                return Err(refused);
            };
            let named = |cloid| book.find(account, Name::Cloid(cloid)).is_some();
            let rests = terms.is_valid()
                && !terms.kind.is_immediate()
                && id.height <= height
                && terms.good_til.is_none_or(|good_til| good_til >= height)
                && book.len() < params.max_orders
                && book.count(account) < zone.params.max_orders_per_account
                && !terms.cloid.is_some_and(named);
            if !rests || !ids.insert(id) {
                return Err(refused);
            }
            book.hold(order);
            book.list(id, terms.limit);
        }
        Ok(zone)
    }

    /// What is fixed about it.
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// The height of the last inbox; 0 before the first.
    pub const fn height(&self) -> Height {
        self.height
    }

    /// Every open order, by market and id.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.books.values().flat_map(Book::orders)
    }

    /// An open order.
    pub fn order(&self, market: MarketId, id: OrderId) -> Option<&Order> {
        self.books.get(&market)?.get(id)
    }

    /// The open orders of an account in one market, oldest first.
    pub fn orders_of(&self, market: MarketId, account: AccountId) -> impl Iterator<Item = &Order> {
        self.books.get(&market).into_iter().flat_map(move |book| book.of(account))
    }

    /// The best price levels of a market, at most `depth` on either side.
    pub fn levels(&self, market: MarketId, depth: usize) -> Option<Levels> {
        let book = self.books.get(&market)?;
        let level = |(price, level): (&PriceTicks, &PriceLevel)| Level {
            price: *price,
            lots: level.lots,
            orders: level.queue.len(),
        };
        Some(Levels {
            bids: book.side(Side::Buy).iter().rev().take(depth).map(level).collect(),
            asks: book.side(Side::Sell).iter().take(depth).map(level).collect(),
        })
    }

    /// Price and volume of an auction if it were held at this reference over the orders that rest now. `None`
    /// if nothing would trade, which is the rule unless the market had no auction, or the band has moved.
    pub fn indicative(&self, market: MarketId, reference: &Reference) -> Option<(PriceTicks, Lots)> {
        let book = self.books.get(&market).filter(|_| reference.is_valid())?;
        clear(book, reference).map(|clearing| (clearing.price, clearing.volume))
    }

    /// Does what the inbox says, and holds its auctions.
    ///
    /// An inbox that settlement could not have made is refused as a whole, and the zone is unchanged. Anything
    /// that an account may have asked for is answered in the outcome.
    pub fn apply(&mut self, inbox: &Inbox) -> Result<Outcome, InboxError> {
        if inbox.height <= self.height {
            return Err(InboxError::Height { height: inbox.height, applied: self.height });
        }
        inbox.check()?;
        let named = inbox.references.keys().copied();
        for market in named.chain(inbox.entries.values().filter_map(|entry| entry.request.market())) {
            if !self.books.contains_key(&market) {
                return Err(InboxError::UnknownMarket(market));
            }
        }

        self.height = inbox.height;
        let cap = self.params.max_orders_per_account;
        let mut rounds: BTreeMap<MarketId, Round> = BTreeMap::new();
        for (market, book) in &mut self.books {
            if let Some(params) = self.params.markets.get(market) {
                let mut round = Round::new(book, *params, cap, inbox);
                round.expire();
                rounds.insert(*market, round);
            }
        }
        for (index, entry) in &inbox.entries {
            let id = OrderId { height: inbox.height, index: *index };
            match entry.request.market() {
                Some(market) => {
                    if let Some(round) = rounds.get_mut(&market) {
                        round.enter(id, entry.account, &entry.request);
                    }
                }
                None => {
                    rounds.values_mut().for_each(|round| round.enter(id, entry.account, &entry.request));
                }
            }
        }
        let markets = rounds
            .into_iter()
            .map(|(market, round)| round.close(market, inbox.references.get(&market)))
            .filter(|outcome| outcome.records() > 0)
            .collect();
        Ok(Outcome { height: inbox.height, part: 0, last: true, markets })
    }
}

/// One market at one height.
struct Round<'a> {
    book: &'a mut Book,
    params: MarketParams,
    cap: usize,
    height: Height,
    salt: &'a [u8; 32],
    /// Orders of this inbox that are in the book, not listed yet.
    fresh: BTreeSet<OrderId>,
    fills: BTreeMap<OrderId, Fill>,
    cuts: BTreeMap<(OrderId, CutReason), Lots>,
    ends: BTreeMap<OrderId, End>,
    slides: BTreeMap<OrderId, PriceTicks>,
}

impl<'a> Round<'a> {
    const fn new(book: &'a mut Book, params: MarketParams, cap: usize, inbox: &'a Inbox) -> Self {
        Self {
            book,
            params,
            cap,
            height: inbox.height,
            salt: &inbox.salt,
            fresh: BTreeSet::new(),
            fills: BTreeMap::new(),
            cuts: BTreeMap::new(),
            ends: BTreeMap::new(),
            slides: BTreeMap::new(),
        }
    }

    /// An id that is not in the book ends.
    fn note(&mut self, order: OrderId, reason: EndReason, lots: Lots) {
        let before = self.ends.insert(order, End { order, reason, lots });
        debug_assert!(before.is_none(), "order {order} ends twice");
    }

    /// An order of the book ends.
    fn end(&mut self, id: OrderId, reason: EndReason) {
        if let Some(order) = self.book.remove(id) {
            self.fresh.remove(&id);
            self.note(id, reason, order.terms.lots);
        }
    }

    /// An order loses lots; with all of them it ends.
    fn cut(&mut self, id: OrderId, lots: Lots, reason: CutReason, end: EndReason) {
        let Some(open) = self.book.get(id).map(|order| order.terms.lots) else { return };
        if lots >= open {
            self.end(id, end);
        } else if lots > Lots::ZERO {
            self.book.take(id, lots);
            *self.cuts.entry((id, reason)).or_default() += lots;
        }
    }

    fn expire(&mut self) {
        while let Some(id) = self.book.expired(self.height) {
            self.end(id, EndReason::Expired);
        }
    }

    /// The account's order of this name, unless it is a liquidation close.
    fn find(&self, account: AccountId, name: Name) -> Option<Order> {
        self.book.find(account, name).filter(|order| order.terms.kind != Kind::Liquidation).copied()
    }

    fn enter(&mut self, id: OrderId, account: AccountId, request: &Request) {
        match *request {
            Request::Place(terms) => self.place(Order { id, account, terms }),
            Request::Cancel { order, .. } => {
                if let Some(order) = self.find(account, order) {
                    self.end(order.id, EndReason::Cancelled);
                }
            }
            Request::CancelAll { keep_reduce_only, .. } => {
                let leaves = |order: &&Order| {
                    order.terms.kind != Kind::Liquidation && !(keep_reduce_only && order.terms.reduce_only)
                };
                let ids: Vec<_> = self.book.of(account).filter(leaves).map(|order| order.id).collect();
                ids.into_iter().for_each(|id| self.end(id, EndReason::Cancelled));
            }
            Request::Modify { order, limit, lots, .. } => {
                let Some(old) = self.find(account, order) else {
                    return self.note(id, EndReason::NotFound, lots);
                };
                if lots < self.params.min_lots && !old.terms.closes() {
                    self.note(id, EndReason::BelowMinimum, lots);
                } else if limit == old.terms.limit && lots <= old.terms.lots {
                    self.note(id, EndReason::Merged, lots);
                    self.cut(old.id, old.terms.lots - lots, CutReason::Modified, EndReason::Cancelled);
                } else {
                    self.end(old.id, EndReason::Replaced);
                    self.place(Order { id, account, terms: Terms { limit, lots, ..old.terms } });
                }
            }
            Request::Reduce { order, by, .. } => {
                if let Some(order) = self.find(account, Name::Id(order)) {
                    self.cut(order.id, by, CutReason::Reduced, EndReason::Reduced);
                }
            }
        }
    }

    /// How many orders the account has that count for the same cap as one of this kind: those that rest, or
    /// the IOCs of this inbox.
    fn alike(&self, account: AccountId, kind: Kind) -> usize {
        let new = self.book.of(account).rev().take_while(|order| order.id.height == self.height);
        match kind {
            Kind::Liquidation => 0,
            Kind::Ioc => new.filter(|order| order.terms.kind == Kind::Ioc).count(),
            Kind::Limit | Kind::PostOnly(_) => {
                self.book.count(account) - new.filter(|order| order.terms.kind.is_immediate()).count()
            }
        }
    }

    fn place(&mut self, order: Order) {
        let Order { id, account, terms } = order;
        let named = |cloid| self.book.find(account, Name::Cloid(cloid)).is_some();
        let refused = if terms.good_til.is_some_and(|good_til| good_til < self.height) {
            Some(EndReason::Expired)
        } else if terms.lots < self.params.min_lots && !terms.closes() {
            Some(EndReason::BelowMinimum)
        } else if self.alike(account, terms.kind) >= self.cap {
            Some(EndReason::TooManyOpen)
        } else if terms.cloid.is_some_and(named) {
            Some(EndReason::DuplicateCloid)
        } else {
            None
        };
        match refused {
            Some(reason) => self.note(id, reason, terms.lots),
            None => {
                self.book.hold(order);
                self.fresh.insert(id);
            }
        }
    }

    /// The best carried-over order of a side that takes part: new ones are not listed yet.
    fn best(&self, side: Side, reference: Option<&Reference>) -> Option<PriceTicks> {
        let levels = self.book.side(side);
        let mut inside = match reference {
            Some(Reference { band, .. }) => levels.range(band.low..=band.high),
            None => levels.range(..),
        };
        let level = match side {
            Side::Buy => inside.next_back(),
            Side::Sell => inside.next(),
        };
        level.map(|(price, _)| *price)
    }

    fn fresh_orders(&self) -> Vec<Order> {
        self.fresh.iter().filter_map(|id| self.book.get(*id)).copied().collect()
    }

    /// Cancels or slides new post-only orders that would take.
    fn judge_post_only(&mut self, reference: Option<&Reference>, limits: &mut BTreeMap<OrderId, PriceTicks>) {
        let (bid, ask) = (self.best(Side::Buy, reference), self.best(Side::Sell, reference));
        for Order { id, terms, .. } in self.fresh_orders() {
            let Kind::PostOnly(on_cross) = terms.kind else { continue };
            let best = match terms.side {
                Side::Buy => ask,
                Side::Sell => bid,
            };
            let Some(best) = best.filter(|best| terms.accepts(*best)) else { continue };
            let behind = match terms.side {
                Side::Buy => best.0 - 1,
                Side::Sell => best.0 + 1,
            };
            let slid = PriceTicks(behind);
            if on_cross == OnCross::Slide && (Terms { limit: slid, ..terms }).is_valid() {
                limits.insert(id, slid);
            } else {
                self.end(id, EndReason::PostOnlyWouldTake);
            }
        }
    }

    /// Draws the new resting orders that the book has no room for.
    fn make_room(&mut self) {
        let fresh = self.fresh_orders();
        let room = self.params.max_orders.saturating_sub(self.book.len() - fresh.len());
        let mut resting: Vec<_> = fresh.iter().filter(|order| !order.terms.kind.is_immediate()).collect();
        if resting.len() > room {
            resting.sort_unstable_by_key(|order| {
                (!order.terms.reduce_only, lottery(self.salt, order.id), order.id)
            });
            for order in &resting[room..] {
                self.end(order.id, EndReason::MarketFull);
            }
        }
    }

    fn close(mut self, market: MarketId, reference: Option<&Reference>) -> MarketOutcome {
        let mut limits = BTreeMap::new();
        self.judge_post_only(reference, &mut limits);
        self.make_room();
        // Accounts that may cross themselves: those with a new order, and if what was carried over crosses
        // (the band has moved, or there was no auction), those whose bids do.
        let mut suspects: BTreeSet<AccountId> =
            self.fresh_orders().iter().map(|order| order.account).collect();
        if let Some(reference) = reference
            && let (Some(bid), Some(ask)) =
                (self.best(Side::Buy, Some(reference)), self.best(Side::Sell, Some(reference)))
            && ask <= bid
        {
            let crossing = self.book.side(Side::Buy).range(ask..=bid).flat_map(|(_, level)| &level.queue);
            suspects.extend(crossing.filter_map(|(_, id)| self.book.get(*id)).map(|order| order.account));
        }
        for Order { id, terms, .. } in self.fresh_orders() {
            if !terms.kind.is_immediate() {
                let slid = limits.get(&id).copied();
                self.book.list(id, slid.unwrap_or(terms.limit));
                self.slides.extend(slid.map(|limit| (id, limit)));
            } else if let Some(limit) = reference.and_then(|reference| tightened(&terms, reference)) {
                self.book.list(id, limit);
            } else {
                self.end(id, EndReason::IocRemainder);
            }
        }
        let mut price = None;
        if let Some(reference) = reference {
            suspects.into_iter().for_each(|account| self.uncross(account, reference));
            if let Some(clearing) = clear(self.book, reference) {
                price = Some(clearing.price);
                self.trade(clearing, reference);
            }
        }
        for Order { id, terms, .. } in self.fresh_orders() {
            if terms.kind.is_immediate() {
                self.end(id, EndReason::IocRemainder);
            }
        }
        MarketOutcome {
            market,
            price,
            fills: self.fills.into_values().collect(),
            cuts: self.cuts.into_iter().map(|((order, reason), lots)| Cut { order, reason, lots }).collect(),
            ends: self.ends.into_values().collect(),
            slides: self.slides.into_iter().map(|(order, limit)| Slide { order, limit }).collect(),
        }
    }

    /// Cancels what of an account's orders crosses other orders of it.
    fn uncross(&mut self, account: AccountId, reference: &Reference) {
        let takes_part = |order: &&Order| reference.band.contains(order.terms.limit);
        let own: Vec<Order> = self.book.of(account).rev().filter(takes_part).copied().collect();
        let (closes, own): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|order| order.terms.kind == Kind::Liquidation);
        let (yields, mut own): (Vec<_>, Vec<_>) =
            own.into_iter().partition(|order| closes.iter().any(|close| close.crosses(order)));
        for order in yields {
            self.end(order.id, EndReason::SelfCross);
        }
        let limits = |side: Side| own.iter().filter(move |order| order.terms.side == side);
        let best_bid = limits(Side::Buy).map(|order| order.terms.limit).max();
        let best_ask = limits(Side::Sell).map(|order| order.terms.limit).min();
        let mut lost: BTreeMap<OrderId, Lots> = BTreeMap::new();
        for newer in 0..own.len() {
            let best = match own[newer].terms.side {
                Side::Buy => best_ask,
                Side::Sell => best_bid,
            };
            if !best.is_some_and(|best| own[newer].terms.accepts(best)) {
                continue;
            }
            for older in newer + 1..own.len() {
                if own[newer].terms.lots == Lots::ZERO {
                    break;
                }
                if own[newer].crosses(&own[older]) {
                    let lots = own[newer].terms.lots.min(own[older].terms.lots);
                    for at in [newer, older] {
                        own[at].terms.lots -= lots;
                        *lost.entry(own[at].id).or_default() += lots;
                    }
                }
            }
        }
        for (id, lots) in lost {
            self.cut(id, lots, CutReason::SelfCross, EndReason::SelfCross);
        }
    }

    fn trade(&mut self, clearing: Clearing, reference: &Reference) {
        for side in [Side::Buy, Side::Sell] {
            for (id, lots) in allocate(self.book, side, reference.band, clearing, self.salt) {
                let Some(order) = self.book.get(id) else { continue };
                let (account, open) = (order.account, order.terms.lots);
                let maker = id.height < self.height;
                self.fills.insert(id, Fill { order: id, account, side, lots, maker });
                self.book.take(id, lots);
                if lots == open {
                    self.end(id, EndReason::Filled);
                }
            }
        }
    }
}

/// The limit of an immediate order inside the band; `None` if it cannot trade there.
fn tightened(terms: &Terms, reference: &Reference) -> Option<PriceTicks> {
    let band = reference.band;
    match terms.side {
        Side::Buy => Some(terms.limit.min(band.high)).filter(|limit| *limit >= band.low),
        Side::Sell => Some(terms.limit.max(band.low)).filter(|limit| *limit <= band.high),
    }
}
