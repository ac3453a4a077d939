//! Makes the order tape in `data/books/tape-2024-08-08` from the raw recording that its `PROVENANCE.md` names.
//!
//! ```sh
//! cargo run --release -p seawall-replay --example tape -- btcusdt_20240808.gz data/books/tape-2024-08-08
//! ```
//!
//! The raw file holds lines `NANOSECONDS JSON`: messages of the streams `depth@0ms`, `trade` and `bookTicker`, and one
//! REST snapshot. The snapshot and the changes of depth after it make the book, as the venue documents it: changes up
//! to the snapshot are dropped, and each of the others must name the one before it. The best prices of `bookTicker`
//! are not used: they run ahead of the depth.
//!
//! The same input gives the same rows. What packs them may pack them otherwise in another version.

use flate2::{Compression, GzBuilder, read::MultiGzDecoder, write::GzEncoder};
use seawall_replay::{
    rebuild::{Level, Rebuild, What},
    tape::{BOOK_COLUMNS, TAPE_COLUMNS},
};
use seawall_types::Side;
use serde_json::Value;
use std::{
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
};

/// Length of a frame: below the interval of a block, so that no block sees less than happened.
const FRAME_MS: u64 = 100;
/// Time between two books that are written.
const BOOK_MS: u64 = 60_000;
/// How far beyond the extremes of the middle levels are kept, in parts per million.
const WINDOW_PPM: u64 = 2_500;

/// What rests: a side, a price and a size, in the steps of the market.
type Resting = (Side, u64, u64);

/// A change of depth: a time, and what rests at some prices.
struct Change {
    time_ms: u64,
    first: u64,
    last: u64,
    previous: u64,
    levels: Vec<Resting>,
}

/// A trade, by the side of what rested.
struct Trade {
    time_ms: u64,
    side: Side,
    price: u64,
    size: u64,
}

fn integer(value: &Value, field: &str) -> Result<u64, Box<dyn Error>> {
    value[field].as_u64().ok_or_else(|| format!("no whole number {field} in {value}").into())
}

/// A decimal with `decimals` digits after its point, as a whole number of its last digit.
fn scaled(value: &Value, decimals: usize) -> Result<u64, Box<dyn Error>> {
    let text = value.as_str().ok_or("a number is not text")?;
    let (whole, fraction) = text.split_once('.').ok_or("a number without a point")?;
    if fraction.len() != decimals {
        return Err(format!("{text}: not {decimals} decimals").into());
    }
    Ok(format!("{whole}{fraction}").parse()?)
}

/// A price in steps of 0.1 USD, the tick of the market; it is written with two decimals.
fn price(value: &Value) -> Result<u64, Box<dyn Error>> {
    let cents = scaled(value, 2)?;
    if cents % 10 == 0 { Ok(cents / 10) } else { Err(format!("{value} is not on the tick").into()) }
}

fn levels(message: &Value, bids: &str, asks: &str) -> Result<Vec<Resting>, Box<dyn Error>> {
    let mut levels = Vec::new();
    for (side, field) in [(Side::Buy, bids), (Side::Sell, asks)] {
        for level in message[field].as_array().ok_or("no levels")? {
            levels.push((side, price(&level[0])?, scaled(&level[1], 3)?));
        }
    }
    Ok(levels)
}

