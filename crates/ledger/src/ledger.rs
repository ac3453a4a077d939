//! The ledger in memory: records, what is derived from them, and the journal of the block in progress.

use std::collections::{BTreeMap, BTreeSet};

use seawall_types::{
    AccountId, Atoms, FundingIndex, Height, Key, Lots, MarginMode, Mark, MarketId, OrderId, PriceState,
    TimeMs, limits,
};
use thiserror::Error;

use crate::{
    health::{self, Health, MarginCheck, Sheet, Valuation},
    index::{Entry, MarketIndex},
    kernel,
    ladder::Event,
    orders::Book,
    params::{ChainParams, ParamsError},
    rescues,
    state::{
        Account, AccountKind, Compartment, Exit, Globals, Market, OpenOrder, Position, Record, RecordKey,
        ZoneEntry,
    },
};

/// An account at genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisAccount {
    /// Who signs for it.
    pub owner: Key,
    /// Cross collateral, not negative.
    pub collateral: Atoms,
    /// Positions by ascending market.
    pub positions: Vec<GenesisPosition>,
}

/// A position at genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenesisPosition {
    /// Market.
    pub market: MarketId,
    /// Size, not zero.
    pub lots: Lots,
    /// Quote cost.
    pub cost: Atoms,
    /// Margin mode.
    pub mode: MarginMode,
    /// Isolated collateral; zero for a cross position.
    pub isolated: Atoms,
}

/// Why a genesis is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GenesisError {
    /// Parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// More accounts than a chain holds.
    #[error("too many accounts")]
    TooManyAccounts,
    /// The issuer is not among the accounts.
    #[error("the issuer's account does not exist")]
    NoIssuer,
    /// A collateral is negative or too large.
    #[error("account {0}: collateral out of range")]
    Collateral(AccountId),
    /// Positions are too many, not ascending, of zero lots, in an unknown market, above a cap, or with a
    /// mode or cost that the market does not allow.
    #[error("account {0}: a position is not allowed")]
    Position(AccountId),
    /// Longs and shorts differ, or exceed the open-interest cap.
    #[error("market {0}: longs and shorts must be equal and within the cap")]
    OpenInterest(MarketId),
    /// Costs must sum to zero, or to a rounding remainder of less than one atom a position.
    #[error("market {0}: costs must sum to zero, or to less than one atom a position above it")]
    Costs(MarketId),
    /// More value than a chain holds.
    #[error("more value than a chain can hold")]
    Supply,
    /// More accounts have positions than rescues are reserved for.
    #[error(
        "{at_risk} accounts have positions, and rescues are reserved for {most}: raise rescues.reserve_blocks"
    )]
    RescueReserve {
        /// That have positions.
        at_risk: u64,
        /// That may carry risk.
        most: u64,
    },
}

/// Why records do not make a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A record is missing.
    #[error("{0:?} is missing")]
    Missing(RecordKey),
    /// A record appears twice, under a key of another kind, or beyond the counters.
    #[error("{0:?} is out of place")]
    Misplaced(RecordKey),
    /// Parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// An order, entry or inbox without its market, account, zone or inbox, or out of its range.
    #[error("{0:?} is malformed")]
    Order(RecordKey),
    /// Positions, modes, leverages or nonces out of order or range.
    #[error("account {0} is malformed")]
    Account(AccountId),
    /// An invariant over all records does not hold.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Which invariant does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuditError {
    /// Claims differ from the supply.
    #[error("claims of {claims} atoms against a supply of {supply}")]
    Conservation {
        /// What everybody holds.
        claims: Atoms,
        /// What was put in.
        supply: Atoms,
    },
    /// Longs, shorts and the market's open interest differ.
    #[error("market {0}: longs, shorts and open interest differ")]
    OpenInterest(MarketId),
    /// The funding pool with what is owed to it is not the dust on record.
    #[error("market {0}: the funding pool does not match what positions owe")]
    Funding(MarketId),
    /// An order waits to close a position that its account does not have.
    #[error("order {0} waits to close a position that is not there")]
    Trigger(OrderId),
    /// What is reserved is not the worst case of the open orders.
    #[error("account {0}: reserved differs from the worst case of its orders")]
    Reserved(AccountId),
    /// More tokens in an account's bucket than it can hold, or of a block that has not come.
    #[error("account {0}: tokens for rescues out of range")]
    Tokens(AccountId),
    /// Derived totals differ from a recount.
    #[error("running totals differ from a recount")]
    Totals,
}

/// Running sums over all accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Cross and isolated collateral less costs.
    value: i128,
    /// What all users posted.
    posted: i128,
    /// Per market: long lots, short lots, sum of `lots x funding entry`.
    markets: Vec<(i64, i64, i128)>,
}

impl Totals {
    fn new(markets: usize) -> Self {
        Self { value: 0, posted: 0, markets: vec![(0, 0, 0); markets] }
    }

    fn add(&mut self, account: &Account, sign: i64) {
        let signed = i128::from(sign);
        self.value += signed * account.collateral.0;
        self.posted += signed * rescues::posted(account);
        for position in &account.positions {
            self.value += signed * (position.isolated.0 - position.cost.0);
            let total = &mut self.markets[usize::from(position.market.0)];
            total.0 += sign * position.lots.0.max(0);
            total.1 += sign * (-position.lots.0).max(0);
            total.2 += signed * i128::from(position.lots.0) * position.funding_entry.0;
        }
    }

    fn check_market(&self, id: MarketId, market: &Market) -> Result<(), AuditError> {
        let (long, short, entries) = self.markets[usize::from(id.0)];
        if long != short || long != market.open_interest.0 {
            return Err(AuditError::OpenInterest(id));
        }
        // Lots sum to zero, so what all positions owe is `sum of lots x (index - entry)` = -entries.
        let pool = market.funding_pool.0 * kernel::funding_scale::<i128>() - entries;
        if pool != i128::from(market.funding_dust) {
            return Err(AuditError::Funding(id));
        }
        Ok(())
    }

