// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel.hpp>

#include <bit>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/pass/protocol.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {
namespace sd = stochastic_depth;
using sd::Index;

constexpr Index features = 4, classes = 3;

/// Plain layers around skippable ones, with batch normalisation, dropout, layers inside layers, and one
/// that is always kept.
auto network_of(std::uint64_t seed) {
    sd::Philox random{seed};
    const auto linear = [&](Index inputs, Index outputs) {
        return sd::Linear<float>{inputs, outputs, random, 1.0};
    };
    const auto block = [&](double p) {
        return sd::StochasticDepth{
            sd::Residual{sd::Sequential{linear(6, 6), sd::BatchNorm<float>{6}, sd::ReLU<float>{},
                                        sd::Dropout<float>{0.3}, linear(6, 6)}},
            sd::SurvivalProbability{p}};
    };
    return sd::Sequential{
        linear(features, 6), sd::Stack{std::vector{block(0.4), block(1.0), block(0.2)}},
        sd::StochasticDepth{sd::Residual{sd::Sequential{linear(6, 6), block(0.5)}},
                            sd::SurvivalProbability{0.6}},
        linear(6, classes)};
}
using Network = decltype(network_of(0));

struct Batch {
    sd::Matrix<float> x;
    Eigen::VectorXi labels;
};
Batch batch_of(Index samples, std::uint64_t t) {
    sd::Philox random{1000 + t};
    return {sd::test::random_matrix<float>(random, features, samples),
            sd::test::random_labels(random, samples, classes)};
}

/// The bits of all that training leaves of a network.
using Bits = std::vector<std::uint32_t>;
template <class Net>
Bits bits_of(const Net& network) {
    Bits numbers;
    const auto add = [&](const char*, const auto& matrix) {
        for (Index i = 0; i < matrix.size(); ++i)
            numbers.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(matrix.data()[i])));
    };
    sd::detail::visit_parameters(network, add);
    sd::detail::visit_state(network, add);
    return numbers;
}

/// What steps of training make of the network; `losses` has their losses.
Bits trained(MPI_Comm ranks, const sd::DataParallelOptions& options, Index samples,
             std::uint64_t steps, std::vector<double>& losses) {
    Network network = network_of(1);
    sd::DataParallel step{network, sd::SoftmaxCrossEntropy<float>{}, options, ranks};
    sd::Sgd optimizer{network, {.learning_rate = 0.01, .momentum = 0.5}};
    for (std::uint64_t t = 0; t < steps; ++t) {
        const Batch batch = batch_of(samples, t);
        losses.push_back(step.differentiate(network, batch.x, batch.labels, t).loss);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
    }
    return bits_of(network);
}

int ranks() {
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size;
}

/// Ranks that share their cores wait long for each other: the number of steps is what this costs.
void check_any_ranks(const sd::DataParallelOptions& options, std::uint64_t steps) {
    std::vector<double> losses, expected_losses;
    const Bits bits = trained(MPI_COMM_WORLD, options, 21, steps, losses);
    CHECK(bits == trained(MPI_COMM_SELF, options, 21, steps, expected_losses));
    CHECK(losses == expected_losses);
}

TEST_CASE("any number of ranks makes the same network, in all mask scopes and scalings") {
    for (const auto scope : {sd::MaskScope::batch, sd::MaskScope::sample, sd::MaskScope::subset})
        for (const auto scaling : {sd::Scaling::none, sd::Scaling::inverted})
            check_any_ranks({.mask_scope = scope, .scaling = scaling, .seed = 7, .shards = 8}, 100);
}

TEST_CASE("any number of ranks makes the same network of any number of shards") {
    for (const Index shards : {1, 3, 5, 13}) check_any_ranks({.seed = 7, .shards = shards}, 10);
}

TEST_CASE("any number of ranks makes the same network of batches smaller than their shards") {
    for (const Index samples : {0, 1, 5}) {
        std::vector<double> losses, expected_losses;
        const sd::DataParallelOptions options{.seed = 7, .threads = 2, .shards = 8};
        const Bits bits = trained(MPI_COMM_WORLD, options, samples, 5, losses);
        CHECK(bits ==
              trained(MPI_COMM_SELF, {.seed = 7, .shards = 8}, samples, 5, expected_losses));
        CHECK(losses == expected_losses);
        CHECK((bits == bits_of(network_of(1))) == (samples == 0));
    }
}

