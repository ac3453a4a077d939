//! What became of an action, for whoever sent it: an answer that the chain never contradicts.
//!
//! Every submission has an id, the digest of the signed action. A validator keeps a book of what was submitted to it and
//! answers by id, at any time, from that book:
//!
//! | state | what it says | what can follow |
//! | --- | --- | --- |
//! | `Received` | it waits for its checks here | `Pooled`, `Refused`, `Shed`, `Expired`, `Final` |
//! | `Pooled` | it was checked and waits for a block here | `Included`, `Refused`, `Shed`, `Expired`, `Final` |
//! | `Included` | a block that this validator executed carries it; that block may still lose | `Final`, `Pooled`, `Expired` |
//! | `Final` | a final block carries it, and says what it did | nothing, but that a later block does what this one refused for want of room for its nonce |
//! | `Refused` | this validator would not take it, as things stood, or another action of its nonce is final | `Received` if it is sent again; `Final` |
//! | `Shed` | there was no room for it here | `Received` if it is sent again; `Final` |
//! | `Expired` | the last height at which a block may carry it is final, and none does | nothing |
//! | `Unknown` | this book does not have it: it never came here, or long ago, or before a restart | anything |
//!
//! Only final blocks make an action `Final` or `Expired`, so these two are the chain's own answers. `Refused` and `Shed`
//! are this validator's: the same bytes, sent elsewhere, may become final all the same, and then the book says so.
//! Sending an action again changes nothing while it waits or is answered.

use crate::mempool::action_digest;
use seawall_types::{AccountId, Digest, Height, Nonce, Refusal, SignedAction};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// Submissions that the book keeps. Beyond it the oldest is forgotten, and answered as `Unknown`.
pub const MAX_SUBMISSIONS: usize = 1 << 18;

/// Names a submission.
pub type SubmissionId = Digest;

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its checks.
    Received,
    /// It waits for a block.
    Pooled,
    /// It is in a block that is not final yet.
    Included {
        /// Height of the block.
        height: Height,
    },
    /// It is in a final block.
    Final {
        /// Height of the block.
        height: Height,
        /// Why it did nothing but spend its nonce, if so.
        refusal: Option<Refusal>,
    },
    /// This validator refused it.
    Refused(Refusal),
    /// There was no room for it.
    Shed,
    /// No block can carry it any more, and none has.
    Expired,
    /// The book does not have it.
    Unknown,
}

impl State {
    /// Its name in logs and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Pooled => "pooled",
            Self::Included { .. } => "included",
            Self::Final { .. } => "final",
            Self::Refused(_) => "refused",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the chain itself has answered.
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Final { .. } | Self::Expired)
    }
}

struct Entry {
    id: SubmissionId,
    name: (AccountId, Nonce),
    expiry: Height,
    state: State,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// By age.
    entries: BTreeMap<u64, Entry>,
    ids: BTreeMap<SubmissionId, u64>,
    /// Two actions may share a name: at most one of them becomes final.
    names: BTreeMap<(AccountId, Nonce), Vec<u64>>,
    /// By the last height at which a block may carry them.
    expiries: BTreeSet<(Height, u64)>,
    /// Those that are in a block which is not final, by its height.
    included: BTreeSet<(Height, u64)>,
}

impl Inner {
    fn forget_oldest(&mut self) {
        let Some((place, entry)) = self.entries.pop_first() else { return };
        self.ids.remove(&entry.id);
        self.expiries.remove(&(entry.expiry, place));
        if let State::Included { height } = entry.state {
            self.included.remove(&(height, place));
        }
        if let Some(places) = self.names.get_mut(&entry.name) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.names.remove(&entry.name);
            }
        }
    }

    /// Changes the state of a submission, unless the chain has answered.
    fn set(&mut self, place: u64, state: State) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        // A rescue that was carried and could not spend its nonce may be carried once more.
        let again = matches!((entry.state, state), (State::Final { .. }, State::Final { .. }));
        if entry.state.is_answered() && !again {
            return;
        }
        if let State::Included { height } = entry.state {
            self.included.remove(&(height, place));
        }
        if let State::Included { height } = state {
            self.included.insert((height, place));
        }
        entry.state = state;
    }
}

