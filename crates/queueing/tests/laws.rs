//! What every formula has to obey, whatever its parameters.

use proptest::prelude::*;
use rand as _;
use rand_chacha as _;
use rand_distr as _;
use seawall_queueing::{
    arrivals::{Arrivals, Batch},
    bulk::BulkQueue,
    curves::{Bucket, Order, Service, blocks_bound},
    ingress::{Class, Wait, waits},
    kingman::{Kingman, Law},
    lanes::{Block, Lanes, Sharing},
    model::{Chain, Delay, Flow, Mix, Model, Risk},
    pool::{PoolLaw, Room, md1k, mm1k},
    risk::{Deadline, Exposure},
    units::{Bps, Ms, PerSecond, Probability},
};

fn ms(value: f64) -> Ms {
    Ms::new(value).unwrap()
}

fn rate(value: f64) -> PerSecond {
    PerSecond::new(value).unwrap()
}

fn bps(value: f64) -> Bps {
    Bps::new(value).unwrap()
}

fn batch() -> impl Strategy<Value = Batch> {
    prop_oneof![
        Just(Batch::ONE),
        (1.0..20.0f64).prop_map(|mean| Batch::geometric(mean).unwrap()),
        (1.0..20.0f64).prop_map(|dispersion| Batch::logarithmic(dispersion).unwrap()),
        prop::collection::vec(0.01..1.0f64, 1..12).prop_map(|weights| {
            let sum: f64 = weights.iter().sum();
            Batch::given(&weights.iter().map(|weight| weight / sum).collect::<Vec<_>>()).unwrap()
        }),
    ]
}

fn sharing() -> impl Strategy<Value = Sharing> {
    prop_oneof![Just(Sharing::WholeBlock), Just(Sharing::Lent), Just(Sharing::Kept)]
}

