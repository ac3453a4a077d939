//! A zone as the documentation of the crate describes it, in the most literal way: lists instead of books,
//! every tick tried, lots given one at a time. And the histories on which the two are compared.

#![allow(dead_code)]

use proptest::{collection::vec, option, prelude::*};
use seawall_market::{
    Band, Cloid, Cut, CutReason, End, EndReason, Entry, Fill, Inbox, Kind, MarketOutcome, MarketParams, Name,
    OnCross, Order, OrderId, Outcome, Params, Reference, Request, Slide, Terms,
};
use seawall_types::{AccountId, Height, Lots, MarketId, PriceTicks, Side};
use std::collections::BTreeMap;

pub const TICKS: u64 = 24;

pub fn id(height: u64, index: u32) -> OrderId {
    OrderId { height: Height(height), index }
}

pub fn params(min_lots: i64, max_orders: usize, cap: usize) -> Params {
    let market = MarketParams { min_lots: Lots(min_lots), max_orders };
    Params { markets: (0..2).map(|id| (MarketId(id), market)).collect(), max_orders_per_account: cap }
}

/// The lot of an order, by the standard library's own SipHash-2-4.
#[allow(deprecated)]
pub fn lottery(salt: &[u8; 32], id: OrderId) -> u64 {
    use core::hash::{Hasher, SipHasher};
    let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| salt[at + i]));
    let mut hasher = SipHasher::new_with_keys(word(0), word(8));
    hasher.write(&salt[16..]);
    hasher.write(&id.height.0.to_le_bytes());
    hasher.write(&u64::from(id.index).to_le_bytes());
    hasher.finish()
}

pub struct Model {
    pub params: Params,
    pub open: Vec<Order>,
    /// Every id of the last inbox and every order before it, as settlement knows them.
    pub known: BTreeMap<OrderId, Order>,
}

#[derive(Default)]
struct Notes {
    price: Option<PriceTicks>,
    fills: BTreeMap<OrderId, Fill>,
    cuts: BTreeMap<(OrderId, CutReason), Lots>,
    ends: BTreeMap<OrderId, (EndReason, Lots)>,
    slides: BTreeMap<OrderId, PriceTicks>,
}

impl Model {
    pub fn new(params: Params) -> Self {
        Self { params, open: Vec::new(), known: BTreeMap::new() }
    }

    pub fn apply(&mut self, inbox: &Inbox) -> Outcome {
        self.known = self.open.iter().map(|order| (order.id, *order)).collect();
        let mut markets = Vec::new();
        let ids: Vec<_> = self.params.markets.keys().copied().collect();
        for market in ids {
            let notes = self.market(market, inbox);
            let outcome = MarketOutcome {
                market,
                price: notes.price,
                fills: notes.fills.into_values().collect(),
                cuts: (notes.cuts.into_iter())
                    .map(|((order, reason), lots)| Cut { order, reason, lots })
                    .collect(),
                ends: (notes.ends.into_iter())
                    .map(|(order, (reason, lots))| End { order, reason, lots })
                    .collect(),
                slides: notes.slides.into_iter().map(|(order, limit)| Slide { order, limit }).collect(),
            };
            if outcome.records() > 0 {
                markets.push(outcome);
            }
        }
        self.open.sort_by_key(|order| (order.terms.market, order.id));
        Outcome { height: inbox.height, part: 0, last: true, markets }
    }

