//! Every formula against the thing it is about, simulated as naively as it can be written.
//!
//! A simulation is cut into batches, far longer than what it remembers; the spread of their means is its own
//! confidence interval, and a formula has to lie within five standard errors. No tolerance is guessed. Seeds
//! are fixed: a test that passes passes always.

use proptest as _;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp, Gamma, Geometric, Poisson, StandardNormal};
use seawall_queueing::{
    arrivals::{Arrivals, Batch},
    bulk::BulkQueue,
    curves::{Bucket, Order, Service, blocks_bound},
    ingress::{Class, Wait, waits},
    kingman::{Kingman, Law},
    lanes::{Block, Lanes, Sharing},
    model::{Chain, Delay, Flow, Mix, Model, Risk},
    pool::{PoolLaw, Room, md1k, mm1k},
    risk::{DAY_MS, Exposure},
    units::{Bps, Ms, PerSecond, Probability},
};
use std::collections::VecDeque;

fn seeded(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn ms(value: f64) -> Ms {
    Ms::new(value).unwrap()
}

fn per_ms(value: f64) -> PerSecond {
    PerSecond::new(value * 1e3).unwrap()
}

/// Means of batches, and what they say about the mean of all.
#[derive(Default)]
struct Batches(Vec<f64>);

impl Batches {
    /// Standard errors that a formula may be away: one in two million by chance.
    const WIDTH: f64 = 5.0;

    fn push(&mut self, mean: f64) {
        self.0.push(mean);
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    fn half_width(&self) -> f64 {
        let (n, mean) = (self.0.len() as f64, self.mean());
        let squares: f64 = self.0.iter().map(|x| (x - mean).powi(2)).sum();
        Self::WIDTH * (squares / (n - 1.0) / n).sqrt()
    }

    fn agree(&self, what: &str, formula: f64) {
        let (mean, width) = (self.mean(), self.half_width());
        assert!(width < 0.4 * mean.abs() + 1e-3, "{what}: {mean} +- {width} says nothing");
        assert!((mean - formula).abs() <= width, "{what}: {formula} for {mean} +- {width}");
    }

    fn at_most(&self, what: &str, bound: f64) {
        let (mean, width) = (self.mean(), self.half_width());
        assert!(mean - width <= bound, "{what}: {mean} +- {width} is above {bound}");
    }

    fn at_least(&self, what: &str, bound: f64) {
        let (mean, width) = (self.mean(), self.half_width());
        assert!(mean + width >= bound, "{what}: {mean} +- {width} is below {bound}");
    }
}

/// How bursts look: the law that a formula is given, and the same as a sampler.
#[derive(Clone, Copy, Debug)]
enum Bursts {
    One,
    Geometric(f64),
    /// 1, 2 or 10 with probabilities 0.5, 0.3, 0.2.
    Given,
}

impl Bursts {
    fn law(self) -> Batch {
        match self {
            Self::One => Batch::ONE,
            Self::Geometric(mean) => Batch::geometric(mean).unwrap(),
            Self::Given => Batch::given(&[0.5, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2]).unwrap(),
        }
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> usize {
        match self {
            Self::One => 1,
            Self::Geometric(mean) => 1 + Geometric::new(1.0 / mean).unwrap().sample(rng) as usize,
            Self::Given => match rng.random::<f64>() {
                x if x < 0.5 => 1,
                x if x < 0.8 => 2,
                _ => 10,
            },
        }
    }

    /// Times of arrival in a slot of this length, in order.
    fn arrive(self, mean: f64, length: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let rate = mean / self.law().mean() * length;
        let bursts = if rate > 0.0 { Poisson::new(rate).unwrap().sample(rng) as usize } else { 0 };
        let mut times: Vec<f64> = (0..bursts).map(|_| rng.random::<f64>() * length).collect();
        times.sort_by(f64::total_cmp);
        times.into_iter().flat_map(|time| std::iter::repeat_n(time, self.draw(rng))).collect()
    }
}

/// What a simulated lane did.
#[derive(Default)]
struct Seen {
    /// Mean wait.
    wait: Batches,
    /// Mean number left behind by a block.
    left: Batches,
    /// Share of waits above a given time.
    late: Batches,
    /// Share dropped.
    lost: Batches,
    /// Taken by a block.
    taken: Batches,
}

struct Setup {
    /// Actions a slot and how they come, of rescues and of trades.
    load: [(f64, Bursts); 2],
    places: usize,
    reserve: usize,
    sharing: Sharing,
    pools: [usize; 2],
    slot_scv: f64,
    /// What counts as late, for each lane.
    late: [f64; 2],
}

impl Setup {
    fn alone(mean: f64, bursts: Bursts, places: usize) -> Self {
        Self {
            load: [(mean, bursts), (0.0, Bursts::One)],
            places,
            reserve: places,
            sharing: Sharing::WholeBlock,
            pools: [usize::MAX; 2],
            slot_scv: 0.0,
            late: [f64::INFINITY; 2],
        }
    }

    fn arrivals(&self, lane: usize) -> Arrivals {
        let (mean, bursts) = self.load[lane];
        Arrivals::new(mean, bursts.law()).unwrap().in_slots(self.slot_scv).unwrap()
    }

    /// Blocks that leave with whom they may take.
    fn run(&self, seed: u64, batches: usize, slots: usize) -> [Seen; 2] {
        let mut rng = seeded(seed);
        let mut queues = [VecDeque::new(), VecDeque::new()];
        let mut seen = [Seen::default(), Seen::default()];
        let mut now = 0.0;
        // The first batch only warms up.
        for batch in 0..=batches {
            let mut waits = [const { Vec::new() }; 2];
            let (mut left, mut offered, mut dropped, mut taken) = ([0; 2], [0; 2], [0; 2], [0; 2]);
            for _ in 0..slots {
                let length = if self.slot_scv > 0.0 {
                    Gamma::new(1.0 / self.slot_scv, self.slot_scv).unwrap().sample(&mut rng)
                } else {
                    1.0
                };
                for lane in 0..2 {
                    let (mean, bursts) = self.load[lane];
                    for time in bursts.arrive(mean, length, &mut rng) {
                        offered[lane] += 1;
                        if queues[lane].len() < self.pools[lane] {
                            queues[lane].push_back(now + time);
                        } else {
                            dropped[lane] += 1;
                        }
                    }
                }
                now += length;
                let first = match self.sharing {
                    Sharing::WholeBlock => self.places,
                    Sharing::Lent | Sharing::Kept => self.reserve,
                };
                let rescues = queues[0].len().min(first);
                let room = match self.sharing {
                    Sharing::WholeBlock | Sharing::Lent => self.places - rescues,
                    Sharing::Kept => self.places - self.reserve,
                };
                for (lane, room) in [(0, first), (1, room)] {
                    for _ in 0..room.min(queues[lane].len()) {
                        waits[lane].push(now - queues[lane].pop_front().unwrap());
                        taken[lane] += 1;
                    }
                    left[lane] += queues[lane].len();
                }
            }
            if batch == 0 {
                continue;
            }
            for lane in 0..2 {
                let count = waits[lane].len().max(1) as f64;
                seen[lane].wait.push(waits[lane].iter().sum::<f64>() / count);
                let late = waits[lane].iter().filter(|wait| **wait > self.late[lane]).count();
                seen[lane].late.push(late as f64 / count);
                seen[lane].left.push(left[lane] as f64 / slots as f64);
                seen[lane].lost.push(dropped[lane] as f64 / f64::from(offered[lane].max(1)));
                seen[lane].taken.push(f64::from(taken[lane]) / slots as f64);
            }
        }
        seen
    }
}

#[test]
fn one_lane_waits_as_the_bulk_queue_says() {
    let table = [
        (Bursts::One, 0.9, 1, 0.0),
        (Bursts::One, 7.0, 10, 0.0),
        (Bursts::One, 9.5, 10, 0.0),
        (Bursts::Geometric(4.0), 7.0, 10, 0.0),
        (Bursts::Given, 20.0, 24, 0.0),
        (Bursts::One, 8.0, 10, 0.4),
        (Bursts::Geometric(2.0), 8.0, 10, 1.0),
    ];
    for (seed, (bursts, mean, places, slot_scv)) in (0..).zip(table) {
        let mut setup = Setup::alone(mean, bursts, places);
        setup.slot_scv = slot_scv;
        let queue = BulkQueue::new(setup.arrivals(0), places as u32).unwrap();
        let law = queue.law().unwrap();
        let own = setup.arrivals(0);
        let mut wait = law.wait(&own, None).table();
        setup.late[0] = wait.quantile(0.95);
        let [seen, _] = setup.run(seed, 40, 20_000);
        let name = format!("{bursts:?}, {mean} in {places}, scv {slot_scv}");
        seen.left.agree(&name, queue.mean_left().unwrap());
        seen.wait.agree(&name, queue.mean_delay_slots().unwrap());
        if slot_scv <= 0.0 {
            seen.late.agree(&name, wait.exceeds(setup.late[0]));
            assert!((wait.exceeds(setup.late[0]) - 0.05).abs() < 1e-3);
        }
    }
}

#[test]
fn two_lanes_wait_as_their_sharing_says() {
    let table = [
        (Sharing::WholeBlock, (3.0, Bursts::One), (6.0, Bursts::One)),
        (Sharing::WholeBlock, (3.0, Bursts::Geometric(3.0)), (5.5, Bursts::Given)),
        (Sharing::WholeBlock, (0.5, Bursts::One), (8.8, Bursts::One)),
        (Sharing::Kept, (3.0, Bursts::Geometric(2.0)), (5.0, Bursts::One)),
        (Sharing::Lent, (2.0, Bursts::One), (7.0, Bursts::One)),
        (Sharing::Lent, (3.2, Bursts::Geometric(2.0)), (5.8, Bursts::One)),
        (Sharing::Lent, (3.2, Bursts::One), (4.0, Bursts::Given)),
        (Sharing::Lent, (1.0, Bursts::Geometric(4.0)), (8.0, Bursts::One)),
        (Sharing::Lent, (3.6, Bursts::Geometric(3.0)), (4.0, Bursts::One)),
    ];
    for (seed, (sharing, rescue, trade)) in (100..).zip(table) {
        let mut setup = Setup {
            load: [rescue, trade],
            places: 10,
            reserve: 4,
            sharing,
            pools: [usize::MAX; 2],
            slot_scv: 0.0,
            late: [0.0; 2],
        };
        let block = Block::new(10, 4, sharing).unwrap();
        let lanes = Lanes::new(setup.arrivals(0), setup.arrivals(1), block).unwrap();
        let laws = [lanes.rescue().unwrap(), lanes.trade().unwrap()];
        setup.late = [0, 1].map(|lane| laws[lane].quantile_slots(0.95));
        let seen = setup.run(seed, 40, 20_000);
        let name = format!("{sharing:?}, {rescue:?}, {trade:?}");
        seen[0].wait.agree(&name, laws[0].mean_slots);
        seen[0].late.agree(&name, laws[0].exceeds(setup.late[0]));
        if sharing == Sharing::Lent {
            seen[1].wait.at_least(&name, laws[1].mean_at_least_slots.unwrap());
            if let Some(most) = laws[1].mean_at_most_slots {
                seen[1].wait.at_most(&name, most);
            }
            // No theorem: within a tenth of the mean, and the tail within half.
            let off = laws[1].mean_slots / seen[1].wait.mean() - 1.0;
            assert!(off.abs() < 0.1, "{name}: off by {off}");
            let late = seen[1].late.mean();
            assert!((0.025..0.075).contains(&late), "{name}: {late} late for 0.05");
        } else {
            seen[1].wait.agree(&name, laws[1].mean_slots);
            // What overtakes rarely fills a block alone; where it may, the tail says too much.
            seen[1].late.at_most(&name, laws[1].exceeds(setup.late[1]));
            if rescue.0 < 1.0 || sharing == Sharing::Kept {
                seen[1].late.agree(&name, laws[1].exceeds(setup.late[1]));
            }
        }
    }
}

#[test]
fn a_hundredfold_of_trades_moves_no_rescue() {
    let setup = |trades: f64| Setup {
        load: [(3.0, Bursts::Geometric(2.0)), (trades, Bursts::One)],
        places: 10,
        reserve: 5,
        sharing: Sharing::Lent,
        pools: [usize::MAX, 50],
        slot_scv: 0.0,
        late: [f64::INFINITY; 2],
    };
    let block = Block::new(10, 5, Sharing::Lent).unwrap();
    for (seed, trades) in [(200, 5.0), (201, 50.0), (202, 500.0)] {
        let setup = setup(trades);
        let lanes = Lanes::new(setup.arrivals(0), setup.arrivals(1), block).unwrap();
        let seen = setup.run(seed, 40, 500);
        seen[0].wait.agree("rescues", lanes.rescue().unwrap().mean_slots);
    }
}

#[test]
fn bounded_pools_drop_what_the_chain_says() {
    for (seed, load, bursts, places, slot_scv) in [
        (300, 0.8, Bursts::Geometric(3.0), 25, 0.0),
        (301, 1.0, Bursts::One, 20, 0.0),
        (302, 1.0, Bursts::Given, 40, 0.0),
        (303, 2.5, Bursts::One, 30, 0.0),
        (304, 40.0, Bursts::Geometric(3.0), 30, 0.0),
        (305, 1.1, Bursts::Geometric(2.0), 40, 0.6),
    ] {
        let mut setup = Setup::alone(10.0 * load, bursts, 10);
        setup.pools[0] = places;
        setup.slot_scv = slot_scv;
        let law = PoolLaw::new(&setup.arrivals(0), &Room::constant(10), places as u32).unwrap();
        let [seen, _] = setup.run(seed, 40, 4000);
        let name = format!("{load}, {bursts:?}, {places}, scv {slot_scv}");
        seen.lost.agree(&name, law.loss.get());
        seen.left.agree(&name, law.mean_left);
        seen.wait.agree(&name, law.mean_delay_slots.unwrap());
        seen.taken.agree(&name, law.taken.mean());
    }
}

#[test]
fn trades_drop_what_rescues_leave_no_room_for() {
    for (seed, rescue, trade, pool) in [(310, 7.0, 2.5, 30), (311, 7.0, 12.0, 30), (312, 9.0, 20.0, 15)] {
        let setup = Setup {
            load: [(rescue, Bursts::One), (trade, Bursts::One)],
            places: 10,
            reserve: 10,
            sharing: Sharing::WholeBlock,
            pools: [18, pool],
            slot_scv: 0.0,
            late: [f64::INFINITY; 2],
        };
        let rescues = PoolLaw::new(&setup.arrivals(0), &Room::constant(10), 18).unwrap();
        let trades = PoolLaw::new(&setup.arrivals(1), &rescues.taken.left_of(10), pool as u32).unwrap();
        let seen = setup.run(seed, 40, 4000);
        seen[0].lost.agree("rescues", rescues.loss.get());
        // Independent from block to block is an approximation: within a twentieth of all trades.
        let (found, right) = (trades.loss.get(), seen[1].lost.mean());
        let width = seen[1].lost.half_width();
        assert!((found - right).abs() < 0.05 + width, "{rescue} {trade}: {found} for {right}");
        if rescue + trade > 12.0 {
            assert!((found - right).abs() < 0.02 + width, "{rescue} {trade}: {found} for {right}");
        }
    }
}

#[test]
fn a_prediction_is_what_the_lanes_do() {
    // Rescues, trades, and whether trades are more than blocks take.
    let table = [
        (Sharing::Lent, 2.0, 7.0, false),
        (Sharing::WholeBlock, 2.5, 6.5, false),
        (Sharing::Kept, 3.0, 5.0, false),
        (Sharing::Lent, 2.0, 20.0, true),
    ];
    for (seed, (sharing, rescue, trade, saturated)) in (350..).zip(table) {
        let slot_ms = 100.0;
        let model = Model::new(Chain {
            slot_ms: ms(slot_ms),
            slot_scv: 0.0,
            block: Block::new(10, 4, sharing).unwrap(),
            rescue_pool: 100,
            trade_pool: 200,
            check: Law::constant(ms(1e-6)),
            relay_ms: ms(40.0),
            finality_ms: ms(155.0),
            missed_blocks: 1,
        })
        .unwrap();
        let mix = Mix {
            system: PerSecond::ZERO,
            rescue: Flow::poisson(per_ms(rescue / slot_ms)),
            trade: Flow::poisson(per_ms(trade / slot_ms)),
        };
        let found = model.predict(&mix, &Risk::default()).unwrap();
        let lanes = [found.rescue, found.trade];
        let slots = |at: Ms| (at.get() - 195.0) / slot_ms;
        let mut setup = Setup {
            load: [(rescue, Bursts::One), (trade, Bursts::One)],
            places: 10,
            reserve: 4,
            sharing,
            pools: [100, 200],
            slot_scv: 0.0,
            late: [0.0; 2],
        };
        for (late, lane) in setup.late.iter_mut().zip(&lanes) {
            if let Delay::Steady { p99_ms, .. } = lane.delay {
                *late = slots(p99_ms);
            }
        }
        let seen = setup.run(seed, 40, 10_000);
        for (at, (lane, seen)) in lanes.iter().zip(&seen).enumerate() {
            let name = format!("{sharing:?}, lane {at}: {lane:?}");
            match lane.delay {
                Delay::Steady { mean_ms, .. } => {
                    seen.wait.agree(&name, slots(mean_ms));
                    seen.late.agree(&name, 0.01);
                }
                Delay::Saturated { mean_ms } => {
                    // What is left of blocks is no longer independent, but as large in the mean.
                    assert!(saturated && at == 1);
                    assert!((slots(mean_ms) / seen.wait.mean() - 1.0).abs() < 0.01, "{name}");
                    assert!((lane.dropped.get() / seen.lost.mean() - 1.0).abs() < 0.01, "{name}");
                }
                Delay::Unbounded => panic!("{name}"),
            }
            seen.taken.agree(&name, lane.carried.get() * slot_ms / 1e3);
        }
    }
}

/// One server, classes with priority, no preemption, from one event to the next.
fn serve(classes: &[Class], seed: u64, batches: usize, services: usize) -> Vec<Batches> {
    let mut rng = seeded(seed);
    let exponential = |class: &Class| Exp::new((class.rate.get() / 1e3).max(1e-300)).unwrap();
    let mut next: Vec<f64> = classes.iter().map(|class| exponential(class).sample(&mut rng)).collect();
    let mut queues = vec![VecDeque::new(); classes.len()];
    let mut seen: Vec<Batches> = classes.iter().map(|_| Batches::default()).collect();
    let mut free = 0.0;
    for batch in 0..=batches {
        let mut waits = vec![(0.0, 0u32); classes.len()];
        for _ in 0..services {
            if queues.iter().all(VecDeque::is_empty) {
                free = next.iter().copied().fold(f64::INFINITY, f64::min).max(free);
            }
            for (class, at) in next.iter_mut().enumerate() {
                while *at <= free {
                    // A class that is offered too much is never empty: a few of it are as good as all.
                    if queues[class].len() < 1000 {
                        queues[class].push_back(*at);
                    }
                    *at += exponential(&classes[class]).sample(&mut rng);
                }
            }
            let class = queues.iter().position(|queue| !queue.is_empty()).unwrap();
            waits[class].0 += free - queues[class].pop_front().unwrap();
            waits[class].1 += 1;
            free += draw(classes[class].service, &mut rng);
        }
        if batch > 0 {
            for (seen, (sum, count)) in seen.iter_mut().zip(waits) {
                seen.push(sum / f64::from(count.max(1)));
            }
        }
    }
    seen
}

fn draw(law: Law, rng: &mut ChaCha8Rng) -> f64 {
    let mean = law.mean_ms().get();
    if law.scv() > 0.0 { Gamma::new(1.0 / law.scv(), mean * law.scv()).unwrap().sample(rng) } else { mean }
}

#[test]
fn classes_wait_as_cobham_says_and_no_longer_when_the_last_is_saturated() {
    let class = |rate, mean, scv| Class { rate: per_ms(rate), service: Law::new(ms(mean), scv).unwrap() };
    let table = [
        vec![class(0.7, 1.0, 0.0)],
        vec![class(0.2, 1.0, 0.0), class(0.3, 0.5, 1.0), class(0.2, 2.0, 0.5)],
        vec![class(0.3, 1.0, 0.0), class(10.0, 1.0, 0.0)],
        vec![class(0.1, 1.0, 1.0), class(0.2, 0.5, 0.0), class(5.0, 3.0, 1.0)],
    ];
    for (seed, classes) in (400..).zip(&table) {
        let seen = serve(classes, seed, 40, 10_000);
        for (at, (seen, wait)) in seen.iter().zip(waits(classes).unwrap()).enumerate() {
            if let Wait::Mean(wait) = wait {
                seen.agree(&format!("class {at} of {classes:?}"), wait.get());
            } else {
                assert_eq!(at, classes.len() - 1);
            }
        }
    }
}

#[test]
fn kingmans_bounds_are_above_lindleys_recursion() {
    for (seed, interval_scv, service_scv, load) in
        [(500, 1.0, 1.0, 0.7), (501, 0.2, 0.2, 0.9), (502, 4.0, 0.5, 0.8), (503, 1.0, 0.0, 0.95)]
    {
        let interval = Law::new(ms(1.0), interval_scv).unwrap();
        let service = Law::new(ms(load), service_scv).unwrap();
        let bounds = Kingman::new(interval, service).unwrap();
        let mut rng = seeded(seed);
        let late = bounds.quantile_ms(Probability::new(0.05).unwrap());
        let (mut wait, mut means, mut lates) = (0.0f64, Batches::default(), Batches::default());
        for batch in 0..=40 {
            let (mut sum, mut above) = (0.0, 0u32);
            for _ in 0..10_000 {
                wait = (wait + draw(service, &mut rng) - draw(interval, &mut rng)).max(0.0);
                sum += wait;
                above += u32::from(wait > late.get());
            }
            if batch > 0 {
                means.push(sum / 1e4);
                lates.push(f64::from(above) / 1e4);
            }
        }
        let name = format!("{interval_scv} {service_scv} {load}");
        means.at_most(&name, bounds.mean_wait_ms.get());
        lates.at_most(&name, bounds.exceeds(late).get());
        // A bound that is ten times too large would be none.
        assert!(means.mean() > 0.1 * bounds.mean_wait_ms.get(), "{name}");
        assert!(lates.mean() > 0.1 * 0.05, "{name}");
    }
}

#[test]
fn classic_servers_with_few_places_lose_what_their_formulas_say() {
    for (seed, load, places, scv) in
        [(600, 0.8, 3, 1.0), (601, 1.5, 5, 1.0), (602, 0.8, 3, 0.0), (603, 1.0, 8, 0.0), (604, 3.0, 2, 0.0)]
    {
        let mut rng = seeded(seed);
        let service = Law::new(ms(load), scv).unwrap();
        let interval = Exp::new(1.0).unwrap();
        let (mut now, mut departures) = (0.0, VecDeque::<f64>::new());
        let mut lost = Batches::default();
        for batch in 0..=40 {
            let mut dropped = 0u32;
            for _ in 0..10_000 {
                now += interval.sample(&mut rng);
                while departures.front().is_some_and(|leaves| *leaves <= now) {
                    departures.pop_front();
                }
                if departures.len() < places {
                    let begin = departures.back().copied().unwrap_or(now);
                    departures.push_back(begin + draw(service, &mut rng));
                } else {
                    dropped += 1;
                }
            }
            if batch > 0 {
                lost.push(f64::from(dropped) / 1e4);
            }
        }
        let formula = if scv > 0.0 { mm1k(load, places as u32) } else { md1k(load, places as u32) };
        lost.agree(&format!("{load} {places} {scv}"), formula.unwrap().get());
    }
}

#[test]
fn no_adversary_within_its_bucket_beats_the_bounds_in_blocks() {
    let mut rng = seeded(700);
    let (mut worst_fifo, mut worst_any) = (0.0f64, 0.0f64);
    for _ in 0..400 {
        let capacity = rng.random_range(1..12usize);
        let refill = rng.random::<f64>() * 0.95 * capacity as f64;
        let burst = rng.random_range(1.0..80.0f64);
        let missed = rng.random_range(0..4usize);
        let bucket = Bucket::new(burst, per_ms(refill)).unwrap();
        let slot = ms(1.0);
        let bound =
            |order| blocks_bound(bucket, slot, capacity as u32, missed as u32, order).unwrap().unwrap();
        let eager = rng.random::<f64>() < 0.5;
        // Tokens are spent at once, or at random moments all that there are.
        for order in [Order::Fifo, Order::Any] {
            let (mut tokens, mut queue, mut skipped) = (burst, Vec::new(), 0);
            for block in 1..200usize {
                // Four moments in every slot.
                for _ in 0..4 {
                    while tokens >= 1.0 && (eager || rng.random::<f64>() < 0.1) {
                        let all = if eager { 1 } else { tokens as usize };
                        queue.extend(std::iter::repeat_n(block, all));
                        tokens -= all as f64;
                    }
                    tokens = (tokens + refill / 4.0).min(burst);
                }
                if queue.is_empty() {
                    // A new backlog may be missed again.
                    skipped = 0;
                    continue;
                }
                if skipped < missed {
                    skipped += 1;
                    continue;
                }
                for _ in 0..capacity.min(queue.len()) {
                    // Any order: the adversary's, newest first.
                    let arrived = if order == Order::Fifo { queue.remove(0) } else { queue.pop().unwrap() };
                    let blocks = (block - arrived + 1) as f64;
                    assert!(blocks <= bound(order), "{bucket:?} {capacity} {missed} {order:?}: {blocks}");
                    match order {
                        Order::Fifo => worst_fifo = worst_fifo.max(blocks / bound(order)),
                        Order::Any => worst_any = worst_any.max(blocks / bound(order)),
                    }
                }
            }
        }
    }
    // And they are met, so they could not be smaller.
    assert!(worst_fifo >= 1.0 && worst_any >= 0.9, "{worst_fifo} {worst_any}");
}

#[test]
fn the_curve_of_what_a_first_flow_leaves_holds_against_it() {
    let mut rng = seeded(710);
    for _ in 0..200 {
        let capacity = rng.random_range(2..12usize);
        let rate = |rng: &mut ChaCha8Rng| rng.random::<f64>() * 0.48 * capacity as f64;
        let bursts = [rng.random_range(1.0..40.0f64), rng.random_range(1.0..40.0f64)];
        let rates = [rate(&mut rng), rate(&mut rng)];
        let buckets = [0, 1].map(|flow| Bucket::new(bursts[flow], per_ms(rates[flow])).unwrap());
        let all = Service::of_blocks(ms(1.0), capacity as u32).unwrap();
        let left = all.after(buckets[0]).unwrap();
        let delays = [all.delay_bound(buckets[0]).unwrap(), left.delay_bound(buckets[1]).unwrap()];
        let backlogs = [all.backlog_bound(buckets[0]).unwrap(), left.backlog_bound(buckets[1]).unwrap()];
        let mut tokens = bursts;
        let mut queues = [VecDeque::new(), VecDeque::new()];
        for step in 0..2000usize {
            let now = step as f64 / 4.0;
            for flow in 0..2 {
                while tokens[flow] >= 1.0 && rng.random::<f64>() < 0.9 {
                    tokens[flow] -= 1.0;
                    queues[flow].push_back(now);
                }
                tokens[flow] = (tokens[flow] + rates[flow] / 4.0).min(bursts[flow]);
                assert!(queues[flow].len() as f64 <= backlogs[flow] + 1e-9, "{buckets:?}");
            }
            if step % 4 == 3 {
                let mut room = capacity;
                for (queue, bound) in queues.iter_mut().zip(&delays) {
                    while room > 0 && !queue.is_empty() {
                        let wait = (step as f64 + 1.0) / 4.0 - queue.pop_front().unwrap();
                        assert!(wait <= bound.get() + 1e-9, "{wait} {bound:?} {buckets:?}");
                        room -= 1;
                    }
                }
            }
        }
    }
}

#[test]
fn a_random_walk_crosses_as_reflection_says() {
    let exposure = |jumps: f64| Exposure {
        distance: Bps::new(100.0).unwrap(),
        volatility_per_sqrt_day: Bps::new(100.0).unwrap(),
        jumps: PerSecond::new(jumps / (DAY_MS / 1e3)).unwrap(),
        jump_loss: Bps::new(30.0).unwrap(),
    };
    let mut rng = seeded(800);
    // Half a jump a day, of a size that takes it beyond the barrier or not.
    for jumps in [0.0, 0.5] {
        let (mut crossed, mut loss, mut worst) = (Batches::default(), Batches::default(), Batches::default());
        for _ in 0..40 {
            let (mut crossings, mut losses, mut worsts) = (0u32, 0.0, 0.0);
            for _ in 0..200 {
                let (mut price, mut highest) = (0.0f64, 0.0f64);
                // Between two points the maximum of the bridge is drawn, so steps cost no accuracy.
                let steps = 8;
                let variance = 100.0f64.powi(2) / f64::from(steps);
                for _ in 0..steps {
                    let normal: f64 = StandardNormal.sample(&mut rng);
                    let next = price + variance.sqrt() * normal;
                    let log = -2.0 * variance * (1.0 - rng.random::<f64>()).ln();
                    highest = highest.max(0.5 * (price + next + ((next - price).powi(2) + log).sqrt()));
                    price = next;
                    if rng.random::<f64>() < jumps / f64::from(steps) {
                        price += 30.0;
                        highest = highest.max(price);
                    }
                }
                crossings += u32::from(highest > 100.0);
                losses += (price - 100.0).max(0.0);
                worsts += (highest - 100.0).max(0.0);
            }
            crossed.push(f64::from(crossings) / 200.0);
            loss.push(losses / 200.0);
            worst.push(worsts / 200.0);
        }
        let (exposure, day) = (exposure(jumps), ms(DAY_MS));
        if jumps > 0.0 {
            crossed.at_most("crossed", exposure.crosses(day).get());
            loss.at_most("loss", exposure.loss_at(day).get());
            worst.at_most("worst", exposure.worst_loss_until(day).get());
        } else {
            crossed.agree("crossed", exposure.crosses(day).get());
            loss.agree("loss", exposure.loss_at(day).get());
            worst.agree("worst", exposure.worst_loss_until(day).get());
        }
    }
}
