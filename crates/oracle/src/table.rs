//! The committee's reports, and the mark price of every market.
//!
//! # What is kept
//! One [`ReporterRow`] a member: its latest observation's reports, with the height and block time at which
//! the chain saw it. An observation replaces its author's whole row, so a market that it leaves out has no
//! report of this author any more: "no price" is an answer. A report that is not well formed
//! (`0 < low <= high`, at least one source), or whose medians are not both within the market's range, or
//! whose market the observation names twice, is "no price" as well; reports of unknown markets are ignored.
//!
//! # The price of a block
//! A row *counts* for a market in the `A` heights that begin with its own, and while it is not older than
//! `T_age` of block time. With at least `q` counting reports:
//!
//! 1. The *price* is the lower median of their midpoints (`(low + high) / 2`, rounded down; index
//!    `(k - 1) / 2` of `k`). With `k >= q >= 2f + 1` it lies between two honest midpoints.
//! 2. A report is *at* the price if its midpoint is within `band` of it. Fewer than `q` reports at the price:
//!    no update.
//! 3. The price is a *jump* if it is beyond `gate` of the last corroborated price, however old that is. So a
//!    market that moved far while it was blind needs confirmation, as any jump does. A market that never
//!    had a price treats its first as a jump.
//! 4. A report at the price *stands behind* it if its own medians are not farther apart than `gate`, and, for
//!    a jump, if it has at least `min_sources` sources and both its medians are beyond the gate on the jump's
//!    side (with the gate's edge one band nearer, so that honest reports either side of the edge agree).
//! 5. At least `q` stand behind it: the price is *corroborated*, and it is the new last price.
//! 6. Otherwise, if at least `f + 1` reports at the price do not stand behind it, it is *disputed*: at least
//!    one honest member sees it and its sources do not bear it out.
//! 7. Otherwise no update: up to `f` members who withhold their confirmation dispute nothing.
//!
//! # States
//! In this order in every block, at block time `t`:
//!
//! | from | when | to |
//! | --- | --- | --- |
//! | Fresh, Reopening | `t - updated > stale_after`, or the chain was down | Stale |
//! | any but Quarantined | the price is disputed | Disputed |
//! | Stale, Disputed | the price is corroborated, and the market was blind for at most `outage_after` | Fresh |
//! | Stale, Disputed | the price is corroborated otherwise | Reopening, its grace period begins |
//! | Reopening | the price is corroborated, and the grace period is over | Fresh |
//! | Stale, Disputed, Reopening | no corroborated price for longer than `quarantine_after` | Quarantined |
//! | Quarantined | [`Oracle::reopen`] | Stale |
//!
//! - Blind time begins at the last corroborated price before the market left Fresh, and ends only when it is
//!   Fresh again. A market that falls back from Reopening begins a whole grace period anew.
//! - The *chain was down* if two blocks are more than `halt_after` apart. Nobody could act meanwhile, so every
//!   market must go through Reopening, however short `outage_after` makes the gap look. The down time does not
//!   count towards quarantine.
//! - A dispute ends with a corroborated price: because the jump is confirmed, or because prices came back
//!   inside the gate. Silence does not end it. A dispute that nothing ends becomes a quarantine.
//! - A market that has no price at genesis is Stale without a mark until its first one, and then reopens. It
//!   is not quarantined: nobody can hold a position in it.
//! - Quarantine ends by decision only, since a market out for that long may have to be settled.
//! - In Reopening the last price follows the corroborated ones; a jump there is gated like any other.
//!
//! # Who can do what
//! - Members who abstain or lie, up to `f`, cannot make a market Stale or Disputed while the other `q` report
//!   prices within one band of each other: their rows alone are a quorum.
//! - A leader chooses which `q` observations its block holds. Rows outlive it: an honest leader comes within
//!   `f + 1` turns, and all limits here cover as many (see [`params`](crate::params)).
//! - A dispute takes `f + 1` reports at the price that do not stand behind it, so at least one honest member's,
//!   and a member's report follows the majority of its sources. So neither `f` members nor a minority of
//!   sources can dispute a price, and a leader that carries some of the honest reports of a jump, beside `f`
//!   lying ones, delays it by a turn at most.
//! - If all sources die, honest members say "no price", their rows stop counting at once, and the market is
//!   stale `T_stale` after its last update. If the members are silent instead, their last reports go on
//!   counting until they expire: at most `T_age + T_stale` pass before the market is stale.

