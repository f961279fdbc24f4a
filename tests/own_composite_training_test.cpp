// SPDX-License-Identifier: MIT

// A composite of the user's own in training: gradients of its networks against differences of the
// same networks in plain matrix products.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <stochastic_depth/training/checkpoint.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/own_networks.hpp"
#include "support/parameters.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace own;

/// A loss that is a weighted sum of the outputs: its gradient by them are the weights.
struct WeightedSum {
    using Targets = Numbers;
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<double>& y, const Numbers& weights,
                                            MatrixRef<double> gradient) const {
        gradient = weights;
        return y.cwiseProduct(weights).sum();
    }
};

/// The sum over all masks of P(S) times what TrainingStep gives under S.
template <class Network, class Loss>
[[nodiscard]] Eigen::VectorXd sum_of_steps(Network& network, const Loss& loss, const Numbers& x,
                                           const Numbers& targets) {
    TrainingStep step{network, loss};
    const AllMasks all(network, x);
    Eigen::VectorXd sum = Eigen::VectorXd::Zero(parameters(network).size());
    for (std::size_t k = 0; k < all.y.size(); ++k) {
        step.differentiate(network, x, targets, numbered(k, all.p.size()));
        sum += all.weight(k) * slopes(network, step.gradient());
        step.finish(network);
    }
    return sum;
}

/// Products of three gated outputs have large fifth derivatives, by which central differences err;
/// at this step the error is below that of rounding, 1e-11 or so.
constexpr double difference_step = 1.25e-4;
constexpr double by_differences = 2e-10;

/// The largest error of some slopes against differences of a function of the network, in units of
/// the largest slope.
template <class Network>
[[nodiscard]] double error_by_differences(Network& network, const Eigen::VectorXd& slopes,
                                          const std::function<double()>& function) {
    Index next = 0;
    double largest = 0;
    for_each_parameter(network, [&](double& parameter) {
        const double before = parameter;
        const double difference = slope_at_0(
            [&](double by) {
                parameter = before + by;
                const double value = function();
                parameter = before;
                return value;
            },
            difference_step);
        largest = std::max(largest, std::abs(difference - slopes(next++)));
    });
    REQUIRE(next == slopes.size());
    return largest / std::max(1.0, slopes.cwiseAbs().maxCoeff());
}

[[nodiscard]] double mean_square(const Numbers& y, const Numbers& targets) {
    return (y - targets).squaredNorm() / static_cast<double>(y.size());
}

template <class Network>
void check_exact_gradient(Network network) {
    const Numbers x = inputs(3);
    Philox random{5};
    const Numbers targets = random_matrix<double>(random, network.output_size(x.rows()), x.cols());
    auto gradient = network.zero_gradient();
    Numbers dx(x.rows(), x.cols());
    ExactGradient{}.of_mean(network, x, targets, gradient, dx);
    const Eigen::VectorXd of_mean = slopes(network, gradient);
    CHECK((of_mean.array() != 0).count() > of_mean.size() / 2);
    CHECK(largest_difference(of_mean, sum_of_steps(network, WeightedSum{}, x, targets)) <= exact);
    const auto mean_at = [&](const Numbers& at) {
        return AllMasks(network, at).mean().cwiseProduct(targets).sum();
    };
    CHECK(error_by_differences(network, of_mean, [&] { return mean_at(x); }) <= by_differences);
    for (Index i = 0; i < x.size(); ++i) {
        Numbers moved = x;
        const double difference = slope_at_0(
            [&](double by) {
                moved.data()[i] = x.data()[i] + by;
                return mean_at(moved);
            },
            difference_step);
        CHECK(std::abs(difference - dx.data()[i]) <= by_differences);
    }

    gradient.set_zero();
    const MeanSquaredError<double> loss;
    const double expected = ExactGradient{}.of_expected_loss(network, x, targets, loss, gradient);
    const auto expected_loss = [&] {
        const AllMasks all(network, x);
        double sum = 0;
        for (std::size_t k = 0; k < all.y.size(); ++k)
            sum += all.weight(k) * mean_square(all.y[k], targets);
        return sum;
    };
    CHECK(std::abs(expected - expected_loss()) <= exact);
    const Eigen::VectorXd of_loss = slopes(network, gradient);
    CHECK(largest_difference(of_loss, sum_of_steps(network, loss, x, targets)) <= exact);
    CHECK(error_by_differences(network, of_loss, expected_loss) <= by_differences);
}

