// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/types.hpp>

/// How sampled outputs become an estimate of their mean and its standard error. Both are linear and
/// quadratic in the outputs, with weights that depend on the masks alone.
namespace stochastic_depth::detail {

/// A basis of the functions of the mask that the constant and some columns span.
///
/// \source Gram-Schmidt with column pivoting, each column projected twice (Giraud, Langou &
///         Rozloznik 2005).
class MaskBasis {
public:
    /// \param columns  One row for each item, one column for each layer.
    /// \param first, last  Items that are left out; all of them: none is.
    /// \param at       Where the basis is to be known besides, a value for each of the columns.
    MaskBasis(const Eigen::MatrixXd& columns, Index first, Index last,
              const std::vector<double>& at)
        : items_(columns.rows()), first_(first), last_(last), stride_(items_ + 1) {
        if (last - first == items_) last_ = first_;
        const Index count = columns.cols() + 1;
        q_.assign(index(stride_ * count), 0.0);
        std::fill_n(column(0), items_, 1.0);
        for (Index c = 1; c < count; ++c) {
            std::copy_n(columns.data() + (c - 1) * items_, items_, column(c));
            column(c)[items_] = at[index(c - 1)];
        }
        std::vector<double> size;
        for (Index c = 0; c < count; ++c) size.push_back(product(c, c));
        for (Index c = 0; c < count; ++c) {
            Index pivot = c;
            for (Index k = c; k < count; ++k)
                if (c > 0 && size[index(k)] > size[index(pivot)]) pivot = k;
            if (pivot != c) {
                std::swap_ranges(column(pivot), column(pivot) + stride_, column(c));
                std::swap(size[index(pivot)], size[index(c)]);
            }
            for (int pass = 0; pass < 2; ++pass)
                for (Index k = 0; k < c; ++k) subtract(product(k, c), k, c);
            const double norm = std::sqrt(product(c, c));
            // Mask bits are of order 1: what is left of a dependent column is rounding error.
            if (!(norm > 1e-9 * std::sqrt(static_cast<double>(items_)))) break;
            for (Index i = 0; i < stride_; ++i) column(c)[i] /= norm;
            rank_ = c + 1;
            for (Index k = c + 1; k < count; ++k) {
                subtract(product(c, k), c, k);
                size[index(k)] = product(k, k);
            }
        }
    }

    /// Number of functions, the constant among them.
    [[nodiscard]] Index size() const { return rank_; }
    [[nodiscard]] double operator()(Index item, Index function) const {
        return q_[index(function * stride_ + item)];
    }

    /// Subtracts from `weights` those that give `at` times the slopes of the least-squares fit.
    void subtract_slopes(std::vector<double>& weights) const {
        for (Index f = 0; f < rank_; ++f)
            for (Index i = 0; i < items_; ++i)
                if (!is_left_out(i)) weights[index(i)] -= (*this)(items_, f) * (*this)(i, f);
    }

private:
    static std::size_t index(Index i) { return static_cast<std::size_t>(i); }
    [[nodiscard]] bool is_left_out(Index item) const { return item >= first_ && item < last_; }

    [[nodiscard]] double* column(Index c) { return q_.data() + c * stride_; }

    [[nodiscard]] double product(Index a, Index b) const {
        double sum = 0;
        for (Index i = 0; i < items_; ++i)
            if (!is_left_out(i)) sum += (*this)(i, a) * (*this)(i, b);
        return sum;
    }

    void subtract(double factor, Index from, Index to) {
        for (Index i = 0; i < stride_; ++i) column(to)[i] -= factor * column(from)[i];
    }

    Index items_;
    Index first_;
    Index last_;
    Index stride_;
    /// Column after column: a value for each item, and the one at `at`. Loops, and not Eigen's
    /// expressions: a dozen of them would be half of what the estimators cost a compiler.
    std::vector<double> q_;
    Index rank_ = 0;
};

/// Weights for n items, each the output under one sampled mask or a mean of several.
struct SampleWeights {
    /// The estimate is sum_i mean[i] y_i.
    std::vector<double> mean;
    /// Sums sum_i sums[b][i] y_i that the standard error needs.
    std::vector<std::vector<double>> sums;
    /// Whether these sums are estimates by independent parts of the sample, of which the estimate
    /// is the mean. Otherwise they are the coordinates of the fit, and sum y_i^2 less their squares
    /// is what it leaves.
    bool are_replicates = false;
    double degrees_of_freedom = 0;
    /// sum_i mean[i]^2.
    double squared_weight = 0;

    void set_mean(std::vector<double> weights) {
        mean = std::move(weights);
        squared_weight = 0;
        for (const double w : mean) squared_weight += w * w;
    }

    void set_basis(const MaskBasis& basis) {
        for (Index f = 0; f < basis.size(); ++f) {
            sums.emplace_back();
            for (std::size_t i = 0; i < mean.size(); ++i)
                sums.back().push_back(basis(static_cast<Index>(i), f));
        }
        degrees_of_freedom = static_cast<double>(mean.size() - sums.size());
    }

    void set_replicates(std::vector<std::vector<double>> means) {
        sums = std::move(means);
        are_replicates = true;
        degrees_of_freedom = static_cast<double>(sums.size() - 1);
    }
};

/// Regression of the items on `columns`, whose expectations are 0. The slopes that correct an item
/// come from other folds, so that the estimate is unbiased if items of different folds are
/// independent; a single fold is corrected by its own slopes.
///
/// \param columns  [items x layers].
/// \param fold     Items in a fold; the last one may have fewer.
/// \returns        For each fold, the weights that give its corrected mean.
[[nodiscard]] inline std::vector<std::vector<double>> corrected_means(
    const Eigen::MatrixXd& columns, Index fold) {
    std::vector<std::vector<double>> means;
    for (Index first = 0; first < columns.rows(); first += fold) {
        const Index count = std::min(fold, columns.rows() - first);
        std::vector<double> weights(static_cast<std::size_t>(columns.rows()));
        for (Index i = first; i < first + count; ++i)
            weights[static_cast<std::size_t>(i)] = 1 / static_cast<double>(count);
        std::vector<double> at;
        for (Index c = 0; c < columns.cols(); ++c) {
            double sum = 0;
            for (Index i = first; i < first + count; ++i) sum += columns(i, c);
            at.push_back(sum / static_cast<double>(count));
        }
        MaskBasis(columns, first, first + count, at).subtract_slopes(weights);
        means.push_back(std::move(weights));
    }
    return means;
}

/// The mean of the corrected means, each in proportion to its items.
[[nodiscard]] inline std::vector<double> pooled(const std::vector<std::vector<double>>& means,
                                                Index fold) {
    const auto items = static_cast<Index>(means.front().size());
    std::vector<double> weights(means.front().size());
    Index first = 0;
    for (const std::vector<double>& part : means) {
        const Index count = std::min(fold, items - first);
        const double share = static_cast<double>(count) / static_cast<double>(items);
        for (std::size_t i = 0; i < weights.size(); ++i) weights[i] += share * part[i];
        first += fold;
    }
    return weights;
}

}  // namespace stochastic_depth::detail
