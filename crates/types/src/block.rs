//! Header and body of a block.

use crate::{ChainId, Digest, GroupSignature, Height, Observation, Outcome, SignedAction, TimeMs};

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
    /// Rescues by ascending [order](crate::SignedAction::rescue_order), then trades, all in execution order.
    pub actions: Vec<SignedAction>,
    /// That a quorum voted for the parent: there is one above the first block. Its bytes, which nobody knows before
    /// that quorum has voted, decide by lot in the auctions of the parent's inboxes.
    pub parent_proof: Option<ParentProof>,
    /// Parts of outcomes that the block settles, by ascending zone, height and part.
    pub outcomes: Vec<ZoneOutcome>,
}

/// What the committee signed of a block's parent. The proposal that it signed is known from the two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentProof {
    /// Whether it is a finality certificate. A leader carries one only where it has no notarization, as after an
    /// import.
    pub finalized: bool,
    /// Of the group key, so there is one for each proposal and kind of vote.
    pub signature: GroupSignature,
}

/// A part of the outcome of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneOutcome {
    /// Whose.
    pub zone: u8,
    /// The last height of the zone that was void when this was computed; zero if none was. Settlement takes it only where
    /// that is still so.
    pub voided: Height,
    /// What happened there.
    pub outcome: Outcome,
}

impl ZoneOutcome {
    /// Its place among the outcomes of a block.
    pub const fn place(&self) -> (u8, Height, u32) {
        (self.zone, self.outcome.height, self.outcome.part)
    }

    /// How many records it holds.
    pub fn records(&self) -> usize {
        self.outcome.records()
    }
}
