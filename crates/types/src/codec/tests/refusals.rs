//! What does not decode, and under which name.

use super::{vectors::*, *};

/// A hand-written encoding.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn put(self, value: impl Encode) -> Self {
        self.raw(&value.encode())
    }

    fn var(self, value: u64) -> Self {
        self.put(UInt(value))
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// An observation up to its lists.
    fn observation() -> Self {
        Self::default().put(ChainId(0)).var(0).var(0).var(0).var(0)
    }
}

#[track_caller]
fn refused<T: Read<Cfg = ()>>(raw: &Raw, context: &str, message: &str) {
    match decode::<T>(&raw.0) {
        Err(Error::Invalid(c, m)) => assert_eq!((c, m), (context, message)),
        Err(other) => panic!("expected {context}: {message}, found {other}"),
        Ok(_) => panic!("expected {context}: {message}, but it decodes"),
    }
}

#[test]
fn superfluous_varint_bytes() {
    for bytes in [&[0x80, 0x00][..], &[0x81, 0x00], &[0xff, 0x80, 0x00]] {
        assert!(matches!(decode::<Nonce>(bytes), Err(Error::InvalidVarint(8))));
        assert!(matches!(decode::<PriceTicks>(bytes), Err(Error::InvalidVarint(8))));
        assert!(matches!(decode::<Atoms>(bytes), Err(Error::InvalidVarint(16))));
        assert!(matches!(decode::<Action>(&[&[2, 0], bytes].concat()), Err(Error::InvalidVarint(8))));
    }
    // A 65th, a 17th and a 129th bit.
    assert!(matches!(decode::<Nonce>(&[&[0xff; 9][..], &[2]].concat()), Err(Error::InvalidVarint(8))));
    assert!(matches!(decode::<MarketId>(&[0xff, 0xff, 4]), Err(Error::InvalidVarint(2))));
    assert!(matches!(decode::<Atoms>(&[&[0xff; 18][..], &[4]].concat()), Err(Error::InvalidVarint(16))));
    // In a count.
    let raw = Raw::observation().raw(&[0x80, 0x00]);
    assert!(matches!(decode::<Observation>(&raw.0), Err(Error::InvalidVarint(4))));
}

#[test]
fn tags_out_of_range() {
    for tag in [0, 3, 255] {
        assert!(matches!(decode::<Side>(&[tag]), Err(Error::InvalidEnum(t)) if t == tag));
        assert!(matches!(decode::<MarginMode>(&[tag]), Err(Error::InvalidEnum(t)) if t == tag));
    }
    for tag in [0, 6, 255] {
        assert!(matches!(decode::<PriceState>(&[tag]), Err(Error::InvalidEnum(t)) if t == tag));
    }
    for tag in [0, 20, 255] {
        assert!(matches!(decode::<Action>(&[tag, 0, 0]), Err(Error::InvalidEnum(t)) if t == tag));
    }
}

#[test]
fn quantities_beyond_their_limits() {
    let price = limits::MAX_PRICE_TICKS;
    let lots = limits::MAX_LOTS as u64;
    let ppm = limits::MAX_PPM.into();
    assert!(decode::<PriceTicks>(&Raw::default().var(price).0).is_ok());
    refused::<PriceTicks>(&Raw::default().var(price + 1), "PriceTicks", BEYOND);
    assert!(decode::<Ppm>(&Raw::default().var(ppm).0).is_ok());
    refused::<Ppm>(&Raw::default().var(ppm + 1), "Ppm", BEYOND);
    // Zigzag: even is positive, odd is negative.
    assert_eq!(decode::<Lots>(&Raw::default().var(2 * lots).0).unwrap(), Lots(limits::MAX_LOTS));
    assert_eq!(decode::<Lots>(&Raw::default().var(2 * lots - 1).0).unwrap(), Lots(-limits::MAX_LOTS));
    refused::<Lots>(&Raw::default().var(2 * lots + 1), "Lots", BEYOND);
    refused::<Lots>(&Raw::default().var(2 * lots + 2), "Lots", BEYOND);
    refused::<Lots>(&Raw::default().var(u64::MAX), "Lots", BEYOND);
}

/// Zero decodes: the ledger refuses it by name.
#[test]
fn amounts_beyond_their_limit() {
    let most = limits::MAX_AMOUNT_ATOMS as u64;
    let deposit = |amount| Raw::default().raw(&[2, 7]).var(amount);
    for amount in [0, 1, most] {
        let action = Action::Deposit { to: AccountId(7), amount: Atoms(amount.into()) };
        assert_eq!(decode::<Action>(&deposit(amount).0).unwrap(), action);
    }
    refused::<Action>(&deposit(most + 1), "amount", BEYOND);
    refused::<Action>(&deposit(UNREPRESENTABLE), "amount", BEYOND);
}

