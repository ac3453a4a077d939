//! Who places orders: a recorded order flow laid around every market, and market makers.
//!
//! A pure state machine. At every new final block its caller says what it sees (height, time, fresh marks, positions
//! and open orders of the traffic's own accounts) and gets what to sign. Integers only, ordered maps only: the same
//! seed, spec and views give the same actions. The tape and the depth of the crash are read with the program.
//!
//! ```no_run
//! # use seawall_replay::traffic::{AccountView, Traffic, TrafficMarket, TrafficSpec, View};
//! # use seawall_types::{Action, Height, PriceTicks};
//! # struct Block { height: Height, time_ms: u64, marks: Vec<Option<PriceTicks>>, accounts: Vec<AccountView> }
//! # fn final_blocks() -> Vec<Block> { Vec::new() }
//! # fn sign_and_submit(account: usize, expiry: Height, action: Action) {}
//! # fn run(markets: &[TrafficMarket]) -> Result<(), seawall_replay::traffic::TrafficError> {
//! let mut traffic = Traffic::new(TrafficSpec::default(), "crash-2025-10-10", markets, 60)?;
//! // Genesis: `traffic.accounts()` accounts, each with `traffic.collateral_atoms(account)`.
//! for block in final_blocks() {
//!     let Block { height, time_ms, marks, accounts } = &block;
//!     for submit in traffic.step(&View { height: *height, time_ms: *time_ms, marks, accounts }) {
//!         sign_and_submit(submit.account, submit.expiry, submit.action);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is real and what is not
//! The [`tape`](crate::tape) is a real order flow of one calm BTC market; laying it around other markets and other
//! prices is synthetic. So is everything that makers do but one thing: how much of their usual size they show follows
//! the [`depth`](crate::depth) that was recorded in the crash.
//!
//! # The flow
//! * **Price**: a level's distance from the middle of the tape, in ppm, becomes a distance from the mark; bids round
//!   down, asks up, takers towards where they trade. Placements are post-only and slide. Takers are immediate, at the
//!   price of the recorded trade and [`slack_ppm`](TrafficSpec::slack_ppm) beyond it, because the mark moves while an
//!   order is on its way; in an auction they do not pay their limit.
//! * **Size**: the mean depth of a side of the tape stands for [`tape_depth_ppm`](TrafficSpec::tape_depth_ppm) of the
//!   market's open interest. What rests follows the depth factor, what is taken does not. Rounded down, but never
//!   below the smallest order, and never above a quarter of an account's cap.
//! * **Weight**: the heaviest market plays every level and every trade of the tape, a lighter one a share of them by
//!   weight, drawn by the seed, each as much larger. The 14 markets of October 2025 together carry 3.4 tapes.
//! * **Time**: [`rate_ppm`](TrafficSpec::rate_ppm) of 1,000,000 is the recorded pace in *wall* time, which is what
//!   loads a chain: at 60 replayed seconds a second, a tape that ran with the replay would be 34,000 events a second
//!   and last 6 seconds. It is derived from the replay's time and the speed, never from a clock, so a run can be
//!   repeated. Turnover is then that of wall time, too, a sixtieth of what the replayed hour would see;
//!   [`taken_ppm`](TrafficSpec::taken_ppm) makes takers larger. What happened and un-happened between two blocks nets to nothing. A blind market's tape stands still;
//!   so does every tape while no block comes, beyond [`MAX_STRETCH_MS`].
//! * **Lap**: when the tape ends, the market's orders are all cancelled and the tape begins again. Each market starts
//!   somewhere else in it.
//! * **Who**: placements go to one account until it has as many as it signs at once ([`batch`](TrafficSpec::batch)),
//!   then to the next. A trade goes to the account that is most on the other side, so that inventories stay near
//!   zero.
//! * **Cancels**: a recorded cancel is a debt of its level, paid by whole orders, the newest first, as soon as they
//!   are known to be open; an order is replaced by a smaller one when a quarter of it went away. What was traded at a
//!   level is a debt, too, if its order was not filled within [`patience_blocks`](TrafficSpec::patience_blocks):
//!   somebody else's was. What was refused or filled here and still stands on the tape is not placed again, and its
//!   cancel cancels nothing. Owners also cancel what the mark has passed by [`stale_ppm`](TrafficSpec::stale_ppm) or
//!   left outside the band: when a minute is replayed in a second, that is most of what they cancel.
//!
//! # Makers
//! Each quotes up to [`MARKETS_PER_MAKER`] markets: a ladder of post-only orders on both sides, at the distances and
//! in the proportions in which size stood on the tape. A quote is taken back (all orders of the market at once) and
//! laid again when the mark has moved by [`requote_ppm`](TrafficSpec::requote_ppm), the depth factor by a tenth, the
//! position by a tenth of its cap, or half of its life is over; and after
//! [`refill_blocks`](TrafficSpec::refill_blocks) when a quarter of it is filled. A position shifts the ladder towards
//! its close and shrinks the side that would add to it, down to nothing at the cap. In a blind market a maker takes
//! its quote back.
//!
//! Base depth is an **estimate**: [`maker_depth_ppm`](TrafficSpec::maker_depth_ppm) and `tape_depth_ppm` of the open
//! interest, 3 % in all within 1 % of the mark on each side. Before the crash 3,100 BTC stood there on one venue; no
//! recording here says what was open.
//!
//! # What goes wrong, and what happens
//! * Every action comes with an expiry. An order that was sent and is not open then was refused: it is forgotten.
//! * An order that is no longer open has ended, whatever ended it: it is forgotten.
//! * A cancel that has expired and left its order open was lost: the order is one that can be cancelled again. What
//!   nobody cancels dies by its last height ([`life_blocks`](TrafficSpec::life_blocks)).
//! * Orders that are open and unknown (of an earlier run) count against caps and die by their own limits.
//!
//! # Margin
//! No position can exceed its cap with all orders of its side filled, and [`Traffic::collateral_atoms`] is the sum of
//! caps at first prices: a leverage of at most one, so a fall cannot liquidate an account, nor a rise to less than
//! twice the price.

