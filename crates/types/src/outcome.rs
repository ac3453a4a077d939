//! What a zone gives out, and what settlement checks in an outcome that it did not compute.

use crate::{
    AccountId, Height, Kind, Lots, MarketId, OnCross, Order, OrderId, PriceTicks, Reference, Side,
    inbox::is_price,
    limits::{MAX_LOTS, MAX_MARKETS, MAX_ORDERS_PER_OUTCOME, MIN_RECORDS_PER_PART},
};
use std::collections::BTreeMap;
use thiserror::Error;

/// An order traded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Which order.
    pub order: OrderId,
    /// Its owner.
    pub account: AccountId,
    /// Its side.
    pub side: Side,
    /// How much of it.
    pub lots: Lots,
    /// It rested before this auction.
    pub maker: bool,
}

/// Why an order lost lots and went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CutReason {
    /// Its owner asked for fewer.
    Modified,
    /// Settlement took them back.
    Reduced,
    /// They crossed another order of its account.
    SelfCross,
}

/// An order lost lots without trading them, and went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which order.
    pub order: OrderId,
    /// Why.
    pub reason: CutReason,
    /// How many, in all, for this reason.
    pub lots: Lots,
}

/// Why an order is not open any more, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// It traded whole, or what was cut was all that did not.
    Filled,
    /// It was immediate, and this is what did not trade.
    IocRemainder,
    /// Its good-til height has passed.
    Expired,
    /// Its account cancelled it.
    Cancelled,
    /// Another order took its place.
    Replaced,
    /// A modification that changed its order in place: only the modification's own id ends.
    Merged,
    /// A modification of an order that is not open.
    NotFound,
    /// All of it crossed other orders of its account.
    SelfCross,
    /// Settlement took all of it back.
    Reduced,
    /// It was post-only and would have taken.
    PostOnlyWouldTake,
    /// It asked for less than the market's minimum.
    BelowMinimum,
    /// Its account has too many orders in this market.
    TooManyOpen,
    /// The market's book is full, and others were drawn.
    MarketFull,
    /// Its account has an open order of the same client id in this market.
    DuplicateCloid,
}

/// An order ended, or never entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Which order.
    pub order: OrderId,
    /// Why.
    pub reason: EndReason,
    /// Lots that ended with it: neither traded nor cut. None if it was filled, and else at least one.
    pub lots: Lots,
}

/// A post-only order moved before it entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slide {
    /// Which order.
    pub order: OrderId,
    /// Its limit from now on.
    pub limit: PriceTicks,
}

/// What happened in one market. Every list ascends by order id, strictly; cuts by order id and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketOutcome {
    /// The market.
    pub market: MarketId,
    /// The one price, if anything traded.
    pub price: Option<PriceTicks>,
    /// Who traded.
    pub fills: Vec<Fill>,
    /// Who lost lots.
    pub cuts: Vec<Cut>,
    /// Who ended.
    pub ends: Vec<End>,
    /// Who moved.
    pub slides: Vec<Slide>,
}

/// What happened at one height, or a part of it.
///
/// Markets ascend, and each has something to say. A zone computes one part, which is all; [`Outcome::split`]
/// makes several of it. The parts of a height are settled in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The height of the inbox.
    pub height: Height,
    /// Which part, from 0.
    pub part: u32,
    /// Whether it is the last part.
    pub last: bool,
    /// By market.
    pub markets: Vec<MarketOutcome>,
}