    fn market(&mut self, market: MarketId, inbox: &Inbox) -> Notes {
        let mut notes = Notes::default();
        let (mut book, others): (Vec<_>, Vec<_>) =
            self.open.drain(..).partition(|order| order.terms.market == market);
        self.open = others;
        let height = inbox.height;

        let end = |book: &mut Vec<Order>, notes: &mut Notes, id: OrderId, reason: EndReason| {
            let at = book.iter().position(|order| order.id == id).expect("it is open");
            let order = book.remove(at);
            assert!(notes.ends.insert(id, (reason, order.terms.lots)).is_none());
        };
        let cut = |book: &mut Vec<Order>, notes: &mut Notes, id: OrderId, lots: Lots, reason: CutReason| {
            let at = book.iter().position(|order| order.id == id).expect("it is open");
            assert!(book[at].terms.lots > lots);
            if lots > Lots(0) {
                book[at].terms.lots -= lots;
                *notes.cuts.entry((id, reason)).or_default() += lots;
            }
        };

        for order in book.clone() {
            if order.terms.good_til.is_some_and(|good_til| good_til < height) {
                end(&mut book, &mut notes, order.id, EndReason::Expired);
            }
        }

        let find = |book: &[Order], account: AccountId, name: Name| {
            book.iter()
                .find(|order| {
                    order.account == account
                        && order.terms.kind != Kind::Liquidation
                        && match name {
                            Name::Id(id) => order.id == id,
                            Name::Cloid(cloid) => order.terms.cloid == Some(cloid),
                        }
                })
                .copied()
        };
        let least = self.params.markets[&market].min_lots;
        for (index, Entry { account, request }) in &inbox.entries {
            if request.market().is_some_and(|named| named != market) {
                continue;
            }
            let id = OrderId { height, index: *index };
            let mut place = None;
            match *request {
                Request::Place(terms) => place = Some(terms),
                Request::Cancel { order, .. } => {
                    if let Some(order) = find(&book, *account, order) {
                        end(&mut book, &mut notes, order.id, EndReason::Cancelled);
                    }
                }
                Request::CancelAll { keep_reduce_only, .. } => {
                    for order in book.clone() {
                        if order.account == *account
                            && order.terms.kind != Kind::Liquidation
                            && (!keep_reduce_only || !order.terms.reduce_only)
                        {
                            end(&mut book, &mut notes, order.id, EndReason::Cancelled);
                        }
                    }
                }
                Request::Modify { order, limit, lots, .. } => match find(&book, *account, order) {
                    None => {
                        let terms = Terms {
                            market,
                            side: Side::Buy,
                            limit,
                            lots,
                            kind: Kind::Limit,
                            reduce_only: false,
                            good_til: None,
                            cloid: None,
                        };
                        self.known.insert(id, Order { id, account: *account, terms });
                        notes.ends.insert(id, (EndReason::NotFound, lots));
                    }
                    Some(old) => {
                        let terms = Terms { limit, lots, ..old.terms };
                        self.known.insert(id, Order { id, account: *account, terms });
                        if lots < least && !old.terms.reduce_only {
                            notes.ends.insert(id, (EndReason::BelowMinimum, lots));
                        } else if limit == old.terms.limit && lots <= old.terms.lots {
                            notes.ends.insert(id, (EndReason::Merged, lots));
                            let less = old.terms.lots - lots;
                            cut(&mut book, &mut notes, old.id, less, CutReason::Modified);
                        } else {
                            end(&mut book, &mut notes, old.id, EndReason::Replaced);
                            place = Some(terms);
                        }
                    }
                },
                Request::Reduce { order, by, .. } => {
                    if let Some(order) = find(&book, *account, Name::Id(order)) {
                        if by >= order.terms.lots {
                            end(&mut book, &mut notes, order.id, EndReason::Reduced);
                        } else {
                            cut(&mut book, &mut notes, order.id, by, CutReason::Reduced);
                        }
                    }
                }
            }
            if let Some(terms) = place {
                let order = Order { id, account: *account, terms };
                self.known.insert(id, order);
                let class = |kind: Kind| (kind.is_immediate(), kind == Kind::Liquidation);
                let own = (book.iter())
                    .filter(|order| order.account == *account && class(order.terms.kind) == class(terms.kind))
                    .count();
                let taken =
                    |cloid| book.iter().any(|o| o.account == *account && o.terms.cloid == Some(cloid));
                let liquidation = terms.kind == Kind::Liquidation;
                let refused = if terms.good_til.is_some_and(|good_til| good_til < height) {
                    EndReason::Expired
                } else if terms.lots < least && !terms.reduce_only && !liquidation {
                    EndReason::BelowMinimum
                } else if !liquidation && own >= self.params.max_orders_per_account {
                    EndReason::TooManyOpen
                } else if terms.cloid.is_some_and(taken) {
                    EndReason::DuplicateCloid
                } else {
                    book.push(order);
                    continue;
                };
                notes.ends.insert(id, (refused, terms.lots));
            }
        }

        let reference = inbox.references.get(&market);
        let in_band = |price: PriceTicks| {
            reference.is_none_or(|reference| reference.band.low <= price && price <= reference.band.high)
        };
        let carried: Vec<Order> = (book.iter())
            .filter(|order| order.id.height < height && in_band(order.terms.limit))
            .copied()
            .collect();
        let mut limits = BTreeMap::new();
        for order in book.clone() {
            let Kind::PostOnly(on_cross) = order.terms.kind else { continue };
            if order.id.height < height {
                continue;
            }
            let taken = carried.iter().filter(|other| order.crosses(other)).map(|other| other.terms.limit);
            let slid = match order.terms.side {
                Side::Buy => taken.min().map(|best| best.0 - 1),
                Side::Sell => taken.max().map(|best| best.0 + 1),
            };
            match slid {
                None => {}
                Some(slid) if slid > 0 && on_cross == OnCross::Slide => {
                    limits.insert(order.id, PriceTicks(slid));
                }
                Some(_) => end(&mut book, &mut notes, order.id, EndReason::PostOnlyWouldTake),
            }
        }

        let rests = |order: &&Order| !matches!(order.terms.kind, Kind::Ioc | Kind::Liquidation);
        let mut waiting: Vec<Order> =
            book.iter().filter(|order| order.id.height == height).filter(rests).copied().collect();
        waiting.sort_by_key(|order| (!order.terms.reduce_only, lottery(&inbox.salt, order.id)));
        while book.iter().filter(rests).count() > self.params.markets[&market].max_orders {
            let out = waiting.pop().expect("what was carried over had room");
            end(&mut book, &mut notes, out.id, EndReason::MarketFull);
        }
        for order in &mut book {
            if let Some(limit) = limits.get(&order.id) {
                order.terms.limit = *limit;
                notes.slides.insert(order.id, *limit);
            }
        }

        if let Some(reference) = reference {
            for order in &mut book {
                if order.terms.kind.is_immediate() {
                    let band = reference.band;
                    order.terms.limit = match order.terms.side {
                        Side::Buy => order.terms.limit.min(band.high),
                        Side::Sell => order.terms.limit.max(band.low),
                    };
                }
            }
            self.uncross(&mut book, &mut notes, reference, end, cut);
            self.auction(&mut book, &mut notes, reference, inbox, end);
        }
        for order in book.clone() {
            if order.terms.kind.is_immediate() {
                end(&mut book, &mut notes, order.id, EndReason::IocRemainder);
            }
        }
        self.open.extend(book);
        notes
    }

