// SPDX-License-Identifier: MIT

// A sum that stops and goes on: its file, its progress, and what it answers where it is not finished.

#include <stochastic_depth/distributed/distributed_expectation.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/layers.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// The identity, which takes its time where it is told to.
struct Slow {
    using Scalar = double;
    static inline bool is_slow = false;
    Index output_size(Index size) const { return size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        if (is_slow) std::this_thread::sleep_for(std::chrono::milliseconds(8));
        y = x;
    }
};

using Block = StochasticDepth<Linear<double>>;
using Network = Sequential<Stack<Block>, Slow>;

std::vector<Block> blocks_of(Index depth, std::uint32_t seed) {
    Philox random{seed};
    std::vector<Block> layers;
    for (Index l = 0; l < depth; ++l)
        layers.push_back(
            {linear<double>(random, 3, 3), SurvivalProbability{0.3 + 0.04 * double(l)}});
    return layers;
}
Network network_of(const std::vector<Block>& blocks) { return Network{Stack{blocks}, Slow{}}; }

/// A directory that rank 0 makes, for all ranks.
class SharedDirectory {
public:
    SharedDirectory() : ranks_("Test", MPI_COMM_WORLD) {
        path_ = ranks_.all_texts(own_.file(""))[0];
    }
    ~SharedDirectory() { MPI_Barrier(ranks_.get()); }
    SharedDirectory(const SharedDirectory&) = delete;
    SharedDirectory& operator=(const SharedDirectory&) = delete;
    [[nodiscard]] std::string file(const std::string& name) const { return path_ + name; }
    [[nodiscard]] const detail::Communicator& ranks() const { return ranks_; }
    /// Rank 0 does something, and the others wait for it.
    void on_rank_0(const std::function<void()>& action) const {
        if (ranks_.rank() == 0) action();
        MPI_Barrier(ranks_.get());
    }

private:
    detail::Communicator ranks_;
    TemporaryDirectory own_;
    std::string path_;
};

DistributedExpectationOptions options_with(const std::string& path, Index prefix_layers) {
    DistributedExpectationOptions options;
    options.path = path;
    options.prefix_layers = prefix_layers;
    options.save_seconds = 1e-3;
    return options;
}

ExpectationResult<double> run(const DistributedExpectationOptions& options, const Network& network,
                              const Matrix<double>& x) {
    return DistributedExpectation{options, MPI_COMM_WORLD}(network, x);
}

template <class Result>
bool is_same(const Result& a, const Result& b) {
    return a.method == b.method && same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance);
}