TEST_CASE(
    "the shards' shares are added in a tree, and the network takes the mean of their statistics") {
    const Batch batch = batch_of(20, 3);
    const sd::SoftmaxCrossEntropy<float> loss;
    const Network network = network_of(1);
    sd::DataParallel all{network, loss, {.seed = 7, .shards = 3}, MPI_COMM_WORLD};
    const sd::StepLedger ledger = all.differentiate(network, batch.x, batch.labels, 5);

    sd::TrainingStep step{network, loss, {.seed = 7}};
    std::vector<Eigen::VectorXf> shares, changes;
    double losses[3], evaluations = 0;
    const auto state = [](const Network& of) {
        std::vector<float> numbers;
        sd::detail::visit_state(of, [&](const char*, const auto& matrix) {
            numbers.insert(numbers.end(), matrix.data(), matrix.data() + matrix.size());
        });
        return Eigen::VectorXf(Eigen::VectorXf::Map(numbers.data(), Index(numbers.size())));
    };
    const Eigen::VectorXf before = state(network);
    for (const auto& [first, count] : {std::pair<Index, Index>{0, 7}, {7, 7}, {14, 6}}) {
        const auto part = step.differentiate(network, batch.x.middleCols(first, count),
                                             batch.labels.segment(first, count), 5, {first, 20});
        losses[shares.size()] = part.loss;
        evaluations += part.layer_evaluations;
        shares.push_back(sd::test::slopes(network, step.gradient()).cast<float>());
        Network copy = network;
        step.finish(copy);
        const Eigen::VectorXd change = (state(copy).cast<double>() - before.cast<double>());
        changes.push_back((static_cast<double>(count) / 20 * change).cast<float>());
    }
    const Eigen::VectorXf sum = (shares[0] + shares[1]) + shares[2];
    CHECK(sd::test::same_bits(
        Eigen::VectorXf(sd::test::slopes(network, all.gradient()).cast<float>()), sum));
    CHECK(ledger.loss == (losses[0] + losses[1]) + losses[2]);
    CHECK(ledger.layer_evaluations == evaluations);
    CHECK(ledger.full_depth_evaluations == 20.0 * static_cast<double>(network.depth()));

    Network moved = network;
    all.finish(moved);
    const Eigen::VectorXf change = (changes[0] + changes[1]) + changes[2];
    CHECK(change.norm() > 0);
    CHECK(sd::test::same_bits(
        state(moved),
        Eigen::VectorXf((before.cast<double>() + change.cast<double>()).cast<float>())));
    CHECK(sd::test::slopes(network, all.gradient()).isZero(0));
}

TEST_CASE("one shard is what TrainingStep computes, and calls between two finishes add up") {
    const Batch first = batch_of(9, 1), second = batch_of(4, 2);
    const Network network = network_of(1);
    const sd::SoftmaxCrossEntropy<float> loss;
    sd::DataParallel on_ranks{network, loss, {.seed = 3, .shards = 1}, MPI_COMM_WORLD};
    sd::TrainingStep here{network, loss, {.seed = 3}};
    for (const std::uint64_t t : {std::uint64_t{11}, std::uint64_t{12}}) {
        const auto a = on_ranks.differentiate(network, first.x, first.labels, t);
        const auto b = here.differentiate(network, first.x, first.labels, t);
        CHECK(a.loss == b.loss);
        CHECK(a.layer_evaluations == b.layer_evaluations);
        CHECK(a.expected_layer_evaluations == b.expected_layer_evaluations);
        const auto of_ranks = sd::test::slopes(network, on_ranks.gradient());
        const auto of_one = sd::test::slopes(network, here.gradient());
        // Here the second way back adds to the first one's sums, there it is a sum of its own.
        CHECK(sd::test::largest_difference(of_ranks, of_one) <= (t == 11 ? 0 : 1e-6));
    }
}

