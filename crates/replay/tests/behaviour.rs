//! Owners act as their parameters say, the same way every time.

use seawall_replay::behaviour::{Behaviour, BehaviourSpec, HealthView, Intent};

const ACCOUNTS: usize = 20_000;
const NEAR: HealthView = HealthView { equity: 1_050_000, maintenance: 1_000_000, withdrawable: 0 };
const HEALTHY: HealthView = HealthView { equity: 9_000_000, maintenance: 1_000_000, withdrawable: 500_000 };

fn owners(spec: BehaviourSpec) -> Behaviour {
    Behaviour::new(spec, ACCOUNTS)
}

fn run(spec: &BehaviourSpec, view: HealthView, steps: u64) -> Vec<(usize, u64, Intent)> {
    let mut owners = owners(spec.clone());
    let mut intents = Vec::new();
    for step in 0..steps {
        for account in 0..ACCOUNTS {
            if let Some(intent) = owners.decide(account, step, view) {
                intents.push((account, step, intent));
            }
        }
    }
    intents
}

#[test]
fn a_share_of_owners_tops_up_and_no_owner_more_often_than_its_trait() {
    let spec = BehaviourSpec::default();
    let owners = owners(spec.clone());
    let defenders = (0..ACCOUNTS).filter(|account| owners.traits(*account).top_ups > 0).count();
    assert!((0.33..0.37).contains(&(defenders as f64 / ACCOUNTS as f64)), "{defenders}");
    let mut count = vec![0u8; ACCOUNTS];
    for (account, _, intent) in run(&spec, NEAR, 300) {
        let Intent::TopUp(amount) = intent else { panic!("{intent:?}") };
        let traits = owners.traits(account);
        assert_eq!(NEAR.equity + amount, i128::from(traits.target_ppm));
        assert!(traits.target_ppm >= traits.trigger_ppm + 500_000);
        count[account] += 1;
    }
    // Views do not change here, so whoever acts goes on until it has had enough.
    let spent = (0..ACCOUNTS).filter(|account| count[*account] == owners.traits(*account).top_ups);
    assert!(spent.count() > ACCOUNTS * 99 / 100);
    assert!((0..ACCOUNTS).all(|account| count[account] <= owners.traits(account).top_ups));
}

#[test]
fn healthy_owners_take_out_what_they_can_and_no_more() {
    let spec = BehaviourSpec { withdraw_ppm: 2_000, transfer_ppm: 1_000, ..BehaviourSpec::default() };
    let intents = run(&spec, HEALTHY, 20);
    let (mut withdrawals, mut transfers) = (0, 0);
    for (account, _, intent) in intents {
        match intent {
            Intent::Withdraw(amount) => {
                withdrawals += 1;
                assert!((50_000..=500_000).contains(&amount), "{amount}");
            }
            Intent::Transfer(to, amount) => {
                transfers += 1;
                assert!(to < ACCOUNTS && to != account);
                assert!((25_000..=250_000).contains(&amount), "{amount}");
            }
            Intent::TopUp(_) => panic!("a healthy account was topped up"),
        }
    }
    assert!((600..1_000).contains(&withdrawals), "{withdrawals}");
    assert!((280..520).contains(&transfers), "{transfers}");
}

#[test]
fn nothing_is_done_without_equity_or_outside_the_book() {
    let always = BehaviourSpec {
        top_up_ppm: 1_000_000,
        notice_ppm: 1_000_000,
        withdraw_ppm: 1_000_000,
        transfer_ppm: 1_000_000,
        ..BehaviourSpec::default()
    };
    let mut owners = owners(always.clone());
    assert!(owners.decide(0, 0, NEAR).is_some());
    assert_eq!(owners.decide(1, 0, HealthView { equity: 0, ..NEAR }), None);
    assert_eq!(owners.decide(1, 0, HealthView { equity: -5, ..NEAR }), None);
    assert_eq!(owners.decide(ACCOUNTS, 0, NEAR), None);
    assert_eq!(owners.decide(1, 0, HealthView { withdrawable: 0, ..HEALTHY }), None);
    // An owner who is alone has nobody to send to.
    let alone = BehaviourSpec { withdraw_ppm: 0, ..always };
    assert_eq!(Behaviour::new(alone, 1).decide(0, 0, HEALTHY), None);
}

#[test]
fn extreme_views_do_not_overflow() {
    let spec = BehaviourSpec { notice_ppm: 1_000_000, top_up_ppm: 1_000_000, ..BehaviourSpec::default() };
    let mut owners = owners(spec);
    let huge = HealthView { equity: 1, maintenance: i128::MAX, withdrawable: i128::MAX };
    assert!(matches!(owners.decide(0, 0, huge), Some(Intent::TopUp(amount)) if amount > 0));
}

#[test]
fn the_same_seed_acts_the_same_way() {
    let spec = BehaviourSpec::default();
    assert_eq!(run(&spec, NEAR, 30), run(&spec, NEAR, 30));
    assert_ne!(run(&spec, NEAR, 30), run(&BehaviourSpec { seed: 1, ..spec.clone() }, NEAR, 30));
}
