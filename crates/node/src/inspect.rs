//! A look into a data directory: an account, a market, a block, or the whole at a glance.

use crate::offline::ToolError;
use seawall_chain::{genesis::Genesis, store::StateCommitment};
use seawall_types::{AccountId, Height};
use std::{fmt, path::Path};

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The directory as a whole.
    Summary,
    /// An account.
    Account(AccountId),
    /// A market, by name or number.
    Market(String),
    /// A final block.
    Block(Height),
}

/// What was found. [`fmt::Display`] draws tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    json: serde_json::Value,
}

impl Report {
    /// The same for machines.
    pub const fn json(&self) -> &serde_json::Value {
        &self.json
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.json)
    }
}

/// Looks into a data directory that nobody uses.
///
/// # Errors
/// If the directory is missing, in use, of another chain or damaged, or holds no such thing.
pub fn inspect(
    _directory: &Path,
    _genesis: &Genesis,
    _commitment: &StateCommitment,
    _query: Query,
) -> Result<Report, ToolError> {
    Err(ToolError::Refused("not there yet".into()))
}