mod flow;
mod makers;
mod orders;

use crate::{
    depth::{DepthCurve, WHOLE_PPM},
    tape::Tape,
};
use flow::Player;
use makers::Maker;
use orders::{Caps, Desk, Outbox};
use seawall_types::{
    Action, Band, Cloid, Height, Lots, MarketId, Ppm, PriceTicks, Side,
    limits::{MAX_AMOUNT_ATOMS, MAX_MARKETS, MAX_ORDERS_PER_ACTION, MAX_POSITIONS_PER_ACCOUNT, MAX_PPM},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Markets that one maker quotes.
pub const MARKETS_PER_MAKER: usize = 5;
/// Most accounts of the flow.
pub const MAX_FLOW_ACCOUNTS: usize = 4_096;
/// Most makers of a market.
pub const MAX_MAKERS: usize = 16;
/// Most orders of a maker on one side of a market.
pub const MAX_LEVELS: usize = 32;
/// Fastest: a hundred times the recorded pace.
pub const MAX_RATE_PPM: u32 = 100_000_000;
/// Largest takers: a hundred times the recorded size.
pub const MAX_TAKEN_PPM: u32 = 100_000_000;
/// Longest life of an order, in blocks.
pub const MAX_LIFE_BLOCKS: u64 = 100_000;
/// The longest time between two steps that a tape plays, in ms of wall time: beyond it the tape stands still.
pub const MAX_STRETCH_MS: u64 = 1_000;
/// Most orders that a step places. What is beyond is left out, and counted.
pub const MAX_PLACED_PER_STEP: usize = 8_192;
/// Most orders that a step cancels by name. What is beyond waits for the next step.
pub const MAX_CANCELS_PER_STEP: usize = 4_096;

const PPM: i128 = MAX_PPM as i128;

/// What traffic there is. The defaults are explained in the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficSpec {
    /// Seed.
    pub seed: u64,
    /// Pace of the tape in wall time, in ppm of the recorded pace.
    pub rate_ppm: u32,
    /// Accounts that own the flow; 0: there is no flow.
    pub accounts: u16,
    /// Most orders that an account of the flow signs at once: 1 is the most signatures.
    pub batch: u8,
    /// Mean depth of a side of the flow, in ppm of the market's open interest.
    pub tape_depth_ppm: u32,
    /// Most lots that an account of the flow can come to hold, in ppm of the open interest.
    pub account_cap_ppm: u32,
    /// Size of takers' orders, in ppm of what was recorded.
    pub taken_ppm: u32,
    /// How far beyond the price of the recorded trade a taker's limit lies.
    pub slack_ppm: u32,
    /// How far the mark may pass an order of the flow before its owner cancels it.
    pub stale_ppm: u32,
    /// Makers of each market; 0: there are none.
    pub makers: u8,
    /// Usual depth that the makers of a market show together, on each side, in ppm of the open interest.
    pub maker_depth_ppm: u32,
    /// A maker's orders on a side: distance from the mark, and share of the maker's depth, in ppm.
    pub ladder: Vec<(u32, u32)>,
    /// How far the mark may move before a maker quotes anew.
    pub requote_ppm: u32,
    /// Blocks that a maker waits before it fills up a quote that was taken.
    pub refill_blocks: u32,
    /// How far the ladder shifts when a maker's position is at its cap.
    pub skew_ppm: u32,
    /// Most lots that a maker can come to hold in a market, in ppm of the open interest.
    pub maker_cap_ppm: u32,
    /// Blocks for which an order can rest.
    pub life_blocks: u32,
    /// Blocks for which an action can be executed.
    pub patience_blocks: u32,
}

