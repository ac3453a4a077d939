//! What users send, open loop: the instants of every flow are drawn beforehand from the seed, and nobody waits for an
//! answer before sending again.
//!
//! An action is made and signed when it is due, so that a hundredfold of the capacity is cheap to offer and takes no memory.
//! Accounts take turns in an order that is shuffled once. Each belongs to one validator, its gateway; when that is
//! down, its owner goes to the next that runs. The time from a user to the gateway is not part of any figure.
//!
//! | kind | lane | what |
//! | --- | --- | --- |
//! | `deposit` | rescue | the issuer credits the account with a dollar |
//! | `top_up` | rescue | a tenth of a dollar into an isolated position; to the next account if there is none |
//! | `cancel_all`, `schedule_cancel` | rescue | as their names |
//! | `order` | trade | immediate, one to five lots, up to 20 bps through the mark |
//! | `withdraw` | trade | a cent |
//!
//! Rescues are all four kinds in equal parts, trades nine orders for a withdrawal, if the scenario says nothing else.

use crate::{
    scenario::{ActionName, LaneName, Plan, TrafficPlan},
    world::{CHAIN, ISSUER, account_key},
};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp};
use seawall_chain::crypto::Identity;
use seawall_ledger::GenesisAccount;
use seawall_types::{
    AccountId, Action, Atoms, Domain, Height, Kind, Lots, MarginMode, MarketId, Nonce, PriceTicks, Recipient,
    Side, Signature, SignedAction, Terms, TimeMs,
};
use std::collections::BTreeMap;

/// Blocks for which a rescue may be carried, and the step of its expiry: nonces that expire together take no room.
const RESCUE_LIFE_BLOCKS: u64 = 2_048;
/// The same of a trade.
const TRADE_LIFE_BLOCKS: u64 = 128;
/// How far through the mark an order may reach, in parts per million.
const MAX_CROSS_PPM: u64 = 2_000;
/// How far ahead dead man's switches are set, in chain time.
const SWITCH_MS: u64 = 24 * 3_600_000;

const RESCUES: [ActionName; 4] =
    [ActionName::Deposit, ActionName::TopUp, ActionName::CancelAll, ActionName::ScheduleCancel];
const TRADES: [ActionName; 10] = {
    let mut all = [ActionName::Order; 10];
    all[9] = ActionName::Withdraw;
    all
};

/// What a flow needs to know of the chain when it makes an action.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Last height that its gateway executed.
    pub height: Height,
    /// Block time there.
    pub time: TimeMs,
    /// Last known price by market.
    pub prices: Vec<Option<PriceTicks>>,
}

/// An action that is due.
pub struct Due {
    /// When it is sent, ms since the storm began.
    pub at_ms: f64,
    /// Its lane.
    pub lane: LaneName,
    /// Its gateway.
    pub to: usize,
    flow: usize,
    account: u64,
}

struct Flow {
    plan: TrafficPlan,
    rng: ChaCha8Rng,
    /// Mean time between actions, ms; nothing for flows of one action each.
    gap: Option<Exp<f64>>,
    /// Instants that were drawn, latest first, of flows of one action each.
    once: Vec<(f64, u64)>,
    next_ms: f64,
    end_ms: f64,
    accounts: Vec<u64>,
    turn: usize,
    gateways: Vec<usize>,
    kinds: Vec<ActionName>,
}

/// Every flow of a run.
pub struct Traffic {
    seed: u64,
    flows: Vec<Flow>,
    nonces: Vec<u64>,
    keys: BTreeMap<u64, Identity>,
    isolated: BTreeMap<u64, MarketId>,
    accounts: u64,
}

/// The gateway of an account among those that a flow goes to.
pub fn gateway(account: u64, gateways: &[usize]) -> usize {
    gateways[(account % gateways.len() as u64) as usize]
}

impl Traffic {
    /// The flows of a plan. `capacity` is in actions a second; `multiple` is the sweep's point.
    pub fn new(
        plan: &Plan,
        seed: u64,
        capacity: f64,
        multiple: Option<f64>,
        genesis: &[GenesisAccount],
        book: u64,
    ) -> Self {
        let isolated = (0..).zip(genesis).filter_map(|(id, account)| {
            let own = account.positions.iter().find(|own| own.mode == MarginMode::Isolated)?;
            Some((id, own.market))
        });
        let flows = plan.traffic.iter().enumerate().map(|(place, flow)| {
            let mut rng = ChaCha8Rng::seed_from_u64(crate::world::mix(seed ^ (place as u64) << 48));
            let mut accounts: Vec<u64> = match (flow.accounts.is_empty(), flow.lane) {
                (false, _) => flow.accounts.clone(),
                (true, LaneName::Rescue) => (1..=book).collect(),
                (true, LaneName::Trade) => (book + 1..genesis.len() as u64).collect(),
            };
            accounts.shuffle(&mut rng);
            let per_second = match (flow.per_second, flow.rate) {
                (Some(per_second), _) => per_second,
                (None, Some(rate)) => rate * capacity,
                (None, None) => multiple.unwrap_or(0.0) * capacity,
            };
            let (from, end) = (flow.from_ms as f64, plan.end_of(flow) as f64);
            let mut once = Vec::new();
            if flow.once_each {
                once = accounts.iter().map(|account| (rng.random_range(from..=end), *account)).collect();
                once.sort_by(|a, b| b.0.total_cmp(&a.0));
            }
            let kinds = match (flow.kinds.is_empty(), flow.lane) {
                (false, _) => flow.kinds.clone(),
                (true, LaneName::Rescue) => RESCUES.to_vec(),
                (true, LaneName::Trade) => TRADES.to_vec(),
            };
            let gap = (!flow.once_each && per_second > 0.0)
                .then(|| Exp::new(per_second / 1e3).expect("a positive rate"));
            let mut own = Flow {
                plan: flow.clone(),
                rng,
                gap,
                once,
                next_ms: from,
                end_ms: end,
                accounts,
                turn: 0,
                gateways: plan.who(&flow.to),
                kinds,
            };
            own.advance(from);
            own
        });
        Self {
            seed,
            flows: flows.collect(),
            nonces: vec![0; genesis.len()],
            keys: BTreeMap::new(),
            isolated: isolated.collect(),
            accounts: genesis.len() as u64,
        }
    }

