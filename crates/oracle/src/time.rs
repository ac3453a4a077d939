//! Block time.
//!
//! A block's time is `max(parent + 1 ms, median of the observed times)`. With an even number of
//! observations the median is the *lower* of the two in the middle, at index `(k - 1) / 2` of `k` sorted
//! times. A block holds `k >= q >= 2f + 1` observations, so at least `f` of them lie at or below that index
//! and at least `f` above: with `f` liars the median is never outside the range of the honest times.

use seawall_types::TimeMs;

/// The lower median of the observed times, in milliseconds since the Unix epoch; nothing if there are none.
/// The order of `times` does not matter.
pub fn median_time(times: &[TimeMs]) -> Option<TimeMs> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// The time that a block must carry: `max(parent + 1 ms, median_time(times))`; nothing without observations.
pub fn block_time(parent: TimeMs, times: &[TimeMs]) -> Option<TimeMs> {
    median_time(times).map(|median| median.max(TimeMs(parent.0.saturating_add(1))))
}
