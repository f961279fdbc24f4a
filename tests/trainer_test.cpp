// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/training/trainer.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <Eigen/QR>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/recorded_pass.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::parameters;
using test::random_matrix;
using test::same_bits;

using Curve = Dataset<double, Matrix<double>>;
using LinearBlock = StochasticDepth<Residual<Linear<double>>>;

/// Least squares by QR: [W b] with the smallest |W x + b - t|^2.
Eigen::MatrixXd least_squares(const Eigen::MatrixXd& x, const Eigen::MatrixXd& t) {
    Eigen::MatrixXd with_one(x.rows() + 1, x.cols());
    with_one << x, Eigen::RowVectorXd::Ones(x.cols());
    return with_one.transpose().colPivHouseholderQr().solve(t.transpose()).transpose();
}

Eigen::MatrixXd weights_and_bias(const Linear<double>& layer) {
    Eigen::MatrixXd joined(layer.outputs(), layer.inputs() + 1);
    joined << layer.weights(), layer.bias();
    return joined;
}

/// Mean squared error that writes down the targets of each batch: where they are the samples'
/// numbers, the order of the samples.
struct RecordingLoss {
    using Targets = Matrix<double>;
    std::vector<std::vector<Index>>* batches;

    double value_and_gradient(const ConstMatrixRef<double>& output,
                              const ConstMatrixRef<double>& targets,
                              MatrixRef<double> gradient) const {
        auto& batch = batches->emplace_back();
        for (Index j = 0; j < targets.cols(); ++j)
            batch.push_back(static_cast<Index>(targets(0, j)));
        return MeanSquaredError<double>{}.value_and_gradient(output, targets, gradient);
    }
};

/// Sample j is a number in [-1, 1), its target is j.
Curve numbered(Philox& random, Index samples) {
    Eigen::MatrixXd numbers(1, samples);
    for (Index j = 0; j < samples; ++j) numbers(0, j) = static_cast<double>(j);
    return {random_matrix<double>(random, 1, samples), numbers};
}

Stack<LinearBlock> narrow_network(std::uint32_t seed, Index depth) {
    Philox random{seed};
    std::vector<LinearBlock> blocks;
    for (Index l = 0; l < depth; ++l)
        blocks.emplace_back(Residual{Linear<double>{1, 1, random, 0.3}},
                            SurvivalProbability{0.9 - 0.1 * static_cast<double>(l)});
    return Stack{blocks};
}

TEST_CASE("Trainer: linear regression ends at the least-squares solution", "[trainer]") {
    Philox random{1};
    const auto x = random_matrix<double>(random, 3, 40);
    const Eigen::MatrixXd t =
        random_matrix<double>(random, 2, 3) * x + 0.5 * random_matrix<double>(random, 2, 40);
    const Trainer trainer{{.batch_size = 40,
                           .epochs = 600,
                           .optimizer = {.learning_rate = 0.4, .momentum = 0.8, .nesterov = true}}};
    Sequential network{Linear<double>{3, 2, random}};
    const auto history = trainer.fit(network, Curve{x, t}, MeanSquaredError<double>{});
    const Eigen::MatrixXd best = least_squares(x, t);
    CHECK(largest_difference(weights_and_bias(std::get<0>(network.layers())), best) <= 1e-10);
    // The last epoch's loss is that of the solution; noise keeps it away from 0.
    const double residual =
        (best.leftCols(3) * x + best.rightCols(1).replicate(1, 40) - t).squaredNorm() / 80;
    CHECK(residual > 1e-3);
    CHECK(std::abs(history.back().loss - residual) <= 1e-12);
}

