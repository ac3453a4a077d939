//! What the ledger costs with many accounts: memory, margin checks, actions, and sweeps under a walking
//! price. `cargo run --release --example scale -- [accounts] [moves] [ppm per move]`
//!
//! Counts of instructions: run it under `valgrind --tool=callgrind` with two numbers of moves (or of
//! checks, by `CHECKS`) and take the slope.

use std::time::Instant;

use seawall_ledger::*;
use seawall_types::*;

fn tier(up_to: i128, initial: u32, maintenance: u32) -> TierParams {
    TierParams { up_to_notional: Atoms(up_to), initial_ppm: Ppm(initial), maintenance_ppm: Ppm(maintenance) }
}

fn market(symbol: &str) -> MarketParams {
    MarketParams {
        symbol: symbol.parse().expect("a symbol"),
        atoms_per_tick_lot: 100,
        min_price: PriceTicks(1),
        max_price: PriceTicks(100_000_000),
        tiers: vec![
            tier(1_000_000_000_000, 50_000, 25_000),
            tier(100_000_000_000_000, 100_000, 50_000),
            tier(1_000_000_000_000_000, 200_000, 100_000),
        ],
        taker_fee_ppm: Ppm(500),
        maker_fee_ppm: Ppm(200),
        funding: FundingParams { interval_ms: 28_800_000, cap_ppm: Ppm(7_500), interest_ppm: 100 },
        band_ppm: Ppm(20_000),
        blind_range_ppm: Ppm(100_000),
        open_interest_cap: Lots(200_000_000),
        account_cap: Lots(2_000_000),
        isolated_only: false,
        liquidation: LiquidationParams { penalty_ppm: Ppm(10_000) },
        backstop: BackstopParams {
            initial_fund: Atoms(10_000_000_000_000),
            capacity_lots: Lots(20_000_000),
            per_block_lots: Lots(20_000_000),
        },
    }
}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0) / 1024
}

fn fresh(price: u64) -> Mark {
    Mark::new(PriceState::Fresh, PriceTicks(price), TimeMs(1))
}

fn argument(place: usize, default: u64) -> u64 {
    std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    const PRICE: u64 = 1_000_000;
    let (count, moves, ppm) = (argument(1, 1_000_000), argument(2, 100), argument(3, 1_000));
    let legs = std::env::var("LEGS").ok().and_then(|text| text.parse().ok()).unwrap_or(2u16);
    let checks = std::env::var("CHECKS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000u64);
    let markets: Vec<_> = (0..legs.max(8)).map(|at| market(&format!("M{at}"))).collect();
    let used = markets.len() as u64;
    let params = ChainParams {
        chain: ChainId(1),
        issuer: AccountId(0),
        insurance: Atoms(1_000_000_000_000),
        liquidation_steps: 1_000,
        max_wait_blocks: 100,
        markets,
    };
    let empty = memory();
    let start = Instant::now();
    // Leverage from about 3 to about 37: equity of 2.7 % to 33 % of notional; breach is at 2.5 %.
    let accounts = (0..count).map(|n| {
        let side = if (n / 2) % 2 == 0 { 1 } else { -1 };
        let mut positions: Vec<_> = (0..u64::from(legs))
            .map(|leg| {
                let market = if u64::from(legs) >= used { leg } else { ((n / 4) * 3 + leg) % used };
                GenesisPosition {
                    market: MarketId(market as u16),
                    lots: Lots(side * 10),
                    cost: Atoms(i128::from(side * 10) * i128::from(PRICE) * 100),
                    mode: MarginMode::Cross,
                    isolated: Atoms::ZERO,
                }
            })
            .collect();
        positions.sort_by_key(|position| position.market);
        let notional = i128::from(legs) * 10 * i128::from(PRICE) * 100;
        let share = 2_700 + i128::from((n / 4 * 7_919) % 30_300);
        GenesisAccount { owner: Key([n as u8; 32]), collateral: Atoms(notional * share / 100_000), positions }
    });
    let mut ledger = Ledger::genesis(&params, TimeMs(1_000), accounts).expect("a sound genesis");
    println!("genesis: {} accounts, {} MiB, {:?}", count, memory() - empty, start.elapsed());

    let mut height = 0;
    let mut block = |ledger: &mut Ledger, price: u64| {
        height += 1;
        ledger.begin_block(Height(height), TimeMs(1_000 + height * 500));
        let marks: Vec<_> = (0..used).map(|at| (MarketId(at as u16), fresh(price))).collect();
        let start = Instant::now();
        ledger.set_marks(&marks);
        ledger.accrue_funding();
        let report = ledger.sweep(&mut NoVenue);
        let took = start.elapsed();
        (report, took, ledger.end_block())
    };
    let (report, took, _) = block(&mut ledger, PRICE);
    println!("first sweep (all examined: {}): {:?}, {} MiB", report.examined, took, memory() - empty);
    block(&mut ledger, PRICE);

    let (mut price, mut examined, mut breaches, mut total) = (PRICE, 0, 0, 0u128);
    for step in 0..moves {
        let delta = price * ppm / 1_000_000;
        price = if (step / 8) % 2 == 0 { price - delta } else { price + delta };
        let (report, took, _) = block(&mut ledger, price);
        examined += report.examined;
        breaches += report.in_breach;
        total += took.as_nanos();
    }
    if moves > 0 {
        println!(
            "{moves} moves of {ppm} ppm: {} examined and {breaches} in breach in all, {} us a sweep, {} MiB",
            examined,
            total / u128::from(moves) / 1_000,
            memory() - empty
        );
    }

    let start = Instant::now();
    let mut sum = 0i128;
    for n in 0..checks {
        sum += ledger.margin_check(AccountId(n % 1_024)).map_or(0, i128::from);
    }
    println!("{checks} margin checks of {legs} legs: {:?} ({sum})", start.elapsed());

    height += 1;
    ledger.begin_block(Height(height), TimeMs(1_000 + height * 500));
    let actions = count.min(16_000) / 2;
    let stride = count / actions.max(1) / 4 * 4;
    let start = Instant::now();
    let mut done = 0;
    for n in 0..actions {
        let transfer = Action::Transfer { to: AccountId((n * stride + 1) % count), amount: Atoms(1) };
        done += u64::from(
            ledger.apply(AccountId(n * stride % count), Nonce(n), Height(height), &transfer).is_ok(),
        );
    }
    println!("{actions} transfers ({done} accepted): {:?}", start.elapsed());
    let start = Instant::now();
    let mut done = 0;
    for n in 0..actions {
        let (taker, maker) = (AccountId(n * stride % count), AccountId((n * stride + 2) % count));
        let market =
            ledger.account(taker).and_then(|account| account.positions.first()).map(|leg| leg.market);
        let quote = Quote {
            chain: ChainId(1),
            maker,
            taker,
            market: market.unwrap_or(MarketId(0)),
            side: Side::Sell,
            price: PriceTicks(price),
            lots: Lots(1),
            nonce: Nonce(1_000_000 + n),
            expiry: Height(height),
        };
        let fill = Action::Fill { quote, quote_signature: Signature::default(), lots: Lots(1) };
        done += u64::from(ledger.apply(taker, Nonce(2_000_000 + n), Height(height), &fill).is_ok());
    }
    println!("{actions} fills ({done} accepted): {:?}", start.elapsed());
    let start = Instant::now();
    let delta = ledger.end_block();
    println!("end of block with {} changes: {:?}", delta.changes.len(), start.elapsed());
    let start = Instant::now();
    ledger.revert(&delta);
    println!("undone: {:?}", start.elapsed());
}
