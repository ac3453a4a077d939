//! Claims about the arithmetic, one function at a time.

use proptest::prelude::*;
use seawall_ledger::kernel::{self, *};

/// Tiers with ascending bounds and rates, and a penalty below all of them.
fn tiers() -> impl Strategy<Value = (Vec<Tier<i128>>, i128)> {
    prop::collection::vec((1i64..1_000_000_000, 1i64..80_000, 1i64..60_000), 1..8).prop_map(|steps| {
        let (mut bound, mut maintenance, mut initial) = (0, 0, 0);
        let mut rates = Vec::new();
        for (width, up, gap) in steps {
            bound += i128::from(width);
            maintenance += i128::from(up);
            initial = (maintenance + i128::from(gap)).max(initial);
            rates.push((bound, initial.min(1_000_000), maintenance.min(999_999)));
        }
        let penalty = rates[0].2 - 1;
        (schedule(rates.into_iter()).collect(), penalty)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn margin_is_continuous_monotone_and_convex((tiers, _) in tiers(), n in 1i128..10_000_000_000) {
        let at = |n| kernel::margin(n, &tiers);
        for pick in [|m: Margin<i128>| m.initial, |m: Margin<i128>| m.maintenance] {
            let (a, b, c) = (pick(at(n - 1)), pick(at(n)), pick(at(n + 1)));
            prop_assert!(a <= b && b <= c, "monotone");
            prop_assert!(b - a <= 1_000_000, "no jump: an atom of notional needs at most an atom");
            prop_assert!(c - b >= b - a, "convex");
        }
        prop_assert!(at(n).maintenance <= at(n).initial);
        prop_assert_eq!(at(0), Margin { initial: 0, maintenance: 0 });
    }

    #[test]
    fn margin_is_continuous_at_every_bound((tiers, _) in tiers()) {
        for pair in tiers.windows(2) {
            let n = pair[0].up_to;
            prop_assert_eq!(
                n * pair[0].initial_ppm - pair[0].initial_deduction,
                n * pair[1].initial_ppm - pair[1].initial_deduction
            );
            prop_assert_eq!(
                n * pair[0].maintenance_ppm - pair[0].maintenance_deduction,
                n * pair[1].maintenance_ppm - pair[1].maintenance_deduction
            );
        }
    }

    /// Closing always lowers the requirement, by more than the penalty costs.
    #[test]
    fn closing_pays(
        (tiers, penalty) in tiers(), unit in 1i128..1_000_000, lots in 1i128..10_000, closed in 1i128..10_000
    ) {
        let closed = closed.min(lots);
        let relief = kernel::margin(unit * lots, &tiers).initial
            - kernel::margin(unit * (lots - closed), &tiers).initial;
        prop_assert!(relief > unit * closed * penalty);
    }

    #[test]
    fn the_fewest_lots_that_restore_initial_margin(
        (tiers, penalty) in tiers(), unit in 1i128..100_000, lots in 1i128..300, share in -100i128..1_000
    ) {
        let initial = kernel::margin(unit * lots, &tiers).initial;
        let equity = initial * share / 1_000_000_000 - 1;
        let of = Distress { equity, initial };
        let closed = lots_to_close(of, unit, lots, penalty, &tiers);
        // By trying them all.
        let fewest = (1..=lots).find(|&closed| restores(of, unit, lots, closed, penalty, &tiers));
        prop_assert_eq!(closed, fewest.unwrap_or(lots));
    }

    #[test]
    fn funding_favours_nobody_but_insurance(lots in -1_000_000i128..1_000_000, growth in -(1i128 << 60)..1 << 60) {
        let (long, short) = (funding_owed(lots, growth), funding_owed(-lots, growth));
        prop_assert!((0..=1).contains(&(long + short)), "payers round up, receivers round down");
        let exact = lots * growth;
        prop_assert!((0..1i128 << 32).contains(&((long << 32) - exact)));
    }

    #[test]
    fn cost_is_released_in_proportion_and_whole_at_the_end(
        cost in -1_000_000i128..1_000_000, lots in 1i128..1_000, closed in 1i128..1_000
    ) {
        let closed = closed.min(lots);
        let released = released_cost(cost, closed, lots);
        prop_assert!((0..lots).contains(&(cost * closed - released * lots)) || closed == lots);
        prop_assert_eq!(released_cost(cost, lots, lots), cost);
        prop_assert_eq!(released_cost(cost, -closed, -lots), released);
    }

    #[test]
    fn a_leg_sold_at_its_bankruptcy_price_keeps_its_deficit_at_zero(
        unit in 1i128..1_000_000, lots in -1_000i128..1_000, equity in -1_000_000i128..1_000_000
    ) {
        prop_assume!(lots != 0);
        let limit = bankruptcy_unit(unit, lots, equity);
        let left = equity + (limit - unit) * lots;
        prop_assert!((0..lots.abs()).contains(&left), "no deficit, and less than an atom a lot left");
    }

    #[test]
    fn parts_sum_to_the_whole_and_stay_near_their_share(
        weights in prop::collection::vec(0i128..1_000, 1..20), total in 0i128..5_000
    ) {
        let sum: i128 = weights.iter().sum();
        let parts = apportion(total, &weights);
        prop_assert_eq!(parts.iter().sum::<i128>(), total);
        if sum > 0 {
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!((part * sum - total * weight).abs() < sum, "within one of the exact share");
                prop_assert!(total > sum || part <= weight);
            }
        }
    }

    #[test]
    fn a_waterfall_pays_in_order(deficit in 0i128..1_000, fund in -10i128..1_000, insurance in 0i128..1_000) {
        let paid = waterfall(deficit, fund, insurance);
        prop_assert_eq!(paid.fund + paid.insurance + paid.left, deficit);
        prop_assert!(paid.insurance == 0 || paid.fund == fund.max(0), "insurance pays after the fund");
        prop_assert!(paid.left == 0 || paid.insurance == insurance, "nothing is left while somebody can pay");
    }

    #[test]
    fn a_penalty_never_makes_a_deficit(notional in 0i128..1 << 62, rate in 0i128..1_000_000, equity in -100i128..100) {
        let penalty = penalty(notional, rate, equity);
        prop_assert!(penalty >= 0 && penalty <= equity.max(0));
    }
}

#[test]
fn rounding_has_a_direction() {
    let table: [(i128, i128, i128, i128); 5] =
        [(7, 2, 3, 4), (-7, 2, -4, -3), (6, 2, 3, 3), (-1, 1_000_000, -1, 0), (1, 1_000_000, 0, 1)];
    for (number, by, down, up) in table {
        assert_eq!((number.floor_div(by), number.ceil_div(by)), (down, up), "{number} / {by}");
    }
    assert_eq!(fee(1_i128, 1), 1, "a fee rounds up");
    assert_eq!(fee(2_000_000_i128, 1), 2);
}

#[test]
fn the_largest_values_do_not_overflow() {
    let most = 1i128 << 62;
    let tiers: Vec<_> =
        schedule([(most / 2, 900_000, 800_000), (most, 1_000_000, 999_999)].into_iter()).collect();
    assert!(margin(2 * most, &tiers).initial > 0);
    assert!(fee(most, 1_000_000) == most);
    assert!(funding_growth(most, 100_000, 1 << 30, 1 << 30) == (most / 10) << 32 || most % 10 != 0);
    assert_eq!(apportion(most, &[most, 0, most]), vec![most / 2, 0, most / 2]);
    assert_eq!(
        lots_to_close(Distress { equity: 0, initial: most * 1_000_000 }, 1 << 22, 1 << 40, 0, &tiers),
        1 << 40
    );
}

#[test]
fn funding_charges_no_more_than_one_interval_at_once() {
    let one = funding_growth(1_000_000_i128, 100, 1_000, 1_000);
    assert_eq!(one >> 32, 100);
    assert_eq!(funding_growth(1_000_000_i128, 100, 5_000, 1_000), one);
    assert_eq!(funding_growth(1_000_000_i128, -100, 500, 1_000), -one / 2);
}

/// Words and what is wider than a word take different ways to the same quotient.
#[test]
fn quotients_round_down_on_both_sides_of_a_word() {
    let word = i128::from(i64::MAX);
    let edges = [0, 1, 7, word - 1, word, word + 1, word + 2, 3 * word, 1 << 100, i128::MAX / 2];
    for value in edges.into_iter().flat_map(|edge| [edge, -edge]) {
        for by in edges.into_iter().filter(|by| *by > 0) {
            let quotient = value.floor_div(by);
            assert_eq!(quotient, value.div_euclid(by), "{value} / {by}");
            assert_eq!(value.ceil_div(by), quotient + i128::from(quotient * by != value), "{value} / {by}");
        }
    }
}