use crate::{
    Committee, CommitteeError, MarketParams, OracleParams, ParamsError,
    math::{Jump, midpoint, split, within},
};
use seawall_types::{
    Height, Mark, MarketId, Observation, PriceReport, PriceState, PriceTicks, TimeMs, ValidatorId,
};
use std::sync::Arc;
use thiserror::Error;

/// Where the oracle is. Canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Height of the last block taken.
    pub height: Height,
    /// Its time.
    pub time: TimeMs,
    /// Block time at which the chain last began to run: genesis, or the first block after a halt.
    pub running_since: TimeMs,
}

/// The latest observation of one member, as far as prices go. Canonical.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReporterRow {
    /// Its `seq`; nothing before the member's first observation.
    pub seq: Option<u64>,
    /// Height of the block that carried it.
    pub height: Height,
    /// Time of that block.
    pub time: TimeMs,
    /// Its report for every market, in the order of [`MarketId`]; "no price" is `None`. As many as markets.
    pub reports: Vec<Option<PriceReport>>,
}

/// One market. Canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketOracle {
    /// The state.
    pub state: PriceState,
    /// The last corroborated price, in ticks; nothing before the first. Never zero.
    pub last: Option<PriceTicks>,
    /// Block time of the last corroborated price; genesis time before the first.
    pub updated: TimeMs,
    /// Height of the last corroborated price; 0 before the first.
    pub updated_height: Height,
    /// When blind time began: the last corroborated price before the market left Fresh. `None` exactly in
    /// Fresh.
    pub blind_since: Option<TimeMs>,
    /// Whether the next corroborated price leads to Reopening however short the blind time. Set by a halt, by
    /// [`Oracle::reopen`], by genesis without a price, and while Reopening; false in Fresh.
    pub must_reopen: bool,
    /// Block time at which the grace period began. `Some` exactly in Reopening.
    pub grace_since: Option<TimeMs>,
    /// The latest price that was disputed, in ticks. `Some` exactly in Disputed.
    pub disputed: Option<PriceTicks>,
    /// Block time of the last [`Oracle::reopen`]; the quarantine clock begins no earlier.
    pub reopened: Option<TimeMs>,
}

/// All canonical state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OracleState {
    /// Where the oracle is.
    pub head: Head,
    /// By [`MarketId`].
    pub markets: Vec<MarketOracle>,
    /// By [`ValidatorId`].
    pub reporters: Vec<ReporterRow>,
}

/// The oracle of one committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oracle {
    params: Arc<OracleParams>,
    committee: Committee,
    state: OracleState,
}

/// What a block's observation says to the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported<'a> {
    /// Who says so.
    pub author: ValidatorId,
    /// Newer than the author's last.
    pub seq: u64,
    /// At most one report a market.
    pub prices: &'a [(MarketId, PriceReport)],
}

impl<'a> From<&'a Observation> for Reported<'a> {
    fn from(observation: &'a Observation) -> Self {
        Self { author: observation.author, seq: observation.seq, prices: &observation.prices }
    }
}

/// What a block did to the oracle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Marks that changed (state, price or time of update), by ascending market.
    pub marks: Vec<(MarketId, Mark)>,
    /// What happened, a halt first, then by ascending market.
    pub events: Vec<OracleEvent>,
}

/// Something worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OracleEvent {
    /// The chain was down.
    Halted {
        /// Milliseconds of block time between the two blocks.
        gap_ms: u64,
    },
    /// A market's state changed.
    State {
        /// Where.
        market: MarketId,
        /// Before.
        from: PriceState,
        /// After.
        to: PriceState,
    },
    /// A jump beyond the gate was confirmed.
    JumpConfirmed {
        /// Where.
        market: MarketId,
        /// Last price, in ticks; nothing if it is the market's first.
        from: Option<PriceTicks>,
        /// New price, in ticks.
        to: PriceTicks,
    },
    /// A price was disputed, in this block.
    PriceDisputed {
        /// Where.
        market: MarketId,
        /// Last price, in ticks.
        last: Option<PriceTicks>,
        /// The price that too few stand behind, in ticks.
        price: PriceTicks,
    },
}

