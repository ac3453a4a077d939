//! The canonical encoding: what is signed, hashed, sent and stored.
//!
//! One value has exactly one encoding: `decode(encode(x)) == x` for every `x` within
//! [`limits`], and `encode(decode(b)) == b` for every `b` that decodes. A decoder checks each
//! bound before it allocates and never reads past the largest encoding of its type.
//!
//! # Scalars
//!
//! | name | encoding | bytes |
//! | --- | --- | --- |
//! | `fixed(n)` | unsigned, big-endian | n |
//! | `varint` | unsigned LEB128, least significant group first, no superfluous byte | 1 to 3 (u16), 10 (u64) |
//! | `varint <= m` | the same, refused above `m` | as many as `m` takes |
//! | `zigzag` | `varint` of `(x << 1) ^ (x >> 127)`: 0, -1, 1, -2, ... | 1 to 10 (i64), 19 (i128) |
//! | `bytes(n)` | the bytes | n |
//! | `tag` | one byte; the first variant is 1, so zeroed memory is nothing | 1 |
//! | `list(m)` | `varint` count, at most `m`, then the elements | 1 and more |
//!
//! # Ids and units
//!
//! | type | encoding |
//! | --- | --- |
//! | [`ChainId`] | fixed(8) |
//! | [`AccountId`], [`Nonce`], [`Height`], [`TimeMs`] | varint (u64) |
//! | [`MarketId`], [`ValidatorId`] | varint (u16) |
//! | [`Key`], [`Digest`], [`Recipient`] | bytes(32) |
//! | [`Signature`] | bytes(64) |
//! | [`GroupSignature`] | bytes(48) |
//! | [`PriceTicks`] | varint <= `MAX_PRICE_TICKS` |
//! | [`Ppm`] | varint <= `MAX_PPM` |
//! | [`Lots`] | zigzag, magnitude <= `MAX_LOTS` |
//! | [`Atoms`], [`FundingIndex`] | zigzag (i128) |
//! | [`Side`] | tag: 1 buy, 2 sell |
//! | [`MarginMode`] | tag: 1 cross, 2 isolated |
//! | [`PriceState`] | tag: 1 fresh, 2 stale, 3 disputed, 4 reopening, 5 quarantined |
//!
//! Inside an action or a quote, two quantities are narrower, because a user never asks for less than
//! nothing: *amount* is `varint <= MAX_AMOUNT_ATOMS` and *size* is `varint <= MAX_LOTS`. Zero decodes
//! there: the ledger refuses it by name. Ids have their full width: the ledger refuses by name those
//! that do not exist.
//!
//! # Messages
//!
//! | type | fields in order |
//! | --- | --- |
//! | [`Action`] | tag, then the fields of its kind |
//! | 1 open | owner key, amount |
//! | 2 deposit | to account, amount |
//! | 3 transfer | to account, amount |
//! | 4 top up isolated | market, amount |
//! | 5 release isolated | market, amount |
//! | 6 set margin mode | market, mode |
//! | 7 withdraw | amount, recipient |
//! | 8 fill | quote, quote signature, size |
//! | 9 place | terms |
//! | 10 place many | list(`MAX_ORDERS_PER_ACTION`) of terms, not empty |
//! | 11 close | terms |
//! | 12 cancel | market, name |
//! | 13 cancel all | market: option, keep reduce-only: bool |
//! | 14 modify | market, name, limit (not 0), lots (positive) |
//! | 15 place trigger | trigger, terms |
//! | 16 schedule cancel | time: option |
//! | 17 set leverage | market, leverage: varint <= `MAX_PPM` |
//! | 18 cancel many | list(`MAX_ORDERS_PER_ACTION`) of (market, name), not empty |
//! | 19 cancel risk | market, name |
//! | [`Quote`] | chain, maker, taker, market, side, price (not 0), size, nonce, expiry |
//! | [`SignedAction`] | chain, account, nonce, expiry, action, signature |
//! | [`Mark`] | state, last (not 0), updated |
//! | [`PriceReport`] | low (not 0), high (>= low), spread, sources: fixed(1), `1..=MAX_SOURCES` |
//! | [`RescueRef`] | account, nonce, expiry, digest |
//! | [`OutcomeRef`] | zone: varint (u16), height: varint, digest |
//! | [`Health`] | version: fixed(1), 0 |
//! | [`Observation`] | chain, epoch: varint, view: varint, seq: varint, time, prices, rescues, outcomes, health, author, signature |
//! | prices | list(`MAX_MARKETS`) of (market, report), markets strictly ascending |
//! | rescues | list(`MAX_RESCUES_PER_OBSERVATION`) of [`RescueRef`], strictly ascending |
//! | outcomes | list(`MAX_OUTCOMES_PER_OBSERVATION`) of [`OutcomeRef`] |
//! | [`Body`] | rescues that are listed: list(`MAX_VALIDATORS` x `MAX_RESCUES_PER_OBSERVATION`) of [`RescueRef`], strictly ascending, each listed by somebody; observations: list(`MAX_VALIDATORS`), authors strictly ascending, each with a bitmap over that list, lowest bit first, where its own list would be; actions: list(`MAX_ACTIONS_PER_BLOCK`), no rescue after a trade, rescues strictly ascending by [`RescueOrder`], each order that an action names counted as one; parent proof: option; outcomes: list(`MAX_OUTCOMES_PER_BLOCK`), zone, height and part strictly ascending, together at most `MAX_RECORDS_PER_BLOCK` records |
//! | [`ParentProof`] | finalized: bool, signature |
//! | [`ZoneOutcome`] | zone: one byte, voided: height, outcome |
//!
//! Terms and names of orders are those of [`orders`]: their limits and sizes are never zero.
//!
//! [`Header`] has fixed offsets, so that a contract can read it without a parser:
//!
//! | offset | field | encoding |
//! | --- | --- | --- |
//! | 0 | version | fixed(1), 1 |
//! | 1 | chain | fixed(8) |
//! | 9 | epoch | fixed(8) |
//! | 17 | height | fixed(8) |
//! | 25 | parent | bytes(32) |
//! | 57 | time | fixed(8) |
//! | 65 | body | bytes(32) |
//! | 97 | state root | bytes(32) |
//! | 129 | ops root | bytes(32) |
//! | 161 | ops start | fixed(8) |
//! | 169 | ops end | fixed(8), above start |
//! | 177 | outcomes root | bytes(32) |
//! | 209 | exits root | bytes(32) |
//! | 241 | end | |
//!
//! # What is signed
//!
//! The signature is the last field of [`SignedAction`] and [`Observation`]; `message()` is every byte
//! before it. A quote carries no signature of its own: its `message()` is its whole encoding.
//!
//! # Values that have no encoding
//!
//! Only values built on this machine are written, so being out of limits is a bug of the caller:
//! `write` catches it with `debug_assert!`. Without debug assertions it still never panics and never
//! writes a *different* value: what it writes is refused by every decoder. Code that takes numbers
//! from a person asks `check()` first.
//!
//! # Example
//!
//! ```
//! use commonware_codec::{DecodeExt, Encode};
//! use seawall_types::{AccountId, Action, Atoms};
//!
//! let action = Action::Deposit { to: AccountId(7), amount: Atoms(300) };
//! let bytes = action.encode();
//! assert_eq!(bytes[..], [2, 7, 0xac, 0x02]);
//! assert_eq!(Action::decode(bytes).unwrap(), action);
//! ```

