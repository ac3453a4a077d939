//! The files that a validator starts from: what is written reads back, and what is wrong is told with its
//! place.

mod common;

use common::*;
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use seawall_chain::{block::PublicKey, engine, store, timeline::Timeline};
use seawall_node::{
    config_file::{LogConfig, LogFormat, ReplayConfig, ValidatorConfig},
    files::FileError,
    genesis_file,
    keys::Keys,
};
use seawall_types::Atoms;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

struct Written {
    place: TempDir,
    json: PathBuf,
    csv: PathBuf,
}

fn written() -> Written {
    let (genesis, _) = genesis(6, 4);
    let commitment = genesis_file::commitment(&genesis).unwrap();
    let place = tempfile::tempdir().unwrap();
    let json = genesis_file::write(place.path(), &genesis, &commitment).unwrap();
    let csv = place.path().join(genesis_file::ACCOUNTS_FILE);
    Written { place, json, csv }
}

/// Replaces the first `from`, reads, and returns the complaint with the file names shortened.
fn complaint(written: &Written, file: &Path, from: &str, to: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
    let error = genesis_file::read(&written.json).err().map(|error| error.to_string());
    fs::write(file, text).unwrap();
    let error = error.unwrap_or_else(|| panic!("`{to}` for `{from}` was accepted"));
    error.replace(&format!("{}/", written.place.path().display()), "")
}

#[test]
fn a_genesis_reads_as_it_was_written() {
    let (mut genesis, _) = genesis(6, 4);
    // Beyond what JSON readers hold in 64 bits: negative and large.
    genesis.ledger.insurance = Atoms(999_999_999_999_999_999);
    genesis.ledger.insurance = Atoms(genesis.ledger.insurance.get() / 10);
    let commitment = genesis_file::commitment(&genesis).unwrap();
    assert_eq!(genesis_file::commitment(&genesis).unwrap(), commitment);
    let place = tempfile::tempdir().unwrap();
    let path = genesis_file::write(place.path(), &genesis, &commitment).unwrap();
    let (read, stated) = genesis_file::read(&path).unwrap();
    assert_eq!(stated, commitment);
    assert_eq!(read.accounts, genesis.accounts);
    assert_eq!(read.ledger, genesis.ledger);
    assert_eq!(read.oracle, genesis.oracle);
    assert_eq!(read.prices, genesis.prices);
    assert_eq!(read.members, genesis.members);
    assert_eq!(read.digest(), genesis.digest());
    assert_eq!(genesis_file::commitment(&read).unwrap(), commitment);
    // One genesis, one text.
    let again = tempfile::tempdir().unwrap();
    let copy = genesis_file::write(again.path(), &read, &stated).unwrap();
    assert_eq!(fs::read(copy).unwrap(), fs::read(path).unwrap());
}

#[test]
fn numbers_of_128_bits_survive_json() {
    for value in [i128::MAX, i128::MIN, i128::from(u64::MAX) + 1, -1, 0] {
        let text = serde_json::to_string(&Atoms(value)).unwrap();
        assert_eq!(serde_json::from_str::<Atoms>(&text).unwrap(), Atoms(value));
    }
}

