//! What a run was worth: from what was seen to a [`Run`], and to verdicts.
//!
//! # The first promise, checked from outside
//!
//! P1 says that a rescue which f+1 honest validators hold and have listed is in every valid block after at most two beyond
//! those in flight. Here it is held against what was observed, without the code that enforces it:
//!
//! - a member *has listed* a rescue from the instant at which it first sent an observation that names it, or began a block
//!   of its own that carries such an observation of its own;
//! - a block was *in flight* if its leader had begun before the f+1-th honest member listed the rescue. A block whose leader
//!   nobody heard of counts as begun at its own block time;
//! - every later block at a lower height than the one that carries the rescue *missed* it, unless it was full of rescues.
//!
//! At most two may miss it. If no block carries it, all that could have are counted.
//!
//! Rescues are rationed by tokens: one whose signer has none at the end, and that no block carries, was not to be
//! carried. It counts as refused.
//!
//! Value is counted anew after every block: the final chain is executed once more from genesis, and everything that
//! every account holds is summed up.

use crate::{
    feeds::index_price,
    forecast,
    record::{self, Criterion, Direction, Record, Verdict},
    scenario::{ByzantineKind, LaneName, Scenario},
    sim::{self, ActionName, Log, RESERVE, SAMPLE_MS, Seen, Setup, censored, view_of, virtual_ms},
};
use commonware_codec::EncodeSize as _;
use hdrhistogram::Histogram;
use seawall_chain::machine::{Answer, Brought, Purpose};
use seawall_ledger::Event;
use seawall_types::{AccountId, Lane, MarginMode, MarketId, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// Length of a bucket of offered load.
const BUCKET_MS: u64 = 250;
/// Blocks that may leave a listed rescue out beyond those in flight.
pub const PROMISED_MISSES: u64 = 2;
/// Until finality must be back after a heal, if the scenario says nothing else.
const RECOVERY_MS: f64 = 1_000.0;
/// A sample of trades is traced: one in so many as make this many.
const TRACED_TRADES: usize = 2_048;
/// Largest latency that histograms tell apart, in microseconds: a day.
const MAX_LATENCY_US: u64 = 86_400_000_000;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("bounds that are bounds")
}

fn latency(values: &Histogram<u64>) -> record::Latency {
    let at = |quantile| values.value_at_quantile(quantile) as f64 / 1e3;
    if values.is_empty() {
        return record::Latency::default();
    }
    // Every step is a tenth wider than the one before: fine enough for a plot, few enough for a page.
    let buckets = values.iter_log(1_000, 1.1).filter(|step| step.count_since_last_iteration() > 0);
    record::Latency {
        count: values.len(),
        mean_ms: values.mean() / 1e3,
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: values.max() as f64 / 1e3,
        buckets: buckets
            .map(|step| (step.value_iterated_to() as f64 / 1e3, step.count_since_last_iteration()))
            .collect(),
    }
}

fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0)
}

fn thinned<T>(mut series: Vec<T>) -> Vec<T> {
    while series.len() > record::MAX_SERIES {
        let mut place = 0;
        series.retain(|_| {
            place += 1;
            place % 2 == 1
        });
    }
    series
}

/// A block and when it was what.
struct Placed<'a> {
    seen: &'a Seen,
    height: u64,
    begun_us: u64,
    final_us: u64,
}

/// Makes sense of a run.
pub struct Judge<'a> {
    setup: &'a Setup,
    log: &'a Log,
    honest: BTreeSet<usize>,
    /// Blocks that a majority of validators had, by height.
    chain: Vec<Placed<'a>>,
    /// Height and place in the block of every final action.
    carried: BTreeMap<ActionName, (u64, usize)>,
    replayed: Replayed,
}

/// What executing the chain again showed.
#[derive(Default)]
struct Replayed {
    conservation_breaks: u64,
    liquidations: Vec<record::Liquidation>,
    totals: record::Totals,
    broken: Vec<String>,
    /// Rescues that no block carries because their signers have no token for them.
    rationed: BTreeSet<ActionName>,
}