TEST_CASE("Trainer: a skippable linear layer learns the same as one that is always kept",
          "[trainer]") {
    // The expected loss of x + s (W x + b) is p |x + W x + b - t|^2 + (1 - p) |x - t|^2: its
    // minimum is the least-squares fit of t - x, for any p.
    Philox random{2};
    const auto x = random_matrix<double>(random, 3, 30);
    const Eigen::MatrixXd exact_targets = random_matrix<double>(random, 3, 3) * x;
    const Eigen::MatrixXd noisy_targets =
        exact_targets + 0.3 * random_matrix<double>(random, 3, 30);
    const auto fitted = [&](const Eigen::MatrixXd& t, MaskScope scope) {
        Sequential network{
            LinearBlock{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.6}}};
        const Trainer trainer{{.batch_size = 30,
                               .epochs = 2000,
                               .seed = 3,
                               .mask_scope = scope,
                               .optimizer = {.learning_rate = 0.5, .momentum = 0.5}}};
        (void)trainer.fit(network, Curve{x, t}, MeanSquaredError<double>{});
        return weights_and_bias(std::get<0>(network.layers()).layer().branch());
    };
    CHECK(largest_difference(fitted(noisy_targets, MaskScope::batch),
                             least_squares(x, noisy_targets - x)) <= 1e-9);
    // With masks for each sample the steps are noisy, but for targets that can be met.
    CHECK(largest_difference(fitted(exact_targets, MaskScope::sample),
                             least_squares(x, exact_targets - x)) <= 1e-9);
}

/// A ring around a disc.
Dataset<double> rings(Philox& random, Index samples) {
    Eigen::MatrixXd x(2, samples);
    Eigen::VectorXi labels(samples);
    for (Index j = 0; j < samples; ++j) {
        labels(j) = static_cast<int>(j % 2);
        const double radius =
            labels(j) == 0 ? uniform<double>(random, 0.0, 0.7) : uniform<double>(random, 1.3, 2.0);
        const double angle = uniform<double>(random, 0.0, 2 * std::numbers::pi);
        x.col(j) << radius * std::cos(angle), radius * std::sin(angle);
    }
    return {x, labels, 2};
}

auto classifier(Philox& random, Index depth, double final_survival) {
    using Block = StochasticDepth<Residual<Sequential<Linear<double>, ReLU<double>>>>;
    const Eigen::VectorXd p = linear_decay(depth, final_survival);
    std::vector<Block> blocks;
    for (Index l = 0; l < depth; ++l)
        blocks.emplace_back(
            Residual{Sequential{Linear<double>{12, 12, random, 0.5}, ReLU<double>{}}},
            SurvivalProbability{p(l)});
    return Sequential{Linear<double>{2, 12, random}, Stack<Block>{blocks},
                      Linear<double>{12, 2, random}};
}

TEST_CASE("Trainer: two classes that no line separates are learned to zero error", "[trainer]") {
    for (const MaskScope scope : {MaskScope::sample, MaskScope::batch}) {
        Philox random{4};
        const auto data = rings(random, 160);
        auto network = classifier(random, 5, 0.8);
        const Trainer trainer{{.batch_size = 20,
                               .epochs = 80,
                               .seed = 5,
                               .mask_scope = scope,
                               .optimizer = {.momentum = 0.9},
                               .learning_rate = [](double share) { return 0.05 * (1 - share); }}};
        CHECK(error_rate(ExactExpectation{}(network, data.inputs()).mean, data.labels()) > 0.2);
        const auto history = trainer.fit(network, data, SoftmaxCrossEntropy<double>{});
        REQUIRE(history.size() == 80);
        CHECK(history.back().loss < 0.3 * history.front().loss);
        CHECK(error_rate(ExactExpectation{}(network, data.inputs()).mean, data.labels()) == 0.0);
        // And samples that it has not seen; the gap between disc and ring is wide.
        const auto unseen = rings(random, 400);
        CHECK(error_rate(ExactExpectation{}(network, unseen.inputs()).mean, unseen.labels()) <
              0.05);
    }
}

