// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_expectation.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::Structures;

/// Mean and variance over listed masks, and the prefixes that run a layer.
template <class Network, class Law>
void check_against_enumeration(const Network& network, const Eigen::MatrixXd& x, const Law& law) {
    const auto exact = ExactExpectation{}(network, x, law);
    Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(exact.mean.rows(), x.cols());
    Eigen::MatrixXd squares = mean;
    const auto masks = test::all_masks(network.depth());
    for (const SurvivalMask& mask : masks) mean += probability(mask, law) * network(x, mask);
    for (const SurvivalMask& mask : masks)
        squares += probability(mask, law) * (network(x, mask) - mean).cwiseAbs2();
    const double scale = std::max(1.0, mean.cwiseAbs().maxCoeff());
    INFO("depth " << network.depth());
    CHECK((exact.mean - mean).cwiseAbs().maxCoeff() <= 1e-12 * scale);
    CHECK((exact.variance - squares).cwiseAbs().maxCoeff() <=
          1e-12 * std::max(1.0, squares.maxCoeff()));
    CHECK(exact.variance.minCoeff() >= 0);
}

using Block = StochasticDepth<Residual<Sequential<Linear<double>, ReLU<double>>>>;
using Chain = Stack<Block>;

/// The networks' own probabilities play no part.
Chain chain(Structures& make, Index depth, Index width) {
    std::vector<Block> blocks;
    for (Index l = 0; l < depth; ++l) blocks.push_back(make.block(width, 0.01));
    return Chain{std::move(blocks)};
}

TEST_CASE("ExactExpectation: 200 random networks and laws against their listed masks",
          "[exact_expectation_law]") {
    Structures make{5};
    int networks = 0;
    for (Index round = 0; round < 30; ++round) {
        const Index depth = round % 10, width = 1 + round % 7;
        const auto network = chain(make, depth, width);
        // One column, which is walked deep at once, and enough of them for the wide phase.
        const Index columns = round % 3 == 0 ? 1 : 5 * round;
        const auto x = test::random_matrix<double>(make.random, width, columns);
        test::for_each_law(make.random, depth, [&](const auto& law) {
            check_against_enumeration(network, x, law);
            ++networks;
        });
    }
    CHECK(networks >= 200);
}

template <class Network>
void check_nest(Structures& make, const Network& network, Index features) {
    for (const Index columns : {1, 40}) {
        const auto x = test::random_matrix<double>(make.random, features, columns);
        const Index depth = network.depth();
        check_against_enumeration(network, x,
                                  MarkovLaw{test::random_probabilities(make.random, depth),
                                            test::random_probabilities(make.random, depth)});
        for (Index k = 0; k <= depth; ++k)
            check_against_enumeration(
                network, x,
                LayerCountLaw{test::random_probabilities(make.random, depth), k / 2, k});
        check_against_enumeration(network, x, test::TwoBackLaw{depth});
    }
}

TEST_CASE("ExactExpectation: bits of layers inside a skipped one count for the law",
          "[exact_expectation_law]") {
    Structures make{9};
    check_nest(make, make.nested(), 5);
    check_nest(make, make.own_shortcuts(), 4);
    check_nest(make, make.residual_around(), 6);
    // Whether a layer of an unknown type is a nest, only run time knows.
    check_nest(make,
               Sequential{AnyLayer<double>{make.nested()}, AnyLayer<double>{make.block(3, 0.5)}}, 5);
}

TEST_CASE("ExactExpectation: exactly k of linear layers in closed form",
          "[exact_expectation_law]") {
    // Diagonal branches commute: row i of the mean is x_i e_k(w_i) / C(L, k), with the elementary
    // symmetric polynomial of 1 + w... of kept layers, and 1 of skipped ones.
    Philox random{3};
    constexpr Index depth = 11, width = 4;
    using Layer = StochasticDepth<Residual<Linear<double>>>;
    std::vector<Layer> layers;
    Eigen::MatrixXd gains(width, depth);
    for (Index l = 0; l < depth; ++l) {
        const Eigen::VectorXd w = 0.5 * test::random_matrix<double>(random, width, 1);
        gains.col(l) = w.array() + 1;
        const Eigen::MatrixXd weights = w.asDiagonal();
        layers.push_back(Layer{Residual{Linear<double>{weights, Eigen::VectorXd::Zero(width)}},
                               SurvivalProbability{1.0}});
    }
    const Stack network{layers};
    const auto x = test::random_matrix<double>(random, width, 3);
    // e(k) of the first layers, layer by layer.
    Eigen::MatrixXd e = Eigen::MatrixXd::Zero(width, depth + 1), squares = e;
    e.col(0).setOnes();
    squares.col(0).setOnes();
    Eigen::VectorXd choices = Eigen::VectorXd::Zero(depth + 1);
    choices(0) = 1;
    for (Index l = 0; l < depth; ++l)
        for (Index k = l + 1; k > 0; --k) {
            e.col(k) += gains.col(l).cwiseProduct(e.col(k - 1));
            squares.col(k) += gains.col(l).cwiseAbs2().cwiseProduct(squares.col(k - 1));
            choices(k) += choices(k - 1);
        }
    for (Index k = 0; k <= depth; ++k) {
        const auto exact = ExactExpectation{}(network, x, LayerCountLaw::exactly(depth, k));
        for (Index j = 0; j < 3; ++j)
            for (Index i = 0; i < width; ++i) {
                const double mean = e(i, k) / choices(k);
                const double variance = squares(i, k) / choices(k) - mean * mean;
                CHECK(std::abs(exact.mean(i, j) - mean * x(i, j)) <= 1e-12);
                CHECK(std::abs(exact.variance(i, j) - variance * x(i, j) * x(i, j)) <= 1e-12);
            }
        if (k == 0 || k == depth) CHECK(exact.variance.maxCoeff() == 0);
    }
}

