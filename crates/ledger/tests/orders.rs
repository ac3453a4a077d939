//! Orders over any history: a zone that matches at random but soundly, late, in parts, or never; held against a
//! full scan, recomputed reservations, undo and redo, restarts, and rebuilding the zone. Triggers, scheduled cancels
//! and leverages take part, triggers and cancels held against a scan of all orders.

mod common;

use common::{Rng, Script, Story, USERS, params, records, users};
use proptest::prelude::*;
use seawall_ledger::*;
use seawall_types::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A zone that fills whom it likes, at any price of the band, within what an outcome may say. A function of its
/// orders and its inbox.
#[derive(Clone, Debug, Default, PartialEq)]
struct Loose {
    orders: BTreeMap<OrderId, Order>,
}

impl Loose {
    fn find(&self, account: AccountId, market: MarketId, name: Name) -> Option<Order> {
        let fits = |order: &&Order| {
            order.account == account
                && order.terms.market == market
                && match name {
                    Name::Id(id) => order.id == id,
                    Name::Cloid(cloid) => order.terms.cloid == Some(cloid),
                }
        };
        self.orders.values().find(fits).copied()
    }

    fn apply(&mut self, inbox: &Inbox) -> Outcome {
        let height = inbox.height;
        let mut rng = Rng(height.0 ^ 0x5eed);
        let mut cuts: BTreeMap<(OrderId, CutReason), (MarketId, Lots)> = BTreeMap::new();
        let mut ends: BTreeMap<OrderId, (MarketId, End)> = BTreeMap::new();
        let mut end = |order: OrderId, market: MarketId, reason: EndReason, lots: Lots| {
            assert!(ends.insert(order, (market, End { order, reason, lots })).is_none());
        };
        let stale = |order: &&Order| order.terms.good_til.is_some_and(|good_til| good_til < height);
        let over: Vec<_> = self.orders.values().filter(stale).copied().collect();
        for order in over {
            self.orders.remove(&order.id);
            end(order.id, order.terms.market, EndReason::Expired, order.terms.lots);
        }
        for (index, Entry { account, request }) in &inbox.entries {
            let id = OrderId { height, index: *index };
            match *request {
                Request::Place(terms) => {
                    if !terms.kind.is_immediate() && rng.chance(5) {
                        end(id, terms.market, EndReason::MarketFull, terms.lots);
                    } else {
                        self.orders.insert(id, Order { id, account: *account, terms });
                    }
                }
                Request::Cancel { market, order } => {
                    if let Some(order) = self.find(*account, market, order) {
                        self.orders.remove(&order.id);
                        end(order.id, market, EndReason::Cancelled, order.terms.lots);
                    }
                }
                Request::CancelAll { market, keep_reduce_only } => {
                    let fits = |order: &&Order| {
                        order.account == *account
                            && market.is_none_or(|market| market == order.terms.market)
                            && !(keep_reduce_only && order.terms.reduce_only)
                    };
                    let own: Vec<_> = self.orders.values().filter(fits).copied().collect();
                    for order in own {
                        self.orders.remove(&order.id);
                        end(order.id, order.terms.market, EndReason::Cancelled, order.terms.lots);
                    }
                }
                Request::Modify { market, order, limit, lots } => {
                    let Some(old) = self.find(*account, market, order) else {
                        end(id, market, EndReason::NotFound, lots);
                        continue;
                    };
                    if limit == old.terms.limit && lots <= old.terms.lots {
                        end(id, market, EndReason::Merged, lots);
                        let cut = old.terms.lots - lots;
                        if cut > Lots::ZERO {
                            cuts.entry((old.id, CutReason::Modified)).or_insert((market, Lots(0))).1 += cut;
                            self.orders.get_mut(&old.id).unwrap().terms.lots = lots;
                        }
                    } else {
                        self.orders.remove(&old.id);
                        end(old.id, market, EndReason::Replaced, old.terms.lots);
                        let terms = Terms { limit, lots, ..old.terms };
                        self.orders.insert(id, Order { id, account: *account, terms });
                    }
                }
                Request::Reduce { .. } => unreachable!("settlement cancels"),
            }
        }
        let mut fills: BTreeMap<MarketId, (PriceTicks, Vec<Fill>)> = BTreeMap::new();
        for (market, reference) in &inbox.references {
            let Band { low, high } = reference.band;
            let price = match rng.below(4) {
                0 => low,
                1 => high,
                _ => PriceTicks(low.0 + rng.below(high.0 - low.0 + 1)),
            };
            let eligible = |side: Side| {
                let own = self.orders.values().filter(move |order| {
                    order.terms.market == *market && order.terms.side == side && order.terms.accepts(price)
                });
                own.copied().collect::<Vec<_>>()
            };
            let buys = eligible(Side::Buy);
            let buyers: BTreeSet<_> = buys.iter().map(|order| order.account).collect();
            let mut sells = eligible(Side::Sell);
            sells.retain(|order| !buyers.contains(&order.account));
            let sum = |orders: &[Order]| orders.iter().map(|order| order.terms.lots.0).sum::<i64>();
            let most = sum(&buys).min(sum(&sells));
            let volume = if rng.chance(50) { most } else { most * rng.below(100) as i64 / 100 };
            let mut list = Vec::new();
            for mut side in [buys, sells] {
                if rng.chance(50) {
                    side.reverse();
                }
                let mut left = volume;
                for order in side {
                    let lots = order.terms.lots.0.min(left);
                    if lots == 0 {
                        break;
                    }
                    left -= lots;
                    let Order { id, account, terms } = order;
                    list.push(Fill {
                        order: id,
                        account,
                        side: terms.side,
                        lots: Lots(lots),
                        maker: id.height < height,
                    });
                    if lots == terms.lots.0 {
                        self.orders.remove(&id);
                        end(id, *market, EndReason::Filled, Lots(0));
                    } else {
                        self.orders.get_mut(&id).unwrap().terms.lots -= Lots(lots);
                    }
                }
            }
            if !list.is_empty() {
                list.sort_by_key(|fill| fill.order);
                fills.insert(*market, (price, list));
            }
        }
        let immediate = |order: &&Order| order.terms.kind.is_immediate();
        let over: Vec<_> = self.orders.values().filter(immediate).copied().collect();
        for order in over {
            self.orders.remove(&order.id);
            end(order.id, order.terms.market, EndReason::IocRemainder, order.terms.lots);
        }
        let mut markets: BTreeMap<MarketId, MarketOutcome> = BTreeMap::new();
        fn of(markets: &mut BTreeMap<MarketId, MarketOutcome>, market: MarketId) -> &mut MarketOutcome {
            markets.entry(market).or_insert(MarketOutcome {
                market,
                price: None,
                fills: Vec::new(),
                cuts: Vec::new(),
                ends: Vec::new(),
                slides: Vec::new(),
            })
        }
        for ((order, reason), (market, lots)) in cuts {
            of(&mut markets, market).cuts.push(Cut { order, reason, lots });
        }
        for (market, end) in ends.into_values() {
            of(&mut markets, market).ends.push(end);
        }
        for (market, (price, list)) in fills {
            let own = of(&mut markets, market);
            (own.price, own.fills) = (Some(price), list);
        }
        Outcome { height, part: 0, last: true, markets: markets.into_values().collect() }
    }
}

