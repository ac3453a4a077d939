//! From a mix of load and the parameters of a chain to what each lane waits and loses.
//!
//! An action's way: it is checked at the ingress ([`ingress`]), relayed to the pools, waits for a block
//! ([`lanes`](crate::lanes)), and the block becomes final. Its delay is the sum. [`Model::predict`] says for
//! each lane
//!
//! | figure | where it comes from | worth |
//! | --- | --- | --- |
//! | utilisation | offered by what blocks have room for | exact |
//! | mean delay | Little's law and the roots; plus Cobham's wait, one check, relay and finality | as the lane's mean, see [`lanes`](crate::lanes) |
//! | p50, p99 | the law of the wait for a block, plus the *means* of everything else | as its tail; checks are taken as short beside a slot |
//! | dropped | the finite chain of the lane's pool ([`pool`](crate::pool)) and what a saturated ingress leaves out | rescues exact; trades approximate, a little too small: what blocks leave them is taken as independent from block to block |
//! | bound | token buckets and blocks ([`curves`](crate::curves)), without the ingress | holds in the worst case |
//! | bad debt | the law of the delay and the price's motion ([`risk`](crate::risk)), taken as independent | upper bound, where the law is exact |
//!
//! What arrives at blocks is taken as Poisson bursts, as it came to the ingress. A lane with less load than room
//! waits as if its pool had no bound: what a bounded pool drops does not wait.

use crate::{
    arrivals::{Arrivals, Batch, MAX_SLOT_SCV},
    curves::{Bucket, MAX_MISSED, Order, Service, blocks_bound},
    ingress::{self, Class, Wait},
    kingman::Law,
    lanes::{Block, LaneLaw, Lanes, Sharing},
    pool::{MAX_PLACES, PoolLaw, Room},
    risk::{Deadline, Exposure},
    units::{Bps, Invalid, Ms, PerSecond, Probability, Worth, between, count},
    wait::MAX_WAIT_SLOTS,
};

/// Steps of the staircase that bounds the probability of bad debt.
const STAIRS: u32 = 16;

/// What of a chain decides how long actions wait.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Chain {
    /// Mean time between blocks.
    pub slot_ms: Ms,
    /// Squared coefficient of variation of that time; 0 is the model that everything is exact for.
    pub slot_scv: f64,
    /// What a block takes.
    pub block: Block,
    /// Places of the rescues' pool.
    pub rescue_pool: u32,
    /// Places of the trades' pool.
    pub trade_pool: u32,
    /// One signature check; on `k` cores a `k`-th of it.
    pub check: Law,
    /// From a checked action to the pools of the leaders.
    pub relay_ms: Ms,
    /// From a block that leaves to its finality.
    pub finality_ms: Ms,
    /// Blocks that may leave without a rescue that waits, before inclusion is forced.
    pub missed_blocks: u32,
}

/// What a lane is offered.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Actions a second.
    pub rate: PerSecond,
    /// How many come at once, under one signature.
    pub batch: Batch,
    /// What admission lets through at most, if it limits.
    pub bucket: Option<Bucket>,
}

impl Flow {
    /// Single actions, not limited.
    pub const fn poisson(rate: PerSecond) -> Self {
        Self { rate, batch: Batch::ONE, bucket: None }
    }

    /// Signatures a second.
    fn bursts(&self) -> PerSecond {
        PerSecond::clamped(self.rate.get() / self.batch.mean())
    }
}

/// What all lanes are offered.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Messages of the system lane a second. They are checked first; every block has room for them.
    pub system: PerSecond,
    /// Rescues.
    pub rescue: Flow,
    /// Trades.
    pub trade: Flow,
}

/// What a delay may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Risk {
    /// The position that waits.
    pub exposure: Exposure,
    /// How likely it may be that it goes bankrupt meanwhile.
    pub target: Probability,
}

/// From arrival at the ingress to finality.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Delay {
    /// The lane has room for its load.
    Steady {
        /// In the mean.
        mean_ms: Ms,
        /// What half of the actions do not exceed.
        p50_ms: Ms,
        /// What 99 of 100 do not exceed.
        p99_ms: Ms,
        /// What the mean is worth.
        mean_worth: Worth,
        /// What the quantiles are worth.
        tail_worth: Worth,
        /// Bounds on the mean where that is an approximation, if there are any.
        mean_at_least_ms: Option<Ms>,
        /// The same from above.
        mean_at_most_ms: Option<Ms>,
    },
    /// The lane is offered more than blocks take; its pool is full and drops the rest.
    Saturated {
        /// Of those that are not dropped, in the mean. Worth what the lane's drop probability is.
        mean_ms: Ms,
    },
    /// The lane is offered more than is served, and nothing bounds what waits, or nothing of it is served at all.
    Unbounded,
}

