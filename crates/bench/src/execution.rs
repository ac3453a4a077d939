//! Execution and state root of full blocks over many accounts.
//!
//! Each block holds as many deposits, transfers, fills and withdrawals, of accounts drawn uniformly. What is
//! timed is what a validator does between a block's arrival and its vote, on one thread, with the state warm:
//! the signatures in one batch; execution on the ledger in memory; the writes to the authenticated store and
//! its root. Writing to disk comes after finality, is not on that path, and is not timed.

use crate::chain::{CHAIN, ISSUER, MARKETS, PRICE, genesis, observe, owner, signed};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, tokio};
use commonware_storage::qmdb::floor::Proportional;
use indicatif::ProgressBar;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use seawall_chain::{
    app::add_actions,
    committee::Committee,
    crypto::Batch,
    machine::{Answer, Brought, Purpose, World},
    store::{self, Db},
};
use seawall_types::{
    AccountId, Action, Atoms, Digest, Domain, Height, Lots, MarketId, Nonce, Quote, Recipient, Side,
    SignedAction,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Instant};

/// Blocks before the first that counts.
const WARM_UP: usize = 2;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Accounts with two positions each.
    pub accounts: u64,
    /// Actions a block, a quarter of each kind.
    pub actions: u64,
    /// Blocks that count.
    pub blocks: usize,
}