    fn uncross(
        &self,
        book: &mut Vec<Order>,
        notes: &mut Notes,
        reference: &Reference,
        end: impl Fn(&mut Vec<Order>, &mut Notes, OrderId, EndReason),
        cut: impl Fn(&mut Vec<Order>, &mut Notes, OrderId, Lots, CutReason),
    ) {
        let both = |a: &Order, b: &Order| {
            a.account == b.account
                && a.crosses(b)
                && reference.band.contains(a.terms.limit)
                && reference.band.contains(b.terms.limit)
        };
        for order in book.clone() {
            let yields = |close: &Order| close.terms.kind == Kind::Liquidation && both(&order, close);
            if order.terms.kind != Kind::Liquidation && book.iter().any(yields) {
                end(book, notes, order.id, EndReason::SelfCross);
            }
        }
        let mut pairs = Vec::new();
        let mut left = book.clone();
        left.retain(|order| order.terms.kind != Kind::Liquidation);
        left.sort_by_key(|order| std::cmp::Reverse(order.id));
        'next: loop {
            for newer in 0..left.len() {
                for older in newer + 1..left.len() {
                    let lots = left[newer].terms.lots.min(left[older].terms.lots);
                    if lots > Lots(0) && both(&left[newer], &left[older]) {
                        for at in [newer, older] {
                            left[at].terms.lots -= lots;
                            pairs.push((left[at].id, lots));
                        }
                        continue 'next;
                    }
                }
            }
            break;
        }
        for order in left {
            let lots = pairs.iter().filter(|(id, _)| *id == order.id).map(|(_, lots)| *lots).sum();
            if order.terms.lots == Lots(0) {
                end(book, notes, order.id, EndReason::SelfCross);
            } else {
                cut(book, notes, order.id, lots, CutReason::SelfCross);
            }
        }
    }

    fn auction(
        &self,
        book: &mut Vec<Order>,
        notes: &mut Notes,
        reference: &Reference,
        inbox: &Inbox,
        end: impl Fn(&mut Vec<Order>, &mut Notes, OrderId, EndReason),
    ) {
        let part: Vec<Order> =
            book.iter().filter(|order| reference.band.contains(order.terms.limit)).copied().collect();
        let sum = |side: Side, keep: &dyn Fn(u64) -> bool| -> i64 {
            part.iter()
                .filter(|order| order.terms.side == side && keep(order.terms.limit.0))
                .map(|order| order.terms.lots.0)
                .sum()
        };
        let best = (1..=TICKS + 1)
            .map(|p| {
                let (demand, supply) = (sum(Side::Buy, &|limit| limit >= p), sum(Side::Sell, &|l| l <= p));
                let volume = demand.min(supply);
                let whole = sum(Side::Buy, &|limit| limit > p) <= volume
                    && sum(Side::Sell, &|limit| limit < p) <= volume;
                (-volume, (demand - supply).abs(), !whole, p.abs_diff(reference.mark.0), p)
            })
            .min()
            .expect("there are ticks");
        let (volume, _, not_whole, _, price) = (-best.0, best.1, best.2, best.3, best.4);
        if volume == 0 {
            return;
        }
        assert!(!not_whole, "some tick of most volume and least imbalance fills the better orders whole");
        assert!(reference.band.contains(PriceTicks(price)));
        notes.price = Some(PriceTicks(price));
        for side in [Side::Buy, Side::Sell] {
            // From the best to the worst priority, in groups of equal priority.
            let mut groups: BTreeMap<(u64, bool, Height), Vec<Order>> = BTreeMap::new();
            for order in part.iter().filter(|order| order.terms.side == side) {
                let away = match side {
                    Side::Buy => order.terms.limit.0.checked_sub(price),
                    Side::Sell => price.checked_sub(order.terms.limit.0),
                };
                if let Some(better) = away {
                    let patience = (better == 0, order.terms.kind != Kind::Liquidation);
                    // All that are better than the price are alike: they fill whole.
                    let key =
                        if patience.0 { (1, patience.1, order.id.height) } else { (0, false, Height(0)) };
                    groups.entry(key).or_default().push(*order);
                }
            }
            let mut rest = volume;
            for ((tier, _, _), group) in groups {
                let wanted: i64 = group.iter().map(|order| order.terms.lots.0).sum();
                let amount = wanted.min(rest);
                assert!(tier == 1 || amount == wanted, "strictly better orders fill whole");
                rest -= amount;
                let mut got: Vec<i64> =
                    group.iter().map(|order| order.terms.lots.0 * amount / wanted).collect();
                let short = |order: &Order, _: i64| order.terms.lots.0 * amount % wanted;
                let mut served = Vec::new();
                while got.iter().sum::<i64>() < amount {
                    let next = (0..group.len())
                        .filter(|at| !served.contains(at))
                        .max_by_key(|at| {
                            let order = &group[*at];
                            (short(order, got[*at]), std::cmp::Reverse(lottery(&inbox.salt, order.id)))
                        })
                        .expect("fewer lots are left than orders");
                    got[next] += 1;
                    served.push(next);
                }
                for (order, lots) in group.iter().zip(got).filter(|(_, lots)| *lots > 0) {
                    let lots = Lots(lots);
                    let maker = order.id.height < inbox.height;
                    let fill = Fill { order: order.id, account: order.account, side, lots, maker };
                    notes.fills.insert(order.id, fill);
                    let at = book.iter().position(|open| open.id == order.id).expect("it is open");
                    book[at].terms.lots -= lots;
                    if book[at].terms.lots == Lots(0) {
                        end(book, notes, order.id, EndReason::Filled);
                    }
                }
            }
        }
    }
}

