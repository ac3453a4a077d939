//! How much of the usual depth was left in the book, hour by hour of a recorded crash.
//!
//! The recording is Binance's own: every half minute, how many BTC stood within 1 % of the middle of the USD-margined
//! BTCUSDT perpetual on 10 October 2025. **Its bid side is broken in the source** (the same 17.65 BTC for hours), so
//! the ask side stands for both, and BTC for every market. That is an assumption: in a fall bids go first.
//!
//! The factor is what a sample says over the (upper) median of the samples before the replay starts (20:50 UTC). Nothing is
//! interpolated: a sample holds until the next one. Before the first it is that of the first.
//!
//! For other replays nothing was recorded. Their factor is 1.

use crate::{
    ReplayError,
    bars::{Source, malformed, read_rows},
};
use std::sync::LazyLock;

/// Columns of `depth.csv`, as Binance names them.
pub const DEPTH_COLUMNS: [&str; 5] = ["timestamp", "percentage", "depth", "notional", "weighted_avg_price"];
/// Most rows of a depth file.
pub const MAX_ROWS: usize = 100_000;
/// Usual depth.
pub const WHOLE_PPM: u32 = 1_000_000;
/// A factor is at most this: a book of ten times the usual depth is an error of the recording.
pub const MOST_PPM: u32 = 10_000_000;

const REPLAY: &str = "crash-2025-10-10";
const PROVENANCE: &str = include_str!("../../../data/books/depth-2025-10-10/PROVENANCE.md");
/// Midnight of 10 October 2025, ms since the Unix epoch.
const DAY: &str = "2025-10-10 ";
const MIDNIGHT_MS: u64 = 1_760_054_400_000;
/// 20:50 UTC.
const CALM_UNTIL_MS: u64 = MIDNIGHT_MS + (20 * 60 + 50) * 60_000;
/// The distance that is read: 1 % above the middle.
const NEAREST: &str = "1";

/// Depth over time, relative to the calm before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthCurve {
    /// When a sample was taken, ms since the Unix epoch, ascending, and its factor. Empty: always 1.
    samples: Vec<(u64, u32)>,
}

impl DepthCurve {
    /// What was recorded of a replay: of `crash-2025-10-10` the real curve, of others none.
    pub fn of(replay: &str) -> Self {
        static CRASH: LazyLock<DepthCurve> = LazyLock::new(|| {
            let bytes: &'static [u8] = include_bytes!("../../../data/books/depth-2025-10-10/depth.csv");
            let source = Source { name: "depth-2025-10-10/depth.csv".to_owned(), bytes: bytes.into() };
            // Embedded bytes cannot change after the tests have read all of them.
            DepthCurve::read(&source).expect("the embedded depth reads")
        });
        if replay == REPLAY { CRASH.clone() } else { Self { samples: Vec::new() } }
    }

    /// Origin, licence note, columns, units, rows and checksum of the recording.
    pub const fn provenance() -> &'static str {
        PROVENANCE
    }

    /// Share of the usual depth at an instant (ms since the Unix epoch), in parts per million.
    pub fn factor_ppm(&self, time_ms: u64) -> u32 {
        let seen = self.samples.partition_point(|(at, _)| *at <= time_ms);
        self.samples.get(seen.saturating_sub(1)).map_or(WHOLE_PPM, |(_, factor)| *factor)
    }

    /// Samples: instant and factor.
    pub fn samples(&self) -> &[(u64, u32)] {
        &self.samples
    }

    fn read(source: &Source<'_>) -> Result<Self, ReplayError> {
        let mut depths: Vec<(u64, f64)> = Vec::new();
        let mut rows = 0;
        read_rows(source, &DEPTH_COLUMNS, |row| {
            rows += 1;
            if rows > MAX_ROWS {
                return Err(format!("more than {MAX_ROWS} rows"));
            }
            let at = row[0].strip_prefix(DAY).and_then(time_of_day_ms);
            let at = MIDNIGHT_MS + at.ok_or_else(|| format!("timestamp: {:?} is not of the day", &row[0]))?;
            let depth = row[2].parse::<f64>().ok().filter(|depth| depth.is_finite() && *depth > 0.0);
            let depth = depth.ok_or_else(|| format!("depth: {:?} is not a positive number", &row[2]))?;
            if &row[1] != NEAREST {
                return Ok(());
            }
            if depths.last().is_some_and(|(last, _)| *last >= at) {
                return Err(format!("timestamp: {:?} does not come after the last one", &row[0]));
            }
            depths.push((at, depth));
            Ok(())
        })?;
        let mut calm: Vec<f64> =
            depths.iter().filter(|(at, _)| *at < CALM_UNTIL_MS).map(|(_, depth)| *depth).collect();
        calm.sort_by(f64::total_cmp);
        let Some(usual) = calm.get(calm.len() / 2).copied() else {
            return Err(malformed(&source.name, 0, "no sample before the crash".to_owned()));
        };
        let factor = |depth: f64| (depth / usual * f64::from(WHOLE_PPM)).min(f64::from(MOST_PPM)) as u32;
        Ok(Self { samples: depths.into_iter().map(|(at, depth)| (at, factor(depth))).collect() })
    }
}

/// `HH:MM:SS` in ms.
fn time_of_day_ms(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let mut part = |below: u64| {
        let text = parts.next().filter(|text| text.len() == 2)?;
        text.parse::<u64>().ok().filter(|value| *value < below)
    };
    let (hours, minutes, seconds) = (part(24)?, part(60)?, part(60)?);
    parts.next().is_none().then_some(((hours * 60 + minutes) * 60 + seconds) * 1000)
}
