//! The stored form of canonical records.
//!
//! Every number is a varint (zigzag where it can be negative), every list is preceded by its length and
//! bounded, options by one byte. One record has exactly one encoding, because roots are computed over it.
//!
//! The bucket of an account that is not full, and a ration of rescues that is not the default, end their records. Most
//! accounts have a full bucket, and write nothing for it.
//!
//! What an account has reserved is not stored: it follows from orders, positions and marks, and changes for
//! everybody with orders whenever a mark moves. A ledger that is read back computes it.

use crate::store::{StateKey, StateValue, Tag, key};
use bytes::{Buf as _, BufMut as _};
use commonware_codec::{
    Buf, Copying, Error as CodecError, ReadExt as _, Write,
    varint::{SInt, UInt},
};
use seawall_ledger::{
    Account, AccountKind, Bucket, Exit, Globals, Market, NonceRun, Nonces, OpenOrder, Position,
    QuarantineReason, Record, RecordKey, Waiting, ZoneEntry, ZoneInbox, ZoneState,
    params::{
        BackstopParams, FundingParams, LiquidationParams, MarketParams, OrderParams, RescueParams, Symbol,
        TierParams,
    },
};
use seawall_oracle::{Head, MarketOracle, ReporterRow};
use seawall_types::{
    AccountId, Atoms, ChainId, Digest, Entry, FundingIndex, Height, Key, Lots, MarginMode, Mark, MarketId,
    Nonce, OrderId, Ppm, PriceReport, PriceState, PriceTicks, Recipient, Reference, Terms, TimeMs, Trigger,
    limits::{MAX_MARKETS, MAX_NONCE_RUNS, MAX_POSITIONS_PER_ACCOUNT, MAX_TIERS},
};
use std::collections::BTreeMap;

/// Largest stored record, in bytes.
pub const MAX_RECORD_BYTES: usize = 65_536;

/// Entries of a zone's inbox that are kept in one record. They come in one block and go in one block, so a record for
/// each of them would cost the state several times as many writes.
pub const ENTRIES_PER_PAGE: u32 = 64;

/// Where entries of an inbox are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPage {
    /// Zone.
    pub zone: u8,
    /// Height of the inbox: below 2^38.
    pub height: Height,
    /// Which of the inbox: below 2^10.
    pub page: u32,
}

impl EntryPage {
    /// The page of an entry.
    pub fn of(id: OrderId, zone: u8) -> Self {
        Self { zone, height: id.height, page: id.index / ENTRIES_PER_PAGE }
    }

    /// Its index among the records of its kind.
    pub fn index(self) -> u64 {
        u64::from(self.zone) << 48 | self.height.get() << 10 | u64::from(self.page)
    }

    fn at(index: u64) -> Result<Self, CodecError> {
        let zone =
            u8::try_from(index >> 48).map_err(|_| CodecError::Invalid("record", "index out of range"))?;
        Ok(Self { zone, height: Height(index >> 10 & ((1 << 38) - 1)), page: (index & 0x3ff) as u32 })
    }
}

/// What the chain itself keeps in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainRecord {
    /// Root over every exit since genesis.
    pub exits_root: Digest,
    /// Where the oracle is.
    pub oracle: Head,
    /// How many slots for open orders there are.
    pub order_slots: u64,
}

/// A decoded record of any kind.
#[allow(clippy::large_enum_variant)] // Decoded one by one and put where it belongs at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// One of the ledger's.
    Ledger(RecordKey, Record),
    /// Entries of an inbox, by ascending name.
    Entries(Vec<(OrderId, ZoneEntry)>),
    /// One of the oracle's markets.
    MarketOracle(MarketId, MarketOracle),
    /// One of the oracle's reporters.
    Reporter(u16, ReporterRow),
    /// The chain's own.
    Chain(ChainRecord),
}

