//! What account owners do in a storm.
//!
//! Integers only, and a pure function of seed, account, step and what the owner sees, apart from the
//! count of top-ups already made: a run can be repeated on any machine.
//!
//! A step is one second of market time. Defaults, all of them estimates, because no venue publishes
//! what its users do in a crash:
//! * 35 % of owners defend a position, 1 to 3 times in all. They act once equity is below 1.1 to 2.0
//!   times the maintenance margin (each owner has a level), noticing it with 5 % a second, that is
//!   after 20 s on average, and bring equity to 1.5 to 4.0 times the maintenance margin, at least half
//!   as much again as their level;
//! * an owner whose equity is at least 3 times the maintenance margin withdraws with 20 ppm a second,
//!   10 to 100 % of what can be withdrawn, and sends with 10 ppm a second 5 to 50 % of it to somebody.

use seawall_types::limits::{MAX_AMOUNT_ATOMS, MAX_PPM};
use serde::{Deserialize, Serialize};

const PPM: i128 = MAX_PPM as i128;

/// How account owners behave. The defaults are explained in the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BehaviourSpec {
    /// Seed.
    pub seed: u64,
    /// Share of owners who ever top up.
    pub top_up_ppm: u32,
    /// Chance for each step that such an owner notices.
    pub notice_ppm: u32,
    /// Most top-ups of one owner; each has between one and this many.
    pub most_top_ups: u8,
    /// Equity over maintenance margin below which owners act: each has a level in this range.
    pub trigger_ppm: (u32, u32),
    /// Equity over maintenance margin to which they top up: each has a level in this range.
    pub target_ppm: (u32, u32),
    /// Chance of a withdrawal for each step.
    pub withdraw_ppm: u32,
    /// Chance of a transfer for each step.
    pub transfer_ppm: u32,
    /// Equity over maintenance margin from which an owner takes value out.
    pub healthy_ppm: u32,
}

impl Default for BehaviourSpec {
    fn default() -> Self {
        Self {
            seed: 0,
            top_up_ppm: 350_000,
            notice_ppm: 50_000,
            most_top_ups: 3,
            trigger_ppm: (1_100_000, 2_000_000),
            target_ppm: (1_500_000, 4_000_000),
            withdraw_ppm: 20,
            transfer_ppm: 10,
            healthy_ppm: 3_000_000,
        }
    }
}

/// Shares of what can be withdrawn that a withdrawal takes.
const WITHDRAW_SHARE_PPM: (u32, u32) = (100_000, 1_000_000);
/// Shares of what can be withdrawn that a transfer takes.
const TRANSFER_SHARE_PPM: (u32, u32) = (50_000, 500_000);
/// A target lies at least this much above the trigger, so that one top-up is not followed at once by
/// the next.
const TARGET_OVER_TRIGGER_PPM: u32 = 500_000;

/// What an owner sees of the account, in atoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthView {
    /// Collateral and unrealised profit.
    pub equity: i128,
    /// Maintenance margin; zero without positions.
    pub maintenance: i128,
    /// What could be withdrawn now.
    pub withdrawable: i128,
}

/// What an owner wants to do. Amounts are positive, in atoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Bring in more collateral.
    TopUp(i128),
    /// Take value off the chain.
    Withdraw(i128),
    /// Send value to the account with this index, never the own one.
    Transfer(usize, i128),
}

/// What an owner is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// How often this owner tops up, at most; zero: never.
    pub top_ups: u8,
    /// Equity over maintenance margin below which the owner acts.
    pub trigger_ppm: u32,
    /// Equity over maintenance margin to which the owner tops up.
    pub target_ppm: u32,
}

/// The owners of a book, and how often each has topped up.
#[derive(Clone, Debug)]
pub struct Behaviour {
    spec: BehaviourSpec,
    topped_up: Vec<u8>,
}

impl Behaviour {
    /// Owners of `accounts` accounts.
    pub fn new(spec: BehaviourSpec, accounts: usize) -> Self {
        Self { spec, topped_up: vec![0; accounts] }
    }

    /// What the owner of `account` is like.
    pub fn traits(&self, account: usize) -> Traits {
        let mut dice = Dice::new(self.spec.seed, account as u64, u64::MAX);
        let defends = dice.hit(self.spec.top_up_ppm);
        let top_ups = dice.between((1, u32::from(self.spec.most_top_ups.max(1)))) as u8;
        let trigger_ppm = dice.between(self.spec.trigger_ppm);
        let target_ppm =
            dice.between(self.spec.target_ppm).max(trigger_ppm.saturating_add(TARGET_OVER_TRIGGER_PPM));
        Traits {
            top_ups: if defends { top_ups.min(self.spec.most_top_ups) } else { 0 },
            trigger_ppm,
            target_ppm,
        }
    }

    /// What the owner of `account` does at `step`, if anything. A top-up counts when it is returned.
    ///
    /// An account that is not in the book does nothing, and neither does one without equity: what it
    /// added would only fill the hole.
    pub fn decide(&mut self, account: usize, step: u64, view: HealthView) -> Option<Intent> {
        let topped_up = *self.topped_up.get(account)?;
        let mut dice = Dice::new(self.spec.seed, account as u64, step);
        // One roll for each chance, in this order whatever the outcome, keeps the chances independent.
        let (notices, withdraws, transfers) = (
            dice.hit(self.spec.notice_ppm),
            dice.hit(self.spec.withdraw_ppm),
            dice.hit(self.spec.transfer_ppm),
        );
        let times = |rate: u32| view.maintenance.saturating_mul(i128::from(rate)) / PPM;
        if view.equity <= 0 || !(notices || withdraws || transfers) {
            return None;
        }
        if notices && view.maintenance > 0 {
            let traits = self.traits(account);
            if topped_up < traits.top_ups && view.equity < times(traits.trigger_ppm) {
                self.topped_up[account] += 1;
                return Some(Intent::TopUp(
                    (times(traits.target_ppm) - view.equity).clamp(1, MAX_AMOUNT_ATOMS),
                ));
            }
        }
        if view.withdrawable <= 0 || view.equity < times(self.spec.healthy_ppm) {
            return None;
        }
        let mut part = |shares| {
            let amount = view.withdrawable.saturating_mul(i128::from(dice.between(shares))) / PPM;
            amount.clamp(1, MAX_AMOUNT_ATOMS)
        };
        if withdraws {
            return Some(Intent::Withdraw(part(WITHDRAW_SHARE_PPM)));
        }
        let others = self.topped_up.len() as u64 - 1;
        if transfers && others > 0 {
            let amount = part(TRANSFER_SHARE_PPM);
            let other = (dice.next() % others) as usize;
            return Some(Intent::Transfer(other + usize::from(other >= account), amount));
        }
        None
    }
}

/// SplitMix64 from a key: a few multiplications for each owner and second, where seeding a stream
/// cipher would cost more than everything else here.
pub(crate) struct Dice(u64);

impl Dice {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(crate) fn new(seed: u64, account: u64, step: u64) -> Self {
        let mut state = seed;
        for word in [account, step] {
            state = mix(state.wrapping_add(Self::STEP) ^ mix(word.wrapping_add(Self::STEP)));
        }
        Self(state)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        mix(self.0)
    }

    pub(crate) fn hit(&mut self, ppm: u32) -> bool {
        self.next() % u64::from(MAX_PPM) < u64::from(ppm)
    }

    /// From the first to the second, both included.
    pub(crate) fn between(&mut self, (low, high): (u32, u32)) -> u32 {
        let width = u64::from(high.saturating_sub(low)) + 1;
        low + (self.next() % width) as u32
    }
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