    /// When something is sent next; nothing if nothing is any more.
    pub fn next_ms(&self) -> Option<f64> {
        let instants = self.flows.iter().map(|flow| flow.next_ms).filter(|at| at.is_finite());
        instants.min_by(f64::total_cmp)
    }

    /// Takes what is sent next, if it is due by `now_ms`.
    pub fn take(&mut self, now_ms: f64) -> Option<Due> {
        let place =
            (0..self.flows.len()).min_by(|a, b| self.flows[*a].next_ms.total_cmp(&self.flows[*b].next_ms))?;
        let flow = &mut self.flows[place];
        let at_ms = flow.next_ms;
        if at_ms > now_ms {
            return None;
        }
        let account = match flow.once.pop() {
            Some((_, account)) => account,
            None => {
                let account = flow.accounts[flow.turn % flow.accounts.len()];
                flow.turn += 1;
                account
            }
        };
        flow.advance(at_ms);
        let to = gateway(account, &flow.gateways);
        Some(Due { at_ms, lane: flow.plan.lane, to, flow: place, account })
    }

    /// Makes and signs what is due, as its user sees the chain.
    pub fn make(&mut self, due: &Due, sight: &Sight) -> SignedAction {
        let flow = &mut self.flows[due.flow];
        let kind = flow.kinds[flow.rng.random_range(0..flow.kinds.len())];
        let mut signer = due.account;
        let markets = sight.prices.len().max(1) as u64;
        let action = match kind {
            ActionName::Deposit => {
                signer = ISSUER.get();
                Action::Deposit { to: AccountId(due.account), amount: Atoms(1_000_000) }
            }
            ActionName::TopUp => match self.isolated.get(&due.account) {
                Some(market) => Action::TopUpIsolated { market: *market, amount: Atoms(100_000) },
                None => {
                    let next = 1 + due.account % (self.accounts - 1);
                    Action::Transfer { to: AccountId(next), amount: Atoms(100_000) }
                }
            },
            ActionName::CancelAll => Action::CancelAll { market: None, keep_reduce_only: false },
            ActionName::ScheduleCancel => {
                Action::ScheduleCancel { at: Some(TimeMs(sight.time.get() + SWITCH_MS)) }
            }
            ActionName::Order => {
                let market = flow.rng.random_range(0..markets);
                let side = if flow.rng.random_bool(0.5) { Side::Buy } else { Side::Sell };
                let mark =
                    sight.prices.get(market as usize).copied().flatten().unwrap_or(PriceTicks(1)).get();
                let cross = mark * flow.rng.random_range(0..=MAX_CROSS_PPM) / 1_000_000;
                let limit = match side {
                    Side::Buy => mark + cross,
                    Side::Sell => mark.saturating_sub(cross).max(1),
                };
                Action::Place(Terms {
                    market: MarketId(market as u16),
                    side,
                    limit: PriceTicks(limit),
                    lots: Lots(flow.rng.random_range(1..=5)),
                    kind: Kind::Ioc,
                    reduce_only: false,
                    good_til: None,
                    cloid: None,
                })
            }
            ActionName::Withdraw => Action::Withdraw { amount: Atoms(10_000), recipient: Recipient([7; 32]) },
        };
        let life = match due.lane {
            LaneName::Rescue => RESCUE_LIFE_BLOCKS,
            LaneName::Trade => TRADE_LIFE_BLOCKS,
        };
        let nonce = &mut self.nonces[signer as usize];
        *nonce += 1;
        let mut signed = SignedAction {
            chain: CHAIN,
            account: AccountId(signer),
            nonce: Nonce(*nonce),
            expiry: Height((sight.height.get() / (life / 2) + 2) * (life / 2)),
            action,
            signature: Signature::default(),
        };
        let seed = self.seed;
        let key = self.keys.entry(signer).or_insert_with(|| account_key(AccountId(signer), seed));
        signed.signature = key.sign(Domain::Action, CHAIN, &signed.message());
        signed
    }
}

impl Flow {
    fn advance(&mut self, after: f64) {
        self.next_ms = match (&self.gap, self.plan.once_each) {
            (_, true) => self.once.last().map_or(f64::INFINITY, |(at, _)| *at),
            (Some(gap), _) => after + gap.sample(&mut self.rng),
            (None, _) => f64::INFINITY,
        };
        if self.next_ms > self.end_ms {
            self.next_ms = f64::INFINITY;
        }
    }
}

/// Whom and how much an action helps.
pub fn helps(action: &SignedAction) -> Option<(u64, i128)> {
    match &action.action {
        Action::Deposit { to, amount } | Action::Transfer { to, amount } => Some((to.get(), amount.get())),
        Action::TopUpIsolated { amount, .. } => Some((action.account.get(), amount.get())),
        _ => None,
    }
}