/// Why an oracle cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GenesisError {
    /// The committee's size.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
    /// The parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Not one (possibly absent) price a market.
    #[error("{have} initial prices for {need} markets")]
    PriceCount {
        /// As given.
        have: usize,
        /// Markets.
        need: usize,
    },
    /// An initial price outside its market's range.
    #[error("market {0}: the initial price is outside the market's range")]
    PriceRange(MarketId),
}

/// Why a block's observations are refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// Not the height after the last.
    #[error("height {have} does not follow {last}")]
    Height {
        /// As given.
        have: Height,
        /// The last block's.
        last: Height,
    },
    /// Not later than the last block.
    #[error("time {have} ms is not after {last} ms")]
    Time {
        /// As given.
        have: TimeMs,
        /// The last block's.
        last: TimeMs,
    },
    /// Fewer observations than a quorum.
    #[error("{have} observations, a quorum is {need}")]
    TooFew {
        /// As given.
        have: usize,
        /// A quorum.
        need: usize,
    },
    /// An author outside the committee.
    #[error("validator {0} is no member")]
    NotMember(ValidatorId),
    /// Two observations of one author.
    #[error("validator {0} appears twice")]
    Duplicate(ValidatorId),
    /// An observation that is not newer than its author's last on this chain.
    #[error("validator {author}: seq {have} is not above {last}")]
    OldSeq {
        /// Who.
        author: ValidatorId,
        /// As given.
        have: u64,
        /// The author's last.
        last: u64,
    },
}

/// Why stored state is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The number of reporters is no committee.
    #[error(transparent)]
    Committee(#[from] CommitteeError),
    /// The parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Not one record a market.
    #[error("{have} market records for {need} markets")]
    Markets {
        /// As given.
        have: usize,
        /// Markets.
        need: usize,
    },
    /// A row without exactly one (possibly absent) report a market, or with one that is no price.
    #[error("validator {0}: the row does not fit the markets")]
    Row(ValidatorId),
    /// A market record that no sequence of blocks can produce.
    #[error("market {0}: the record contradicts itself")]
    Record(MarketId),
}

/// What a block's reports say of one market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NoUpdate,
    Corroborated { price: PriceTicks, jump: bool },
    Disputed { price: PriceTicks },
}

impl Oracle {
    /// The oracle at height 0. A market with an initial price is Fresh; one without is Stale and has no mark
    /// until its first corroborated price.
    ///
    /// If the first block comes more than `halt_after_ms` after `time`, every market reopens first.
    ///
    /// # Errors
    /// [`GenesisError`]: committee, parameters, or initial prices.
    pub fn genesis(
        params: OracleParams,
        committee_size: usize,
        initial: &[Option<PriceTicks>],
        time: TimeMs,
    ) -> Result<Self, GenesisError> {
        let committee = Committee::new(committee_size)?;
        params.validate(committee)?;
        let need = params.markets.len();
        if initial.len() != need {
            return Err(GenesisError::PriceCount { have: initial.len(), need });
        }
        let mut markets = Vec::with_capacity(need);
        for ((market, limits), price) in (0..).map(MarketId).zip(&params.markets).zip(initial) {
            if price.is_some_and(|price| !limits.in_range(price)) {
                return Err(GenesisError::PriceRange(market));
            }
            markets.push(MarketOracle::begin(*price, time));
        }
        let row = ReporterRow { reports: vec![None; need], ..ReporterRow::default() };
        let head = Head { height: Height(0), time, running_since: time };
        let state = OracleState { head, markets, reporters: vec![row; committee_size] };
        Ok(Self { params: Arc::new(params), committee, state })
    }