TEST_CASE("Trainer: the same options give the same bits, another seed does not", "[trainer]") {
    Philox random{6};
    const auto data = rings(random, 50);
    const auto trained = [&](std::uint64_t seed, MaskScope scope) {
        Philox weights{7};
        auto network = classifier(weights, 3, 0.5);
        const Trainer trainer{{.batch_size = 16, .epochs = 3, .seed = seed, .mask_scope = scope}};
        const auto history = trainer.fit(network, data, SoftmaxCrossEntropy<double>{});
        Eigen::VectorXd all = parameters(network);
        all.conservativeResize(all.size() + 3);
        for (Index e = 0; e < 3; ++e)
            all(all.size() - 3 + e) = history[static_cast<std::size_t>(e)].loss;
        return all;
    };
    for (const MaskScope scope : {MaskScope::sample, MaskScope::batch}) {
        CHECK(same_bits(trained(1, scope), trained(1, scope)));
        CHECK_FALSE(same_bits(trained(1, scope), trained(2, scope)));
    }
    CHECK_FALSE(same_bits(trained(1, MaskScope::sample), trained(1, MaskScope::batch)));
}

TEST_CASE("Trainer: each epoch takes every sample once, in an order of its own", "[trainer]") {
    Philox random{8};
    const Curve data = numbered(random, 23);
    const auto orders = [&](std::uint64_t seed, Index batch_size) {
        std::vector<std::vector<Index>> batches;
        auto network = narrow_network(9, 2);
        (void)Trainer{{.batch_size = batch_size, .epochs = 4, .seed = seed}}.fit(
            network, data, RecordingLoss{&batches});
        std::vector<std::vector<Index>> epochs(4);
        const auto steps = static_cast<std::size_t>((23 + batch_size - 1) / batch_size);
        REQUIRE(batches.size() == 4 * steps);
        for (std::size_t b = 0; b < batches.size(); ++b) {
            // Full batches, and at the end of an epoch what is left.
            const auto full = std::min<std::size_t>(static_cast<std::size_t>(batch_size), 23);
            const std::size_t last = 23 - (steps - 1) * full;
            REQUIRE(batches[b].size() == (b % steps + 1 == steps ? last : full));
            auto& order = epochs[b / steps];
            order.insert(order.end(), batches[b].begin(), batches[b].end());
        }
        return epochs;
    };
    const auto reference = orders(1, 10);
    std::vector<Index> everyone(23);
    std::iota(everyone.begin(), everyone.end(), Index{0});
    for (std::size_t e = 0; e < 4; ++e) {
        std::vector<Index> sorted = reference[e];
        std::sort(sorted.begin(), sorted.end());
        CHECK(sorted == everyone);
        CHECK(reference[e] != everyone);
        for (std::size_t other = 0; other < e; ++other) CHECK(reference[e] != reference[other]);
    }
    // A function of seed and epoch alone.
    for (const Index batch_size : {1, 7, 23, 1000}) CHECK(orders(1, batch_size) == reference);
    CHECK(orders(2, 10) != reference);
    CHECK(orders(std::uint64_t{1} << 40 | 1, 10) != reference);
}

TEST_CASE("Trainer: every order of the samples is as likely as any other", "[trainer]") {
    Philox random{10};
    constexpr Index samples = 8, epochs = 4000;
    std::vector<std::vector<Index>> batches;
    auto network = narrow_network(11, 0);
    (void)Trainer{{.batch_size = samples, .epochs = epochs, .seed = 12}}.fit(
        network, numbered(random, samples), RecordingLoss{&batches});
    Eigen::MatrixXd count = Eigen::MatrixXd::Zero(samples, samples);
    for (const auto& order : batches)
        for (Index place = 0; place < samples; ++place)
            ++count(place, order[static_cast<std::size_t>(place)]);
    // Rows and columns sum to the epochs, which leaves 7 * 7 degrees of freedom; a chi-square of 49
    // exceeds 110 once in 1e6 choices of seeds.
    const double expected = static_cast<double>(epochs) / samples;
    CHECK((count.array() - expected).square().sum() / expected < 110 * 8.0 / 7.0);
}

