//! Orders through one validator: what the processor spends on them from their bytes to the state root.
//!
//! Accounts have some orders resting in ten markets each. A block brings requests in signed actions of as many as
//! `batch`: 45 % cancel resting orders of an account, the oldest first, half of them by its own names; 45 % place orders
//! that rest up to 200 ticks behind the middle; 10 % place immediate ones that reach five ticks beyond it. The same mix
//! as in [`flow`](crate::flow), but by account.
//!
//! What is counted is the time of all threads of this process in what a validator does with a block that somebody
//! else built: decoding its actions; their signatures in one batch; execution, in which orders are checked and
//! reserved and the auctions of two blocks before are settled; the auctions of the block before, with the
//! digests that are attested; the authenticated writes with their root, and the batch applied in memory. Consensus,
//! the network and the disk are not in it.

use crate::{
    chain::{CHAIN, PRICE, genesis, observe, signed},
    clock::process_seconds,
};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, tokio};
use commonware_storage::qmdb::floor::Proportional;
use indicatif::ProgressBar;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use seawall_chain::{
    app::add_actions,
    block::outcome_digest,
    committee::Committee,
    crypto::{Batch, Identity},
    machine::{Answer, Brought, Purpose, World},
    store::{self, Db},
    zones::Solo,
};
use seawall_ledger::{Ledger, Receipt};
use seawall_types::{
    AccountId, Action, Body, Cloid, Digest, GroupSignature, Height, Kind, Lots, MarketId, Name, OrderId,
    ParentProof, PriceTicks, Side, SignedAction, Terms, ZoneOutcome,
    limits::{MAX_ACTIONS_PER_BLOCK, MAX_ORDERS_PER_ACTION},
};
use serde::Serialize;
use std::{collections::BTreeSet, fmt};

/// The zone of all markets.
const ZONE: u8 = 0;
/// Markets in which there are orders.
const MARKETS: u16 = 10;
/// Blocks before the first that counts.
const WARM_UP: usize = 3;
/// Ticks between the middle and the last order behind it.
const DEPTH: u64 = 200;
/// Ticks beyond the middle that an immediate order reaches.
const REACH: u64 = 5;
/// Marks of all markets go through so many prices, by a tick with every block: whoever has orders is looked at again.
const MOVES: u64 = 4;
/// Lots of the largest order that rests.
const LOTS: i64 = 100;
/// Accounts that are tried for one that has enough to cancel, before something is placed instead.
const MAX_TRIES: usize = 100;

/// What is run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spec {
    /// Accounts.
    pub accounts: u64,
    /// Orders that each of them has resting before the first block that counts.
    pub resting: u32,
    /// Orders that a block places or cancels.
    pub requests: u32,
    /// Of them, those under one signature.
    pub batch: u32,
    /// Blocks that count.
    pub blocks: usize,
}

/// Where the time of a block goes, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    decode: f64,
    signatures: f64,
    execute: f64,
    auction: f64,
    root: f64,
}

impl Times {
    fn total(&self) -> f64 {
        self.decode + self.signatures + self.execute + self.auction + self.root
    }
}

/// Microseconds of one core for a request, in the median block of each part.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Costs {
    /// Decoding.
    pub decode_us: f64,
    /// Signatures.
    pub signatures_us: f64,
    /// Checks and reservations, and settling the outcome.
    pub execute_us: f64,
    /// The auctions and the digests of their outcomes.
    pub auction_us: f64,
    /// The writes and the root.
    pub root_us: f64,
    /// All, in the median block.
    pub total_us: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of what.
    pub spec: Spec,
    /// Open orders after the last block.
    pub open: u64,
    /// Requests, of all blocks that count.
    pub requests: u64,
    /// Of them, those that were refused.
    pub refused: u64,
    /// Fills that were settled.
    pub fills: u64,
    /// Records written a block, in the last one.
    pub writes: usize,
    /// What a request costs.
    pub costs: Costs,
    /// Requests a second of one core, in the median block.
    pub per_core_second: u64,
}

/// Who asks for what.
struct Traders {
    rng: ChaCha20Rng,
    spec: Spec,
    /// Nonces and own names used so far.
    used: u64,
}

impl Traders {
    fn account(&mut self) -> AccountId {
        AccountId(self.rng.random_range(1..=self.spec.accounts))
    }

