//! The lab: whole validators in deterministic simulation, in storms from a seed.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`record`] | everything that a storm tells, as one piece of data |

#![forbid(unsafe_code)]

pub mod record;