/// What is wrong with an outcome. An honest zone's outcome has none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Too many markets, or not in order.
    #[error("markets are too many or out of order")]
    Markets,
    /// A list of this market is too long, out of order, or names nothing at all.
    #[error("market {0}: a list is too long or out of order, or there is nothing in it")]
    NotCanonical(MarketId),
    /// Lots or a limit are not in their range.
    #[error("order {0}: lots or a limit out of their range")]
    OutOfRange(OrderId),
    /// A price without fills, fills without a price, or a price that is none.
    #[error("market {0}: a price without fills, fills without a price, or a price that is none")]
    PriceWithoutFills(MarketId),
    /// Fills in a market that held no auction.
    #[error("market {0} held no auction")]
    NoAuction(MarketId),
    /// The price is outside the band.
    #[error("market {0}: the price is outside the band")]
    OutsideBand(MarketId),
    /// Not an order that was open or came in.
    #[error("order {0} is not known in this market")]
    UnknownOrder(OrderId),
    /// The fill names another account or side, or states wrongly whether the order rested.
    #[error("order {0}: its fill says something else than the order")]
    WrongFill(OrderId),
    /// The price is beyond the order's limit.
    #[error("order {0} was filled beyond its limit")]
    BeyondLimit(OrderId),
    /// Filled and cut more than was open.
    #[error("order {0}: more lots filled and cut than were open")]
    TooManyLots(OrderId),
    /// What ended is not what was left, or an order with nothing left, or an immediate one, goes on.
    #[error("order {0}: what ended is not what was left")]
    WrongEnd(OrderId),
    /// The order could not slide, or not there.
    #[error("order {0} may not slide there")]
    WrongSlide(OrderId),
    /// Bought is not sold.
    #[error("market {0}: bought and sold differ")]
    Unbalanced(MarketId),
}

/// How many reasons there are to cut.
pub(crate) const CUT_REASONS: usize = 3;

fn ascend<T, K: Ord>(list: &[T], key: impl Fn(&T) -> K) -> bool {
    list.is_sorted_by(|a, b| key(a) < key(b))
}

fn in_range(lots: Lots, least: i64) -> bool {
    (least..=MAX_LOTS).contains(&lots.0)
}

/// An order that an outcome names.
struct Named {
    id: OrderId,
    /// The order, as it is left after the records that were looked at so far. `None` before the first.
    left: Option<Order>,
    ended: bool,
}

impl Named {
    /// Takes lots of it. `known` gives the order as it stood before. Returns the order as it is left.
    fn spend(
        &mut self,
        lots: Lots,
        known: impl FnOnce(OrderId) -> Result<Order, Fault>,
    ) -> Result<&Order, Fault> {
        let order = match &mut self.left {
            Some(order) => order,
            none => none.insert(known(self.id)?),
        };
        let rest = Lots(order.terms.lots.0.checked_sub(lots.0).unwrap_or(-1));
        if rest < Lots::ZERO {
            return Err(Fault::TooManyLots(self.id));
        }
        order.terms.lots = rest;
        Ok(order)
    }
}

impl MarketOutcome {
    const fn new(market: MarketId) -> Self {
        Self {
            market,
            price: None,
            fills: Vec::new(),
            cuts: Vec::new(),
            ends: Vec::new(),
            slides: Vec::new(),
        }
    }

    const fn is_empty(&self) -> bool {
        self.records() == 0
    }

    /// How many records it holds: fills, cuts, ends and slides.
    pub const fn records(&self) -> usize {
        self.fills.len() + self.cuts.len() + self.ends.len() + self.slides.len()
    }

    /// Lots traded, counted once.
    pub fn volume(&self) -> Lots {
        self.fills.iter().filter(|fill| fill.side == Side::Buy).map(|fill| fill.lots).sum()
    }

