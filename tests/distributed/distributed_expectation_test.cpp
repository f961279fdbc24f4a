// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/distributed_expectation.hpp>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/survival/markov_law.hpp>
#include <stochastic_depth/survival/mask_list_law.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/own_networks.hpp"

namespace {

using namespace own;

const MPI_Comm world = MPI_COMM_WORLD;

template <class Scalar>
using Block = StochasticDepth<Residual<Sequential<Linear<Scalar>, Tanh<Scalar>>>>;
using Any = AnyLayer<double>;

template <class Scalar>
Block<Scalar> block(Philox& random, double p, Index width = 4) {
    return {Residual{Sequential{linear<Scalar>(random, width, width), Tanh<Scalar>{}}},
            SurvivalProbability{p}};
}

/// L blocks of which some are always kept.
template <class Scalar>
Stack<Block<Scalar>> blocks(Index depth, Index width) {
    Philox random{7};
    std::vector<Block<Scalar>> layers;
    for (Index l = 0; l < depth; ++l)
        layers.push_back(block<Scalar>(random, l % 4 == 1 ? 1.0 : 0.9 - 0.07 * double(l), width));
    return Stack<Block<Scalar>>{layers};
}

/// 9 skippable layers: nests, one in a nest, two side by side, a composite of the user's own.
Stack<Any> nests() {
    Philox random{8};
    const auto small = [&](double p) { return block<double>(random, p); };
    const StochasticDepth inner{Residual{Sequential{small(0.5), linear4(random)}},
                                SurvivalProbability{0.8}};
    return Stack<Any>{
        {small(0.6),
         StochasticDepth{Residual{Sequential{inner, small(0.3)}}, SurvivalProbability{0.7}},
         Gated{Sequential{small(0.9), linear4(random)}, linear4(random)},
         Gated{small(0.4), small(0.75)},
         Sequential{Concatenate{Identity<double>{}, linear4(random)}, linear<double>(random, 8, 4)},
         small(0.55)}};
}

template <class Result>
bool is_same(const Result& a, const Result& b) {
    return a.method == b.method && same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance) &&
           same_bits(a.standard_error, b.standard_error) &&
           a.layer_evaluations == b.layer_evaluations && a.samples == b.samples;
}

DistributedExpectation cut_at(Index prefix_layers, unsigned threads = 1) {
    DistributedExpectationOptions options;
    options.prefix_layers = prefix_layers;
    options.threads = threads;
    return DistributedExpectation{options, world};
}

template <class Network, class... Law>
void check_exact(const Network& network, const Matrix<typename Network::Scalar>& x,
                 const std::vector<Index>& cuts, const Law&... law) {
    const auto exact = ExactExpectation{}(network, x, law...);
    for (const Index prefix_layers : cuts) {
        INFO("prefix_layers " << prefix_layers);
        CHECK(is_same(cut_at(prefix_layers)(network, x, law...), exact));
    }
}

TEST_CASE("DistributedExpectation: bit for bit the exact expectation, wherever the tree is cut") {
    Philox random{1};
    for (const Index columns : {1, 3, 200}) {
        check_exact(blocks<float>(8, 5), random_matrix<float>(random, 5, columns), {0, 5, 40});
        check_exact(blocks<double>(6, 3), random_matrix<double>(random, 3, columns), {3});
        check_exact(nests(), random_matrix<double>(random, 4, columns), {1, 2, 3, 4, 6, 8});
        check_exact(mixed_network(3), inputs(columns), {1, 2, 4, 5});
    }
    check_exact(nests(), Matrix<double>(4, 0), {0, 3});
}

TEST_CASE("DistributedExpectation: no layer to skip, one, and two") {
    Philox random{2};
    const Matrix<double> x = random_matrix<double>(random, 3, 2);
    for (const Index depth : {0, 1, 2}) check_exact(blocks<double>(depth, 3), x, {0, 1, 3});
}

TEST_CASE("DistributedExpectation: several threads of each rank, subtrees that stop on request") {
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, 5, 70);
    const auto network = blocks<float>(12, 5);
    CHECK(is_same(cut_at(2, 2)(network, x), ExactExpectation{}(network, x)));
}

TEST_CASE("DistributedExpectation: what is not finite, and what overflows on the way") {
    Philox random{4};
    const auto network = blocks<double>(6, 3);
    Matrix<double> x = random_matrix<double>(random, 3, 5);
    x(1, 1) = std::numeric_limits<double>::infinity();
    x(0, 2) = std::numeric_limits<double>::quiet_NaN();
    x(2, 4) = 1.7e308;
    check_exact(network, x, {3});
    check_exact(network, -x, {2});
    // Outputs of 1.5e308 and -1.5e308: their difference overflows, their mean does not.
    const StochasticDepth flip{
        Linear<double>{Eigen::MatrixXd::Constant(1, 1, -1.0), Eigen::VectorXd::Zero(1)},
        SurvivalProbability{0.5}};
    const Stack<Any> flips{std::vector<Any>(3, flip)};
    const Matrix<double> large = Matrix<double>::Constant(1, 3, 1.5e308);
    REQUIRE(ExactExpectation{}(flips, large).mean(0, 0) == 0.0);
    check_exact(flips, large, {1, 2});
}