/// Key of a ledger record. An order has none of its own: it is kept in a [slot](crate::slots). Nor has an entry: it is
/// kept in an [`EntryPage`].
pub fn ledger_key(record: RecordKey) -> Option<StateKey> {
    Some(match record {
        RecordKey::Globals => key(Tag::Globals, 0),
        RecordKey::Market(market) => key(Tag::Market, u64::from(market.get())),
        RecordKey::Account(account) => key(Tag::Account, account.get()),
        RecordKey::Exit(index) => key(Tag::Exit, index),
        RecordKey::Zone(zone) => key(Tag::Zone, u64::from(zone)),
        RecordKey::Inbox(zone, height) => key(Tag::Inbox, inbox_index(zone, height)),
        RecordKey::Entry(_) | RecordKey::Order(_) => return None,
    })
}

/// Key of what is kept in a slot.
pub fn slot_key(slot: u64) -> StateKey {
    key(Tag::Order, slot)
}

/// Index of an inbox.
pub fn inbox_index(zone: u8, height: Height) -> u64 {
    u64::from(zone) << 48 | height.get()
}

/// Key of a page of entries.
pub fn page_key(page: EntryPage) -> StateKey {
    key(Tag::Entry, page.index())
}

/// Encodes a ledger record that has a key of its own.
///
/// # Panics
/// If it is an order or an entry: see [`encode_order`] and [`encode_entries`].
pub fn encode_ledger(record: &Record) -> StateValue {
    let mut out = Vec::with_capacity(160);
    match record {
        Record::Globals(globals) => put_globals(globals, &mut out),
        Record::Market(market) => put_market(market, &mut out),
        Record::Account(account) => put_account(account, &mut out),
        Record::Exit(exit) => put_exit(exit, &mut out),
        Record::Zone(zone) => {
            put_u64(zone.ended.get(), &mut out);
            put_u64(zone.voided.get(), &mut out);
        }
        Record::Inbox(inbox) => put_inbox(inbox, &mut out),
        Record::Entry(_) | Record::Order(_) => panic!("it has no key of its own"),
    }
    assert!(out.len() <= MAX_RECORD_BYTES, "a record of {} bytes could not be read back", out.len());
    out
}

/// Encodes an open order with its name, as it is kept in a slot.
pub fn encode_order(id: OrderId, order: &OpenOrder) -> StateValue {
    let mut out = Vec::with_capacity(64);
    id.write(&mut out);
    put_order(order, &mut out);
    out
}

/// Encodes the entries of a page, by ascending place.
pub fn encode_entries(entries: &[(OrderId, Entry)]) -> StateValue {
    let mut out = Vec::with_capacity(32 * entries.len());
    put_len(entries.len(), &mut out);
    for (id, entry) in entries {
        out.put_u8((id.index % ENTRIES_PER_PAGE) as u8);
        entry.write(&mut out);
    }
    assert!(out.len() <= MAX_RECORD_BYTES, "a page of {} bytes could not be read back", out.len());
    out
}

/// Encodes an oracle market.
pub fn encode_market_oracle(market: &MarketOracle) -> StateValue {
    let mut out = Vec::with_capacity(48);
    put_state(market.state, &mut out);
    put_option(market.last.map(|price| price.get()), &mut out);
    put_u64(market.updated.get(), &mut out);
    put_u64(market.updated_height.get(), &mut out);
    put_option(market.blind_since.map(|time| time.get()), &mut out);
    market.must_reopen.write(&mut out);
    put_option(market.grace_since.map(|time| time.get()), &mut out);
    put_option(market.disputed.map(|price| price.get()), &mut out);
    put_option(market.reopened.map(|time| time.get()), &mut out);
    out
}

/// Encodes a reporter row.
pub fn encode_reporter(row: &ReporterRow) -> StateValue {
    let mut out = Vec::with_capacity(16 + row.reports.len() * 12);
    put_option(row.seq, &mut out);
    put_u64(row.height.get(), &mut out);
    put_u64(row.time.get(), &mut out);
    put_len(row.reports.len(), &mut out);
    for report in &row.reports {
        report.is_some().write(&mut out);
        if let Some(report) = report {
            report.write(&mut out);
        }
    }
    out
}