#[test]
fn sizes_beyond_their_limit() {
    let fill = |lots| Raw::default().raw(&[8]).put(smallest_quote()).put(Signature::default()).var(lots);
    let most = limits::MAX_LOTS as u64;
    assert!(decode::<Action>(&fill(0).0).is_ok());
    assert!(decode::<Action>(&fill(most).0).is_ok());
    refused::<Action>(&fill(most + 1), "size", BEYOND);
    refused::<Action>(&fill(UNREPRESENTABLE), "size", BEYOND);
}

#[test]
fn quotes_without_a_price_or_size() {
    let quote =
        |price, lots| Raw::default().put(ChainId(0)).raw(&[0, 0, 0, 1]).var(price).var(lots).raw(&[0, 0]);
    assert_eq!(decode::<Quote>(&quote(1, 0).0).unwrap(), smallest_quote());
    refused::<Quote>(&quote(0, 1), "Quote::price", "zero is no price");
    refused::<Quote>(&quote(limits::MAX_PRICE_TICKS + 1, 1), "PriceTicks", BEYOND);
    refused::<Quote>(&quote(1, limits::MAX_LOTS as u64 + 1), "size", BEYOND);
}

#[test]
fn marks_without_a_price() {
    refused::<Mark>(&Raw::default().raw(&[1, 0, 0]), "Mark::last", "zero is no price");
}

#[test]
fn reports_that_contradict_themselves() {
    let report = |low, high, spread, sources: u8| Raw::default().var(low).var(high).var(spread).put(sources);
    let most = limits::MAX_PRICE_TICKS;
    assert!(decode::<PriceReport>(&report(1, most, most, limits::MAX_SOURCES).0).is_ok());
    refused::<PriceReport>(&report(0, 1, 0, 1), "PriceReport::low", "zero is no price");
    refused::<PriceReport>(&report(0, 0, 0, 1), "PriceReport::low", "zero is no price");
    refused::<PriceReport>(&report(1, 0, 0, 1), "PriceReport::high", "zero is no price");
    refused::<PriceReport>(&report(2, 1, 0, 1), "PriceReport", "low is above high");
    refused::<PriceReport>(&report(1, most + 1, 0, 1), "PriceTicks", BEYOND);
    refused::<PriceReport>(&report(1, 1, most + 1, 1), "PriceTicks", BEYOND);
    refused::<PriceReport>(&report(1, 1, 0, 0), "PriceReport::sources", "no source");
    refused::<PriceReport>(&report(1, 1, 0, limits::MAX_SOURCES + 1), "PriceReport::sources", BEYOND);
}

#[test]
fn markets_out_of_order() {
    let entry = |raw: Raw, market: u16| raw.put(MarketId(market)).put(smallest_report());
    let two = |a, b| {
        let raw = entry(entry(Raw::observation().var(2), a), b);
        raw.raw(&[0, 0]).put(Health {}).put(ValidatorId(0)).put(Signature::default())
    };
    assert!(decode::<Observation>(&two(1, 2).0).is_ok());
    refused::<Observation>(&two(2, 1), PRICES, "not strictly ascending");
    refused::<Observation>(&two(1, 1), PRICES, "not strictly ascending");
}

#[test]
fn counts_beyond_their_limits() {
    let beyond = "more entries than its limit";
    let over = |limit: usize| limit as u64 + 1;
    refused::<Observation>(&Raw::observation().var(over(limits::MAX_MARKETS)), PRICES, beyond);
    let rescues = Raw::observation().var(0).var(over(limits::MAX_RESCUES_PER_OBSERVATION));
    refused::<Observation>(&rescues, RESCUES, beyond);
    let outcomes = Raw::observation().var(0).var(0).var(over(limits::MAX_OUTCOMES_PER_OBSERVATION));
    refused::<Observation>(&outcomes, OUTCOMES, beyond);
    refused::<Body>(&Raw::default().var(over(MAX_LISTED)), RESCUES, beyond);
    refused::<Body>(&Raw::default().var(0).var(over(limits::MAX_VALIDATORS)), OBSERVATIONS, beyond);
    refused::<Body>(&Raw::default().var(0).var(0).var(over(limits::MAX_ACTIONS_PER_BLOCK)), ACTIONS, beyond);
    refused::<Body>(&Raw::default().var(u32::MAX.into()), RESCUES, beyond);
}

