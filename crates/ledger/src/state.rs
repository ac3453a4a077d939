//! The canonical records. Everything that a block can change is in one of them; whatever else the ledger
//! keeps in memory is derived and rebuilt from these.

use std::collections::BTreeMap;

use seawall_types::{
    AccountId, Atoms, ChainId, Entry, FundingIndex, Height, Key, Lots, MarginMode, Mark, MarketId, Order,
    OrderId, PriceTicks, Recipient, Reference, Terms, TimeMs, Trigger,
};

use crate::{
    kernel,
    nonces::Nonces,
    params::{MarketParams, RescueParams},
    rescues::Bucket,
};

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountKind {
    /// Somebody's.
    User,
    /// Opens accounts and books deposits; otherwise like a user's.
    Issuer,
    /// The protocol's in one market: its collateral is the market's ring-fenced fund, its position is what
    /// it took over. Nobody can sign for it.
    Backstop(MarketId),
}

/// A position. Its worth at a unit value `u` (atoms per lot) is `lots x u - cost - funding owed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Market.
    pub market: MarketId,
    /// Size, never zero; positive is long.
    pub lots: Lots,
    /// Quote cost: what was paid for the lots (negative: what was received).
    pub cost: Atoms,
    /// The market's funding index up to which funding is settled.
    pub funding_entry: FundingIndex,
    /// How it is margined.
    pub mode: MarginMode,
    /// Its own collateral, if it is isolated; else zero.
    pub isolated: Atoms,
    /// When it was first found in breach, if it is isolated and waits for liquidation.
    pub breached: Option<Height>,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Who signs for it.
    pub owner: Key,
    /// What it is for.
    pub kind: AccountKind,
    /// Cross collateral. Negative only while unrealised profit or a blind position carries it.
    pub collateral: Atoms,
    /// What is kept for the worst case of open orders, of cross and isolated markets: out of cross, from which
    /// an isolated position takes what it lacks when it is filled. It follows from orders, positions and marks.
    pub reserved: Atoms,
    /// Open positions by ascending market, at most one each.
    pub positions: Vec<Position>,
    /// Markets in which positions open isolated, ascending.
    pub isolated: Vec<MarketId>,
    /// Used nonces. Expired ones are dropped when the next one is added.
    pub nonces: Nonces,
    /// When cross was first found in breach, if it waits for liquidation.
    pub breached: Option<Height>,
    /// Leverage that the account chose below the market's maximum, by ascending market.
    pub leverage: Vec<(MarketId, u32)>,
    /// Block time at which all its orders are cancelled.
    pub cancel_at: Option<TimeMs>,
    /// Tokens for rescues; `None` if the bucket is full.
    pub tokens: Option<Bucket>,
}

/// Why a market is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuarantineReason {
    /// A deficit of the market was left after fund, insurance and auto-deleveraging.
    UncoveredDeficit,
}

/// A market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// Parameters.
    pub params: MarketParams,
    /// Mark price with its state; `None` before the first.
    pub mark: Option<Mark>,
    /// Cumulative funding of a lot.
    pub funding_index: FundingIndex,
    /// What settled funding brought in less what it paid out. Negative while receivers settled first.
    pub funding_pool: Atoms,
    /// Rounding dust of settled funding that is no whole atom yet: scaled, in `0..2^32`.
    pub funding_dust: u64,
    /// Lots open, longs and shorts each.
    pub open_interest: Lots,
    /// The account that holds the market's fund and what was taken over.
    pub backstop: AccountId,
    /// Since when and why the market is out of service.
    pub quarantined: Option<(Height, QuarantineReason)>,
}

/// What there is once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Chain.
    pub chain: ChainId,
    /// The account that opens accounts and books deposits.
    pub issuer: AccountId,
    /// Liquidation steps that a block reserves.
    pub liquidation_steps: u32,
    /// Most blocks that a compartment in breach waits.
    pub max_wait_blocks: u32,
    /// How rescues are rationed.
    pub rescues: RescueParams,
    /// Height of the last block.
    pub height: Height,
    /// Time of the last block.
    pub time: TimeMs,
    /// Deposited less withdrawn since genesis, genesis included.
    pub supply: Atoms,
    /// Insurance fund.
    pub insurance: Atoms,
    /// Deficits that nobody could pay. Income of the insurance fund repays them first.
    pub uncovered: Atoms,
    /// Accounts ever opened; the next one gets this id.
    pub accounts: u64,
    /// Exits ever created; the next one gets this index.
    pub exits: u64,
}

