//! A recorded order flow: what was placed, cancelled and traded, relative to where the market stood.
//!
//! The recording is 344 seconds of Binance's USD-margined BTCUSDT perpetual, a calm stretch of 8 August 2024. How
//! orders were found in it, and what cannot be known, is in [`rebuild`](crate::rebuild); the command that made the
//! file is `cargo run --release -p seawall-replay --example tape`, and `PROVENANCE.md` beside it says the rest.
//!
//! Prices are whole USD cells, sizes thousandths of a BTC. Neither means anything in another market, so players of
//! the tape use a price only through its distance from the [`Middle`](What::Middle) at the time ([`offset_ppm`]),
//! and a size only as a share of the [`depth`](Tape::depth) that stood on a side of the book on average.
//!
//! `tape.csv.gz`: `offset_ms,event,side,price,size`, in the order in which things happened.
//! * `event`: `trade`, `middle`, `cancel`, `place`;
//! * `side`: that of what rests, `bid` or `ask`; empty for a middle;
//! * `price`: the cell, USD; of a middle twice the middle, in steps of 0.1 USD;
//! * `size`: thousandths of a BTC; empty for a middle.
//!
//! `books.csv.gz`: `offset_ms,side,price,size`: the whole book in range at the start, after every minute, and at the
//! end, read from the recorded levels and not from the events.

use crate::{
    ReplayError,
    bars::{Source, malformed, read_rows},
    rebuild::{Level, STEPS_PER_CELL, What},
};
use seawall_types::Side;
use std::{collections::BTreeMap, sync::LazyLock};

/// Columns of `tape.csv.gz`.
pub const TAPE_COLUMNS: [&str; 5] = ["offset_ms", "event", "side", "price", "size"];
/// Columns of `books.csv.gz`.
pub const BOOK_COLUMNS: [&str; 4] = ["offset_ms", "side", "price", "size"];
/// Most events of a tape.
pub const MAX_EVENTS: usize = 4_000_000;
/// Most levels of all books of a tape together.
pub const MAX_BOOK_LEVELS: usize = 100_000;
/// Longest tape.
pub const MAX_LENGTH_MS: u32 = 60 * 60 * 1000;

const PPM: i64 = 1_000_000;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in ms since the start.
    pub offset_ms: u32,
    /// What.
    pub what: What,
}

/// A checked tape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tape {
    /// Everything that happened, in order. The first event is a middle.
    pub events: Vec<Event>,
    /// Books by the time at which they stood; the first is that of the start, the last that of the end.
    pub books: BTreeMap<u32, BTreeMap<Level, u64>>,
    /// What stood on a side on average over the books, in thousandths of a BTC; positive.
    pub depth: u64,
    /// Origin, licence note, columns, units, rows and checksums.
    pub provenance: &'static str,
}

/// Distance of a level from a middle, in parts per million of the middle, rounded towards zero.
pub fn offset_ppm(level: Level, middle: u32) -> i64 {
    let price = i64::from(level.price) * 2 * STEPS_PER_CELL as i64;
    let middle = i64::from(middle.max(1));
    (price - middle) * PPM / middle
}

impl Tape {
    /// The tape that every binary carries.
    pub fn embedded() -> &'static Self {
        static TAPE: LazyLock<Tape> = LazyLock::new(|| {
            let source =
                |name: &str, bytes: &'static [u8]| Source { name: name.to_owned(), bytes: bytes.into() };
            let tape = source(
                "tape-2024-08-08/tape.csv.gz",
                include_bytes!("../../../data/books/tape-2024-08-08/tape.csv.gz"),
            );
            let books = source(
                "tape-2024-08-08/books.csv.gz",
                include_bytes!("../../../data/books/tape-2024-08-08/books.csv.gz"),
            );
            let provenance = include_str!("../../../data/books/tape-2024-08-08/PROVENANCE.md");
            // Embedded bytes cannot change after the tests have read all of them.
            Tape::read(&tape, &books, provenance).expect("the embedded tape reads")
        });
        &TAPE
    }

    /// Reads and checks a tape.
    ///
    /// # Errors
    /// The first broken rule, with file, line and reason.
    pub fn read(
        tape: &Source<'_>,
        books: &Source<'_>,
        provenance: &'static str,
    ) -> Result<Self, ReplayError> {
        let mut events: Vec<Event> = Vec::new();
        read_rows(tape, &TAPE_COLUMNS, |row| {
            if events.len() == MAX_EVENTS {
                return Err(format!("more than {MAX_EVENTS} events"));
            }
            let offset_ms = offset(&row[0])?;
            if events.last().is_some_and(|last| last.offset_ms > offset_ms) {
                return Err(format!("offset_ms {offset_ms} comes before the last one"));
            }
            let what = match &row[1] {
                "middle" if row[2].is_empty() && row[4].is_empty() => {
                    What::Middle(positive(&row[3], "price")?)
                }
                "trade" => What::Trade(level(&row[2], &row[3])?, positive(&row[4], "size")?),
                "cancel" => What::Cancel(level(&row[2], &row[3])?, positive(&row[4], "size")?),
                "place" => What::Place(level(&row[2], &row[3])?, positive(&row[4], "size")?),
                event => return Err(format!("event: {event:?} is none, or has a field too many")),
            };
            if events.is_empty() && !matches!(what, What::Middle(_)) {
                return Err("the first event is not a middle".to_owned());
            }
            events.push(Event { offset_ms, what });
            Ok(())
        })?;
        let mut found: BTreeMap<u32, BTreeMap<Level, u64>> = BTreeMap::new();
        let mut levels = 0;
        read_rows(books, &BOOK_COLUMNS, |row| {
            levels += 1;
            if levels > MAX_BOOK_LEVELS {
                return Err(format!("more than {MAX_BOOK_LEVELS} levels"));
            }
            let size = u64::from(positive(&row[3], "size")?);
            let level = level(&row[1], &row[2])?;
            match found.entry(offset(&row[0])?).or_default().insert(level, size) {
                None => Ok(()),
                Some(_) => Err(format!("{level:?} is listed twice")),
            }
        })?;
        let depth = found.values().flat_map(BTreeMap::values).sum::<u64>() / (2 * found.len().max(1) as u64);
        let last = events.last().map_or(0, |event| event.offset_ms);
        if !found.contains_key(&0) || found.last_key_value().is_none_or(|(end, _)| *end <= last) || depth == 0
        {
            return Err(malformed(&books.name, 0, "no book of the start, or none after the end".to_owned()));
        }
        Ok(Self { events, books: found, depth, provenance })
    }

    /// How long it is: when its last book stood.
    pub fn length_ms(&self) -> u32 {
        self.books.last_key_value().map_or(1, |(end, _)| *end)
    }
}

fn offset(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(offset) if offset <= MAX_LENGTH_MS => Ok(offset),
        _ => Err(format!("offset_ms: {text:?} is not a whole number up to {MAX_LENGTH_MS}")),
    }
}

fn positive(text: &str, column: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(format!("{column}: {text:?} is not a positive whole number")),
    }
}

fn level(side: &str, price: &str) -> Result<Level, String> {
    let side = match side {
        "bid" => Side::Buy,
        "ask" => Side::Sell,
        _ => return Err(format!("side: {side:?} is neither bid nor ask")),
    };
    Ok(Level { side, price: positive(price, "price")? })
}