impl<'a> Judge<'a> {
    /// Of what was seen in a run.
    pub fn new(setup: &'a Setup, log: &'a Log) -> Self {
        let liars = setup.plan.byzantine_of();
        let count = setup.plan.validators();
        let honest = (0..count).filter(|place| !liars.contains_key(place)).collect();
        let mut chain = Vec::new();
        let mut carried = BTreeMap::new();
        for (height, seen) in &log.blocks {
            let view = view_of(&seen.block);
            let mut had: BTreeMap<usize, u64> = log.certified.get(&view).cloned().unwrap_or_default();
            for (place, at) in log.applied.get(height).into_iter().flatten() {
                had.entry(*place).and_modify(|own| *own = (*own).min(*at)).or_insert(*at);
            }
            let mut had: Vec<u64> = had.into_values().collect();
            had.sort_unstable();
            // The median of all validators: whoever is down has not seen it.
            let Some(final_us) = had.get(count / 2).or(had.get((count - 1) / 2)).copied() else { continue };
            let begun_us = log.begun.get(&view).copied();
            let begun_us = begun_us.unwrap_or_else(|| virtual_ms(setup, seen.block.header.time) * 1_000);
            for (place, action) in seen.block.body.actions.iter().enumerate() {
                // A rescue that could not spend its nonce may be carried once more; the first answer counts.
                carried.entry((action.account, action.nonce)).or_insert((*height, place));
            }
            chain.push(Placed { seen, height: *height, begun_us, final_us });
        }
        let mut judge = Self { setup, log, honest, chain, carried, replayed: Replayed::default() };
        judge.replayed = judge.replay();
        judge
    }

