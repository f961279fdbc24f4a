// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/numerics/mask_transform.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

/// Where the variance over independent masks comes from, from a table of a value for every mask
/// (`mask_values`, or `mask_outputs`, a column for each output).
namespace stochastic_depth {
namespace detail {

/// The coefficients c(T) of the values in the orthonormal basis prod over l in T of
/// (s_l - p_l) / sqrt(p_l (1 - p_l)): c of the empty set is the mean, and the squares of the others
/// add up to the variance.
[[nodiscard]] inline Matrix<double> orthonormal_coefficients(std::string_view name,
                                                             const ConstMatrixRef<double>& values,
                                                             const Eigen::VectorXd& p) {
    const Index layers = layers_of_table(name, values.rows());
    if (p.size() != layers)
        refuse(name, ": p must have one entry for each of ", layers, " layers, got ", p.size());
    check_survival_probabilities(name, p);
    const Eigen::VectorXd scales = (p.array() * (1 - p.array())).sqrt();
    Matrix<double> table = values;
    for (Index j = 0; j < table.cols(); ++j)
        transform_table(p.data(), scales.data(), table.col(j).data(), layers);
    return table;
}

}  // namespace detail

/// Shares of the layers in the variance over the masks.
struct SobolIndices {
    /// E[v(S)], [columns].
    Eigen::VectorXd mean;
    /// Var[v(S)], [columns].
    Eigen::VectorXd variance;
    /// What a layer's bit alone explains, Var[E[v(S) | s_l]] / Var[v(S)], [L x columns].
    Matrix<double> first_order;
    /// What would be gone if all other bits were known, 1 - Var[E[v(S) | all but s_l]] / Var[v(S)],
    /// [L x columns]: what the layer does together with others is in it.
    Matrix<double> total;
};

/// Exact Sobol indices of each layer: S_l is kept with probability p_l, independently.
///
/// The variance is the sum over sets T of layers of
///
///     D_T = prod over l in T of p_l (1 - p_l) (d^|T| E[v(S)] / prod over l in T of d p_l)^2,
///
/// of which D_{l} is the first order index of layer l, and all with l in T its total one. Where
/// the variance is 0, so are they.
///
/// \param values  [2^L x columns].
/// \param p       Survival probabilities, L entries in (0, 1].
/// \throws std::invalid_argument  if sizes don't match or some p_l is out of range.
/// \complexity    L 2^L additions for each column, and one table more in memory.
/// \source        Sobol 1993, Sensitivity Estimates for Nonlinear Mathematical Models; Homma &
///                Saltelli 1996: total indices.
[[nodiscard]] inline SobolIndices sobol_indices(const ConstMatrixRef<double>& values,
                                                const Eigen::VectorXd& p) {
    Matrix<double> table = detail::orthonormal_coefficients("sobol_indices", values, p);
    const Index layers = p.size();
    SobolIndices indices;
    indices.mean = table.row(0);
    table.row(0).setZero();
    table = table.cwiseAbs2();
    indices.first_order.resize(layers, table.cols());
    indices.total.resize(layers, table.cols());
    for (Index l = 0; l < layers; ++l) indices.first_order.row(l) = table.row(Index{1} << l);
    // Sets with the last layer in them, and then all sets without asking for it.
    for (Index l = layers; l-- > 0;) {
        const Index half = Index{1} << l;
        indices.total.row(l) = table.middleRows(half, half).colwise().sum();
        table.topRows(half) += table.middleRows(half, half);
    }
    indices.variance = table.row(0);
    for (Index j = 0; j < table.cols(); ++j)
        if (indices.variance(j) != 0) {
            indices.first_order.col(j) /= indices.variance(j);
            indices.total.col(j) /= indices.variance(j);
        }
    return indices;
}

/// Covariance of outputs over independent masks, exactly.
///
/// \param values  [2^L x columns], as `mask_outputs` gives them.
/// \param p       Survival probabilities, L entries in (0, 1].
/// \returns       [columns x columns], symmetric.
/// \throws std::invalid_argument  if sizes don't match or some p_l is out of range.
/// \complexity    (L + columns / 2) 2^L additions for each column, one table more in memory.
[[nodiscard]] inline Matrix<double> covariance_over_masks(const ConstMatrixRef<double>& values,
                                                          const Eigen::VectorXd& p) {
    Matrix<double> table = detail::orthonormal_coefficients("covariance_over_masks", values, p);
    table.row(0).setZero();
    Matrix<double> covariance(table.cols(), table.cols());
    for (Index j = 0; j < table.cols(); ++j)
        for (Index i = 0; i <= j; ++i)
            covariance(i, j) = covariance(j, i) = table.col(i).dot(table.col(j));
    return covariance;
}

}  // namespace stochastic_depth
