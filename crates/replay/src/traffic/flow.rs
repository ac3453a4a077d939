//! The tape, played around one market.

use super::{
    Market, PPM, TrafficSpec, WHOLE_PPM,
    orders::{Desk, Outbox, Stage, lots},
    resting_price,
};
use crate::{
    behaviour::Dice,
    rebuild::{Level, What},
    tape::{Tape, offset_ppm},
};
use seawall_types::{Cloid, Height, Kind, Lots, MarketId, OnCross, PriceTicks, Side, Terms};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An order is at most this part of what its account may hold.
const LARGEST_PART: i64 = 4;
/// An order is replaced by a smaller one when this part of it went away.
const REPLACED_PART: u64 = 4;

/// What stands at a level of the tape, in sizes of the tape. At every moment
/// `orders - debt - what is owed for trades + missing` is what stands there on the tape.
#[derive(Default)]
struct Standing {
    /// Account, name and size, oldest first.
    orders: Vec<(usize, Cloid, u64)>,
    /// What went away there, and that no order has paid yet.
    debt: u64,
    /// What stands there and not here: refused, filled by somebody else, or cancelled when the mark passed it.
    missing: u64,
}

impl Standing {
    /// What is missing needs not be paid for.
    fn net(&mut self) {
        let both = self.debt.min(self.missing);
        self.debt -= both;
        self.missing -= both;
    }
}

/// Where a market is in the tape.
pub(super) struct Player {
    tape: &'static Tape,
    seed: u64,
    /// Millionths of a ms since the start.
    clock: u64,
    next: usize,
    middle: u32,
    lap: u64,
    /// Whether the book at this place was laid.
    laid: bool,
    levels: BTreeMap<Level, Standing>,
    /// Trades whose order may still be filled here: until when, where, and how much. No more than a lap has.
    owed: VecDeque<(Height, Level, u64)>,
    indebted: BTreeSet<Level>,
    /// Whose turn it is, among the market's accounts.
    turn: usize,
}

/// What happened in a stretch of the tape, netted.
#[derive(Default)]
struct Stretch {
    placed: BTreeMap<Level, u64>,
    /// By taker's side and distance from the middle at that time.
    traded: BTreeMap<(Side, i64), u64>,
    ended: bool,
}

/// Places of a market's dice that are no laps.
const PHASE: u64 = u64::MAX;

impl Player {
    /// At a place in the tape that the seed chooses.
    pub fn new(tape: &'static Tape, seed: u64, market: usize) -> Self {
        let seed = Dice::new(seed, market as u64, PHASE).next();
        let start_ms = Dice::new(seed, 0, PHASE).next() % u64::from(tape.length_ms());
        let next = tape.events.partition_point(|event| u64::from(event.offset_ms) < start_ms);
        let mut player = Self {
            tape,
            seed,
            clock: start_ms * u64::from(WHOLE_PPM),
            next,
            middle: 1,
            lap: 0,
            laid: false,
            levels: BTreeMap::new(),
            owed: VecDeque::new(),
            indebted: BTreeSet::new(),
            turn: 0,
        };
        player.find_middle();
        player
    }

    /// The middle at this place: the last one before it, or the first of all.
    fn find_middle(&mut self) {
        let before = self.tape.events[..self.next].iter().rev().chain(&self.tape.events);
        let middle = before.filter_map(|event| match event.what {
            What::Middle(middle) => Some(middle),
            _ => None,
        });
        self.middle = middle.into_iter().next().unwrap_or(1);
    }

    /// An order that is no more, or that its owner cancelled for a reason that is not on the tape.
    pub fn forget(&mut self, level: Level, cloid: Cloid) {
        let Some(standing) = self.levels.get_mut(&level) else { return };
        let Some(place) = standing.orders.iter().position(|(_, other, _)| *other == cloid) else { return };
        let (_, _, size) = standing.orders.remove(place);
        standing.missing += size;
        self.settle(level);
    }

    /// Something was placed on the tape, and not here.
    fn miss(&mut self, level: Level, size: u64) {
        self.levels.entry(level).or_default().missing += size;
        self.settle(level);
    }

    /// Something went away on the tape.
    fn owe(&mut self, level: Level, size: u64) {
        self.levels.entry(level).or_default().debt += size;
        self.settle(level);
    }

    fn settle(&mut self, level: Level) {
        let Some(standing) = self.levels.get_mut(&level) else { return };
        standing.net();
        if standing.debt == 0 {
            self.indebted.remove(&level);
        } else {
            self.indebted.insert(level);
        }
        if standing.orders.is_empty() && standing.debt == 0 && standing.missing == 0 {
            self.levels.remove(&level);
        }
    }

    fn plays(&self, level: Level, share_ppm: u32) -> bool {
        let key = u64::from(level.price) * 2 + u64::from(level.side == Side::Sell);
        Dice::new(self.seed, key, self.lap).hit(share_ppm)
    }

    fn plays_trade(&self, index: usize, share_ppm: u32) -> bool {
        // Levels have small keys.
        Dice::new(self.seed, u64::MAX - index as u64, self.lap).hit(share_ppm)
    }