    fn block(&self, height: u64) -> Option<&Placed<'a>> {
        let first = self.chain.first()?.height;
        self.chain.get(usize::try_from(height.checked_sub(first)?).ok()?).filter(|own| own.height == height)
    }

    /// When the f+1-th honest member listed each rescue.
    fn listed(&self) -> BTreeMap<ActionName, u64> {
        let mut all = self.log.listings.clone();
        for placed in &self.chain {
            let leader = self.leader(placed.seen);
            let own = placed
                .seen
                .block
                .body
                .observations
                .iter()
                .filter(|own| usize::from(own.author.get()) == leader);
            for listed in own.flat_map(|own| &own.rescues) {
                let times = all.entry((listed.account, listed.nonce)).or_default();
                times
                    .entry(leader)
                    .and_modify(|at| *at = (*at).min(placed.begun_us))
                    .or_insert(placed.begun_us);
            }
        }
        let needed = self.setup.faulty();
        all.into_iter()
            .filter_map(|(name, times)| {
                let mut honest: Vec<u64> = times
                    .into_iter()
                    .filter(|(author, _)| self.honest.contains(author))
                    .map(|(_, at)| at)
                    .collect();
                honest.sort_unstable();
                honest.get(needed).map(|at| (name, *at))
            })
            .collect()
    }

    fn leader(&self, seen: &Seen) -> usize {
        self.setup.genesis.members.position(&seen.block.context.leader).unwrap_or(usize::MAX)
    }

    /// Blocks not in flight at `listed_us` that left a rescue out before the block at `height`.
    fn missed(&self, listed_us: u64, height: Option<u64>, expiry: u64) -> u64 {
        let full = |seen: &Seen| {
            let rescues = seen.block.body.actions.iter().filter(|own| own.action.lane() == Lane::Rescue);
            rescues.count() >= RESERVE as usize
        };
        let before =
            |placed: &&Placed<'_>| placed.height < height.unwrap_or(u64::MAX).min(expiry.saturating_add(1));
        let late = self.chain.iter().filter(before).filter(|placed| placed.begun_us > listed_us);
        late.filter(|placed| !full(placed.seen)).count() as u64
    }

    /// The whole run.
    pub fn run(&self) -> record::Run {
        let listed = self.listed();
        let (rescue, p1) = self.lane(LaneName::Rescue, &listed);
        let (trade, _) = self.lane(LaneName::Trade, &BTreeMap::new());
        let Replayed { conservation_breaks, liquidations, totals, broken, .. } = &self.replayed;
        let (mut totals, mut broken) = (totals.clone(), broken.clone());
        let mut finality: Vec<u64> = self
            .chain
            .iter()
            .filter(|own| self.log.begun.contains_key(&view_of(&own.seen.block)))
            .map(|own| own.final_us.saturating_sub(own.begun_us) / 1_000)
            .collect();
        let mut ends: Vec<u64> = self.chain.iter().map(|placed| placed.final_us / 1_000).collect();
        ends.sort_unstable();
        let mut gaps: Vec<u64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // A chain that stands still at the end has a gap that no block closes.
        let open_end = self.setup.plan.length_ms().saturating_sub(ends.last().copied().unwrap_or(0));
        totals.longest_gap_ms = gaps.iter().copied().max().unwrap_or(0).max(open_end);
        totals.block_interval_p50_ms = percentile(&mut gaps, 50);
        totals.finality_p50_ms = percentile(&mut finality, 50);
        totals.finality_p99_ms = percentile(&mut finality, 99);
        totals.blocks = self.chain.len() as u64;
        let last_view = self.chain.last().map_or(0, |placed| view_of(&placed.seen.block));
        totals.lost_views = last_view.saturating_sub(totals.blocks);
        let stale = self.log.blocks.values().map(|seen| seen.stale_price_liquidations).sum();
        broken.extend(self.log.faults.iter().cloned());
        let safety = record::Safety {
            forks: self.log.forks.len() as u64,
            conservation_breaks: *conservation_breaks,
            stale_price_liquidations: stale,
            p1_checked: p1.checked,
            p1_late: p1.late,
            p1_worst_missed: p1.worst,
            faults: broken,
        };
        let lanes = record::Lanes { rescue, trade };
        let prediction = forecast::predict(self.setup, &lanes, &totals, &ends);
        record::Run {
            label: self.setup.multiple.map_or_else(String::new, |multiple| format!("{multiple}x")),
            offered_multiple: self.setup.multiple,
            virtual_ms: self.setup.plan.length_ms(),
            network: self.network(),
            capacity: record::Capacity {
                cores: self.setup.plan.capacity.cores,
                slowdown: self.setup.plan.capacity.slowdown,
                block_weight: self.setup.plan.capacity.block_weight,
                rescue_reserve: RESERVE,
                interval_ms: self.setup.plan.capacity.interval_ms,
                actions_per_second: self.setup.capacity,
            },
            markets: self.markets(),
            book: self.accounts(),
            index_prices: thinned(self.index_prices()),
            marks: self.marks(),
            blocks: self.chain.iter().map(|placed| self.tell(placed)).collect(),
            lanes,
            backlog: thinned(self.log.backlog.clone()),
            faults: self.faults(),
            heals: self.heals(),
            liquidations: liquidations.iter().take(record::MAX_LIQUIDATIONS).cloned().collect(),
            totals,
            safety,
            prediction,
        }
    }

    fn tell(&self, placed: &Placed<'_>) -> record::Block {
        let block = &placed.seen.block;
        let weight: usize = block.body.actions.iter().map(|own| own.action.weight()).sum();
        let rescues = block.body.actions.iter().filter(|own| own.action.lane() == Lane::Rescue).count();
        let listed: BTreeSet<ActionName> = block
            .body
            .observations
            .iter()
            .flat_map(|own| &own.rescues)
            .map(|own| (own.account, own.nonce))
            .collect();
        let owed = block.body.actions.iter().filter(|own| listed.contains(&(own.account, own.nonce))).count();
        let view = view_of(block);
        record::Block {
            height: placed.height,
            view,
            leader: self.leader(placed.seen),
            time_ms: virtual_ms(self.setup, block.header.time),
            begun_ms: self.log.begun.get(&view).map(|us| us / 1_000),
            final_ms: placed.final_us / 1_000,
            weight: weight as u32,
            capacity: self.setup.plan.capacity.block_weight,
            bytes: block.encode_size() as u32,
            owed: owed as u32,
            rescues: rescues as u32,
            trades: (block.body.actions.len() - rescues) as u32,
            refused: placed.seen.answers.iter().filter(|own| matches!(own, Answer::Refused(_))).count()
                as u32,
            liquidations: placed.seen.liquidations as u32,
            observations: block.body.observations.len() as u32,
        }
    }

    fn lane(&self, lane: LaneName, listed: &BTreeMap<ActionName, u64>) -> (record::Lane, Promise) {
        let plan = &self.setup.plan;
        let (warm, end) = (plan.warmup_ms * 1_000, plan.duration_ms * 1_000);
        let buckets = plan.length_ms() / BUCKET_MS + 1;
        let mut offered: Vec<record::Offered> = (0..buckets)
            .map(|place| record::Offered { at_ms: place * BUCKET_MS, ..Default::default() })
            .collect();
        let bucket = |us: u64| ((us / 1_000 / BUCKET_MS) as usize).min(buckets as usize - 1);
        let mut own = record::Lane {
            bucket_ms: BUCKET_MS,
            offered: Vec::new(),
            sent: 0,
            admitted: 0,
            refused: BTreeMap::new(),
            executed: 0,
            answered: 0,
            missing: 0,
            latency: record::Latency::default(),
            listing: record::Latency::default(),
            inclusion: record::Latency::default(),
            traces: Vec::new(),
        };
        let (mut whole, mut until, mut after) = (histogram(), histogram(), histogram());
        let mut promise = Promise::default();
        let all = self.log.sent.iter().filter(|sent| sent.lane == lane).count();
        let step = match lane {
            LaneName::Rescue => 1,
            LaneName::Trade => (all / TRACED_TRADES).max(1),
        };
        for (place, sent) in self.log.sent.iter().filter(|sent| sent.lane == lane).enumerate() {
            own.sent += 1;
            let at = &mut offered[bucket(sent.at_us)];
            at.sent += 1;
            let carried = self.carried.get(&sent.name).copied();
            let found = carried.and_then(|(height, index)| Some((self.block(height)?, index)));
            let refused = self.refused(sent);
            match &refused {
                Some(reason) => *own.refused.entry(reason.clone()).or_default() += 1,
                None => {
                    own.admitted += 1;
                    offered[bucket(sent.at_us)].admitted += 1;
                }
            }
            let at_listing = listed.get(&sent.name).copied();
            let mut answer = None;
            let mut missed = None;
            if let Some((placed, index)) = found {
                offered[bucket(sent.at_us)].included += 1;
                offered[bucket(placed.final_us)].finalized += 1;
                match &placed.seen.answers.get(index) {
                    Some(Answer::Refused(refusal)) => {
                        own.answered += 1;
                        answer = Some(refusal.to_string());
                    }
                    _ => own.executed += 1,
                }
                if sent.at_us >= warm && sent.at_us <= end {
                    let _ = whole.record(placed.final_us.saturating_sub(sent.at_us).max(1));
                    if let Some(listing) = at_listing {
                        let _ = until.record(listing.saturating_sub(sent.at_us).max(1));
                        let _ = after.record(placed.final_us.saturating_sub(listing).max(1));
                    }
                }
            } else if refused.is_none() {
                own.missing += 1;
            }
            if let Some(listing) = at_listing {
                let height = found.as_ref().map(|(placed, _)| placed.height);
                let misses = self.missed(listing, height, u64::MAX);
                promise.checked += 1;
                promise.worst = promise.worst.max(misses);
                promise.late += u64::from(misses > PROMISED_MISSES);
                missed = Some(misses);
            }
            if place % step == 0 && own.traces.len() < record::MAX_TRACES {
                let at_height = |us: u64| {
                    self.chain.iter().find(|placed| placed.final_us >= us).map(|placed| placed.height)
                };
                own.traces.push(record::Trace {
                    account: sent.name.0.get(),
                    nonce: sent.name.1.get(),
                    kind: sent.kind.to_owned(),
                    helps: sent.helps,
                    to: sent.to,
                    sent_ms: sent.at_us / 1_000,
                    refused,
                    held_ms: sent.held_us.map(|us| us / 1_000),
                    listed_height: at_listing.and_then(at_height),
                    listed_ms: at_listing.map(|us| us / 1_000),
                    height: found.as_ref().map(|(placed, _)| placed.height),
                    final_ms: found.as_ref().map(|(placed, _)| placed.final_us / 1_000),
                    answer,
                    missed_blocks: missed,
                });
            }
        }
        own.offered = thinned(offered);
        (own.latency, own.listing, own.inclusion) = (latency(&whole), latency(&until), latency(&after));
        (own, promise)
    }

    /// Why an action is in no block, if it was not to be in one: its gateway gave it up, or its signer has no token for it.
    fn refused(&self, sent: &sim::Sent) -> Option<String> {
        if self.carried.contains_key(&sent.name) {
            return None;
        }
        let rationed =
            || self.replayed.rationed.contains(&sent.name).then(|| Refusal::NoRescueTokens.to_string());
        sent.refused.clone().or_else(rationed)
    }

    /// Executes the chain again from genesis: value after every block, what liquidation did, and who is rationed.
    fn replay(&self) -> Replayed {
        let mut rationed = BTreeSet::new();
        let mut totals = record::Totals::default();
        let mut broken = Vec::new();
        let mut breaks = 0;
        let mut first: BTreeMap<(AccountId, u64), record::Liquidation> = BTreeMap::new();
        match self.setup.genesis.world() {
            Err(error) => broken.push(format!("genesis does not build again: {error}")),
            Ok(mut world) => {
                for placed in &self.chain {
                    let header = &placed.seen.block.header;
                    let again = world.execute(
                        header.parent,
                        header.height,
                        Brought::by(&placed.seen.block),
                        Purpose::Verify,
                    );
                    match again {
                        Err(invalid) => {
                            broken.push(format!("block {} does not execute again: {invalid}", placed.height));
                            break;
                        }
                        Ok(executed) if executed.step.events() != placed.seen.events => {
                            broken.push(format!(
                                "block {} did something else when executed again",
                                placed.height
                            ));
                        }
                        Ok(_) => {}
                    }
                    if let Err(error) = world.ledger.audit() {
                        breaks += 1;
                        broken.push(format!("after block {}: {error}", placed.height));
                    }
                }
                for sent in self.log.sent.iter().filter(|sent| !self.carried.contains_key(&sent.name)) {
                    let Some(own) = &sent.action else { continue };
                    let next = world.ledger.globals().height.next();
                    if world.ledger.rescue_tokens_at(own.account, next) == 0 {
                        rationed.insert(sent.name);
                    }
                }
            }
        }
        for placed in &self.chain {
            let mut took = |account: AccountId, breached: u64| {
                let liquidation = record::Liquidation {
                    account: account.get(),
                    breached_height: breached,
                    height: placed.height,
                    at_ms: placed.final_us / 1_000,
                };
                first.entry((account, breached)).or_insert(liquidation);
            };
            for event in &placed.seen.events {
                match event {
                    Event::Closing { account, breached, .. } => took(*account, breached.get()),
                    Event::Liquidated(own) => {
                        took(own.account, own.breached.get());
                        totals.penalties_atoms += own.penalty.get();
                        totals.bad_debt_atoms += own.deficit.get();
                    }
                    Event::Deleveraged { gain, .. } => totals.socialised_atoms += (-gain.get()).max(0),
                    Event::Uncovered { amount, .. } => totals.socialised_atoms += amount.get(),
                    _ => {}
                }
            }
        }
        let accounts: BTreeSet<u64> = first.values().map(|own| own.account).collect();
        totals.accounts_liquidated = accounts.len() as u64;
        totals.liquidation_delay_max_blocks =
            first.values().map(|own| own.height.saturating_sub(own.breached_height)).max().unwrap_or(0);
        let mut liquidations: Vec<record::Liquidation> = first.into_values().collect();
        liquidations.sort_by_key(|own| (own.height, own.account));
        Replayed { conservation_breaks: breaks, liquidations, totals, broken, rationed }
    }

    fn network(&self) -> record::Network {
        let (plan, topology) = (&self.setup.plan, &self.setup.topology);
        let liars = plan.byzantine_of();
        let count = plan.validators();
        let validator = |index: usize| record::Validator {
            index,
            place: topology.places[index].clone(),
            byzantine: liars
                .get(&index)
                .into_iter()
                .flatten()
                .map(|own| own.kind.name().to_owned())
                .collect(),
            starts: self.log.starts[index],
        };
        record::Network {
            validators: (0..count).map(validator).collect(),
            quorum: count - self.setup.faulty(),
            faulty: self.setup.faulty(),
            places: topology.places.clone(),
            one_way_ms: topology.one_way_ms.clone(),
            bound_ms: (0..count).map(|leader| topology.bound_ms(leader)).sum::<f64>() / count as f64,
        }
    }

    fn markets(&self) -> Vec<record::Market> {
        let markets = (0..).zip(&self.setup.genesis.ledger.markets).zip(&self.setup.replay.markets);
        markets
            .map(|((market, own), listing)| record::Market {
                market,
                symbol: listing.symbol.clone(),
                atoms_per_tick_lot: own.atoms_per_tick_lot,
                opening_ticks: listing.first_price.get(),
                tiers: own
                    .tiers
                    .iter()
                    .map(|tier| record::Tier {
                        up_to_notional_atoms: tier.up_to_notional.get(),
                        initial_ppm: tier.initial_ppm.get(),
                        maintenance_ppm: tier.maintenance_ppm.get(),
                    })
                    .collect(),
                penalty_ppm: own.liquidation.penalty_ppm.get(),
                taker_fee_ppm: own.taker_fee_ppm.get(),
                backstop_fund_atoms: own.backstop.initial_fund.get(),
            })
            .collect()
    }

    fn accounts(&self) -> Vec<record::Account> {
        (0..)
            .zip(&self.setup.genesis.accounts)
            .map(|(account, own)| record::Account {
                account,
                collateral_atoms: own.collateral.get(),
                positions: own
                    .positions
                    .iter()
                    .map(|position| record::Position {
                        market: position.market.get(),
                        lots: position.lots.get(),
                        cost_atoms: position.cost.get(),
                        isolated_atoms: (position.mode == MarginMode::Isolated)
                            .then_some(position.isolated.get()),
                    })
                    .collect(),
            })
            .collect()
    }

    fn index_prices(&self) -> Vec<record::PricePoint> {
        let (replay, plan) = (&self.setup.replay, &self.setup.plan);
        let mut points = Vec::new();
        let mut last = vec![None; replay.markets.len()];
        for at_ms in (0..=plan.length_ms()).step_by(SAMPLE_MS as usize) {
            for (market, last) in (0..).zip(&mut last) {
                let now = replay.start_ms + at_ms * u64::from(plan.market.speed);
                let ticks = index_price(replay, MarketId(market), now).map(|price| price.get());
                if *last != Some(ticks) {
                    *last = Some(ticks);
                    points.push(record::PricePoint { at_ms, market, ticks });
                }
            }
        }
        points
    }

    fn marks(&self) -> Vec<record::MarkPoint> {
        let all =
            self.chain.iter().flat_map(|placed| placed.seen.marks.iter().map(move |mark| (placed, mark)));
        all.map(|(placed, (market, mark))| {
            let (price, state) = mark.last_known();
            record::MarkPoint {
                at_ms: placed.final_us / 1_000,
                height: placed.height,
                market: market.get(),
                ticks: price.get(),
                state: state.name().to_owned(),
            }
        })
        .collect()
    }

    fn faults(&self) -> Vec<record::Fault> {
        let plan = &self.setup.plan;
        let end = plan.length_ms();
        let mut faults: Vec<record::Fault> = plan
            .fault
            .iter()
            .zip(&self.log.fired)
            .map(|(own, fired)| {
                let validators = plan.who(&own.who);
                record::Fault {
                    kind: own.kind.name().to_owned(),
                    what: own.who.region.clone().map_or_else(
                        || format!("{} of validators {validators:?}", own.kind.name()),
                        |region| format!("{} of {region}", own.kind.name()),
                    ),
                    validators,
                    from_ms: own.at_ms,
                    until_ms: own.until_ms.unwrap_or(end),
                    // A clock is wrong wherever its owner is heard.
                    fired: if own.kind == crate::scenario::FaultKind::ClockSkew {
                        self.heard_from(&plan.who(&own.who))
                    } else {
                        *fired
                    },
                }
            })
            .collect();
        for (own, fired) in plan.byzantine.iter().zip(&self.log.byzantine_fired) {
            let fired = match own.kind {
                ByzantineKind::Censor => self.left_out(own),
                ByzantineKind::LiePrice | ByzantineKind::LieTime => self.heard_from(&own.validators),
                _ => *fired,
            };
            faults.push(record::Fault {
                kind: own.kind.name().to_owned(),
                validators: own.validators.clone(),
                what: format!("validators {:?}: {}", own.validators, own.kind.name()),
                from_ms: 0,
                until_ms: end,
                fired,
            });
        }
        faults
    }

    /// Observations of these members in final blocks.
    fn heard_from(&self, members: &[usize]) -> u64 {
        let all = self.chain.iter().flat_map(|placed| &placed.seen.block.body.observations);
        all.filter(|own| members.contains(&usize::from(own.author.get()))).count() as u64
    }

    /// How often a rescue of a censored account waited while a censor led a block without it.
    fn left_out(&self, own: &crate::scenario::ByzantinePlan) -> u64 {
        let accounts = censored(&self.setup.plan, own);
        let ours = self
            .log
            .sent
            .iter()
            .filter(|sent| sent.lane == LaneName::Rescue && accounts.contains(&sent.name.0.get()));
        ours.map(|sent| self.by_censors(sent, &own.validators)).sum()
    }

    fn by_censors(&self, sent: &sim::Sent, censors: &[usize]) -> u64 {
        let height = self.carried.get(&sent.name).map_or(u64::MAX, |(height, _)| *height);
        let later = self.chain.iter().filter(|placed| placed.begun_us > sent.at_us && placed.height < height);
        later.filter(|placed| censors.contains(&self.leader(placed.seen))).count() as u64
    }

    /// Most blocks that left a censored account's rescue out after it was sent.
    fn censored_blocks(&self) -> Option<u64> {
        let plan = &self.setup.plan;
        let censors = plan.byzantine.iter().filter(|own| own.kind == ByzantineKind::Censor);
        let accounts: BTreeSet<u64> = censors.flat_map(|own| censored(plan, own)).collect();
        let ours = self.log.sent.iter().filter(|sent| {
            sent.lane == LaneName::Rescue
                && self.refused(sent).is_none()
                && accounts.contains(&sent.name.0.get())
        });
        ours.map(|sent| {
            let height = self.carried.get(&sent.name).map(|(height, _)| *height);
            self.missed(sent.at_us, height, u64::MAX)
        })
        .max()
    }

    fn heals(&self) -> Vec<record::Heal> {
        let plan = &self.setup.plan;
        let mut heals = Vec::new();
        for own in plan.fault.iter().filter(|own| own.kind != crate::scenario::FaultKind::ClockSkew) {
            let Some(until) = own.until_ms.filter(|until| *until < plan.length_ms()) else { continue };
            let (from_us, until_us) = (own.at_ms * 1_000, until * 1_000);
            // A block whose leader began it before the heal says nothing of the time after.
            let back = self
                .chain
                .iter()
                .filter(|placed| placed.begun_us >= until_us)
                .map(|placed| placed.final_us)
                .min();
            let during =
                self.chain.iter().filter(|placed| placed.begun_us > from_us && placed.final_us < until_us);
            heals.push(record::Heal {
                what: own.kind.name().to_owned(),
                at_ms: until,
                finality_after_ms: back.map(|at| at.saturating_sub(until_us) / 1_000),
                was_halted: during.count() == 0,
            });
        }
        heals
    }
}

