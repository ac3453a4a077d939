//! The state machine in memory, and the walk between the forks that consensus asks about.
//!
//! A validator keeps one copy of the ledger and the oracle: the *world*, positioned at one block. Every
//! executed block leaves a [`Step`] that can be undone and redone exactly, so that a proposal on one
//! parent and a verification on another share the copy. The canonical state is in QMDB; the world is
//! derived from it ([`Machine::load`]) and worth nothing after a crash.
//!
//! ```text
//!   finalised tip ── a ── b        world at b; consensus asks for a block on a:
//!                     └── c        undo b, execute c; steps of a, b and c are kept until finalised
//! ```
//!
//! Order inside a block: observations -> time and prices -> funding -> salt of the parent's auctions -> void
//! inboxes -> zone outcomes -> scheduled cancels -> rescues -> liquidation sweep -> triggers -> trades.

use crate::{
    block::Block,
    crypto::sha256_digest,
    inclusion, proofs,
    records::{
        ChainRecord, ENTRIES_PER_PAGE, EntryPage, Stored, decode, encode_chain, encode_entries,
        encode_ledger, encode_market_oracle, encode_order, encode_reporter, inbox_index, ledger_key,
        page_key, slot_key,
    },
    slots::{SlotMoves, Slots, open_orders},
    store::{LOAD_CHUNK, StateKey, StateReader, StateValue, StoreError, Tag, key},
};
use seawall_ledger::{
    BlockDelta, Event, Ledger, NoVenue, Receipt, Record, RecordKey, SettleFault, SettleReport, SweepReport,
};
use seawall_oracle::{Oracle, OracleEvent, OracleParams, OracleState, Reported, StepError, block_time};
use seawall_types::{
    AccountId, Body, Digest, Entry, Height, Lane, Mark, MarketId, Nonce, Observation, OrderId, ParentProof,
    Refusal, RescueOrder, SignedAction, TimeMs, ZoneOutcome,
    limits::{MAX_OUTCOMES_PER_BLOCK, MAX_RECORDS_PER_BLOCK},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// Executed blocks that are kept to be undone or redone. Consensus keeps far fewer forks alive; at the
/// limit the oldest are forgotten and their children are loaded from the store if they are asked for.
pub const MAX_STEPS: usize = 512;

/// Why a block is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The oracle refuses the observations.
    #[error("observations: {0}")]
    Observations(#[from] StepError),
    /// The block time is not what the observations say.
    #[error("block time {have} is not {want}")]
    Time {
        /// In the header.
        have: TimeMs,
        /// By the rule.
        want: TimeMs,
    },
    /// An outcome that settlement refuses, although enough validators attest it.
    #[error("the outcome of height {height} (part {part}) of zone {zone} is refused: {fault}")]
    Outcome {
        /// Zone.
        zone: u8,
        /// Height of the inbox.
        height: Height,
        /// Which part.
        part: u32,
        /// Why.
        fault: SettleFault,
    },
    /// An outcome that was computed before the chain declared an inbox of its zone void.
    #[error("the outcome of height {height} of zone {zone} does not know that height {voided} is void")]
    BeforeVoid {
        /// Zone.
        zone: u8,
        /// Height of the inbox.
        height: Height,
        /// What is void.
        voided: Height,
    },
    /// A trade that the ledger refuses. Leaders leave those out; only a rescue is answered by a refusal.
    #[error("trade {index} is refused: {refusal}")]
    RefusedTrade {
        /// Place in the block.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
    /// A rescue that the block's own observations make it carry is not in it.
    #[error("rescue {nonce} of account {account} is listed by its observations and missing")]
    Owed {
        /// Who signed it.
        account: AccountId,
        /// Its nonce.
        nonce: Nonce,
    },
    /// A rescue whose envelope is invalid: it could not even be answered.
    #[error("rescue {index} is refused: {refusal}")]
    InvalidEnvelope {
        /// Place in the block.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
}

/// What one action of a block did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was applied.
    Done(Receipt),
    /// It was answered with a refusal: its nonce and a token are spent, nothing else changed. Of a rescue that was owed and
    /// whose nonce another action of the block made useless, the token alone.
    Refused(Refusal),
}

/// A part of an outcome that a block settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Zone.
    pub zone: u8,
    /// Height of the inbox.
    pub height: Height,
    /// Which part.
    pub part: u32,
    /// What it did.
    pub report: SettleReport,
}

/// An executed block: everything to undo it, redo it, store it and tell of it.
#[derive(Debug)]
pub struct Step {
    /// The block it was executed on.
    pub parent: Digest,
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: TimeMs,
    /// What it changed in the ledger.
    pub delta: BlockDelta,
    /// Marks that changed.
    pub marks: Vec<(MarketId, Mark)>,
    /// What happened in the oracle.
    pub oracle_events: Vec<OracleEvent>,
    /// Inboxes that ended without an outcome.
    pub voided: Vec<(u8, Height)>,
    /// Outcomes that were settled, in the order of the block.
    pub settled: Vec<Settled>,
    /// How many blocks each zone with inboxes is behind after it: the age of the oldest without an outcome.
    pub zone_lags: BTreeMap<u8, u64>,
    /// What the sweep did.
    pub sweep: SweepReport,
    /// One answer an action, in block order.
    pub answers: Vec<Answer>,
    /// Root over every exit since genesis, after it.
    pub exits_root: Digest,
    oracle_before: Arc<Oracle>,
    oracle_after: Arc<Oracle>,
    exits_root_before: Digest,
    slots: SlotMoves,
    /// Orders that are open after it and were changed by it, as they are kept: slot and record.
    orders: Vec<(u64, StateValue)>,
}

impl Step {
    /// What happened in the ledger.
    pub fn events(&self) -> &[Event] {
        &self.delta.events
    }

    /// How many accounts there are after it.
    pub fn accounts(&self) -> Option<u64> {
        self.delta.changes.iter().find_map(|(_, _, after)| match after {
            Some(Record::Globals(globals)) => Some(globals.accounts),
            _ => None,
        })
    }

    /// The writes that take the store from the parent's state to this block's, by ascending key.
    pub fn writes(&self) -> Vec<(StateKey, Option<StateValue>)> {
        let mut writes: Vec<_> = self
            .delta
            .changes
            .iter()
            .filter(|(_, before, after)| match (before, after) {
                (Some(Record::Account(before)), Some(Record::Account(after))) => {
                    !before.differs_in_reserve_alone(after)
                }
                _ => true,
            })
            .filter_map(|(record, _, after)| Some((ledger_key(*record)?, after.as_ref().map(encode_ledger))))
            .collect();
        writes.extend(self.pages());
        writes.extend(self.slots.emptied().map(|slot| (slot_key(slot), None)));
        writes.extend(self.orders.iter().map(|(slot, record)| (slot_key(*slot), Some(record.clone()))));
        let (before, after) = (self.oracle_before.state(), self.oracle_after.state());
        for (index, (old, new)) in (0..).zip(before.markets.iter().zip(&after.markets)) {
            if old != new {
                writes.push((key(Tag::MarketOracle, index), Some(encode_market_oracle(new))));
            }
        }
        for (index, (old, new)) in (0..).zip(before.reporters.iter().zip(&after.reporters)) {
            if old != new {
                writes.push((key(Tag::Reporter, index), Some(encode_reporter(new))));
            }
        }
        let order_slots = self.slots.end();
        let chain = ChainRecord { exits_root: self.exits_root, oracle: after.head, order_slots };
        writes.push((key(Tag::Chain, 0), Some(encode_chain(&chain))));
        writes.sort_by(|a, b| a.0.cmp(&b.0));
        writes
    }

    /// The pages of entries that it wrote or took away.
    fn pages(&self) -> impl Iterator<Item = (StateKey, Option<StateValue>)> {
        let mut pages: BTreeMap<EntryPage, (Vec<(OrderId, Entry)>, usize)> = BTreeMap::new();
        for (key, before, after) in &self.delta.changes {
            match (key, before, after) {
                (RecordKey::Entry(id), None, Some(Record::Entry(own))) => {
                    pages.entry(EntryPage::of(*id, own.zone)).or_default().0.push((*id, own.entry));
                }
                (RecordKey::Entry(id), Some(Record::Entry(own)), None) => {
                    pages.entry(EntryPage::of(*id, own.zone)).or_default().1 += 1;
                }
                (RecordKey::Entry(id), ..) => panic!("entry {id} has changed"),
                _ => {}
            }
        }
        pages.into_iter().map(|(page, (came, gone))| {
            assert!(came.is_empty() || gone == 0, "{page:?} is no page of one block");
            (page_key(page), (gone == 0).then(|| encode_entries(&came)))
        })
    }
}

/// Root over no exits.
pub fn empty_exits_root() -> Digest {
    sha256_digest(&[b"seawall no exits"])
}

/// The state at one block.
pub struct World {
    /// Accounts and markets.
    pub ledger: Ledger,
    /// Prices.
    pub oracle: Oracle,
    /// Root over every exit since genesis: `SHA-256(previous root || encoded exit)` for each in turn.
    pub exits_root: Digest,
    /// Where open orders are kept.
    slots: Slots,
}

/// What a block brings, apart from its place.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// The time that its header claims; nothing while it is built.
    pub time: Option<TimeMs>,
    /// Observations, by ascending author.
    pub observations: Vec<Observation>,
    /// That a quorum voted for the parent.
    pub parent_proof: Option<ParentProof>,
    /// Parts of outcomes, by ascending zone, height and part. That they are attested was checked.
    pub outcomes: Vec<ZoneOutcome>,
    /// Actions, rescues first.
    pub actions: Vec<SignedAction>,
}

