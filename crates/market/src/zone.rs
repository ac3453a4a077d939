//! The open orders of a zone's markets, and what one inbox does to them. The rules are in the documentation
//! of the crate.

use crate::{
    Band, Cut, CutReason, End, EndReason, Fill, Inbox, InboxError, Kind, MarketOutcome, Name, OnCross, Order,
    OrderId, Outcome, Reference, Request, Slide, Terms,
    auction::{Clearing, allocate, clear, lottery},
    book::{At, Book, Owned, OwnerNumber, PriceLevel, Reach},
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
        let mut accepted = Vec::new();
        let mut ids = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut of_market: BTreeMap<MarketId, usize> = BTreeMap::new();
        let mut of_account: BTreeMap<(MarketId, AccountId), usize> = BTreeMap::new();
        for order in orders {
            let Order { id, account, terms } = order;
            let refused = RestoreError::Order(id);
            let Some(params) = zone.params.markets.get(&terms.market) else { return Err(refused) };
            let in_market = of_market.entry(terms.market).or_default();
            let own = of_account.entry((terms.market, account)).or_default();
            let rests = terms.is_valid()
                && !terms.kind.is_immediate()
                && id.height <= height
                && terms.good_til.is_none_or(|good_til| good_til >= height)
                && *in_market < params.max_orders
                && *own < zone.params.max_orders_per_account
                && terms.cloid.is_none_or(|cloid| names.insert((terms.market, account, cloid)));
            if !rests || !ids.insert(id) {
                return Err(refused);
            }
            *in_market += 1;
            *own += 1;
            accepted.push(order);
        }
        // The book grows at its end, so in the order in which the orders arrived.
        accepted.sort_unstable_by_key(|order| order.id);
        for order in accepted {
            if let Some(book) = zone.books.get_mut(&order.terms.market) {
                let owner = book.owner(order.account);
                book.hold(order, owner);
            }
        }
        for book in zone.books.values_mut() {
            book.list(|_, _, order| Some(order.terms.limit));
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

    /// Every open order, by market and id, for which they are sorted.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.books.values().flat_map(Book::orders)
    }

    /// An open order, for which all of its market are looked through.
    pub fn order(&self, market: MarketId, id: OrderId) -> Option<&Order> {
        self.books.get(&market)?.get(id)
    }

    /// The open orders of an account in one market, oldest first.
    pub fn orders_of(&self, market: MarketId, account: AccountId) -> impl Iterator<Item = &Order> {
        let book = self.books.get(&market).and_then(|book| Some((book, book.owner(account)?)));
        book.into_iter().flat_map(|(book, owner)| book.of(owner).iter().map(|own| book.order(own.at())))
    }

    /// The best price levels of a market, at most `depth` on either side.
    pub fn levels(&self, market: MarketId, depth: usize) -> Option<Levels> {
        let book = self.books.get(&market)?;
        let level = |(price, level): (PriceTicks, &PriceLevel)| Level {
            price,
            lots: level.lots,
            orders: level.len(),
        };
        Some(Levels {
            bids: book.levels(Side::Buy, None).rev().take(depth).map(level).collect(),
            asks: book.levels(Side::Sell, None).take(depth).map(level).collect(),
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
    /// Some orders that came in with this inbox are post-only.
    judges: bool,
    fills: Vec<Fill>,
    cuts: BTreeMap<(OrderId, CutReason), Lots>,
    ends: Vec<End>,
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
            judges: false,
            fills: Vec::new(),
            cuts: BTreeMap::new(),
            ends: Vec::new(),
            slides: BTreeMap::new(),
        }
    }

    /// An id that is not in the book ends.
    fn note(&mut self, order: OrderId, reason: EndReason, lots: Lots) {
        self.ends.push(End { order, reason, lots });
    }

    /// An order of the book ends.
    fn end(&mut self, at: At, reason: EndReason) {
        let (id, lots) = self.book.remove(at);
        self.note(id, reason, lots);
    }

    /// An order loses lots; with all of them it ends.
    fn cut(&mut self, at: At, lots: Lots, reason: CutReason, end: EndReason) {
        let Order { id, terms, .. } = *self.book.order(at);
        if lots >= terms.lots {
            self.end(at, end);
        } else if lots > Lots::ZERO {
            self.book.take(at, lots);
            *self.cuts.entry((id, reason)).or_default() += lots;
        }
    }

    fn expire(&mut self) {
        while let Some(at) = self.book.expired(self.height) {
            self.end(at, EndReason::Expired);
        }
    }

    /// The account's order of this name, unless it is a liquidation close.
    fn find(&self, account: AccountId, name: Name) -> Option<At> {
        let at = self.book.find(self.book.owner(account)?, name)?;
        Some(at).filter(|at| self.book.order(*at).terms.kind != Kind::Liquidation)
    }

    fn enter(&mut self, id: OrderId, account: AccountId, request: &Request) {
        match *request {
            Request::Place(terms) => self.place(Order { id, account, terms }),
            Request::Cancel { order, .. } => {
                if let Some(at) = self.find(account, order) {
                    self.end(at, EndReason::Cancelled);
                }
            }
            Request::CancelAll { keep_reduce_only, .. } => {
                let Some(owner) = self.book.owner(account) else { return };
                let leaves = |at: &At| {
                    let terms = &self.book.order(*at).terms;
                    terms.kind != Kind::Liquidation && !(keep_reduce_only && terms.reduce_only)
                };
                // Newest first, so that those that are left do not move up once for each.
                let own = self.book.of(owner).iter().rev().map(Owned::at);
                let leaving: Vec<_> = own.filter(leaves).collect();
                leaving.into_iter().for_each(|at| self.end(at, EndReason::Cancelled));
            }
            Request::Modify { order, limit, lots, .. } => {
                let Some(at) = self.find(account, order) else {
                    return self.note(id, EndReason::NotFound, lots);
                };
                let old = self.book.order(at).terms;
                if lots < self.params.min_lots && !old.closes() {
                    self.note(id, EndReason::BelowMinimum, lots);
                } else if limit == old.limit && lots <= old.lots {
                    self.note(id, EndReason::Merged, lots);
                    self.cut(at, old.lots - lots, CutReason::Modified, EndReason::Cancelled);
                } else {
                    self.end(at, EndReason::Replaced);
                    self.place(Order { id, account, terms: Terms { limit, lots, ..old } });
                }
            }
            Request::Reduce { order, by, .. } => {
                if let Some(at) = self.find(account, Name::Id(order)) {
                    self.cut(at, by, CutReason::Reduced, EndReason::Reduced);
                }
            }
        }
    }

    fn place(&mut self, order: Order) {
        let Order { id, account, terms } = order;
        let owner = self.book.owner(account);
        let alike = owner.map_or(0, |owner| self.book.alike(owner, terms.kind));
        let named = |cloid| owner.is_some_and(|owner| self.book.find(owner, Name::Cloid(cloid)).is_some());
        let refused = if terms.good_til.is_some_and(|good_til| good_til < self.height) {
            Some(EndReason::Expired)
        } else if terms.lots < self.params.min_lots && !terms.closes() {
            Some(EndReason::BelowMinimum)
        } else if alike >= self.cap {
            Some(EndReason::TooManyOpen)
        } else if terms.cloid.is_some_and(named) {
            Some(EndReason::DuplicateCloid)
        } else {
            None
        };
        match refused {
            Some(reason) => self.note(id, reason, terms.lots),
            None => {
                self.book.hold(order, owner);
                self.judges |= matches!(terms.kind, Kind::PostOnly(_));
            }
        }
    }

    /// The best listed order of a side that takes part. Before new ones are listed, of what was carried over.
    fn best(&self, side: Side, reference: Option<&Reference>) -> Option<PriceTicks> {
        let mut inside = self.book.levels(side, reference.map(|reference| reference.band));
        let level = match side {
            Side::Buy => inside.next_back(),
            Side::Sell => inside.next(),
        };
        level.map(|(price, _)| price)
    }

    /// Cancels or slides new post-only orders that would take.
    fn judge_post_only(&mut self, reference: Option<&Reference>) {
        if !self.judges {
            return;
        }
        let (bid, ask) = (self.best(Side::Buy, reference), self.best(Side::Sell, reference));
        let waiting: Vec<_> = self.book.waiting().collect();
        for at in waiting {
            let Order { id, terms, .. } = *self.book.order(at);
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
                self.slides.insert(id, slid);
            } else {
                self.end(at, EndReason::PostOnlyWouldTake);
            }
        }
    }

    /// Draws the new resting orders that the book has no room for.
    fn make_room(&mut self) {
        if self.book.len() <= self.params.max_orders {
            return;
        }
        let mut fresh: Vec<_> = self.book.waiting().collect();
        let room = self.params.max_orders.saturating_sub(self.book.len() - fresh.len());
        fresh.retain(|at| !self.book.order(*at).terms.kind.is_immediate());
        if fresh.len() > room {
            fresh.sort_by_cached_key(|at| {
                let Order { id, terms, .. } = self.book.order(*at);
                (!terms.reduce_only, lottery(self.salt, *id), *id)
            });
            for at in fresh.drain(room..) {
                let id = self.book.order(at).id;
                self.slides.remove(&id);
                self.end(at, EndReason::MarketFull);
            }
        }
    }

    /// Lists the new orders that take part, and ends immediate ones that cannot.
    fn list(&mut self, reference: Option<&Reference>) -> Listed {
        let mut listed = Listed::default();
        let slides = &self.slides;
        self.book.list(|at, owner, Order { id, terms, .. }| {
            let immediate = terms.kind.is_immediate();
            let limit = if immediate {
                tightened(terms, reference?)?
            } else if slides.is_empty() {
                terms.limit
            } else {
                slides.get(id).copied().unwrap_or(terms.limit)
            };
            if immediate {
                listed.immediate.push(at);
            }
            if reference.is_some_and(|reference| reference.band.contains(limit)) {
                listed.inside.push((owner, Reach::new(terms.side, limit)));
            }
            Some(limit)
        });
        let left: Vec<_> = self.book.waiting().collect();
        left.into_iter().rev().for_each(|at| self.end(at, EndReason::IocRemainder));
        listed
    }

    fn close(mut self, market: MarketId, reference: Option<&Reference>) -> MarketOutcome {
        self.judge_post_only(reference);
        self.make_room();
        let carried = [Side::Buy, Side::Sell].map(|side| self.best(side, reference));
        let listed = self.list(reference);
        let mut price = None;
        if let Some(reference) = reference {
            for owner in self.suspects(&listed.inside, carried, reference) {
                self.uncross(owner, reference);
            }
            if let Some(clearing) = clear(self.book, reference) {
                price = Some(clearing.price);
                self.trade(clearing, reference);
            }
        }
        for at in listed.immediate {
            if self.book.is_open(at) {
                self.end(at, EndReason::IocRemainder);
            }
        }
        let Self { mut fills, cuts, mut ends, slides, .. } = self;
        sort_by_id(&mut fills, |fill| fill.order);
        sort_by_id(&mut ends, |end| end.order);
        debug_assert!(ends.is_sorted_by(|one, other| one.order < other.order), "an order ends twice");
        MarketOutcome {
            market,
            price,
            fills,
            cuts: cuts.into_iter().map(|((order, reason), lots)| Cut { order, reason, lots }).collect(),
            ends,
            slides: slides.into_iter().map(|(order, limit)| Slide { order, limit }).collect(),
        }
    }

    /// Accounts that may cross themselves, in no order that matters. `new` are the new orders inside the band, `carried`
    /// the best bid and ask that were carried over.
    ///
    /// Who crosses itself with a new order reaches what was carried over, or another new order of its own. If what was
    /// carried over crosses (the band has moved, or there was no auction), everybody with bids there is one, too.
    fn suspects(
        &self,
        new: &[(OwnerNumber, Reach)],
        carried: [Option<PriceTicks>; 2],
        reference: &Reference,
    ) -> Vec<OwnerNumber> {
        let [bid, ask] = carried;
        let best = Best::of(new.iter().map(|(_, reach)| *reach));
        // Who reaches what was carried over, and who reaches somebody's new order.
        let (mut far, mut near) = (Vec::new(), Vec::new());
        for (owner, reach) in new {
            let reaches = |bid: Option<PriceTicks>, ask: Option<PriceTicks>| match reach.side() {
                Side::Buy => ask.is_some_and(|ask| ask <= reach.limit()),
                Side::Sell => bid.is_some_and(|bid| reach.limit() <= bid),
            };
            if reaches(bid, ask) {
                far.push(*owner);
            } else if reaches(best.bid, best.ask) {
                near.push(*owner);
            }
        }
        near.sort_unstable();
        near.dedup();
        far.extend(near.into_iter().filter(|owner| {
            let own = self.book.of(*owner).iter().rev();
            let new = own.take_while(|own| own.id().height == self.height);
            Best::of(inside(new, reference)).crossing().is_some()
        }));
        if let (Some(bid), Some(ask)) = (bid, ask)
            && ask <= bid
        {
            let crossing = self.book.levels(Side::Buy, Some(Band { low: ask, high: bid }));
            let crossing = crossing.flat_map(|(_, level)| level.queue());
            far.extend(crossing.map(|at| self.book.owner_of(at)));
        }
        far.sort_unstable();
        far.dedup();
        far
    }

    /// Cancels what of an account's orders crosses other orders of it.
    fn uncross(&mut self, owner: OwnerNumber, reference: &Reference) {
        let own = self.book.of(owner);
        let Some((ask, bid)) = Best::of(inside(own.iter(), reference)).crossing() else { return };
        // Its orders that reach the best of its other side, newest first. Nothing else of it crosses anything.
        let mut sides: [Vec<Own>; 2] = [Vec::new(), Vec::new()];
        // The best limits of its liquidation closes.
        let mut closes = Best::default();
        for owned in own.iter().rev().filter(|own| reference.band.contains(own.reach().limit())) {
            let (reach, id, at) = (owned.reach(), owned.id(), owned.at());
            let limit = reach.limit();
            let reaches = match reach.side() {
                Side::Buy => limit >= ask,
                Side::Sell => limit <= bid,
            };
            if !reaches {
                continue;
            }
            let Terms { side, kind, lots, .. } = self.book.order(at).terms;
            if kind == Kind::Liquidation {
                closes.add(reach);
            } else {
                sides[usize::from(side == Side::Sell)].push(Own { id, at, limit, open: lots, lots });
            }
        }
        let [bids, asks] = &mut sides;
        let mut yields = |own: &mut Vec<Own>, crosses: &dyn Fn(PriceTicks) -> bool| {
            own.retain(|own| {
                let crosses = crosses(own.limit);
                if crosses {
                    self.end(own.at, EndReason::SelfCross);
                }
                !crosses
            });
        };
        yields(bids, &|limit| closes.ask.is_some_and(|close| close <= limit));
        yields(asks, &|limit| closes.bid.is_some_and(|close| limit <= close));
        let (mut bid, mut ask) = (0, 0);
        while let (Some(newest_bid), Some(newest_ask)) = (bids.get_mut(bid), asks.get_mut(ask)) {
            if newest_bid.lots == Lots::ZERO {
                bid += 1;
            } else if newest_ask.lots == Lots::ZERO {
                ask += 1;
            } else if newest_bid.id > newest_ask.id {
                newest_bid.set_against(&mut asks[ask..], |bid, ask| ask <= bid);
                bid += 1;
            } else {
                newest_ask.set_against(&mut bids[bid..], |ask, bid| ask <= bid);
                ask += 1;
            }
        }
        for own in sides.into_iter().flatten() {
            let lost = own.open - own.lots;
            if lost > Lots::ZERO {
                self.cut(own.at, lost, CutReason::SelfCross, EndReason::SelfCross);
            }
        }
    }

    fn trade(&mut self, clearing: Clearing, reference: &Reference) {
        for side in [Side::Buy, Side::Sell] {
            for (at, lots) in allocate(self.book, side, reference.band, clearing, self.salt) {
                let Order { id, account, terms } = *self.book.order(at);
                let maker = id.height < self.height;
                self.fills.push(Fill { order: id, account, side, lots, maker });
                self.book.take(at, lots);
                if lots == terms.lots {
                    self.end(at, EndReason::Filled);
                }
            }
        }
    }
}