/// Encodes the chain's record.
pub fn encode_chain(record: &ChainRecord) -> StateValue {
    let mut out = Vec::with_capacity(64);
    record.exits_root.write(&mut out);
    put_u64(record.oracle.height.get(), &mut out);
    put_u64(record.oracle.time.get(), &mut out);
    put_u64(record.oracle.running_since.get(), &mut out);
    put_u64(record.order_slots, &mut out);
    out
}

/// Decodes the record under a key.
pub fn decode(tag: Tag, index: u64, bytes: &[u8]) -> Result<Stored, CodecError> {
    let narrow =
        |index: u64| u16::try_from(index).map_err(|_| CodecError::Invalid("record", "index out of range"));
    let byte =
        |index: u64| u8::try_from(index).map_err(|_| CodecError::Invalid("record", "index out of range"));
    let mut buf = Copying(bytes);
    let stored = match tag {
        Tag::Globals => Stored::Ledger(RecordKey::Globals, Record::Globals(get_globals(&mut buf)?)),
        Tag::Market => {
            let market = MarketId(narrow(index)?);
            Stored::Ledger(RecordKey::Market(market), Record::Market(Box::new(get_market(&mut buf)?)))
        }
        Tag::Account => {
            Stored::Ledger(RecordKey::Account(AccountId(index)), Record::Account(get_account(&mut buf)?))
        }
        Tag::Exit => Stored::Ledger(RecordKey::Exit(index), Record::Exit(get_exit(&mut buf)?)),
        Tag::Zone => {
            let zone = ZoneState { ended: Height(get_u64(&mut buf)?), voided: Height(get_u64(&mut buf)?) };
            Stored::Ledger(RecordKey::Zone(byte(index)?), Record::Zone(zone))
        }
        Tag::Inbox => {
            let key = RecordKey::Inbox(byte(index >> 48)?, Height(index & ((1 << 48) - 1)));
            Stored::Ledger(key, Record::Inbox(get_inbox(&mut buf)?))
        }
        Tag::Entry => {
            let EntryPage { zone, height, page } = EntryPage::at(index)?;
            let mut entries: Vec<(OrderId, ZoneEntry)> = Vec::new();
            for _ in 0..get_len(&mut buf, ENTRIES_PER_PAGE as usize, "too many entries")? {
                let place = u32::from(u8::read(&mut buf)?);
                let id = OrderId { height, index: page * ENTRIES_PER_PAGE + place };
                if place >= ENTRIES_PER_PAGE || entries.last().is_some_and(|(last, _)| *last >= id) {
                    return Err(CodecError::Invalid("record", "entries out of order"));
                }
                entries.push((id, ZoneEntry { zone, entry: Entry::read(&mut buf)? }));
            }
            if entries.is_empty() {
                return Err(CodecError::Invalid("record", "a page without entries"));
            }
            Stored::Entries(entries)
        }
        Tag::Order => {
            let id = OrderId::read(&mut buf)?;
            Stored::Ledger(RecordKey::Order(id), Record::Order(get_order(&mut buf)?))
        }
        Tag::MarketOracle => Stored::MarketOracle(MarketId(narrow(index)?), get_market_oracle(&mut buf)?),
        Tag::Reporter => Stored::Reporter(narrow(index)?, get_reporter(&mut buf)?),
        Tag::Chain => Stored::Chain(ChainRecord {
            exits_root: Digest::read(&mut buf)?,
            oracle: Head {
                height: Height(get_u64(&mut buf)?),
                time: TimeMs(get_u64(&mut buf)?),
                running_since: TimeMs(get_u64(&mut buf)?),
            },
            order_slots: get_u64(&mut buf)?,
        }),
    };
    if buf.has_remaining() {
        return Err(CodecError::ExtraData(buf.remaining()));
    }
    Ok(stored)
}

