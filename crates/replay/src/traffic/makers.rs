//! A market maker: ladders in a few markets.

use super::{
    Market, PPM, TrafficSpec,
    orders::{Desk, Outbox, lots},
    resting_price,
};
use crate::behaviour::Dice;
use seawall_types::{Height, Kind, Lots, MarketId, OnCross, PriceTicks, Side, Terms};
use std::ops::Range;

/// Sizes and distances of a quote vary by a tenth, so that no two makers are one.
const JITTER_PPM: (u32, u32) = (900_000, 1_100_000);
/// A position or depth that changed by more than one part in so many is news.
const NEWS: i64 = 10;

/// What a maker shows in a market, and what it knew then.
#[derive(Clone, Copy, Debug)]
struct Quote {
    mark: PriceTicks,
    height: Height,
    factor_ppm: u32,
    position: i64,
    lots: i64,
}

/// A maker, by the markets it quotes.
pub(super) struct Maker {
    first: usize,
    quotes: Vec<Option<Quote>>,
}

impl Maker {
    pub fn new(markets: Range<usize>) -> Self {
        Self { first: markets.start, quotes: vec![None; markets.len()] }
    }

    pub fn markets(&self) -> Range<usize> {
        self.first..self.first + self.quotes.len()
    }

    #[expect(clippy::too_many_arguments, reason = "a step of one maker sees everything that a step sees")]
    pub fn step(
        &mut self,
        spec: &TrafficSpec,
        markets: &[Market],
        marks: &[Option<PriceTicks>],
        factor_ppm: u32,
        account: usize,
        desk: &mut Desk,
        out: &mut Outbox,
    ) {
        for (index, quote) in self.markets().zip(&mut self.quotes) {
            let market = &markets[index];
            let Some(mark) = marks.get(index).copied().flatten() else {
                *quote = None;
                out.clear(account, desk, index);
                continue;
            };
            let position = desk.position(index);
            let now = Quote { mark, height: out.height(), factor_ppm, position, lots: 0 };
            let shown: i64 = desk.live_in(index).map(|(_, own)| own.lots).sum();
            if quote.is_some_and(|quote| !quote.is_old(&now, shown, spec, market.maker.lots)) {
                continue;
            }
            out.clear(account, desk, index);
            *quote = None;
            let ladder = ladder(spec, market, index, account, now);
            // What was taken back still counts until it is gone: a maker that moves too often pauses here.
            let fits = |side: Side| {
                let lots = ladder.iter().filter(|terms| terms.side == side).map(|terms| terms.lots.0);
                lots.sum::<i64>() <= desk.room(index, side, market.maker)
            };
            if ladder.len() > desk.slots(index, market.maker) || !fits(Side::Buy) || !fits(Side::Sell) {
                continue;
            }
            let mut lots = 0;
            for terms in ladder {
                if out.place(account, desk, terms, None).is_some() {
                    lots += terms.lots.0;
                    out.stats.quoted += 1;
                }
            }
            *quote = Some(Quote { lots, ..now });
        }
    }
}

impl Quote {
    /// Whether it should be taken back, with `shown` lots of it left.
    fn is_old(&self, now: &Self, shown: i64, spec: &TrafficSpec, cap: i64) -> bool {
        let age = now.height.0 - self.height.0;
        let moved = i128::from(now.mark.0.abs_diff(self.mark.0)) * PPM
            > i128::from(spec.requote_ppm) * i128::from(self.mark.0);
        let changed = |before: i64, after: i64, whole: i64| {
            i128::from(before.abs_diff(after)) * i128::from(NEWS) > i128::from(whole)
        };
        let filled =
            i128::from(shown) * 4 < i128::from(self.lots) * 3 && age >= u64::from(spec.refill_blocks);
        moved
            || filled
            || age >= u64::from(spec.life_blocks / 2)
            || changed(i64::from(self.factor_ppm), i64::from(now.factor_ppm), i64::from(self.factor_ppm))
            || (changed(self.position, now.position, cap.max(1)) && age >= u64::from(spec.refill_blocks))
    }
}

/// The orders of a quote, the nearest first, bids before asks.
fn ladder(spec: &TrafficSpec, market: &Market, index: usize, account: usize, now: Quote) -> Vec<Terms> {
    let cap = i128::from(market.maker.lots.max(1));
    let position = i128::from(now.position).clamp(-cap, cap);
    let shift = (-i128::from(spec.skew_ppm) * position / cap) as i64;
    let band = market.band(now.mark);
    let mut dice = Dice::new(spec.seed, ((account as u64) << 16) | index as u64, now.height.0);
    let mut orders = Vec::with_capacity(2 * spec.ladder.len());
    for side in [Side::Buy, Side::Sell] {
        // A side that would add to a position shows as much less as the position is near its cap.
        let toward = match side {
            Side::Buy => position,
            Side::Sell => -position,
        };
        let mut room = cap - toward;
        let side_ppm = (cap - toward.max(0)) * PPM / cap;
        for (distance, share) in &spec.ladder {
            let distance = i128::from(*distance) * i128::from(dice.between(JITTER_PPM)) / PPM;
            let offset = match side {
                Side::Buy => -(distance as i64),
                Side::Sell => distance as i64,
            };
            let wanted = market.maker_lots * i128::from(*share) / PPM * i128::from(now.factor_ppm) / PPM
                * side_ppm
                / PPM
                * i128::from(dice.between(JITTER_PPM))
                / PPM;
            let size = wanted.min(room);
            if size < i128::from(market.info.min_lots.0) {
                continue;
            }
            room -= size;
            let limit = resting_price(now.mark, offset + shift, side).clamp(band.low, band.high);
            orders.push(Terms {
                market: MarketId(index as u16),
                side,
                limit,
                lots: Lots(lots(size).0),
                kind: Kind::PostOnly(OnCross::Slide),
                reduce_only: false,
                good_til: None,
                cloid: None,
            });
        }
    }
    orders
}
