//! A look into a data directory: an account, a market, a block, or the whole at a glance.
//!
//! What is shown of the state was held against the header of the block that it belongs to, so it is the
//! state that a quorum signed, or nothing is shown.

use crate::offline::{Chain, State, ToolError, on_chain};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use commonware_codec::EncodeSize as _;
use commonware_consensus::Viewable as _;
use commonware_cryptography::Digestible as _;
use seawall_chain::{block::from_consensus, crypto::key_of, genesis::Genesis, store::StateCommitment};
use seawall_ledger::{AccountKind, Compartment, Health, Ledger};
use seawall_types::{AccountId, Action, Atoms, Height, Lane, MarginMode, MarketId};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, path::Path};

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The directory as a whole.
    Summary,
    /// An account.
    Account(AccountId),
    /// A market, by name or number.
    Market(String),
    /// A final block.
    Block(Height),
}

/// Title, columns and rows of a table.
type Titled = (&'static str, Vec<&'static str>, Vec<Vec<String>>);

/// What was found. [`fmt::Display`] draws tables; amounts of atoms are strings in [`Report::json`], since
/// they do not fit what most readers of JSON take for a number.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    facts: Vec<(&'static str, String)>,
    tables: Vec<Titled>,
    json: Value,
}

impl Report {
    /// The same for machines.
    pub const fn json(&self) -> &Value {
        &self.json
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = Table::new();
        facts.load_preset(UTF8_FULL_CONDENSED).set_header([self.title.as_str(), ""]);
        for (name, value) in &self.facts {
            facts.add_row([*name, value]);
        }
        writeln!(f, "{facts}")?;
        for (title, columns, rows) in &self.tables {
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED).set_header(columns);
            for row in rows {
                table.add_row(row);
            }
            for column in table.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            writeln!(f, "{title}\n{table}")?;
        }
        Ok(())
    }
}

/// Looks into a data directory that nobody uses.
///
/// # Errors
/// If the directory is missing, in use, of another chain or damaged, or holds no such thing.
pub fn inspect(
    directory: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
    query: &Query,
) -> Result<Report, ToolError> {
    on_chain(directory, genesis, commitment, async |chain| match query {
        Query::Block(height) => block(chain, *height).await,
        Query::Summary => Ok(summary(chain, &chain.state().await?, genesis)),
        Query::Account(id) => account(&chain.state().await?, *id),
        Query::Market(name) => market(&chain.state().await?, name),
    })
}