TEST_CASE("a rank needs its own samples alone") {
    const Batch batch = batch_of(21, 1);
    const Network network = network_of(1);
    const sd::SoftmaxCrossEntropy<float> loss;
    sd::DataParallel of_whole{network, loss, {.seed = 3, .shards = 5}, MPI_COMM_WORLD};
    sd::DataParallel of_parts{network, loss, {.seed = 3, .shards = 5}, MPI_COMM_WORLD};
    const sd::SampleRange own = of_parts.samples_of_rank(21);
    const auto whole = of_whole.differentiate(network, batch.x, batch.labels, 4);
    const auto parts =
        of_parts.differentiate(network, batch.x.middleCols(own.first, own.count),
                               batch.labels.segment(own.first, own.count), 4, {own.first, 21});
    CHECK(whole.loss == parts.loss);
    CHECK(sd::test::same_bits(sd::test::slopes(network, of_whole.gradient()),
                              sd::test::slopes(network, of_parts.gradient())));
    // Together the ranks have each sample once.
    int samples = static_cast<int>(own.count);
    MPI_Allreduce(MPI_IN_PLACE, &samples, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(samples == 21);
}

/// Layers whose type is known at run time alone, one of the user's, and a loss of the user's.
struct Shift {
    using Scalar = float;
    using Cache = sd::detail::NoCache;
    struct Gradient {
        Eigen::VectorXf shift;
        void set_zero() { shift.setZero(); }
    };
    Eigen::VectorXf shift = Eigen::VectorXf::Zero(features);

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    [[nodiscard]] Gradient zero_gradient() const { return {Eigen::VectorXf::Zero(features)}; }
    void forward(const sd::ConstMatrixRef<float>& x, sd::MatrixRef<float> y) const {
        y = x.colwise() + shift;
    }
    void forward(const sd::ConstMatrixRef<float>& x, sd::MatrixRef<float> y, Cache&) const {
        forward(x, y);
    }
    void backward(const sd::ConstMatrixRef<float>&, const sd::ConstMatrixRef<float>& dy,
                  const Cache&, Gradient& gradient, sd::MatrixRef<float> dx) const {
        gradient.shift += dy.rowwise().sum();
        dx = dy;
    }
    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("shift", self.shift, gradients.shift...);
    }
};
struct Cubes {
    using Targets = sd::Matrix<float>;
    double value_and_gradient(const sd::ConstMatrixRef<float>& output, const Targets& targets,
                              sd::MatrixRef<float> gradient) const {
        const auto samples = static_cast<float>(output.cols());
        const sd::Matrix<float> error = output - targets;
        gradient = error.array().square() * error.array().sign() * 3 / samples;
        return static_cast<double>(error.array().abs().cube().sum() / samples);
    }
};

TEST_CASE(
    "layers of unknown types, a user's layer and a user's loss train alike on any number of ranks") {
    const auto train = [](MPI_Comm comm) {
        sd::Philox random{1};
        std::vector<sd::AnyLayer<float>> layers{Shift{}};
        for (const double p : {0.3, 0.5, 0.2})
            layers.emplace_back(sd::StochasticDepth{
                sd::Residual{
                    sd::Sequential{sd::Linear<float>{features, features, random, 1.0}, Shift{}}},
                sd::SurvivalProbability{p}});
        sd::Stack<sd::AnyLayer<float>> network{std::move(layers)};
        sd::DataParallel step{
            network, Cubes{}, {.mask_scope = sd::MaskScope::batch, .shards = 4}, comm};
        sd::Adam optimizer{network};
        for (std::uint64_t t = 0; t < 30; ++t) {
            sd::Philox numbers{t};
            const auto x = sd::test::random_matrix<float>(numbers, features, 10);
            const auto targets = sd::test::random_matrix<float>(numbers, features, 10);
            (void)step.differentiate(network, x, targets, t);
            optimizer.step(network, step.gradient());
            step.finish(network);
        }
        return bits_of(network);
    };
    CHECK(train(MPI_COMM_WORLD) == train(MPI_COMM_SELF));
}

