// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

/// Gradients of random networks by TrainingStep, against differences of the loss.
namespace stochastic_depth::test {

/// Random sizes, weights and probabilities.
class Maker {
public:
    explicit Maker(std::uint32_t seed) : random_(seed) {}

    [[nodiscard]] Index whole(Index least, Index most) {
        return least + static_cast<Index>(random_() % static_cast<unsigned>(most - least + 1));
    }
    [[nodiscard]] Index width() { return whole(1, 4); }
    template <int Inputs = Eigen::Dynamic, int Outputs = Eigen::Dynamic>
    [[nodiscard]] auto linear(Index inputs, Index outputs) {
        return test::linear<double, Inputs, Outputs>(random_, inputs, outputs);
    }
    template <class Layer>
    [[nodiscard]] StochasticDepth<Layer> skippable(const Layer& layer) {
        return {layer, SurvivalProbability{uniform<double>(random_, 0.3, 0.95)}};
    }
    template <class MakeLayer>
    [[nodiscard]] auto stack(Index least, Index most, const MakeLayer& make) {
        std::vector<decltype(make())> layers;
        for (Index count = whole(least, most); count > 0; --count) layers.push_back(make());
        return Stack{std::move(layers)};
    }
    [[nodiscard]] Philox& random() { return random_; }

private:
    Philox random_;
};

enum class Kinks { none, some };

/// f' at 0 by central differences at h and h / 2, extrapolated to 0: an error of h^4 f^(5) / 480,
/// and of rounding in f times about 3 / h.
template <class Function>
[[nodiscard]] double slope_at_0(const Function& f, double h) {
    const double coarse = (f(h) - f(-h)) / (2 * h), fine = (f(h / 2) - f(-h / 2)) / h;
    return fine + (fine - coarse) / 3;
}

/// What the checks of one structure met.
struct GradientChecks {
    int networks = 0, left_out = 0;
    Index slopes = 0, slopes_not_zero = 0;
    /// The largest |slope - difference|, in units of the larger of 1 and the loss.
    double largest_error = 0;
};

/// One network under one set of masks: every slope that TrainingStep gives against differences of
/// the loss of a masked forward pass, which is another path through the library; with scaled
/// branches, of the loss that the step itself reports.
template <class Network, class Loss, class Mask>
void check_gradient(Network& network, const Loss& loss, const Matrix<double>& x,
                    const typename Loss::Targets& targets, const Mask& mask, Scaling scaling,
                    Kinks kinks, GradientChecks& checks) {
    TrainingStep<Network, Loss> step(network, loss, {.scaling = scaling});
    const double reported = step.differentiate(network, x, targets, mask).loss;
    const Eigen::VectorXd slopes = test::slopes(network, step.gradient());
    Matrix<double> y(network.output_size(x.rows()), x.cols());
    const auto loss_now = [&] {
        if (scaling == Scaling::inverted) return step.differentiate(network, x, targets, mask).loss;
        masked_forward(network, x, mask, y);
        return loss.value(y, targets);
    };
    const double size = std::max(1.0, std::abs(reported));
    REQUIRE(std::abs(reported - loss_now()) <= 1e-13 * size);

    Eigen::VectorXd differences(slopes.size());
    Index next = 0;
    bool near_kink = false;
    for_each_parameter(network, [&](double& parameter) {
        const double before = parameter;
        const auto moved = [&](double by) {
            parameter = before + by;
            const double value = loss_now();
            parameter = before;
            return value;
        };
        const double slope = differences(next++) = slope_at_0(moved, 1e-3);
        // The same from an eighth of the step would differ if a kink lay in between.
        if (kinks == Kinks::some)
            near_kink = near_kink || !(std::abs(slope - slope_at_0(moved, 1.25e-4)) <= 1e-9 * size);
    });
    if (near_kink) {
        ++checks.left_out;
        return;
    }
    ++checks.networks;
    for (Index i = 0; i < slopes.size(); ++i) {
        const double error = std::abs(slopes(i) - differences(i)) / size;
        checks.largest_error = std::max(checks.largest_error, error);
        ++checks.slopes;
        if (slopes(i) != 0) ++checks.slopes_not_zero;
        INFO("parameter " << i << ": " << slopes(i) << ", by differences " << differences(i));
        REQUIRE(error <= 1e-9);
    }
}

/// Draws networks by make(maker, inputs) until `count` have been checked: one after the other under
/// one mask for the batch and one for each sample, with both losses, branches scaled or not.
template <class Make>
void check_random_networks(const std::string& structure, std::uint32_t seed, Kinks kinks,
                           const Make& make, int count = 67) {
    Maker maker(seed);
    GradientChecks checks;
    for (int i = 0; checks.networks < count; ++i) {
        INFO(structure << ", network " << i);
        // What is near a kink is left out, not what is wrong: at most one in five.
        REQUIRE(checks.left_out <= count / 5);
        const Index inputs = maker.width(), batch = maker.whole(1, 5);
        auto network = make(maker, inputs);
        const Matrix<double> x = random_matrix<double>(maker.random(), inputs, batch);
        const Index outputs = network.output_size(inputs);
        const MaskSampler sampler{network.survival_probabilities(), seed};
        const auto step = static_cast<std::uint64_t>(i);
        const Scaling scaling = i % 8 < 6 || detail::skips_more_than_branches(network)
                                    ? Scaling::none
                                    : Scaling::inverted;
        const auto check = [&](const auto& loss, const auto& targets) {
            if (i / 2 % 2 == 0)
                check_gradient(network, loss, x, targets, sampler.sample(step), scaling, kinks,
                               checks);
            else
                check_gradient(network, loss, x, targets, sampler.sample(step, batch), scaling,
                               kinks, checks);
        };
        if (i % 2 == 0) {
            Eigen::VectorXi labels(batch);
            for (int& label : labels) label = static_cast<int>(maker.whole(0, outputs - 1));
            check(SoftmaxCrossEntropy<double>{}, labels);
        } else {
            check(MeanSquaredError<double>{},
                  random_matrix<double>(maker.random(), outputs, batch));
        }
    }
    INFO(structure << ": " << checks.networks << " networks, " << checks.left_out << " left out, "
                   << checks.slopes << " slopes, " << checks.slopes_not_zero
                   << " not 0, largest error " << checks.largest_error);
    CHECK(checks.networks == count);
    CHECK(checks.slopes_not_zero > checks.slopes / 2);
}

}  // namespace stochastic_depth::test