use crate::{
    AccountId, Action, Atoms, Body, ChainId, Digest, FundingIndex, GroupSignature, Header, Health, Height,
    Key, Lots, MarginMode, Mark, MarketId, Name, Nonce, Observation, Outcome, OutcomeRef, ParentProof, Ppm,
    PriceReport, PriceState, PriceTicks, Quote, Recipient, RescueRef, Side, Signature, SignedAction, Terms,
    TimeMs, Trigger, ValidatorId, ZoneOutcome,
    action::{Lane, RescueOrder},
    block::{OpsTarget, VERSION},
    limits,
};
use bytes::{BufMut, Bytes, BytesMut};
use commonware_codec::{
    Buf, EncodeSize, Error, FixedSize, MaxEncodeSize, Read, ReadExt, Write,
    varint::{MAX_U16_VARINT_SIZE, MAX_U64_VARINT_SIZE, MAX_U128_VARINT_SIZE, SInt, UInt},
};

pub mod orders;

/// Bytes of the varint of `value`.
const fn varint_bytes(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    if bits == 0 { 1 } else { bits.div_ceil(7) as usize }
}

const MAX_U16_BYTES: usize = MAX_U16_VARINT_SIZE;
const MAX_U64_BYTES: usize = MAX_U64_VARINT_SIZE;
const MAX_PRICE_BYTES: usize = varint_bytes(limits::MAX_PRICE_TICKS);
const MAX_SIZE_BYTES: usize = varint_bytes(limits::MAX_LOTS as u64);
const MAX_AMOUNT_BYTES: usize = varint_bytes(limits::MAX_AMOUNT_ATOMS as u64);

// An amount is written as a u64, and no action that counts once is larger than a fill.
const _: () = assert!(limits::MAX_AMOUNT_ATOMS < u64::MAX as i128);
const _: () = assert!(1 + Key::SIZE + MAX_AMOUNT_BYTES < MAX_FILL_BYTES);
const _: () = assert!(1 + MAX_U64_BYTES + MAX_AMOUNT_BYTES < MAX_FILL_BYTES);
const _: () = assert!(1 + Trigger::MAX_ENCODE_SIZE + Terms::MAX_ENCODE_SIZE < MAX_FILL_BYTES);
const _: () = assert!(
    1 + MAX_U16_BYTES + Name::MAX_ENCODE_SIZE + MAX_PRICE_BYTES + Lots::MAX_ENCODE_SIZE < MAX_FILL_BYTES
);
// An action that places many counts as many times as it places.
const _: () = assert!(MAX_ENVELOPE_BYTES + 2 + Terms::MAX_ENCODE_SIZE < MAX_WEIGHT_BYTES);
const _: () = assert!(Terms::MAX_ENCODE_SIZE < MAX_WEIGHT_BYTES);

/// Largest encoded [`Quote`].
pub const MAX_QUOTE_BYTES: usize =
    ChainId::SIZE + 4 * MAX_U64_BYTES + MAX_U16_BYTES + Side::SIZE + MAX_PRICE_BYTES + MAX_SIZE_BYTES;
/// Largest encoded fill.
pub const MAX_FILL_BYTES: usize = 1 + MAX_QUOTE_BYTES + Signature::SIZE + MAX_SIZE_BYTES;
/// Largest encoded [`Action`]: one that places many orders.
pub const MAX_ACTION_BYTES: usize = 1
    + varint_bytes(limits::MAX_ORDERS_PER_ACTION as u64)
    + limits::MAX_ORDERS_PER_ACTION * Terms::MAX_ENCODE_SIZE;
/// What is around an action that is signed.
const MAX_ENVELOPE_BYTES: usize = ChainId::SIZE + 3 * MAX_U64_BYTES + Signature::SIZE;
/// Most bytes of a signed action for each one that it counts as ([`Action::weight`]).
pub const MAX_WEIGHT_BYTES: usize = MAX_ENVELOPE_BYTES + MAX_FILL_BYTES;
/// Largest encoded [`SignedAction`].
pub const MAX_SIGNED_ACTION_BYTES: usize = MAX_ENVELOPE_BYTES + MAX_ACTION_BYTES;
/// Largest encoded [`Mark`].
pub const MAX_MARK_BYTES: usize = PriceState::SIZE + MAX_PRICE_BYTES + MAX_U64_BYTES;
/// Largest encoded [`PriceReport`].
pub const MAX_PRICE_REPORT_BYTES: usize = 3 * MAX_PRICE_BYTES + 1;
/// Largest encoded [`RescueRef`].
pub const MAX_RESCUE_REF_BYTES: usize = 3 * MAX_U64_BYTES + Digest::SIZE;
const MAX_RESCUE_LIST_BYTES: usize = varint_bytes(limits::MAX_RESCUES_PER_OBSERVATION as u64)
    + limits::MAX_RESCUES_PER_OBSERVATION * MAX_RESCUE_REF_BYTES;
/// Largest encoded [`OutcomeRef`].
pub const MAX_OUTCOME_REF_BYTES: usize = MAX_U16_BYTES + MAX_U64_BYTES + Digest::SIZE;
/// Largest encoded [`Observation`], with every list full.
pub const MAX_OBSERVATION_BYTES: usize = ChainId::SIZE
    + 4 * MAX_U64_BYTES
    + varint_bytes(limits::MAX_MARKETS as u64)
    + limits::MAX_MARKETS * (MAX_U16_BYTES + MAX_PRICE_REPORT_BYTES)
    + MAX_RESCUE_LIST_BYTES
    + varint_bytes(limits::MAX_OUTCOMES_PER_OBSERVATION as u64)
    + limits::MAX_OUTCOMES_PER_OBSERVATION * MAX_OUTCOME_REF_BYTES
    + Health::SIZE
    + MAX_U16_BYTES
    + Signature::SIZE;
/// Size of every encoded [`Header`].
pub const MAX_HEADER_BYTES: usize = Header::SIZE;
/// Largest encoded [`Body`]: every list full of the largest elements, no two observations with a rescue in common.
pub const MAX_BODY_BYTES: usize = varint_bytes(MAX_LISTED as u64)
    + MAX_LISTED * MAX_RESCUE_REF_BYTES
    + varint_bytes(limits::MAX_VALIDATORS as u64)
    + limits::MAX_VALIDATORS * (MAX_OBSERVATION_BYTES - MAX_RESCUE_LIST_BYTES + MAX_LISTED.div_ceil(8))
    + varint_bytes(limits::MAX_ACTIONS_PER_BLOCK as u64)
    + limits::MAX_ACTIONS_PER_BLOCK * MAX_WEIGHT_BYTES
    + 1
    + ParentProof::SIZE
    + MAX_SETTLED_BYTES;
/// More than the outcomes of a block can take.
pub const MAX_SETTLED_BYTES: usize = varint_bytes(limits::MAX_OUTCOMES_PER_BLOCK as u64)
    + limits::MAX_OUTCOMES_PER_BLOCK * (1 + MAX_U64_BYTES + orders::max_part_bytes(0))
    + limits::MAX_RECORDS_PER_BLOCK * (orders::max_part_bytes(1) - orders::max_part_bytes(0));