/// A count within its limit that the bytes cannot hold is refused before an element is read: the
/// elements here would be refused by another name.
#[test]
fn counts_beyond_the_bytes() {
    let zero_price = [0; 8];
    let raw = Raw::observation().var(1).raw(&zero_price);
    refused::<Observation>(&raw, "PriceReport::low", "zero is no price");
    let raw = Raw::observation().var(2).raw(&zero_price);
    assert!(matches!(decode::<Observation>(&raw.0), Err(Error::EndOfBuffer)));
    let no_action = [0; MIN_SIGNED_ACTION_BYTES];
    let raw = Raw::default().var(0).var(0).var(1).raw(&no_action);
    assert!(matches!(decode::<Body>(&raw.0), Err(Error::InvalidEnum(0))));
    let raw = Raw::default().var(0).var(0).var(2).raw(&no_action);
    assert!(matches!(decode::<Body>(&raw.0), Err(Error::EndOfBuffer)));
}

#[test]
fn health_of_another_version() {
    let raw = Raw::observation().raw(&[0, 0, 0, 1]).put(ValidatorId(0)).put(Signature::default());
    refused::<Observation>(&raw, "Health", "unknown version");
}

#[test]
fn headers_of_another_version_or_without_operations() {
    let ops = |start: u64, end: u64| Raw::default().put(Digest::default()).put(start).put(end);
    assert!(decode::<OpsTarget>(&ops(0, 1).0).is_ok());
    refused::<OpsTarget>(&ops(1, 1), "OpsTarget", "end is not above start");
    refused::<OpsTarget>(&ops(2, 1), "OpsTarget", "end is not above start");
    for version in [0, VERSION + 1] {
        refused::<Header>(&Raw::default().raw(&[version; MAX_HEADER_BYTES]), "Header", "unknown version");
    }
}

#[test]
fn authors_out_of_order() {
    let two = |a, b| Raw::default().var(0).var(2).raw(&in_block(a, &[])).raw(&in_block(b, &[])).raw(&[0; 3]);
    assert!(decode::<Body>(&two(0, 1).0).is_ok());
    refused::<Body>(&two(1, 0), OBSERVATIONS, "not strictly ascending");
    refused::<Body>(&two(1, 1), OBSERVATIONS, "not strictly ascending");
}

/// An observation as a block carries it, with this bitmap.
fn in_block(author: u16, bitmap: &[u8]) -> Vec<u8> {
    let own = Observation { author: ValidatorId(author), ..smallest_observation() }.encode();
    // Chain, epoch, view, seq, time and no prices; then the count of its rescues, which a block does not carry.
    let at = ChainId::SIZE + 5;
    [&own[..at], bitmap, &own[at + 1..]].concat()
}

#[test]
fn tables_of_rescues_have_one_form() {
    let name = |nonce| RescueRef {
        account: AccountId(1),
        nonce: Nonce(nonce),
        expiry: Height(9),
        digest: Digest::default(),
    };
    let body = |names: &[RescueRef], bitmaps: [&[u8]; 2]| {
        let raw = names.iter().fold(Raw::default().var(names.len() as u64), |raw, name| raw.put(*name));
        raw.var(2).raw(&in_block(0, bitmaps[0])).raw(&in_block(1, bitmaps[1])).raw(&[0; 3])
    };
    let nine: Vec<_> = (0..9).map(name).collect();
    let found = decode::<Body>(&body(&nine, [&[0xff, 0], &[1, 1]]).0).unwrap();
    assert_eq!(found.observations[0].rescues, nine[..8]);
    assert_eq!(found.observations[1].rescues, [name(0), name(8)]);
    refused::<Body>(&body(&nine, [&[0xff, 0], &[1, 0]]), RESCUES, "a name that no observation lists");
    refused::<Body>(&body(&nine, [&[0xff, 1], &[0, 2]]), RESCUES, "a bit beyond the table");
    refused::<Body>(&body(&[name(2), name(1)], [&[1], &[2]]), RESCUES, "not strictly ascending");
    refused::<Body>(&body(&[name(1), name(1)], [&[1], &[2]]), RESCUES, "not strictly ascending");
    let most = limits::MAX_RESCUES_PER_OBSERVATION;
    let names: Vec<_> = (0..=most as u64).map(name).collect();
    let mut all = vec![0xff; most / 8];
    all.push(0);
    let mut last = vec![0; most / 8];
    last.push(1);
    assert!(decode::<Body>(&body(&names, [&all, &last]).0).is_ok());
    all[most / 8] = 1;
    refused::<Body>(&body(&names, [&all, &last]), RESCUES, "more entries than its limit");
}

