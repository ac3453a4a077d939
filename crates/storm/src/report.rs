//! A record as a page that explains itself: one file, no network, no script.
//!
//! The verdict comes first, with every criterion: measured against demanded. Then what the storm did, beside the same storm
//! on a fee-ordered chain; then each run in charts with the faults shaded; then the network, the costs, the seed, the command
//! that runs it again, and the scenario itself. Light or dark as the reader's system is, readable on a phone.

pub mod plot;

use crate::{
    baseline::{self, Baseline, BaselineRun},
    record::{Criterion, Direction, Lane, Latency, PredictedLane, Record, Run, Verdict},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plot::{Band, Chart, Ink, Scale, Series, Shape, short};
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const STYLE: &str = include_str!("report/style.css");
/// Most entries of a table of faults, heals or validators.
const MAX_ROWS: usize = 64;

/// What `report.json` holds.
#[derive(Serialize)]
pub struct Report<'a> {
    /// Everything that the storm told.
    pub record: &'a Record,
    /// The same storm on a fee-ordered chain, if it was asked for.
    pub baseline: Option<&'a Baseline>,
}

/// Writes `report.html` and `report.json` into a directory, which it makes if need be. Gives their paths.
///
/// # Errors
/// If the directory or a file cannot be written.
pub fn write(
    directory: &Path,
    record: &Record,
    baseline: Option<&Baseline>,
) -> io::Result<(PathBuf, PathBuf)> {
    fs::create_dir_all(directory)?;
    let (page, data) = (directory.join("report.html"), directory.join("report.json"));
    fs::write(&page, html(record, baseline))?;
    fs::write(&data, serde_json::to_vec_pretty(&Report { record, baseline })?)?;
    Ok((page, data))
}

/// The page.
pub fn html(record: &Record, baseline: Option<&Baseline>) -> String {
    let styles =
        format!("{STYLE}{}@media (prefers-color-scheme: dark){{{}}}", Ink::light_rules(), Ink::dark_rules());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Storm " (record.scenario) ": " (verdict(record)) }
                style { (PreEscaped(styles)) }
            }
            body {
                (head(record))
                main {
                    (criteria(record))
                    (comparison(record, baseline))
                    @if record.runs.len() > 1 { (sweep(record, baseline)) }
                    @for (at, run) in record.runs.iter().enumerate() {
                        (whole_run(record, run, baseline.and_then(|other| other.runs.get(at)), at))
                    }
                    (caveats(record, baseline))
                    (setting(record, baseline))
                }
            }
        }
    };
    page.into_string()
}

fn verdict(record: &Record) -> &'static str {
    match record.verdict {
        Verdict::Held => "held",
        Verdict::NotHeld => "not held",
    }
}

/// The command that runs the same storm again.
pub fn command(record: &Record) -> String {
    format!("seawall storm run {} --seed {}", record.scenario, record.seed)
}

fn head(record: &Record) -> Markup {
    let (class, sign) = match record.verdict {
        Verdict::Held => ("held", "✓"),
        Verdict::NotHeld => ("broken", "✗"),
    };
    let met = record.criteria.iter().filter(|criterion| criterion.met).count();
    html! {
        header {
            p.kind { "Seawall storm" }
            h1 { (record.scenario) }
            p.verdict.(class) {
                span { (sign) " " (verdict(record)) }
                " " (met) " of " (record.criteria.len()) " criteria met"
            }
            p.hypothesis { (record.hypothesis) }
            pre.command { "$ " (command(record)) }
            p.small {
                "seed " (record.seed) " · version " (record.version)
                @if let Some(commit) = &record.commit { " · commit " (first(commit, 12)) }
                " · record " (first(&record.digest, 16)) " · took " (span(record.wall_ms as f64))
            }
        }
    }
}

fn first(text: &str, count: usize) -> String {
    text.chars().take(count).collect()
}