/// Decodes an exit, for proofs and inspection.
pub fn decode_exit(bytes: &[u8]) -> Result<Exit, CodecError> {
    let mut buf = Copying(bytes);
    get_exit(&mut buf)
}

fn put_u64(value: u64, out: &mut Vec<u8>) {
    UInt(value).write(out);
}

fn get_u64(buf: &mut impl Buf) -> Result<u64, CodecError> {
    Ok(UInt::<u64>::read(buf)?.0)
}

fn put_i64(value: i64, out: &mut Vec<u8>) {
    SInt(value).write(out);
}

fn get_i64(buf: &mut impl Buf) -> Result<i64, CodecError> {
    Ok(SInt::<i64>::read(buf)?.0)
}

fn put_i128(value: i128, out: &mut Vec<u8>) {
    SInt(value).write(out);
}

fn get_i128(buf: &mut impl Buf) -> Result<i128, CodecError> {
    Ok(SInt::<i128>::read(buf)?.0)
}

fn get_u32(buf: &mut impl Buf) -> Result<u32, CodecError> {
    Ok(UInt::<u32>::read(buf)?.0)
}

fn get_u16(buf: &mut impl Buf) -> Result<u16, CodecError> {
    Ok(UInt::<u16>::read(buf)?.0)
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    UInt(u32::try_from(len).expect("every list is bounded")).write(out);
}

fn get_len(buf: &mut impl Buf, max: usize, what: &'static str) -> Result<usize, CodecError> {
    let len = get_u32(buf)? as usize;
    if len > max { Err(CodecError::Invalid("record", what)) } else { Ok(len) }
}

fn put_option(value: Option<u64>, out: &mut Vec<u8>) {
    value.is_some().write(out);
    if let Some(value) = value {
        put_u64(value, out);
    }
}

fn get_option(buf: &mut impl Buf) -> Result<Option<u64>, CodecError> {
    Ok(if bool::read(buf)? { Some(get_u64(buf)?) } else { None })
}

fn put_state(state: PriceState, out: &mut Vec<u8>) {
    let byte: u8 = match state {
        PriceState::Fresh => 0,
        PriceState::Stale => 1,
        PriceState::Disputed => 2,
        PriceState::Reopening => 3,
        PriceState::Quarantined => 4,
    };
    byte.write(out);
}

fn get_state(buf: &mut impl Buf) -> Result<PriceState, CodecError> {
    Ok(match u8::read(buf)? {
        0 => PriceState::Fresh,
        1 => PriceState::Stale,
        2 => PriceState::Disputed,
        3 => PriceState::Reopening,
        4 => PriceState::Quarantined,
        other => return Err(CodecError::InvalidEnum(other)),
    })
}

fn put_mode(mode: MarginMode, out: &mut Vec<u8>) {
    matches!(mode, MarginMode::Isolated).write(out);
}

fn get_mode(buf: &mut impl Buf) -> Result<MarginMode, CodecError> {
    Ok(if bool::read(buf)? { MarginMode::Isolated } else { MarginMode::Cross })
}

fn put_globals(globals: &Globals, out: &mut Vec<u8>) {
    put_u64(globals.chain.get(), out);
    put_u64(globals.issuer.get(), out);
    UInt(globals.liquidation_steps).write(out);
    UInt(globals.max_wait_blocks).write(out);
    put_u64(globals.height.get(), out);
    put_u64(globals.time.get(), out);
    put_i128(globals.supply.get(), out);
    put_i128(globals.insurance.get(), out);
    put_i128(globals.uncovered.get(), out);
    put_u64(globals.accounts, out);
    put_u64(globals.exits, out);
    if globals.rescues != RescueParams::default() {
        put_rescues(&globals.rescues, out);
    }
}

