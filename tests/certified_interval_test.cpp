// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/certified_interval.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
template <class Scalar>
using Branch = plain::OneLinear<Scalar, Tanh<Scalar>>;

plain::Network tiny_network(Philox& random, std::size_t depth, std::size_t width) {
    auto network = plain::random_network(random, {depth, width, 1, plain::Activation::tanh, true});
    for (plain::Block& block : network.blocks) {
        const double u = uniform<double>(random);
        if (u < 0.15) block.p = 1;
        if (u > 0.9) block.p = 0.99 + 0.1 * (u - 0.9);
        if (u > 0.85 && u <= 0.9) block.p = 0.5;
    }
    network.head = plain::random_affine(random, 3, width, 3.0);
    return network;
}

std::vector<long double> plain_softmax(const std::vector<long double>& logits) {
    const long double largest = *std::max_element(logits.begin(), logits.end());
    std::vector<long double> result;
    long double sum = 0;
    for (const long double logit : logits) sum += std::exp(logit - largest);
    for (const long double logit : logits) result.push_back(std::exp(logit - largest) / sum);
    return result;
}

/// sum P(S) NN(x, S) in long double, with the outputs that the library computes.
template <class Network, class Scalar>
std::vector<long double> exact_mean(const Network& network, const Matrix<Scalar>& x) {
    const Eigen::VectorXd p = network.survival_probabilities();
    std::vector<long double> mean(
        static_cast<std::size_t>(network.output_size(x.rows()) * x.cols()));
    for (const auto& row : enumerate_masks(network, x)) {
        long double probability = 1;
        for (Index l = 0; l < p.size(); ++l)
            probability *=
                row.mask[l] ? static_cast<long double>(p(l)) : 1 - static_cast<long double>(p(l));
        for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += probability * row.output.data()[i];
    }
    return mean;
}

struct Tally {
    long trials = 0, outside = 0, outside_real = 0, too_wide = 0;
    double narrowest = 1;
};

/// Random networks with a Softmax at their end, each of them `trials` times.
template <class Scalar>
void try_networks(std::uint32_t seed, int trials, Tally& tally) {
    Philox random{seed};
    // What a float network loses against real arithmetic, and a double one.
    const double network_error = sizeof(Scalar) == 4 ? 1e-4 : 1e-13;
    for (int trial = 0; trial < trials; ++trial) {
        const auto depth = static_cast<std::size_t>(trial % 7);
        const auto plain = tiny_network(random, depth, 2 + static_cast<std::size_t>(trial % 3));
        const Sequential network{plain::to_library<Branch<Scalar>>(plain), Softmax<Scalar>{}};
        const Matrix<Scalar> x = test::random_matrix<Scalar>(random, 3, 1);
        const double uncovered = trial % 4 == 0 ? 0 : std::pow(10, -4 * uniform<double>(random));
        const auto bounds = CertifiedInterval{{.uncovered = uncovered}}(network, x);
        const auto mean = exact_mean(network, x);
        const auto real = plain.moments(plain::column(x, 0), plain_softmax).mean;
        ++tally.trials;
        bool contains = true, contains_real = true, narrow = bounds.covered >= 1 - uncovered;
        for (Index i = 0; i < 3; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const double lower = bounds.lower(i, 0), upper = bounds.upper(i, 0);
            contains = contains && lower <= mean[at] && mean[at] <= upper;
            contains_real = contains_real && lower - network_error <= real[at] &&
                            real[at] <= upper + network_error;
            const double rounding = (16 * static_cast<double>(depth) + 40) * 0x1p-53;
            narrow = narrow && upper - lower <= uncovered + rounding &&
                     upper - lower >= 1 - bounds.covered - rounding && lower >= 0 && upper <= 1;
            tally.narrowest = std::min(tally.narrowest, upper - lower);
        }
        tally.outside += contains ? 0 : 1;
        tally.outside_real += contains_real ? 0 : 1;
        tally.too_wide += narrow ? 0 : 1;
    }
}

TEST_CASE("CertifiedInterval: contains the exact mean in every one of 16,000 trials",
          "[certified_interval]") {
    Tally tally;
    try_networks<double>(51, 12000, tally);
    try_networks<float>(52, 4000, tally);
    CHECK(tally.trials == 16000);
    CHECK(tally.outside == 0);
    CHECK(tally.outside_real == 0);
    CHECK(tally.too_wide == 0);
    // Not by being wide: the rounding alone is left where every mask was evaluated.
    CHECK(tally.narrowest <= 1e-14);
}