#[test]
fn a_rescue_after_a_trade_or_out_of_its_place() {
    let all = signed_actions();
    let (rescue, later, trade) = (&all[0], &all[1], &all[9]);
    let body = |actions: [&SignedAction; 3]| {
        let raw = Raw::default().var(0).var(0).var(3);
        actions.into_iter().fold(raw, |raw, action| raw.raw(&action.encode()))
    };
    assert!(decode::<Body>(&body([rescue, later, trade]).raw(&[0; 2]).0).is_ok());
    assert!(decode::<Body>(&body([rescue, trade, trade]).raw(&[0; 2]).0).is_ok());
    refused::<Body>(&body([rescue, trade, later]), ACTIONS, "a rescue after a trade");
    refused::<Body>(&body([trade, rescue, later]), ACTIONS, "a rescue after a trade");
    refused::<Body>(&body([later, rescue, trade]), ACTIONS, "not strictly ascending");
    refused::<Body>(&body([rescue, rescue, trade]), ACTIONS, "not strictly ascending");
    for (own, next) in all.iter().zip(&all[1..]) {
        let (own, next) = (own.rescue_order(), next.rescue_order());
        assert!(next.is_none() || own < next, "deposits before transfers, and so on: {own:?} {next:?}");
    }
}

#[test]
fn outcomes_out_of_order_or_too_many() {
    let own = |zone, height, part| ZoneOutcome {
        zone,
        voided: Height(0),
        outcome: Outcome { height: Height(height), part, last: true, markets: vec![] },
    };
    let body = |outcomes: &[ZoneOutcome]| {
        let raw = Raw::default().raw(&[0; 4]).var(outcomes.len() as u64);
        outcomes.iter().fold(raw, |raw, own| raw.put(own.clone()))
    };
    let (a, b, c, d) = (own(0, 5, 0), own(0, 5, 1), own(0, 6, 0), own(1, 4, 0));
    assert!(decode::<Body>(&body(&[a.clone(), b.clone(), c.clone(), d.clone()]).0).is_ok());
    for wrong in [[&b, &a], [&c, &b], [&d, &c], [&a, &a]] {
        refused::<Body>(&body(&wrong.map(Clone::clone)), SETTLED, "not strictly ascending");
    }
    let over = Raw::default().raw(&[0; 4]).var(limits::MAX_OUTCOMES_PER_BLOCK as u64 + 1);
    refused::<Body>(&over, SETTLED, "more entries than its limit");
    let mut most = most_outcomes();
    let markets = &mut most[0].outcome.markets;
    let one_more = crate::MarketOutcome { market: MarketId(0), ..markets[0].clone() };
    markets.insert(0, one_more);
    assert!(Body { outcomes: most.clone(), ..Body::default() }.check().is_err());
    refused::<Body>(&body(&most), SETTLED, "more entries than its limit");
}

#[test]
fn orders_count_one_by_one_against_the_actions_of_a_block() {
    let place = |orders: usize| Action::PlaceMany(vec![smallest_terms(); orders]);
    let cancel =
        |orders: usize| Action::CancelMany(vec![(MarketId(0), Name::Cloid(Cloid::default())); orders]);
    for many in [&place as &dyn Fn(usize) -> Action, &cancel] {
        let signed = |orders: usize| SignedAction { action: many(orders), ..smallest_signed_action() };
        let body = |last: usize| {
            let many = limits::MAX_ACTIONS_PER_BLOCK / limits::MAX_ORDERS_PER_ACTION;
            let mut actions = vec![signed(limits::MAX_ORDERS_PER_ACTION); many - 1];
            actions.extend([signed(limits::MAX_ORDERS_PER_ACTION - 1), signed(last)]);
            Body { actions, ..Body::default() }
        };
        let full = body(1);
        assert!(full.check().is_ok() && body(2).check().is_err());
        assert_eq!(decode::<Body>(&full.encode()).unwrap(), full);
        let count = full.actions.len() as u64;
        let raw = body(2)
            .actions
            .iter()
            .fold(Raw::default().var(0).var(0).var(count), |raw, one| raw.raw(&one.encode()));
        refused::<Body>(&raw, ACTIONS, "more entries than its limit");
    }
}

