//! A small chain to test with, and random histories on it.
#![allow(dead_code, missing_docs, clippy::too_many_arguments)]

use seawall_ledger::*;
use seawall_types::*;

pub const ISSUER: AccountId = AccountId(0);
pub const USERS: u64 = 24;
pub const CHAIN: ChainId = ChainId(7);

/// Deterministic random numbers (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub fn tier(up_to: i128, initial: u32, maintenance: u32) -> TierParams {
    TierParams { up_to_notional: Atoms(up_to), initial_ppm: Ppm(initial), maintenance_ppm: Ppm(maintenance) }
}

pub fn market(symbol: &str, atoms_per_tick_lot: u32) -> MarketParams {
    MarketParams {
        symbol: symbol.parse().unwrap(),
        atoms_per_tick_lot,
        min_price: PriceTicks(10),
        max_price: PriceTicks(10_000_000),
        tiers: vec![
            tier(1_000_000_000, 50_000, 25_000),
            tier(20_000_000_000, 100_000, 50_000),
            tier(200_000_000_000, 200_000, 100_000),
        ],
        taker_fee_ppm: Ppm(500),
        maker_fee_ppm: Ppm(200),
        funding: FundingParams { interval_ms: 28_800_000, cap_ppm: Ppm(7_500), interest_ppm: 100 },
        band_ppm: Ppm(20_000),
        blind_range_ppm: Ppm(100_000),
        open_interest_cap: Lots(100_000),
        account_cap: Lots(20_000),
        isolated_only: false,
        liquidation: LiquidationParams { penalty_ppm: Ppm(10_000) },
        backstop: BackstopParams {
            initial_fund: Atoms(500_000_000),
            capacity_lots: Lots(3_000),
            per_block_lots: Lots(1_000),
        },
        orders: seawall_ledger::OrderParams::default(),
    }
}

/// Two ordinary markets and one for isolated margin only, with funding at the clamp.
pub fn params() -> ChainParams {
    let mut third = market("DOGE-PERP", 3);
    third.isolated_only = true;
    third.funding = FundingParams { interval_ms: 60_000, cap_ppm: Ppm(7_500), interest_ppm: -7_500 };
    let mut second = market("ETH-PERP", 10);
    second.funding = FundingParams { interval_ms: 600_000, cap_ppm: Ppm(7_500), interest_ppm: 7_500 };
    ChainParams {
        chain: CHAIN,
        issuer: ISSUER,
        insurance: Atoms(100_000_000),
        liquidation_steps: 3,
        max_wait_blocks: 4,
        rescues: RescueParams::default(),
        markets: vec![market("BTC-PERP", 1), second, third],
    }
}

pub fn users(count: u64, collateral: i128) -> impl Iterator<Item = GenesisAccount> {
    (0..count).map(move |n| GenesisAccount {
        owner: Key([n as u8; 32]),
        collateral: Atoms(collateral),
        positions: Vec::new(),
    })
}

pub fn fresh(price: u64) -> Mark {
    Mark::new(PriceState::Fresh, PriceTicks(price), TimeMs(1))
}

pub fn mark(state: PriceState, price: u64) -> Mark {
    Mark::new(state, PriceTicks(price), TimeMs(1))
}

pub fn fill(
    ledger: &Ledger,
    taker: AccountId,
    maker: AccountId,
    market: u16,
    side: Side,
    price: u64,
    lots: i64,
    nonce: u64,
) -> Action {
    let height = ledger.globals().height;
    Action::Fill {
        quote: Quote {
            chain: CHAIN,
            maker,
            taker,
            market: MarketId(market),
            side,
            price: PriceTicks(price),
            lots: Lots(lots),
            nonce: Nonce(nonce),
            expiry: Height(height.0 + 5),
        },
        quote_signature: Signature::default(),
        lots: Lots(lots),
    }
}

/// A block of a random history: marks, actions and the order in which they come.
#[derive(Clone, Debug)]
pub struct Script {
    pub elapsed: u64,
    pub marks: Vec<(MarketId, Mark)>,
    pub rescues: Vec<(AccountId, Nonce, Action)>,
    pub trades: Vec<(AccountId, Nonce, Action)>,
}

