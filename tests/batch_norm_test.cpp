// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/files.hpp"
#include "support/layer_contract.hpp"
#include "support/layers.hpp"
#include "support/recorded_pass.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// With random gain, bias and running statistics.
template <class Scalar>
BatchNorm<Scalar> batch_norm(Philox& random, Index features, BatchNormOptions options = {}) {
    BatchNorm<Scalar> layer{features, options};
    const Vector<Scalar> mean = random_matrix<Scalar>(random, features, 1);
    const Vector<Scalar> variance =
        random_matrix<Scalar>(random, features, 1).array().square() + Scalar(0.1);
    layer.set_running_statistics(mean, variance);
    typename BatchNorm<Scalar>::Gradient shift{random_matrix<Scalar>(random, features, 1),
                                               random_matrix<Scalar>(random, features, 1)};
    detail::visit_parameters(
        layer, [](const char*, auto& parameter, const auto& by) { parameter += by; }, shift);
    return layer;
}

/// Masks of one layer: sample j keeps it if keeps(j).
template <class Keeps>
SurvivalMasks one_layer(Index batch, const Keeps& keeps) {
    SurvivalMasks masks{1, batch};
    for (Index j = 0; j < batch; ++j)
        masks.set_mask(j, keeps(j) ? SurvivalMask::all(1) : SurvivalMask::none(1));
    return masks;
}

template <class Scalar>
using SkippableNorm = StochasticDepth<BatchNorm<Scalar>>;

template <class Scalar>
struct Statistics {
    Vector<long double> mean, variance;
};

/// Of the chosen columns, in long double.
template <class Scalar, class Keeps>
Statistics<Scalar> statistics(const Matrix<Scalar>& x, const Keeps& keeps) {
    Statistics<Scalar> result{Vector<long double>::Zero(x.rows()),
                              Vector<long double>::Zero(x.rows())};
    long double count = 0;
    for (Index j = 0; j < x.cols(); ++j) count += keeps(j) ? 1 : 0;
    for (Index j = 0; j < x.cols(); ++j)
        if (keeps(j)) result.mean += x.col(j).template cast<long double>() / count;
    for (Index j = 0; j < x.cols(); ++j)
        if (keeps(j))
            result.variance.array() +=
                (x.col(j).template cast<long double>() - result.mean).array().square() / count;
    return result;
}

TEST_CASE("BatchNorm keeps the layer contract, by its running statistics", "[batch_norm]") {
    Philox random{1};
    for (const Index features : {1, 7, 19})
        check_layer_contract("BatchNorm", batch_norm<double>(random, features), features);
    check_layer_contract("BatchNorm", batch_norm<float>(random, 9), 9);
    check_refuses_other_inputs(batch_norm<double>(random, 7), 7, "BatchNorm");
    static_assert(DifferentiableLayer<BatchNorm<float>>);
    // Fresh, it is the identity but for epsilon.
    const Matrix<double> x = random_matrix<double>(random, 4, 3);
    CHECK(largest_difference(run(BatchNorm<double>{4, {.epsilon = 1e-14}}, x), x) <= 1e-13);
    Matrix<double> in_place = x;
    const BatchNorm<double> layer = batch_norm<double>(random, 4);
    layer.forward(in_place, in_place);
    CHECK(same_bits(in_place, run(layer, x)));
}

