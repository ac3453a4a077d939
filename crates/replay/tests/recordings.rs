//! What is embedded is what the provenance says, and nothing else is ever shown.

use seawall_replay::{ClockTime, DEFAULT_REPLAY, Feed, Replay, ReplayError, catalog, load, load_dir};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, fs, path::PathBuf};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/replays").join(name)
}

/// A bar as plain text and numbers, read without the code under test.
struct Bar {
    open_ms: u64,
    prices: Vec<f64>,
    lag_ms: u64,
}

fn bars(name: &str) -> HashMap<(String, String), Vec<Bar>> {
    let mut bars: HashMap<_, Vec<Bar>> = HashMap::new();
    for line in fs::read_to_string(data(name).join("bars.csv")).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        bars.entry((fields[0].to_owned(), fields[1].to_owned())).or_default().push(Bar {
            open_ms: fields[2].parse().unwrap(),
            prices: fields[3..7].iter().map(|price| price.parse().unwrap()).collect(),
            lag_ms: fields[9].parse().unwrap_or(0),
        });
    }
    bars
}

fn bar_ms(name: &str) -> u64 {
    if name.starts_with("eth") { 600_000 } else { 60_000 }
}

fn clock(text: &str) -> Option<ClockTime> {
    Some(text.parse().unwrap())
}

/// Calls `check` with every feed of every replay, its bars and the length of a bar.
fn every_feed(check: impl Fn(&Replay, &Feed, &[Bar], u64)) {
    for info in catalog() {
        let (replay, bars) = (load(info.name, None, None).unwrap(), bars(info.name));
        assert_eq!(replay.feeds.len(), bars.len(), "{}", info.name);
        for feed in &replay.feeds {
            let symbol = replay.markets[usize::from(feed.market.0)].symbol.clone();
            check(&replay, feed, &bars[&(symbol, feed.venue.clone())], bar_ms(info.name));
        }
    }
}

#[test]
fn rows_and_checksums_are_those_of_the_provenance() {
    for info in catalog() {
        for file in ["bars.csv", "venues.csv"] {
            let bytes = fs::read(data(info.name).join(file)).unwrap();
            let rows = bytes.iter().filter(|byte| **byte == b'\n').count() - 1;
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let line = format!("- {file}: rows {rows}, bytes {}, sha256 {digest}", bytes.len());
            assert!(info.provenance.contains(&line), "{}: the provenance does not say {line:?}", info.name);
        }
    }
}

#[test]
fn the_catalog_says_what_the_replays_hold() {
    assert_eq!(catalog()[0].name, DEFAULT_REPLAY);
    for info in catalog() {
        let replay = load(info.name, None, None).unwrap();
        let symbols: Vec<&String> = replay.markets.iter().map(|market| &market.symbol).collect();
        assert_eq!(symbols, info.assets.iter().collect::<Vec<_>>());
        assert_eq!((replay.start_ms, replay.end_ms), (info.start_ms, info.end_ms));
        assert!(info.title.len() > 10 && info.venues > 0);
    }
    let crash = &catalog()[0];
    assert_eq!((crash.assets.len(), crash.venues), (14, 6));
    assert_eq!((crash.start_ms, crash.end_ms), (1_760_129_400_000, 1_760_133_000_000));
}

#[test]
fn no_value_is_visible_before_its_instant_and_the_lag_of_its_bar() {
    every_feed(|_, feed, bars, bar_ms| {
        for value in &feed.values {
            let bar = bars.iter().rfind(|bar| bar.open_ms <= value.stamp_ms).unwrap();
            assert!(value.stamp_ms < bar.open_ms + bar_ms, "a value lives in a minute without trades");
            assert_eq!(value.visible_ms, value.stamp_ms + bar.lag_ms);
            assert!(feed.at(value.visible_ms - 1).is_none_or(|(_, stamp)| stamp < value.stamp_ms));
            assert_eq!(feed.at(value.visible_ms), Some((value.price, value.stamp_ms)));
        }
    });
}