// The limits of the lists alone keep a block within its own, with 64 KiB left for its header, its
// leader's signature and its consensus context.
const _: () = assert!(MAX_BODY_BYTES + (64 << 10) <= limits::MAX_BLOCK_BYTES);

/// Smallest encodings, by which a claimed count is held against the bytes that are there.
const MIN_PRICE_ENTRY_BYTES: usize = 1 + 3 + 1;
const MIN_RESCUE_REF_BYTES: usize = 3 + Digest::SIZE;
const MIN_OUTCOME_REF_BYTES: usize = 2 + Digest::SIZE;
const MIN_ZONE_OUTCOME_BYTES: usize = 1 + 1 + 4;
const MIN_SIGNED_ACTION_BYTES: usize = ChainId::SIZE + 3 + 3 + Signature::SIZE;
/// Terms: one byte each for market, side, limit, lots, kind, flag and two options.
const MIN_TERMS_BYTES: usize = 8;
/// A market and an owner's name: one byte each for market, tag and number.
const MIN_NAMED_BYTES: usize = 3;
const MIN_OBSERVATION_BYTES: usize = ChainId::SIZE + 4 + 3 + Health::SIZE + 1 + Signature::SIZE;

// ---------------------------------------------------------------------------------------------
// Ids and units

/// Reads a varint that must not exceed `max`.
fn read_bounded(buf: &mut impl Buf, max: u64, context: &'static str) -> Result<u64, Error> {
    let value = UInt::<u64>::read(buf)?.0;
    if value > max {
        return Err(Error::Invalid(context, BEYOND));
    }
    Ok(value)
}

const BEYOND: &str = "beyond its limit";

/// The newtype's own integer as a varint of full width.
macro_rules! varint {
    ($($name:ident: $wrap:ident($inner:ty), $max:expr;)*) => {$(
        impl Write for $name {
            #[inline]
            fn write(&self, buf: &mut impl BufMut) {
                $wrap(self.0).write(buf);
            }
        }

        impl EncodeSize for $name {
            #[inline]
            fn encode_size(&self) -> usize {
                $wrap(self.0).encode_size()
            }
        }

        impl MaxEncodeSize for $name {
            const MAX_ENCODE_SIZE: usize = $max;
        }

        impl Read for $name {
            type Cfg = ();

            #[inline]
            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                Ok(Self($wrap::<$inner>::read(buf)?.0))
            }
        }
    )*};
}

varint! {
    AccountId: UInt(u64), MAX_U64_BYTES;
    Nonce: UInt(u64), MAX_U64_BYTES;
    Height: UInt(u64), MAX_U64_BYTES;
    TimeMs: UInt(u64), MAX_U64_BYTES;
    MarketId: UInt(u16), MAX_U16_BYTES;
    ValidatorId: UInt(u16), MAX_U16_BYTES;
    Atoms: SInt(i128), MAX_U128_VARINT_SIZE;
    FundingIndex: SInt(i128), MAX_U128_VARINT_SIZE;
}

/// The newtype's own integer or array, as it is.
macro_rules! fixed {
    ($($name:ident($inner:ty);)*) => {$(
        impl Write for $name {
            #[inline]
            fn write(&self, buf: &mut impl BufMut) {
                self.0.write(buf);
            }
        }

        impl FixedSize for $name {
            const SIZE: usize = <$inner as FixedSize>::SIZE;
        }

        impl Read for $name {
            type Cfg = ();

            #[inline]
            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                Ok(Self(<$inner>::read(buf)?))
            }
        }
    )*};
}

fixed! {
    ChainId(u64);
    Key([u8; 32]);
    Signature([u8; 64]);
    GroupSignature([u8; 48]);
    Digest([u8; 32]);
    Recipient([u8; 32]);
}

/// An enumeration without fields: one byte, from 1.
macro_rules! tag {
    ($($name:ident { $($variant:ident = $tag:literal),* })*) => {$(
        impl Write for $name {
            #[inline]
            fn write(&self, buf: &mut impl BufMut) {
                buf.put_u8(match self {
                    $(Self::$variant => $tag,)*
                });
            }
        }

        impl FixedSize for $name {
            const SIZE: usize = 1;
        }

        impl Read for $name {
            type Cfg = ();

            #[inline]
            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                match u8::read(buf)? {
                    $($tag => Ok(Self::$variant),)*
                    other => Err(Error::InvalidEnum(other)),
                }
            }
        }
    )*};
}

tag! {
    Side { Buy = 1, Sell = 2 }
    MarginMode { Cross = 1, Isolated = 2 }
    PriceState { Fresh = 1, Stale = 2, Disputed = 3, Reopening = 4, Quarantined = 5 }
}

impl Write for PriceTicks {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.0 <= limits::MAX_PRICE_TICKS, "price beyond its limit");
        UInt(self.0).write(buf);
    }
}

impl EncodeSize for PriceTicks {
    fn encode_size(&self) -> usize {
        UInt(self.0).encode_size()
    }
}

impl MaxEncodeSize for PriceTicks {
    const MAX_ENCODE_SIZE: usize = MAX_PRICE_BYTES;
}

impl Read for PriceTicks {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        read_bounded(buf, limits::MAX_PRICE_TICKS, "PriceTicks").map(Self)
    }
}

impl Write for Ppm {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.0 <= limits::MAX_PPM, "rate beyond its limit");
        UInt(self.0).write(buf);
    }
}

impl EncodeSize for Ppm {
    fn encode_size(&self) -> usize {
        UInt(self.0).encode_size()
    }
}

impl MaxEncodeSize for Ppm {
    const MAX_ENCODE_SIZE: usize = varint_bytes(limits::MAX_PPM as u64);
}

impl Read for Ppm {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let value = UInt::<u32>::read(buf)?.0;
        if value > limits::MAX_PPM {
            return Err(Error::Invalid("Ppm", BEYOND));
        }
        Ok(Self(value))
    }
}

impl Write for Lots {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.0.unsigned_abs() <= limits::MAX_LOTS as u64, "lots beyond their limit");
        SInt(self.0).write(buf);
    }
}

impl EncodeSize for Lots {
    fn encode_size(&self) -> usize {
        SInt(self.0).encode_size()
    }
}

impl MaxEncodeSize for Lots {
    const MAX_ENCODE_SIZE: usize = varint_bytes(2 * limits::MAX_LOTS as u64);
}

impl Read for Lots {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let value = SInt::<i64>::read(buf)?.0;
        if value.unsigned_abs() > limits::MAX_LOTS as u64 {
            return Err(Error::Invalid("Lots", BEYOND));
        }
        Ok(Self(value))
    }
}

/// What is written for an amount or a size that has no encoding. No decoder accepts it.
const UNREPRESENTABLE: u64 = u64::MAX;

/// [`Atoms`] as a user states them: never negative.
#[derive(Clone, Copy)]
struct Amount(Atoms);

