//! Random histories: the zone against the model, and what must hold after every height.

mod common;

use common::{Model, history, params};
use proptest::prelude::*;
use seawall_market::{EndReason, Fault, Inbox, Kind, Order, OrderId, Outcome, Request, Zone};
use seawall_types::{Lots, Side};
use std::collections::BTreeMap;

/// What settlement does about a part.
fn settle(orders: &mut BTreeMap<OrderId, Order>, outcome: &Outcome) {
    for market in &outcome.markets {
        for slide in &market.slides {
            orders.get_mut(&slide.order).expect("known").terms.limit = slide.limit;
        }
        let spent = (market.fills.iter().map(|fill| (fill.order, fill.lots)))
            .chain(market.cuts.iter().map(|cut| (cut.order, cut.lots)));
        for (id, lots) in spent {
            orders.get_mut(&id).expect("known").terms.lots -= lots;
        }
        for end in &market.ends {
            let order = orders.remove(&end.order).expect("it ends once");
            assert_eq!(order.terms.lots, end.lots);
        }
    }
}

fn placed(inbox: &Inbox) -> impl Iterator<Item = OrderId> {
    inbox.entries.iter().filter_map(|(index, entry)| match entry.request {
        Request::Place(_) | Request::Modify { .. } => Some(OrderId { height: inbox.height, index: *index }),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_that_of_the_model(inboxes in history(6), tight: bool) {
        let params = if tight { params(3, 7, 3) } else { params(1, 1000, 100) };
        let mut zone = Zone::new(params.clone()).unwrap();
        let mut model = Model::new(params.clone());
        for inbox in &inboxes {
            let outcome = zone.apply(inbox).unwrap();
            let expected = model.apply(inbox);
            prop_assert_eq!(&outcome, &expected, "inbox {:#?}", inbox);
            let open: Vec<Order> = zone.orders().copied().collect();
            prop_assert_eq!(&open, &model.open);

            // The outcome passes settlement's check, and lots are conserved through it.
            prop_assert_eq!(outcome.check(|id| model.known.get(&id).copied(), &inbox.references), Ok(()));
            let mut orders = model.known.clone();
            settle(&mut orders, &outcome);
            prop_assert_eq!(orders.into_values().collect::<Vec<_>>(), {
                let mut open = open.clone();
                open.sort_by_key(|order| order.id);
                open
            });

            // Every id that came in is open or has ended.
            for id in placed(inbox) {
                let ended = outcome.markets.iter().flat_map(|m| &m.ends).filter(|end| end.order == id).count();
                let open = open.iter().filter(|order| order.id == id).count();
                prop_assert_eq!(ended + open, 1);
            }

            // Inside the band nothing crosses any more, and nothing immediate is left.
            for (market, reference) in &inbox.references {
                prop_assert_eq!(zone.indicative(*market, reference), None);
            }
            prop_assert!(open.iter().all(|order| !order.terms.kind.is_immediate()));

            // A zone is its open orders.
            let rebuilt = Zone::from_orders(params.clone(), zone.height(), open.iter().rev().copied());
            prop_assert_eq!(rebuilt.as_ref(), Ok(&zone));
        }
    }

    #[test]
    fn parts_settle_to_what_the_whole_settles_to(inboxes in history(4), records in 0usize..12) {
        let mut zone = Zone::new(params(1, 1000, 100)).unwrap();
        let mut model = Model::new(params(1, 1000, 100));
        for inbox in &inboxes {
            let outcome = zone.apply(inbox).unwrap();
            model.apply(inbox);
            let mut whole = model.known.clone();
            settle(&mut whole, &outcome);
            let mut orders = model.known.clone();
            let parts = outcome.clone().split(records);
            for (at, part) in parts.iter().enumerate() {
                prop_assert_eq!((part.part as usize, part.last), (at, at + 1 == parts.len()));
                let count: usize = part.markets.iter().map(|market| market.records()).sum();
                prop_assert!(count <= records.max(4));
                prop_assert_eq!(part.check(|id| orders.get(&id).copied(), &inbox.references), Ok(()));
                settle(&mut orders, part);
            }
            prop_assert_eq!(orders, whole);
            let total: usize = outcome.markets.iter().map(|market| market.records()).sum();
            if total <= records {
                prop_assert_eq!(parts, vec![outcome]);
            }
        }
    }

    /// A leader that puts the entries of different accounts in another order changes no price and no volume,
    /// and nobody's fill by more than the lot that largest remainders draw.
    #[test]
    fn the_order_inside_a_block_buys_nothing(mut inboxes in history(3), keys: [u64; 12]) {
        let mut zone = Zone::new(params(1, 1000, 100)).unwrap();
        let mut last = inboxes.pop().unwrap();
        for inbox in &inboxes {
            zone.apply(inbox).unwrap();
        }
        // An account's own entries keep their order, and name no order of this inbox by its id.
        last.entries.retain(|_, entry| !matches!(entry.request,
            Request::Cancel { .. } | Request::Modify { .. } | Request::Reduce { .. }));
        let mut order: Vec<u32> = last.entries.keys().copied().collect();
        order.sort_by_key(|index| keys[*index as usize]);
        let mut moved = last.clone();
        moved.entries.clear();
        let mut names = BTreeMap::new();
        let mut used = vec![false; order.len()];
        let old: Vec<u32> = last.entries.keys().copied().collect();
        for (place, index) in order.iter().enumerate() {
            let account = last.entries[index].account;
            let first = (0..old.len()).find(|at| !used[*at] && last.entries[&old[*at]].account == account).unwrap();
            used[first] = true;
            moved.entries.insert(place as u32, last.entries[&old[first]]);
            names.insert(place as u32, old[first]);
        }
        let mut other = zone.clone();
        let (one, two) = (zone.apply(&last).unwrap(), other.apply(&moved).unwrap());
        prop_assert_eq!(one.markets.len(), two.markets.len());
        for (one, two) in one.markets.iter().zip(&two.markets) {
            prop_assert_eq!((one.market, one.price, one.volume()), (two.market, two.price, two.volume()));
            let rename = |id: OrderId| match names.get(&id.index) {
                Some(index) if id.height == last.height => OrderId { index: *index, ..id },
                _ => id,
            };
            let mut difference: BTreeMap<OrderId, i64> = BTreeMap::new();
            one.fills.iter().for_each(|fill| *difference.entry(fill.order).or_default() += fill.lots.0);
            two.fills.iter().for_each(|fill| *difference.entry(rename(fill.order)).or_default() -= fill.lots.0);
            prop_assert!(difference.values().all(|lots| lots.abs() <= 1), "{:?}", difference);
            prop_assert_eq!(&one.cuts, &{
                let mut cuts: Vec<_> = two.cuts.clone();
                cuts.iter_mut().for_each(|cut| cut.order = rename(cut.order));
                cuts.sort_by_key(|cut| (cut.order, cut.reason));
                cuts
            });
        }
    }

    /// Changing any one number of an outcome is found, unless the result is another possible outcome.
    #[test]
    fn a_changed_outcome_is_found(inboxes in history(4), which: prop::sample::Index, by in 1i64..3) {
        let mut zone = Zone::new(params(1, 1000, 100)).unwrap();
        let mut model = Model::new(params(1, 1000, 100));
        for inbox in &inboxes {
            let outcome = zone.apply(inbox).unwrap();
            model.apply(inbox);
            let check = |outcome: &Outcome| outcome.check(|id| model.known.get(&id).copied(), &inbox.references);
            for at in 0..outcome.markets.len() {
                let mut other = outcome.clone();
                let market = &mut other.markets[at];
                if !market.fills.is_empty() {
                    let fill = which.index(market.fills.len());
                    market.fills[fill].lots += Lots(by);
                    prop_assert!(check(&other).is_err());
                    other = outcome.clone();
                    let market = &mut other.markets[at];
                    market.fills[fill].maker ^= true;
                    prop_assert_eq!(check(&other), Err(Fault::WrongFill(outcome.markets[at].fills[fill].order)));
                    other = outcome.clone();
                    other.markets[at].fills.remove(fill);
                    prop_assert!(check(&other).is_err());
                    other = outcome.clone();
                    other.markets[at].price = None;
                    prop_assert!(check(&other).is_err());
                    other = outcome.clone();
                    let market = &mut other.markets[at];
                    market.fills[fill].side = market.fills[fill].side.opposite();
                    prop_assert!(check(&other).is_err());
                    for (price, limit) in [(1u64, Side::Sell), (common::TICKS, Side::Buy)] {
                        let mut other = outcome.clone();
                        let market = &mut other.markets[at];
                        market.price = Some(seawall_types::PriceTicks(price));
                        let beyond = market.fills.iter().any(|fill| {
                            let terms = model.known[&fill.order].terms;
                            fill.side == limit && !terms.accepts(seawall_types::PriceTicks(price))
                        });
                        prop_assert!(!beyond || check(&other).is_err());
                    }
                }
                let mut other = outcome.clone();
                let market = &mut other.markets[at];
                if !market.ends.is_empty() {
                    let end = which.index(market.ends.len());
                    market.ends[end].lots += Lots(by);
                    prop_assert!(check(&other).is_err());
                    let removed = outcome.markets[at].ends[end];
                    let kind = model.known[&removed.order].terms.kind;
                    let mut other = outcome.clone();
                    other.markets[at].ends.remove(end);
                    let traded = removed.reason == EndReason::Filled || kind == Kind::Ioc;
                    let named = other.markets[at].fills.iter().any(|fill| fill.order == removed.order);
                    prop_assert!(!(traded && named) || check(&other).is_err());
                }
            }
        }
    }
}
