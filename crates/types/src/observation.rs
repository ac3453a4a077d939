//! What a validator says of the outside world, once a view.
//!
//! One message carries prices, time, the rescues a validator holds, the zone outcomes it computed and
//! what it measures of the network. Fields for parts that do not exist yet are present and empty, so
//! that the format does not change when they arrive.

use crate::{
    AccountId, ChainId, Digest, Height, MarketId, Nonce, PriceTicks, Signature, TimeMs, ValidatorId,
};

/// A validator's signed view of the world for one consensus view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Chain.
    pub chain: ChainId,
    /// Epoch of the committee.
    pub epoch: u64,
    /// View that it was signed for.
    pub view: u64,
    /// Grows with every observation of this author, across views, retries and restarts.
    pub seq: u64,
    /// The author's clock.
    pub time: TimeMs,
    /// At most one report a market, by ascending market; a market that is left out has "no price".
    pub prices: Vec<(MarketId, PriceReport)>,
    /// Rescues that the author holds and no final block has answered, the oldest ones, by ascending name. Its author has
    /// relayed each of them before.
    pub rescues: Vec<RescueRef>,
    /// Zone outcomes that the author computed.
    pub outcomes: Vec<OutcomeRef>,
    /// What the author measures of the network.
    pub health: Health,
    /// Who says so.
    pub author: ValidatorId,
    /// Author's signature, in [`Domain::Observation`](crate::Domain::Observation).
    pub signature: Signature,
}

/// What a validator's own sources say of a market's index price.
///
/// With `k` voters sorted as `x[0..k]`, `low = x[(k-1)/2]` and `high = x[k/2]`: most are at or above
/// `low`, and most are at or below `high`. Both equal the median when `k` is odd. Voters are the fresh
/// sources and at most fewer older ones, so both medians lie within the range of the fresh.
/// A jump is confirmed by this validator when both lie beyond the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceReport {
    /// Lower median of the voters. Never zero.
    pub low: PriceTicks,
    /// Upper median of the voters; at least `low`.
    pub high: PriceTicks,
    /// Distance between the lowest and the highest fresh source, in ticks.
    pub spread: PriceTicks,
    /// Number of fresh sources, at least 1.
    pub sources: u8,
}

/// A rescue that a validator holds, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RescueRef {
    /// Signer.
    pub account: AccountId,
    /// Nonce.
    pub nonce: Nonce,
    /// The last height at which a block may carry it, so that nobody owes what has expired.
    pub expiry: Height,
    /// Digest of the signed action.
    pub digest: Digest,
}

/// A zone outcome that a validator computed, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutcomeRef {
    /// Zone.
    pub zone: u16,
    /// Height of the inbox.
    pub height: u64,
    /// Digest of the outcome.
    pub digest: Digest,
}

/// What a validator measures of the network. Versioned; empty until the controller reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {}