impl Amount {
    fn check(self) -> Result<(), Error> {
        match self.0.0 {
            0..=limits::MAX_AMOUNT_ATOMS => Ok(()),
            i128::MIN..0 => Err(Error::Invalid("amount", "negative")),
            _ => Err(Error::Invalid("amount", BEYOND)),
        }
    }

    fn raw(self) -> UInt<u64> {
        UInt(if self.check().is_ok() { self.0.0 as u64 } else { UNREPRESENTABLE })
    }
}

impl Write for Amount {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "amount out of limits: {}", self.0);
        self.raw().write(buf);
    }
}

impl EncodeSize for Amount {
    fn encode_size(&self) -> usize {
        self.raw().encode_size()
    }
}

fn read_amount(buf: &mut impl Buf) -> Result<Atoms, Error> {
    read_bounded(buf, limits::MAX_AMOUNT_ATOMS as u64, "amount").map(|value| Atoms(value.into()))
}

/// [`Lots`] as a user states them: a size, never negative.
#[derive(Clone, Copy)]
struct Size(Lots);

impl Size {
    fn check(self) -> Result<(), Error> {
        match self.0.0 {
            0..=limits::MAX_LOTS => Ok(()),
            i64::MIN..0 => Err(Error::Invalid("size", "negative")),
            _ => Err(Error::Invalid("size", BEYOND)),
        }
    }

    fn raw(self) -> UInt<u64> {
        UInt(if self.check().is_ok() { self.0.0 as u64 } else { UNREPRESENTABLE })
    }
}

impl Write for Size {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "size out of limits: {}", self.0);
        self.raw().write(buf);
    }
}

impl EncodeSize for Size {
    fn encode_size(&self) -> usize {
        self.raw().encode_size()
    }
}

fn read_size(buf: &mut impl Buf) -> Result<Lots, Error> {
    read_bounded(buf, limits::MAX_LOTS as u64, "size").map(|value| Lots(value as i64))
}

fn check_price(price: PriceTicks, context: &'static str) -> Result<(), Error> {
    match price.0 {
        0 => Err(Error::Invalid(context, "zero is no price")),
        1..=limits::MAX_PRICE_TICKS => Ok(()),
        _ => Err(Error::Invalid(context, BEYOND)),
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

fn check_count(count: usize, max: usize, context: &'static str) -> Result<(), Error> {
    if count > max {
        return Err(Error::Invalid(context, "more entries than its limit"));
    }
    Ok(())
}

/// Reads a list whose elements take at least `min_bytes` each. Nothing is allocated for a count that
/// is beyond `max` or that the remaining bytes cannot hold.
fn read_list<B: Buf, T>(
    buf: &mut B,
    max: usize,
    min_bytes: usize,
    context: &'static str,
    mut read: impl FnMut(&mut B) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let count = usize::try_from(UInt::<u32>::read(buf)?.0).map_err(|_| Error::InvalidUsize)?;
    check_count(count, max, context)?;
    if count > buf.remaining() / min_bytes {
        return Err(Error::EndOfBuffer);
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        items.push(read(buf)?);
    }
    Ok(items)
}

/// Passes keys that grow strictly.
struct Ascending<K> {
    last: Option<K>,
    context: &'static str,
}

impl<K: Ord> Ascending<K> {
    const fn new(context: &'static str) -> Self {
        Self { last: None, context }
    }

    fn next(&mut self, key: K) -> Result<(), Error> {
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(Error::Invalid(self.context, "not strictly ascending"));
        }
        self.last = Some(key);
        Ok(())
    }
}

/// Passes rescues in their order, then trades.
struct Lanes {
    lane: Lane,
    rescues: Ascending<RescueOrder>,
}

impl Lanes {
    const fn new() -> Self {
        Self { lane: Lane::Rescue, rescues: Ascending::new(ACTIONS) }
    }

    fn next(&mut self, action: &SignedAction) -> Result<(), Error> {
        let lane = action.action.lane();
        if lane < self.lane {
            return Err(Error::Invalid(ACTIONS, "a rescue after a trade"));
        }
        self.lane = lane;
        action.rescue_order().map_or(Ok(()), |order| self.rescues.next(order))
    }
}

// ---------------------------------------------------------------------------------------------
// Actions

impl Quote {
    /// Whether this value has an encoding.
    pub fn check(&self) -> Result<(), Error> {
        check_price(self.price, "Quote::price")?;
        Size(self.lots).check()
    }

    /// What the maker signs, in [`Domain::Quote`](crate::Domain::Quote).
    pub fn message(&self) -> Bytes {
        commonware_codec::Encode::encode(self)
    }
}

impl Write for Quote {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "quote out of limits: {self:?}");
        self.chain.write(buf);
        self.maker.write(buf);
        self.taker.write(buf);
        self.market.write(buf);
        self.side.write(buf);
        self.price.write(buf);
        Size(self.lots).write(buf);
        self.nonce.write(buf);
        self.expiry.write(buf);
    }
}

impl EncodeSize for Quote {
    fn encode_size(&self) -> usize {
        ChainId::SIZE
            + self.maker.encode_size()
            + self.taker.encode_size()
            + self.market.encode_size()
            + Side::SIZE
            + self.price.encode_size()
            + Size(self.lots).encode_size()
            + self.nonce.encode_size()
            + self.expiry.encode_size()
    }
}

impl MaxEncodeSize for Quote {
    const MAX_ENCODE_SIZE: usize = MAX_QUOTE_BYTES;
}

impl Read for Quote {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let chain = ChainId::read(buf)?;
        let maker = AccountId::read(buf)?;
        let taker = AccountId::read(buf)?;
        let market = MarketId::read(buf)?;
        let side = Side::read(buf)?;
        let price = PriceTicks::read(buf)?;
        check_price(price, "Quote::price")?;
        let lots = read_size(buf)?;
        let nonce = Nonce::read(buf)?;
        let expiry = Height::read(buf)?;
        Ok(Self { chain, maker, taker, market, side, price, lots, nonce, expiry })
    }
}

const ORDERS: &str = "Action::orders";

fn check_some<T>(orders: &[T]) -> Result<(), Error> {
    if orders.is_empty() { Err(Error::Invalid(ORDERS, "no order")) } else { Ok(()) }
}

fn check_terms(terms: &Terms) -> Result<(), Error> {
    if terms.is_valid() { Ok(()) } else { Err(Error::Invalid("Terms", "out of its range")) }
}

fn check_trigger(trigger: &Trigger) -> Result<(), Error> {
    if trigger.is_valid() { Ok(()) } else { Err(Error::Invalid("Trigger", "out of its range")) }
}

/// No market allows a leverage above one to a ppm.
fn check_leverage(leverage: u32) -> Result<(), Error> {
    if leverage <= limits::MAX_PPM { Ok(()) } else { Err(Error::Invalid("Action::leverage", BEYOND)) }
}

fn check_modify(limit: PriceTicks, lots: Lots) -> Result<(), Error> {
    check_price(limit, "Action::limit")?;
    if (1..=limits::MAX_LOTS).contains(&lots.0) {
        Ok(())
    } else {
        Err(Error::Invalid("Action::lots", "out of its range"))
    }
}

