//! The lab: whole validators in deterministic simulation, in storms from a seed.
//!
//! A storm is a [scenario](scenario): prices, a book of accounts, traffic, a network with geography, faults on a timeline,
//! Byzantine validators, and what must hold. [`run::run`] puts the validators that run in production through it, in virtual
//! time, and gives a [`record::Record`]: what happened, what was demanded, and whether it held. The same scenario, seed and
//! version give the same record to the bit.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`scenario`] | files, their bounds, errors with lines |
//! | [`storms`] | the scenarios that ship |
//! | [`world`], [`feeds`], [`traffic`] | genesis, what validators see, what users send |
//! | [`topology`], [`calibration`] | how long ways are, what work costs |
//! | [`wire`] | what happens to messages, by fault or by malice |
//! | [`sim`] | one run, with everything seen written down |
//! | [`judge`], [`forecast`] | what it was worth, and what queueing theory said |
//! | [`baseline`], [`extracts`] | the same storm on a fee-ordered chain with keepers; recorded facts |
//! | [`report`] | a record as a page and as data |
//! | [`record`] | everything that a storm tells, as one piece of data |
//! | [`run`](mod@run), [`campaign`], [`cli`] | a storm, many seeds, commands |

#![forbid(unsafe_code)]

pub mod baseline;
pub mod calibration;
pub mod campaign;
pub mod cli;
pub mod extracts;
pub mod feeds;
pub mod forecast;
pub mod judge;
pub mod record;
pub mod report;
pub mod run;
pub mod scenario;
pub mod sim;
pub mod storms;
pub mod topology;
pub mod traffic;
pub mod wire;
pub mod world;

pub use run::run;
