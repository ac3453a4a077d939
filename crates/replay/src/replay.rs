//! What the outside world said, and when it could be heard.
//!
//! # From a bar to four values
//! A bar tells which prices were traded, not when. Its four prices are placed at declared instants of
//! the bar: the open at its start, then low and high at one third and two thirds of its length, the one
//! nearer to the open first (low first if they are equally near), and the close at its last
//! millisecond: 0 s, 20 s, 40 s, 59.999 s of a minute. That is an assumption; the prices are not, and
//! nothing is put between them. Each value becomes visible at its instant plus the largest feed lag
//! seen in its bar, an upper bound on what a listener waited.
//!
//! A value that becomes visible only when a later one already is has been overtaken and is never
//! shown: a listener keeps the newest stamp it has.

use crate::{
    ReplayError,
    bars::{Bar, Recording},
    decimal::{Grid, PicoUsd},
};
use seawall_types::{
    MarketId, PriceTicks,
    limits::{MAX_ATOMS_PER_TICK_LOT, MAX_MARKETS, MAX_PPM, MAX_PRICE_TICKS},
};
use std::{collections::BTreeMap, fmt, path::Path, str::FromStr};

const MINUTE_MS: u64 = 60 * 1000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// Rounds of the fit behind [`MarketListing::weight_ppm`]; it converges within a few tens.
const FIT_ROUNDS: usize = 200;

/// A recorded market path: every market, every venue, every value in the order it could be heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Name in the catalog, or of the directory.
    pub name: String,
    /// First instant, ms since the Unix epoch.
    pub start_ms: u64,
    /// The instant at which it is over.
    pub end_ms: u64,
    /// Markets by symbol, in the order of their [`MarketId`].
    pub markets: Vec<MarketListing>,
    /// One feed for each market and venue, by market, then venue. A window changes no feed's place: one
    /// that says nothing in it is there, without values.
    pub feeds: Vec<Feed>,
}

/// A market, as a genesis lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketListing {
    /// Symbol of the asset.
    pub symbol: String,
    /// Price step, USD, as a decimal.
    pub tick_usd: String,
    /// Size step, units of the asset, as a decimal.
    pub lot: String,
    /// What one lot gains when its price rises by one tick, in atoms of 10^-6 USD.
    pub atoms_per_tick_lot: u32,
    /// Price at the start of the replay: lower median of the values visible then, or where there are
    /// none yet, of the first values to come.
    pub first_price: PriceTicks,
    /// Lowest price that any venue shows.
    pub lowest_price: PriceTicks,
    /// Highest price that any venue shows.
    pub highest_price: PriceTicks,
    /// Share of this market in the activity of all, in parts per million; they sum to a million.
    ///
    /// Venues cover different markets and differ in size by orders of magnitude, so raw volume would
    /// say where the recording was made and not what is traded. Volume in USD is therefore fitted as
    /// (size of the market) x (size of the venue), by least squares of logarithms, and the weight is
    /// the square root of the market's size, because a book is less concentrated than its turnover.
    /// On the crash of October 2025 this gives BTC 29 %, ETH 22 %, SOL 16 %; of the positions that
    /// `CoinGlass` saw liquidated on that day, 28 %, 23 % and 10 % were in these.
    pub weight_ppm: u32,
}

/// One venue's prices of one market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Name of the venue.
    pub venue: String,
    /// Market.
    pub market: MarketId,
    /// Length of the bars that the values come from, ms.
    pub bar_ms: u64,
    /// Values; both times strictly ascend.
    pub values: Vec<FeedValue>,
}

/// A price that a venue showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedValue {
    /// When a listener can know it, ms since the Unix epoch.
    pub visible_ms: u64,
    /// When it was true.
    pub stamp_ms: u64,
    /// The price.
    pub price: PriceTicks,
}

impl Feed {
    /// The newest value that a listener has at `now_ms`, and the instant at which it was true. It stays
    /// until the venue's own next one: how old is too old is the listener's question.
    pub fn at(&self, now_ms: u64) -> Option<(PriceTicks, u64)> {
        let seen = self.values.partition_point(|value| value.visible_ms <= now_ms);
        let value = self.values.get(seen.checked_sub(1)?)?;
        Some((value.price, value.stamp_ms))
    }
}