/// Atoms for people: groups of three digits.
fn atoms(amount: Atoms) -> String {
    let digits = amount.get().unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    if amount.get() < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn exact(amount: Atoms) -> Value {
    Value::String(amount.to_string())
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn symbol(ledger: &Ledger, market: MarketId) -> String {
    ledger.market(market).map_or_else(|| market.to_string(), |market| market.params.symbol.to_string())
}

fn summary(chain: &Chain<'_>, state: &State, genesis: &Genesis) -> Report {
    let globals = state.world.ledger.globals();
    let facts = vec![
        ("chain", globals.chain.to_string()),
        ("genesis block", chain.origin.to_string()),
        ("last final block", chain.last.to_string()),
        ("state at block", state.height.to_string()),
        ("time, ms", globals.time.to_string()),
        ("state root", state.commitment.root.to_string()),
        ("validators", genesis.members.len().to_string()),
        ("accounts", globals.accounts.to_string()),
        ("exits", globals.exits.to_string()),
        ("supply, atoms", atoms(globals.supply)),
        ("insurance fund, atoms", atoms(globals.insurance)),
        ("uncovered deficits, atoms", atoms(globals.uncovered)),
    ];
    let rows = state.world.ledger.markets().map(|(id, market)| {
        let mark = market.mark.map(|mark| mark.last_known());
        vec![
            market.params.symbol.to_string(),
            id.to_string(),
            or_dash(mark.map(|mark| mark.0)),
            mark.map_or("-", |mark| mark.1.name()).to_owned(),
            market.open_interest.to_string(),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let markets: Vec<_> = state.world.ledger.markets().map(|(id, _)| market_json(state, id)).collect();
    Report {
        title: "data directory".into(),
        json: json!({
            "chain": globals.chain.get(),
            "genesis_block": chain.origin.to_string(),
            "last_final_block": chain.last.get(),
            "state_height": state.height.get(),
            "time_ms": globals.time.get(),
            "state_root": state.commitment.root.to_string(),
            "ops_root": state.commitment.ops.root.to_string(),
            "validators": genesis.members.len(),
            "accounts": globals.accounts,
            "exits": globals.exits,
            "supply_atoms": exact(globals.supply),
            "insurance_atoms": exact(globals.insurance),
            "uncovered_atoms": exact(globals.uncovered),
            "markets": markets,
        }),
        facts,
        tables: vec![(
            "markets",
            vec!["market", "id", "mark, ticks", "price state", "open interest, lots"],
            rows,
        )],
    }
}

fn health_row(name: String, health: &Health) -> Vec<String> {
    vec![
        name,
        atoms(health.equity),
        atoms(health.maintenance),
        atoms(health.initial),
        atoms(health.available),
        atoms(health.withdrawable),
        if health.equity < health.maintenance { "below maintenance" } else { "ok" }.to_owned(),
        if health.blind { "blind" } else { "priced" }.to_owned(),
    ]
}

fn health_json(health: &Health) -> Value {
    json!({
        "equity_atoms": exact(health.equity),
        "maintenance_atoms": exact(health.maintenance),
        "initial_atoms": exact(health.initial),
        "available_atoms": exact(health.available),
        "withdrawable_atoms": exact(health.withdrawable),
        "blind": health.blind,
    })
}

fn account(state: &State, id: AccountId) -> Result<Report, ToolError> {
    let ledger = &state.world.ledger;
    let account = ledger.account(id).ok_or_else(|| {
        let accounts = ledger.globals().accounts;
        ToolError::NotFound(format!(
            "account {id} does not exist at block {}: there are {accounts}",
            state.height
        ))
    })?;
    let kind = match account.kind {
        AccountKind::User => "user".to_owned(),
        AccountKind::Issuer => "issuer".to_owned(),
        AccountKind::Backstop(market) => format!("backstop of {}", symbol(ledger, market)),
    };
    let name = |compartment: Compartment| match compartment {
        Compartment::Cross => "cross".to_owned(),
        Compartment::Isolated(market) => format!("isolated {}", symbol(ledger, market)),
    };
    let mut compartments = vec![Compartment::Cross];
    let isolated = account.positions.iter().map(seawall_ledger::Position::compartment);
    compartments.extend(isolated.filter(|compartment| *compartment != Compartment::Cross));
    let healths: Vec<_> = compartments
        .into_iter()
        .filter_map(|compartment| Some((name(compartment), ledger.health_of(id, compartment)?)))
        .collect();
    let mode = |mode: MarginMode| match mode {
        MarginMode::Cross => "cross",
        MarginMode::Isolated => "isolated",
    };
    let positions = account.positions.iter();
    let rows = positions.clone().map(|position| {
        vec![
            symbol(ledger, position.market),
            position.lots.to_string(),
            atoms(position.cost),
            mode(position.mode).to_owned(),
            atoms(position.isolated),
            or_dash(position.breached),
        ]
    });
    let nonces = account
        .nonces
        .runs()
        .iter()
        .map(|run| vec![run.first.to_string(), run.last.to_string(), run.expiry.to_string()]);
    Ok(Report {
        title: format!("account {id}"),
        facts: vec![
            ("at block", state.height.to_string()),
            ("owner", account.owner.to_string()),
            ("kind", kind.clone()),
            ("collateral, atoms", atoms(account.collateral)),
            ("reserved, atoms", atoms(account.reserved)),
            ("in breach since block", or_dash(account.breached)),
        ],
        tables: vec![
            (
                "positions",
                vec!["market", "lots", "cost, atoms", "margin", "isolated, atoms", "in breach since"],
                rows.collect(),
            ),
            (
                "health, atoms",
                vec![
                    "compartment",
                    "equity",
                    "maintenance",
                    "initial",
                    "available",
                    "withdrawable",
                    "",
                    "prices",
                ],
                healths.iter().map(|(name, health)| health_row(name.clone(), health)).collect(),
            ),
            ("used nonces", vec!["from", "to", "expire at block"], nonces.collect()),
        ],
        json: json!({
            "height": state.height.get(),
            "account": id.get(),
            "owner": account.owner.to_string(),
            "kind": kind,
            "collateral_atoms": exact(account.collateral),
            "reserved_atoms": exact(account.reserved),
            "breached_height": account.breached.map(Height::get),
            "positions": positions.map(|position| json!({
                "market": symbol(ledger, position.market),
                "lots": position.lots.get(),
                "cost_atoms": exact(position.cost),
                "margin": mode(position.mode),
                "isolated_atoms": exact(position.isolated),
                "breached_height": position.breached.map(Height::get),
            })).collect::<Vec<_>>(),
            "health": healths.iter().map(|(name, health)| (name.clone(), health_json(health)))
                .collect::<serde_json::Map<_, _>>(),
            "nonces": account.nonces.runs().iter().map(|run| json!({
                "first": run.first.get(), "last": run.last.get(), "expiry": run.expiry.get(),
            })).collect::<Vec<_>>(),
        }),
    })
}

fn market_json(state: &State, id: MarketId) -> Value {
    let Some(market) = state.world.ledger.market(id) else { return Value::Null };
    let oracle = state.world.oracle.state().markets.get(usize::from(id.get()));
    let fund = state.world.ledger.account(market.backstop);
    json!({
        "height": state.height.get(),
        "market": market.params.symbol.to_string(),
        "id": id.get(),
        "mark_ticks": market.mark.map(|mark| mark.last_known().0.get()),
        "mark_state": market.mark.map(|mark| mark.state().name()),
        "mark_updated_ms": market.mark.map(|mark| mark.updated().get()),
        "oracle_state": oracle.map(|oracle| oracle.state.name()),
        "quarantined_height": market.quarantined.map(|(height, _)| height.get()),
        "open_interest_lots": market.open_interest.get(),
        "open_interest_cap_lots": market.params.open_interest_cap.get(),
        "atoms_per_tick_lot": market.params.atoms_per_tick_lot,
        "funding_index": market.funding_index.to_string(),
        "funding_pool_atoms": exact(market.funding_pool),
        "backstop_account": market.backstop.get(),
        "backstop_fund_atoms": fund.map(|fund| exact(fund.collateral)),
        "backstop_lots": fund.map(|fund| fund.lots(id).get()),
    })
}

fn market(state: &State, name: &str) -> Result<Report, ToolError> {
    let ledger = &state.world.ledger;
    let (id, market) = ledger
        .markets()
        .find(|(id, market)| {
            market.params.symbol.as_str().eq_ignore_ascii_case(name) || id.to_string() == name
        })
        .ok_or_else(|| {
            let names: Vec<_> =
                ledger.markets().map(|(_, market)| market.params.symbol.to_string()).collect();
            ToolError::NotFound(format!("no market is named {name}; there are {}", names.join(", ")))
        })?;
    let oracle = state.world.oracle.state().markets.get(usize::from(id.get()));
    let fund = ledger.account(market.backstop);
    Ok(Report {
        title: format!("market {}", market.params.symbol),
        facts: vec![
            ("at block", state.height.to_string()),
            ("id", id.to_string()),
            ("mark, ticks", or_dash(market.mark.map(|mark| mark.last_known().0))),
            ("price state", market.mark.map_or("no price yet", |mark| mark.state().name()).to_owned()),
            ("price updated, ms", or_dash(market.mark.map(|mark| mark.updated()))),
            ("oracle state", oracle.map_or("-", |oracle| oracle.state.name()).to_owned()),
            ("quarantined at block", or_dash(market.quarantined.map(|(height, _)| height))),
            ("open interest, lots", market.open_interest.to_string()),
            ("open interest cap, lots", market.params.open_interest_cap.to_string()),
            ("atoms per tick and lot", market.params.atoms_per_tick_lot.to_string()),
            ("funding index", market.funding_index.to_string()),
            ("funding pool, atoms", atoms(market.funding_pool)),
            ("backstop account", market.backstop.to_string()),
            ("backstop fund, atoms", or_dash(fund.map(|fund| atoms(fund.collateral)))),
            ("backstop position, lots", or_dash(fund.map(|fund| fund.lots(id)))),
        ],
        tables: Vec::new(),
        json: market_json(state, id),
    })
}

const fn kind(action: &Action) -> &'static str {
    match action {
        Action::Open { .. } => "open",
        Action::Deposit { .. } => "deposit",
        Action::Transfer { .. } => "transfer",
        Action::TopUpIsolated { .. } => "top up isolated",
        Action::ReleaseIsolated { .. } => "release isolated",
        Action::SetMarginMode { .. } => "set margin mode",
        Action::Withdraw { .. } => "withdraw",
        Action::Fill { .. } => "fill",
        Action::Place(_) => "place",
        Action::PlaceMany(_) => "place many",
        Action::Close(_) => "close",
        Action::Cancel { .. } => "cancel",
        Action::CancelRisk { .. } => "cancel risk",
        Action::CancelMany(_) => "cancel many",
        Action::CancelAll { .. } => "cancel all",
        Action::Modify { .. } => "modify",
        Action::PlaceTrigger { .. } => "place trigger",
        Action::ScheduleCancel { .. } => "schedule cancel",
        Action::SetLeverage { .. } => "set leverage",
    }
}

async fn block(chain: &Chain<'_>, height: Height) -> Result<Report, ToolError> {
    if height > chain.last {
        let last = chain.last;
        return Err(ToolError::NotFound(format!(
            "block {height} does not exist: the last final block is {last}"
        )));
    }
    let (block, certificate) = chain.block(height).await?;
    if certificate.as_ref().is_some_and(|certificate| !chain.certifies(certificate, &block)) {
        return Err(chain.damaged(format_args!("the certificate of block {height} is not a quorum's")));
    }
    let header = &block.header;
    let digest = from_consensus(block.digest());
    let bytes = certificate.as_ref().map(commonware_codec::EncodeSize::encode_size);
    let mut kinds: BTreeMap<(bool, &str), u64> = BTreeMap::new();
    for action in &block.body.actions {
        *kinds.entry((action.action.lane() != Lane::Rescue, kind(&action.action))).or_default() += 1;
    }
    let lane = |trade: bool| if trade { "trade" } else { "rescue" };
    let actions = kinds
        .iter()
        .map(|((trade, kind), count)| vec![(*kind).to_owned(), lane(*trade).to_owned(), count.to_string()]);
    let observations = block.body.observations.iter();
    let rows = observations.clone().map(|observation| {
        vec![
            observation.author.to_string(),
            observation.seq.to_string(),
            observation.time.to_string(),
            observation.prices.len().to_string(),
        ]
    });
    let leader = key_of(&block.context.leader);
    let view = block.context.view().get();
    Ok(Report {
        title: format!("block {height}"),
        facts: vec![
            ("digest", digest.to_string()),
            ("parent", header.parent.to_string()),
            ("version, chain, epoch", format!("{}, {}, {}", header.version, header.chain, header.epoch)),
            ("view", view.to_string()),
            ("leader", leader.to_string()),
            ("time, ms", header.time.to_string()),
            ("body", header.body.to_string()),
            ("state root", header.state_root.to_string()),
            ("operations root", header.ops.root.to_string()),
            ("operations", format!("{}..{}", header.ops.start, header.ops.end)),
            ("outcomes root", header.outcomes_root.to_string()),
            ("exits root", header.exits_root.to_string()),
            ("block, bytes", block.encode_size().to_string()),
            (
                "certificate, bytes",
                bytes.map_or_else(|| "none of its own".to_owned(), |bytes| bytes.to_string()),
            ),
        ],
        tables: vec![
            ("observations", vec!["validator", "seq", "time, ms", "prices"], rows.collect()),
            ("actions", vec!["kind", "lane", "count"], actions.collect()),
        ],
        json: json!({
            "height": height.get(),
            "digest": digest.to_string(),
            "version": header.version,
            "chain": header.chain.get(),
            "epoch": header.epoch,
            "parent": header.parent.to_string(),
            "view": view,
            "leader": leader.to_string(),
            "time_ms": header.time.get(),
            "body": header.body.to_string(),
            "state_root": header.state_root.to_string(),
            "ops_root": header.ops.root.to_string(),
            "ops_start": header.ops.start,
            "ops_end": header.ops.end,
            "outcomes_root": header.outcomes_root.to_string(),
            "exits_root": header.exits_root.to_string(),
            "block_bytes": block.encode_size(),
            "certificate_bytes": bytes,
            "observations": observations.map(|observation| json!({
                "validator": observation.author.get(),
                "seq": observation.seq,
                "time_ms": observation.time.get(),
                "prices": observation.prices.iter().map(|(market, report)| json!({
                    "market": market.get(),
                    "low_ticks": report.low.get(),
                    "high_ticks": report.high.get(),
                    "spread_ticks": report.spread.get(),
                    "sources": report.sources,
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "actions": block.body.actions.iter().map(|action| json!({
                "account": action.account.get(),
                "nonce": action.nonce.get(),
                "expiry": action.expiry.get(),
                "kind": kind(&action.action),
                "lane": lane(action.action.lane() != Lane::Rescue),
            })).collect::<Vec<_>>(),
        }),
    })
}
