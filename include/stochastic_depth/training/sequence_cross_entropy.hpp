// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// SoftmaxCrossEntropy at each position of a sequence: of scores z, [classes T x batch], and a label
/// for each position, [T x batch], -1 where there is none,
///
///     loss = 1/n sum over sequences j of (1 / m_j) sum over its m_j labels of
///            -log softmax(z_j(t))_(c_j(t)).
///
/// A mean over sequences, so that parts of a batch add up. A sequence without a label adds 0.
template <std::floating_point Scalar_>
class SequenceCrossEntropy {
public:
    using Scalar = Scalar_;
    using Targets = Eigen::MatrixXi;

    /// \throws std::invalid_argument  if labels and outputs don't fit: of T positions the outputs
    ///                                must be a multiple.
    void check_targets(Index outputs, const Targets& labels) const {
        const Index classes = classes_of(outputs, labels.rows());
        for (Index j = 0; j < labels.cols(); ++j)
            for (Index t = 0; t < labels.rows(); ++t)
                if (labels(t, j) < -1 || labels(t, j) >= classes)
                    detail::refuse("SequenceCrossEntropy: labels must lie in [0, ", classes,
                                   ") or be -1, got ", labels(t, j), " at position ", t,
                                   " of sample ", j);
    }

    /// \param scores  [classes T x batch].
    /// \param labels  [T x batch], each -1 or in [0, classes).
    /// \throws std::invalid_argument  if sizes don't match or a label is out of range.
    [[nodiscard]] double value(const ConstMatrixRef<Scalar>& scores, const Targets& labels) const {
        Matrix<Scalar> gradient(scores.rows(), scores.cols());
        return value_and_gradient(scores, labels, gradient);
    }

    /// \param gradient  Out, [classes T x batch].
    /// \throws std::invalid_argument  as `value`; nothing is written then.
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<Scalar>& scores,
                                            const Targets& labels,
                                            MatrixRef<Scalar> gradient) const {
        if (labels.cols() != scores.cols())
            detail::refuse("SequenceCrossEntropy: labels must have ", scores.cols(),
                           " columns, got ", labels.cols());
        if (gradient.rows() != scores.rows() || gradient.cols() != scores.cols())
            detail::refuse("SequenceCrossEntropy: gradient must be ", scores.rows(), " x ",
                           scores.cols(), " like the scores, got ", gradient.rows(), " x ",
                           gradient.cols());
        check_targets(scores.rows(), labels);
        const SoftmaxCrossEntropy<Scalar> of_position;
        const Index positions = labels.rows(), classes = scores.rows() / positions;
        const auto samples = static_cast<double>(scores.cols());
        double sum = 0;
        Eigen::VectorXi label(1);
        for (Index j = 0; j < scores.cols(); ++j) {
            const double share =
                1 / (samples * static_cast<double>((labels.col(j).array() >= 0).count()));
            for (Index t = 0; t < positions; ++t) {
                auto slope = gradient.col(j).segment(t * classes, classes);
                label(0) = labels(t, j);
                if (label(0) < 0) {
                    slope.setZero();
                    continue;
                }
                sum += share * of_position.value_and_gradient(
                                   scores.col(j).segment(t * classes, classes), label, slope);
                slope *= static_cast<Scalar>(share);
            }
        }
        return sum;
    }

private:
    [[nodiscard]] static Index classes_of(Index outputs, Index positions) {
        if (positions < 1 || outputs < positions || outputs % positions != 0)
            detail::refuse("SequenceCrossEntropy: labels must have a number of rows that divides the ",
                           outputs, " outputs, got ", positions);
        return outputs / positions;
    }
};

/// What a language model is trained to say behind each position: the token that comes next, -1
/// behind the last one.
/// \param tokens  [T x batch], as Embedding takes them.
/// \returns       [T x batch], for SequenceCrossEntropy.
template <std::floating_point Scalar>
[[nodiscard]] Eigen::MatrixXi next_tokens(const Matrix<Scalar>& tokens) {
    Eigen::MatrixXi next = Eigen::MatrixXi::Constant(tokens.rows(), tokens.cols(), -1);
    for (Index j = 0; j < tokens.cols(); ++j)
        for (Index t = 0; t + 1 < tokens.rows(); ++t)
            next(t, j) = static_cast<int>(tokens(t + 1, j));
    return next;
}

}  // namespace stochastic_depth
