//! Whole validators under the deterministic runtime. Each test is a claim; each run is a function of its seed.

mod common;
use common::*;

const ACCOUNTS: u64 = 200;

#[test]
fn four_honest_validators_agree_through_a_crash_and_liquidate() {
    let fixture = Fixture::new(1, 4, ACCOUNTS);
    let validators = Validators::new(&fixture, Path::crash(1));
    plan(&validators, 1, 50, 4).build().run().unwrap();
    let chain = check_run(&fixture, &validators.seats);
    assert!(chain.len() >= 50);
    let moved = chain.iter().filter(|seen| !seen.marks.is_empty()).count();
    assert!(moved > 40, "prices moved in {moved} blocks");
    assert!(liquidations(&chain) > 20, "{} liquidations", liquidations(&chain));
    let actions: usize = chain.iter().map(|seen| seen.answers.len()).sum();
    assert!(actions > 20, "{actions} actions");
}