fn packed(path: &Path) -> Result<GzEncoder<File>, Box<dyn Error>> {
    Ok(GzBuilder::new().mtime(0).write(File::create(path)?, Compression::best()))
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Buy => "bid",
        Side::Sell => "ask",
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(raw), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tape RAW.gz DIRECTORY".into());
    };
    let (mut changes, mut trades, mut snapshot) = (Vec::new(), Vec::new(), None);
    for line in BufReader::new(MultiGzDecoder::new(File::open(&raw)?)).lines() {
        let line = line?;
        let (_, json) = line.split_once(' ').ok_or("a line without a time")?;
        let message: Value = serde_json::from_str(json)?;
        let data = &message["data"];
        match data["e"].as_str() {
            Some("depthUpdate") => changes.push(Change {
                time_ms: integer(data, "T")?,
                first: integer(data, "U")?,
                last: integer(data, "u")?,
                previous: integer(data, "pu")?,
                levels: levels(data, "b", "a")?,
            }),
            Some("trade") => trades.push(Trade {
                time_ms: integer(data, "T")?,
                // `m`: the buyer rested.
                side: if data["m"].as_bool() == Some(true) { Side::Buy } else { Side::Sell },
                price: price(&data["p"])?,
                size: scaled(&data["q"], 3)?,
            }),
            Some("bookTicker") => {}
            _ if message.get("lastUpdateId").is_some() => {
                snapshot = Some((
                    integer(&message, "lastUpdateId")?,
                    integer(&message, "T")?,
                    levels(&message, "bids", "asks")?,
                ));
            }
            _ => return Err(format!("a message of no known kind: {message}").into()),
        }
    }
    let (id, start_ms, start) = snapshot.ok_or("no snapshot")?;
    changes.retain(|change| change.last >= id);
    trades.retain(|trade| trade.time_ms > start_ms);
    if changes.first().is_none_or(|first| first.first > id)
        || changes
            .windows(2)
            .any(|pair| pair[1].previous != pair[0].last || pair[1].time_ms < pair[0].time_ms)
        || trades.windows(2).any(|pair| pair[1].time_ms < pair[0].time_ms)
    {
        return Err("a change of depth or a trade is missing, or out of order".into());
    }

    // Where the middle goes, before what is near it can be chosen.
    let mut whole = Rebuild::new((1, 0));
    let (mut lowest, mut highest) = (u64::MAX, 0);
    let start = Change { time_ms: start_ms, first: id, last: id, previous: id, levels: start };
    for change in std::iter::once(&start).chain(&changes) {
        for (side, price, size) in &change.levels {
            whole.set(*side, *price, *size);
        }
        let middle = whole.middle().ok_or("an empty side")? / 2;
        (lowest, highest) = (lowest.min(middle), highest.max(middle));
    }
    let margin = |price: u64| price * WINDOW_PPM / 1_000_000;
    let mut book = Rebuild::new((lowest - margin(lowest), highest + margin(highest)));

    let out = Path::new(&out);
    let (mut tape, mut books) = (packed(&out.join("tape.csv.gz"))?, packed(&out.join("books.csv.gz"))?);
    writeln!(tape, "{}", TAPE_COLUMNS.join(","))?;
    writeln!(books, "{}", BOOK_COLUMNS.join(","))?;
    for (side, price, size) in &start.levels {
        book.set(*side, *price, *size);
    }
    // The start is a book, not placements.
    let _ = book.frame();
    writeln!(tape, "0,middle,,{},", book.middle().ok_or("an empty side")?)?;
    let write_book = |books: &mut dyn Write, at: u64, book: &Rebuild| -> std::io::Result<()> {
        for (Level { side, price }, size) in book.book() {
            writeln!(books, "{at},{},{price},{size}", name(side))?;
        }
        Ok(())
    };
    write_book(&mut books, 0, &book)?;

    let end_ms = changes.last().map_or(0, |change| change.time_ms) - start_ms;
    let (mut changes, mut trades) = (changes.iter().peekable(), trades.iter().peekable());
    for frame in 0..=end_ms / FRAME_MS {
        let until_ms = start_ms + (frame + 1) * FRAME_MS;
        while let Some(change) = changes.next_if(|change| change.time_ms < until_ms) {
            // A trade shows in the first change that is no older: in another frame it would look like a refill,
            // and its change like a cancel.
            while let Some(trade) = trades.next_if(|trade| trade.time_ms <= change.time_ms) {
                book.trade(trade.side, trade.price, trade.size);
            }
            for (side, price, size) in &change.levels {
                book.set(*side, *price, *size);
            }
        }
        let at = frame * FRAME_MS;
        for what in book.frame() {
            let (event, Level { side, price }, size) = match what {
                What::Middle(middle) => {
                    writeln!(tape, "{at},middle,,{middle},")?;
                    continue;
                }
                What::Trade(level, size) => ("trade", level, size),
                What::Cancel(level, size) => ("cancel", level, size),
                What::Place(level, size) => ("place", level, size),
            };
            writeln!(tape, "{at},{event},{},{price},{size}", name(side))?;
        }
        let next = at + FRAME_MS;
        if next.is_multiple_of(BOOK_MS) || frame == end_ms / FRAME_MS {
            write_book(&mut books, next, &book)?;
        }
    }
    tape.finish()?;
    books.finish()?;
    for file in ["tape.csv.gz", "books.csv.gz"] {
        println!("{file}: {} bytes", fs::metadata(out.join(file))?.len());
    }
    Ok(())
}