impl Action {
    /// Whether this value has an encoding. Zero amounts and sizes have one; the ledger refuses them.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Open { amount, .. }
            | Self::Deposit { amount, .. }
            | Self::Transfer { amount, .. }
            | Self::TopUpIsolated { amount, .. }
            | Self::ReleaseIsolated { amount, .. }
            | Self::Withdraw { amount, .. } => Amount(*amount).check(),
            Self::SetMarginMode { .. }
            | Self::Cancel { .. }
            | Self::CancelRisk { .. }
            | Self::CancelAll { .. }
            | Self::ScheduleCancel { .. } => Ok(()),
            Self::PlaceTrigger { trigger, terms } => {
                check_trigger(trigger)?;
                check_terms(terms)
            }
            Self::SetLeverage { leverage, .. } => check_leverage(*leverage),
            Self::Place(terms) | Self::Close(terms) => check_terms(terms),
            Self::PlaceMany(orders) => {
                check_count(orders.len(), limits::MAX_ORDERS_PER_ACTION, ORDERS)?;
                check_some(orders)?;
                orders.iter().try_for_each(check_terms)
            }
            Self::CancelMany(orders) => {
                check_count(orders.len(), limits::MAX_ORDERS_PER_ACTION, ORDERS)?;
                check_some(orders)
            }
            Self::Modify { limit, lots, .. } => check_modify(*limit, *lots),
            Self::Fill { quote, lots, .. } => {
                quote.check()?;
                Size(*lots).check()
            }
        }
    }
}

impl Write for Action {
    fn write(&self, buf: &mut impl BufMut) {
        match self {
            Self::Open { owner, amount } => {
                buf.put_u8(1);
                owner.write(buf);
                Amount(*amount).write(buf);
            }
            Self::Deposit { to, amount } => {
                buf.put_u8(2);
                to.write(buf);
                Amount(*amount).write(buf);
            }
            Self::Transfer { to, amount } => {
                buf.put_u8(3);
                to.write(buf);
                Amount(*amount).write(buf);
            }
            Self::TopUpIsolated { market, amount } => {
                buf.put_u8(4);
                market.write(buf);
                Amount(*amount).write(buf);
            }
            Self::ReleaseIsolated { market, amount } => {
                buf.put_u8(5);
                market.write(buf);
                Amount(*amount).write(buf);
            }
            Self::SetMarginMode { market, mode } => {
                buf.put_u8(6);
                market.write(buf);
                mode.write(buf);
            }
            Self::Withdraw { amount, recipient } => {
                buf.put_u8(7);
                Amount(*amount).write(buf);
                recipient.write(buf);
            }
            Self::Fill { quote, quote_signature, lots } => {
                buf.put_u8(8);
                quote.write(buf);
                quote_signature.write(buf);
                Size(*lots).write(buf);
            }
            Self::Place(terms) => {
                buf.put_u8(9);
                terms.write(buf);
            }
            Self::PlaceMany(orders) => {
                buf.put_u8(10);
                write_list(orders, buf);
            }
            Self::Close(terms) => {
                buf.put_u8(11);
                terms.write(buf);
            }
            Self::Cancel { market, order } => {
                buf.put_u8(12);
                market.write(buf);
                order.write(buf);
            }
            Self::CancelAll { market, keep_reduce_only } => {
                buf.put_u8(13);
                market.write(buf);
                keep_reduce_only.write(buf);
            }
            Self::Modify { market, order, limit, lots } => {
                buf.put_u8(14);
                market.write(buf);
                order.write(buf);
                limit.write(buf);
                lots.write(buf);
            }
            Self::PlaceTrigger { trigger, terms } => {
                buf.put_u8(15);
                trigger.write(buf);
                terms.write(buf);
            }
            Self::ScheduleCancel { at } => {
                buf.put_u8(16);
                at.write(buf);
            }
            Self::SetLeverage { market, leverage } => {
                buf.put_u8(17);
                market.write(buf);
                UInt(*leverage).write(buf);
            }
            Self::CancelMany(orders) => {
                buf.put_u8(18);
                write_list(orders, buf);
            }
            Self::CancelRisk { market, order } => {
                buf.put_u8(19);
                market.write(buf);
                order.write(buf);
            }
        }
    }
}

impl EncodeSize for Action {
    fn encode_size(&self) -> usize {
        1 + match self {
            Self::Open { amount, .. } => Key::SIZE + Amount(*amount).encode_size(),
            Self::Deposit { to, amount } | Self::Transfer { to, amount } => {
                to.encode_size() + Amount(*amount).encode_size()
            }
            Self::TopUpIsolated { market, amount } | Self::ReleaseIsolated { market, amount } => {
                market.encode_size() + Amount(*amount).encode_size()
            }
            Self::SetMarginMode { market, .. } => market.encode_size() + MarginMode::SIZE,
            Self::Withdraw { amount, .. } => Amount(*amount).encode_size() + Recipient::SIZE,
            Self::Fill { quote, lots, .. } => {
                quote.encode_size() + Signature::SIZE + Size(*lots).encode_size()
            }
            Self::Place(terms) | Self::Close(terms) => terms.encode_size(),
            Self::PlaceMany(orders) => list_size(orders),
            Self::CancelMany(orders) => list_size(orders),
            Self::Cancel { market, order } | Self::CancelRisk { market, order } => {
                market.encode_size() + order.encode_size()
            }
            Self::CancelAll { market, .. } => market.encode_size() + bool::SIZE,
            Self::Modify { market, order, limit, lots } => {
                market.encode_size() + order.encode_size() + limit.encode_size() + lots.encode_size()
            }
            Self::PlaceTrigger { trigger, terms } => trigger.encode_size() + terms.encode_size(),
            Self::ScheduleCancel { at } => at.encode_size(),
            Self::SetLeverage { market, leverage } => market.encode_size() + UInt(*leverage).encode_size(),
        }
    }
}

impl MaxEncodeSize for Action {
    const MAX_ENCODE_SIZE: usize = MAX_ACTION_BYTES;
}

impl Read for Action {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(match u8::read(buf)? {
            1 => Self::Open { owner: Key::read(buf)?, amount: read_amount(buf)? },
            2 => Self::Deposit { to: AccountId::read(buf)?, amount: read_amount(buf)? },
            3 => Self::Transfer { to: AccountId::read(buf)?, amount: read_amount(buf)? },
            4 => Self::TopUpIsolated { market: MarketId::read(buf)?, amount: read_amount(buf)? },
            5 => Self::ReleaseIsolated { market: MarketId::read(buf)?, amount: read_amount(buf)? },
            6 => Self::SetMarginMode { market: MarketId::read(buf)?, mode: MarginMode::read(buf)? },
            7 => Self::Withdraw { amount: read_amount(buf)?, recipient: Recipient::read(buf)? },
            8 => Self::Fill {
                quote: Quote::read(buf)?,
                quote_signature: Signature::read(buf)?,
                lots: read_size(buf)?,
            },
            9 => Self::Place(Terms::read(buf)?),
            10 => {
                let most = limits::MAX_ORDERS_PER_ACTION;
                let orders = read_list(buf, most, MIN_TERMS_BYTES, ORDERS, Terms::read)?;
                check_some(&orders)?;
                Self::PlaceMany(orders)
            }
            11 => Self::Close(Terms::read(buf)?),
            12 => Self::Cancel { market: MarketId::read(buf)?, order: Name::read(buf)? },
            13 => Self::CancelAll { market: Option::read(buf)?, keep_reduce_only: bool::read(buf)? },
            14 => {
                let (market, order) = (MarketId::read(buf)?, Name::read(buf)?);
                let (limit, lots) = (PriceTicks::read(buf)?, Lots::read(buf)?);
                check_modify(limit, lots)?;
                Self::Modify { market, order, limit, lots }
            }
            15 => Self::PlaceTrigger { trigger: Trigger::read(buf)?, terms: Terms::read(buf)? },
            16 => Self::ScheduleCancel { at: Option::read(buf)? },
            17 => {
                let (market, leverage) = (MarketId::read(buf)?, UInt::<u32>::read(buf)?.0);
                check_leverage(leverage)?;
                Self::SetLeverage { market, leverage }
            }
            18 => {
                let most = limits::MAX_ORDERS_PER_ACTION;
                let orders = read_list(buf, most, MIN_NAMED_BYTES, ORDERS, |buf| {
                    <(MarketId, Name)>::read_cfg(buf, &((), ()))
                })?;
                check_some(&orders)?;
                Self::CancelMany(orders)
            }
            19 => Self::CancelRisk { market: MarketId::read(buf)?, order: Name::read(buf)? },
            other => return Err(Error::InvalidEnum(other)),
        })
    }
}

