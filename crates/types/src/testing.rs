//! Strategies for property tests: any value within [`limits`], and its edges more often than chance
//! would draw them.

use crate::{
    AccountId, Action, Atoms, Body, ChainId, Cloid, Crossing, Digest, FundingIndex, GroupSignature, Header,
    Health, Height, Key, Kind, Lots, MarginMode, Mark, MarketId, Name, Nonce, Observation, OnCross,
    OpsTarget, OrderId, OutcomeRef, ParentProof, Ppm, PriceReport, PriceState, PriceTicks, Quote, Recipient,
    RescueRef, Side, Signature, SignedAction, Terms, TimeMs, Trigger, ValidatorId, block::VERSION, limits,
};
use proptest::{
    array::{uniform4, uniform32},
    collection::{btree_map, btree_set, vec},
    prelude::*,
};

/// An integer of `min..=max`: an edge, one of few bits, or any.
fn integer(min: u64, max: u64) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![
        1 => Just(min),
        1 => Just(max),
        2 => (0..u64::BITS, any::<u64>()).prop_map(move |(bits, value)| (value >> bits).clamp(min, max)),
        2 => min..=max,
    ]
}

fn any_u64() -> impl Strategy<Value = u64> + Clone {
    integer(0, u64::MAX)
}

fn any_u16() -> impl Strategy<Value = u16> + Clone {
    integer(0, u16::MAX.into()).prop_map(|value| value as u16)
}

fn any_i128() -> impl Strategy<Value = i128> {
    prop_oneof![
        Just(i128::MIN),
        Just(i128::MAX),
        (0..i128::BITS, any::<i128>()).prop_map(|(bits, value)| value >> bits),
    ]
}

macro_rules! strategies {
    ($($name:ident: $type:ident = $strategy:expr;)*) => {$(
        #[doc = concat!("Any [`", stringify!($type), "`].")]
        pub fn $name() -> impl Strategy<Value = $type> + Clone {
            $strategy.prop_map($type)
        }
    )*};
}

strategies! {
    chain_id: ChainId = any_u64();
    account_id: AccountId = any_u64();
    market_id: MarketId = any_u16();
    validator_id: ValidatorId = any_u16();
    nonce: Nonce = any_u64();
    height: Height = any_u64();
    time: TimeMs = any_u64();
    price: PriceTicks = integer(1, limits::MAX_PRICE_TICKS);
    ppm: Ppm = integer(0, limits::MAX_PPM.into()).prop_map(|value| value as u32);
    key: Key = uniform32(any::<u8>());
    digest: Digest = uniform32(any::<u8>());
    recipient: Recipient = uniform32(any::<u8>());
}

/// Any [`Signature`].
pub fn signature() -> impl Strategy<Value = Signature> + Clone {
    (uniform32(any::<u8>()), uniform32(any::<u8>())).prop_map(|(low, high)| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Signature(bytes)
    })
}

/// What an action can move, zero included.
pub fn amount() -> impl Strategy<Value = Atoms> + Clone {
    integer(0, limits::MAX_AMOUNT_ATOMS as u64).prop_map(|value| Atoms(value.into()))
}

/// What an action can trade, zero included.
pub fn size() -> impl Strategy<Value = Lots> + Clone {
    integer(0, limits::MAX_LOTS as u64).prop_map(|value| Lots(value as i64))
}

/// Any position.
pub fn lots() -> impl Strategy<Value = Lots> {
    (size(), any::<bool>()).prop_map(|(lots, short)| if short { -lots } else { lots })
}

/// Any balance or flow.
pub fn atoms() -> impl Strategy<Value = Atoms> {
    any_i128().prop_map(Atoms)
}

/// Any [`FundingIndex`].
pub fn funding_index() -> impl Strategy<Value = FundingIndex> {
    any_i128().prop_map(FundingIndex)
}

/// Any [`Side`].
pub fn side() -> impl Strategy<Value = Side> + Clone {
    prop_oneof![Just(Side::Buy), Just(Side::Sell)]
}

/// Any [`MarginMode`].
pub fn margin_mode() -> impl Strategy<Value = MarginMode> + Clone {
    prop_oneof![Just(MarginMode::Cross), Just(MarginMode::Isolated)]
}

/// Any [`PriceState`].
pub fn price_state() -> impl Strategy<Value = PriceState> + Clone {
    prop_oneof![
        Just(PriceState::Fresh),
        Just(PriceState::Stale),
        Just(PriceState::Disputed),
        Just(PriceState::Reopening),
        Just(PriceState::Quarantined),
    ]
}

