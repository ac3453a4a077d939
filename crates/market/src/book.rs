//! The open orders of one market: by id, by price level, by owner, by client id and by expiry.
//!
//! An order is *held* (found by every index but its level) from when its entry is processed, and *listed* (in
//! its level too) once it takes part. In between, the levels are the carried-over book.

use crate::{Cloid, Kind, Name, Order, OrderId};
use seawall_types::{AccountId, Height, Lots, PriceTicks, Side};
use std::collections::{BTreeMap, BTreeSet};

/// Priority inside a level: liquidation closes, then by arrival.
pub(crate) type Rank = (bool, OrderId);

/// The orders of one side at one price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriceLevel {
    /// Sum of their open lots.
    pub lots: Lots,
    /// By priority.
    pub queue: BTreeSet<Rank>,
}

pub(crate) type Levels = BTreeMap<PriceTicks, PriceLevel>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    orders: BTreeMap<OrderId, Order>,
    bids: Levels,
    asks: Levels,
    owners: BTreeMap<AccountId, BTreeSet<OrderId>>,
    cloids: BTreeMap<(AccountId, Cloid), OrderId>,
    expiries: BTreeSet<(Height, OrderId)>,
}

fn rank(order: &Order) -> Rank {
    (order.terms.kind != Kind::Liquidation, order.id)
}

impl Book {
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.orders.values()
    }

    pub fn len(&self) -> usize {
        self.orders.len()
    }

    pub fn get(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(&id)
    }

    pub const fn side(&self, side: Side) -> &Levels {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    const fn side_mut(&mut self, side: Side) -> &mut Levels {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// Orders of an account, oldest first.
    pub fn of(&self, account: AccountId) -> impl DoubleEndedIterator<Item = &Order> {
        self.owners.get(&account).into_iter().flatten().filter_map(|id| self.orders.get(id))
    }

    /// How many orders an account has.
    pub fn count(&self, account: AccountId) -> usize {
        self.owners.get(&account).map_or(0, BTreeSet::len)
    }

    /// An account's own order of this name.
    pub fn find(&self, account: AccountId, name: Name) -> Option<&Order> {
        let id = match name {
            Name::Id(id) => id,
            Name::Cloid(cloid) => *self.cloids.get(&(account, cloid))?,
        };
        self.orders.get(&id).filter(|order| order.account == account)
    }

    /// The first order whose good-til height is below this one.
    pub fn expired(&self, height: Height) -> Option<OrderId> {
        self.expiries.first().filter(|(good_til, _)| *good_til < height).map(|(_, id)| *id)
    }

    /// Takes a new order in, without listing it.
    pub fn hold(&mut self, order: Order) {
        self.owners.entry(order.account).or_default().insert(order.id);
        if let Some(cloid) = order.terms.cloid {
            self.cloids.insert((order.account, cloid), order.id);
        }
        if let Some(good_til) = order.terms.good_til {
            self.expiries.insert((good_til, order.id));
        }
        self.orders.insert(order.id, order);
    }

    /// Lists an order that is held, at this limit.
    pub fn list(&mut self, id: OrderId, limit: PriceTicks) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        order.terms.limit = limit;
        let order = *order;
        let level = self.side_mut(order.terms.side).entry(limit).or_default();
        if level.queue.insert(rank(&order)) {
            level.lots += order.terms.lots;
        }
    }

    /// Takes lots off an order. It stays, even with none.
    pub fn take(&mut self, id: OrderId, lots: Lots) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        order.terms.lots -= lots;
        let order = *order;
        if let Some(level) = self.side_mut(order.terms.side).get_mut(&order.terms.limit)
            && level.queue.contains(&rank(&order))
        {
            level.lots -= lots;
        }
    }

    /// Takes an order out, with the lots it still has.
    pub fn remove(&mut self, id: OrderId) -> Option<Order> {
        let order = self.orders.remove(&id)?;
        if let Some(own) = self.owners.get_mut(&order.account) {
            own.remove(&id);
            if own.is_empty() {
                self.owners.remove(&order.account);
            }
        }
        if let Some(cloid) = order.terms.cloid {
            self.cloids.remove(&(order.account, cloid));
        }
        if let Some(good_til) = order.terms.good_til {
            self.expiries.remove(&(good_til, id));
        }
        let levels = self.side_mut(order.terms.side);
        if let Some(level) = levels.get_mut(&order.terms.limit)
            && level.queue.remove(&rank(&order))
        {
            level.lots -= order.terms.lots;
            if level.queue.is_empty() {
                levels.remove(&order.terms.limit);
            }
        }
        Some(order)
    }
}
