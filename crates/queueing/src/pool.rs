//! What bounded pools drop.
//!
//! # The queue of blocks with a bounded pool
//!
//! Between two blocks `A` actions arrive; what does not fit into the pool's `K` places is dropped; the next block
//! takes up to `C`:
//!
//! ```text
//! V = min(M + A, K)        waiting when the block is built
//! M' = max(V - C, 0)       left behind
//! dropped = max(M + A - K, 0)
//! ```
//!
//! `A` and `C` are independent of the past and of each other, so `M` is a finite Markov chain, and it has a
//! stationary law at every load. It is found by elimination in the order of Grassmann, Taksar and Heyman (1985,
//! "Regenerative analysis and steady state distributions for Markov chains", Operations Research 33), which
//! subtracts nothing and so loses no digits, inside the band that the chain's steps leave. The drop probability
//! is the mean of `dropped` by the mean of `A`. **Exact** up to rounding, and to what the transform that makes
//! the law of `A` leaves: see [`LOSS_FLOOR`].
//!
//! Where elimination would cost more than [`MAX_WORK`] or [`MAX_CELLS`], actions are counted in grains of 2, 4, 8, ...: what
//! falls between two grains is split between them so that means stay, which adds at most a quarter of a grain
//! squared to the variance of what arrives and of what leaves. An **approximation** that says too much, by
//! little while a grain is small beside the standard deviation of what arrives in a slot; [`PoolLaw::grain`]
//! tells.
//!
//! # Classics
//!
//! [`mm1k`] and [`md1k`], with `K` places that include the one in service.

use crate::{
    arrivals::Arrivals,
    units::{Invalid, Probability, Worth, between, count},
};
use num_complex::Complex64;
use rustfft::FftPlanner;
use std::f64::consts::TAU;

/// Most places of a pool.
pub const MAX_PLACES: u32 = 1 << 20;
/// Multiplications that one elimination may cost.
pub const MAX_WORK: f64 = 2e8;
/// Transitions that a chain may have.
pub const MAX_CELLS: f64 = 1e7;
/// Most actions in a slot that a law is written down for.
pub const MAX_SUPPORT: u32 = 1 << 22;
/// Loss that cannot be told from none: a Fourier transform leaves an error of this size in every probability.
pub const LOSS_FLOOR: f64 = 1e-13;
/// Least probability, as a power of `1/e`, that a law keeps.
const RARE: f64 = 37.0;
/// Most actions in a slot for which a pool that is always full is looked into. With more it fills as evenly as
/// a tank.
const MAX_FILLING: f64 = 262_144.0;

/// How many places a block has for a lane: a law, in grains.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    grain: u32,
    pmf: Vec<f64>,
}

impl Room {
    /// Always as many; more than [`MAX_PLACES`] are as good as these, because no pool holds more.
    pub fn constant(places: u32) -> Self {
        let places = places.min(MAX_PLACES);
        let mut pmf = vec![0.0; places as usize + 1];
        pmf[places as usize] = 1.0;
        Self { grain: 1, pmf }
    }

    /// In the mean.
    pub fn mean(&self) -> f64 {
        f64::from(self.grain) * mean(&self.pmf)
    }

    /// What is left of `places` after this many.
    #[must_use]
    pub fn left_of(&self, places: u32) -> Self {
        let pmf = Self::constant(places).in_grains(self.grain).pmf;
        let mut left = vec![0.0; pmf.len()];
        for (all, p) in pmf.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            for (taken, q) in self.pmf.iter().enumerate() {
                left[all.saturating_sub(taken)] += p * q;
            }
        }
        Self { grain: self.grain, pmf: left }
    }

    /// The same in coarser grains.
    fn in_grains(&self, grain: u32) -> Self {
        Self { grain, pmf: coarser(&self.pmf, grain / self.grain) }
    }
}