/// The book.
#[derive(Clone, Default)]
pub struct Submissions {
    inner: Arc<Mutex<Inner>>,
}

impl Submissions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the submissions")
    }

    /// Opens an entry for an action that was just sent here: its id, and whether it has to be checked. It has not if it
    /// waits already or was answered.
    pub fn receive(&self, action: &SignedAction) -> (SubmissionId, bool) {
        let id = action_digest(action);
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Some(entry) = inner.ids.get(&id).and_then(|place| inner.entries.get_mut(place)) {
            let again = matches!(entry.state, State::Refused(_) | State::Shed);
            if again {
                entry.state = State::Received;
            }
            return (id, again);
        }
        let (place, name) = (inner.next, (action.account, action.nonce));
        inner.next += 1;
        inner.entries.insert(place, Entry { id, name, expiry: action.expiry, state: State::Received });
        inner.ids.insert(id, place);
        inner.names.entry(name).or_default().push(place);
        inner.expiries.insert((action.expiry, place));
        while inner.entries.len() > MAX_SUBMISSIONS {
            inner.forget_oldest();
        }
        (id, true)
    }

    /// What became of a submission.
    pub fn state(&self, id: &SubmissionId) -> State {
        let inner = self.lock();
        let entry = inner.ids.get(id).and_then(|place| inner.entries.get(place));
        entry.map_or(State::Unknown, |entry| entry.state)
    }

    /// Whether the book has any action of this account and nonce. Cheap: most of what a block carries was sent elsewhere.
    fn knows(&self, name: &(AccountId, Nonce)) -> bool {
        self.lock().names.contains_key(name)
    }

    /// Notes what this validator did with an action.
    pub(crate) fn note(&self, action: &SignedAction, state: State) {
        if self.knows(&(action.account, action.nonce)) {
            let id = action_digest(action);
            let mut inner = self.lock();
            if let Some(place) = inner.ids.get(&id).copied() {
                inner.set(place, state);
            }
        }
    }

    /// Notes what a block carries that is not final.
    pub(crate) fn included(&self, height: Height, actions: &[SignedAction]) {
        for action in actions {
            self.note(action, State::Included { height });
        }
    }

    /// Notes what a final block carries, with the refusal of each action that it refused, and what it has made
    /// impossible. `waits` says whether an action of this name still waits for a block.
    pub(crate) fn finalized<'a>(
        &self,
        height: Height,
        answered: impl Iterator<Item = (&'a SignedAction, Option<Refusal>)>,
        waits: impl Fn(&(AccountId, Nonce)) -> bool,
    ) {
        for (action, refusal) in answered {
            let name = (action.account, action.nonce);
            if !self.knows(&name) {
                continue;
            }
            let id = action_digest(action);
            let mut inner = self.lock();
            for place in inner.names.get(&name).cloned().unwrap_or_default() {
                let own = inner.entries.get(&place).is_some_and(|entry| entry.id == id);
                inner.set(
                    place,
                    if own { State::Final { height, refusal } } else { State::Refused(Refusal::NonceUsed) },
                );
            }
        }
        let mut inner = self.lock();
        // What was in a block of this height or below, and not in a final one, is in none.
        let lost: Vec<u64> = inner.included.range(..(height.next(), 0)).map(|(_, place)| *place).collect();
        for place in lost {
            let pooled = inner.entries.get(&place).is_some_and(|entry| waits(&entry.name));
            inner.set(place, if pooled { State::Pooled } else { State::Shed });
        }
        let later = inner.expiries.split_off(&(height.next(), 0));
        for (_, place) in std::mem::replace(&mut inner.expiries, later) {
            inner.set(place, State::Expired);
        }
    }

    /// Number of submissions in the book.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether nothing was submitted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