impl SignedAction {
    /// Whether this value has an encoding.
    pub fn check(&self) -> Result<(), Error> {
        self.action.check()
    }

    /// What the account's owner signs, in [`Domain::Action`](crate::Domain::Action): every byte of the
    /// encoding before the signature.
    pub fn message(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.unsigned_size());
        self.write_unsigned(&mut bytes);
        bytes.freeze()
    }

    fn write_unsigned(&self, buf: &mut impl BufMut) {
        self.chain.write(buf);
        self.account.write(buf);
        self.nonce.write(buf);
        self.expiry.write(buf);
        self.action.write(buf);
    }

    fn unsigned_size(&self) -> usize {
        ChainId::SIZE
            + self.account.encode_size()
            + self.nonce.encode_size()
            + self.expiry.encode_size()
            + self.action.encode_size()
    }
}

impl Write for SignedAction {
    fn write(&self, buf: &mut impl BufMut) {
        self.write_unsigned(buf);
        self.signature.write(buf);
    }
}

impl EncodeSize for SignedAction {
    fn encode_size(&self) -> usize {
        self.unsigned_size() + Signature::SIZE
    }
}

impl MaxEncodeSize for SignedAction {
    const MAX_ENCODE_SIZE: usize = MAX_SIGNED_ACTION_BYTES;
}

impl Read for SignedAction {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self {
            chain: ChainId::read(buf)?,
            account: AccountId::read(buf)?,
            nonce: Nonce::read(buf)?,
            expiry: Height::read(buf)?,
            action: Action::read(buf)?,
            signature: Signature::read(buf)?,
        })
    }
}

// ---------------------------------------------------------------------------------------------
// Prices

impl Write for Mark {
    fn write(&self, buf: &mut impl BufMut) {
        let (last, state) = self.last_known();
        state.write(buf);
        last.write(buf);
        self.updated().write(buf);
    }
}

impl EncodeSize for Mark {
    fn encode_size(&self) -> usize {
        PriceState::SIZE + self.last_known().0.encode_size() + self.updated().encode_size()
    }
}

impl MaxEncodeSize for Mark {
    const MAX_ENCODE_SIZE: usize = MAX_MARK_BYTES;
}

impl Read for Mark {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let state = PriceState::read(buf)?;
        let last = PriceTicks::read(buf)?;
        check_price(last, "Mark::last")?;
        Ok(Self::new(state, last, TimeMs::read(buf)?))
    }
}

impl PriceReport {
    /// Whether this value has an encoding.
    pub fn check(&self) -> Result<(), Error> {
        check_price(self.low, "PriceReport::low")?;
        check_price(self.high, "PriceReport::high")?;
        if self.low > self.high {
            return Err(Error::Invalid("PriceReport", "low is above high"));
        }
        if self.spread.0 > limits::MAX_PRICE_TICKS {
            return Err(Error::Invalid("PriceReport::spread", BEYOND));
        }
        match self.sources {
            0 => Err(Error::Invalid("PriceReport::sources", "no source")),
            1..=limits::MAX_SOURCES => Ok(()),
            _ => Err(Error::Invalid("PriceReport::sources", BEYOND)),
        }
    }
}

impl Write for PriceReport {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "report out of limits: {self:?}");
        self.low.write(buf);
        self.high.write(buf);
        self.spread.write(buf);
        self.sources.write(buf);
    }
}

impl EncodeSize for PriceReport {
    fn encode_size(&self) -> usize {
        self.low.encode_size() + self.high.encode_size() + self.spread.encode_size() + 1
    }
}

impl MaxEncodeSize for PriceReport {
    const MAX_ENCODE_SIZE: usize = MAX_PRICE_REPORT_BYTES;
}

impl Read for PriceReport {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let report = Self {
            low: PriceTicks::read(buf)?,
            high: PriceTicks::read(buf)?,
            spread: PriceTicks::read(buf)?,
            sources: u8::read(buf)?,
        };
        report.check()?;
        Ok(report)
    }
}

// ---------------------------------------------------------------------------------------------
// Observations

impl Write for RescueRef {
    fn write(&self, buf: &mut impl BufMut) {
        self.account.write(buf);
        self.nonce.write(buf);
        self.expiry.write(buf);
        self.digest.write(buf);
    }
}

impl EncodeSize for RescueRef {
    fn encode_size(&self) -> usize {
        self.account.encode_size() + self.nonce.encode_size() + self.expiry.encode_size() + Digest::SIZE
    }
}

impl MaxEncodeSize for RescueRef {
    const MAX_ENCODE_SIZE: usize = MAX_RESCUE_REF_BYTES;
}

impl Read for RescueRef {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self {
            account: AccountId::read(buf)?,
            nonce: Nonce::read(buf)?,
            expiry: Height::read(buf)?,
            digest: Digest::read(buf)?,
        })
    }
}

impl Write for OutcomeRef {
    fn write(&self, buf: &mut impl BufMut) {
        UInt(self.zone).write(buf);
        UInt(self.height).write(buf);
        self.digest.write(buf);
    }
}

impl EncodeSize for OutcomeRef {
    fn encode_size(&self) -> usize {
        UInt(self.zone).encode_size() + UInt(self.height).encode_size() + Digest::SIZE
    }
}

impl MaxEncodeSize for OutcomeRef {
    const MAX_ENCODE_SIZE: usize = MAX_OUTCOME_REF_BYTES;
}

impl Read for OutcomeRef {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self {
            zone: UInt::<u16>::read(buf)?.0,
            height: UInt::<u64>::read(buf)?.0,
            digest: Digest::read(buf)?,
        })
    }
}

impl Write for Health {
    fn write(&self, buf: &mut impl BufMut) {
        buf.put_u8(0);
    }
}

impl FixedSize for Health {
    const SIZE: usize = 1;
}

impl Read for Health {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        match u8::read(buf)? {
            0 => Ok(Self {}),
            _ => Err(Error::Invalid("Health", "unknown version")),
        }
    }
}