#[test]
fn nothing_is_interpolated_every_value_is_a_recorded_price_at_a_declared_instant() {
    every_feed(|replay, feed, bars, bar_ms| {
        let tick: f64 = replay.markets[usize::from(feed.market.0)].tick_usd.parse().unwrap();
        for value in &feed.values {
            let bar = bars.iter().rfind(|bar| bar.open_ms <= value.stamp_ms).unwrap();
            let near = |price: f64| (price / tick - value.price.0 as f64).abs() <= 0.5 + 1e-6;
            let [open, high, low, close] = bar.prices[..] else { panic!("four prices") };
            let offset = value.stamp_ms - bar.open_ms;
            let (second, third) = if open - low <= high - open { (low, high) } else { (high, low) };
            let recorded = match offset {
                0 => open,
                _ if offset == bar_ms / 3 => second,
                _ if offset == bar_ms / 3 * 2 => third,
                _ if offset == bar_ms - 1 => close,
                _ => panic!("a value {offset} ms into its bar"),
            };
            // Equal distances are decided on decimals there and on binary fractions here.
            let tie = ((open - low) - (high - open)).abs() < 1e-9 && (near(low) || near(high));
            assert!(near(recorded) || tie, "{} of {}: {value:?}", feed.venue, feed.market);
        }
    });
}

#[test]
fn feeds_go_forward_in_both_times() {
    every_feed(|_, feed, _, _| {
        for pair in feed.values.windows(2) {
            assert!(pair[0].visible_ms < pair[1].visible_ms && pair[0].stamp_ms < pair[1].stamp_ms);
        }
    });
}

#[test]
fn a_minute_without_trades_leaves_the_last_value_to_grow_old() {
    let replay = load(DEFAULT_REPLAY, None, None).unwrap();
    let pol = replay.markets.iter().position(|market| market.symbol == "POL").unwrap();
    let gemini = replay
        .feeds
        .iter()
        .find(|feed| usize::from(feed.market.0) == pol && feed.venue == "gemini_spot")
        .unwrap();
    let longest = gemini.values.windows(2).map(|pair| pair[1].stamp_ms - pair[0].stamp_ms).max().unwrap();
    assert!(longest > 180_000, "22 of 60 minutes traded, so some gap is long: {longest} ms");
}

#[test]
fn a_window_keeps_the_market_and_starts_with_what_was_already_visible() {
    let whole = load(DEFAULT_REPLAY, None, None).unwrap();
    let window = load(DEFAULT_REPLAY, clock("21:10"), clock("21:25")).unwrap();
    assert_eq!((window.start_ms, window.end_ms), (1_760_130_600_000, 1_760_131_500_000));
    for (market, other) in window.markets.iter().zip(&whole.markets) {
        assert_eq!((&market.tick_usd, &market.lot), (&other.tick_usd, &other.lot));
    }
    for feed in &window.feeds {
        let other = whole.feeds.iter().find(|o| o.market == feed.market && o.venue == feed.venue).unwrap();
        for now in (window.start_ms..window.end_ms).step_by(997) {
            assert_eq!(feed.at(now), other.at(now));
        }
        assert!(feed.values.iter().all(|value| value.stamp_ms < window.end_ms));
    }
}

#[test]
fn a_window_changes_no_feeds_place() {
    let whole = load(DEFAULT_REPLAY, None, None).unwrap();
    let places = |replay: &Replay| -> Vec<_> {
        replay.feeds.iter().map(|feed| (feed.venue.clone(), feed.market, feed.bar_ms)).collect()
    };
    let mut silent = 0;
    for minute in 50..60 {
        let (from, to) = (
            format!("20:{minute}"),
            if minute == 59 { "21:00".into() } else { format!("20:{}", minute + 1) },
        );
        let window = load(DEFAULT_REPLAY, clock(&from), clock(&to)).unwrap();
        assert_eq!(places(&window), places(&whole), "{from}");
        silent += window.feeds.iter().filter(|feed| feed.values.is_empty()).count();
    }
    assert!(silent > 0, "no window had a silent venue");
}

#[test]
fn impossible_windows_and_names_are_refused() {
    let window = |from, to| load(DEFAULT_REPLAY, clock(from), clock(to));
    for (from, to) in [("21:10", "21:10"), ("20:49", "21:00"), ("21:00", "21:51"), ("21:30", "21:00")] {
        assert!(matches!(window(from, to), Err(ReplayError::Window { .. })), "{from} to {to}");
    }
    assert!(matches!(load("nope", None, None), Err(ReplayError::Unknown { .. })));
    for text in ["", "9:00", "24:01", "12:60", "12", "12:3", "-1:00", "１2:00"] {
        assert!(text.parse::<ClockTime>().is_err(), "{text:?} was read as a time of day");
    }
    assert_eq!(clock("24:00").unwrap().to_string(), "24:00");
    assert!(load("eth-2020-03-12", clock("10:00"), clock("24:00")).is_ok());
}