/// The worst case of a flow that its bucket admits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Bound {
    /// Blocks that leave at most, from the arrival in the pools until one leaves with an action.
    pub blocks: f64,
    /// From the arrival in the pools to finality. None if slots are of random length, which has no bound.
    pub delay_ms: Option<Ms>,
}

/// What the delay of a lane may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Cost {
    /// The probability that an action is later than the deadline. 1 if the lane is not steady.
    pub late: Probability,
    /// Bound on the probability that the position goes bankrupt before the action is final. 1 if the lane is
    /// not steady.
    pub bad_debt: Probability,
    /// Bound on the expected loss beyond bankruptcy if it takes p99. The largest there is if the lane is not steady.
    pub worst_loss_at_p99: Bps,
}

/// What happens in a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Lane {
    /// Offered by what blocks have room for; infinite if they have none.
    pub utilisation: f64,
    /// From arrival to finality.
    pub delay: Delay,
    /// The probability that an action is dropped, at the ingress or by the pool.
    pub dropped: Probability,
    /// What that is worth.
    pub dropped_worth: Worth,
    /// Actions of the lane that blocks carry a second.
    pub carried: PerSecond,
    /// The worst case, if admission limits the lane.
    pub bound: Option<Bound>,
    /// What the delay may cost.
    pub cost: Cost,
}

/// What a chain does with a mix.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Prediction {
    /// How long the system's messages wait for their check.
    pub system_check: Wait,
    /// The rescue lane.
    pub rescue: Lane,
    /// The trade lane.
    pub trade: Lane,
    /// How long an action may take for the target to be met.
    pub deadline: Deadline,
}

/// A chain whose parameters make sense.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    chain: Chain,
}

/// What the ingress does to a class.
#[derive(Clone, Copy)]
struct Checked {
    wait: Wait,
    /// The share of the class that is checked at all.
    share: f64,
}

impl Model {
    /// Shortest time between blocks.
    pub const MIN_SLOT_MS: f64 = 1e-3;
    /// Longest time between blocks: a day.
    pub const MAX_SLOT_MS: f64 = 86_400_000.0;

    /// A model of this chain.
    ///
    /// # Errors
    /// If the time between blocks, its variation, a pool or the number of missed blocks is out of range.
    pub fn new(chain: Chain) -> Result<Self, Invalid> {
        between("the time between blocks in ms", chain.slot_ms.get(), Self::MIN_SLOT_MS, Self::MAX_SLOT_MS)?;
        between("the scv of slots", chain.slot_scv, 0.0, MAX_SLOT_SCV)?;
        count("the places of the rescues' pool", chain.rescue_pool, 1, MAX_PLACES)?;
        count("the places of the trades' pool", chain.trade_pool, 1, MAX_PLACES)?;
        count("blocks that may be missed", chain.missed_blocks, 0, MAX_MISSED)?;
        Ok(Self { chain })
    }

