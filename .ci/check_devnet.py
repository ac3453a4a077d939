"""Checks the report that `seawall devnet --json` prints last on stdout: one JSON object in one line."""

import json
import sys

with open(sys.argv[1], encoding="utf-8") as stdout:
    lines = [line for line in stdout.read().splitlines() if line.strip()]
if not lines:
    sys.exit("devnet printed nothing on stdout")
try:
    report = json.loads(lines[-1])
except ValueError as error:
    sys.exit(f"the last line on stdout is no JSON object: {error}")

FIELDS = [
    "seed", "replay", "validators", "accounts", "markets", "blocks", "replayed_minutes", "finality_ms",
    "liquidations", "liquidation_delay_blocks", "budget_hits", "top_ups", "withdrawals", "bad_debt_atoms",
    "socialised_atoms", "insurance_fund_atoms", "adl_events", "non_fresh_seconds",
    "unliquidated_breach_atoms_max", "stale_price_liquidations", "conserved", "forks", "state_root", "wall_s",
    "peak_rss_mb", "broken", "orders", "fills", "volume_atoms", "zone_lag_blocks", "auctions_voided",
    "liquidation_closes_in_auction", "backstop_takeovers", "liquidation_slippage_bps",
]
wrong = [f"{field} is missing" for field in FIELDS if field not in report]


def require(field, holds, what):
    if field in report and not holds(report[field]):
        wrong.append(f"{field} is {json.dumps(report[field])}, want {what}")


require("conserved", lambda value: value is True, "true")
require("forks", lambda value: value == 0, "0")
require("stale_price_liquidations", lambda value: value == 0, "0")
require("blocks", lambda value: value > 20, "more than 20")
require("liquidations", lambda value: value > 0, "more than 0")
require("orders", lambda value: value > 0, "more than 0")
require("fills", lambda value: value > 0, "more than 0")
require("auctions_voided", lambda value: value == 0, "0")
require("zone_lag_blocks", lambda value: value["max"] <= 8, "max 8 at most")
require("broken", lambda value: value == [], "[]")
if report.get("budget_hits") == 0:
    require("liquidation_delay_blocks", lambda value: value["max"] == 0, "max 0 as the budget was never hit")

if wrong:
    sys.exit("the devnet broke a promise:\n  " + "\n  ".join(wrong))
print(
    f"devnet: {report['blocks']} blocks, {report['liquidations']} liquidations, "
    f"finality p50 {report['finality_ms']['p50']} ms, conserved, no fork"
)