impl Default for TrafficSpec {
    fn default() -> Self {
        Self {
            seed: 0,
            rate_ppm: 1_000_000,
            accounts: 64,
            batch: 8,
            tape_depth_ppm: 7_500,
            account_cap_ppm: 2_000,
            taken_ppm: 1_000_000,
            slack_ppm: 500,
            stale_ppm: 1_000,
            makers: 3,
            maker_depth_ppm: 22_500,
            // Mean size within 250, 500, 1,000, 2,500, 5,000 and 10,000 ppm of the middle in the recording of the
            // tape was 32, 106, 216, 630, 1,269 and 2,564 BTC a side. The last step stands a little inside 1 %.
            ladder: vec![
                (250, 13_000),
                (500, 29_000),
                (1_000, 43_000),
                (2_500, 161_000),
                (5_000, 249_000),
                (9_000, 505_000),
            ],
            requote_ppm: 500,
            refill_blocks: 8,
            skew_ppm: 1_000,
            maker_cap_ppm: 20_000,
            life_blocks: 256,
            patience_blocks: 16,
        }
    }
}

/// What traffic must know of a market. The caller copies it from the market's parameters, the replay and the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficMarket {
    /// Its share in the activity of all: [`MarketListing::weight_ppm`](crate::MarketListing::weight_ppm).
    pub weight_ppm: u32,
    /// Price at the start.
    pub first_price: PriceTicks,
    /// What one lot gains when its price rises by one tick, in atoms.
    pub atoms_per_tick_lot: u32,
    /// Lots that are long at the start: what sizes are measured by.
    pub open_interest: Lots,
    /// How far an auction's price may lie from the mark.
    pub band_ppm: Ppm,
    /// Lowest price that is a price.
    pub min_price: PriceTicks,
    /// Highest price that is a price.
    pub max_price: PriceTicks,
    /// Smallest order.
    pub min_lots: Lots,
    /// Most orders that an account may have in the market.
    pub max_per_account: u16,
    /// Most lots that an account may hold in the market.
    pub account_cap: Lots,
}

