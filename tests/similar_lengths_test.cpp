// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/similar_lengths.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/text/lengths.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/trainer.hpp>

#include "support/bag_of_tokens.hpp"
#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;
using test::BagOfTokens;
using test::same_bits;

using Network =
    Sequential<BagOfTokens, StochasticDepth<Residual<Sequential<Linear<double>, Tanh<double>>>>,
               Linear<double>>;

constexpr Index ids = 11, classes = 3;

Network network_of(std::uint32_t seed) {
    Philox random{seed};
    return Sequential{
        BagOfTokens{test::random_matrix<double>(random, 4, ids)},
        StochasticDepth{Residual{Sequential{Linear<double>{4, 4, random}, Tanh<double>{}}},
                        SurvivalProbability{0.7}},
        Linear<double>{4, classes, random}};
}

Dataset<double> sequences(std::uint32_t seed, Index samples, Index positions, Index longest) {
    Philox random{seed};
    MatrixXd x = MatrixXd::Constant(positions, samples, -1);
    VectorXi labels(samples);
    for (Index j = 0; j < samples; ++j) {
        const Index length = 1 + static_cast<Index>(random() % static_cast<std::uint64_t>(longest));
        for (Index t = 0; t < length; ++t) x(t, j) = static_cast<double>(random() % ids);
        labels(j) = static_cast<int>(random() % classes);
    }
    return {x, labels, classes};
}

/// What an epoch sees: samples and rows, batch after batch.
struct Batches {
    std::vector<std::vector<Index>> samples;
    [[nodiscard]] std::vector<Index> all() const {
        std::vector<Index> order;
        for (const auto& batch : samples) order.insert(order.end(), batch.begin(), batch.end());
        return order;
    }
};

/// An augmentation that changes nothing and notes what comes.
struct Listener {
    Batches* heard;
    void apply(std::uint64_t, std::span<const Index> samples, const ConstMatrixRef<double>& x,
               MatrixRef<double> y) const {
        heard->samples.emplace_back(samples.begin(), samples.end());
        y = x;
    }
};

Batches batches_of(const Dataset<double>& data, Index batch_size, std::uint64_t seed, Index epochs,
                   const std::optional<SimilarLengths>& batching) {
    Network network = network_of(1);
    Batches heard;
    (void)Trainer{{.batch_size = batch_size,
                   .epochs = epochs,
                   .seed = seed,
                   .augmentation = Listener{&heard},
                   .batching = batching}}
        .fit(network, data, SoftmaxCrossEntropy<double>{});
    return heard;
}

/// Entries that are computed where each batch has the rows of its longest sequence.
Index cells(const Batches& batches, const std::vector<Index>& lengths) {
    Index sum = 0;
    for (const auto& batch : batches.samples) {
        Index longest = 0;
        for (const Index j : batch)
            longest = std::max(longest, lengths[static_cast<std::size_t>(j)]);
        sum += longest * static_cast<Index>(batch.size());
    }
    return sum;
}

TEST_CASE("SimilarLengths: the order is the random one, sorted in windows, batches shuffled",
          "[similar_lengths]") {
    const Index samples = 103, batch_size = 8, window = 4;
    const Dataset<double> data = sequences(5, samples, 30, 30);
    const std::vector<Index> lengths = lengths_of(data.inputs());
    const Batches plain = batches_of(data, batch_size, 9, 2, std::nullopt);
    const Batches sorted = batches_of(data, batch_size, 9, 2, SimilarLengths{window});
    REQUIRE(sorted.samples.size() == 26);
    for (std::size_t epoch = 0; epoch < 2; ++epoch) {
        // A plain loop over the windows of the random order.
        std::vector<std::vector<Index>> expected;
        for (std::size_t first = 0; first < 12; first += window) {
            std::vector<Index> some;
            for (std::size_t b = first; b < std::min<std::size_t>(first + window, 12); ++b) {
                const auto& batch = plain.samples[13 * epoch + b];
                some.insert(some.end(), batch.begin(), batch.end());
            }
            std::stable_sort(some.begin(), some.end(), [&](Index a, Index b) {
                return lengths[static_cast<std::size_t>(a)] < lengths[static_cast<std::size_t>(b)];
            });
            for (auto at = some.begin(); at != some.end(); at += batch_size)
                expected.emplace_back(at, at + batch_size);
        }
        const auto begin = sorted.samples.begin() + static_cast<std::ptrdiff_t>(13 * epoch);
        std::vector<std::vector<Index>> found(begin, begin + 12);
        CHECK_FALSE(found == expected);  // batches come in random order
        CHECK(std::is_permutation(found.begin(), found.end(), expected.begin()));
        // What fills no batch is a random remainder.
        CHECK(sorted.samples[13 * epoch + 12] == plain.samples[13 * epoch + 12]);
    }
    CHECK(sorted.samples[0] != sorted.samples[13]);
    CHECK(batches_of(data, batch_size, 9, 2, SimilarLengths{window}).samples == sorted.samples);
    CHECK(batches_of(data, batch_size, 8, 2, SimilarLengths{window}).samples != sorted.samples);
}

