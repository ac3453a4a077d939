//! What the ledger and the auction cost, in instructions, and what regenerates each figure.
//!
//! Instructions and not seconds: they do not depend on the machine, on what else runs on it, or on luck, so
//! two people get the same figure to about a percent.
//!
//! | module | what it measures |
//! | --- | --- |
//! | [`margin`] | one margin check |
//! | [`sweep`] | a block's liquidation sweep: what it depends on, through a whole crash, after a gap |
//! | [`auction`] | an auction: what it depends on, and its worst cases |
//! | [`fills`] | settling the fills of an auction |
//!
//! With the feature `peers`, which brings published matching engines, `peers` puts the auction beside them.
//!
//! With the feature `chain`, which takes minutes to compile:
//!
//! | module | what it measures |
//! | --- | --- |
//! | `execution` | execution and state root of a full block over many accounts |
//! | `orders` | orders through one validator, from their bytes to the state root |
//! | `finality` | simulated networks against the bound that distance sets |
//! | `restart` | memory of a validator with many accounts, and its way back after it was killed |
//! | `calibration` | what work costs on this machine, for simulations to charge |
//!
//! and how:
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`callgrind`] | runs a workload under valgrind and reads the count of each of its regions |
//! | [`workload`] | the programs that are run there; what they say of each region |
//! | [`population`] | synthetic accounts, some of them placed so that a known number reacts to a move |
//! | [`crash`] | a recorded crash and its opening book as a ledger and marks |
//! | [`clock`] | time of a thread on its core |
//! | [`flow`] | a seeded flow of orders |
//! | [`fit`] | least squares |
//!
//! Every measurement is a function from a [`callgrind::Runner`] to a report that serialises and displays as
//! a table. The program that calls it runs itself again under valgrind, so it needs a (hidden) command that
//! hands its argument to [`workload::work`]; the runner is told how to reach it. Nothing that is measured
//! knows that it is.

pub mod auction;
pub mod callgrind;
pub mod clock;
pub mod crash;
pub mod fills;
pub mod fit;
pub mod flow;
pub mod margin;
pub mod population;
pub mod sweep;
pub mod workload;

#[cfg(feature = "chain")]
pub mod calibration;
#[cfg(feature = "chain")]
pub mod chain;
pub mod cli;
#[cfg(feature = "chain")]
pub mod execution;
#[cfg(feature = "chain")]
pub mod finality;
#[cfg(feature = "chain")]
pub mod orders;
#[cfg(feature = "chain")]
pub mod overload;
#[cfg(feature = "peers")]
pub mod peers;
#[cfg(feature = "chain")]
pub mod restart;