/// The stationary law of a bounded pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolLaw {
    /// The probability that an arriving action is dropped.
    pub loss: Probability,
    /// Mean time from arrival until a block leaves with an action that was not dropped, in slots, by Little's
    /// law from the number present at an arbitrary time. `None` if blocks take none.
    pub mean_delay_slots: Option<f64>,
    /// Actions that a block leaves behind, in the mean.
    pub mean_left: f64,
    /// How many actions a block takes.
    pub taken: Room,
    /// Actions that were counted as one; with 1 the law is exact.
    pub grain: u32,
}

impl PoolLaw {
    /// What the figures are worth.
    pub fn worth(&self) -> Worth {
        if self.grain == 1 { Worth::Exact } else { Worth::Approximation }
    }

    /// A pool of `places` for what arrives in a slot, of which each block takes what there is `room` for.
    ///
    /// # Errors
    /// If there are no places or more than [`MAX_PLACES`], or if more than [`MAX_SUPPORT`] actions may arrive
    /// in a slot that may also be few.
    pub fn new(arrivals: &Arrivals, room: &Room, places: u32) -> Result<Self, Invalid> {
        let places = count("the places of a pool", places, 1, MAX_PLACES)?;
        let offered = arrivals.mean();
        let all = f64::from(places);
        if arrivals.rarely_below(RARE) >= all || room.mean() <= 0.0 {
            return Ok(Self::always_full(arrivals, room, places));
        }
        let most = arrivals.rarely_above(RARE).max(0.0).ceil();
        between("actions in a slot", most, 0.0, f64::from(MAX_SUPPORT))?;
        let support = most as usize + 1;
        let fine = pmf(support, |z| arrivals.ln_pgf(z).exp());
        let grain = Self::grain_for(&fine, room, places);
        let arriving = Support::of(&coarser(&fine, grain));
        let leaving = Support::of(&room.in_grains(grain).pmf);
        let states = (places.div_ceil(grain)).max(1) as usize;
        let left = left_behind(&arriving, &leaving, states);

        // max(M + A - K, 0), summed from positive terms only.
        let over = excess(&arriving.dense(), states);
        let dropped: f64 = left.iter().enumerate().map(|(m, p)| p * over[states - m]).sum();
        let offered_grains = arriving.mean();
        let loss = if offered_grains > 0.0 { (dropped / offered_grains).min(1.0) } else { 0.0 };
        let loss = if loss < LOSS_FLOOR { 0.0 } else { loss };

        // min(V, C) with V and C independent.
        let mut waiting = vec![0.0; states + 1];
        for (m, p) in left.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            for (a, q) in arriving.iter() {
                waiting[(m + a).min(states)] += p * q;
            }
        }
        let (from_v, from_c) = (at_least(&waiting), at_least(&leaving.dense()));
        let both: Vec<f64> = from_v.iter().zip(&from_c).map(|(v, c)| v * c).collect();
        let taken = (0..both.len()).map(|s| both[s] - both.get(s + 1).copied().unwrap_or(0.0)).collect();

