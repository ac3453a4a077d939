//! Genesis: everything that every validator must agree on before the first block.

use crate::{
    block::{Block, PublicKey},
    committee::{Committee, GroupKey},
    crypto::{Identity, key_of, sha256_digest},
    machine::{World, empty_exits_root},
    store::StateCommitment,
};
use commonware_codec::Encode as _;
use commonware_cryptography::bls12381::{
    dkg::feldman_desmedt::deal,
    primitives::{group::Share, sharing::Mode, variant::MinSig},
};
use commonware_utils::{N3f1, TryCollect as _, ordered::Set};
use rand_core::CryptoRng;
use seawall_ledger::{ChainParams, GenesisAccount, Ledger, RescueBudget};
use seawall_oracle::{Oracle, OracleParams};
use seawall_types::{AccountId, ChainId, Digest, PriceTicks, TimeMs, limits::MAX_VALIDATORS};
use thiserror::Error;

/// What a chain starts from.
#[derive(Clone)]
pub struct Genesis {
    /// Time of block 0.
    pub time: TimeMs,
    /// Markets, funds and budgets.
    pub ledger: ChainParams,
    /// Freshness, gates and grace.
    pub oracle: OracleParams,
    /// First price of each market, if it has one.
    pub prices: Vec<Option<PriceTicks>>,
    /// Identity keys of the validators.
    pub members: Set<PublicKey>,
    /// The validators' group key.
    pub group: GroupKey,
    /// The accounts that exist at block 0.
    pub accounts: Vec<GenesisAccount>,
}

/// Why a genesis is refused.
#[derive(Debug, Error)]
pub enum GenesisError {
    /// Too few or too many validators.
    #[error("a committee has 1 to {MAX_VALIDATORS} validators, not {0}")]
    Validators(usize),
    /// Two validators share a key.
    #[error("two validators have the same key")]
    DuplicateValidator,
    /// The group key cannot be dealt.
    #[error("the group key cannot be dealt: {0}")]
    Deal(String),
    /// The ledger refuses.
    #[error("ledger: {0}")]
    Ledger(#[from] seawall_ledger::GenesisError),
    /// The oracle refuses.
    #[error("oracle: {0}")]
    Oracle(#[from] seawall_oracle::GenesisError),
}

impl Genesis {
    /// The chain.
    pub fn chain(&self) -> ChainId {
        self.ledger.chain
    }

    /// The committee.
    pub fn committee(&self) -> Committee {
        Committee::new(self.chain(), self.members.clone(), self.group.clone())
    }

    /// What rescues can come to at block 0, and where as many accounts carry risk as may.
    pub fn rescue_budgets(&self) -> [RescueBudget; 2] {
        let at_risk = (0..)
            .zip(&self.accounts)
            .filter(|(id, account)| AccountId(*id) != self.ledger.issuer && !account.positions.is_empty());
        let rescues = &self.ledger.rescues;
        [at_risk.count() as u64, rescues.at_risk_max()].map(|at_risk| rescues.budget(at_risk))
    }

    /// The state at block 0.
    pub fn world(&self) -> Result<World, GenesisError> {
        let oracle = Oracle::genesis(self.oracle.clone(), self.members.len(), &self.prices, self.time)?;
        let ledger = Ledger::genesis(&self.ledger, self.time, self.accounts.iter().cloned())?;
        Ok(World::new(ledger, oracle))
    }

    /// Digest of what is not in the state: committee, group key and oracle parameters.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        let mut put = |value: u64| bytes.extend_from_slice(&value.to_be_bytes());
        put(self.chain().get());
        put(self.time.get());
        put(self.oracle.leader_turn_ms);
        put(self.oracle.halt_after_ms);
        put(self.oracle.markets.len() as u64);
        for market in &self.oracle.markets {
            put(market.min_price.get());
            put(market.max_price.get());
            put(market.report_max_age_heights);
            put(market.report_max_age_ms);
            put(u64::from(market.band_ppm.get()));
            put(u64::from(market.gate_ppm.get()));
            put(u64::from(market.min_sources));
            put(market.stale_after_ms);
            put(market.outage_after_ms);
            put(market.grace_ms);
            put(market.quarantine_after_ms);
        }
        put(self.members.len() as u64);
        for member in self.members.iter() {
            bytes.extend_from_slice(&key_of(member).0);
        }
        bytes.extend_from_slice(&self.group.encode());
        sha256_digest(&[&bytes])
    }

    /// Block 0: its parent digest is [`Genesis::digest`], so its own digest names everything.
    pub fn block(&self, commitment: &StateCommitment) -> Block {
        let leader = self.members.get(0).expect("a committee has members").clone();
        let mut block = Block::genesis(
            self.chain(),
            self.time,
            leader,
            commitment.root,
            commitment.ops,
            empty_exits_root(),
        );
        block.header.parent = self.digest();
        block
    }
}

/// A committee with the secrets of its members, as one dealer knows them.
pub struct Dealt {
    /// By ascending public key.
    pub members: Vec<(Identity, Share)>,
    /// Public keys.
    pub set: Set<PublicKey>,
    /// Group key.
    pub group: GroupKey,
}

/// Deals the group key to `identities`. The dealer knows every share: good for development networks and
/// tests; a production committee runs distributed key generation instead.
pub fn deal_committee(rng: impl CryptoRng, identities: Vec<Identity>) -> Result<Dealt, GenesisError> {
    let count = identities.len();
    if count == 0 || count > MAX_VALIDATORS {
        return Err(GenesisError::Validators(count));
    }
    let set: Set<PublicKey> = identities
        .iter()
        .map(Identity::public)
        .try_collect()
        .map_err(|_| GenesisError::DuplicateValidator)?;
    let (output, shares) = deal::<MinSig, _, N3f1>(rng, Mode::NonZeroCounter, set.clone())
        .map_err(|error| GenesisError::Deal(error.to_string()))?;
    let mut members = Vec::with_capacity(count);
    for (public, share) in shares.iter_pairs() {
        let identity = identities
            .iter()
            .find(|identity| identity.public() == *public)
            .expect("shares are dealt to the given keys");
        members.push((identity.clone(), share.clone()));
    }
    Ok(Dealt { members, set, group: output.public().clone() })
}
