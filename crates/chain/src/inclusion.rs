//! Forced inclusion: which rescues a block has to carry, whoever leads.
//!
//! # The rule
//!
//! Observations list the rescues that their authors hold. A rescue is *owed* by a block if one of the block's own
//! observations lists it and, at the block's height in the parent's state, its signer could still use its nonce. The
//! block carries every rescue that is owed, or the first [`MAX_OWED_PER_BLOCK`] of them in an order that the parent's
//! digest draws. Another body of the same name does as well, if its nonce could be used there, too. One that the ledger
//! refuses is carried and answered with the refusal.
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
//! Leaders do not order rescues either: [`RescueOrder`](seawall_types::RescueOrder) does.

use crate::crypto::sha256_digest;
use seawall_ledger::Ledger;
use seawall_types::{AccountId, Digest, Height, Nonce, Observation, RescueRef, limits::MAX_OWED_PER_BLOCK};
use std::collections::BTreeSet;

/// Names a rescue: whoever signs two of one name has either answered.
pub type RescueName = (AccountId, Nonce);

/// Whether a block at `height` could carry what is listed, for all that the state of its parent and the listing say.
fn is_open(ledger: &Ledger, listed: &RescueRef, height: Height) -> bool {
    ledger.check_envelope_at(height, listed.account, listed.nonce, listed.expiry).is_ok()
}

/// The rescues that a block at `height` on `parent`, whose state is `ledger`, has to carry with these observations.
pub fn owed(
    ledger: &Ledger,
    parent: Digest,
    height: Height,
    observations: &[Observation],
) -> BTreeSet<RescueName> {
    let listed: BTreeSet<RescueRef> =
        observations.iter().flat_map(|observation| &observation.rescues).copied().collect();
    let open = listed.iter().filter(|listed| is_open(ledger, listed, height));
    let mut owed: BTreeSet<RescueName> = open.map(|listed| (listed.account, listed.nonce)).collect();
    if owed.len() > MAX_OWED_PER_BLOCK {
        let lot = |(account, nonce): &RescueName| {
            sha256_digest(&[
                b"seawall owed",
                &parent.0,
                &account.get().to_be_bytes(),
                &nonce.get().to_be_bytes(),
            ])
        };
        let mut drawn: Vec<_> = owed.into_iter().map(|name| (lot(&name), name)).collect();
        drawn.sort_unstable();
        drawn.truncate(MAX_OWED_PER_BLOCK);
        owed = drawn.into_iter().map(|(_, name)| name).collect();
    }
    owed
}

/// Whether a leader can carry all that an observation makes it owe in a block at `height`. If not, it leaves the
/// observation out. `held` says until when a block may carry the body that it holds under a name.
pub fn covers(
    ledger: &Ledger,
    height: Height,
    observation: &Observation,
    held: impl Fn(&RescueName) -> Option<Height>,
) -> bool {
    observation.rescues.iter().filter(|listed| is_open(ledger, listed, height)).all(|listed| {
        held(&(listed.account, listed.nonce)).is_some_and(|expiry| {
            ledger.check_envelope_at(height, listed.account, listed.nonce, expiry).is_ok()
        })
    })
}