/// A zone with the parts of outcomes that settlement has not taken.
#[derive(Clone, Debug, Default, PartialEq)]
struct Beside {
    zone: Loose,
    owed: VecDeque<Outcome>,
}

impl Beside {
    fn take(&mut self, inbox: &Inbox, records: usize) {
        self.owed.extend(self.zone.apply(inbox).split(records));
    }

    /// From the ledger's records alone.
    fn rebuilt(ledger: &Ledger, zone: u8, records: usize) -> Self {
        let (_, resting) = ledger.resting(zone);
        let orders = resting.into_iter().map(|order| (order.id, order)).collect();
        let mut beside = Self { zone: Loose { orders }, owed: VecDeque::new() };
        for height in ledger.unsettled(zone).collect::<Vec<_>>() {
            beside.take(&ledger.inbox(zone, height).unwrap(), records);
        }
        let settled = ledger.next_part(zone).map_or(0, |(_, part)| part);
        beside.owed.drain(..settled as usize);
        beside
    }
}

const RECORDS: usize = 12;

/// Two zones: the second market is alone in its own.
fn order_params() -> ChainParams {
    let mut params = params();
    for (at, market) in params.markets.iter_mut().enumerate() {
        market.orders = OrderParams {
            zone: (at == 1) as u8,
            min_lots: Lots(2),
            max_per_account: 6,
            void_after: 5,
            late_after: if at == 2 { 0 } else { 3 },
            shed_after: 2,
            max_records: 6 * RECORDS as u32,
            max_activations: 2,
        };
    }
    params
}

