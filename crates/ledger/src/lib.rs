//! The ledger: the pure core of the settlement layer.

#![forbid(unsafe_code)]

pub mod kernel;
pub mod params;

mod actions;
mod health;
mod index;
mod ladder;
mod ledger;
mod state;
mod trade;

pub use actions::{Filled, Receipt};
pub use health::{Health, Valuation};
pub use ladder::{CloseOrder, CloseVenue, Event, Liquidated, NoVenue, SweepReport, VenueFill};
pub use ledger::{
    AuditError, BlockDelta, Change, GenesisAccount, GenesisError, GenesisPosition, Ledger, RestoreError,
    SweepMode,
};
pub use params::{
    BackstopParams, ChainParams, FundingParams, LiquidationParams, MarketParams, ParamsError, Symbol,
    TierParams,
};
pub use state::{
    Account, AccountKind, Compartment, Exit, Globals, Market, Position, QuarantineReason, Record, RecordKey,
};
