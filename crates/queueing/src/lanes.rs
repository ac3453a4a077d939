//! Two lanes in one block: rescues first, trades in what is left.
//!
//! How much of a block rescues may take, and who gets what they leave, is [`Sharing`]. With `c` places in a
//! block, `r` of them reserved, and rescues first come, first served among themselves, as trades are:
//!
//! | sharing | a block takes | rescues | trades |
//! | --- | --- | --- | --- |
//! | `WholeBlock` | up to `c` rescues, then trades | queue with `c` alone: **exact** | all minus rescues, mean **exact** |
//! | `Lent` | up to `r` rescues, trades in all other places | queue with `r` alone: **exact** | **approximation** between two bounds |
//! | `Kept` | up to `r` rescues and up to `c - r` trades | queue with `r` alone: **exact** | queue with `c - r` alone: **exact** |
//!
//! No trade is in any formula of the rescues: their delay is the same at every load of trades. That is the
//! claim of the lanes, and here it is a matter of types.
//!
//! **Conservation.** Where no place stays empty while anything waits, all actions together are the queue of
//! [`bulk`](crate::bulk) with capacity `c`, whoever goes first. So under `WholeBlock` the trades left behind
//! are in the mean those of all lanes less those of rescues, and Little's law makes a delay of it. (Kleinrock's
//! law of 1965 for blocks.)
//!
//! **A lent reserve.** Under `Lent`, rescues beyond `r` wait although places may be empty, and what trades get
//! depends on how many rescues waited before. With `L` for the trades left behind:
//!
//! - `E[L] >= E[all] - E[rescues]`: all actions together wait at least as in the queue with `c` that leaves no
//!   place empty.
//! - `E[L] >=` that of a queue with `c - S` places, `S` drawn anew for each block from the law of the rescues
//!   that a block takes. In truth full blocks follow full blocks, which never helps: associated summands exceed
//!   independent ones in the supermodular order (Christofides and Vaggelatou 2004, "A connection between
//!   supermodular ordering and positive/negative association", J. Multivariate Analysis 88), and a queue grows
//!   in that order. For slots of one length.
//! - `E[L] <=` that of the queue with `c - r`, path by path, because these places are theirs in any case.
//!
//! In heavy traffic the second bound is too small by a ratio of variances: `S` brings its own in one block, but
//! over many blocks that of the rescues' arrivals. The estimate is the geometric mean of the greater lower
//! bound and of the second one times that ratio, kept between the bounds. It has no theorem; in simulations it
//! is off by less than a quarter, and by little where rescues rarely exceed their reserve.
//!
//! **Tails.** Those of rescues are exact, and so are those of trades under `Kept`. Those of trades under
//! `WholeBlock` follow [`QueueLaw::wait`] with rescues as overtakers, which says what is simplified; under
//! `Lent` the same law is stretched to the estimated mean, and is never later than that of the queue with
//! `c - r`. Where rescues are often beyond their reserve it says too much.

use crate::{
    arrivals::Arrivals,
    bulk::{BulkQueue, MAX_CAPACITY, Pole, QueueLaw},
    units::{Invalid, Worth, count},
    wait::WaitTable,
};

/// Who may use which places of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Sharing {
    /// Rescues may take every place; trades get what they leave.
    WholeBlock,
    /// Rescues may take their reserve; trades get all that they leave, of the reserve too.
    Lent,
    /// Rescues may take their reserve; what they leave of it stays empty.
    Kept,
}

/// The places of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Block {
    places: u32,
    reserve: u32,
    sharing: Sharing,
}

impl Block {
    /// A block of `places`, `reserve` of them for rescues.
    ///
    /// # Errors
    /// If there are no places or more than [`MAX_CAPACITY`], or the reserve is none of them or more than all.
    pub fn new(places: u32, reserve: u32, sharing: Sharing) -> Result<Self, Invalid> {
        let places = count("the places of a block", places, 1, MAX_CAPACITY)?;
        Ok(Self { places, reserve: count("the reserve of a block", reserve, 1, places)?, sharing })
    }

    /// All places.
    pub const fn places(self) -> u32 {
        self.places
    }

    /// How the reserve is shared.
    pub const fn sharing(self) -> Sharing {
        self.sharing
    }