fn genesis() -> Ledger {
    Ledger::genesis(&order_params(), TimeMs(1_000), users(USERS, 300_000_000)).unwrap()
}

struct Block {
    script: Script,
    settles: Vec<(u8, Outcome)>,
}

#[derive(Default, Debug)]
struct Seen {
    placed: u64,
    refused: u64,
    fills: u64,
    carried: u64,
    liquidated: u64,
    voided: u64,
    left: u64,
    partial: u64,
    closes: u64,
    modified: u64,
    cancelled: u64,
    triggers: u64,
    crossed: u64,
    activated: u64,
    cut: u64,
    waiting: u64,
    scheduled: u64,
    leverages: u64,
    trigger_ends: BTreeMap<TriggerEnd, u64>,
    refusals: BTreeMap<Refusal, u64>,
}

fn terms(story: &mut Story, ledger: &Ledger, who: AccountId, reduce_only: bool) -> Terms {
    let rng = &mut story.rng;
    let market = MarketId(rng.below(3) as u16);
    let price = story.prices[usize::from(market.0)];
    let held = ledger.account(who).map_or(0, |account| account.lots(market).0);
    let side = match (reduce_only && !rng.chance(5), held > 0) {
        (true, true) => Side::Sell,
        (true, false) => Side::Buy,
        _ => [Side::Buy, Side::Sell][rng.below(2) as usize],
    };
    let lots = match rng.below(4) {
        0 => rng.below(5) as i64,
        1 if held != 0 => held.abs(),
        _ => 1 + (rng.below(100_000_000) / price.max(1)) as i64,
    };
    let lots = if reduce_only && held != 0 { 1 + rng.below(held.unsigned_abs()) as i64 } else { lots };
    Terms {
        market,
        side,
        limit: PriceTicks(match rng.below(6) {
            0 => limits::MAX_PRICE_TICKS,
            1 => 1,
            _ => price * (970_000 + rng.below(60_001)) / 1_000_000,
        }),
        lots: Lots(lots),
        kind: [Kind::Limit, Kind::Ioc, Kind::PostOnly(OnCross::Cancel)][rng.below(3) as usize],
        reduce_only,
        good_til: rng.chance(20).then(|| Height(ledger.globals().height.0 + rng.below(6))),
        cloid: rng.chance(30).then(|| Cloid(rng.below(4))),
    }
}

fn order_action(story: &mut Story, ledger: &Ledger) -> (AccountId, Action) {
    let who = AccountId(story.rng.below(USERS));
    let own: Vec<_> = ledger.orders_of(who).map(|(id, order)| (id, *order)).collect();
    let pick = story.rng.below(own.len().max(1) as u64) as usize;
    let named = own.get(pick).map(|(id, order)| {
        let cloid = order.terms.cloid.filter(|_| story.rng.chance(50)).map(Name::Cloid);
        (order.terms, cloid.unwrap_or(Name::Id(*id)))
    });
    let action = match (story.rng.below(19), named) {
        (12..15, _) => {
            let reduce_only = story.rng.chance(60);
            let mut terms = terms(story, ledger, who, reduce_only);
            if !story.rng.chance(3) && !matches!(terms.kind, Kind::Limit | Kind::Ioc) {
                terms.kind = Kind::Ioc;
            }
            let price = story.prices[usize::from(terms.market.0)];
            let (away, above) = (story.rng.below(60_001), story.rng.chance(50));
            let ppm = if above != story.rng.chance(5) { 1_000_000 + away } else { 1_000_000 - away };
            let crossing = if above { Crossing::Above } else { Crossing::Below };
            let trigger = Trigger { price: PriceTicks(price * ppm / 1_000_000), crossing };
            Action::PlaceTrigger { trigger, terms }
        }
        (15, _) if story.rng.chance(30) => Action::ScheduleCancel {
            at: story
                .rng
                .chance(90)
                .then(|| TimeMs(ledger.globals().time.0 + 5_500 + story.rng.below(8_000))),
        },
        (16, _) => Action::SetLeverage {
            market: MarketId(story.rng.below(3) as u16),
            leverage: [1, 21, 5, 10, 19, 20][story.rng.below(6) as usize],
        },
        (0, Some((terms, order))) => match story.rng.below(3) {
            0 => Action::Cancel { market: terms.market, order },
            _ => {
                let other = Name::Cloid(Cloid(story.rng.below(9)));
                Action::CancelMany(vec![(terms.market, other), (terms.market, order), (terms.market, order)])
            }
        },
        (1, _) => Action::CancelAll {
            market: story.rng.chance(50).then_some(MarketId(story.rng.below(3) as u16)),
            keep_reduce_only: story.rng.chance(50),
        },
        (2 | 3, Some((terms, order))) => Action::Modify {
            market: terms.market,
            order,
            limit: if story.rng.chance(50) {
                terms.limit
            } else {
                PriceTicks(
                    (terms.limit.0 + story.rng.below(9)).saturating_sub(4).clamp(1, limits::MAX_PRICE_TICKS),
                )
            },
            lots: Lots(1 + story.rng.below(2 * terms.lots.0.unsigned_abs()) as i64),
        },
        (4 | 5, _) => Action::Close(terms(story, ledger, who, true)),
        (6, _) => {
            let count = 1 + story.rng.below(4);
            let many = (0..count).map(|_| {
                let reduce_only = story.rng.chance(30);
                terms(story, ledger, who, reduce_only)
            });
            Action::PlaceMany(many.collect())
        }
        _ => Action::Place(terms(story, ledger, who, false)),
    };
    (who, action)
}

