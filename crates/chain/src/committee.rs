//! The committee of an epoch: who validates, in which order, and who leads which view.

use crate::{block::PublicKey, crypto};
use commonware_codec::{Copying, Decode as _, DecodeExt as _, Encode as _};
use commonware_consensus::{
    simplex::{
        elector::{Config as _, Elector as _, RoundRobin},
        scheme::bls12381_threshold::standard::Scheme as ThresholdScheme,
    },
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    Sha256,
    bls12381::primitives::{
        group::Share,
        sharing::{ModeVersion, Sharing},
        variant::MinSig,
    },
};
use commonware_utils::{NZU32, ordered::Set};
use seawall_types::{ChainId, Domain, Key, ValidatorId, limits::MAX_VALIDATORS};
use std::{num::NonZeroU32, sync::Arc};

/// Signature scheme of votes and certificates.
pub type Scheme = ThresholdScheme<PublicKey, MinSig>;
/// The group's public polynomial.
pub type GroupKey = Sharing<MinSig>;

/// The validators of an epoch, by ascending public key, and their group key.
#[derive(Clone)]
pub struct Committee {
    inner: Arc<Inner>,
}

struct Inner {
    chain: ChainId,
    members: Set<PublicKey>,
    keys: Vec<Key>,
    group: GroupKey,
    elector: <RoundRobin<Sha256> as commonware_consensus::simplex::elector::Config<Scheme>>::Elector,
}

impl Committee {
    /// A committee of `members` that shares `group`.
    pub fn new(chain: ChainId, members: Set<PublicKey>, group: GroupKey) -> Self {
        let keys = members.iter().map(crypto::key_of).collect();
        let elector = elector().build(&members);
        Self { inner: Arc::new(Inner { chain, members, keys, group, elector }) }
    }

    /// The chain.
    pub fn chain(&self) -> ChainId {
        self.inner.chain
    }

    /// Number of validators, n.
    pub fn len(&self) -> usize {
        self.inner.keys.len()
    }

    /// Never: a committee has members.
    pub fn is_empty(&self) -> bool {
        self.inner.keys.is_empty()
    }

    /// Largest number of Byzantine validators that is tolerated, f = (n - 1) / 3.
    pub fn faults(&self) -> usize {
        (self.len() - 1) / 3
    }

    /// A quorum, q = n - f.
    pub fn quorum(&self) -> usize {
        self.len() - self.faults()
    }

    /// How many validators have to attest an outcome, f + 1: one of them is honest.
    pub fn attestors(&self) -> usize {
        self.faults() + 1
    }

    /// The members, by ascending key.
    pub fn members(&self) -> &Set<PublicKey> {
        &self.inner.members
    }

    /// Key of a member.
    pub fn key(&self, validator: ValidatorId) -> Option<&Key> {
        self.inner.keys.get(usize::from(validator.get()))
    }

    /// Key of a member, as consensus knows it.
    pub fn public_key(&self, validator: ValidatorId) -> Option<&PublicKey> {
        self.inner.members.get(usize::from(validator.get()))
    }

    /// Place of a member.
    pub fn position(&self, public: &PublicKey) -> Option<ValidatorId> {
        let place = self.inner.members.position(public)?;
        u16::try_from(place).ok().map(ValidatorId)
    }

    /// Who leads `view`: a pure function of the committee and the view.
    pub fn leader(&self, view: u64) -> ValidatorId {
        let participant = self.inner.elector.elect(Round::new(Epoch::zero(), View::new(view)), ());
        ValidatorId(u16::try_from(participant.get()).expect("a committee has at most 200 members"))
    }

    /// The group's public polynomial.
    pub fn group(&self) -> &GroupKey {
        &self.inner.group
    }

    /// The scheme of a voting member. `None` if the share is not of this group.
    pub fn signer(&self, share: Share) -> Option<Scheme> {
        Scheme::signer(
            &Domain::Consensus.namespace(self.inner.chain),
            self.inner.members.clone(),
            self.inner.group.clone(),
            share,
        )
    }

    /// The scheme of an observer.
    pub fn verifier(&self) -> Scheme {
        Scheme::verifier(
            &Domain::Consensus.namespace(self.inner.chain),
            self.inner.members.clone(),
            self.inner.group.clone(),
        )
    }
}

/// How leaders are elected: each view its own, in turn.
pub fn elector() -> RoundRobin<Sha256> {
    RoundRobin::default()
}

/// Bytes of a group key.
pub fn encode_group(group: &GroupKey) -> Vec<u8> {
    group.encode().to_vec()
}

/// The group key in `bytes`, or why there is none.
///
/// # Errors
/// If the bytes are not a group key of a committee that a chain can have.
pub fn decode_group(bytes: &[u8]) -> Result<GroupKey, String> {
    const MAX: NonZeroU32 = NZU32!(MAX_VALIDATORS as u32);
    GroupKey::decode_cfg(Copying(bytes), &(MAX, ModeVersion::v0())).map_err(|error| error.to_string())
}

/// Secret bytes of a share.
pub fn encode_share(share: &Share) -> Vec<u8> {
    share.encode().to_vec()
}

/// The share in `bytes`.
///
/// # Errors
/// If the bytes are not a share. The message holds none of them.
pub fn decode_share(bytes: &[u8]) -> Result<Share, String> {
    Share::decode(Copying(bytes)).map_err(|_| "not a share of a group key".into())
}

/// The identity key of a validator in `bytes`.
///
/// # Errors
/// If they are no point of the curve.
pub fn decode_public(bytes: &[u8]) -> Result<PublicKey, String> {
    PublicKey::decode(Copying(bytes)).map_err(|error| error.to_string())
}