TEST_CASE("Trainer: the callbacks see every step, and the schedule the share that is done",
          "[trainer]") {
    Philox random{13};
    const Curve data = numbered(random, 11);
    std::vector<TrainingProgress> seen;
    std::vector<double> shares;
    auto network = narrow_network(14, 2);
    const Trainer trainer{
        {.batch_size = 4,
         .epochs = 3,
         .learning_rate =
             [&](double share) {
                 CHECK(shares.size() == seen.size());
                 shares.push_back(share);
                 return 0.001 / (1 + share);
             },
         .on_step = [&](const TrainingProgress& progress) { seen.push_back(progress); }}};
    const auto history = trainer.fit(network, data, MeanSquaredError<double>{});
    REQUIRE(seen.size() == 9);
    REQUIRE(shares.size() == 9);
    REQUIRE(history.size() == 3);
    for (Index s = 0; s < 9; ++s) {
        const TrainingProgress& progress = seen[static_cast<std::size_t>(s)];
        CHECK(progress.epoch == s / 3);
        CHECK(progress.epochs == 3);
        CHECK(progress.step == s % 3);
        CHECK(progress.steps == 3);
        CHECK(shares[static_cast<std::size_t>(s)] == static_cast<double>(s) / 9.0);
    }
    for (std::size_t e = 0; e < 3; ++e) {
        // Batches of 4, 4 and 3: a mean over samples, not over batches.
        const double mean =
            (4 * seen[3 * e].loss + 4 * seen[3 * e + 1].loss + 3 * seen[3 * e + 2].loss) / 11;
        CHECK(std::abs(history[e].loss - mean) <= 1e-13 * mean);
        CHECK(history[e].seconds >= 0);
        CHECK(history[e].full_depth_evaluations == 2 * 11.0);
    }
}

TEST_CASE("Trainer: no epochs leave the network as it was", "[trainer]") {
    Philox random{15};
    auto network = narrow_network(16, 3);
    const Eigen::VectorXd before = parameters(network);
    CHECK(Trainer{{.epochs = 0}}
              .fit(network, numbered(random, 5), MeanSquaredError<double>{})
              .empty());
    CHECK(same_bits(parameters(network), before));
}

/// Training in plain numbers: x + w_l x + b_l for each kept layer, the mean of (y - t)^2, and Sgd's
/// formulas for the layers that a sample kept.
struct PlainTraining {
    std::vector<double> w, b, vw, vb;
    double momentum, decay;
    bool nesterov;

    /// masks[j][l] is s_l of sample j.
    void step(double rate, const std::vector<double>& x, const std::vector<double>& t,
              const std::vector<SurvivalMask>& masks) {
        const std::size_t depth = w.size();
        std::vector<double> dw(depth), db(depth);
        std::vector<bool> kept(depth);
        for (std::size_t j = 0; j < x.size(); ++j) {
            std::vector<double> input(depth + 1);
            input[0] = x[j];
            for (std::size_t l = 0; l < depth; ++l)
                input[l + 1] =
                    input[l] + (masks[j][static_cast<Index>(l)] ? w[l] * input[l] + b[l] : 0.0);
            double d = 2 * (input[depth] - t[j]) / static_cast<double>(x.size());
            for (std::size_t l = depth; l-- > 0;) {
                if (!masks[j][static_cast<Index>(l)]) continue;
                kept[l] = true;
                dw[l] += d * input[l];
                db[l] += d;
                d += w[l] * d;
            }
        }
        for (std::size_t l = 0; l < depth; ++l) {
            if (!kept[l]) continue;
            update(rate, w[l], vw[l], dw[l]);
            update(rate, b[l], vb[l], db[l]);
        }
    }

    void update(double rate, double& parameter, double& velocity, double slope) const {
        slope += decay * parameter;
        velocity = momentum * velocity + slope;
        parameter -= rate * (nesterov ? slope + momentum * velocity : velocity);
    }
};