#[test]
fn weights_sum_to_a_million_and_first_prices_lie_between_the_extremes() {
    for info in catalog() {
        let replay = load(info.name, None, None).unwrap();
        assert_eq!(replay.markets.iter().map(|market| market.weight_ppm).sum::<u32>(), 1_000_000);
        for market in &replay.markets {
            assert!((market.lowest_price..=market.highest_price).contains(&market.first_price));
            let product: f64 =
                market.tick_usd.parse::<f64>().unwrap() * market.lot.parse::<f64>().unwrap() * 1e6;
            assert!((product - f64::from(market.atoms_per_tick_lot)).abs() < 1e-6, "{market:?}");
        }
    }
}

#[test]
fn a_directory_of_the_same_layout_is_the_same_replay_packed_or_not() {
    let embedded = load(DEFAULT_REPLAY, None, None).unwrap();
    assert_eq!(load_dir(&data(DEFAULT_REPLAY), None, None).unwrap(), embedded);

    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join(DEFAULT_REPLAY);
    fs::create_dir(&packed).unwrap();
    fs::copy(data(DEFAULT_REPLAY).join("venues.csv"), packed.join("venues.csv")).unwrap();
    let file = fs::File::create(packed.join("bars.csv.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    std::io::copy(&mut fs::File::open(data(DEFAULT_REPLAY).join("bars.csv")).unwrap(), &mut encoder).unwrap();
    encoder.finish().unwrap();
    assert_eq!(load_dir(&packed, None, None).unwrap(), embedded);
}

const VENUES: &str = "venue,bar_ms,contract_usd,description\nspot,60000,,a place\n";
const HEADER: &str = "asset,venue,open_ms,open,high,low,close,volume,trades,max_feed_lag_ms\n";
const GOOD: &str = "BTC,spot,1760129400000,100.5,101,99,100,12.5,7,40\n";

fn load_text(venues: &str, bars: &str) -> Result<Replay, ReplayError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("venues.csv"), venues).unwrap();
    fs::write(dir.path().join("bars.csv"), bars).unwrap();
    load_dir(dir.path(), None, None)
}

