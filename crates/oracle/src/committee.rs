//! The committee's size and what follows from it.
//!
//! `f = (n - 1) / 3` members may be Byzantine, and `q = n - f` are a quorum. For every `n`, `q >= 2f + 1`,
//! so the median of any `q` values lies between two honest ones: that is all that this crate needs.

use seawall_types::{ValidatorId, limits::MAX_VALIDATORS};
use thiserror::Error;

/// The size of a committee: `1..=MAX_VALIDATORS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Committee {
    n: u16,
}

/// Why a committee is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommitteeError {
    /// No members, or more than [`MAX_VALIDATORS`].
    #[error("a committee has 1 to {MAX_VALIDATORS} members, not {0}")]
    Size(usize),
}

impl Committee {
    /// A committee of `n` members.
    ///
    /// # Errors
    /// [`CommitteeError::Size`] unless `1 <= n <= MAX_VALIDATORS`.
    pub fn new(n: usize) -> Result<Self, CommitteeError> {
        match u16::try_from(n) {
            Ok(members) if (1..=MAX_VALIDATORS).contains(&n) => Ok(Self { n: members }),
            _ => Err(CommitteeError::Size(n)),
        }
    }

    /// Members.
    pub const fn size(self) -> usize {
        self.n as usize
    }

    /// Most members that may be Byzantine: `f = (n - 1) / 3`.
    pub const fn faults(self) -> usize {
        (self.n as usize - 1) / 3
    }

    /// Members of a quorum: `q = n - f`.
    pub const fn quorum(self) -> usize {
        self.size() - self.faults()
    }

    /// Whether `validator` is a member.
    pub const fn contains(self, validator: ValidatorId) -> bool {
        validator.0 < self.n
    }
}
