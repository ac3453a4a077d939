//! Golden vectors: `vectors/codec.txt` at the root of the workspace, for other implementations and
//! against an accidental change of the format.
//!
//! After a change that is meant: `SEAWALL_WRITE_VECTORS=1 cargo test -p seawall-types --features codec`.

use super::*;
use crate::{Cut, CutReason, End, EndReason, Fill, MarketOutcome, OrderId, Slide};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, fs, path::Path};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/codec.txt");

const PREAMBLE: &str = "\
# Golden vectors of Seawall's canonical encoding. The tests of seawall-types write and check them.
#
# NAME hex BYTES              the whole encoding
# NAME sha256 LENGTH DIGEST   its length and digest, where it is long
#
# The comment above a vector is its value, with byte strings as hexadecimal digits.
";

/// Longer encodings are given by their digest.
const LONGEST_HEX_BYTES: usize = 4096;

/// Bytes that all differ, so that a swapped or reversed field shows.
fn bytes<const N: usize>(from: u8) -> [u8; N] {
    core::array::from_fn(|i| from.wrapping_add(i as u8))
}

pub(super) fn smallest_quote() -> Quote {
    Quote {
        chain: ChainId(0),
        maker: AccountId(0),
        taker: AccountId(0),
        market: MarketId(0),
        side: Side::Buy,
        price: PriceTicks(1),
        lots: Lots(0),
        nonce: Nonce(0),
        expiry: Height(0),
    }
}

fn usual_quote() -> Quote {
    Quote {
        chain: ChainId(0x0102_0304_0506_0708),
        maker: AccountId(300),
        taker: AccountId(7),
        market: MarketId(2),
        side: Side::Sell,
        price: PriceTicks(6_543_210),
        lots: Lots(150),
        nonce: Nonce(99),
        expiry: Height(20_000),
    }
}

fn largest_quote() -> Quote {
    Quote {
        chain: ChainId(u64::MAX),
        maker: AccountId(u64::MAX),
        taker: AccountId(u64::MAX),
        market: MarketId(u16::MAX),
        side: Side::Sell,
        price: PriceTicks(limits::MAX_PRICE_TICKS),
        lots: Lots(limits::MAX_LOTS),
        nonce: Nonce(u64::MAX),
        expiry: Height(u64::MAX),
    }
}

fn smallest_fill() -> Action {
    Action::Fill { quote: smallest_quote(), quote_signature: Signature::default(), lots: Lots::ZERO }
}

fn largest_fill() -> Action {
    Action::Fill {
        quote: largest_quote(),
        quote_signature: Signature([0xff; 64]),
        lots: Lots(limits::MAX_LOTS),
    }
}

pub(super) fn smallest_terms() -> Terms {
    Terms {
        market: MarketId(0),
        side: Side::Buy,
        limit: PriceTicks(1),
        lots: Lots(1),
        kind: Kind::Limit,
        reduce_only: false,
        good_til: None,
        cloid: None,
    }
}

fn usual_terms(kind: Kind, reduce_only: bool) -> Terms {
    Terms {
        market: MarketId(2),
        side: Side::Sell,
        limit: PriceTicks(6_543_210),
        lots: Lots(150),
        kind,
        reduce_only,
        good_til: Some(Height(20_000)),
        cloid: Some(Cloid(77)),
    }
}

pub(super) fn largest_terms() -> Terms {
    Terms {
        market: MarketId(u16::MAX),
        side: Side::Sell,
        limit: PriceTicks(limits::MAX_PRICE_TICKS),
        lots: Lots(limits::MAX_LOTS),
        kind: Kind::Liquidation,
        reduce_only: true,
        good_til: Some(Height(u64::MAX)),
        cloid: Some(Cloid(u64::MAX)),
    }
}

pub(super) fn smallest_trigger() -> Trigger {
    Trigger { price: PriceTicks(1), crossing: Crossing::Above }
}

fn largest_trigger() -> Trigger {
    Trigger { price: PriceTicks(limits::MAX_PRICE_TICKS), crossing: Crossing::Below }
}

fn first_order() -> Name {
    Name::Id(OrderId { height: Height(0), index: 0 })
}

fn last_order() -> Name {
    Name::Id(OrderId { height: Height(u64::MAX), index: u32::MAX })
}