impl Observation {
    /// Whether this value has an encoding.
    pub fn check(&self) -> Result<(), Error> {
        check_count(self.prices.len(), limits::MAX_MARKETS, PRICES)?;
        let mut markets = Ascending::new(PRICES);
        for (market, report) in &self.prices {
            markets.next(*market)?;
            report.check()?;
        }
        check_count(self.rescues.len(), limits::MAX_RESCUES_PER_OBSERVATION, RESCUES)?;
        let mut names = Ascending::new(RESCUES);
        self.rescues.iter().try_for_each(|name| names.next(*name))?;
        check_count(self.outcomes.len(), limits::MAX_OUTCOMES_PER_OBSERVATION, OUTCOMES)
    }

    /// What the author signs, in [`Domain::Observation`](crate::Domain::Observation): every byte of
    /// the encoding before the signature.
    pub fn message(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.unsigned_size(list_size(&self.rescues)));
        self.write_unsigned(&mut bytes, |buf| write_list(&self.rescues, buf));
        bytes.freeze()
    }

    /// Everything before the signature. What says which rescues are listed differs: see [`RescueTable`].
    fn write_unsigned<B: BufMut>(&self, buf: &mut B, rescues: impl FnOnce(&mut B)) {
        debug_assert!(self.check().is_ok(), "observation out of limits: {:?}", self.check());
        self.chain.write(buf);
        UInt(self.epoch).write(buf);
        UInt(self.view).write(buf);
        UInt(self.seq).write(buf);
        self.time.write(buf);
        write_list(&self.prices, buf);
        rescues(buf);
        write_list(&self.outcomes, buf);
        self.health.write(buf);
        self.author.write(buf);
    }

    fn unsigned_size(&self, rescues: usize) -> usize {
        ChainId::SIZE
            + UInt(self.epoch).encode_size()
            + UInt(self.view).encode_size()
            + UInt(self.seq).encode_size()
            + self.time.encode_size()
            + list_size(&self.prices)
            + rescues
            + list_size(&self.outcomes)
            + Health::SIZE
            + self.author.encode_size()
    }

    fn read_with<B: Buf>(
        buf: &mut B,
        rescues: impl FnOnce(&mut B) -> Result<Vec<RescueRef>, Error>,
    ) -> Result<Self, Error> {
        let chain = ChainId::read(buf)?;
        let epoch = UInt::<u64>::read(buf)?.0;
        let view = UInt::<u64>::read(buf)?.0;
        let seq = UInt::<u64>::read(buf)?.0;
        let time = TimeMs::read(buf)?;
        let mut markets = Ascending::new(PRICES);
        let prices = read_list(buf, limits::MAX_MARKETS, MIN_PRICE_ENTRY_BYTES, PRICES, |buf| {
            let market = MarketId::read(buf)?;
            markets.next(market)?;
            Ok((market, PriceReport::read(buf)?))
        })?;
        let rescues = rescues(buf)?;
        let outcomes = read_list(
            buf,
            limits::MAX_OUTCOMES_PER_OBSERVATION,
            MIN_OUTCOME_REF_BYTES,
            OUTCOMES,
            OutcomeRef::read,
        )?;
        let health = Health::read(buf)?;
        let author = ValidatorId::read(buf)?;
        let signature = Signature::read(buf)?;
        Ok(Self { chain, epoch, view, seq, time, prices, rescues, outcomes, health, author, signature })
    }
}

const PRICES: &str = "Observation::prices";
const RESCUES: &str = "Observation::rescues";
const OUTCOMES: &str = "Observation::outcomes";

impl Write for Observation {
    fn write(&self, buf: &mut impl BufMut) {
        self.write_unsigned(buf, |buf| write_list(&self.rescues, buf));
        self.signature.write(buf);
    }
}

impl EncodeSize for Observation {
    fn encode_size(&self) -> usize {
        self.unsigned_size(list_size(&self.rescues)) + Signature::SIZE
    }
}

impl MaxEncodeSize for Observation {
    const MAX_ENCODE_SIZE: usize = MAX_OBSERVATION_BYTES;
}

impl Read for Observation {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Self::read_with(buf, |buf| {
            let mut names = Ascending::new(RESCUES);
            read_list(buf, limits::MAX_RESCUES_PER_OBSERVATION, MIN_RESCUE_REF_BYTES, RESCUES, |buf| {
                let name = RescueRef::read(buf)?;
                names.next(name)?;
                Ok(name)
            })
        })
    }
}

/// The rescues that the observations of a block list, each once and by ascending name, which is how a block carries
/// them. An observation marks its own in a bitmap, lowest bit first. Most validators hold the same rescues: with a hundred
/// of them this is a tenth of what their lists would be.
struct RescueTable(Vec<RescueRef>);

/// Most rescues that the observations of a block can list.
const MAX_LISTED: usize = limits::MAX_VALIDATORS * limits::MAX_RESCUES_PER_OBSERVATION;

impl RescueTable {
    fn of(observations: &[Observation]) -> Self {
        let mut names: Vec<RescueRef> =
            observations.iter().flat_map(|observation| &observation.rescues).copied().collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    const fn bitmap_bytes(&self) -> usize {
        self.0.len().div_ceil(8)
    }

    fn write_bitmap(&self, rescues: &[RescueRef], buf: &mut impl BufMut) {
        let mut bits = vec![0; self.bitmap_bytes()];
        for name in rescues {
            if let Ok(place) = self.0.binary_search(name) {
                bits[place / 8] |= 1 << (place % 8);
            }
        }
        buf.put_slice(&bits);
    }

    fn read_bitmap(&self, buf: &mut impl Buf, used: &mut [bool]) -> Result<Vec<RescueRef>, Error> {
        let mut rescues = Vec::new();
        for byte in 0..self.bitmap_bytes() {
            let bits = u8::read(buf)?;
            for place in (8 * byte..8 * byte + 8).filter(|place| bits >> (place % 8) & 1 == 1) {
                let name = self.0.get(place).ok_or(Error::Invalid(RESCUES, "a bit beyond the table"))?;
                check_count(rescues.len() + 1, limits::MAX_RESCUES_PER_OBSERVATION, RESCUES)?;
                rescues.push(*name);
                used[place] = true;
            }
        }
        Ok(rescues)
    }
}

// ---------------------------------------------------------------------------------------------
// Blocks

impl OpsTarget {
    /// Whether this value has an encoding.
    pub const fn check(&self) -> Result<(), Error> {
        if self.start >= self.end {
            return Err(Error::Invalid("OpsTarget", "end is not above start"));
        }
        Ok(())
    }
}

impl Write for OpsTarget {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "ops target out of limits: {self:?}");
        self.root.write(buf);
        self.start.write(buf);
        self.end.write(buf);
    }
}

impl FixedSize for OpsTarget {
    const SIZE: usize = Digest::SIZE + u64::SIZE + u64::SIZE;
}

impl Read for OpsTarget {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let target = Self { root: Digest::read(buf)?, start: u64::read(buf)?, end: u64::read(buf)? };
        target.check()?;
        Ok(target)
    }
}