    /// Whether it is in its one form. See [`Outcome::form`].
    pub(crate) fn form(&self) -> Result<(), Fault> {
        let longest = self
            .fills
            .len()
            .max(self.ends.len())
            .max(self.slides.len())
            .max(self.cuts.len().div_ceil(CUT_REASONS));
        if self.is_empty()
            || longest > MAX_ORDERS_PER_OUTCOME
            || !ascend(&self.fills, |fill| fill.order)
            || !ascend(&self.cuts, |cut| (cut.order, cut.reason))
            || !ascend(&self.ends, |end| end.order)
            || !ascend(&self.slides, |slide| slide.order)
        {
            return Err(Fault::NotCanonical(self.market));
        }
        if self.price.is_some_and(|price| !is_price(price)) || self.price.is_some() == self.fills.is_empty() {
            return Err(Fault::PriceWithoutFills(self.market));
        }
        let sizes = (self.fills.iter().map(|fill| (fill.order, in_range(fill.lots, 1))))
            .chain(self.cuts.iter().map(|cut| (cut.order, in_range(cut.lots, 1))))
            .chain(self.ends.iter().map(|end| {
                (end.order, in_range(end.lots, 0) && (end.reason == EndReason::Filled) == (end.lots.0 == 0))
            }));
        let sizes = sizes.chain(self.slides.iter().map(|slide| (slide.order, is_price(slide.limit))));
        match sizes.into_iter().find(|(_, fits)| !fits) {
            Some((order, _)) => Err(Fault::OutOfRange(order)),
            None => Ok(()),
        }
    }

    /// The orders that are named, ascending, each once.
    fn named(&self) -> Vec<Named> {
        let mut ids: Vec<OrderId> = Vec::with_capacity(self.records());
        ids.extend(self.slides.iter().map(|slide| slide.order));
        ids.extend(self.fills.iter().map(|fill| fill.order));
        ids.extend(self.cuts.iter().map(|cut| cut.order));
        ids.extend(self.ends.iter().map(|end| end.order));
        // Four runs that ascend: the stable sort merges them.
        ids.sort();
        ids.dedup();
        ids.into_iter().map(|id| Named { id, left: None, ended: false }).collect()
    }

    /// What is in its one form is checked against the orders.
    fn check(
        &self,
        height: Height,
        whole: bool,
        reference: Option<&Reference>,
        orders: impl Fn(OrderId, Option<AccountId>) -> Option<Order>,
    ) -> Result<(), Fault> {
        if let Some(price) = self.price {
            let reference = reference.ok_or(Fault::NoAuction(self.market))?;
            if !reference.band.contains(price) {
                return Err(Fault::OutsideBand(self.market));
            }
        }
        let known_of = |id: OrderId, of: Option<AccountId>| {
            orders(id, of)
                .filter(|order| order.id == id && order.terms.market == self.market && id.height <= height)
                .ok_or(Fault::UnknownOrder(id))
        };
        let known = |id: OrderId| known_of(id, None);
        // What each order that is named here has left, and its limit. All lists ascend, so whoever goes through one of
        // them goes through this once and searches for nothing.
        let mut named = self.named();
        let mut left = named.iter_mut();
        for slide in &self.slides {
            let mut order = known(slide.order)?;
            let slides = order.terms.kind == Kind::PostOnly(OnCross::Slide) && order.id.height == height;
            let retreats = order.terms.accepts(slide.limit) && order.terms.limit != slide.limit;
            if !slides || !retreats {
                return Err(Fault::WrongSlide(slide.order));
            }
            order.terms.limit = slide.limit;
            if let Some(own) = left.find(|own| own.id == slide.order) {
                own.left = Some(order);
            }
        }
        let mut balance: i128 = 0;
        let mut left = named.iter_mut();
        for (fill, price) in self.fills.iter().zip(self.price.into_iter().cycle()) {
            let own = left.find(|own| own.id == fill.order).ok_or(Fault::UnknownOrder(fill.order))?;
            let order = own.spend(fill.lots, |id| known_of(id, Some(fill.account)))?;
            let maker = order.id.height < height;
            if (fill.account, fill.side, fill.maker) != (order.account, order.terms.side, maker) {
                return Err(Fault::WrongFill(fill.order));
            }
            if !order.terms.accepts(price) {
                return Err(Fault::BeyondLimit(fill.order));
            }
            let lots = i128::from(fill.lots.0);
            balance += if fill.side == Side::Buy { lots } else { -lots };
        }
        let mut at = 0;
        for cut in &self.cuts {
            // An order may be cut for several reasons.
            while named.get(at).is_some_and(|own| own.id < cut.order) {
                at += 1;
            }
            named.get_mut(at).ok_or(Fault::UnknownOrder(cut.order))?.spend(cut.lots, known)?;
        }
        let mut left = named.iter_mut();
        for end in &self.ends {
            let own = left.find(|own| own.id == end.order).ok_or(Fault::UnknownOrder(end.order))?;
            if own.spend(Lots::ZERO, known)?.terms.lots != end.lots {
                return Err(Fault::WrongEnd(end.order));
            }
            own.ended = true;
        }
        let over = |order: &Order| order.terms.lots == Lots::ZERO || whole && order.terms.kind.is_immediate();
        if let Some(own) = named.iter().find(|own| !own.ended && own.left.is_some_and(|order| over(&order))) {
            return Err(Fault::WrongEnd(own.id));
        }
        if balance != 0 {
            return Err(Fault::Unbalanced(self.market));
        }
        Ok(())
    }
}