    fn check_claims(&self, globals: &Globals, markets: &[Market]) -> Result<(), AuditError> {
        let pools: i128 = markets.iter().map(|market| market.funding_pool.0).sum();
        let claims = self.value + globals.insurance.0 + pools - globals.uncovered.0;
        if claims == globals.supply.0 {
            Ok(())
        } else {
            Err(AuditError::Conservation { claims: Atoms(claims), supply: globals.supply })
        }
    }
}

/// An account with what is derived for it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub account: Account,
    /// Where the sweep index holds its legs.
    pub entries: Vec<Entry>,
    /// Sequence number of the block that last changed it.
    pub stamp: u32,
    /// Where the journal of that block keeps what it was before.
    pub place: u32,
    /// Sequence number of the block that last changed what it has reserved before it changed anything else of it.
    pub reserved_stamp: u32,
    /// Whether it waits in the list of accounts to examine.
    pub dirty: bool,
    /// Whether it carried risk after the last block.
    pub at_risk: bool,
}

impl Slot {
    fn new(account: Account) -> Self {
        Self {
            account,
            entries: Vec::new(),
            stamp: 0,
            place: 0,
            reserved_stamp: 0,
            dirty: false,
            at_risk: false,
        }
    }
}

/// What a block changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDelta {
    /// Height.
    pub height: Height,
    /// By ascending key: the record before the block and after it, which always differ.
    pub changes: Vec<Change>,
    /// By ascending account, of which nothing else has changed: what was reserved before the block, and is after it. It
    /// changes for everybody with orders whenever a mark moves.
    pub reserves: Vec<(AccountId, Atoms, Atoms)>,
    /// What it did by itself, in order.
    pub events: Vec<Event>,
}

/// One record's change: key, before, after.
pub type Change = (RecordKey, Option<Record>, Option<Record>);

/// How the sweep finds compartments in breach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SweepMode {
    /// By thresholds: cost in proportion to what can breach.
    #[default]
    Indexed,
    /// By examining every account: the reference.
    FullScan,
}

/// The block in progress.
#[derive(Clone, Debug)]
struct Journal {
    globals: Globals,
    /// Time since the block before, in milliseconds.
    elapsed: u64,
    markets: Vec<Option<Box<Market>>>,
    accounts: Vec<(u32, Option<Account>)>,
    /// What was reserved before the block, where that changed first.
    reserves: Vec<(u32, Atoms)>,
    exits: usize,
    events: Vec<Event>,
    /// Zones and inboxes as they were before the block.
    book: BTreeMap<RecordKey, Option<Record>>,
    /// Entries that the block took away, by height. Those of its own height are new.
    entries: Vec<(Height, BTreeMap<u32, ZoneEntry>)>,
    /// Orders as they were before the block, and whose. Where one is named twice, the first holds.
    orders: Vec<(OrderId, u32, Option<OpenOrder>)>,
    /// Records that each zone settled in this block.
    settled: BTreeMap<u8, usize>,
    /// Entries that each zone got in this block.
    entered: BTreeMap<u8, usize>,
    /// Entries that all of them got.
    entries_in_all: u32,
    /// Accounts with closing orders whose positions the ladder or a fill changed.
    forced: BTreeSet<u32>,
    /// Whose liquidation closes came back unfilled in this block, and in which market.
    unfilled: BTreeSet<(u32, MarketId)>,
    /// Rescues of each account that this block carries so far.
    rescued: BTreeMap<u32, u32>,
    /// Accounts that carried no risk before this block and opened some.
    opened: BTreeSet<u32>,
    /// Orders that this block placed to wait for a trigger: no two have one id, however soon they end.
    triggers: u32,
}

/// The settlement layer's state machine. See the crate's documentation for its rules.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) globals: Globals,
    pub(crate) markets: Vec<Market>,
    pub(crate) slots: Vec<Slot>,
    exits: Vec<Exit>,
    pub(crate) book: Book,
    // Derived from here on.
    pub(crate) sheets: Vec<Sheet>,
    pub(crate) index: Vec<MarketIndex>,
    /// Accounts to examine in the next sweep because they changed.
    pub(crate) dirty: Vec<u32>,
    /// Accounts to examine in every sweep because they are close to a breach.
    pub(crate) hot: BTreeSet<u32>,
    pub(crate) mode: SweepMode,
    /// Accounts with a scheduled cancel, by its time.
    pub(crate) scheduled: BTreeSet<(TimeMs, u32)>,
    totals: Totals,
    /// Accounts that carried risk after the last block.
    pub(crate) at_risk: u64,
    pub(crate) sequence: u32,
    journal: Option<Journal>,
}

