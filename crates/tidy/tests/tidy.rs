//! The rules of the workspace that no compiler knows.
//!
//! Every rule is one test, and every test names all breaches at once. To add a crate, put it into
//! [`FLOORS`]; nothing else here knows the list of crates.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use toml::{Table, Value};

/// The floors: a crate may depend on crates of lower floors only, tests included.
const FLOORS: [(&str, &str, u8); 13] = [
    ("seawall-types", "crates/types", 0),
    ("seawall-ledger", "crates/ledger", 1),
    ("seawall-market", "crates/market", 1),
    ("seawall-oracle", "crates/oracle", 1),
    ("seawall-queueing", "crates/queueing", 1),
    ("seawall-replay", "crates/replay", 1),
    ("seawall-chain", "crates/chain", 2),
    ("seawall-node", "crates/node", 3),
    ("seawall-storm", "crates/storm", 3),
    ("seawall-devnet", "crates/devnet", 4),
    ("seawall-bench", "crates/bench", 4),
    ("seawall", "bin/seawall", 5),
    ("seawall-tidy", "crates/tidy", 5),
];

/// Who may name commonware, and which crates of it. `None` is all of them.
const COMMONWARE: [(&str, Option<&[&str]>); 7] = [
    ("seawall-types", Some(&["commonware-codec"])),
    ("seawall-market", Some(&["commonware-codec"])),
    ("seawall-chain", None),
    ("seawall-node", None),
    ("seawall-storm", None),
    ("seawall-bench", None),
    ("seawall-devnet", Some(&["commonware-codec", "commonware-cryptography", "commonware-utils"])),
];
const COMMONWARE_VERSION: &str = "2026.10.0";

/// Crates whose code decides what a block does: no floats, no maps with an order of their own.
const CONSENSUS: [&str; 5] =
    ["crates/types", "crates/ledger", "crates/market", "crates/oracle", "crates/chain"];
/// Crates without clock, thread, or anything asynchronous: of those the pure ones, and formulas.
const PURE: [&str; 5] =
    ["crates/types", "crates/ledger", "crates/market", "crates/oracle", "crates/queueing"];
/// Crates of formulas in floats. Nothing of [`CONSENSUS`] may come to depend on one, not even through others.
const FORMULAS: [&str; 1] = ["seawall-queueing"];
/// Modules of the chain that may look at a clock: before a vote, while building, to sign an observation, to make a zone
/// late on purpose; before a batch of signatures, and where a simulation lets the time pass that work takes.
const CLOCKS: [&str; 7] =
    ["app.rs", "gate.rs", "ingress.rs", "observer.rs", "timeline.rs", "work.rs", "zones.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(directory: &str) -> Table {
    let path = root().join(directory).join("Cargo.toml");
    read(&path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a directory, by path. Build outputs and hidden directories are left out.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory can be listed").path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != "runs" && !name.starts_with('.') {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn rust_files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let directory = root().join(directory);
    if directory.is_dir() {
        walk(&directory, &mut found);
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
}

/// What is compiled into a crate: its sources without its test modules.
fn sources(directories: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        directories.iter().flat_map(|directory| rust_files(&format!("{directory}/src"))).collect();
    found.retain(|path| {
        !path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
    });
    found
}

/// Source text with comments, strings and characters blanked out; lines stay where they are.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |out: &mut String, bytes: &[u8]| {
        out.extend(bytes.iter().map(|byte| if *byte == b'\n' { '\n' } else { ' ' }));
    };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let previous = at.checked_sub(1).map(|before| bytes[before]);
        let in_word = previous.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            let (mut depth, mut end) = (0usize, 0);
            while end < rest.len() {
                if rest[end..].starts_with(b"/*") {
                    (depth, end) = (depth + 1, end + 2);
                } else if rest[end..].starts_with(b"*/") {
                    (depth, end) = (depth - 1, end + 2);
                    if depth == 0 {
                        break;
                    }
                } else {
                    end += 1;
                }
            }
            end
        } else if let Some(length) = raw_string(rest).filter(|_| !in_word) {
            length
        } else if rest[0] == b'"' {
            quoted(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            out.push(if rest[0].is_ascii() { char::from(rest[0]) } else { ' ' });
            at += 1;
            continue;
        };
        blank(&mut out, &rest[..length]);
        at += length;
    }
    out
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let start = if rest.starts_with(b"br") { 2 } else { usize::from(rest.starts_with(b"r")) };
    let hashes = rest[start..].iter().take_while(|byte| **byte == b'#').count();
    if start == 0 || rest.get(start + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let body = start + hashes + 1;
    let length = rest[body..].windows(end.len()).position(|window| window == end)?;
    Some(body + length + end.len())
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A character literal, not a lifetime.
fn is_character(rest: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]).into_owned();
    let mut letters = text.chars();
    match letters.next() {
        Some('\\') => true,
        Some(_) => letters.next() == Some('\''),
        None => false,
    }
}