/// Any [`Mark`].
pub fn mark() -> impl Strategy<Value = Mark> {
    (price_state(), price(), time()).prop_map(|(state, last, updated)| Mark::new(state, last, updated))
}

prop_compose! {
    /// Any [`Quote`].
    pub fn quote()(
        chain in chain_id(),
        maker in account_id(),
        taker in account_id(),
        market in market_id(),
        side in side(),
        price in price(),
        lots in size(),
        nonce in nonce(),
        expiry in height(),
    ) -> Quote {
        Quote { chain, maker, taker, market, side, price, lots, nonce, expiry }
    }
}

/// Any [`Kind`].
pub fn kind() -> impl Strategy<Value = Kind> + Clone {
    prop_oneof![
        Just(Kind::Limit),
        Just(Kind::PostOnly(OnCross::Cancel)),
        Just(Kind::PostOnly(OnCross::Slide)),
        Just(Kind::Ioc),
        Just(Kind::Liquidation),
    ]
}

prop_compose! {
    /// Any [`Terms`].
    pub fn terms()(
        market in market_id(),
        side in side(),
        limit in price(),
        lots in integer(1, limits::MAX_LOTS as u64).prop_map(|lots| Lots(lots as i64)),
        kind in kind(),
        reduce_only in any::<bool>(),
        good_til in proptest::option::of(height()),
        cloid in proptest::option::of(any_u64().prop_map(Cloid)),
    ) -> Terms {
        Terms { market, side, limit, lots, kind, reduce_only, good_til, cloid }
    }
}

/// Any [`Trigger`].
pub fn trigger() -> impl Strategy<Value = Trigger> + Clone {
    (price(), prop_oneof![Just(Crossing::Above), Just(Crossing::Below)])
        .prop_map(|(price, crossing)| Trigger { price, crossing })
}

/// Any [`Name`] of an order.
pub fn name() -> impl Strategy<Value = Name> + Clone {
    prop_oneof![
        (height(), any::<u32>()).prop_map(|(height, index)| Name::Id(OrderId { height, index })),
        any_u64().prop_map(|cloid| Name::Cloid(Cloid(cloid))),
    ]
}

/// Any [`Action`] of a kind that travels as a rescue. On the heap, as are trades: a value tree of everything that an
/// action can be does not fit the stack of a test beside the trees of a body.
pub fn rescue() -> impl Strategy<Value = Action> {
    prop_oneof![
        (key(), amount()).prop_map(|(owner, amount)| Action::Open { owner, amount }),
        (account_id(), amount()).prop_map(|(to, amount)| Action::Deposit { to, amount }),
        (account_id(), amount()).prop_map(|(to, amount)| Action::Transfer { to, amount }),
        (market_id(), amount()).prop_map(|(market, amount)| Action::TopUpIsolated { market, amount }),
        terms().prop_map(Action::Close),
        (proptest::option::of(market_id()), any::<bool>())
            .prop_map(|(market, keep_reduce_only)| Action::CancelAll { market, keep_reduce_only }),
        proptest::option::of(time()).prop_map(|at| Action::ScheduleCancel { at }),
        (market_id(), name()).prop_map(|(market, order)| Action::CancelRisk { market, order }),
    ]
    .boxed()
}

/// Any [`Action`] of a kind that travels as a trade.
pub fn trade() -> impl Strategy<Value = Action> {
    prop_oneof![
        (market_id(), amount()).prop_map(|(market, amount)| Action::ReleaseIsolated { market, amount }),
        (market_id(), margin_mode()).prop_map(|(market, mode)| Action::SetMarginMode { market, mode }),
        (amount(), recipient()).prop_map(|(amount, recipient)| Action::Withdraw { amount, recipient }),
        (quote(), signature(), size()).prop_map(|(quote, quote_signature, lots)| Action::Fill {
            quote,
            quote_signature,
            lots
        }),
        terms().prop_map(Action::Place),
        vec(terms(), 1..=limits::MAX_ORDERS_PER_ACTION).prop_map(Action::PlaceMany),
        (market_id(), name()).prop_map(|(market, order)| Action::Cancel { market, order }),
        vec((market_id(), name()), 1..=limits::MAX_ORDERS_PER_ACTION).prop_map(Action::CancelMany),
        (market_id(), name(), terms()).prop_map(|(market, order, Terms { limit, lots, .. })| {
            Action::Modify { market, order, limit, lots }
        }),
        (trigger(), terms()).prop_map(|(trigger, terms)| Action::PlaceTrigger { trigger, terms }),
        (market_id(), integer(0, limits::MAX_PPM.into()))
            .prop_map(|(market, leverage)| Action::SetLeverage { market, leverage: leverage as u32 }),
    ]
    .boxed()
}

