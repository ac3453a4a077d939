//! Nothing to link: the tests of this crate hold the rules of the workspace that no compiler knows. Who
//! may import whom, what consensus code may not contain, what the documents may not name. The rules are in
//! `tests/tidy.rs`, each one a test and a table.