TEMPLATE_TEST_CASE("BatchNorm: a step normalises by the statistics of the survivors",
                   "[batch_norm]", float, double) {
    using Scalar = TestType;
    Philox random{2};
    const double epsilon = std::numeric_limits<Scalar>::epsilon();
    for (const Index features : {3, 8, 21})
        for (const double offset : {0.0, 300.0}) {
            BatchNorm<Scalar> layer = batch_norm<Scalar>(random, features, {.momentum = 0.25});
            SkippableNorm<Scalar> network{layer, SurvivalProbability{0.5}};
            const Matrix<Scalar> x =
                random_matrix<Scalar>(random, features, 30).array() + static_cast<Scalar>(offset);
            const auto keeps = [](Index j) { return j % 3 != 1; };
            const auto exact = statistics(x, keeps);
            TrainingStep step{network, MeanSquaredError<Scalar>{}};
            step.differentiate(network, x, x, one_layer(30, keeps));
            RecordedPass<SkippableNorm<Scalar>> pass;
            Matrix<Scalar> y = x;
            const detail::StepContext draw;
            const SurvivalMasks masks = one_layer(30, keeps);
            pass.forward(network, y, detail::MaskView{masks, &draw});
            for (Index j = 0; j < 30; ++j)
                for (Index i = 0; i < features; ++i) {
                    CAPTURE(features, offset, i, j);
                    if (!keeps(j)) {
                        CHECK(y(i, j) == x(i, j));
                        continue;
                    }
                    const long double expected = layer.gain()(i) * (x(i, j) - exact.mean(i)) /
                                                     std::sqrt(exact.variance(i) + 1e-5L) +
                                                 layer.bias()(i);
                    CHECK(static_cast<double>(std::abs(y(i, j) - expected)) <=
                          epsilon * static_cast<double>(std::abs(expected)) + 1e-14 * (4 + offset));
                }
            // finish moves the running statistics, and nothing did before.
            CHECK(same_bits(network.layer().running_mean(), layer.running_mean()));
            step.finish(network);
            for (Index i = 0; i < features; ++i) {
                CAPTURE(features, offset, i);
                const long double mean = 0.75L * layer.running_mean()(i) + 0.25L * exact.mean(i);
                const long double variance =
                    0.75L * layer.running_variance()(i) + 0.25L * exact.variance(i) * 20 / 19;
                CHECK(static_cast<double>(std::abs(network.layer().running_mean()(i) - mean)) <=
                      epsilon * (1 + offset));
                CHECK(static_cast<double>(std::abs(network.layer().running_variance()(i) -
                                                   variance)) <= 2 * epsilon + 1e-15 * offset);
            }
            CHECK(same_bits(network.layer().gain(), layer.gain()));
        }
}

TEST_CASE("BatchNorm: one survivor is normalised by the running statistics, and none runs",
          "[batch_norm]") {
    Philox random{3};
    const BatchNorm<double> layer = batch_norm<double>(random, 5);
    SkippableNorm<double> network{layer, SurvivalProbability{0.5}};
    const Matrix<double> x = random_matrix<double>(random, 5, 6);
    const Matrix<double> dy = random_matrix<double>(random, 5, 6);
    const detail::StepContext draw;
    for (const Index survivor : {2, -1}) {
        const SurvivalMasks masks = one_layer(6, [&](Index j) { return j == survivor; });
        RecordedPass<SkippableNorm<double>> pass;
        Matrix<double> y = x, dx = dy, expected = x, by_input = dy;
        pass.forward(network, y, detail::MaskView{masks, &draw});
        auto gradient = network.zero_gradient();
        pass.backward(network, dx, gradient);
        auto plain = layer.zero_gradient();
        if (survivor >= 0) {
            BatchNorm<double>::Cache cache;
            layer.forward(x.col(survivor), expected.col(survivor), cache);
            layer.backward(x.col(survivor), dy.col(survivor), cache, plain, by_input.col(survivor));
        }
        CHECK(same_bits(y, expected));
        CHECK(same_bits(dx, by_input));
        CHECK(same_bits(gradient.layer.gain, plain.gain));
        CHECK(same_bits(gradient.layer.bias, plain.bias));
        TrainingStep step{network, MeanSquaredError<double>{}};
        step.differentiate(network, x, x, masks);
        step.finish(network);
        CHECK(same_bits(network.layer().running_mean(), layer.running_mean()));
        CHECK(same_bits(network.layer().running_variance(), layer.running_variance()));
    }
}