/// What a round has listed.
#[derive(Default)]
struct Listed {
    /// Immediate orders, by ascending id.
    immediate: Vec<At>,
    /// Orders inside the band: whose they are, and how far they reach.
    inside: Vec<(OwnerNumber, Reach)>,
}

/// Sorts records by the ids that they have, none twice.
///
/// What is sorted is one small integer for each record: its height above the least, then its index, then its place.
/// Where the heights are too far apart for that, the records are sorted themselves.
fn sort_by_id<T: Copy>(records: &mut Vec<T>, id: impl Fn(&T) -> OrderId) {
    let heights = || records.iter().map(|record| id(record).height.0);
    let (Some(least), Some(most)) = (heights().min(), heights().max()) else { return };
    if most - least > u64::from(u32::MAX) {
        return records.sort_unstable_by_key(id);
    }
    let key = |record: &T| (id(record).height.0 - least) << 32 | u64::from(id(record).index);
    let mut places: Vec<(u64, u32)> =
        records.iter().zip(0..).map(|(record, place)| (key(record), place)).collect();
    places.sort_unstable_by_key(|(key, _)| *key);
    *records = places.into_iter().map(|(_, place)| records[place as usize]).collect();
}

/// An order of an account that may cross others of it.
struct Own {
    id: OrderId,
    at: At,
    limit: PriceTicks,
    /// Lots that it had, and those that are left.
    open: Lots,
    lots: Lots,
}