        let grains = f64::from(grain);
        let carried = offered * (1.0 - loss);
        let present = mean_present(arrivals, &left, grain, support);
        let mean_delay_slots = (carried > 0.0).then(|| present * grains / carried);
        Ok(Self {
            loss: Probability::clamped(loss),
            mean_delay_slots,
            mean_left: grains * mean(&left),
            taken: Room { grain, pmf: taken },
            grain,
        })
    }

    /// So much arrives, or so little leaves, that the pool is full whenever a block is built.
    fn always_full(arrivals: &Arrivals, room: &Room, places: u32) -> Self {
        let (full, offered, grain) = (f64::from(places), arrivals.mean(), room.grain);
        let states = places.div_ceil(grain) as usize;
        let taken = Support::of(&room.pmf).up_to(states);
        let carried = (taken.mean() * f64::from(grain)).min(full).min(offered);
        let loss = if offered > 0.0 { 1.0 - carried / offered } else { 0.0 };
        let most = arrivals.rarely_above(RARE).max(0.0).ceil();
        let present = if most <= MAX_FILLING {
            let mut left = vec![0.0; states + 1];
            for (c, p) in taken.iter() {
                left[states - c] += p;
            }
            let support = most as usize + 1;
            mean_present(arrivals, &left, grain, support) * f64::from(grain)
        } else {
            // It is full again after carried / offered of a slot.
            full - 0.5 * carried * carried / offered
        };
        Self {
            loss: Probability::clamped(loss),
            mean_delay_slots: (carried > 0.0).then(|| present / carried),
            mean_left: full - carried,
            taken: Room { grain, pmf: taken.dense() },
            grain,
        }
    }

    /// The finest grain whose elimination is not too much work.
    fn grain_for(fine: &[f64], room: &Room, places: u32) -> u32 {
        let unit = f64::from(room.grain);
        let (arriving, leaving) = (Support::of(fine), Support::of(&room.pmf));
        let span = |support: &Support, unit: f64| (support.from as f64 * unit, support.last() as f64 * unit);
        let ((least, most), (narrow, wide)) = (span(&arriving, 1.0), span(&leaving, unit));
        let all = f64::from(places);
        let (down, up) = ((wide - least.min(narrow)).min(all), (most - narrow).clamp(0.0, all));
        let both = (most.min(all) - least.min(all)) * (wide.min(all) - narrow.min(all));
        let mut grain = room.grain;
        loop {
            // A law in grains reaches one further at each end.
            let of = |count: f64| (count / f64::from(grain)).ceil() + 2.0;
            let states = if up > 0.0 { of(all) } else { 1.0 };
            let work = states * (of(down) * of(up) + both / f64::from(grain).powi(2));
            if (work <= MAX_WORK && states * (of(down) + of(up)) <= MAX_CELLS) || grain >= places {
                return grain;
            }
            grain *= 2;
        }
    }
}

/// Present in the mean at an arbitrary time, in grains: what the last block left behind, and what has been let
/// in since.
fn mean_present(arrivals: &Arrivals, left: &[f64], grain: u32, support: usize) -> f64 {
    let since = coarser(&pmf(support, |z| arrivals.since_block(z)), grain);
    let (places, offered) = (left.len() - 1, mean(&since));
    let over = excess(&since, places);
    left.iter().enumerate().map(|(m, p)| p * (as_f64(m) + offered - over[places - m])).sum()
}

const fn as_f64(count: usize) -> f64 {
    count as f64
}

/// `P(A = 0), P(A = 1), ...`, by a Fourier transform of the pgf on the unit circle.
fn pmf(support: usize, pgf: impl Fn(Complex64) -> Complex64) -> Vec<f64> {
    let points = support.max(2).next_power_of_two();
    let mut values: Vec<_> =
        (0..points).map(|j| pgf(Complex64::cis(TAU * j as f64 / points as f64))).collect();
    FftPlanner::new().plan_fft_forward(points).process(&mut values);
    let mut pmf: Vec<f64> = values[..support].iter().map(|value| value.re / points as f64).collect();
    // Below this there is only rounding.
    for p in &mut pmf {
        *p = if *p > 1e-17 { *p } else { 0.0 };
    }
    let sum: f64 = pmf.iter().sum();
    for p in &mut pmf {
        *p /= sum;
    }
    pmf
}

fn mean(pmf: &[f64]) -> f64 {
    pmf.iter().enumerate().map(|(at, p)| at as f64 * p).sum()
}

/// The law in grains: what lies between two is split between them, nearer the nearer.
fn coarser(pmf: &[f64], grain: u32) -> Vec<f64> {
    if grain == 1 {
        return pmf.to_vec();
    }
    let unit = grain as usize;
    let mut coarse = vec![0.0; pmf.len().div_ceil(unit) + 1];
    for (at, p) in pmf.iter().enumerate() {
        let up = p * (at % unit) as f64 / f64::from(grain);
        coarse[at / unit] += p - up;
        coarse[at / unit + 1] += up;
    }
    coarse
}

