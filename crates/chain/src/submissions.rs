//! What became of an action, for whoever sent it: an answer that the chain never contradicts.
//!
//! Every submission has an id, the digest of the signed action. A validator keeps a book of what was submitted to it and
//! answers by id, at any time, from that book:
//!
//! | state | what it says | what can follow |
//! | --- | --- | --- |
//! | `Received` | it waits for its checks here | anything but `Unknown` |
//! | `Pooled` | it was checked and waits for a block here | `Included`, `Refused`, `Shed`, `Expired`, `Final` |
//! | `Included` | a block that this validator executed carries it; that block may still lose | `Final`, `Pooled`, `Shed`, `Refused` by a final block, `Expired` |
//! | `Final` | a final block carries it, and says what it did | nothing, but that a later block does what this one refused for want of room for its nonce; `Unknown` |
//! | `Refused` | this validator would not take it, as things stood; or its nonce is spent, by another action or by itself before the book knew of it | `Received` if it is sent again; `Included`, `Expired`, `Final`, `Unknown` |
//! | `Rationed` | its signer has no token for one more rescue, and in how many blocks there is one | as `Refused` |
//! | `Shed` | it waits here no more: there was no room, or the block that carried it lost after it had left the pool | `Received` if it is sent again; `Included`, `Expired`, `Final`, `Unknown` |
//! | `Expired` | the last height at which a block may carry it is final, and none has | `Unknown` |
//! | `Unknown` | this book does not have it: it never came here or was turned away at the door, or long ago, or before a restart | anything |
//!
//! Only final blocks make an action `Final` or `Expired`, so these two are the chain's own answers. `Refused` and `Shed`
//! are this validator's: the same bytes, sent elsewhere, may become final all the same, and then the book says so. What this
//! validator decides never overrides what a block says: a check that comes after a block carried the action changes nothing.
//!
//! The book sees final blocks from when it has an entry on. So it says `Expired` only of what was once pooled here: then no
//! block before had spent its nonce. What comes after its time, say after a restart, may have been done long ago, and stays
//! `Refused`.
//!
//! Sending an action again changes nothing while it waits or is answered. What other members relay has an entry from when
//! it is pooled.

use crate::mempool::action_digest;
use seawall_types::{AccountId, Digest, Height, Nonce, Refusal, SignedAction};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// Submissions that the book keeps: more than can wait in the queues and pools together. Beyond it the one is forgotten, and
/// answered as `Unknown`, that has been `Final`, `Expired`, `Refused` or `Shed` for longest; if there is none, the oldest.
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
    /// This validator refused a rescue, because its signer has no token beside those of its that wait.
    Rationed {
        /// In how many blocks it has one more, if none is signed meanwhile.
        blocks: u64,
    },
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
            Self::Rationed { .. } => "rationed",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the chain itself has answered.
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Final { .. } | Self::Expired)
    }

    /// Whether it waits for nothing here.
    const fn is_over(self) -> bool {
        self.is_answered() || matches!(self, Self::Refused(_) | Self::Rationed { .. } | Self::Shed)
    }
}

struct Entry {
    id: SubmissionId,
    name: (AccountId, Nonce),
    expiry: Height,
    state: State,
    /// Whether it was pooled once, so that no block before the book knew of it had spent its nonce.
    pooled: bool,
    /// Since when it waits for nothing, if it does.
    over: Option<u64>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// The last final block.
    height: Height,
    /// Most entries.
    most: usize,
    /// By age.
    entries: BTreeMap<u64, Entry>,
    ids: BTreeMap<SubmissionId, u64>,
    /// Two actions may share a name: at most one of them becomes final.
    names: BTreeMap<(AccountId, Nonce), Vec<u64>>,
    /// By the last height at which a block may carry them.
    expiries: BTreeSet<(Height, u64)>,
    /// Those that are in a block which is not final, by its height.
    included: BTreeSet<(Height, u64)>,
    /// Those that wait for nothing, by since when.
    over: BTreeMap<u64, u64>,
}

