// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/pass/reached_layers.hpp>
#include <stochastic_depth/pass/run_into.hpp>
#include <stochastic_depth/survival/any_mask_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

namespace stochastic_depth {

/// The usual test-time rule: one pass in which each skippable layer is replaced by its mean given
/// its input, shortcut(x) + p branch(x) for a residual layer, p layer(x) + (1 - p) x for any other.
///
/// Exact only where every layer after a skippable one is affine; elsewhere its distance from f_SD
/// is the weight-scaling gap (`weight_scaling_gap`). It knows neither variance nor error: both are
/// NaN.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Eq. (5).
class WeightScaling {
public:
    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \complexity     L layer evaluations for each column.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        ExpectationResult<typename Network::Scalar> result;
        (*this)(network, x, result);
        return result;
    }

    /// The same into the caller's result, whose memory is used again: a call like one before it
    /// allocates nothing.
    template <MaskedNetwork Network>
    void operator()(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                    ExpectationResult<typename Network::Scalar>& result) const {
        scale(network, x, detail::MeanOfMasks{}, result);
    }

    /// The same under a law, with P(s_l = 1), over all masks that reach the layer, in place of p_l.
    ///
    /// \param law  A MaskLaw of L layers.
    /// \throws std::invalid_argument  besides, if the law has another depth or a probability outside
    ///                                [0, 1].
    /// \throws std::length_error      if more than 2^20 of its states differ behind a layer.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        (void)network.output_size(x.rows());
        detail::check_law("WeightScaling", law, network.depth());
        const auto reached = detail::reached_layers(network, AnyMaskLaw(law).with_seed(0));
        ExpectationResult<typename Network::Scalar> result;
        scale(network, x, detail::MeanOfMasks(reached.survival_probabilities.data()), result);
        return result;
    }

private:
    template <class Network, class Means, class Scalar = typename Network::Scalar>
    static void scale(const Network& network, const ConstMatrixRef<Scalar>& x, const Means& means,
                      ExpectationResult<Scalar>& result) {
        const Index outputs = network.output_size(x.rows());
        result.method = ExpectationMethod::weight_scaling;
        result.mean.resize(outputs, x.cols());
        detail::run_into(network, x, means, result.mean);
        result.variance.setConstant(outputs, x.cols(), std::numeric_limits<Scalar>::quiet_NaN());
        result.standard_error = result.variance;
        result.layer_evaluations = static_cast<double>(network.depth());
        result.degrees_of_freedom = std::numeric_limits<double>::quiet_NaN();
        result.samples = 0;
    }
};

}  // namespace stochastic_depth