TEST_CASE("CertifiedInterval: masks in order of falling probability, until the mass is covered",
          "[certified_interval]") {
    Philox random{53};
    auto plain = plain::random_network(random, {10, 3, 1, plain::Activation::tanh, true});
    for (plain::Block& block : plain.blocks) block.p = 0.9;
    const Sequential network{plain::to_library<Branch<double>>(plain), Softmax<double>{}};
    const Matrix<double> x = test::random_matrix<double>(random, 3, 1);
    // 0.9^10 + 10 0.9^9 0.1 + 45 0.9^8 0.01 + ...: 1, 11, 56, 176 masks cover 0.35, 0.74, 0.93,
    // 0.987.
    const double one = std::pow(0.9, 10), two = one + std::pow(0.9, 9);
    const double three = two + 45 * std::pow(0.9, 8) / 100;
    const auto bounds = [&](double uncovered) {
        return CertifiedInterval{{.uncovered = uncovered}}(network, x);
    };
    CHECK(bounds(1 - one + 1e-12).masks == 1);
    CHECK(bounds(1 - one + 1e-12).layer_evaluations == 10);
    CHECK(bounds(1 - one - 1e-12).masks == 2);
    CHECK(bounds(1 - two + 1e-12).masks == 11);
    CHECK(bounds(1 - two + 1e-12).layer_evaluations == 10 + 10 * 9);
    CHECK(bounds(1 - three + 1e-12).masks == 56);
    CHECK(std::abs(bounds(1 - three + 1e-12).covered - three) <= 1e-13);
    CHECK(bounds(0).masks == 1024);
    CHECK(bounds(0).layer_evaluations == 5 * 1024);
    CHECK(bounds(0).covered == 1);
    // Narrower with every step, each interval within the one before.
    Eigen::MatrixXd lower = Eigen::MatrixXd::Zero(2, 1), upper = Eigen::MatrixXd::Ones(2, 1);
    for (const double uncovered : {0.5, 0.1, 0.01, 1e-4, 0.0}) {
        const auto next = bounds(uncovered);
        CHECK((next.lower.array() >= lower.array()).all());
        CHECK((next.upper.array() <= upper.array()).all());
        lower = next.lower;
        upper = next.upper;
    }
}

TEST_CASE("CertifiedInterval: the budget ends it with an answer that holds",
          "[certified_interval]") {
    Philox random{54};
    auto plain = plain::random_network(random, {8, 3, 1, plain::Activation::tanh, true});
    for (plain::Block& block : plain.blocks) block.p = 0.75;
    const Sequential network{plain::to_library<Branch<double>>(plain), Softmax<double>{}};
    const Matrix<double> x = test::random_matrix<double>(random, 3, 1);
    const auto mean = exact_mean(network, x);
    for (const std::uint64_t budget : {0u, 7u, 8u, 14u, 15u, 100u, 2000u}) {
        CAPTURE(budget);
        const auto bounds =
            CertifiedInterval{{.uncovered = 0, .max_layer_evaluations = budget}}(network, x);
        CHECK(bounds.layer_evaluations <= static_cast<double>(budget));
        // 8 evaluations for the first mask, 7 for each of the next ones.
        if (budget <= 15) CHECK(bounds.masks == (budget < 8 ? 0 : budget < 15 ? 1 : 2));
        if (budget < 8)
            CHECK((bounds.covered == 0 && bounds.lower.isZero(0) && bounds.upper.isOnes(0)));
        CHECK((bounds.covered == 1) == (budget == 2000));
        for (Index i = 0; i < 2; ++i) {
            CHECK(bounds.lower(i, 0) <= mean[static_cast<std::size_t>(i)]);
            CHECK(mean[static_cast<std::size_t>(i)] <= bounds.upper(i, 0));
        }
    }
}

TEST_CASE("CertifiedInterval: the same bits for any number of threads and any batch",
          "[certified_interval]") {
    Philox random{55};
    const auto plain = tiny_network(random, 9, 4);
    const Sequential network{plain::to_library<Branch<float>>(plain), Softmax<float>{}};
    const Matrix<float> x = test::random_matrix<float>(random, 3, 1700);
    const auto bounds = CertifiedInterval{{.uncovered = 0.05}}(network, x);
    for (const unsigned threads : {2u, 3u, 7u, 16u})
        for (const Index columns : {1, 2, 60, 200, 1700}) {
            const auto part = CertifiedInterval{{.uncovered = 0.05, .threads = threads}}(
                network, x.leftCols(columns));
            CHECK(test::same_bits(part.lower, bounds.lower.leftCols(columns)));
            CHECK(test::same_bits(part.upper, bounds.upper.leftCols(columns)));
            CHECK(part.masks == bounds.masks);
        }
}

