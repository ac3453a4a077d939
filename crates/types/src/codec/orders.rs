//! The canonical encoding of orders, inboxes and outcomes.
//!
//! It follows [`codec`](super), whose tables define the scalars: one value has one encoding, a
//! decoder checks each bound before it allocates, and whatever decodes is in its one form
//! ([`Terms::is_valid`], [`Inbox::check`], [`Outcome::form`]). Besides, `bool` is one byte, 0 or 1, and
//! `option` is a bool and then, if it is 1, the value.
//!
//! | type | fields in order |
//! | --- | --- |
//! | [`OrderId`] | height, index: varint (u32) |
//! | [`Cloid`] | varint (u64) |
//! | [`Kind`] | tag: 1 limit, 2 post-only or cancelled, 3 post-only or slid, 4 IOC, 5 liquidation close |
//! | [`Terms`] | market, side, limit (not 0), lots (positive), kind, reduce-only: bool, good-til: option, cloid: option |
//! | [`Crossing`] | tag: 1 above, 2 below |
//! | [`Trigger`] | price (not 0), crossing |
//! | [`Order`] | id, account, terms |
//! | [`Reference`] | mark, low, high (none 0, high >= low) |
//! | [`Name`] | tag: 1 order id, 2 cloid |
//! | [`Request`] | tag, then the fields of its kind |
//! | 1 place | terms |
//! | 2 cancel | market, name |
//! | 3 cancel all | market: option, keep reduce-only: bool |
//! | 4 modify | market, name, limit (not 0), lots (positive) |
//! | 5 reduce | market, order id, lots (positive) |
//! | [`Entry`] | account, request |
//! | [`Inbox`] | height, salt: bytes(32), references, entries |
//! | references | list(`MAX_MARKETS`) of (market, reference), markets strictly ascending |
//! | entries | list(`MAX_ENTRIES_PER_INBOX`) of (index: varint (u32), entry), indices strictly ascending |
//! | [`Fill`] | order id, account, side, lots (positive), maker: bool |
//! | [`Cut`] | order id, reason: tag, lots (positive) |
//! | [`End`] | order id, reason: tag, lots (0 if filled, positive if not) |
//! | [`Slide`] | order id, limit (not 0) |
//! | [`MarketOutcome`] | market, price: option, fills, cuts, ends, slides: lists in the order of [`MarketOutcome`] |
//! | [`Outcome`] | height, part: varint (u32), last: bool, markets: list(`MAX_MARKETS`), strictly ascending |
//!
//! The tags of reasons count from 1 in the order of [`CutReason`] and [`EndReason`].

use crate::{
    AccountId, Band, Cloid, Crossing, Cut, CutReason, End, EndReason, Entry, Fill, Height, Inbox, Kind, Lots,
    MarketId, MarketOutcome, Name, OnCross, Order, OrderId, Outcome, PriceTicks, Reference, Request, Side,
    Slide, Terms, Trigger,
    limits::{MAX_ENTRIES_PER_INBOX, MAX_MARKETS, MAX_ORDERS_PER_OUTCOME},
    outcome::CUT_REASONS,
};
use bytes::BufMut;
use commonware_codec::{
    Buf, EncodeSize, Error, FixedSize, MaxEncodeSize, Read, ReadExt, Write,
    varint::{MAX_U32_VARINT_SIZE, UInt},
};
use std::collections::BTreeMap;

/// Largest encoded record of an outcome: a fill.
pub const MAX_RECORD_BYTES: usize = Fill::MAX_ENCODE_SIZE;

/// Largest encoded part of an outcome that was split to so many records.
pub const fn max_part_bytes(records: usize) -> usize {
    // What surrounds the records of a market: its id, its price, four counts of at most four bytes each.
    let market = MarketId::MAX_ENCODE_SIZE + 1 + PriceTicks::MAX_ENCODE_SIZE + 4 * 4;
    let markets = if records < MAX_MARKETS { records } else { MAX_MARKETS };
    Height::MAX_ENCODE_SIZE + MAX_U32_VARINT_SIZE + 1 + 2 + markets * market + records * MAX_RECORD_BYTES
}

const _: () = assert!(Cut::MAX_ENCODE_SIZE < MAX_RECORD_BYTES && End::MAX_ENCODE_SIZE < MAX_RECORD_BYTES);
const _: () =
    assert!(Slide::MAX_ENCODE_SIZE < MAX_RECORD_BYTES && CUT_REASONS * MAX_ORDERS_PER_OUTCOME < 1 << 28);

