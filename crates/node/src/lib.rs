//! A validator as a process: its files, its sockets, its price feeds, and the tools around it.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`scenario`] | from a replay to a genesis: market parameters, the book, the committee |
//! | [`feeds`] | a replay's feeds as a validator's price sources |
//! | [`process`] | a validator on tokio with authenticated TCP |

pub mod feeds;
pub mod process;
pub mod scenario;
