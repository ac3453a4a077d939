//! What holds in the worst case: bounds of network calculus for flows that token buckets admit.
//!
//! A flow keeps to a [`Bucket`] if in every time `t` at most `burst + rate t` actions of it arrive. A server
//! offers a [`Service`] curve if, whenever the backlog began `t` ago, at least `rate (t - latency)` have been
//! served since. Then, with `rate` of the flow at most that of the service,
//!
//! ```text
//! delay   <= latency + burst / rate of service          (first come, first served)
//! backlog <= burst + rate of the flow * latency
//! ```
//!
//! (Cruz 1991, "A calculus for network delay, part I", IEEE Trans. Information Theory 37; Le Boudec and Thiran
//! 2001, "Network Calculus", chapter 1.) These are bounds and not estimates: nothing about them is random, and
//! a flow that spends its burst at once meets them. In ms, actions, and actions a second.

use crate::units::{Invalid, Ms, PerSecond, between, count};

/// Largest burst, and largest sum of bursts that can be added without loss.
pub const MAX_BURST: f64 = 1e15;
/// Most blocks without rescues that forced inclusion may allow.
pub const MAX_MISSED: u32 = 1 << 20;

/// A token bucket: at most `burst + rate t` actions in every time `t`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Bucket {
    burst: f64,
    rate: PerSecond,
}

impl Bucket {
    /// A bucket that holds `burst` actions and is refilled at `rate`.
    ///
    /// # Errors
    /// If the burst is not finite, negative or more than [`MAX_BURST`].
    pub fn new(burst: f64, rate: PerSecond) -> Result<Self, Invalid> {
        Ok(Self { burst: between("a burst", burst, 0.0, MAX_BURST)?, rate })
    }

    /// What may come at once.
    pub const fn burst(self) -> f64 {
        self.burst
    }

    /// What may come for good.
    pub const fn rate(self) -> PerSecond {
        self.rate
    }

    fn per_ms(self) -> f64 {
        self.rate.get() / 1e3
    }

    /// What all of these admit together: bursts and rates add.
    ///
    /// # Errors
    /// If the sum is beyond [`MAX_BURST`] or [`PerSecond::MAX`].
    pub fn sum(buckets: impl IntoIterator<Item = Self>) -> Result<Self, Invalid> {
        let (mut burst, mut rate) = (0.0, 0.0);
        for bucket in buckets {
            burst += bucket.burst;
            rate += bucket.rate.get();
        }
        Self::new(burst, PerSecond::new(rate)?)
    }
}

/// A rate-latency service curve: `rate (t - latency)`, or nothing before `latency`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Service {
    per_ms: f64,
    latency: Ms,
}

impl Service {
    /// What blocks offer that leave every `slot` with up to `capacity` actions: in a time `t` at least `t / slot`,
    /// rounded down, leave, so `capacity / slot` is served after a latency of one slot.
    ///
    /// # Errors
    /// If the slot has no length.
    pub fn of_blocks(slot: Ms, capacity: u32) -> Result<Self, Invalid> {
        let slot_ms = between("the length of a slot in ms", slot.get(), f64::MIN_POSITIVE, Ms::MAX.get())?;
        Ok(Self { per_ms: f64::from(capacity) / slot_ms, latency: slot })
    }

    /// Actions a millisecond after the latency.
    pub const fn per_ms(self) -> f64 {
        self.per_ms
    }

    /// How long nothing may be served.
    pub const fn latency(self) -> Ms {
        self.latency
    }

    /// The same, later: hops, or blocks that may leave without the flow.
    #[must_use]
    pub fn delayed(self, by: Ms) -> Self {
        Self { latency: Ms::clamped(self.latency.get() + by.get()), ..self }
    }

    /// One after the other: the smaller rate, both latencies. A burst is waited for once.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self { per_ms: self.per_ms.min(next.per_ms), ..self.delayed(next.latency) }
    }

    /// What the flow before all others keeps, if the server finishes up to `largest` actions of others that it has
    /// begun: non-preemptive strict priority.
    #[must_use]
    pub fn finishing_first(self, largest: f64) -> Self {
        if largest > 0.0 { self.delayed(Ms::clamped(largest / self.per_ms)) } else { self }
    }

    /// What a flow before this one leaves: `R (t - T) - burst - rate t`. `None` if it leaves nothing.
    pub fn after(self, first: Bucket) -> Option<Self> {
        let per_ms = self.per_ms - first.per_ms();
        let behind = self.per_ms * self.latency.get() + first.burst;
        (per_ms > 0.0).then(|| Self { per_ms, latency: Ms::clamped(behind / per_ms) })
    }

    fn carries(self, flow: Bucket) -> bool {
        self.per_ms > 0.0 && flow.per_ms() <= self.per_ms
    }

    /// How long an action of the flow waits at most if the flow is served first come, first served. `None` if
    /// the flow is more than is served: then there is no bound.
    pub fn delay_bound(self, flow: Bucket) -> Option<Ms> {
        self.carries(flow).then(|| Ms::clamped(self.latency.get() + flow.burst / self.per_ms))
    }

    /// How long an action waits at most in whatever order the flow is served: the longest time for which there can be
    /// a backlog, `(R T + burst) / (R - rate)`. `None` if the flow is not less than is served.
    pub fn any_order_delay_bound(self, flow: Bucket) -> Option<Ms> {
        self.after(flow).map(Self::latency)
    }

    /// How many actions of the flow wait at most. `None` if there is no bound.
    pub fn backlog_bound(self, flow: Bucket) -> Option<f64> {
        self.carries(flow).then(|| flow.burst + flow.per_ms() * self.latency.get())
    }
}

