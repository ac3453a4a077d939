//! The open orders of one market: by owner, by price level, by client id and by expiry.
//!
//! An order *waits* from when its entry is processed, found by its owner and its names but in no level, until it takes
//! part and is *listed*. In between, the levels are the carried-over book.
//!
//! # How it lies in memory
//!
//! An order keeps its slot until it ends. A list of slots, such as a level, grows at its end and so is in the order of
//! ids, which is the order in which orders arrive. Each slot knows its place in its list: an order that ends leaves a
//! gap there, which costs one write, searches nothing and touches no neighbour. A list is closed up when more than half
//! of it is gaps, which looks at the list alone and costs each order that ends one more write.
//!
//! What an owner has lies together, sorted by id, with what is asked of all of it at once: its limits and sides. So to
//! find an order by its name and to see that an account does not cross itself, no slot of another order is looked at.
//! There is no index of all ids. Whoever names an order names its owner, too.

use crate::{Band, Cloid, Kind, Name, Order, OrderId, Terms, index::Index};
use hashbrown::HashTable;
use seawall_types::{AccountId, Height, Lots, PriceTicks, Side};

/// Gaps that a list may have beside as many as it has open orders, so that short lists are not closed up all the
/// time.
const SLACK: usize = 8;

/// What an owner without orders keeps to write its next ones to.
const KEPT: usize = 16;

/// Where an order lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At(u32);

impl At {
    /// Left in a list by an order that has ended.
    const GAP: Self = Self(u32::MAX);

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The place of an order in a list.
#[derive(Clone, Copy, Debug)]
struct Place(u32);

/// Orders that have something in common, in the order in which they were added.
#[derive(Clone, Debug, Default)]
struct List {
    /// How many of the places are no gaps.
    open: usize,
    places: Vec<At>,
}

impl List {
    fn add(&mut self, at: At) -> Place {
        self.open += 1;
        self.places.push(at);
        Place(self.places.len() as u32 - 1)
    }

    /// The order at this place has ended. `moved` is told of orders that have other places now.
    fn take_off(&mut self, place: Place, mut moved: impl FnMut(At, Place)) {
        self.open -= 1;
        self.places[place.0 as usize] = At::GAP;
        while self.places.last() == Some(&At::GAP) {
            self.places.pop();
        }
        if self.places.len() > 2 * self.open + SLACK {
            let mut next = Place(0);
            self.places.retain(|at| {
                let open = *at != At::GAP;
                if open {
                    moved(*at, next);
                    next.0 += 1;
                }
                open
            });
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = At> {
        self.places.iter().copied().filter(|at| *at != At::GAP)
    }
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

/// The side of an order and its limit, which is never zero: positive buys, negative sells. The better of one side is the
/// greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reach(i64);

impl Reach {
    /// Below every bid.
    pub const NO_BID: Self = Self(0);
    /// Above every ask.
    pub const NO_ASK: Self = Self(i64::MIN);

    pub const fn new(side: Side, limit: PriceTicks) -> Self {
        match side {
            Side::Buy => Self(limit.0 as i64),
            Side::Sell => Self(-(limit.0 as i64)),
        }
    }

    pub const fn side(self) -> Side {
        if self.0 > 0 { Side::Buy } else { Side::Sell }
    }

    pub const fn limit(self) -> PriceTicks {
        PriceTicks(self.0.unsigned_abs())
    }
}

/// What an owner's own list says of an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned {
    // The two parts of the id, which beside each other and the slot fill sixteen bytes.
    height: Height,
    index: u32,
    at: At,
    reach: Reach,
}

impl Owned {
    pub const fn id(&self) -> OrderId {
        OrderId { height: self.height, index: self.index }
    }

    pub const fn at(&self) -> At {
        self.at
    }

    pub const fn reach(&self) -> Reach {
        self.reach
    }
}

/// The number of an account that has orders, until its last one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerNumber(u32);

/// An open order that was found, and its place among its owner's orders: until the next change of the book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    at: At,
    place: usize,
}

impl Found {
    pub const fn at(self) -> At {
        self.at
    }
}

/// An account that has orders. One line of memory.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Owner {
    account: AccountId,
    /// By ascending id.
    orders: Vec<Owned>,
    /// Those of them that have a client id, by that.
    cloids: Vec<(Cloid, At)>,
    /// How many of them are of these kinds.
    iocs: u32,
    closes: u32,
}

impl Owner {
    const fn new(account: AccountId) -> Self {
        Self { account, orders: Vec::new(), cloids: Vec::new(), iocs: 0, closes: 0 }
    }