/// Smallest encodings, by which a claimed count is held against the bytes that are there.
const MIN_REFERENCE_ENTRY_BYTES: usize = 4;
const MIN_ENTRY_BYTES: usize = 5;
const MIN_FILL_BYTES: usize = 6;
const MIN_CUT_BYTES: usize = 4;
const MIN_END_BYTES: usize = 4;
const MIN_SLIDE_BYTES: usize = 3;
const MIN_MARKET_BYTES: usize = 2 + 4 + MIN_SLIDE_BYTES;

/// Field after field, and then what must hold between them.
macro_rules! record {
    ($($name:ident { $($field:ident: $type:ty),* } $(if $check:expr)?;)*) => {$(
        impl Write for $name {
            fn write(&self, buf: &mut impl BufMut) {
                $(self.$field.write(buf);)*
            }
        }

        impl EncodeSize for $name {
            fn encode_size(&self) -> usize {
                0 $(+ self.$field.encode_size())*
            }
        }

        impl MaxEncodeSize for $name {
            const MAX_ENCODE_SIZE: usize = 0 $(+ <$type as MaxEncodeSize>::MAX_ENCODE_SIZE)*;
        }

        impl Read for $name {
            type Cfg = ();

            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                let value = Self { $($field: <$type>::read(buf)?),* };
                $(if !$check(&value) {
                    return Err(Error::Invalid(stringify!($name), "out of its range"));
                })?
                Ok(value)
            }
        }
    )*};
}

/// An enumeration without fields: one byte, from 1.
macro_rules! tag {
    ($($name:ident { $($variant:pat => $value:expr, $tag:literal;)* })*) => {$(
        impl Write for $name {
            fn write(&self, buf: &mut impl BufMut) {
                buf.put_u8(match self {
                    $($variant => $tag,)*
                });
            }
        }

        impl FixedSize for $name {
            const SIZE: usize = 1;
        }

        impl Read for $name {
            type Cfg = ();

            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                match u8::read(buf)? {
                    $($tag => Ok($value),)*
                    other => Err(Error::InvalidEnum(other)),
                }
            }
        }
    )*};
}

macro_rules! plain_tag {
    ($($name:ident { $($variant:ident = $tag:literal),* })*) => {
        tag! { $($name { $($name::$variant => $name::$variant, $tag;)* })* }
    };
}

tag! {
    Kind {
        Kind::Limit => Kind::Limit, 1;
        Kind::PostOnly(OnCross::Cancel) => Kind::PostOnly(OnCross::Cancel), 2;
        Kind::PostOnly(OnCross::Slide) => Kind::PostOnly(OnCross::Slide), 3;
        Kind::Ioc => Kind::Ioc, 4;
        Kind::Liquidation => Kind::Liquidation, 5;
    }
}

plain_tag! {
    Crossing { Above = 1, Below = 2 }
    CutReason { Modified = 1, Reduced = 2, SelfCross = 3 }
    EndReason {
        Filled = 1, IocRemainder = 2, Expired = 3, Cancelled = 4, Replaced = 5, Merged = 6, NotFound = 7,
        SelfCross = 8, Reduced = 9, PostOnlyWouldTake = 10, BelowMinimum = 11, TooManyOpen = 12,
        MarketFull = 13, DuplicateCloid = 14
    }
}

record! {
    Terms {
        market: MarketId, side: Side, limit: PriceTicks, lots: Lots, kind: Kind, reduce_only: bool,
        good_til: Option<Height>, cloid: Option<Cloid>
    } if Terms::is_valid;
    Trigger { price: PriceTicks, crossing: Crossing } if Trigger::is_valid;
    Order { id: OrderId, account: AccountId, terms: Terms };
    Band { low: PriceTicks, high: PriceTicks };
    Reference { mark: PriceTicks, band: Band } if Reference::is_valid;
    Entry { account: AccountId, request: Request };
    Fill { order: OrderId, account: AccountId, side: Side, lots: Lots, maker: bool };
    Cut { order: OrderId, reason: CutReason, lots: Lots };
    End { order: OrderId, reason: EndReason, lots: Lots };
    Slide { order: OrderId, limit: PriceTicks };
}

impl Write for OrderId {
    fn write(&self, buf: &mut impl BufMut) {
        self.height.write(buf);
        UInt(self.index).write(buf);
    }
}

impl EncodeSize for OrderId {
    fn encode_size(&self) -> usize {
        self.height.encode_size() + UInt(self.index).encode_size()
    }
}

impl MaxEncodeSize for OrderId {
    const MAX_ENCODE_SIZE: usize = Height::MAX_ENCODE_SIZE + MAX_U32_VARINT_SIZE;
}

impl Read for OrderId {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self { height: Height::read(buf)?, index: UInt::<u32>::read(buf)?.0 })
    }
}

impl Write for Cloid {
    fn write(&self, buf: &mut impl BufMut) {
        UInt(self.0).write(buf);
    }
}