TEST_CASE(
    "Trainer: a training agrees with one in plain numbers, step s under the sampler's masks of step s",
    "[trainer]") {
    constexpr Index depth = 3, samples = 7, batch_size = 3, epochs = 5;
    for (const MaskScope scope : {MaskScope::sample, MaskScope::batch}) {
        for (const bool nesterov : {false, true}) {
            Philox random{17};
            const Curve data = numbered(random, samples);
            auto network = narrow_network(18, depth);
            const SgdOptions optimizer{
                .learning_rate = 9, .momentum = 0.6, .nesterov = nesterov, .weight_decay = 0.02};
            PlainTraining expected{{}, {}, {0, 0, 0}, {0, 0, 0}, 0.6, 0.02, nesterov};
            for (const LinearBlock& block : network.layers()) {
                expected.w.push_back(block.layer().branch().weights()(0, 0));
                expected.b.push_back(block.layer().branch().bias()(0));
            }
            const MaskSampler sampler{network.survival_probabilities(), 19};
            std::vector<std::vector<Index>> batches;
            double evaluations = 0;
            const Trainer trainer{
                {.batch_size = batch_size,
                 .epochs = epochs,
                 .seed = 19,
                 .mask_scope = scope,
                 .optimizer = optimizer,
                 .learning_rate = [](double share) { return 0.01 * (1.5 - share); }}};
            const auto history = trainer.fit(network, data, RecordingLoss{&batches});
            REQUIRE(batches.size() == 3 * epochs);
            for (std::size_t s = 0; s < batches.size(); ++s) {
                std::vector<double> x, t;
                std::vector<SurvivalMask> masks;
                const auto count = static_cast<Index>(batches[s].size());
                for (Index j = 0; j < count; ++j) {
                    const Index sample = batches[s][static_cast<std::size_t>(j)];
                    x.push_back(data.inputs()(0, sample));
                    t.push_back(data.targets()(0, sample));
                    masks.push_back(scope == MaskScope::batch ? sampler.sample(s)
                                                              : sampler.sample(s, count).mask(j));
                    evaluations += static_cast<double>(masks.back().count());
                }
                expected.step(0.01 * (1.5 - static_cast<double>(s) / 15.0), x, t, masks);
            }
            for (std::size_t l = 0; l < 3; ++l) {
                const Linear<double>& branch = network.layers()[l].layer().branch();
                CHECK(std::abs(branch.weights()(0, 0) - expected.w[l]) <= 1e-12);
                CHECK(std::abs(branch.bias()(0) - expected.b[l]) <= 1e-12);
            }
            double counted = 0;
            for (const EpochRecord& record : history) counted += record.layer_evaluations;
            CHECK(counted == evaluations);
        }
    }
}

/// y = x, and counts the columns that pass in either direction.
struct CountedIdentity {
    using Scalar = double;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;
    long* forward_columns;
    long* backward_columns;

    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        *forward_columns += x.cols();
        y = x;
    }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y, Cache&) const {
        forward(x, y);
    }
    Gradient zero_gradient() const { return {}; }
    void backward(const ConstMatrixRef<double>& x, const ConstMatrixRef<double>& dy, const Cache&,
                  Gradient&, MatrixRef<double> dx) const {
        *backward_columns += x.cols();
        dx = dy;
    }
};

