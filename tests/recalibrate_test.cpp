// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/recalibrate.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <tuple>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Average over batches, weighted by samples, of mean and unbiased variance.
struct Averages {
    Eigen::VectorXd mean, variance;
    double samples = 0;

    explicit Averages(Index features) : mean(Eigen::VectorXd::Zero(features)), variance(mean) {}

    void add(const Matrix<double>& x) {
        if (x.cols() < 2) return;
        const auto n = static_cast<double>(x.cols());
        const Eigen::VectorXd m = x.rowwise().mean();
        const Eigen::VectorXd v = (x.colwise() - m).rowwise().squaredNorm() / (n - 1);
        mean = (samples * mean + n * m) / (samples + n);
        variance = (samples * variance + n * v) / (samples + n);
        samples += n;
    }
};

TEST_CASE("recalibrate: running statistics become the averages of those of the batches",
          "[recalibrate]") {
    Philox random{1};
    const Index features = 5;
    const Linear<double> linear_layer = linear<double>(random, features, features);
    using Inner = Sequential<Linear<double>, BatchNorm<double>>;
    Sequential network{BatchNorm<double>{features},
                       StochasticDepth{Residual{Inner{linear_layer, BatchNorm<double>{features}}},
                                       SurvivalProbability{0.4}}};
    // What was there has no part in it.
    detail::visit_state(network, [](const char* name, auto& parameter) {
        if (std::string(name) == "running_mean") parameter.array() += 1e6;
        if (std::string(name) == "running_variance") parameter.setConstant(nan);
    });
    // 8 batches of 13 and one of a single sample.
    const Matrix<double> x = random_matrix<double>(random, features, 105);
    const MaskSampler sampler{Eigen::VectorXd::Constant(1, 0.4), 77};
    Averages first(features), inner(features);
    for (Index begin = 0, batch = 0; begin < 104; begin += 13, ++batch) {
        const Matrix<double> part = x.middleCols(begin, 13);
        first.add(part);
        // The first layer has gain 1 and bias 0.
        const Eigen::VectorXd mean = part.rowwise().mean();
        Matrix<double> z = part.colwise() - mean;
        const Eigen::VectorXd variance = z.rowwise().squaredNorm() / 13;
        z = ((variance.array() + 1e-5).rsqrt().matrix().asDiagonal() * z).eval();
        const SurvivalMasks masks = sampler.sample(static_cast<std::uint64_t>(batch), 13);
        Matrix<double> kept(features, 13);
        Index count = 0;
        for (Index j = 0; j < 13; ++j)
            if (masks(0, j)) kept.col(count++) = z.col(j);
        const Matrix<double> h =
            (linear_layer.weights() * kept.leftCols(count)).colwise() + linear_layer.bias();
        inner.add(h);
    }
    REQUIRE(inner.samples < 0.6 * first.samples);
    for (const unsigned threads : {1u, 2u}) {
        auto copy = network;
        recalibrate(copy, x, {.batch_size = 13, .seed = 77, .threads = threads});
        const BatchNorm<double>& a = std::get<0>(copy.layers());
        const BatchNorm<double>& b =
            std::get<1>(std::get<1>(copy.layers()).layer().branch().layers());
        CHECK(largest_difference(a.running_mean(), first.mean) <= 1e-12);
        CHECK(largest_difference(a.running_variance(), first.variance) <= 1e-12);
        CHECK(largest_difference(b.running_mean(), inner.mean) <= 1e-12);
        CHECK(largest_difference(b.running_variance(), inner.variance) <= 1e-12);
        CHECK((a.gain().array() == 1).all());
    }
    // One batch with everything: the statistics of the data.
    recalibrate(network, x, {.batch_size = 1000});
    Averages all(features);
    all.add(x);
    CHECK(largest_difference(std::get<0>(network.layers()).running_mean(), all.mean) <= 1e-12);
    CHECK(largest_difference(std::get<0>(network.layers()).running_variance(), all.variance) <=
          1e-12);
}