/// An open order, as settlement says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// Its market.
    pub market: MarketId,
    /// Its owner's name for it.
    pub cloid: Option<Cloid>,
    /// Its side.
    pub side: Side,
    /// Lots that can still fill.
    pub lots: Lots,
    /// Whether it is on its way out: cancelled, but auctions before the cancel may still fill it.
    pub leaving: bool,
}

/// What settlement says of an account at a final block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountView {
    /// Lots by market, positive is long. Markets without a position may be left out.
    pub positions: Vec<(MarketId, Lots)>,
    /// Open orders, those on their way in or out included, in any order.
    pub orders: Vec<OpenOrder>,
}

/// What is seen at a final block.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its height.
    pub height: Height,
    /// Its time, which is that of the replay, ms since the Unix epoch.
    pub time_ms: u64,
    /// Marks by market, if they are fresh.
    pub marks: &'a [Option<PriceTicks>],
    /// The traffic's own accounts, in their order.
    pub accounts: &'a [AccountView],
}

/// Something to sign and submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    /// Place of the account among the traffic's own.
    pub account: usize,
    /// Last height at which a block may carry it. Sign with this expiry: the traffic counts on it.
    pub expiry: Height,
    /// What to sign.
    pub action: Action,
}

/// What traffic did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Resting orders that the flow placed.
    pub placed: u64,
    /// Immediate orders that the flow placed.
    pub taken: u64,
    /// Orders that the flow cancelled by name.
    pub cancelled: u64,
    /// Of them, those that the mark had passed or left behind.
    pub stale: u64,
    /// Orders that makers placed.
    pub quoted: u64,
    /// Times that all orders of an account in a market were cancelled.
    pub cleared: u64,
    /// Orders for which no account had room.
    pub without_room: u64,
    /// Orders beyond [`MAX_PLACED_PER_STEP`].
    pub dropped: u64,
    /// Orders that were sent and never seen: refused, ended at once, or lost.
    pub unseen: u64,
}

/// Why a spec is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrafficError {
    /// No market, or more than a chain can have.
    #[error("between 1 and {MAX_MARKETS} markets")]
    Markets,
    /// A market's numbers make no sense.
    #[error("market {0}: price, lots, band or limits out of range")]
    Market(MarketId),
    /// A maker's ladder does not fit under the limit of orders of an account.
    #[error("market {0}: a maker's ladder has more orders than an account may have")]
    Ladder(MarketId),
    /// A field of the spec.
    #[error("{0}")]
    Spec(String),
}

/// A market, and what follows from the spec for it.
struct Market {
    info: TrafficMarket,
    /// Share of the tape that it plays.
    share_ppm: u32,
    /// Mean depth of a side of the flow, in lots, if all of the tape were played.
    tape_lots: i128,
    /// Usual depth of one maker on a side, in lots.
    maker_lots: i128,
    flow: Caps,
    maker: Caps,
    player: Player,
    /// Accounts of the flow that trade here.
    accounts: Vec<usize>,
}

impl Market {
    /// The prices at which an auction can be held, as the ledger has it.
    fn band(&self, mark: PriceTicks) -> Band {
        let (price, band) = (i128::from(mark.0), i128::from(self.info.band_ppm.0).min(PPM));
        let low = (price * (PPM - band) + PPM - 1) / PPM;
        let high = price * (PPM + band) / PPM;
        Band {
            low: PriceTicks((low as u64).clamp(self.info.min_price.0, mark.0.max(self.info.min_price.0))),
            high: PriceTicks((high as u64).clamp(mark.0.min(self.info.max_price.0), self.info.max_price.0)),
        }
    }
}

