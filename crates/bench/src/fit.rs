//! Least squares.

use nalgebra::{DMatrix, DVector};

/// A fitted line.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// One for each regressor.
    pub coefficients: Vec<f64>,
    /// Standard error of each.
    pub errors: Vec<f64>,
    /// What the line says at each observation.
    pub fitted: Vec<f64>,
    /// Share of the variance that it explains.
    pub r_squared: f64,
    /// Ratio of the largest to the smallest singular value of the scaled regressors: how far they are from
    /// saying the same (1: independent; above 30: do not trust the coefficients).
    pub condition: f64,
}

/// Fits `y = x . coefficients`; `rows` are regressors (put a 1 for the constant) with what was observed.
/// `weights` scale the residual of each row.
///
/// `None` if the regressors are not independent, or there are no more rows than regressors.
pub fn least_squares(rows: &[(Vec<f64>, f64)], weights: &[f64]) -> Option<Fit> {
    let (count, width) = (rows.len(), rows.first()?.0.len());
    if count <= width {
        return None;
    }
    let x = DMatrix::from_fn(count, width, |row, column| rows[row].0[column]);
    let y = DVector::from_fn(count, |row, _| rows[row].1);
    let weight = DVector::from_column_slice(weights);
    let mut weighted = x.clone();
    for (mut row, weight) in weighted.row_iter_mut().zip(&weight) {
        row *= *weight;
    }
    // Columns of unit length: the condition then says how alike they are and not how large.
    let lengths: Vec<f64> = weighted.column_iter().map(|column| column.norm()).collect();
    for (mut column, length) in weighted.column_iter_mut().zip(&lengths) {
        column /= *length;
    }
    let wanted = y.component_mul(&weight);
    let svd = weighted.clone().svd(true, true);
    let (most, least) = (svd.singular_values.max(), svd.singular_values.min());
    if !least.is_finite() || least < 1e-9 * most {
        return None;
    }
    let scaled = svd.solve(&wanted, 0.0).ok()?;
    let residual = (&weighted * &scaled - &wanted).norm_squared() / (count - width) as f64;
    let inverse = (weighted.transpose() * &weighted).try_inverse()?;
    let coefficients = DVector::from_fn(width, |at, _| scaled[at] / lengths[at]);
    let fitted = &x * &coefficients;
    let scatter = |of: &DVector<f64>, from: &DVector<f64>| (of - from).component_mul(&weight).norm_squared();
    let mean = y.component_mul(&weight).dot(&weight) / weight.norm_squared();
    let r_squared = 1.0 - scatter(&y, &fitted) / scatter(&y, &DVector::from_element(count, mean));
    Some(Fit {
        errors: (0..width).map(|at| (residual * inverse[(at, at)]).sqrt() / lengths[at]).collect(),
        coefficients: coefficients.iter().copied().collect(),
        fitted: fitted.iter().copied().collect(),
        r_squared,
        condition: most / least,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_again() {
        let rows: Vec<_> = (0..20)
            .map(|n| {
                let (a, b) = (f64::from(n % 4), f64::from(n / 4));
                (vec![1.0, a, b], 3.0 + 5.0 * a - 7.0 * b)
            })
            .collect();
        let fit = least_squares(&rows, &[1.0; 20]).unwrap();
        for (found, right) in fit.coefficients.iter().zip([3.0, 5.0, -7.0]) {
            assert!((found - right).abs() < 1e-9, "{found} for {right}");
        }
        assert!(fit.r_squared > 0.999_999 && fit.errors.iter().all(|error| *error < 1e-9));
    }

    #[test]
    fn regressors_that_say_the_same_are_refused() {
        let rows: Vec<_> = (0..10).map(|n| (vec![f64::from(n), 2.0 * f64::from(n)], f64::from(n))).collect();
        assert!(least_squares(&rows, &[1.0; 10]).is_none());
    }
}