fn get_globals(buf: &mut impl Buf) -> Result<Globals, CodecError> {
    Ok(Globals {
        chain: ChainId(get_u64(buf)?),
        issuer: AccountId(get_u64(buf)?),
        liquidation_steps: get_u32(buf)?,
        max_wait_blocks: get_u32(buf)?,
        height: Height(get_u64(buf)?),
        time: TimeMs(get_u64(buf)?),
        supply: Atoms(get_i128(buf)?),
        insurance: Atoms(get_i128(buf)?),
        uncovered: Atoms(get_i128(buf)?),
        accounts: get_u64(buf)?,
        exits: get_u64(buf)?,
        rescues: if buf.has_remaining() { get_rescues(buf)? } else { RescueParams::default() },
    })
}

fn put_rescues(rescues: &RescueParams, out: &mut Vec<u8>) {
    UInt(rescues.base_tokens).write(out);
    UInt(rescues.pool_tokens).write(out);
    UInt(rescues.account_tokens).write(out);
    UInt(rescues.flat_tokens).write(out);
    UInt(rescues.issuer_tokens).write(out);
    UInt(rescues.refill_blocks).write(out);
    UInt(rescues.reserve_blocks).write(out);
    put_i128(rescues.min_transfer.get(), out);
}

fn get_rescues(buf: &mut impl Buf) -> Result<RescueParams, CodecError> {
    let rescues = RescueParams {
        base_tokens: get_u32(buf)?,
        pool_tokens: get_u32(buf)?,
        account_tokens: get_u32(buf)?,
        flat_tokens: get_u32(buf)?,
        issuer_tokens: get_u32(buf)?,
        refill_blocks: get_u32(buf)?,
        reserve_blocks: get_u32(buf)?,
        min_transfer: Atoms(get_i128(buf)?),
    };
    if rescues == RescueParams::default() {
        return Err(CodecError::Invalid("Globals", "a ration that goes without saying"));
    }
    Ok(rescues)
}

fn put_params(params: &MarketParams, out: &mut Vec<u8>) {
    let symbol = params.symbol.as_str();
    put_len(symbol.len(), out);
    out.put_slice(symbol.as_bytes());
    UInt(params.atoms_per_tick_lot).write(out);
    put_u64(params.min_price.get(), out);
    put_u64(params.max_price.get(), out);
    put_len(params.tiers.len(), out);
    for tier in &params.tiers {
        put_i128(tier.up_to_notional.get(), out);
        UInt(tier.initial_ppm.get()).write(out);
        UInt(tier.maintenance_ppm.get()).write(out);
    }
    UInt(params.taker_fee_ppm.get()).write(out);
    UInt(params.maker_fee_ppm.get()).write(out);
    put_u64(params.funding.interval_ms, out);
    UInt(params.funding.cap_ppm.get()).write(out);
    SInt(params.funding.interest_ppm).write(out);
    UInt(params.band_ppm.get()).write(out);
    UInt(params.blind_range_ppm.get()).write(out);
    put_i64(params.open_interest_cap.get(), out);
    put_i64(params.account_cap.get(), out);
    params.isolated_only.write(out);
    UInt(params.liquidation.penalty_ppm.get()).write(out);
    put_i128(params.backstop.initial_fund.get(), out);
    put_i64(params.backstop.capacity_lots.get(), out);
    put_i64(params.backstop.per_block_lots.get(), out);
    UInt(u16::from(params.orders.zone)).write(out);
    put_i64(params.orders.min_lots.get(), out);
    UInt(params.orders.max_per_account).write(out);
    UInt(params.orders.void_after).write(out);
    UInt(params.orders.late_after).write(out);
    UInt(params.orders.shed_after).write(out);
    UInt(params.orders.max_records).write(out);
    UInt(params.orders.max_activations).write(out);
}