/// Each kind, as small and as large as it can be.
fn extreme_actions() -> Vec<(&'static str, Action)> {
    let none = Atoms::ZERO;
    let most = Atoms(limits::MAX_AMOUNT_ATOMS);
    vec![
        ("min", Action::Open { owner: Key::default(), amount: none }),
        ("max", Action::Open { owner: Key([0xff; 32]), amount: most }),
        ("min", Action::Deposit { to: AccountId(0), amount: none }),
        ("max", Action::Deposit { to: AccountId(u64::MAX), amount: most }),
        ("min", Action::Transfer { to: AccountId(0), amount: none }),
        ("max", Action::Transfer { to: AccountId(u64::MAX), amount: most }),
        ("min", Action::TopUpIsolated { market: MarketId(0), amount: none }),
        ("max", Action::TopUpIsolated { market: MarketId(u16::MAX), amount: most }),
        ("min", Action::ReleaseIsolated { market: MarketId(0), amount: none }),
        ("max", Action::ReleaseIsolated { market: MarketId(u16::MAX), amount: most }),
        ("min", Action::SetMarginMode { market: MarketId(0), mode: MarginMode::Cross }),
        ("max", Action::SetMarginMode { market: MarketId(u16::MAX), mode: MarginMode::Isolated }),
        ("min", Action::Withdraw { amount: none, recipient: Recipient::default() }),
        ("max", Action::Withdraw { amount: most, recipient: Recipient([0xff; 32]) }),
        ("min", smallest_fill()),
        ("max", largest_fill()),
        ("min", Action::Place(smallest_terms())),
        ("max", Action::Place(largest_terms())),
        ("min", Action::PlaceMany(vec![smallest_terms()])),
        ("max", Action::PlaceMany(vec![largest_terms(); limits::MAX_ORDERS_PER_ACTION])),
        ("min", Action::Close(smallest_terms())),
        ("max", Action::Close(largest_terms())),
        ("min", Action::Cancel { market: MarketId(0), order: first_order() }),
        ("max", Action::Cancel { market: MarketId(u16::MAX), order: last_order() }),
        ("min", Action::CancelRisk { market: MarketId(0), order: first_order() }),
        ("max", Action::CancelRisk { market: MarketId(u16::MAX), order: last_order() }),
        ("min", Action::CancelAll { market: None, keep_reduce_only: false }),
        ("max", Action::CancelAll { market: Some(MarketId(u16::MAX)), keep_reduce_only: true }),
        (
            "min",
            Action::Modify { market: MarketId(0), order: first_order(), limit: PriceTicks(1), lots: Lots(1) },
        ),
        (
            "max",
            Action::Modify {
                market: MarketId(u16::MAX),
                order: last_order(),
                limit: PriceTicks(limits::MAX_PRICE_TICKS),
                lots: Lots(limits::MAX_LOTS),
            },
        ),
        ("min", Action::PlaceTrigger { trigger: smallest_trigger(), terms: smallest_terms() }),
        ("max", Action::PlaceTrigger { trigger: largest_trigger(), terms: largest_terms() }),
        ("min", Action::ScheduleCancel { at: None }),
        ("max", Action::ScheduleCancel { at: Some(TimeMs(u64::MAX)) }),
        ("min", Action::CancelMany(vec![(MarketId(0), first_order())])),
        ("max", Action::CancelMany(vec![(MarketId(u16::MAX), last_order()); limits::MAX_ORDERS_PER_ACTION])),
        ("min", Action::SetLeverage { market: MarketId(0), leverage: 0 }),
        ("max", Action::SetLeverage { market: MarketId(u16::MAX), leverage: limits::MAX_PPM }),
    ]
}

/// Each kind, as users send it; rescues first.
fn usual_actions() -> Vec<Action> {
    vec![
        Action::Open { owner: Key(bytes(1)), amount: Atoms(5_000_000) },
        Action::Deposit { to: AccountId(7), amount: Atoms(300) },
        Action::Transfer { to: AccountId(300), amount: Atoms(1_000_000) },
        Action::TopUpIsolated { market: MarketId(2), amount: Atoms(127) },
        Action::CancelAll { market: Some(MarketId(2)), keep_reduce_only: true },
        Action::CancelRisk { market: MarketId(2), order: Name::Cloid(Cloid(76)) },
        Action::Close(usual_terms(Kind::Limit, true)),
        Action::ScheduleCancel { at: Some(TimeMs(1_760_000_030_123)) },
        Action::ReleaseIsolated { market: MarketId(130), amount: Atoms(128) },
        Action::SetMarginMode { market: MarketId(2), mode: MarginMode::Isolated },
        Action::Withdraw { amount: Atoms(16_384), recipient: Recipient(bytes(33)) },
        Action::Fill { quote: usual_quote(), quote_signature: Signature(bytes(65)), lots: Lots(149) },
        Action::Place(usual_terms(Kind::PostOnly(OnCross::Slide), false)),
        Action::PlaceMany(vec![usual_terms(Kind::Ioc, true), usual_terms(Kind::Limit, false)]),
        Action::Cancel { market: MarketId(2), order: Name::Cloid(Cloid(77)) },
        Action::CancelMany(vec![
            (MarketId(2), Name::Cloid(Cloid(78))),
            (MarketId(0), Name::Id(OrderId { height: Height(19_000), index: 301 })),
        ]),
        Action::Modify {
            market: MarketId(2),
            order: Name::Id(OrderId { height: Height(19_000), index: 300 }),
            limit: PriceTicks(6_543_211),
            lots: Lots(151),
        },
        Action::PlaceTrigger {
            trigger: Trigger { price: PriceTicks(6_500_000), crossing: Crossing::Below },
            terms: usual_terms(Kind::Ioc, true),
        },
        Action::SetLeverage { market: MarketId(2), leverage: 20 },
    ]
}