#[test]
fn a_broken_row_is_refused_with_its_file_line_and_reason() {
    assert!(load_text(VENUES, &format!("{HEADER}{GOOD}")).is_ok());
    for (row, expected) in [
        ("BTC,spot,1760129460000,abc,101,99,100,1,1,0", "open: \"abc\" is not a positive decimal"),
        ("BTC,spot,1760129460000,100,101,-99,100,1,1,0", "low: \"-99\" is not a positive decimal"),
        ("BTC,spot,1760129460000,100,NaN,99,100,1,1,0", "high: \"NaN\" is not a positive decimal"),
        ("BTC,spot,1760129460000,100,inf,99,100,1,1,0", "high: \"inf\" is not a positive decimal"),
        ("BTC,spot,1760129460000,100,1e3,99,100,1,1,0", "high: \"1e3\" is not a positive decimal"),
        ("BTC,spot,1760129460000,100,101,0,100,1,1,0", "low: a price of zero is no price"),
        ("BTC,spot,1760129460000,100,101,99,,1,1,0", "close: \"\" is not a positive decimal"),
        ("BTC,spot,1760129460000,100,98,99,100,1,1,0", "high 98 is below low 99"),
        ("BTC,spot,1760129460000,102,101,99,100,1,1,0", "open 102 is not between low and high"),
        ("BTC,spot,1760129460000,100,101,99,98,1,1,0", "close 98 is not between low and high"),
        ("BTC,spot,1760129460000,100,101,99,100,-1,1,0", "volume: \"-1\" is not a number of zero or more"),
        ("BTC,spot,1760129460000,100,101,99,100,NaN,1,0", "volume: \"NaN\" is not a number of zero or more"),
        ("BTC,spot,1760129460000,100,101,99,100,1,x,0", "trades: \"x\" is not a whole number"),
        ("BTC,spot,1760129460000,100,101,99,100,1,1,9999999", "max_feed_lag_ms: \"9999999\" is beyond"),
        ("BTC,spot,1760129460000,100,101,99,100,1,1,-5", "max_feed_lag_ms: \"-5\" is not a whole number"),
        ("BTC,spot,1760129400000,100,101,99,100,1,1,0", "does not come after 1760129400000"),
        ("BTC,spot,1760129340000,100,101,99,100,1,1,0", "does not come after 1760129400000"),
        ("BTC,spot,1760129460001,100,101,99,100,1,1,0", "is not a multiple of 60000 ms"),
        ("BTC,spot,later,100,101,99,100,1,1,0", "open_ms: \"later\" is not a whole number"),
        ("BTC,spot,99999999999999999,100,101,99,100,1,1,0", "open_ms: \"99999999999999999\" is beyond"),
        ("BTC,elsewhere,1760129460000,100,101,99,100,1,1,0", "venue \"elsewhere\" is not in venues.csv"),
        ("B C,spot,1760129460000,100,101,99,100,1,1,0", "asset: \"B C\" is not a name"),
        ("BTC,spot,1760129460000,100,101,99,100", "7 fields instead of 10"),
    ] {
        match load_text(VENUES, &format!("{HEADER}{GOOD}{row}\n")) {
            Err(ReplayError::Malformed { file, line, reason }) => {
                assert!(file.ends_with("bars.csv"), "{file}");
                assert_eq!(line, 3, "{row}");
                assert!(reason.contains(expected), "{row}: {reason}");
            }
            other => panic!("{row}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_column_or_a_broken_venue_is_refused_with_its_line() {
    let without = HEADER.replace(",low", "");
    for (venues, bars, line, expected) in [
        (VENUES, without.as_str(), 1, "column low is missing"),
        (VENUES, "", 1, "column asset is missing"),
        (
            VENUES,
            "open_ms,asset,venue,open,high,low,close,volume,trades,max_feed_lag_ms\n",
            1,
            "columns are not",
        ),
        ("venue,bar_ms,description\n", HEADER, 1, "column contract_usd is missing"),
        ("venue,bar_ms,contract_usd,description\nspot,0,,x\n", HEADER, 2, "bar_ms 0 is below 4"),
        ("venue,bar_ms,contract_usd,description\nspot,60000,-1,x\n", HEADER, 2, "contract_usd: \"-1\""),
        ("venue,bar_ms,contract_usd,description\nspot,60000,,x\nspot,60000,,x\n", HEADER, 3, "listed twice"),
    ] {
        match load_text(venues, bars) {
            Err(ReplayError::Malformed { line: at, reason, .. }) => {
                assert!(at == line && reason.contains(expected), "line {at}: {reason}, not {expected}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert!(matches!(load_text(VENUES, HEADER), Err(ReplayError::Unusable(_))));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(load_dir(empty.path(), None, None), Err(ReplayError::Unusable(_))));
    assert!(matches!(load_dir(&empty.path().join("none"), None, None), Err(ReplayError::Io { .. })));
}

#[test]
fn bytes_that_are_not_text_or_not_packed_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("venues.csv"), VENUES).unwrap();
    fs::write(dir.path().join("bars.csv.gz"), b"not packed").unwrap();
    let error = load_dir(dir.path(), None, None).unwrap_err().to_string();
    assert!(error.contains("bars.csv.gz") && error.contains("cannot be unpacked"), "{error}");
    fs::remove_file(dir.path().join("bars.csv.gz")).unwrap();
    fs::write(dir.path().join("bars.csv"), [HEADER.as_bytes(), b"\xff\xfe,,,,,,,,,\n"].concat()).unwrap();
    let error = load_dir(dir.path(), None, None).unwrap_err().to_string();
    assert!(error.contains("bars.csv:2") && error.contains("not UTF-8"), "{error}");
}

#[test]
fn a_value_that_a_later_one_overtakes_is_never_shown() {
    // The first bar arrives 100 s late, the second at once: the first bar's last two values are overtaken.
    let bars = format!(
        "{HEADER}BTC,spot,1760129400000,100,101,99,100,1,1,30000\nBTC,spot,1760129460000,90,90,90,90,1,1,0\n"
    );
    let replay = load_text(VENUES, &bars).unwrap();
    let offsets: Vec<(u64, u64)> = replay.feeds[0]
        .values
        .iter()
        .map(|value| (value.stamp_ms - replay.start_ms, value.visible_ms - replay.start_ms))
        .collect();
    assert_eq!(
        offsets,
        [
            (0, 30_000),
            (20_000, 50_000),
            (60_000, 60_000),
            (80_000, 80_000),
            (100_000, 100_000),
            (119_999, 119_999)
        ]
    );
}