impl Brought {
    /// What `block` brings.
    pub fn by(block: &Block) -> Self {
        let Body { observations, actions, parent_proof, outcomes } = block.body.clone();
        Self { time: Some(block.header.time), observations, parent_proof, outcomes, actions }
    }
}

/// Who asks for an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A leader: actions that would be refused are left out.
    Build,
    /// A validator: they make the block invalid.
    Verify,
}

/// An execution and the actions that it kept.
pub struct Executed {
    /// What was done.
    pub step: Arc<Step>,
    /// The outcomes of the block.
    pub outcomes: Vec<ZoneOutcome>,
    /// The actions of the block.
    pub actions: Vec<SignedAction>,
    /// Left out by [`Purpose::Build`], with the reason.
    pub left_out: Vec<(SignedAction, Refusal)>,
}

impl World {
    /// The world at genesis.
    pub fn new(ledger: Ledger, oracle: Oracle) -> Self {
        Self { ledger, oracle, exits_root: empty_exits_root(), slots: Slots::default() }
    }

    /// Every record of the world, as stored.
    pub fn records(&self) -> impl Iterator<Item = (StateKey, StateValue)> + '_ {
        let state = self.oracle.state();
        let chain =
            ChainRecord { exits_root: self.exits_root, oracle: state.head, order_slots: self.slots.end() };
        let mut pages: BTreeMap<EntryPage, Vec<(OrderId, Entry)>> = BTreeMap::new();
        for (record, value) in self.ledger.records() {
            if let (RecordKey::Entry(id), Record::Entry(own)) = (record, value) {
                pages.entry(EntryPage::of(id, own.zone)).or_default().push((id, own.entry));
            }
        }
        let ledger = self.ledger.records().filter_map(|(record, value)| match (record, value) {
            (RecordKey::Order(id), Record::Order(order)) => {
                self.slots.of(id).map(|slot| (slot_key(slot), encode_order(id, &order)))
            }
            (record, value) => ledger_key(record).map(|key| (key, encode_ledger(&value))),
        });
        let entries = pages.into_iter().map(|(page, entries)| (page_key(page), encode_entries(&entries)));
        let markets = (0..)
            .zip(&state.markets)
            .map(|(index, market)| (key(Tag::MarketOracle, index), encode_market_oracle(market)));
        let reporters =
            (0..).zip(&state.reporters).map(|(index, row)| (key(Tag::Reporter, index), encode_reporter(row)));
        ledger
            .chain(entries)
            .chain(markets)
            .chain(reporters)
            .chain(std::iter::once((key(Tag::Chain, 0), encode_chain(&chain))))
    }

    /// Reads the world back from a store.
    pub async fn load(
        reader: &impl StateReader,
        oracle: OracleParams,
        validators: usize,
    ) -> Result<Self, StoreError> {
        let mut loaded = Loaded::default();
        loaded.fetch(reader, Tag::Globals, 0..1).await?;
        loaded.fetch(reader, Tag::Chain, 0..1).await?;
        let (accounts, exits, height) = match loaded.records.first() {
            Some((_, Record::Globals(globals))) => (globals.accounts, globals.exits, globals.height),
            _ => return Err(StoreError::Missing("globals".into())),
        };
        loaded.fetch(reader, Tag::Market, 0..oracle.markets.len() as u64).await?;
        loaded.fetch(reader, Tag::MarketOracle, 0..oracle.markets.len() as u64).await?;
        loaded.fetch(reader, Tag::Reporter, 0..validators as u64).await?;
        loaded.fetch(reader, Tag::Account, 0..accounts).await?;
        loaded.fetch(reader, Tag::Exit, 0..exits).await?;
        let chain = loaded.chain.ok_or_else(|| StoreError::Missing("chain record".into()))?;
        loaded.fetch_zones(reader, height).await?;
        loaded.fetch_some(reader, Tag::Order, 0..chain.order_slots).await?;
        let slots = Slots::restore(chain.order_slots, loaded.slots.iter().copied())
            .ok_or_else(|| StoreError::Inconsistent("two orders are one, or have one slot".into()))?;
        let ledger = Ledger::from_records(loaded.records.into_iter())
            .map_err(|error| StoreError::Inconsistent(error.to_string()))?;
        let state = OracleState { head: chain.oracle, markets: loaded.markets, reporters: loaded.reporters };
        let oracle =
            Oracle::restore(oracle, state).map_err(|error| StoreError::Inconsistent(error.to_string()))?;
        if ledger.globals().height != chain.oracle.height {
            return Err(StoreError::Inconsistent("ledger and oracle are at different heights".into()));
        }
        Ok(Self { ledger, oracle, exits_root: chain.exits_root, slots })
    }

    /// Executes a block on this world. On an error the world is as before.
    pub fn execute(
        &mut self,
        parent: Digest,
        height: Height,
        brought: Brought,
        purpose: Purpose,
    ) -> Result<Executed, Invalid> {
        let Brought { time: claimed, observations, parent_proof, outcomes, actions } = brought;
        let reported: Vec<Reported<'_>> = observations.iter().map(Reported::from).collect();
        let times: Vec<TimeMs> = observations.iter().map(|observation| observation.time).collect();
        let parent_time = self.oracle.state().head.time;
        let time = block_time(parent_time, &times)
            .ok_or(StepError::TooFew { have: 0, need: self.oracle.committee().quorum() })?;
        if let Some(have) = claimed
            && have != time
        {
            return Err(Invalid::Time { have, want: time });
        }
        let oracle_before = Arc::new(self.oracle.clone());
        let prices = self.oracle.step(height, time, &reported)?;

        let draw = inclusion::draw(parent, parent_proof.as_ref());
        let owed = inclusion::owed(&self.ledger, draw, height, &observations);

        self.ledger.begin_block(height, time);
        // All of them: at the first block the ledger has none, and it ignores those that did not change.
        let marks: Vec<_> = self.oracle.marks().collect();
        self.ledger.set_marks(&marks);
        self.ledger.accrue_funding();
        if let Some(proof) = &parent_proof {
            self.ledger.salt_inboxes(proofs::salt(proof));
        }
        let voided = self.ledger.void_overdue();

        let mut run = Run::default();
        let (mut rescues, trades): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|action| action.action.lane() == Lane::Rescue);
        if purpose == Purpose::Build {
            rescues.sort_by_key(SignedAction::rescue_order);
        }
        let ledger = &mut self.ledger;
        let outcome = (|| {
            // A body that could do nothing pays no debt: whoever signed a name twice may have meant the other.
            let open = |action: &&SignedAction| {
                ledger.check_envelope(action.account, action.nonce, action.expiry).is_ok()
            };
            let (mut unpaid, mut paying) = (owed.clone(), BTreeSet::new());
            for action in rescues.iter().filter(open) {
                let name = (action.account, action.nonce);
                unpaid.remove(&name);
                paying.extend(action.rescue_order().filter(|_| owed.contains(&name)));
            }
            if let Some((account, nonce)) = unpaid.pop_first() {
                return Err(Invalid::Owed { account, nonce });
            }
            run.paying = paying;
            run.settle(ledger, outcomes, purpose)?;
            ledger.run_scheduled_cancels();
            run.apply(ledger, rescues, purpose)?;
            let sweep = ledger.sweep(&mut NoVenue);
            ledger.activate_triggers();
            run.apply(ledger, trades, purpose)?;
            Ok(sweep)
        })();
        let delta = self.ledger.end_block();
        let sweep = match outcome {
            Ok(sweep) => sweep,
            Err(invalid) => {
                self.ledger.revert(&delta);
                self.oracle = Oracle::clone(&oracle_before);
                return Err(invalid);
            }
        };
        let slots = self.slots.apply(&delta.changes);
        let orders = open_orders(&delta.changes)
            .filter_map(|(id, record)| match record {
                Record::Order(order) => Some((self.slots.of(id)?, encode_order(id, order))),
                _ => None,
            })
            .collect();
        let zone_lags = self
            .ledger
            .zones()
            .into_keys()
            .filter_map(|zone| Some((zone, height.get() - self.ledger.unsettled(zone).next()?.get())))
            .collect();

        let exits_root_before = self.exits_root;
        for (record, _, after) in &delta.changes {
            if let (RecordKey::Exit(_), Some(exit)) = (record, after) {
                self.exits_root = sha256_digest(&[&self.exits_root.0, &encode_ledger(exit)]);
            }
        }
        let step = Arc::new(Step {
            parent,
            height,
            time,
            delta,
            marks: prices.marks,
            oracle_events: prices.events,
            voided,
            settled: run.settled,
            zone_lags,
            sweep,
            answers: run.answers,
            exits_root: self.exits_root,
            oracle_before,
            oracle_after: Arc::new(self.oracle.clone()),
            exits_root_before,
            slots,
            orders,
        });
        Ok(Executed { step, outcomes: run.outcomes, actions: run.kept, left_out: run.left_out })
    }

    /// Undoes the last executed block.
    pub fn undo(&mut self, step: &Step) {
        self.ledger.revert(&step.delta);
        self.oracle = Oracle::clone(&step.oracle_before);
        self.exits_root = step.exits_root_before;
        self.slots.undo(&step.slots);
    }

    /// Redoes a block that was undone.
    pub fn redo(&mut self, step: &Step) {
        self.ledger.reapply(&step.delta);
        self.oracle = Oracle::clone(&step.oracle_after);
        self.exits_root = step.exits_root;
        self.slots.redo(&step.slots);
    }
}

