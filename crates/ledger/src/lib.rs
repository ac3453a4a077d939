//! The pure core of a settlement layer for crypto derivatives: accounts, margin, funding, trades and
//! liquidation. Integers only; no clock, no I/O, no randomness, no hash order, no float.
//!
//! # A block
//!
//! ```text
//! begin_block -> set_marks -> accrue_funding -> void_overdue, settle(outcomes) -> run_scheduled_cancels
//!     -> apply(rescues) -> sweep -> activate_triggers -> apply(trades) -> end_block
//! ```
//!
//! The caller checks signatures and decides what a block carries; the ledger decides what it does. A
//! refused action leaves no trace; if a block carries it all the same, `spend_nonce` spends its nonce and token.
//! [`Ledger::end_block`] returns the [`BlockDelta`] to be written to authenticated storage, and
//! [`Ledger::revert`] and [`Ledger::reapply`] walk between forks with it.
//!
//! # State
//!
//! All canonical state is in eight kinds of [`Record`]: [`Globals`], [`Market`], [`Account`], [`Exit`], and for
//! orders [`ZoneState`], [`ZoneInbox`], [`ZoneEntry`] and [`OpenOrder`].
//! Everything else (valuation sheets, running totals, the sweep's index) is derived, rebuilt by
//! [`Ledger::from_records`], and never decides what a block does.
//!
//! An account is one cross [`Compartment`] and one for each isolated position. Each has its own health,
//! and a deficit of one never touches another.
//!
//! # Money
//!
//! A position is worth `lots x price x atoms_per_tick_lot - cost - funding owed`. A trade moves its price
//! into the cost; closing releases the cost in proportion, and the difference becomes collateral.
//!
//! | rounding | direction | dust |
//! | --- | --- | --- |
//! | fees | up | insurance fund |
//! | funding owed | up (payers more, receivers less) | insurance fund, in whole atoms |
//! | margin requirements | up, once per compartment | nobody: nothing moves |
//! | cost released by a partial close | down | stays in the position |
//! | penalty | up, never above the equity | whoever takes over |
//! | shares of charges, gains and lots | largest remainder, ties to the lower account | none |
//!
//! What can be withdrawn, transferred or moved to an isolated position is `min(collateral, equity) -
//! initial margin - reserved`: unrealised profit cannot leave. Blind legs (without a fresh price) count
//! against the account for this, and nothing leaves a compartment that has one but to rescue an isolated
//! position. Trades that add risk to either side need a fresh price; those that close on both sides do not.
//! Funding accrues at fresh prices only, and for at most one interval a block.
//!
//! # Liquidation
//!
//! In every block, for every compartment in breach that has a fresh leg: see the `ladder` module for the
//! rungs and their order, the `index` module for how breaches are found without scanning accounts.
//!
//! # Orders
//!
//! Orders are matched elsewhere, by zones that run beside settlement. What settlement reserves for them, gives to
//! a zone, and does with what comes back: see the `orders` module. Orders that wait for the mark to cross a price: see
//! the `triggers` module. Dead man's switches: see the `schedule` module.
//!
//! # Rescues
//!
//! Every rescue that a block carries takes a token of its signer. Who has how many: see the `rescues` module.
//!
//! # Leverage
//!
//! An account can choose a leverage below a market's maximum. Its initial margin there is the larger of the market's
//! schedule and that rate (rounded up), in everything that asks whether it may add risk or take value out: margin
//! checks, reservations, what an isolated position takes from cross. Maintenance margin and liquidation know only
//! the market's schedule, so an owner's caution never makes liquidation come earlier or take more.
//!
//! # Invariants, checked in production after every block
//!
//! 1. Conservation: collateral - costs + funding pools + insurance - uncovered deficits = supply, where
//!    supply = deposited - withdrawn. The market value of all positions sums to zero by 2.
//! 2. In each market longs = shorts = open interest.
//! 3. In each market the funding pool plus what positions owe it is the dust on record, below one atom.
//!
//! And by the tests: the indexed sweep finds what a full scan finds; undo and redo are exact; no
//! liquidation without a fresh price; nobody waits longer than the limit; isolated deficits stay isolated; what is
//! reserved is the recomputed worst case; each inbox ends once.
//!
//! # Deliberately absent
//!
//! Matching ([`CloseVenue`], a venue that answers at once, has no implementation but [`NoVenue`]); a funding
//! premium, triggers for a position that is not open yet, offsets between markets, changes of parameters, reopening or
//! settling a quarantined market, and a way for the backstop to unwind other than netting and deleveraging.

#![forbid(unsafe_code)]

pub mod kernel;
pub mod params;

mod actions;
mod health;
mod index;
mod ladder;
mod ledger;
mod nonces;
mod open_orders;
mod orders;
mod rescues;
mod schedule;
mod state;
mod trade;
mod triggers;

pub use actions::{Filled, Receipt};
pub use health::{Health, MarginCheck, Valuation};
pub use ladder::{CloseOrder, CloseVenue, Event, Liquidated, NoVenue, SweepReport, VenueFill};
pub use ledger::{
    AuditError, BlockDelta, Change, GenesisAccount, GenesisError, GenesisPosition, Ledger, RestoreError,
    SweepMode,
};
pub use nonces::{NonceRun, Nonces};
pub use orders::{SettleFault, SettleReport, SettledFill, Statuses, Verdicts};
pub use params::{
    BackstopParams, ChainParams, FundingParams, LiquidationParams, MarketParams, OrderParams, ParamsError,
    RescueParams, Symbol, TierParams,
};
pub use rescues::{Bucket, RescueBudget, Urgency};
pub use state::{
    Account, AccountKind, Compartment, Exit, Globals, Market, OpenOrder, Position, QuarantineReason, Record,
    RecordKey, Waiting, ZoneEntry, ZoneInbox, ZoneState,
};
pub use triggers::{TriggerEnd, TriggerReport};
