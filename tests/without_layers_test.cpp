// SPDX-License-Identifier: MIT
#include <stochastic_depth/without_layers.hpp>

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/own_networks.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;

/// Under every mask, the smaller network at full depth has the masked network's bits.
template <class Network>
void check_bits(const Network& network, const Matrix<double>& x) {
    for (std::size_t k = 0; k < std::size_t{1} << network.depth(); ++k) {
        const SurvivalMask mask = own::numbered(k, network.depth());
        const auto smaller = without_layers(network, mask);
        INFO(to_string(mask));
        CHECK(smaller.depth() <= mask.count());
        CHECK(test::same_bits(smaller(x, SurvivalMask::all(smaller.depth())), network(x, mask)));
    }
}

TEST_CASE("without_layers: the masked network's bits, skippable layers in all places",
          "[without_layers]") {
    test::Structures make{15};
    Philox random{16};
    check_bits(make.nested(), test::random_matrix<double>(random, 5, 9));
    check_bits(make.residual_around(), test::random_matrix<double>(random, 6, 1));
    check_bits(make.own_shortcuts(), test::random_matrix<double>(random, 4, 40));
    check_bits(make.not_residual(), test::random_matrix<double>(random, 6, 0));
    check_bits(make.fixed(), test::random_matrix<double>(random, 4, 3));
}

TEST_CASE("without_layers: composites of the user's own, whatever order they map their parts in",
          "[without_layers]") {
    check_bits(own::residual_network(8), own::inputs(4));
    check_bits(own::mixed_network(9), own::inputs(4));
}

using Branch = plain::OneLinear<double, Tanh<double>>;

TEST_CASE("without_layers: a stack only gets shorter, and keeps what its layers have",
          "[without_layers]") {
    Philox random{17};
    const auto network = plain::to_library<Branch>(
        plain::random_network(random, {6, 4, 1, plain::Activation::tanh, true}));
    using Network = std::remove_const_t<decltype(network)>;
    const SurvivalMask mask{1, 0, 0, 1, 1, 0};
    const Network smaller = without_layers(network, mask);
    const Eigen::VectorXd p = network.survival_probabilities();
    CHECK(test::same_bits(smaller.survival_probabilities(), Eigen::VectorXd{{p(0), p(3), p(4)}}));
    const Matrix<double> x = test::random_matrix<double>(random, 3, 5);
    CHECK(test::same_bits(smaller(x, SurvivalMask{1, 0, 1}),
                          network(x, SurvivalMask{1, 0, 0, 0, 1, 0})));
    CHECK(ExactExpectation{}(smaller, x).layer_evaluations == 7);

    const Network none = without_layers(network, SurvivalMask::none(6));
    CHECK(none.depth() == 0);
    CHECK(test::same_bits(none(x, SurvivalMask{}), network(x, SurvivalMask::none(6))));
    CHECK(test::same_bits(without_layers(none, SurvivalMask{})(x, SurvivalMask{}),
                          none(x, SurvivalMask{})));
}

/// Counts how often it runs.
struct Counting {
    using Scalar = double;
    int* runs;
    Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        ++*runs;
        y = 2 * x;
    }
};

TEST_CASE("without_layers: a removed layer is not there; a lone one may be the network",
          "[without_layers]") {
    int runs = 0;
    const StochasticDepth node{Residual{Counting{&runs}}, SurvivalProbability{0.5}};
    const Sequential network{node, node, Sequential{node, Counting{&runs}}};
    const Matrix<double> x = Matrix<double>::Ones(2, 3);
    const auto smaller = without_layers(network, SurvivalMask{0, 1, 0});
    CHECK(std::get<0>(smaller.layers()).layers().empty());
    CHECK(std::get<1>(smaller.layers()).layers().size() == 1);
    CHECK(smaller(x, SurvivalMask{1})(0, 0) == 6);
    CHECK(runs == 2);
    CHECK(without_layers(node, SurvivalMask{0})(x, SurvivalMask{})(1, 2) == 1);
    CHECK(without_layers(node, SurvivalMask{1})(x, SurvivalMask{1})(1, 2) == 3);
}

TEST_CASE("without_layers: refuses a mask of another size", "[without_layers]") {
    int runs = 0;
    const StochasticDepth node{Residual{Counting{&runs}}, SurvivalProbability{0.5}};
    test::refuses([&] { (void)without_layers(Sequential{node, node}, SurvivalMask{1}); },
                  {"without_layers: mask must have one entry for each of 2 layers", "got 1"});
}

}  // namespace