    /// The book at this place of the tape: the last recorded one before it, and what happened since.
    fn book(&self) -> BTreeMap<Level, u64> {
        let at = self.tape.events.get(self.next).map_or(self.tape.length_ms(), |event| event.offset_ms);
        let Some((from, book)) = self.tape.books.range(..=at).next_back() else { return BTreeMap::new() };
        // Signed, because within a frame a trade comes before the placement that it met.
        let mut book: BTreeMap<Level, i64> =
            book.iter().map(|(level, size)| (*level, *size as i64)).collect();
        let first = self.tape.events.partition_point(|event| event.offset_ms < *from);
        for event in &self.tape.events[first.min(self.next)..self.next] {
            let (level, change) = match event.what {
                What::Middle(_) => continue,
                What::Place(level, size) => (level, i64::from(size)),
                What::Cancel(level, size) | What::Trade(level, size) => (level, -i64::from(size)),
            };
            *book.entry(level).or_default() += change;
        }
        let rests = |(level, size)| Some((level, u64::try_from(size).ok().filter(|size| *size > 0)?));
        book.into_iter().filter_map(rests).collect()
    }

    /// `due` is when a trade must have been filled.
    fn play(&mut self, stretch: u64, share_ppm: u32, now: Height, due: Height) -> Stretch {
        let mut played = Stretch::default();
        while let Some((_, level, size)) = self.owed.pop_front_if(|(due, _, _)| *due <= now) {
            self.owe(level, size);
        }
        if !self.laid {
            self.laid = true;
            played.placed = self.book();
            played.placed.retain(|level, _| self.plays(*level, share_ppm));
        }
        self.clock = self.clock.saturating_add(stretch);
        let now_ms = self.clock / u64::from(WHOLE_PPM);
        while let Some(event) = self.tape.events.get(self.next) {
            if u64::from(event.offset_ms) >= now_ms {
                break;
            }
            match event.what {
                What::Middle(middle) => self.middle = middle,
                What::Place(level, size) if self.plays(level, share_ppm) => {
                    *played.placed.entry(level).or_default() += u64::from(size);
                }
                What::Cancel(level, size) if self.plays(level, share_ppm) => {
                    // First what this stretch placed: it has not been sent yet.
                    let placed = played.placed.entry(level).or_default();
                    let netted = u64::from(size).min(*placed);
                    *placed -= netted;
                    self.owe(level, u64::from(size) - netted);
                }
                What::Trade(level, size) => {
                    if self.plays(level, share_ppm) {
                        self.owed.push_back((due, level, u64::from(size)));
                    }
                    if self.plays_trade(self.next, share_ppm) {
                        let key = (level.side.opposite(), offset_ppm(level, self.middle));
                        *played.traded.entry(key).or_default() += u64::from(size);
                    }
                }
                _ => {}
            }
            self.next += 1;
        }
        played.placed.retain(|_, size| *size > 0);
        played.ended = now_ms >= u64::from(self.tape.length_ms());
        played
    }
}

