// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

namespace detail {

/// Refuses labels that are not one for each sample, or that name no class.
inline void check_labels(std::string_view who, const Eigen::Ref<const Eigen::VectorXi>& labels,
                         Index samples, Index classes) {
    if (labels.size() != samples)
        refuse(who, ": labels must have one entry for each of ", samples, " samples, got ",
               labels.size());
    for (Index j = 0; j < samples; ++j)
        if (labels(j) < 0 || labels(j) >= classes)
            refuse(who, ": labels must lie in [0, ", classes, "), got ", labels(j), " for sample ",
                   j);
}

template <class Scalar>
void check_finite(std::string_view who, std::string_view what,
                  const ConstMatrixRef<Scalar>& values) {
    for (Index j = 0; j < values.cols(); ++j) {
        // A vectorised test: 0 times anything that is not finite is NaN, and a sum keeps a NaN.
        if ((values.col(j).array() * Scalar(0)).sum() == Scalar(0)) continue;
        for (Index i = 0; i < values.rows(); ++i)
            if (!(values(i, j) - values(i, j) == Scalar(0)))
                refuse(who, ": ", what, " must be finite, got ", values(i, j), " in row ", i,
                       " of sample ", j);
    }
}

}  // namespace detail

template <class Targets>
struct WeightedTargets;

namespace detail {

/// What a sample may have for a target.
template <class Targets, class Scalar>
inline constexpr bool are_targets =
    std::same_as<Targets, Eigen::VectorXi> || std::same_as<Targets, Matrix<Scalar>>;
template <class Targets, class Scalar>
inline constexpr bool are_targets<WeightedTargets<Targets>, Scalar> = are_targets<Targets, Scalar>;

}  // namespace detail

/// Samples with what a network is to answer for them.
///
/// With `Targets` = Eigen::VectorXi (the default) a sample's target is its class, an index in [0,
/// classes). With `Targets` = Matrix<Scalar> it is a column of numbers. The losses use the same
/// types: SoftmaxCrossEntropy the first, MeanSquaredError the second. With WeightedTargets of
/// either (weighted_targets.hpp) a sample has a weight too. A value, checked once: its numbers are
/// finite, its labels name classes, and it never changes.
///
///     Dataset digits{images, labels, 10};  // Dataset<float>
///     Dataset curve{x, y};                 // Dataset<double, Matrix<double>>
template <std::floating_point Scalar_, class Targets_ = Eigen::VectorXi>
    requires(detail::are_targets<Targets_, Scalar_>)
class Dataset {
    static constexpr bool has_labels_ = std::same_as<Targets_, Eigen::VectorXi>;

public:
    using Scalar = Scalar_;
    using Targets = Targets_;
    /// What `gather` writes targets into: labels [count] or numbers [outputs x count].
    using TargetsRef = Eigen::Ref<Targets>;

    /// \param inputs   [features x samples], at least one feature, finite.
    /// \param labels   [samples], each in [0, classes).
    /// \param classes  At least 1.
    /// \throws std::invalid_argument  if one of these does not hold.
    Dataset(Matrix<Scalar> inputs, Eigen::VectorXi labels,
            Index classes) requires std::same_as<Targets_, Eigen::VectorXi>
        : inputs_(std::move(inputs)), targets_(std::move(labels)), outputs_(classes) {
        check_inputs();
        if (classes < 1) detail::refuse("Dataset: classes must be at least 1, got ", classes);
        detail::check_labels("Dataset", targets_, size(), classes);
    }

    /// \param inputs   [features x samples], at least one feature, finite.
    /// \param targets  [outputs x samples], at least one output, finite.
    /// \throws std::invalid_argument  if one of these does not hold.
    Dataset(Matrix<Scalar> inputs,
            Targets_ targets) requires std::same_as<Targets_, Matrix<Scalar_>>
        : inputs_(std::move(inputs)), targets_(std::move(targets)), outputs_(targets_.rows()) {
        check_inputs();
        if (outputs_ < 1)
            detail::refuse("Dataset: targets must have at least 1 row, got ", outputs_);
        if (targets_.cols() != size())
            detail::refuse("Dataset: targets must have one column for each of ", size(),
                           " samples, got ", targets_.cols());
        detail::check_finite<Scalar>("Dataset", "targets", targets_);
    }

