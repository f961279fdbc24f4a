// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The loss of an entry, and its derivative by the output.
struct EntryLoss {
    double value;
    double slope;
};

/// Losses that are the mean of a function of output and target over all entries, of d outputs and n
/// samples alike, computed in double whatever the scalar. An empty batch has loss 0.
///
/// Function has `name` and `EntryLoss operator()(double output, double target) const`. If it has
/// `static bool accepts(double target)` too, each target must be one that it accepts, and `range`
/// says which. Targets may also be labels 0 and 1, for a network of one output.
template <std::floating_point Scalar_, class Function, class Targets_ = Matrix<Scalar_>>
class EntrywiseLoss {
    static constexpr bool takes_labels = std::is_same_v<Targets_, Eigen::VectorXi>;

public:
    using Scalar = Scalar_;
    using Targets = Targets_;
    using TargetsRef = Eigen::Ref<const Targets>;

    EntrywiseLoss() = default;
    explicit EntrywiseLoss(Function function) : function_(std::move(function)) {}

    /// \param outputs  Of a network.
    /// \param targets  [outputs x batch], or labels [batch].
    /// \throws std::invalid_argument  if their sizes don't match, or a target is out of range.
    void check_targets(Index outputs, const TargetsRef& targets) const {
        check(outputs, takes_labels ? targets.size() : targets.cols(), targets);
    }

    /// \param output   [outputs x batch].
    /// \param targets  [outputs x batch], or labels [batch].
    /// \returns        Mean of the loss over all entries.
    /// \throws std::invalid_argument  if sizes do not match, or a target is out of range.
    [[nodiscard]] double value(const ConstMatrixRef<Scalar>& output,
                               const TargetsRef& targets) const {
        check(output.rows(), output.cols(), targets);
        return sum(output, targets, [](Index, Index, double) {}) * per_entry(output);
    }

    /// The value, the same bits as value(), and its derivative by the output.
    ///
    /// \param output    [outputs x batch].
    /// \param targets   [outputs x batch], or labels [batch].
    /// \param gradient  Out, [outputs x batch]; may be the memory of `output`.
    /// \returns         Mean of the loss over all entries.
    /// \throws std::invalid_argument  if sizes do not match, or a target is out of range; nothing
    ///                                is written then.
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<Scalar>& output,
                                            const TargetsRef& targets,
                                            MatrixRef<Scalar> gradient) const {
        check(output.rows(), output.cols(), targets);
        check_size("gradient", output.rows(), output.cols(), gradient.rows(), gradient.cols());
        const double scale = per_entry(output);
        return sum(output, targets,
                   [&](Index i, Index j, double slope) {
                       gradient(i, j) = static_cast<Scalar>(slope * scale);
                   }) *
               scale;
    }

private:
    static void check_size(const char* what, Index rows, Index cols, Index got_rows,
                           Index got_cols) {
        if (got_rows != rows || got_cols != cols)
            refuse(Function::name, ": ", what, " must be ", rows, " x ", cols,
                   " like the output, got ", got_rows, " x ", got_cols);
    }

    static void check(Index outputs, Index samples, const TargetsRef& targets) {
        if constexpr (takes_labels) {
            if (outputs != 1)
                refuse(Function::name, ": labels are for 1 output, got ", outputs, " outputs");
            check_labels(Function::name, targets, samples, 2);
        } else {
            check_size("targets", outputs, samples, targets.rows(), targets.cols());
            if constexpr (requires { Function::accepts(0.0); })
                for (Index j = 0; j < samples; ++j)
                    for (Index i = 0; i < outputs; ++i)
                        if (!Function::accepts(static_cast<double>(targets(i, j))))
                            refuse(Function::name, ": targets must ", Function::range, ", got ",
                                   targets(i, j), " in row ", i, " of sample ", j);
        }
    }

    template <class Store>
    [[nodiscard]] double sum(const ConstMatrixRef<Scalar>& output, const TargetsRef& targets,
                             const Store& store) const {
        double total = 0.0;
        for (Index j = 0; j < output.cols(); ++j)
            for (Index i = 0; i < output.rows(); ++i) {
                const auto target = takes_labels ? targets(j, 0) : targets(i, j);
                const EntryLoss loss =
                    function_(static_cast<double>(output(i, j)), static_cast<double>(target));
                total += loss.value;
                store(i, j, loss.slope);
            }
        return total;
    }

    static double per_entry(const ConstMatrixRef<Scalar>& output) {
        return output.size() == 0 ? 0.0 : 1.0 / static_cast<double>(output.size());
    }

    Function function_{};
};

}  // namespace stochastic_depth::detail
