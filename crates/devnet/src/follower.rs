//! A follower: re-executes every final block from genesis, on its own, and compares.
//!
//! The validators of a devnet report what they finalise; the follower believes none of them. It checks that
//! all of them report one digest a height, executes each block itself, and keeps the figures of the report.
//! A second follower that scans every account in every block is the reference for the liquidation sweep.

use anyhow::{Context as _, Result, anyhow, bail};
use commonware_cryptography::Digestible as _;
use seawall_chain::{
    block::{Block, from_consensus},
    genesis::Genesis,
    machine::{Answer, Brought, Purpose, Step, World},
    store::StateCommitment,
};
use seawall_ledger::{Compartment, Event, Receipt, SweepMode};
use seawall_types::{AccountId, Action, Digest, Height, MarketId, PriceState, Side, TimeMs};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Blocks whose digest is kept for validators that report late. A validator further behind is not compared
/// below this depth; catching up is checked at the end by its final state root.
const MAX_REMEMBERED: usize = 100_000;

/// Running figures of a chain.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Final blocks.
    pub blocks: u64,
    /// Time of the last.
    pub time_ms: u64,
    /// Accounts' compartments that the ladder worked on.
    pub liquidations: u64,
    /// Accounts liquidated at least once.
    pub liquidated: BTreeSet<AccountId>,
    /// Delays from first breach at a fresh price to the first ladder step, in blocks: count by delay.
    pub delays: BTreeMap<u64, u64>,
    /// Blocks in which the liquidation budget did not suffice.
    pub budget_hits: u64,
    /// Deposits and isolated top-ups by users' wish.
    pub top_ups: u64,
    /// Withdrawals.
    pub withdrawals: u64,
    /// Transfers.
    pub transfers: u64,
    /// Actions answered with a refusal.
    pub refused: u64,
    /// Legs taken over by a backstop.
    pub backstop_takeovers: u64,
    /// Positions reduced by auto-deleveraging.
    pub adl_events: u64,
    /// Deficits found.
    pub bad_debt_atoms: i128,
    /// Deficits charged to deleveraged positions or to nobody.
    pub socialised_atoms: i128,
    /// Largest shortfall left waiting after a block.
    pub unliquidated_breach_atoms_max: i128,
    /// Legs liquidated without a fresh price.
    pub stale_price_liquidations: u64,
    /// Chain time that each market was not Fresh.
    pub non_fresh_ms: Vec<u64>,
    /// Accounts examined by the sweep.
    pub examined: u64,
    /// What became of orders.
    pub orders: OrderFigures,
    /// Compartments whose closes went into an auction first: since when they were in breach.
    closing: BTreeMap<(AccountId, Compartment), Height>,
}

/// What became of orders and auctions.
#[derive(Clone, Debug, Default)]
pub struct OrderFigures {
    /// Orders that settlement took.
    pub placed: u64,
    /// Orders that it refused inside a bulk action. Others that are refused are in no block.
    pub refused: u64,
    /// Fills: two sides of a trade are two.
    pub fills: u64,
    /// What was bought, at its price.
    pub volume_atoms: i128,
    /// Fills of liquidation closes.
    pub closes: u64,
    /// What was closed by them, at the mark of their auction.
    pub close_atoms: i128,
    /// What that lost against the mark, penalties aside; negative where it gained.
    pub close_loss_atoms: i128,
    /// Inboxes that became void.
    pub voided: u64,
    /// How far zones were behind after blocks, where they owed anything: count by blocks.
    pub lags: BTreeMap<u64, u64>,
}

impl OrderFigures {
    /// What closes lost against the mark, in basis points of what they closed. Nothing if none was filled.
    pub fn slippage_bps(&self) -> Option<f64> {
        (self.close_atoms > 0).then(|| self.close_loss_atoms as f64 * 10_000.0 / self.close_atoms as f64)
    }
}

/// What a validator reported of one height.
struct Seen {
    digest: Digest,
    reporters: BTreeSet<usize>,
}

/// The follower.
pub struct Follower {
    world: World,
    head: Digest,
    genesis_time: TimeMs,
    waiting: BTreeMap<Height, Block>,
    seen: BTreeMap<Height, Seen>,
    states: Vec<PriceState>,
    figures: Figures,
    forks: u64,
    tips: BTreeMap<usize, Height>,
    history: Option<Vec<Arc<Block>>>,
    lag: u64,
    header_root: Digest,
}