/// At some distance from a price: rounded down for what buys, up for what sells.
fn resting_price(mark: PriceTicks, offset_ppm: i64, side: Side) -> PriceTicks {
    let exact = i128::from(mark.0) * (PPM + i128::from(offset_ppm)).max(0);
    let price = match side {
        Side::Buy => exact / PPM,
        Side::Sell => (exact + PPM - 1) / PPM,
    };
    PriceTicks(u64::try_from(price).unwrap_or(u64::MAX))
}

/// The traffic of a chain.
pub struct Traffic {
    spec: TrafficSpec,
    speed: u32,
    depth: DepthCurve,
    markets: Vec<Market>,
    makers: Vec<Maker>,
    /// Accounts of the flow, then makers.
    desks: Vec<Desk>,
    last: Option<(Height, u64)>,
    stats: TrafficStats,
}

impl Traffic {
    /// Traffic for `markets`, by ascending id, of the replay of this name, `speed` of whose seconds pass in a second.
    ///
    /// # Errors
    /// What is out of range.
    pub fn new(
        spec: TrafficSpec,
        replay: &str,
        markets: &[TrafficMarket],
        speed: u32,
    ) -> Result<Self, TrafficError> {
        check(&spec, markets, speed)?;
        let tape = Tape::embedded();
        let flow_accounts = usize::from(spec.accounts);
        // An account can be in so many markets only, so accounts of the flow are dealt to groups of markets.
        let groups = markets.len().div_ceil(MAX_POSITIONS_PER_ACCOUNT);
        let heaviest = markets.iter().map(|market| market.weight_ppm).max().unwrap_or(1);
        let makers_per_market = usize::from(spec.makers);
        let of_interest =
            |market: &TrafficMarket, ppm: u32| i128::from(market.open_interest.0) * i128::from(ppm) / PPM;
        let markets: Vec<Market> = (0..)
            .zip(markets)
            .map(|(index, info): (usize, _)| {
                let caps = |ppm| Caps {
                    lots: of_interest(info, ppm).min(i128::from(info.account_cap.0)) as i64,
                    orders: usize::from(info.max_per_account),
                };
                let share = u64::from(info.weight_ppm) * u64::from(MAX_PPM) / u64::from(heaviest);
                let group = index / MAX_POSITIONS_PER_ACCOUNT;
                Market {
                    share_ppm: (share as u32).max(1),
                    tape_lots: of_interest(info, spec.tape_depth_ppm),
                    maker_lots: of_interest(info, spec.maker_depth_ppm) / makers_per_market.max(1) as i128,
                    flow: caps(spec.account_cap_ppm),
                    maker: caps(spec.maker_cap_ppm),
                    player: Player::new(tape, spec.seed, index),
                    accounts: (0..flow_accounts).filter(|account| account % groups == group).collect(),
                    info: info.clone(),
                }
            })
            .collect();
        let makers: Vec<Maker> = (0..markets.len())
            .step_by(MARKETS_PER_MAKER)
            .flat_map(|first| {
                let quoted = first..(first + MARKETS_PER_MAKER).min(markets.len());
                (0..makers_per_market).map(move |_| Maker::new(quoted.clone()))
            })
            .collect();
        let desks = vec![Desk::new(markets.len()); flow_accounts + makers.len()];
        Ok(Self {
            depth: DepthCurve::of(replay),
            stats: TrafficStats::default(),
            last: None,
            spec,
            speed,
            markets,
            makers,
            desks,
        })
    }

    /// How many accounts it needs: those of the flow, then the makers.
    pub fn accounts(&self) -> usize {
        self.desks.len()
    }