impl EncodeSize for Cloid {
    fn encode_size(&self) -> usize {
        UInt(self.0).encode_size()
    }
}

impl MaxEncodeSize for Cloid {
    const MAX_ENCODE_SIZE: usize = Height::MAX_ENCODE_SIZE;
}

impl Read for Cloid {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self(UInt::<u64>::read(buf)?.0))
    }
}

impl Write for Name {
    fn write(&self, buf: &mut impl BufMut) {
        match self {
            Self::Id(id) => {
                buf.put_u8(1);
                id.write(buf);
            }
            Self::Cloid(cloid) => {
                buf.put_u8(2);
                cloid.write(buf);
            }
        }
    }
}

impl EncodeSize for Name {
    fn encode_size(&self) -> usize {
        1 + match self {
            Self::Id(id) => id.encode_size(),
            Self::Cloid(cloid) => cloid.encode_size(),
        }
    }
}

impl MaxEncodeSize for Name {
    const MAX_ENCODE_SIZE: usize = 1 + OrderId::MAX_ENCODE_SIZE;
}

impl Read for Name {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        match u8::read(buf)? {
            1 => Ok(Self::Id(OrderId::read(buf)?)),
            2 => Ok(Self::Cloid(Cloid::read(buf)?)),
            other => Err(Error::InvalidEnum(other)),
        }
    }
}

impl Write for Request {
    fn write(&self, buf: &mut impl BufMut) {
        match self {
            Self::Place(terms) => {
                buf.put_u8(1);
                terms.write(buf);
            }
            Self::Cancel { market, order } => {
                buf.put_u8(2);
                market.write(buf);
                order.write(buf);
            }
            Self::CancelAll { market, keep_reduce_only } => {
                buf.put_u8(3);
                market.write(buf);
                keep_reduce_only.write(buf);
            }
            Self::Modify { market, order, limit, lots } => {
                buf.put_u8(4);
                market.write(buf);
                order.write(buf);
                limit.write(buf);
                lots.write(buf);
            }
            Self::Reduce { market, order, by } => {
                buf.put_u8(5);
                market.write(buf);
                order.write(buf);
                by.write(buf);
            }
        }
    }
}

impl EncodeSize for Request {
    fn encode_size(&self) -> usize {
        1 + match self {
            Self::Place(terms) => terms.encode_size(),
            Self::Cancel { market, order } => market.encode_size() + order.encode_size(),
            Self::CancelAll { market, keep_reduce_only } => {
                market.encode_size() + keep_reduce_only.encode_size()
            }
            Self::Modify { market, order, limit, lots } => {
                market.encode_size() + order.encode_size() + limit.encode_size() + lots.encode_size()
            }
            Self::Reduce { market, order, by } => {
                market.encode_size() + order.encode_size() + by.encode_size()
            }
        }
    }
}

impl MaxEncodeSize for Request {
    const MAX_ENCODE_SIZE: usize = 1 + Terms::MAX_ENCODE_SIZE;
}

impl Read for Request {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(match u8::read(buf)? {
            1 => Self::Place(Terms::read(buf)?),
            2 => Self::Cancel { market: MarketId::read(buf)?, order: Name::read(buf)? },
            3 => Self::CancelAll { market: Option::read(buf)?, keep_reduce_only: bool::read(buf)? },
            4 => Self::Modify {
                market: MarketId::read(buf)?,
                order: Name::read(buf)?,
                limit: PriceTicks::read(buf)?,
                lots: Lots::read(buf)?,
            },
            5 => Self::Reduce {
                market: MarketId::read(buf)?,
                order: OrderId::read(buf)?,
                by: Lots::read(buf)?,
            },
            other => return Err(Error::InvalidEnum(other)),
        })
    }
}

// ---------------------------------------------------------------------------------------------
// Lists

fn write_list<T: Write>(items: &[T], buf: &mut impl BufMut) {
    items.len().write(buf);
    items.iter().for_each(|item| item.write(buf));
}

fn list_size<T: EncodeSize>(items: &[T]) -> usize {
    items.len().encode_size() + items.iter().map(EncodeSize::encode_size).sum::<usize>()
}

/// Reads the count of a list whose elements take at least `min_bytes` each.
fn read_count(
    buf: &mut impl Buf,
    max: usize,
    min_bytes: usize,
    context: &'static str,
) -> Result<usize, Error> {
    let count = usize::try_from(UInt::<u32>::read(buf)?.0).map_err(|_| Error::InvalidUsize)?;
    if count > max {
        return Err(Error::Invalid(context, "more entries than its limit"));
    }
    if count > buf.remaining() / min_bytes {
        return Err(Error::EndOfBuffer);
    }
    Ok(count)
}

