// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <variant>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/pass/batch.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/part_masks.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The gradient of a loss under given masks, and all that a team needs to compute it: one batch, or
/// part of a batch, after another.
template <class Network, class Loss>
class BatchGradient {
public:
    using Scalar = typename Network::Scalar;
    using Targets = typename Loss::Targets;
    using Gradient = typename Network::Gradient;
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] static double seconds(Clock::duration time) {
        return std::chrono::duration<double>(time).count();
    }

    explicit BatchGradient(const Network& network)
        : masks_(network), gradient_(network.zero_gradient()) {}

    /// Adds the samples' share in the gradient of the mean loss over the whole batch.
    ///
    /// \param masks    Of the whole batch.
    /// \param context  But for the first sample, which `part` tells.
    /// \param passed   Called behind each skippable layer on the way back, with its gradient's flag
    ///                 `reached`; null: nobody is told.
    /// \param start    Since when the forward pass's seconds count.
    /// \returns        All but the expected evaluations.
    /// \throws         As TrainingStep::differentiate does; the gradient is unchanged then.
    template <class Masks>
    StepLedger add(const Network& network, const Loss& loss, const ConstMatrixRef<Scalar>& x,
                   const Targets& targets, const Masks& masks, const StepContext& context,
                   const BatchPart& part, const Team& team,
                   const std::function<void(bool&)>* passed, Clock::time_point start) {
        const Pass<Masks> pass{network, loss, masks, context, team, passed};
        const Index at_once = columns_at_once<Targets>(network, x.rows(), x.cols());
        StepLedger ledger;
        if (x.cols() <= at_once) {
            ledger = add_slice(pass, x, targets, part, start);
        } else if constexpr (SliceableTargets<Targets>) {
            check_samples_of_targets(x.cols(), targets);
            if (!is_zero_) gradient_before_ = gradient_;
            try {
                ledger = add_slices(pass, x, targets, part, at_once, start);
            } catch (...) {
                if (is_zero_)
                    gradient_.set_zero();
                else
                    gradient_ = gradient_before_;
                throw;
            }
        }
        is_zero_ = false;
        return ledger;
    }

    [[nodiscard]] Gradient& gradient() {
        // Whoever asks may write.
        is_zero_ = false;
        return gradient_;
    }
    [[nodiscard]] const Gradient& gradient() const { return gradient_; }
    void set_zero() {
        gradient_.set_zero();
        is_zero_ = true;
    }
    /// Somebody has moved all its numbers elsewhere.
    void moved() { is_zero_ = true; }

    /// Layers that keep statistics of their batches take those of the last one over.
    void update_statistics(Network& network) const { detail::update_statistics(network, record_); }

    /// Bytes that the last forward pass kept for the way back.
    [[nodiscard]] std::size_t cache_bytes() const { return cache_bytes_; }

private:
    template <class Masks>
    struct Pass {
        const Network& network;
        const Loss& loss;
        const Masks& masks;
        const StepContext& context;
        const Team& team;
        const std::function<void(bool&)>* passed;
    };

    /// Slice after slice, as parts of the batch.
    template <class Masks>
    StepLedger add_slices(const Pass<Masks>& pass, const ConstMatrixRef<Scalar>& x,
                          const Targets& targets, const BatchPart& part, Index at_once,
                          Clock::time_point start) {
        StepLedger sum;
        std::size_t most_bytes = 0;
        for (Index first = 0; first < x.cols(); first += at_once) {
            const Index some = std::min(at_once, x.cols() - first);
            take_slice(targets, first, some, slice_targets_);
            const StepLedger slice =
                add_slice(pass, x.middleCols(first, some), slice_targets_,
                          {part.first + first, part.of > 0 ? part.of : x.cols()}, start);
            start = Clock::now();
            most_bytes = std::max(most_bytes, cache_bytes_);
            sum.loss += slice.loss;
            sum.layer_evaluations += slice.layer_evaluations;
            sum.full_depth_evaluations += slice.full_depth_evaluations;
            sum.forward_seconds += slice.forward_seconds;
            sum.backward_seconds += slice.backward_seconds;
        }
        cache_bytes_ = most_bytes;
        return sum;
    }

    template <class Masks>
    StepLedger add_slice(const Pass<Masks>& pass, const ConstMatrixRef<Scalar>& x,
                         const Targets& targets, const BatchPart& part, Clock::time_point start) {
        const Network& network = pass.network;
        const Masks& masks = masks_.of(pass.masks, part.first, x.cols());
        StepContext context = pass.context;
        context.first_sample = part.first;
        tape_.clear();
        Batch<Scalar, Records> batch(pass.team, tape_, const_view(x));
        run(network, batch, record_, MaskView{masks, &context});
        cache_bytes_ = tape_.bytes();
        SparePiece spare;
        GradientBatch<Scalar> slopes(pass.team, {&spare, nullptr, pass.passed},
                                     network.output_size(x.rows()), x.cols());
        StepLedger ledger = masks_.count(masks, x.cols());
        ledger.loss = pass.loss.value_and_gradient(batch.current(), targets, slopes.writable());
        if (part.of > 0) {
            const double share = static_cast<double>(x.cols()) / static_cast<double>(part.of);
            ledger.loss *= share;
            slopes.apply(Multiply<Scalar>{static_cast<Scalar>(share)});
        }
        if (!std::isfinite(ledger.loss))
            throw std::runtime_error(message("TrainingStep: loss must be finite, got ",
                                             ledger.loss, " in step ", context.step,
                                             "; a smaller learning rate may help"));
        const auto forward_end = Clock::now();
        backpropagate(network, slopes, record_, gradient_, Discard{});
        ledger.forward_seconds = seconds(forward_end - start);
        ledger.backward_seconds = seconds(Clock::now() - forward_end);
        return ledger;
    }

    PartMasks masks_;
    Gradient gradient_;
    /// Of the calls before, while slices are added; used only if that is not zero.
    Gradient gradient_before_;
    bool is_zero_ = true;
    std::conditional_t<SliceableTargets<Targets>, Targets, std::monostate> slice_targets_;
    Tape tape_;
    RecordOf<Network, Records> record_;
    std::size_t cache_bytes_ = 0;
};

}  // namespace stochastic_depth::detail
