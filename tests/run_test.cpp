// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/run.hpp>

#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

/// Two features, 80 between layers, five blocks of which any may be skipped.
auto network_wider_than_its_input() {
    Philox random{5};
    std::vector<StochasticDepth<Residual<Sequential<Linear<float>, Tanh<float>>>>> blocks;
    for (int l = 0; l < 5; ++l)
        blocks.emplace_back(Residual{Sequential{Linear<float>{80, 80, random}, Tanh<float>{}}},
                            SurvivalProbability{0.3 + 0.1 * l});
    return Sequential{Linear<float>{2, 80, random}, Stack{std::move(blocks)},
                      Linear<float>{80, 3, random}};
}

}  // namespace

TEST_CASE("a batch that outgrows the cache goes through in pieces, to the bits of each column",
          "[run]") {
    const auto network = network_wider_than_its_input();
    const Index batch = 10007;
    const Matrix<float> x = Matrix<float>::Random(2, batch);
    const Index at_once = detail::columns_at_once(network, x);
    REQUIRE(at_once == detail::bytes_at_once / 4 / 80 / 6 * 6);
    REQUIRE(detail::columns_at_once(network, x.leftCols(8192)) == 8192);

    SurvivalMasks masks{5, batch};
    Philox random{6};
    for (Index l = 0; l < 5; ++l)
        for (std::size_t w = 0; w < masks.words(l).size(); ++w) masks.set_word(l, w, random());
    const SurvivalMask mask{true, false, true, true, false};

    const Matrix<float> full = network(x), masked = network(x, mask), sampled = network(x, masks);
    const Matrix<float> mean = WeightScaling{}(network, x).mean;
    for (const Index j : {Index{0}, at_once - 1, at_once, 2 * at_once + 7, batch - 1}) {
        const Matrix<float> column = x.col(j);
        CHECK(full.col(j) == network(column));
        CHECK(masked.col(j) == network(column, mask));
        CHECK(sampled.col(j) == network(column, masks.mask(j)));
        CHECK(mean.col(j) == WeightScaling{}(network, column).mean);
    }
}

TEST_CASE("layers wider than the cache take whole tiles of columns", "[run]") {
    Philox random{7};
    const Sequential network{Linear<float>{1, 50000, random}, Linear<float>{50000, 1, random}};
    const Matrix<float> x = Matrix<float>::Random(1, 20000);
    REQUIRE(detail::columns_at_once(network, x) == detail::columns_of_member);
    REQUIRE(detail::columns_at_once(network, Matrix<float>(1, 0)) == 0);
}