/// Words and numbers of a line of code.
fn tokens(line: &str) -> Vec<&str> {
    line.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|token| !token.is_empty())
        .collect()
}

/// A literal such as `1.5` or `1e3`, which is a float without saying so.
fn has_float_literal(line: &str) -> bool {
    let bytes = line.as_bytes();
    (0..bytes.len()).any(|at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let begins = bytes[at].is_ascii_digit()
            && !before.is_some_and(|byte| byte == b'_' || byte == b'.' || byte.is_ascii_alphanumeric());
        if !begins {
            return false;
        }
        let digits = |from: usize| {
            bytes[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count()
        };
        let end = at + digits(at);
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(b' ');
        let fraction = byte(end) == b'.' && byte(end + 1).is_ascii_digit();
        let sign = usize::from(matches!(byte(end + 1), b'+' | b'-'));
        let exponent = matches!(byte(end), b'e' | b'E') && byte(end + 1 + sign).is_ascii_digit();
        fraction || exponent
    })
}

/// Lines of code in which one of the words occurs.
fn lines_with(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        for (number, line) in (1..).zip(code(&read(path)).lines()) {
            if let Some(word) = tokens(line).into_iter().find(|token| words.contains(token)) {
                found.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    found
}

fn none(breaches: &[String], rule: &str) {
    assert!(breaches.is_empty(), "{rule}\n  {}", breaches.join("\n  "));
}

/// Dependencies of every kind: name, definition, and whether it is for tests only.
fn dependencies(manifest: &Table) -> Vec<(String, Value, bool)> {
    let mut found = Vec::new();
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(Value::as_table) {
        tables.extend(targets.values().filter_map(Value::as_table));
    }
    for table in tables {
        for (kind, tests) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            for (name, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
                found.push((package.to_owned(), value.clone(), tests));
            }
        }
    }
    found
}

#[test]
fn every_crate_has_a_floor_and_imports_point_down() {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().map(|(name, _, floor)| (*name, *floor)).collect();
    let mut breaches = Vec::new();
    let mut directories: Vec<String> = vec!["bin/seawall".into()];
    for entry in fs::read_dir(root().join("crates")).expect("crates/ exists") {
        let path = entry.expect("crates/ can be listed").path();
        if path.join("Cargo.toml").is_file() {
            directories
                .push(format!("crates/{}", path.file_name().expect("it has a name").to_string_lossy()));
        }
    }
    for directory in &directories {
        if !FLOORS.iter().any(|(_, known, _)| known == directory) {
            breaches.push(format!("{directory} has no floor; add it to FLOORS"));
        }
    }
    for (name, directory, floor) in FLOORS {
        let manifest = manifest(directory);
        if manifest["package"]["name"].as_str() != Some(name) {
            breaches.push(format!("{directory} is not {name}"));
        }
        for (dependency, _, _) in dependencies(&manifest) {
            match floors.get(dependency.as_str()) {
                Some(below) if *below >= floor && dependency != name => {
                    breaches.push(format!("{name} (floor {floor}) imports {dependency} (floor {below})"));
                }
                None if dependency.starts_with("seawall") => {
                    breaches.push(format!("{name} imports {dependency}, which has no floor"));
                }
                _ => {}
            }
        }
    }
    none(&breaches, "imports point down only:");
}

#[test]
fn commonware_is_named_in_few_crates_and_pinned() {
    let mut breaches = Vec::new();
    for (name, directory, _) in FLOORS {
        let allowed = COMMONWARE.iter().find(|(allowed, _)| *allowed == name);
        for (dependency, value, _) in dependencies(&manifest(directory)) {
            if !dependency.starts_with("commonware-") {
                continue;
            }
            let fits = match allowed {
                None => false,
                Some((_, None)) => true,
                Some((_, Some(crates))) => crates.contains(&dependency.as_str()),
            };
            if !fits {
                breaches.push(format!("{name} may not name {dependency}"));
            }
            if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                breaches.push(format!("{name} does not take {dependency} from the workspace"));
            }
        }
    }
    let types = manifest("crates/types");
    if types["dependencies"]["commonware-codec"].get("optional").and_then(Value::as_bool) != Some(true) {
        breaches.push("seawall-types needs commonware-codec without its codec feature".into());
    }
    let workspace = manifest(".");
    let exact = format!("={COMMONWARE_VERSION}");
    for (name, value) in workspace["workspace"]["dependencies"].as_table().expect("a table") {
        let version = value.as_str().or_else(|| value.get("version").and_then(Value::as_str));
        if name.starts_with("commonware-") && version != Some(&exact) {
            breaches.push(format!("{name} is pinned to {version:?}, not to {exact}"));
        }
        if value.get("git").is_some() {
            breaches.push(format!("{name} comes from a repository, not from a registry"));
        }
    }
    let lock: Table = read(&root().join("Cargo.lock")).parse().expect("Cargo.lock is TOML");
    for package in lock["package"].as_array().expect("a list") {
        let (name, version) = (package["name"].as_str(), package["version"].as_str());
        if name.is_some_and(|name| name.starts_with("commonware-")) && version != Some(COMMONWARE_VERSION) {
            breaches.push(format!("Cargo.lock holds {name:?} {version:?}"));
        }
    }
    none(&breaches, "commonware is named where COMMONWARE says, in one version:");
}

