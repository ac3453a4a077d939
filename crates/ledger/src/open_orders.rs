//! Open orders in memory. They lie with their accounts, because what is reserved looks at all orders of an account at
//! every change, and whoever knows whose an order is finds it without a search among all others.

use std::collections::{BTreeMap, BTreeSet};

use seawall_types::{AccountId, MarketId, OrderId};

use crate::{orders::Calm, state::OpenOrder};

/// An open order.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub order: OpenOrder,
    /// Sequence number of the block that last changed it.
    pub stamp: u32,
}

/// Those of an account.
#[derive(Clone, Debug, Default)]
struct Own {
    orders: BTreeMap<OrderId, Held>,
    /// Markets of these orders, ascending. An account is in few at a time.
    markets: Vec<OwnMarket>,
    /// How many add risk and are not leaving.
    adding: u32,
}

/// Orders of an account in a market.
#[derive(Clone, Debug)]
pub(crate) struct OwnMarket {
    pub market: MarketId,
    /// How many.
    orders: u32,
    /// What they come to, if it was summed since one of them changed.
    pub calm: Option<Calm>,
}

/// Every open order.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenOrders {
    /// Whose each is.
    owners: BTreeMap<OrderId, u32>,
    accounts: Vec<Own>,
    /// By market: who has orders there.
    traders: BTreeMap<MarketId, BTreeSet<u32>>,
    /// Who has orders that add risk and are not leaving.
    adding: BTreeSet<u32>,
}

/// Whether an order adds risk and is not leaving.
fn is_adding(order: &OpenOrder) -> bool {
    !order.terms.closes() && order.stays()
}

impl OpenOrders {
    /// Orders of an account, oldest first.
    pub fn of(&self, account: u32) -> impl Iterator<Item = (OrderId, &OpenOrder)> {
        let own = self.accounts.get(account as usize).into_iter().flat_map(|own| &own.orders);
        own.map(|(id, held)| (*id, &held.order))
    }

    /// Markets in which an account has orders, ascending.
    pub fn markets(&self, account: u32) -> &[OwnMarket] {
        self.accounts.get(account as usize).map_or(&[], |own| &own.markets)
    }

    /// Keeps what the orders of an account in a market come to, until one of them changes.
    pub fn keep(&mut self, account: u32, market: MarketId, calm: Calm) {
        let own = self.accounts.get_mut(account as usize);
        if let Some(own) = own.and_then(|own| own.markets.iter_mut().find(|own| own.market == market)) {
            own.calm = Some(calm);
        }
    }

    pub fn has_any(&self, account: u32) -> bool {
        self.accounts.get(account as usize).is_some_and(|own| !own.orders.is_empty())
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
        self.accounts.get(account as usize)?.orders.get(&id)
    }

    /// The order, to be changed in place but for its market.
    pub fn held_mut(&mut self, account: u32, id: OrderId) -> Option<&mut Held> {
        let own = self.accounts.get_mut(account as usize)?;
        let held = own.orders.get_mut(&id)?;
        let market = held.order.terms.market;
        if let Some(own) = own.markets.iter_mut().find(|own| own.market == market) {
            own.calm = None;
        }
        Some(held)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&OrderId, &OpenOrder)> {
        self.owners.iter().filter_map(|(id, owner)| Some((id, &self.held(*owner, *id)?.order)))
    }

    /// Who has orders in a market, ascending.
    pub fn traders(&self, market: MarketId) -> impl Iterator<Item = u32> {
        self.traders.get(&market).into_iter().flatten().copied()
    }

    /// Who has orders that add risk and are not leaving, ascending.
    pub fn adding(&self) -> impl Iterator<Item = u32> {
        self.adding.iter().copied()
    }

    /// Puts an order. Returns the one that had this id before, which was of the same account.
    pub fn insert(&mut self, id: OrderId, order: OpenOrder, stamp: u32) -> Option<OpenOrder> {
        let account = order.account.0 as u32;
        let owner = self.owners.insert(id, account);
        debug_assert!(owner.is_none_or(|owner| owner == account), "{id} changes hands");
        let at = account as usize;
        if self.accounts.len() <= at {
            self.accounts.resize_with(at + 1, Own::default);
        }
        let old = self.accounts[at].orders.insert(id, Held { order, stamp }).map(|held| held.order);
        self.count(account, &order, true);
        if let Some(old) = &old {
            self.count(account, old, false);
        }
        old
    }

    pub fn remove(&mut self, id: OrderId) -> Option<OpenOrder> {
        let account = self.owners.remove(&id)?;
        let order = self.accounts.get_mut(account as usize)?.orders.remove(&id)?.order;
        self.count(account, &order, false);
        Some(order)
    }

    /// Follows an order that was changed in place, in the same market.
    pub fn changed(&mut self, account: u32, old: &OpenOrder, new: &OpenOrder) {
        if is_adding(old) != is_adding(new) {
            self.count_adding(account, is_adding(new));
        }
    }

    fn count(&mut self, account: u32, order: &OpenOrder, more: bool) {
        let market = order.terms.market;
        let Some(own) = self.accounts.get_mut(account as usize) else { return };
        let place = own.markets.iter().position(|own| own.market == market);
        if let Some(at) = place {
            own.markets[at].calm = None;
        }
        match (place, more) {
            (Some(at), true) => own.markets[at].orders += 1,
            (Some(at), false) if own.markets[at].orders > 1 => own.markets[at].orders -= 1,
            (Some(at), false) => {
                own.markets.remove(at);
                if let Some(traders) = self.traders.get_mut(&market) {
                    traders.remove(&account);
                }
            }
            (None, true) => {
                let at = own.markets.partition_point(|own| own.market < market);
                own.markets.insert(at, OwnMarket { market, orders: 1, calm: None });
                self.traders.entry(market).or_default().insert(account);
            }
            (None, false) => {}
        }
        if is_adding(order) {
            self.count_adding(account, more);
        }
    }

    fn count_adding(&mut self, account: u32, more: bool) {
        let Some(own) = self.accounts.get_mut(account as usize) else { return };
        if more {
            own.adding += 1;
            if own.adding == 1 {
                self.adding.insert(account);
            }
        } else {
            own.adding -= 1;
            if own.adding == 0 {
                self.adding.remove(&account);
            }
        }
    }
}
