// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/numerics/mask_transform.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

namespace stochastic_depth {

/// The distribution of a scalar over independent masks, exactly: the values that it takes, and how
/// probable each is.
class MaskDistribution {
public:
    /// \param values  v(S) for every mask, [2^L], as `mask_values` gives them; those of masks
    ///                without probability may be NaN.
    /// \param p       Survival probabilities, L entries in (0, 1].
    /// \throws std::invalid_argument  if sizes don't match, some p_l is out of range or a value
    ///                                that has probability is NaN.
    /// \complexity    L 2^L, to sort; 5 2^L numbers in memory while it does.
    MaskDistribution(const Eigen::Ref<const Eigen::VectorXd>& values, const Eigen::VectorXd& p) {
        const Index layers = detail::layers_of_table("MaskDistribution", values.size());
        if (p.size() != layers)
            detail::refuse("MaskDistribution: p must have one entry for each of ", layers,
                           " layers, got ", p.size());
        detail::check_survival_probabilities("MaskDistribution", p);
        Eigen::VectorXd probabilities(values.size());
        probabilities(0) = 1;
        for (Index l = 0; l < layers; ++l) {
            const Index half = Index{1} << l;
            probabilities.segment(half, half) = p(l) * probabilities.head(half);
            probabilities.head(half) *= 1 - p(l);
        }
        std::vector<std::pair<double, double>> sorted;
        for (Index k = 0; k < values.size(); ++k) {
            if (probabilities(k) == 0) continue;
            if (!(values(k) == values(k)))
                detail::refuse("MaskDistribution: values must be numbers, got ", values(k),
                               " for mask ", k);
            sorted.emplace_back(values(k), probabilities(k));
        }
        std::sort(sorted.begin(), sorted.end());
        double sum = 0, lost = 0, below = 0;  // Neumaier's sum: 2^L terms, one rounding error
        for (const auto& [value, probability] : sorted) {
            const double next = sum + probability;
            lost += sum >= probability ? (sum - next) + probability : (probability - next) + sum;
            sum = next;
            if (values_.empty() || values_.back() != value) {
                values_.push_back(value);
                below_.push_back(0);
            }
            below_.back() = below = std::clamp(sum + lost, below, 1.0);
        }
        below_.back() = 1;
    }

    /// The values that it takes, each once, in rising order.
    [[nodiscard]] const std::vector<double>& values() const { return values_; }

    /// F(y) = P(v(S) <= y).
    /// \throws std::invalid_argument  if y is NaN.
    [[nodiscard]] double operator()(double y) const {
        if (!(y == y)) detail::refuse("MaskDistribution: y must be a number, got ", y);
        const auto above = std::upper_bound(values_.begin(), values_.end(), y) - values_.begin();
        return above == 0 ? 0 : below_[static_cast<std::size_t>(above) - 1];
    }

    /// The least of its values v with F(v) >= u.
    /// \throws std::invalid_argument  unless 0 <= u <= 1.
    [[nodiscard]] double quantile(double u) const {
        if (!(u >= 0 && u <= 1))
            detail::refuse("MaskDistribution: u must lie in [0, 1], got ", u);
        return values_[static_cast<std::size_t>(
            std::lower_bound(below_.begin(), below_.end(), u) - below_.begin())];
    }

private:
    std::vector<double> values_;
    /// P(v(S) <= values_[k]); the last is 1.
    std::vector<double> below_;
};

}  // namespace stochastic_depth