    /// Where an id is among its orders, or would be.
    fn place(&self, id: OrderId) -> usize {
        // One comparison of wide integers is less than two of their parts.
        let key = |height: Height, index: u32| u128::from(height.0) << 64 | u128::from(index);
        let key_of_id = key(id.height, id.index);
        self.orders.partition_point(|own| key(own.height, own.index) < key_of_id)
    }

    fn get(&self, id: OrderId) -> Option<Found> {
        let place = self.place(id);
        let own = self.orders.get(place).filter(|own| own.id() == id)?;
        Some(Found { at: own.at, place })
    }

    fn named(&self, cloid: Cloid) -> Option<At> {
        let found = self.cloids.binary_search_by_key(&cloid, |(cloid, _)| *cloid);
        found.ok().map(|place| self.cloids[place].1)
    }
}

/// Accounts that have orders.
#[derive(Clone, Debug, Default)]
struct Owners {
    /// For searching only: nothing depends on how it lies. Accounts are numbered as they are opened, so to have some
    /// that collide, one would have to open as many times more as the table is long.
    numbers: HashTable<u32>,
    owners: Vec<Owner>,
    /// See [`Book::mark`].
    marks: Vec<Height>,
    free: Vec<u32>,
}

const fn hash(account: AccountId) -> u64 {
    let product = account.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

impl Owners {
    fn find(&self, account: AccountId) -> Option<OwnerNumber> {
        let is = |number: &u32| self.owners[*number as usize].account == account;
        self.numbers.find(hash(account), is).copied().map(OwnerNumber)
    }

    fn at(&self, number: OwnerNumber) -> &Owner {
        &self.owners[number.0 as usize]
    }

    fn at_mut(&mut self, number: OwnerNumber) -> &mut Owner {
        &mut self.owners[number.0 as usize]
    }

    /// The number of an account that has none.
    fn insert(&mut self, account: AccountId) -> OwnerNumber {
        let Self { numbers, owners, marks, free } = self;
        let number = free.pop().unwrap_or(owners.len() as u32);
        match owners.get_mut(number as usize) {
            Some(owner) => owner.account = account,
            None => {
                owners.push(Owner::new(account));
                marks.push(Height(0));
            }
        }
        numbers.insert_unique(hash(account), number, |number| hash(owners[*number as usize].account));
        OwnerNumber(number)
    }

    /// An account has no orders any more.
    fn remove(&mut self, number: OwnerNumber) {
        let owner = &mut self.owners[number.0 as usize];
        if owner.orders.capacity() > KEPT || owner.cloids.capacity() > KEPT {
            *owner = Owner::new(owner.account);
        }
        let hash = hash(owner.account);
        if let Ok(found) = self.numbers.find_entry(hash, |other| *other == number.0) {
            found.remove();
        }
        self.free.push(number.0);
    }
}

/// An order and where it is listed. Two lines of memory, never three.
#[derive(Clone, Debug)]
#[repr(align(32))]
struct Slot {
    order: Order,
    /// That of its account; [`FREE`] if the order has ended.
    owner: u32,
    /// The number of its level; [`WAITING`] before it is listed.
    level: u32,
    /// Its place in its level, or among those that wait.
    place: Place,
    /// Its place among those that expire with it.
    due: Place,
}

const _: () = assert!(size_of::<Owner>() <= 64 && size_of::<Slot>() <= 96);

const FREE: u32 = u32::MAX;
const WAITING: u32 = u32::MAX;

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

    const fn list(&mut self, kind: Kind) -> &mut List {
        match kind {
            Kind::Liquidation => &mut self.closes,
            _ => &mut self.others,
        }
    }

    /// By priority: liquidation closes, then by arrival.
    pub fn queue(&self) -> impl Iterator<Item = At> {
        self.closes.iter().chain(self.others.iter())
    }
}

/// The levels of a side.
#[derive(Clone, Debug, Default)]
struct Levels {
    shelf: Shelf<PriceTicks, PriceLevel>,
    /// Numbers of levels that were found, by the last digits of their prices: prices that are in use at a time are
    /// mostly close to each other, and then none of them is searched for twice.
    found: Vec<u32>,
}

impl Levels {
    /// How many numbers are remembered: a power of two, so that a price has as many last digits.
    const FOUND: usize = 512;

