//! The tools on a data directory that a validator filled for real, whole and damaged in every file.

mod common;

use common::*;
use seawall_node::{
    datadir::{DirectoryError, DirectoryLock},
    export::{export, import},
    genesis_file,
    inspect::{Query, inspect},
    offline::ToolError,
    verify::{Progress, VerifyError, verify},
};
use seawall_types::{AccountId, Height, TimeMs};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

fn nothing(_: Progress) {}

#[test]
fn a_chain_verifies() {
    let fixture = Fixture::get();
    let copy = fixture.copy();
    let mut heights = Vec::new();
    let verified = verify(copy.path(), &fixture.genesis, &fixture.commitment, |progress| {
        heights.push(progress.height.get());
        assert!(progress.height <= progress.last);
    })
    .unwrap();
    assert!(verified.height >= Height(BLOCKS), "{verified:?}");
    assert!(verified.certificates > 0 && verified.actions > 5, "{verified:?}");
    assert_eq!(heights, (1..=verified.height.get()).collect::<Vec<_>>());
    // Nothing was changed: it verifies again.
    let again = verify(copy.path(), &fixture.genesis, &fixture.commitment, nothing).unwrap();
    assert_eq!(again, verified);
}

#[test]
fn a_directory_of_another_chain_missing_empty_or_in_use_is_refused() {
    let fixture = Fixture::get();
    let copy = fixture.copy();
    let look =
        |path: &Path| inspect(path, &fixture.genesis, &fixture.commitment, &Query::Summary).unwrap_err();

    let mut other = (*fixture.genesis).clone();
    other.time = TimeMs(1);
    let commitment = genesis_file::commitment(&other).unwrap();
    let error = inspect(copy.path(), &other, &commitment, &Query::Summary).unwrap_err();
    assert!(matches!(error, ToolError::OtherChain { .. }), "{error}");

    let missing = copy.path().join("nothing");
    assert!(matches!(look(&missing), ToolError::Directory(DirectoryError::Missing(_))));
    assert!(!missing.exists());

    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(look(empty.path()), ToolError::NoChain(_)));
    let error = verify(empty.path(), &fixture.genesis, &fixture.commitment, nothing).unwrap_err();
    assert!(matches!(error, VerifyError::Tool(ToolError::NoChain(_))), "{error}");

    let lock = DirectoryLock::acquire(copy.path()).unwrap();
    assert!(matches!(look(copy.path()), ToolError::Directory(DirectoryError::InUse { .. })));
    drop(lock);
    inspect(copy.path(), &fixture.genesis, &fixture.commitment, &Query::Summary).unwrap();
}

#[test]
fn accounts_markets_and_blocks_are_shown() {
    let fixture = Fixture::get();
    let copy = fixture.copy();
    let look = |query: &Query| inspect(copy.path(), &fixture.genesis, &fixture.commitment, query);
    let summary = look(&Query::Summary).unwrap();
    let last = summary.json()["last_final_block"].as_u64().unwrap();
    assert!(last >= BLOCKS);
    assert_eq!(summary.json()["markets"].as_array().unwrap().len(), 2);

    let account = look(&Query::Account(AccountId(1))).unwrap();
    assert_eq!(account.json()["owner"], owner(AccountId(1)).key().to_string());
    assert_eq!(account.json()["positions"][1]["market"], "ETH-2");
    assert_eq!(account.json()["positions"][1]["isolated_atoms"], "250000");
    assert!(account.json()["health"]["cross"]["equity_atoms"].is_string());
    let text = account.to_string();
    assert!(text.contains("isolated ETH-2") && text.contains("withdrawable"), "{text}");

    let by_name = look(&Query::Market("btc".into())).unwrap();
    let by_number = look(&Query::Market("0".into())).unwrap();
    assert_eq!(by_name.json(), by_number.json());
    assert_eq!(by_name.json()["mark_state"], "fresh");
    assert!(by_name.to_string().contains("backstop fund, atoms"));

    let block = look(&Query::Block(Height(last))).unwrap();
    assert!(block.json()["certificate_bytes"].as_u64().unwrap() > 48);
    assert_eq!(block.json()["observations"].as_array().unwrap().len(), 1);
    let below = look(&Query::Block(Height(last - 1))).unwrap();
    assert_eq!(block.json()["parent"], below.json()["digest"]);
    look(&Query::Block(Height(0))).unwrap();

    for query in [
        Query::Account(AccountId(1_000)),
        Query::Market("DOGE".into()),
        Query::Market("2".into()),
        Query::Block(Height(last + 1)),
    ] {
        assert!(matches!(look(&query), Err(ToolError::NotFound(_))), "{query:?}");
    }
}