#[derive(Default)]
struct Run {
    /// Rescues with which the block pays what it owes.
    paying: BTreeSet<RescueOrder>,
    outcomes: Vec<ZoneOutcome>,
    settled: Vec<Settled>,
    kept: Vec<SignedAction>,
    answers: Vec<Answer>,
    left_out: Vec<(SignedAction, Refusal)>,
}

impl Run {
    /// Settles outcomes. A leader leaves out what is not next, and what is beyond a bound waits for the next block.
    fn settle(
        &mut self,
        ledger: &mut Ledger,
        outcomes: Vec<ZoneOutcome>,
        purpose: Purpose,
    ) -> Result<(), Invalid> {
        let mut records = 0;
        for own in outcomes {
            let building = purpose == Purpose::Build;
            let fits = self.outcomes.len() < MAX_OUTCOMES_PER_BLOCK
                && records + own.records() <= MAX_RECORDS_PER_BLOCK;
            if building && !fits {
                break;
            }
            let (zone, height, part) = own.place();
            let voided = ledger.last_void(zone);
            if own.voided != voided {
                if building {
                    continue;
                }
                return Err(Invalid::BeforeVoid { zone, height, voided });
            }
            match ledger.settle(zone, &own.outcome) {
                Ok(report) => {
                    records += own.records();
                    self.settled.push(Settled { zone, height, part, report });
                    self.outcomes.push(own);
                }
                Err(_) if building => {}
                Err(fault) => return Err(Invalid::Outcome { zone, height, part, fault }),
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        ledger: &mut Ledger,
        actions: Vec<SignedAction>,
        purpose: Purpose,
    ) -> Result<(), Invalid> {
        for action in actions {
            let SignedAction { account, nonce, expiry, .. } = action;
            let refusal = match ledger.apply(account, nonce, expiry, &action.action) {
                Ok(receipt) => {
                    self.answers.push(Answer::Done(receipt));
                    self.kept.push(action);
                    continue;
                }
                Err(refusal) => refusal,
            };
            let rescue = action.action.lane() == Lane::Rescue;
            // A rescue is answered, with a refusal too, as long as its nonce can be spent, or if the block cannot do
            // without it. Either way it takes a token.
            let owed = action.rescue_order().is_some_and(|order| self.paying.contains(&order));
            let answered = rescue
                && (ledger.spend_nonce(account, nonce, expiry).is_ok()
                    || (owed && ledger.spend_token(account).is_ok()));
            let index = self.kept.len();
            if answered {
                self.answers.push(Answer::Refused(refusal));
                self.kept.push(action);
            } else if purpose == Purpose::Build {
                self.left_out.push((action, refusal));
            } else if rescue {
                return Err(Invalid::InvalidEnvelope { index, refusal });
            } else {
                return Err(Invalid::RefusedTrade { index, refusal });
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Loaded {
    records: Vec<(RecordKey, Record)>,
    markets: Vec<seawall_oracle::MarketOracle>,
    reporters: Vec<seawall_oracle::ReporterRow>,
    chain: Option<ChainRecord>,
    /// Orders by their slots.
    slots: Vec<(u64, OrderId)>,
}

impl Loaded {
    /// Reads records that are all there.
    async fn fetch(
        &mut self,
        reader: &impl StateReader,
        tag: Tag,
        range: std::ops::Range<u64>,
    ) -> Result<(), StoreError> {
        let expected = range.end - range.start;
        let (found, missing) = self.fetch_some(reader, tag, range).await?;
        match missing {
            Some(index) if found < expected => Err(StoreError::Missing(format!("{tag:?} {index}"))),
            _ => Ok(()),
        }
    }

    /// Reads the records that there are: how many, and the first that there is not.
    async fn fetch_some(
        &mut self,
        reader: &impl StateReader,
        tag: Tag,
        range: std::ops::Range<u64>,
    ) -> Result<(u64, Option<u64>), StoreError> {
        let (mut start, mut found, mut missing) = (range.start, 0, None);
        while start < range.end {
            let end = range.end.min(start + LOAD_CHUNK as u64);
            let keys: Vec<StateKey> = (start..end).map(|index| key(tag, index)).collect();
            let values = reader.read_many(&keys).await?;
            for (index, value) in (start..end).zip(values) {
                let Some(value) = value else {
                    missing = missing.or(Some(index));
                    continue;
                };
                found += 1;
                let stored = decode(tag, index, &value)
                    .map_err(|error| StoreError::Malformed(format!("{tag:?} {index}"), error.to_string()))?;
                match stored {
                    Stored::Ledger(key, record) => {
                        if let RecordKey::Order(id) = key {
                            self.slots.push((index, id));
                        }
                        self.records.push((key, record));
                    }
                    Stored::Entries(entries) => self.records.extend(
                        entries.into_iter().map(|(id, own)| (RecordKey::Entry(id), Record::Entry(own))),
                    ),
                    Stored::MarketOracle(_, market) => self.markets.push(market),
                    Stored::Reporter(_, row) => self.reporters.push(row),
                    Stored::Chain(chain) => self.chain = Some(chain),
                }
            }
            start = end;
        }
        Ok((found, missing))
    }

    /// Reads zones, the inboxes that can wait for an outcome at a height, and their entries.
    async fn fetch_zones(&mut self, reader: &impl StateReader, height: Height) -> Result<(), StoreError> {
        let zones: BTreeMap<u8, u64> = self
            .records
            .iter()
            .filter_map(|(_, record)| match record {
                Record::Market(market) => Some(market.params.orders),
                _ => None,
            })
            .map(|orders| (orders.zone, u64::from(orders.void_after)))
            .collect();
        let before = self.records.len();
        for (zone, void_after) in zones {
            self.fetch_some(reader, Tag::Zone, u64::from(zone)..u64::from(zone) + 1).await?;
            // Whatever is as old as this is void.
            let oldest = Height((height.get() + 1).saturating_sub(void_after));
            let range = inbox_index(zone, oldest)..inbox_index(zone, height) + 1;
            self.fetch_some(reader, Tag::Inbox, range).await?;
        }
        let inboxes: Vec<(u8, Height, u32)> = self.records[before..]
            .iter()
            .filter_map(|(key, record)| match (key, record) {
                (RecordKey::Inbox(zone, height), Record::Inbox(inbox)) => Some((*zone, *height, inbox.end)),
                _ => None,
            })
            .collect();
        for (zone, height, end) in inboxes {
            let index = |page| EntryPage { zone, height, page }.index();
            let pages = index(0)..index(end.div_ceil(ENTRIES_PER_PAGE));
            self.fetch_some(reader, Tag::Entry, pages).await?;
        }
        Ok(())
    }
}

struct Inner {
    world: Option<World>,
    head: Digest,
    /// Executed on `head` but not yet named by a digest.
    loose: Option<Arc<Step>>,
    steps: BTreeMap<Digest, Arc<Step>>,
}

/// The shared machine.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Mutex<Inner>>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::empty()
    }
}

impl Machine {
    /// A machine that has loaded nothing yet.
    pub fn empty() -> Self {
        let inner = Inner { world: None, head: Digest::default(), loose: None, steps: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the machine")
    }

    /// Installs a world positioned at `head` and forgets whatever was known.
    pub fn load(&self, head: Digest, world: World) {
        let mut inner = self.lock();
        *inner = Inner { world: Some(world), head, loose: None, steps: BTreeMap::new() };
    }

    /// Moves the world to `target`. False if no path is known: the caller loads it from the store.
    pub fn position(&self, target: Digest) -> bool {
        self.lock().position(target)
    }

    /// Reads the world where it stands: the newest block that was executed, final or not.
    pub fn read<T>(&self, read: impl FnOnce(&World) -> T) -> Option<T> {
        self.lock().world.as_ref().map(read)
    }

    /// Reads the world at `target`, if a path to it is known.
    pub fn read_at<T>(&self, target: Digest, read: impl FnOnce(&World) -> T) -> Option<T> {
        let mut inner = self.lock();
        if !inner.position(target) {
            return None;
        }
        inner.world.as_ref().map(read)
    }

    /// Executes on `parent`. `None` if the world cannot be moved there.
    pub fn execute(
        &self,
        parent: Digest,
        height: Height,
        brought: Brought,
        purpose: Purpose,
    ) -> Option<Result<Executed, Invalid>> {
        let mut inner = self.lock();
        if !inner.position(parent) {
            return None;
        }
        let world = inner.world.as_mut()?;
        let executed = world.execute(parent, height, brought, purpose);
        if let Ok(executed) = &executed {
            inner.loose = Some(executed.step.clone());
        }
        Some(executed)
    }

    /// Names an executed block.
    pub fn adopt(&self, digest: Digest, step: Arc<Step>) {
        let mut inner = self.lock();
        if inner.loose.as_ref().is_some_and(|loose| Arc::ptr_eq(loose, &step)) {
            inner.loose = None;
            inner.head = digest;
        }
        inner.steps.insert(digest, step);
        while inner.steps.len() > MAX_STEPS {
            let oldest = inner.steps.iter().min_by_key(|(_, step)| step.height).map(|(digest, _)| *digest);
            if let Some(oldest) = oldest {
                inner.steps.remove(&oldest);
            }
        }
    }

    /// The step of a named block.
    pub fn step(&self, digest: Digest) -> Option<Arc<Step>> {
        self.lock().steps.get(&digest).cloned()
    }

    /// Tells the machine that `digest` at `height` is final: nothing at or below it is undone again.
    pub fn finalize(&self, digest: Digest, height: Height) {
        let mut inner = self.lock();
        if !inner.descends(digest) && !inner.position(digest) {
            // Somewhere else entirely: the next request loads from the store.
            inner.world = None;
        }
        inner.steps.retain(|_, step| step.height > height);
    }
}

impl Inner {
    /// Blocks from the world's place down to the oldest known, nearest first.
    fn chain(&self, from: Digest) -> impl Iterator<Item = Digest> + '_ {
        std::iter::successors(Some(from), |digest| self.steps.get(digest).map(|step| step.parent))
    }

    fn descends(&self, ancestor: Digest) -> bool {
        self.world.is_some() && self.chain(self.head).any(|digest| digest == ancestor)
    }

    fn position(&mut self, target: Digest) -> bool {
        let Some(mut world) = self.world.take() else { return false };
        if let Some(loose) = self.loose.take() {
            world.undo(&loose);
        }
        let mut redo: Vec<Digest> = Vec::new();
        let here: Vec<Digest> = self.chain(self.head).collect();
        let mut meeting = None;
        for digest in self.chain(target) {
            if let Some(place) = here.iter().position(|known| *known == digest) {
                meeting = Some(place);
                break;
            }
            redo.push(digest);
        }
        let Some(meeting) = meeting else {
            self.world = Some(world);
            return false;
        };
        for digest in &here[..meeting] {
            world.undo(&self.steps[digest]);
        }
        for digest in redo.iter().rev() {
            world.redo(&self.steps[digest]);
        }
        self.head = target;
        self.world = Some(world);
        true
    }
}
