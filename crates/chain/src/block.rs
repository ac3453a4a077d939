//! The block: a [`Header`] under its leader's signature, with the consensus context it was made for
//! and the body that the header commits to.
//!
//! ```text
//! digest    = SHA-256(context || header || signature)
//! signature = leader over context || header, in Domain::Block
//! header.body = SHA-256(encoded body), checked while decoding
//! ```
//!
//! The digest covers the signature and, through the header, every byte of the body: two different
//! encodings never share a digest, so nobody can spoil a block by relaying a variant of it.

use crate::crypto::{Identity, sha256_digest};
use bytes::{Buf as _, BufMut};
use commonware_codec::{
    Encode, EncodeSize, Error as CodecError, FixedSize, MaxEncodeSize, Read, ReadExt as _, Write,
};
use commonware_consensus::{
    Block as ConsensusBlock, BoundedBlock, CertifiableBlock, Heightable,
    simplex::types::Context as SimplexContext,
    types::{Epoch, Height as ConsensusHeight, Round, View},
};
use commonware_cryptography::{Digest as _, Digestible, Hasher, Sha256, sha256};
use seawall_types::{
    Body, ChainId, Digest, Domain, Header, Signature, TimeMs, ZoneOutcome, block::OpsTarget,
    limits::MAX_BLOCK_BYTES,
};

/// Identity key of a validator, as consensus and networking know it.
pub type PublicKey = commonware_cryptography::ed25519::PublicKey;
/// What consensus knows about the proposal that a block answers.
pub type Context = SimplexContext<sha256::Digest, PublicKey>;

/// A block as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Round, leader and parent that consensus asked for.
    pub context: Context,
    /// Commitments.
    pub header: Header,
    /// The leader's signature.
    pub signature: Signature,
    /// Observations, actions, proof of the parent, outcomes.
    pub body: Body,
}

impl Block {
    /// The bytes that the leader signs.
    pub fn signing_payload(context: &Context, header: &Header) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(context.encode_size() + header.encode_size());
        context.write(&mut bytes);
        header.write(&mut bytes);
        bytes
    }

    /// Signs and assembles a block.
    pub fn sign(context: Context, header: Header, body: Body, leader: &Identity) -> Self {
        let signature = leader.sign(Domain::Block, header.chain, &Self::signing_payload(&context, &header));
        Self { context, header, signature, body }
    }

    /// The block at height 0: it carries nothing and commits to the genesis state.
    pub fn genesis(
        chain: ChainId,
        time: TimeMs,
        leader: PublicKey,
        state_root: Digest,
        ops: OpsTarget,
        exits_root: Digest,
    ) -> Self {
        let body = Body::default();
        Self {
            context: Context {
                round: Round::new(Epoch::zero(), View::zero()),
                leader,
                parent: (View::zero(), sha256::Digest::EMPTY),
            },
            header: Header {
                version: seawall_types::block::VERSION,
                chain,
                epoch: 0,
                height: seawall_types::Height(0),
                parent: Digest::default(),
                time,
                body: body_digest(&body),
                state_root,
                ops,
                outcomes_root: outcomes_root(&[]),
                exits_root,
            },
            signature: Signature::default(),
            body,
        }
    }
}

/// Digest of an encoded body.
pub fn body_digest(body: &Body) -> Digest {
    sha256_digest(&[&body.encode()])
}

/// What validators attest of a part of an outcome.
pub fn outcome_digest(own: &ZoneOutcome) -> Digest {
    sha256_digest(&[b"seawall outcome", &own.encode()])
}

/// Root over the outcomes that a block settles: SHA-256 over their digests, in the order of the block.
pub fn outcomes_root(outcomes: &[ZoneOutcome]) -> Digest {
    let digests: Vec<Digest> = outcomes.iter().map(outcome_digest).collect();
    root_of_digests(digests.iter())
}

/// The same, of digests that are known.
pub fn root_of_digests<'a>(digests: impl Iterator<Item = &'a Digest>) -> Digest {
    let parts: Vec<&[u8]> =
        std::iter::once(&b"seawall outcomes"[..]).chain(digests.map(|digest| &digest.0[..])).collect();
    sha256_digest(&parts)
}

/// A digest in consensus's type.
pub fn to_consensus(digest: Digest) -> sha256::Digest {
    sha256::Digest(digest.0)
}

/// A digest in ours.
pub fn from_consensus(digest: sha256::Digest) -> Digest {
    Digest(digest.0)
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.context.write(buf);
        self.header.write(buf);
        self.signature.write(buf);
        self.body.write(buf);
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        self.context.encode_size()
            + self.header.encode_size()
            + self.signature.encode_size()
            + self.body.encode_size()
    }
}

impl Read for Block {
    type Cfg = ();

    fn read_cfg(buf: &mut impl commonware_codec::Buf, (): &()) -> Result<Self, CodecError> {
        let context = Context::read(buf)?;
        let header = Header::read(buf)?;
        let signature = Signature::read(buf)?;
        if buf.remaining() > MAX_BLOCK_BYTES {
            return Err(CodecError::InvalidLength(buf.remaining()));
        }
        let body = Body::read(buf)?;
        if body_digest(&body) != header.body {
            return Err(CodecError::Invalid("Block", "body does not match the header"));
        }
        Ok(Self { context, header, signature, body })
    }
}

impl Digestible for Block {
    type Digest = sha256::Digest;

    fn digest(&self) -> sha256::Digest {
        Sha256::hash(&[&Self::signing_payload(&self.context, &self.header), &self.signature.0])
    }
}

impl Heightable for Block {
    fn height(&self) -> ConsensusHeight {
        ConsensusHeight::new(self.header.height.get())
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> sha256::Digest {
        to_consensus(self.header.parent)
    }
}

impl CertifiableBlock for Block {
    type Context = Context;

    fn context(&self) -> Context {
        self.context.clone()
    }
}

impl BoundedBlock for Block {
    fn max_encode_size((): &()) -> usize {
        Context::MAX_ENCODE_SIZE + Header::MAX_ENCODE_SIZE + Signature::LEN + MAX_BLOCK_BYTES
    }
}

const _: () = assert!(sha256::Digest::SIZE == Digest::LEN);