#[test]
fn an_export_imports_into_a_directory_that_verifies_and_goes_on() {
    let fixture = Fixture::get();
    let (genesis, commitment) = (&fixture.genesis, &fixture.commitment);
    let copy = fixture.copy();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("chain.seawall");
    let exported = export(copy.path(), genesis, commitment, &file, nothing).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), exported.bytes);
    // Never over what is there.
    let error = export(copy.path(), genesis, commitment, &file, nothing).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");

    let directory = place.path().join("imported");
    let imported = import(&file, genesis, commitment, &directory, nothing).unwrap();
    assert_eq!(imported.height, exported.height);
    let verified = verify(&directory, genesis, commitment, nothing).unwrap();
    assert_eq!(verified, imported);
    let original = verify(copy.path(), genesis, commitment, nothing).unwrap();
    assert_eq!((original.digest, original.actions), (imported.digest, imported.actions));
    let again = place.path().join("again.seawall");
    export(&directory, genesis, commitment, &again, nothing).unwrap();
    assert_eq!(fs::read(&again).unwrap(), fs::read(&file).unwrap());
    let error = import(&file, genesis, commitment, &directory, nothing).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");

    // A validator goes on from the next block, on the same chain.
    let more = imported.height.get() + 10;
    let first = run(&directory, genesis, *commitment, &fixture.dealt, more);
    assert_eq!(first, imported.height.next());
    let longer = verify(&directory, genesis, commitment, nothing).unwrap();
    assert!(longer.height >= Height(more));
    let show = |directory: &Path| {
        let block = Query::Block(imported.height);
        inspect(directory, genesis, commitment, &block).unwrap().json().clone()
    };
    assert_eq!(show(&directory), show(copy.path()));
}

#[test]
fn a_damaged_export_is_refused_wherever_the_damage_is() {
    let fixture = Fixture::get();
    let (genesis, commitment) = (&fixture.genesis, &fixture.commitment);
    let copy = fixture.copy();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("chain.seawall");
    export(copy.path(), genesis, commitment, &file, nothing).unwrap();
    let good = fs::read(&file).unwrap();
    let directory = place.path().join("imported");
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = import(&file, genesis, commitment, &directory, nothing).unwrap_err().to_string();
        assert!(!directory.exists() && error.contains("chain.seawall"), "{error}");
        error
    };
    for step in 0..25 {
        let mut bytes = good.clone();
        let at = step * (good.len() - 1) / 24;
        bytes[at] ^= 0x10;
        refused(&bytes);
        refused(&good[..at]);
    }
    let mut longer = good.clone();
    longer.push(0);
    refused(&longer);
    let error = refused(b"");
    assert!(error.contains("not an exported chain"), "{error}");

    // Damage under a checksum that was made to fit is found by what it says.
    let mut bytes = good.clone();
    let at = good.len() / 2;
    bytes[at] ^= 1;
    let body = bytes.len() - 32;
    let digest = seawall_chain::crypto::sha256_digest(&[&bytes[..body]]);
    bytes[body..].copy_from_slice(&digest.0);
    fs::write(&file, &bytes).unwrap();
    import(&file, genesis, commitment, &directory, nothing).unwrap_err();
    assert!(!directory.exists());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.file_name().unwrap().to_str().unwrap().contains(['.', 'L']) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is done to a file or partition.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    Cut,
    Flip,
    Remove,
}

impl Spoil {
    fn apply(self, path: &Path, quarter: usize) {
        match self {
            Self::Cut => {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                let length = file.metadata().unwrap().len();
                file.set_len(length * quarter as u64 / 4).unwrap();
            }
            Self::Flip => {
                let mut bytes = fs::read(path).unwrap();
                let at = bytes.len() * quarter / 4;
                bytes[at] ^= 0x40;
                fs::write(path, bytes).unwrap();
            }
            Self::Remove => fs::remove_dir_all(path).unwrap(),
        }
    }
}

/// Whatever is spoiled, the answer is the same as before or a refusal in words.
#[test]
fn a_damaged_directory_is_refused_or_answers_as_before() {
    let fixture = Fixture::get();
    let (genesis, commitment) = (&fixture.genesis, &fixture.commitment);
    let whole = fixture.copy();
    let good = verify(whole.path(), genesis, commitment, nothing).unwrap();
    let account = Query::Account(AccountId(1));
    let shown = inspect(whole.path(), genesis, commitment, &account).unwrap().json().clone();

    // Votes and blocks that are not final yet are not what the tools read.
    let read = |place: &Path| {
        let name = place.to_str().unwrap();
        !name.contains("-simplex") && !name.contains("-cache")
    };
    let mut jobs = Vec::new();
    for path in files(whole.path()) {
        let place = path.strip_prefix(whole.path()).unwrap().to_owned();
        if read(&place) {
            jobs.extend([1, 3].map(|quarter| (place.clone(), Spoil::Cut, quarter)));
            jobs.extend([0, 1, 3].map(|quarter| (place.clone(), Spoil::Flip, quarter)));
        }
    }
    for entry in fs::read_dir(whole.path()).unwrap() {
        let entry = entry.unwrap();
        let place = PathBuf::from(entry.file_name());
        if entry.file_type().unwrap().is_dir() && read(&place) {
            jobs.push((place, Spoil::Remove, 0));
        }
    }

    let next = AtomicUsize::new(0);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((place, spoil, quarter)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let what = format!("{spoil:?} {} at {quarter}/4", place.display());
                    let copy = fixture.copy();
                    spoil.apply(&copy.path().join(place), *quarter);
                    match verify(copy.path(), genesis, commitment, nothing) {
                        Ok(found) => assert_eq!(found.digest, good.digest, "{what}"),
                        Err(error) => {
                            let text = error.to_string();
                            assert!(text.len() > 30 && !text.contains("panicked"), "{what}: {text}");
                            println!("{what}: {text}");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if let Ok(found) = inspect(copy.path(), genesis, commitment, &account)
                        && found.json()["height"] == shown["height"]
                    {
                        assert_eq!(*found.json(), shown, "{what}");
                    }
                }
            });
        }
    });
    let refused = refused.into_inner();
    println!("{refused} of {} refused", jobs.len());
    assert!(refused > jobs.len() / 3, "{refused} of {} refused", jobs.len());
}
