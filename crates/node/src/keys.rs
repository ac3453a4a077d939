//! The secrets of one validator, in a file that only its owner may read.
//!
//! ```toml
//! format = 1
//! public_key = "..."        # the validator's identity; not secret
//! share_index = 0           # its place in the committee; not secret
//! identity_secret = "..."   # signs blocks, observations and connections
//! share_secret = "..."      # its share of the group key: signs votes
//! ```

use crate::files::{FileError, from_hex, read_text, to_hex, write_whole};
use commonware_cryptography::bls12381::primitives::group::Share;
use seawall_chain::{
    committee::{decode_share, encode_share},
    crypto::Identity,
};
use seawall_types::Key;
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};
use toml::Spanned;

/// Version of the format that this crate writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// Usual name of the file.
pub const KEYS_FILE: &str = "keys.toml";

const HEADER: &str = "\
# The secrets of one validator. Whoever has them can vote and sign in its name.
# Never run two validators with the same keys: they would contradict each other.
";

/// The secrets of a validator. Printing it shows the public part alone.
#[derive(Clone)]
pub struct Keys {
    /// Signs blocks, observations and connections.
    pub identity: Identity,
    /// Signs votes.
    pub share: Share,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("public_key", &self.identity.key())
            .field("share_index", &self.share.index.get())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct KeysOut<'a> {
    format: u32,
    public_key: &'a str,
    share_index: u32,
    identity_secret: &'a str,
    share_secret: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysToml {
    format: Spanned<u32>,
    public_key: Spanned<String>,
    share_index: Spanned<u32>,
    identity_secret: Spanned<String>,
    share_secret: Spanned<String>,
}

impl Keys {
    /// Writes the file, readable and writable by its owner alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let out = KeysOut {
            format: FORMAT,
            public_key: &self.identity.key().to_string(),
            share_index: self.share.index.get(),
            identity_secret: &to_hex(&self.identity.secret()),
            share_secret: &to_hex(&encode_share(&self.share)),
        };
        let text = toml::to_string(&out).map_err(|_| FileError::new(path, "the keys cannot be written"))?;
        write_whole(path, true, format!("{HEADER}{text}").as_bytes())
    }

    /// Reads the file. What does not stop a validator but should be mended is returned beside the keys.
    ///
    /// # Errors
    /// If the file cannot be read or anything in it is wrong: file, line and reason, and never a secret.
    pub fn read(path: &Path) -> Result<(Self, Vec<String>), FileError> {
        let text = read_text(path)?;
        let fault =
            |offset: usize, reason: &dyn fmt::Display| FileError::at_offset(path, &text, offset, reason);
        // The parser's own message can quote the line, and so a secret: only its place and kind are told.
        let keys: KeysToml = toml::from_str(&text).map_err(|error| {
            let quoted = error.message();
            let known = ["missing field", "unknown field", "duplicate key"];
            let reason = if known.iter().any(|kind| quoted.starts_with(kind)) { quoted } else { "malformed" };
            match error.span() {
                Some(span) => fault(span.start, &reason),
                None => FileError::new(path, reason),
            }
        })?;
        if *keys.format.get_ref() != FORMAT {
            let reason =
                format!("format {} is not known; this version reads format {FORMAT}", keys.format.get_ref());
            return Err(fault(keys.format.span().start, &reason));
        }
        let secret = |name: &str, field: &Spanned<String>| {
            from_hex(field.get_ref())
                .map_err(|reason| fault(field.span().start, &format!("{name}: {reason}")))
        };
        let identity = secret("identity_secret", &keys.identity_secret)?;
        let identity = Identity::from_secret(&identity).ok_or_else(|| {
            fault(keys.identity_secret.span().start, &"identity_secret: not 32 bytes of an Ed25519 key")
        })?;
        let share = secret("share_secret", &keys.share_secret)?;
        let share = decode_share(&share)
            .map_err(|reason| fault(keys.share_secret.span().start, &format!("share_secret: {reason}")))?;
        let public: Key = keys
            .public_key
            .get_ref()
            .parse()
            .map_err(|reason| fault(keys.public_key.span().start, &format!("public_key: {reason}")))?;
        if identity.key() != public {
            return Err(fault(
                keys.public_key.span().start,
                &format!("public_key: identity_secret is of {}", identity.key()),
            ));
        }
        if share.index.get() != *keys.share_index.get_ref() {
            return Err(fault(
                keys.share_index.span().start,
                &format!("share_index: share_secret has index {}", share.index.get()),
            ));
        }
        Ok((Self { identity, share }, permission_warnings(path)))
    }
}

#[cfg(unix)]
fn permission_warnings(path: &Path) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => vec![format!(
            "{}: others than its owner may access this file (mode {:03o}); run chmod 600 on it",
            path.display(),
            metadata.permissions().mode() & 0o777
        )],
        _ => Vec::new(),
    }
}

#[cfg(not(unix))]
fn permission_warnings(_: &Path) -> Vec<String> {
    Vec::new()
}
