//! Round trips, refusals, golden vectors, property tests and fuzz tests of the encoding.

use super::*;
use crate::{Cloid, Crossing, Kind, OnCross, testing};
use commonware_codec::{Copying, DecodeExt, Encode};
use core::fmt::Debug;
use proptest::prelude::*;

mod fuzz;
mod refusals;
mod vectors;

fn decode<T: Read<Cfg = ()>>(bytes: &[u8]) -> Result<T, Error> {
    T::decode(Copying(bytes))
}

/// Whatever decodes is the one encoding of what it decodes to.
fn assert_canonical<T: Read<Cfg = ()> + Encode>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(value.encode(), bytes);
    }
}

/// `value` survives the trip, and no prefix or extension of its encoding is an encoding.
fn assert_round_trip<T: Read<Cfg = ()> + Encode + MaxEncodeSize + Debug + PartialEq>(value: &T) {
    let bytes = value.encode();
    assert!(bytes.len() <= T::MAX_ENCODE_SIZE, "{} bytes: {value:?}", bytes.len());
    assert_eq!(decode::<T>(&bytes).unwrap(), *value);
    // A prefix of an encoding always ends too early, wherever it is cut.
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 256) {
        assert!(matches!(decode::<T>(&bytes[..end]), Err(Error::EndOfBuffer)), "cut at {end}: {value:?}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(decode::<T>(&longer), Err(Error::ExtraData(1))));
}

/// What is within limits says so.
macro_rules! assert_in_limits {
    ($value:expr) => {
        $value.check().expect("drawn values are within limits")
    };
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len == 0 {
            return;
        }
        match self {
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Self::Remove(at) => drop(bytes.remove(at.index(len))),
            Self::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<prop::sample::Index>;
    let one = prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => at().prop_map(Damage::Remove),
        1 => at().prop_map(Damage::Cut),
    ];
    prop::collection::vec(one, 1..5)
}

fn damaged<T: Encode + Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<u8>> {
    (values, damage()).prop_map(|(value, damage)| {
        let mut bytes = value.encode().to_vec();
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        bytes
    })
}

macro_rules! every_type {
    ($($name:ident: $type:ty;)*) => {
        mod round_trip {
            use super::*;
            proptest! {$(
                #[test]
                fn $name(value in testing::$name()) {
                    assert_round_trip::<$type>(&value);
                }
            )*}
        }

        mod damage_is_canonical_or_refused {
            use super::*;
            proptest! {$(
                #[test]
                fn $name(bytes in damaged(testing::$name())) {
                    assert_canonical::<$type>(&bytes);
                }
            )*}
        }

        mod noise_is_canonical_or_refused {
            use super::*;
            proptest! {$(
                #[test]
                fn $name(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
                    assert_canonical::<$type>(&bytes);
                }
            )*}
        }
    };
}

every_type! {
    chain_id: ChainId;
    account_id: AccountId;
    market_id: MarketId;
    validator_id: ValidatorId;
    nonce: Nonce;
    height: Height;
    time: TimeMs;
    price: PriceTicks;
    ppm: Ppm;
    lots: Lots;
    atoms: Atoms;
    funding_index: FundingIndex;
    key: Key;
    digest: Digest;
    recipient: Recipient;
    signature: Signature;
    side: Side;
    margin_mode: MarginMode;
    price_state: PriceState;
    mark: Mark;
    quote: Quote;
    terms: Terms;
    name: Name;
    action: Action;
    signed_action: SignedAction;
    price_report: PriceReport;
    rescue_ref: RescueRef;
    outcome_ref: OutcomeRef;
    observation: Observation;
    ops_target: OpsTarget;
    header: Header;
    body: Body;
}

proptest! {
    #[test]
    fn what_is_signed_is_what_precedes_the_signature(
        signed in testing::signed_action(),
        observation in testing::observation(),
        quote in testing::quote(),
    ) {
        prop_assert_eq!([&signed.message()[..], &signed.signature.0].concat(), signed.encode());
        prop_assert_eq!([&observation.message()[..], &observation.signature.0].concat(), observation.encode());
        prop_assert_eq!(quote.message(), quote.encode());
    }

    #[test]
    fn what_is_drawn_is_within_limits(
        signed in testing::signed_action(),
        header in testing::header(),
        body in testing::body(),
    ) {
        assert_in_limits!(signed);
        assert_in_limits!(header);
        assert_in_limits!(body);
    }

    /// Different values have different encodings, so a signature over one is not over the other.
    #[test]
    fn encodings_differ_where_values_do(a in testing::action(), b in testing::action()) {
        prop_assert_eq!(a == b, a.encode() == b.encode());
    }
}

#[test]
fn health_is_a_version_byte() {
    assert_round_trip(&Health {});
    assert_eq!(Health {}.encode()[..], [0]);
}

/// Every constant is attained: it is neither too small nor a guess.
#[test]
fn largest_encodings_have_their_documented_size() {
    let observation = vectors::largest_observation();
    let signed = vectors::largest_signed_action();
    let body = vectors::largest_body();
    let largest = &body.actions[0];
    let Action::Fill { quote, .. } = &largest.action else { panic!("a fill is the largest of its weight") };
    assert_eq!(largest.encode_size(), MAX_WEIGHT_BYTES);
    assert_eq!(largest.action.encode_size(), MAX_FILL_BYTES);
    let mark = Mark::new(PriceState::Quarantined, PriceTicks(limits::MAX_PRICE_TICKS), TimeMs(u64::MAX));
    assert_eq!(quote.encode_size(), MAX_QUOTE_BYTES);
    assert_eq!(signed.action.encode_size(), MAX_ACTION_BYTES);
    assert_eq!(signed.encode_size(), MAX_SIGNED_ACTION_BYTES);
    assert_eq!(mark.encode_size(), MAX_MARK_BYTES);
    assert_eq!(observation.prices[0].1.encode_size(), MAX_PRICE_REPORT_BYTES);
    assert_eq!(observation.rescues[0].encode_size(), MAX_RESCUE_REF_BYTES);
    assert_eq!(observation.outcomes[0].encode_size(), MAX_OUTCOME_REF_BYTES);
    assert_eq!(observation.encode_size(), MAX_OBSERVATION_BYTES);
    assert_eq!(MAX_HEADER_BYTES, 241);
    assert_eq!(vectors::smallest_terms().encode_size(), MIN_TERMS_BYTES);
    assert_eq!((MarketId(0), crate::Name::Cloid(crate::Cloid(0))).encode_size(), MIN_NAMED_BYTES);
    let bytes = body.encode();
    assert_eq!(bytes.len() - 1 + MAX_SETTLED_BYTES, MAX_BODY_BYTES);
    let full = Body { outcomes: vectors::most_outcomes(), ..Body::default() };
    let settled = full.encode_size() - Body::default().encode_size() + 1;
    assert!(settled <= MAX_SETTLED_BYTES && MAX_SETTLED_BYTES < settled * 3 / 2, "{settled}");
    assert!(decode::<Body>(&full.encode()).unwrap() == full);
    assert!(decode::<Body>(&bytes).unwrap() == body);
    assert_round_trip(&observation);
    assert_round_trip(&signed);
}

/// A claimed count is held against the bytes that are there by the size of the smallest element.
#[test]
fn smallest_encodings_have_their_assumed_size() {
    let observation = vectors::smallest_observation();
    assert_eq!(observation.encode_size(), MIN_OBSERVATION_BYTES);
    assert_eq!(vectors::smallest_signed_action().encode_size(), MIN_SIGNED_ACTION_BYTES);
    let one = Observation {
        prices: vec![(MarketId(0), vectors::smallest_report())],
        rescues: vec![RescueRef {
            account: AccountId(0),
            nonce: Nonce(0),
            expiry: Height(0),
            digest: Digest::default(),
        }],
        outcomes: vec![OutcomeRef { zone: 0, height: 0, digest: Digest::default() }],
        ..observation
    };
    assert_eq!(
        one.encode_size() - MIN_OBSERVATION_BYTES,
        MIN_PRICE_ENTRY_BYTES + MIN_RESCUE_REF_BYTES + MIN_OUTCOME_REF_BYTES
    );
    assert_round_trip(&one);
}
