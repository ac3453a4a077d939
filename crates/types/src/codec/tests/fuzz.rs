//! Fuzz tests. As plain tests they run for a moment over random inputs; under `cargo bolero test`
//! they run for as long as wanted, guided by coverage.

use super::{assert_canonical, vectors};
use crate::{Body, Observation, SignedAction};
use bolero::check;
use commonware_codec::{Encode, Read};

/// Edits of a valid encoding: random bytes alone rarely get past the first field.
type Edits = Vec<(u8, u16, u8)>;

fn edited(bytes: &[u8], edits: &Edits) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (kind, at, byte) in edits {
        let at = usize::from(*at) % (bytes.len() + 1);
        match kind % 4 {
            0 => bytes.insert(at, *byte),
            1 => bytes.truncate(at.max(1)),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            _ if at < bytes.len() => bytes[at] ^= byte,
            _ => {}
        }
    }
    bytes
}

fn seeds<T: Encode>(values: Vec<T>) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.encode().to_vec()).collect()
}

fn assert_edits_canonical<T: Read<Cfg = ()> + Encode>(seeds: &[Vec<u8>], seed: u8, edits: &Edits) {
    assert_canonical::<T>(&edited(&seeds[usize::from(seed) % seeds.len()], edits));
}

#[test]
fn fuzz_signed_action_bytes() {
    check!().for_each(|bytes: &[u8]| assert_canonical::<SignedAction>(bytes));
}

#[test]
fn fuzz_signed_action_edits() {
    let seeds = seeds(vectors::signed_actions());
    check!()
        .with_type::<(u8, Edits)>()
        .for_each(|(seed, edits)| assert_edits_canonical::<SignedAction>(&seeds, *seed, edits));
}

#[test]
fn fuzz_observation_bytes() {
    check!().for_each(|bytes: &[u8]| assert_canonical::<Observation>(bytes));
}

#[test]
fn fuzz_observation_edits() {
    let seeds = seeds(vec![vectors::smallest_observation(), vectors::usual_observation(3)]);
    check!()
        .with_type::<(u8, Edits)>()
        .for_each(|(seed, edits)| assert_edits_canonical::<Observation>(&seeds, *seed, edits));
}

#[test]
fn fuzz_body_bytes() {
    check!().for_each(|bytes: &[u8]| assert_canonical::<Body>(bytes));
}

#[test]
fn fuzz_body_edits() {
    let seeds = seeds(vec![Body::default(), vectors::usual_body()]);
    check!()
        .with_type::<(u8, Edits)>()
        .for_each(|(seed, edits)| assert_edits_canonical::<Body>(&seeds, *seed, edits));
}