    /// Collateral that an account needs at genesis, in atoms.
    pub fn collateral_atoms(&self, account: usize) -> i128 {
        let worth = |market: &Market, caps: Caps| {
            i128::from(caps.lots)
                .saturating_mul(i128::from(market.info.first_price.0))
                .saturating_mul(i128::from(market.info.atoms_per_tick_lot))
        };
        let flow_accounts = usize::from(self.spec.accounts);
        let total: i128 = if account < flow_accounts {
            self.markets
                .iter()
                .filter(|market| market.accounts.contains(&account))
                .map(|market| worth(market, market.flow))
                .fold(0, i128::saturating_add)
        } else {
            self.makers.get(account - flow_accounts).map_or(0, |maker| {
                self.markets[maker.markets()]
                    .iter()
                    .map(|market| worth(market, market.maker))
                    .fold(0, i128::saturating_add)
            })
        };
        total.min(MAX_AMOUNT_ATOMS)
    }

    /// Most lots that an account can come to hold in a market, its open orders filled; 0 where it does not trade.
    pub fn cap_lots(&self, account: usize, market: MarketId) -> Lots {
        let index = usize::from(market.0);
        let Some(own) = self.markets.get(index) else { return Lots(0) };
        let flow_accounts = usize::from(self.spec.accounts);
        Lots(if account < flow_accounts {
            if own.accounts.contains(&account) { own.flow.lots } else { 0 }
        } else {
            let quotes = |maker: &Maker| maker.markets().contains(&index);
            if self.makers.get(account - flow_accounts).is_some_and(quotes) { own.maker.lots } else { 0 }
        })
    }

    /// What it did so far.
    pub const fn stats(&self) -> TrafficStats {
        self.stats
    }

    /// Orders that are open or on their way in, as far as it knows.
    pub fn open_orders(&self) -> usize {
        self.desks.iter().map(Desk::live).sum()
    }

    /// What to submit at a new final block. Nothing for a height that is not above the last one.
    ///
    /// An account that the view leaves out has no positions and no orders. A market that it leaves out is blind.
    pub fn step(&mut self, view: &View<'_>) -> Vec<Submit> {
        if self.last.is_some_and(|(height, _)| view.height <= height) {
            return Vec::new();
        }
        let elapsed_ms = self.last.map_or(0, |(_, time)| view.time_ms.saturating_sub(time));
        self.last = Some((view.height, view.time_ms));
        let factor_ppm = self.depth.factor_ppm(view.time_ms);
        let nobody = AccountView::default();
        for (account, desk) in self.desks.iter_mut().enumerate() {
            let seen = view.accounts.get(account).unwrap_or(&nobody);
            for gone in desk.reconcile(seen, view.height) {
                self.stats.unseen += u64::from(gone.unseen);
                if let (Some(level), Some(market)) = (gone.level, self.markets.get_mut(gone.market)) {
                    market.player.forget(level, gone.cloid);
                }
            }
        }
        let life = view.height.0.saturating_add(u64::from(self.spec.life_blocks));
        let expiry = view.height.0.saturating_add(u64::from(self.spec.patience_blocks));
        let mut out = Outbox::new(view.height, Height(life), Height(expiry), self.desks.len());
        // Makers first: when a step is full, it is the flow that is cut.
        let flow_accounts = usize::from(self.spec.accounts);
        let (flow, makers) = self.desks.split_at_mut(flow_accounts);
        for (place, (maker, desk)) in self.makers.iter_mut().zip(makers).enumerate() {
            let account = flow_accounts + place;
            maker.step(&self.spec, &self.markets, view.marks, factor_ppm, account, desk, &mut out);
        }
        if flow_accounts > 0 {
            // In millionths of a ms: what a step rounds away is below one of them.
            let wall = u128::from(elapsed_ms) * u128::from(WHOLE_PPM) / u128::from(self.speed);
            let wall = wall.min(u128::from(MAX_STRETCH_MS) * u128::from(WHOLE_PPM));
            let stretch = (wall * u128::from(self.spec.rate_ppm) / u128::from(WHOLE_PPM)) as u64;
            for (index, market) in self.markets.iter_mut().enumerate() {
                if let Some(mark) = view.marks.get(index).copied().flatten() {
                    flow::step(&self.spec, index, market, mark, factor_ppm, stretch, flow, &mut out);
                }
            }
        }
        self.stats.add(&out.stats);
        out.submits(flow_accounts, usize::from(self.spec.batch))
    }
}