    /// The oracle again from its stored state; the committee's size is the number of reporters.
    ///
    /// # Errors
    /// [`RestoreError`] if the parts do not fit each other.
    pub fn restore(params: OracleParams, state: OracleState) -> Result<Self, RestoreError> {
        let committee = Committee::new(state.reporters.len())?;
        params.validate(committee)?;
        let need = params.markets.len();
        if state.markets.len() != need {
            return Err(RestoreError::Markets { have: state.markets.len(), need });
        }
        let mut rows = (0..).map(ValidatorId).zip(&state.reporters);
        if let Some((author, _)) = rows.find(|(_, row)| !row.is_sound(&params.markets)) {
            return Err(RestoreError::Row(author));
        }
        let mut records = (0..).map(MarketId).zip(&state.markets).zip(&params.markets);
        if let Some(((market, _), _)) = records.find(|((_, record), limits)| !record.is_sound(limits)) {
            return Err(RestoreError::Record(market));
        }
        Ok(Self { params: Arc::new(params), committee, state })
    }

    /// Parameters.
    pub fn params(&self) -> &OracleParams {
        &self.params
    }

    /// The committee.
    pub fn committee(&self) -> Committee {
        self.committee
    }

    /// All canonical state.
    pub fn state(&self) -> &OracleState {
        &self.state
    }

    /// Record of `market`, if there is such a market.
    pub fn market(&self, market: MarketId) -> Option<&MarketOracle> {
        self.state.markets.get(usize::from(market.0))
    }

    /// Row of `author`, if it is a member.
    pub fn reporter(&self, author: ValidatorId) -> Option<&ReporterRow> {
        self.state.reporters.get(usize::from(author.0))
    }

    /// The mark of `market`; nothing if there is no such market or it never had a price.
    pub fn mark(&self, market: MarketId) -> Option<Mark> {
        self.market(market)?.mark()
    }

    /// Every mark, by ascending market.
    pub fn marks(&self) -> impl Iterator<Item = (MarketId, Mark)> {
        (0..)
            .map(MarketId)
            .zip(&self.state.markets)
            .filter_map(|(market, record)| Some((market, record.mark()?)))
    }

    /// `seq` of the last observation of `author` on this chain; nothing if there is none.
    pub fn last_seq(&self, author: ValidatorId) -> Option<u64> {
        self.reporter(author)?.seq
    }