impl Outcome {
    /// How many records it holds: fills, cuts, ends and slides.
    pub fn records(&self) -> usize {
        self.markets.iter().map(MarketOutcome::records).sum()
    }

    /// Whether it is in its one form: everything in order, within [`limits`](crate::limits), nothing empty.
    /// What decodes is.
    pub fn form(&self) -> Result<(), Fault> {
        if self.markets.len() > MAX_MARKETS || !ascend(&self.markets, |market| market.market) {
            return Err(Fault::Markets);
        }
        self.markets.iter().try_for_each(MarketOutcome::form)
    }

    /// What settlement checks before it does what an outcome says, whoever computed it: one price a market,
    /// in its band; nobody filled beyond a limit, or beyond what is open; bought = sold; what ended is what
    /// was left; who has nothing left has ended.
    ///
    /// `orders` gives an order as it stands before this part: open lots, and the limit it has. For the id of
    /// a modification it gives the order that would replace the modified one. `references` are those of the
    /// inbox.
    ///
    /// It does not say that the outcome is the right one: that the price is the best, or that the shares are
    /// fair. For that somebody has to compute it.
    pub fn check(
        &self,
        orders: impl Fn(OrderId) -> Option<Order>,
        references: &BTreeMap<MarketId, Reference>,
    ) -> Result<(), Fault> {
        self.check_among(|id, _| orders(id), references)
    }

    /// The same, where an order is found sooner by whoever is told whose it should be. That is no more than a hint: a
    /// fill may name the account of somebody else.
    pub fn check_among(
        &self,
        orders: impl Fn(OrderId, Option<AccountId>) -> Option<Order>,
        references: &BTreeMap<MarketId, Reference>,
    ) -> Result<(), Fault> {
        self.form()?;
        let whole = self.part == 0 && self.last;
        self.markets
            .iter()
            .try_for_each(|market| market.check(self.height, whole, references.get(&market.market), &orders))
    }

    /// The same outcome in parts of at most `records` records each, at least [`MIN_RECORDS_PER_PART`].
    ///
    /// Each part balances in each market, so that settlement is consistent between any two. The order is:
    /// markets ascending; in each market slides, cuts, ends of orders that did not trade, then trades. For
    /// the latter, bought lots are laid beside sold lots, both in the order of their ids, and cut where a
    /// part is full; an order at the cut has a fill in both parts. An order that traded ends in the part of
    /// its last fill.
    ///
    /// An auction is never cut short for its size. Only its settlement is spread.
    pub fn split(self, records: usize) -> Vec<Self> {
        let records = records.max(MIN_RECORDS_PER_PART);
        let mut parts = Parts {
            height: self.height,
            records,
            done: Vec::new(),
            open: Vec::new(),
            used: 0,
            turn: [None; 2],
        };
        for market in self.markets {
            parts.add(market);
        }
        parts.finish()
    }
}

