//! Open orders in memory. They lie with their accounts, because what is reserved looks at all orders of an account at
//! every change, and whoever knows whose an order is finds it without a search among all others.

use std::collections::BTreeMap;

use seawall_types::{AccountId, OrderId};

use crate::state::OpenOrder;

/// An open order in its account's list.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub id: OrderId,
    pub order: OpenOrder,
    /// Sequence number of the block that last changed it.
    pub stamp: u32,
}

/// Every open order.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenOrders {
    /// Whose each is.
    owners: BTreeMap<OrderId, u32>,
    /// By account, each by ascending id.
    accounts: Vec<Vec<Held>>,
}

impl OpenOrders {
    /// Orders of an account, oldest first.
    pub fn of(&self, account: u32) -> &[Held] {
        self.accounts.get(account as usize).map_or(&[], Vec::as_slice)
    }

    /// Whose an order is.
    pub fn owner(&self, id: OrderId) -> Option<u32> {
        self.owners.get(&id).copied()
    }

    pub fn get(&self, id: &OrderId) -> Option<&OpenOrder> {
        self.held(self.owner(*id)?, *id).map(|held| &held.order)
    }

    /// The order, most likely of this account.
    pub fn get_of(&self, account: AccountId, id: &OrderId) -> Option<&OpenOrder> {
        let own = u32::try_from(account.0).ok().and_then(|account| self.held(account, *id));
        own.map(|held| &held.order).or_else(|| self.get(id))
    }

    pub fn held(&self, account: u32, id: OrderId) -> Option<&Held> {
        let own = self.of(account);
        own.get(own.binary_search_by_key(&id, |held| held.id).ok()?)
    }

    pub fn held_mut(&mut self, account: u32, id: OrderId) -> Option<&mut Held> {
        let own = self.accounts.get_mut(account as usize)?;
        let at = own.binary_search_by_key(&id, |held| held.id).ok()?;
        own.get_mut(at)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&OrderId, &OpenOrder)> {
        self.owners.iter().filter_map(|(id, owner)| Some((id, &self.held(*owner, *id)?.order)))
    }

    /// Returns the order that had this id before.
    pub fn insert(&mut self, id: OrderId, order: OpenOrder, stamp: u32) -> Option<OpenOrder> {
        let account = order.account.0 as u32;
        let mut old = None;
        if let Some(before) = self.owners.insert(id, account) {
            old = self.take(before, id);
        }
        let at = account as usize;
        if self.accounts.len() <= at {
            self.accounts.resize_with(at + 1, Vec::new);
        }
        let own = &mut self.accounts[at];
        own.insert(own.partition_point(|held| held.id < id), Held { id, order, stamp });
        old
    }

    pub fn remove(&mut self, id: OrderId) -> Option<OpenOrder> {
        let account = self.owners.remove(&id)?;
        self.take(account, id)
    }

    fn take(&mut self, account: u32, id: OrderId) -> Option<OpenOrder> {
        let own = self.accounts.get_mut(account as usize)?;
        let at = own.binary_search_by_key(&id, |held| held.id).ok()?;
        let order = own.remove(at).order;
        // Most accounts have no orders most of the time.
        if own.is_empty() {
            *own = Vec::new();
        }
        Some(order)
    }
}