/// Plays a stretch (in millionths of a ms) of the tape in a market with a fresh mark.
#[expect(clippy::too_many_arguments, reason = "a step of one market sees everything that a step sees")]
pub(super) fn step(
    spec: &TrafficSpec,
    index: usize,
    market: &mut Market,
    mark: PriceTicks,
    factor_ppm: u32,
    stretch: u64,
    desks: &mut [Desk],
    out: &mut Outbox,
) {
    let mut played = market.player.play(stretch, market.share_ppm, out.height(), out.expiry());
    cancel_stale(spec, index, market, mark, desks, out);
    pay_debts(index, market, &mut played.placed, desks, out);
    let band = market.band(mark);
    let terms = |side, limit, lots, kind| Terms {
        market: MarketId(index as u16),
        side,
        limit,
        lots,
        kind,
        reduce_only: false,
        good_til: None,
        cloid: None,
    };
    let sized = |market: &Market, size: u64, factor_ppm: u32| {
        let exact = i128::from(size) * market.tape_lots * i128::from(factor_ppm)
            / (i128::from(market.player.tape.depth) * i128::from(market.share_ppm));
        let most = (market.flow.lots / LARGEST_PART).max(market.info.min_lots.0);
        lots(exact).0.clamp(market.info.min_lots.0, most)
    };

    for ((side, offset), size) in played.traded {
        let slack = match side {
            Side::Buy => i64::from(spec.slack_ppm),
            Side::Sell => -i64::from(spec.slack_ppm),
        };
        // Towards what it wants to meet: a buyer's limit rounds like what is sold.
        let limit = resting_price(mark, offset + slack, side.opposite()).clamp(band.low, band.high);
        let size = sized(market, size, spec.taken_ppm);
        let best = market
            .accounts
            .iter()
            .filter(|account| desks[**account].slots(index, market.flow) > 0)
            .map(|account| (desks[*account].room(index, side, market.flow), *account))
            .max_by_key(|(room, account)| (*room, std::cmp::Reverse(*account)))
            .filter(|(room, _)| *room >= market.info.min_lots.0);
        let Some((room, account)) = best else {
            out.stats.without_room += 1;
            continue;
        };
        let order = terms(side, limit, Lots(size.min(room)), Kind::Ioc);
        if out.place(account, &mut desks[account], order, None).is_some() {
            out.stats.taken += 1;
        }
    }

    let mut signed = 0;
    for (level, size) in played.placed {
        let limit = resting_price(mark, offset_ppm(level, market.player.middle), level.side);
        if !band.contains(limit) {
            market.player.miss(level, size);
            out.stats.without_room += 1;
            continue;
        }
        let lots = sized(market, size, factor_ppm);
        let fits = |account: usize| {
            let desk = &desks[account];
            desk.slots(index, market.flow) > 0 && desk.room(index, level.side, market.flow) >= lots
        };
        if signed == usize::from(spec.batch) {
            (market.player.turn, signed) = (market.player.turn + 1, 0);
        }
        let owner = (0..market.accounts.len()).find_map(|skipped| {
            let place = (market.player.turn + skipped) % market.accounts.len();
            fits(market.accounts[place]).then_some((skipped, place))
        });
        let Some((skipped, place)) = owner else {
            market.player.miss(level, size);
            out.stats.without_room += 1;
            continue;
        };
        if skipped > 0 {
            (market.player.turn, signed) = (place, 0);
        }
        signed += 1;
        let account = market.accounts[place];
        let order = terms(level.side, limit, Lots(lots), Kind::PostOnly(OnCross::Slide));
        match out.place(account, &mut desks[account], order, Some(level)) {
            Some(cloid) => {
                out.stats.placed += 1;
                market.player.levels.entry(level).or_default().orders.push((account, cloid, size));
            }
            None => market.player.miss(level, size),
        }
    }
    market.player.turn = (market.player.turn + 1) % market.accounts.len().max(1);

    if played.ended {
        for account in &market.accounts {
            out.clear(*account, &mut desks[*account], index);
        }
        let player = &mut market.player;
        player.levels.clear();
        player.owed.clear();
        player.indebted.clear();
        (player.clock, player.next, player.laid) = (0, 0, false);
        player.lap += 1;
        player.find_middle();
    }
}

/// Owners cancel what the mark has passed, and what it has left behind.
fn cancel_stale(
    spec: &TrafficSpec,
    index: usize,
    market: &mut Market,
    mark: PriceTicks,
    desks: &mut [Desk],
    out: &mut Outbox,
) {
    let band = market.band(mark);
    let stale = i128::from(spec.stale_ppm);
    let passed = |side: Side, limit: PriceTicks| {
        let (limit, mark) = (i128::from(limit.0) * PPM, i128::from(mark.0));
        match side {
            Side::Buy => limit > mark * (PPM + stale),
            Side::Sell => limit < mark * (PPM - stale),
        }
    };
    for account in &market.accounts {
        let desk = &mut desks[*account];
        let found: Vec<(Cloid, Option<Level>)> = desk
            .live_in(index)
            .filter(|(_, own)| own.stage == Stage::Open && !own.terms.kind.is_immediate())
            .filter(|(_, own)| passed(own.terms.side, own.terms.limit) || !band.contains(own.terms.limit))
            .map(|(cloid, own)| (cloid, own.level))
            .collect();
        for (cloid, level) in found {
            if out.cancel(*account, desk, index, cloid) {
                out.stats.stale += 1;
                if let Some(level) = level {
                    market.player.forget(level, cloid);
                }
            }
        }
    }
}

/// What went away on the tape goes away here: first what is about to be placed, then whole orders, the newest first,
/// then a larger one is replaced by what is left of it. A debt below a quarter of every order waits.
fn pay_debts(
    index: usize,
    market: &mut Market,
    placed: &mut BTreeMap<Level, u64>,
    desks: &mut [Desk],
    out: &mut Outbox,
) {
    let player = &mut market.player;
    for level in player.indebted.clone() {
        let Some(standing) = player.levels.get_mut(&level) else { continue };
        if let Some(size) = placed.get_mut(&level) {
            let netted = standing.debt.min(*size);
            *size -= netted;
            standing.debt -= netted;
        }
        for replaces in [false, true] {
            let mut place = standing.orders.len();
            while place > 0 && standing.debt > 0 {
                place -= 1;
                let (account, cloid, size) = standing.orders[place];
                let fits = if replaces {
                    size <= standing.debt.saturating_mul(REPLACED_PART)
                } else {
                    size <= standing.debt
                };
                if fits && out.cancel(account, &mut desks[account], index, cloid) {
                    let paid = size.min(standing.debt);
                    standing.debt -= paid;
                    if size > paid {
                        *placed.entry(level).or_default() += size - paid;
                    }
                    standing.orders.remove(place);
                }
            }
        }
        player.settle(level);
    }
    placed.retain(|_, size| *size > 0);
}