    fn terms(&mut self, immediate: bool) -> Terms {
        self.used += 1;
        let side = if self.rng.random() { Side::Buy } else { Side::Sell };
        let away = 1 + self.rng.random_range(0..DEPTH) * self.rng.random_range(0..DEPTH) / DEPTH;
        let lots = self.rng.random_range(1..=LOTS);
        let limit = match (side, immediate) {
            (Side::Buy, false) => PRICE.get() - away,
            (Side::Sell, false) => PRICE.get() + away,
            (Side::Buy, true) => PRICE.get() + REACH,
            (Side::Sell, true) => PRICE.get() - REACH,
        };
        Terms {
            market: MarketId(self.rng.random_range(0..MARKETS)),
            side,
            limit: PriceTicks(limit),
            lots: Lots(lots),
            kind: if immediate { Kind::Ioc } else { Kind::Limit },
            reduce_only: false,
            good_til: None,
            cloid: Some(Cloid(self.used)),
        }
    }

    fn places(&mut self, count: u32, immediate: bool) -> Action {
        match count {
            1 => Action::Place(self.terms(immediate)),
            _ => Action::PlaceMany((0..count).map(|_| self.terms(immediate)).collect()),
        }
    }

    /// Somebody who has not cancelled in this block, and names of orders, none of which is `gone` by then.
    fn cancels(
        &mut self,
        ledger: &Ledger,
        count: u32,
        gone: &BTreeSet<OrderId>,
        done: &mut BTreeSet<AccountId>,
    ) -> Option<(AccountId, Action)> {
        for _ in 0..MAX_TRIES {
            let account = self.account();
            if done.contains(&account) {
                continue;
            }
            let open = ledger
                .orders_of(account)
                .filter(|(id, order)| order.leaving.is_none() && !order.ended && !gone.contains(id));
            let names: Vec<_> = open
                .take(count as usize)
                .map(|(id, order)| match order.terms.cloid {
                    Some(cloid) if cloid.0 % 2 == 0 => (order.terms.market, Name::Cloid(cloid)),
                    _ => (order.terms.market, Name::Id(id)),
                })
                .collect();
            if names.len() < count as usize {
                continue;
            }
            done.insert(account);
            let action = match names[..] {
                [(market, order)] => Action::Cancel { market, order },
                _ => Action::CancelMany(names),
            };
            return Some((account, action));
        }
        None
    }

    /// The actions of the next block, and how many orders they name.
    fn block(&mut self, validator: &Validator) -> (Vec<SignedAction>, u64) {
        let Spec { requests, batch, .. } = self.spec;
        let (ledger, height) = (&validator.world.ledger, validator.height.next());
        let settled = validator.computed.iter().flat_map(|own| &own.outcome.markets);
        let gone = settled.flat_map(|market| &market.ends).map(|end| end.order).collect();
        let (mut actions, mut named, mut done) = (Vec::new(), 0, BTreeSet::new());
        while named < requests {
            let count = batch.min(requests - named);
            named += count;
            let kind = self.rng.random_range(0..100);
            let cancels = if kind < 45 { self.cancels(ledger, count, &gone, &mut done) } else { None };
            let (account, action) = match cancels {
                Some(own) => own,
                None => (self.account(), self.places(count, kind >= 90)),
            };
            self.used += 1;
            actions.push(signed(account, self.used, height.get(), action));
        }
        (actions, named.into())
    }

    /// What rests before the first block that counts, one part of the accounts a block.
    fn seed(&mut self, accounts: impl Iterator<Item = u64>, height: Height) -> Vec<SignedAction> {
        let mut actions = Vec::new();
        for account in accounts {
            for count in parts(self.spec.resting) {
                let action = Action::PlaceMany((0..count).map(|_| self.terms(false)).collect());
                self.used += 1;
                actions.push(signed(AccountId(account), self.used, height.get(), action));
            }
        }
        actions
    }
}