TEST_CASE(
    "Trainer: layers run forward and backward for the samples that keep them, and history says so",
    "[trainer]") {
    long forward = 0, backward = 0;
    const auto counted = [&](double p) {
        return StochasticDepth{CountedIdentity{&forward, &backward}, SurvivalProbability{p}};
    };
    Philox random{20};
    const Curve data = numbered(random, 50);
    for (const MaskScope scope : {MaskScope::sample, MaskScope::batch}) {
        const Trainer trainer{{.batch_size = 8, .epochs = 3, .seed = 21, .mask_scope = scope}};
        const auto check = [&](auto layers) {
            // Slopes go no further back than to the first parameters.
            Sequential network{Linear<double>{data.features(), data.features(), random}, layers};
            forward = backward = 0;
            double evaluations = 0;
            for (const EpochRecord& record :
                 trainer.fit(network, data, MeanSquaredError<double>{})) {
                CHECK(record.full_depth_evaluations == 50.0 * static_cast<double>(network.depth()));
                CHECK(record.layer_evaluations > 0);
                CHECK(record.layer_evaluations < record.full_depth_evaluations);
                evaluations += record.layer_evaluations;
            }
            CHECK(static_cast<double>(forward) == evaluations);
            CHECK(backward == forward);
        };
        SECTION("one after another, scope " + std::to_string(static_cast<int>(scope))) {
            check(Sequential{counted(0.9), counted(0.5), counted(0.2)});
        }
        SECTION("one in another, scope " + std::to_string(static_cast<int>(scope))) {
            using Layer =
                StochasticDepth<Sequential<CountedIdentity, StochasticDepth<CountedIdentity>>>;
            check(Sequential{counted(0.5),
                             Layer{Sequential{CountedIdentity{&forward, &backward}, counted(0.6)},
                                   SurvivalProbability{0.4}}});
        }
    }
}

TEST_CASE(
    "Trainer: the mean stochastic gradient over all masks is the gradient of the expected loss",
    "[trainer]") {
    Philox random{22};
    // Smooth branches, one of them around a layer that may be skipped itself, and a shortcut of its
    // own.
    const auto block = [&](Index width, double p) {
        return StochasticDepth{
            Residual{Sequential{Linear<double>{width, width, random}, Tanh<double>{}}},
            SurvivalProbability{p}};
    };
    Sequential network{
        block(3, 0.8),
        StochasticDepth{Residual{Sequential{Linear<double>{3, 3, random}, block(3, 0.3)}},
                        SurvivalProbability{0.6}},
        StochasticDepth{Residual{Sequential{Linear<double>{3, 2, random}, Tanh<double>{}},
                                 Linear<double>{3, 2, random}},
                        SurvivalProbability{0.45}}};
    using Network = decltype(network);
    constexpr Index depth = 4, batch = 3;
    REQUIRE(network.depth() == depth);
    const auto x = random_matrix<double>(random, 3, batch);
    const auto t = random_matrix<double>(random, 2, batch);
    const MeanSquaredError<double> loss;

    test::RecordedPass<Network> pass;
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(parameters(network).size());
    const auto rows = enumerate_masks(network, x);
    for (const auto& row : rows) {
        auto gradient = network.zero_gradient();
        Matrix<double> h = x;
        pass.forward(network, h, detail::MaskView{row.mask});
        CHECK(largest_difference(h, row.output) <= 1e-14);
        Matrix<double> d(2, batch);
        (void)loss.value_and_gradient(h, t, d);
        pass.backward(network, d, gradient);
        mean += row.probability * test::slopes(network, gradient);
    }

    // Central differences with h = 1e-5: about h^2 = 1e-10 from the third derivative, and 1e-16 / h
    // = 1e-11 from rounding.
    const auto expected_loss = [&] {
        double sum = 0;
        for (const auto& row : enumerate_masks(network, x))
            sum += row.probability * loss.value(row.output, t);
        return sum;
    };
    Index at = 0;
    test::for_each_parameter(network, [&](double& parameter) {
        const double value = parameter;
        parameter = value + 1e-5;
        const double above = expected_loss();
        parameter = value - 1e-5;
        const double below = expected_loss();
        parameter = value;
        INFO("parameter " << at);
        CHECK(std::abs((above - below) / 2e-5 - mean(at)) <= 2e-9);
        ++at;
    });
    CHECK(mean.cwiseAbs().minCoeff() > 0);

    SECTION("and one pass with a mask for each sample has the sum of these gradients") {
        std::vector<SurvivalMask> masks;
        for (const auto& row : rows)
            for (Index j = 0; j < batch; ++j) masks.push_back(row.mask);
        const auto all = SurvivalMasks::from_masks(masks);
        auto gradient = network.zero_gradient();
        Matrix<double> h = x.replicate(1, 16);
        pass.forward(network, h, detail::MaskView{all});
        Matrix<double> d(2, 16 * batch);
        (void)loss.value_and_gradient(h, t.replicate(1, 16), d);
        // Each mask with its probability in place of the mean's 1/16.
        for (Index k = 0; k < 16; ++k)
            d.middleCols(k * batch, batch) *= 16 * rows[static_cast<std::size_t>(k)].probability;
        pass.backward(network, d, gradient);
        CHECK(largest_difference(test::slopes(network, gradient), mean) <= 1e-14);
    }
}