    /// Its chain.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What happens to this mix.
    ///
    /// # Errors
    /// If more arrives in a slot than [`Arrivals`] or [`PoolLaw`] can describe. Load beyond what is served is no
    /// error: it is [`Delay::Saturated`] or [`Delay::Unbounded`].
    pub fn predict(&self, mix: &Mix, risk: &Risk) -> Result<Prediction, Invalid> {
        let chain = &self.chain;
        let [system, rescue, trade] = self.ingress(mix)?;
        let arrivals = |flow: &Flow, checked: &Checked| {
            let per_slot = flow.rate.get() * checked.share * chain.slot_ms.get() / 1e3;
            Arrivals::new(per_slot, flow.batch.clone())?.in_slots(chain.slot_scv)
        };
        let (rescues, trades) = (arrivals(&mix.rescue, &rescue)?, arrivals(&mix.trade, &trade)?);
        let rescue_pool =
            PoolLaw::new(&rescues, &Room::constant(chain.block.for_rescues()), chain.rescue_pool)?;
        let left = match chain.block.sharing() {
            Sharing::Kept => Room::constant(chain.block.for_trades_alone()),
            Sharing::WholeBlock | Sharing::Lent => rescue_pool.taken.left_of(chain.block.places()),
        };
        let trade_pool = PoolLaw::new(&trades, &left, chain.trade_pool)?;
        let lanes = Lanes::new(rescues, trades, chain.block)?;
        let deadline = risk.exposure.deadline(risk.target);
        let lane = |flow: &Flow, checked: Checked, law: Option<LaneLaw>, pool: &PoolLaw| {
            let (delay, cost) = self.delay(checked, law.as_ref(), pool, risk, deadline);
            let dropped = Probability::clamped(1.0 - checked.share * (1.0 - pool.loss.get()));
            // Of what a saturated ingress leaves out only the mean is known.
            let worth = if checked.share < 1.0 { Worth::Approximation } else { pool.worth() };
            Lane {
                utilisation: 0.0,
                delay,
                dropped,
                dropped_worth: worth,
                carried: PerSecond::clamped(flow.rate.get() * (1.0 - dropped.get())),
                bound: None,
                cost,
            }
        };
        let mut rescue = lane(&mix.rescue, rescue, lanes.rescue(), &rescue_pool);
        let mut trade = lane(&mix.trade, trade, lanes.trade(), &trade_pool);
        rescue.utilisation = lanes.rescue_utilisation();
        trade.utilisation = lanes.trade_utilisation();
        rescue.bound = self.rescue_bound(mix)?;
        trade.bound = self.trade_bound(mix)?;
        if chain.block.sharing() != Sharing::Kept {
            trade.dropped_worth = Worth::Approximation;
        }
        Ok(Prediction { system_check: system.wait, rescue, trade, deadline })
    }

    fn ingress(&self, mix: &Mix) -> Result<[Checked; 3], Invalid> {
        let class = |rate| Class { rate, service: self.chain.check };
        let classes = [class(mix.system), class(mix.rescue.bursts()), class(mix.trade.bursts())];
        let waits = ingress::waits(&classes)?;
        let mut before = 0.0;
        Ok([0, 1, 2].map(|i| {
            let load = classes[i].utilisation();
            let share = if before + load <= 1.0 { 1.0 } else { ((1.0 - before) / load).max(0.0) };
            before = (before + load).min(1.0);
            Checked { wait: waits[i], share }
        }))
    }

    fn delay(
        &self,
        checked: Checked,
        law: Option<&LaneLaw>,
        pool: &PoolLaw,
        risk: &Risk,
        deadline: Deadline,
    ) -> (Delay, Cost) {
        let chain = &self.chain;
        let unsteady =
            Cost { late: Probability::MAX, bad_debt: Probability::MAX, worst_loss_at_p99: Bps::MAX };
        let Wait::Mean(wait) = checked.wait else { return (Delay::Unbounded, unsteady) };
        let other = wait.get() + chain.check.mean_ms().get() + chain.relay_ms.get() + chain.finality_ms.get();
        let ms = |slots: f64| Ms::clamped(other + slots * chain.slot_ms.get());
        let Some(law) = law else {
            let saturated = pool.mean_delay_slots.map(|slots| Delay::Saturated { mean_ms: ms(slots) });
            return (saturated.unwrap_or(Delay::Unbounded), unsteady);
        };
        self.steady(law, other, risk, deadline)
    }

    /// `other` is everything but the wait for a block, in ms.
    fn steady(&self, law: &LaneLaw, other: f64, risk: &Risk, deadline: Deadline) -> (Delay, Cost) {
        let slot_ms = self.chain.slot_ms.get();
        let ms = |slots: f64| Ms::clamped(other + slots * slot_ms);
        let mut wait = law.table();
        let (p50_slots, p99_slots) = (wait.quantile(0.5), wait.quantile(0.99));
        let delay = Delay::Steady {
            mean_ms: ms(law.mean_slots),
            p50_ms: ms(p50_slots),
            p99_ms: ms(p99_slots),
            mean_worth: law.worth,
            tail_worth: law.tail_worth(),
            mean_at_least_ms: law.mean_at_least_slots.map(ms),
            mean_at_most_ms: law.mean_at_most_slots.map(ms),
        };
        let mut exceeds = |at: f64| wait.exceeds((at - other) / slot_ms);
        let late = match deadline {
            Deadline::Never => 0.0,
            Deadline::Within(within) => exceeds(within.get()),
        };
        // A staircase above the integral of P(delay > t) over the rise of P(crossed before t).
        let (mut bad_debt, mut crossed, mut from) = (0.0, 0.0, 0.0);
        for stair in 0..=STAIRS {
            let slots = (2.0 * p99_slots).min(MAX_WAIT_SLOTS) * f64::from(stair) / f64::from(STAIRS);
            let to = ms(slots);
            let until = risk.exposure.crosses(to).get();
            bad_debt += (until - crossed) * exceeds(from);
            (crossed, from) = (until, to.get());
        }
        bad_debt += (1.0 - crossed) * exceeds(from);
        let cost = Cost {
            late: Probability::clamped(late),
            bad_debt: Probability::clamped(bad_debt),
            worst_loss_at_p99: risk.exposure.worst_loss_until(ms(p99_slots)),
        };
        (delay, cost)
    }