/// A number in parts that one action can name.
fn parts(count: u32) -> impl Iterator<Item = u32> {
    let most = MAX_ORDERS_PER_ACTION as u32;
    (0..count.div_ceil(most)).map(move |part| most.min(count - part * most))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// What happened in a block.
struct Played {
    times: Times,
    refused: u64,
    fills: u64,
    writes: usize,
}

type Store = Db<tokio::Context, Sequential>;

/// A validator that takes one block after the other.
struct Validator {
    world: World,
    zone: Solo,
    /// What the zone has computed and no block has settled.
    computed: Vec<ZoneOutcome>,
    parent: Digest,
    height: Height,
    identity: Identity,
    rng: ChaCha20Rng,
}

impl Validator {
    /// Takes a block with these actions. Returns the state's new part as well.
    async fn play(&mut self, db: Store, actions: Vec<SignedAction>) -> anyhow::Result<(Played, Store)> {
        let height = self.height.next();
        let parent_proof = (height.get() > 1)
            .then(|| ParentProof { finalized: false, signature: GroupSignature([height.get() as u8; 48]) });
        let price = PriceTicks(PRICE.get() + height.get() % MOVES);
        let observations = vec![observe(&self.identity, height.get(), price)];
        let outcomes = std::mem::take(&mut self.computed);
        let bytes = Body { observations, actions, parent_proof, outcomes }.encode();
        let mut times = Times::default();

        let begun = process_seconds();
        let Body { observations, actions, parent_proof, outcomes } = Body::decode(bytes)?;
        times.decode = process_seconds() - begun;

        let begun = process_seconds();
        let mut batch = Batch::new(CHAIN);
        let ledger = &self.world.ledger;
        add_actions(&mut batch, CHAIN, &actions, |account| ledger.owner(account).copied())
            .map_err(|refusal| anyhow::anyhow!("a drawn action is refused: {refusal}"))?;
        anyhow::ensure!(batch.verify(&mut self.rng, &Sequential), "a drawn signature is bad");
        times.signatures = process_seconds() - begun;

        let begun = process_seconds();
        let attested: Vec<_> = outcomes.iter().map(outcome_digest).collect();
        std::hint::black_box(attested);
        let brought = Brought { time: None, observations, parent_proof, outcomes, actions };
        let executed = self
            .world
            .execute(self.parent, height, brought, Purpose::Verify)
            .map_err(|invalid| anyhow::anyhow!("block {height} is invalid: {invalid}"))?;
        times.execute = process_seconds() - begun;
        let step = executed.step;

        let begun = process_seconds();
        let mut batch = db.new_batch();
        let records = step.writes();
        let writes = records.len();
        for (key, value) in records {
            batch = batch.write(key, value);
        }
        let merkleized =
            batch.merkleize(&db, None, &mut Proportional).await.map_err(store::StoreError::database)?;
        self.parent = Digest(merkleized.root().0);
        let db = db.apply_batch(merkleized).await.map_err(store::StoreError::database)?;
        times.root = process_seconds() - begun;

        let begun = process_seconds();
        self.zone.finalized(&step);
        self.computed = self.zone.outcomes();
        let own: Vec<_> = self.computed.iter().map(outcome_digest).collect();
        std::hint::black_box(own);
        times.auction = process_seconds() - begun;

        anyhow::ensure!(
            step.voided.is_empty(),
            "an inbox of block {height} was too large to be settled in time"
        );
        self.height = height;
        let refused = step.answers.iter().map(refusals).sum();
        let fills = step.settled.iter().map(|own| own.report.fills.len() as u64).sum();
        Ok((Played { times, refused, fills, writes }, db))
    }
}

/// How many of the orders that an action names are refused.
fn refusals(answer: &Answer) -> u64 {
    let count = match answer {
        Answer::Done(Receipt::PlacedMany(statuses)) => statuses.iter().filter(Result::is_err).count(),
        Answer::Done(Receipt::CancellingMany { verdicts, .. }) => {
            verdicts.iter().filter(Result::is_err).count()
        }
        Answer::Done(_) => 0,
        Answer::Refused(_) => 1,
    };
    count as u64
}

/// Runs it.
///
/// # Errors
/// If the numbers do not fit a block, the store cannot be written, or a block does not execute.
pub fn run(spec: &Spec, progress: &ProgressBar) -> anyhow::Result<Report> {
    let spec = *spec;
    anyhow::ensure!(
        (1..=MAX_ACTIONS_PER_BLOCK as u32).contains(&spec.requests),
        "a block takes 1 to {MAX_ACTIONS_PER_BLOCK} requests"
    );
    anyhow::ensure!(
        (1..=MAX_ORDERS_PER_ACTION as u32).contains(&spec.batch),
        "an action takes 1 to {MAX_ORDERS_PER_ACTION} requests"
    );
    anyhow::ensure!(spec.blocks > 0 && spec.accounts >= 2, "there is nothing to measure");
    let directory = tempfile::tempdir()?;
    let config = tokio::Config::new().with_storage_directory(directory.path()).with_worker_threads(1);
    tokio::Runner::new(config).start(|context| async move {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        progress.set_message("deriving keys and the genesis state");
        let (genesis, dealt) = genesis(1, spec.accounts, &mut rng)?;
        let committee: Committee = genesis.committee();
        anyhow::ensure!(committee.len() == 1 && dealt.members.len() == 1, "one validator observes for all");
        let world: World = genesis.world()?;
        progress.set_message("seeding the store");
        let cache = store::page_cache_of(store::VALIDATOR_CACHE_PAGES);
        let config = || store::config("bench", Sequential, cache.clone());
        store::seed(context.child("seed"), config(), world.records()).await?;
        let mut db = Db::<_, Sequential>::init(context.child("store"), config(), None)
            .await
            .map_err(store::StoreError::database)?;
        let zone = Solo::rebuild(&world.ledger, ZONE).ok_or_else(|| anyhow::anyhow!("no zone {ZONE}"))?;
        let mut traders = Traders { rng: ChaCha20Rng::seed_from_u64(2), spec, used: 0 };
        let mut validator = Validator {
            world,
            zone,
            computed: Vec::new(),
            parent: Digest::default(),
            height: Height(0),
            identity: dealt.members[0].0.clone(),
            rng,
        };
        let weight = u64::from(spec.resting.max(1));
        let chunk = (MAX_ACTIONS_PER_BLOCK as u64 / weight).max(1);
        let mut first = 1;
        while spec.resting > 0 && first <= spec.accounts {
            progress.set_message(format!("orders of account {first} of {}", spec.accounts));
            let last = spec.accounts.min(first + chunk - 1);
            let actions = traders.seed(first..=last, validator.height.next());
            (_, db) = validator.play(db, actions).await?;
            first = last + 1;
        }
        let (mut times, mut requests, mut refused, mut fills, mut writes) = (Vec::new(), 0, 0, 0, 0);
        for block in 0..WARM_UP + spec.blocks {
            progress.set_message(format!("block {} of {}", block + 1, WARM_UP + spec.blocks));
            let (actions, named) = traders.block(&validator);
            let played;
            (played, db) = validator.play(db, actions).await?;
            if block >= WARM_UP {
                times.push(played.times);
                requests += named;
                refused += played.refused;
                fills += played.fills;
                writes = played.writes;
            }
        }
        let ledger = &validator.world.ledger;
        anyhow::ensure!(ledger.audit().is_ok(), "the ledger does not add up");
        let each = |part: fn(&Times) -> f64| {
            median(times.iter().map(|times| part(times) * 1e6 / f64::from(spec.requests)).collect())
        };
        let costs = Costs {
            decode_us: each(|times| times.decode),
            signatures_us: each(|times| times.signatures),
            execute_us: each(|times| times.execute),
            auction_us: each(|times| times.auction),
            root_us: each(|times| times.root),
            total_us: each(Times::total),
        };
        Ok(Report {
            spec,
            open: ledger.open_orders().count() as u64,
            requests,
            refused,
            fills,
            writes,
            costs,
            per_core_second: (1e6 / costs.total_us) as u64,
        })
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["one order, placed or cancelled", "µs of one core"]);
        let costs = &self.costs;
        for (name, cost) in [
            ("decoding", costs.decode_us),
            ("signatures, one batch", costs.signatures_us),
            ("checks, reservations, settlement", costs.execute_us),
            ("auctions and digests of outcomes", costs.auction_us),
            ("authenticated writes and root", costs.root_us),
            ("all", costs.total_us),
        ] {
            table.add_row([name.to_owned(), format!("{cost:.2}")]);
        }
        let Spec { accounts, requests, batch, blocks, .. } = self.spec;
        writeln!(
            f,
            "{requests} orders a block, {batch} under one signature, of {accounts} accounts; {blocks} blocks; {} open",
            self.open
        )?;
        writeln!(
            f,
            "{:.1} % of them cancelled, placed and refused: {}; fills for each hundred: {:.1}; {} records written a block",
            100.0 * self.refused as f64 / self.requests as f64,
            self.refused,
            100.0 * self.fills as f64 / self.requests as f64,
            self.writes
        )?;
        writeln!(f, "{table}")?;
        write!(
            f,
            "{} orders a second of one core (without consensus, network and disk)",
            self.per_core_second
        )
    }
}