/// Any [`Action`].
pub fn action() -> impl Strategy<Value = Action> {
    prop_oneof![rescue(), trade()]
}

prop_compose! {
    /// Any [`SignedAction`]; its signature verifies under no key.
    pub fn signed_action()(
        chain in chain_id(),
        account in account_id(),
        nonce in nonce(),
        expiry in height(),
        action in action(),
        signature in signature(),
    ) -> SignedAction {
        SignedAction { chain, account, nonce, expiry, action, signature }
    }
}

prop_compose! {
    /// Any [`PriceReport`] that encodes; its spread need not fit its prices.
    pub fn price_report()(
        a in price(),
        b in price(),
        spread in integer(0, limits::MAX_PRICE_TICKS),
        sources in 1..=limits::MAX_SOURCES,
    ) -> PriceReport {
        PriceReport { low: a.min(b), high: a.max(b), spread: PriceTicks(spread), sources }
    }
}

prop_compose! {
    /// Any [`RescueRef`].
    pub fn rescue_ref()(
        account in account_id(),
        nonce in nonce(),
        expiry in height(),
        digest in digest(),
    ) -> RescueRef {
        RescueRef { account, nonce, expiry, digest }
    }
}

prop_compose! {
    /// Any [`OutcomeRef`].
    pub fn outcome_ref()(zone in any_u16(), height in any_u64(), digest in digest()) -> OutcomeRef {
        OutcomeRef { zone, height, digest }
    }
}

prop_compose! {
    /// An [`Observation`] with at most a dozen elements a list.
    pub fn observation()(
        chain in chain_id(),
        [epoch, view, seq, time] in uniform4(any_u64()),
        prices in btree_map(market_id(), price_report(), 0..12),
        rescues in btree_set(rescue_ref(), 0..12),
        outcomes in vec(outcome_ref(), 0..12),
        author in validator_id(),
        signature in signature(),
    ) -> Observation {
        Observation {
            chain,
            epoch,
            view,
            seq,
            time: TimeMs(time),
            prices: prices.into_iter().collect(),
            rescues: rescues.into_iter().collect(),
            outcomes,
            health: Health {},
            author,
            signature,
        }
    }
}

prop_compose! {
    /// Any [`OpsTarget`].
    pub fn ops_target()(root in digest(), start in integer(0, u64::MAX - 1))(
        root in Just(root),
        end in integer(start + 1, u64::MAX),
        start in Just(start),
    ) -> OpsTarget {
        OpsTarget { root, start, end }
    }
}

prop_compose! {
    /// Any [`Header`] of this version.
    pub fn header()(
        chain in chain_id(),
        epoch in any_u64(),
        height in height(),
        parent in digest(),
        time in time(),
        body in digest(),
        state_root in digest(),
        ops in ops_target(),
        outcomes_root in digest(),
        exits_root in digest(),
    ) -> Header {
        Header {
            version: VERSION,
            chain,
            epoch,
            height,
            parent,
            time,
            body,
            state_root,
            ops,
            outcomes_root,
            exits_root,
        }
    }
}

prop_compose! {
    /// A [`Body`] of a few observations and actions. Some rescues are listed by several.
    pub fn body()(
        observations in btree_map(validator_id(), observation(), 0..4),
        shared in btree_set(rescue_ref(), 0..20),
        lists in vec(any::<u32>(), 4),
        actions in vec(signed_action(), 0..12),
        parent_proof in proptest::option::of((any::<bool>(), any::<[u8; 32]>())),
    ) -> Body {
        let mut observations: Vec<_> = observations
            .into_iter()
            .map(|(author, observation)| Observation { author, ..observation })
            .collect();
        for (observation, lists) in observations.iter_mut().zip(lists) {
            let listed = shared.iter().enumerate().filter(|(place, _)| lists >> place & 1 == 1);
            observation.rescues.extend(listed.map(|(_, name)| *name));
            observation.rescues.sort_unstable();
            observation.rescues.dedup();
        }
        let mut actions = actions;
        actions.sort_by_key(|signed| (signed.action.lane(), signed.rescue_order()));
        actions.dedup_by_key(|signed| (signed.rescue_order(), signed.message()));
        let mut last = None;
        actions.retain(|signed| {
            let order = signed.rescue_order();
            let again = order.is_some() && order == last;
            last = order;
            !again
        });
        let parent_proof = parent_proof.map(|(finalized, some)| {
            let mut signature = GroupSignature::default();
            signature.0[..32].copy_from_slice(&some);
            ParentProof { finalized, signature }
        });
        Body { observations, actions, parent_proof, outcomes: Vec::new() }
    }
}