/// `P(V >= n)`.
fn at_least(pmf: &[f64]) -> Vec<f64> {
    let mut tail = pmf.to_vec();
    for at in (1..tail.len()).rev() {
        tail[at - 1] += tail[at];
    }
    tail
}

/// `E[max(A - n, 0)]` for `n` up to `states`, from positive terms only.
fn excess(pmf: &[f64], states: usize) -> Vec<f64> {
    let tail = at_least(pmf);
    let mut over = vec![0.0; states.max(pmf.len()) + 1];
    for n in (0..over.len() - 1).rev() {
        over[n] = over[n + 1] + tail.get(n + 1).copied().unwrap_or(0.0);
    }
    over
}

/// A law between its first and its last value that has a probability.
struct Support {
    from: usize,
    pmf: Vec<f64>,
}

impl Support {
    fn of(pmf: &[f64]) -> Self {
        let from = pmf.iter().position(|p| *p > 0.0).unwrap_or(0);
        let to = pmf.iter().rposition(|p| *p > 0.0).unwrap_or(0);
        Self { from, pmf: pmf.get(from..=to).unwrap_or(&[1.0]).to_vec() }
    }

    fn last(&self) -> usize {
        self.from + self.pmf.len() - 1
    }

    fn iter(&self) -> impl Iterator<Item = (usize, f64)> {
        (self.from..).zip(self.pmf.iter().copied())
    }

    /// `min(A, most)`.
    fn up_to(&self, most: usize) -> Self {
        let mut pmf = self.dense();
        let beyond: f64 = pmf.drain(pmf.len().min(most + 1)..).sum();
        if let Some(last) = pmf.last_mut() {
            *last += beyond;
        }
        Self::of(&pmf)
    }

    fn mean(&self) -> f64 {
        self.iter().map(|(at, p)| at as f64 * p).sum()
    }

    fn dense(&self) -> Vec<f64> {
        let mut pmf = vec![0.0; self.from];
        pmf.extend(&self.pmf);
        pmf
    }
}

/// The stationary law of `M' = max(min(M + A, places) - C, 0)`, on `0..=places`.
fn left_behind(arriving: &Support, leaving: &Support, places: usize) -> Vec<f64> {
    // More than fits in and more than there is are as good as what does.
    let (arriving, leaving) = (arriving.up_to(places), leaving.up_to(places));
    let up = arriving.last().saturating_sub(leaving.from);
    // Where blocks take a few at least, a pool is never left full; where they take all that comes, it is left empty.
    let states = if up > 0 { places.saturating_sub(leaving.from) + 1 } else { 1 };
    let down = leaving.last().saturating_sub(arriving.from.min(leaving.from)).min(states);
    let up = up.min(states);
    let mut chain = Chain::new(states, down, up);
    let mut waiting = vec![0.0; places + 1];
    for left in 0..states {
        for (a, p) in arriving.iter() {
            waiting[(left + a).min(places)] += p;
        }
        let (first, last) = ((left + arriving.from).min(places), (left + arriving.last()).min(places));
        for (at, p) in waiting.iter_mut().enumerate().take(last + 1).skip(first) {
            for (c, q) in leaving.iter() {
                *chain.at(left, at.saturating_sub(c)) += *p * q;
            }
            *p = 0.0;
        }
    }
    let mut law = chain.stationary();
    law.resize(places + 1, 0.0);
    law
}

/// A Markov chain on `0..states` whose steps go at most `down` down and `up` up.
struct Chain {
    states: usize,
    down: usize,
    up: usize,
    cells: Vec<f64>,
}

impl Chain {
    fn new(states: usize, down: usize, up: usize) -> Self {
        Self { states, down, up, cells: vec![0.0; states * (down + up + 1)] }
    }

    fn at(&mut self, from: usize, to: usize) -> &mut f64 {
        &mut self.cells[from * (self.down + self.up + 1) + to + self.down - from]
    }

    fn get(&self, from: usize, to: usize) -> f64 {
        self.cells[from * (self.down + self.up + 1) + to + self.down - from]
    }