impl Replay {
    /// The feeds of a market, as places in [`feeds`](Self::feeds), silent ones included.
    pub fn feeds_of(&self, market: MarketId) -> impl Iterator<Item = usize> + '_ {
        self.feeds.iter().enumerate().filter(move |(_, feed)| feed.market == market).map(|(place, _)| place)
    }

    /// Longest bar behind a market's values, ms; 0 if nobody shows it. What a recording can resolve, and so
    /// the measure of how old a value of it may be.
    pub fn bar_ms(&self, market: MarketId) -> u64 {
        self.feeds_of(market).map(|place| self.feeds[place].bar_ms).max().unwrap_or(0)
    }

    /// Builds a replay from a recording, whole or from one time of day to another (UTC).
    ///
    /// Times of day belong to the day on which the recording starts. Ticks, lots and weights come from
    /// the whole recording, so that a window does not change what a market is; a value that was
    /// already visible when the window starts is still there.
    ///
    /// # Errors
    /// An empty window, or a market that does not fit the limits.
    pub fn build(
        name: &str,
        recording: &Recording,
        from: Option<ClockTime>,
        to: Option<ClockTime>,
    ) -> Result<Self, ReplayError> {
        let (first_ms, last_ms) = recording.span();
        let midnight = first_ms - first_ms % DAY_MS;
        let start_ms = from.map_or(first_ms, |time| midnight + time.ms());
        let end_ms = to.map_or(last_ms, |time| midnight + time.ms());
        if start_ms < first_ms || end_ms > last_ms || start_ms >= end_ms {
            return Err(ReplayError::Window { from: start_ms, to: end_ms, start: first_ms, end: last_ms });
        }
        let weights = weights(recording);
        if weights.len() > MAX_MARKETS {
            return Err(ReplayError::Unusable(format!("more than {MAX_MARKETS} assets")));
        }
        let (mut markets, mut feeds) = (Vec::new(), Vec::new());
        for (place, (symbol, weight_ppm)) in weights.into_iter().enumerate() {
            let market = MarketId(place as u16);
            let venues: Vec<(&str, u64, &[Bar])> = recording
                .bars
                .iter()
                .filter(|((asset, _), _)| *asset == symbol)
                .map(|((_, venue), bars)| (venue.as_str(), recording.venues[venue].bar_ms, bars.as_slice()))
                .collect();
            let whole: Vec<Vec<Heard>> =
                venues.iter().map(|(_, bar_ms, bars)| heard(bars, *bar_ms)).collect();
            let reference = price_at(&whole, first_ms);
            let grid = reference
                .and_then(Grid::around)
                .filter(|grid| grid.atoms_per_tick_lot <= MAX_ATOMS_PER_TICK_LOT)
                .ok_or_else(|| {
                    ReplayError::Unusable(format!("{symbol}: the price is too small for a tick"))
                })?;
            let tick = PicoUsd(grid.tick.pico().unwrap_or(1));
            let ticks = |price: PicoUsd| match u64::try_from(price.to_ticks(tick)) {
                Ok(ticks @ 1..=MAX_PRICE_TICKS) => Ok(PriceTicks(ticks)),
                _ => Err(ReplayError::Unusable(format!(
                    "{symbol}: a price of {} USD is not a price in ticks of {} USD",
                    price.to_f64(),
                    grid.tick
                ))),
            };
            let window: Vec<Vec<Heard>> =
                whole.into_iter().map(|values| cut(values, start_ms, end_ms)).collect();
            let first = price_at(&window, start_ms).ok_or_else(|| {
                ReplayError::Unusable(format!("{symbol}: no venue has a price in this window"))
            })?;
            let prices = || window.iter().flatten().map(|value| value.price);
            markets.push(MarketListing {
                tick_usd: grid.tick.to_string(),
                lot: grid.lot.to_string(),
                atoms_per_tick_lot: grid.atoms_per_tick_lot,
                first_price: ticks(first)?,
                lowest_price: ticks(prices().min().unwrap_or(first))?,
                highest_price: ticks(prices().max().unwrap_or(first))?,
                weight_ppm,
                symbol: symbol.clone(),
            });
            for ((venue, bar_ms, _), values) in venues.into_iter().zip(window) {
                let values = values
                    .into_iter()
                    .map(|Heard { visible_ms, stamp_ms, price }| {
                        Ok(FeedValue { visible_ms, stamp_ms, price: ticks(price)? })
                    })
                    .collect::<Result<Vec<_>, ReplayError>>()?;
                feeds.push(Feed { venue: venue.to_owned(), market, bar_ms, values });
            }
        }
        Ok(Self { name: name.to_owned(), start_ms, end_ms, markets, feeds })
    }
}

/// Loads a recording of the user's own: a directory in the layout of [`bars`](crate::bars).
///
/// # Errors
/// A file that cannot be read, the first row that breaks the layout, or what [`Replay::build`] says.
pub fn load_dir(path: &Path, from: Option<ClockTime>, to: Option<ClockTime>) -> Result<Replay, ReplayError> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    Replay::build(&name, &Recording::read_dir(path)?, from, to)
}

/// A time of day, UTC, to the minute; 24:00 is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockTime {
    minutes: u16,
}

impl ClockTime {
    /// `hour:minute`, if there is such a time.
    pub fn new(hour: u16, minute: u16) -> Option<Self> {
        (minute < 60 && (hour < 24 || (hour == 24 && minute == 0)))
            .then_some(Self { minutes: hour * 60 + minute })
    }

    const fn ms(self) -> u64 {
        self.minutes as u64 * MINUTE_MS
    }
}

impl FromStr for ClockTime {
    type Err = ReplayError;

    fn from_str(text: &str) -> Result<Self, ReplayError> {
        let part = |text: &str| match text.as_bytes() {
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
                Some(u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
            }
            _ => None,
        };
        text.split_once(':')
            .and_then(|(hour, minute)| Self::new(part(hour)?, part(minute)?))
            .ok_or_else(|| ReplayError::Clock { text: text.to_owned() })
    }
}