// What happens, drawn.

pub fn side() -> impl Strategy<Value = Side> + Clone {
    prop_oneof![Just(Side::Buy), Just(Side::Sell)]
}

pub fn kind() -> impl Strategy<Value = Kind> + Clone {
    prop_oneof![
        8 => Just(Kind::Limit),
        2 => Just(Kind::PostOnly(OnCross::Cancel)),
        2 => Just(Kind::PostOnly(OnCross::Slide)),
        3 => Just(Kind::Ioc),
        1 => Just(Kind::Liquidation),
    ]
}

fn price() -> impl Strategy<Value = PriceTicks> + Clone {
    prop_oneof![1 => 1..=TICKS, 2 => 9u64..=15].prop_map(PriceTicks)
}

fn lots() -> impl Strategy<Value = Lots> + Clone {
    (1i64..=12).prop_map(Lots)
}

fn market() -> impl Strategy<Value = MarketId> + Clone {
    prop_oneof![3 => Just(MarketId(0)), 1 => Just(MarketId(1))]
}

fn name(heights: u64) -> impl Strategy<Value = Name> + Clone {
    prop_oneof![
        2 => (1..=heights, 0u32..12).prop_map(|(height, index)| Name::Id(id(height, index))),
        1 => (0u64..3).prop_map(|cloid| Name::Cloid(Cloid(cloid))),
    ]
}