/// Any number at all, sensible ones often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => 0.0..1e4f64,
        1 => any::<f64>(),
        1 => prop::sample::select(vec![
            0.0, -0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX, 1e-308, 1e9,
            1e15, 1.0 - 1e-16, 1.0 + 1e-15,
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn queues_grow_with_their_load_and_stay_below_kingmans_bound(
        batch in batch(),
        capacity in 1u32..200,
        load in 0.01..0.97f64,
        scv in prop_oneof![Just(0.0), 0.0..2.0f64],
    ) {
        let queue = |load: f64| {
            let arrivals = Arrivals::new(load * f64::from(capacity), batch.clone()).unwrap();
            BulkQueue::new(arrivals.in_slots(scv).unwrap(), capacity).unwrap()
        };
        let (less, more) = (queue(load), queue(load + 0.02));
        let (few, many) = (less.mean_left().unwrap(), more.mean_left().unwrap());
        let rounding = 1e-9 * f64::from(capacity);
        prop_assert!(few <= many + rounding, "{few} {many}");
        // Kingman's mean bound for steps A - c: Var[A] / (2 (c - E[A])).
        let (mean, variance) = (less.arrivals().mean(), less.arrivals().variance());
        prop_assert!(few <= variance / (2.0 * (f64::from(capacity) - mean)) + rounding);
        let pole = less.pole().unwrap();
        prop_assert!((0.0..=1.0).contains(&pole.prefactor));
        if let Some(law) = less.law() {
            prop_assert!((law.mean_left() - few).abs() < 1e-6 * (1.0 + few) + rounding);
            let mut last = 1.0;
            for n in [1, 2, capacity, 2 * capacity, 10 * capacity] {
                let tail = law.left_at_least(n);
                prop_assert!(tail <= pole.bound(f64::from(n)) + 1e-11, "{n}: {tail}");
                prop_assert!(n < 2 || capacity < 2 || tail <= last + 1e-11);
                last = tail;
            }
        }
    }

    #[test]
    fn a_wait_is_a_law_and_its_quantiles_invert_it(
        batch in batch(),
        capacity in prop_oneof![1u32..50, 1u32..20_000],
        load in 0.0..0.95f64,
        p in 0.1..0.99f64,
    ) {
        let arrivals = Arrivals::new(load * f64::from(capacity), batch).unwrap();
        let queue = BulkQueue::new(arrivals.clone(), capacity).unwrap();
        if let Some(law) = queue.law() {
            let mut wait = law.wait(&arrivals, None).table();
            let at = wait.quantile(p);
            prop_assert!((wait.exceeds(at) - (1.0 - p)).abs() < 1e-3, "{at}: {}", wait.exceeds(at));
            // Markov's inequality.
            prop_assert!(at * (1.0 - p) <= queue.mean_delay_slots().unwrap() + 1e-3, "{at}");
            prop_assert!(wait.exceeds(at + 0.3) <= wait.exceeds(at) + 1e-9);
            prop_assert!(wait.exceeds(0.0) == 1.0 && wait.exceeds(f64::NAN) == 1.0);
            prop_assert_eq!(wait.exceeds(f64::INFINITY), 0.0);
        }
    }

    #[test]
    fn blocks_conserve_work_whoever_goes_first(
        one in (batch(), 0.05..0.5f64),
        two in (batch(), 0.05..0.45f64),
        places in 2u32..60,
    ) {
        // What lane 0 leaves and lane 1 leaves add up to the same, if the lanes are exchanged.
        let size = f64::from(places);
        let arrivals = |(batch, load): &(Batch, f64)| Arrivals::new(load * size, batch.clone()).unwrap();
        let block = Block::new(places, 1, Sharing::WholeBlock).unwrap();
        let left = |first: &Arrivals, second: &Arrivals| {
            let lanes = Lanes::new(first.clone(), second.clone(), block).unwrap();
            let (rescue, trade) = (lanes.rescue().unwrap(), lanes.trade().unwrap());
            first.mean() * (rescue.mean_slots - 0.5) + second.mean() * (trade.mean_slots - 0.5)
        };
        let (one, two) = (arrivals(&one), arrivals(&two));
        let (here, there) = (left(&one, &two), left(&two, &one));
        prop_assert!((here - there).abs() < 1e-8 * (size + here), "{here} {there}");
    }

    #[test]
    fn what_is_offered_is_carried_or_lost(
        batch in batch(),
        room in 0u32..40,
        places in 1u32..200,
        load in 0.0..4.0f64,
    ) {
        let mean = load * f64::from(room.max(1));
        let arrivals = Arrivals::new(mean, batch.clone()).unwrap();
        let law = PoolLaw::new(&arrivals, &Room::constant(room), places).unwrap();
        let loss = law.loss.get();
        prop_assert!((0.0..=1.0).contains(&loss));
        let carried = law.taken.mean();
        prop_assert!((carried + loss * mean - mean).abs() < 1e-8 * (1.0 + mean), "{carried} {loss} {mean}");
        prop_assert!(law.mean_left <= f64::from(places) + 1e-9);
        // More load, fewer places or less room do not lose less.
        let heavier = Arrivals::new(1.1 * mean, batch).unwrap();
        let more = PoolLaw::new(&heavier, &Room::constant(room), places).unwrap().loss.get();
        prop_assert!(more >= loss - 1e-10, "{loss} {more}");
        let larger = PoolLaw::new(&arrivals, &Room::constant(room), places + 1).unwrap().loss.get();
        prop_assert!(larger <= loss + 1e-10, "{loss} {larger}");
        let wider = PoolLaw::new(&arrivals, &Room::constant(room + 1), places).unwrap().loss.get();
        prop_assert!(wider <= loss + 1e-10, "{loss} {wider}");
    }

    #[test]
    fn classes_conserve_work_in_any_order(
        classes in prop::collection::vec((0.01..1.0f64, 0.01..5.0f64, 0.0..3.0f64), 1..6),
        load in 0.05..0.98f64,
    ) {
        let total: f64 = classes.iter().map(|(weight, ..)| weight).sum();
        let classes: Vec<_> = classes
            .into_iter()
            .map(|(weight, mean, scv)| Class {
                rate: rate(1e3 * load * weight / total / mean),
                service: Law::new(ms(mean), scv).unwrap(),
            })
            .collect();
        let work = |classes: &[Class]| -> f64 {
            let waits = waits(classes).unwrap();
            classes.iter().zip(waits).map(|(class, wait)| match wait {
                Wait::Mean(wait) => class.utilisation() * wait.get(),
                Wait::Unbounded => f64::NAN,
            }).sum()
        };
        let residual: f64 =
            classes.iter().map(|class| class.rate.get() / 2e3 * class.service.second_moment()).sum();
        let right = load * residual / (1.0 - load);
        let mut reversed = classes.clone();
        reversed.reverse();
        for order in [classes, reversed] {
            let found = work(&order);
            prop_assert!((found - right).abs() < 1e-9 * right, "{found} for {right}");
        }
    }

    #[test]
    fn kingmans_bound_is_above_pollaczek_and_khinchine(load in 0.01..0.99f64, scv in 0.0..10.0f64) {
        let bounds = Kingman::new(Law::exponential(ms(1.0)), Law::new(ms(load), scv).unwrap()).unwrap();
        let exact = load * load * (1.0 + scv) / 2.0 / (1.0 - load);
        prop_assert!(bounds.mean_wait_ms.get() >= exact * (1.0 - 1e-12));
        // The integral of a bound on the tail bounds the mean as well.
        prop_assert!(1.0 / bounds.theta_per_ms >= exact * (1.0 - 1e-9), "{bounds:?} {exact}");
    }

    #[test]
    fn deadlines_invert_probabilities(
        distance in 1.0..1e3f64,
        volatility in 100.0..1e4f64,
        jumps in prop_oneof![Just(0.0), 0.0..1e-3f64],
        target in 1e-9..0.5f64,
    ) {
        let exposure = Exposure {
            distance: bps(distance),
            volatility_per_sqrt_day: bps(volatility),
            jumps: rate(jumps),
            jump_loss: bps(10.0),
        };
        let target = Probability::new(target).unwrap();
        let Deadline::Within(at) = exposure.deadline(target) else { return Err(TestCaseError::fail("no deadline")) };
        prop_assert!((exposure.crosses(at).get() / target.get() - 1.0).abs() < 1e-6);
        let (shorter, longer) = (ms(at.get() / 2.0), ms(at.get() * 2.0));
        prop_assert!(exposure.crosses(shorter) <= target && exposure.crosses(longer) >= target);
        prop_assert!(exposure.loss_at(at) <= exposure.worst_loss_until(at));
        prop_assert!(exposure.worst_loss_until(shorter) <= exposure.worst_loss_until(at));
    }

    #[test]
    fn bounds_rise_with_what_is_admitted_and_first_come_first_served_is_the_best_of_them(
        burst in 0.0..1e4f64,
        refill in 0.0..99.0f64,
        missed in 0u32..5,
    ) {
        let bound = |burst: f64, refill: f64, order| {
            let bucket = Bucket::new(burst, rate(refill * 10.0)).unwrap();
            blocks_bound(bucket, ms(100.0), 100, missed, order).unwrap().unwrap()
        };
        let (fifo, any) = (bound(burst, refill, Order::Fifo), bound(burst, refill, Order::Any));
        prop_assert!(fifo <= any);
        for order in [Order::Fifo, Order::Any] {
            prop_assert!(bound(burst + 1.0, refill, order) >= bound(burst, refill, order));
            prop_assert!(bound(burst, refill * 0.9, order) <= bound(burst, refill, order));
        }
        let bucket = Bucket::new(burst, rate(refill * 10.0)).unwrap();
        let service = Service::of_blocks(ms(100.0), 100).unwrap().delayed(ms(100.0 * f64::from(missed)));
        prop_assert!(100.0 * (fifo - 1.0) <= service.delay_bound(bucket).unwrap().get() + 1e-6);
    }

    #[test]
    fn no_number_makes_anything_panic(
        a in number(), b in number(), c in number(), d in number(), e in number(),
        k in prop_oneof![0u32..100, any::<u32>()],
        sharing in sharing(),
    ) {
        let _ = (Bps::new(a), Probability::new(b), mm1k(a, k), md1k(b, k), Bucket::new(a, PerSecond::ZERO));
        let _ = Batch::given(&[a, b]);
        let time = Ms::new(c).unwrap_or(Ms::ZERO);
        let often = PerSecond::new(a).unwrap_or(PerSecond::MAX);
        let law = Law::new(time, b).unwrap_or(Law::exponential(time));
        if let Some(bounds) = Kingman::new(law, Law::new(Ms::new(d).unwrap_or(Ms::MAX), e).unwrap_or(law)) {
            let _ = (bounds.exceeds(time), bounds.quantile_ms(Probability::ZERO), bounds.quantile_ms(Probability::MAX));
        }
        let _ = waits(&[Class { rate: often, service: law }, Class { rate: PerSecond::MAX, service: law }]);
        let exposure = Exposure {
            distance: Bps::new(a).unwrap_or(Bps::MAX),
            volatility_per_sqrt_day: Bps::new(b).unwrap_or(Bps::MAX),
            jumps: PerSecond::new(c).unwrap_or_default(),
            jump_loss: Bps::new(d).unwrap_or_default(),
        };
        let _ = (exposure.deadline(Probability::new(e).unwrap_or_default()), exposure.crosses(Ms::MAX));
        let bucket = Bucket::new(a, often).unwrap_or_default();
        let _ = blocks_bound(bucket, time, k, k % 7, Order::Any);
        if let Ok(blocks) = Service::of_blocks(time, k) {
            let _ = (blocks.delay_bound(bucket), blocks.after(bucket).map(|left| left.finishing_first(b)));
        }
        let batch = Batch::geometric(b).or(Batch::logarithmic(c)).unwrap_or(Batch::ONE);
        let (Ok(rescue), Ok(trade)) = (Arrivals::new(a, batch), Arrivals::negative_binomial(d, e)) else {
            return Ok(());
        };
        if let Ok(queue) = BulkQueue::new(rescue.clone(), k % 100) {
            if let Some(pole) = queue.pole() {
                prop_assert!((0.0..=1.0).contains(&pole.prefactor) && pole.ln_z0 > 0.0, "{pole:?}");
            }
            if let Some(delay) = queue.mean_delay_slots() {
                prop_assert!(delay >= 0.5 && delay.is_finite(), "{delay}");
            }
        }
        if let Ok(pool) = PoolLaw::new(&trade, &Room::constant(k % 100), k % 300) {
            prop_assert!((0.0..=1.0).contains(&pool.loss.get()));
        }
        let block = Block::new(k % 60, k % 60 / 2, sharing);
        if let Some(lanes) = block.ok().and_then(|block| Lanes::new(rescue, trade, block).ok()) {
            for law in [lanes.rescue(), lanes.trade()].into_iter().flatten() {
                prop_assert!(law.mean_slots >= 0.5 && law.mean_slots.is_finite(), "{law:?}");
            }
        }
    }

    #[test]
    fn a_prediction_is_made_of_numbers_and_lanes_do_not_gain_by_load(
        rescue in 0.0..3.0f64,
        trade in 0.0..3.0f64,
        sharing in sharing(),
        batch in batch(),
        slot_scv in prop_oneof![Just(0.0), 0.0..1.0f64],
    ) {
        let model = Model::new(Chain {
            slot_ms: ms(100.0),
            slot_scv,
            block: Block::new(50, 20, sharing).unwrap(),
            rescue_pool: 100,
            trade_pool: 200,
            check: Law::constant(ms(0.1)),
            relay_ms: ms(20.0),
            finality_ms: ms(150.0),
            missed_blocks: 1,
        })
        .unwrap();
        let risk = Risk {
            exposure: Exposure { distance: bps(30.0), volatility_per_sqrt_day: bps(2000.0), ..Exposure::default() },
            target: Probability::new(1e-4).unwrap(),
        };
        let predict = |trade: f64| {
            let bucket = Some(Bucket::new(40.0, rate(100.0)).unwrap());
            let mix = Mix {
                system: rate(10.0),
                rescue: Flow { rate: rate(rescue * 200.0), batch: batch.clone(), bucket },
                trade: Flow { rate: rate(trade * 300.0), batch: batch.clone(), bucket },
            };
            model.predict(&mix, &risk).unwrap()
        };
        let (one, more) = (predict(trade), predict(trade * 1.3));
        for lane in [one.rescue, one.trade, more.rescue, more.trade] {
            if let Delay::Steady { mean_ms, p50_ms, p99_ms, mean_at_least_ms, mean_at_most_ms, .. } = lane.delay {
                prop_assert!(p50_ms <= p99_ms && mean_ms.get() >= 170.0, "{lane:?}");
                prop_assert!(mean_at_least_ms.is_none_or(|least| mean_ms >= least), "{lane:?}");
                prop_assert!(mean_at_most_ms.is_none_or(|most| mean_ms <= most), "{lane:?}");
                prop_assert!(lane.utilisation < 1.0);
            }
            prop_assert!(lane.carried.get() >= 0.0 && lane.dropped.get() <= 1.0);
            prop_assert!(lane.bound.is_none_or(|bound| bound.delay_ms.is_some() == (slot_scv == 0.0)));
        }
        prop_assert!(more.trade.dropped.get() >= one.trade.dropped.get() - 1e-9);
        // The ingress is the one place where a trade is in a rescue's way: one check that has begun.
        prop_assert_eq!(one.rescue.dropped, more.rescue.dropped);
        prop_assert_eq!(one.rescue.utilisation, more.rescue.utilisation);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_chain_and_no_mix_make_a_prediction_panic(
        times in prop::array::uniform5(number()),
        rates in prop::array::uniform3(number()),
        counts in prop::array::uniform4(prop_oneof![1u32..100, 1u32..70_000, any::<u32>()]),
        price in prop::array::uniform5(number()),
        batch in batch(),
        scv in prop_oneof![Just(0.0), number()],
        sharing in sharing(),
    ) {
        let time = |at: usize| Ms::new(times[at]).unwrap_or(ms(10.0));
        let often = |at: usize| PerSecond::new(rates[at]).unwrap_or(rate(1000.0));
        let [places, reserve, rescue_pool, trade_pool] = counts;
        let block = Block::new(places, reserve, sharing)
            .or(Block::new(places % 30_000 + 1, 1 + reserve % (places % 30_000 + 1), sharing));
        let chain = Chain {
            slot_ms: time(0),
            slot_scv: scv,
            block: block.unwrap(),
            rescue_pool: rescue_pool.min(1 << 20),
            trade_pool: trade_pool.min(1 << 20),
            check: Law::new(time(1), scv).unwrap_or(Law::exponential(time(2))),
            relay_ms: time(3),
            finality_ms: time(4),
            missed_blocks: reserve % 9,
        };
        let Ok(model) = Model::new(chain) else { return Ok(()) };
        let bucket = Bucket::new(price[4], often(0)).ok();
        let mix = Mix {
            system: often(0),
            rescue: Flow { rate: often(1), batch: batch.clone(), bucket },
            trade: Flow { rate: often(2), batch, bucket },
        };
        let risk = Risk {
            exposure: Exposure {
                distance: Bps::new(price[0]).unwrap_or_default(),
                volatility_per_sqrt_day: Bps::new(price[1]).unwrap_or_default(),
                jumps: PerSecond::new(price[2]).unwrap_or_default(),
                jump_loss: Bps::new(price[3]).unwrap_or_default(),
            },
            target: Probability::new(price[0].recip()).unwrap_or_default(),
        };
        if let Ok(found) = model.predict(&mix, &risk) {
            for lane in [found.rescue, found.trade] {
                prop_assert!(lane.utilisation >= 0.0, "{lane:?}");
                prop_assert!(lane.carried <= rate(1e9));
                if let Delay::Steady { p50_ms, p99_ms, .. } = lane.delay {
                    prop_assert!(p50_ms <= p99_ms);
                }
            }
        }
    }
}
