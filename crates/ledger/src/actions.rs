//! What each action does. Validate, then mutate: an action is planned on copies, and only a plan without
//! objection is written, so a refused action leaves no trace.

use std::collections::BTreeMap;

use seawall_types::{
    AccountId, Action, Atoms, Height, Lane, Lots, MarginMode, MarketId, Name, Nonce, OrderId, PriceTicks,
    Quote, Refusal, Side, Terms, TimeMs, Trigger, limits,
};

use crate::{
    health::{self, Valuation},
    kernel,
    ledger::Ledger,
    nonces::Nonces,
    orders::{Placing, Statuses, Verdicts, require_closing_lots},
    state::{Account, AccountKind, Compartment, Exit},
    trade::{self, Flow},
    triggers::TriggerEnd,
};

/// What an action did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// An account was opened.
    Opened {
        /// Its id.
        account: AccountId,
    },
    /// Value arrived from outside.
    Deposited,
    /// Value moved between accounts.
    Transferred,
    /// Value moved between compartments of the account.
    Moved,
    /// The margin mode was set.
    ModeSet,
    /// Value is on its way out.
    Withdrawn {
        /// Index of the exit.
        exit: u64,
    },
    /// A trade was settled.
    Filled(Filled),
    /// An order is on its way to its zone.
    Placed {
        /// Its id.
        order: OrderId,
    },
    /// Orders were placed or refused, each by itself.
    PlacedMany(Statuses),
    /// Orders are cancelled; auctions on their way can still fill them, but not those that waited for a trigger,
    /// which are gone.
    Cancelling {
        /// How many.
        orders: u32,
    },
    /// The same, of each name by itself.
    CancellingMany {
        /// How many orders.
        orders: u32,
        /// Of each name, whether it is one of an order.
        verdicts: Verdicts,
    },
    /// A modification is on its way.
    Modifying {
        /// The id of what may replace the order.
        order: OrderId,
    },
    /// An order waits for its trigger.
    Waiting {
        /// Its id until it enters its zone.
        order: OrderId,
    },
    /// A cancel of all orders is scheduled, or no longer.
    Scheduled,
    /// The leverage was set.
    LeverageSet,
}

/// A settled trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Market.
    pub market: MarketId,
    /// Who took the quote.
    pub taker: AccountId,
    /// Who made it.
    pub maker: AccountId,
    /// Side of the taker.
    pub side: Side,
    /// Size.
    pub lots: Lots,
    /// Price.
    pub price: PriceTicks,
    /// Fee of the taker, to the insurance fund.
    pub taker_fee: Atoms,
    /// Fee of the maker, to the insurance fund.
    pub maker_fee: Atoms,
}

/// A plan that nothing objects to.
enum Plan {
    Open(Account, Atoms),
    Deposit(u32, Atoms),
    Transfer(u32, Atoms),
    Move(MarketId, Atoms),
    Mode(MarketId, MarginMode),
    Withdraw(Exit),
    Fill(Box<FillPlan>),
    Place(Terms),
    PlaceMany(Vec<Terms>),
    Cancel(MarketId, Name, Vec<OrderId>),
    CancelMany(Vec<(MarketId, Name)>),
    CancelAll(Option<MarketId>, bool, BTreeMap<u8, Vec<OrderId>>),
    Modify(Name, Terms),
    PlaceTrigger(Trigger, Terms),
    Schedule(Option<TimeMs>),
    Leverage(MarketId, u32),
}

struct FillPlan {
    filled: Filled,
    taker: (Account, Flow),
    maker: (u32, Account, Flow),
    quote: (Nonce, Height),
}

/// Without nonces, which neither a trade nor a margin check reads and which may be many.
fn copy(account: &Account) -> Account {
    Account {
        positions: account.positions.clone(),
        isolated: account.isolated.clone(),
        leverage: account.leverage.clone(),
        nonces: Nonces::new(),
        ..*account
    }
}

