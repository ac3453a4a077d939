//! The open orders of a zone's markets, and what one inbox does to them. The rules are in the documentation
//! of the crate.

use crate::{
    Band, Cut, CutReason, End, EndReason, Fill, Inbox, InboxError, Kind, MarketOutcome, Name, OnCross, Order,
    OrderId, Outcome, Reference, Request, Slide, Terms,
    auction::{Clearing, allocate, clear, lottery},
    book::{At, Book, Found, Owned, OwnerNumber, PriceLevel, Reach},
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
                book.hold(order.id, order.account, &order.terms, owner);
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
        let unknown = |market: &MarketId| !self.books.contains_key(market);
        let (mut last, mut wrong) = (None, inbox.references.keys().copied().find(unknown));
        let mut entries = Vec::with_capacity(inbox.entries.len());
        inbox.check_and(|index, entry| {
            entries.push((index, entry));
            let market = entry.request.market();
            if market != last {
                wrong = wrong.or(market.filter(unknown));
                last = market;
            }
        })?;
        if let Some(market) = wrong {
            return Err(InboxError::UnknownMarket(market));
        }

        self.height = inbox.height;
        let cap = self.params.max_orders_per_account;
        let mut rounds: Vec<(MarketId, Round)> = Vec::new();
        for (market, book) in &mut self.books {
            if let Some(params) = self.params.markets.get(market) {
                let mut round = Round::new(book, *params, cap, inbox);
                round.expire();
                rounds.push((*market, round));
            }
        }
        for (index, entry) in entries {
            let id = OrderId { height: inbox.height, index };
            match entry.request.market() {
                Some(market) => {
                    if let Ok(place) = rounds.binary_search_by_key(&market, |(market, _)| *market) {
                        rounds[place].1.enter(id, entry.account, &entry.request);
                    }
                }
                None => {
                    rounds.iter_mut().for_each(|(_, round)| round.enter(id, entry.account, &entry.request));
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
    /// Maybe several of an order for one reason.
    cuts: Vec<Cut>,
    ends: Vec<End>,
    slides: BTreeMap<OrderId, PriceTicks>,
}

impl<'a> Round<'a> {
    fn new(book: &'a mut Book, params: MarketParams, cap: usize, inbox: &'a Inbox) -> Self {
        Self {
            book,
            params,
            cap,
            height: inbox.height,
            salt: &inbox.salt,
            judges: false,
            fills: Vec::new(),
            cuts: Vec::new(),
            ends: Vec::with_capacity(inbox.entries.len()),
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
        let Order { id, terms, .. } = self.book.order(at);
        if lots >= terms.lots {
            self.end(at, end);
        } else if lots > Lots::ZERO {
            self.cuts.push(Cut { order: *id, reason, lots });
            self.book.take(at, lots);
        }
    }

    fn expire(&mut self) {
        while let Some(at) = self.book.expired(self.height) {
            self.end(at, EndReason::Expired);
        }
    }

    /// The account's order of this name, unless it is a liquidation close.
    fn find(&self, account: AccountId, name: Name) -> Option<Found> {
        let found = self.book.find(self.book.owner(account)?, name)?;
        Some(found).filter(|found| self.book.order(found.at()).terms.kind != Kind::Liquidation)
    }

    fn enter(&mut self, id: OrderId, account: AccountId, request: &Request) {
        match *request {
            Request::Place(ref terms) => self.place(id, account, terms),
            Request::Cancel { order, .. } => {
                if let Some(found) = self.find(account, order) {
                    let (id, lots) = self.book.remove_found(found);
                    self.note(id, EndReason::Cancelled, lots);
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
                let Some(at) = self.find(account, order).map(|found| found.at()) else {
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
                    self.place(id, account, &Terms { limit, lots, ..old });
                }
            }
            Request::Reduce { order, by, .. } => {
                if let Some(found) = self.find(account, Name::Id(order)) {
                    self.cut(found.at(), by, CutReason::Reduced, EndReason::Reduced);
                }
            }
        }
    }

    fn place(&mut self, id: OrderId, account: AccountId, terms: &Terms) {
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
                self.book.hold(id, account, terms, owner);
                self.judges |= matches!(terms.kind, Kind::PostOnly(_));
            }
        }
    }

    /// The best listed orders that take part. Before new ones are listed, of what was carried over.
    fn best(&self, reference: Option<&Reference>) -> Best {
        let inside = |side| self.book.levels(side, reference.map(|reference| reference.band));
        let (bid, ask) = (inside(Side::Buy).next_back(), inside(Side::Sell).next());
        Best {
            bid: bid.map_or(Best::NONE.bid, |(price, _)| price),
            ask: ask.map_or(Best::NONE.ask, |(price, _)| price),
        }
    }

    /// Cancels or slides new post-only orders that would take.
    fn judge_post_only(&mut self, reference: Option<&Reference>) {
        if !self.judges {
            return;
        }
        let carried = self.best(reference);
        let waiting: Vec<_> = self.book.waiting().collect();
        for at in waiting {
            let Order { id, terms, .. } = *self.book.order(at);
            let Kind::PostOnly(on_cross) = terms.kind else { continue };
            if !carried.is_reached(Reach::new(terms.side, terms.limit)) {
                continue;
            }
            let behind = match terms.side {
                Side::Buy => carried.ask.0 - 1,
                Side::Sell => carried.bid.0 + 1,
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
        let mut listed =
            Listed { immediate: Vec::new(), inside: Vec::with_capacity(self.book.waiting().count()) };
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
        let carried = self.best(reference);
        let listed = self.list(reference);
        let mut price = None;
        if let Some(reference) = reference {
            let mut sides = [Vec::new(), Vec::new()];
            for owner in self.suspects(&listed.inside, carried, reference) {
                self.uncross(owner, reference, &mut sides);
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
        let Self { fills, mut cuts, mut ends, slides, .. } = self;
        sort_by_id(&mut cuts, |cut| cut.order);
        cuts.chunk_by_mut(|one, other| one.order == other.order)
            .for_each(|own| own.sort_by_key(|cut| cut.reason));
        cuts.dedup_by(|later, cut| {
            let same = (later.order, later.reason) == (cut.order, cut.reason);
            if same {
                cut.lots += later.lots;
            }
            same
        });
        sort_by_id(&mut ends, |end| end.order);
        debug_assert!(ends.is_sorted_by(|one, other| one.order < other.order), "an order ends twice");
        MarketOutcome {
            market,
            price,
            fills,
            cuts,
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
        &mut self,
        new: &[(OwnerNumber, Reach)],
        carried: Best,
        reference: &Reference,
    ) -> Vec<OwnerNumber> {
        let best = Best::of(new.iter().map(|(_, reach)| *reach));
        // Who reaches what was carried over, and who reaches somebody's new order.
        let (mut far, mut near) = (Vec::new(), Vec::new());
        for (owner, reach) in new {
            if carried.is_reached(*reach) {
                if self.book.mark(*owner, self.height) {
                    far.push(*owner);
                }
            } else if best.is_reached(*reach) {
                near.push(*owner);
            }
        }
        for owner in near {
            if !self.book.mark(owner, self.height) {
                continue;
            }
            let new = self.book.of(owner).iter().rev().take_while(|own| own.id().height == self.height);
            if Best::inside(new, reference.band).crosses() {
                far.push(owner);
            }
        }
        if carried.crosses() {
            let crossing = Band { low: carried.ask, high: carried.bid };
            let crossing = self.book.levels(Side::Buy, Some(crossing));
            let crossing = crossing.flat_map(|(_, level)| level.queue());
            far.extend(crossing.map(|at| self.book.owner_of(at)));
            far.sort_unstable();
            far.dedup();
        }
        far
    }

    /// Cancels what of an account's orders crosses other orders of it. `sides` is where they are noted.
    fn uncross(&mut self, owner: OwnerNumber, reference: &Reference, sides: &mut [Vec<Own>; 2]) {
        let own = self.book.of(owner);
        let best = Best::inside(own.iter(), reference.band);
        if !best.crosses() {
            return;
        }
        // Its orders that reach the best of its other side, newest first. Nothing else of it crosses anything.
        let [bids, asks] = sides;
        bids.clear();
        asks.clear();
        // The best limits of its liquidation closes.
        let mut closes = Best::NONE;
        for owned in own.iter().rev() {
            let (id, at, reach) = (owned.id(), owned.at(), owned.reach());
            let limit = reach.limit();
            if reference.band.contains(limit) && best.is_reached(reach) {
                let Terms { kind, lots, .. } = self.book.order(at).terms;
                match reach.side() {
                    _ if kind == Kind::Liquidation => closes.add(reach),
                    Side::Buy => bids.push(Own { id, at, limit, open: lots, lots }),
                    Side::Sell => asks.push(Own { id, at, limit, open: lots, lots }),
                }
            }
        }
        for (side, own) in [(Side::Buy, &mut *bids), (Side::Sell, &mut *asks)] {
            own.retain(|own| {
                let yields = closes.is_reached(Reach::new(side, own.limit));
                if yields {
                    self.end(own.at, EndReason::SelfCross);
                }
                !yields
            });
        }
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
        for own in sides.iter().flatten() {
            let lost = own.open - own.lots;
            if lost > Lots::ZERO {
                self.cut(own.at, lost, CutReason::SelfCross, EndReason::SelfCross);
            }
        }
    }

    fn trade(&mut self, clearing: Clearing, reference: &Reference) {
        let mut trades = Vec::new();
        for side in [Side::Buy, Side::Sell] {
            for (at, lots) in allocate(self.book, side, reference.band, clearing, self.salt) {
                let Order { id, account, terms } = self.book.order(at);
                let maker = id.height < self.height;
                let fill = Fill { order: *id, account: *account, side, lots, maker };
                trades.push((fill, at, lots == terms.lots));
            }
        }
        sort_by_id(&mut trades, |(fill, ..)| fill.order);
        // Newest first, so that of an owner's orders, those that are left seldom have to move up.
        for (fill, at, whole) in trades.iter().rev() {
            self.book.take(*at, fill.lots);
            if *whole {
                self.end(*at, EndReason::Filled);
            }
        }
        self.fills = trades.into_iter().map(|(fill, ..)| fill).collect();
    }
}

/// What a round has listed.
struct Listed {
    /// Immediate orders, by ascending id.
    immediate: Vec<At>,
    /// Orders inside the band: whose they are, and how far they reach.
    inside: Vec<(OwnerNumber, Reach)>,
}

/// Sorts records by the ids that they have. Those of one id stay in their sequence.
///
/// What is sorted is one integer for each record: its height above the least, its index, and its place, in as few bits
/// as they need. Many of them are dealt out digit by digit, which is one comparison's work for each of the digits.
/// Where the heights are too far apart for such integers, the records are sorted themselves.
fn sort_by_id<T: Copy>(records: &mut Vec<T>, id: impl Fn(&T) -> OrderId) {
    const LONGEST_DIGIT: u32 = 12;
    const MANY: usize = 1 << 9;
    let ids = || records.iter().map(&id);
    let (least, most, indices) = ids().fold((u64::MAX, 0, 0), |(least, most, indices), id| {
        (least.min(id.height.0), most.max(id.height.0), indices | id.index)
    });
    let bits = |number: u64| u64::BITS - number.leading_zeros();
    let (of_height, of_index) = (bits(most.saturating_sub(least)), bits(indices.into()));
    let of_place = bits(records.len() as u64);
    if of_height + of_index + of_place > u64::BITS {
        return records.sort_by_key(id);
    }
    let key = |(id, place): (OrderId, u64)| {
        ((id.height.0 - least) << of_index | u64::from(id.index)) << of_place | place
    };
    let mut keys: Vec<u64> = ids().zip(0..).map(key).collect();
    if keys.len() < MANY {
        keys.sort_unstable();
    } else {
        let bits = of_height + of_index;
        let digits = bits.div_ceil(LONGEST_DIGIT);
        let length = bits.div_ceil(digits.max(1));
        let mut dealt = vec![0; keys.len()];
        let mut ends = vec![0u32; 1 << length];
        for number in 0..digits {
            let digit = |key: u64| (key >> (of_place + number * length)) as usize & ((1 << length) - 1);
            ends.fill(0);
            keys.iter().for_each(|key| ends[digit(*key)] += 1);
            let mut start = 0;
            for end in &mut ends {
                start += core::mem::replace(end, start);
            }
            for key in &keys {
                let next = &mut ends[digit(*key)];
                dealt[*next as usize] = *key;
                *next += 1;
            }
            core::mem::swap(&mut keys, &mut dealt);
        }
    }
    *records = keys.into_iter().map(|key| records[(key % (1 << of_place)) as usize]).collect();
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
#[derive(Clone, Copy)]
struct Best {
    /// Below all prices if there is none.
    bid: PriceTicks,
    /// Above all prices if there is none.
    ask: PriceTicks,
}

impl Best {
    const NONE: Self = Self { bid: Reach::NO_BID.limit(), ask: Reach::NO_ASK.limit() };

    fn of(orders: impl Iterator<Item = Reach>) -> Self {
        let mut best = Self::NONE;
        orders.for_each(|reach| best.add(reach));
        best
    }

    /// Those of an account's orders that take part.
    fn inside<'a>(orders: impl Iterator<Item = &'a Owned>, band: Band) -> Self {
        let bids = Reach::new(Side::Buy, band.low)..=Reach::new(Side::Buy, band.high);
        let asks = Reach::new(Side::Sell, band.high)..=Reach::new(Side::Sell, band.low);
        let (mut bid, mut ask) = (Reach::NO_BID, Reach::NO_ASK);
        for reach in orders.map(Owned::reach) {
            bid = bid.max(if bids.contains(&reach) { reach } else { Reach::NO_BID });
            ask = ask.max(if asks.contains(&reach) { reach } else { Reach::NO_ASK });
        }
        Self { bid: bid.limit(), ask: ask.limit() }
    }

    fn add(&mut self, reach: Reach) {
        match reach.side() {
            Side::Buy => self.bid = self.bid.max(reach.limit()),
            Side::Sell => self.ask = self.ask.min(reach.limit()),
        }
    }

    /// Whether some of them cross each other.
    fn crosses(self) -> bool {
        self.ask <= self.bid
    }

    /// Whether an order crosses one of them.
    fn is_reached(self, reach: Reach) -> bool {
        match reach.side() {
            Side::Buy => self.ask <= reach.limit(),
            Side::Sell => reach.limit() <= self.bid,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few records and many, with heights that are near each other and far apart.
        #[test]
        fn records_are_sorted_by_id_and_stay_in_sequence(
            heights in 0u32..60,
            indices in 1u32..33,
            seeds in proptest::collection::vec(any::<(u64, u32)>(), 0..2_000),
        ) {
            let id = |(height, index): (u64, u32)| OrderId {
                height: Height(height >> (63 - heights)),
                index: index >> (32 - indices),
            };
            let mut records: Vec<_> = seeds.into_iter().map(id).zip(0..).collect();
            let mut expected: Vec<(OrderId, u32)> = records.clone();
            expected.sort_by_key(|(id, _)| *id);
            sort_by_id(&mut records, |(id, _)| *id);
            prop_assert_eq!(records, expected);
        }
    }
}