/// Builds the parts of an outcome.
struct Parts {
    height: Height,
    records: usize,
    done: Vec<Vec<MarketOutcome>>,
    open: Vec<MarketOutcome>,
    used: usize,
    /// Where, in the last market of the open part, the fills of the buyer and the seller are whose turn it is.
    turn: [Option<usize>; 2],
}

impl Parts {
    /// Closes the open part if it cannot take so many records more.
    fn make_room(&mut self, needed: usize) {
        if self.used + needed > self.records {
            self.done.push(core::mem::take(&mut self.open));
            self.used = 0;
            self.turn = [None; 2];
        }
    }

    /// The market's outcome in the open part, for so many records.
    fn write(&mut self, market: MarketId, needed: usize) -> &mut MarketOutcome {
        self.make_room(needed);
        self.used += needed;
        if self.open.last().is_none_or(|last| last.market != market) {
            self.open.push(MarketOutcome::new(market));
            self.turn = [None; 2];
        }
        let at = self.open.len() - 1;
        &mut self.open[at]
    }

    fn add(&mut self, whole: MarketOutcome) {
        let MarketOutcome { market, price, fills, cuts, ends, slides } = whole;
        for slide in slides {
            self.write(market, 1).slides.push(slide);
        }
        for cut in cuts {
            self.write(market, 1).cuts.push(cut);
        }
        let mut ends: BTreeMap<OrderId, End> = ends.into_iter().map(|end| (end.order, end)).collect();
        let mut last: BTreeMap<OrderId, End> =
            fills.iter().filter_map(|fill| ends.remove_entry(&fill.order)).collect();
        for end in ends.into_values() {
            self.write(market, 1).ends.push(end);
        }
        let (mut bought, mut sold): (Vec<_>, Vec<_>) =
            fills.into_iter().rev().partition(|fill| fill.side == Side::Buy);
        while let (Some(mut buy), Some(mut sell)) = (bought.pop(), sold.pop()) {
            let lots = buy.lots.min(sell.lots);
            buy.lots -= lots;
            sell.lots -= lots;
            let mut over = Vec::new();
            for (fill, waiting) in [(buy, &mut bought), (sell, &mut sold)] {
                if fill.lots == Lots::ZERO {
                    over.extend(last.remove(&fill.order));
                } else {
                    waiting.push(fill);
                }
            }
            self.trade(market, price, [buy, sell], lots, over);
        }
    }

    /// Writes one stretch of lots that one buyer bought and one seller sold.
    fn trade(
        &mut self,
        market: MarketId,
        price: Option<PriceTicks>,
        pair: [Fill; 2],
        lots: Lots,
        over: Vec<End>,
    ) {
        let new = self.turn.iter().filter(|turn| turn.is_none()).count();
        self.make_room(new + over.len());
        let new = self.turn.iter().filter(|turn| turn.is_none()).count();
        let mut turn = self.turn;
        let part = self.write(market, new + over.len());
        part.price = price;
        for (fill, turn) in pair.into_iter().zip(&mut turn) {
            let at = *turn.get_or_insert(part.fills.len());
            match part.fills.get_mut(at) {
                Some(known) => known.lots += lots,
                None => part.fills.push(Fill { lots, ..fill }),
            }
            if fill.lots == Lots::ZERO {
                *turn = None;
            }
        }
        part.ends.extend(over);
        self.turn = turn;
    }

    fn finish(mut self) -> Vec<Outcome> {
        if !self.open.is_empty() || self.done.is_empty() {
            self.done.push(self.open);
        }
        let count = self.done.len();
        let part = |(part, mut markets): (usize, Vec<MarketOutcome>)| {
            for market in &mut markets {
                market.fills.sort_unstable_by_key(|fill| fill.order);
                market.ends.sort_unstable_by_key(|end| end.order);
            }
            Outcome { height: self.height, part: part as u32, last: part + 1 == count, markets }
        };
        self.done.into_iter().enumerate().map(part).collect()
    }
}
