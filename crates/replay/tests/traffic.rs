//! Traffic against a model of settlement that delays, refuses, loses, fills and ends orders as it likes.

use proptest::prelude::*;
use seawall_replay::{
    DEFAULT_REPLAY,
    book::{self, BookSpec},
    depth::DepthCurve,
    load,
    tape::Tape,
    traffic::{
        AccountView, MAX_CANCELS_PER_STEP, MAX_PLACED_PER_STEP, OpenOrder, Submit, Traffic, TrafficError,
        TrafficMarket, TrafficSpec, View,
    },
};
use seawall_types::{
    Action, Cloid, Height, Kind, Lots, MarketId, Name, Ppm, PriceTicks, Side, Terms,
    limits::MAX_ORDERS_PER_ACTION,
};
use std::collections::{BTreeMap, BTreeSet};

const SPEED: u32 = 60;
const START_MS: u64 = 1_760_129_400_000;
/// Time between two blocks, of the replay: an eighth of a second at 60 to 1.
const BLOCK_MS: u64 = 7_500;

fn market(weight_ppm: u32, max_per_account: u16) -> TrafficMarket {
    TrafficMarket {
        weight_ppm,
        first_price: PriceTicks(12_000),
        atoms_per_tick_lot: 200,
        open_interest: Lots(50_000_000),
        band_ppm: Ppm(10_000),
        min_price: PriceTicks(100),
        max_price: PriceTicks(240_000),
        min_lots: Lots(3),
        max_per_account,
        account_cap: Lots(100_000_000),
    }
}

/// SplitMix64: the model's own dice.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    fn hit(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How settlement treats traffic, in percent a block.
#[derive(Clone, Copy, Debug)]
struct Manners {
    /// Of actions: lost on their way.
    lost: u64,
    /// Of orders: refused.
    refused: u64,
    /// Of open orders: filled, in part or whole.
    filled: u64,
    /// Of actions: wait another block.
    late: u64,
    /// Of markets: blind in a block.
    blind: u64,
    /// Largest move of a mark in a block, in basis points.
    moves: u64,
}

const CALM: Manners = Manners { lost: 0, refused: 0, filled: 0, late: 0, blind: 0, moves: 0 };

#[derive(Clone, Copy)]
struct Open {
    terms: Terms,
    lots: i64,
    placed: u64,
    leaving: Option<u64>,
}

/// Blocks until the zone's outcome of a height is settled.
const OUTCOME_BLOCKS: u64 = 3;

struct Model {
    markets: Vec<TrafficMarket>,
    height: u64,
    time_ms: u64,
    marks: Vec<u64>,
    open: Vec<BTreeMap<(u16, u64), Open>>,
    positions: Vec<Vec<i64>>,
    waiting: Vec<Submit>,
    /// Last height of a cancel that was sent.
    cancelled: BTreeMap<(usize, u16, u64), u64>,
    names: BTreeSet<(usize, u16, u64)>,
    dice: Dice,
    manners: Manners,
}

impl Model {
    fn new(markets: Vec<TrafficMarket>, accounts: usize, seed: u64, manners: Manners) -> Self {
        Self {
            height: 1,
            time_ms: START_MS,
            marks: markets.iter().map(|market| market.first_price.0).collect(),
            open: vec![BTreeMap::new(); accounts],
            positions: vec![vec![0; markets.len()]; accounts],
            waiting: Vec::new(),
            cancelled: BTreeMap::new(),
            names: BTreeSet::new(),
            dice: Dice(seed),
            manners,
            markets,
        }
    }

    fn views(&self) -> Vec<AccountView> {
        let positions = |own: &Vec<i64>| {
            (0..)
                .map(MarketId)
                .zip(own.iter().map(|lots| Lots(*lots)))
                .filter(|(_, lots)| lots.0 != 0)
                .collect()
        };
        let orders = |own: &BTreeMap<(u16, u64), Open>| {
            own.iter()
                .map(|((market, cloid), open)| OpenOrder {
                    market: MarketId(*market),
                    cloid: Some(Cloid(*cloid)),
                    side: open.terms.side,
                    lots: Lots(open.lots),
                    leaving: open.leaving.is_some(),
                })
                .collect()
        };
        self.open
            .iter()
            .zip(&self.positions)
            .map(|(open, held)| AccountView { positions: positions(held), orders: orders(open) })
            .collect()
    }