/// Where a random history stands.
pub struct Story {
    pub rng: Rng,
    pub prices: Vec<u64>,
    pub states: Vec<PriceState>,
    pub nonce: u64,
    /// Small moves, rare blindness: most accounts are far from a breach.
    pub calm: bool,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed),
            prices: vec![50_000, 3_000, 700],
            states: vec![PriceState::Fresh; 3],
            nonce: 0,
            calm: false,
        }
    }

    fn step_price(&mut self, at: usize) {
        let rng = &mut self.rng;
        let price = self.prices[at];
        let ppm = match rng.below(100) {
            0..98 if self.calm => 998_000 + rng.below(4_001),
            0..80 => 995_000 + rng.below(10_001),
            80..96 => 960_000 + rng.below(80_001),
            96..99 => 700_000 + rng.below(600_001),
            _ => [100_000, 10_000_000][rng.below(2) as usize],
        };
        self.prices[at] = (price * ppm / 1_000_000).clamp(60, 1_000_000);
        if rng.chance(if self.calm { 1 } else { 8 }) {
            self.states[at] =
                [PriceState::Stale, PriceState::Disputed, PriceState::Reopening][rng.below(3) as usize];
        } else if rng.chance(40) {
            self.states[at] = PriceState::Fresh;
        }
    }

    fn action(&mut self, ledger: &Ledger) -> (AccountId, Nonce, Action) {
        self.nonce += 1;
        let nonce = Nonce(self.nonce);
        let rng = &mut self.rng;
        let count = ledger.globals().accounts;
        let who = AccountId(rng.below(count));
        let other = AccountId(rng.below(count));
        let market = rng.below(3) as u16;
        let amount = Atoms(match rng.below(10) {
            0 => i128::from(rng.below(3)) - 1,
            1 => limits::MAX_AMOUNT_ATOMS,
            _ => i128::from(rng.below(300_000_000)),
        });
        let action = match rng.below(20) {
            0 => return (ISSUER, nonce, Action::Deposit { to: other, amount }),
            1 if count < 60 => {
                let owner = Key([rng.below(256) as u8; 32]);
                return (ISSUER, nonce, Action::Open { owner, amount });
            }
            2..4 => Action::Transfer { to: other, amount },
            4..6 => Action::Withdraw { amount, recipient: Recipient::default() },
            6 => Action::TopUpIsolated { market: MarketId(market), amount },
            7 => Action::ReleaseIsolated { market: MarketId(market), amount },
            8 => Action::SetMarginMode {
                market: MarketId(market),
                mode: if rng.chance(50) { MarginMode::Cross } else { MarginMode::Isolated },
            },
            _ => {
                let price = self.prices[usize::from(market)];
                let price = price * (985_000 + rng.below(30_001)) / 1_000_000;
                let side = if rng.chance(50) { Side::Buy } else { Side::Sell };
                let held = ledger.account(who).map_or(0, |account| account.lots(MarketId(market)).0);
                let lots = match rng.below(4) {
                    0 if held != 0 => held.abs(),
                    1 => 1 + rng.below(20) as i64,
                    _ => 1 + (rng.below(200_000_000) / price.max(1)) as i64,
                };
                fill(ledger, who, other, market, side, price, lots, self.nonce)
            }
        };
        (who, nonce, action)
    }

    pub fn script(&mut self, ledger: &Ledger) -> Script {
        let mut marks = Vec::new();
        for at in 0..3 {
            if self.rng.chance(85) || ledger.globals().height.0 == 0 {
                self.step_price(at);
                marks.push((MarketId(at as u16), mark(self.states[at], self.prices[at])));
            }
        }
        let elapsed = if self.rng.chance(3) { 30_000_000 } else { 1 + self.rng.below(2_000) };
        let (rescues, trades) = (self.rng.below(6), self.rng.below(20));
        Script {
            elapsed,
            marks,
            rescues: (0..rescues).map(|_| self.action(ledger)).collect(),
            trades: (0..trades).map(|_| self.action(ledger)).collect(),
        }
    }
}

/// What a block did, besides its delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub receipts: Vec<Result<Receipt, Refusal>>,
    pub report: SweepReport,
}

/// Runs a block. Refused actions spend their nonce where they can, as a block that carries them does.
pub fn run(ledger: &mut Ledger, script: &Script) -> (BlockDelta, Outcome) {
    let (height, time) = (ledger.globals().height.next(), ledger.globals().time.0 + script.elapsed);
    ledger.begin_block(height, TimeMs(time));
    ledger.set_marks(&script.marks);
    ledger.accrue_funding();
    let mut receipts = Vec::new();
    let mut apply = |ledger: &mut Ledger, list: &[(AccountId, Nonce, Action)]| {
        for (account, nonce, action) in list {
            let expiry = Height(height.0 + 3);
            let checked = ledger.check(*account, *nonce, expiry, action);
            let receipt = ledger.apply(*account, *nonce, expiry, action);
            assert_eq!(checked.err(), receipt.err(), "check says what apply does");
            if receipt.is_err() {
                let _ = ledger.spend_nonce(*account, *nonce, expiry);
            }
            receipts.push(receipt);
        }
    };
    apply(ledger, &script.rescues);
    let report = ledger.sweep(&mut NoVenue);
    apply(ledger, &script.trades);
    let delta = ledger.end_block();
    (delta, Outcome { receipts, report })
}