/// Value on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Who withdrew.
    pub account: AccountId,
    /// Where to.
    pub recipient: Recipient,
    /// How much.
    pub amount: Atoms,
    /// In which block.
    pub height: Height,
}

/// What an order waits for, and since when it only waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What must be crossed.
    pub trigger: Trigger,
    /// The height at which a fresh mark crossed it first. It enters its zone in that block or a later one, wherever
    /// the mark goes.
    pub crossed: Option<Height>,
}

/// An order that may still trade.
///
/// Its terms are those after the last height of its zone that ended, so that the zone can be rebuilt from them.
/// What the settled parts of the height after that did to it stands beside them until that height ends, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// Its owner.
    pub account: AccountId,
    /// What it asks for. Of a modification, what it would ask for if it took its order's place.
    pub terms: Terms,
    /// Lots that such parts filled or cut.
    pub spent: Lots,
    /// Where such a part moved its limit.
    pub slid: Option<PriceTicks>,
    /// Whether it ended in such a part.
    pub ended: bool,
    /// The height whose inbox cancels it. Auctions before that can still fill it.
    pub leaving: Option<Height>,
    /// The trigger that it waits for, outside its zone. Its id is none of an entry then, and nothing has happened
    /// to it.
    pub waiting: Option<Waiting>,
}

impl OpenOrder {
    /// Lots that can still trade.
    pub fn live(&self) -> Lots {
        if self.ended { Lots::ZERO } else { self.terms.lots - self.spent }
    }

    /// Whether it goes on, as far as is known.
    pub(crate) fn stays(&self) -> bool {
        self.leaving.is_none() && !self.ended
    }

    /// Whether a settled part of a height that has not ended did something to it.
    pub(crate) fn is_touched(&self) -> bool {
        self.spent.0 != 0 || self.ended || self.slid.is_some()
    }

    /// The order as it stands in its zone after the settled parts; `None` if it ended in one, or waits for its
    /// trigger.
    pub fn standing(&self, id: OrderId) -> Option<Order> {
        let limit = self.slid.unwrap_or(self.terms.limit);
        let terms = Terms { limit, lots: self.live(), ..self.terms };
        (!self.ended && self.waiting.is_none()).then_some(Order { id, account: self.account, terms })
    }
}

/// What a zone was asked for, until its outcome is settled or void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneEntry {
    /// The zone.
    pub zone: u8,
    /// The request and whose it is.
    pub entry: Entry,
}

/// The inbox of a zone at a height, without its entries, until its outcome is settled or void.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZoneInbox {
    /// Markets that hold an auction.
    pub references: BTreeMap<MarketId, Reference>,
    /// Parts of its outcome that are settled.
    pub parts: u32,
    /// One past the largest index among the entries of its height, those of other zones included.
    pub end: u32,
    /// What decides by lot in its auctions. Nobody knows it while the inbox fills; the next block brings it.
    pub salt: Option<[u8; 32]>,
}

/// Where a zone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneState {
    /// The last height whose inbox was settled whole or voided.
    pub ended: Height,
    /// The last height whose inbox was voided; zero if none was. An outcome that was computed without knowing that it is
    /// void is of no use.
    pub voided: Height,
}

/// Where a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// [`Globals`].
    Globals,
    /// [`Market`].
    Market(MarketId),
    /// [`Account`].
    Account(AccountId),
    /// [`Exit`] by index.
    Exit(u64),
    /// [`ZoneState`]. There is none before the first inbox of the zone ends.
    Zone(u8),
    /// [`ZoneInbox`].
    Inbox(u8, Height),
    /// [`ZoneEntry`].
    Entry(OrderId),
    /// [`OpenOrder`].
    Order(OrderId),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// [`RecordKey::Globals`].
    Globals(Globals),
    /// [`RecordKey::Market`]. By far the largest, and there are few: all others would be as long in memory.
    Market(Box<Market>),
    /// [`RecordKey::Account`].
    Account(Account),
    /// [`RecordKey::Exit`].
    Exit(Exit),
    /// [`RecordKey::Zone`].
    Zone(ZoneState),
    /// [`RecordKey::Inbox`].
    Inbox(ZoneInbox),
    /// [`RecordKey::Entry`].
    Entry(ZoneEntry),
    /// [`RecordKey::Order`].
    Order(OpenOrder),
}

/// A part of an account with a health of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compartment {
    /// Cross collateral and all cross positions.
    Cross,
    /// One isolated position with its own collateral.
    Isolated(MarketId),
}