TEST_CASE("own composite: exact gradients", "[own_composite_training]") {
    check_exact_gradient(residual_network(4));
    check_exact_gradient(mixed_network(5));
}

/// A training step under masks that it draws itself.
template <class Network>
void check_step(Network network, MaskScope scope, Scaling scaling) {
    CAPTURE(static_cast<int>(scope), static_cast<int>(scaling));
    const Index batch = 8;
    const Numbers x = inputs(batch);
    Philox random{6};
    const Numbers targets = random_matrix<double>(random, network.output_size(x.rows()), batch);
    const Eigen::VectorXd p = network.survival_probabilities();
    TrainingStep step{
        network, MeanSquaredError<double>{}, {.mask_scope = scope, .scaling = scaling, .seed = 12}};
    for (const std::uint64_t t : {0u, 1u}) {
        const double reported = step.differentiate(network, x, targets, t).loss;
        const Eigen::VectorXd got = slopes(network, step.gradient());
        step.finish(network);
        SurvivalMasks masks(p.size(), batch);
        const MaskSampler sampler{p, 12};
        if (scope == MaskScope::batch)
            for (Index j = 0; j < batch; ++j) masks.set_mask(j, sampler.sample(t));
        else if (scope == MaskScope::sample)
            sampler.sample(t, masks);
        else
            FixedSizeMaskSampler{p, 12}.sample(t, masks);
        const auto loss = [&] {
            const Rule rule = scaling == Scaling::none ? Rule::as_it_is : Rule::inverted;
            return mean_square(plain_outputs(network, x, masks, rule), targets);
        };
        CHECK(std::abs(reported - loss()) <= exact * std::max(1.0, reported));
        CHECK(error_by_differences(network, got, loss) <= by_differences);
    }
}

TEST_CASE("own composite: training steps, each scope and scaling", "[own_composite_training]") {
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        for (const Scaling scaling : {Scaling::none, Scaling::inverted})
            check_step(residual_network(6), scope, scaling);
        check_step(mixed_network(7), scope, Scaling::none);
    }
}

TEST_CASE("own composite: saved and loaded", "[own_composite_training]") {
    const TemporaryDirectory directory;
    const auto saved = residual_network(13);
    auto loaded = residual_network(14);
    REQUIRE(parameters(saved) != parameters(loaded));
    save_parameters(directory.file("own"), saved);
    load_parameters(directory.file("own"), loaded);
    CHECK(same_bits(parameters(saved), parameters(loaded)));
    const Numbers x = inputs(5);
    const SurvivalMask mask = numbered(0b1011101, 7);
    CHECK(same_bits(saved(x, mask), loaded(x, mask)));
}

TEST_CASE("own composite: gradients by three threads have the bits of one",
          "[own_composite_training]") {
    auto network = residual_network(15);
    const Numbers x = inputs(500);
    Philox random{16};
    const Numbers targets = random_matrix<double>(random, 2, 500);
    const auto answers = [&](unsigned threads) {
        std::vector<Numbers> all;
        auto gradient = network.zero_gradient();
        Numbers dx(3, 500);
        ExactGradient{{.threads = threads}}.of_mean(network, x, targets, gradient, dx);
        all.push_back(slopes(network, gradient));
        all.push_back(dx);
        TrainingStep step{network, MeanSquaredError<double>{}, {.threads = threads}};
        step.differentiate(network, x, targets, 3);
        all.push_back(slopes(network, step.gradient()));
        return all;
    };
    const auto one = answers(1), three = answers(3);
    for (std::size_t k = 0; k < one.size(); ++k) {
        CAPTURE(k);
        CHECK(same_bits(one[k], three[k]));
    }
}

}  // namespace
