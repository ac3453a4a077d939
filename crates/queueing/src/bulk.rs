//! The queue that blocks serve: every slot a block leaves and takes at most `c` waiting actions along.
//!
//! Number the blocks. `X(n)` wait when block `n` is built, `M(n) = max(X(n) - c, 0)` stay behind, and `A(n)` arrive
//! until the next one:
//!
//! ```text
//! X(n+1) = max(X(n) - c, 0) + A(n)
//! ```
//!
//! This is the discrete bulk service queue of Bailey (1954, "On queueing processes with bulk service", J. Royal
//! Statistical Society B 16). The `A(n)` are independent with one law, [`Arrivals`]; the pool is unbounded (for
//! bounded ones see [`pool`](crate::pool)); service is first come, first served. Everything here needs
//! `E[A] < c`; without it the answer is `None`, because there is no stationary queue. Counts are actions, times
//! are slots.
//!
//! # The mean, by roots
//!
//! `z^c = A(z)` has `c` roots in the closed unit disk; one is 1. With the others, `z_1 .. z_(c-1)`,
//!
//! ```text
//! E[X] = Var[A] / (2 (c - E[A])) + E[A] / 2 - (c - 1) / 2 + sum of 1 / (1 - z_k)
//! ```
//!
//! (Janssen and van Leeuwaarden 2005, "Analytic computation schemes for the discrete-time bulk service queue",
//! Queueing Systems 50, who also find the roots by successive substitution.) The root `z_k` solves
//! `z = w_k A(z)^(1/c)` with `w_k = exp(2 pi i k / c)`. For the laws of [`Arrivals`] that map takes the closed disk
//! into itself, and the modulus of its derivative is at most `E[A] / c` there: with `|1 + scv e(z)| >= 1` and
//! `|B'(z)| <= B'(1)` it is below its value at 1. So each branch has exactly one root, and substitution finds it from
//! anywhere. Newton's step is taken where it is at least as good as that.
//!
//! # The law, by Wiener and Hopf
//!
//! `M` is the maximum of a random walk with steps `A - c` that starts at 0, and Spitzer's identity (1956, "A
//! combinatorial lemma and its application to probability theory", Trans. American Mathematical Society 82)
//! makes it a compound Poisson law: `E[z^M] = exp(sum over n > 0 of q_n (z^n - 1))`, where the `q_n` are the
//! coefficients of positive powers in `-ln(1 - A(z) z^-c)` on a circle between 1 and the pole. They are read
//! off with a Fourier transform; nothing is factored and no root is needed. The two ways to `E[M]` share
//! nothing but `A(z)`, which is what their test rests on.
//!
//! Tails are integrals over the same circle, `P(V >= n) = 1/(2 pi i) * integral of G(z) z^-n / (z - 1) dz`, by
//! the trapezoid rule, which converges geometrically because the integrand is analytic in the ring. The number
//! of points is chosen so that what is left is below `e^-32`. They are exact up to that and to rounding.
//!
//! # The tail, by its pole
//!
//! The smallest `z_0 > 1` with `z_0^c = A(z_0)` gives Kingman's bound `P(M >= n) <= z_0^-n`, and with the
//! residue there `P(M >= n) ~ D z_0^-n` for large `n`: see [`Pole`].

use crate::{
    arrivals::{Arrivals, ln_of_own_slot, ln_of_slots},
    units::{Invalid, count},
    wait::WaitTable,
};
use num_complex::Complex64;
use rustfft::FftPlanner;
use std::f64::consts::TAU;

/// Most actions that a block takes.
pub const MAX_CAPACITY: u32 = 1 << 16;
/// Utilisation from which a queue counts as having no stationary law. Half a billion actions would wait, or more.
pub const MAX_UTILISATION: f64 = 1.0 - 1e-9;
/// Steps after which the search for a root or a pole ends with what it has. Newton's method takes a handful.
pub const MAX_STEPS: u32 = 200;
/// Most points on the circle. A queue so close to saturation that it needs more is described by its pole.
pub const MAX_POINTS: usize = 1 << 14;
/// Most points of a single Fourier transform.
pub const MAX_TRANSFORM: usize = 1 << 18;
/// Largest `ln z_0` that is looked for: beyond, one more action in the queue is `e^50` times less likely.
pub const MAX_DECAY: f64 = 50.0;
/// What the trapezoid rule may leave, as a power of `1/e`.
const PRECISION: f64 = 32.0;