    /// Number of samples.
    [[nodiscard]] Index size() const { return inputs_.cols(); }
    [[nodiscard]] Index features() const { return inputs_.rows(); }
    /// Rows that a network's output needs: the number of classes, or the rows of the targets.
    [[nodiscard]] Index outputs() const { return outputs_; }
    [[nodiscard]] const Matrix<Scalar>& inputs() const { return inputs_; }
    [[nodiscard]] const Targets& targets() const { return targets_; }

    [[nodiscard]] Index classes() const requires std::same_as<Targets_, Eigen::VectorXi> {
        return outputs_;
    }
    [[nodiscard]] const Eigen::VectorXi& labels()
        const requires std::same_as<Targets_, Eigen::VectorXi> {
        return targets_;
    }

    /// The first `count` samples, as a data set of its own with the same classes.
    ///
    /// \throws std::invalid_argument  if count is outside [0, size()].
    [[nodiscard]] Dataset head(Index count) const {
        if (count < 0 || count > size())
            detail::refuse("Dataset: count of head must lie in [0, ", size(), "], got ", count);
        if constexpr (has_labels_)
            return Dataset(inputs_.leftCols(count), targets_.head(count), outputs_);
        else
            return Dataset(inputs_.leftCols(count), targets_.leftCols(count));
    }

    /// Copies chosen samples in the order given; a sample may come twice. Allocates nothing.
    ///
    /// \param samples  Indices in [0, size()).
    /// \param x        Out: inputs, [features x samples.size()].
    /// \param targets  Out: labels [samples.size()], or numbers [outputs x samples.size()].
    /// \throws std::invalid_argument  if an index or a size is wrong; nothing is written then.
    void gather(std::span<const Index> samples, MatrixRef<Scalar> x, TargetsRef targets) const {
        const Index count = static_cast<Index>(samples.size());
        if (x.rows() != features() || x.cols() != count)
            detail::refuse("Dataset: x of gather must be ", features(), " x ", count, ", got ",
                           x.rows(), " x ", x.cols());
        const Index target_rows = has_labels_ ? count : outputs_;
        const Index target_cols = has_labels_ ? 1 : count;
        if (targets.rows() != target_rows || targets.cols() != target_cols)
            detail::refuse("Dataset: targets of gather must be ", target_rows, " x ", target_cols,
                           ", got ", targets.rows(), " x ", targets.cols());
        for (const Index sample : samples)
            if (sample < 0 || sample >= size())
                detail::refuse("Dataset: indices of gather must lie in [0, ", size(), "), got ",
                               sample);
        for (Index j = 0; j < count; ++j) {
            const Index sample = samples[static_cast<std::size_t>(j)];
            x.col(j) = inputs_.col(sample);
            if constexpr (has_labels_)
                targets(j) = targets_(sample);
            else
                targets.col(j) = targets_.col(sample);
        }
    }

    /// Copies samples order[first] to order[first + count - 1]: one batch of a shuffled epoch.
    ///
    /// \throws std::invalid_argument  if [first, first + count) is no range of `order`, or as
    ///                                above.
    void gather(const std::vector<Index>& order, Index first, Index count, MatrixRef<Scalar> x,
                TargetsRef targets) const {
        const Index length = static_cast<Index>(order.size());
        if (first < 0 || first > length)
            detail::refuse("Dataset: first of gather must lie in [0, ", length, "], got ", first);
        if (count < 0 || count > length - first)
            detail::refuse("Dataset: count of gather must lie in [0, ", length - first, "], got ",
                           count);
        gather(std::span<const Index>(order).subspan(static_cast<std::size_t>(first),
                                                     static_cast<std::size_t>(count)),
               x, targets);
    }

    /// Makes `targets` the size for `count` samples, its values unspecified: `gather` fills it.
    /// \throws std::invalid_argument  if count < 0.
    void resize_targets(Targets& targets, Index count) const {
        if (count < 0)
            detail::refuse("Dataset: count of resize_targets must be at least 0, got ", count);
        if constexpr (has_labels_)
            targets.resize(count);
        else
            targets.resize(outputs_, count);
    }

private:
    void check_inputs() const {
        if (features() < 1)
            detail::refuse("Dataset: inputs must have at least 1 row, got ", features());
        detail::check_finite<Scalar>("Dataset", "inputs", inputs_);
    }

    Matrix<Scalar> inputs_;  // [features x samples]
    Targets targets_;        // [samples], or [outputs x samples]
    Index outputs_;
};

}  // namespace stochastic_depth
