//! The encoding: round trips, one encoding per value, and bounds that hold before anything is allocated.

#![cfg(feature = "codec")]

mod common;

use common::{history, id, inbox, params, terms};
use commonware_codec::{Copying, DecodeExt, Encode, Error, MaxEncodeSize, Read};
use core::fmt::Debug;
use proptest::prelude::*;
use seawall_market::{
    Band, Cloid, Cut, CutReason, End, EndReason, Entry, Fill, Inbox, Kind, MarketOutcome, Name, OnCross,
    Order, Outcome, Reference, Request, Slide, Terms, Zone,
    codec::{MAX_RECORD_BYTES, max_part_bytes},
};
use seawall_types::{
    AccountId, Height, Lots, MarketId, PriceTicks, Side,
    limits::{MAX_LOTS, MAX_PRICE_TICKS},
};

fn decode<T: Read<Cfg = ()>>(bytes: &[u8]) -> Result<T, Error> {
    T::decode(Copying(bytes))
}

fn assert_round_trip<T: Read<Cfg = ()> + Encode + Debug + PartialEq>(value: &T) {
    let bytes = value.encode();
    assert_eq!(decode::<T>(&bytes).unwrap(), *value);
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
        assert!(matches!(decode::<T>(&bytes[..end]), Err(Error::EndOfBuffer)), "cut at {end}: {value:?}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(decode::<T>(&longer), Err(Error::ExtraData(1))));
}

fn assert_canonical<T: Read<Cfg = ()> + Encode>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(value.encode(), bytes);
    }
}

fn outcomes(inboxes: &[Inbox]) -> Vec<Outcome> {
    let mut zone = Zone::new(params(3, 7, 3)).unwrap();
    inboxes.iter().map(|inbox| zone.apply(inbox).unwrap()).collect()
}

proptest! {
    #[test]
    fn inboxes_and_orders_survive_the_trip(inbox in inbox(6), terms in terms(6), height: u64, account: u64) {
        assert_round_trip(&inbox);
        let order = Order { id: id(height, u32::MAX), account: AccountId(account), terms };
        assert_round_trip(&order);
        prop_assert!(order.encode().len() <= Order::MAX_ENCODE_SIZE);
    }

    #[test]
    fn outcomes_and_their_parts_survive_the_trip(inboxes in history(4), records in 4usize..20) {
        for outcome in outcomes(&inboxes) {
            assert_round_trip(&outcome);
            for part in outcome.split(records) {
                assert_round_trip(&part);
                prop_assert!(part.encode().len() <= max_part_bytes(records));
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_the_one_encoding_of_something_else(
        inboxes in history(3),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0u32..8, 0u8..3), 1..4),
    ) {
        let hurt = |mut bytes: Vec<u8>| {
            for (at, bit, how) in &damage {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] ^= 1 << bit,
                    1 => bytes.insert(at, 1 << bit),
                    _ => bytes.truncate(at + 1),
                }
            }
            bytes
        };
        for inbox in &inboxes {
            assert_canonical::<Inbox>(&hurt(inbox.encode().to_vec()));
        }
        for outcome in outcomes(&inboxes) {
            assert_canonical::<Outcome>(&hurt(outcome.encode().to_vec()));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_canonical::<Inbox>(&bytes);
        assert_canonical::<Outcome>(&bytes);
        assert_canonical::<Order>(&bytes);
    }
}