/// A queue served by blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkQueue {
    arrivals: Arrivals,
    capacity: u32,
}

/// Where the tail of the queue comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pole {
    /// `ln z_0`, at most [`MAX_DECAY`].
    pub ln_z0: f64,
    /// `D` of `P(M >= n) ~ D z_0^-n`, from the residue at `z_0`. At most 1, by Kingman's bound.
    pub prefactor: f64,
}

impl Pole {
    /// Kingman's bound on `P(M >= n)`, for every `n >= 0`.
    pub fn bound(&self, n: f64) -> f64 {
        (-self.ln_z0 * n).exp().min(1.0)
    }

    /// What `P(M >= n)` is close to for large `n`.
    pub fn tail(&self, n: f64) -> f64 {
        (self.prefactor * (-self.ln_z0 * n).exp()).min(1.0)
    }
}

impl BulkQueue {
    /// A queue of which each block takes at most `capacity` actions.
    ///
    /// # Errors
    /// If the capacity is 0 or more than [`MAX_CAPACITY`].
    pub fn new(arrivals: Arrivals, capacity: u32) -> Result<Self, Invalid> {
        let capacity = count("the capacity of a block", capacity, 1, MAX_CAPACITY)?;
        Ok(Self { arrivals, capacity })
    }

    /// What arrives in a slot.
    pub const fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// What a block takes at most.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    fn c(&self) -> f64 {
        f64::from(self.capacity)
    }

    /// `E[A] / c`, which may be more than 1.
    pub fn utilisation(&self) -> f64 {
        self.arrivals.mean() / self.c()
    }

    /// Whether there is a stationary queue that can be computed.
    pub fn is_stable(&self) -> bool {
        self.utilisation() < MAX_UTILISATION
    }

    /// The roots `z_1 .. z_(c-1)` of `z^c = A(z)` inside the unit disk.
    pub fn roots(&self) -> Option<Vec<Complex64>> {
        let upper = self.upper_roots()?;
        let mirrored =
            upper.iter().rev().skip(usize::from(self.capacity.is_multiple_of(2))).map(Complex64::conj);
        Some(upper.iter().copied().chain(mirrored).collect())
    }

    /// Those with `k <= c / 2`; the others are their conjugates.
    fn upper_roots(&self) -> Option<Vec<Complex64>> {
        if !self.is_stable() {
            return None;
        }
        let mut root = Complex64::ZERO;
        let roots = (1..=self.capacity / 2).map(|k| {
            root = self.root(Complex64::cis(TAU * f64::from(k) / self.c()), root);
            root
        });
        Some(roots.collect())
    }

    /// The fixed point of `z = w A(z)^(1/c)`.
    fn root(&self, w: Complex64, start: Complex64) -> Complex64 {
        let contraction = self.utilisation();
        let image = |z: Complex64| w * (self.arrivals.ln_pgf(z) / self.c()).exp();
        let mut z = start;
        let mut to = image(z);
        for _ in 0..MAX_STEPS {
            let residual = to - z;
            if residual.norm() <= 2.0 * f64::EPSILON {
                break;
            }
            let newton = z + residual / (1.0 - to * self.arrivals.ln_pgf_slope(z) / self.c());
            let beyond = image(newton);
            let as_good = (beyond - newton).norm() <= contraction * residual.norm();
            (z, to) = if newton.norm() <= 1.0 && as_good { (newton, beyond) } else { (to, image(to)) };
        }
        z
    }

    /// `E[M]`: actions that a block leaves behind, in the mean.
    pub fn mean_left(&self) -> Option<f64> {
        let roots = self.upper_roots()?;
        let (mean, c) = (self.arrivals.mean(), self.c());
        let mut sum: f64 = roots.iter().map(|root| 2.0 * (1.0 - root).inv().re).sum();
        if let Some(real) = roots.last().filter(|_| self.capacity.is_multiple_of(2)) {
            sum -= (1.0 - real).inv().re;
        }
        let left = self.arrivals.variance() / (2.0 * (c - mean)) - mean / 2.0 - (c - 1.0) / 2.0 + sum;
        // A difference of terms of the size of c; rounding may take an empty queue below zero.
        Some(left.max(0.0))
    }

    /// `E[X]`: actions that wait when a block is built, in the mean.
    pub fn mean_waiting(&self) -> Option<f64> {
        Some(self.mean_left()? + self.arrivals.mean())
    }

    /// The mean time from arrival until a block leaves with the action, in slots.
    ///
    /// Little's law (1961, "A proof for the queuing formula L = lambda W", Operations Research 9): a block
    /// leaves `M` behind, and until the next one the arrivals add half their number in the mean (in slots of
    /// random length, half of `1 + scv` times that, because long slots hold more of the time). So
    /// `W = E[M] / E[A] + (1 + scv) / 2`. Exact, in any order of service that does not look at the future.
    ///
    /// Without arrivals it is the mean wait of one that came all the same.
    pub fn mean_delay_slots(&self) -> Option<f64> {
        let left = self.mean_left()?;
        let mean = self.arrivals.mean();
        let slots = if mean > 0.0 { left / mean } else { 0.0 };
        Some(slots + 0.5 * (1.0 + self.arrivals.slot_scv()))
    }

    /// The decay of the tail and its size.
    pub fn pole(&self) -> Option<Pole> {
        let roots = self.upper_roots()?;
        let ln_z0 = self.decay()?;
        if ln_z0 >= MAX_DECAY {
            return Some(Pole { ln_z0, prefactor: 1.0 });
        }
        // D = (c - E[A]) prod (z_0 - z_k) / (1 - z_k) / (z_0^(c-1) (z_0 (ln A)'(z_0) - c)), in logarithms.
        let (mean, c, z0) = (self.arrivals.mean(), self.c(), ln_z0.exp());
        let one = |root: &Complex64| ((z0 - root) / (1.0 - root)).norm().ln();
        let mut product: f64 = roots.iter().map(|root| 2.0 * one(root)).sum();
        if let Some(real) = roots.last().filter(|_| self.capacity.is_multiple_of(2)) {
            product -= one(real);
        }
        let slope = z0 * self.arrivals.ln_pgf_slope(Complex64::new(z0, 0.0)).re - c;
        let ln = (c - mean).ln() + product - (c - 1.0) * ln_z0 - slope.ln();
        // Rounding so close to saturation that the slope vanishes leaves the bound.
        let prefactor = if ln.is_nan() { 1.0 } else { ln.exp().min(1.0) };
        Some(Pole { ln_z0, prefactor })
    }

    /// `ln z_0`, or [`MAX_DECAY`] if it is more.
    pub fn decay(&self) -> Option<f64> {
        if !self.is_stable() {
            return None;
        }
        // Convex, zero at zero, and falling there: positive exactly beyond the pole.
        let beyond = |s: f64| self.arrivals.cumulant(s) - self.c() * s > 0.0;
        let mut high = MAX_DECAY;
        if !beyond(high) {
            return Some(MAX_DECAY);
        }
        let mut low = high;
        for _ in 0..MAX_STEPS {
            low /= 2.0;
            if !beyond(low) {
                break;
            }
            high = low;
        }
        for _ in 0..MAX_STEPS {
            let middle = 0.5 * (low + high);
            if middle <= low || middle >= high {
                break;
            }
            if beyond(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(low)
    }

    /// The law of the queue. `None` also if it would take more than [`MAX_POINTS`] points.
    pub fn law(&self) -> Option<QueueLaw> {
        self.law_within(MAX_POINTS)
    }

    fn law_within(&self, most: usize) -> Option<QueueLaw> {
        let points = self.points().filter(|points| *points <= most)?;
        Some(QueueLaw::on(self, Ring::new(self.decay()? / 2.0, points)))
    }

    /// Points that leave what [`PRECISION`] says.
    fn points(&self) -> Option<usize> {
        let points = (4.0 * PRECISION / self.decay()?).ceil().min(1e18) as usize;
        points.max(64).checked_next_power_of_two()
    }

    /// A circle on which a power up to `c` stays in the range of floats and loses few digits: so many points
    /// that it may be that close to 1.
    fn narrow_ring(&self) -> Option<Ring> {
        let points = self.points()?.max((4 * self.capacity as usize).next_power_of_two());
        (points <= MAX_TRANSFORM).then(|| Ring::new(2.0 * PRECISION / points as f64, points))
    }

    /// The law of `min(X, c)`, what a block takes. `None` also if it would take more than [`MAX_TRANSFORM`] points.
    pub fn taken(&self) -> Option<Vec<f64>> {
        let law = QueueLaw::on(self, self.narrow_ring()?);
        let mut taken = law.waiting(self.capacity as usize);
        let sum: f64 = taken.iter().sum();
        taken.push((1.0 - sum).max(0.0));
        Some(taken)
    }

    /// `E[M]` of a queue like this one, if its blocks had only `c - S` places, `S` of the law `taken` and
    /// independent from block to block. `all` is a queue with the same `c` and more load. `None` as for
    /// [`BulkQueue::taken`].
    pub(crate) fn mean_left_beside(&self, taken: &[f64], all: &Self) -> Option<f64> {
        let ring = all.narrow_ring()?;
        let points = 2 * (ring.ln_z.len() - 1);
        let mut values: Vec<Complex64> =
            taken.iter().enumerate().map(|(s, p)| (p * (ring.ln_radius * s as f64).exp()).into()).collect();
        values.resize(points, Complex64::ZERO);
        FftPlanner::new().plan_fft_inverse(points).process(&mut values);
        let steps = ring
            .ln_z
            .iter()
            .zip(&values)
            .map(|(ln_z, taken)| (self.arrivals.ln_pgf(ln_z.exp()) - self.c() * ln_z).exp() * taken);
        Some(ring.maximum(steps).1)
    }
}

/// A circle, by the logarithms of the upper half of its points.
struct Ring {
    ln_radius: f64,
    ln_z: Vec<Complex64>,
}

impl Ring {
    fn new(ln_radius: f64, points: usize) -> Self {
        let angle = TAU / points as f64;
        Self {
            ln_radius,
            ln_z: (0..=points / 2).map(|j| Complex64::new(ln_radius, angle * j as f64)).collect(),
        }
    }

    /// `ln E[z^M]` on the circle, and `E[M]`, for the maximum `M` of the random walk whose steps have this
    /// Laurent pgf. Its modulus has to be below 1.
    fn maximum(&self, steps: impl Iterator<Item = Complex64>) -> (Vec<Complex64>, f64) {
        let half = self.ln_z.len() - 1;
        let points = 2 * half;
        // Where the modulus is below 1, the logarithm stays on its branch.
        let mut values: Vec<_> = steps.map(|step| -(1.0 - step).ln()).collect();
        let mirrored: Vec<_> = values[1..half].iter().rev().map(Complex64::conj).collect();
        values.extend(mirrored);
        let mut planner = FftPlanner::new();
        planner.plan_fft_forward(points).process(&mut values);
        // values[m] is now N q_m radius^m.
        let (mut total, mut mean) = (0.0, 0.0);
        for (m, value) in values.iter_mut().enumerate() {
            if m == 0 || m >= half {
                *value = Complex64::ZERO;
            } else {
                *value = (value.re / points as f64).into();
                let q = value.re * (-self.ln_radius * m as f64).exp();
                total += q;
                mean += m as f64 * q;
            }
        }
        planner.plan_fft_inverse(points).process(&mut values);
        values.truncate(half + 1);
        for value in &mut values {
            *value -= total;
        }
        (values, mean.max(0.0))
    }
}

/// The law of the queue, on a circle around the unit disk.
#[derive(Clone, Debug)]
pub struct QueueLaw {
    capacity: f64,
    /// The upper half of the points, `z_0 .. z_(N/2)`, as logarithms.
    ln_z: Vec<Complex64>,
    /// `ln E[z^M]` there.
    ln_left: Vec<Complex64>,
    /// `e(z)` of the arrivals there.
    exponents: Vec<Complex64>,
    slot_scv: f64,
    mean_left: f64,
}

impl QueueLaw {
    fn on(queue: &BulkQueue, ring: Ring) -> Self {
        let (capacity, slot_scv) = (queue.c(), queue.arrivals.slot_scv());
        let exponents: Vec<_> = ring.ln_z.iter().map(|ln_z| queue.arrivals.exponent(ln_z.exp())).collect();
        let steps = ring
            .ln_z
            .iter()
            .zip(&exponents)
            .map(|(ln_z, exponent)| (ln_of_slots(*exponent, slot_scv) - capacity * ln_z).exp());
        let (ln_left, mean_left) = ring.maximum(steps);
        Self { capacity, ln_z: ring.ln_z, ln_left, exponents, slot_scv, mean_left }
    }

    /// `P(X = n)` for the first `n`.
    fn waiting(&self, count: usize) -> Vec<f64> {
        let half = self.ln_z.len() - 1;
        let ln_pgf = |j: usize| self.ln_left[j] + ln_of_slots(self.exponents[j], self.slot_scv);
        let mut values: Vec<_> = (0..=half).map(|j| ln_pgf(j).exp()).collect();
        let mirrored: Vec<_> = values[1..half].iter().rev().map(Complex64::conj).collect();
        values.extend(mirrored);
        FftPlanner::new().plan_fft_forward(2 * half).process(&mut values);
        let ln_radius = self.ln_z[0].re;
        let scaled = |(n, value): (usize, &Complex64)| {
            (value.re / (2 * half) as f64 * (-ln_radius * n as f64).exp()).clamp(0.0, 1.0)
        };
        values.iter().enumerate().map(scaled).take(count).collect()
    }

    /// `E[M]` once more, from the law.
    pub const fn mean_left(&self) -> f64 {
        self.mean_left
    }

    /// `P(V >= n)` for the integer `V` whose pgf at the `j`-th point is `exp(ln_pgf(j)) * factor(j)`; `V` may be
    /// negative. Powers stay in the exponent: each alone may be beyond all floats.
    fn tail_of(
        &self,
        n: f64,
        ln_pgf: impl Fn(usize) -> Complex64,
        factor: impl Fn(usize) -> Complex64,
    ) -> f64 {
        let last = self.ln_z.len() - 1;
        let point = |(j, ln_z): (usize, &Complex64)| {
            let weight = if j == 0 || j == last { 1.0 } else { 2.0 };
            weight * ((ln_pgf(j) - n * ln_z).exp() * factor(j) / (1.0 - (-ln_z).exp())).re
        };
        let sum: f64 = self.ln_z.iter().enumerate().map(point).sum();
        let tail = sum / (2 * last) as f64;
        if tail.is_nan() { 1.0 } else { tail.clamp(0.0, 1.0) }
    }

    /// `P(M >= n)`: a block leaves `n` actions or more behind.
    pub fn left_at_least(&self, n: u32) -> f64 {
        if n == 0 { 1.0 } else { self.tail_of(f64::from(n), |j| self.ln_left[j], |_| Complex64::ONE) }
    }

    /// The least number that a share `p` of blocks leave behind at most; at most `u32::MAX`.
    pub fn left_quantile(&self, p: f64) -> u32 {
        let more = |n: u32| self.left_at_least(n.saturating_add(1)) > 1.0 - p;
        let (mut low, mut high) = (0, 1u32);
        if !more(0) {
            return 0;
        }
        while high < u32::MAX && more(high) {
            (low, high) = (high, high.saturating_mul(2));
        }
        // More than `low`, at most `high`.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if more(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// How long the actions of `own` wait, which are served first come, first served within a queue of which this is
    /// the law, and are overtaken by all of `overtakers` that come before they are taken. Both are part of the
    /// queue's arrivals.
    ///
    /// An action that arrives when a share `u` of its slot is over finds `M` left by the last block, the
    /// arrivals of that share, and those ahead in its own batch. It misses the first `k` blocks if these and
    /// the overtakers of the rest of the slot and of `k - 1` more slots are `k c` or more: if block `i < k` had
    /// room, it would have gone. The number of blocks missed is exact without overtakers, or with ones that
    /// never fill a block alone. Otherwise it counts an action as waiting although it was taken, if overtakers
    /// flood later blocks: it says too much, by at most the probability of such a flood.
    ///
    /// The time is exact in slots of one length. In others each is taken for as long as the mean, the one of the
    /// arrival too, although long slots see more arrivals: half the scv is missing in the mean.
    pub fn wait(&self, own: &Arrivals, overtakers: Option<&Arrivals>) -> WaitLaw<'_> {
        let points = || self.ln_z.iter().map(|ln_z| ln_z.exp());
        WaitLaw {
            queue: self,
            ahead: points().map(|z| own.ahead_in_batch(z)).collect(),
            overtakers: overtakers.map(|overtakers| points().map(|z| overtakers.exponent(z)).collect()),
        }
    }
}

/// How many blocks an action misses before one leaves with it.
#[derive(Clone, Debug)]
pub struct WaitLaw<'a> {
    queue: &'a QueueLaw,
    ahead: Vec<Complex64>,
    overtakers: Option<Vec<Complex64>>,
}

