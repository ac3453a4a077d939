//! What leaders signed and should not have: proofs that anybody can check later.
//!
//! A vote of the committee names nobody, because any quorum's partial signatures make everybody's. A block does: its
//! leader signed it with a key of its own. So two things can be held against a leader afterwards:
//!
//! - an [`Equivocation`]: two different blocks for one view. It needs nothing but the two signatures;
//! - a block that breaks a rule, such as one that leaves out a rescue that its own observations list. Whoever has the
//!   state of its parent finds the rule again by executing it, which is what [`audit`](crate::audit) does.
//!
//! The chain itself does not care: neither kind of block becomes final against another. Nothing here decides validity.

use crate::{
    block::{Block, Context},
    committee::Committee,
    crypto::{self, key_of},
};
use bytes::BufMut;
use commonware_codec::{EncodeSize, Error as CodecError, Read, ReadExt as _, Write};
use commonware_consensus::Viewable as _;
use seawall_types::{Domain, Header, Signature, ValidatorId};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tracing::error;

/// Views for which the first block is remembered. A second block of an older view is not noticed.
pub const MAX_VIEWS: usize = 512;
/// Refused blocks that are kept. The oldest makes room.
pub const MAX_REFUSED: usize = 16;

/// The part of a block that its leader signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    /// View, leader and parent.
    pub context: Context,
    /// Commitments.
    pub header: Header,
    /// The leader's signature over both.
    pub signature: Signature,
}

impl SignedHeader {
    /// What the leader of `block` signed.
    pub fn of(block: &Block) -> Self {
        Self { context: block.context.clone(), header: block.header.clone(), signature: block.signature }
    }

    /// The member that signed it; `None` if nobody of the committee did.
    pub fn signer(&self, committee: &Committee) -> Option<ValidatorId> {
        let member = committee.position(&self.context.leader)?;
        let message = Block::signing_payload(&self.context, &self.header);
        let key = key_of(&self.context.leader);
        let good = self.header.chain == committee.chain()
            && crypto::verify(&key, Domain::Block, committee.chain(), &message, &self.signature);
        good.then_some(member)
    }
}

impl Write for SignedHeader {
    fn write(&self, buf: &mut impl BufMut) {
        self.context.write(buf);
        self.header.write(buf);
        self.signature.write(buf);
    }
}

impl EncodeSize for SignedHeader {
    fn encode_size(&self) -> usize {
        self.context.encode_size() + self.header.encode_size() + self.signature.encode_size()
    }
}

impl Read for SignedHeader {
    type Cfg = ();

    fn read_cfg(buf: &mut impl commonware_codec::Buf, (): &()) -> Result<Self, CodecError> {
        Ok(Self {
            context: Context::read(buf)?,
            header: Header::read(buf)?,
            signature: Signature::read(buf)?,
        })
    }
}

/// Two blocks that one leader signed for one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// The one that was seen first.
    pub first: SignedHeader,
    /// The other.
    pub second: SignedHeader,
}

impl Equivocation {
    /// Who is proven to have signed both; `None` if this proves nothing.
    pub fn culprit(&self, committee: &Committee) -> Option<ValidatorId> {
        let (first, second) = (&self.first, &self.second);
        let differ = (&first.context, &first.header) != (&second.context, &second.header);
        if first.context.round != second.context.round || !differ {
            return None;
        }
        let signers = [first, second].map(|own| own.signer(committee));
        signers[0].filter(|_| signers[0] == signers[1])
    }
}

impl Write for Equivocation {
    fn write(&self, buf: &mut impl BufMut) {
        self.first.write(buf);
        self.second.write(buf);
    }
}

impl EncodeSize for Equivocation {
    fn encode_size(&self) -> usize {
        self.first.encode_size() + self.second.encode_size()
    }
}

impl Read for Equivocation {
    type Cfg = ();

    fn read_cfg(buf: &mut impl commonware_codec::Buf, (): &()) -> Result<Self, CodecError> {
        Ok(Self { first: SignedHeader::read(buf)?, second: SignedHeader::read(buf)? })
    }
}

/// A block that its leader signed and that breaks a rule.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The block.
    pub block: Block,
    /// Which rule.
    pub reason: String,
}

#[derive(Default)]
struct Inner {
    views: BTreeMap<u64, SignedHeader>,
    equivocations: BTreeMap<ValidatorId, Equivocation>,
    refused: VecDeque<Refused>,
}

/// What this validator can hold against others.
#[derive(Clone)]
pub struct Evidence {
    committee: Committee,
    inner: Arc<Mutex<Inner>>,
}

impl Evidence {
    /// Nothing yet.
    pub fn new(committee: Committee) -> Self {
        Self { committee, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the evidence")
    }

    /// Takes note of a block whose leader's signature is good, whatever becomes of it. Proofs are checked as anybody would.
    pub fn note(&self, block: &Block) {
        let own = SignedHeader::of(block);
        let view = block.context.view().get();
        let first = {
            let mut inner = self.lock();
            let Some(first) = inner.views.get(&view).cloned() else {
                inner.views.insert(view, own);
                while inner.views.len() > MAX_VIEWS {
                    inner.views.pop_first();
                }
                return;
            };
            first
        };
        let found = Equivocation { first, second: own };
        let Some(culprit) = found.culprit(&self.committee) else { return };
        // One proof a member is enough, and keeps this small.
        if self.lock().equivocations.insert(culprit, found).is_none() {
            error!(%culprit, view, "this validator signed two blocks for one view: its key or its machine is compromised");
        }
    }

    /// Keeps a block whose leader's signature is good and that breaks a rule.
    pub fn refused(&self, block: &Block, reason: String) {
        let mut inner = self.lock();
        if inner.refused.iter().any(|known| known.block == *block) {
            return;
        }
        inner.refused.push_back(Refused { block: block.clone(), reason });
        if inner.refused.len() > MAX_REFUSED {
            inner.refused.pop_front();
        }
    }

    /// Who signed two blocks for one view, with one proof each.
    pub fn equivocations(&self) -> BTreeMap<ValidatorId, Equivocation> {
        self.lock().equivocations.clone()
    }

    /// The last blocks that break a rule, oldest first.
    pub fn refusals(&self) -> Vec<Refused> {
        self.lock().refused.iter().cloned().collect()
    }
}