#[test]
fn a_claimed_count_is_held_against_the_bytes_that_are_there() {
    // Height 1, part 0, last, and a number of markets that no outcome has.
    assert!(matches!(decode::<Outcome>(&[1, 0, 1, 0x81, 0x02]), Err(Error::Invalid("Outcome::markets", _))));
    assert!(matches!(decode::<Outcome>(&[1, 0, 1, 0x80, 0x02]), Err(Error::EndOfBuffer)));
    // One market, no price, and a claim of more fills than there are bytes.
    let fills = [1, 0, 1, 1, 0, 0, 0xff, 0xff, 0x0b, 0, 0, 0, 0];
    assert!(matches!(decode::<Outcome>(&fills), Err(Error::EndOfBuffer)));
    let beyond = [1, 0, 1, 1, 0, 0, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
    assert!(matches!(decode::<Outcome>(&beyond), Err(Error::Invalid("MarketOutcome::fills", _))));
}

#[test]
fn what_is_out_of_range_does_not_decode() {
    let market = MarketId(0);
    let good = Terms {
        market,
        side: Side::Buy,
        limit: PriceTicks(MAX_PRICE_TICKS),
        lots: Lots(MAX_LOTS),
        kind: Kind::Limit,
        reduce_only: false,
        good_til: None,
        cloid: None,
    };
    assert_round_trip(&good);
    for bad in [
        Terms { lots: Lots(0), ..good },
        Terms { lots: Lots(-1), ..good },
        Terms { limit: PriceTicks(0), ..good },
    ] {
        assert!(matches!(decode::<Terms>(&bad.encode()), Err(Error::Invalid("Terms", _))), "{bad:?}");
    }
}

#[test]
fn a_record_takes_no_more_bytes_than_stated() {
    let fill = Fill {
        order: id(u64::MAX, u32::MAX),
        account: AccountId(u64::MAX),
        side: Side::Sell,
        lots: Lots(MAX_LOTS),
        maker: true,
    };
    assert_eq!(fill.encode().len(), MAX_RECORD_BYTES);
    assert_eq!(MAX_RECORD_BYTES, 33);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_encoding_of_every_request_and_record_is_fixed() {
    let terms = Terms {
        market: MarketId(3),
        side: Side::Sell,
        limit: PriceTicks(300),
        lots: Lots(5),
        kind: Kind::PostOnly(OnCross::Slide),
        reduce_only: true,
        good_til: Some(Height(9)),
        cloid: Some(Cloid(8)),
    };
    let market = MarketId(3);
    let by_id = Name::Id(id(6, 1));
    let requests = [
        (
            Request::Place(terms),
            "01".to_owned() + "03" + "02" + "ac02" + "0a" + "03" + "01" + "0109" + "0108",
        ),
        (Request::Cancel { market, order: Name::Cloid(Cloid(8)) }, "0203".to_owned() + "0208"),
        (Request::CancelAll { market: None, keep_reduce_only: true }, "0300".to_owned() + "01"),
        (
            Request::Modify { market, order: by_id, limit: PriceTicks(2), lots: Lots(1) },
            "0403".to_owned() + "010601" + "02" + "02",
        ),
        (Request::Reduce { market, order: id(6, 1), by: Lots(4) }, "0503".to_owned() + "0601" + "08"),
    ];
    let band = Band { low: PriceTicks(2), high: PriceTicks(4) };
    let mut inbox = Inbox { height: Height(7), salt: [0xab; 32], ..Inbox::default() };
    inbox.references.insert(market, Reference { mark: PriceTicks(3), band });
    let mut expected = "07".to_owned() + &"ab".repeat(32) + "01" + "03030204" + "05";
    for (index, (request, bytes)) in (0..).zip(requests) {
        inbox.entries.insert(index, Entry { account: AccountId(1), request });
        expected += &format!("{index:02x}01{bytes}");
    }
    assert_eq!(hex(&inbox.encode()), expected);
    assert_round_trip(&inbox);

    let fill =
        |index, side| Fill { order: id(6, index), account: AccountId(2), side, lots: Lots(5), maker: true };
    let outcome = Outcome {
        height: Height(7),
        part: 1,
        last: false,
        markets: vec![MarketOutcome {
            market,
            price: Some(PriceTicks(300)),
            fills: vec![fill(1, Side::Buy), fill(2, Side::Sell)],
            cuts: vec![Cut { order: id(7, 0), reason: CutReason::SelfCross, lots: Lots(1) }],
            ends: vec![End { order: id(7, 1), reason: EndReason::DuplicateCloid, lots: Lots(2) }],
            slides: vec![Slide { order: id(7, 2), limit: PriceTicks(1) }],
        }],
    };
    let records = ["02", "060102010a01", "060202020a01", "01", "07000302", "01", "07010e04", "01", "070201"];
    assert_eq!(hex(&outcome.encode()), "070100".to_owned() + "01" + "03" + "01ac02" + &records.concat());
    assert_round_trip(&outcome);
}

#[test]
fn an_empty_outcome_is_four_bytes() {
    let outcome = Outcome { height: Height(7), part: 0, last: true, markets: Vec::new() };
    assert_eq!(outcome.encode()[..], [7, 0, 1, 0]);
}
