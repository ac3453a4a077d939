//! What the tools on a data directory share.

use crate::datadir::DirectoryError;
use seawall_types::Digest;
use std::path::PathBuf;

/// Why a tool refuses.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It belongs to another chain.
    #[error(
        "{directory} belongs to another chain: its genesis block is {found}, the genesis file's is {expected}"
    )]
    OtherChain {
        /// The directory.
        directory: PathBuf,
        /// Digest of block 0 by the genesis file.
        expected: Digest,
        /// By the directory.
        found: Digest,
    },
    /// What it holds cannot be right.
    #[error("{directory} is damaged: {what}; restore it, or remove it and catch up from peers")]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What was found.
        what: String,
    },
    /// A file in the way or unreadable.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// Anything else.
    #[error("{0}")]
    Refused(String),
}