pub fn terms(heights: u64) -> impl Strategy<Value = Terms> + Clone {
    (
        market(),
        side(),
        price(),
        lots(),
        kind(),
        proptest::bool::weighted(0.2),
        option::weighted(0.2, (1..=heights).prop_map(Height)),
        option::weighted(0.3, (0u64..3).prop_map(Cloid)),
    )
        .prop_map(|(market, side, limit, lots, kind, reduce_only, good_til, cloid)| Terms {
            market,
            side,
            limit,
            lots,
            kind,
            reduce_only,
            good_til,
            cloid,
        })
}

pub fn request(heights: u64) -> impl Strategy<Value = Request> + Clone {
    prop_oneof![
        12 => terms(heights).prop_map(Request::Place),
        1 => (market(), name(heights)).prop_map(|(market, order)| Request::Cancel { market, order }),
        1 => (option::of(market()), any::<bool>())
            .prop_map(|(market, keep_reduce_only)| Request::CancelAll { market, keep_reduce_only }),
        2 => (market(), name(heights), price(), lots())
            .prop_map(|(market, order, limit, lots)| Request::Modify { market, order, limit, lots }),
        1 => (market(), (1..=heights, 0u32..12), lots()).prop_map(|(market, (height, index), by)| {
            Request::Reduce { market, order: id(height, index), by }
        }),
    ]
}

pub fn reference() -> impl Strategy<Value = Reference> + Clone {
    (price(), 1..=TICKS, 0..=TICKS).prop_map(|(mark, low, width)| Reference {
        mark,
        band: Band { low: PriceTicks(low), high: PriceTicks((low + width).min(TICKS)) },
    })
}

fn references() -> impl Strategy<Value = BTreeMap<MarketId, Reference>> + Clone {
    let wide = Reference { mark: PriceTicks(12), band: Band { low: PriceTicks(1), high: PriceTicks(TICKS) } };
    let one = prop_oneof![3 => Just(wide), 3 => reference()];
    vec(option::weighted(0.85, one), 2).prop_map(|references| {
        let markets = (0..).map(MarketId).zip(references);
        markets.filter_map(|(market, reference)| Some((market, reference?))).collect()
    })
}

pub fn inbox(heights: u64) -> impl Strategy<Value = Inbox> + Clone {
    let entry = (0u64..4, request(heights))
        .prop_map(|(account, request)| Entry { account: AccountId(account), request });
    (any::<[u8; 32]>(), references(), vec(entry, 0..12)).prop_map(|(salt, references, entries)| Inbox {
        height: Height(0),
        salt,
        references,
        entries: (0..).zip(entries).collect(),
    })
}

/// Inboxes of heights 1, 2, and so on. Most requests that name an id are pointed at one of the last orders that
/// were placed, and half of such modifications keep its limit.
pub fn history(heights: u64) -> impl Strategy<Value = Vec<Inbox>> + Clone {
    vec(inbox(heights), 1..=heights as usize).prop_map(|mut inboxes| {
        let mut placed: Vec<(OrderId, AccountId, Terms)> = Vec::new();
        for (height, inbox) in (1..).zip(&mut inboxes) {
            inbox.height = Height(height);
            for (index, Entry { account, request }) in &mut inbox.entries {
                let target = |drawn: OrderId| {
                    let last = &placed[placed.len().saturating_sub(8)..];
                    let at = drawn.height.0 as usize + drawn.index as usize;
                    (!last.is_empty() && !at.is_multiple_of(5)).then(|| last[at % last.len()])
                };
                match request {
                    Request::Place(terms) => placed.push((id(height, *index), *account, *terms)),
                    Request::Cancel { market, order: Name::Id(order) }
                    | Request::Reduce { market, order, .. } => {
                        if let Some((id, owner, terms)) = target(*order) {
                            (*order, *account, *market) = (id, owner, terms.market);
                        }
                    }
                    Request::Modify { market, order: Name::Id(order), limit, .. } => {
                        if let Some((id, owner, terms)) = target(*order) {
                            (*order, *account, *market) = (id, owner, terms.market);
                            if limit.0 % 2 == 0 {
                                *limit = terms.limit;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        inboxes
    })
}