impl Inner {
    /// Forgets one entry.
    fn forget(&mut self, place: u64) {
        let Some(entry) = self.entries.remove(&place) else { return };
        self.ids.remove(&entry.id);
        self.expiries.remove(&(entry.expiry, place));
        if let State::Included { height } = entry.state {
            self.included.remove(&(height, place));
        }
        if let Some(since) = entry.over {
            self.over.remove(&since);
        }
        if let Some(places) = self.names.get_mut(&entry.name) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.names.remove(&entry.name);
            }
        }
    }

    /// Opens an entry, if there is none.
    fn open(&mut self, id: SubmissionId, action: &SignedAction) -> (u64, bool) {
        if let Some(place) = self.ids.get(&id) {
            return (*place, false);
        }
        let (place, name) = (self.next, (action.account, action.nonce));
        self.next += 1;
        let entry =
            Entry { id, name, expiry: action.expiry, state: State::Received, pooled: false, over: None };
        self.entries.insert(place, entry);
        self.ids.insert(id, place);
        self.names.entry(name).or_default().push(place);
        self.expiries.insert((action.expiry, place));
        while self.entries.len() > self.most {
            let over = self.over.first_key_value().map(|(_, place)| *place);
            let Some(gone) = over.or_else(|| self.entries.keys().next().copied()) else { break };
            self.forget(gone);
        }
        (place, true)
    }

    /// Notes what this validator decided about an entry: nothing, if a block has said something about it.
    fn decide(&mut self, place: u64, state: State) {
        let Some(entry) = self.entries.get_mut(&place) else { return };
        entry.pooled |= state == State::Pooled;
        if entry.state.is_answered() || matches!(entry.state, State::Included { .. }) {
            return;
        }
        // It was open when it was checked, and its time passed before it was pooled.
        let late = state == State::Pooled && entry.expiry <= self.height;
        self.set(place, if late { State::Expired } else { state });
    }

    /// Changes the state of an entry, unless the chain has answered.
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
        if state.is_over() != entry.over.is_some() {
            entry.over = match entry.over {
                Some(since) => {
                    self.over.remove(&since);
                    None
                }
                None => {
                    let since = self.next;
                    self.next += 1;
                    self.over.insert(since, place);
                    Some(since)
                }
            };
        }
        entry.state = state;
    }
}

/// The book.
#[derive(Clone)]
pub struct Submissions {
    inner: Arc<Mutex<Inner>>,
}

impl Default for Submissions {
    fn default() -> Self {
        Self::keeping(MAX_SUBMISSIONS)
    }
}

impl Submissions {
    /// A book of at most so many entries.
    fn keeping(most: usize) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { most, ..Inner::default() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the submissions")
    }

    /// Opens an entry for an action that was just sent here: its id, and whether it has to be checked. It has not if it
    /// waits already or was answered.
    pub fn receive(&self, action: &SignedAction) -> (SubmissionId, bool) {
        let id = action_digest(action);
        let mut inner = self.lock();
        let (place, fresh) = inner.open(id, action);
        let again = inner.entries.get(&place).is_some_and(|entry| {
            matches!(entry.state, State::Refused(_) | State::Rationed { .. } | State::Shed)
        });
        if again {
            inner.set(place, State::Received);
        }
        (id, fresh || again)
    }