    /// Takes away the highest state again and again: what goes through it goes directly from then on. Nothing is
    /// subtracted. A state from which nothing leads further down is the lowest that lasts.
    fn stationary(mut self) -> Vec<f64> {
        let mut lowest = 0;
        for k in (1..self.states).rev() {
            let (from, to) = (k.saturating_sub(self.up), k.saturating_sub(self.down));
            let out: f64 = (to..k).map(|j| self.get(k, j)).sum();
            if out <= 0.0 {
                lowest = k;
                break;
            }
            let width = self.down + self.up + 1;
            for i in from..k {
                let share = self.get(i, k) / out;
                *self.at(i, k) = share;
                if share > 0.0 {
                    let (before, after) = self.cells.split_at_mut(k * width);
                    let source = &after[to + self.down - k..self.down];
                    let start = i * width + to + self.down - i;
                    for (cell, p) in before[start..start + source.len()].iter_mut().zip(source) {
                        *cell += share * p;
                    }
                }
            }
        }
        let mut law = vec![0.0; self.states];
        law[lowest] = 1.0;
        for k in lowest + 1..self.states {
            let from = k.saturating_sub(self.up).max(lowest);
            law[k] = (from..k).map(|i| law[i] * self.get(i, k)).sum();
            // Under overload the law rises by orders of magnitude a state.
            if law[k] > 1e200 {
                for p in &mut law[..=k] {
                    *p *= 1e-200;
                }
            }
        }
        let sum: f64 = law.iter().sum();
        for p in &mut law {
            *p /= sum;
        }
        law
    }
}

fn load_of(load: f64) -> Result<f64, Invalid> {
    between("the load of a server", load, 0.0, 1e9)
}

/// The loss of M/M/1/K: `(1 - rho) rho^K / (1 - rho^(K+1))`, and `1 / (K + 1)` at `rho = 1`. Exact.
///
/// # Errors
/// If the load is not finite, negative or more than 10^9.
pub fn mm1k(load: f64, places: u32) -> Result<Probability, Invalid> {
    let load = load_of(load)?;
    let k = f64::from(places);
    let ln = load.ln();
    let loss = if places == 0 {
        1.0
    } else if load <= 0.0 {
        0.0
    } else if ln.abs() < 1e-14 {
        1.0 / (k + 1.0)
    } else if load < 1.0 {
        libm::expm1(ln) * (ln * k).exp() / libm::expm1(ln * (k + 1.0))
    } else {
        libm::expm1(-ln) / libm::expm1(-ln * (k + 1.0))
    };
    Ok(Probability::clamped(loss))
}

/// Most places of [`md1k`].
pub const MAX_MD1K_PLACES: u32 = 1024;
/// Largest load of [`md1k`].
pub const MAX_MD1K_LOAD: f64 = 1024.0;

