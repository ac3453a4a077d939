//! A chain executed again from its genesis, trusting nothing but the genesis: every certificate, every
//! signature, every root.
//!
//! Unlike a validator that catches up, an [`Auditor`] does not take a quorum's word for what users and
//! leaders signed: validators that collude could have made a wrong block final, and this is where it shows.

use crate::{
    app::{check_form, collect_signatures},
    archives::Certificate,
    block::{Block, from_consensus},
    committee::{Committee, Scheme},
    engine::{self, StartError},
    genesis::Genesis,
    machine::{Brought, Purpose, Step, World},
    proofs::{self, Signature},
    store::{self, Db, StateCommitment, StoreError},
    zones,
};
use commonware_consensus::{
    Viewable as _,
    simplex::types::{Proposal, verify_certificates},
};
use commonware_cryptography::{Digestible as _, sha256};
use commonware_parallel::Strategy;
use commonware_runtime::{Clock, Metrics, Spawner, Storage};
use commonware_storage::qmdb::floor::Proportional;
use rand_core::CryptoRng;
use seawall_types::{Digest, Height, ZoneOutcome, block::OpsTarget};
use std::sync::Arc;

/// Certificates that are checked together: about three times as fast as one by one.
const CERTIFICATES_AT_ONCE: usize = 64;

/// Why an audit ends.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A block is not what it must be. It is the first, but for certificates, which are checked some
    /// dozens at a time: then what else is wrong up to there may be told before them.
    #[error("block {height} does not verify: {field}: {detail}")]
    Divergence {
        /// Which.
        height: Height,
        /// What of it.
        field: &'static str,
        /// How.
        detail: String,
    },
    /// The genesis does not build, or not as stated.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store for the new state fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an audit has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Height of the last block.
    pub height: Height,
    /// Its digest.
    pub digest: Digest,
    /// Its state root.
    pub state_root: Digest,
    /// Certificates that were checked; each covers its block and those below.
    pub certificates: u64,
    /// Actions that were executed.
    pub actions: u64,
}

/// Executes blocks one after the other.
pub struct Auditor<E, S>
where
    E: Storage + Clock + Metrics + Spawner,
    S: Strategy,
{
    committee: Committee,
    scheme: Scheme,
    strategy: S,
    world: World,
    db: Option<Db<E, S>>,
    audited: Audited,
    /// What the quorum voted for at the last block.
    last: Option<Proposal<sha256::Digest>>,
    /// Height of the last block under a certificate.
    covered: Height,
    waiting: Vec<Waiting>,
}

/// A signature of the group that is not checked yet.
struct Waiting {
    /// Of the block that carries it, or that it makes final.
    height: Height,
    proposal: Proposal<sha256::Digest>,
    /// Whether it makes the proposal final; else it is what the next block carries to show that a quorum voted for it.
    certifies: bool,
    finalized: bool,
    signature: Signature,
}

fn diverges(height: Height, field: &'static str, detail: impl std::fmt::Display) -> AuditError {
    AuditError::Divergence { height, field, detail: detail.to_string() }
}

fn same<T: PartialEq + std::fmt::Debug>(
    height: Height,
    field: &'static str,
    stated: &T,
    found: &T,
) -> Result<(), AuditError> {
    if stated == found {
        Ok(())
    } else {
        Err(diverges(height, field, format_args!("{stated:?} is stated, {found:?} is right")))
    }
}