TEST_CASE("BatchNorm: a step's gradient is that of its loss", "[batch_norm]") {
    Philox random{4};
    const auto branch = [&] {
        return Sequential{linear<double>(random, 5, 5), batch_norm<double>(random, 5),
                          Tanh<double>{}, linear<double>(random, 5, 5)};
    };
    const Sequential network{batch_norm<double>(random, 3),
                             linear<double>(random, 3, 5),
                             batch_norm<double>(random, 5),
                             StochasticDepth{Residual{branch()}, SurvivalProbability{0.5}},
                             StochasticDepth{Residual{branch(), batch_norm<double>(random, 5)},
                                             SurvivalProbability{0.6}},
                             linear<double>(random, 5, 2)};
    const Matrix<double> x = random_matrix<double>(random, 3, 12);
    const Matrix<double> targets = random_matrix<double>(random, 2, 12);
    // At least two samples keep and two skip each layer: the running statistics have no part.
    SurvivalMasks masks{2, 12};
    for (Index j = 0; j < 12; ++j) {
        SurvivalMask mask = SurvivalMask::none(2);
        mask.set_word(0, static_cast<std::uint64_t>(j * 7 % 4));
        masks.set_mask(j, mask);
    }
    const MeanSquaredError<double> loss;
    for (const Scaling scaling : {Scaling::none, Scaling::inverted})
        CHECK(gradient_error(network, x, masks, loss, targets, {.scaling = scaling}).largest <=
              1e-8);
}

TEST_CASE("BatchNorm: bits of a step don't depend on the number of threads", "[batch_norm]") {
    Philox random{5};
    const Index features = 83, batch = 700;
    const SkippableNorm<float> network{batch_norm<float>(random, features),
                                       SurvivalProbability{0.5}};
    const Matrix<float> x = random_matrix<float>(random, features, batch);
    const Matrix<float> dy = random_matrix<float>(random, features, batch);
    const SurvivalMasks masks = one_layer(batch, [](Index j) { return j % 5 != 0; });
    const detail::StepContext draw;
    Matrix<float> y_alone, dx_alone;
    SkippableNorm<float>::Gradient alone = network.zero_gradient();
    for (const unsigned threads : {1u, 2u, 3u, 7u}) {
        const detail::ThreadTeam team{threads};
        RecordedPass<SkippableNorm<float>> pass(team);
        Matrix<float> y = x, dx = dy;
        pass.forward(network, y, detail::MaskView{masks, &draw});
        auto gradient = network.zero_gradient();
        pass.backward(network, dx, gradient);
        if (threads == 1) {
            y_alone = y;
            dx_alone = dx;
            alone = gradient;
        }
        CAPTURE(threads);
        CHECK(same_bits(y, y_alone));
        CHECK(same_bits(dx, dx_alone));
        CHECK(same_bits(gradient.layer.gain, alone.layer.gain));
        CHECK(same_bits(gradient.layer.bias, alone.layer.bias));
    }
}

TEST_CASE(
    "BatchNorm: optimizers leave the running statistics alone, which are state and no parameters",
    "[batch_norm]") {
    Philox random{6};
    SkippableNorm<double> network{batch_norm<double>(random, 4), SurvivalProbability{0.5}};
    const BatchNorm<double> before = network.layer();
    const Matrix<double> x = random_matrix<double>(random, 4, 8);
    TrainingStep step{network, MeanSquaredError<double>{}};
    Adam<SkippableNorm<double>> adam{network, {}};
    step.differentiate(network, x, Matrix<double>::Zero(4, 8), SurvivalMask::all(1));
    adam.step(network, step.gradient());
    CHECK(same_bits(network.layer().running_mean(), before.running_mean()));
    CHECK(same_bits(network.layer().running_variance(), before.running_variance()));
    CHECK((network.layer().gain() - before.gain()).cwiseAbs().minCoeff() > 0);
    std::string names;
    const auto note = [&](const char* name, const auto&) { names += std::string(name) + " "; };
    detail::visit_parameters(network, note);
    detail::visit_state(network, note);
    CHECK(names == "gain bias running_mean running_variance ");
}