TEST_CASE("DistributedExpectation: laws of masks that are not independent") {
    Philox random{5};
    const Matrix<double> x = random_matrix<double>(random, 4, 3);
    const auto plain = blocks<double>(7, 4);
    check_exact(plain, x, {2, 5}, IndependentLaw{random_probabilities(random, 7)});
    check_exact(plain, x, {2, 5}, TwoBackLaw{7});
    Eigen::VectorXd after_skipped = random_probabilities(random, 9);
    after_skipped(3) = 0;
    after_skipped(4) = 1;
    check_exact(nests(), x, {1, 2, 3, 5, 7},
                MarkovLaw{random_probabilities(random, 9), after_skipped});
    CHECK_THROWS_WITH(cut_at(2)(plain, x, TwoBackLaw{6}),
                      "DistributedExpectation: law must have 7 layers, got 6");
}

TEST_CASE("DistributedExpectation: options out of range are refused on every rank") {
    const auto refusal = [](auto change) {
        DistributedExpectationOptions options;
        change(options);
        try {
            (void)DistributedExpectation{options, world};
        } catch (const std::invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    CHECK(refusal([](auto& o) { o.threads = 0; }) ==
          "DistributedExpectation: threads must be at least 1, got 0");
    CHECK(refusal([](auto& o) { o.prefix_layers = 41; }) ==
          "DistributedExpectation: prefix_layers must lie in [0, 40], got 41");
    CHECK(refusal([](auto& o) { o.save_seconds = 0; }) ==
          "DistributedExpectation: save_seconds must be finite and above 0, got 0");
    CHECK(refusal([](auto& o) { o.samples_when_stopped = -1; }) ==
          "DistributedExpectation: samples_when_stopped must be at least 0, got -1");
    CHECK_THROWS_WITH((DistributedExpectation{{}, MPI_COMM_NULL}),
                      "DistributedExpectation: communicator must be one, got MPI_COMM_NULL");
}

TEST_CASE("DistributedExpectation: a budget that is too small is told before any work") {
    DistributedExpectationOptions options;
    options.max_layer_evaluations = 62;
    Philox random{6};
    const DistributedExpectation expectation{options, world};
    Stack<Block<double>> network{std::vector(6, block<double>(random, 0.5))};
    CHECK_THROWS_AS(expectation(network, random_matrix<double>(random, 4, 1)), std::length_error);
}

TEST_CASE("DistributedExpectation: ranks that differ are named, and can go on afterwards") {
    const detail::Communicator ranks{"Test", world};
    if (ranks.size() == 1) return;
    const int last = ranks.size() - 1;
    const bool is_last = ranks.rank() == last;
    Philox random{9};
    Matrix<double> x = random_matrix<double>(random, 3, 2);
    const auto refusal = [&](const auto& network, DistributedExpectationOptions options = {}) {
        try {
            (void)DistributedExpectation{options, world}(network, x);
        } catch (const std::invalid_argument& error) {
            return std::string(error.what());
        }
        return std::string("none");
    };
    const auto of = [&](const std::string& what) {
        return "DistributedExpectation: " + what + " must be the same on every rank, got ";
    };
    CHECK(refusal(blocks<double>(is_last ? 5 : 6, 3)).starts_with(of("number of layers")));
    auto network = blocks<double>(6, 3);
    std::vector<Block<double>> layers(network.layers().begin(), network.layers().end());
    if (is_last) layers[4] = block<double>(random, 0.125, 3);
    const std::string of_layer = refusal(Stack{layers});
    CHECK(of_layer.starts_with("DistributedExpectation: layer "));
    CHECK(of_layer.find("survival probability 0.125 on rank " + std::to_string(last)) !=
          std::string::npos);
    layers[4] = block<double>(random, 0.125, 3);
    CHECK(refusal(Stack{layers}).starts_with(of("hash of the parameters")));
    if (is_last) x(1, 0) = 0.5;
    CHECK(refusal(network).starts_with(of("hash of the inputs")));
    x(1, 0) = 0.5;
    DistributedExpectationOptions options;
    options.seed = is_last ? 3 : 2;
    CHECK(refusal(network, options) ==
          of("seed") + "2 on rank 0 and 3 on rank " + std::to_string(last));
    options.seed = 0;
    options.path = is_last ? "here" : "";
    CHECK(refusal(network, options).starts_with(of("path")));
    options.path = "";
    options.prefix_layers = is_last ? 2 : 3;
    CHECK(refusal(network, options).starts_with(of("prefix_layers")));
    check_exact(network, x, {3});
}

/// Fails on one rank, in the middle of the work or before it.
struct FailsOn {
    using Scalar = double;
    int rank;
    Index fewest_columns;
    std::string description() const { return "FailsOn"; }
    Index output_size(Index size) const { return size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        int own = 0;
        MPI_Comm_rank(world, &own);
        if (own == rank && x.cols() >= fewest_columns) throw std::domain_error("no licence");
        y = x;
    }
};

TEST_CASE("DistributedExpectation: a rank that fails lets all of them fail, and names itself") {
    const detail::Communicator ranks{"Test", world};
    Philox random{10};
    const Matrix<double> x = random_matrix<double>(random, 4, 2);
    // Of one column is what ranks compare before.
    for (const Index fewest_columns : {2, 1})
        for (int failing = 0; failing < ranks.size(); ++failing) {
            const Stack<Any> network{{blocks<double>(6, 4), FailsOn{failing, fewest_columns}}};
            const auto run = [&] { return cut_at(5)(network, x); };
            if (ranks.rank() == failing)
                CHECK_THROWS_AS(run(), std::domain_error);
            else
                CHECK_THROWS_WITH(run(), "DistributedExpectation: rank " + std::to_string(failing) +
                                             ": no licence");
        }
    check_exact(blocks<double>(6, 4), x, {5});
}

}  // namespace
