// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/probability/entropy.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>

namespace stochastic_depth {

/// What the ensemble of a classifier's masks knows, and what it doesn't; entropies in nats.
template <class Scalar>
struct PredictiveUncertainty {
    /// E[p], [classes x batch], where p = softmax(NN(x, S)).
    Matrix<Scalar> probabilities;
    /// H(E[p]), [batch]: all of the uncertainty.
    Vector<Scalar> predictive_entropy;
    /// E[H(p)], [batch]: what the masks agree is uncertain.
    Vector<Scalar> expected_entropy;
    /// H(E[p]) - E[H(p)], [batch]: how far the masks disagree; what a prediction and the mask tell
    /// of each other. At least 0: a difference that rounding made negative is set to 0.
    Vector<Scalar> mutual_information;
    /// Evaluations of skippable layers that it took for each column of x.
    double layer_evaluations = 0;
};

/// Mean class probabilities and the parts of their uncertainty, from one sweep over the masks:
/// probabilities and entropy are outputs of one network, Sequential{network, Softmax,
/// Concatenate{Identity, Entropy}}. Any functions of the output are averaged together in this way,
/// by a Concatenate of them behind the network.
///
/// For a rule that samples, probabilities and expected_entropy are as unbiased as the rule's mean.
/// The predictive entropy is that of the estimated probabilities and, H being concave, too low on
/// average: for n masks with independent errors by
///     sum_i Var[p_i] / (2 n E[p_i]) + O(1 / n^2),
/// and the mutual information is too low by as much; from a single mask it is 0. The exact rule has
/// no such bias.
///
/// The mutual information is a difference of entropies: rounding errors are relative to these, so
/// disagreement far below them is seen by double networks only.
///
/// \param rule     ExactExpectation, MonteCarloExpectation, or any that is called like them:
///                 rule(network, x) has a `mean`, [outputs x batch], and `layer_evaluations`.
/// \param network  Gives logits, [classes x batch], at least one class. Copied once.
/// \param x        Inputs, [features x batch].
/// \throws std::invalid_argument  if the network cannot take x or has no outputs.
/// \throws As the rule does.
/// \complexity     That of the rule, with a softmax and an entropy for each mask.
/// \source         Houlsby et al. 2011, Bayesian Active Learning for Classification and Preference
///                 Learning: the mutual information, with masks in place of parameters.
template <class Rule, MaskedNetwork Network>
[[nodiscard]] PredictiveUncertainty<typename Network::Scalar> predictive_uncertainty(
    const Rule& rule, const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) {
    using Scalar = typename Network::Scalar;
    const Index classes = network.output_size(x.rows());
    if (classes < 1)
        detail::refuse("predictive_uncertainty: network must have at least 1 output, got ",
                       classes);
    const Sequential together{network, Softmax<Scalar>{},
                              Concatenate{Identity<Scalar>{}, Entropy<Scalar>{}}};
    const auto moments = rule(together, x);

    PredictiveUncertainty<Scalar> result;
    result.probabilities = moments.mean.topRows(classes);
    result.expected_entropy = moments.mean.row(classes).transpose();
    result.predictive_entropy.resize(x.cols());
    result.mutual_information.resize(x.cols());
    result.layer_evaluations = moments.layer_evaluations;
    for (Index j = 0; j < x.cols(); ++j) {
        double entropy = 0;
        for (Index i = 0; i < classes; ++i) {
            const auto p = static_cast<double>(result.probabilities(i, j));
            if (p != 0) entropy = std::fma(-p, std::log(p), entropy);
        }
        const double difference = entropy - static_cast<double>(result.expected_entropy(j));
        result.predictive_entropy(j) = static_cast<Scalar>(entropy);
        // Written so that NaN stays NaN.
        result.mutual_information(j) = difference < 0 ? Scalar(0) : static_cast<Scalar>(difference);
    }
    return result;
}

}  // namespace stochastic_depth