fn require_some<T>(orders: &[T]) -> Result<(), Refusal> {
    if (1..=limits::MAX_ORDERS_PER_ACTION).contains(&orders.len()) {
        Ok(())
    } else {
        Err(Refusal::OrderCount)
    }
}

fn amount(amount: Atoms) -> Result<i128, Refusal> {
    match amount.0 {
        ..=0 => Err(Refusal::NotPositive),
        1..=limits::MAX_AMOUNT_ATOMS => Ok(amount.0),
        _ => Err(Refusal::TooLarge),
    }
}

impl Ledger {
    /// Whether the account may use this nonce until this expiry now: everything that does not depend on
    /// the action.
    pub fn check_envelope(&self, account: AccountId, nonce: Nonce, expiry: Height) -> Result<(), Refusal> {
        self.check_envelope_at(self.globals.height, account, nonce, expiry)
    }

    /// The same in a block at `height`, with the nonces that are spent by now.
    pub fn check_envelope_at(
        &self,
        height: Height,
        account: AccountId,
        nonce: Nonce,
        expiry: Height,
    ) -> Result<(), Refusal> {
        let signer = self.account(account).ok_or(Refusal::UnknownAccount)?;
        if matches!(signer.kind, AccountKind::Backstop(_)) {
            return Err(Refusal::ProtocolAccount);
        }
        if expiry < height {
            return Err(Refusal::Expired);
        }
        if expiry.0 - height.0 > limits::MAX_EXPIRY_BLOCKS {
            return Err(Refusal::ExpiryTooFar);
        }
        if signer.nonces.contains(nonce, height) {
            return Err(Refusal::NonceUsed);
        }
        if signer.nonces.is_full(nonce, expiry, height) {
            return Err(Refusal::NonceWindowFull);
        }
        Ok(())
    }

    /// Whether [`apply`](Self::apply) would accept the action now. Changes nothing. Between blocks, heights
    /// are held against the last block's.
    pub fn check(
        &self,
        account: AccountId,
        nonce: Nonce,
        expiry: Height,
        action: &Action,
    ) -> Result<(), Refusal> {
        self.plan(account, nonce, expiry, action).map(|_| ())
    }

