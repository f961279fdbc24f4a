// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct EarlyStoppingOptions {
    /// Epochs in a row without an improvement after which training stops, at least 1.
    Index patience = 10;
    /// An epoch is an improvement if its loss lies below the best one by more than that; finite and
    /// at least 0.
    double min_delta = 0.0;
};

/// Tells when training no longer helps, and keeps the network that was best. Trainer does so by
/// itself where it is given validation data (TrainerOptions::early_stopping); in a loop of one's
/// own, or by another measure,
///
///     EarlyStopping stopping{{.patience = 5}};
///     do train_an_epoch(); while (stopping.goes_on(network, loss_of(network)));
///     stopping.restore(network);
///
/// Kept are parameters and what layers hold beside them (batch statistics); not the optimizer.
///
/// \source Prechelt 1998, Early Stopping - But When?
class EarlyStopping {
public:
    EarlyStopping() = default;

    /// \throws std::invalid_argument  if an option lies outside its range.
    explicit EarlyStopping(EarlyStoppingOptions options) : options_(options) {
        if (options.patience < 1)
            detail::refuse("EarlyStopping: patience must be at least 1, got ", options.patience);
        if (!(options.min_delta >= 0.0 && std::isfinite(options.min_delta)))
            detail::refuse("EarlyStopping: min_delta must be finite and at least 0, got ",
                           options.min_delta);
    }

    /// Takes note of an epoch, and keeps the network if it is the best so far.
    /// \param network  As the epoch left it; the same in all calls.
    /// \param loss     What is to become small. NaN is no improvement.
    /// \returns        Whether to go on.
    template <class Network>
    [[nodiscard]] bool goes_on(const Network& network, double loss) {
        if (loss < best_ - options_.min_delta) {
            best_ = loss;
            waited_ = 0;
            kept_.clear();
            visit(network, [&](const auto& matrix) {
                const auto* const bytes = reinterpret_cast<const std::byte*>(matrix.data());
                kept_.insert(kept_.end(), bytes, bytes + size_of(matrix));
            });
        } else {
            ++waited_;
        }
        return waited_ < options_.patience;
    }

    /// Makes the network what it was after the best epoch; without one, leaves it alone.
    /// \throws std::invalid_argument  if it is of another size; it is unchanged then.
    template <class Network>
    void restore(Network& network) const {
        if (!std::isfinite(best_)) return;
        std::size_t size = 0;
        visit(network, [&](const auto& matrix) { size += size_of(matrix); });
        if (size != kept_.size())
            detail::refuse("EarlyStopping: network must have ", kept_.size(),
                           " bytes of parameters, as the one that was kept, got ", size);
        const std::byte* from = kept_.data();
        visit(network, [&](auto& matrix) {
            if (matrix.size() > 0) std::memcpy(matrix.data(), from, size_of(matrix));
            from += size_of(matrix);
        });
    }

    /// The smallest loss, of the network that is kept; infinite before the first.
    [[nodiscard]] double best() const { return best_; }

private:
    template <class Matrix>
    [[nodiscard]] static std::size_t size_of(const Matrix& matrix) {
        return static_cast<std::size_t>(matrix.size()) * sizeof(typename Matrix::Scalar);
    }
    template <class Network, class Visit>
    static void visit(Network& network, const Visit& visit) {
        const auto without_name = [&](const char*, auto& matrix) { visit(matrix); };
        detail::visit_parameters(network, without_name);
        detail::visit_state(network, without_name);
    }

    EarlyStoppingOptions options_;
    double best_ = std::numeric_limits<double>::infinity();
    Index waited_ = 0;
    std::vector<std::byte> kept_;
};

}  // namespace stochastic_depth