fn criteria(record: &Record) -> Markup {
    let row = |criterion: &Criterion| {
        let (class, sign) = if criterion.met { ("met", "✓ met") } else { ("missed", "✗ not met") };
        let side = match criterion.direction {
            Direction::AtMost => "at most ",
            Direction::AtLeast => "at least ",
        };
        let measured =
            criterion.measured.map_or("nothing to measure".into(), |m| quantity(m, &criterion.unit));
        html! {
            tr.(class) {
                td.sign { (sign) }
                td {
                    (criterion.claim)
                    @if !criterion.detail.is_empty() { div.small { (criterion.detail) } }
                }
                td.number { (measured) }
                td.number { (side) (quantity(criterion.limit, &criterion.unit)) }
            }
        }
    };
    // What is not met comes first.
    let ordered = || {
        let missed = record.criteria.iter().filter(|criterion| !criterion.met);
        missed.chain(record.criteria.iter().filter(|criterion| criterion.met))
    };
    html! {
        section {
            h2 { "Criteria" }
            div.wide { table {
                thead { tr { th { "" } th { "claim" } th.number { "measured" } th.number { "demanded" } } }
                tbody { @for criterion in ordered() { (row(criterion)) } }
            } }
        }
    }
}

fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ms" => span(value),
        "share" => percent(value),
        "atoms" => money(value as i128),
        "ratio" => format!("{} x", short(value)),
        _ => format!("{} {unit}", grouped(value)),
    }
}