    /// Does the action and spends its nonce (a fill spends the quote's too), or refuses it and changes
    /// nothing. Signatures and chain id of the envelope are the caller's to check.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn apply(
        &mut self,
        account: AccountId,
        nonce: Nonce,
        expiry: Height,
        action: &Action,
    ) -> Result<Receipt, Refusal> {
        let plan = self.plan(account, nonce, expiry, action)?;
        let height = self.globals.height;
        let signer = account.0 as u32;
        let receipt = match plan {
            Plan::Open(opened, amount) => {
                self.globals.supply += amount;
                Receipt::Opened { account: self.open_account(opened) }
            }
            Plan::Deposit(to, amount) => {
                self.globals.supply += amount;
                self.account_mut(to).collateral += amount;
                Receipt::Deposited
            }
            Plan::Transfer(to, amount) => {
                self.account_mut(signer).collateral -= amount;
                self.account_mut(to).collateral += amount;
                Receipt::Transferred
            }
            Plan::Move(market, amount) => {
                let account = self.account_mut(signer);
                account.collateral -= amount;
                *account.collateral_of_mut(Compartment::Isolated(market)) += amount;
                Receipt::Moved
            }
            Plan::Mode(market, mode) => {
                let isolated = &mut self.account_mut(signer).isolated;
                match (isolated.binary_search(&market), mode) {
                    (Err(at), MarginMode::Isolated) => isolated.insert(at, market),
                    (Ok(at), MarginMode::Cross) => {
                        isolated.remove(at);
                    }
                    _ => {}
                }
                Receipt::ModeSet
            }
            Plan::Withdraw(exit) => {
                self.account_mut(signer).collateral -= exit.amount;
                self.globals.supply -= exit.amount;
                Receipt::Withdrawn { exit: self.push_exit(exit) }
            }
            Plan::Fill(plan) => {
                let FillPlan { filled, taker, maker, quote } = *plan;
                self.commit(signer, filled.market, taker.0);
                self.commit(maker.0, filled.market, maker.1);
                self.note_opened(maker.0);
                self.account_mut(maker.0).nonces.insert(quote.0, quote.1, height);
                self.book(filled.market, taker.1);
                self.book(filled.market, maker.2);
                self.credit_insurance(filled.taker_fee.0 + filled.maker_fee.0);
                Receipt::Filled(filled)
            }
            Plan::Place(terms) => Receipt::Placed { order: self.place(account, terms) },
            Plan::PlaceMany(orders) => Receipt::PlacedMany(self.place_many(account, &orders)),
            Plan::Cancel(market, name, orders) => {
                self.cancel(account, market, name, &orders);
                Receipt::Cancelling { orders: orders.len() as u32 }
            }
            Plan::CancelMany(names) => {
                let (orders, verdicts) = self.cancel_many(account, &names);
                Receipt::CancellingMany { orders, verdicts }
            }
            Plan::CancelAll(market, keep_reduce_only, zones) => {
                let why = TriggerEnd::Cancelled;
                Receipt::Cancelling { orders: self.cancel_all(account, market, keep_reduce_only, zones, why) }
            }
            Plan::Modify(name, terms) => Receipt::Modifying { order: self.modify(account, name, terms) },
            Plan::PlaceTrigger(trigger, terms) => {
                Receipt::Waiting { order: self.place_trigger(account, trigger, terms) }
            }
            Plan::Schedule(at) => {
                self.schedule(signer, at);
                Receipt::Scheduled
            }
            Plan::Leverage(market, leverage) => {
                let most = self.markets[usize::from(market.0)].params.max_leverage();
                self.account_mut(signer).set_leverage(market, leverage, most);
                self.reserve(signer);
                Receipt::LeverageSet
            }
        };
        self.account_mut(signer).nonces.insert(nonce, expiry, height);
        match action.lane() {
            Lane::Rescue => self.take_token(signer),
            Lane::Trade => self.note_opened(signer),
        }
        Ok(receipt)
    }

    /// Spends nonce and token of a rescue that a block carries although it was refused. Does nothing, and says
    /// so, if the envelope itself would be refused or there is no token.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn spend_nonce(&mut self, account: AccountId, nonce: Nonce, expiry: Height) -> Result<(), Refusal> {
        self.check_envelope(account, nonce, expiry)?;
        let (id, height) = (account.0 as u32, self.globals.height);
        self.require_token(id)?;
        self.account_mut(id).nonces.insert(nonce, expiry, height);
        self.take_token(id);
        Ok(())
    }

    /// Spends the token alone, of a rescue that a block cannot do without although its nonce cannot be spent.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn spend_token(&mut self, account: AccountId) -> Result<(), Refusal> {
        self.account(account).ok_or(Refusal::UnknownAccount)?;
        self.require_token(account.0 as u32)?;
        self.take_token(account.0 as u32);
        Ok(())
    }

    /// Writes what [`plan_side`](Self::plan_side) planned in a market.
    pub(crate) fn commit(&mut self, id: u32, market: MarketId, planned: Account) {
        let account = self.account_mut(id);
        let nonces = core::mem::take(&mut account.nonces);
        *account = Account { nonces, ..planned };
        self.drop_orphans(id, market);
    }

    /// Books a trade's flow and its dust.
    pub(crate) fn book(&mut self, market: MarketId, flow: Flow) {
        let dust = trade::book(self.market_mut(market), flow);
        self.credit_insurance(dust);
    }

    fn plan(
        &self,
        account: AccountId,
        nonce: Nonce,
        expiry: Height,
        action: &Action,
    ) -> Result<Plan, Refusal> {
        self.check_envelope(account, nonce, expiry)?;
        if action.lane() == Lane::Rescue {
            self.require_token(account.0 as u32)?;
        }
        let signer = &self.slots[account.0 as usize].account;
        match action {
            Action::Open { owner, amount: first } => {
                self.require_issuer(account)?;
                if first.0 != 0 {
                    self.require_room(amount(*first)?)?;
                }
                if self.globals.accounts >= limits::MAX_ACCOUNTS {
                    return Err(Refusal::TooManyAccounts);
                }
                Ok(Plan::Open(Account::new(*owner, AccountKind::User, *first), *first))
            }
            Action::Deposit { to, amount: credited } => {
                self.require_issuer(account)?;
                self.require_room(amount(*credited)?)?;
                Ok(Plan::Deposit(self.beneficiary(*to)?, *credited))
            }
            Action::Transfer { to, amount: moved } => {
                let wanted = amount(*moved)?;
                if *moved < self.globals.rescues.min_transfer {
                    return Err(Refusal::BelowTransferMinimum);
                }
                if *to == account {
                    return Err(Refusal::SelfDealing);
                }
                let to = self.beneficiary(*to)?;
                self.require_seeing(signer, Compartment::Cross)?;
                self.require_spare(signer, Compartment::Cross, wanted)?;
                Ok(Plan::Transfer(to, *moved))
            }
            Action::TopUpIsolated { market, amount: moved } => {
                let wanted = amount(*moved)?;
                self.require_isolated(signer, *market)?;
                // A rescue: blind cross positions do not forbid it, they count against the account.
                self.require_spare(signer, Compartment::Cross, wanted)?;
                Ok(Plan::Move(*market, *moved))
            }
            Action::ReleaseIsolated { market, amount: moved } => {
                let wanted = amount(*moved)?;
                self.require_isolated(signer, *market)?;
                let compartment = Compartment::Isolated(*market);
                self.require_seeing(signer, compartment)?;
                self.require_spare(signer, compartment, wanted)?;
                Ok(Plan::Move(*market, -*moved))
            }
            Action::SetMarginMode { market, mode } => {
                let of = self.market(*market).ok_or(Refusal::UnknownMarket)?;
                if of.params.isolated_only && *mode == MarginMode::Cross {
                    return Err(Refusal::IsolatedOnly);
                }
                if signer.position(*market).is_some() {
                    return Err(Refusal::PositionOpen);
                }
                if self.orders_of(account).any(|(_, order)| order.terms.market == *market) {
                    return Err(Refusal::OrdersOpen);
                }
                Ok(Plan::Mode(*market, *mode))
            }
            Action::Withdraw { amount: taken, recipient } => {
                let wanted = amount(*taken)?;
                self.require_seeing(signer, Compartment::Cross)?;
                self.require_spare(signer, Compartment::Cross, wanted)?;
                Ok(Plan::Withdraw(Exit {
                    account,
                    recipient: *recipient,
                    amount: *taken,
                    height: self.globals.height,
                }))
            }
            Action::Fill { quote, lots, .. } => self.plan_fill(account, signer, quote, *lots),
            Action::Place(terms) => {
                self.require_reserve([account.0 as u32])?;
                self.check_order(account, terms, Placing::Now)?;
                Ok(Plan::Place(*terms))
            }
            Action::Close(terms) => {
                if !terms.reduce_only {
                    return Err(Refusal::NotReduceOnly);
                }
                self.check_order(account, terms, Placing::Now)?;
                Ok(Plan::Place(*terms))
            }
            Action::PlaceMany(orders) => {
                require_some(orders)?;
                self.require_reserve([account.0 as u32])?;
                Ok(Plan::PlaceMany(orders.clone()))
            }
            Action::CancelMany(names) => {
                require_some(names)?;
                Ok(Plan::CancelMany(names.clone()))
            }
            Action::Cancel { market, order } => {
                let orders = self.plan_cancel(account, *market, *order)?;
                Ok(Plan::Cancel(*market, *order, orders))
            }
            Action::CancelRisk { market, order } => {
                let orders = self.plan_cancel(account, *market, *order)?;
                let adds = |id: &OrderId| {
                    let order = self.book.orders.get_of(account, id);
                    order.is_some_and(|own| own.waiting.is_none() && !own.terms.closes())
                };
                if !orders.iter().all(adds) {
                    return Err(Refusal::NotAdding);
                }
                Ok(Plan::Cancel(*market, *order, orders))
            }
            Action::CancelAll { market, keep_reduce_only } => {
                let zones = self.plan_cancel_all(account, *market, *keep_reduce_only)?;
                Ok(Plan::CancelAll(*market, *keep_reduce_only, zones))
            }
            Action::Modify { market, order, limit, lots } => {
                let terms = self.plan_modify(account, *market, *order, *limit, *lots)?;
                Ok(Plan::Modify(*order, terms))
            }
            Action::PlaceTrigger { trigger, terms } => {
                self.require_reserve([account.0 as u32])?;
                self.check_trigger(account, trigger, terms)?;
                Ok(Plan::PlaceTrigger(*trigger, *terms))
            }
            Action::ScheduleCancel { at } => {
                self.check_schedule(*at)?;
                Ok(Plan::Schedule(*at))
            }
            Action::SetLeverage { market, leverage } => {
                self.check_leverage(account.0 as u32, signer, *market, *leverage)?;
                Ok(Plan::Leverage(*market, *leverage))
            }
        }
    }

    fn require_issuer(&self, account: AccountId) -> Result<(), Refusal> {
        if account == self.globals.issuer { Ok(()) } else { Err(Refusal::NotIssuer) }
    }

    fn require_room(&self, amount: i128) -> Result<(), Refusal> {
        if self.globals.supply.0 + amount > limits::MAX_AMOUNT_ATOMS {
            Err(Refusal::TooLarge)
        } else {
            Ok(())
        }
    }

    fn beneficiary(&self, id: AccountId) -> Result<u32, Refusal> {
        match self.account(id) {
            None => Err(Refusal::UnknownBeneficiary),
            Some(account) if matches!(account.kind, AccountKind::Backstop(_)) => {
                Err(Refusal::ProtocolAccount)
            }
            Some(_) => Ok(id.0 as u32),
        }
    }

    fn require_isolated(&self, account: &Account, market: MarketId) -> Result<(), Refusal> {
        self.market(market).ok_or(Refusal::UnknownMarket)?;
        match account.position(market) {
            Some(position) if position.mode == MarginMode::Isolated => Ok(()),
            _ => Err(Refusal::NoIsolatedPosition),
        }
    }

    /// No value leaves a compartment while a leg of it has no fresh price.
    fn require_seeing(&self, account: &Account, compartment: Compartment) -> Result<(), Refusal> {
        let blind = account.positions.iter().any(|position| {
            position.compartment() == compartment && !self.sheets[usize::from(position.market.0)].fresh
        });
        if blind { Err(Refusal::BlindPosition) } else { Ok(()) }
    }

    fn require_spare(
        &self,
        account: &Account,
        compartment: Compartment,
        amount: i128,
    ) -> Result<(), Refusal> {
        if amount <= health::spare(account, compartment, &self.sheets) {
            Ok(())
        } else {
            Err(Refusal::InsufficientCollateral)
        }
    }

    /// Whether an account may choose this leverage: its margin covers what the market needs then.
    fn check_leverage(
        &self,
        id: u32,
        signer: &Account,
        market: MarketId,
        leverage: u32,
    ) -> Result<(), Refusal> {
        let most = self.market(market).ok_or(Refusal::UnknownMarket)?.params.max_leverage();
        if !(1..=most).contains(&leverage) {
            return Err(Refusal::LeverageRange);
        }
        let orders = self.exposure(id, market);
        if leverage >= signer.leverage(market).unwrap_or(most)
            || (signer.position(market).is_none() && orders.orders == 0)
        {
            return Ok(());
        }
        let mut next = copy(signer);
        next.set_leverage(market, leverage, most);
        next.reserved = self.reservation(id, &next);
        if self.covers_orders(&next, market, orders.adds) { Ok(()) } else { Err(Refusal::InsufficientMargin) }
    }

    fn plan_fill(
        &self,
        taker_id: AccountId,
        taker: &Account,
        quote: &Quote,
        lots: Lots,
    ) -> Result<Plan, Refusal> {
        let height = self.globals.height;
        if lots.0 <= 0 {
            return Err(Refusal::NotPositive);
        }
        if lots.0 > limits::MAX_LOTS {
            return Err(Refusal::TooLarge);
        }
        let market = self.market(quote.market).ok_or(Refusal::UnknownMarket)?;
        if quote.chain != self.globals.chain || quote.taker != taker_id || lots > quote.lots {
            return Err(Refusal::QuoteMismatch);
        }
        if quote.maker == taker_id {
            return Err(Refusal::SelfDealing);
        }
        let maker_at = self.beneficiary(quote.maker)?;
        let maker = &self.slots[maker_at as usize].account;
        if quote.expiry < height || quote.expiry.0 - height.0 > limits::MAX_EXPIRY_BLOCKS {
            return Err(Refusal::QuoteExpired);
        }
        if maker.nonces.contains(quote.nonce, height) {
            return Err(Refusal::QuoteUsed);
        }
        if maker.nonces.is_full(quote.nonce, quote.expiry, height) {
            return Err(Refusal::NonceWindowFull);
        }
        if !self.market_in_service(quote.market) {
            return Err(Refusal::MarketQuarantined);
        }
        let (last, _) = market.mark.ok_or(Refusal::PriceNotFresh)?.last_known();
        let params = &market.params;
        // Both prices are below 2^40, so the products fit.
        let away = u128::from(quote.price.0.abs_diff(last.0)) * 1_000_000;
        if quote.price < params.min_price
            || quote.price > params.max_price
            || away > u128::from(last.0) * u128::from(params.band_ppm.0)
        {
            return Err(Refusal::OutsideBand);
        }
        let unit = params.unit(quote.price);
        let notional = kernel::value(unit, i128::from(lots.0));
        let taker_fee = kernel::fee(notional, i128::from(params.taker_fee_ppm.0));
        let maker_fee = kernel::fee(notional, i128::from(params.maker_fee_ppm.0));
        let signed = match quote.side {
            Side::Buy => -lots.0,
            Side::Sell => lots.0,
        };
        let taker_next = self
            .plan_side(taker_id.0 as u32, taker, quote.market, signed, unit, taker_fee)
            .map_err(|shortfall| shortfall.unwrap_or(Refusal::InsufficientMargin))?;
        let maker_next = self
            .plan_side(maker_at, maker, quote.market, -signed, unit, maker_fee)
            .map_err(|shortfall| shortfall.unwrap_or(Refusal::CounterpartyMargin))?;
        self.require_reserve([taker_id.0 as u32, maker_at])?;
        let grown = taker_next.1.longs + maker_next.1.longs;
        let potential = self.book.potential(quote.market);
        if grown > 0 && market.open_interest.0 + grown + potential > params.open_interest_cap.0 {
            return Err(Refusal::OpenInterestCap);
        }
        Ok(Plan::Fill(Box::new(FillPlan {
            filled: Filled {
                market: quote.market,
                taker: taker_id,
                maker: quote.maker,
                side: quote.side.opposite(),
                lots,
                price: quote.price,
                taker_fee: Atoms(taker_fee),
                maker_fee: Atoms(maker_fee),
            },
            taker: taker_next,
            maker: (maker_at, maker_next.0, maker_next.1),
            quote: (quote.nonce, quote.expiry),
        })))
    }

    /// Whether trading and liquidation in a market are possible at all.
    pub(crate) fn market_in_service(&self, id: MarketId) -> bool {
        let market = &self.markets[usize::from(id.0)];
        let out = market.mark.is_some_and(|mark| mark.state() == seawall_types::PriceState::Quarantined);
        market.quarantined.is_none() && !out
    }

    /// One side of a trade on a copy of its account (nonces left out): `lots` signed, at `unit` atoms a lot, paying `fee`.
    /// `Err(None)` is a lack of margin, whose name depends on the side.
    ///
    /// A side that adds risk needs a fresh price and its initial margin afterwards; an isolated position
    /// takes from free cross collateral just what it lacks. A side that only reduces needs to be no
    /// further from its initial margin than before, and no deeper in deficit.
    pub(crate) fn plan_side(
        &self,
        id: u32,
        account: &Account,
        market: MarketId,
        lots: i64,
        unit: i128,
        fee: i128,
    ) -> Result<(Account, Flow), Option<Refusal>> {
        let params = &self.markets[usize::from(market.0)].params;
        let sheet = &self.sheets[usize::from(market.0)];
        let before = account.lots(market).0;
        let after = before + lots;
        let adds = (before > 0) == (lots > 0) || before == 0 || after.unsigned_abs() > before.unsigned_abs();
        let adds = adds || (after != 0 && (after > 0) != (before > 0));
        if adds {
            if !sheet.fresh {
                return Err(Some(Refusal::PriceNotFresh));
            }
            if after.unsigned_abs() > params.account_cap.0.unsigned_abs() {
                return Err(Some(Refusal::PositionCap));
            }
            if before == 0 && account.positions.len() >= limits::MAX_POSITIONS_PER_ACCOUNT {
                return Err(Some(Refusal::TooManyPositions));
            }
        }
        if self.book.has_orders(id) {
            // What open orders may still do counts as done.
            let own = self.exposure(id, market);
            let cap = params.account_cap.0;
            if adds && (after + own.buys > cap || own.sells - after > cap) {
                return Err(Some(Refusal::PositionCap));
            }
            if before == 0
                && !own.adds
                && self.markets_in_use(id, account) >= limits::MAX_POSITIONS_PER_ACCOUNT
            {
                return Err(Some(Refusal::TooManyPositions));
            }
            require_closing_lots(after, &own).map_err(Some)?;
        }
        let opens = if params.isolated_only { MarginMode::Isolated } else { account.mode(market) };
        let mode = account.position(market).map_or(opens, |position| position.mode);
        let compartment = match mode {
            MarginMode::Cross => Compartment::Cross,
            MarginMode::Isolated => Compartment::Isolated(market),
        };
        let mut next = copy(account);
        let quote = kernel::value(unit, i128::from(lots));
        let flow = trade::trade(&mut next, market, sheet.index, lots, quote, mode);
        next.reserved = self.reservation(id, &next);
        // An isolated position that became flat pays from what it just returned to cross.
        *next.collateral_of_mut(compartment) -= Atoms(fee);
        if after == 0 && mode == MarginMode::Isolated {
            return if next.collateral >= account.collateral { Ok((next, flow)) } else { Err(None) };
        }
        let reached = health::sums(&next, compartment, &self.sheets, Valuation::Adverse);
        if adds {
            match compartment {
                Compartment::Cross => {
                    if reached.equity - reached.initial_atoms() < next.reserved.0 {
                        return Err(None);
                    }
                }
                Compartment::Isolated(_) => {
                    let lacks = Atoms((reached.initial_atoms() - reached.equity).max(0));
                    if lacks.0 > health::spare(&next, Compartment::Cross, &self.sheets) {
                        return Err(None);
                    }
                    next.collateral -= lacks;
                    *next.collateral_of_mut(compartment) += lacks;
                }
            }
        } else if reached.equity < 0 && reached.maintenance == 0 {
            // The last position would leave a deficit behind that no sweep finds.
            return Err(None);
        } else if !reached.covers_initial() {
            let start = health::sums(account, compartment, &self.sheets, Valuation::Adverse);
            let further =
                reached.equity * 1_000_000 - reached.initial < start.equity * 1_000_000 - start.initial;
            if further || reached.equity < start.equity.min(0) {
                return Err(None);
            }
        }
        Ok((next, flow))
    }
}