/// One of each kind; rescues first.
pub(super) fn signed_actions() -> Vec<SignedAction> {
    let sign = |action| SignedAction {
        chain: ChainId(0x0102_0304_0506_0708),
        account: AccountId(300),
        nonce: Nonce(12),
        expiry: Height(20_000),
        action,
        signature: Signature(bytes(129)),
    };
    usual_actions().into_iter().map(sign).collect()
}

pub(super) fn smallest_signed_action() -> SignedAction {
    SignedAction {
        chain: ChainId(0),
        account: AccountId(0),
        nonce: Nonce(0),
        expiry: Height(0),
        action: Action::Deposit { to: AccountId(0), amount: Atoms::ZERO },
        signature: Signature::default(),
    }
}

pub(super) fn largest_signed_action() -> SignedAction {
    SignedAction {
        chain: ChainId(u64::MAX),
        account: AccountId(u64::MAX),
        nonce: Nonce(u64::MAX),
        expiry: Height(u64::MAX),
        action: Action::PlaceMany(vec![largest_terms(); limits::MAX_ORDERS_PER_ACTION]),
        signature: Signature([0xff; 64]),
    }
}

fn largest_of_weight_one() -> SignedAction {
    SignedAction { action: largest_fill(), ..largest_signed_action() }
}

pub(super) fn smallest_report() -> PriceReport {
    PriceReport { low: PriceTicks(1), high: PriceTicks(1), spread: PriceTicks(0), sources: 1 }
}

pub(super) fn smallest_observation() -> Observation {
    Observation {
        chain: ChainId(0),
        epoch: 0,
        view: 0,
        seq: 0,
        time: TimeMs(0),
        prices: vec![],
        rescues: vec![],
        outcomes: vec![],
        health: Health {},
        author: ValidatorId(0),
        signature: Signature::default(),
    }
}

pub(super) fn usual_observation(author: u16) -> Observation {
    let report = |low| PriceReport {
        low: PriceTicks(low),
        high: PriceTicks(low + 10),
        spread: PriceTicks(150),
        sources: 6,
    };
    Observation {
        chain: ChainId(0x0102_0304_0506_0708),
        epoch: 3,
        view: 70_001,
        seq: 81_234,
        time: TimeMs(1_760_000_000_123),
        prices: vec![(MarketId(0), report(6_543_210)), (MarketId(2), report(350_000))],
        rescues: vec![
            RescueRef {
                account: AccountId(300),
                nonce: Nonce(12),
                expiry: Height(20_000),
                digest: Digest(bytes(1)),
            },
            RescueRef {
                account: AccountId(300 + u64::from(author)),
                nonce: Nonce(13),
                expiry: Height(20_000),
                digest: Digest(bytes(2)),
            },
        ],
        outcomes: vec![OutcomeRef { zone: 2, height: 19_000, digest: Digest(bytes(33)) }],
        health: Health {},
        author: ValidatorId(author),
        signature: Signature(bytes(129)),
    }
}

