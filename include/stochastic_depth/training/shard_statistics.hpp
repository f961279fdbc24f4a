// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/training/batch_gradient.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What layers keep of their batches, where a batch is cut into shards: each shard is normalised by
/// its own statistics, and moves those that the network had before the step. The network takes the
/// mean of what comes of that, weighted by the shards' samples:
///
///     running += sum over shards of samples / batch (running that the shard would leave - running).
template <class Network>
class ShardStatistics {
public:
    using Scalar = typename Network::Scalar;

    explicit ShardStatistics(const Network& network) {
        if constexpr (has_statistics<Network>) {
            std::size_t numbers = 0;
            visit_state(network, [&](const char*, const auto& state) {
                numbers += static_cast<std::size_t>(state.size());
            });
            if (numbers == 0) return;
            copy_.emplace(network);
            before_.resize(numbers);
            change_.resize(numbers);
        }
    }

    /// Numbers of a shard's change; 0 where no layer keeps any.
    [[nodiscard]] Index numbers() const { return static_cast<Index>(change_.size()); }
    [[nodiscard]] Scalar* change() { return change_.data(); }

    /// Before the first shard: the network's own.
    void begin(const Network& network) {
        std::size_t next = 0;
        if (copy_)
            for_each_number(network, [&](const auto& number) {
                before_[next++] = static_cast<Scalar>(number);
            });
        is_taken_ = false;
    }

    /// Of the shard that `gradient` was computed of last.
    /// \param share  Of the shard's samples in the batch.
    template <class Loss>
    void take_change(const BatchGradient<Network, Loss>& gradient, double share) {
        if (!copy_) return;
        std::size_t next = 0;
        for_each_number(*copy_, [&](auto& number) { assign(number, before_[next++]); });
        gradient.update_statistics(*copy_);
        next = 0;
        for_each_number(*copy_, [&](const auto& number) {
            const double change = static_cast<double>(number) - static_cast<double>(before_[next]);
            change_[next++] = static_cast<Scalar>(share * change);
        });
    }

    /// The sum of the changes of all shards, for `move`.
    void take_sum(const Scalar* changes) {
        std::copy_n(changes, change_.size(), change_.data());
        is_taken_ = true;
    }
    /// The network takes it over, once.
    void move(Network& network) {
        std::size_t next = 0;
        if (copy_ && is_taken_)
            for_each_number(network, [&](auto& number) {
                assign(number, static_cast<double>(number) + static_cast<double>(change_[next++]));
            });
        is_taken_ = false;
    }

private:
    template <class Number, class Value>
    static void assign(Number& number, Value value) {
        number = static_cast<Number>(value);
    }
    template <class Layers, class Use>
    static void for_each_number(Layers& layers, const Use& use) {
        visit_state(layers, [&](const char*, auto& state) {
            for (Index i = 0; i < state.size(); ++i) use(state.data()[i]);
        });
    }

    std::optional<Network> copy_;  ///< for its statistics alone
    std::vector<Scalar> before_, change_;
    bool is_taken_ = false;
};

}  // namespace stochastic_depth::detail