#[test]
fn a_wrong_genesis_is_refused_with_file_line_and_reason() {
    let written = written();
    let json = |from: &str, to: &str| complaint(&written, &written.json, from, to);
    let expect = |found: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| found.contains(part)), "{found}: expected {parts:?}");
    };
    expect(json("\"format\": 1", "\"format\": 2"), &["genesis.json", "format 2 is not known"]);
    expect(
        json("\"format\": 1,", "\"format\": 1,\n  \"fee\": 3,"),
        &["genesis.json:3:7", "unknown field `fee`"],
    );
    expect(json("\"time_ms\": 1", "\"time_ms\": x1"), &["genesis.json:3:", "expected"]);
    expect(
        json("\"insurance\": 1", "\"insurance\": \"1\", \"x\": 1"),
        &["genesis.json:29:18", "invalid number"],
    );
    expect(json("\"band_ppm\": 10000", "\"band_ppm\": 900000"), &["genesis.json", "ledger: market 0: band"]);
    expect(json("\"gate_ppm\": 60000", "\"gate_ppm\": 0"), &["genesis.json", "oracle"]);
    expect(json("\"count\": 13", "\"count\": 14"), &["accounts.count", "13 found"]);
    expect(json("accounts.csv", "../accounts.csv"), &["must name a file beside"]);
    expect(json("accounts.csv", "nothing.csv"), &["nothing.csv", "cannot be read"]);
    expect(json("\"group_key\": \"", "\"group_key\": \"00"), &["genesis.json:", "group_key"]);
    expect(json("\"root\": \"", "\"root\": \"g"), &["genesis.json:", "state.root"]);
    expect(json("\"sha256\": \"", "\"sha256\": \"0"), &["genesis.json:", "accounts.sha256"]);
    let text = fs::read_to_string(&written.json).unwrap();
    let start = text.find("\"validators\": [\n    \"").unwrap() + 21;
    let (first, second) = (text[start..start + 64].to_owned(), text[start + 72..start + 136].to_owned());
    expect(json(&first, &second), &["two have the same key"]);
    expect(json(&format!("    \"{first}\",\n"), ""), &["dealt to 4 validators, the file lists 3"]);
    expect(json(&first, "abc"), &["genesis.json:5:6", "64 hexadecimal digits"]);
    let cut = text.len() / 2;
    fs::write(&written.json, &text[..cut]).unwrap();
    let error = genesis_file::read(&written.json).err().unwrap();
    assert!(error.line.is_some() && error.reason.contains("EOF"), "{error}");
}

#[test]
fn wrong_accounts_are_refused_with_line_and_reason() {
    let written = written();
    let csv = |from: &str, to: &str| complaint(&written, &written.csv, from, to);
    let expect = |found: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| found.contains(part)), "{found}: expected {parts:?}");
    };
    let text = fs::read_to_string(&written.csv).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with(",1000000000,,,,"), "{}", lines[1]);
    let owner1 = owner(seawall_types::AccountId(1)).key().to_string();

    expect(
        csv("collateral_atoms", "collateral"),
        &["accounts.csv:1", "the first line must be account,owner"],
    );
    expect(csv("\n1,", "\nx,"), &["accounts.csv:3", "column account: `x` is no number"]);
    expect(csv("\n1,", "\n7,"), &["accounts.csv:3", "out of order: account 7 where 0 or 1 must stand"]);
    expect(csv(&owner1, "12"), &["accounts.csv:3", "column owner"]);
    expect(csv(",2000000,BTC", ",20_00,BTC"), &["accounts.csv:3", "column collateral_atoms: `20_00`"]);
    expect(csv(",2000000,BTC", ",+2000000,BTC"), &["accounts.csv:3", "collateral_atoms"]);
    expect(csv(",2000000,BTC", ",2000001,BTC"), &["accounts.csv:4", "another owner or collateral"]);
    expect(csv("BTC", "DOGE"), &["accounts.csv:3", "no market is named `DOGE`"]);
    expect(csv("ETH-2", "BTC"), &["accounts.csv:4", "not by ascending market"]);
    expect(csv("BTC,10,", "BTC,10.5,"), &["accounts.csv:3", "column lots: `10.5`"]);
    expect(csv("BTC,10,", "BTC,99999999999999999999,"), &["accounts.csv:3", "column lots"]);
    expect(csv(",1000000000,,,,", ",1000000000,,5,,"), &["accounts.csv:2", "without a market"]);
    expect(csv(",1000000000,,,,", ",1000000000,,,"), &["accounts.csv:2", "6 columns, not 7"]);
    expect(csv(",2000000,BTC", ",-5,BTC"), &["accounts.csv:4", "another owner"]);
    let all = text.replace(",2000000,", ",2000001,");
    fs::write(&written.csv, all).unwrap();
    let error = genesis_file::read(&written.json).err().unwrap().to_string();
    expect(error, &["accounts.csv", "checksum mismatch", "genesis.json says"]);
    // A fault that only the whole shows, under a checksum that fits.
    let uneven = text.replacen("BTC,10,", "BTC,11,", 1);
    fs::write(&written.csv, &uneven).unwrap();
    let digest = |text: &str| seawall_chain::crypto::sha256_digest(&[text.as_bytes()]).to_string();
    let json = fs::read_to_string(&written.json).unwrap();
    fs::write(&written.json, json.replace(&digest(&text), &digest(&uneven))).unwrap();
    let error = genesis_file::read(&written.json).err().unwrap().to_string();
    expect(error, &["genesis.json", "market 0: longs and shorts must be equal"]);
    fs::write(&written.csv, "").unwrap();
    let error = genesis_file::read(&written.json).err().unwrap().to_string();
    expect(error, &["accounts.csv:1", "the first line must be"]);
}