pub(super) fn largest_observation() -> Observation {
    let price = PriceTicks(limits::MAX_PRICE_TICKS);
    let report = PriceReport { low: price, high: price, spread: price, sources: limits::MAX_SOURCES };
    let first = u16::MAX - (limits::MAX_MARKETS as u16 - 1);
    // As large as the first of them, and none twice.
    let rescue = |place: usize| {
        let mut digest = Digest([0xff; 32]);
        digest.0[31] = place as u8;
        let (nonce, expiry) = (Nonce(u64::MAX), Height(u64::MAX));
        RescueRef { account: AccountId(u64::MAX), nonce, expiry, digest }
    };
    let outcome = OutcomeRef { zone: u16::MAX, height: u64::MAX, digest: Digest([0xff; 32]) };
    Observation {
        chain: ChainId(u64::MAX),
        epoch: u64::MAX,
        view: u64::MAX,
        seq: u64::MAX,
        time: TimeMs(u64::MAX),
        prices: (first..=u16::MAX).map(|market| (MarketId(market), report)).collect(),
        rescues: (0..limits::MAX_RESCUES_PER_OBSERVATION).map(rescue).collect(),
        outcomes: vec![outcome; limits::MAX_OUTCOMES_PER_OBSERVATION],
        health: Health {},
        author: ValidatorId(u16::MAX),
        signature: Signature([0xff; 64]),
    }
}

fn smallest_header() -> Header {
    Header {
        version: VERSION,
        chain: ChainId(0),
        epoch: 0,
        height: Height(0),
        parent: Digest::default(),
        time: TimeMs(0),
        body: Digest::default(),
        state_root: Digest::default(),
        ops: OpsTarget { root: Digest::default(), start: 0, end: 1 },
        outcomes_root: Digest::default(),
        exits_root: Digest::default(),
    }
}

fn usual_header() -> Header {
    Header {
        version: VERSION,
        chain: ChainId(0x0102_0304_0506_0708),
        epoch: 3,
        height: Height(19_001),
        parent: Digest(bytes(1)),
        time: TimeMs(1_760_000_000_123),
        body: Digest(bytes(33)),
        state_root: Digest(bytes(65)),
        ops: OpsTarget { root: Digest(bytes(97)), start: 1_000, end: 2_000 },
        outcomes_root: Digest(bytes(129)),
        exits_root: Digest(bytes(161)),
    }
}

fn largest_header() -> Header {
    let most = Digest([0xff; 32]);
    Header {
        version: VERSION,
        chain: ChainId(u64::MAX),
        epoch: u64::MAX,
        height: Height(u64::MAX),
        parent: most,
        time: TimeMs(u64::MAX),
        body: most,
        state_root: most,
        ops: OpsTarget { root: most, start: u64::MAX - 1, end: u64::MAX },
        outcomes_root: most,
        exits_root: most,
    }
}

pub(super) fn usual_body() -> Body {
    Body {
        observations: [0, 1, 3].map(usual_observation).to_vec(),
        actions: signed_actions(),
        parent_proof: Some(ParentProof { finalized: false, signature: GroupSignature([0x47; 48]) }),
        outcomes: usual_outcomes(),
    }
}

fn usual_outcomes() -> Vec<ZoneOutcome> {
    let order = |index| OrderId { height: Height(19_000), index };
    let fill = |index, side| Fill {
        order: order(index),
        account: AccountId(7 + u64::from(index)),
        side,
        lots: Lots(250),
        maker: index == 0,
    };
    let market = MarketOutcome {
        market: MarketId(2),
        price: Some(PriceTicks(71_250)),
        fills: vec![fill(0, Side::Buy), fill(3, Side::Sell)],
        cuts: vec![Cut { order: order(4), reason: CutReason::SelfCross, lots: Lots(5) }],
        ends: vec![End { order: order(3), reason: EndReason::Filled, lots: Lots(0) }],
        slides: vec![Slide { order: order(9), limit: PriceTicks(71_251) }],
    };
    let outcome = |part, last, markets| Outcome { height: Height(19_002), part, last, markets };
    vec![
        ZoneOutcome { zone: 0, voided: Height(18_000), outcome: outcome(0, false, vec![market.clone()]) },
        ZoneOutcome { zone: 0, voided: Height(18_000), outcome: outcome(1, true, vec![]) },
        ZoneOutcome { zone: 1, voided: Height(0), outcome: outcome(0, true, vec![]) },
    ]
}