std::string refusal(const DistributedExpectationOptions& options, const Network& network,
                    const Matrix<double>& x) {
    try {
        (void)run(options, network, x);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "none";
}

TEST_CASE("a sum tells of its progress on rank 0, up to its end") {
    Philox random{1};
    const Matrix<double> x = random_matrix<double>(random, 3, 2);
    const detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    std::vector<DistributedProgress> told;
    DistributedExpectationOptions options = options_with("", 6);
    options.progress = [&](const DistributedProgress& progress) {
        told.push_back(progress);
        return true;
    };
    (void)run(options, network_of(blocks_of(9, 1)), x);
    CHECK(told.empty() == (ranks.rank() > 0));
    double before = 0;
    for (const DistributedProgress& each : told) {
        CHECK(each.fraction >= before);
        CHECK(each.seconds >= 0);
        CHECK(each.seconds_left >= 0);
        CHECK(each.pieces == 64);
        before = each.fraction;
    }
    if (told.empty()) return;
    CHECK(told.back().fraction == 1.0);
    CHECK(told.back().seconds_left == 0.0);
    CHECK(told.back().finished_pieces == 64);
}

TEST_CASE("a sum that is stopped answers with a sample, and goes on from its file") {
    const SharedDirectory directory;
    Philox random{2};
    const Matrix<double> x = random_matrix<double>(random, 3, 2);
    const Network network = network_of(blocks_of(10, 2));
    const auto exact = ExactExpectation{}(network, x);
    DistributedExpectationOptions options = options_with(directory.file("sum"), 8);
    options.samples_when_stopped = 50;
    options.seed = 9;
    std::uint64_t finished = 0;
    int words = 0;
    options.progress = [&](const DistributedProgress& progress) {
        finished = progress.finished_pieces;
        return ++words < 2;
    };
    Slow::is_slow = true;
    const auto stopped = run(options, network, x);
    Slow::is_slow = false;
    CHECK(is_same(stopped, MonteCarloExpectation{{.samples = 50, .seed = 9}}(network, x)));
    CHECK(stopped.method == ExpectationMethod::sampled);
    const bool is_told = directory.ranks().rank() == 0;
    if (is_told) CHECK(finished > 0);
    // What is finished is not computed again.
    for (const std::uint64_t least : {finished, std::uint64_t{256}}) {
        std::uint64_t first = 0;
        options.progress = [&](const DistributedProgress& progress) {
            if (first == 0) first = progress.finished_pieces;
            return true;
        };
        CHECK(is_same(run(options, network, x), exact));
        if (is_told) CHECK(first >= least);
    }
    options = options_with("", 8);
    options.samples_when_stopped = 0;
    options.progress = [](const DistributedProgress&) { return false; };
    CHECK_THROWS_AS(run(options, network, x), Cancelled);
}

TEST_CASE("columns that are swept once more go on from the file as well") {
    const SharedDirectory directory;
    Philox random{3};
    Matrix<double> x = random_matrix<double>(random, 3, 40);
    x(0, 7) = 1.6e308;
    x(1, 21) = std::numeric_limits<double>::infinity();
    const Network network = network_of(blocks_of(8, 3));
    const auto exact = ExactExpectation{}(network, x);
    const DistributedExpectationOptions options = options_with(directory.file("sum"), 5);
    for (int again = 0; again < 2; ++again) CHECK(is_same(run(options, network, x), exact));
}

TEST_CASE("a file of another sum, and one that is no file of a sum, are refused by what is wrong") {
    const SharedDirectory directory;
    Philox random{4};
    Matrix<double> x = random_matrix<double>(random, 3, 2);
    const Network network = network_of(blocks_of(6, 4));
    const std::string path = directory.file("sum");
    DistributedExpectationOptions options = options_with(path, 3);
    (void)run(options, network, x);
    std::string start = "DistributedExpectation: " + path + ": ";
    if (directory.ranks().rank() > 0) start.insert(0, "DistributedExpectation: rank 0: ");
    const auto check_difference = [&](const std::string& name, const Network& other) {
        const std::string text = refusal(options, other, x);
        INFO(text);
        CHECK(text.starts_with(start + "the file is of another sum: its " + name + " is "));
    };
    check_difference("number of layers", network_of(blocks_of(5, 4)));
    check_difference("hash of the parameters", network_of(blocks_of(6, 5)));
    options.prefix_layers = 4;
    check_difference("prefix_layers", network);
    options.prefix_layers = 3;
    std::vector<Block> layers = blocks_of(6, 4);
    layers[2] = {layers[2].layer(), SurvivalProbability{0.125}};
    const std::string of_layer = refusal(options, network_of(layers), x);
    CHECK(of_layer.starts_with(start + "the file is of another sum: its layer "));
    CHECK(of_layer.ends_with("that of this one 0.2: StochasticDepth, survival probability 0.125"));
    x(0, 0) += 1;
    check_difference("hash of the inputs", network);
    x(0, 0) -= 1;
    CHECK(is_same(run(options, network, x), ExactExpectation{}(network, x)));
    directory.on_rank_0([&] { std::filesystem::resize_file(path, 100); });
    CHECK(refusal(options, network, x).starts_with(start + "the file is "));
    directory.on_rank_0([&] { std::ofstream(path) << "something else"; });
    CHECK(refusal(options, network, x) ==
          start + "the file is of another kind: it doesn't begin with SDLONGSM");
    options.path = directory.file("nowhere/sum");
    CHECK(refusal(options, network, x)
              .ends_with("cannot create the file: No such file or directory"));
}

}  // namespace