impl Ledger {
    /// The ledger before its first block. Account ids are places in `accounts`; the backstop accounts
    /// follow them, one a market. A rounding remainder of position costs goes to the insurance fund.
    pub fn genesis(
        params: &ChainParams,
        time: TimeMs,
        accounts: impl Iterator<Item = GenesisAccount>,
    ) -> Result<Self, GenesisError> {
        params.validate()?;
        let count = params.markets.len();
        let mut totals = Totals::new(count);
        let mut costs = vec![(0i128, 0i128); count];
        let mut supply = params.insurance.0;
        let mut records = Vec::with_capacity(accounts.size_hint().0 + count);
        for genesis in accounts {
            let id = AccountId(records.len() as u64);
            if id.0 + count as u64 >= limits::MAX_ACCOUNTS {
                return Err(GenesisError::TooManyAccounts);
            }
            let kind = if id == params.issuer { AccountKind::Issuer } else { AccountKind::User };
            let account = Self::genesis_account(params, id, kind, &genesis)?;
            supply += account.collateral.0;
            for position in &account.positions {
                supply += position.isolated.0;
                let cost = &mut costs[usize::from(position.market.0)];
                *cost = (cost.0 + position.cost.0, cost.1 + 1);
            }
            if supply > limits::MAX_AMOUNT_ATOMS {
                return Err(GenesisError::Supply);
            }
            totals.add(&account, 1);
            records.push(account);
        }
        if params.issuer.0 >= records.len() as u64 {
            return Err(GenesisError::NoIssuer);
        }
        let mut insurance = params.insurance.0;
        let mut markets = Vec::with_capacity(count);
        for (at, market) in params.markets.iter().enumerate() {
            let id = MarketId(at as u16);
            let (long, short, _) = totals.markets[at];
            if long != short || long > market.open_interest_cap.0 {
                return Err(GenesisError::OpenInterest(id));
            }
            let (cost, positions) = costs[at];
            if cost != 0 && !(0..positions).contains(&cost) {
                return Err(GenesisError::Costs(id));
            }
            insurance += cost;
            supply += market.backstop.initial_fund.0;
            let backstop = AccountId(records.len() as u64);
            records.push(Account::new(
                Key::default(),
                AccountKind::Backstop(id),
                market.backstop.initial_fund,
            ));
            markets.push(Market {
                params: market.clone(),
                mark: None,
                funding_index: FundingIndex(0),
                funding_pool: Atoms::ZERO,
                funding_dust: 0,
                open_interest: Lots(long),
                backstop,
                quarantined: None,
            });
        }
        if supply > limits::MAX_AMOUNT_ATOMS {
            return Err(GenesisError::Supply);
        }
        let globals = Globals {
            chain: params.chain,
            issuer: params.issuer,
            liquidation_steps: params.liquidation_steps,
            max_wait_blocks: params.max_wait_blocks,
            rescues: params.rescues,
            height: Height(0),
            time,
            supply: Atoms(supply),
            insurance: Atoms(insurance),
            uncovered: Atoms::ZERO,
            accounts: records.len() as u64,
            exits: 0,
        };
        let ledger = Self::assemble(globals, markets, records, Vec::new(), Book::default());
        let (at_risk, most) = (ledger.at_risk, params.rescues.at_risk_max());
        if at_risk > most {
            return Err(GenesisError::RescueReserve { at_risk, most });
        }
        debug_assert_eq!(ledger.audit(), Ok(()));
        Ok(ledger)
    }

    fn genesis_account(
        params: &ChainParams,
        id: AccountId,
        kind: AccountKind,
        genesis: &GenesisAccount,
    ) -> Result<Account, GenesisError> {
        let amount = 0..=limits::MAX_AMOUNT_ATOMS;
        if !amount.contains(&genesis.collateral.0) {
            return Err(GenesisError::Collateral(id));
        }
        if genesis.positions.len() > limits::MAX_POSITIONS_PER_ACCOUNT {
            return Err(GenesisError::Position(id));
        }
        let mut account = Account::new(genesis.owner, kind, genesis.collateral);
        account.positions.reserve_exact(genesis.positions.len());
        let mut last = None;
        for position in &genesis.positions {
            let Some(market) = params.markets.get(usize::from(position.market.0)) else {
                return Err(GenesisError::Position(id));
            };
            let isolated = position.mode == MarginMode::Isolated;
            let allowed = last < Some(position.market)
                && position.lots.0 != 0
                && position.lots.0.unsigned_abs() <= market.account_cap.0.unsigned_abs()
                && position.cost.0.unsigned_abs()
                    <= market.unit(market.max_price).unsigned_abs()
                        * u128::from(position.lots.0.unsigned_abs())
                && amount.contains(&position.isolated.0)
                && (isolated || (position.isolated.0 == 0 && !market.isolated_only));
            if !allowed {
                return Err(GenesisError::Position(id));
            }
            last = Some(position.market);
            if isolated && !market.isolated_only {
                account.isolated.push(position.market);
            }
            account.positions.push(Position {
                market: position.market,
                lots: position.lots,
                cost: position.cost,
                funding_entry: FundingIndex(0),
                mode: position.mode,
                isolated: position.isolated,
                breached: None,
            });
        }
        Ok(account)
    }

