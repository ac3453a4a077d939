//! The price oracle: from what each validator's sources say to one mark price a market, with a state
//! that says what it is worth.
//!
//! | module | what is in it | who runs it |
//! | --- | --- | --- |
//! | [`sources`] | quotes of independent sources to one [`PriceReport`](seawall_types::PriceReport) a market | a validator, off the block path |
//! | [`table`] | reports of the committee to marks: the specification of every state | every validator, in every block |
//! | [`time`] | block time from observed times | every validator, in every block |
//! | [`committee`] | `n`, `f` and the quorum | both |
//! | [`params`] | every limit, and which combinations are refused | genesis |
//!
//! Everything is pure and integer-only: the same inputs give the same bytes on every machine. Nothing here
//! panics on data from outside.

#![forbid(unsafe_code)]

pub mod committee;
mod math;
pub mod params;
pub mod sources;
pub mod table;
pub mod time;

pub use committee::{Committee, CommitteeError};
pub use params::{MarketParams, OracleParams, ParamsError};
pub use sources::{SourceError, SourceId, SourceParams, Sources, aggregate};
pub use table::{
    GenesisError, Head, MarketOracle, Oracle, OracleEvent, OracleState, Reported, ReporterRow, RestoreError,
    Step, StepError,
};
pub use time::{block_time, median_time};