fn read_list<T: Read<Cfg = ()>>(
    buf: &mut impl Buf,
    max: usize,
    min_bytes: usize,
    context: &'static str,
) -> Result<Vec<T>, Error> {
    let count = read_count(buf, max, min_bytes, context)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(T::read(buf)?);
    }
    Ok(items)
}

/// Reads pairs into a map; keys must ascend strictly.
fn read_map<B: Buf, K: Ord + Copy, V: Read<Cfg = ()>>(
    buf: &mut B,
    max: usize,
    min_bytes: usize,
    context: &'static str,
    key: impl Fn(&mut B) -> Result<K, Error>,
) -> Result<BTreeMap<K, V>, Error> {
    let mut map = BTreeMap::new();
    for _ in 0..read_count(buf, max, min_bytes, context)? {
        let key = key(buf)?;
        if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(Error::Invalid(context, "not strictly ascending"));
        }
        map.insert(key, V::read(buf)?);
    }
    Ok(map)
}

impl Write for Inbox {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "inbox out of limits: {:?}", self.check());
        self.height.write(buf);
        self.salt.write(buf);
        self.references.len().write(buf);
        for (market, reference) in &self.references {
            market.write(buf);
            reference.write(buf);
        }
        self.entries.len().write(buf);
        for (index, entry) in &self.entries {
            UInt(*index).write(buf);
            entry.write(buf);
        }
    }
}

impl EncodeSize for Inbox {
    fn encode_size(&self) -> usize {
        let references = self.references.iter().map(|(market, own)| market.encode_size() + own.encode_size());
        let entries = self.entries.iter().map(|(index, own)| UInt(*index).encode_size() + own.encode_size());
        self.height.encode_size()
            + self.salt.len()
            + self.references.len().encode_size()
            + references.sum::<usize>()
            + self.entries.len().encode_size()
            + entries.sum::<usize>()
    }
}

impl Read for Inbox {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let height = Height::read(buf)?;
        let salt = <[u8; 32]>::read(buf)?;
        let references =
            read_map(buf, MAX_MARKETS, MIN_REFERENCE_ENTRY_BYTES, "Inbox::references", MarketId::read)?;
        let entries = read_map(buf, MAX_ENTRIES_PER_INBOX, MIN_ENTRY_BYTES, "Inbox::entries", |buf| {
            Ok(UInt::<u32>::read(buf)?.0)
        })?;
        let inbox = Self { height, salt, references, entries };
        inbox.check().map_err(|_| Error::Invalid("Inbox", "out of its range"))?;
        Ok(inbox)
    }
}

impl Write for MarketOutcome {
    fn write(&self, buf: &mut impl BufMut) {
        self.market.write(buf);
        self.price.write(buf);
        write_list(&self.fills, buf);
        write_list(&self.cuts, buf);
        write_list(&self.ends, buf);
        write_list(&self.slides, buf);
    }
}

impl EncodeSize for MarketOutcome {
    fn encode_size(&self) -> usize {
        self.market.encode_size()
            + self.price.encode_size()
            + list_size(&self.fills)
            + list_size(&self.cuts)
            + list_size(&self.ends)
            + list_size(&self.slides)
    }
}

impl Read for MarketOutcome {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        const MOST: usize = MAX_ORDERS_PER_OUTCOME;
        let outcome = Self {
            market: MarketId::read(buf)?,
            price: Option::read(buf)?,
            fills: read_list(buf, MOST, MIN_FILL_BYTES, "MarketOutcome::fills")?,
            cuts: read_list(buf, CUT_REASONS * MOST, MIN_CUT_BYTES, "MarketOutcome::cuts")?,
            ends: read_list(buf, MOST, MIN_END_BYTES, "MarketOutcome::ends")?,
            slides: read_list(buf, MOST, MIN_SLIDE_BYTES, "MarketOutcome::slides")?,
        };
        outcome.form().map_err(|_| Error::Invalid("MarketOutcome", "not in its one form"))?;
        Ok(outcome)
    }
}

impl Write for Outcome {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.form().is_ok(), "outcome not in its form: {:?}", self.form());
        self.height.write(buf);
        UInt(self.part).write(buf);
        self.last.write(buf);
        write_list(&self.markets, buf);
    }
}

impl EncodeSize for Outcome {
    fn encode_size(&self) -> usize {
        self.height.encode_size() + UInt(self.part).encode_size() + 1 + list_size(&self.markets)
    }
}

impl Read for Outcome {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let outcome = Self {
            height: Height::read(buf)?,
            part: UInt::<u32>::read(buf)?.0,
            last: bool::read(buf)?,
            markets: read_list(buf, MAX_MARKETS, MIN_MARKET_BYTES, "Outcome::markets")?,
        };
        outcome.form().map_err(|_| Error::Invalid("Outcome", "not in its one form"))?;
        Ok(outcome)
    }
}