TEST_CASE("layers that no sample of the batch keeps are not sent") {
    sd::Philox random{1};
    std::vector<decltype(sd::StochasticDepth{sd::Residual{sd::Linear<float>{8, 8, random, 1.0}},
                                             sd::SurvivalProbability{0.5}})>
        layers;
    for (int l = 0; l < 10; ++l)
        layers.emplace_back(sd::Residual{sd::Linear<float>{8, 8, random, 1.0}},
                            sd::SurvivalProbability{l < 5 ? 0.8 : 0.3});
    sd::Stack network{std::move(layers)};
    const Eigen::MatrixXf x = sd::test::random_matrix<float>(random, 8, 16);
    sd::DataParallel step{network,
                          sd::MeanSquaredError<float>{},
                          {.mask_scope = sd::MaskScope::batch, .seed = 9, .shards = 8},
                          MPI_COMM_WORLD};
    const sd::MaskSampler sampler{network.survival_probabilities(), 9};
    const auto sent_by_all = [&] {
        auto bytes = static_cast<std::uint64_t>(step.bytes_sent());
        MPI_Allreduce(MPI_IN_PLACE, &bytes, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
        return bytes;
    };
    std::uint64_t sent = 0, least = 0;
    for (std::uint64_t t = 0; t < 100; ++t) {
        (void)step.differentiate(network, x, x, t);
        step.finish(network);
        sent += sent_by_all();
        // Of each number kept, the others' sums go to the rank that adds them, and its total back.
        const auto kept = static_cast<std::uint64_t>(sampler.sample(t).count());
        const auto others = static_cast<std::uint64_t>(ranks()) - 1;
        least += kept * (8 * 8 + 8) * sizeof(float) * 2 * others;
    }
    // Three ranks have no whole nodes of the tree over eight shards: they send more sums.
    if (ranks() == 3)
        CHECK(sent > least);
    else
        CHECK(sent == least);
    step.set_survival_probabilities(Eigen::VectorXd::Ones(10));
    (void)step.differentiate(network, x, x, 0);
    const double share = 0.55;  // sum(p) / L
    CHECK(static_cast<double>(sent) <= 100 * (share + 0.02) * static_cast<double>(sent_by_all()));
}

/// Tells when the way back comes through.
struct Probe : Shift {
    std::function<void()> passed;
    void backward(const sd::ConstMatrixRef<float>& x, const sd::ConstMatrixRef<float>& dy,
                  const Cache& cache, Gradient& gradient, sd::MatrixRef<float> dx) const {
        passed();
        Shift::backward(x, dy, cache, gradient, dx);
    }
};

auto block_of(sd::Philox& random, double p) {
    return sd::StochasticDepth{sd::Residual{sd::Linear<float>{features, features, random, 1.0}},
                               sd::SurvivalProbability{p}};
}

TEST_CASE("a layer's gradient leaves while the way back goes on") {
    sd::Philox random{1};
    std::function<std::uint64_t()> bytes = [] { return std::uint64_t{0}; };
    std::vector<std::uint64_t> seen;
    const sd::Sequential network{Probe{{}, [&] { seen.push_back(bytes()); }}, block_of(random, 1.0),
                                 block_of(random, 1.0)};
    sd::DataParallel step{network, Cubes{}, {.shards = ranks()}, MPI_COMM_WORLD};
    bytes = [&] { return step.bytes_sent(); };
    const sd::Matrix<float> x = sd::test::random_matrix<float>(random, features, 2 * ranks());
    (void)step.differentiate(network, x, x, 0);
    REQUIRE(seen.size() == 1);
    CHECK((seen[0] > 0) == (ranks() > 1));
    CHECK((seen[0] < step.bytes_sent()) == (ranks() > 1));
}

/// A composite that goes through its part twice.
template <class Part>
struct Twice : sd::LayerBase<Twice<Part>, float, Part> {
    Part part;
    explicit Twice(Part p) : part(std::move(p)) {}

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    template <class Memory>
    struct Record {
        sd::pass::RecordOf<Part, Memory> part, again;
    };
    struct Gradient {
        typename Part::Gradient part;
        void set_zero() { part.set_zero(); }
    };
    void run(auto& batch, auto& record, const auto& mask, const auto& epilogue) const {
        sd::pass::run(part, batch, record.part, mask);
        sd::pass::run(part, batch, record.again, mask, epilogue);
    }
    void backpropagate(auto& batch, const auto& record, auto& gradient,
                       const auto& epilogue) const {
        sd::pass::backpropagate(part, batch, record.again, gradient.part);
        sd::pass::backpropagate(part, batch, record.part, gradient.part, epilogue);
    }
    void walk(const auto& walk, auto& x, const auto& then, const auto& state, auto&... of) const {
        walk(part, x, then, state, of.part...);
    }
    static void visit_parts(auto& self, auto&& visit, auto&... others) {
        visit("part", self.part, others.part...);
    }
};

TEST_CASE("a skippable layer that runs twice in a pass is refused: its gradient has left") {
    sd::Philox random{1};
    const Twice network{block_of(random, 1.0)};
    sd::DataParallel step{network, Cubes{}, {.shards = ranks()}, MPI_COMM_WORLD};
    const sd::Matrix<float> x = sd::test::random_matrix<float>(random, features, 2 * ranks());
    const auto differentiate = [&] { (void)step.differentiate(network, x, x, 0); };
    CHECK_THROWS_WITH(
        differentiate(),
        "DataParallel: network must run each of its skippable layers at most once in a "
        "pass, got one that ran again");
}

}  // namespace