    /// The ledger that these records describe, whatever order they come in. Everything derived is rebuilt
    /// and every invariant checked.
    pub fn from_records(records: impl Iterator<Item = (RecordKey, Record)>) -> Result<Self, RestoreError> {
        let (mut globals, mut markets, mut accounts, mut exits) =
            (None, Vec::<Option<Market>>::new(), Vec::<Option<Account>>::new(), Vec::<Option<Exit>>::new());
        fn place<T>(list: &mut Vec<Option<T>>, at: usize, value: T, most: u64) -> bool {
            if at as u64 >= most {
                return false;
            }
            if list.len() <= at {
                list.resize_with(at + 1, || None);
            }
            list[at].replace(value).is_none()
        }
        let mut orders: BTreeMap<RecordKey, Record> = BTreeMap::new();
        for (key, record) in records {
            let placed = match (key, record) {
                (RecordKey::Globals, Record::Globals(record)) => globals.replace(record).is_none(),
                (RecordKey::Market(id), Record::Market(record)) => {
                    place(&mut markets, usize::from(id.0), *record, limits::MAX_MARKETS as u64)
                }
                (RecordKey::Account(id), Record::Account(record)) => {
                    place(&mut accounts, id.0 as usize, record, limits::MAX_ACCOUNTS)
                }
                (RecordKey::Exit(index), Record::Exit(record)) => {
                    place(&mut exits, index as usize, record, u64::from(u32::MAX))
                }
                (
                    RecordKey::Zone(_) | RecordKey::Inbox(..) | RecordKey::Entry(_) | RecordKey::Order(_),
                    record,
                ) => orders.insert(key, record).is_none(),
                _ => false,
            };
            if !placed {
                return Err(RestoreError::Misplaced(key));
            }
        }
        fn all<T>(list: Vec<Option<T>>, key: impl Fn(u64) -> RecordKey) -> Result<Vec<T>, RestoreError> {
            let mut whole = Vec::with_capacity(list.len());
            for (at, value) in list.into_iter().enumerate() {
                whole.push(value.ok_or_else(|| RestoreError::Missing(key(at as u64)))?);
            }
            Ok(whole)
        }
        let globals = globals.ok_or(RestoreError::Missing(RecordKey::Globals))?;
        let markets = all(markets, |at| RecordKey::Market(MarketId(at as u16)))?;
        let accounts = all(accounts, |at| RecordKey::Account(AccountId(at)))?;
        let exits = all(exits, RecordKey::Exit)?;
        if markets.is_empty() {
            return Err(RestoreError::Missing(RecordKey::Market(MarketId(0))));
        }
        for (at, market) in markets.iter().enumerate() {
            let id = MarketId(at as u16);
            market.params.validate(id)?;
            if market.backstop.0 >= globals.accounts || u128::from(market.funding_dust) >= 1 << 32 {
                return Err(RestoreError::Misplaced(RecordKey::Market(id)));
            }
        }
        globals.rescues.validate()?;
        if globals.accounts != accounts.len() as u64 {
            return Err(RestoreError::Missing(RecordKey::Account(AccountId(accounts.len() as u64))));
        }
        if globals.exits != exits.len() as u64 {
            return Err(RestoreError::Missing(RecordKey::Exit(exits.len() as u64)));
        }
        for (at, account) in accounts.iter().enumerate() {
            let ascending = account.positions.windows(2).all(|pair| pair[0].market < pair[1].market)
                && account.isolated.windows(2).all(|pair| pair[0] < pair[1]);
            let sound = account.positions.iter().all(|position| {
                usize::from(position.market.0) < markets.len()
                    && position.lots.0 != 0
                    && (position.mode == MarginMode::Isolated || position.isolated == Atoms::ZERO)
            });
            let leverage = account.leverage.windows(2).all(|pair| pair[0].0 < pair[1].0)
                && account.leverage.iter().all(|(market, leverage)| {
                    let market = markets.get(usize::from(market.0));
                    market.is_some_and(|own| (1..own.params.max_leverage()).contains(leverage))
                });
            if !ascending
                || !sound
                || !leverage
                || account.positions.len() > limits::MAX_POSITIONS_PER_ACCOUNT
                || account.tokens.is_some_and(|own| !own.is_sound(&globals.rescues, globals.height))
            {
                return Err(RestoreError::Account(AccountId(at as u64)));
            }
        }
        let mut book = Book::default();
        for (key, record) in &orders {
            let zone = |market: MarketId| markets[usize::from(market.0)].params.orders.zone;
            if let Record::Order(order) = record
                && (usize::from(order.terms.market.0) >= markets.len()
                    || order.account.0 >= accounts.len() as u64)
            {
                return Err(RestoreError::Order(*key));
            }
            if !book.put(*key, Some(record), zone) {
                return Err(RestoreError::Misplaced(*key));
            }
        }
        book.check(globals.height, &markets).map_err(RestoreError::Order)?;
        let mut ledger = Self::assemble(globals, markets, accounts, exits, book);
        ledger.reserve_anew();
        ledger.audit()?;
        Ok(ledger)
    }

    fn assemble(
        globals: Globals,
        markets: Vec<Market>,
        accounts: Vec<Account>,
        exits: Vec<Exit>,
        book: Book,
    ) -> Self {
        let mut totals = Totals::new(markets.len());
        for account in &accounts {
            totals.add(account, 1);
        }
        let dirty = (0..accounts.len() as u32).collect();
        let scheduled =
            accounts.iter().zip(0..).filter_map(|(own, id)| own.cancel_at.map(|at| (at, id))).collect();
        let mut ledger = Self {
            globals,
            sheets: markets.iter().map(Sheet::new).collect(),
            index: markets.iter().map(MarketIndex::new).collect(),
            markets,
            slots: accounts.into_iter().map(|account| Slot { dirty: true, ..Slot::new(account) }).collect(),
            exits,
            book,
            dirty,
            hot: BTreeSet::new(),
            mode: SweepMode::Indexed,
            scheduled,
            totals,
            at_risk: 0,
            sequence: 0,
            journal: None,
        };
        (0..ledger.slots.len() as u32).for_each(|id| ledger.count_risk(id));
        ledger
    }

    /// Counts an account among those that carry risk, or no longer.
    fn count_risk(&mut self, id: u32) {
        let carries = self.carries_risk(id);
        let slot = &mut self.slots[id as usize];
        if slot.at_risk != carries {
            slot.at_risk = carries;
            if carries {
                self.at_risk += 1;
            } else {
                self.at_risk -= 1;
            }
        }
    }

    pub(crate) fn in_block(&self) -> bool {
        self.journal.is_some()
    }

    /// What all users posted, in the state after the last block.
    pub(crate) fn total_posted(&self) -> i128 {
        self.totals.posted
    }

    /// An account as it was before the block in progress; between blocks, as it is. `None` if the block opened it.
    pub(crate) fn before_block(&self, id: u32) -> Option<&Account> {
        let slot = &self.slots[id as usize];
        match &self.journal {
            Some(journal) if slot.stamp == self.sequence => journal.accounts[slot.place as usize].1.as_ref(),
            _ => Some(&slot.account),
        }
    }

    /// Rescues of an account that the block in progress carries so far.
    pub(crate) fn rescued_so_far(&self, id: u32) -> u32 {
        self.journal.as_ref().and_then(|journal| journal.rescued.get(&id).copied()).unwrap_or_default()
    }

    /// Takes a token for a rescue that the block carries. The caller has asked whether there is one.
    pub(crate) fn take_token(&mut self, id: u32) {
        // What is spent is settled with what else changed of the account.
        self.account_mut(id);
        *self.journal().rescued.entry(id).or_default() += 1;
    }

