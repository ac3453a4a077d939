//! A validator as a process: its files, its sockets, its price feeds, and the tools around it.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`feeds`] | a replay's feeds as a validator's price sources |
//! | [`process`] | a validator on tokio with authenticated TCP |
//! | [`model`], [`meter`] | what the queueing model predicts for a chain, and what a validator measures beside it |
//! | [`front`] | where programs of this machine send actions |
//! | [`serve`], [`log`] | metrics over HTTP; what is logged, and where |
//! | [`stdio`] | the same, driven by a parent process |
//! | [`genesis_file`], [`keys`], [`config_file`] | the files that a validator starts from |
//! | [`datadir`] | who may use a data directory |
//! | [`inspect`] | a look into a data directory |
//! | [`verify`] | a chain executed again from its genesis |
//! | [`export`] | a chain in one file |

pub mod config_file;
pub mod datadir;
pub mod export;
pub mod feeds;
pub mod files;
pub mod front;
pub mod genesis_file;
pub mod inspect;
pub mod keys;
pub mod log;
pub mod meter;
pub mod model;
pub mod offline;
pub mod process;
pub mod serve;
pub mod stdio;
pub mod verify;
