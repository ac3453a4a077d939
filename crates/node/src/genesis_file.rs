//! Genesis as two files: `genesis.json` to read and sign off, and `accounts.csv` beside it, one row a
//! position, named by its SHA-256 in the former.
//!
//! ```text
//! account,owner,collateral_atoms,market,lots,cost_atoms,isolated_atoms
//! 0,9f..e1,0,,,,                      a flat account
//! 1,44..07,2500000000,BTC,150,4..,    a cross position
//! 1,44..07,2500000000,ETH,-20,-7..,9..  an isolated one, with its collateral
//! ```
//!
//! Accounts ascend without a gap from 0, positions of an account by market. What is read has passed every
//! check of the ledger and the oracle. Whether the state it describes hashes to the stated commitment is
//! checked where it is written to a store: when a validator first starts, and by
//! [`verify`](crate::verify).

use crate::files::{FileError, from_hex, read_bytes, read_text, to_hex, write_whole};
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use commonware_utils::{TryCollect as _, ordered::Set};
use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use seawall_chain::{
    block::PublicKey,
    committee::{decode_group, decode_public, encode_group},
    crypto::{key_of, sha256_digest},
    engine::DEFAULT_PREFIX,
    genesis::Genesis,
    store::{self, StateCommitment},
};
use seawall_ledger::{ChainParams, GenesisAccount, GenesisPosition};
use seawall_oracle::OracleParams;
use seawall_types::{
    Atoms, Digest, Key, Lots, MarginMode, MarketId, PriceTicks, TimeMs, block::OpsTarget,
    limits::MAX_VALIDATORS,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::Display,
    io::Write as _,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Version of the format that this crate writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// Name of the parameters' file.
pub const GENESIS_FILE: &str = "genesis.json";
/// Name of the accounts' file.
pub const ACCOUNTS_FILE: &str = "accounts.csv";
const COLUMNS: [&str; 7] =
    ["account", "owner", "collateral_atoms", "market", "lots", "cost_atoms", "isolated_atoms"];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisJson {
    format: u32,
    time_ms: u64,
    validators: Vec<String>,
    group_key: String,
    /// The first price of each market in ticks, or null.
    prices: Vec<Option<PriceTicks>>,
    accounts: AccountsJson,
    state: StateJson,
    ledger: ChainParams,
    oracle: OracleParams,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsJson {
    file: String,
    count: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateJson {
    root: String,
    ops_root: String,
    ops_start: u64,
    ops_end: u64,
}

/// Writes both files into `directory` and returns the path of the first.
///
/// # Errors
/// If a file cannot be written.
pub fn write(
    directory: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
) -> Result<PathBuf, FileError> {
    let accounts_path = directory.join(ACCOUNTS_FILE);
    let accounts = accounts_csv(genesis).map_err(|error| FileError::new(&accounts_path, error))?;
    let json = GenesisJson {
        format: FORMAT,
        time_ms: genesis.time.get(),
        validators: genesis.members.iter().map(|member| key_of(member).to_string()).collect(),
        group_key: to_hex(&encode_group(&genesis.group)),
        prices: genesis.prices.clone(),
        accounts: AccountsJson {
            file: ACCOUNTS_FILE.into(),
            count: genesis.accounts.len() as u64,
            sha256: sha256_digest(&[&accounts]).to_string(),
        },
        state: StateJson {
            root: commitment.root.to_string(),
            ops_root: commitment.ops.root.to_string(),
            ops_start: commitment.ops.start,
            ops_end: commitment.ops.end,
        },
        ledger: genesis.ledger.clone(),
        oracle: genesis.oracle.clone(),
    };
    let path = directory.join(GENESIS_FILE);
    let mut text = serde_json::to_vec_pretty(&json).map_err(|error| FileError::new(&path, error))?;
    text.push(b'\n');
    write_whole(&accounts_path, false, &accounts)?;
    write_whole(&path, false, &text)?;
    Ok(path)
}

/// Reads and checks both files; `path` names the first.
///
/// # Errors
/// If a file cannot be read or anything in it is wrong: file, line and reason.
pub fn read(path: &Path) -> Result<(Genesis, StateCommitment), FileError> {
    let text = read_text(path)?;
    let json: GenesisJson = serde_json::from_str(&text).map_err(|error| FileError::json(path, &error))?;
    // Where a value that is no number is wrong: it is in the file as it is here.
    let fault = |value: &str, reason: &dyn Display| match text.find(&format!("\"{value}\"")) {
        Some(offset) if !value.is_empty() => FileError::at_offset(path, &text, offset + 1, reason),
        _ => FileError::new(path, reason),
    };
    if json.format != FORMAT {
        let reason = format!("format {} is not known; this version reads format {FORMAT}", json.format);
        return Err(FileError::new(path, reason));
    }
    let members = json
        .validators
        .iter()
        .map(|value| public_key(value).map_err(|reason| fault(value, &format!("validators: {reason}"))))
        .collect::<Result<Vec<_>, _>>()?;
    if members.is_empty() || members.len() > MAX_VALIDATORS {
        let reason = format!("validators: a committee has 1 to {MAX_VALIDATORS}, not {}", members.len());
        return Err(FileError::new(path, reason));
    }
    let count = members.len();
    let members: Set<PublicKey> = members
        .into_iter()
        .try_collect()
        .map_err(|_| FileError::new(path, "validators: two have the same key"))?;
    let group = from_hex(&json.group_key)
        .map_err(str::to_owned)
        .and_then(|bytes| decode_group(&bytes))
        .map_err(|reason| fault(&json.group_key, &format!("group_key: {reason}")))?;
    if group.total().get() as usize != count {
        let reason = format!("group_key: dealt to {} validators, the file lists {count}", group.total());
        return Err(fault(&json.group_key, &reason));
    }
    let digest = |name: &str, value: &str| -> Result<Digest, FileError> {
        value.parse().map_err(|reason| fault(value, &format!("{name}: {reason}")))
    };
    let commitment = StateCommitment {
        root: digest("state.root", &json.state.root)?,
        ops: OpsTarget {
            root: digest("state.ops_root", &json.state.ops_root)?,
            start: json.state.ops_start,
            end: json.state.ops_end,
        },
    };
    let expected = digest("accounts.sha256", &json.accounts.sha256)?;
    let file = &json.accounts.file;
    if file.is_empty() || Path::new(file).file_name() != Some(file.as_ref()) {
        return Err(fault(file, &"accounts.file: must name a file beside this one"));
    }
    json.ledger.validate().map_err(|error| FileError::new(path, format_args!("ledger: {error}")))?;

    let accounts_path = path.with_file_name(file);
    let bytes = read_bytes(&accounts_path)?;
    let accounts = parse_accounts(&accounts_path, &bytes, &json.ledger)?;
    let found = sha256_digest(&[&bytes]);
    if found != expected {
        let name = path.file_name().unwrap_or_default().display();
        let reason =
            format!("checksum mismatch: SHA-256 is {found}, {name} says {expected}; the file was changed");
        return Err(FileError::new(&accounts_path, reason));
    }
    if accounts.len() as u64 != json.accounts.count {
        let reason = format!("accounts.count: {} stated, {} found", json.accounts.count, accounts.len());
        return Err(FileError::new(path, reason));
    }
    let genesis = Genesis {
        time: TimeMs(json.time_ms),
        ledger: json.ledger,
        oracle: json.oracle,
        prices: json.prices,
        members,
        group,
        accounts,
    };
    genesis.world().map_err(|error| FileError::new(path, error))?;
    Ok((genesis, commitment))
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    let key: Key = text.parse().map_err(|error: seawall_types::ParseHexError| error.to_string())?;
    decode_public(&key.0)
}

/// What the header of block 0 commits to: the records of genesis as one batch in an empty store. The store
/// is built in memory, on the deterministic runtime: nothing of it is kept, and the root does not depend on
/// where it is built.
///
/// # Errors
/// If the genesis does not build.
pub fn commitment(genesis: &Genesis) -> anyhow::Result<StateCommitment> {
    let world = genesis.world()?;
    let runner = deterministic::Runner::new(deterministic::Config::new().with_timeout(None));
    Ok(runner.start(|context| async move {
        let config = store::config(DEFAULT_PREFIX, Sequential, store::page_cache());
        store::seed(context.child("genesis"), config, world.records()).await
    })?)
}

fn accounts_csv(genesis: &Genesis) -> Result<Vec<u8>, csv::Error> {
    let bytes = Vec::with_capacity(genesis.accounts.len() * 128);
    let mut writer = WriterBuilder::new().has_headers(false).from_writer(bytes);
    writer.write_record(COLUMNS)?;
    let mut row = ByteRecord::new();
    for (index, account) in genesis.accounts.iter().enumerate() {
        let owner = account.owner.to_string();
        let mut put = |position: Option<&GenesisPosition>| -> Result<(), csv::Error> {
            row.clear();
            let mut cell = Vec::with_capacity(48);
            let mut push = |value: &dyn Display| {
                cell.clear();
                let _ = write!(cell, "{value}");
                row.push_field(&cell);
            };
            push(&index);
            push(&owner);
            push(&account.collateral);
            match position {
                None => (0..4).for_each(|_| push(&"")),
                Some(position) => {
                    match genesis.ledger.markets.get(usize::from(position.market.get())) {
                        Some(market) => push(&market.symbol),
                        None => push(&format_args!("unknown-{}", position.market)),
                    }
                    push(&position.lots);
                    push(&position.cost);
                    match position.mode {
                        MarginMode::Cross => push(&""),
                        MarginMode::Isolated => push(&position.isolated),
                    }
                }
            }
            writer.write_byte_record(&row)
        };
        if account.positions.is_empty() {
            put(None)?;
        }
        account.positions.iter().try_for_each(|position| put(Some(position)))?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

fn parse_accounts(path: &Path, bytes: &[u8], params: &ChainParams) -> Result<Vec<GenesisAccount>, FileError> {
    let markets: BTreeMap<&[u8], MarketId> = params
        .markets
        .iter()
        .zip(0..)
        .map(|(market, id)| (market.symbol.as_str().as_bytes(), MarketId(id)))
        .collect();
    let mut reader = ReaderBuilder::new().has_headers(false).from_reader(bytes);
    let mut row = ByteRecord::new();
    let mut accounts: Vec<GenesisAccount> = Vec::new();
    // Owner and collateral as written in the row before: rows of one account repeat them.
    let mut head = (Vec::new(), Vec::new());
    let mut header = true;
    let mut flat = false;
    loop {
        match reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(csv_fault(path, &error)),
        }
        let line = row.position().map_or(0, |position| position.line() as usize);
        let fault = |reason: &dyn Display| FileError::at_line(path, line, reason);
        if header {
            if row != COLUMNS[..] {
                return Err(fault(&format_args!("the first line must be {}", COLUMNS.join(","))));
            }
            header = false;
            continue;
        }
        if row.len() != COLUMNS.len() {
            return Err(fault(&format_args!("{} columns, not {}", row.len(), COLUMNS.len())));
        }
        let account: u64 = number(&row, 0, &fault)?;
        let next = accounts.len() as u64;
        if account == next {
            let owner = text(&row, 1).and_then(|text| text.parse::<Key>().map_err(|error| error.to_string()));
            let owner = owner.map_err(|reason| fault(&format_args!("column owner: {reason}")))?;
            let collateral = Atoms(number(&row, 2, &fault)?);
            head = (row[1].to_vec(), row[2].to_vec());
            accounts.push(GenesisAccount { owner, collateral, positions: Vec::new() });
        } else if account + 1 != next {
            return Err(fault(&format_args!(
                "accounts out of order: account {account} where {} or {next} must stand",
                next.saturating_sub(1)
            )));
        } else if head.0 != row[1] || head.1 != row[2] {
            return Err(fault(&format_args!(
                "account {account} has another owner or collateral in the line before"
            )));
        } else if flat || row[3].is_empty() {
            return Err(fault(&format_args!("account {account} has both a position and a line without one")));
        }
        flat = row[3].is_empty();
        if flat {
            if (4..7).any(|column| !row[column].is_empty()) {
                return Err(fault(
                    &"a line without a market must not have lots, cost or isolated collateral",
                ));
            }
            continue;
        }
        let market = *markets.get(&row[3]).ok_or_else(|| {
            fault(&format_args!("column market: no market is named `{}`", row[3].escape_ascii()))
        })?;
        let positions = &mut accounts.last_mut().expect("pushed above").positions;
        if positions.last().is_some_and(|last: &GenesisPosition| last.market >= market) {
            return Err(fault(&format_args!("positions of account {account} are not by ascending market")));
        }
        let isolated: Option<i128> = if row[6].is_empty() { None } else { Some(number(&row, 6, &fault)?) };
        positions.push(GenesisPosition {
            market,
            lots: Lots(number(&row, 4, &fault)?),
            cost: Atoms(number(&row, 5, &fault)?),
            mode: if isolated.is_some() { MarginMode::Isolated } else { MarginMode::Cross },
            isolated: Atoms(isolated.unwrap_or(0)),
        });
    }
    if header {
        return Err(FileError::at_line(
            path,
            1,
            format_args!("the first line must be {}", COLUMNS.join(",")),
        ));
    }
    Ok(accounts)
}

fn text(row: &ByteRecord, column: usize) -> Result<&str, String> {
    std::str::from_utf8(&row[column]).map_err(|_| "not UTF-8 text".into())
}

fn number<T: FromStr<Err: Display>>(
    row: &ByteRecord,
    column: usize,
    fault: &dyn Fn(&dyn Display) -> FileError,
) -> Result<T, FileError> {
    let bytes = &row[column];
    // One way to write a number: no sign but a minus, no space.
    let plain = !bytes.starts_with(b"+");
    text(row, column)
        .ok()
        .filter(|_| plain)
        .ok_or("malformed".to_owned())
        .and_then(|text| text.parse().map_err(|error: T::Err| error.to_string()))
        .map_err(|reason| {
            fault(&format_args!(
                "column {}: `{}` is no number: {reason}",
                COLUMNS[column],
                bytes.escape_ascii()
            ))
        })
}

fn csv_fault(path: &Path, error: &csv::Error) -> FileError {
    let line = error.position().map(|position| position.line() as usize);
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} columns, not {expected_len}")
        }
        _ => error.to_string(),
    };
    FileError { line, ..FileError::new(path, reason) }
}

/// The digest of the files' contents that operators compare before they start: that of block 0.
pub fn genesis_digest(genesis: &Genesis, commitment: &StateCommitment) -> Digest {
    use commonware_cryptography::Digestible as _;
    Digest(genesis.block(commitment).digest().0)
}
