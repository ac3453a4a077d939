//! Header and body of a block.

use crate::{ChainId, Digest, Height, Observation, SignedAction, TimeMs};

/// Format of header and body.
pub const VERSION: u8 = 1;

/// What the finality certificate vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Format, [`VERSION`].
    pub version: u8,
    /// Chain.
    pub chain: ChainId,
    /// Epoch of the committee.
    pub epoch: u64,
    /// Height; genesis is 0.
    pub height: Height,
    /// Digest of the parent block.
    pub parent: Digest,
    /// Block time: `max(parent + 1 ms, median of the observed times)`.
    pub time: TimeMs,
    /// Digest of the encoded [`Body`].
    pub body: Digest,
    /// Canonical root of the state after this block.
    pub state_root: Digest,
    /// Root and range of the operations log behind the state, for peers that sync it.
    pub ops: OpsTarget,
    /// Root over the zone outcomes that this block settles.
    pub outcomes_root: Digest,
    /// Root over every exit since genesis.
    pub exits_root: Digest,
}

/// What a syncing peer needs to fetch the operations log behind a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpsTarget {
    /// Root over the operations.
    pub root: Digest,
    /// First operation needed.
    pub start: u64,
    /// One past the last operation; above `start`.
    pub end: u64,
}

/// What a block carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// At least a quorum of observations, by ascending author, one each.
    pub observations: Vec<Observation>,
    /// Rescues first, then trades, each in execution order.
    pub actions: Vec<SignedAction>,
}
