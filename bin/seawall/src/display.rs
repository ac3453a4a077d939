//! What a run looks like: live on a terminal, plain lines elsewhere, a table at the end.

use comfy_table::{Cell, CellAlignment, Color, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use seawall_devnet::network::{Delays, Display, Percentiles, Report, Snapshot};
use seawall_types::PriceState;
use std::time::{Duration, Instant};

/// Time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(2);
/// Columns of the market list.
const MARKETS_PER_LINE: usize = 4;

fn clock(time_ms: u64) -> String {
    let seconds = time_ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn price(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

fn money(usd: f64) -> String {
    match usd.abs() {
        value if value >= 1e6 => format!("${:.2}M", usd / 1e6),
        value if value >= 1e3 => format!("${:.1}k", usd / 1e3),
        _ => format!("${usd:.0}"),
    }
}

fn validators(running: &[bool]) -> String {
    running.iter().map(|up| if *up { '●' } else { '○' }).collect()
}

/// Live lines on a terminal.
pub struct Terminal {
    bars: MultiProgress,
    progress: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl Terminal {
    /// An empty display.
    pub fn new() -> Self {
        let bars = MultiProgress::new();
        let progress = bars.add(ProgressBar::new(1_000));
        progress.set_style(
            ProgressStyle::with_template("{prefix} {bar:40.cyan/blue} {msg}")
                .expect("the template is constant"),
        );
        Self { bars, progress, lines: Vec::new() }
    }

    fn line(&mut self, index: usize, text: String) {
        while self.lines.len() <= index {
            let line = self.bars.add(ProgressBar::new_spinner());
            line.set_style(ProgressStyle::with_template("{msg}").expect("the template is constant"));
            self.lines.push(line);
        }
        self.lines[index].set_message(text);
        self.lines[index].tick();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.progress.finish();
        for line in &self.lines {
            line.finish();
        }
    }
}

impl Display for Terminal {
    fn note(&mut self, text: &str) {
        let _ = self.bars.println(format!("· {text}"));
    }

    fn update(&mut self, now: &Snapshot) {
        self.progress.set_prefix(clock(now.time_ms));
        self.progress.set_position(now.progress_permille);
        self.progress.set_message(format!("{:.0}%", now.progress_permille as f64 / 10.0));
        self.line(
            0,
            format!(
                "validators {}   block {}   {:.1} blocks/s   finality p50 {:.0} ms  p99 {:.0} ms",
                validators(&now.running),
                now.height,
                now.blocks_per_s,
                now.finality_ms.0,
                now.finality_ms.1
            ),
        );
        self.line(
            1,
            format!(
                "at risk {}   liquidated {}   backstop {}   ADL {}   bad debt {}   insurance {}",
                now.at_risk,
                now.liquidated,
                now.backstop,
                now.adl,
                money(now.bad_debt_usd),
                money(now.insurance_usd)
            ),
        );
        self.line(
            2,
            format!(
                "top-ups {}   withdrawals {}   conserved {}",
                now.owners.0,
                now.owners.1,
                if now.conserved { "yes" } else { "NO" }
            ),
        );
        let mut next = 3;
        if let Some(orders) = &now.orders {
            self.line(
                next,
                format!(
                    "orders {}   fills {}   volume {}   zone lag {} blocks   liquidation closes {}   void {}",
                    orders.placed,
                    orders.fills,
                    money(orders.volume_usd),
                    orders.lag_blocks,
                    orders.closes,
                    orders.voided
                ),
            );
            let books: Vec<String> = now
                .markets
                .iter()
                .zip(&orders.depth_usd)
                .map(|((symbol, ..), (bid, ask))| {
                    format!("{symbol:>5} {:<17}", format!("{}/{}", money(*bid), money(*ask)))
                })
                .collect();
            if !books.is_empty() {
                self.line(next + 1, "book within 1 % of the mark, bid/ask:".to_owned());
            }
            let rows = books.chunks(MARKETS_PER_LINE).enumerate();
            for (row, books) in rows {
                self.line(next + 2 + row, books.join("   "));
            }
            next += 2 + now.markets.len().div_ceil(MARKETS_PER_LINE);
        }
        for (row, markets) in now.markets.chunks(MARKETS_PER_LINE).enumerate() {
            let text: Vec<String> = markets
                .iter()
                .map(|(symbol, value, state)| {
                    let state = if *state == PriceState::Fresh { "" } else { state.name() };
                    format!("{symbol:>5} {:<10}{state:<11}", price(*value))
                })
                .collect();
            self.line(next + row, text.join(" "));
        }
    }
}

/// A line every two seconds, for logs.
pub struct Plain {
    last: Option<Instant>,
}

impl Plain {
    /// A display that has printed nothing.
    pub const fn new() -> Self {
        Self { last: None }
    }
}

impl Display for Plain {
    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }

    fn update(&mut self, now: &Snapshot) {
        if self.last.is_some_and(|last| last.elapsed() < PLAIN_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let blind: Vec<String> = now
            .markets
            .iter()
            .filter(|(_, _, state)| *state != PriceState::Fresh)
            .map(|(symbol, _, state)| format!("{symbol}={}", state.name()))
            .collect();
        let orders = now.orders.as_ref().map_or_else(String::new, |orders| {
            format!(
                " orders={} fills={} volume={} zone_lag={} closes={} void={}",
                orders.placed,
                orders.fills,
                money(orders.volume_usd),
                orders.lag_blocks,
                orders.closes,
                orders.voided
            )
        });
        eprintln!(
            "{} {:>3}% {} block={} blocks/s={:.1} finality_ms={:.0}/{:.0} at_risk={} liquidated={} backstop={} adl={} \
             bad_debt={} insurance={} conserved={}{} {}",
            clock(now.time_ms),
            now.progress_permille / 10,
            validators(&now.running),
            now.height,
            now.blocks_per_s,
            now.finality_ms.0,
            now.finality_ms.1,
            now.at_risk,
            now.liquidated,
            now.backstop,
            now.adl,
            money(now.bad_debt_usd),
            money(now.insurance_usd),
            now.conserved,
            orders,
            blind.join(" ")
        );
    }
}

/// The table at the end.
pub fn summary(report: &Report) -> String {
    let mut markets = Table::new();
    markets.load_preset(UTF8_FULL_CONDENSED).set_header([
        "market",
        "last price",
        "fresh",
        "state at the end",
    ]);
    for market in &report.markets {
        let state = Cell::new(market.state);
        markets.add_row([
            Cell::new(&market.symbol),
            Cell::new(price(market.price_usd)).set_alignment(CellAlignment::Right),
            Cell::new(format!("{:.1} %", market.fresh_share * 100.0)).set_alignment(CellAlignment::Right),
            if market.state == PriceState::Fresh.name() { state } else { state.fg(Color::Yellow) },
        ]);
    }
    let usd = |atoms: i128| money(atoms as f64 / seawall_devnet::scenario::ATOMS_PER_USD as f64);
    let yes = |value: bool| if value { "yes" } else { "NO" };
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let mut row = |name: &str, value: String| {
        table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
    };
    row("replay", format!("{} ({} min)", report.replay, report.replayed_minutes));
    row("validators, accounts", format!("{}, {}", report.validators, report.accounts));
    row("final blocks", report.blocks.to_string());
    row("finality p50 / p99", format!("{:.0} / {:.0} ms", report.finality_ms.p50, report.finality_ms.p99));
    row("accounts liquidated", report.accounts_liquidated.to_string());
    row(
        "liquidation delay p50 / max",
        format!("{} / {} blocks", report.liquidation_delay_blocks.p50, report.liquidation_delay_blocks.max),
    );
    row("blocks over the liquidation budget", report.budget_hits.to_string());
    row(
        "top-ups, withdrawals, transfers",
        format!("{}, {}, {}", report.top_ups, report.withdrawals, report.transfers),
    );
    row("taken over by backstops", report.backstop_takeovers.to_string());
    row("positions deleveraged (ADL)", report.adl_events.to_string());
    row(
        "bad debt, of it socialised",
        format!("{}, {}", usd(report.bad_debt_atoms), usd(report.socialised_atoms)),
    );
    row("insurance fund", usd(report.insurance_fund_atoms));
    if report.orders > 0 {
        row("orders, fills", format!("{}, {}", report.orders, report.fills));
        row("volume in auctions", usd(report.volume_atoms));
        row(
            "zone lag p50 / max",
            format!("{} / {} blocks", report.zone_lag_blocks.p50, report.zone_lag_blocks.max),
        );
        row("auctions void", report.auctions_voided.to_string());
        row("liquidation closes in auctions", report.liquidation_closes_in_auction.to_string());
        if let Some(bps) = report.liquidation_slippage_bps {
            row("their slippage against the mark", format!("{bps:.1} bps"));
        }
    }
    if let Some(trial) = &report.zone_trial {
        let of = |own: &Percentiles| format!("{:.0} / {:.0} ms", own.p50, own.p99);
        row("on every validator", format!("{} at {:.0} s", trial.trial, trial.at_s));
        row("finality before, after", of(&trial.finality_ms_before) + ", " + &of(&trial.finality_ms_after));
        let of = |own: &Delays| format!("{} / {}", own.p50, own.max);
        row(
            "liquidation delay before, after",
            of(&trial.liquidation_delay_blocks_before)
                + ", "
                + &of(&trial.liquidation_delay_blocks_after)
                + " blocks",
        );
        row("medians within 10 %", trial.within_ten_percent.map_or("–", yes).to_owned());
    }
    row("liquidations at a stale price", report.stale_price_liquidations.to_string());
    row("forks", report.forks.to_string());
    row("conserved to the last atom", yes(report.conserved).to_owned());
    if let Some(agrees) = report.reference_agrees {
        row("full-scan reference agrees", yes(agrees).to_owned());
    }
    row("state root", report.state_root.chars().take(16).collect::<String>() + "…");
    row("wall time, peak memory", format!("{:.0} s, {} MiB", report.wall_s, report.peak_rss_mb));
    format!("{markets}\n{table}\nsynthetic: {}", report.synthetic.join("; "))
}