#[test]
fn keys_read_back_and_are_for_their_owner_alone() {
    let (_, dealt) = genesis(1, 4);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("keys.toml");
    for (identity, share) in dealt.members {
        let keys = Keys { identity, share };
        keys.write(&path).unwrap();
        let (read, warnings) = Keys::read(&path).unwrap();
        assert_eq!(read.identity.secret(), keys.identity.secret());
        assert_eq!(read.share, keys.share);
        assert!(warnings.is_empty(), "{warnings:?}");
        let shown = format!("{keys:?}");
        assert!(shown.contains(&keys.identity.key().to_string()));
        let secret: String = keys.identity.secret().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&secret) && fs::read_to_string(&path).unwrap().contains(&secret));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (_, warnings) = Keys::read(&path).unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("chmod 600"), "{warnings:?}");
    }
}

#[test]
fn wrong_keys_are_refused_without_showing_them() {
    let (_, dealt) = genesis(1, 4);
    let (identity, share) = dealt.members[0].clone();
    let keys = Keys { identity, share };
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("keys.toml");
    keys.write(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let secrets: Vec<String> = text
        .lines()
        .filter(|line| line.contains("secret ="))
        .map(|line| line.split('"').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(secrets.len(), 2);
    let refuse = |text: String, line: usize, reason: &str| {
        fs::write(&path, text).unwrap();
        let error: FileError = Keys::read(&path).unwrap_err();
        let shown = error.to_string();
        assert!(error.line == Some(line) && shown.contains(reason), "{shown}: expected {line}, {reason}");
        assert!(!secrets.iter().any(|secret| shown.contains(&secret[8..])), "{shown}");
    };
    let line = |name: &str| text.lines().position(|line| line.starts_with(name)).unwrap() + 1;
    refuse(text.replace("format = 1", "format = 9"), line("format"), "format 9 is not known");
    refuse(text.replace(&secrets[0], &secrets[0][2..]), line("identity_secret"), "32 bytes");
    refuse(text.replace(&secrets[0], &format!("{}zz", &secrets[0][2..])), line("identity_secret"), "not hex");
    refuse(text.replace(&secrets[1], &secrets[1][1..]), line("share_secret"), "odd number");
    refuse(text.replace(&secrets[1], &"ff".repeat(33)), line("share_secret"), "not a share");
    refuse(text.replace(&format!("\"{}\"", secrets[1]), &secrets[1]), line("share_secret"), "malformed");
    refuse(text.replace("share_secret = ", "share_secret "), line("share_secret"), "malformed");
    refuse(format!("{text}hint = \"x\"\n"), text.lines().count() + 1, "unknown field `hint`");
    refuse(text.replace("share_index = 0", "share_index = 3"), line("share_index"), "index 0");
    let other = dealt.members[1].0.key().to_string();
    refuse(
        text.replace(&keys.identity.key().to_string(), &other),
        line("public_key"),
        "identity_secret is of",
    );
}

fn config(peers: Vec<(PublicKey, std::net::SocketAddr)>, base: &Path) -> ValidatorConfig {
    ValidatorConfig {
        genesis: base.join("../genesis.json"),
        keys: base.join("keys.toml"),
        data: base.join("data"),
        listen: "127.0.0.1:7001".parse().unwrap(),
        block_interval: Duration::from_millis(250),
        metrics: Some("[::1]:9001".parse().unwrap()),
        submit: Some("127.0.0.1:9002".parse().unwrap()),
        timeline: Timeline { wall_origin_ms: 5, chain_origin_ms: 7, speed: 10 },
        replay: Some(ReplayConfig { name: "crash-2025-10-10".into(), feeds: vec![0, 2] }),
        log: LogConfig {
            filter: "info,seawall=debug".into(),
            format: LogFormat::Json,
            file: Some(base.join("log.txt")),
        },
        peers,
    }
}

#[test]
fn a_configuration_reads_as_it_was_written_and_paths_are_relative_to_it() {
    let (genesis, _) = genesis(1, 4);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("validator.toml");
    let peers: Vec<_> =
        genesis.members.iter().cloned().map(|key| (key, "10.0.0.1:7000".parse().unwrap())).collect();
    let written = config(peers, place.path());
    written.write(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("data = \"data\"") && !text.contains("wall_origin_ms = 0"), "{text}");
    assert_eq!(ValidatorConfig::read(&path).unwrap(), written);

    let (first, address) = written.peers[0].clone();
    let least = format!(
        "genesis = \"/g.json\"\nkeys = \"k\"\ndata = \"d\"\nlisten = \"0.0.0.0:1\"\n[peers]\n{} = \"{address}\"\n",
        seawall_chain::crypto::key_of(&first)
    );
    fs::write(&path, least).unwrap();
    let read = ValidatorConfig::read(&path).unwrap();
    assert_eq!((read.timeline, read.replay, read.log), (Timeline::LIVE, None, LogConfig::default()));
    assert_eq!(read.genesis, Path::new("/g.json"));
    assert_eq!(read.keys, place.path().join("k"));
    assert_eq!(read.block_interval, Duration::from_millis(100));
}

#[test]
fn a_wrong_configuration_is_refused_with_line_and_column() {
    let (genesis, _) = genesis(1, 4);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("validator.toml");
    let peers = genesis.members.iter().cloned().map(|key| (key, "10.0.0.1:7000".parse().unwrap())).collect();
    config(peers, place.path()).write(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let refuse = |from: &str, to: &str, place: &str, reason: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = ValidatorConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("validator.toml:{place}")) && error.contains(reason), "{error}");
    };
    refuse("listen = \"127.0.0.1:7001\"", "listen = \"localhost\"", "4:10", "socket address");
    refuse("keys =", "key =", "2:1", "unknown field `key`");
    refuse("block_interval_ms = 250", "block_interval_ms = -1", "5:21", "invalid value");
    refuse("block_interval_ms = 250", "block_interval_ms = 900000", "5:21", "at most 60000");
    refuse("speed = 10", "speed = 0", "", "must be positive");
    refuse("format = \"json\"", "format = \"xml\"", "", "unknown variant `xml`");
    refuse("[peers]\n", "[peers]\nzz = \"1.1.1.1:1\"\n", "", "not a public key");
    refuse("data = \"data\"\n", "data = \"data\"\ndata = \"x\"\n", "4:1", "duplicate");
    refuse("data = \"data\"", "data = \"data", "3:", "");
    fs::remove_file(&path).unwrap();
    let error = ValidatorConfig::read(&path).unwrap_err().to_string();
    assert!(error.contains("validator.toml: cannot be read"), "{error}");
}

#[test]
fn a_store_that_was_seeded_and_not_marked_is_seeded_again() {
    let (genesis, _) = genesis(6, 1);
    let commitment = genesis_file::commitment(&genesis).unwrap();
    deterministic::Runner::default().start(|context| async move {
        let prepare =
            || engine::prepare(&context, "x", &genesis, &commitment, commonware_parallel::Sequential);
        // As a crash between the state and the marker leaves it.
        let config = store::config("x", commonware_parallel::Sequential, store::page_cache());
        let records = genesis.world().unwrap();
        store::seed(context.child("crashed"), config, records.records()).await.unwrap();
        assert!(prepare().await.unwrap());
        assert!(!prepare().await.unwrap());
    });
}