/// As many outcomes and records as a block takes, each record in a market of its own.
pub(super) fn most_outcomes() -> Vec<ZoneOutcome> {
    let records = (limits::MAX_RECORDS_PER_BLOCK / limits::MAX_OUTCOMES_PER_BLOCK) as u16;
    let market = |market| MarketOutcome {
        market: MarketId(u16::MAX - records + market),
        price: Some(PriceTicks(limits::MAX_PRICE_TICKS)),
        fills: vec![Fill {
            order: OrderId { height: Height(u64::MAX), index: u32::MAX },
            account: AccountId(u64::MAX),
            side: Side::Sell,
            lots: Lots(limits::MAX_LOTS),
            maker: true,
        }],
        cuts: vec![],
        ends: vec![],
        slides: vec![],
    };
    let place = |at: u64| Outcome {
        height: Height(u64::MAX - limits::MAX_OUTCOMES_PER_BLOCK as u64 + at),
        part: u32::MAX,
        last: true,
        markets: (0..records).map(market).collect(),
    };
    let own = |at| ZoneOutcome { zone: u8::MAX, voided: Height(u64::MAX), outcome: place(at) };
    (0..limits::MAX_OUTCOMES_PER_BLOCK as u64).map(own).collect()
}

pub(super) fn largest_body() -> Body {
    let first = u16::MAX - (limits::MAX_VALIDATORS as u16 - 1);
    let observations = (first..=u16::MAX)
        .map(|author| {
            let mut own = Observation { author: ValidatorId(author), ..largest_observation() };
            own.rescues.iter_mut().for_each(|name| name.digest.0[30] = author as u8);
            own
        })
        .collect();
    Body {
        observations,
        actions: vec![largest_of_weight_one(); limits::MAX_ACTIONS_PER_BLOCK],
        parent_proof: Some(ParentProof { finalized: true, signature: GroupSignature([0xff; 48]) }),
        outcomes: Vec::new(),
    }
}

struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn all() -> String {
    let mut text = String::from(PREAMBLE);
    let mut add = |name: String, value: &dyn Debug, encoding: Bytes| {
        if encoding.len() > LONGEST_HEX_BYTES {
            let digest = Digest(Sha256::digest(&encoding).into());
            writeln!(text, "\n{name} sha256 {} {digest}", encoding.len()).unwrap();
        } else {
            writeln!(text, "\n# {value:?}\n{name} hex {}", Hex(&encoding)).unwrap();
        }
    };
    for (which, action) in extreme_actions() {
        add(format!("action.{}.{which}", action.name()), &action, action.encode());
    }
    for action in usual_actions() {
        add(format!("action.{}.usual", action.name()), &action, action.encode());
    }
    for (which, quote) in [("min", smallest_quote()), ("usual", usual_quote()), ("max", largest_quote())] {
        add(format!("quote.{which}"), &quote, quote.encode());
    }
    let usual = signed_actions().remove(3);
    for (which, signed) in
        [("min", smallest_signed_action()), ("usual", usual), ("max", largest_signed_action())]
    {
        add(format!("signed_action.{which}"), &signed, signed.encode());
        add(format!("signed_action.{which}.message"), &"What is signed.", signed.message());
    }
    for (which, observation) in
        [("min", smallest_observation()), ("usual", usual_observation(3)), ("max", largest_observation())]
    {
        add(format!("observation.{which}"), &observation, observation.encode());
        add(format!("observation.{which}.message"), &"What is signed.", observation.message());
    }
    for (which, header) in [("min", smallest_header()), ("usual", usual_header()), ("max", largest_header())]
    {
        add(format!("header.{which}"), &header, header.encode());
    }
    for (which, body) in [("min", Body::default()), ("usual", usual_body()), ("max", largest_body())] {
        add(format!("body.{which}"), &body, body.encode());
    }
    text
}

#[test]
fn the_encoding_is_that_of_the_golden_vectors() {
    let text = all();
    if std::env::var_os("SEAWALL_WRITE_VECTORS").is_some() {
        fs::create_dir_all(Path::new(PATH).parent().unwrap()).unwrap();
        fs::write(PATH, &text).unwrap();
    }
    let golden = fs::read_to_string(PATH).unwrap();
    for (ours, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, golden);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn golden_vectors_decode_to_themselves() {
    fn check<T: Read<Cfg = ()> + Encode>(bytes: &[u8]) {
        assert_eq!(decode::<T>(bytes).unwrap().encode(), bytes);
    }
    // Rendered and not read, so that a run which rewrites the file does not race with this test.
    for line in all().lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let [name, "hex", hex] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let bytes = unhex(hex);
        match name.split_once('.').unwrap() {
            (_, rest) if rest.ends_with(".message") => {}
            ("action", _) => check::<Action>(&bytes),
            ("quote", _) => check::<Quote>(&bytes),
            ("signed_action", _) => check::<SignedAction>(&bytes),
            ("observation", _) => check::<Observation>(&bytes),
            ("header", _) => check::<Header>(&bytes),
            ("body", _) => check::<Body>(&bytes),
            _ => panic!("a vector of an unknown type: {name}"),
        }
    }
}
