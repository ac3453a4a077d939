//! The nonces that an account may not use again yet.
//!
//! Nonces are unordered, so that one stuck action holds up no other, and none is forgotten before the action
//! that used it has expired, or it could be replayed. They are kept as runs: nonces that follow each other
//! and expire together are one entry, however many. So an issuer that counts upwards books thousands of
//! deposits in a block with one entry, and whoever draws nonces at random has
//! [`MAX_NONCE_RUNS`](limits::MAX_NONCE_RUNS) of them.
//!
//! Runs are as long as they can be and sorted by expiry, then nonce: the entries are a function of the set, not
//! of the order in which it came about.

use seawall_types::{Height, Nonce, limits};

/// Nonces that follow each other and expire together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NonceRun {
    /// The last height at which any of them could be used again.
    pub expiry: Height,
    /// First.
    pub first: Nonce,
    /// Last, itself included; not below the first.
    pub last: Nonce,
}

/// The used nonces of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nonces {
    runs: Vec<NonceRun>,
}

impl Nonces {
    /// None.
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// From runs as they are stored. `None` if they are not in the one form that [`runs`](Self::runs) has, or
    /// too many.
    pub fn from_runs(runs: Vec<NonceRun>) -> Option<Self> {
        let apart = |pair: &[NonceRun]| {
            let (a, b) = (pair[0], pair[1]);
            a.expiry < b.expiry
                || (a.expiry == b.expiry && a.last.0.checked_add(1).is_some_and(|next| next < b.first.0))
        };
        let sound = runs.len() <= limits::MAX_NONCE_RUNS
            && runs.iter().all(|run| run.first <= run.last)
            && runs.windows(2).all(apart);
        sound.then_some(Self { runs })
    }

    /// The runs, by expiry, then nonce.
    pub fn runs(&self) -> &[NonceRun] {
        &self.runs
    }

    /// Whether an action that is not expired at `height` used the nonce.
    pub fn contains(&self, nonce: Nonce, height: Height) -> bool {
        let live = self.runs.iter().filter(|run| run.expiry >= height);
        live.into_iter().any(|run| run.first <= nonce && nonce <= run.last)
    }

    /// Whether there is room for a nonce that no run can take in.
    pub fn is_full(&self, nonce: Nonce, expiry: Height, height: Height) -> bool {
        let expired = self.runs.partition_point(|run| run.expiry < height);
        self.runs.len() - expired >= limits::MAX_NONCE_RUNS
            && !self.runs.iter().any(|run| run.expiry == expiry && run.touches(nonce))
    }

    /// Adds a nonce that is not in yet, and forgets what has expired before `height`. The caller asked
    /// [`contains`](Self::contains) and [`is_full`](Self::is_full).
    pub(crate) fn insert(&mut self, nonce: Nonce, expiry: Height, height: Height) {
        let expired = self.runs.partition_point(|run| run.expiry < height);
        self.runs.drain(..expired);
        let at = self.runs.partition_point(|run| (run.expiry, run.first) < (expiry, nonce));
        let joins = |place: Option<usize>| {
            place.filter(|place| {
                self.runs.get(*place).is_some_and(|run| run.expiry == expiry && run.touches(nonce))
            })
        };
        match (joins(at.checked_sub(1)), joins(Some(at))) {
            (Some(below), Some(above)) => {
                self.runs[below].last = self.runs[above].last;
                self.runs.remove(above);
            }
            (Some(below), None) => self.runs[below].last = nonce,
            (None, Some(above)) => self.runs[above].first = nonce,
            (None, None) => self.runs.insert(at, NonceRun { expiry, first: nonce, last: nonce }),
        }
    }
}

impl NonceRun {
    /// Whether the nonce is right below or right above the run.
    fn touches(&self, nonce: Nonce) -> bool {
        nonce.0.checked_add(1) == Some(self.first.0) || self.last.0.checked_add(1) == Some(nonce.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn runs_are_a_function_of_the_set_and_agree_with_it(
            drawn in prop::collection::vec((0u64..40, 5u64..9), 0..120),
            extreme in any::<bool>(),
        ) {
            let base = if extreme { u64::MAX - 39 } else { 0 };
            let mut nonces = Nonces::new();
            let mut model: BTreeSet<(Height, Nonce)> = BTreeSet::new();
            for (step, (nonce, expiry)) in drawn.into_iter().enumerate() {
                let (nonce, expiry, height) = (Nonce(base + nonce), Height(expiry), Height(4 + step as u64 / 30));
                model.retain(|(expiry, _)| *expiry >= height);
                let used = model.iter().any(|(_, used)| *used == nonce);
                prop_assert_eq!(nonces.contains(nonce, height), used);
                if !used && expiry >= height {
                    nonces.insert(nonce, expiry, height);
                    model.insert((expiry, nonce));
                    let listed: BTreeSet<_> = nonces
                        .runs()
                        .iter()
                        .flat_map(|run| (run.first.0..=run.last.0).map(|nonce| (run.expiry, Nonce(nonce))))
                        .collect();
                    prop_assert_eq!(&listed, &model);
                    prop_assert_eq!(Nonces::from_runs(nonces.runs().to_vec()), Some(nonces.clone()));
                }
            }
        }
    }

    #[test]
    fn only_the_one_form_is_restored() {
        let run =
            |expiry, first, last| NonceRun { expiry: Height(expiry), first: Nonce(first), last: Nonce(last) };
        let cases: [(&str, Vec<NonceRun>, bool); 8] = [
            ("none", vec![], true),
            ("apart", vec![run(1, 1, 2), run(1, 4, 4), run(2, 0, 9)], true),
            ("one that could be two of other expiries", vec![run(1, 1, 2), run(2, 3, 4)], true),
            ("adjacent and the same expiry", vec![run(1, 1, 2), run(1, 3, 4)], false),
            ("overlapping", vec![run(1, 1, 5), run(1, 3, 9)], false),
            ("descending", vec![run(2, 1, 1), run(1, 1, 1)], false),
            ("empty run", vec![run(1, 5, 4)], false),
            ("after the last nonce there is none", vec![run(1, 0, u64::MAX), run(1, 3, 3)], false),
        ];
        for (claim, runs, sound) in cases {
            assert_eq!(Nonces::from_runs(runs).is_some(), sound, "{claim}");
        }
        let many = |count| (0..count).map(|place| run(1, 2 * place, 2 * place)).collect::<Vec<_>>();
        assert!(Nonces::from_runs(many(limits::MAX_NONCE_RUNS as u64)).is_some());
        assert!(Nonces::from_runs(many(limits::MAX_NONCE_RUNS as u64 + 1)).is_none());
    }

    #[test]
    fn a_full_window_still_takes_what_a_run_takes_in() {
        let mut nonces = Nonces::new();
        let (expiry, height) = (Height(9), Height(1));
        for place in 0..limits::MAX_NONCE_RUNS as u64 {
            assert!(!nonces.is_full(Nonce(3 * place), expiry, height));
            nonces.insert(Nonce(3 * place), expiry, height);
        }
        assert!(nonces.is_full(Nonce(u64::MAX), expiry, height));
        assert!(nonces.is_full(Nonce(1), Height(8), height), "another expiry is another run");
        assert!(!nonces.is_full(Nonce(1), expiry, height));
        assert!(!nonces.is_full(Nonce(u64::MAX), expiry, Height(10)), "they have all expired");
    }
}
