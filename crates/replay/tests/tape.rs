//! The tape says what was recorded, and the depth of the crash fell as it did.

use flate2::read::MultiGzDecoder;
use seawall_replay::{
    ReplayError,
    bars::Source,
    depth::{DepthCurve, WHOLE_PPM},
    rebuild::{Level, Rebuild, What},
    tape::{Tape, offset_ppm},
};
use seawall_types::Side;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, io::Read, path::PathBuf};

fn data(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/books").join(name)).unwrap()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    text
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rows(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count() - 1
}

#[test]
fn rows_and_checksums_are_those_of_the_provenance() {
    for file in ["tape.csv.gz", "books.csv.gz"] {
        let bytes = data(&format!("tape-2024-08-08/{file}"));
        let text = unpacked(&bytes);
        let line = format!(
            "- {file}: rows {}, bytes {}, sha256 {}, unpacked {}",
            rows(&text),
            bytes.len(),
            sha256(&bytes),
            sha256(&text)
        );
        assert!(Tape::embedded().provenance.contains(&line), "the provenance does not say {line:?}");
    }
    let bytes = data("depth-2025-10-10/depth.csv");
    let line =
        format!("- depth.csv: rows {}, bytes {}, sha256 {}", rows(&bytes), bytes.len(), sha256(&bytes));
    assert!(DepthCurve::provenance().contains(&line), "the provenance does not say {line:?}");
}

#[test]
fn placed_less_cancelled_less_traded_is_the_recorded_book_at_every_book_of_the_tape() {
    let tape = Tape::embedded();
    let mut book: BTreeMap<Level, i64> = BTreeMap::new();
    let mut events = tape.events.iter().peekable();
    for (at, recorded) in &tape.books {
        if *at == 0 {
            book = recorded.iter().map(|(level, size)| (*level, *size as i64)).collect();
            continue;
        }
        while let Some(event) = events.next_if(|event| event.offset_ms < *at) {
            let (level, change) = match event.what {
                What::Middle(_) => continue,
                What::Trade(level, size) | What::Cancel(level, size) => (level, -i64::from(size)),
                What::Place(level, size) => (level, i64::from(size)),
            };
            *book.entry(level).or_default() += change;
        }
        book.retain(|_, size| *size != 0);
        let recorded: BTreeMap<Level, i64> =
            recorded.iter().map(|(level, size)| (*level, *size as i64)).collect();
        assert_eq!(book, recorded, "at {at} ms");
    }
    assert!(events.next().is_none(), "something happened after the end");
    assert_eq!(tape.books.len(), 7);
}

#[test]
fn trades_of_the_tape_are_nearly_balanced_and_near_the_middle() {
    let (mut bought, mut sold, mut middle, mut farthest) = (0u64, 0u64, 0, 0);
    for event in &Tape::embedded().events {
        match event.what {
            What::Middle(at) => middle = at,
            What::Trade(level, size) => {
                match level.side {
                    Side::Sell => bought += u64::from(size),
                    Side::Buy => sold += u64::from(size),
                }
                farthest = farthest.max(offset_ppm(level, middle).abs());
            }
            _ => {}
        }
    }
    // The 21,313 recorded trades sum to 1,251.6 BTC bought and 1,177.8 BTC sold by takers.
    assert_eq!((bought, sold), (1_251_315, 1_177_790));
    assert!(farthest < 1_200, "{farthest} ppm from the middle");
}

/// One side, price steps of a tenth of a cell.
fn cell(price: u64) -> Level {
    Rebuild::level(Side::Buy, price)
}

#[test]
fn what_happened_to_a_cell_is_explained_by_trades_first_then_cancels_then_placements() {
    // Before, after, traded, and what explains it.
    for (before, after, traded, expected) in [
        (5, 8, 0, vec![What::Place(cell(1_000), 3)]),
        (5, 2, 0, vec![What::Cancel(cell(1_000), 3)]),
        (5, 2, 3, vec![What::Trade(cell(1_000), 3)]),
        (5, 1, 3, vec![What::Trade(cell(1_000), 3), What::Cancel(cell(1_000), 1)]),
        (5, 5, 3, vec![What::Trade(cell(1_000), 3), What::Place(cell(1_000), 3)]),
        (5, 0, 5, vec![What::Trade(cell(1_000), 5)]),
        (5, 4, 9, vec![What::Trade(cell(1_000), 9), What::Place(cell(1_000), 8)]),
        (5, 5, 0, vec![]),
    ] {
        let mut book = Rebuild::new((900, 1_100));
        book.set(Side::Buy, 1_000, before);
        let _ = book.frame();
        book.set(Side::Buy, 1_000, after);
        book.trade(Side::Buy, 1_000, traded);
        assert_eq!(book.frame(), expected, "{before} to {after}, {traded} traded");
        assert_eq!(book.frame(), [], "a frame is explained once");
    }
}

#[test]
fn cells_never_bring_the_sides_nearer_and_what_nets_inside_one_is_silent() {
    assert_eq!(Rebuild::level(Side::Buy, 1_009), Level { side: Side::Buy, price: 100 });
    assert_eq!(Rebuild::level(Side::Sell, 1_001), Level { side: Side::Sell, price: 101 });
    let mut book = Rebuild::new((900, 1_100));
    book.set(Side::Buy, 1_000, 5);
    book.set(Side::Sell, 1_011, 5);
    let first = book.frame();
    assert_eq!(first[0], What::Middle(2_011), "the middle comes before what is placed around it");
    assert_eq!(first.len(), 3);
    book.set(Side::Buy, 1_000, 0);
    book.set(Side::Buy, 1_003, 5);
    assert_eq!(book.frame(), [What::Middle(2_014)]);
    book.set(Side::Buy, 800, 7);
    assert_eq!(book.frame(), [], "out of range");
    assert_eq!(book.book().values().sum::<u64>(), 10);
}

#[test]
fn a_broken_tape_is_refused_with_its_file_line_and_reason() {
    const BOOKS: &str = "offset_ms,side,price,size\n0,bid,100,5\n100,ask,101,5\n";
    const TAPE: &str = "offset_ms,event,side,price,size\n0,middle,,2010,\n0,place,bid,100,3\n";
    let read = |tape: &str, books: &str| {
        let source =
            |name: &str, text: &str| Source { name: name.to_owned(), bytes: text.as_bytes().to_vec().into() };
        Tape::read(&source("tape.csv", tape), &source("books.csv", books), "")
    };
    assert_eq!(read(TAPE, BOOKS).unwrap().length_ms(), 100);
    for (row, expected) in [
        ("x,place,bid,100,3", "offset_ms: \"x\" is not a whole number"),
        ("3600001,place,bid,100,3", "is not a whole number up to 3600000"),
        ("0,jump,bid,100,3", "event: \"jump\" is none"),
        ("0,middle,bid,100,", "event: \"middle\" is none, or has a field too many"),
        ("0,place,both,100,3", "side: \"both\" is neither bid nor ask"),
        ("0,place,bid,0,3", "price: \"0\" is not a positive whole number"),
        ("0,place,bid,100,0", "size: \"0\" is not a positive whole number"),
        ("0,place,bid,100,-1", "size: \"-1\" is not a positive whole number"),
    ] {
        match read(&format!("{TAPE}{row}\n"), BOOKS) {
            Err(ReplayError::Malformed { file, line, reason }) => {
                assert!(file == "tape.csv" && line == 4 && reason.contains(expected), "{row}: {reason}");
            }
            other => panic!("{row}: {other:?}"),
        }
    }
    for (tape, books, expected) in [
        (
            format!("{TAPE}5,place,bid,100,3\n4,place,bid,100,3\n"),
            BOOKS.to_owned(),
            "comes before the last one",
        ),
        (TAPE.replace("0,middle,,2010,\n", ""), BOOKS.to_owned(), "the first event is not a middle"),
        (TAPE.to_owned(), BOOKS.replace("0,bid", "1,bid"), "no book of the start"),
        (TAPE.to_owned(), BOOKS.replace("100,ask", "0,ask"), "none after the end"),
        (TAPE.to_owned(), format!("{BOOKS}100,ask,101,6\n"), "listed twice"),
    ] {
        let error = read(&tape, &books).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, not {expected}");
    }
}

#[test]
fn depth_falls_in_the_crash_as_it_was_recorded() {
    let curve = DepthCurve::of("crash-2025-10-10");
    let clock = |hour: u64, minute: u64, second: u64| {
        1_760_054_400_000 + ((hour * 60 + minute) * 60 + second) * 1_000
    };
    // Plain text, read without the code under test: rows within 1 %.
    let text = String::from_utf8(data("depth-2025-10-10/depth.csv")).unwrap();
    let near: Vec<(u64, f64)> = text
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|row| row[1] == "1")
        .map(|row| {
            let time: Vec<u64> = row[0][11..].split(':').map(|part| part.parse().unwrap()).collect();
            (clock(time[0], time[1], time[2]), row[2].parse().unwrap())
        })
        .collect();
    assert_eq!(near.len(), 180);
    // 3,106.695 BTC is the upper median of the 40 samples before 20:50.
    for (at, depth) in &near {
        let expected = depth / 3_106.695 * 1e6;
        assert!((f64::from(curve.factor_ppm(*at)) - expected).abs() <= 1.0, "{depth} BTC at {at}");
    }
    for (index, window) in near.windows(2).enumerate() {
        let (before, after) = (window[0].0, window[1].0);
        assert_eq!(curve.factor_ppm(after - 1), curve.factor_ppm(before), "sample {index} holds");
    }
    // Calm, the first fall, the bottom, and what had come back an hour after the start.
    for (hour, minute, low, high) in [
        (20, 49, 900_000, 1_100_000),
        (20, 57, 450_000, 550_000),
        (21, 20, 180_000, 300_000),
        (21, 23, 150_000, 200_000),
        (21, 49, 400_000, 500_000),
    ] {
        let factor = curve.factor_ppm(clock(hour, minute, 10));
        assert!((low..high).contains(&factor), "{hour}:{minute}: {factor}");
    }
    assert_eq!(curve.factor_ppm(0), curve.samples()[0].1);
    assert_eq!(DepthCurve::of("btc-2021-05-19").factor_ppm(clock(21, 23, 0)), WHOLE_PPM);
}
