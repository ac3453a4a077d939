//! Keys and signatures: the only module that knows which curves are used.
//!
//! Users, observations and leaders sign with Ed25519 under a [`Domain`] of their chain; votes are
//! BLS12-381 threshold signatures (MinSig), made and checked inside consensus.

use bytes::Bytes;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::{
    BatchEntry, BatchVerifier as _, Hasher as _, Sha256, Signer as _, Verifier as _, ed25519,
};
use commonware_parallel::Strategy;
use rand_core::CryptoRng;
use seawall_types::{ChainId, Digest, Domain, Key, Signature};
use std::collections::BTreeMap;

/// SHA-256 over the concatenation of `parts`.
pub fn sha256_digest(parts: &[&[u8]]) -> Digest {
    Digest(Sha256::hash(parts).0)
}

/// A private Ed25519 key that signs in our domains.
#[derive(Clone)]
pub struct Identity {
    key: ed25519::PrivateKey,
}

impl Identity {
    /// Wraps a private key.
    pub const fn new(key: ed25519::PrivateKey) -> Self {
        Self { key }
    }

    /// A key derived from a number. For development networks and tests only: anyone can derive it.
    pub fn insecure(seed: u64) -> Self {
        Self::new(ed25519::PrivateKey::from_seed(seed))
    }

    /// A key from its 32 secret bytes.
    pub fn from_secret(secret: &[u8]) -> Option<Self> {
        ed25519::PrivateKey::decode(Copying(secret)).ok().map(Self::new)
    }

    /// The 32 secret bytes.
    pub fn secret(&self) -> Vec<u8> {
        self.key.encode().to_vec()
    }

    /// The wrapped key, for consensus and networking.
    pub const fn private(&self) -> &ed25519::PrivateKey {
        &self.key
    }

    /// The public key as consensus and networking know it.
    pub fn public(&self) -> ed25519::PublicKey {
        self.key.public_key()
    }

    /// The public key as accounts know it.
    pub fn key(&self) -> Key {
        key_of(&self.public())
    }

    /// Signs `message` in `domain` on `chain`.
    pub fn sign(&self, domain: Domain, chain: ChainId, message: &[u8]) -> Signature {
        let signature = self.key.sign(&domain.namespace(chain), message);
        let mut bytes = [0; Signature::LEN];
        bytes.copy_from_slice(&signature.encode());
        Signature(bytes)
    }
}

/// A consensus public key as an account key.
pub fn key_of(public: &ed25519::PublicKey) -> Key {
    let mut bytes = [0; Key::LEN];
    bytes.copy_from_slice(public.as_ref());
    Key(bytes)
}

/// Checks one signature. A key that is no curve point verifies nothing.
pub fn verify(key: &Key, domain: Domain, chain: ChainId, message: &[u8], signature: &Signature) -> bool {
    let Ok(public) = ed25519::PublicKey::decode(Copying(&key.0)) else { return false };
    let Ok(signature) = ed25519::Signature::decode(Copying(&signature.0)) else { return false };
    public.verify(&domain.namespace(chain), message, &signature)
}

struct Entry {
    namespace: [u8; 17],
    message: Bytes,
    public: ed25519::PublicKey,
    signature: ed25519::Signature,
}

/// Signatures collected to be checked at once: about half the cost of one by one.
pub struct Batch {
    chain: ChainId,
    keys: BTreeMap<Key, ed25519::PublicKey>,
    entries: Vec<Entry>,
    malformed: bool,
}

impl Batch {
    /// An empty batch for signatures made on `chain`.
    pub const fn new(chain: ChainId) -> Self {
        Self { chain, keys: BTreeMap::new(), entries: Vec::new(), malformed: false }
    }

    /// Number of signatures in the batch.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to check.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a signature. A malformed key or signature makes the whole batch fail.
    pub fn add(&mut self, key: &Key, domain: Domain, message: impl Into<Bytes>, signature: &Signature) {
        let public = match self.keys.get(key) {
            Some(public) => public.clone(),
            None => {
                let Ok(public) = ed25519::PublicKey::decode(Copying(&key.0)) else {
                    self.malformed = true;
                    return;
                };
                self.keys.insert(*key, public.clone());
                public
            }
        };
        let Ok(signature) = ed25519::Signature::decode(Copying(&signature.0)) else {
            self.malformed = true;
            return;
        };
        self.entries.push(Entry {
            namespace: domain.namespace(self.chain),
            message: message.into(),
            public,
            signature,
        });
    }

    /// Whether every signature is good. `rng` only hardens the batch equation; it reaches no state.
    pub fn verify(&self, rng: &mut impl CryptoRng, strategy: &impl Strategy) -> bool {
        if self.malformed {
            return false;
        }
        self.entries.is_empty()
            || ed25519::PublicKey::verify_batch(
                rng,
                &self.entries,
                |_, entry| BatchEntry {
                    namespace: &entry.namespace,
                    message: &entry.message,
                    public_key: &entry.public,
                    signature: &entry.signature,
                },
                strategy,
            )
    }
}
