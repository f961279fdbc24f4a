// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct SoftmaxCrossEntropyOptions {
    /// w_k, one for each class, finite and at least 0; empty: all 1.
    Eigen::VectorXd class_weights = {};
    /// epsilon, the share of a label that all classes have alike, in [0, 1).
    double label_smoothing = 0.0;
};

/// Cross-entropy of softmax(z) against class labels, from the logits z, mean over the batch:
///
///     loss = 1/n sum_j -log softmax(z_j)_(c_j),  softmax(z)_k = exp(z_k) / sum_i exp(z_i)
///     d loss / d z_kj = (softmax(z_j)_k - [k = c_j]) / n
///
/// With weights w_k of the classes and label smoothing epsilon, of K classes,
///
///     loss = 1/n sum_j -sum_k w_k q_kj log softmax(z_j)_k,
///     q_kj = (1 - epsilon) [k = c_j] + epsilon / K.
///
/// The sum is divided by n, whatever the weights, so that the gradient of a batch is an unbiased
/// one of that of all samples, and parts of a batch add up; others divide it by the weights of the
/// batch.
///
/// Computed in double, whatever the scalar. With m = max z_j at class t the loss of a sample is
/// (m - z_c) + log(1 + sum_(k != t) exp(z_k - m)): no exponential overflows, and a loss close to 0
/// keeps its digits. So does softmax_c - 1, computed as minus the sum of the other classes.
/// An empty batch has loss 0. A NaN logit makes the loss and its column of the gradient NaN.
///
/// \source Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision, Section
///         7 (label smoothing).
template <std::floating_point Scalar_>
class SoftmaxCrossEntropy {
public:
    using Scalar = Scalar_;
    using Targets = Eigen::VectorXi;

    SoftmaxCrossEntropy() = default;

    /// \throws std::invalid_argument  if an option lies outside its range.
    explicit SoftmaxCrossEntropy(SoftmaxCrossEntropyOptions options)
        : options_(std::move(options)), total_weight_(options_.class_weights.sum()) {
        const Eigen::VectorXd& weights = options_.class_weights;
        for (Index k = 0; k < weights.size(); ++k)
            if (!(weights(k) >= 0.0 && std::isfinite(weights(k))))
                detail::refuse("SoftmaxCrossEntropy: class_weights(", k,
                               ") must be finite and at least 0, got ", weights(k));
        if (!(options_.label_smoothing >= 0.0 && options_.label_smoothing < 1.0))
            detail::refuse("SoftmaxCrossEntropy: label_smoothing must lie in [0, 1), got ",
                           options_.label_smoothing);
    }

    [[nodiscard]] const SoftmaxCrossEntropyOptions& options() const { return options_; }

    /// \throws std::invalid_argument  if a label is no class of a network of so many outputs, or
    ///                                the class weights are of another number.
    void check_targets(Index outputs, const Eigen::Ref<const Targets>& labels) const {
        check(outputs, labels.size(), labels);
    }

    /// \param logits  [classes x batch].
    /// \param labels  [batch], each in [0, classes).
    /// \returns       The loss, at least 0.
    /// \throws std::invalid_argument  if sizes do not match or a label is out of range.
    [[nodiscard]] double value(const ConstMatrixRef<Scalar>& logits,
                               const Eigen::Ref<const Targets>& labels) const {
        check(logits.rows(), logits.cols(), labels);
        double total = 0.0;
        for (Index j = 0; j < logits.cols(); ++j)
            total += weight(labels(j), logits.rows()) *
                         sample_loss(logits, labels(j), j, [](Index, double) {}) +
                     shift(logits, labels(j), j);
        return mean(total, logits.cols());
    }

    /// The value, the same bits as value(), and its derivative by the logits.
    ///
    /// \param logits    [classes x batch].
    /// \param labels    [batch], each in [0, classes).
    /// \param gradient  Out, [classes x batch]; may be the memory of `logits`.
    /// \returns         The loss, at least 0.
    /// \throws std::invalid_argument  if sizes do not match or a label is out of range; nothing is
    ///                                written then.
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<Scalar>& logits,
                                            const Eigen::Ref<const Targets>& labels,
                                            MatrixRef<Scalar> gradient) const {
        check(logits.rows(), logits.cols(), labels);
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
            const double of_label = weight(label, logits.rows()), shifted = shift(logits, label, j);
            total += of_label * sample_loss(logits, label, j,
                                            [&](Index k, double exponential) {
                                                gradient(k, j) = static_cast<Scalar>(exponential);
                                                sum += exponential;
                                                if (k != label) others += exponential;
                                            }) +
                     shifted;
            const double scale = of_label / (sum * batch);
            for (Index k = 0; k < gradient.rows(); ++k)
                gradient(k, j) = static_cast<Scalar>(static_cast<double>(gradient(k, j)) * scale);
            gradient(label, j) = static_cast<Scalar>(-others * scale);
            if (options_.label_smoothing > 0.0) {
                const double share = spread(logits.rows()) / batch;
                for (Index k = 0; k < gradient.rows(); ++k)
                    gradient(k, j) -= static_cast<Scalar>(share * class_weight(k));
                gradient(label, j) += static_cast<Scalar>(share * total_weight(logits.rows()));
            }
        }
        return mean(total, logits.cols());
    }

private:
    void check(Index classes, Index samples, const Eigen::Ref<const Targets>& labels) const {
        const Index weights = options_.class_weights.size();
        if (weights > 0 && weights != classes)
            detail::refuse("SoftmaxCrossEntropy: class_weights must be one for each of ", classes,
                           " classes, got ", weights);
        detail::check_labels("SoftmaxCrossEntropy", labels, samples, classes);
    }

    [[nodiscard]] double class_weight(Index k) const {
        return options_.class_weights.size() > 0 ? options_.class_weights(k) : 1.0;
    }
    [[nodiscard]] double total_weight(Index classes) const {
        return options_.class_weights.size() > 0 ? total_weight_ : static_cast<double>(classes);
    }
    /// epsilon / K.
    [[nodiscard]] double spread(Index classes) const {
        return options_.label_smoothing / static_cast<double>(classes);
    }

    // With l_k = -log softmax(z)_k = l_c + z_c - z_k the loss of a sample of class c is
    //     sum_k w_k q_k l_k = weight l_c + shift,
    //     weight = sum_k w_k q_k,  shift = sum_k w_k q_k (z_c - z_k),
    // exactly 1 and 0 where neither option is used.
    [[nodiscard]] double weight(Index label, Index classes) const {
        return (1.0 - options_.label_smoothing) * class_weight(label) +
               spread(classes) * total_weight(classes);
    }
    [[nodiscard]] double shift(const ConstMatrixRef<Scalar>& logits, Index label, Index j) const {
        if (options_.label_smoothing == 0.0) return 0.0;
        double sum = 0.0;
        for (Index k = 0; k < logits.rows(); ++k)
            sum += class_weight(k) *
                   (static_cast<double>(logits(label, j)) - static_cast<double>(logits(k, j)));
        return spread(logits.rows()) * sum;
    }

    /// -log softmax_label of sample j; `store(k, exp(z_k - max))` is called once for each class, in
    /// order, after z_k was read for the last time: the gradient may overwrite the logits.
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

    SoftmaxCrossEntropyOptions options_;
    double total_weight_ = 0.0;
};

}  // namespace stochastic_depth