impl Position {
    /// The compartment that the position is part of.
    #[inline]
    pub fn compartment(&self) -> Compartment {
        match self.mode {
            MarginMode::Cross => Compartment::Cross,
            MarginMode::Isolated => Compartment::Isolated(self.market),
        }
    }
}

impl Account {
    /// An account with nothing in it.
    pub fn new(owner: Key, kind: AccountKind, collateral: Atoms) -> Self {
        Self {
            owner,
            kind,
            collateral,
            reserved: Atoms::ZERO,
            positions: Vec::new(),
            isolated: Vec::new(),
            nonces: Nonces::new(),
            breached: None,
            leverage: Vec::new(),
            cancel_at: None,
            tokens: None,
        }
    }

    /// Whether nothing but what is reserved tells the two apart.
    pub fn differs_in_reserve_alone(&self, other: &Self) -> bool {
        let Self {
            owner,
            kind,
            collateral,
            reserved: _,
            positions,
            isolated,
            nonces,
            breached,
            leverage,
            cancel_at,
            tokens,
        } = self;
        *collateral == other.collateral
            && *positions == other.positions
            && *nonces == other.nonces
            && *breached == other.breached
            && *cancel_at == other.cancel_at
            && *tokens == other.tokens
            && *isolated == other.isolated
            && *leverage == other.leverage
            && (*owner, *kind) == (other.owner, other.kind)
    }

    /// The position in a market.
    #[inline]
    pub fn position(&self, market: MarketId) -> Option<&Position> {
        self.positions.iter().find(|position| position.market == market)
    }

    pub(crate) fn position_mut(&mut self, market: MarketId) -> Option<&mut Position> {
        self.positions.iter_mut().find(|position| position.market == market)
    }

    /// Lots held in a market; zero when flat.
    #[inline]
    pub fn lots(&self, market: MarketId) -> Lots {
        self.position(market).map_or(Lots::ZERO, |position| position.lots)
    }

    /// How a position opened now in a market would be margined.
    pub fn mode(&self, market: MarketId) -> MarginMode {
        if self.isolated.binary_search(&market).is_ok() { MarginMode::Isolated } else { MarginMode::Cross }
    }

    /// The leverage that the account chose in a market; `None` where the market's maximum holds.
    pub fn leverage(&self, market: MarketId) -> Option<u32> {
        let at = self.leverage.binary_search_by_key(&market, |(market, _)| *market).ok()?;
        Some(self.leverage[at].1)
    }

    /// The rate of initial margin that the account's own leverage asks for in a market, in ppm: zero if it chose none.
    #[inline]
    pub(crate) fn own_rate(&self, market: MarketId) -> i128 {
        if self.leverage.is_empty() {
            return 0;
        }
        self.leverage(market).map_or(0, |leverage| kernel::leverage_rate(i128::from(leverage)))
    }

    /// The market's maximum is what holds without a choice, and so is not kept.
    pub(crate) fn set_leverage(&mut self, market: MarketId, leverage: u32, most: u32) {
        let at = self.leverage.binary_search_by_key(&market, |(market, _)| *market);
        match at {
            Ok(at) if leverage >= most => {
                self.leverage.remove(at);
            }
            Ok(at) => self.leverage[at].1 = leverage,
            Err(at) if leverage < most => self.leverage.insert(at, (market, leverage)),
            Err(_) => {}
        }
    }

    /// Collateral of a compartment. Zero for an isolated one that does not exist.
    pub fn collateral_of(&self, compartment: Compartment) -> Atoms {
        match compartment {
            Compartment::Cross => self.collateral,
            Compartment::Isolated(market) => {
                self.position(market).map_or(Atoms::ZERO, |position| position.isolated)
            }
        }
    }

    pub(crate) fn collateral_of_mut(&mut self, compartment: Compartment) -> &mut Atoms {
        let Self { collateral, positions, .. } = self;
        match compartment {
            Compartment::Cross => collateral,
            Compartment::Isolated(market) => positions
                .iter_mut()
                .find(|position| position.market == market)
                .map_or(collateral, |position| &mut position.isolated),
        }
    }

    /// Since when a compartment waits for liquidation.
    pub fn breached(&self, compartment: Compartment) -> Option<Height> {
        match compartment {
            Compartment::Cross => self.breached,
            Compartment::Isolated(market) => self.position(market).and_then(|position| position.breached),
        }
    }

    pub(crate) fn set_breached(&mut self, compartment: Compartment, since: Option<Height>) {
        match compartment {
            Compartment::Cross => self.breached = since,
            Compartment::Isolated(market) => {
                if let Some(position) = self.position_mut(market) {
                    position.breached = since;
                }
            }
        }
    }
}
