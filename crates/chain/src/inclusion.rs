//! Forced inclusion: which rescues a block has to carry, whoever leads.
//!
//! # The rule
//!
//! Observations list the rescues that their authors hold. A listing is *open* in a block if, at the block's height in
//! the parent's state, its signer could still use its nonce. Of the open listings in a block's own observations, those are
//! *owed* that are within the tokens that their signer has at that height: of more than it has tokens for, the first by
//! nonce. The block carries every rescue that is owed, or exactly [`MAX_OWED_PER_BLOCK`] of them:
//!
//! 1. of the issuer, the first [`MAX_ISSUER_FIRST`] by nonce, as deposits rescue whoever they are for;
//! 2. of accounts with positions, the nearest to a breach first: see [`Urgency`](seawall_ledger::Urgency);
//! 3. of accounts with orders that may fill, then of accounts without risk, then what is left of the issuer's.
//!
//! Among equals [`draw`] decides. Another body of the same name does as well, if its nonce could be used there, too. One
//! that the ledger refuses is carried and answered with the refusal. Every rescue that a block carries takes a token of
//! its signer, so one without a token is in no block, listed or not.
//!
//! All of this is a function of the block and the parent's state: nobody needs a rescue's body to know that it is owed.
//!
//! # What follows
//!
//! A block holds observations of at least `q = n - f` members, so it leaves out at most `f`. A rescue that `f + 1` honest
//! members list is therefore owed by *every* block, for every `n`: a leader chooses whose observations to carry, but not
//! `q` of them that avoid `f + 1` members. It can leave its view without a block; the next leader has the same debt.
//!
//! An observation may list what nobody holds, or what can never be carried. It binds nobody: a leader leaves such an
//! observation out ([`covers`]), and those of the honest members, which are `q` at least, remain. That is why an
//! honest member lists a rescue only once it has relayed it, and only under a key that is final: see
//! [`mempool`](crate::mempool).
//!
//! Nobody takes part of what is another's: a listing that nobody can honour displaces none that its signer made, because
//! a block that owes it cannot be built, and a rescue that is owed and one that is not together stay within the tokens, or
//! the block is invalid.
//!
//! Who is near a breach is only asked where more is owed than a block has room for, once for each signer that is listed:
//! at most [`MAX_VALIDATORS`](seawall_types::limits::MAX_VALIDATORS) x
//! [`MAX_RESCUES_PER_OBSERVATION`](seawall_types::limits::MAX_RESCUES_PER_OBSERVATION) margin checks. Each of those blocks
//! is full of rescues, and what is left over waits for `backlog / (MAX_OWED_PER_BLOCK - refill)` blocks, where the refill is
//! at most half of the block ([`RescueParams`](seawall_ledger::RescueParams)).
//!
//! Leaders do not order rescues either: [`RescueOrder`](seawall_types::RescueOrder) does.

use crate::{crypto::sha256_digest, proofs};
use seawall_ledger::{AccountKind, Ledger, Urgency};
use seawall_types::{
    AccountId, Digest, Height, Nonce, Observation, ParentProof, RescueRef,
    limits::{MAX_ISSUER_FIRST, MAX_OWED_PER_BLOCK},
};
use std::collections::{BTreeMap, BTreeSet};

/// Names a rescue: whoever signs two of one name has either answered.
pub type RescueName = (AccountId, Nonce);

/// What decides among rescues of equal urgency in a block: what the committee signed of its parent, or the parent's digest
/// where a block carries no such proof. Of the proof nobody knows anything before a quorum has voted, so the parent's
/// leader cannot try signatures for it; a leader who holds both proofs has two to choose from.
pub fn draw(parent: Digest, proof: Option<&ParentProof>) -> Digest {
    match proof {
        Some(proof) => sha256_digest(&[b"seawall owed draw", &proofs::salt(proof)]),
        None => parent,
    }
}

/// Tokens of signers, as they are handed out in a block at a height.
pub struct Ration<F> {
    tokens: F,
    left: BTreeMap<AccountId, u32>,
}

impl<F: Fn(AccountId) -> u32> Ration<F> {
    /// All of what `tokens` says that an account has.
    pub const fn new(tokens: F) -> Self {
        Self { tokens, left: BTreeMap::new() }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, account: AccountId) -> bool {
        let left = self.left.entry(account).or_insert_with(|| (self.tokens)(account));
        let had = *left > 0;
        *left = left.saturating_sub(1);
        had
    }
}

/// Those of the listed rescues that a block at `height` could carry, for all that the state of its parent and the listings
/// say: their nonces can be used, and their signers have tokens for them.
fn open<'a>(
    ledger: &Ledger,
    height: Height,
    listed: impl Iterator<Item = &'a RescueRef>,
) -> BTreeSet<RescueName> {
    let is_open = |listed: &&RescueRef| {
        ledger.check_envelope_at(height, listed.account, listed.nonce, listed.expiry).is_ok()
    };
    let mut names: BTreeSet<RescueName> =
        listed.filter(is_open).map(|listed| (listed.account, listed.nonce)).collect();
    let mut ration = Ration::new(|account| ledger.rescue_tokens_at(account, height));
    // By ascending nonce.
    names.retain(|(account, _)| ration.take(*account));
    names
}

/// The rescues that a block at `height` has to carry with these observations. `ledger` is in the state of its parent, and
/// `draw` decides among equals ([`draw`]).
pub fn owed(
    ledger: &Ledger,
    draw: Digest,
    height: Height,
    observations: &[Observation],
) -> BTreeSet<RescueName> {
    let listed: BTreeSet<&RescueRef> =
        observations.iter().flat_map(|observation| &observation.rescues).collect();
    let owed = open(ledger, height, listed.into_iter());
    if owed.len() <= MAX_OWED_PER_BLOCK {
        return owed;
    }
    let mut signers: BTreeMap<AccountId, (bool, Urgency)> = BTreeMap::new();
    let mut first = 0;
    let mut ranked: Vec<_> = owed
        .into_iter()
        .map(|name @ (account, nonce)| {
            let (issues, urgency) = *signers.entry(account).or_insert_with(|| {
                let kind = ledger.account(account).map(|own| own.kind);
                (kind == Some(AccountKind::Issuer), ledger.urgency(account))
            });
            let class: u8 = match issues {
                true if first < MAX_ISSUER_FIRST => {
                    first += 1;
                    0
                }
                true => 2,
                false => 1,
            };
            let lot = sha256_digest(&[
                b"seawall owed",
                &draw.0,
                &account.get().to_be_bytes(),
                &nonce.get().to_be_bytes(),
            ]);
            (class, urgency, lot, name)
        })
        .collect();
    ranked.select_nth_unstable(MAX_OWED_PER_BLOCK);
    ranked.truncate(MAX_OWED_PER_BLOCK);
    ranked.into_iter().map(|(_, _, _, name)| name).collect()
}

/// Whether a leader can carry all that an observation makes it owe in a block at `height`. If not, it leaves the
/// observation out. `held` says until when a block may carry the body that it holds under a name.
///
/// What is beyond its signer's tokens among these listings is so among all that a block can hold.
pub fn covers(
    ledger: &Ledger,
    height: Height,
    observation: &Observation,
    held: impl Fn(&RescueName) -> Option<Height>,
) -> bool {
    open(ledger, height, observation.rescues.iter()).iter().all(|name| {
        held(name).is_some_and(|expiry| ledger.check_envelope_at(height, name.0, name.1, expiry).is_ok())
    })
}