#[derive(Default)]
struct Promise {
    checked: u64,
    late: u64,
    worst: u64,
}

/// What of a run the criteria need beside its record.
pub struct Extra {
    /// Most blocks that left a censored account's rescue out.
    pub censored_blocks: Option<u64>,
}

impl Judge<'_> {
    /// What the record does not say.
    pub fn extra(&self) -> Extra {
        Extra { censored_blocks: self.censored_blocks() }
    }
}

fn held(
    name: &str,
    claim: &str,
    unit: &str,
    measured: Option<f64>,
    limit: f64,
    direction: Direction,
) -> Criterion {
    let met = measured.is_some_and(|measured| match direction {
        Direction::AtMost => measured <= limit,
        Direction::AtLeast => measured >= limit,
    });
    Criterion {
        name: name.to_owned(),
        claim: claim.to_owned(),
        measured,
        limit,
        direction,
        unit: unit.to_owned(),
        met,
        detail: if measured.is_none() { "there was nothing to measure".into() } else { String::new() },
    }
}

/// Every criterion over all runs: what every storm demands, then the scenario's own.
pub fn criteria(scenario: &Scenario, runs: &[record::Run], extras: &[Extra]) -> Vec<Criterion> {
    use Direction::{AtLeast, AtMost};
    let own = &scenario.plan.criteria;
    let sum = |of: &dyn Fn(&record::Run) -> u64| Some(runs.iter().map(of).sum::<u64>() as f64);
    let most = |of: &dyn Fn(&record::Run) -> Option<f64>| runs.iter().filter_map(of).reduce(f64::max);
    let mut all = vec![
        held(
            "forks",
            "no two validators made different blocks of a height final",
            "blocks",
            sum(&|run| run.safety.forks),
            0.0,
            AtMost,
        ),
        held(
            "conservation",
            "value is conserved to the last atom after every block",
            "blocks",
            sum(&|run| run.safety.conservation_breaks),
            0.0,
            AtMost,
        ),
        held(
            "stale_price_liquidations",
            "nobody is liquidated at a price that is not fresh",
            "actions",
            sum(&|run| run.safety.stale_price_liquidations),
            0.0,
            AtMost,
        ),
        held(
            "p1",
            "a rescue that f+1 honest members list is in every block after at most two beyond those in flight",
            "actions",
            sum(&|run| run.safety.p1_late),
            0.0,
            AtMost,
        ),
        held(
            "validators",
            "no validator broke down or told of something wrong",
            "actions",
            sum(&|run| run.safety.faults.len() as u64),
            0.0,
            AtMost,
        ),
    ];
    if let Some(criterion) = all.last_mut() {
        let told: Vec<&str> =
            runs.iter().flat_map(|run| &run.safety.faults).map(String::as_str).take(3).collect();
        criterion.detail = told.join("; ");
    }
    if runs.iter().any(|run| !run.faults.is_empty()) {
        let idle: Vec<&str> = runs
            .iter()
            .flat_map(|run| &run.faults)
            .filter(|fault| fault.fired == 0)
            .map(|fault| fault.what.as_str())
            .collect();
        let mut fired = held(
            "faults_fired",
            "every fault of the scenario did something",
            "actions",
            Some(idle.len() as f64),
            0.0,
            AtMost,
        );
        fired.detail = idle.join("; ");
        all.push(fired);
    }
    if runs.iter().any(|run| !run.heals.is_empty()) {
        let never = runs.iter().flat_map(|run| &run.heals).any(|heal| heal.finality_after_ms.is_none());
        let slowest =
            most(&|run| run.heals.iter().filter_map(|heal| heal.finality_after_ms).max().map(|ms| ms as f64));
        let measured = if never { None } else { slowest };
        let mut back = held(
            "recovery",
            "blocks are final again after each heal",
            "ms",
            measured,
            own.recovery_ms.unwrap_or(RECOVERY_MS),
            AtMost,
        );
        if never {
            back.detail = "after a heal no block became final".into();
        }
        all.push(back);
    }
    let rescue_p99 =
        |run: &record::Run| (run.lanes.rescue.latency.count > 0).then_some(run.lanes.rescue.latency.p99_ms);
    if let Some(limit) = own.rescue_p99_ms {
        all.push(held(
            "rescue_p99_ms",
            "99 of 100 rescues are final in time, from sending",
            "ms",
            most(&rescue_p99),
            limit,
            AtMost,
        ));
    }
    if let Some(limit) = own.rescue_p99_growth {
        let ends =
            runs.first().zip(runs.last()).and_then(|(low, high)| Some(rescue_p99(high)? / rescue_p99(low)?));
        all.push(held(
            "rescue_p99_growth",
            "rescues do not feel the load of trades: p99 at the most by that at the least",
            "ratio",
            ends,
            limit,
            AtMost,
        ));
    }
    if let Some(limit) = own.rescues_missing {
        all.push(held(
            "rescues_missing",
            "every rescue that was admitted is in a final block",
            "actions",
            sum(&|run| run.lanes.rescue.missing),
            limit as f64,
            AtMost,
        ));
    }
    let goodput =
        |run: &record::Run| run.lanes.trade.executed as f64 * 1e3 / scenario.plan.duration_ms as f64;
    if let Some(limit) = own.goodput_at_ten {
        let peak = runs.iter().map(goodput).reduce(f64::max).filter(|peak| *peak > 0.0);
        let at_ten = runs.iter().find(|run| run.offered_multiple.is_some_and(|multiple| multiple >= 10.0));
        let share = at_ten.zip(peak).map(|(run, peak)| goodput(run) / peak);
        all.push(held(
            "goodput_at_ten",
            "overload takes nothing from what trades get through",
            "share",
            share,
            limit,
            AtLeast,
        ));
    }
    if let Some(limit) = own.goodput {
        let least = runs.iter().map(|run| goodput(run) / run.capacity.actions_per_second).reduce(f64::min);
        all.push(held("goodput", "trades executed by the capacity", "share", least, limit, AtLeast));
    }
    if let Some(limit) = own.finality_p99_ms {
        let slowest = most(&|run| Some(run.totals.finality_p99_ms as f64).filter(|_| run.totals.blocks > 0));
        all.push(held(
            "finality_p99_ms",
            "99 of 100 blocks are final in time, from the leader's beginning",
            "ms",
            slowest,
            limit,
            AtMost,
        ));
    }
    if let Some(limit) = own.longest_gap_ms {
        all.push(held(
            "longest_gap_ms",
            "the chain never stands still for longer",
            "ms",
            most(&|run| Some(run.totals.longest_gap_ms as f64)),
            limit,
            AtMost,
        ));
    }
    if let Some(limit) = own.liquidation_delay_blocks {
        all.push(held(
            "liquidation_delay_blocks",
            "accounts in breach are taken hold of at once",
            "blocks",
            most(&|run| Some(run.totals.liquidation_delay_max_blocks as f64)),
            limit as f64,
            AtMost,
        ));
    }
    if let Some(limit) = own.liquidated_at_least {
        let least = runs.iter().map(|run| run.totals.accounts_liquidated as f64).reduce(f64::min);
        all.push(held(
            "liquidated_at_least",
            "enough accounts are liquidated for the storm to say something",
            "actions",
            least,
            limit as f64,
            AtLeast,
        ));
    }
    if let Some(limit) = own.socialised_share {
        let share = |run: &record::Run| {
            let positions = |account: &record::Account| {
                account.positions.iter().filter_map(|own| own.isolated_atoms).sum::<i128>()
            };
            let all: i128 =
                run.book.iter().map(|account| account.collateral_atoms + positions(account)).sum();
            (all > 0).then(|| run.totals.socialised_atoms as f64 / all as f64)
        };
        all.push(held(
            "socialised_share",
            "others pay little of the losses",
            "share",
            most(&share),
            limit,
            AtMost,
        ));
    }
    if let Some(limit) = own.censored_blocks {
        let worst = extras.iter().filter_map(|extra| extra.censored_blocks).max().map(|blocks| blocks as f64);
        all.push(held(
            "censored_blocks",
            "a censored rescue is left out of few blocks, whoever leads",
            "blocks",
            worst,
            limit as f64,
            AtMost,
        ));
    }
    all
}