    /// Rescues that a block takes at most.
    pub const fn for_rescues(self) -> u32 {
        match self.sharing {
            Sharing::WholeBlock => self.places,
            Sharing::Lent | Sharing::Kept => self.reserve,
        }
    }

    /// Places of a block that rescues can never take.
    pub const fn for_trades_alone(self) -> u32 {
        self.places - self.for_rescues()
    }
}

/// How an action of a lane waits for its block, where there is a stationary queue.
#[derive(Clone, Debug)]
pub struct LaneLaw {
    /// Mean time from arrival until a block leaves with the action, in slots.
    pub mean_slots: f64,
    /// What the mean is worth.
    pub worth: Worth,
    /// A bound on the mean, where the mean is an approximation and there is one.
    pub mean_at_most_slots: Option<f64>,
    /// The same from below.
    pub mean_at_least_slots: Option<f64>,
    /// What times of the tail's law are multiplied with.
    stretch: f64,
    /// Who certainly waits as long.
    cap: Option<Box<LaneLaw>>,
    own: Arrivals,
    overtakers: Option<Arrivals>,
    tail: Tail,
}

#[derive(Clone, Debug)]
enum Tail {
    Law(QueueLaw),
    /// Too close to saturation for the law. The backlog is then as good as exponential, and beside it what arrives in
    /// a slot is as good as its mean.
    Pole {
        pole: Pole,
        capacity: f64,
        arriving: f64,
        overtaking: f64,
    },
}

impl LaneLaw {
    fn new(
        queue: &BulkQueue,
        own: &Arrivals,
        overtakers: Option<&Arrivals>,
        mean_slots: f64,
    ) -> Option<Self> {
        let tail = match queue.law() {
            Some(law) => Tail::Law(law),
            None => Tail::Pole {
                pole: queue.pole()?,
                capacity: f64::from(queue.capacity()),
                arriving: queue.arrivals().mean(),
                overtaking: overtakers.map_or(0.0, Arrivals::mean),
            },
        };
        Some(Self {
            mean_slots,
            worth: Worth::Exact,
            mean_at_most_slots: None,
            mean_at_least_slots: None,
            stretch: 1.0,
            cap: None,
            own: own.clone(),
            overtakers: overtakers.cloned(),
            tail,
        })
    }

    /// What the tail and its quantiles are worth.
    pub fn tail_worth(&self) -> Worth {
        let exact = matches!(self.tail, Tail::Law(_))
            && self.worth == Worth::Exact
            && self.overtakers.is_none()
            && self.own.slot_scv() <= 0.0;
        if exact { Worth::Exact } else { Worth::Approximation }
    }

    /// The law of the wait.
    pub fn table(&self) -> WaitTable<'_> {
        let table = match &self.tail {
            Tail::Law(law) => law.wait(&self.own, self.overtakers.as_ref()).table(),
            Tail::Pole { pole, capacity, arriving, overtaking } => WaitTable::new(move |u, k| {
                pole.tail((k * capacity - u * arriving - (k - u) * overtaking).max(0.0))
            }),
        };
        let table = table.stretched(self.stretch);
        match &self.cap {
            Some(cap) => table.capped(cap.table()),
            None => table,
        }
    }

    /// `P(wait > slots)`.
    pub fn exceeds(&self, slots: f64) -> f64 {
        self.table().exceeds(slots)
    }

    /// What a share `p` of actions do not exceed, in slots.
    pub fn quantile_slots(&self, p: f64) -> f64 {
        self.table().quantile(p)
    }
}

/// Rescues and trades that meet in blocks.
#[derive(Clone, Debug)]
pub struct Lanes {
    rescue: Arrivals,
    trade: Arrivals,
    block: Block,
}

/// Where trades are fewer than this share of a block, they wait as if they were as many: their queue is a
/// difference, which would be rounding.
const LEAST_SHARE: f64 = 1e-5;

impl Lanes {
    /// What arrives in a slot, and what a block takes.
    ///
    /// # Errors
    /// If the two were given for slots of different lengths, or are too many together.
    pub fn new(rescue: Arrivals, trade: Arrivals, block: Block) -> Result<Self, Invalid> {
        rescue.with(&trade)?;
        Ok(Self { rescue, trade, block })
    }

    /// The places of a block.
    pub const fn block(&self) -> Block {
        self.block
    }