impl<'a> WaitLaw<'a> {
    /// The probability that an action that comes when a share `u` of its slot is over misses `k` blocks or more.
    pub fn misses(&self, u: f64, k: f64) -> f64 {
        let queue = self.queue;
        let ln_pgf = |j: usize| {
            let overtakers = self.overtakers.as_ref().map_or(Complex64::ZERO, |overtakers| overtakers[j]);
            let slot = ln_of_own_slot(u * queue.exponents[j] + (1.0 - u) * overtakers, queue.slot_scv);
            let later = (k - 1.0) * ln_of_slots(overtakers, queue.slot_scv);
            queue.ln_left[j] + slot + later
        };
        queue.tail_of(k * queue.capacity, ln_pgf, |j| self.ahead[j])
    }

    /// The law of the time waited.
    pub fn table(self) -> WaitTable<'a> {
        WaitTable::new(move |u, k| self.misses(u, k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Batch;

    fn laws(mean: f64) -> Vec<(&'static str, Arrivals)> {
        vec![
            ("poisson", Arrivals::poisson(mean).unwrap()),
            ("geometric batches", Arrivals::new(mean, Batch::geometric(3.0).unwrap()).unwrap()),
            ("negative binomial", Arrivals::negative_binomial(mean, 4.0).unwrap()),
            ("given", Arrivals::new(mean, Batch::given(&[0.25, 0.25, 0.0, 0.5]).unwrap()).unwrap()),
            ("gamma slots", Arrivals::poisson(mean).unwrap().in_slots(0.3).unwrap()),
        ]
    }

    #[test]
    fn one_a_block_and_poisson_arrivals_are_pollaczek_and_khinchine() {
        for load in [0.05, 0.5, 0.9, 0.999] {
            let queue = BulkQueue::new(Arrivals::poisson(load).unwrap(), 1).unwrap();
            // M/D/1: mean wait load / (2 (1 - load)) services, here before a service of one slot, plus the half slot
            // that a slotted server lets everybody wait.
            let wait = load / (2.0 * (1.0 - load));
            let delay = queue.mean_delay_slots().unwrap();
            assert!((delay - wait - 0.5).abs() < 1e-9 * (1.0 + wait), "{load}: {delay}");
            let left = load * load / (2.0 * (1.0 - load));
            assert!((queue.mean_left().unwrap() - left).abs() < 1e-9 * (1.0 + left));
        }
    }

    #[test]
    fn the_roots_are_roots_inside_the_disk_and_no_two_are_the_same() {
        for capacity in [2, 3, 10, 31] {
            for (name, arrivals) in laws(0.97 * f64::from(capacity)) {
                let queue = BulkQueue::new(arrivals, capacity).unwrap();
                let roots = queue.roots().unwrap();
                assert_eq!(roots.len(), capacity as usize - 1);
                for (at, root) in roots.iter().enumerate() {
                    let miss = (queue.arrivals.ln_pgf(*root).exp() - root.powu(capacity)).norm();
                    assert!(miss < 1e-12 && root.norm() < 1.0, "{name}, {capacity}: {root} misses by {miss}");
                    assert!(
                        roots[..at].iter().all(|other| (other - root).norm() > 1e-6),
                        "{name}: {root} twice"
                    );
                }
            }
        }
    }

    #[test]
    fn roots_and_spitzers_identity_find_the_same_mean() {
        for capacity in [1, 2, 7, 64, 301] {
            for load in [0.01, 0.5, 0.9, 0.99] {
                for (name, arrivals) in laws(load * f64::from(capacity)) {
                    let queue = BulkQueue::new(arrivals, capacity).unwrap();
                    let law = queue.law_within(1 << 20).unwrap().mean_left();
                    let roots = queue.mean_left().unwrap();
                    let rounding = 1e-9 * (f64::from(capacity) + roots);
                    assert!((roots - law).abs() < rounding, "{name} {capacity} {load}: {roots} {law}");
                }
            }
        }
    }

    /// The stationary law by iteration of the recursion, as naive as it gets.
    fn iterate(pmf: &[f64], capacity: usize, states: usize) -> Vec<f64> {
        let mut left = vec![0.0; states];
        left[0] = 1.0;
        for _ in 0..3000 {
            let mut next = vec![0.0; states];
            for (m, p) in left.iter().enumerate().filter(|(_, p)| **p > 1e-30) {
                for (a, q) in pmf.iter().enumerate() {
                    next[(m + a).saturating_sub(capacity).min(states - 1)] += p * q;
                }
            }
            left = next;
        }
        left
    }

    #[test]
    fn the_law_is_that_of_the_recursion() {
        let (mean, capacity) = (2.6_f64, 3);
        let mut pmf = vec![(-mean).exp()];
        for n in 1..40u8 {
            pmf.push(pmf[usize::from(n) - 1] * mean / f64::from(n));
        }
        let left = iterate(&pmf, capacity, 400);
        let queue = BulkQueue::new(Arrivals::poisson(mean).unwrap(), 3).unwrap();
        let law = queue.law().unwrap();
        let pole = queue.pole().unwrap();
        for (n, found) in queue.taken().unwrap().iter().enumerate().take(3) {
            let right: f64 = (0..=n).map(|m| left[m] * pmf[n - m]).sum();
            assert!((found - right).abs() < 1e-10, "{n}: {found} for {right}");
        }
        for p in [0.1, 0.5, 0.9, 0.999] {
            let mut sum = 0.0;
            let right = left.iter().position(|q| {
                sum += q;
                sum >= p
            });
            assert_eq!(right, Some(law.left_quantile(p) as usize), "{p}");
        }
        for n in 1..100u32 {
            let right: f64 = left[n as usize..].iter().sum();
            let found = law.left_at_least(n);
            assert!((found - right).abs() < 1e-9 * right + 1e-15, "{n}: {found} for {right}");
            assert!(found <= pole.bound(f64::from(n)));
            if n > 10 {
                let tail = pole.tail(f64::from(n));
                assert!((tail - found).abs() < 1e-6 * found, "{n}: {tail} for {found}");
            }
        }
    }

    #[test]
    fn blocks_of_every_size_with_room_let_nobody_wait_for_a_second() {
        // Powers of the circle's points are beyond all floats here, and their product is not.
        for capacity in [100, 4096, 16_384, MAX_CAPACITY] {
            for load in [0.001, 0.3, 0.5, 0.7] {
                let arrivals = Arrivals::poisson(load * f64::from(capacity)).unwrap();
                let queue = BulkQueue::new(arrivals.clone(), capacity).unwrap();
                let law = queue.law().unwrap();
                let mut wait = law.wait(&arrivals, None).table();
                for p in [0.1, 0.5, 0.99] {
                    let found = wait.quantile(p);
                    assert!((found - p).abs() < 1e-3, "{capacity} {load} {p}: {found}");
                }
                // Nearly all blocks take what came, and in the mean they take all.
                let taken = queue.taken().unwrap();
                let mean: f64 = taken.iter().enumerate().map(|(s, p)| s as f64 * p).sum();
                let right = queue.arrivals.mean();
                assert!((mean - right).abs() < 1e-6 * right, "{capacity} {load}: {mean} for {right}");
            }
        }
    }

    #[test]
    fn places_that_are_always_gone_are_a_smaller_block() {
        for (name, arrivals) in laws(4.0) {
            let ten = BulkQueue::new(arrivals.clone(), 10).unwrap();
            let six = BulkQueue::new(arrivals, 6).unwrap();
            let beside = ten.mean_left_beside(&[0.0, 0.0, 0.0, 0.0, 1.0], &six).unwrap();
            let right = six.mean_left().unwrap();
            assert!((beside - right).abs() < 1e-9 * (1.0 + right), "{name}: {beside} for {right}");
        }
    }

    #[test]
    fn the_mean_of_the_waits_law_is_littles() {
        for (name, arrivals) in laws(8.0) {
            let queue = BulkQueue::new(arrivals.clone(), 10).unwrap();
            let law = queue.law().unwrap();
            let mut wait = law.wait(&arrivals, None).table();
            // Midpoints, until hardly anybody waits.
            let (mut mean, mut at) = (0.0, 0.02);
            loop {
                let late = wait.exceeds(at);
                mean += 0.04 * late;
                at += 0.04;
                if late < 1e-6 {
                    break;
                }
            }
            // In slots of random length the law is an approximation that leaves this much out.
            let little = queue.mean_delay_slots().unwrap() - 0.5 * arrivals.slot_scv();
            assert!((mean - little).abs() < 5e-4 * little, "{name}: {mean} for {little}");
        }
    }

    #[test]
    fn without_room_there_is_no_stationary_queue() {
        for load in [1.0, 1.5, 100.0] {
            let queue = BulkQueue::new(Arrivals::poisson(10.0 * load).unwrap(), 10).unwrap();
            assert!(
                queue.roots().is_none() && queue.mean_left().is_none() && queue.mean_delay_slots().is_none()
            );
            assert!(queue.pole().is_none() && queue.law().is_none() && queue.decay().is_none());
        }
        let empty = BulkQueue::new(Arrivals::poisson(0.0).unwrap(), 10).unwrap();
        assert!(empty.mean_left().unwrap() < 1e-12);
        assert!((empty.mean_delay_slots().unwrap() - 0.5).abs() < 1e-12);
        assert!(empty.law().unwrap().left_at_least(1) < 1e-12);
        assert!(BulkQueue::new(Arrivals::poisson(1.0).unwrap(), 0).is_err());
    }

    #[test]
    fn the_largest_block_close_to_saturation_has_the_mean_of_its_law() {
        let queue = BulkQueue::new(Arrivals::poisson(0.9999 * 16384.0).unwrap(), 16384).unwrap();
        let (roots, law) = (queue.mean_left().unwrap(), queue.law_within(1 << 20).unwrap());
        assert!((roots - law.mean_left()).abs() < 1e-6 * roots, "{roots} {}", law.mean_left());
    }
}