/// The loss of M/D/1/K, from the chain of numbers left behind at departures. A service that begins with `i`
/// present has `K - i` places for those who come meanwhile; one after an empty system begins with one. Per
/// service, `rho + P(left empty)` arrive in the mean. Exact up to [`LOSS_FLOOR`].
///
/// # Errors
/// If the load is not finite, negative or more than [`MAX_MD1K_LOAD`], or there are no places or more than
/// [`MAX_MD1K_PLACES`].
pub fn md1k(load: f64, places: u32) -> Result<Probability, Invalid> {
    let load = between("the load of a server", load, 0.0, MAX_MD1K_LOAD)?;
    let places = count("the places of a server", places, 1, MAX_MD1K_PLACES)? as usize;
    let arrivals = Arrivals::poisson(load)?;
    let support = arrivals.rarely_above(RARE).max(0.0).ceil() as usize + 1;
    let law = pmf(support, |z| arrivals.ln_pgf(z).exp());
    let mut chain = Chain::new(places, 1, places);
    for left in 0..places {
        for (a, p) in law.iter().enumerate() {
            *chain.at(left, (left.max(1) - 1 + a).min(places - 1)) += p;
        }
    }
    let (left, over) = (chain.stationary(), excess(&law, places));
    let lost: f64 = left.iter().enumerate().map(|(i, p)| p * over[places - i.max(1)]).sum();
    let loss = lost / (load + left[0]);
    Ok(Probability::clamped(if loss < LOSS_FLOOR { 0.0 } else { loss }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arrivals::Batch, bulk::BulkQueue};

    fn poisson(mean: f64) -> Arrivals {
        Arrivals::poisson(mean).unwrap()
    }

    fn pool(arrivals: &Arrivals, room: u32, places: u32) -> PoolLaw {
        PoolLaw::new(arrivals, &Room::constant(room), places).unwrap()
    }

    #[test]
    fn mm1k_is_the_closed_form_without_its_cancellation() {
        for (load, places, right) in [
            (0.5, 1, 1.0 / 3.0),
            (1.0, 4, 0.2),
            (1.0 + 1e-12, 4, 0.2),
            (2.0, 2, 4.0 / 7.0),
            (0.5, 0, 1.0),
            (0.0, 3, 0.0),
            (1e9, 1_000_000, 1.0 - 1e-9),
        ] {
            let found = mm1k(load, places).unwrap().get();
            assert!((found - right).abs() < 1e-9, "{load} {places}: {found} for {right}");
        }
        assert!((mm1k(0.5, 100).unwrap().get() / 0.5f64.powi(101) - 1.0).abs() < 1e-9);
        assert!(mm1k(f64::NAN, 1).is_err() && mm1k(-1.0, 1).is_err());
    }

    #[test]
    fn md1k_with_one_place_is_erlang_and_with_two_the_embedded_chain_by_hand() {
        for load in [0.1, 0.7, 1.0, 3.0f64] {
            // One place: rho / (1 + rho) whatever the service. Two: the chain on {0, 1} by hand.
            let one = md1k(load, 1).unwrap().get();
            assert!((one - load / (1.0 + load)).abs() < 1e-12, "{load}: {one}");
            let empty = (-load).exp();
            let two = md1k(load, 2).unwrap().get();
            let right = 1.0 - 1.0 / (load + empty);
            assert!((two - right).abs() < 1e-12, "{load}: {two} for {right}");
        }
        assert!(md1k(0.5, 0).is_err() && md1k(f64::INFINITY, 1).is_err());
    }

    #[test]
    fn a_pool_that_a_block_empties_drops_what_exceeds_it() {
        // K = C = 1: E[max(A - 1, 0)] / E[A].
        for mean in [0.01, 1.0, 5.0f64] {
            let found = pool(&poisson(mean), 1, 1).loss.get();
            let right = (mean + libm::expm1(-mean)) / mean;
            assert!((found - right).abs() < 1e-12, "{mean}: {found} for {right}");
        }
    }

    /// The chain as it is written in the module, iterated.
    fn naive(pmf: &[f64], room: &[f64], places: usize) -> (Vec<f64>, f64) {
        let mut left = vec![0.0; places + 1];
        left[0] = 1.0;
        let mut dropped = 0.0;
        for _ in 0..4000 {
            let mut next = vec![0.0; places + 1];
            dropped = 0.0;
            for (m, p) in left.iter().enumerate() {
                for (a, q) in pmf.iter().enumerate() {
                    dropped += p * q * (m + a).saturating_sub(places) as f64;
                    for (c, r) in room.iter().enumerate() {
                        next[(m + a).min(places).saturating_sub(c)] += p * q * r;
                    }
                }
            }
            left = next;
        }
        (left, dropped)
    }

    #[test]
    fn elimination_finds_what_iteration_converges_to() {
        let batches = Batch::given(&[0.5, 0.2, 0.3]).unwrap();
        for load in [0.5, 1.0, 1.8] {
            for (room, places) in [(vec![0.0, 0.0, 0.0, 1.0], 9), (vec![0.1, 0.2, 0.3, 0.2, 0.2], 7)] {
                let mean_room = mean(&room);
                let arrivals = Arrivals::new(load * mean_room, batches.clone()).unwrap();
                let law = pmf(60, |z| arrivals.ln_pgf(z).exp());
                let (left, dropped) = naive(&law, &room, places);
                let found = PoolLaw::new(&arrivals, &Room { grain: 1, pmf: room }, places as u32).unwrap();
                let right = dropped / arrivals.mean();
                assert!((found.loss.get() - right).abs() < 1e-10, "{load}: {found:?} for {right}");
                assert!((found.mean_left - mean(&left)).abs() < 1e-9, "{load}: {found:?}");
                // What is offered is carried or lost.
                let carried = found.taken.mean();
                assert!((carried + dropped - arrivals.mean()).abs() < 1e-9, "{load}: {carried} {dropped}");
            }
        }
    }

    #[test]
    fn a_pool_that_never_fills_is_the_queue_without_a_bound() {
        for load in [0.3, 0.9] {
            let arrivals = Arrivals::new(8.0 * load, Batch::geometric(2.0).unwrap()).unwrap();
            let (found, queue) = (pool(&arrivals, 8, 600), BulkQueue::new(arrivals.clone(), 8).unwrap());
            assert_eq!(found.loss, Probability::ZERO);
            assert!((found.mean_left - queue.mean_left().unwrap()).abs() < 1e-8, "{load}: {found:?}");
            let delay = queue.mean_delay_slots().unwrap();
            assert!((found.mean_delay_slots.unwrap() - delay).abs() < 1e-8, "{load}: {found:?} {delay}");
        }
    }

    #[test]
    fn under_overload_what_has_no_room_is_lost() {
        for (load, places) in [(2.0, 64), (2.0, 65_536), (100.0, 1000), (1e6, 65_536)] {
            let found = pool(&poisson(16.0 * load), 16, places);
            let right = 1.0 - 1.0 / load;
            assert!((found.loss.get() - right).abs() < 1e-6, "{load} {places}: {} {right}", found.loss.get());
            // The pool is as good as full, and 16 leave it in a slot.
            let delay = found.mean_delay_slots.unwrap();
            assert!((delay - f64::from(places) / 16.0).abs() < 4.0, "{load} {places}: {delay}");
        }
        assert_eq!(pool(&poisson(5.0), 0, 10).loss, Probability::MAX);
    }

    #[test]
    fn grains_change_little() {
        let arrivals = Arrivals::new(98.0, Batch::geometric(2.0).unwrap()).unwrap();
        let law = pmf(1000, |z| arrivals.ln_pgf(z).exp());
        let loss = |grain: u32| {
            let arriving = Support::of(&coarser(&law, grain));
            let leaving = Support::of(&Room::constant(100).in_grains(grain).pmf);
            let states = (400 / grain) as usize;
            let left = left_behind(&arriving, &leaving, states);
            let over = excess(&arriving.dense(), states);
            left.iter().enumerate().map(|(m, p)| p * over[states - m]).sum::<f64>() / arriving.mean()
        };
        let exact = loss(1);
        assert!(exact > 1e-4, "{exact}");
        // 17 actions are a standard deviation.
        for (grain, factor) in [(2, 1.03), (4, 1.1), (8, 1.5)] {
            let found = loss(grain);
            assert!(found >= exact && found < factor * exact, "{grain}: {found} for {exact}");
        }
    }

    #[test]
    fn the_pools_of_a_validator_are_within_reach() {
        for load in [0.5, 0.99, 1.0, 1.01, 1.5] {
            let found = pool(&poisson(16_384.0 * load), 16_384, 65_536);
            assert!(found.loss.get() >= (1.0 - 1.0 / load) - 1e-9, "{load}: {found:?}");
            assert!(found.loss.get() <= (1.0 - 1.0 / load).max(0.0) + 0.01, "{load}: {}", found.loss.get());
        }
    }
}
