// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/trainer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::parameters;
using test::random_matrix;
using test::same_bits;

using Curve = Dataset<double, Matrix<double>>;
using LinearBlock = StochasticDepth<Residual<Linear<double>>>;

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

}  // namespace