fn get_params(buf: &mut impl Buf) -> Result<MarketParams, CodecError> {
    let len = get_len(buf, Symbol::MAX_LEN, "symbol too long")?;
    if buf.remaining() < len {
        return Err(CodecError::EndOfBuffer);
    }
    let mut bytes = vec![0; len];
    buf.copy_to_slice(&mut bytes);
    let symbol = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(CodecError::Invalid("record", "symbol"))?;
    let atoms_per_tick_lot = get_u32(buf)?;
    let min_price = PriceTicks(get_u64(buf)?);
    let max_price = PriceTicks(get_u64(buf)?);
    let tiers = (0..get_len(buf, MAX_TIERS, "too many tiers")?)
        .map(|_| {
            Ok(TierParams {
                up_to_notional: Atoms(get_i128(buf)?),
                initial_ppm: Ppm(get_u32(buf)?),
                maintenance_ppm: Ppm(get_u32(buf)?),
            })
        })
        .collect::<Result<_, CodecError>>()?;
    Ok(MarketParams {
        symbol,
        atoms_per_tick_lot,
        min_price,
        max_price,
        tiers,
        taker_fee_ppm: Ppm(get_u32(buf)?),
        maker_fee_ppm: Ppm(get_u32(buf)?),
        funding: FundingParams {
            interval_ms: get_u64(buf)?,
            cap_ppm: Ppm(get_u32(buf)?),
            interest_ppm: SInt::<i32>::read(buf)?.0,
        },
        band_ppm: Ppm(get_u32(buf)?),
        blind_range_ppm: Ppm(get_u32(buf)?),
        open_interest_cap: Lots(get_i64(buf)?),
        account_cap: Lots(get_i64(buf)?),
        isolated_only: bool::read(buf)?,
        liquidation: LiquidationParams { penalty_ppm: Ppm(get_u32(buf)?) },
        backstop: BackstopParams {
            initial_fund: Atoms(get_i128(buf)?),
            capacity_lots: Lots(get_i64(buf)?),
            per_block_lots: Lots(get_i64(buf)?),
        },
        orders: OrderParams {
            zone: u8::try_from(get_u16(buf)?).map_err(|_| CodecError::Invalid("record", "zone"))?,
            min_lots: Lots(get_i64(buf)?),
            max_per_account: get_u16(buf)?,
            void_after: get_u32(buf)?,
            late_after: get_u32(buf)?,
            shed_after: get_u32(buf)?,
            max_records: get_u32(buf)?,
            max_activations: get_u16(buf)?,
        },
    })
}

fn put_market(market: &Market, out: &mut Vec<u8>) {
    put_params(&market.params, out);
    market.mark.is_some().write(out);
    if let Some(mark) = &market.mark {
        mark.write(out);
    }
    put_i128(market.funding_index.get(), out);
    put_i128(market.funding_pool.get(), out);
    put_u64(market.funding_dust, out);
    put_i64(market.open_interest.get(), out);
    put_u64(market.backstop.get(), out);
    put_option(market.quarantined.map(|(height, _)| height.get()), out);
    if let Some((_, reason)) = market.quarantined {
        let byte: u8 = match reason {
            QuarantineReason::UncoveredDeficit => 0,
        };
        byte.write(out);
    }
}

fn get_market(buf: &mut impl Buf) -> Result<Market, CodecError> {
    let params = get_params(buf)?;
    let mark = if bool::read(buf)? { Some(Mark::read(buf)?) } else { None };
    Ok(Market {
        params,
        mark,
        funding_index: FundingIndex(get_i128(buf)?),
        funding_pool: Atoms(get_i128(buf)?),
        funding_dust: get_u64(buf)?,
        open_interest: Lots(get_i64(buf)?),
        backstop: AccountId(get_u64(buf)?),
        quarantined: match get_option(buf)? {
            None => None,
            Some(height) => {
                let reason = match u8::read(buf)? {
                    0 => QuarantineReason::UncoveredDeficit,
                    other => return Err(CodecError::InvalidEnum(other)),
                };
                Some((Height(height), reason))
            }
        },
    })
}