fn script(story: &mut Story, ledger: &Ledger) -> Script {
    let mut script = story.script(ledger);
    script.trades.truncate(5);
    for _ in 0..story.rng.below(25) {
        let (who, action) = order_action(story, ledger);
        story.nonce += 1;
        let one = (who, Nonce(story.nonce), action);
        match one.2.lane() {
            Lane::Rescue => script.rescues.push(one),
            Lane::Trade => script.trades.push(one),
        }
    }
    script
}

fn play_block(ledger: &mut Ledger, block: &Block, seen: &mut Seen) -> BlockDelta {
    let script = &block.script;
    let height = ledger.globals().height.next();
    ledger.begin_block(height, TimeMs(ledger.globals().time.0 + script.elapsed));
    ledger.set_marks(&script.marks);
    ledger.accrue_funding();
    seen.voided += ledger.void_overdue().len() as u64;
    for (zone, outcome) in &block.settles {
        let named = outcome.markets.iter().flat_map(|own| &own.fills).map(|fill| fill.order);
        let kinds: BTreeMap<_, _> =
            named.filter_map(|id| ledger.order(id).map(|order| (id, order.terms.kind))).collect();
        let report = ledger.settle(*zone, outcome).unwrap();
        for fill in &report.fills {
            seen.fills += 1;
            seen.carried += u64::from(fill.carried > Lots::ZERO);
            let order = kinds.get(&fill.order);
            seen.liquidated += u64::from(order == Some(&Kind::Liquidation));
        }
        seen.partial += u64::from(!outcome.last);
    }
    seen.scheduled += run_scheduled(ledger);
    let apply = |ledger: &mut Ledger, seen: &mut Seen, list: &[(AccountId, Nonce, Action)]| {
        for (account, nonce, action) in list {
            let expiry = Height(height.0 + 3);
            let checked = ledger.check(*account, *nonce, expiry, action);
            let receipt = ledger.apply(*account, *nonce, expiry, action);
            assert_eq!(checked.err(), receipt.err(), "check says what apply does");
            match receipt {
                Ok(Receipt::Placed { order }) => {
                    seen.placed += 1;
                    seen.closes += u64::from(ledger.order(order).unwrap().terms.reduce_only);
                }
                Ok(Receipt::PlacedMany(statuses)) => {
                    for status in statuses.iter() {
                        match status {
                            Ok(order) => assert_eq!(ledger.order(order).unwrap().account, *account),
                            Err(refusal) => *seen.refusals.entry(refusal).or_default() += 1,
                        }
                    }
                }
                Ok(Receipt::CancellingMany { orders, verdicts }) => {
                    seen.cancelled += u64::from(orders);
                    for verdict in verdicts.iter() {
                        if let Err(refusal) = verdict {
                            *seen.refusals.entry(refusal).or_default() += 1;
                        }
                    }
                }
                Ok(Receipt::Modifying { .. }) => seen.modified += 1,
                Ok(Receipt::Waiting { order }) => {
                    assert!(ledger.order(order).unwrap().waiting.is_some());
                    seen.triggers += 1;
                }
                Ok(Receipt::LeverageSet) => seen.leverages += 1,
                Err(refusal) => {
                    seen.refused += 1;
                    *seen.refusals.entry(refusal).or_default() += 1;
                    let _ = ledger.spend_nonce(*account, *nonce, expiry);
                }
                Ok(_) => {}
            }
        }
    };
    apply(ledger, seen, &script.rescues);
    let leaving = |ledger: &Ledger| -> usize {
        let ids = (0..ledger.globals().accounts).map(AccountId);
        ids.map(|id| ledger.orders_of(id).filter(|(_, own)| own.leaving.is_some()).count()).sum()
    };
    let before = leaving(ledger);
    ledger.sweep(&mut NoVenue);
    seen.left += (leaving(ledger) - before) as u64;
    activate(ledger, seen);
    apply(ledger, seen, &script.trades);
    let delta = ledger.end_block();
    for event in &delta.events {
        match event {
            Event::TriggerEnded { reason, .. } => *seen.trigger_ends.entry(*reason).or_default() += 1,
            Event::Activated { .. } => seen.activated += 1,
            _ => {}
        }
    }
    delta
}