#[test]
fn an_action_that_names_no_orders_or_too_many() {
    let named = (MarketId(0), Name::Cloid(Cloid::default())).encode();
    for (tag, one) in [(10, smallest_terms().encode()), (18, named)] {
        let many = |orders: usize| {
            (0..orders).fold(Raw::default().raw(&[tag]).var(orders as u64), |raw, _| raw.raw(&one))
        };
        assert!(decode::<Action>(&many(1).0).is_ok());
        assert!(decode::<Action>(&many(limits::MAX_ORDERS_PER_ACTION).0).is_ok());
        refused::<Action>(&many(0), ORDERS, "no order");
        refused::<Action>(&many(limits::MAX_ORDERS_PER_ACTION + 1), ORDERS, "more entries than its limit");
    }
}

#[test]
fn values_out_of_limits_fail_their_check() {
    let amount = |amount| Action::Withdraw { amount: Atoms(amount), recipient: Recipient::default() };
    assert!(amount(0).check().is_ok());
    assert!(amount(limits::MAX_AMOUNT_ATOMS).check().is_ok());
    for beyond in [-1, limits::MAX_AMOUNT_ATOMS + 1, i128::MIN, i128::MAX, (1 << 64) + 5] {
        assert!(amount(beyond).check().is_err(), "{beyond}");
    }
    let quote = |price, lots| Quote { price: PriceTicks(price), lots: Lots(lots), ..smallest_quote() };
    assert!(quote(1, 0).check().is_ok());
    for (price, lots) in [(0, 1), (u64::MAX, 1), (1, -1), (1, i64::MIN), (1, limits::MAX_LOTS + 1)] {
        assert!(quote(price, lots).check().is_err(), "{price} {lots}");
    }
    let mut observation = usual_observation(0);
    observation.prices.swap(0, 1);
    assert!(observation.check().is_err());
    let mut body = usual_body();
    body.actions.reverse();
    assert!(body.check().is_err());
    let mut body = usual_body();
    body.observations.swap(0, 1);
    assert!(body.check().is_err());
}

/// Where assertions are off, such a value is written as bytes that nobody accepts, never as the bytes
/// of another value.
#[cfg(not(debug_assertions))]
#[test]
fn values_out_of_limits_are_written_as_refusals() {
    for amount in [-1, limits::MAX_AMOUNT_ATOMS + 1, i128::MIN, i128::MAX, (1 << 64) + 5] {
        let action = Action::Deposit { to: AccountId(0), amount: Atoms(amount) };
        assert!(decode::<Action>(&action.encode()).is_err(), "{amount}");
    }
    for lots in [-1, limits::MAX_LOTS + 1, i64::MIN, i64::MAX] {
        let quote = Quote { lots: Lots(lots), ..smallest_quote() };
        assert!(decode::<Quote>(&quote.encode()).is_err(), "{lots}");
        assert!(lots == -1 || decode::<Lots>(&Lots(lots).encode()).is_err(), "{lots}");
    }
    for price in [0, limits::MAX_PRICE_TICKS + 1, u64::MAX] {
        let quote = Quote { price: PriceTicks(price), ..smallest_quote() };
        assert!(decode::<Quote>(&quote.encode()).is_err(), "{price}");
    }
    let mut body = usual_body();
    body.actions.reverse();
    assert!(decode::<Body>(&body.encode()).is_err());
}

#[test]
fn triggers_without_a_price_and_leverages_beyond_every_market() {
    let trigger =
        |price, crossing: u8| Raw::default().raw(&[15]).var(price).put(crossing).put(smallest_terms());
    let action = Action::PlaceTrigger { trigger: smallest_trigger(), terms: smallest_terms() };
    assert_eq!(decode::<Action>(&trigger(1, 1).0).unwrap(), action);
    refused::<Action>(&trigger(0, 1), "Trigger", "out of its range");
    refused::<Action>(&trigger(limits::MAX_PRICE_TICKS + 1, 1), "PriceTicks", BEYOND);
    for tag in [0, 3, 255] {
        assert!(matches!(decode::<Action>(&trigger(1, tag).0), Err(Error::InvalidEnum(t)) if t == tag));
    }
    let leverage = |leverage| Raw::default().raw(&[17, 0]).var(leverage);
    let most = limits::MAX_PPM;
    for leverage_is in [0, 1, most] {
        let action = Action::SetLeverage { market: MarketId(0), leverage: leverage_is };
        assert_eq!(decode::<Action>(&leverage(leverage_is.into()).0).unwrap(), action);
    }
    refused::<Action>(&leverage(u64::from(most) + 1), "Action::leverage", BEYOND);
}
