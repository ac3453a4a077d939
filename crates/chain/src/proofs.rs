//! What the committee signed of a block's parent: heard by the gate, carried by the next block, and what decides
//! by lot in the parent's auctions.
//!
//! A notarization is a threshold signature, so there is one for each proposal, and nobody knows it before a quorum has
//! voted: neither who submits an order nor the leader whose block takes it can choose it. A leader who has none, as
//! after an import, carries the parent's finality certificate. One who holds both, as a leader that builds late does, may
//! carry the one whose lots it likes better: it decides equal remainders and the places in a full book, and nothing else.
//!
//! The signed proposal is not carried: it follows from the parent.

use crate::{archives::Certificate as Finalization, block::Block, committee::Scheme, crypto::sha256_digest};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_consensus::{
    Viewable as _,
    simplex::types::{Notarization, Proposal, Subject},
};
use commonware_cryptography::{
    Digestible as _, bls12381::primitives::variant::MinSig, certificate::Verifier as _, sha256,
};
use commonware_parallel::Strategy;
use commonware_utils::channel::oneshot;
use rand_core::CryptoRng;
use seawall_types::{GroupSignature, ParentProof};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Views whose proofs are kept. Leaders build on one of the last; older ones are forgotten.
const MAX_PROOFS: usize = 256;

/// The group's signature as consensus has it.
pub type Signature = commonware_cryptography::bls12381::certificate::threshold::Certificate<MinSig>;

/// What a quorum signed when it voted for `block`. Nobody votes for the first block.
pub fn proposal_of(block: &Block) -> Option<Proposal<sha256::Digest>> {
    let context = &block.context;
    (block.header.height.get() > 0).then(|| Proposal::new(context.round, context.parent.0, block.digest()))
}

/// The group's signature in a proof. `None` if its bytes are no point of the curve.
pub fn signature_of(proof: &ParentProof) -> Option<Signature> {
    Signature::decode(Copying(&proof.signature.0)).ok()
}

/// The vote that a quorum cast for a proposal: to finalise it, or to notarize it.
pub const fn subject(finalized: bool, proposal: &Proposal<sha256::Digest>) -> Subject<'_, sha256::Digest> {
    if finalized { Subject::Finalize { proposal } } else { Subject::Notarize { proposal } }
}

/// Whether a block on `parent` carries what shows that a quorum voted for it. A block on the first carries nothing.
pub fn verify(
    scheme: &Scheme,
    parent: Option<&Proposal<sha256::Digest>>,
    proof: Option<&ParentProof>,
    rng: &mut impl CryptoRng,
    strategy: &impl Strategy,
) -> bool {
    match (parent, proof) {
        (None, None) => true,
        (Some(proposal), Some(proof)) => signature_of(proof).is_some_and(|signature| {
            let subject = subject(proof.finalized, proposal);
            scheme.verify_certificate::<_, sha256::Digest>(rng, subject, &signature, strategy)
        }),
        _ => false,
    }
}

/// What decides by lot in the auctions of the parent of the block that carries `proof`.
pub fn salt(proof: &ParentProof) -> [u8; 32] {
    sha256_digest(&[b"seawall auction salt", &[u8::from(proof.finalized)], &proof.signature.0]).0
}

#[derive(Default)]
struct Inner {
    proofs: BTreeMap<u64, ParentProof>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// Proofs that were heard, by view.
#[derive(Clone, Default)]
pub struct ParentProofs {
    inner: Arc<Mutex<Inner>>,
}

impl ParentProofs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the proofs")
    }

    fn hear(&self, view: u64, finalized: bool, signature: &Signature) {
        let mut bytes = GroupSignature::default();
        bytes.0.copy_from_slice(&signature.encode());
        let mut inner = self.lock();
        let known = inner.proofs.get(&view).copied();
        // Whoever has both carries the notarization.
        if known.is_none_or(|known| known.finalized && !finalized) {
            inner.proofs.insert(view, ParentProof { finalized, signature: bytes });
        }
        while inner.proofs.len() > MAX_PROOFS {
            inner.proofs.pop_first();
        }
        for waiter in inner.waiters.drain(..) {
            let _ = waiter.send(());
        }
    }

    /// Takes a notarization, which consensus has checked.
    pub fn notarized(&self, notarization: &Notarization<Scheme, sha256::Digest>) {
        self.hear(notarization.view().get(), false, &notarization.certificate);
    }

    /// Takes a finality certificate, which consensus has checked.
    pub fn finalized(&self, finalization: &Finalization) {
        self.hear(finalization.view().get(), true, &finalization.certificate);
    }

    /// The proof of `parent`, once it was heard; nothing for the first block. Consensus asks nobody to build on a block
    /// that it has no certificate of, and tells of each, so this waits for no longer than a message between two tasks.
    pub async fn of(&self, parent: &Block) -> Option<ParentProof> {
        proposal_of(parent)?;
        let view = parent.context.round.view().get();
        loop {
            let changed = {
                let mut inner = self.lock();
                if let Some(proof) = inner.proofs.get(&view) {
                    return Some(*proof);
                }
                let (sender, receiver) = oneshot::channel();
                inner.waiters.retain(|waiter| !waiter.is_closed());
                inner.waiters.push(sender);
                receiver
            };
            let _ = changed.await;
        }
    }
}
