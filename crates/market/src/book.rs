//! The open orders of one market: by id, by price level, by owner, by client id and by expiry.
//!
//! An order is *held* (found by every index but its level) from when its entry is processed, and *listed* (in
//! its level too) once it takes part. In between, the levels are the carried-over book.
//!
//! # How it lies in memory
//!
//! An order keeps its slot until it ends. The orders of a height, of an owner and of a level are lists of handles in
//! ascending order of ids, which is the order in which orders arrive, so a list grows at its end. An order that
//! ends is counted off its lists and its slot is free; the handles that are left of it name an id that the slot
//! does not have any more. A list is swept when more than half of it is such handles. So ending an order
//! searches no list and touches no neighbour, and sweeping costs each order that ends two looks at a slot, whatever the
//! length of the list.

use crate::{Band, Cloid, Kind, Name, Order, OrderId, index::Index};
use seawall_types::{AccountId, Height, Lots, PriceTicks, Side};
use std::collections::BTreeMap;

/// Handles of ended orders that a list may hold beside as many as it has open ones, so that short lists are not
/// swept all the time.
const SLACK: usize = 8;

/// Where an order lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At(u32);

impl At {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An order's id, and where it lies while it is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handle {
    // The two parts of the id, which beside each other and the slot fill sixteen bytes.
    height: Height,
    index: u32,
    at: At,
}

impl Handle {
    const fn id(&self) -> OrderId {
        OrderId { height: self.height, index: self.index }
    }
}

#[derive(Clone, Debug)]
struct Slot {
    order: Order,
    open: bool,
    listed: bool,
    /// Numbers of its lists: of its height, its owner, and its level once it is listed.
    height: u32,
    owner: u32,
    level: u32,
}

/// Orders that have something in common, by ascending id.
#[derive(Clone, Debug, Default)]
struct List {
    /// How many of the handles are of open orders.
    open: usize,
    handles: Vec<Handle>,
}

impl List {
    fn add(&mut self, handle: Handle) {
        self.open += 1;
        if self.handles.last().is_none_or(|last| last.id() < handle.id()) {
            self.handles.push(handle);
        } else {
            let at = self.handles.partition_point(|other| other.id() < handle.id());
            self.handles.insert(at, handle);
        }
    }

    /// An order of it has ended.
    fn count_off(&mut self, slots: &[Slot]) {
        self.open -= 1;
        if self.handles.len() > 2 * self.open + SLACK {
            self.handles.retain(|handle| is_open(slots, handle));
        }
    }

    fn open<'a>(&'a self, slots: &'a [Slot]) -> impl DoubleEndedIterator<Item = At> {
        self.handles.iter().filter(|handle| is_open(slots, handle)).map(|handle| handle.at)
    }
}

fn is_open(slots: &[Slot], handle: &Handle) -> bool {
    let slot = &slots[handle.at.index()];
    slot.open && slot.order.id == handle.id()
}

/// What there is for each of some keys. Each has a number, under which it is found without a search.
#[derive(Clone, Debug)]
struct Shelf<K, V> {
    numbers: Index<K>,
    values: Vec<(K, V)>,
    free: Vec<u32>,
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self { numbers: Index::default(), values: Vec::new(), free: Vec::new() }
    }
}

impl<K: Ord + Copy, V: Default> Shelf<K, V> {
    fn get(&self, key: K) -> Option<&V> {
        self.numbers.get(key).map(|number| self.at(number))
    }

    fn at(&self, number: u32) -> &V {
        &self.values[number as usize].1
    }

    fn at_mut(&mut self, number: u32) -> &mut V {
        &mut self.values[number as usize].1
    }

    /// The number of a key, which is there from now on.
    fn number(&mut self, key: K) -> u32 {
        let Self { numbers, values, free } = self;
        numbers.get_or_insert_with(key, || match free.pop() {
            Some(number) => {
                values[number as usize].0 = key;
                number
            }
            None => {
                values.push((key, V::default()));
                values.len() as u32 - 1
            }
        })
    }

    fn remove(&mut self, number: u32) {
        let (key, value) = &mut self.values[number as usize];
        self.numbers.remove(*key);
        *value = V::default();
        self.free.push(number);
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> {
        self.numbers.iter().map(|(key, number)| (key, self.at(number)))
    }
}

/// The number of an account that has orders, until the next one ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerNumber(u32);

/// What an account has.
#[derive(Clone, Debug, Default)]
struct Owner {
    orders: List,
    /// How many of them are of these kinds.
    iocs: usize,
    closes: usize,
}

/// The orders of one side at one price: liquidation closes before the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct PriceLevel {
    /// Sum of their open lots.
    pub lots: Lots,
    closes: List,
    others: List,
}