fn all_orders(ledger: &Ledger) -> BTreeMap<OrderId, OpenOrder> {
    let ids = (0..ledger.globals().accounts).map(AccountId);
    ids.flat_map(|id| ledger.orders_of(id)).map(|(id, order)| (id, *order)).collect()
}

/// Cancels what is due: everything of the accounts whose time has come, and nothing else.
fn run_scheduled(ledger: &mut Ledger) -> u64 {
    let due = |ledger: &Ledger| -> BTreeSet<AccountId> {
        let ids = (0..ledger.globals().accounts).map(AccountId);
        let is_due = |at: TimeMs| at <= ledger.globals().time;
        ids.filter(|id| ledger.account(*id).unwrap().cancel_at.is_some_and(is_due)).collect()
    };
    let (accounts, before) = (due(ledger), all_orders(ledger));
    assert_eq!(ledger.run_scheduled_cancels(), accounts.len() as u64);
    let after = all_orders(ledger);
    for (id, order) in before {
        let now = after.get(&id).copied();
        if !accounts.contains(&order.account) {
            assert_eq!(now, Some(order));
        } else if order.waiting.is_some() {
            assert_eq!(now, None);
        } else {
            assert!(now.unwrap().leaving.is_some() || order.ended);
        }
    }
    assert!(due(ledger).is_empty(), "each once");
    accounts.len() as u64
}