fn grouped(value: f64) -> String {
    if value != value.trunc() || value.abs() >= 1e15 {
        return short(value);
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn count(value: u64) -> String {
    grouped(value as f64)
}

fn span(ms: f64) -> String {
    match ms {
        _ if ms < 10.0 => format!("{} ms", short(ms)),
        _ if ms < 10_000.0 => format!("{ms:.0} ms"),
        _ if ms < 600_000.0 => format!("{:.1} s", ms / 1e3),
        _ => format!("{:.1} min", ms / 6e4),
    }
}

fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Atoms are 10^-6 of the quote currency.
fn money(atoms: i128) -> String {
    let whole = atoms as f64 / 1e6;
    match whole.abs() {
        size if size >= 1e6 => format!("${:.2}M", whole / 1e6),
        size if size >= 1e4 => format!("${:.1}k", whole / 1e3),
        _ => format!("${whole:.2}"),
    }
}

fn perhaps(value: Option<f64>) -> String {
    value.map_or("never".into(), span)
}

/// Sums that stand beside the other chain's. For a sweep, of the run with the most load.
fn comparison(record: &Record, baseline: Option<&Baseline>) -> Markup {
    let Some(at) = record.runs.len().checked_sub(1) else { return html! {} };
    let run = &record.runs[at];
    let other = baseline.and_then(|baseline| baseline.runs.get(at));
    let rescue = &run.lanes.rescue;
    let delay = format!("{} blocks at most", run.totals.liquidation_delay_max_blocks);
    let sent: Vec<_> = rescue.traces.iter().map(|trace| (trace.sent_ms, trace.final_ms)).collect();
    let in_blocks = |included: u64, all: u64| {
        format!("{} of {} ({})", count(included), count(all), percent(included as f64 / all.max(1) as f64))
    };
    let traced = sent.iter().filter(|trace| trace.1.is_some()).count() as u64;
    let rows: Vec<(&str, String, Option<String>)> = vec![
        (
            "rescue, sent to final, half within",
            span(rescue.latency.p50_ms),
            other.map(|other| perhaps(other.rescue_p50_of_sent_ms)),
        ),
        (
            "99 of 100 within",
            span(rescue.latency.p99_ms),
            other.map(|other| perhaps(other.rescue_p99_of_sent_ms)),
        ),
        (
            "rescues in final blocks by the end",
            in_blocks(traced, sent.len() as u64),
            other.map(|other| in_blocks(other.rescues_included, other.rescues_sent)),
        ),
        (
            "accounts liquidated",
            count(run.totals.accounts_liquidated),
            other.map(|other| {
                format!("{} of {} breaches", count(other.breaches.served), count(other.breaches.all))
            }),
        ),
        (
            "liquidations that nobody served",
            "none: blocks liquidate".into(),
            other.map(|other| {
                let unserved = other.breaches.too_late + other.breaches.left_alone;
                let share =
                    other.unserved_share.map_or(String::new(), |share| format!(" ({})", percent(share)));
                format!("{}{share}", count(unserved))
            }),
        ),
        (
            "wait for liquidation",
            delay,
            other.map(|other| {
                format!("{} blocks at most, half within {}", other.delay_max_blocks, span(other.delay.p50_ms))
            }),
        ),
        (
            "bad debt",
            money(run.totals.bad_debt_atoms),
            other.map(|other| {
                let late = other.bad_debt_atoms - other.gapped_debt_atoms;
                format!("{}, of it {} by lateness", money(other.bad_debt_atoms), money(late))
            }),
        ),
        ("socialised", money(run.totals.socialised_atoms), other.map(|_| "not modelled".into())),
    ];
    html! {
        section {
            h2 { "What it did" @if !run.label.is_empty() { ", at " (run.label) } }
            div.wide { table {
                thead { tr {
                    th { "" }
                    th.number { span.ink-rescue { "● " } "Seawall" }
                    @if other.is_some() { th.number { span.ink-baseline { "● " } "fee-ordered chain" } }
                } }
                tbody {
                    @for (name, own, other) in rows {
                        tr { td { (name) } td.number { (own) } @if let Some(other) = other { td.number { (other) } } }
                    }
                }
            } }
            @if let Some(baseline) = baseline {
                p.small {
                    "The fee-ordered chain has the same blocks, room, prices, book and load; block space goes to the highest \
                     fee, and keepers liquidate by transactions. " (capital(&baseline.calibration)) ". " (baseline.fees)
                }
            }
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |letter| letter.to_uppercase().chain(letters).collect())
}

fn figure(chart: &Chart) -> Markup {
    if chart.is_empty() {
        return html! {};
    }
    html! {
        figure {
            figcaption {
                strong { (chart.title) }
                span.legend {
                    @for series in chart.series.iter().filter(|series| !series.points.is_empty()) {
                        span.key.{"ink-" (series.ink.name())} {
                            (match series.shape {
                                Shape::Line | Shape::Steps => "━━",
                                Shape::Dashed => "╌╌",
                                Shape::Dots => "●",
                            })
                            " " (series.name)
                        }
                    }
                }
            }
            (PreEscaped(chart.svg()))
            @if !chart.note.is_empty() { p.small { (chart.note) } }
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn line(name: &'static str, ink: Ink, shape: Shape, points: Vec<(f64, f64)>) -> Series {
    Series { name, ink, shape, points }
}

/// Shares of a distribution: (ms, percent at most so long).
fn cumulated(latency: &Latency, of: u64) -> Vec<(f64, f64)> {
    let mut below = 0;
    let all = of.max(latency.count).max(1) as f64;
    latency
        .buckets
        .iter()
        .map(|(end, count)| {
            below += count;
            (end.max(1.0), 100.0 * below as f64 / all)
        })
        .collect()
}

/// The times of faults, numbered as in their table.
fn fault_bands(run: &Run) -> Vec<Band> {
    let numbered = run.faults.iter().enumerate().take(MAX_ROWS);
    numbered
        .filter(|(_, fault)| fault.from_ms > 0 || fault.until_ms < run.virtual_ms)
        .map(|(at, fault)| Band {
            ink: Ink::Fault,
            from: seconds(fault.from_ms),
            to: seconds(fault.until_ms),
            label: (at + 1).to_string(),
        })
        .collect()
}

fn whole_run(record: &Record, run: &Run, other: Option<&BaselineRun>, at: usize) -> Markup {
    let last = at + 1 == record.runs.len();
    let body = html! {
        div.charts {
            (figure(&distribution(run, other)))
            (figure(&over_time(run, other)))
            (figure(&backlog(run, other)))
            (figure(&throughput(run)))
            @for market in run.markets.iter().take(8) { (figure(&prices(run, market.market))) }
            (figure(&liquidations(run, other)))
            @if let Some(other) = other { (figure(&fees(run, other))) }
            (figure(&blocks(run)))
        }
        (prediction(run))
        (faults(run))
        (safety(run))
    };
    if record.runs.len() == 1 {
        return html! { section { h2 { "Measured" } (body) } };
    }
    html! { section { details open[last] { summary { h2 { "At " (run.label) } } (body) } } }
}

fn distribution(run: &Run, other: Option<&BaselineRun>) -> Chart {
    let mut series = vec![
        line("rescues", Ink::Rescue, Shape::Line, cumulated(&run.lanes.rescue.latency, 0)),
        line("trades", Ink::Trade, Shape::Dashed, cumulated(&run.lanes.trade.latency, 0)),
    ];
    if let Some(other) = other {
        let points = cumulated(&other.rescue_latency, other.rescues_sent);
        series.push(line("rescues, by fee", Ink::Baseline, Shape::Line, points));
    }
    if let Some(prediction) = &run.prediction {
        let of = |lane: &PredictedLane| {
            let points = [(lane.p50_ms, 50.0), (lane.p99_ms, 99.0)];
            points.into_iter().filter_map(|(ms, share)| Some((ms?.max(1.0), share))).collect::<Vec<_>>()
        };
        let mut points = of(&prediction.rescue);
        points.extend(of(&prediction.trade));
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.push(line("predicted", Ink::Theory, Shape::Dots, points));
    }
    Chart {
        title: "From sending to finality",
        note: "Trades: of those that reached a block. By fee: of all that were sent. Dots: what queueing theory says for the \
               median and 99 of 100."
            .into(),
        x: "ms",
        y: "% at most so long",
        x_scale: Scale::Log,
        y_scale: Scale::Linear,
        series,
        bands: Vec::new(),
    }
}

fn over_time(run: &Run, other: Option<&BaselineRun>) -> Chart {
    let traces = run.lanes.rescue.traces.iter().map(|trace| (trace.sent_ms, trace.final_ms));
    let own = baseline::bins(run.virtual_ms, traces);
    let points = |bins: &[baseline::Bin], of: fn(&baseline::Bin) -> f64| {
        bins.iter().map(|bin| (seconds(bin.at_ms), of(bin).max(1.0))).collect::<Vec<_>>()
    };
    let mut series = vec![
        line("half of them", Ink::Rescue, Shape::Steps, points(&own, |bin| bin.p50_ms)),
        line("the slowest", Ink::Rescue, Shape::Dashed, points(&own, |bin| bin.max_ms)),
    ];
    if let Some(other) = other {
        series.push(line(
            "half, by fee",
            Ink::Baseline,
            Shape::Steps,
            points(&other.rescue_bins, |bin| bin.p50_ms),
        ));
    }
    Chart {
        title: "Rescues, by when they were sent",
        note: "What never was final counts with the time until the end.".into(),
        x: "s",
        y: "ms to finality",
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        series,
        bands: fault_bands(run),
    }
}

fn backlog(run: &Run, other: Option<&BaselineRun>) -> Chart {
    let of = |value: fn(&crate::record::Backlog) -> u64| {
        run.backlog.iter().map(|at| (seconds(at.at_ms), value(at) as f64)).collect::<Vec<_>>()
    };
    let mut series = vec![
        line("rescues", Ink::Rescue, Shape::Line, of(|at| at.ingress_rescues + at.pooled_rescues)),
        line("trades", Ink::Trade, Shape::Dashed, of(|at| at.ingress_trades + at.pooled_trades)),
    ];
    if let Some(other) = other {
        let points = other.points.iter().map(|at| (seconds(at.at_ms), at.waiting_rescues as f64)).collect();
        series.push(line("rescues, by fee", Ink::Baseline, Shape::Line, points));
    }
    // Zero has no logarithm: half of one stands for it.
    series.iter_mut().flat_map(|series| &mut series.points).for_each(|point| point.1 = point.1.max(0.5));
    Chart {
        title: "What waits",
        note: "Median over running validators, for a signature check or a block. The bottom line is zero."
            .into(),
        x: "s",
        y: "actions",
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        series,
        bands: fault_bands(run),
    }
}

fn throughput(run: &Run) -> Chart {
    let of = |lane: &Lane, value: fn(&crate::record::Offered) -> u64| {
        let length = seconds(lane.bucket_ms).max(1e-3);
        let points = lane.offered.iter().map(|bucket| (seconds(bucket.at_ms), value(bucket) as f64 / length));
        points.map(|(at, rate)| (at, rate.max(0.1))).collect::<Vec<_>>()
    };
    let end = seconds(run.virtual_ms);
    let capacity = run.capacity.actions_per_second.max(0.1);
    Chart {
        title: "Throughput",
        note: "Final: when their blocks became final.".into(),
        x: "s",
        y: "actions a second",
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        series: vec![
            line("trades offered", Ink::Trade, Shape::Dashed, of(&run.lanes.trade, |bucket| bucket.sent)),
            line("trades final", Ink::Trade, Shape::Line, of(&run.lanes.trade, |bucket| bucket.finalized)),
            line("rescues offered", Ink::Rescue, Shape::Dashed, of(&run.lanes.rescue, |bucket| bucket.sent)),
            line("rescues final", Ink::Rescue, Shape::Line, of(&run.lanes.rescue, |bucket| bucket.finalized)),
            line("capacity", Ink::Limit, Shape::Line, vec![(0.0, capacity), (end, capacity)]),
        ],
        bands: fault_bands(run),
    }
}

fn prices(run: &Run, market: u16) -> Chart {
    let end = seconds(run.virtual_ms);
    let truth = run.index_prices.iter().filter(|point| point.market == market);
    let mut truth: Vec<_> = truth.filter_map(|at| Some((seconds(at.at_ms), at.ticks? as f64))).collect();
    let marks: Vec<_> = run.marks.iter().filter(|mark| mark.market == market).collect();
    let mut mark: Vec<_> = marks.iter().map(|mark| (seconds(mark.at_ms), mark.ticks as f64)).collect();
    for points in [&mut truth, &mut mark] {
        if let Some(&(_, last)) = points.last() {
            points.push((end, last));
        }
    }
    let mut bands = Vec::new();
    for (at, point) in marks.iter().enumerate() {
        if point.state == "fresh" {
            continue;
        }
        let to = marks.get(at + 1).map_or(end, |next| seconds(next.at_ms));
        let from = seconds(point.at_ms);
        match bands.last_mut() {
            Some(Band { to: last, label, .. }) if *label == point.state && *last >= from => *last = to,
            _ => bands.push(Band { ink: Ink::Blind, from, to, label: point.state.clone() }),
        }
    }
    // Names that would stand in each other's way are left out; the shade remains.
    let mut free = f64::MIN;
    for band in &mut bands {
        if band.from < free {
            band.label.clear();
        } else {
            free = band.from + end * 0.025 * band.label.len() as f64;
        }
    }
    let symbol = run.markets.iter().find(|own| own.market == market).map_or("", |own| own.symbol.as_str());
    Chart {
        title: "Prices",
        note: format!("{symbol}, in ticks. Shaded: the mark is not fresh, so nobody is liquidated by it."),
        x: "s",
        y: "ticks",
        x_scale: Scale::Linear,
        y_scale: Scale::Fitted,
        series: vec![
            line("true price", Ink::Limit, Shape::Dashed, truth),
            line("mark", Ink::Rescue, Shape::Steps, mark),
        ],
        bands,
    }
}

fn liquidations(run: &Run, other: Option<&BaselineRun>) -> Chart {
    let end = seconds(run.virtual_ms);
    let own = run.liquidations.iter().enumerate();
    let mut own: Vec<_> =
        own.map(|(at, liquidation)| (seconds(liquidation.at_ms), at as f64 + 1.0)).collect();
    if let Some(&(_, last)) = own.last() {
        own.insert(0, (0.0, 0.0));
        own.push((end, last));
    }
    let mut series = vec![line("Seawall", Ink::Rescue, Shape::Steps, own)];
    if let Some(other) = other.filter(|other| other.breaches.all > 0) {
        let of = |value: fn(&baseline::Point) -> u64| {
            other.points.iter().map(|at| (seconds(at.at_ms), value(at) as f64)).collect::<Vec<_>>()
        };
        series.push(line("by keepers", Ink::Baseline, Shape::Steps, of(|at| at.served)));
        series.push(line("unserved", Ink::Baseline, Shape::Dashed, of(|at| at.unserved)));
    }
    Chart {
        title: "Liquidations so far",
        note: String::new(),
        x: "s",
        y: "accounts",
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        series,
        bands: fault_bands(run),
    }
}

fn fees(run: &Run, other: &BaselineRun) -> Chart {
    let points = other.points.iter().map(|at| (seconds(at.at_ms), at.lowest_fee_gwei));
    let points: Vec<_> = points.filter(|point| point.1 > 0.0).collect();
    Chart {
        title: "What a place in a block cost",
        note: "On the fee-ordered chain: the lowest fee in each full block.".into(),
        x: "s",
        y: "gwei for a unit of gas",
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        series: vec![line("lowest fee", Ink::Baseline, Shape::Line, points)],
        bands: fault_bands(run),
    }
}

fn blocks(run: &Run) -> Chart {
    let finality = run.blocks.iter().filter_map(|block| {
        Some((seconds(block.final_ms), block.final_ms.saturating_sub(block.begun_ms?).max(1) as f64))
    });
    let mut finality: Vec<_> = finality.collect();
    finality.sort_by(|a, b| a.0.total_cmp(&b.0));
    let end = seconds(run.virtual_ms);
    let bound = run.network.bound_ms.max(1.0);
    Chart {
        title: "Finality of blocks",
        note: "From a leader's beginning to the certificate at the median validator; below, what distance alone takes.".into(),
        x: "s",
        y: "ms",
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        series: vec![
            line("finality", Ink::Rescue, Shape::Line, finality),
            line("distance alone", Ink::Limit, Shape::Dashed, vec![(0.0, bound), (end, bound)]),
        ],
        bands: fault_bands(run),
    }
}

fn prediction(run: &Run) -> Markup {
    let Some(prediction) = &run.prediction else { return html! {} };
    let lanes =
        [("rescue", &prediction.rescue, &run.lanes.rescue), ("trade", &prediction.trade, &run.lanes.trade)];
    let ms = |value: Option<f64>| value.map_or("–".into(), span);
    let seconds = (run.virtual_ms as f64 / 1e3).max(1e-3);
    let dropped = |lane: &Lane| {
        let refused: u64 = lane.refused.values().sum();
        percent(refused as f64 / lane.sent.max(1) as f64)
    };
    html! {
        h3 { "Predicted and measured" }
        div.wide { table {
            thead { tr {
                th { "lane" } th { "" } th { "regime" } th.number { "load of its room" } th.number { "mean" }
                th.number { "p50" } th.number { "p99" } th.number { "dropped" } th.number { "carried a second" }
            } }
            tbody { @for (name, theory, measured) in lanes {
                tr {
                    td { (name) } td.ink-theory { "predicted" } td { (theory.regime) }
                    td.number { (theory.utilisation.map_or("–".into(), percent)) }
                    td.number { (ms(theory.mean_ms)) } td.number { (ms(theory.p50_ms)) } td.number { (ms(theory.p99_ms)) }
                    td.number { (percent(theory.dropped)) } td.number { (short(theory.carried_per_second)) }
                }
                tr {
                    td { "" } td { "measured" } td { "" } td { "" }
                    td.number { (span(measured.latency.mean_ms)) } td.number { (span(measured.latency.p50_ms)) }
                    td.number { (span(measured.latency.p99_ms)) } td.number { (dropped(measured)) }
                    td.number { (short((measured.executed + measured.answered) as f64 / seconds)) }
                }
            } }
        } }
        p.small { (prediction.assumptions) }
    }
}

fn faults(run: &Run) -> Markup {
    html! {
        @if !run.faults.is_empty() {
            h3 { "Faults" }
            div.wide { table {
                thead { tr { th { "" } th { "what" } th.number { "from" } th.number { "until" } th.number { "fired" } } }
                tbody { @for (at, fault) in run.faults.iter().enumerate().take(MAX_ROWS) {
                    tr.(if fault.fired == 0 { "missed" } else { "" }) {
                        td { (at + 1) } td { (fault.what) " " span.small { (fault.kind) } }
                        td.number { (span(fault.from_ms as f64)) } td.number { (span(fault.until_ms as f64)) }
                        td.number { (count(fault.fired)) }
                    }
                } }
            } }
            @if run.faults.len() > MAX_ROWS { p.small { (run.faults.len() - MAX_ROWS) " more in report.json" } }
        }
        @if !run.heals.is_empty() {
            h3 { "Recoveries" }
            div.wide { table {
                thead { tr { th { "after" } th.number { "at" } th { "stood still" } th.number { "final again after" } } }
                tbody { @for heal in run.heals.iter().take(MAX_ROWS) {
                    tr {
                        td { (heal.what) } td.number { (span(heal.at_ms as f64)) }
                        td { (if heal.was_halted { "yes" } else { "no" }) }
                        td.number { (perhaps(heal.finality_after_ms.map(|ms| ms as f64))) }
                    }
                } }
            } }
        }
    }
}

fn safety(run: &Run) -> Markup {
    let safety = &run.safety;
    let zero = |name: &str, value: u64| {
        let class = if value == 0 { "met" } else { "missed" };
        html! { tr.(class) { td { (name) } td.number { (count(value)) } } }
    };
    html! {
        h3 { "What must be zero" }
        div.wide { table { tbody {
            (zero("forks", safety.forks))
            (zero("blocks after which value was not conserved", safety.conservation_breaks))
            (zero("liquidations at a price that was not fresh", safety.stale_price_liquidations))
            (zero("rescues in a later block than promised", safety.p1_late))
            (zero("bugs that validators told of", safety.faults.len() as u64))
        } } }
        p.small {
            (count(safety.p1_checked)) " rescues were held to the first promise; the worst was left out by "
            (safety.p1_worst_missed) " blocks beyond those in flight. " (count(run.totals.blocks)) " final blocks, "
            (count(run.totals.lost_views)) " views without one, " (run.totals.block_interval_p50_ms)
            " ms from one to the next (median), " (run.totals.longest_gap_ms) " ms at most."
            @for fault in safety.faults.iter().take(MAX_ROWS) { br; (fault) }
        }
    }
}

/// Runs of a sweep beside each other.
fn sweep(record: &Record, baseline: Option<&Baseline>) -> Markup {
    let over = |of: &dyn Fn(usize, &Run) -> Option<f64>| -> Vec<(f64, f64)> {
        let runs = record.runs.iter().enumerate();
        runs.filter_map(|(at, run)| Some((run.offered_multiple?, of(at, run).filter(|value| *value > 0.0)?)))
            .collect()
    };
    let by_fee = |of: fn(&BaselineRun) -> Option<f64>| {
        over(&|at, _| baseline.and_then(|baseline| baseline.runs.get(at)).and_then(of))
    };
    let rate = |run: &Run, lane: &Lane| {
        Some((lane.executed + lane.answered) as f64 / (run.virtual_ms as f64 / 1e3).max(1e-3))
    };
    let latency = Chart {
        title: "Rescues at growing load",
        note: "99 of 100, from sending to finality. By fee: where the line ends, they never were.".into(),
        x: "trades offered, multiples of capacity",
        y: "ms",
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        series: vec![
            line("p99", Ink::Rescue, Shape::Line, over(&|_, run| Some(run.lanes.rescue.latency.p99_ms))),
            line("p50", Ink::Rescue, Shape::Dashed, over(&|_, run| Some(run.lanes.rescue.latency.p50_ms))),
            line(
                "p99 predicted",
                Ink::Theory,
                Shape::Dots,
                over(&|_, run| run.prediction.as_ref().and_then(|prediction| prediction.rescue.p99_ms)),
            ),
            line("p50, by fee", Ink::Baseline, Shape::Dashed, by_fee(|run| run.rescue_p50_of_sent_ms)),
            line("p99, by fee", Ink::Baseline, Shape::Line, by_fee(|run| run.rescue_p99_of_sent_ms)),
        ],
        bands: Vec::new(),
    };
    let goodput = Chart {
        title: "Trades at growing load",
        note: "In final blocks, a second.".into(),
        x: "trades offered, multiples of capacity",
        y: "actions a second",
        x_scale: Scale::Log,
        y_scale: Scale::Linear,
        series: vec![
            line("measured", Ink::Trade, Shape::Line, over(&|_, run| rate(run, &run.lanes.trade))),
            line(
                "predicted",
                Ink::Theory,
                Shape::Dots,
                over(&|_, run| run.prediction.as_ref().map(|prediction| prediction.trade.carried_per_second)),
            ),
            line(
                "capacity",
                Ink::Limit,
                Shape::Dashed,
                over(&|_, run| Some(run.capacity.actions_per_second)),
            ),
        ],
        bands: Vec::new(),
    };
    html! { section { h2 { "Over the sweep" } div.charts { (figure(&latency)) (figure(&goodput)) } } }
}

fn caveats(record: &Record, baseline: Option<&Baseline>) -> Markup {
    html! {
        section {
            h2 { "What to keep in mind" }
            ul {
                @for run in record.runs.iter().take(1) {
                    @if run.capacity.slowdown != 1.0 {
                        li {
                            "Signature checks and executions take " (short(run.capacity.slowdown))
                            " times as long as calibrated, so that overload can be simulated: capacity is "
                            (short(run.capacity.actions_per_second)) " actions a second."
                        }
                    }
                }
                @for caveat in &record.caveats { li { (caveat) } }
                @if let Some(baseline) = baseline {
                    li {
                        "The fee-ordered chain is kinder than any real one: its consensus does not suffer from load, its prices \
                         come as Seawall's do, checks of signatures cost nothing, and all of the pool is seen by everybody at \
                         once. Orders change no position there."
                    }
                    li { (capital(&baseline.calibration)) "." }
                }
            }
        }
    }
}

fn setting(record: &Record, baseline: Option<&Baseline>) -> Markup {
    let run = record.runs.first();
    html! {
        section {
            h2 { "How it was run" }
            @if let Some(run) = run {
                @let network = &run.network;
                details {
                    summary {
                        (network.validators.len()) " validators in " (network.places.len()) " places, quorum " (network.quorum)
                        ", at most " (network.faulty) " Byzantine; distance alone takes " (span(network.bound_ms))
                    }
                    div.wide { table {
                        thead { tr { th { "" } th { "where" } th { "breaks the protocol by" } th.number { "lives" } } }
                        tbody { @for validator in network.validators.iter().take(MAX_ROWS) {
                            tr {
                                td { (validator.index) } td { (validator.place) } td { (validator.byzantine.join(", ")) }
                                td.number { (validator.starts) }
                            }
                        } }
                    } }
                }
            }
            details {
                summary { "What work costs, in microseconds" }
                div.wide { table { tbody { @for (name, us) in &record.calibration_us {
                    tr { td { (name) } td.number { (short(*us)) } }
                } } } }
            }
            @if let Some(baseline) = baseline {
                details {
                    summary { "What the fee-ordered chain was given" }
                    pre { (toml::to_string_pretty(&baseline.terms).unwrap_or_default()) }
                }
            }
            details open {
                summary { "The scenario, " (first(&record.scenario_digest, 16)) }
                pre { (record.scenario_text) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