/// In which order waiting actions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Order {
    /// First come, first served.
    Fifo,
    /// Drawn by lot, or by an adversary.
    Any,
}

/// How many blocks leave at most, counting from an action's arrival, until one leaves with it.
///
/// The lane keeps to `bucket`. Every `slot` a block leaves; after at most `missed` blocks without rescues,
/// blocks take up to `capacity` for as long as any wait (forced inclusion). With `a = rate * slot` arriving in
/// a slot:
///
/// - first come, first served, an action finds at most `burst + a` with itself in the first slot, and of those
///   that come later each slot's find `a <= capacity` more and one miss less:
///   `missed + ceil((burst + a) / capacity)` blocks;
/// - in any order it is answered when nothing waits any more, after `missed + n` blocks with the least `n` for which
///   `burst + a (missed + n) <= n capacity`.
///
/// At least one block leaves after the allowed misses. `None` if blocks fill faster than they leave.
///
/// # Errors
/// If the slot has no length, or more than [`MAX_MISSED`] blocks may be missed.
pub fn blocks_bound(
    bucket: Bucket,
    slot: Ms,
    capacity: u32,
    missed: u32,
    order: Order,
) -> Result<Option<f64>, Invalid> {
    between("the length of a slot in ms", slot.get(), f64::MIN_POSITIVE, Ms::MAX.get())?;
    let missed = f64::from(count("blocks that may be missed", missed, 0, MAX_MISSED)?);
    let (capacity, refill) = (f64::from(capacity), bucket.per_ms() * slot.get());
    let needed = match order {
        Order::Fifo if capacity > 0.0 && refill <= capacity => (bucket.burst + refill) / capacity,
        Order::Any if refill < capacity => (bucket.burst + refill * missed) / (capacity - refill),
        _ => return Ok(None),
    };
    Ok(Some(missed + needed.ceil().max(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: f64) -> Ms {
        Ms::new(value).unwrap()
    }

    fn bucket(burst: f64, rate: f64) -> Bucket {
        Bucket::new(burst, PerSecond::new(rate).unwrap()).unwrap()
    }

    #[test]
    fn bounds_are_the_textbooks() {
        // 10 a block of 100 ms is 0.1 a ms.
        let blocks = Service::of_blocks(ms(100.0), 10).unwrap();
        let flow = bucket(50.0, 40.0);
        assert_eq!(blocks.delay_bound(flow), Some(ms(600.0)));
        assert_eq!(blocks.backlog_bound(flow), Some(54.0));
        // (10 + 50) / (0.1 - 0.04), and then 20 at what is left.
        let left = blocks.after(flow).unwrap();
        assert!((left.latency().get() - 1000.0).abs() < 1e-9 && (left.per_ms() - 0.06).abs() < 1e-12);
        assert!((left.delay_bound(bucket(6.0, 60.0)).unwrap().get() - 1100.0).abs() < 1e-6);
        assert_eq!(blocks.any_order_delay_bound(flow), Some(left.latency()));
        assert_eq!(blocks.finishing_first(5.0).latency(), ms(150.0));
        assert_eq!(blocks.then(Service::of_blocks(ms(10.0), 10).unwrap()).latency(), ms(110.0));
        assert_eq!(blocks.delay_bound(bucket(0.0, 101.0)), None);
        assert_eq!(blocks.after(bucket(0.0, 100.0)), None);
    }

    #[test]
    fn bursts_that_are_admitted_together_add_up() {
        let sum = Bucket::sum((0..100).map(|_| bucket(3.0, 0.5))).unwrap();
        assert_eq!((sum.burst(), sum.rate().get()), (300.0, 50.0));
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Bucket::new(bad, PerSecond::ZERO).is_err());
        }
        assert!(Service::of_blocks(Ms::ZERO, 1).is_err());
    }

    #[test]
    fn blocks_are_counted_from_what_can_wait() {
        let table = [
            // burst, rate per slot, capacity, missed; first come first served, any order
            (0.0, 0.0, 10, 0, Some(1.0), Some(1.0)),
            (10.0, 0.0, 10, 0, Some(1.0), Some(1.0)),
            (11.0, 0.0, 10, 0, Some(2.0), Some(2.0)),
            (50.0, 5.0, 10, 0, Some(6.0), Some(10.0)),
            (50.0, 5.0, 10, 2, Some(8.0), Some(14.0)),
            (50.0, 10.0, 10, 1, Some(7.0), None),
            (50.0, 11.0, 10, 1, None, None),
            (0.0, 0.0, 0, 0, None, None),
        ];
        for (burst, refill, capacity, missed, fifo, any) in table {
            let flow = bucket(burst, refill * 10.0);
            let bound = |order| blocks_bound(flow, ms(100.0), capacity, missed, order).unwrap();
            assert_eq!((bound(Order::Fifo), bound(Order::Any)), (fifo, any), "{burst} {refill} {capacity}");
        }
    }
}