impl TrafficStats {
    fn add(&mut self, more: &Self) {
        self.placed += more.placed;
        self.taken += more.taken;
        self.cancelled += more.cancelled;
        self.stale += more.stale;
        self.quoted += more.quoted;
        self.cleared += more.cleared;
        self.without_room += more.without_room;
        self.dropped += more.dropped;
        self.unseen += more.unseen;
    }
}

fn check(spec: &TrafficSpec, markets: &[TrafficMarket], speed: u32) -> Result<(), TrafficError> {
    if !(1..=MAX_MARKETS).contains(&markets.len()) {
        return Err(TrafficError::Markets);
    }
    let require = |met: bool, what: &str| if met { Ok(()) } else { Err(TrafficError::Spec(what.to_owned())) };
    let groups = markets.len().div_ceil(MAX_POSITIONS_PER_ACCOUNT);
    require(speed > 0, "speed must be positive")?;
    require(spec.rate_ppm <= MAX_RATE_PPM, "rate_ppm is beyond a hundred times the recorded pace")?;
    require(
        spec.accounts == 0 || (groups..=MAX_FLOW_ACCOUNTS).contains(&usize::from(spec.accounts)),
        "accounts must be 0, or up to 4096 and at least one for every 16 markets",
    )?;
    require((1..=MAX_ORDERS_PER_ACTION).contains(&usize::from(spec.batch)), "batch must be 1 to 64")?;
    require(usize::from(spec.makers) <= MAX_MAKERS, "makers must be at most 16")?;
    require((1..=MAX_LEVELS).contains(&spec.ladder.len()), "ladder must have 1 to 32 levels")?;
    require(
        spec.ladder.iter().all(|(distance, share)| *distance < MAX_PPM && *share <= MAX_PPM)
            && spec.ladder.is_sorted_by_key(|(distance, _)| *distance),
        "ladder must be ascending distances below 100 % with shares of at most 100 %",
    )?;
    require(
        [spec.tape_depth_ppm, spec.account_cap_ppm, spec.maker_depth_ppm, spec.maker_cap_ppm]
            .iter()
            .all(|ppm| *ppm <= MAX_PPM),
        "depths and caps must be at most the open interest",
    )?;
    require(
        [spec.slack_ppm, spec.stale_ppm, spec.requote_ppm, spec.skew_ppm].iter().all(|ppm| *ppm < MAX_PPM),
        "slack_ppm, stale_ppm, requote_ppm and skew_ppm must be below 100 %",
    )?;
    require(spec.taken_ppm <= MAX_TAKEN_PPM, "taken_ppm is beyond a hundred times the recorded size")?;
    require(
        (2..=MAX_LIFE_BLOCKS).contains(&u64::from(spec.life_blocks))
            && (1..=MAX_LIFE_BLOCKS).contains(&u64::from(spec.patience_blocks)),
        "life_blocks must be 2 to 100000, patience_blocks 1 to 100000",
    )?;
    for (id, market) in (0..).map(MarketId).zip(markets) {
        let sound = market.weight_ppm > 0
            && market.weight_ppm <= MAX_PPM
            && market.min_price.0 > 0
            && (market.min_price..=market.max_price).contains(&market.first_price)
            && market.open_interest.0 >= 0
            && market.min_lots.0 > 0
            && market.account_cap.0 > 0
            && market.band_ppm.0 <= MAX_PPM;
        if !sound {
            return Err(TrafficError::Market(id));
        }
        if spec.makers > 0 && 2 * spec.ladder.len() > usize::from(market.max_per_account) {
            return Err(TrafficError::Ladder(id));
        }
    }
    Ok(())
}