/// Gives crossed triggers their turns, and holds it against what a scan of all of them says.
fn activate(ledger: &mut Ledger, seen: &mut Seen) {
    let height = ledger.globals().height;
    let before = all_orders(ledger);
    let held: BTreeMap<_, _> = (0..ledger.globals().accounts)
        .map(AccountId)
        .flat_map(|id| (0..3).map(MarketId).map(move |market| (id, market)))
        .map(|key| (key, ledger.account(key.0).unwrap().lots(key.1).0))
        .collect();
    let (mut gone, mut queues, mut crossed) = (BTreeSet::new(), BTreeMap::<_, BTreeSet<_>>::new(), 0);
    let mut stay = BTreeMap::new();
    for (id, order) in &before {
        let Some(mut waiting) = order.waiting else { continue };
        if order.terms.good_til.is_some_and(|good_til| good_til < height) {
            gone.insert(*id);
            continue;
        }
        let mark = ledger.market(order.terms.market).unwrap().mark.and_then(|mark| mark.fresh());
        if waiting.crossed.is_none() && mark.is_some_and(|mark| waiting.trigger.is_crossed(mark)) {
            waiting.crossed = Some(height);
            crossed += 1;
        }
        if let Some(at) = waiting.crossed {
            queues.entry(order.terms.market).or_default().insert((!order.terms.reduce_only, at, *id));
        }
        stay.insert(*id, OpenOrder { waiting: Some(waiting), ..*order });
    }
    let mut later = 0;
    for (market, queue) in queues {
        let own = ledger.market(market).unwrap();
        let open = own.mark.is_some_and(|mark| mark.is_fresh()) || own.quarantined.is_some();
        let turns = if open { 2 } else { 0 };
        later += queue.len().saturating_sub(turns) as u64;
        gone.extend(queue.iter().take(turns).map(|(.., id)| *id));
    }
    let report = ledger.activate_triggers();
    assert_eq!((report.crossed, report.waiting), (crossed, later));
    assert_eq!(report.activated + report.ended, gone.len() as u64);
    (seen.crossed, seen.waiting) = (seen.crossed + crossed, seen.waiting + later);
    stay.retain(|id, _| !gone.contains(id));
    let after = all_orders(ledger);
    let waiting: BTreeMap<_, _> =
        after.iter().filter(|(_, order)| order.waiting.is_some()).map(|(id, order)| (*id, *order)).collect();
    assert_eq!(waiting, stay, "who has had no turn waits, and nobody else");
    let mut closing: BTreeMap<_, i64> = BTreeMap::new();
    for (id, order) in after.iter().filter(|(id, _)| id.height == height && !before.contains_key(id)) {
        let terms = order.terms;
        assert_eq!(order.leaving, None);
        // Two that had their turn may differ by nothing but their lots.
        let asked: BTreeSet<Lots> = before
            .iter()
            .filter(|(was, own)| {
                let same = Terms { lots: terms.lots, ..own.terms } == terms;
                gone.contains(was) && own.account == order.account && same
            })
            .map(|(_, own)| own.terms.lots)
            .collect();
        let whole = asked.contains(&terms.lots);
        let cut = terms.reduce_only && asked.last().is_some_and(|lots| *lots > terms.lots);
        assert!(whole || cut, "{id} is what a trigger asked for");
        seen.cut += u64::from(!whole);
        if terms.reduce_only {
            *closing.entry((order.account, terms.market)).or_default() += terms.lots.0;
        }
    }
    for ((account, market), lots) in closing {
        assert!(lots <= held[&(account, market)].abs(), "no more than there is to close");
    }
}

/// What no block may leave behind.
fn check(ledger: &Ledger) {
    assert_eq!(ledger.audit(), Ok(()));
    let mut inboxes: BTreeMap<u8, u64> = BTreeMap::new();
    for (zone, _) in ledger.zones() {
        inboxes.insert(zone, ledger.unsettled(zone).count() as u64);
        assert!(inboxes[&zone] <= 5, "a zone owes no more than its inboxes live");
    }
    for at in 0..ledger.globals().accounts {
        let id = AccountId(at);
        let account = ledger.account(id).unwrap();
        let mut closing: BTreeMap<(MarketId, Side), i64> = BTreeMap::new();
        for (_, order) in ledger.orders_of(id) {
            let own = order.terms.kind != Kind::Liquidation;
            if own && order.terms.reduce_only && order.leaving.is_none() && order.waiting.is_none() {
                *closing.entry((order.terms.market, order.terms.side)).or_default() += order.live().0;
            }
        }
        for ((market, side), lots) in closing {
            let held = account.lots(market).0;
            let room = if side == Side::Buy { -held } else { held };
            assert!(lots <= room.max(0), "reduce-only orders that stay are covered by the position");
        }
    }
}

