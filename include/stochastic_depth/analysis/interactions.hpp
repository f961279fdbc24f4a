// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <stochastic_depth/numerics/gauss_legendre.hpp>
#include <stochastic_depth/numerics/mask_transform.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

/// What layers do together, from a table of a value for every mask (`mask_values`, one column, or
/// `mask_outputs`, a column for each output): an interaction for every set T of layers, in a table
/// of the same shape, where sum_l 2^l over the layers of T is the row of T. Values of layers inside
/// a skippable one are those of the game in which they count for nothing without it.
///
/// All are means of the difference that T makes, sum over U in T of (-1)^|T \ U| v(S + U), over the
/// masks S of the other layers; they differ in the weights of these masks.
namespace stochastic_depth {
namespace detail {

[[nodiscard]] inline Matrix<double> interactions_at(std::string_view name,
                                                    const ConstMatrixRef<double>& values,
                                                    const Eigen::VectorXd& p) {
    const Index layers = layers_of_table(name, values.rows());
    if (p.size() != layers)
        refuse(name, ": p must have one entry for each of ", layers, " layers, got ", p.size());
    const Eigen::VectorXd ones = Eigen::VectorXd::Ones(layers);
    Matrix<double> table = values;
    for (Index j = 0; j < table.cols(); ++j)
        transform_table(p.data(), ones.data(), table.col(j).data(), layers);
    return table;
}

/// With the same probability t for each layer.
[[nodiscard]] inline Matrix<double> interactions_at(std::string_view name,
                                                    const ConstMatrixRef<double>& values,
                                                    double t) {
    return interactions_at(name, values,
                           Eigen::VectorXd::Constant(layers_of_table(name, values.rows()), t));
}

/// The integral over t in [0, 1] of weight(t) times the interactions at t, exact for what is a
/// polynomial of degree L - 1 or, for T empty, L.
template <class Weight>
[[nodiscard]] Matrix<double> mean_interactions(std::string_view name,
                                               const ConstMatrixRef<double>& values,
                                               const Weight& weight) {
    const GaussLegendre rule(layers_of_table(name, values.rows()) / 2 + 1);
    Matrix<double> sum = Matrix<double>::Zero(values.rows(), values.cols());
    for (Index k = 0; k < rule.nodes.size(); ++k)
        sum += rule.weights(k) * weight(rule.nodes(k)) *
               interactions_at(name, values, rule.nodes(k));
    return sum;
}

}  // namespace detail

/// Interactions in the ensemble: over masks whose layer l is kept with probability p_l. That is the
/// derivative of E[v(S)] by the p_l of all layers in T, for T empty E[v(S)] itself: what
/// `ExactSensitivity` gives, of every order.
///
/// \param values  [2^L x any].
/// \param p       Survival probabilities, L entries in (0, 1].
/// \returns       [2^L x any].
/// \throws std::invalid_argument  if sizes don't match or some p_l is out of range.
/// \complexity    L 2^L additions for each column.
[[nodiscard]] inline Matrix<double> ensemble_interactions(const ConstMatrixRef<double>& values,
                                                          const Eigen::VectorXd& p) {
    detail::check_survival_probabilities("ensemble_interactions", p);
    return detail::interactions_at("ensemble_interactions", values, p);
}

/// Harsanyi dividends, the Moebius transform: what T adds that no part of it does, with all other
/// layers skipped,
///
///     v(S) = sum over the T in S of m(T).
///
/// \param values  [2^L x any].
/// \throws std::invalid_argument  if there are not 2^L rows for an L.
/// \complexity    L 2^L additions for each column.
/// \source        Harsanyi 1963, A Simplified Bargaining Model for the n-Person Cooperative Game.
[[nodiscard]] inline Matrix<double> harsanyi_dividends(const ConstMatrixRef<double>& values) {
    return detail::interactions_at("harsanyi_dividends", values, 0.0);
}

/// Banzhaf interaction index: the mean over all masks of the other layers, each counting the same.
/// Of a single layer it is its Banzhaf value.
///
/// \param values  [2^L x any].
/// \throws std::invalid_argument  if there are not 2^L rows for an L.
/// \complexity    L 2^L additions for each column.
/// \source        Grabisch & Roubens 1999, An Axiomatic Approach to the Concept of Interaction
///                among Players in Cooperative Games.
[[nodiscard]] inline Matrix<double> banzhaf_interactions(const ConstMatrixRef<double>& values) {
    return detail::interactions_at("banzhaf_interactions", values, 0.5);
}

/// Shapley interaction index: the mean over all orders in which T, as one, and the other layers may
/// be added. Of a single layer it is its Shapley value.
///
///     I(T) = sum over the U that hold T of m(U) / (|U| - |T| + 1)
///
/// The integral over t of the interactions at p = (t, ..., t), by a quadrature that is exact for
/// such polynomials: m(U), whose rounding errors grow as 2^|U|, plays no part.
///
/// \param values  [2^L x any].
/// \throws std::invalid_argument  if there are not 2^L rows for an L.
/// \complexity    L^2 / 2 2^L additions for each column.
/// \source        Grabisch & Roubens 1999; as an integral, Grabisch, Marichal & Roubens 2000,
///                Equivalent Representations of Set Functions.
[[nodiscard]] inline Matrix<double> shapley_interactions(const ConstMatrixRef<double>& values) {
    return detail::mean_interactions("shapley_interactions", values, [](double) { return 1.0; });
}

/// Shapley-Taylor interaction index: v(all) shared out among the sets of at most `order` layers.
/// Smaller sets have their dividend; those of `order` layers the mean, over all orders of the
/// layers, of the difference that T makes with those kept that come before the first of T; larger
/// ones 0.
///
///     I(T) = sum over the U that hold T of m(U) / C(|U|, k)     for |T| = k = order
///
/// All of them add up to v(all kept).
///
/// \param values  [2^L x any].
/// \param order   k, at least 1.
/// \throws std::invalid_argument  if there are not 2^L rows for an L, or order is less than 1.
/// \complexity    L^2 / 2 2^L additions for each column.
/// \source        Sundararajan, Dhamdhere & Agarwal 2020, The Shapley Taylor Interaction Index.
[[nodiscard]] inline Matrix<double> shapley_taylor_interactions(
    const ConstMatrixRef<double>& values, Index order) {
    if (order < 1)
        detail::refuse("shapley_taylor_interactions: order must be at least 1, got ", order);
    // 1 / C(u, k) is the integral of k (1 - t)^(k - 1) t^(u - k).
    const auto k = static_cast<double>(order);
    Matrix<double> result = detail::mean_interactions(
        "shapley_taylor_interactions", values,
        [&](double t) { return k * std::pow(1 - t, k - 1); });
    const Matrix<double> dividends = harsanyi_dividends(values);
    for (Index set = 0; set < result.rows(); ++set) {
        const Index size = std::popcount(static_cast<std::uint64_t>(set));
        if (size < order)
            result.row(set) = dividends.row(set);
        else if (size > order)
            result.row(set).setZero();
    }
    return result;
}

/// A set of layers, and what they do together.
struct Interaction {
    std::vector<Index> layers;
    double value = 0;
};

struct LargestInteractionOptions {
    /// The sizes of sets to look at, both included.
    Index least_layers = 2;
    Index most_layers = 62;
};

/// The sets of layers whose interactions are largest in absolute value, the largest first (of equal
/// ones the one that stands first in the table).
///
/// \param interactions  [2^L], any of the above.
/// \param count         How many, at least 0; where there are fewer sets, all of them.
/// \throws std::invalid_argument  if there are not 2^L numbers for an L, one of them is NaN, or
///                                count is less than 0.
/// \complexity          O(2^L log(count)).
[[nodiscard]] inline std::vector<Interaction> largest_interactions(
    const Eigen::Ref<const Eigen::VectorXd>& interactions, Index count,
    const LargestInteractionOptions& options = {}) {
    (void)detail::layers_of_table("largest_interactions", interactions.size());
    if (count < 0)
        detail::refuse("largest_interactions: count must be at least 0, got ", count);
    const auto comes_first = [&](Index a, Index b) {
        const double size_a = std::abs(interactions(a)), size_b = std::abs(interactions(b));
        return size_a > size_b || (size_a == size_b && a < b);
    };
    std::vector<Index> sets;  // a heap with the last one in front
    for (Index set = 0; set < interactions.size(); ++set) {
        const Index size = std::popcount(static_cast<std::uint64_t>(set));
        if (size < options.least_layers || size > options.most_layers) continue;
        if (!(interactions(set) == interactions(set)))
            detail::refuse("largest_interactions: interactions must be numbers, got ",
                           interactions(set), " for set ", set);
        if (static_cast<Index>(sets.size()) == count) {
            if (count == 0 || !comes_first(set, sets.front())) continue;
            std::pop_heap(sets.begin(), sets.end(), comes_first);
            sets.pop_back();
        }
        sets.push_back(set);
        std::push_heap(sets.begin(), sets.end(), comes_first);
    }
    std::sort_heap(sets.begin(), sets.end(), comes_first);
    std::vector<Interaction> largest;
    for (const Index set : sets) {
        Interaction& each = largest.emplace_back();
        each.value = interactions(set);
        for (auto rest = static_cast<std::uint64_t>(set); rest != 0; rest &= rest - 1)
            each.layers.push_back(std::countr_zero(rest));
    }
    return largest;
}

}  // namespace stochastic_depth