    /// Lots that an account may come to hold or owe, and its orders.
    fn exposure(&self, account: usize, market: u16) -> (i64, i64, usize) {
        let (mut long, mut short, mut orders) = (0, 0, 0);
        for (_, open) in self.open[account].range((market, 0)..=(market, u64::MAX)) {
            match open.terms.side {
                Side::Buy => long += open.lots,
                Side::Sell => short += open.lots,
            }
            orders += 1;
        }
        let held = self.positions[account][usize::from(market)];
        (held + long, short - held, orders)
    }

    /// What the traffic may not send, whatever settlement does with it.
    fn check(&mut self, submits: &[Submit], marks: &[Option<PriceTicks>], spec: &TrafficSpec) {
        let (mut placed, mut cancels) = (0, 0);
        for submit in submits {
            let account = submit.account;
            assert!(submit.expiry.0 > self.height, "it can be executed in the next block");
            match &submit.action {
                Action::PlaceMany(orders) => {
                    placed += orders.len();
                    let most = if account < usize::from(spec.accounts) {
                        usize::from(spec.batch)
                    } else {
                        MAX_ORDERS_PER_ACTION
                    };
                    assert!((1..=most).contains(&orders.len()), "{} orders at once", orders.len());
                    for terms in orders {
                        let market = &self.markets[usize::from(terms.market.0)];
                        let mark = marks[usize::from(terms.market.0)].expect("no order in a blind market");
                        let off = terms.limit.0.abs_diff(mark.0) * 1_000_000;
                        assert!(
                            off <= u64::from(market.band_ppm.0) * mark.0,
                            "{terms:?} outside the band of {mark}"
                        );
                        assert!(terms.lots >= market.min_lots, "{terms:?}");
                        assert!(matches!(terms.kind, Kind::Ioc | Kind::PostOnly(_)) && !terms.reduce_only);
                        let good_til = terms.good_til.expect("every order has a last height");
                        assert_eq!(good_til.0, self.height + u64::from(spec.life_blocks));
                        let name = (account, terms.market.0, terms.cloid.expect("every order has a name").0);
                        assert!(self.names.insert(name), "a name is used once");
                    }
                }
                Action::Cancel { market, order: Name::Cloid(cloid) } => {
                    cancels += 1;
                    let open =
                        self.open[account].get(&(market.0, cloid.0)).expect("only what is open is cancelled");
                    assert!(open.leaving.is_none() && open.terms.kind != Kind::Ioc);
                    let before = self.cancelled.insert((account, market.0, cloid.0), submit.expiry.0);
                    assert!(
                        before.is_none_or(|until| until < self.height),
                        "cancelled while a cancel may come"
                    );
                }
                Action::CancelAll { market: Some(_), keep_reduce_only: false } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(placed <= MAX_PLACED_PER_STEP && cancels <= MAX_CANCELS_PER_STEP);
    }

    /// The next block.
    fn block(&mut self, traffic: &Traffic) {
        self.height += 1;
        self.time_ms += BLOCK_MS;
        let manners = self.manners;
        // Rescues before trades, each lane by age.
        let mut due = std::mem::take(&mut self.waiting);
        due.sort_by_key(|submit| !matches!(submit.action, Action::CancelAll { .. }));
        for submit in due {
            if self.dice.hit(manners.late) {
                self.waiting.push(submit);
            } else if submit.expiry.0 >= self.height && !self.dice.hit(manners.lost) {
                self.execute(submit, traffic);
            }
        }
        let height = self.height;
        for (account, own) in self.open.iter_mut().enumerate() {
            for ((market, _), open) in own.iter_mut() {
                if self.dice.hit(manners.filled) {
                    let lots = 1 + self.dice.below(open.lots as u64) as i64;
                    open.lots -= lots;
                    let sign = if open.terms.side == Side::Buy { 1 } else { -1 };
                    self.positions[account][usize::from(*market)] += sign * lots;
                }
            }
            own.retain(|_, open| {
                let since = |from: u64| height >= from + OUTCOME_BLOCKS;
                open.lots > 0
                    && !open.leaving.is_some_and(since)
                    && !(open.terms.kind == Kind::Ioc && since(open.placed))
                    && open.terms.good_til.is_none_or(|until| until.0 >= height)
            });
        }
        for mark in &mut self.marks {
            let most = *mark * self.manners.moves / 10_000;
            *mark = (*mark + self.dice.below(2 * most + 1) - most).clamp(200, 200_000);
        }
    }

    fn execute(&mut self, submit: Submit, traffic: &Traffic) {
        let (account, height) = (submit.account, self.height);
        match submit.action {
            Action::PlaceMany(orders) => {
                for terms in orders {
                    if self.dice.hit(self.manners.refused) {
                        continue;
                    }
                    let key = (terms.market.0, terms.cloid.unwrap().0);
                    let open = Open { terms, lots: terms.lots.0, placed: height, leaving: None };
                    assert!(self.open[account].insert(key, open).is_none());
                    let (long, short, orders) = self.exposure(account, terms.market.0);
                    let cap = traffic.cap_lots(account, terms.market).0;
                    assert!(long <= cap && short <= cap, "account {account}: {long} or {short} of {cap}");
                    let most = usize::from(self.markets[usize::from(terms.market.0)].max_per_account);
                    assert!(orders <= most, "account {account}: {orders} orders");
                }
            }
            Action::Cancel { market, order: Name::Cloid(cloid) } => {
                if let Some(open) = self.open[account].get_mut(&(market.0, cloid.0)) {
                    open.leaving.get_or_insert(height);
                }
            }
            Action::CancelAll { market: Some(market), .. } => {
                for (_, open) in self.open[account].range_mut((market.0, 0)..=(market.0, u64::MAX)) {
                    open.leaving.get_or_insert(height);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A block, and what the traffic makes of it.
    fn turn(&mut self, traffic: &mut Traffic, spec: &TrafficSpec) -> Vec<Submit> {
        self.block(traffic);
        let manners = self.manners;
        let marks: Vec<Option<PriceTicks>> = self
            .marks
            .iter()
            .map(|mark| (!self.dice.hit(manners.blind)).then_some(PriceTicks(*mark)))
            .collect();
        let accounts = self.views();
        let view =
            View { height: Height(self.height), time_ms: self.time_ms, marks: &marks, accounts: &accounts };
        let submits = traffic.step(&view);
        self.check(&submits, &marks, spec);
        self.waiting.extend(submits.iter().cloned());
        submits
    }
}

fn manners() -> impl Strategy<Value = Manners> {
    let percent = |most: u64| prop_oneof![Just(0), 0..=most];
    (percent(30), percent(30), percent(30), percent(60), percent(20), percent(100)).prop_map(
        |(lost, refused, filled, late, blind, moves)| Manners { lost, refused, filled, late, blind, moves },
    )
}

fn specs() -> impl Strategy<Value = TrafficSpec> {
    (any::<u64>(), 0..=20_000_000u32, 2..=24u16, 1..=64u8, 0..=3u8, 2..=40u32, 1..=20u32, 100..=30_000u32)
        .prop_map(
            |(seed, rate_ppm, accounts, batch, makers, life_blocks, patience_blocks, account_cap_ppm)| {
                TrafficSpec {
                    seed,
                    rate_ppm,
                    accounts,
                    batch,
                    makers,
                    life_blocks,
                    patience_blocks,
                    account_cap_ppm,
                    ..TrafficSpec::default()
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_settlement_does_names_caps_bands_and_limits_hold(
        spec in specs(),
        manners in manners(),
        seed in any::<u64>(),
        most in 12..=64u16,
        markets in 1..=19usize,
    ) {
        let markets: Vec<TrafficMarket> =
            (0..markets).map(|index| market(1_000_000 >> index.min(6), most)).collect();
        let new = || Traffic::new(spec.clone(), DEFAULT_REPLAY, &markets, SPEED).unwrap();
        let (mut traffic, mut twin) = (new(), new());
        let mut model = Model::new(markets.clone(), traffic.accounts(), seed, manners);
        let mut mirror = Model::new(markets.clone(), traffic.accounts(), seed, manners);
        for _ in 0..60 {
            let submits = model.turn(&mut traffic, &spec);
            prop_assert_eq!(submits, mirror.turn(&mut twin, &spec), "the same inputs, other actions");
        }
        prop_assert_eq!(traffic.stats(), twin.stats());
    }
}

/// The markets of the crash with a book of accounts, as a devnet has them.
fn crash() -> Vec<TrafficMarket> {
    let replay = load(DEFAULT_REPLAY, None, None).unwrap();
    let spec = BookSpec { accounts: 20_000, ..BookSpec::default() };
    let book = book::generate(&replay, &spec, |_, _| 25_000).unwrap();
    replay
        .markets
        .iter()
        .zip(&book.open_interest)
        .map(|(listing, open)| TrafficMarket {
            weight_ppm: listing.weight_ppm,
            first_price: listing.first_price,
            atoms_per_tick_lot: listing.atoms_per_tick_lot,
            open_interest: Lots(*open),
            band_ppm: Ppm(10_000),
            min_price: PriceTicks((listing.first_price.0 / 100).max(1)),
            max_price: PriceTicks(listing.first_price.0 * 20),
            min_lots: Lots(1),
            max_per_account: 64,
            account_cap: Lots(open * 2),
        })
        .collect()
}

#[test]
fn the_flow_has_the_pace_of_the_tape_and_nobody_piles_up_a_position() {
    let (markets, spec) = (crash(), TrafficSpec { makers: 0, ..TrafficSpec::default() });
    let mut traffic = Traffic::new(spec.clone(), DEFAULT_REPLAY, &markets, SPEED).unwrap();
    let calm = Manners { filled: 3, moves: 1, ..CALM };
    let mut model = Model::new(markets, traffic.accounts(), 7, calm);
    // A minute of wall time.
    let steps = 480;
    let mut signatures = 0;
    for _ in 0..steps {
        signatures += model.turn(&mut traffic, &spec).len();
    }
    let stats = traffic.stats();
    // The tape places 293 orders a second and takes 13 times; 14 markets play 3.4 of it. Some placements live
    // shorter than a block, and some orders are replaced by smaller ones.
    assert!((700..1_300).contains(&(stats.placed / 60)), "{stats:?}");
    assert!((20..60).contains(&(stats.taken / 60)), "{stats:?}");
    assert!(stats.without_room * 100 < stats.placed && stats.dropped == 0, "{stats:?}");
    assert!(signatures as u64 > stats.cancelled);
    let worst = (0..traffic.accounts())
        .flat_map(|account| (0..14u16).map(move |market| (account, market)))
        .map(|(account, market)| {
            let held = model.positions[account][usize::from(market)].unsigned_abs() as f64;
            held / traffic.cap_lots(account, MarketId(market)).0 as f64
        })
        .fold(0.0, f64::max);
    assert!(worst < 0.9, "an account holds {worst} of its cap");
}

#[test]
fn makers_show_as_much_less_in_the_crash_as_the_recorded_book() {
    let (markets, spec) = (crash(), TrafficSpec { accounts: 0, ..TrafficSpec::default() });
    let mut traffic = Traffic::new(spec.clone(), DEFAULT_REPLAY, &markets, SPEED).unwrap();
    assert_eq!(traffic.accounts(), 9, "three makers for each five markets");
    let mut model = Model::new(markets.clone(), traffic.accounts(), 1, CALM);
    let curve = DepthCurve::of(DEFAULT_REPLAY);
    let mut lowest = u32::MAX;
    for _ in 0..480 {
        model.turn(&mut traffic, &spec);
        let factor = curve.factor_ppm(model.time_ms);
        lowest = lowest.min(factor);
        // A new quote is open a block later, and stands while the factor changes by less than a tenth.
        let sent_at = curve.factor_ppm(model.time_ms - BLOCK_MS);
        if factor != sent_at {
            continue;
        }
        for (index, info) in markets.iter().enumerate().take(3) {
            let bids: i64 = model
                .open
                .iter()
                .flat_map(|own| own.range((index as u16, 0)..=(index as u16, u64::MAX)))
                .filter(|(_, open)| open.terms.side == Side::Buy && open.leaving.is_none())
                .map(|(_, open)| open.lots)
                .sum();
            if bids == 0 {
                continue;
            }
            let usual = info.open_interest.0 as f64 * f64::from(spec.maker_depth_ppm) / 1e6;
            let shown = bids as f64 / usual * 1e6 / f64::from(factor);
            assert!((0.75..1.25).contains(&shown), "market {index}: {shown} of what was recorded");
        }
    }
    assert!(lowest < 180_000, "{lowest}");
    assert!(traffic.stats().quoted > 5_000 && traffic.stats().unseen == 0, "{:?}", traffic.stats());
}

/// Lots of the flow that rest and stay, by side.
fn resting(model: &Model) -> BTreeMap<Side, i64> {
    let mut resting = BTreeMap::new();
    for open in model.open.iter().flat_map(BTreeMap::values) {
        if open.leaving.is_none() && open.terms.kind != Kind::Ioc {
            *resting.entry(open.terms.side).or_default() += open.lots;
        }
    }
    resting
}

#[test]
fn the_book_that_is_laid_is_that_of_the_tape_around_the_mark_and_stays_near_it() {
    // Caps that cut nothing, a life longer than the run, and 1,250 ms of tape a block.
    let spec = TrafficSpec {
        rate_ppm: 10_000_000,
        account_cap_ppm: 200_000,
        makers: 0,
        life_blocks: 10_000,
        ..TrafficSpec::default()
    };
    let markets = vec![market(1_000_000, 256)];
    let mut traffic = Traffic::new(spec.clone(), "another", &markets, SPEED).unwrap();
    let mut model = Model::new(markets, traffic.accounts(), 2, CALM);
    // A lap ends, so that the place in the tape is known: what comes next is its start.
    let cleared =
        |submits: &[Submit]| submits.iter().any(|submit| matches!(submit.action, Action::CancelAll { .. }));
    while !cleared(&model.turn(&mut traffic, &spec)) {}
    for submit in model.turn(&mut traffic, &spec) {
        let Action::PlaceMany(orders) = submit.action else { continue };
        for terms in orders.iter().filter(|terms| terms.kind != Kind::Ioc) {
            let (limit, mark) = (terms.limit.0, 12_000);
            // The middle moves by less than 100 ppm in a second: a tick of 83.
            let outside = if terms.side == Side::Buy { limit <= mark + 1 } else { limit + 1 >= mark };
            assert!(outside, "{terms:?}");
        }
    }
    let (tape, mut compared) = (Tape::embedded(), 0);
    for steps in 2..=144u32 {
        model.turn(&mut traffic, &spec);
        let Some(book) = tape.books.get(&(steps * 1_250)) else { continue };
        for (side, lots) in resting(&model) {
            let recorded: u64 =
                book.iter().filter(|(level, _)| level.side == side).map(|(_, size)| *size).sum();
            // 0.75 % of 50 million lots are the tape's mean depth.
            let expected = recorded as f64 / tape.depth as f64 * 375_000.0;
            let kept = lots as f64 / expected;
            // What waits to be cancelled is less than a quarter of every order, and what is on its way.
            assert!((0.95..1.2).contains(&kept), "{kept} of what was recorded on {side:?} at {steps} steps");
            compared += 1;
        }
    }
    assert_eq!((compared, traffic.stats().without_room), (6, 0));
}

#[test]
fn what_is_refused_is_forgotten_and_what_is_full_is_shown_as_such() {
    let (markets, spec) = (vec![market(1_000_000, 64)], TrafficSpec::default());
    let mut traffic = Traffic::new(spec.clone(), "another", &markets, SPEED).unwrap();
    let deaf = Manners { refused: 100, ..CALM };
    let mut model = Model::new(markets, traffic.accounts(), 3, deaf);
    let mut most = 0;
    for _ in 0..200 {
        model.turn(&mut traffic, &spec);
        most = most.max(traffic.open_orders());
    }
    // Nothing is ever open, so only what was sent within its patience is remembered, and nothing is cancelled.
    let stats = traffic.stats();
    assert!(most < 4_000 && stats.cancelled == 0, "{most}: {stats:?}");
    assert!(stats.unseen + traffic.open_orders() as u64 <= stats.placed + stats.taken + stats.quoted);
    assert!(stats.unseen > 9_000, "{stats:?}");
}

#[test]
fn a_tape_that_ends_is_cleared_and_laid_again() {
    let spec = TrafficSpec { rate_ppm: 100_000_000, makers: 0, life_blocks: 1_000, ..TrafficSpec::default() };
    let markets = vec![market(1_000_000, 64)];
    let mut traffic = Traffic::new(spec.clone(), DEFAULT_REPLAY, &markets, SPEED).unwrap();
    let mut model = Model::new(markets, traffic.accounts(), 5, CALM);
    let mut laps = 0;
    // 12.5 s of tape a block.
    for _ in 0..120 {
        let submits = model.turn(&mut traffic, &spec);
        laps += usize::from(submits.iter().any(|submit| matches!(submit.action, Action::CancelAll { .. })));
    }
    assert!((4..=5).contains(&laps), "{laps} laps of {} ms", Tape::embedded().length_ms());
    assert!(traffic.stats().cleared > 64);
    assert!(traffic.open_orders() > 200, "the book was laid again");
}

#[test]
fn a_maker_takes_its_quote_back_when_the_market_goes_blind_or_moves() {
    let spec = TrafficSpec { accounts: 0, makers: 1, maker_depth_ppm: 7_500, ..TrafficSpec::default() };
    let markets = vec![market(1_000_000, 64); 2];
    let mut traffic = Traffic::new(spec.clone(), "another", &markets, SPEED).unwrap();
    let mut open: Vec<OpenOrder> = Vec::new();
    let price = |ticks| Some(PriceTicks(ticks));
    // Marks of the two markets, and how many markets are cleared and quoted.
    for (height, (marks, cleared, quoted)) in (1..).zip([
        ([price(12_000), price(12_000)], 0, 2),
        ([price(12_000), price(12_000)], 0, 0),
        ([price(12_005), price(12_000)], 0, 0),
        ([price(12_007), price(12_000)], 1, 1),
        ([price(12_007), None], 1, 0),
        ([price(12_007), None], 0, 0),
        ([price(12_007), price(12_000)], 0, 1),
    ]) {
        let accounts = [AccountView { positions: Vec::new(), orders: open.clone() }];
        let view = View { height: Height(height), time_ms: START_MS, marks: &marks, accounts: &accounts };
        let submits = traffic.step(&view);
        let mut seen = (0, 0);
        for submit in submits {
            match submit.action {
                Action::CancelAll { market: Some(market), .. } => {
                    seen.0 += 1;
                    open.retain(|order| order.market != market);
                }
                Action::PlaceMany(orders) => {
                    seen.1 += orders.iter().map(|terms| terms.market).collect::<BTreeSet<_>>().len();
                    assert_eq!(orders.len(), seen.1 * 2 * spec.ladder.len(), "one signature for all ladders");
                    open.extend(orders.iter().map(|terms| OpenOrder {
                        market: terms.market,
                        cloid: terms.cloid,
                        side: terms.side,
                        lots: terms.lots,
                        leaving: false,
                    }));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, (cleared, quoted), "height {height}");
    }
}

#[test]
fn a_position_moves_the_ladder_to_its_close_and_shrinks_the_side_that_adds() {
    let spec = TrafficSpec { accounts: 0, makers: 1, maker_depth_ppm: 7_500, ..TrafficSpec::default() };
    let markets = vec![market(1_000_000, 64)];
    let quote = |position: i64| {
        let mut traffic = Traffic::new(spec.clone(), "another", &markets, SPEED).unwrap();
        let accounts = [AccountView { positions: vec![(MarketId(0), Lots(position))], orders: Vec::new() }];
        let marks = [Some(PriceTicks(120_000))];
        let submits =
            traffic.step(&View { height: Height(9), time_ms: START_MS, marks: &marks, accounts: &accounts });
        let Some(Action::PlaceMany(orders)) = submits.first().map(|submit| submit.action.clone()) else {
            panic!("no quote")
        };
        let side = |side: Side| {
            let own: Vec<&Terms> = orders.iter().filter(|terms| terms.side == side).collect();
            (own.iter().map(|terms| terms.lots.0).sum::<i64>(), own.first().map_or(0, |terms| terms.limit.0))
        };
        (side(Side::Buy), side(Side::Sell))
    };
    // 2 % of 50 million lots.
    let cap = 1_000_000;
    let ((flat_bids, flat_bid), (flat_asks, flat_ask)) = quote(0);
    assert!(flat_bid < 120_000 && 120_000 < flat_ask && flat_bids.abs_diff(flat_asks) < flat_bids as u64 / 5);
    let ((long_bids, long_bid), (long_asks, long_ask)) = quote(cap / 2);
    assert!(long_bids * 3 < flat_bids * 2 && long_asks == flat_asks, "{long_bids} of {flat_bids}");
    assert!(long_bid + 55 < flat_bid && long_ask + 55 < flat_ask, "500 ppm lower");
    let ((full_bids, _), (full_asks, _)) = quote(cap);
    assert!(full_bids == 0 && full_asks == flat_asks);
    let ((short_bids, short_bid), (short_asks, _)) = quote(-cap);
    assert!(short_bids == flat_bids && short_asks == 0 && short_bid > flat_bid);
}

#[test]
fn collateral_covers_every_cap_at_the_first_price() {
    let (markets, spec) = (crash(), TrafficSpec::default());
    let traffic = Traffic::new(spec, DEFAULT_REPLAY, &markets, SPEED).unwrap();
    assert_eq!(traffic.accounts(), 64 + 9);
    for account in 0..traffic.accounts() {
        let expected: i128 = (0u16..)
            .zip(&markets)
            .map(|(id, market)| {
                i128::from(traffic.cap_lots(account, MarketId(id)).0)
                    * i128::from(market.first_price.0)
                    * i128::from(market.atoms_per_tick_lot)
            })
            .sum();
        assert_eq!(traffic.collateral_atoms(account), expected);
        assert!(expected > 0);
    }
    assert_eq!(traffic.collateral_atoms(traffic.accounts()), 0);
}

#[test]
fn a_spec_out_of_range_is_refused_with_its_reason() {
    let good = TrafficSpec::default();
    let markets = vec![market(1_000_000, 64)];
    let refused = |spec: TrafficSpec, markets: &[TrafficMarket], speed: u32| {
        Traffic::new(spec, DEFAULT_REPLAY, markets, speed)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(refused(good.clone(), &markets, SPEED), "");
    for (spec, expected) in [
        (TrafficSpec { rate_ppm: 100_000_001, ..good.clone() }, "rate_ppm"),
        (TrafficSpec { accounts: 4_097, ..good.clone() }, "accounts"),
        (TrafficSpec { batch: 0, ..good.clone() }, "batch"),
        (TrafficSpec { batch: 65, ..good.clone() }, "batch"),
        (TrafficSpec { makers: 17, ..good.clone() }, "makers"),
        (TrafficSpec { ladder: vec![], ..good.clone() }, "ladder"),
        (TrafficSpec { ladder: vec![(2, 1), (1, 1)], ..good.clone() }, "ladder"),
        (TrafficSpec { ladder: vec![(1_000_000, 1)], ..good.clone() }, "ladder"),
        (TrafficSpec { maker_cap_ppm: 1_000_001, ..good.clone() }, "caps"),
        (TrafficSpec { slack_ppm: 1_000_000, ..good.clone() }, "slack_ppm"),
        (TrafficSpec { taken_ppm: 100_000_001, ..good.clone() }, "taken_ppm"),
        (TrafficSpec { skew_ppm: 1_000_000, ..good.clone() }, "skew_ppm"),
        (TrafficSpec { life_blocks: 1, ..good.clone() }, "life_blocks"),
        (TrafficSpec { patience_blocks: 0, ..good.clone() }, "patience_blocks"),
    ] {
        let reason = refused(spec, &markets, SPEED);
        assert!(reason.contains(expected), "{reason:?}, not {expected}");
    }
    assert!(refused(good.clone(), &markets, 0).contains("speed"));
    assert!(refused(good.clone(), &[], SPEED).contains("between 1 and 256 markets"));
    assert!(refused(good.clone(), &[market(1, 11)], SPEED).contains("a maker's ladder has more orders"));
    let no_price = TrafficMarket { first_price: PriceTicks(0), ..market(1, 64) };
    assert_eq!(
        Traffic::new(good.clone(), DEFAULT_REPLAY, &[no_price], SPEED).err(),
        Some(TrafficError::Market(MarketId(0)))
    );
    // 17 markets are two groups.
    let spec = TrafficSpec { accounts: 1, ..good };
    assert!(refused(spec, &vec![market(1, 64); 17], SPEED).contains("at least one for every 16 markets"));
}

#[test]
fn a_spec_is_read_with_its_defaults_and_nothing_unknown() {
    assert_eq!(serde_json::from_str::<TrafficSpec>("{}").unwrap(), TrafficSpec::default());
    let fast: TrafficSpec = serde_json::from_str(r#"{"rate_ppm": 5000000}"#).unwrap();
    assert_eq!(fast, TrafficSpec { rate_ppm: 5_000_000, ..TrafficSpec::default() });
    assert!(serde_json::from_str::<TrafficSpec>(r#"{"rate": 5}"#).is_err());
}