impl Own {
    /// Sets it against older orders of the other side, newest first, that it crosses.
    fn set_against(&mut self, older: &mut [Self], crosses: impl Fn(PriceTicks, PriceTicks) -> bool) {
        for other in older {
            if self.lots == Lots::ZERO {
                break;
            }
            if crosses(self.limit, other.limit) {
                let lots = self.lots.min(other.lots);
                self.lots -= lots;
                other.lots -= lots;
            }
        }
    }
}

/// The best limits of some orders.
#[derive(Clone, Copy, Default)]
struct Best {
    bid: Option<PriceTicks>,
    ask: Option<PriceTicks>,
}

impl Best {
    fn of(orders: impl Iterator<Item = Reach>) -> Self {
        let mut best = Self::default();
        orders.for_each(|reach| best.add(reach));
        best
    }

    fn add(&mut self, reach: Reach) {
        let limit = reach.limit();
        match reach.side() {
            Side::Buy => self.bid = self.bid.max(Some(limit)),
            Side::Sell => self.ask = Some(self.ask.map_or(limit, |ask| ask.min(limit))),
        }
    }

    /// Ask and bid, if they cross.
    fn crossing(self) -> Option<(PriceTicks, PriceTicks)> {
        self.ask.zip(self.bid).filter(|(ask, bid)| ask <= bid)
    }
}

/// Those of an account's orders that take part.
fn inside<'a>(orders: impl Iterator<Item = &'a Owned>, reference: &Reference) -> impl Iterator<Item = Reach> {
    orders.map(Owned::reach).filter(|reach| reference.band.contains(reach.limit()))
}

/// The limit of an immediate order inside the band; `None` if it cannot trade there.
fn tightened(terms: &Terms, reference: &Reference) -> Option<PriceTicks> {
    let band = reference.band;
    match terms.side {
        Side::Buy => Some(terms.limit.min(band.high)).filter(|limit| *limit >= band.low),
        Side::Sell => Some(terms.limit.max(band.low)).filter(|limit| *limit <= band.high),
    }
}