/// Milliseconds of the blocks that count.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Fastest block.
    pub min: f64,
    /// Median block.
    pub median: f64,
    /// Slowest block.
    pub max: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Accounts.
    pub accounts: u64,
    /// Actions a block.
    pub actions: u64,
    /// Signatures a block: a fill has two.
    pub signatures: usize,
    /// Blocks that count.
    pub blocks: usize,
    /// Records written a block, in the median block.
    pub writes: usize,
    /// Execution on the ledger.
    pub execute_ms: Spread,
    /// Encoding, authenticated writes and root.
    pub root_ms: Spread,
    /// Both.
    pub total_ms: Spread,
    /// Signatures, checked in one batch.
    pub signatures_ms: Spread,
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    Spread { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A block's actions: rescues first, as in a block.
fn draw(rng: &mut ChaCha20Rng, spec: &Spec, height: u64) -> Vec<SignedAction> {
    let quarter = spec.actions / 4;
    let mut issued = 0;
    let mut used: BTreeMap<AccountId, u64> = BTreeMap::new();
    let mut any = |rng: &mut ChaCha20Rng| {
        let account = AccountId(rng.random_range(1..=spec.accounts));
        let count = used.entry(account).or_default();
        *count += 1;
        (account, height << 16 | *count)
    };
    let mut actions = Vec::with_capacity(spec.actions as usize);
    for _ in 0..quarter {
        issued += 1;
        let (to, _) = any(rng);
        let deposit = Action::Deposit { to, amount: Atoms(1_000_000) };
        actions.push(signed(ISSUER, height << 16 | issued, height, deposit));
    }
    for _ in 0..quarter {
        let ((from, nonce), (to, _)) = (any(rng), any(rng));
        if from != to {
            actions.push(signed(from, nonce, height, Action::Transfer { to, amount: Atoms(1_000) }));
        }
    }
    for _ in 0..quarter {
        let ((taker, taker_nonce), (maker, maker_nonce)) = (any(rng), any(rng));
        if taker == maker {
            continue;
        }
        let quote = Quote {
            chain: CHAIN,
            maker,
            taker,
            market: MarketId(rng.random_range(0..MARKETS)),
            side: if rng.random() { Side::Buy } else { Side::Sell },
            price: PRICE,
            lots: Lots(10),
            nonce: Nonce(maker_nonce),
            expiry: Height(height + 8),
        };
        let quote_signature = owner(maker).sign(Domain::Quote, CHAIN, &quote.message());
        let fill = Action::Fill { quote, quote_signature, lots: Lots(10) };
        actions.push(signed(taker, taker_nonce, height, fill));
    }
    for _ in 0..quarter {
        let (account, nonce) = any(rng);
        let withdraw = Action::Withdraw { amount: Atoms(1_000), recipient: Recipient([7; 32]) };
        actions.push(signed(account, nonce, height, withdraw));
    }
    // As in a block: rescues in their order, then trades.
    actions.sort_by_key(|action| (action.action.lane(), action.rescue_order()));
    actions
}

/// Runs it.
///
/// # Errors
/// If the store cannot be written, or a block does not execute.
pub fn run(spec: &Spec, progress: &ProgressBar) -> anyhow::Result<Report> {
    let directory = tempfile::tempdir()?;
    let config = tokio::Config::new().with_storage_directory(directory.path()).with_worker_threads(1);
    tokio::Runner::new(config).start(|context| async move {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        progress.set_message("deriving keys and the genesis state");
        let (genesis, dealt) = genesis(1, spec.accounts, &mut rng)?;
        let identity = &dealt.members[0].0;
        let committee: Committee = genesis.committee();
        let mut world: World = genesis.world()?;
        progress.set_message("seeding the store");
        let cache = store::page_cache_of(store::VALIDATOR_CACHE_PAGES);
        let config = || store::config("bench", Sequential, cache.clone());
        store::seed(context.child("seed"), config(), world.records()).await?;
        let mut db = Db::<_, Sequential>::init(context.child("store"), config(), None)
            .await
            .map_err(store::StoreError::database)?;
        let (mut execute, mut root, mut total, mut checks) = (vec![], vec![], vec![], vec![]);
        let (mut signatures, mut writes) = (0, 0);
        let mut parent = Digest::default();
        for block in 0..WARM_UP + spec.blocks {
            progress.set_message(format!("block {} of {}", block + 1, WARM_UP + spec.blocks));
            let height = block as u64 + 1;
            let observations = [observe(identity, height, PRICE)];
            let actions = draw(&mut rng, spec, height);

            let begun = Instant::now();
            let mut batch = Batch::new(CHAIN);
            add_actions(&mut batch, CHAIN, &actions, |account| world.ledger.owner(account).copied())
                .map_err(|refusal| anyhow::anyhow!("a drawn action is refused: {refusal}"))?;
            anyhow::ensure!(batch.verify(&mut rng, &Sequential), "a drawn signature is bad");
            let checked = ms(begun);
            signatures = batch.len();

            let brought = Brought { observations: observations.to_vec(), actions, ..Brought::default() };
            let begun = Instant::now();
            let executed = world
                .execute(parent, Height(height), brought, Purpose::Verify)
                .map_err(|invalid| anyhow::anyhow!("block {height} is invalid: {invalid}"))?;
            let executed_ms = ms(begun);
            let refused =
                executed.step.answers.iter().filter(|answer| !matches!(answer, Answer::Done(_))).count();
            anyhow::ensure!(refused == 0, "{refused} drawn actions are refused");

            let begun = Instant::now();
            let mut batch = db.new_batch();
            let records = executed.step.writes();
            writes = records.len();
            for (key, value) in records {
                batch = batch.write(key, value);
            }
            let merkleized =
                batch.merkleize(&db, None, &mut Proportional).await.map_err(store::StoreError::database)?;
            parent = Digest(merkleized.root().0);
            let root_ms = ms(begun);

            db = db.apply_batch(merkleized).await.map_err(store::StoreError::database)?;
            if block >= WARM_UP {
                execute.push(executed_ms);
                root.push(root_ms);
                total.push(executed_ms + root_ms);
                checks.push(checked);
            }
        }
        anyhow::ensure!(world.ledger.audit().is_ok() && committee.len() == 1, "the ledger does not add up");
        Ok(Report {
            accounts: spec.accounts,
            actions: spec.actions,
            signatures,
            blocks: spec.blocks,
            writes,
            execute_ms: spread(execute),
            root_ms: spread(root),
            total_ms: spread(total),
            signatures_ms: spread(checks),
        })
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["one block, ms on one core", "min", "median", "max"]);
        for (name, spread) in [
            ("execution", self.execute_ms),
            ("authenticated writes and root", self.root_ms),
            ("both (signatures and fsync excluded)", self.total_ms),
            ("signatures, one batch", self.signatures_ms),
        ] {
            let cell = |value: f64| format!("{value:.1}");
            table.add_row([name.to_owned(), cell(spread.min), cell(spread.median), cell(spread.max)]);
        }
        writeln!(
            f,
            "{} actions ({} signatures, {} records written) over {} accounts, {} blocks",
            self.actions, self.signatures, self.writes, self.accounts, self.blocks
        )?;
        write!(f, "{table}")
    }
}