/// A skippable layer of one feature whose shortcut normalises, as a projection does: x passes to it
/// as it is.
auto with_normed_shortcut() {
    const Linear<double> same{Matrix<double>::Identity(1, 1), Vector<double>::Zero(1)};
    return StochasticDepth{
        Residual{Sequential{same, BatchNorm<double>{1}}, Sequential{same, BatchNorm<double>{1}}},
        SurvivalProbability{0.5}};
}

TEST_CASE("BatchNorm: in a shortcut, statistics of the samples that skip the branch are taken over",
          "[batch_norm]") {
    using Network = decltype(with_normed_shortcut());
    const auto in_shortcut = [](const Network& network) -> const BatchNorm<double>& {
        return std::get<1>(network.layer().shortcut().layers());
    };
    const auto in_branch = [](const Network& network) -> const BatchNorm<double>& {
        return std::get<1>(network.layer().branch().layers());
    };
    Philox random{8};
    const Matrix<double> first = random_matrix<double>(random, 1, 8).array() + 100;
    const Matrix<double> second = random_matrix<double>(random, 1, 8).array() - 50;
    const Matrix<double> targets = Matrix<double>::Zero(1, 8);
    const auto steps = [&](Network& network,
                           const std::vector<std::pair<Matrix<double>, bool>>& batches) {
        TrainingStep step{network, MeanSquaredError<double>{}};
        for (const auto& [x, keeps] : batches) {
            step.differentiate(network, x, targets,
                               keeps ? SurvivalMask::all(1) : SurvivalMask::none(1));
            step.finish(network);
        }
    };

    SECTION("every sample skips") {
        Network skipped = with_normed_shortcut(), kept = with_normed_shortcut();
        steps(skipped, {{first, false}});
        steps(kept, {{first, true}});
        CHECK(std::abs(in_shortcut(skipped).running_mean()(0) - 0.1 * first.mean()) <= 1e-12);
        CHECK(same_bits(in_shortcut(skipped).running_mean(), in_shortcut(kept).running_mean()));
        CHECK(same_bits(in_shortcut(skipped).running_variance(),
                        in_shortcut(kept).running_variance()));
        // Nobody went through the branch.
        CHECK(in_branch(skipped).running_mean()(0) == 0);
        CHECK(in_branch(skipped).running_variance()(0) == 1);
    }
    SECTION("each step takes over its own statistics, none those of a step before") {
        for (const bool keeps_first : {false, true})
            for (const bool keeps_second : {false, true}) {
                CAPTURE(keeps_first, keeps_second);
                Network network = with_normed_shortcut();
                steps(network, {{first, keeps_first}, {second, keeps_second}});
                CHECK(std::abs(in_shortcut(network).running_mean()(0) -
                               (0.09 * first.mean() + 0.1 * second.mean())) <= 1e-12);
                const double of_branch =
                    (keeps_first ? 0.1 * first.mean() : 0) * (keeps_second ? 0.9 : 1.0) +
                    (keeps_second ? 0.1 * second.mean() : 0);
                CHECK(std::abs(in_branch(network).running_mean()(0) - of_branch) <= 1e-12);
            }
    }
    SECTION("some samples skip, whatever their number") {
        for (const Index kept : {1, 2, 4, 7}) {
            CAPTURE(kept);
            Network network = with_normed_shortcut();
            TrainingStep step{network, MeanSquaredError<double>{}};
            for (int t = 0; t < 300; ++t) {
                step.differentiate(network, first, targets,
                                   one_layer(8, [&](Index j) { return j < kept; }));
                step.finish(network);
            }
            const double mean = in_shortcut(network).running_mean()(0);
            CHECK(mean >= first.minCoeff() - 1e-9);
            CHECK(mean <= first.maxCoeff() + 1e-9);
        }
    }
}