fn put_account(account: &Account, out: &mut Vec<u8>) {
    account.owner.write(out);
    let (kind, market): (u8, u16) = match account.kind {
        AccountKind::User => (0, 0),
        AccountKind::Issuer => (1, 0),
        AccountKind::Backstop(market) => (2, market.get()),
    };
    kind.write(out);
    if kind == 2 {
        UInt(market).write(out);
    }
    put_i128(account.collateral.get(), out);
    put_len(account.positions.len(), out);
    for position in &account.positions {
        UInt(position.market.get()).write(out);
        put_i64(position.lots.get(), out);
        put_i128(position.cost.get(), out);
        put_i128(position.funding_entry.get(), out);
        put_mode(position.mode, out);
        put_i128(position.isolated.get(), out);
        put_option(position.breached.map(Height::get), out);
    }
    put_len(account.isolated.len(), out);
    for market in &account.isolated {
        UInt(market.get()).write(out);
    }
    put_len(account.nonces.runs().len(), out);
    for NonceRun { expiry, first, last } in account.nonces.runs() {
        put_u64(expiry.get(), out);
        put_u64(first.get(), out);
        put_u64(last.get(), out);
    }
    put_option(account.breached.map(Height::get), out);
    put_len(account.leverage.len(), out);
    for (market, leverage) in &account.leverage {
        UInt(market.get()).write(out);
        UInt(*leverage).write(out);
    }
    put_option(account.cancel_at.map(TimeMs::get), out);
    if let Some(Bucket { parts, at }) = account.tokens {
        UInt(parts).write(out);
        put_u64(at.get(), out);
    }
}

fn get_account(buf: &mut impl Buf) -> Result<Account, CodecError> {
    let owner = Key::read(buf)?;
    let kind = match u8::read(buf)? {
        0 => AccountKind::User,
        1 => AccountKind::Issuer,
        2 => AccountKind::Backstop(MarketId(get_u16(buf)?)),
        other => return Err(CodecError::InvalidEnum(other)),
    };
    let collateral = Atoms(get_i128(buf)?);
    // A protocol account may hold what it took over in every market.
    let positions = (0..get_len(buf, MAX_POSITIONS_PER_ACCOUNT.max(MAX_MARKETS), "too many positions")?)
        .map(|_| {
            Ok(Position {
                market: MarketId(get_u16(buf)?),
                lots: Lots(get_i64(buf)?),
                cost: Atoms(get_i128(buf)?),
                funding_entry: FundingIndex(get_i128(buf)?),
                mode: get_mode(buf)?,
                isolated: Atoms(get_i128(buf)?),
                breached: get_option(buf)?.map(Height),
            })
        })
        .collect::<Result<_, CodecError>>()?;
    let isolated = (0..get_len(buf, MAX_MARKETS, "too many isolated markets")?)
        .map(|_| Ok(MarketId(get_u16(buf)?)))
        .collect::<Result<_, CodecError>>()?;
    let runs = (0..get_len(buf, MAX_NONCE_RUNS, "too many nonces")?)
        .map(|_| {
            let (expiry, first, last) = (Height(get_u64(buf)?), Nonce(get_u64(buf)?), Nonce(get_u64(buf)?));
            Ok(NonceRun { expiry, first, last })
        })
        .collect::<Result<_, CodecError>>()?;
    let nonces = Nonces::from_runs(runs).ok_or(CodecError::Invalid("Account", "nonces out of order"))?;
    let breached = get_option(buf)?.map(Height);
    let leverage = (0..get_len(buf, MAX_MARKETS, "too many leverages")?)
        .map(|_| Ok((MarketId(get_u16(buf)?), get_u32(buf)?)))
        .collect::<Result<_, CodecError>>()?;
    let cancel_at = get_option(buf)?.map(TimeMs);
    let tokens = if buf.has_remaining() {
        Some(Bucket { parts: get_u32(buf)?, at: Height(get_u64(buf)?) })
    } else {
        None
    };
    Ok(Account {
        owner,
        kind,
        collateral,
        reserved: Atoms::ZERO,
        positions,
        isolated,
        nonces,
        breached,
        leverage,
        cancel_at,
        tokens,
    })
}