impl Follower {
    /// A follower at genesis. With `history` it keeps every block, for a reference run.
    ///
    /// # Errors
    /// If the genesis does not build.
    pub fn new(genesis: &Genesis, commitment: &StateCommitment, history: bool) -> Result<Self> {
        let world = genesis.world().context("genesis")?;
        let block = genesis.block(commitment);
        let markets = genesis.ledger.markets.len();
        Ok(Self {
            head: from_consensus(block.digest()),
            header_root: block.header.state_root,
            genesis_time: genesis.time,
            states: world.oracle.state().markets.iter().map(|market| market.state).collect(),
            world,
            waiting: BTreeMap::new(),
            seen: BTreeMap::new(),
            figures: Figures {
                time_ms: genesis.time.get(),
                non_fresh_ms: vec![0; markets],
                ..Figures::default()
            },
            forks: 0,
            tips: BTreeMap::new(),
            history: history.then(Vec::new),
            lag: 0,
        })
    }

    /// Scans every account instead of trusting the index.
    pub fn scan_everything(&mut self) {
        self.world.ledger.set_sweep_mode(SweepMode::FullScan);
    }

    /// Takes a block that a validator reports as final.
    ///
    /// # Errors
    /// If the block does not follow, or does not execute to what its header says.
    pub fn report(&mut self, validator: usize, block: Block) -> Result<()> {
        let height = block.header.height;
        let digest = from_consensus(block.digest());
        let tip = self.tips.entry(validator).or_insert(height);
        *tip = (*tip).max(height);
        if let Some(seen) = self.seen.get_mut(&height) {
            if seen.digest != digest {
                self.forks += 1;
            }
            seen.reporters.insert(validator);
            return Ok(());
        }
        if height <= self.world.ledger.globals().height {
            // Older than what is remembered.
            return Ok(());
        }
        self.seen.insert(height, Seen { digest, reporters: BTreeSet::from([validator]) });
        while self.seen.len() > MAX_REMEMBERED {
            self.seen.pop_first();
        }
        self.waiting.insert(height, block);
        while let Some(block) = self.waiting.remove(&self.world.ledger.globals().height.next()) {
            self.execute(block)?;
        }
        Ok(())
    }

    fn execute(&mut self, block: Block) -> Result<()> {
        let header = &block.header;
        if header.parent != self.head {
            bail!("block {} does not follow block {} of the follower", header.height, self.head);
        }
        let executed = self
            .world
            .execute(self.head, header.height, Brought::by(&block), Purpose::Verify)
            .map_err(|invalid| anyhow!("final block {} is invalid: {invalid}", header.height))?;
        if executed.step.exits_root != header.exits_root {
            bail!("final block {} commits to other exits than its execution yields", header.height);
        }
        self.tally(&block, &executed.step);
        self.head = from_consensus(block.digest());
        self.header_root = header.state_root;
        if let Some(history) = &mut self.history {
            history.push(Arc::new(block));
        }
        Ok(())
    }

