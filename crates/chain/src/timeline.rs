//! Chain time as a function of a validator's clock.
//!
//! On a live network chain time *is* the clock. On a replay it runs from a past instant, possibly
//! faster, so that freshness, gates, grace and funding see the replayed time while finality is
//! measured on the wall.

use seawall_types::TimeMs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maps wall time to chain time: `chain = chain_origin + (wall - wall_origin) * speed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Wall time, in milliseconds since the Unix epoch, at which chain time is `chain_origin_ms`.
    pub wall_origin_ms: u64,
    /// Chain time at that instant.
    pub chain_origin_ms: u64,
    /// Milliseconds of chain time a millisecond of wall time.
    pub speed: u32,
}

impl Timeline {
    /// Chain time is wall time.
    pub const LIVE: Self = Self { wall_origin_ms: 0, chain_origin_ms: 0, speed: 1 };

    /// Chain time at `wall`. Before the origin, time stands still at the origin.
    pub fn at(&self, wall: SystemTime) -> TimeMs {
        let wall_ms = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let elapsed = wall_ms.saturating_sub(u128::from(self.wall_origin_ms));
        let chain = u128::from(self.chain_origin_ms) + elapsed * u128::from(self.speed);
        TimeMs(u64::try_from(chain).unwrap_or(u64::MAX))
    }

    /// How much wall time passes until chain time advances by `chain_ms`; rounded up.
    pub fn wall_duration(&self, chain_ms: u64) -> Duration {
        Duration::from_millis(chain_ms.div_ceil(u64::from(self.speed.max(1))))
    }

    /// How much chain time passes within `wall`; rounded down.
    pub fn chain_ms(&self, wall: Duration) -> u64 {
        u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.speed))
    }
}