    fn number(&mut self, price: PriceTicks) -> u32 {
        let Self { shelf, found } = self;
        if found.is_empty() {
            found.resize(Self::FOUND, 0);
        }
        let found = &mut found[price.0 as usize % Self::FOUND];
        match shelf.values.get(*found as usize) {
            // A number that is free has a level without orders.
            Some((known, level)) if *known == price && level.len() > 0 => {}
            _ => *found = shelf.number(price),
        }
        *found
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    slots: Vec<Slot>,
    free: Vec<At>,
    owners: Owners,
    waiting: List,
    bids: Levels,
    asks: Levels,
    expiries: Shelf<Height, List>,
}

/// Equal in what every index says of the orders that are open. Where they lie does not matter.
impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        let owners = |book: &Self| {
            let own = |owner: &Owner| -> (Vec<_>, Vec<_>) {
                (
                    owner.orders.iter().map(|own| (own.id(), book.order(own.at).id, own.reach)).collect(),
                    owner.cloids.iter().map(|(cloid, at)| (*cloid, book.order(*at).id)).collect(),
                )
            };
            let open = book.owners.owners.iter().filter(|owner| !owner.orders.is_empty());
            let mut owners: Vec<_> =
                open.map(|owner| (owner.account, own(owner), owner.iocs, owner.closes)).collect();
            owners.sort_unstable_by_key(|(account, ..)| *account);
            owners
        };
        let levels = |book: &Self, side: Side| -> Vec<_> {
            let ids = |level: &PriceLevel| level.queue().map(|at| book.order(at).id).collect::<Vec<_>>();
            let levels = book.side(side).iter();
            levels.map(|(price, level)| (price, level.lots, level.len(), ids(level))).collect()
        };
        let expiries = |book: &Self| -> Vec<_> {
            let mut ids: Vec<_> = (book.expiries.iter())
                .flat_map(|(height, list)| list.iter().map(move |at| (height, at)))
                .map(|(height, at)| (height, book.order(at).id))
                .collect();
            ids.sort_unstable();
            ids
        };
        self.orders().eq(other.orders())
            && owners(self) == owners(other)
            && [Side::Buy, Side::Sell].iter().all(|side| levels(self, *side) == levels(other, *side))
            && expiries(self) == expiries(other)
    }
}

impl Eq for Book {}

impl Book {
    /// By ascending id, for which they are sorted.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        let open = self.slots.iter().filter(|slot| slot.owner != FREE).map(|slot| &slot.order);
        let mut orders: Vec<_> = open.map(|order| (order.id, order)).collect();
        orders.sort_unstable_by_key(|(id, _)| *id);
        orders.into_iter().map(|(_, order)| order)
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// An order that is open, or has just ended.
    pub fn order(&self, at: At) -> &Order {
        &self.slots[at.index()].order
    }

    /// An open order, for which all are looked through.
    pub fn get(&self, id: OrderId) -> Option<&Order> {
        let slot = self.slots.iter().find(|slot| slot.owner != FREE && slot.order.id == id);
        slot.map(|slot| &slot.order)
    }

    /// Whether an order is still open that was, and since when none came in.
    pub fn is_open(&self, at: At) -> bool {
        self.slots[at.index()].owner != FREE
    }

    const fn side(&self, side: Side) -> &Shelf<PriceTicks, PriceLevel> {
        match side {
            Side::Buy => &self.bids.shelf,
            Side::Sell => &self.asks.shelf,
        }
    }