    /// Opens an entry for what another member relays and is about to be pooled.
    pub(crate) fn learn(&self, action: &SignedAction) {
        let id = action_digest(action);
        let mut inner = self.lock();
        let (place, _) = inner.open(id, action);
        inner.decide(place, State::Pooled);
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

    /// The entry of an action.
    fn place(&self, action: &SignedAction) -> Option<(u64, MutexGuard<'_, Inner>)> {
        if !self.knows(&(action.account, action.nonce)) {
            return None;
        }
        let id = action_digest(action);
        let inner = self.lock();
        let place = inner.ids.get(&id).copied()?;
        Some((place, inner))
    }

    /// Notes what this validator decided about an action.
    pub(crate) fn note(&self, action: &SignedAction, state: State) {
        if let Some((place, mut inner)) = self.place(action) {
            inner.decide(place, state);
        }
    }

    /// Notes what a block carries that is not final.
    pub(crate) fn included(&self, height: Height, actions: &[SignedAction]) {
        for action in actions {
            if let Some((place, mut inner)) = self.place(action) {
                inner.set(place, State::Included { height });
            }
        }
    }

    /// Forgets what a final block carries of which nobody knows any more what it did.
    pub(crate) fn forget(&self, actions: &[SignedAction]) {
        for action in actions {
            if let Some((place, mut inner)) = self.place(action) {
                inner.forget(place);
            }
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
        inner.height = height;
        // What was in a block of this height or below, and not in a final one, is in none.
        let lost: Vec<u64> = inner.included.range(..(height.next(), 0)).map(|(_, place)| *place).collect();
        for place in lost {
            let pooled = inner.entries.get(&place).is_some_and(|entry| waits(&entry.name));
            inner.set(place, if pooled { State::Pooled } else { State::Shed });
        }
        let later = inner.expiries.split_off(&(height.next(), 0));
        for (_, place) in std::mem::replace(&mut inner.expiries, later) {
            if inner.entries.get(&place).is_some_and(|entry| entry.pooled) {
                inner.set(place, State::Expired);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seawall_types::{Action, ChainId, Signature};

    /// Actions of one account: several of a name, so that at most one of them can be done.
    fn action(which: u64, expiry: u64) -> SignedAction {
        SignedAction {
            chain: ChainId(1),
            account: AccountId(1),
            nonce: Nonce(which / 2),
            expiry: Height(expiry),
            action: Action::CancelAll { market: None, keep_reduce_only: which.is_multiple_of(2) },
            signature: Signature::default(),
        }
    }

    fn finalize(book: &Submissions, height: u64, carried: &[SignedAction]) {
        book.finalized(Height(height), carried.iter().map(|action| (action, None)), |_| false);
    }

    #[test]
    fn what_comes_after_its_time_is_not_said_to_be_in_no_block() {
        let book = Submissions::default();
        let done = action(0, 5);
        finalize(&book, 4, std::slice::from_ref(&done));
        finalize(&book, 5, &[]);
        // Sent again to a book that did not know it then, as after a restart.
        let (id, fresh) = book.receive(&done);
        assert!(fresh);
        book.note(&done, State::Refused(Refusal::Expired));
        finalize(&book, 6, &[]);
        assert_eq!(book.state(&id), State::Refused(Refusal::Expired));
    }

    #[test]
    fn a_check_that_comes_late_does_not_override_a_block() {
        let book = Submissions::default();
        let own = action(0, 9);
        let (id, _) = book.receive(&own);
        book.included(Height(3), std::slice::from_ref(&own));
        book.note(&own, State::Refused(Refusal::NonceUsed));
        assert_eq!(book.state(&id), State::Included { height: Height(3) });
        finalize(&book, 3, &[]);
        assert_eq!(book.state(&id), State::Shed, "the block lost, and it waits nowhere");
    }

    #[test]
    fn what_is_pooled_as_its_time_passes_is_expired() {
        let book = Submissions::default();
        let own = action(0, 5);
        let (id, _) = book.receive(&own);
        finalize(&book, 5, &[]);
        assert_eq!(book.state(&id), State::Received);
        book.note(&own, State::Pooled);
        assert_eq!(book.state(&id), State::Expired);
    }

    #[test]
    fn a_full_book_forgets_what_is_over_before_what_waits() {
        let book = Submissions::keeping(4);
        let all: Vec<SignedAction> = (0..6).map(|which| action(2 * which, 50)).collect();
        let ids: Vec<SubmissionId> = all.iter().take(4).map(|own| book.receive(own).0).collect();
        book.note(&all[3], State::Shed);
        finalize(&book, 1, &all[2..3]);
        let states = || ids.iter().map(|id| book.state(id).name()).collect::<Vec<_>>();
        book.receive(&all[4]);
        assert_eq!(states(), ["received", "received", "final", "unknown"], "the longest over");
        book.receive(&all[5]);
        assert_eq!(states(), ["received", "received", "unknown", "unknown"]);
        book.receive(&action(20, 50));
        assert_eq!(states(), ["unknown", "received", "unknown", "unknown"], "then the oldest");
        let inner = book.lock();
        assert_eq!((inner.entries.len(), inner.ids.len(), inner.expiries.len()), (4, 4, 4));
        assert_eq!((inner.over.len(), inner.names.len()), (0, 4));
    }

    #[test]
    fn what_is_relayed_is_known_once_it_is_pooled_and_sent_again_changes_nothing() {
        let book = Submissions::default();
        let own = action(0, 50);
        book.learn(&own);
        let id = action_digest(&own);
        assert_eq!(book.state(&id), State::Pooled);
        assert_eq!(book.receive(&own), (id, false));
        finalize(&book, 1, std::slice::from_ref(&own));
        let done = State::Final { height: Height(1), refusal: None };
        assert_eq!(book.state(&id), done);
        book.learn(&own);
        assert_eq!((book.receive(&own), book.state(&id)), ((id, false), done));
    }

    /// Something that happens to a validator.
    #[derive(Clone, Debug)]
    enum Event {
        Submit(u64),
        Check(u64),
        Relay(u64),
        Refuse(u64),
        Shed(u64),
        Include(Vec<u64>),
        Finalize(Vec<u64>),
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        let which = || 0u64..12;
        let some = || proptest::collection::vec(0u64..12, 0..3);
        prop_oneof![
            4 => which().prop_map(Event::Submit),
            4 => which().prop_map(Event::Check),
            2 => which().prop_map(Event::Relay),
            1 => which().prop_map(Event::Refuse),
            1 => which().prop_map(Event::Shed),
            2 => some().prop_map(Event::Include),
            4 => some().prop_map(Event::Finalize),
            1 => Just(Event::Restart),
        ]
    }

    proptest! {
        /// Against the chain itself: which action spent a nonce, and at which height.
        #[test]
        fn whatever_happens_in_whatever_order_no_answer_contradicts_the_chain(
            events in proptest::collection::vec(event(), 1..120),
            most in 2usize..16,
        ) {
            let action = |which: u64| action(which, 3 + 2 * which);
            let mut book = Submissions::keeping(most);
            let mut done: BTreeMap<Nonce, (u64, u64)> = BTreeMap::new();
            let mut height = 0;
            let mut answered: BTreeMap<SubmissionId, State> = BTreeMap::new();
            for event in events {
                // What a check of the newest state would find.
                let open = |which: u64| {
                    let own = action(which);
                    !done.contains_key(&own.nonce) && own.expiry.get() > height
                };
                match event {
                    Event::Submit(which) => {
                        let before = book.state(&action_digest(&action(which)));
                        let (id, fresh) = book.receive(&action(which));
                        let after = book.state(&id);
                        prop_assert!(fresh || before == after, "{:?} {:?}", before, after);
                    }
                    Event::Check(which) => book.note(
                        &action(which),
                        if open(which) { State::Pooled } else { State::Refused(Refusal::NonceUsed) },
                    ),
                    Event::Relay(which) if open(which) => book.learn(&action(which)),
                    Event::Relay(_) => {}
                    Event::Refuse(which) => {
                        book.note(&action(which), State::Refused(Refusal::InsufficientCollateral));
                    }
                    Event::Shed(which) => book.note(&action(which), State::Shed),
                    Event::Include(some) => {
                        let carried: Vec<_> = some.into_iter().filter(|own| open(*own)).map(action).collect();
                        book.included(Height(height + 1), &carried);
                    }
                    Event::Finalize(some) => {
                        height += 1;
                        let mut carried = Vec::new();
                        for which in some {
                            let own = action(which);
                            if own.expiry.get() >= height && !done.contains_key(&own.nonce) {
                                done.insert(own.nonce, (which, height));
                                carried.push(own);
                            }
                        }
                        finalize(&book, height, &carried);
                    }
                    Event::Restart => {
                        book = Submissions::keeping(most);
                        answered.clear();
                    }
                }
                prop_assert!(book.len() <= most);
                for which in 0..12 {
                    let own = action(which);
                    let id = action_digest(&own);
                    let by = done.get(&own.nonce).filter(|(other, _)| *other == which);
                    let state = book.state(&id);
                    match state {
                        State::Final { height, .. } => {
                            prop_assert_eq!(by.map(|(_, at)| *at), Some(height.get()));
                        }
                        State::Expired => {
                            prop_assert!(by.is_none() && own.expiry.get() <= height, "{}", which);
                        }
                        // What waits can still be done, or its check has not come yet.
                        State::Pooled => prop_assert!(by.is_none() && own.expiry.get() > height),
                        State::Included { height: at } => {
                            prop_assert!(by.is_none() && at.get() > height, "{}", which);
                        }
                        _ => {}
                    }
                    if let Some(before) = answered.get(&id) {
                        prop_assert!(state == *before || state == State::Unknown || !state.is_answered());
                        if state == State::Unknown {
                            answered.remove(&id);
                        }
                    } else if state.is_answered() {
                        answered.insert(id, state);
                    }
                }
            }
        }
    }
}