fn play(seed: u64, blocks: usize, seen: &mut Seen) {
    let mut story = Story::new(seed);
    let (mut indexed, mut scanned) = (genesis(), genesis());
    scanned.set_sweep_mode(SweepMode::FullScan);
    let mut beside: BTreeMap<u8, Beside> = [(0, Beside::default()), (1, Beside::default())].into();
    let mut done: Vec<(Block, BlockDelta)> = Vec::new();
    let mut down = 0;
    for at in 0..blocks {
        let script = script(&mut story, &indexed);
        // Now and then no outcome arrives for so long that inboxes are void.
        if story.rng.chance(4) {
            down = 9;
        }
        down = i32::max(down - 1, 0);
        let next = indexed.globals().height.0 + 1;
        // What the next block voids makes zones start again from what settlement has left.
        let mut probe = indexed.clone();
        probe.begin_block(Height(next), TimeMs(probe.globals().time.0 + 1));
        for (zone, _) in probe.void_overdue() {
            beside.insert(zone, Beside::rebuilt(&probe, zone, RECORDS));
        }
        let mut settles = Vec::new();
        for (zone, beside) in &mut beside {
            if down > 0 || story.rng.chance(20) {
                continue;
            }
            let most = 1 + story.rng.below(6) as usize;
            for _ in 0..most.min(beside.owed.len()) {
                settles.push((*zone, beside.owed.pop_front().unwrap()));
            }
        }
        let block = Block { script, settles };
        let delta = play_block(&mut indexed, &block, seen);
        assert_eq!(play_block(&mut scanned, &block, &mut Seen::default()), delta, "seed {seed}, block {at}");
        assert!(delta.changes.windows(2).all(|pair| pair[0].0 < pair[1].0), "changes are sorted");
        check(&indexed);
        for (zone, beside) in &mut beside {
            if let Some(inbox) = indexed.inbox(*zone, delta.height) {
                assert_eq!(inbox.check(), Ok(()));
                beside.take(&inbox, RECORDS);
            }
            let again = Beside::rebuilt(&indexed, *zone, RECORDS);
            assert_eq!(&again, beside, "seed {seed}, block {at}: a zone is its records");
        }
        done.push((block, delta));
        if story.rng.chance(10) {
            let depth = 1 + story.rng.below(done.len().min(6) as u64) as usize;
            let tip = records(&indexed);
            for (_, delta) in done.iter().rev().take(depth) {
                indexed.revert(delta);
                assert_eq!(indexed.audit(), Ok(()));
            }
            let from = done.len() - depth;
            if story.rng.chance(50) {
                done[from..].iter().for_each(|(_, delta)| indexed.reapply(delta));
            } else {
                for (block, delta) in &done[from..] {
                    assert_eq!(&play_block(&mut indexed, block, &mut Seen::default()), delta);
                }
            }
            assert_eq!(records(&indexed), tip, "seed {seed}: there and back again");
        }
        if story.rng.chance(5) {
            indexed = Ledger::from_records(indexed.records()).unwrap();
        }
    }
}

#[test]
fn the_histories_reach_every_fate_of_an_order() {
    let mut seen = Seen::default();
    for seed in 0..24 {
        play(seed, 120, &mut seen);
    }
    println!("{seen:?}");
    assert!(seen.placed > 1_000 && seen.fills > 500 && seen.closes > 50);
    assert!(
        seen.voided > 20
            && seen.left > 20
            && seen.partial > 20
            && seen.liquidated > 5
            && seen.modified > 100
            && seen.cancelled > 20
    );
    assert!(seen.triggers > 500 && seen.crossed > 100 && seen.activated > 100 && seen.cut > 5);
    assert!(seen.waiting > 20 && seen.scheduled > 20 && seen.leverages > 100);
    for end in [
        TriggerEnd::Cancelled,
        TriggerEnd::Scheduled,
        TriggerEnd::Expired,
        TriggerEnd::MarginLost,
        TriggerEnd::PositionGone,
        TriggerEnd::NoClosingLots,
    ] {
        assert!(seen.trigger_ends.contains_key(&end), "{end:?}");
    }
    for refusal in [
        Refusal::BelowMinimum,
        Refusal::NotPositive,
        Refusal::OrderExpired,
        Refusal::TooManyOrders,
        Refusal::DuplicateCloid,
        Refusal::UnknownOrder,
        Refusal::ClosingLots,
        Refusal::OrdersOpen,
        Refusal::PriceNotFresh,
        Refusal::InsufficientMargin,
        Refusal::TriggerKind,
        Refusal::TriggerCrossed,
        Refusal::TriggerWaits,
        Refusal::ScheduledTooSoon,
        Refusal::LeverageRange,
    ] {
        assert!(seen.refusals.contains_key(&refusal), "{refusal:?}");
    }
}

/// A reduce-only order was cancelled, filled all the same, and closed what a younger one was to close.
#[test]
fn a_fill_of_an_order_on_its_way_out_leaves_no_other_uncovered() {
    play(3_100_150_462_876_139_612, 60, &mut Seen::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Conservation, reservations, both sweeps, undo and redo, restarts, rebuilt zones: after every block.
    #[test]
    fn every_history_of_orders_holds(seed in any::<u64>()) {
        play(seed, 60, &mut Seen::default());
    }
}