/// Mean squared error until its call number `last`; from then on not a number.
struct FailingLoss {
    using Targets = Matrix<double>;
    int* calls;
    int last;
    double bad;

    double value_and_gradient(const ConstMatrixRef<double>& output,
                              const ConstMatrixRef<double>& targets,
                              MatrixRef<double> gradient) const {
        const double value =
            MeanSquaredError<double>{}.value_and_gradient(output, targets, gradient);
        return ++*calls < last ? value : bad;
    }
};

TEST_CASE(
    "Trainer: a loss that is not finite ends the training, and the network is as the last step left it",
    "[trainer]") {
    Philox random{23};
    const Curve data = numbered(random, 10);
    const struct {
        double bad;
        std::string text;
    } losses[] = {{std::numeric_limits<double>::quiet_NaN(), "nan"},
                  {std::numeric_limits<double>::infinity(), "inf"},
                  {-std::numeric_limits<double>::infinity(), "-inf"}};
    for (const auto& row : losses) {
        int calls = 0;
        auto network = narrow_network(24, 3);
        Eigen::VectorXd last_step;
        const Trainer trainer{
            {.batch_size = 2,
             .epochs = 3,
             .optimizer = {.learning_rate = 0.001},
             .on_step = [&](const TrainingProgress&) { last_step = parameters(network); }}};
        // 5 steps in an epoch: call 8 is step 7, from 0 over all epochs.
        const std::string message = thrown<std::runtime_error>([&] {
            (void)trainer.fit(network, data, FailingLoss{&calls, 8, row.bad});
        });
        INFO(message);
        CHECK(holds(message, "TrainingStep: loss must be finite", row.text, "step 7"));
        CHECK(calls == 8);
        REQUIRE(last_step.size() > 0);
        CHECK(same_bits(parameters(network), last_step));
        CHECK_FALSE(same_bits(last_step, parameters(narrow_network(24, 3))));
    }
    SECTION("as too large a learning rate makes it") {
        auto network = narrow_network(25, 3);
        const Trainer trainer{{.batch_size = 2, .epochs = 500, .optimizer = {.learning_rate = 50}}};
        const std::string message = thrown<std::runtime_error>(
            [&] { (void)trainer.fit(network, data, MeanSquaredError<double>{}); });
        INFO(message);
        CHECK(holds(message, "TrainingStep: loss must be finite", "learning rate"));
    }
}

TEST_CASE("Trainer: float networks train, and batches of one sample are batches", "[trainer]") {
    Philox random{26};
    const auto x = random_matrix<float>(random, 2, 30);
    const Eigen::MatrixXf weights = random_matrix<float>(random, 2, 2);
    const Dataset<float, Matrix<float>> data{x, Matrix<float>(weights * x)};
    Sequential network{
        StochasticDepth{Residual{Linear<float>{2, 2, random}}, SurvivalProbability{0.5}}};
    const Trainer trainer{{.batch_size = 1, .epochs = 80, .optimizer = {.learning_rate = 0.2}}};
    const auto history = trainer.fit(network, data, MeanSquaredError<float>{});
    const Eigen::MatrixXf branch = std::get<0>(network.layers()).layer().branch().weights();
    CHECK(largest_difference(branch, Eigen::MatrixXf(weights - Eigen::MatrixXf::Identity(2, 2))) <=
          1e-5);
    CHECK(history.back().loss < history.front().loss);
}

}  // namespace