TEST_CASE("BatchNorm: a checkpoint holds the running statistics", "[batch_norm]") {
    Philox random{7};
    const Sequential network{linear<float>(random, 3, 6), batch_norm<float>(random, 6)};
    Sequential other{linear<float>(random, 3, 6), BatchNorm<float>{6}};
    const TemporaryFile file;
    save_parameters(file.path(), network);
    load_parameters(file.path(), other);
    const Matrix<float> x = random_matrix<float>(random, 3, 5);
    CHECK(same_bits(run(other, x), run(network, x)));
}

TEST_CASE("BatchNorm: refuses what is no layer and no statistics", "[batch_norm]") {
    CHECK(refusal([] { BatchNorm<double>{0}; }) == "BatchNorm: features must be at least 1, got 0");
    CHECK(refusal([] {
              BatchNorm<double>{1, {.epsilon = 0}};
          }) == "BatchNorm: epsilon must be finite and above 0, got 0");
    CHECK(refusal([] {
              BatchNorm<double>{1, {.epsilon = nan}};
          }) == "BatchNorm: epsilon must be finite and above 0, got nan");
    CHECK(refusal([] {
              BatchNorm<double>{1, {.momentum = 0}};
          }) == "BatchNorm: momentum must lie in (0, 1], got 0");
    CHECK(refusal([] {
              BatchNorm<double>{1, {.momentum = 1.5}};
          }) == "BatchNorm: momentum must lie in (0, 1], got 1.5");
    CHECK(refusal([] {
              BatchNorm<double>{1, {.momentum = nan}};
          }) == "BatchNorm: momentum must lie in (0, 1], got nan");
    BatchNorm<double> layer{2};
    const Vector<double> one{{1.0}}, two{{1.0, 2.0}}, negative{{1.0, -2.0}}, broken{{nan, 1.0}};
    CHECK(refusal([&] { layer.set_running_statistics(one, two); }) ==
          "BatchNorm: running mean must have 2 entries, got 1");
    CHECK(refusal([&] { layer.set_running_statistics(two, one); }) ==
          "BatchNorm: running variance must have 2 entries, got 1");
    CHECK(refusal([&] { layer.set_running_statistics(broken, two); }) ==
          "BatchNorm: running mean(0) must be finite, got nan");
    CHECK(refusal([&] { layer.set_running_statistics(negative, negative); }) ==
          "BatchNorm: running variance(1) must be finite and at least 0, got -2");
    CHECK((layer.running_mean().array() == 0).all());
    CHECK((layer.running_variance().array() == 1).all());
    CHECK(refusal([&] { BatchNorm<double>{two, broken, two, two}; }) ==
          "BatchNorm: bias(0) must be finite, got nan");
    CHECK(refusal([&] { BatchNorm<double>{two, one, two, two}; }) ==
          "BatchNorm: bias must have 2 entries, got 1");
    CHECK(refusal([&] { BatchNorm<double>{two, two, two, negative}; }) ==
          "BatchNorm: running variance(1) must be finite and at least 0, got -2");
    const Matrix<double> x = Matrix<double>::Ones(2, 3);
    Matrix<double> y(2, 3), dx(2, 3);
    // gain (x - mean) / sqrt(variance + epsilon) + bias: (1 - 1) and 2 (1 + 2) / 2 + 2.
    BatchNorm<double>{two, two, Vector<double>{{1.0, -2.0}}, Vector<double>{{1.0, 3.0}},
                      {.epsilon = 1}}
        .forward(x, y);
    CHECK((y.colwise() - Eigen::Vector2d(1, 5)).cwiseAbs().maxCoeff() <= 1e-15);
    BatchNorm<double>::Cache cache;
    layer.forward(x, y, cache);
    auto gradient = BatchNorm<double>{3}.zero_gradient();
    CHECK(refusal([&] { layer.backward(x, x, cache, gradient, dx); }) ==
          "BatchNorm: gradient must have 2 features, got 3");
}

}  // namespace