pub fn records(ledger: &Ledger) -> Vec<(RecordKey, Record)> {
    ledger.records().collect()
}

pub const BTC: MarketId = MarketId(0);
pub const ALICE: AccountId = AccountId(1);
pub const BOB: AccountId = AccountId(2);
pub const PRICE: u64 = 50_000;

/// One market in zone 0, another in zone 1, a third for isolated margin only in zone 0.
pub fn order_params() -> ChainParams {
    let mut params = params();
    for (at, market) in params.markets.iter_mut().enumerate() {
        market.orders = OrderParams { zone: (at == 1) as u8, void_after: 3, ..OrderParams::default() };
        market.funding = FundingParams { interval_ms: 60_000, cap_ppm: Ppm(0), interest_ppm: 0 };
    }
    params
}

/// A ledger with a block in progress, and who asks what of it.
pub struct Chain {
    pub ledger: Ledger,
    pub nonce: u64,
    pub delta: Option<BlockDelta>,
}

impl Chain {
    pub fn new(collateral: i128) -> Self {
        let ledger = Ledger::genesis(&order_params(), TimeMs(1), users(6, collateral)).unwrap();
        let mut chain = Self { ledger, nonce: 0, delta: None };
        chain.begin(PRICE);
        chain
    }

    pub fn begin(&mut self, price: u64) {
        let height = self.ledger.globals().height.next();
        self.ledger.begin_block(height, TimeMs(1 + height.0 * 100));
        let marks = [(BTC, fresh(price)), (MarketId(1), fresh(3_000)), (MarketId(2), fresh(700))];
        self.ledger.set_marks(&marks);
    }

    pub fn end(&mut self) {
        self.delta = Some(self.ledger.end_block());
        assert_eq!(self.ledger.audit(), Ok(()));
    }

    /// Ends the block and begins the next one.
    pub fn next(&mut self, price: u64) {
        self.end();
        self.begin(price);
    }

    pub fn apply(&mut self, who: AccountId, action: Action) -> Result<Receipt, Refusal> {
        self.nonce += 1;
        let expiry = Height(self.ledger.globals().height.0 + 5);
        self.ledger.apply(who, Nonce(self.nonce), expiry, &action)
    }

    pub fn place(&mut self, who: AccountId, terms: Terms) -> OrderId {
        match self.apply(who, Action::Place(terms)) {
            Ok(Receipt::Placed { order }) => order,
            other => panic!("{other:?}"),
        }
    }

    /// A quoted trade at the mark.
    pub fn trade(&mut self, taker: AccountId, maker: AccountId, buys: bool, lots: i64) {
        self.nonce += 1;
        let side = if buys { Side::Sell } else { Side::Buy };
        let price = self.ledger.market(BTC).unwrap().mark.unwrap().last_known().0.0;
        let action = fill(&self.ledger, taker, maker, 0, side, price, lots, self.nonce);
        self.apply(taker, action).unwrap();
    }

    pub fn account(&self, who: AccountId) -> &Account {
        self.ledger.account(who).unwrap()
    }

    pub fn lots(&self, who: AccountId) -> i64 {
        self.account(who).lots(BTC).0
    }
}

pub fn order(market: MarketId, side: Side, limit: u64, lots: i64) -> Terms {
    Terms {
        market,
        side,
        limit: PriceTicks(limit),
        lots: Lots(lots),
        kind: Kind::Limit,
        reduce_only: false,
        good_til: None,
        cloid: None,
    }
}

pub fn close(side: Side, lots: i64) -> Terms {
    Terms { reduce_only: true, ..order(BTC, side, PRICE, lots) }
}

/// An outcome in which one order buys from another.
pub fn trades(
    height: u64,
    market: MarketId,
    price: u64,
    pairs: &[(OrderId, AccountId, Side, i64, bool)],
) -> seawall_types::Outcome {
    let mut own = MarketOutcome {
        market,
        price: Some(PriceTicks(price)),
        fills: Vec::new(),
        cuts: Vec::new(),
        ends: Vec::new(),
        slides: Vec::new(),
    };
    for (order, account, side, lots, whole) in pairs {
        let maker = order.height < Height(height);
        own.fills.push(Fill { order: *order, account: *account, side: *side, lots: Lots(*lots), maker });
        if *whole {
            own.ends.push(End { order: *order, reason: EndReason::Filled, lots: Lots(0) });
        }
    }
    own.fills.sort_by_key(|fill| fill.order);
    own.ends.sort_by_key(|end| end.order);
    seawall_types::Outcome { height: Height(height), part: 0, last: true, markets: vec![own] }
}

pub fn nothing(height: u64) -> seawall_types::Outcome {
    seawall_types::Outcome { height: Height(height), part: 0, last: true, markets: Vec::new() }
}
