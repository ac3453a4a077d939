//! Where open orders are kept in the store.
//!
//! Keys are read without scanning, and the names of orders are far apart: they say when an order came. So each order
//! has a slot, the lowest that is free when it comes, and the chain's record says how many slots there ever were. A
//! start reads as many records as orders were open at the same time at most. Which slot an order has is a function of
//! the history, and it is undone and redone with the block.

use seawall_ledger::{Change, Record, RecordKey};
use seawall_types::OrderId;
use std::collections::{BTreeMap, BTreeSet};

/// Slots of open orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    of: BTreeMap<OrderId, u64>,
    free: BTreeSet<u64>,
    end: u64,
}

/// An order got its slot, or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    order: OrderId,
    slot: u64,
    opened: bool,
}

/// What a block did to the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotMoves {
    moves: Vec<Move>,
    end_before: u64,
    end: u64,
}

impl SlotMoves {
    /// How many slots there are after the block, taken or free.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Slots that the block emptied and did not fill again.
    pub fn emptied(&self) -> impl Iterator<Item = u64> + '_ {
        let mut left = BTreeMap::new();
        for step in &self.moves {
            left.insert(step.slot, step.opened);
        }
        left.into_iter().filter(|(_, opened)| !opened).map(|(slot, _)| slot)
    }
}

impl Slots {
    /// The slots of orders as they were read, of so many that there are. `None` if two orders have one, an order has two,
    /// or a slot is beyond the last.
    pub fn restore(end: u64, orders: impl Iterator<Item = (u64, OrderId)>) -> Option<Self> {
        let mut slots = Self { of: BTreeMap::new(), free: (0..end).collect(), end };
        for (slot, order) in orders {
            if !slots.free.remove(&slot) || slots.of.insert(order, slot).is_some() {
                return None;
            }
        }
        Some(slots)
    }

    /// How many there are, taken or free.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// The slot of an open order.
    pub fn of(&self, order: OrderId) -> Option<u64> {
        self.of.get(&order).copied()
    }

    /// Takes over what a block changed: orders that went leave their slots, then orders that came get the lowest ones,
    /// both by ascending name.
    pub fn apply(&mut self, changes: &[Change]) -> SlotMoves {
        let mut moves = Vec::new();
        let end_before = self.end;
        let orders = || {
            changes.iter().filter_map(|(key, before, after)| match key {
                RecordKey::Order(id) => Some((*id, before.is_some(), after.is_some())),
                _ => None,
            })
        };
        for (order, _, _) in orders().filter(|(_, before, after)| *before && !after) {
            let slot = self.of.remove(&order).expect("an open order has a slot");
            self.free.insert(slot);
            moves.push(Move { order, slot, opened: false });
        }
        for (order, _, _) in orders().filter(|(_, before, after)| !before && *after) {
            let slot = self.free.pop_first().unwrap_or_else(|| {
                self.end += 1;
                self.end - 1
            });
            self.of.insert(order, slot);
            moves.push(Move { order, slot, opened: true });
        }
        SlotMoves { moves, end_before, end: self.end }
    }

    /// Takes back what the last block did.
    pub fn undo(&mut self, moves: &SlotMoves) {
        for step in moves.moves.iter().rev() {
            self.set(*step, !step.opened);
        }
        self.free.retain(|slot| *slot < moves.end_before);
        self.end = moves.end_before;
    }

    /// Does again what was taken back.
    pub fn redo(&mut self, moves: &SlotMoves) {
        self.end = moves.end;
        for step in &moves.moves {
            self.set(*step, step.opened);
        }
    }

    fn set(&mut self, step: Move, opened: bool) {
        if opened {
            self.free.remove(&step.slot);
            self.of.insert(step.order, step.slot);
        } else {
            self.of.remove(&step.order);
            self.free.insert(step.slot);
        }
    }
}

/// The orders among the changes of a block that are open after it.
pub fn open_orders(changes: &[Change]) -> impl Iterator<Item = (OrderId, &Record)> {
    changes.iter().filter_map(|(key, _, after)| match (key, after) {
        (RecordKey::Order(id), Some(record)) => Some((*id, record)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seawall_ledger::OpenOrder;
    use seawall_types::{AccountId, Height, Kind, Lots, MarketId, PriceTicks, Side, Terms};

    fn order() -> Record {
        let terms = Terms {
            market: MarketId(0),
            side: Side::Buy,
            limit: PriceTicks(1),
            lots: Lots(1),
            kind: Kind::Limit,
            reduce_only: false,
            good_til: None,
            cloid: None,
        };
        let account = AccountId(1);
        Record::Order(OpenOrder {
            account,
            terms,
            spent: Lots(0),
            slid: None,
            ended: false,
            leaving: None,
            waiting: None,
        })
    }

    proptest! {
        #[test]
        fn slots_are_undone_redone_and_restored_and_never_shared(
            blocks in proptest::collection::vec(proptest::collection::btree_map(0u32..24, any::<bool>(), 0..12), 1..12),
        ) {
            let mut slots = Slots::default();
            let mut history = Vec::new();
            for block in &blocks {
                let before = slots.clone();
                let changes: Vec<Change> = block
                    .iter()
                    .map(|(index, open)| (OrderId { height: Height(1), index: *index }, *open))
                    .filter(|(id, open)| slots.of(*id).is_some() != *open)
                    .map(|(id, open)| {
                        let records = if open { (None, Some(order())) } else { (Some(order()), None) };
                        (RecordKey::Order(id), records.0, records.1)
                    })
                    .collect();
                let moves = slots.apply(&changes);
                let kept = slots.of.iter().map(|(id, slot)| (*slot, *id));
                prop_assert_eq!(Slots::restore(moves.end(), kept), Some(slots.clone()));
                for slot in moves.emptied() {
                    prop_assert!(slots.free.contains(&slot) || slot >= slots.end);
                }
                history.push((before, moves, slots.clone()));
            }
            for (before, moves, after) in history.iter().rev() {
                prop_assert_eq!(&slots, after);
                slots.undo(moves);
                prop_assert_eq!(&slots, before);
            }
            for (_, moves, after) in &history {
                slots.redo(moves);
                prop_assert_eq!(&slots, after);
            }
        }
    }

    #[test]
    fn slots_that_contradict_each_other_are_refused() {
        let id = |index| OrderId { height: Height(1), index };
        assert!(Slots::restore(2, [(0, id(0)), (1, id(1))].into_iter()).is_some());
        assert!(Slots::restore(2, [(0, id(0)), (0, id(1))].into_iter()).is_none(), "two in one");
        assert!(Slots::restore(2, [(0, id(0)), (1, id(0))].into_iter()).is_none(), "one in two");
        assert!(Slots::restore(2, [(2, id(0))].into_iter()).is_none(), "beyond the last");
    }
}