#[test]
fn the_ledger_builds_without_commonware() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "-p",
            "seawall-ledger",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tree.contains("seawall-types"), "{tree}");
    let breaches: Vec<_> =
        tree.lines().filter(|line| line.starts_with("commonware")).map(str::to_owned).collect();
    none(&breaches, "the tree of seawall-ledger holds:");
}

#[test]
fn consensus_code_has_no_floats() {
    let files = sources(&CONSENSUS);
    assert!(files.len() > 30, "found {} files only", files.len());
    let mut breaches = lines_with(&files, &["f16", "f32", "f64", "f128"]);
    for path in &files {
        for (number, line) in (1..).zip(code(&read(path)).lines()) {
            if has_float_literal(line) {
                breaches.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    none(&breaches, "floats differ between machines:");
}

#[test]
fn consensus_code_depends_on_no_formulas_in_floats() {
    let mut breaches = Vec::new();
    for directory in CONSENSUS {
        let mut waiting = vec![directory];
        let mut seen = Vec::new();
        while let Some(directory) = waiting.pop() {
            for (dependency, _, tests) in dependencies(&manifest(directory)) {
                if tests || seen.contains(&dependency) {
                    continue;
                }
                if FORMULAS.contains(&dependency.as_str()) {
                    breaches.push(format!("{directory} imports {dependency}"));
                }
                if let Some((_, below, _)) = FLOORS.iter().find(|(name, _, _)| *name == dependency) {
                    waiting.push(below);
                }
                seen.push(dependency);
            }
        }
    }
    none(&breaches, "what decides a block rests on floats:");
}

#[test]
fn consensus_code_has_no_hash_maps() {
    let files = sources(&CONSENSUS);
    let words = ["HashMap", "HashSet", "RandomState", "DefaultHasher", "hash_map", "hash_set"];
    none(&lines_with(&files, &words), "the order of a hash map is not the same everywhere:");
}

#[test]
fn pure_crates_know_no_clock_no_thread_and_no_runtime() {
    let files = sources(&PURE);
    let words = [
        "SystemTime",
        "Instant",
        "UNIX_EPOCH",
        "thread",
        "async",
        "await",
        "tokio",
        "rayon",
        "env",
        "fs",
        "net",
        "thread_rng",
        "OsRng",
    ];
    none(&lines_with(&files, &words), "what happens in these crates depends on their inputs alone:");
}

#[test]
fn the_chain_is_generic_over_its_runtime_and_reads_clocks_in_few_places() {
    let files = sources(&["crates/chain"]);
    let mut breaches = lines_with(&files, &["tokio", "Instant", "thread_rng", "OsRng"]);
    let pure: Vec<_> = files
        .into_iter()
        .filter(|path| !path.file_name().is_some_and(|name| CLOCKS.iter().any(|clock| name == *clock)))
        .collect();
    breaches.extend(lines_with(&pure, &["SystemTime", "UNIX_EPOCH", "sleep"]));
    none(&breaches, "clocks belong to the modules in CLOCKS, runtimes to the floor above:");
}

#[test]
fn nothing_is_left_undone_in_silence() {
    let mut breaches = Vec::new();
    for path in rust_files("crates").into_iter().chain(rust_files("bin")) {
        for (number, line) in (1..).zip(code(&read(&path)).lines()) {
            let compact: String = line.split_whitespace().collect();
            for marker in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
                if compact.contains(marker) {
                    breaches.push(format!("{}:{number}: {marker}", path.display()));
                }
            }
        }
    }
    none(&breaches, "unfinished, or not run:");
}

#[test]
fn every_crate_says_what_it_is_and_keeps_the_lints() {
    let mut breaches = Vec::new();
    for (name, directory, _) in FLOORS {
        let source = root().join(directory).join("src");
        let path = [source.join("lib.rs"), source.join("main.rs")].into_iter().find(|path| path.is_file());
        match path {
            Some(path) if read(&path).starts_with("//! ") => {}
            Some(path) => breaches.push(format!("{} does not start with its documentation", path.display())),
            None => breaches.push(format!("{name} has neither lib.rs nor main.rs")),
        }
        let manifest = manifest(directory);
        let inherits = |table: &Value| table.get("workspace").and_then(Value::as_bool) == Some(true);
        if !manifest.get("lints").is_some_and(inherits) {
            breaches.push(format!("{name} does not take the workspace's lints"));
        }
        if !manifest["package"].get("publish").is_some_and(inherits) {
            breaches.push(format!("{name} could be published by mistake"));
        }
    }
    if manifest(".")["workspace"]["lints"]["rust"]["unsafe_code"].as_str() != Some("forbid") {
        breaches.push("unsafe code is not forbidden".into());
    }
    none(&breaches, "crates:");
}

/// Files under version control; all of them where there is no repository.
fn tracked() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout)
                .split('\0')
                .filter(|name| !name.is_empty())
                .map(|name| root().join(name))
                .filter(|path| path.is_file())
                .collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(&root(), &mut found);
            found
        }
    }
}

