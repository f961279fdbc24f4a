// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/prefix_tree.hpp>

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

/// The columns of each call of a layer.
struct Calls {
    std::mutex access;
    std::vector<Index> columns;
};

/// y = x / 2, and writes down how many columns it was given.
struct Recording {
    using Scalar = double;
    Calls* calls;

    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        // A call without columns asks how many rows there are.
        if (x.cols() > 0) {
            const std::lock_guard lock(calls->access);
            calls->columns.push_back(x.cols());
        }
        y = x / 2;
    }
};

/// The columns of the calls of the first of two layers.
std::vector<Index> calls_of_first_layer(Index batch, unsigned threads) {
    Calls first, second;
    const SurvivalProbability half{0.5};
    const Stack network{std::vector{StochasticDepth{Recording{&first}, half},
                                    StochasticDepth{Recording{&second}, half}}};
    (void)ExactExpectation{{.threads = threads}}(network,
                                                 Eigen::MatrixXd(Eigen::MatrixXd::Ones(3, batch)));
    return first.columns;
}

// The bits are the same wherever blocks begin and end; the work is not, since a block of few
// columns fills no tile of the product, nor a thread's share.
TEST_CASE(
    "PrefixTree: columns are dealt out in whole blocks from the first batch on that has enough",
    "[prefix_tree_blocks]") {
    for (const unsigned threads : {1u, 2u}) {
        CAPTURE(threads);
        // The smallest batch that is dealt out.
        Index below = 1, enough = 1 << 16;
        REQUIRE(calls_of_first_layer(below, threads).size() == 1);
        REQUIRE(calls_of_first_layer(enough, threads).size() > 1);
        while (enough - below > 1) {
            const Index middle = below + (enough - below) / 2;
            (calls_of_first_layer(middle, threads).size() > 1 ? enough : below) = middle;
        }
        const std::vector<Index> blocks = calls_of_first_layer(enough, threads);
        CHECK(std::count(blocks.begin(), blocks.end(), blocks[0]) ==
              static_cast<std::ptrdiff_t>(blocks.size()));
        CHECK(blocks.size() >= 2 * threads);
        // One more begins another block.
        const std::vector<Index> more = calls_of_first_layer(enough + 1, threads);
        CHECK(more.size() == blocks.size() + 1);
        CHECK(*std::max_element(more.begin(), more.end()) == blocks[0]);
        CHECK(*std::min_element(more.begin(), more.end()) == 1);
    }
}

}  // namespace