    const fn side_mut(&mut self, side: Side) -> &mut Shelf<PriceTicks, PriceLevel> {
        match side {
            Side::Buy => &mut self.bids.shelf,
            Side::Sell => &mut self.asks.shelf,
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

    /// The number of an account that has orders.
    pub fn owner(&self, account: AccountId) -> Option<OwnerNumber> {
        self.owners.find(account)
    }

    /// The owner of an open order.
    pub fn owner_of(&self, at: At) -> OwnerNumber {
        OwnerNumber(self.slots[at.index()].owner)
    }

    /// Orders of an account, oldest first.
    pub fn of(&self, owner: OwnerNumber) -> &[Owned] {
        &self.owners.at(owner).orders
    }

    /// Marks an account at a height. Says whether it was not yet.
    pub fn mark(&mut self, owner: OwnerNumber, height: Height) -> bool {
        core::mem::replace(&mut self.owners.marks[owner.0 as usize], height) != height
    }

    /// How many orders of an account count for the same cap as one of this kind: those that rest, or the IOCs of
    /// this inbox. Liquidation closes have no cap.
    pub fn alike(&self, owner: OwnerNumber, kind: Kind) -> usize {
        let owner = self.owners.at(owner);
        match kind {
            Kind::Liquidation => 0,
            Kind::Ioc => owner.iocs as usize,
            Kind::Limit | Kind::PostOnly(_) => owner.orders.len() - (owner.iocs + owner.closes) as usize,
        }
    }

    /// An account's own order of this name.
    pub fn find(&self, owner: OwnerNumber, name: Name) -> Option<Found> {
        let owner = self.owners.at(owner);
        match name {
            Name::Id(id) => owner.get(id),
            Name::Cloid(cloid) => owner.get(self.order(owner.named(cloid)?).id),
        }
    }

    /// An order whose good-til height is below this one.
    pub fn expired(&self, height: Height) -> Option<At> {
        let (_, list) = self.expiries.iter().next().filter(|(good_til, _)| *good_til < height)?;
        list.iter().next_back()
    }

    /// Orders that wait, by ascending id.
    pub fn waiting(&self) -> impl Iterator<Item = At> {
        self.waiting.iter()
    }

    /// Takes in a new order, younger than all others, to wait. `owner` is the number of its account, if that has
    /// orders.
    pub fn hold(&mut self, id: OrderId, account: AccountId, terms: &Terms, owner: Option<OwnerNumber>) {
        let Terms { side, limit, kind, good_til, cloid, .. } = *terms;
        let at = self.free.pop().unwrap_or(At(self.slots.len() as u32));
        let number = owner.unwrap_or_else(|| self.owners.insert(account));
        let owner = self.owners.at_mut(number);
        let OrderId { height, index } = id;
        owner.orders.push(Owned { height, index, at, reach: Reach::new(side, limit) });
        match kind {
            Kind::Ioc => owner.iocs += 1,
            Kind::Liquidation => owner.closes += 1,
            Kind::Limit | Kind::PostOnly(_) => {}
        }
        if let Some(cloid) = cloid {
            let place = owner.cloids.partition_point(|(other, _)| *other < cloid);
            owner.cloids.insert(place, (cloid, at));
        }
        let due = match good_til {
            Some(good_til) => {
                let number = self.expiries.number(good_til);
                self.expiries.at_mut(number).add(at)
            }
            None => Place(0),
        };
        let place = self.waiting.add(at);
        let order = Order { id, account, terms: *terms };
        let slot = Slot { order, owner: number.0, level: WAITING, place, due };
        match self.slots.get_mut(at.index()) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
    }

    /// Lists the orders that wait, by ascending id, each at the limit that is said for it. Those for which there is none
    /// wait on.
    pub fn list(&mut self, mut limit: impl FnMut(At, OwnerNumber, &Order) -> Option<PriceTicks>) {
        let waiting = core::mem::take(&mut self.waiting);
        for at in waiting.iter() {
            let slot = &mut self.slots[at.index()];
            let Some(limit) = limit(at, OwnerNumber(slot.owner), &slot.order) else {
                slot.place = self.waiting.add(at);
                continue;
            };
            let terms = &mut slot.order.terms;
            if limit != terms.limit {
                terms.limit = limit;
                let owner = self.owners.at_mut(OwnerNumber(slot.owner));
                let own = owner.place(slot.order.id);
                owner.orders[own].reach = Reach::new(terms.side, limit);
            }
            let levels = match terms.side {
                Side::Buy => &mut self.bids,
                Side::Sell => &mut self.asks,
            };
            slot.level = levels.number(limit);
            let level = levels.shelf.at_mut(slot.level);
            level.lots += terms.lots;
            slot.place = level.list(terms.kind).add(at);
        }
    }

    /// Takes lots off an open order. It stays, even with none.
    pub fn take(&mut self, at: At, lots: Lots) {
        let slot = &mut self.slots[at.index()];
        slot.order.terms.lots -= lots;
        let (number, side) = (slot.level, slot.order.terms.side);
        if number != WAITING {
            self.side_mut(side).at_mut(number).lots -= lots;
        }
    }

    /// Takes an open order out. Returns its id, and the lots that it still has.
    pub fn remove(&mut self, at: At) -> (OrderId, Lots) {
        let slot = &self.slots[at.index()];
        let owner = self.owners.at(OwnerNumber(slot.owner));
        let place = match owner.orders.split_last() {
            // Immediate orders are the newest.
            Some((newest, others)) if newest.at == at => others.len(),
            _ => owner.place(slot.order.id),
        };
        self.remove_found(Found { at, place })
    }

    /// The same, without looking for its place.
    pub fn remove_found(&mut self, Found { at, place }: Found) -> (OrderId, Lots) {
        let Self { slots, free, owners, waiting, bids, asks, expiries } = self;
        let slot = &mut slots[at.index()];
        let number = OwnerNumber(core::mem::replace(&mut slot.owner, FREE));
        free.push(at);

        let owner = owners.at_mut(number);
        owner.orders.remove(place);
        match slot.order.terms.kind {
            Kind::Ioc => owner.iocs -= 1,
            Kind::Liquidation => owner.closes -= 1,
            Kind::Limit | Kind::PostOnly(_) => {}
        }
        if let Some(cloid) = slot.order.terms.cloid {
            let place = owner.cloids.partition_point(|(other, _)| *other < cloid);
            owner.cloids.remove(place);
        }
        if owner.orders.is_empty() {
            owners.remove(number);
        }

        let Order { id, terms: Terms { side, lots, kind, good_til, .. }, .. } = slot.order;
        let (level, place, due) = (slot.level, slot.place, slot.due);
        if let Some(number) = good_til.and_then(|good_til| expiries.numbers.get(good_til)) {
            let list = expiries.at_mut(number);
            list.take_off(due, |at, due| slots[at.index()].due = due);
            if list.open == 0 {
                expiries.remove(number);
            }
        }

        let moved = |at: At, place| slots[at.index()].place = place;
        if level == WAITING {
            waiting.take_off(place, moved);
        } else {
            let levels = match side {
                Side::Buy => bids,
                Side::Sell => asks,
            };
            let own = levels.shelf.at_mut(level);
            own.lots -= lots;
            own.list(kind).take_off(place, moved);
            if own.len() == 0 {
                levels.shelf.remove(level);
            }
        }
        (id, lots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seawall_types::MarketId;

    fn filled<'a>(orders: impl Iterator<Item = &'a Order>) -> Book {
        let mut book = Book::default();
        for Order { id, account, terms } in orders {
            let owner = book.owner(*account);
            book.hold(*id, *account, terms, owner);
        }
        book.list(|_, _, order| Some(order.terms.limit));
        book
    }

    proptest! {
        /// Long lists with many gaps, owners that come and go, and prices that share their last digits.
        #[test]
        fn a_book_is_that_of_its_open_orders(
            steps in proptest::collection::vec((0u64..30, 0u64..6, 0u8..4, any::<prop::sample::Index>()), 1..600),
        ) {
            let (mut book, mut open) = (Book::default(), Vec::new());
            for (height, (account, price, what, which)) in (1..).zip(steps) {
                if what == 0 && !open.is_empty() {
                    let Order { id, account, terms } = open.remove(which.index(open.len()));
                    let found = book.find(book.owner(account).unwrap(), Name::Id(id)).unwrap();
                    let (at, cloid) = (found.at(), terms.cloid.unwrap());
                    let named = book.find(book.owner(account).unwrap(), Name::Cloid(cloid)).unwrap();
                    prop_assert_eq!(named.at(), at);
                    prop_assert_eq!(book.remove(at), (id, terms.lots));
                    prop_assert_eq!(book.get(id), None);
                } else {
                    let terms = Terms {
                        market: MarketId(0),
                        side: if height % 2 == 0 { Side::Buy } else { Side::Sell },
                        limit: PriceTicks(1 + price % 3 * Levels::FOUND as u64 + price / 3),
                        lots: Lots(1 + price as i64),
                        kind: if what == 1 { Kind::Liquidation } else { Kind::Limit },
                        reduce_only: false,
                        good_til: Some(Height(1_000 + price)),
                        cloid: Some(Cloid(height)),
                    };
                    let id = OrderId { height: Height(height), index: price as u32 };
                    let order = Order { id, account: AccountId(account), terms };
                    let owner = book.owner(order.account);
                    book.hold(id, order.account, &terms, owner);
                    book.list(|_, _, order| Some(order.terms.limit));
                    open.push(order);
                }
                prop_assert_eq!(book.len(), open.len());
            }
            prop_assert!(book.orders().eq(&open));
            prop_assert!(book == filled(open.iter()));
        }
    }
}