#[test]
fn files_speak_of_the_project_alone() {
    // In two halves each, so that this file does not hold what it looks for.
    let words: Vec<String> = [
        ("/wo", "rk/"),
        ("/tm", "p/"),
        ("/ro", "ot/"),
        ("/ho", "me/"),
        ("../sha", "red"),
        ("spi", "kes/"),
        ("sub", "agent"),
        ("sub-", "agent"),
        ("chat", "gpt"),
        ("clau", "de"),
        ("anthro", "pic"),
        ("language ", "model"),
        ("issues ", "show"),
    ]
    .iter()
    .map(|(one, two)| format!("{one}{two}"))
    .collect();
    let mut breaches = Vec::new();
    for path in tracked() {
        // Data is not prose.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.extension().is_some_and(|extension| extension == "csv" || extension == "lock") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.to_lowercase();
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                breaches.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    none(&breaches, "paths of one machine, or words of a workshop:");
}

/// What the documents put between backticks.
fn quotations(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        found.extend(line.split('`').skip(1).step_by(2).map(|quotation| (number, quotation.to_owned())));
    }
    found
}

#[test]
fn documents_name_files_and_tests_that_exist() {
    let mut documents = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    walk(&root().join("docs"), &mut documents);
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut breaches = Vec::new();
    let mut tests = 0;
    for document in documents {
        for (number, quotation) in quotations(&read(&document)) {
            let ours = ["crates/", "bin/", "data/", "storms/", "vectors/", "docs/", ".ci/"];
            if !ours.iter().any(|start| quotation.starts_with(start)) || quotation.contains(['*', ' ', '{']) {
                continue;
            }
            let (file, item) = quotation.split_once("::").unwrap_or((&quotation, ""));
            let path = root().join(file);
            if !path.exists() {
                breaches.push(format!("{}:{number}: {file} does not exist", document.display()));
            } else if !item.is_empty() {
                tests += 1;
                let name = item.rsplit("::").next().unwrap_or(item);
                let source = code(&read(&path));
                let known = source.lines().map(tokens).any(|line| {
                    line.windows(2).any(|pair| {
                        pair[1] == name
                            && ["fn", "struct", "enum", "trait", "const", "type", "mod"].contains(&pair[0])
                    })
                });
                if !known {
                    breaches.push(format!("{}:{number}: {file} has no {name}", document.display()));
                }
            }
        }
    }
    none(&breaches, "documents and code disagree:");
    assert!(tests > 20, "docs/SAFETY.md names {tests} items only");
}

#[test]
fn the_rules_see_what_they_look_for() {
    let source =
        "let a = 1; // f64\n/* HashMap /* f32 */ */ let b: f64 = \"f64\"; let c = 'f'; x::<'a>(r#\"f64\"#);";
    let seen = code(source);
    assert_eq!(seen.lines().count(), 2);
    assert!(!tokens(seen.lines().next().unwrap_or_default()).contains(&"f64"));
    let second: Vec<_> = tokens(seen.lines().nth(1).unwrap_or_default());
    assert_eq!(second.iter().filter(|token| **token == "f64").count(), 1, "{second:?}");
    assert!(!second.contains(&"HashMap") && second.contains(&"a"));
    assert!(has_float_literal("let x = 1.5;") && has_float_literal("3e8") && has_float_literal("1_000.0"));
    for line in ["pair.0.1", "0..10", "1.max(2)", "0xe5", "u64::MAX", "a1.5", "x.0 .1", "1_000"] {
        assert!(!has_float_literal(line), "{line}");
    }
}