    /// Rescues that arrive in a slot, by those that a block takes.
    pub fn rescue_utilisation(&self) -> f64 {
        self.rescue.mean() / f64::from(self.block.for_rescues())
    }

    /// Trades that arrive in a slot, by the places that rescues leave them in the mean. Infinite if they leave none.
    pub fn trade_utilisation(&self) -> f64 {
        let rescues = self.rescue.mean().min(f64::from(self.block.for_rescues()));
        let left = match self.block.sharing {
            Sharing::Kept => f64::from(self.block.for_trades_alone()),
            Sharing::WholeBlock | Sharing::Lent => f64::from(self.block.places) - rescues,
        };
        let trades = self.trade.mean();
        if left > 0.0 {
            trades / left
        } else if trades > 0.0 {
            f64::INFINITY
        } else {
            0.0
        }
    }

    /// How rescues wait. `None` if there is no stationary queue: rescues are more than blocks take.
    pub fn rescue(&self) -> Option<LaneLaw> {
        Self::alone(&self.rescue, self.block.for_rescues())
    }

    /// How trades wait. `None` if there is no stationary queue.
    pub fn trade(&self) -> Option<LaneLaw> {
        let rescues = BulkQueue::new(self.rescue.clone(), self.block.for_rescues()).ok()?;
        let alone = || Self::alone(&self.trade, self.block.for_trades_alone());
        match self.block.sharing {
            Sharing::Kept => alone(),
            // Every block is full of rescues to its reserve.
            Sharing::Lent if !rescues.is_stable() => alone(),
            Sharing::WholeBlock | Sharing::Lent => self.after(&rescues),
        }
    }

    fn alone(own: &Arrivals, places: u32) -> Option<LaneLaw> {
        let queue = BulkQueue::new(own.clone(), places).ok()?;
        LaneLaw::new(&queue, own, None, queue.mean_delay_slots()?)
    }

    fn after(&self, rescues: &BulkQueue) -> Option<LaneLaw> {
        let places = self.block.places;
        let least = LEAST_SHARE * f64::from(places);
        let few = self.trade.mean() < least;
        let trade = if few {
            Arrivals::poisson(least).ok()?.in_slots(self.trade.slot_scv()).ok()?
        } else {
            self.trade.clone()
        };
        let all = BulkQueue::new(self.rescue.with(&trade).ok()?, places).ok()?;
        let slots = |left: f64| left / trade.mean() + 0.5 * (1.0 + trade.slot_scv());
        let first = BulkQueue::new(self.rescue.clone(), places).ok()?;
        let whole = slots((all.mean_left()? - first.mean_left()?).max(0.0));
        let mut law = LaneLaw::new(&all, &trade, Some(&self.rescue), whole)?;
        if few {
            law.worth = Worth::Approximation;
        }
        if self.block.sharing == Sharing::Lent {
            let own = BulkQueue::new(trade.clone(), self.block.for_trades_alone()).ok();
            let most = own.and_then(|own| own.mean_left());
            law.cap = Self::alone(&trade, self.block.for_trades_alone()).map(Box::new);
            let (least, left) = Self::lent(&all, rescues, &trade, most)?;
            law.worth = Worth::Approximation;
            law.mean_slots = slots(left);
            law.mean_at_least_slots = Some(slots(least));
            law.mean_at_most_slots = most.map(slots);
            law.stretch = law.mean_slots / whole;
        }
        Some(law)
    }