impl PriceLevel {
    /// How many orders.
    pub const fn len(&self) -> usize {
        self.closes.open + self.others.open
    }

    fn queue(&mut self, kind: Kind) -> &mut List {
        if kind == Kind::Liquidation { &mut self.closes } else { &mut self.others }
    }
}

type Levels = Shelf<PriceTicks, PriceLevel>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    slots: Vec<Slot>,
    free: Vec<At>,
    heights: Shelf<Height, List>,
    /// The height of the last order that came in, and its number.
    newest: Option<(Height, u32)>,
    owners: Shelf<AccountId, Owner>,
    bids: Levels,
    asks: Levels,
    cloids: BTreeMap<(AccountId, Cloid), At>,
    expiries: BTreeMap<(Height, OrderId), At>,
}

/// Equal in what every index says of the orders that are open. Where they lie does not matter.
impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        let owners = |book: &Self| -> Vec<_> {
            let own =
                |owner: &Owner| -> Vec<_> { owner.orders.open(&book.slots).map(|at| book.id(at)).collect() };
            book.owners.iter().map(|(id, owner)| (id, own(owner), owner.iocs, owner.closes)).collect()
        };
        let levels = |book: &Self, side: Side| -> Vec<_> {
            let ids = |level| book.queue(level).map(|at| book.id(at)).collect::<Vec<_>>();
            book.side(side)
                .iter()
                .map(|(price, level)| (price, level.lots, level.len(), ids(level)))
                .collect()
        };
        let cloids =
            |book: &Self| -> Vec<_> { book.cloids.iter().map(|(name, at)| (*name, book.id(*at))).collect() };
        self.orders().eq(other.orders())
            && owners(self) == owners(other)
            && [Side::Buy, Side::Sell].iter().all(|side| levels(self, *side) == levels(other, *side))
            && cloids(self) == cloids(other)
            && self.expiries.keys().eq(other.expiries.keys())
    }
}

impl Eq for Book {}

impl Book {
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.heights.iter().flat_map(|(_, list)| list.open(&self.slots)).map(|at| self.order(at))
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// An open order.
    pub fn order(&self, at: At) -> &Order {
        &self.slots[at.index()].order
    }

    fn id(&self, at: At) -> OrderId {
        self.order(at).id
    }

    /// Where an open order lies.
    pub fn at(&self, id: OrderId) -> Option<At> {
        let handles = &self.heights.get(id.height)?.handles;
        let place = handles.partition_point(|handle| handle.index < id.index);
        let handle = handles.get(place).filter(|handle| handle.index == id.index)?;
        is_open(&self.slots, handle).then_some(handle.at)
    }

    /// Where the order of a handle lies, if it is still open.
    pub fn open(&self, handle: &Handle) -> Option<At> {
        is_open(&self.slots, handle).then_some(handle.at)
    }

    const fn side(&self, side: Side) -> &Levels {
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

    /// Price levels by ascending price, inside a band if one is given.
    pub fn levels(
        &self,
        side: Side,
        band: Option<Band>,
    ) -> impl DoubleEndedIterator<Item = (PriceTicks, &PriceLevel)> {
        let levels = self.side(side);
        let Band { low, high } = band.unwrap_or(Band { low: PriceTicks(0), high: PriceTicks(u64::MAX) });
        levels.numbers.range(low..=high).map(|(price, number)| (price, levels.at(number)))
    }

    /// The orders of a level, by priority: liquidation closes, then by arrival.
    pub fn queue<'a>(&'a self, level: &'a PriceLevel) -> impl Iterator<Item = At> {
        level.closes.open(&self.slots).chain(level.others.open(&self.slots))
    }

    /// Orders of an account, oldest first.
    pub fn of(&self, account: AccountId) -> impl DoubleEndedIterator<Item = At> {
        self.owners.get(account).into_iter().flat_map(|owner| owner.orders.open(&self.slots))
    }

    /// The number of an account that has orders.
    pub fn owner(&self, account: AccountId) -> Option<OwnerNumber> {
        self.owners.numbers.get(account).map(OwnerNumber)
    }

    /// How many orders of an account count for the same cap as one of this kind: those that rest, or the IOCs of
    /// this inbox. Liquidation closes have no cap.
    pub fn alike(&self, owner: Option<OwnerNumber>, kind: Kind) -> usize {
        owner.map(|number| self.owners.at(number.0)).map_or(0, |owner| match kind {
            Kind::Liquidation => 0,
            Kind::Ioc => owner.iocs,
            Kind::Limit | Kind::PostOnly(_) => owner.orders.open - owner.iocs - owner.closes,
        })
    }