impl<E, S> Auditor<E, S>
where
    E: Storage + Clock + Metrics + Spawner,
    S: Strategy,
{
    /// Builds the genesis state in a store of its own, which must be empty, and checks what it hashes to.
    ///
    /// # Errors
    /// If the genesis does not build or hashes to something else, or the store fails.
    pub async fn new(
        context: E,
        prefix: &str,
        genesis: &Genesis,
        commitment: &StateCommitment,
        strategy: S,
    ) -> Result<Self, AuditError> {
        engine::prepare(&context, prefix, genesis, commitment, strategy.clone()).await?;
        let config = store::config(prefix, strategy.clone(), store::page_cache());
        let db =
            Db::<E, S>::init(context.child("state"), config, None).await.map_err(StoreError::database)?;
        let found = store::commitment(&db);
        if found != *commitment {
            return Err(
                StartError::Commitment { expected: Box::new(*commitment), found: Box::new(found) }.into()
            );
        }
        let committee = genesis.committee();
        Ok(Self {
            scheme: committee.verifier(),
            committee,
            strategy,
            world: genesis.world().map_err(StartError::Genesis)?,
            db: Some(db),
            audited: Audited {
                height: Height(0),
                digest: from_consensus(genesis.block(commitment).digest()),
                state_root: commitment.root,
                certificates: 0,
                actions: 0,
            },
            last: None,
            covered: Height(0),
            waiting: Vec::new(),
        })
    }

    /// What was seen so far. Blocks above the last checked certificate are not known to be final yet.
    pub const fn audited(&self) -> &Audited {
        &self.audited
    }

    /// The state after the last block.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Executes the next block. A block without a certificate is final by that of a later one.
    ///
    /// # Errors
    /// At the first thing that is not as it must be. The auditor is of no use afterwards.
    pub async fn step(
        &mut self,
        rng: &mut impl CryptoRng,
        block: &Block,
        certificate: Option<Certificate>,
    ) -> Result<Arc<Step>, AuditError> {
        let header = &block.header;
        let height = self.audited.height.next();
        let digest = from_consensus(block.digest());
        same(height, "height", &header.height, &height)?;
        same(height, "parent", &header.parent, &self.audited.digest)?;
        check_form(&self.committee, block, self.audited.height, self.audited.digest)
            .map_err(|reason| diverges(height, "form", reason))?;
        let leader = self.committee.leader(block.context.view().get());
        if self.committee.public_key(leader) != Some(&block.context.leader) {
            return Err(diverges(height, "leader", format_args!("validator {leader} leads this view")));
        }
        let signatures =
            collect_signatures(&self.committee, block, |account| self.world.ledger.owner(account).copied())
                .map_err(|refusal| diverges(height, "actions", refusal))?;
        if !signatures.verify(rng, &self.strategy) {
            return Err(diverges(height, "signatures", "one of leader, observers or actions is bad"));
        }

        let proof = block.body.parent_proof.as_ref();
        match (self.last.take(), proof, proof.and_then(proofs::signature_of)) {
            (None, None, _) => {}
            (Some(proposal), Some(proof), Some(signature)) => self.waiting.push(Waiting {
                height,
                proposal,
                certifies: false,
                finalized: proof.finalized,
                signature,
            }),
            (last, _, _) => {
                let detail =
                    if last.is_some() { "not a quorum's signature" } else { "the first block has none" };
                return Err(diverges(height, "parent proof", detail));
            }
        }
        self.last = proofs::proposal_of(block);
        self.check_outcomes(height, &block.body.outcomes)?;

        let executed = self
            .world
            .execute(self.audited.digest, height, Brought::by(block), Purpose::Verify)
            .map_err(|invalid| diverges(height, "execution", invalid))?;
        let step = executed.step;
        same(height, "exits_root", &header.exits_root, &step.exits_root)?;
        let db = self.db.take().ok_or_else(|| StoreError::database("used after it failed"))?;
        let mut batch = db.new_batch();
        for (key, value) in step.writes() {
            batch = batch.write(key, value);
        }
        let merkleized = batch.merkleize(&db, None, &mut Proportional).await.map_err(StoreError::database)?;
        let db = db.apply_batch(merkleized).await.map_err(StoreError::database)?;
        let found = store::commitment(&db);
        same(height, "state_root", &header.state_root, &found.root)?;
        let OpsTarget { root, start, end } = header.ops;
        same(height, "ops.root", &root, &found.ops.root)?;
        same(height, "ops.start", &start, &found.ops.start)?;
        same(height, "ops.end", &end, &found.ops.end)?;
        self.db = Some(db);
        self.world.ledger.audit().map_err(|error| diverges(height, "conservation", error))?;

        if let Some(certificate) = certificate {
            same(height, "certificate", &from_consensus(certificate.proposal.payload), &digest)?;
            same(height, "certificate round", &certificate.round(), &block.context.round)?;
            self.waiting.push(Waiting {
                height,
                proposal: certificate.proposal,
                certifies: true,
                finalized: true,
                signature: certificate.certificate,
            });
        }
        self.audited.height = height;
        self.audited.digest = digest;
        self.audited.state_root = header.state_root;
        self.audited.actions += block.body.actions.len() as u64;
        if self.waiting.len() >= CERTIFICATES_AT_ONCE {
            self.check_certificates(rng)?;
        }
        Ok(step)
    }

    /// Holds the auctions again that a block settles, from the state before it. Where the block voids an inbox first, no
    /// outcome of its zone can be valid, and execution says so.
    fn check_outcomes(&self, height: Height, outcomes: &[ZoneOutcome]) -> Result<(), AuditError> {
        for of_zone in outcomes.chunk_by(|a, b| a.zone == b.zone) {
            let owed = of_zone.first().map_or_else(Vec::new, |own| zones::owed(&self.world.ledger, own.zone));
            if let Some(own) = of_zone.iter().find(|own| !owed.contains(own)) {
                let (zone, at, part) = own.place();
                let detail = format_args!(
                    "zone {zone}, height {at}, part {part}: the auctions, held again, give another one"
                );
                return Err(diverges(height, "outcome", detail));
            }
        }
        Ok(())
    }

    fn check_certificates(&mut self, rng: &mut impl CryptoRng) -> Result<(), AuditError> {
        let waiting = std::mem::take(&mut self.waiting);
        let pairs: Vec<_> = waiting
            .iter()
            .map(|own| (proofs::subject(own.finalized, &own.proposal), &own.signature))
            .collect();
        let good = verify_certificates::<_, _, sha256::Digest>(rng, &self.scheme, &pairs, &self.strategy);
        for (own, good) in waiting.iter().zip(good) {
            let field = if own.certifies { "certificate" } else { "parent proof" };
            if !good {
                return Err(diverges(own.height, field, "not a quorum's signature"));
            }
            if own.certifies {
                self.audited.certificates += 1;
                self.covered = own.height;
            }
        }
        Ok(())
    }

    /// Checks the certificates that are left and makes the store durable as it is.
    ///
    /// # Errors
    /// If a certificate is bad or the store fails.
    pub async fn checkpoint(&mut self, rng: &mut impl CryptoRng) -> Result<(), AuditError> {
        self.check_certificates(rng)?;
        let db = self.db.take().ok_or_else(|| StoreError::database("used after it failed"))?;
        self.db = Some(db.sync().await.map_err(StoreError::database)?);
        Ok(())
    }

    /// Ends the audit: every block must be under a certificate by now.
    ///
    /// # Errors
    /// If a certificate is bad, the last blocks have none, or the store fails.
    pub async fn finish(mut self, rng: &mut impl CryptoRng) -> Result<Audited, AuditError> {
        self.checkpoint(rng).await?;
        if self.covered < self.audited.height {
            let first = self.covered.next();
            return Err(diverges(first, "certificate", "neither it nor a later block has one"));
        }
        Ok(self.audited)
    }
}