TEST_CASE("recalibrate: scaling is that of the training", "[recalibrate]") {
    Philox random{2};
    const Index features = 3;
    const Linear<double> branch = linear<double>(random, features, features);
    Sequential network{StochasticDepth{Residual{branch}, SurvivalProbability{0.5}},
                       BatchNorm<double>{features}};
    const Matrix<double> x = random_matrix<double>(random, features, 40);
    const SurvivalMasks masks = MaskSampler{Eigen::VectorXd::Constant(1, 0.5), 0}.sample(0, 40);
    for (const double scale : {1.0, 2.0}) {
        recalibrate(network, x, {.scaling = scale == 1 ? Scaling::none : Scaling::inverted});
        Matrix<double> h = x;
        for (Index j = 0; j < 40; ++j)
            if (masks(0, j)) h.col(j) += scale * (branch.weights() * x.col(j) + branch.bias());
        Averages expected(features);
        expected.add(h);
        const BatchNorm<double>& layer = std::get<1>(network.layers());
        CHECK(largest_difference(layer.running_mean(), expected.mean) <= 1e-12);
        CHECK(largest_difference(layer.running_variance(), expected.variance) <= 1e-12);
    }
}

TEST_CASE("recalibrate: dropout draws for each batch anew, as in a training step",
          "[recalibrate]") {
    Philox random{3};
    const Index features = 4, count = 30, batches = 3;
    // With momentum 1 a step leaves its own statistics.
    const Sequential network{Dropout<double>{0.5}, BatchNorm<double>{features, {.momentum = 1.0}}};
    const Matrix<double> part = random_matrix<double>(random, features, count);
    // The same samples in every batch: only dropout tells the batches apart.
    const Matrix<double> x = part.replicate(1, batches);
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(features), variance = mean, first_mean = mean;
    for (Index batch = 0; batch < batches; ++batch) {
        auto trained = network;
        TrainingStep step{trained, MeanSquaredError<double>{}, TrainingStepOptions{.seed = 9}};
        (void)step.differentiate(trained, part,
                                 Matrix<double>(Matrix<double>::Zero(features, count)),
                                 static_cast<std::uint64_t>(batch));
        step.finish(trained);
        const BatchNorm<double>& layer = std::get<1>(trained.layers());
        mean += layer.running_mean() / batches;
        variance += layer.running_variance() / batches;
        if (batch == 0) first_mean = layer.running_mean();
    }
    REQUIRE(largest_difference(mean, first_mean) > 1e-3);
    for (const unsigned threads : {1u, 2u}) {
        auto copy = network;
        recalibrate(copy, x, {.batch_size = count, .seed = 9, .threads = threads});
        const BatchNorm<double>& layer = std::get<1>(copy.layers());
        CHECK(largest_difference(layer.running_mean(), mean) <= 1e-13);
        CHECK(largest_difference(layer.running_variance(), variance) <= 1e-13);
    }
}

TEST_CASE("recalibrate: refuses what is no batch, and changes nothing then", "[recalibrate]") {
    Sequential network{BatchNorm<double>{3}};
    const Matrix<double> x = Matrix<double>::Ones(3, 4);
    CHECK(refusal([&] { recalibrate(network, x, {.batch_size = 1}); }) ==
          "recalibrate: batch_size must be at least 2, got 1");
    CHECK(refusal([&] { recalibrate(network, x, {.threads = 0}); }) ==
          "recalibrate: threads must be at least 1, got 0");
    CHECK(refusal([&] { recalibrate(network, x.leftCols(1)); }) ==
          "recalibrate: x must have at least 2 columns, got 1");
    CHECK(refusal([&] { recalibrate(network, x.topRows(2)); }) ==
          "BatchNorm: input must have 3 rows, got 2");
    CHECK((std::get<0>(network.layers()).running_mean().array() == 0).all());
}

}  // namespace