    /// An account's own order of this name.
    pub fn find(&self, account: AccountId, name: Name) -> Option<At> {
        match name {
            Name::Id(id) => self.at(id).filter(|at| self.order(*at).account == account),
            Name::Cloid(cloid) => self.cloids.get(&(account, cloid)).copied(),
        }
    }

    /// The first order whose good-til height is below this one.
    pub fn expired(&self, height: Height) -> Option<At> {
        self.expiries.first_key_value().filter(|((good_til, _), _)| *good_til < height).map(|(_, at)| *at)
    }

    /// Takes a new order in, without listing it. `owner` is the number of its account, if that has orders.
    pub fn hold(&mut self, order: Order, owner: Option<OwnerNumber>) -> Handle {
        let Order { id, account, terms } = order;
        let at = self.free.pop().unwrap_or(At(self.slots.len() as u32));
        let handle = Handle { height: id.height, index: id.index, at };
        let height = match self.newest {
            Some((newest, number)) if newest == id.height => number,
            _ => self.heights.number(id.height),
        };
        self.newest = Some((id.height, height));
        self.heights.at_mut(height).add(handle);
        let number = owner.map_or_else(|| self.owners.number(account), |owner| owner.0);
        let owner = self.owners.at_mut(number);
        owner.orders.add(handle);
        match terms.kind {
            Kind::Ioc => owner.iocs += 1,
            Kind::Liquidation => owner.closes += 1,
            Kind::Limit | Kind::PostOnly(_) => {}
        }
        if let Some(cloid) = terms.cloid {
            self.cloids.insert((account, cloid), at);
        }
        if let Some(good_til) = terms.good_til {
            self.expiries.insert((good_til, id), at);
        }
        let slot = Slot { order, open: true, listed: false, height, owner: number, level: 0 };
        match self.slots.get_mut(at.index()) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        handle
    }

    /// Lists an order that is held, at this limit.
    pub fn list(&mut self, at: At, limit: PriceTicks) {
        let slot = &mut self.slots[at.index()];
        if slot.listed {
            return;
        }
        slot.order.terms.limit = limit;
        let Order { id, terms, .. } = slot.order;
        let levels = self.side_mut(terms.side);
        let number = levels.number(limit);
        let level = levels.at_mut(number);
        level.lots += terms.lots;
        level.queue(terms.kind).add(Handle { height: id.height, index: id.index, at });
        let slot = &mut self.slots[at.index()];
        (slot.listed, slot.level) = (true, number);
    }

    /// Takes lots off an open order. It stays, even with none.
    pub fn take(&mut self, at: At, lots: Lots) {
        let slot = &mut self.slots[at.index()];
        slot.order.terms.lots -= lots;
        let (listed, number, side) = (slot.listed, slot.level, slot.order.terms.side);
        if listed {
            self.side_mut(side).at_mut(number).lots -= lots;
        }
    }

    /// Takes an open order out, with the lots it still has.
    pub fn remove(&mut self, at: At) -> Order {
        let slot = &mut self.slots[at.index()];
        slot.open = false;
        let Slot { order, listed, height, owner: number, level, .. } = *slot;
        let Order { id, account, terms } = order;
        self.free.push(at);
        let list = self.heights.at_mut(height);
        list.count_off(&self.slots);
        if list.open == 0 {
            self.heights.remove(height);
            self.newest = None;
        }
        let owner = self.owners.at_mut(number);
        owner.orders.count_off(&self.slots);
        match terms.kind {
            Kind::Ioc => owner.iocs -= 1,
            Kind::Liquidation => owner.closes -= 1,
            Kind::Limit | Kind::PostOnly(_) => {}
        }
        if owner.orders.open == 0 {
            self.owners.remove(number);
        }
        if let Some(cloid) = terms.cloid {
            self.cloids.remove(&(account, cloid));
        }
        if let Some(good_til) = terms.good_til {
            self.expiries.remove(&(good_til, id));
        }
        if listed {
            let Self { slots, bids, asks, .. } = self;
            let levels = match terms.side {
                Side::Buy => bids,
                Side::Sell => asks,
            };
            let own = levels.at_mut(level);
            own.lots -= terms.lots;
            own.queue(terms.kind).count_off(slots);
            if own.len() == 0 {
                levels.remove(level);
            }
        }
        order
    }
}