TEST_CASE("SimilarLengths: wider windows leave less padding, and lose no sample",
          "[similar_lengths]") {
    const Dataset<double> data = sequences(6, 400, 40, 40);
    const std::vector<Index> lengths = lengths_of(data.inputs());
    Index fewest = 0;
    for (const Index length : lengths) fewest += length;
    Index before = 400 * 40;
    for (const Index window : {Index{1}, Index{4}, Index{25}, Index{1} << 62}) {
        const Batches batches = batches_of(data, 16, 1, 1, SimilarLengths{window});
        const Index now = cells(batches, lengths);
        CHECK((window > 25 ? now <= before : now < before));
        before = now;
        std::vector<Index> all = batches.all();
        std::sort(all.begin(), all.end());
        for (Index j = 0; j < 400; ++j) CHECK(all[static_cast<std::size_t>(j)] == j);
    }
    CHECK(static_cast<double>(before) < 1.05 * static_cast<double>(fewest));
    // Fewer samples than a batch: one batch, in random order.
    CHECK(batches_of(data.head(5), 16, 1, 1, SimilarLengths{}).samples ==
          batches_of(data.head(5), 16, 1, 1, std::nullopt).samples);
}

TEST_CASE("SimilarLengths: a training takes the steps of a loop over cut batches",
          "[similar_lengths]") {
    const Dataset<double> data = sequences(7, 50, 20, 12);
    const SoftmaxCrossEntropy<double> loss;
    const Batches batches = batches_of(data, 8, 3, 2, SimilarLengths{3});
    const std::vector<Index> lengths = lengths_of(data.inputs());

    Network expected = network_of(2);
    Sgd<Network> by_hand{expected, {.learning_rate = 0.05}};
    TrainingStep step{expected, loss, {.seed = 3}};
    std::uint64_t t = 0;
    for (const auto& batch : batches.samples) {
        Index rows = 0;
        for (const Index j : batch) rows = std::max(rows, lengths[static_cast<std::size_t>(j)]);
        CHECK(rows < 20);
        MatrixXd x(rows, static_cast<Index>(batch.size()));
        VectorXi labels(x.cols());
        for (Index j = 0; j < x.cols(); ++j) {
            const Index sample = batch[static_cast<std::size_t>(j)];
            x.col(j) = data.inputs().col(sample).head(rows);
            labels(j) = data.labels()(sample);
        }
        step.differentiate(expected, x, labels, t++);
        by_hand.step(expected, step.gradient());
        step.finish(expected);
    }

    Network trained = network_of(2);
    const TrainerOptions options{.batch_size = 8,
                                 .epochs = 2,
                                 .seed = 3,
                                 .batching = SimilarLengths{3},
                                 .optimizer = {.learning_rate = 0.05}};
    (void)Trainer{options}.fit(trained, data, loss);
    CHECK(same_bits(test::parameters(trained), test::parameters(expected)));

    // Rows without any token change nothing.
    Network padded = network_of(2);
    MatrixXd more = MatrixXd::Constant(31, 50, -1);
    more.topRows(20) = data.inputs();
    (void)Trainer{options}.fit(padded, Dataset<double>{more, data.labels(), classes}, loss);
    CHECK(same_bits(test::parameters(padded), test::parameters(expected)));
}

TEST_CASE("SimilarLengths: a training that goes on in the middle of an epoch has the same bits",
          "[similar_lengths]") {
    const Dataset<double> data = sequences(8, 45, 15, 15);
    const SoftmaxCrossEntropy<double> loss;
    const auto options = [](Index first_step) {
        return TrainerOptions{.batch_size = 8,
                              .epochs = 3,
                              .first_step = first_step,
                              .seed = 4,
                              .batching = SimilarLengths{2},
                              .optimizer = {.learning_rate = 0.05}};
    };
    std::vector<Network> after_steps;
    Network whole = network_of(3);
    TrainerOptions watched = options(0);
    watched.on_step = [&](const TrainingProgress&) { after_steps.push_back(whole); };
    (void)Trainer{watched}.fit(whole, data, loss);
    REQUIRE(after_steps.size() == 18);
    for (const Index done : {1, 5, 6, 10, 17}) {
        Network network = after_steps[static_cast<std::size_t>(done - 1)];
        (void)Trainer{options(done)}.fit(network, data, loss);
        CHECK(same_bits(test::parameters(network), test::parameters(whole)));
    }
}

TEST_CASE("SimilarLengths: the validation loss is that of all samples", "[similar_lengths]") {
    const Dataset<double> data = sequences(9, 20, 12, 12), validation = sequences(10, 600, 25, 20);
    const SoftmaxCrossEntropy<double> loss;
    for (const Scaling scaling : {Scaling::none, Scaling::inverted}) {
        Network network = network_of(4);
        const auto history =
            Trainer{{.epochs = 2, .scaling = scaling, .batching = SimilarLengths{}}}.fit(
                network, data, loss, validation);
        const MatrixXd y = scaling == Scaling::none
                               ? WeightScaling{}(network, validation.inputs()).mean
                               : network(validation.inputs());
        CHECK(std::abs(history.back().validation_loss - loss.value(y, validation.labels())) <=
              1e-13);
    }
}

TEST_CASE("SimilarLengths: sequences without tokens keep a row, and bad windows are refused",
          "[similar_lengths]") {
    Eigen::MatrixXf none = Eigen::MatrixXf::Constant(4, 2, -1), spare;
    detail::cut_to_longest(none, spare);
    CHECK(none == Eigen::MatrixXf::Constant(1, 2, -1));
    Eigen::MatrixXf inner{{-1, 2}, {3, -1}, {-1, -1}};
    detail::cut_to_longest(inner, spare);
    CHECK(inner == Eigen::MatrixXf{{-1, 2}, {3, -1}});
    for (const Index window : {0, -3})
        CHECK(test::refusal([&] {
                  (void)Trainer{{.batching = SimilarLengths{window}}};
              }).starts_with("Trainer: window of batching must be at least 1, got "));
}

}  // namespace
