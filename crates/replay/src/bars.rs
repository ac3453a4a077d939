//! The layout of a recording, and the checks on it.
//!
//! A directory holds `venues.csv` and one or more bar files: every other `*.csv` or `*.csv.gz`.
//!
//! `venues.csv`: `venue,bar_ms,contract_usd,description`
//! * `bar_ms`: length of this venue's bars;
//! * `contract_usd`: USD that one unit of `volume` is worth, where volume counts contracts of fixed
//!   value; empty where volume counts units of the asset.
//!
//! Bars: `asset,venue,open_ms,open,high,low,close,volume,trades,max_feed_lag_ms`
//! * `open_ms`: start of the bar, ms since the Unix epoch, a multiple of the venue's `bar_ms`, ascending
//!   for each asset and venue;
//! * `open,high,low,close`: USD for one unit of the asset, plain decimals;
//! * `volume,trades`: empty where the venue publishes none (an index). They weigh markets, nothing else;
//! * `max_feed_lag_ms`: how late a listener heard of this bar at worst; empty where it is not known,
//!   which counts as zero.
//!
//! Nothing is repaired: a row that breaks a rule ends the loading with its file, line and reason.

use crate::{ReplayError, decimal::PicoUsd};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Longest bar.
pub const MAX_BAR_MS: u64 = 24 * 60 * 60 * 1000;
/// Shortest bar: its four values need instants of their own.
pub const MIN_BAR_MS: u64 = 4;
/// Longest feed lag.
pub const MAX_FEED_LAG_MS: u64 = 60 * 60 * 1000;
/// Latest instant: the end of the year 9999. It keeps sums of times far from overflow.
pub const MAX_OPEN_MS: u64 = 253_402_300_799_999;
/// Largest file, unpacked.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most bars in a recording.
pub const MAX_BARS: usize = 4_000_000;
/// Most venues in a recording.
pub const MAX_VENUES: usize = 256;
/// Longest name of an asset or venue.
pub const MAX_NAME_BYTES: usize = 32;

/// Columns of `venues.csv`.
pub const VENUE_COLUMNS: [&str; 4] = ["venue", "bar_ms", "contract_usd", "description"];
/// Columns of a bar file.
pub const BAR_COLUMNS: [&str; 10] =
    ["asset", "venue", "open_ms", "open", "high", "low", "close", "volume", "trades", "max_feed_lag_ms"];
const VENUES_FILE: &str = "venues.csv";

/// What a recording says of a venue.
#[derive(Clone, Debug, PartialEq)]
pub struct Venue {
    /// Length of its bars.
    pub bar_ms: u64,
    /// USD that one unit of volume is worth, where volume counts contracts.
    pub contract_usd: Option<f64>,
    /// What kind of place it is.
    pub description: String,
}

/// What was traded on one venue in one interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Start, ms since the Unix epoch.
    pub open_ms: u64,
    /// First price.
    pub open: PicoUsd,
    /// Highest price.
    pub high: PicoUsd,
    /// Lowest price.
    pub low: PicoUsd,
    /// Last price.
    pub close: PicoUsd,
    /// In the venue's unit; zero where none is published.
    pub volume: f64,
    /// How late a listener heard of it at worst.
    pub lag_ms: u64,
}

/// A checked recording: bars by asset, then venue, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Venues by name.
    pub venues: BTreeMap<String, Venue>,
    /// Bars by (asset, venue); no entry is empty.
    pub bars: BTreeMap<(String, String), Vec<Bar>>,
}

/// A file of a recording, packed or not.
pub struct Source<'a> {
    /// Name, for messages; ends in `.gz` if packed.
    pub name: String,
    /// Content.
    pub bytes: std::borrow::Cow<'a, [u8]>,
}