    /// How many accounts opened risk in the block in progress.
    pub(crate) fn opened_so_far(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.opened.len() as u64)
    }

    pub(crate) fn opened_in_block(&self, id: u32) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.opened.contains(&id))
    }

    /// Notes that an account may have opened risk in this block.
    pub(crate) fn note_opened(&mut self, id: u32) {
        if !self.slots[id as usize].at_risk && self.carries_risk(id) {
            self.journal().opened.insert(id);
        }
    }

    /// Every record, by ascending key.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Record)> + '_ {
        let globals = core::iter::once((RecordKey::Globals, Record::Globals(self.globals.clone())));
        let markets = self.markets.iter().enumerate().map(|(at, market)| {
            (RecordKey::Market(MarketId(at as u16)), Record::Market(Box::new(market.clone())))
        });
        let accounts = self.slots.iter().enumerate().map(|(at, slot)| {
            (RecordKey::Account(AccountId(at as u64)), Record::Account(slot.account.clone()))
        });
        let exits = self
            .exits
            .iter()
            .enumerate()
            .map(|(at, exit)| (RecordKey::Exit(at as u64), Record::Exit(exit.clone())));
        globals.chain(markets).chain(accounts).chain(exits).chain(self.book.records())
    }

    /// Chooses how the sweep finds breaches. Both ways do the same to the state.
    pub fn set_sweep_mode(&mut self, mode: SweepMode) {
        self.mode = mode;
    }

    /// An account.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.slots.get(usize::try_from(id.0).ok()?).map(|slot| &slot.account)
    }

    /// The key that signs for an account.
    pub fn owner(&self, id: AccountId) -> Option<&Key> {
        self.account(id).map(|account| &account.owner)
    }

    /// A market.
    pub fn market(&self, id: MarketId) -> Option<&Market> {
        self.markets.get(usize::from(id.0))
    }

    /// Markets by ascending id.
    pub fn markets(&self) -> impl ExactSizeIterator<Item = (MarketId, &Market)> {
        self.markets.iter().enumerate().map(|(at, market)| (MarketId(at as u16), market))
    }

    /// What there is once.
    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// An exit.
    pub fn exit(&self, index: u64) -> Option<&Exit> {
        self.exits.get(usize::try_from(index).ok()?)
    }

    /// Cross health of an account.
    pub fn health(&self, id: AccountId) -> Option<Health> {
        self.health_of(id, Compartment::Cross)
    }

    /// Health of a compartment; `None` if there is none.
    pub fn health_of(&self, id: AccountId, compartment: Compartment) -> Option<Health> {
        let account = self.account(id)?;
        if let Compartment::Isolated(market) = compartment {
            account.position(market).filter(|position| position.mode == MarginMode::Isolated)?;
        }
        Some(health::health(account, compartment, &self.sheets))
    }

    /// Equity, maintenance and initial margin of an account's cross compartment, as the sweep sees them. `None`
    /// if there is no such account.
    pub fn margin_check(&self, id: AccountId) -> Option<MarginCheck> {
        let account = self.account(id)?;
        let sums = health::sums(account, Compartment::Cross, &self.sheets, Valuation::Favourable);
        Some(MarginCheck {
            equity: Atoms(sums.equity),
            maintenance: Atoms(sums.maintenance_atoms()),
            initial: Atoms(sums.initial_atoms()),
            in_breach: sums.in_breach(),
        })
    }

    /// Counts accounts with a compartment whose equity is below `ratio_ppm` of maintenance (1,000,000 is a
    /// breach). Scans every account: for displays.
    pub fn count_at_risk(&self, ratio_ppm: u32) -> u64 {
        let at_risk = |slot: &&Slot| {
            compartments(&slot.account).any(|compartment| {
                let sums = health::sums(&slot.account, compartment, &self.sheets, Valuation::Plain);
                sums.maintenance > 0
                    && sums.equity * 1_000_000 < kernel::fee(sums.maintenance, i128::from(ratio_ppm))
            })
        };
        self.slots.iter().filter(at_risk).count() as u64
    }

    /// Collateral of all accounts less the cost of their positions, with all funds: what conservation
    /// compares with the supply. Recounts everything.
    pub fn audit(&self) -> Result<(), AuditError> {
        let mut totals = Totals::new(self.markets.len());
        for slot in &self.slots {
            totals.add(&slot.account, 1);
        }
        for (id, market) in self.markets() {
            totals.check_market(id, market)?;
        }
        totals.check_claims(&self.globals, &self.markets)?;
        for (id, slot) in self.slots.iter().enumerate() {
            if slot.account.reserved != self.reservation_anew(id as u32, &slot.account) {
                return Err(AuditError::Reserved(AccountId(id as u64)));
            }
        }
        if let Some(id) = self.orphan() {
            return Err(AuditError::Trigger(id));
        }
        if self.journal.is_none() {
            let at_risk = (0..self.slots.len() as u32).filter(|id| self.carries_risk(*id));
            let flags = self.slots.iter().filter(|slot| slot.at_risk).count() as u64;
            if totals != self.totals || at_risk.count() as u64 != self.at_risk || flags != self.at_risk {
                return Err(AuditError::Totals);
            }
        }
        let (rescues, height) = (&self.globals.rescues, self.globals.height);
        for (id, slot) in self.slots.iter().enumerate() {
            if slot.account.tokens.is_some_and(|bucket| !bucket.is_sound(rescues, height)) {
                return Err(AuditError::Tokens(AccountId(id as u64)));
            }
        }
        Ok(())
    }

    /// Starts a block.
    ///
    /// # Panics
    /// If a block is in progress, or height and time do not follow: the chain checked both.
    pub fn begin_block(&mut self, height: Height, time: TimeMs) {
        assert!(self.journal.is_none(), "a block is in progress");
        assert!(height == self.globals.height.next(), "heights follow each other");
        assert!(time > self.globals.time, "block time grows");
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.journal = Some(Journal {
            globals: self.globals.clone(),
            elapsed: time.0 - self.globals.time.0,
            markets: self.markets.iter().map(|_| None).collect(),
            accounts: Vec::new(),
            reserves: Vec::new(),
            exits: self.exits.len(),
            events: Vec::new(),
            book: BTreeMap::new(),
            entries: Vec::new(),
            orders: Vec::new(),
            settled: BTreeMap::new(),
            entered: BTreeMap::new(),
            entries_in_all: 0,
            forced: BTreeSet::new(),
            unfilled: BTreeSet::new(),
            rescued: BTreeMap::new(),
            opened: BTreeSet::new(),
            triggers: 0,
        });
        self.globals.height = height;
        self.globals.time = time;
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("a block is in progress")
    }

    /// How many orders this block placed to wait for a trigger before.
    pub(crate) fn count_trigger(&mut self) -> u32 {
        let count = &mut self.journal().triggers;
        *count += 1;
        *count - 1
    }

    pub(crate) fn push_event(&mut self, event: Event) {
        self.journal().events.push(event);
    }

    /// Keeps a zone or an inbox as it was before the block. Called before it is changed.
    pub(crate) fn remember(&mut self, key: RecordKey) {
        let Self { journal, book, .. } = self;
        let journal = journal.as_mut().expect("a block is in progress");
        journal.book.entry(key).or_insert_with(|| book.record(key));
    }

    /// The same for an order of an account that this block has not changed before.
    pub(crate) fn remember_order(&mut self, id: OrderId, account: u32, before: Option<OpenOrder>) {
        self.journal().orders.push((id, account, before));
    }

    /// Keeps entries of a height before the block, which have been taken away.
    pub(crate) fn remember_entries(&mut self, height: Height, before: BTreeMap<u32, ZoneEntry>) {
        self.journal().entries.push((height, before));
    }

    /// Makes room for what is to be kept of this many orders and their accounts.
    pub(crate) fn expect_changes(&mut self, orders: usize) {
        let accounts = orders.min(self.slots.len());
        let journal = self.journal();
        journal.orders.reserve(orders);
        journal.accounts.reserve(accounts);
    }

    /// Records that each zone settled in this block.
    pub(crate) fn settled_in_block(&mut self) -> &mut BTreeMap<u8, usize> {
        &mut self.journal().settled
    }

    pub(crate) fn settled_before(&self, zone: u8) -> usize {
        self.journal.as_ref().and_then(|journal| journal.settled.get(&zone).copied()).unwrap_or_default()
    }

    /// Notes that a zone got an entry in this block.
    pub(crate) fn count_entry(&mut self, zone: u8) {
        let journal = self.journal();
        *journal.entered.entry(zone).or_default() += 1;
        journal.entries_in_all += 1;
    }

    /// Entries that this block has made; nothing between blocks.
    pub(crate) fn entries_in_block(&self) -> Option<u32> {
        self.journal.as_ref().map(|journal| journal.entries_in_all)
    }

    pub(crate) fn entered_before(&self, zone: u8) -> usize {
        self.journal.as_ref().and_then(|journal| journal.entered.get(&zone).copied()).unwrap_or_default()
    }

    /// Notes that the ladder or a fill changed a position of somebody with orders that close it.
    pub(crate) fn force(&mut self, id: u32) {
        if self.book.of(id).any(|(_, order)| order.terms.closes()) {
            self.journal().forced.insert(id);
        }
    }

    /// Notes that a liquidation close ended without being filled whole.
    pub(crate) fn note_unfilled(&mut self, id: u32, market: MarketId) {
        self.journal().unfilled.insert((id, market));
    }

    pub(crate) fn is_unfilled(&self, id: u32, market: MarketId) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.unfilled.contains(&(id, market)))
    }

    /// Whose positions the ladder or fills changed since this was asked.
    pub(crate) fn forced(&mut self) -> BTreeSet<u32> {
        core::mem::take(&mut self.journal().forced)
    }

    /// A market, to be changed in this block.
    pub(crate) fn market_mut(&mut self, id: MarketId) -> &mut Market {
        let at = usize::from(id.0);
        let before = &mut self.journal.as_mut().expect("a block is in progress").markets[at];
        if before.is_none() {
            *before = Some(Box::new(self.markets[at].clone()));
        }
        &mut self.markets[at]
    }

    /// An existing account, to be changed in this block.
    pub(crate) fn account_mut(&mut self, id: u32) -> &mut Account {
        let slot = &mut self.slots[id as usize];
        if slot.stamp != self.sequence {
            slot.stamp = self.sequence;
            let journal = self.journal.as_mut().expect("a block is in progress");
            slot.place = journal.accounts.len() as u32;
            journal.accounts.push((id, Some(slot.account.clone())));
        }
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(id);
        }
        &mut slot.account
    }

    /// Changes what is reserved for an account. The sweep does not ask for it, so nobody is to be examined.
    pub(crate) fn set_reserved(&mut self, id: u32, reserved: Atoms) {
        let slot = &mut self.slots[id as usize];
        let known = slot.stamp == self.sequence || slot.reserved_stamp == self.sequence;
        if !known {
            slot.reserved_stamp = self.sequence;
            let journal = self.journal.as_mut().expect("a block is in progress");
            journal.reserves.push((id, slot.account.reserved));
        }
        slot.account.reserved = reserved;
    }

    pub(crate) fn open_account(&mut self, account: Account) -> AccountId {
        let id = self.slots.len() as u32;
        let stamp = self.sequence;
        let journal = self.journal();
        let place = journal.accounts.len() as u32;
        journal.accounts.push((id, None));
        self.slots.push(Slot { stamp, place, dirty: true, ..Slot::new(account) });
        self.dirty.push(id);
        self.globals.accounts += 1;
        AccountId(u64::from(id))
    }

    pub(crate) fn push_exit(&mut self, exit: Exit) -> u64 {
        self.exits.push(exit);
        self.globals.exits += 1;
        self.globals.exits - 1
    }

    /// Income of the insurance fund: uncovered deficits are repaid first.
    pub(crate) fn credit_insurance(&mut self, amount: i128) {
        debug_assert!(amount >= 0);
        let repaid = amount.min(self.globals.uncovered.0);
        self.globals.uncovered -= Atoms(repaid);
        self.globals.insurance += Atoms(amount - repaid);
    }

    /// Takes over the marks that changed in this block. A price outside its market's range is no price:
    /// the last one stays, as disputed.
    ///
    /// # Panics
    /// If a market does not exist: the chain's oracle knows the same markets.
    pub fn set_marks(&mut self, marks: &[(MarketId, Mark)]) {
        let mut moved = BTreeSet::new();
        for &(id, mark) in marks {
            let market = &self.markets[usize::from(id.0)];
            let range = market.params.min_price..=market.params.max_price;
            let mark = if range.contains(&mark.last_known().0) {
                Some(mark)
            } else {
                market.mark.map(|last| Mark::new(PriceState::Disputed, last.last_known().0, last.updated()))
            };
            if mark != market.mark {
                let price = |mark: Option<Mark>| mark.map(|mark| mark.last_known().0);
                // What orders need depends on the price, not on when it was confirmed.
                if price(mark) != price(market.mark) {
                    moved.insert(id);
                }
                self.market_mut(id).mark = mark;
                self.refresh_sheet(id);
            }
        }
        self.reserve_in(moved.into_iter());
    }

    /// Takes a market's price, state and index over into what is derived from them.
    pub(crate) fn refresh_sheet(&mut self, id: MarketId) {
        let at = usize::from(id.0);
        let sheet = &mut self.sheets[at];
        let before = (sheet.unit, sheet.fresh);
        sheet.update(&self.markets[at]);
        if before != (sheet.unit, sheet.fresh) {
            self.index[at].moved = true;
        }
    }

    /// Lets funding grow by the time since the last block, at fresh prices only. The rate is the interest
    /// component within the clamp: no premium of the auctions' prices enters it yet. No more than
    /// one interval is charged at once, however long the gap was.
    pub fn accrue_funding(&mut self) {
        let elapsed = i128::from(self.journal().elapsed);
        for at in 0..self.markets.len() {
            let (market, sheet) = (&self.markets[at], &self.sheets[at]);
            let funding = &market.params.funding;
            let cap = i128::from(funding.cap_ppm.0);
            let rate = i128::from(funding.interest_ppm).clamp(-cap, cap);
            if !sheet.fresh || rate == 0 || market.open_interest.0 == 0 {
                continue;
            }
            let interval = i128::from(funding.interval_ms);
            let growth = kernel::funding_growth(i128::from(sheet.unit), rate, elapsed, interval);
            if growth != 0 {
                let id = MarketId(at as u16);
                self.market_mut(id).funding_index += FundingIndex(growth);
                self.refresh_sheet(id);
            }
        }
    }

    /// Ends the block: checks conservation over what it touched and returns what it changed.
    ///
    /// # Panics
    /// If value was not conserved. That is a bug, and a validator that cannot account for its users' value
    /// must not sign the block.
    pub fn end_block(&mut self) -> BlockDelta {
        self.close_inboxes();
        let journal = self.journal.take().expect("a block is in progress");
        let entries = journal.entries.iter().map(|(_, own)| own.len()).sum::<usize>()
            + self.book.entries_at(self.globals.height).count();
        let books = journal.book.len() + entries + journal.orders.len();
        let mut changes = Vec::with_capacity(journal.accounts.len() + self.markets.len() + 1 + books);
        if journal.globals != self.globals {
            changes.push((
                RecordKey::Globals,
                Some(Record::Globals(journal.globals)),
                Some(Record::Globals(self.globals.clone())),
            ));
        }
        for (at, before) in journal.markets.into_iter().enumerate() {
            if let Some(before) = before.filter(|before| **before != self.markets[at]) {
                changes.push((
                    RecordKey::Market(MarketId(at as u16)),
                    Some(Record::Market(before)),
                    Some(Record::Market(Box::new(self.markets[at].clone()))),
                ));
            }
        }
        let mut accounts = journal.accounts;
        accounts.sort_unstable_by_key(|(id, _)| *id);
        // All of them by the totals before the block.
        for (id, before) in &accounts {
            let spent = journal.rescued.get(id).copied().unwrap_or_default();
            self.slots[*id as usize].account.tokens = self.settled_bucket(*id, before.as_ref(), spent);
        }
        let mut reserves = journal.reserves;
        reserves.sort_unstable_by_key(|(id, _)| *id);
        let mut earlier = reserves.iter().peekable();
        for (id, mut before) in accounts {
            self.count_risk(id);
            while earlier.next_if(|(own, _)| *own < id).is_some() {}
            if let (Some(before), Some((_, reserved))) = (&mut before, earlier.next_if(|(own, _)| *own == id))
            {
                before.reserved = *reserved;
            }
            let after = &self.slots[id as usize].account;
            if before.as_ref() == Some(after) {
                continue;
            }
            if let Some(before) = &before {
                self.totals.add(before, -1);
            }
            self.totals.add(after, 1);
            changes.push((
                RecordKey::Account(AccountId(u64::from(id))),
                before.map(Record::Account),
                Some(Record::Account(after.clone())),
            ));
        }
        let alone = reserves.into_iter().filter_map(|(id, before)| {
            let slot = &self.slots[id as usize];
            let after = slot.account.reserved;
            let changed = slot.stamp != self.sequence && before != after;
            changed.then_some((AccountId(u64::from(id)), before, after))
        });
        let reserves = alone.collect();
        for (at, exit) in self.exits.iter().enumerate().skip(journal.exits) {
            changes.push((RecordKey::Exit(at as u64), None, Some(Record::Exit(exit.clone()))));
        }
        for (key, before) in journal.book {
            let after = self.book.record(key);
            if before != after {
                changes.push((key, before, after));
            }
        }
        let first = changes.len();
        for (height, entries) in journal.entries {
            let key = |index: u32| RecordKey::Entry(OrderId { height, index });
            changes.extend(entries.into_iter().map(|(at, own)| (key(at), Some(Record::Entry(own)), None)));
        }
        let new = self.book.entries_at(self.globals.height);
        changes.extend(new.map(|(id, own)| (RecordKey::Entry(id), None, Some(Record::Entry(*own)))));
        // In order already, unless zones share a height.
        changes[first..].sort_by_key(|(key, _, _)| *key);
        let mut orders = journal.orders;
        orders.sort_by_key(|(id, _, _)| *id);
        orders.dedup_by_key(|(id, _, _)| *id);
        for (id, account, before) in orders {
            self.count_risk(account);
            let after = self.book.orders.held(account, id).map(|held| held.order);
            if before != after {
                let key = RecordKey::Order(id);
                changes.push((key, before.map(Record::Order), after.map(Record::Order)));
            }
        }
        self.assert_conserved();
        BlockDelta { height: self.globals.height, changes, reserves, events: journal.events }
    }

    fn assert_conserved(&self) {
        for (id, market) in self.markets() {
            if let Err(error) = self.totals.check_market(id, market) {
                panic!("block {}: {error}", self.globals.height);
            }
        }
        if let Err(error) = self.totals.check_claims(&self.globals, &self.markets) {
            panic!("block {}: {error}", self.globals.height);
        }
    }

    /// Undoes the last block.
    ///
    /// # Panics
    /// If a block is in progress, or `delta` is not the last block's.
    pub fn revert(&mut self, delta: &BlockDelta) {
        assert!(self.journal.is_none(), "a block is in progress");
        assert!(delta.height == self.globals.height, "only the last block can be undone");
        // In reverse, so that what was opened last goes first.
        for (key, before, _) in delta.changes.iter().rev() {
            self.put(*key, before.as_ref());
        }
        for (id, before, _) in &delta.reserves {
            self.slots[id.0 as usize].account.reserved = *before;
        }
        self.assert_conserved();
    }

    /// Does a block again that was undone.
    ///
    /// # Panics
    /// If a block is in progress, or `delta` does not follow the current state.
    pub fn reapply(&mut self, delta: &BlockDelta) {
        assert!(self.journal.is_none(), "a block is in progress");
        assert!(delta.height == self.globals.height.next(), "only the next block can be redone");
        for (key, _, after) in &delta.changes {
            self.put(*key, after.as_ref());
        }
        for (id, _, after) in &delta.reserves {
            self.slots[id.0 as usize].account.reserved = *after;
        }
        self.assert_conserved();
    }

    /// Replaces a record, outside a block, and keeps everything derived in step.
    fn put(&mut self, key: RecordKey, record: Option<&Record>) {
        match (key, record) {
            (RecordKey::Globals, Some(Record::Globals(globals))) => self.globals = globals.clone(),
            (RecordKey::Market(id), Some(Record::Market(market))) => {
                let at = usize::from(id.0);
                if self.markets[at].params != market.params {
                    self.sheets[at] = Sheet::new(market);
                    self.index[at].stale = true;
                }
                self.markets[at] = Market::clone(market);
                self.refresh_sheet(id);
            }
            (RecordKey::Account(id), Some(Record::Account(account))) => {
                let at = id.0 as usize;
                let before = self.slots.get(at).and_then(|slot| slot.account.cancel_at);
                self.reschedule(id.0 as u32, before, account.cancel_at);
                if at == self.slots.len() {
                    self.slots.push(Slot::new(account.clone()));
                } else {
                    self.totals.add(&self.slots[at].account, -1);
                    self.slots[at].account = account.clone();
                }
                self.totals.add(account, 1);
                let slot = &mut self.slots[at];
                if !slot.dirty {
                    slot.dirty = true;
                    self.dirty.push(at as u32);
                }
                self.count_risk(at as u32);
            }
            (RecordKey::Account(id), None) => {
                assert!(id.0 as usize + 1 == self.slots.len(), "accounts close in reverse order");
                self.unindex(id.0 as u32);
                let slot = self.slots.pop().expect("the account exists");
                self.reschedule(id.0 as u32, slot.account.cancel_at, None);
                self.totals.add(&slot.account, -1);
                self.at_risk -= u64::from(slot.at_risk);
                if slot.dirty {
                    self.dirty.retain(|&dirty| u64::from(dirty) != id.0);
                }
            }
            (RecordKey::Exit(index), Some(Record::Exit(exit))) => {
                assert!(index == self.exits.len() as u64, "exits follow each other");
                self.exits.push(exit.clone());
            }
            (RecordKey::Exit(index), None) => {
                assert!(index + 1 == self.exits.len() as u64, "exits leave in reverse order");
                self.exits.pop();
            }
            (
                RecordKey::Zone(_) | RecordKey::Inbox(..) | RecordKey::Entry(_) | RecordKey::Order(_),
                record,
            ) => {
                let whose = |book: &Book| match key {
                    RecordKey::Order(id) => book.orders.owner(id),
                    _ => None,
                };
                let Self { book, markets, .. } = self;
                let before = whose(book);
                let put = book.put(key, record, |market| markets[usize::from(market.0)].params.orders.zone);
                assert!(put, "a delta puts records where they belong");
                if let Some(owner) = before.or(whose(book)) {
                    self.count_risk(owner);
                }
            }
            _ => panic!("a delta puts records where they belong"),
        }
    }
}

/// The compartments of an account that hold positions, and cross.
pub(crate) fn compartments(account: &Account) -> impl Iterator<Item = Compartment> + '_ {
    core::iter::once(Compartment::Cross).chain(
        account
            .positions
            .iter()
            .filter(|position| position.mode == MarginMode::Isolated)
            .map(Position::compartment),
    )
}