    fn tally(&mut self, block: &Block, step: &Step) {
        let figures = &mut self.figures;
        let elapsed = step.time.get().saturating_sub(figures.time_ms);
        for (state, total) in self.states.iter().zip(&mut figures.non_fresh_ms) {
            if *state != PriceState::Fresh {
                *total += elapsed;
            }
        }
        for (market, mark) in &step.marks {
            self.states[usize::from(market.get())] = mark.state();
        }
        figures.blocks += 1;
        figures.time_ms = step.time.get();
        let sweep = &step.sweep;
        figures.liquidations += sweep.liquidations;
        figures.budget_hits += sweep.budget_hits;
        figures.backstop_takeovers += sweep.backstop_takeovers;
        figures.adl_events += sweep.deleveraged;
        figures.bad_debt_atoms += sweep.bad_debt.get();
        figures.socialised_atoms += sweep.socialised.get() + sweep.uncovered.get();
        figures.stale_price_liquidations += sweep.stale_price_liquidations;
        figures.unliquidated_breach_atoms_max =
            figures.unliquidated_breach_atoms_max.max(sweep.unliquidated_breach.get());
        figures.examined += sweep.examined;
        for event in step.events() {
            // The first step of the ladder counts: a close in an auction, or what comes after it.
            let (whose, breached) = match event {
                Event::Liquidated(own) => {
                    figures.liquidated.insert(own.account);
                    ((own.account, own.compartment), own.breached)
                }
                Event::Closing { account, compartment, breached, .. } => {
                    ((*account, *compartment), *breached)
                }
                _ => continue,
            };
            let known = match event {
                Event::Closing { .. } => figures.closing.insert(whose, breached),
                _ => figures.closing.get(&whose).copied(),
            };
            if known != Some(breached) {
                *figures.delays.entry(step.height.get() - breached.get()).or_default() += 1;
            }
        }
        let orders = &mut figures.orders;
        self.lag = step.zone_lags.values().copied().max().unwrap_or(0);
        orders.voided += step.voided.len() as u64;
        for lag in step.zone_lags.values() {
            *orders.lags.entry(*lag).or_default() += 1;
        }
        for fill in step.settled.iter().flat_map(|settled| &settled.report.fills) {
            orders.fills += 1;
            let Some(market) = self.world.ledger.market(fill.market) else { continue };
            let value = |price| market.params.unit(price) * i128::from(fill.lots.get());
            if fill.side == Side::Buy {
                orders.volume_atoms += value(fill.price);
            }
            if fill.liquidation {
                orders.closes += 1;
                orders.close_atoms += value(fill.mark);
                let paid_above = value(fill.price) - value(fill.mark);
                orders.close_loss_atoms += if fill.side == Side::Buy { paid_above } else { -paid_above };
                figures.liquidated.insert(fill.account);
            }
        }
        for (action, answer) in block.body.actions.iter().zip(&step.answers) {
            if let Answer::Done(receipt) = answer {
                let (placed, refused) = match receipt {
                    Receipt::Placed { .. } | Receipt::Modifying { .. } => (1, 0),
                    Receipt::PlacedMany(statuses) => {
                        let placed = statuses.iter().filter(Result::is_ok).count();
                        (placed, statuses.iter().count() - placed)
                    }
                    _ => (0, 0),
                };
                figures.orders.placed += placed as u64;
                figures.orders.refused += refused as u64;
            }
            match (answer, &action.action) {
                (Answer::Refused(_), _) => figures.refused += 1,
                (_, Action::Deposit { .. } | Action::TopUpIsolated { .. }) => figures.top_ups += 1,
                (_, Action::Withdraw { .. }) => figures.withdrawals += 1,
                (_, Action::Transfer { .. }) => figures.transfers += 1,
                _ => {}
            }
        }
    }

    /// The state at the newest final block.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Figures so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Heights at which two validators reported different blocks.
    pub fn forks(&self) -> u64 {
        self.forks
    }

    /// State root of the newest final block, as its header commits to it.
    pub fn state_root(&self) -> Digest {
        self.header_root
    }

    /// Newest height that a validator reported.
    pub fn tip(&self, validator: usize) -> Option<Height> {
        self.tips.get(&validator).copied()
    }

    /// Chain time that passed since genesis, in minutes.
    pub fn replayed_minutes(&self) -> u64 {
        (self.figures.time_ms - self.genesis_time.get()) / 60_000
    }

    /// Blocks that the slowest zone is behind.
    pub fn lag(&self) -> u64 {
        self.lag
    }

    /// States of the markets' prices.
    pub fn states(&self) -> impl Iterator<Item = (MarketId, PriceState)> + '_ {
        (0..).map(MarketId).zip(self.states.iter().copied())
    }

    /// Executes the same history again, scanning every account in every block, and compares who was
    /// liquidated and what each block changed. `progress` is told each height.
    ///
    /// # Errors
    /// If no history was kept, or the reference differs.
    pub fn check_reference(
        &self,
        genesis: &Genesis,
        commitment: &StateCommitment,
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let history = self.history.as_ref().context("no history was kept")?;
        let mut reference = Self::new(genesis, commitment, false)?;
        reference.scan_everything();
        for block in history {
            let height = block.header.height;
            reference.execute(Block::clone(block))?;
            progress(height.get());
        }
        if reference.figures.liquidated != self.figures.liquidated {
            bail!(
                "the full scan liquidated {} accounts, the index {}",
                reference.figures.liquidated.len(),
                self.figures.liquidated.len()
            );
        }
        if reference.world.records().ne(self.world.records()) {
            bail!("the full scan ends in another state than the index");
        }
        Ok(())
    }
}