    fn bound(&self, blocks: f64) -> Bound {
        let chain = &self.chain;
        let fixed = chain.slot_scv <= 0.0;
        let delay_ms = fixed.then(|| Ms::clamped(blocks * chain.slot_ms.get() + chain.finality_ms.get()));
        Bound { blocks, delay_ms }
    }

    /// In whatever order a block takes owed rescues, with the blocks that may miss them.
    fn rescue_bound(&self, mix: &Mix) -> Result<Option<Bound>, Invalid> {
        let chain = &self.chain;
        let Some(bucket) = mix.rescue.bucket else { return Ok(None) };
        let capacity = chain.block.for_rescues();
        let blocks = blocks_bound(bucket, chain.slot_ms, capacity, chain.missed_blocks, Order::Any)?;
        Ok(blocks.map(|blocks| self.bound(blocks)))
    }

    /// First come, first served, in what the buckets of rescues leave.
    fn trade_bound(&self, mix: &Mix) -> Result<Option<Bound>, Invalid> {
        let chain = &self.chain;
        let Some(bucket) = mix.trade.bucket else { return Ok(None) };
        let own = chain.block.for_trades_alone();
        let kept = blocks_bound(bucket, chain.slot_ms, own, 0, Order::Fifo)?;
        let after = mix
            .rescue
            .bucket
            .filter(|_| chain.block.sharing() != Sharing::Kept)
            .map(|rescues| {
                Service::of_blocks(chain.slot_ms, chain.block.places()).map(|all| all.after(rescues))
            })
            .transpose()?
            .flatten()
            .and_then(|left| left.delay_bound(bucket))
            .map(|delay| (delay.get() / chain.slot_ms.get()).ceil());
        let blocks = match (kept, after) {
            (Some(kept), Some(after)) => Some(kept.min(after)),
            (one, other) => one.or(other),
        };
        Ok(blocks.map(|blocks| self.bound(blocks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: f64) -> Ms {
        Ms::new(value).unwrap()
    }

    fn rate(value: f64) -> PerSecond {
        PerSecond::new(value).unwrap()
    }

    fn chain(sharing: Sharing) -> Chain {
        Chain {
            slot_ms: ms(100.0),
            slot_scv: 0.0,
            block: Block::new(1000, 200, sharing).unwrap(),
            rescue_pool: 4000,
            trade_pool: 4000,
            check: Law::constant(ms(0.012)),
            relay_ms: ms(40.0),
            finality_ms: ms(155.0),
            missed_blocks: 1,
        }
    }

    fn mix(rescue: f64, trade: f64) -> Mix {
        let bucket = Some(Bucket::new(600.0, rate(1000.0)).unwrap());
        Mix {
            system: rate(100.0),
            rescue: Flow { bucket, ..Flow::poisson(rate(rescue)) },
            trade: Flow::poisson(rate(trade)),
        }
    }

    fn risk() -> Risk {
        Risk {
            exposure: Exposure {
                distance: Bps::new(50.0).unwrap(),
                volatility_per_sqrt_day: Bps::new(2000.0).unwrap(),
                ..Exposure::default()
            },
            target: Probability::new(1e-4).unwrap(),
        }
    }

    #[test]
    fn the_rescue_lane_does_not_feel_a_hundredfold_of_trades() {
        for sharing in [Sharing::WholeBlock, Sharing::Lent, Sharing::Kept] {
            let model = Model::new(chain(sharing)).unwrap();
            let at = |trade| model.predict(&mix(1000.0, trade), &risk()).unwrap();
            let (one, hundred) = (at(5000.0), at(500_000.0));
            let mean = |prediction: &Prediction| match prediction.rescue.delay {
                Delay::Steady { mean_ms, .. } => mean_ms.get(),
                other => panic!("{other:?}"),
            };
            // What is left is one check that was begun, 12 us, by what the rescues leave of the core.
            assert!((mean(&hundred) - mean(&one)).abs() < 0.02, "{} {}", mean(&one), mean(&hundred));
            assert_eq!(one.rescue.dropped, Probability::ZERO);
            assert_eq!(hundred.rescue.dropped, Probability::ZERO);
            assert!(matches!(one.trade.delay, Delay::Steady { .. }));
            assert_eq!(hundred.trade.delay, Delay::Unbounded);
            assert!(hundred.trade.dropped.get() > 0.97);
        }
    }

    #[test]
    fn an_idle_chain_takes_half_a_slot_and_its_hops() {
        let model = Model::new(chain(Sharing::Lent)).unwrap();
        let found = model.predict(&mix(1e-6, 1e-6), &risk()).unwrap();
        for lane in [found.rescue, found.trade] {
            let Delay::Steady { mean_ms, p50_ms, p99_ms, .. } = lane.delay else { panic!("{lane:?}") };
            assert!((mean_ms.get() - 245.012).abs() < 1e-3, "{mean_ms:?}");
            assert!((p50_ms.get() - 245.012).abs() < 1e-3, "{p50_ms:?}");
            assert!((p99_ms.get() - 294.012).abs() < 1e-3, "{p99_ms:?}");
        }
    }

    #[test]
    fn trades_beyond_the_blocks_fill_their_pool_and_the_rest_is_dropped() {
        let model = Model::new(chain(Sharing::WholeBlock)).unwrap();
        let found = model.predict(&mix(1000.0, 20_000.0), &risk()).unwrap();
        let Delay::Saturated { mean_ms } = found.trade.delay else { panic!("{:?}", found.trade) };
        // 900 places a block are left of 2,000 that come; 4,000 wait for them.
        assert!((found.trade.dropped.get() - 0.55).abs() < 0.005, "{:?}", found.trade);
        assert!((mean_ms.get() - (195.0 + 4000.0 / 9.0)).abs() < 60.0, "{mean_ms:?}");
        assert!((found.trade.carried.get() - 9000.0).abs() < 50.0);
        assert_eq!(found.trade.cost.late, Probability::MAX);
    }

    #[test]
    fn the_bound_is_above_the_quantiles_of_what_its_bucket_admits() {
        let model = Model::new(chain(Sharing::Lent)).unwrap();
        let found = model.predict(&mix(1000.0, 5000.0), &risk()).unwrap();
        // One block may miss; then 600 and 100 a block by 200 a block.
        assert_eq!(found.rescue.bound.unwrap().blocks, 8.0);
        let Delay::Steady { p99_ms, .. } = found.rescue.delay else { panic!("{found:?}") };
        assert!(p99_ms < found.rescue.bound.unwrap().delay_ms.unwrap());
        assert!(found.trade.bound.is_none());
    }

    #[test]
    fn a_wider_distance_gives_more_time() {
        let model = Model::new(chain(Sharing::Lent)).unwrap();
        let cost = |distance: f64| {
            let mut risk = risk();
            risk.exposure.distance = Bps::new(distance).unwrap();
            let found = model.predict(&mix(1000.0, 5000.0), &risk).unwrap();
            (found.rescue.cost, found.deadline)
        };
        let (near, far) = (cost(5.0), cost(50.0));
        assert!(near.0.late.get() > 0.99 && near.0.bad_debt.get() > 0.0);
        assert!(far.0.late.get() < 1e-9 && far.0.bad_debt < near.0.bad_debt);
        assert!(matches!((near.1, far.1), (Deadline::Within(near), Deadline::Within(far)) if near < far));
    }

    #[test]
    fn parameters_that_make_no_sense_are_named() {
        for change in [
            |chain: &mut Chain| chain.slot_ms = Ms::ZERO,
            |chain: &mut Chain| chain.slot_scv = f64::NAN,
            |chain: &mut Chain| chain.rescue_pool = 0,
            |chain: &mut Chain| chain.trade_pool = u32::MAX,
            |chain: &mut Chain| chain.missed_blocks = u32::MAX,
        ] {
            let mut chain = chain(Sharing::Lent);
            change(&mut chain);
            assert!(Model::new(chain).is_err(), "{chain:?}");
        }
        assert!(Block::new(10, 11, Sharing::Lent).is_err());
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_prediction_is_data() {
        let model = Model::new(chain(Sharing::Lent)).unwrap();
        let found = model.predict(&mix(1000.0, 500_000.0), &risk()).unwrap();
        let json = serde_json::to_value(found).unwrap();
        assert_eq!(json["trade"]["delay"], "unbounded");
        assert!(json["rescue"]["delay"]["steady"]["p99_ms"].is_f64());
    }
}
