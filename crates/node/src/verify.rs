//! A chain executed again from its genesis: every certificate, every signature, every root.

use crate::offline::ToolError;
use seawall_chain::{genesis::Genesis, store::StateCommitment};
use seawall_types::{Digest, Height};
use std::path::Path;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Blocks done.
    pub height: Height,
    /// The last block, where it is known beforehand.
    pub last: Option<Height>,
}

/// A chain that is what its certificates say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Height of the last block.
    pub height: Height,
    /// Its digest.
    pub digest: Digest,
    /// Its state root.
    pub state_root: Digest,
    /// Certificates that were checked; each covers its block and those below.
    pub certificates: u64,
    /// Actions that were executed.
    pub actions: u64,
}

/// Why a chain does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A block is not what it says.
    #[error("block {height} does not verify: {field}: {detail}")]
    Divergence {
        /// The first such block.
        height: Height,
        /// What of it.
        field: &'static str,
        /// How.
        detail: String,
    },
}

/// Executes the chain in a data directory again, in a temporary store, and compares everything.
///
/// # Errors
/// If the directory cannot be used or read, or a block diverges: the first one.
pub fn verify(
    _directory: &Path,
    _genesis: &Genesis,
    _commitment: &StateCommitment,
    _progress: impl FnMut(Progress),
) -> Result<Verified, VerifyError> {
    Err(ToolError::Refused("not there yet".into()).into())
}