impl Recording {
    /// Reads and checks `sources`, one of which is `venues.csv`.
    ///
    /// # Errors
    /// The first broken rule, with file, line and reason.
    pub fn read(sources: &[Source<'_>]) -> Result<Self, ReplayError> {
        let is_venues = |source: &&Source<'_>| source.name.rsplit('/').next() == Some(VENUES_FILE);
        let venues = sources
            .iter()
            .find(is_venues)
            .ok_or_else(|| ReplayError::Unusable(format!("there is no {VENUES_FILE}")))?;
        let mut recording = Self { venues: read_venues(venues)?, bars: BTreeMap::new() };
        let mut count = 0;
        for source in sources.iter().filter(|source| !is_venues(source)) {
            read_rows(source, &BAR_COLUMNS, |row| {
                count += 1;
                if count > MAX_BARS {
                    return Err(format!("more than {MAX_BARS} bars"));
                }
                recording.push(row)
            })?;
        }
        if recording.bars.is_empty() {
            return Err(ReplayError::Unusable("there are no bars".to_owned()));
        }
        Ok(recording)
    }

    /// Reads the recording in a directory.
    ///
    /// # Errors
    /// A file that cannot be read, or the first broken rule.
    pub fn read_dir(path: &Path) -> Result<Self, ReplayError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ReplayError::Io { path, source }
        };
        let mut files: Vec<PathBuf> = fs::read_dir(path)
            .map_err(io(path))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(io(path))?;
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".csv") || name.ends_with(".csv.gz")
        });
        // The order in which a file system lists files is not part of a recording.
        files.sort();
        let sources = files
            .iter()
            .map(|file| {
                let size = fs::metadata(file).map_err(io(file))?.len();
                let name = file.to_string_lossy().into_owned();
                if size > MAX_FILE_BYTES {
                    return Err(malformed(&name, 0, format!("larger than {MAX_FILE_BYTES} bytes")));
                }
                Ok(Source { name, bytes: fs::read(file).map_err(io(file))?.into() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::read(&sources)
    }

    /// First and last instant.
    pub fn span(&self) -> (u64, u64) {
        let start = self.bars.values().filter_map(|bars| bars.first()).map(|bar| bar.open_ms).min();
        let end = self
            .bars
            .iter()
            .filter_map(|((_, venue), bars)| Some(bars.last()?.open_ms + self.venues[venue].bar_ms))
            .max();
        (start.unwrap_or_default(), end.unwrap_or_default())
    }

    fn push(&mut self, row: &csv::StringRecord) -> Result<(), String> {
        let (asset, venue_name) = (name(&row[0], "asset")?, &row[1]);
        let venue = self
            .venues
            .get(venue_name)
            .ok_or_else(|| format!("venue {venue_name:?} is not in {VENUES_FILE}"))?;
        let price = |column: usize| {
            PicoUsd::parse(&row[column]).map_err(|reason| format!("{}: {reason}", BAR_COLUMNS[column]))
        };
        let bar = Bar {
            open_ms: integer(&row[2], BAR_COLUMNS[2], MAX_OPEN_MS)?,
            open: price(3)?,
            high: price(4)?,
            low: price(5)?,
            close: price(6)?,
            volume: or_zero(&row[7], |text| amount(text, BAR_COLUMNS[7]))?,
            lag_ms: or_zero(&row[9], |text| integer(text, BAR_COLUMNS[9], MAX_FEED_LAG_MS))?,
        };
        or_zero(&row[8], |text| integer(text, BAR_COLUMNS[8], u64::MAX))?;
        if bar.high < bar.low {
            return Err(format!("high {} is below low {}", &row[4], &row[5]));
        }
        for (column, price) in [(3, bar.open), (6, bar.close)] {
            if !(bar.low..=bar.high).contains(&price) {
                return Err(format!("{} {} is not between low and high", BAR_COLUMNS[column], &row[column]));
            }
        }
        if !bar.open_ms.is_multiple_of(venue.bar_ms) {
            return Err(format!("open_ms {} is not a multiple of {} ms", bar.open_ms, venue.bar_ms));
        }
        let bars = self.bars.entry((asset.to_owned(), venue_name.to_owned())).or_default();
        if let Some(last) = bars.last().filter(|last| last.open_ms >= bar.open_ms) {
            return Err(format!(
                "open_ms {} does not come after {}, the last of {asset} on {venue_name}",
                bar.open_ms, last.open_ms
            ));
        }
        bars.push(bar);
        Ok(())
    }
}

fn read_venues(source: &Source<'_>) -> Result<BTreeMap<String, Venue>, ReplayError> {
    let mut venues = BTreeMap::new();
    read_rows(source, &VENUE_COLUMNS, |row| {
        let venue_name = name(&row[0], "venue")?;
        let bar_ms = integer(&row[1], VENUE_COLUMNS[1], MAX_BAR_MS)?;
        if bar_ms < MIN_BAR_MS {
            return Err(format!("bar_ms {bar_ms} is below {MIN_BAR_MS}"));
        }
        let contract_usd = match &row[2] {
            "" => None,
            text => Some(amount(text, VENUE_COLUMNS[2])?),
        };
        let venue = Venue { bar_ms, contract_usd, description: row[3].to_owned() };
        if venues.insert(venue_name.to_owned(), venue).is_some() {
            return Err(format!("venue {venue_name} is listed twice"));
        }
        if venues.len() > MAX_VENUES {
            return Err(format!("more than {MAX_VENUES} venues"));
        }
        Ok(())
    })?;
    Ok(venues)
}

pub(crate) fn read_rows(
    source: &Source<'_>,
    columns: &[&str],
    mut each: impl FnMut(&csv::StringRecord) -> Result<(), String>,
) -> Result<(), ReplayError> {
    let file = &source.name;
    // One byte beyond the limit tells a file that is too large from one that just fits.
    let mut text = Vec::new();
    let bytes: &[u8] = &source.bytes;
    let unpacked = if file.ends_with(".gz") {
        flate2::read::MultiGzDecoder::new(bytes).take(MAX_FILE_BYTES + 1).read_to_end(&mut text)
    } else {
        bytes.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)
    };
    unpacked.map_err(|error| malformed(file, 0, format!("cannot be unpacked: {error}")))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(malformed(file, 0, format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(true).from_reader(text.as_slice());
    let headers = reader.headers().map_err(|error| csv_error(file, &error))?;
    if let Some(missing) = columns.iter().find(|column| !headers.iter().any(|header| header == **column)) {
        return Err(malformed(file, 1, format!("column {missing} is missing")));
    }
    if headers != columns {
        return Err(malformed(file, 1, format!("the columns are not {}", columns.join(","))));
    }
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(|error| csv_error(file, &error))? {
        let line = row.position().map_or(0, csv::Position::line);
        each(&row).map_err(|reason| malformed(file, line, reason))?;
    }
    Ok(())
}

pub(crate) fn malformed(file: &str, line: u64, reason: String) -> ReplayError {
    ReplayError::Malformed { file: file.to_owned(), line, reason }
}

fn csv_error(file: &str, error: &csv::Error) -> ReplayError {
    let line = error.position().map_or(0, csv::Position::line);
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields instead of {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    malformed(file, line, reason)
}

fn name<'a>(text: &'a str, column: &str) -> Result<&'a str, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(plain) {
        return Err(format!("{column}: {text:?} is not a name of letters, digits, '_' and '-'"));
    }
    Ok(text)
}

fn integer(text: &str, column: &str, max: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(value) if value > max => Err(format!("{column}: {text:?} is beyond {max}")),
        Ok(value) if !text.starts_with('+') => Ok(value),
        _ => Err(format!("{column}: {text:?} is not a whole number")),
    }
}

fn amount(text: &str, column: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err(format!("{column}: {text:?} is not a number of zero or more")),
    }
}

fn or_zero<T: Default>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    if text.is_empty() { Ok(T::default()) } else { read(text) }
}