fn put_inbox(inbox: &ZoneInbox, out: &mut Vec<u8>) {
    put_len(inbox.references.len(), out);
    for (market, reference) in &inbox.references {
        market.write(out);
        reference.write(out);
    }
    UInt(inbox.parts).write(out);
    UInt(inbox.end).write(out);
    inbox.salt.is_some().write(out);
    if let Some(salt) = &inbox.salt {
        salt.write(out);
    }
}

fn get_inbox(buf: &mut impl Buf) -> Result<ZoneInbox, CodecError> {
    let mut references = BTreeMap::new();
    for _ in 0..get_len(buf, MAX_MARKETS, "too many references")? {
        let market = MarketId::read(buf)?;
        if references.last_key_value().is_some_and(|(last, _)| *last >= market) {
            return Err(CodecError::Invalid("ZoneInbox", "references out of order"));
        }
        references.insert(market, Reference::read(buf)?);
    }
    let (parts, end) = (get_u32(buf)?, get_u32(buf)?);
    let salt = if bool::read(buf)? { Some(<[u8; 32]>::read(buf)?) } else { None };
    Ok(ZoneInbox { references, parts, end, salt })
}

fn put_order(order: &OpenOrder, out: &mut Vec<u8>) {
    put_u64(order.account.get(), out);
    order.terms.write(out);
    put_i64(order.spent.get(), out);
    put_option(order.slid.map(PriceTicks::get), out);
    order.ended.write(out);
    put_option(order.leaving.map(Height::get), out);
    order.waiting.is_some().write(out);
    if let Some(waiting) = &order.waiting {
        waiting.trigger.write(out);
        put_option(waiting.crossed.map(Height::get), out);
    }
}

fn get_order(buf: &mut impl Buf) -> Result<OpenOrder, CodecError> {
    Ok(OpenOrder {
        account: AccountId(get_u64(buf)?),
        terms: Terms::read(buf)?,
        spent: Lots(get_i64(buf)?),
        slid: get_option(buf)?.map(PriceTicks),
        ended: bool::read(buf)?,
        leaving: get_option(buf)?.map(Height),
        waiting: if bool::read(buf)? {
            Some(Waiting { trigger: Trigger::read(buf)?, crossed: get_option(buf)?.map(Height) })
        } else {
            None
        },
    })
}

fn put_exit(exit: &Exit, out: &mut Vec<u8>) {
    put_u64(exit.account.get(), out);
    exit.recipient.write(out);
    put_i128(exit.amount.get(), out);
    put_u64(exit.height.get(), out);
}

fn get_exit(buf: &mut impl Buf) -> Result<Exit, CodecError> {
    Ok(Exit {
        account: AccountId(get_u64(buf)?),
        recipient: Recipient::read(buf)?,
        amount: Atoms(get_i128(buf)?),
        height: Height(get_u64(buf)?),
    })
}

fn get_market_oracle(buf: &mut impl Buf) -> Result<MarketOracle, CodecError> {
    Ok(MarketOracle {
        state: get_state(buf)?,
        last: get_option(buf)?.map(PriceTicks),
        updated: TimeMs(get_u64(buf)?),
        updated_height: Height(get_u64(buf)?),
        blind_since: get_option(buf)?.map(TimeMs),
        must_reopen: bool::read(buf)?,
        grace_since: get_option(buf)?.map(TimeMs),
        disputed: get_option(buf)?.map(PriceTicks),
        reopened: get_option(buf)?.map(TimeMs),
    })
}

fn get_reporter(buf: &mut impl Buf) -> Result<ReporterRow, CodecError> {
    let seq = get_option(buf)?;
    let height = Height(get_u64(buf)?);
    let time = TimeMs(get_u64(buf)?);
    let reports = (0..get_len(buf, MAX_MARKETS, "too many reports")?)
        .map(|_| Ok(if bool::read(buf)? { Some(PriceReport::read(buf)?) } else { None }))
        .collect::<Result<_, CodecError>>()?;
    Ok(ReporterRow { seq, height, time, reports })
}
