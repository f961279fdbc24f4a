// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Cross-entropy of softmax(z) against class labels, from the logits z, mean over the batch:
///
///     loss = 1/n sum_j -log softmax(z_j)_(c_j),  softmax(z)_k = exp(z_k) / sum_i exp(z_i)
///     d loss / d z_kj = (softmax(z_j)_k - [k = c_j]) / n
///
/// Computed in double, whatever the scalar. With m = max z_j at class t the loss of a sample is
/// (m - z_c) + log(1 + sum_(k != t) exp(z_k - m)): no exponential overflows, and a loss close to 0
/// keeps its digits. So does softmax_c - 1, computed as minus the sum of the other classes.
/// An empty batch has loss 0. A NaN logit makes the loss and its column of the gradient NaN.
template <std::floating_point Scalar_>
class SoftmaxCrossEntropy {
public:
    using Scalar = Scalar_;
    using Targets = Eigen::VectorXi;

    /// \param logits  [classes x batch].
    /// \param labels  [batch], each in [0, classes).
    /// \returns       Mean over the batch of -log softmax(logits)_label, at least 0.
    /// \throws std::invalid_argument  if sizes do not match or a label is out of range.
    [[nodiscard]] double value(const ConstMatrixRef<Scalar>& logits,
                               const Eigen::Ref<const Targets>& labels) const {
        detail::check_labels("SoftmaxCrossEntropy", labels, logits.cols(), logits.rows());
        double total = 0.0;
        for (Index j = 0; j < logits.cols(); ++j)
            total += sample_loss(logits, labels(j), j, [](Index, double) {});
        return mean(total, logits.cols());
    }

    /// The value, the same bits as value(), and its derivative by the logits.
    ///
    /// \param logits    [classes x batch].
    /// \param labels    [batch], each in [0, classes).
    /// \param gradient  Out, [classes x batch]; may be the memory of `logits`.
    /// \returns         Mean over the batch of -log softmax(logits)_label, at least 0.
    /// \throws std::invalid_argument  if sizes do not match or a label is out of range; nothing is
    ///                                written then.
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<Scalar>& logits,
                                            const Eigen::Ref<const Targets>& labels,
                                            MatrixRef<Scalar> gradient) const {
        detail::check_labels("SoftmaxCrossEntropy", labels, logits.cols(), logits.rows());
        if (gradient.rows() != logits.rows() || gradient.cols() != logits.cols())
            detail::refuse("SoftmaxCrossEntropy: gradient must be ", logits.rows(), " x ",
                           logits.cols(), " like the logits, got ", gradient.rows(), " x ",
                           gradient.cols());
        const double batch = static_cast<double>(logits.cols());
        double total = 0.0;
        for (Index j = 0; j < logits.cols(); ++j) {
            const Index label = labels(j);
            double sum = 0.0;
            double others = 0.0;
            total += sample_loss(logits, label, j, [&](Index k, double weight) {
                gradient(k, j) = static_cast<Scalar>(weight);
                sum += weight;
                if (k != label) others += weight;
            });
            const double scale = 1.0 / (sum * batch);
            for (Index k = 0; k < gradient.rows(); ++k)
                gradient(k, j) = static_cast<Scalar>(static_cast<double>(gradient(k, j)) * scale);
            gradient(label, j) = static_cast<Scalar>(-others * scale);
        }
        return mean(total, logits.cols());
    }

private:
    /// Loss of sample j; `store(k, exp(z_k - max))` is called once for each class, in order, after
    /// z_k was read for the last time: the gradient may overwrite the logits.
    template <class Store>
    static double sample_loss(const ConstMatrixRef<Scalar>& logits, Index label, Index j,
                              Store store) {
        Index top = 0;
        for (Index k = 1; k < logits.rows(); ++k)
            if (logits(k, j) > logits(top, j)) top = k;
        const double max = static_cast<double>(logits(top, j));
        const double below = max - static_cast<double>(logits(label, j));
        double rest = 0.0;
        for (Index k = 0; k < logits.rows(); ++k) {
            const double weight = std::exp(static_cast<double>(logits(k, j)) - max);
            if (k != top) rest += weight;
            store(k, weight);
        }
        return below + std::log1p(rest);
    }

    static double mean(double total, Index batch) {
        return batch == 0 ? 0.0 : total / static_cast<double>(batch);
    }
};

}  // namespace stochastic_depth