/// Whether all are met.
pub fn verdict(criteria: &[Criterion]) -> Verdict {
    if criteria.iter().all(|criterion| criterion.met) { Verdict::Held } else { Verdict::NotHeld }
}

/// What every reader of a record has to know.
pub fn caveats(scenario: &Scenario) -> Vec<String> {
    let plan = &scenario.plan;
    let mut all = vec![
        "The network, time and disks are simulated; validators are the ones that run in production. Work is charged from a calibration of one machine.".to_owned(),
        "The time from a user to the gateway, and gateways themselves, are not simulated.".to_owned(),
        "The opening book and what users send are synthetic, drawn from the seed.".to_owned(),
    ];
    if plan.capacity.slowdown > 1.0 {
        all.push(format!(
            "Checks and executions take {} times as long as calibrated, and queues and pools are as many times smaller, so that overload is cheap to simulate. Votes, certificates and disk are as calibrated.",
            plan.capacity.slowdown
        ));
    }
    let leader_ms = plan.network.leader_timeout_ms;
    if leader_ms != crate::scenario::PRODUCTION_LEADER_MS {
        all.push(format!(
            "A leader has {leader_ms} ms to propose, where production has {} ms by default; other timeouts are in proportion.",
            crate::scenario::PRODUCTION_LEADER_MS
        ));
    }
    if plan.market.synthetic.is_some() {
        all.push("The price path has a stated shape; it is no recording.".to_owned());
    }
    if plan.market.speed > 1 {
        all.push(format!("Chain time passes {} times as fast as virtual time.", plan.market.speed));
    }
    all
}

/// Finishes a record: its digest is over everything but the real time that it took.
pub fn seal(mut record: Record) -> Record {
    let wall_ms = std::mem::take(&mut record.wall_ms);
    record.digest = String::new();
    let json = serde_json::to_vec(&record).expect("a record is plain data");
    record.digest = hex(&seawall_chain::crypto::sha256_digest(&[&json]).0);
    record.wall_ms = wall_ms;
    record
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