impl Header {
    /// Whether this value has an encoding.
    pub const fn check(&self) -> Result<(), Error> {
        if self.version != VERSION {
            return Err(Error::Invalid("Header", "unknown version"));
        }
        self.ops.check()
    }
}

impl Write for Header {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "header out of limits: {self:?}");
        self.version.write(buf);
        self.chain.write(buf);
        self.epoch.write(buf);
        self.height.0.write(buf);
        self.parent.write(buf);
        self.time.0.write(buf);
        self.body.write(buf);
        self.state_root.write(buf);
        self.ops.write(buf);
        self.outcomes_root.write(buf);
        self.exits_root.write(buf);
    }
}

impl FixedSize for Header {
    const SIZE: usize = 1 + ChainId::SIZE + 3 * u64::SIZE + 5 * Digest::SIZE + OpsTarget::SIZE;
}

impl Read for Header {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let version = u8::read(buf)?;
        if version != VERSION {
            return Err(Error::Invalid("Header", "unknown version"));
        }
        Ok(Self {
            version,
            chain: ChainId::read(buf)?,
            epoch: u64::read(buf)?,
            height: Height(u64::read(buf)?),
            parent: Digest::read(buf)?,
            time: TimeMs(u64::read(buf)?),
            body: Digest::read(buf)?,
            state_root: Digest::read(buf)?,
            ops: OpsTarget::read(buf)?,
            outcomes_root: Digest::read(buf)?,
            exits_root: Digest::read(buf)?,
        })
    }
}

impl Body {
    /// Whether this value has an encoding.
    pub fn check(&self) -> Result<(), Error> {
        check_count(self.observations.len(), limits::MAX_VALIDATORS, OBSERVATIONS)?;
        let mut authors = Ascending::new(OBSERVATIONS);
        for observation in &self.observations {
            authors.next(observation.author)?;
            observation.check()?;
        }
        let weight = self.actions.iter().map(|action| action.action.weight()).sum();
        check_count(weight, limits::MAX_ACTIONS_PER_BLOCK, ACTIONS)?;
        let mut lanes = Lanes::new();
        for action in &self.actions {
            lanes.next(action)?;
            action.check()?;
        }
        check_count(self.outcomes.len(), limits::MAX_OUTCOMES_PER_BLOCK, SETTLED)?;
        let records = self.outcomes.iter().map(ZoneOutcome::records).sum();
        check_count(records, limits::MAX_RECORDS_PER_BLOCK, SETTLED)?;
        let mut places = Ascending::new(SETTLED);
        for own in &self.outcomes {
            places.next(own.place())?;
            own.outcome.form().map_err(|_| Error::Invalid(SETTLED, "not in its one form"))?;
        }
        Ok(())
    }
}

const SETTLED: &str = "Body::outcomes";
const OBSERVATIONS: &str = "Body::observations";
const ACTIONS: &str = "Body::actions";

impl Write for Body {
    fn write(&self, buf: &mut impl BufMut) {
        debug_assert!(self.check().is_ok(), "body out of limits: {:?}", self.check());
        let table = RescueTable::of(&self.observations);
        write_list(&table.0, buf);
        self.observations.len().write(buf);
        for observation in &self.observations {
            observation.write_unsigned(buf, |buf| table.write_bitmap(&observation.rescues, buf));
            observation.signature.write(buf);
        }
        write_list(&self.actions, buf);
        self.parent_proof.is_some().write(buf);
        if let Some(proof) = &self.parent_proof {
            proof.write(buf);
        }
        write_list(&self.outcomes, buf);
    }
}

impl EncodeSize for Body {
    fn encode_size(&self) -> usize {
        let proof = 1 + self.parent_proof.map_or(0, |_| ParentProof::SIZE);
        let table = RescueTable::of(&self.observations);
        let observation = |own: &Observation| own.unsigned_size(table.bitmap_bytes()) + Signature::SIZE;
        let observations = list_size(&table.0)
            + self.observations.len().encode_size()
            + self.observations.iter().map(observation).sum::<usize>();
        observations + list_size(&self.actions) + proof + list_size(&self.outcomes)
    }
}

impl MaxEncodeSize for Body {
    const MAX_ENCODE_SIZE: usize = MAX_BODY_BYTES;
}

impl Read for Body {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let mut names = Ascending::new(RESCUES);
        let table = RescueTable(read_list(buf, MAX_LISTED, MIN_RESCUE_REF_BYTES, RESCUES, |buf| {
            let name = RescueRef::read(buf)?;
            names.next(name)?;
            Ok(name)
        })?);
        let (mut authors, mut used) = (Ascending::new(OBSERVATIONS), vec![false; table.0.len()]);
        let observations =
            // Without the count of its rescues, which is that of the table.
            read_list(buf, limits::MAX_VALIDATORS, MIN_OBSERVATION_BYTES - 1, OBSERVATIONS, |buf| {
                let observation = Observation::read_with(buf, |buf| table.read_bitmap(buf, &mut used))?;
                authors.next(observation.author)?;
                Ok(observation)
            })?;
        if used.contains(&false) {
            return Err(Error::Invalid(RESCUES, "a name that no observation lists"));
        }
        let (mut lanes, mut weight) = (Lanes::new(), 0);
        let actions =
            read_list(buf, limits::MAX_ACTIONS_PER_BLOCK, MIN_SIGNED_ACTION_BYTES, ACTIONS, |buf| {
                let action = SignedAction::read(buf)?;
                lanes.next(&action)?;
                weight += action.action.weight();
                check_count(weight, limits::MAX_ACTIONS_PER_BLOCK, ACTIONS)?;
                Ok(action)
            })?;
        let parent_proof = if bool::read(buf)? { Some(ParentProof::read(buf)?) } else { None };
        let (mut places, mut records) = (Ascending::new(SETTLED), 0);
        let outcomes =
            read_list(buf, limits::MAX_OUTCOMES_PER_BLOCK, MIN_ZONE_OUTCOME_BYTES, SETTLED, |buf| {
                let own = ZoneOutcome::read(buf)?;
                places.next(own.place())?;
                records += own.records();
                check_count(records, limits::MAX_RECORDS_PER_BLOCK, SETTLED)?;
                Ok(own)
            })?;
        Ok(Self { observations, actions, parent_proof, outcomes })
    }
}

impl Write for ParentProof {
    fn write(&self, buf: &mut impl BufMut) {
        self.finalized.write(buf);
        self.signature.write(buf);
    }
}

impl FixedSize for ParentProof {
    const SIZE: usize = 1 + GroupSignature::SIZE;
}

impl Read for ParentProof {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self { finalized: bool::read(buf)?, signature: GroupSignature::read(buf)? })
    }
}

impl Write for ZoneOutcome {
    fn write(&self, buf: &mut impl BufMut) {
        self.zone.write(buf);
        self.voided.write(buf);
        self.outcome.write(buf);
    }
}

impl EncodeSize for ZoneOutcome {
    fn encode_size(&self) -> usize {
        1 + self.voided.encode_size() + self.outcome.encode_size()
    }
}

impl Read for ZoneOutcome {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
        Ok(Self { zone: u8::read(buf)?, voided: Height::read(buf)?, outcome: Outcome::read(buf)? })
    }
}

#[cfg(test)]
mod tests;