TEST_CASE("CertifiedInterval: no layers, one layer, p = 1, no columns", "[certified_interval]") {
    Philox random{56};
    const auto bounds_of = [&](const plain::Network& plain, Index columns) {
        const Sequential network{plain::to_library<Branch<double>>(plain), Softmax<double>{}};
        const Matrix<double> x = Matrix<double>::Ones(3, columns);
        return CertifiedInterval{{.uncovered = 0.01}}(network, x);
    };
    auto plain = plain::random_network(random, {0, 4, 1, plain::Activation::tanh, true});
    CHECK(bounds_of(plain, 2).masks == 1);
    CHECK(bounds_of(plain, 2).layer_evaluations == 0);
    CHECK((bounds_of(plain, 2).upper - bounds_of(plain, 2).lower).maxCoeff() <= 1e-14);

    plain = plain::random_network(random, {1, 4, 1, plain::Activation::tanh, true});
    plain.blocks[0].p = 0.25;
    CHECK(bounds_of(plain, 1).masks == 2);
    CHECK(bounds_of(plain, 1).layer_evaluations == 1);
    CHECK(bounds_of(plain, 1).covered == 1);
    plain.blocks[0].p = 0.9921875;
    CHECK(bounds_of(plain, 1).masks == 1);
    CHECK(std::abs(bounds_of(plain, 1).covered - 0.9921875) <= 1e-14);

    plain = plain::random_network(random, {5, 4, 1, plain::Activation::tanh, true});
    for (plain::Block& block : plain.blocks) block.p = 1;
    CHECK(bounds_of(plain, 1).masks == 1);
    CHECK(bounds_of(plain, 1).layer_evaluations == 5);
    CHECK((bounds_of(plain, 1).upper - bounds_of(plain, 1).lower).maxCoeff() <= 1e-14);

    CHECK(bounds_of(plain, 0).lower.rows() == 2);
    CHECK(bounds_of(plain, 0).upper.cols() == 0);
    CHECK(bounds_of(plain, 0).masks == 1);
}

/// x, |x| / 2 + 1, |x| / 4 + 3 / 2: outputs of one layer within another, with a range of their own.
TEST_CASE("CertifiedInterval: layers inside a skipped one cost nothing, and any range will do",
          "[certified_interval]") {
    std::atomic<long> columns{0};
    const StochasticDepth inner{probe::Counted{&columns}, SurvivalProbability{0.75}};
    const StochasticDepth outer{Sequential{inner, probe::Counted{&columns}},
                                SurvivalProbability{0.5}};
    const auto bounds = CertifiedInterval{{.lowest = -3, .highest = 5, .uncovered = 0}}(
        outer, Matrix<double>::Ones(1, 1));
    // Masks (1,1), (0,1), (1,0), (0,0), with 2, 0, 1, 0 layers.
    CHECK(bounds.masks == 4);
    CHECK(bounds.layer_evaluations == 3);
    const double mean = 0.5 * (0.75 * 1.75 + 0.25 * 1.5) + 0.5 * 1;
    CHECK(bounds.lower(0, 0) <= mean);
    CHECK(mean <= bounds.upper(0, 0));
    CHECK(bounds.upper(0, 0) - bounds.lower(0, 0) <= 8 * (16 * 2 + 40) * 0x1p-53);
}

TEST_CASE("CertifiedInterval: an output out of range, or no number, is refused with its place",
          "[certified_interval]") {
    const auto identity = Eigen::MatrixXd::Identity(2, 2);
    const StochasticDepth doubling{Residual{Linear<double>{identity, Eigen::VectorXd::Zero(2)}},
                                   SurvivalProbability{0.75}};
    Matrix<double> x = Matrix<double>::Constant(2, 200, 0.25);
    const CertifiedInterval interval{{.uncovered = 0.1}};
    CHECK(test::refusal([&] { (void)interval(doubling, x); }) == "accepted");
    x(1, 150) = 0.625;
    CHECK(test::refusal([&] { (void)interval(doubling, x); }) ==
          "CertifiedInterval: outputs must lie in [0, 1], got 1.25 for output 1 of sample 150");
    // Of a mask that is not evaluated nothing is known.
    const CertifiedInterval none{{.uncovered = 0.1, .max_layer_evaluations = 0}};
    CHECK(none(doubling, x).upper.isOnes(0));
    const StochasticDepth sick{probe::NotANumber{}, SurvivalProbability{0.75}};
    CHECK(test::refusal([&] { (void)interval(sick, x.leftCols(1)); }) ==
          "CertifiedInterval: outputs must lie in [0, 1], got nan for output 0 of sample 0");
    x(0, 3) = std::numeric_limits<double>::quiet_NaN();
    CHECK(test::refusal([&] { (void)interval(doubling, x.middleCols(2, 2)); }) ==
          "CertifiedInterval: outputs must lie in [0, 1], got nan for output 0 of sample 1");
}

}  // namespace
