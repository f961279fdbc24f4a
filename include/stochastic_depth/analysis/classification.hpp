// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

namespace detail {

inline void check_samples(std::string_view who, std::string_view what, Index samples) {
    if (samples < 1) refuse(who, ": ", what, " must have at least 1 column, got ", samples);
}

/// Rounding of float probabilities passes; logits and rows in place of columns do not.
template <class Scalar>
void check_probabilities(std::string_view who, const ConstMatrixRef<Scalar>& probabilities) {
    check_samples(who, "probabilities", probabilities.cols());
    for (Index j = 0; j < probabilities.cols(); ++j) {
        double sum = 0.0;
        for (Index k = 0; k < probabilities.rows(); ++k) {
            if (!(probabilities(k, j) >= Scalar(0)))
                refuse(who, ": probabilities must be at least 0, got ", probabilities(k, j),
                       " for class ", k, " of sample ", j);
            sum += static_cast<double>(probabilities(k, j));
        }
        if (!(std::abs(sum - 1.0) <= 1e-3))
            refuse(who, ": probabilities of a sample must sum to 1 within 0.001, got ", sum,
                   " for sample ", j);
    }
}

/// The largest entry of column j; the first of equal ones.
template <class Scalar>
[[nodiscard]] Index argmax(const ConstMatrixRef<Scalar>& scores, Index j) {
    Index top = 0;
    for (Index k = 1; k < scores.rows(); ++k)
        if (scores(k, j) > scores(top, j)) top = k;
    return top;
}

}  // namespace detail

/// Share of samples whose most probable class (of equal ones the first) is not their label.
///
/// \param scores  Class probabilities, [classes x samples], at least one sample. Logits do as well:
///                only their order matters.
/// \param labels  [samples], each in [0, classes).
/// \returns       A number in [0, 1].
/// \throws std::invalid_argument  if a size or a label is wrong, or a score is NaN.
template <class Derived>
    requires std::floating_point<typename Derived::Scalar>
[[nodiscard]] double error_rate(const Eigen::MatrixBase<Derived>& scores,
                                const Eigen::Ref<const Eigen::VectorXi>& labels) {
    const ConstMatrixRef<typename Derived::Scalar> s(scores.derived());
    detail::check_samples("error_rate", "scores", s.cols());
    detail::check_labels("error_rate", labels, s.cols(), s.rows());
    Index wrong = 0;
    for (Index j = 0; j < s.cols(); ++j) {
        for (Index k = 0; k < s.rows(); ++k)
            if (!(s(k, j) == s(k, j)))
                detail::refuse("error_rate: scores must be numbers, got ", s(k, j), " for class ",
                               k, " of sample ", j);
        if (detail::argmax<typename Derived::Scalar>(s, j) != labels(j)) ++wrong;
    }
    return static_cast<double>(wrong) / static_cast<double>(s.cols());
}

/// Mean over the samples of -log(probability of the label), natural logarithm.
///
/// \param probabilities  [classes x samples], at least one sample; no entry below 0, columns with
///                       sum 1 (within 0.001, for rounding).
/// \param labels         [samples], each in [0, classes).
/// \returns              Infinity if the label of one sample has probability 0: nothing is clipped.
/// \throws std::invalid_argument  if a size, a label or a probability is wrong.
template <class Derived>
    requires std::floating_point<typename Derived::Scalar>
[[nodiscard]] double negative_log_likelihood(const Eigen::MatrixBase<Derived>& probabilities,
                                             const Eigen::Ref<const Eigen::VectorXi>& labels) {
    const ConstMatrixRef<typename Derived::Scalar> p(probabilities.derived());
    detail::check_probabilities<typename Derived::Scalar>("negative_log_likelihood", p);
    detail::check_labels("negative_log_likelihood", labels, p.cols(), p.rows());
    double total = 0.0;
    for (Index j = 0; j < p.cols(); ++j) total -= std::log(static_cast<double>(p(labels(j), j)));
    return total / static_cast<double>(p.cols());
}

/// Expected calibration error: how far confidence is from accuracy.
///
/// The confidence of a sample is its largest probability. Samples are sorted by it into `bins` bins
/// of equal width, ((m - 1)/bins, m/bins], and
///
///     ECE = sum_m |B_m| / n  |accuracy(B_m) - mean confidence(B_m)|
///
/// \param probabilities  [classes x samples], at least one sample; no entry below 0, columns with
///                       sum 1 (within 0.001, for rounding).
/// \param labels         [samples], each in [0, classes).
/// \param bins           At least 1.
/// \returns              A number in [0, 1]; empty bins add nothing.
/// \throws std::invalid_argument  if a size, a label, a probability or bins is wrong.
/// \source               Guo et al. 2017, Eq. (3), with their 15 bins.
template <class Derived>
    requires std::floating_point<typename Derived::Scalar>
[[nodiscard]] double expected_calibration_error(const Eigen::MatrixBase<Derived>& probabilities,
                                                const Eigen::Ref<const Eigen::VectorXi>& labels,
                                                Index bins = 15) {
    if (bins < 1) detail::refuse("expected_calibration_error: bins must be at least 1, got ", bins);
    const ConstMatrixRef<typename Derived::Scalar> p(probabilities.derived());
    detail::check_probabilities<typename Derived::Scalar>("expected_calibration_error", p);
    detail::check_labels("expected_calibration_error", labels, p.cols(), p.rows());
    // |B_m| (accuracy - mean confidence) is the sum over the bin of (correct - confidence).
    Eigen::VectorXd gap = Eigen::VectorXd::Zero(bins);
    for (Index j = 0; j < p.cols(); ++j) {
        const Index top = detail::argmax<typename Derived::Scalar>(p, j);
        const double confidence = static_cast<double>(p(top, j));
        const double upper = std::ceil(confidence * static_cast<double>(bins));
        // Rounding may lift a probability above 1.
        const Index bin =
            upper >= static_cast<double>(bins) ? bins - 1 : static_cast<Index>(upper) - 1;
        gap(bin) += (top == labels(j) ? 1.0 : 0.0) - confidence;
    }
    return gap.cwiseAbs().sum() / static_cast<double>(p.cols());
}

}  // namespace stochastic_depth