    /// Whether [`Oracle::step`] would take these observations. Their order does not matter.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn check(
        &self,
        height: Height,
        time: TimeMs,
        observations: &[Reported<'_>],
    ) -> Result<(), StepError> {
        let head = self.state.head;
        if Some(height.0) != head.height.0.checked_add(1) {
            return Err(StepError::Height { have: height, last: head.height });
        }
        if time <= head.time {
            return Err(StepError::Time { have: time, last: head.time });
        }
        let need = self.committee.quorum();
        if observations.len() < need {
            return Err(StepError::TooFew { have: observations.len(), need });
        }
        let mut seen = vec![false; self.committee.size()];
        for reported in observations {
            let author = reported.author;
            match seen.get_mut(usize::from(author.0)) {
                None => return Err(StepError::NotMember(author)),
                Some(true) => return Err(StepError::Duplicate(author)),
                Some(seen) => *seen = true,
            }
            match self.last_seq(author) {
                Some(last) if reported.seq <= last => {
                    return Err(StepError::OldSeq { author, have: reported.seq, last });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the observations of the block at `height` and `time`, and moves every market by the rules at the
    /// top of this module. The order of the observations does not matter.
    ///
    /// `time` is the block's, by [`block_time`](crate::block_time); signatures and views are the caller's to
    /// check.
    ///
    /// # Errors
    /// [`StepError`]; nothing has changed then.
    pub fn step(
        &mut self,
        height: Height,
        time: TimeMs,
        observations: &[Reported<'_>],
    ) -> Result<Step, StepError> {
        self.check(height, time, observations)?;
        let params = Arc::clone(&self.params);
        for reported in observations {
            if let Some(row) = self.state.reporters.get_mut(usize::from(reported.author.0)) {
                *row = ReporterRow {
                    seq: Some(reported.seq),
                    height,
                    time,
                    reports: usable(&params.markets, reported.prices),
                };
            }
        }

        let mut step = Step::default();
        let gap_ms = time.0.saturating_sub(self.state.head.time.0);
        let halted = gap_ms > params.halt_after_ms;
        let running_since = if halted { time } else { self.state.head.running_since };
        if halted {
            step.events.push(OracleEvent::Halted { gap_ms });
        }
        self.state.head = Head { height, time, running_since };

        let OracleState { head, markets, reporters } = &mut self.state;
        for (index, (market, limits)) in (0..).map(MarketId).zip(&params.markets).enumerate() {
            let Some(record) = markets.get_mut(index) else { continue };
            let before = *record;
            let counting: Vec<_> = reporters
                .iter()
                .filter(|row| row.counts(limits, head))
                .filter_map(|row| row.reports.get(index).copied().flatten())
                .collect();
            let verdict = judge(self.committee, limits, record.last, &counting);
            record.advance(limits, head, halted, verdict);

            match verdict {
                _ if before.state == PriceState::Quarantined => {}
                Verdict::Corroborated { price, jump: true } => {
                    step.events.push(OracleEvent::JumpConfirmed { market, from: before.last, to: price });
                }
                Verdict::Disputed { price } => {
                    step.events.push(OracleEvent::PriceDisputed { market, last: before.last, price });
                }
                _ => {}
            }
            if before.state != record.state {
                step.events.push(OracleEvent::State { market, from: before.state, to: record.state });
            }
            match record.mark() {
                Some(mark) if before.mark() != Some(mark) => step.marks.push((market, mark)),
                _ => {}
            }
        }
        Ok(step)
    }

    /// Takes `market` out of quarantine, by a decision made elsewhere: it is Stale, must reopen with a quorum
    /// and a grace period, and its quarantine clock begins anew. False, and nothing changes, if the market
    /// does not exist or is not quarantined.
    pub fn reopen(&mut self, market: MarketId) -> bool {
        let time = self.state.head.time;
        match self.state.markets.get_mut(usize::from(market.0)) {
            Some(record) if record.state == PriceState::Quarantined => {
                record.state = PriceState::Stale;
                record.must_reopen = true;
                record.reopened = Some(time);
                true
            }
            _ => false,
        }
    }
}

impl ReporterRow {
    fn is_sound(&self, markets: &[MarketParams]) -> bool {
        let mut reports = markets.iter().zip(&self.reports);
        self.reports.len() == markets.len()
            && reports.all(|(limits, report)| report.is_none_or(|report| is_price(limits, &report)))
    }

    fn counts(&self, limits: &MarketParams, head: &Head) -> bool {
        self.seq.is_some()
            && head.height.0.saturating_sub(self.height.0) < limits.report_max_age_heights
            && head.time.0.saturating_sub(self.time.0) <= limits.report_max_age_ms
    }
}

impl MarketOracle {
    fn begin(price: Option<PriceTicks>, time: TimeMs) -> Self {
        let blind = price.is_none();
        Self {
            state: if blind { PriceState::Stale } else { PriceState::Fresh },
            last: price,
            updated: time,
            updated_height: Height(0),
            blind_since: blind.then_some(time),
            must_reopen: blind,
            grace_since: None,
            disputed: None,
            reopened: None,
        }
    }

    /// The mark; nothing before the first price.
    pub fn mark(&self) -> Option<Mark> {
        // Zero cannot be stored, but a record's fields are public and a mark of zero would panic.
        let last = self.last.filter(|price| price.0 > 0)?;
        Some(Mark::new(self.state, last, self.updated))
    }

    /// Whether blocks can have produced this record.
    fn is_sound(&self, limits: &MarketParams) -> bool {
        let fresh = self.state == PriceState::Fresh;
        self.last.is_none_or(|price| limits.in_range(price))
            && fresh == self.blind_since.is_none()
            && (self.state == PriceState::Reopening) == self.grace_since.is_some()
            && (self.state != PriceState::Reopening || self.must_reopen)
            && (self.state == PriceState::Disputed) == self.disputed.is_some()
            && !(fresh && self.must_reopen)
            && (self.last.is_some() || matches!(self.state, PriceState::Stale | PriceState::Disputed))
    }

    fn go_blind(&mut self, state: PriceState) {
        self.state = state;
        self.blind_since = self.blind_since.or(Some(self.updated));
        self.grace_since = None;
        self.disputed = None;
    }

    fn advance(&mut self, limits: &MarketParams, head: &Head, halted: bool, verdict: Verdict) {
        use PriceState::{Disputed, Fresh, Quarantined, Reopening, Stale};
        if self.state == Quarantined {
            return;
        }
        let since = |then: TimeMs| head.time.0.saturating_sub(then.0);
        // Age first: a price that comes after a silence ends it, it does not undo it.
        if halted || since(self.updated) > limits.stale_after_ms {
            if matches!(self.state, Fresh | Reopening) {
                self.go_blind(Stale);
            }
            self.must_reopen |= halted;
        }
        match verdict {
            Verdict::Corroborated { price, .. } => {
                self.last = Some(price);
                self.updated = head.time;
                self.updated_height = head.height;
                self.disputed = None;
                let outage = self.must_reopen
                    || self.blind_since.is_some_and(|blind| since(blind) > limits.outage_after_ms);
                let open = match self.state {
                    Fresh => true,
                    Reopening => self.grace_since.is_some_and(|began| since(began) >= limits.grace_ms),
                    Stale | Disputed | Quarantined => !outage,
                };
                if open {
                    self.state = Fresh;
                    self.blind_since = None;
                    self.must_reopen = false;
                    self.grace_since = None;
                } else {
                    self.state = Reopening;
                    self.must_reopen = true;
                    self.grace_since = self.grace_since.or(Some(head.time));
                }
                return;
            }
            Verdict::Disputed { price } => {
                self.go_blind(Disputed);
                self.disputed = Some(price);
            }
            Verdict::NoUpdate => {}
        }
        // The clock begins no earlier than the chain runs: sources cannot be heard while it is down.
        let clock = self.updated.max(head.running_since).max(self.reopened.unwrap_or_default());
        if self.state != Fresh && self.last.is_some() && since(clock) > limits.quarantine_after_ms {
            self.go_blind(Quarantined);
        }
    }
}

/// Whether a report is well formed and within the market's range; any other is "no price".
fn is_price(limits: &MarketParams, report: &PriceReport) -> bool {
    report.low <= report.high
        && report.sources > 0
        && limits.in_range(report.low)
        && limits.in_range(report.high)
}

/// The reports of one observation that are prices, one entry a market.
fn usable(markets: &[MarketParams], prices: &[(MarketId, PriceReport)]) -> Vec<Option<PriceReport>> {
    let mut named = vec![false; markets.len()];
    let mut reports = vec![None; markets.len()];
    for (market, report) in prices {
        let index = usize::from(market.0);
        let (Some(limits), Some(named), Some(entry)) =
            (markets.get(index), named.get_mut(index), reports.get_mut(index))
        else {
            continue;
        };
        *entry = (is_price(limits, report) && !*named).then_some(*report);
        *named = true;
    }
    reports
}

/// What the counting reports of one market say, given its last price.
fn judge(
    committee: Committee,
    limits: &MarketParams,
    last: Option<PriceTicks>,
    counting: &[PriceReport],
) -> Verdict {
    let quorum = committee.quorum();
    if counting.len() < quorum {
        return Verdict::NoUpdate;
    }
    let mut mids: Vec<_> = counting.iter().map(midpoint).collect();
    mids.sort_unstable();
    let Some(&price) = mids.get((mids.len().saturating_sub(1)) / 2) else { return Verdict::NoUpdate };

    let jump = last.and_then(|last| Jump::between(last, price, limits.gate_ppm));
    let is_jump = jump.is_some() || last.is_none();
    let stands_behind = |report: &PriceReport| {
        !split(report, limits.gate_ppm)
            && (!is_jump || report.sources >= limits.min_sources)
            && jump.is_none_or(|jump| {
                jump.reaches(report.low, limits.band_ppm) && jump.reaches(report.high, limits.band_ppm)
            })
    };
    let at = |report: &&PriceReport| within(midpoint(report), price, limits.band_ppm);
    let (behind, not_behind) = counting
        .iter()
        .filter(at)
        .fold((0, 0), |(yes, no), report| if stands_behind(report) { (yes + 1, no) } else { (yes, no + 1) });
    if behind >= quorum {
        Verdict::Corroborated { price, jump: is_jump }
    } else if behind + not_behind >= quorum && not_behind > committee.faults() {
        Verdict::Disputed { price }
    } else {
        Verdict::NoUpdate
    }
}