    /// Trades left behind under `Lent`: the greater lower bound, and the estimate.
    fn lent(all: &BulkQueue, rescues: &BulkQueue, trade: &Arrivals, most: Option<f64>) -> Option<(f64, f64)> {
        let difference = (all.mean_left()? - rescues.mean_left()?).max(0.0);
        let most = most.unwrap_or(f64::INFINITY);
        let beside = BulkQueue::new(trade.clone(), all.capacity()).ok()?;
        let independent = rescues.taken().and_then(|taken| {
            let moment =
                |power: i32| -> f64 { (0u32..).zip(&taken).map(|(s, p)| f64::from(s).powi(power) * p).sum() };
            let once = trade.variance() + (moment(2) - moment(1).powi(2)).max(0.0);
            let ratio = if once > 0.0 { (all.arrivals().variance() / once).max(1.0) } else { 1.0 };
            Some((beside.mean_left_beside(&taken, all)?, ratio))
        });
        // Rescues so close to their reserve that their law is out of reach take it as good as whole.
        let Some((left, ratio)) = independent else {
            let least = difference.min(most);
            return Some((least, if most.is_finite() { most } else { least }));
        };
        let least = difference.max(left).min(most);
        let heavy = (left * ratio).clamp(least, most);
        Some((least, (least * heavy).sqrt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Batch;

    fn lanes(rescue: f64, trade: f64, sharing: Sharing) -> Lanes {
        let bursts = Batch::geometric(3.0).unwrap();
        Lanes::new(
            Arrivals::new(rescue, bursts).unwrap(),
            Arrivals::poisson(trade).unwrap(),
            Block::new(20, 5, sharing).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn rescues_wait_the_same_from_one_to_a_hundred_times_the_trades() {
        for sharing in [Sharing::WholeBlock, Sharing::Lent, Sharing::Kept] {
            let at = |trade| {
                let law = lanes(3.0, trade, sharing).rescue().unwrap();
                (law.mean_slots, law.quantile_slots(0.99))
            };
            assert_eq!(at(10.0), at(1000.0));
        }
    }

    #[test]
    fn without_rescues_trades_have_the_block_to_themselves() {
        let alone = Lanes::alone(&Arrivals::poisson(15.0).unwrap(), 20).unwrap();
        for sharing in [Sharing::WholeBlock, Sharing::Lent] {
            let law = lanes(0.0, 15.0, sharing).trade().unwrap();
            assert!((law.mean_slots - alone.mean_slots).abs() < 1e-9);
            assert!((law.quantile_slots(0.99) - alone.quantile_slots(0.99)).abs() < 1e-5);
        }
    }

    #[test]
    fn the_estimate_of_a_lent_reserve_lies_between_its_bounds() {
        for (rescue, trade) in [(1.0, 5.0), (3.0, 10.0), (4.5, 14.0)] {
            let law = lanes(rescue, trade, Sharing::Lent).trade().unwrap();
            let most = law.mean_at_most_slots.unwrap();
            let least = law.mean_at_least_slots.unwrap();
            let estimate = law.mean_slots;
            assert!(0.5 <= least && least <= estimate && estimate <= most, "{least} {estimate} {most}");
            assert_eq!(law.worth, Worth::Approximation);
        }
    }

    #[test]
    fn overload_stays_in_the_lane_that_is_overloaded() {
        for sharing in [Sharing::WholeBlock, Sharing::Lent, Sharing::Kept] {
            assert!(lanes(3.0, 1000.0, sharing).trade().is_none());
            assert!(lanes(3.0, 1000.0, sharing).rescue().is_some());
        }
        // Rescues beyond their reserve leave trades the rest of the block; beyond the whole block nothing.
        assert!(lanes(6.0, 10.0, Sharing::Lent).rescue().is_none());
        assert!(lanes(6.0, 10.0, Sharing::Lent).trade().is_some());
        assert!(lanes(21.0, 1.0, Sharing::WholeBlock).trade().is_none());
        assert_eq!(lanes(21.0, 1.0, Sharing::WholeBlock).trade_utilisation(), f64::INFINITY);
    }

    #[test]
    fn hardly_any_trades_wait_as_few_do() {
        let at = |trade| lanes(3.0, trade, Sharing::WholeBlock).trade().unwrap().mean_slots;
        assert!((at(0.0) - at(1e-3)).abs() < 1e-4);
        assert!((at(1e-9) - at(1e-3)).abs() < 1e-4);
    }

    #[test]
    fn a_queue_too_close_to_saturation_for_its_law_follows_its_pole() {
        let close = Arrivals::new(0.999_99 * 1000.0, Batch::geometric(20.0).unwrap()).unwrap();
        let queue = BulkQueue::new(close.clone(), 1000).unwrap();
        assert!(queue.law().is_none());
        let law = Lanes::alone(&close, 1000).unwrap();
        // An exponential law has ln 2 of its mean as its median.
        let median = law.quantile_slots(0.5);
        assert!((median / law.mean_slots / std::f64::consts::LN_2 - 1.0).abs() < 1e-2, "{median}");
        assert!((law.exceeds(median) - 0.5).abs() < 1e-3);
        assert_eq!(law.tail_worth(), Worth::Approximation);
    }
}
