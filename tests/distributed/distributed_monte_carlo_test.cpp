// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/distributed_monte_carlo.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/laws.hpp"
#include "support/own_networks.hpp"

namespace {

using namespace own;

DistributedMonteCarloOptions with_samples(Index samples) {
    DistributedMonteCarloOptions options;
    options.samples = samples;
    options.seed = 5;
    return options;
}

template <class Network, class... Law>
auto run(const DistributedMonteCarloOptions& options, const Network& network,
         const Matrix<double>& x, const Law&... law) {
    return DistributedMonteCarlo{options, MPI_COMM_WORLD}(network, x, law...);
}

template <class Result>
bool is_same(const Result& a, const Result& b) {
    return same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance) &&
           same_bits(a.standard_error, b.standard_error) && a.samples == b.samples &&
           a.degrees_of_freedom == b.degrees_of_freedom &&
           a.layer_evaluations == b.layer_evaluations;
}

TEST_CASE("DistributedMonteCarlo: one block of masks is what one process samples") {
    const auto network = mixed_network(3);
    for (const Index samples : {2, 100, 9000})
        CHECK(is_same(run(with_samples(samples), network, inputs(3)),
                      MonteCarloExpectation{{.samples = samples, .seed = 5}}(network, inputs(3))));
    const TwoBackLaw law{network.depth()};
    CHECK(is_same(run(with_samples(100), network, inputs(3), law),
                  MonteCarloExpectation{{.samples = 100, .seed = 5}}(network, inputs(3), law)));
}

TEST_CASE("DistributedMonteCarlo: many blocks are those of one process, merged") {
    const auto network = mixed_network(3);
    const Index samples = 11 * 8192 + 100;
    const auto shared = run(with_samples(samples), network, inputs(2));
    const auto alone = MonteCarloExpectation{{.samples = samples, .seed = 5}}(network, inputs(2));
    CHECK(shared.samples == samples);
    CHECK(largest_difference(shared.mean, alone.mean) < 1e-10);
    // Blocks of n masks tell their variance from their own means: a part in n is left to chance.
    CHECK((shared.variance.array() / alone.variance.array() - 1).abs().maxCoeff() < 1e-3);
    CHECK((shared.standard_error.array() / alone.standard_error.array() - 1).abs().maxCoeff() <
          1e-3);
    const detail::MergedBlocks blocks(2, 2, samples);
    CHECK(blocks.count() == 11);
    CHECK(blocks.samples_of(10) == std::pair<Index, Index>(81920, 8292));
}

TEST_CASE("MergedBlocks: blocks in any order, and in two runs, merge to the same bits") {
    const Index samples = 6 * 8192;
    Philox random{4};
    std::vector<std::vector<double>> estimates;
    for (int k = 0; k < 6; ++k) {
        detail::SampleMoments moments(3, 2);
        for (Eigen::MatrixXd* each : {&moments.mean, &moments.variance, &moments.squared_error})
            *each = random_matrix<double>(random, 3, 2).cwiseAbs();
        moments.samples = 8192;
        moments.spread = 8193;
        estimates.push_back(detail::MergedBlocks(3, 2, samples).numbers_of(moments, 10.0 + k));
    }
    const auto merged = [&](const std::vector<std::uint64_t>& order, std::size_t first_run) {
        detail::MergedBlocks before(3, 2, samples), after(3, 2, samples);
        for (std::size_t k = 0; k < first_run; ++k) before.add(order[k], estimates[order[k]]);
        before.for_each_node(
            [&](std::uint64_t first, std::uint64_t count, const std::vector<double>& numbers) {
                after.restore(first, count, numbers);
            });
        CHECK(after.finished() == first_run);
        for (std::size_t k = first_run; k < order.size(); ++k) {
            CHECK(after.next_unfinished(order[k]) == order[k]);
            after.add(order[k], estimates[order[k]]);
        }
        CHECK(after.next_unfinished(0) == 6);
        return after.merged();
    };
    const auto expected = merged({0, 1, 2, 3, 4, 5}, 0);
    CHECK(detail::MergedBlocks::evaluations_of(expected) == 75);
    for (const std::size_t first_run : std::vector<std::size_t>{0, 1, 3, 6}) {
        CHECK(merged({5, 4, 3, 2, 1, 0}, first_run) == expected);
        CHECK(merged({0, 3, 1, 5, 2, 4}, first_run) == expected);
    }
    detail::MergedBlocks refusing(3, 2, samples);
    CHECK_THROWS_AS(refusing.restore(6, 1, estimates[0]), std::runtime_error);
    CHECK_THROWS_AS(refusing.restore(2, 2, estimates[0]), std::runtime_error);
    CHECK_THROWS_AS(refusing.restore(0, 1, std::vector<double>(20)), std::runtime_error);
}

TEST_CASE("DistributedMonteCarlo: a sum that stops has fewer samples, and goes on from its file") {
    const detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    const TemporaryDirectory own;
    const auto network = residual_network(3);
    auto options = with_samples(60 * 8192);
    const auto whole = run(options, network, inputs(20));
    options.path = ranks.all_texts(own.file("sum"))[0];
    options.save_seconds = 0.01;
    int words = 0;
    options.progress = [&](const DistributedProgress& progress) {
        CHECK(progress.pieces == 60);
        return ++words < 2;
    };
    const auto stopped = run(options, network, inputs(20));
    if (stopped.samples < whole.samples) {
        CHECK(stopped.samples % 8192 == 0);
        CHECK(is_same(stopped, run(with_samples(stopped.samples), network, inputs(20))));
    }
    options.progress = nullptr;
    CHECK(is_same(run(options, network, inputs(20)), whole));
    CHECK(is_same(run(options, network, inputs(20)), whole));
    options.seed = 6;
    try {
        (void)run(options, network, inputs(20));
        FAIL("another seed was taken");
    } catch (const std::runtime_error& error) {
        CHECK(std::string(error.what()).find("its seed is 5, that of this one 6") !=
              std::string::npos);
    }
    MPI_Barrier(ranks.get());
}

}  // namespace