TEST_CASE("ExactExpectation: a Markov chain of linear layers in closed form",
          "[exact_expectation_law]") {
    // The mean given the last bit moves on by a 2 x 2 block of matrices; matrices don't commute.
    Philox random{4};
    constexpr Index depth = 12, width = 3;
    using Layer = StochasticDepth<Residual<Linear<double>>>;
    std::vector<Layer> layers;
    std::vector<Eigen::MatrixXd> w;
    for (Index l = 0; l < depth; ++l) {
        w.push_back(0.5 * test::random_matrix<double>(random, width, width));
        layers.push_back(Layer{Residual{Linear<double>{w.back(), Eigen::VectorXd::Zero(width)}},
                               SurvivalProbability{0.5}});
    }
    const Stack network{layers};
    const Eigen::VectorXd after_kept = test::random_probabilities(random, depth);
    const Eigen::VectorXd after_skipped = test::random_probabilities(random, depth);
    const Eigen::MatrixXd x = test::random_matrix<double>(random, width, 50);
    Eigen::MatrixXd kept = x, skipped = Eigen::MatrixXd::Zero(width, 50);
    for (std::size_t l = 0; l < w.size(); ++l) {
        const double p = after_kept(static_cast<Index>(l)),
                     q = after_skipped(static_cast<Index>(l));
        const Eigen::MatrixXd into_kept = p * kept + q * skipped;
        skipped = (1 - p) * kept + (1 - q) * skipped;
        kept = into_kept + w[l] * into_kept;
    }
    const MarkovLaw law{after_kept, after_skipped};
    const auto exact = ExactExpectation{}(network, x, law);
    CHECK((exact.mean - kept - skipped).cwiseAbs().maxCoeff() <= 1e-12);
    CHECK(exact.layer_evaluations == 4095);
    // The same bits for any number of threads, and of a column alone.
    const auto threads = ExactExpectation{{.threads = 3}}(network, x, law);
    const auto alone = ExactExpectation{}(network, x.col(7), law);
    CHECK(threads.mean == exact.mean);
    CHECK(threads.variance == exact.variance);
    CHECK(alone.mean == exact.mean.col(7));
    CHECK(alone.variance == exact.variance.col(7));
}

TEST_CASE("ExactExpectation: the law of the network's own p is the call without a law, bit for bit",
          "[exact_expectation_law]") {
    Structures make{2};
    const auto network = make.nested();
    for (const Index columns : {0, 1, 70}) {
        const auto x = test::random_matrix<double>(make.random, 5, columns);
        const auto plain = ExactExpectation{}(network, x);
        const auto law =
            ExactExpectation{}(network, x, IndependentLaw{network.survival_probabilities()});
        CHECK(plain.mean == law.mean);
        CHECK(plain.variance == law.variance);
        CHECK(plain.layer_evaluations == law.layer_evaluations);
    }
}

TEST_CASE("ExactExpectation: only what a law can reach runs and counts",
          "[exact_expectation_law]") {
    Structures make{6};
    const auto network = chain(make, 20, 3);
    const Eigen::MatrixXd x = test::random_matrix<double>(make.random, 3, 2);
    // Prefixes of at most two layers that keep one more.
    CHECK(ExactExpectation{}(network, x, LayerCountLaw::at_most(20, 2)).layer_evaluations ==
          20 + 19 * 20 / 2);
    CHECK(ExactExpectation{}(network, x, DepthMixtureLaw{Eigen::VectorXd::Ones(21)})
              .layer_evaluations == 20);
    std::vector<double> told;
    const ExactExpectation asking{{.progress = [&](double done) {
        told.push_back(done);
        return true;
    }}};
    (void)asking(network, x, LayerCountLaw::exactly(20, 10));
    REQUIRE_FALSE(told.empty());
    CHECK(told.back() <= 1);
    // A branch that no mask of the law keeps may hold NaN.
    auto damaged = chain(make, 3, 2);
    const auto nan = [](const char*, auto& parameter, auto&&...) {
        parameter.setConstant(std::numeric_limits<double>::quiet_NaN());
    };
    detail::visit_parameters(const_cast<Block&>(damaged.layers()[1]), nan);
    const Eigen::MatrixXd y = test::random_matrix<double>(make.random, 2, 1);
    const MaskListLaw list({{1, 0, 0}, {0, 0, 1}}, Eigen::VectorXd::Ones(2));
    CHECK(ExactExpectation{}(damaged, y, list).mean.allFinite());
}

TEST_CASE("ExactExpectation: laws that don't fit are refused before any work",
          "[exact_expectation_law]") {
    Structures make{8};
    const auto network = chain(make, 4, 3);
    const Eigen::MatrixXd x = test::random_matrix<double>(make.random, 3, 2);
    CHECK(test::refusal([&] { (void)ExactExpectation{}(network, x, test::TwoBackLaw{5}); }) ==
          "ExactExpectation: law must have 4 layers, got 5");
    const ExactExpectation small{{.max_layer_evaluations = 14}};
    CHECK(holds(thrown<std::length_error>([&] {
                    (void)small(network, x,
                                MarkovLaw{Eigen::VectorXd::Constant(4, 0.5),
                                          Eigen::VectorXd::Constant(4, 0.5)});
                }),
                "ExactExpectation: depth 4 takes 15 layer evaluations"));
    CHECK_NOTHROW(small(network, x, LayerCountLaw::exactly(4, 2)));
}

}  // namespace