impl fmt::Display for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

/// A value before it has ticks.
#[derive(Clone, Copy)]
struct Heard {
    visible_ms: u64,
    stamp_ms: u64,
    price: PicoUsd,
}

/// The values of a venue that a listener hears, by both times.
fn heard(bars: &[Bar], bar_ms: u64) -> Vec<Heard> {
    let mut values: Vec<Heard> = bars
        .iter()
        .flat_map(|bar| {
            let low_first = bar.open.0 - bar.low.0 <= bar.high.0 - bar.open.0;
            let (second, third) = if low_first { (bar.low, bar.high) } else { (bar.high, bar.low) };
            [(0, bar.open), (bar_ms / 3, second), (bar_ms / 3 * 2, third), (bar_ms - 1, bar.close)].map(
                |(offset, price)| {
                    let stamp_ms = bar.open_ms + offset;
                    Heard { visible_ms: stamp_ms + bar.lag_ms, stamp_ms, price }
                },
            )
        })
        .collect();
    // From the newest back: whatever becomes visible no earlier than something newer is overtaken.
    let mut earliest = u64::MAX;
    values.reverse();
    values.retain(|value| {
        let kept = value.visible_ms < earliest;
        earliest = earliest.min(value.visible_ms);
        kept
    });
    values.reverse();
    values
}

/// What is still to come at `start_ms`, with the value that is visible then, until `end_ms`.
fn cut(mut values: Vec<Heard>, start_ms: u64, end_ms: u64) -> Vec<Heard> {
    let seen = values.partition_point(|value| value.visible_ms <= start_ms);
    values.drain(..seen.saturating_sub(1));
    values.retain(|value| value.stamp_ms < end_ms);
    values
}

/// Lower median of what is visible, or of the first values to come.
fn price_at(feeds: &[Vec<Heard>], now_ms: u64) -> Option<PicoUsd> {
    let mut prices: Vec<PicoUsd> = feeds
        .iter()
        .filter_map(|values| {
            let seen = values.partition_point(|value| value.visible_ms <= now_ms);
            Some(values[seen.checked_sub(1)?].price)
        })
        .collect();
    if prices.is_empty() {
        let firsts = || feeds.iter().filter_map(|values| values.first());
        let earliest = firsts().map(|value| value.stamp_ms).min()?;
        prices = firsts().filter(|value| value.stamp_ms == earliest).map(|value| value.price).collect();
    }
    prices.sort_unstable();
    prices.get(prices.len().checked_sub(1)? / 2).copied()
}

/// Share of each asset, by symbol; see [`MarketListing::weight_ppm`].
fn weights(recording: &Recording) -> BTreeMap<String, u32> {
    let mut logs: Vec<(&str, &str, f64)> = Vec::new();
    let mut assets: BTreeMap<&str, f64> = BTreeMap::new();
    let mut venues: BTreeMap<&str, f64> = BTreeMap::new();
    for ((asset, venue), bars) in &recording.bars {
        assets.insert(asset, 0.0);
        let contract = recording.venues[venue].contract_usd;
        let usd: f64 =
            bars.iter().map(|bar| bar.volume * contract.unwrap_or_else(|| bar.close.to_f64())).sum();
        if usd > 0.0 {
            logs.push((asset, venue, usd.ln()));
            venues.insert(venue, 0.0);
        }
    }
    for _ in 0..FIT_ROUNDS {
        for (asset, size) in &mut assets {
            let of_asset = logs.iter().filter(|(other, _, _)| other == asset);
            if let Some(mean) = mean(of_asset.map(|(_, venue, log)| log - venues[venue])) {
                *size = mean;
            }
        }
        for (venue, size) in &mut venues {
            let of_venue = logs.iter().filter(|(_, other, _)| other == venue);
            if let Some(mean) = mean(of_venue.map(|(asset, _, log)| log - assets[asset])) {
                *size = mean;
            }
        }
    }
    // An asset without any volume counts like the smallest that has some.
    let known = |asset: &str| logs.iter().any(|(other, _, _)| *other == asset);
    let smallest = assets.iter().filter(|(asset, _)| known(asset)).map(|(_, size)| *size).reduce(f64::min);
    let sizes: Vec<(&str, f64)> = assets
        .iter()
        .map(|(asset, size)| (*asset, if known(asset) { *size } else { smallest.unwrap_or(0.0) }))
        .collect();
    let largest = sizes.iter().map(|(_, size)| *size).fold(f64::MIN, f64::max);
    let roots: Vec<f64> = sizes.iter().map(|(_, size)| ((size - largest) / 2.0).exp()).collect();
    let total: f64 = roots.iter().sum();
    let mut shares: Vec<u32> =
        roots.iter().map(|root| ((root / total * f64::from(MAX_PPM)) as u32).max(1)).collect();
    // What the rounding left (or the floor of 1 ppm took) goes to the largest market.
    let sum: u32 = shares.iter().sum();
    if let Some(top) = shares.iter_mut().max() {
        *top = *top + MAX_PPM - sum;
    }
    sizes.into_iter().zip(shares).map(|((asset, _), share)| (asset.to_owned(), share)).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}
