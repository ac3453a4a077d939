//! A chain in one file: every final block with its certificate.

use crate::{
    offline::ToolError,
    verify::{Progress, Verified, VerifyError},
};
use seawall_chain::{genesis::Genesis, store::StateCommitment};
use seawall_types::{Digest, Height};
use std::path::Path;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Height of the last block.
    pub height: Height,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of everything before the trailer: the trailer.
    pub sha256: Digest,
}

/// Writes the final blocks of a data directory to `file`.
///
/// # Errors
/// If the directory cannot be used or read, or the file cannot be written.
pub fn export(
    _directory: &Path,
    _genesis: &Genesis,
    _commitment: &StateCommitment,
    _file: &Path,
    _progress: impl FnMut(Progress),
) -> Result<Exported, ToolError> {
    Err(ToolError::Refused("not there yet".into()))
}

/// Verifies an exported chain block by block and builds a new data directory from it.
///
/// # Errors
/// If the file cannot be read, is damaged or of another chain, the directory is not empty, or a block
/// diverges: the first one.
pub fn import(
    _file: &Path,
    _genesis: &Genesis,
    _commitment: &StateCommitment,
    _directory: &Path,
    _progress: impl FnMut(Progress),
) -> Result<Verified, VerifyError> {
    Err(ToolError::Refused("not there yet".into()).into())
}
