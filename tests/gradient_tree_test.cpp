// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/gradient_tree.hpp>

#include <cmath>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_gradient.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using Loss = MeanSquaredError<double>;

/// Visits what no sample has reached too.
struct Collect {
    std::vector<double> numbers;
    static bool visits_unreached() { return true; }
    void operator()(const char*, const auto&, const auto& slope) {
        numbers.insert(numbers.end(), slope.data(), slope.data() + slope.size());
    }
};

/// The parameters' gradients in a row, 0 where a layer is not reached.
template <class Network>
Eigen::VectorXd numbers_of(const Network& network, const typename Network::Gradient& gradient) {
    Collect collect;
    detail::visit_parameters(network, collect, gradient);
    return Eigen::Map<Eigen::VectorXd>(collect.numbers.data(),
                                       static_cast<Index>(collect.numbers.size()));
}

template <class Network, class Law>
void check_against_listed_masks(const Network& network, Philox& random, Index inputs,
                                const Law& law) {
    const auto x = test::random_matrix<double>(random, inputs, 3);
    const Matrix<double> targets =
        test::random_matrix<double>(random, network.output_size(inputs), 3);
    auto gradient = network.zero_gradient();
    const double loss =
        ExactGradient{}.of_expected_loss(network, x, targets, Loss{}, gradient, law);
    TrainingStep step{network, Loss{}};
    double expected_loss = 0;
    Eigen::VectorXd expected = Eigen::VectorXd::Zero(numbers_of(network, gradient).size());
    for (const SurvivalMask& mask : test::all_masks(network.depth())) {
        step.gradient().set_zero();
        const double p = probability(mask, law);
        if (p == 0) continue;
        expected_loss += p * step.differentiate(network, x, targets, mask).loss;
        expected += p * numbers_of(network, step.gradient());
    }
    CHECK(std::abs(loss - expected_loss) <= 1e-12);
    CHECK((numbers_of(network, gradient) - expected).cwiseAbs().maxCoeff() <= 1e-12);
    // What only visits what is reached must reach the same.
    Index reached = 0;
    detail::visit_parameters(
        network,
        [&](const char*, const auto&, const auto& slope) {
            for (Index k = 0; k < slope.size(); ++k) reached += slope.data()[k] != 0 ? 1 : 0;
        },
        gradient);
    CHECK(reached == (numbers_of(network, gradient).array() != 0).count());
}

TEST_CASE("GradientTree: under a law it is the mean of the gradients of the listed masks",
          "[gradient_tree]") {
    test::Structures make{21};
    const auto check = [&](const auto& network, Index inputs) {
        const Index depth = network.depth();
        check_against_listed_masks(network, make.random, inputs, test::TwoBackLaw{depth});
        std::vector<SurvivalMask> masks;
        for (Index k = 0; k < 4; ++k) {
            SurvivalMask mask = SurvivalMask::none(depth);
            for (Index l = 0; l < depth; ++l)
                if (l > 0 && (l * k + k) % 3 == 0) mask.keep(l);  // never the first
            masks.push_back(mask);
        }
        check_against_listed_masks(network, make.random, inputs,
                                   MaskListLaw{masks, Eigen::Vector4d(1, 2, 3, 4)});
    };
    check(make.nested(), 5);
    check(make.own_shortcuts(), 4);
    check(Sequential{AnyLayer<double>{make.own_shortcuts()}, make.block(5, 0.5)}, 4);
}

TEST_CASE("GradientTree: a layer with a shortcut that no mask keeps trains its shortcut",
          "[gradient_tree]") {
    test::Structures make{22};
    const Sequential network{
        StochasticDepth{Residual{make.branch(4, 3), make.linear(4, 3)}, SurvivalProbability{0.5}},
        make.linear(3, 2)};
    check_against_listed_masks(network, make.random, 4,
                               MaskListLaw{{{0}}, Eigen::VectorXd::Ones(1)});
}

TEST_CASE("GradientTree: the gradient of the mean by the input, and what is refused",
          "[gradient_tree]") {
    test::Structures make{23};
    const auto network = make.nested();
    const auto law = LayerCountLaw::at_most(network.depth(), 3);
    const auto x = test::random_matrix<double>(make.random, 5, 2);
    const auto slopes = test::random_matrix<double>(make.random, 3, 2);
    auto gradient = network.zero_gradient();
    Matrix<double> dx(5, 2);
    ExactGradient{}.of_mean(network, x, slopes, gradient, dx, law);
    for (Index k = 0; k < x.size(); ++k) {
        Matrix<double> up = x, down = x;
        up.data()[k] += 1e-6;
        down.data()[k] -= 1e-6;
        const double rise = (ExactExpectation{}(network, up, law).mean -
                             ExactExpectation{}(network, down, law).mean)
                                .cwiseProduct(slopes)
                                .sum();
        CHECK(std::abs(dx.data()[k] - rise / 2e-6) <= 1e-8);
    }
    CHECK(test::refusal([&] {
              ExactGradient{}.of_mean(network, x, slopes, gradient, dx, test::TwoBackLaw{2});
          }) ==
          detail::message("ExactGradient: law must have ", network.depth(), " layers, got 2"));
}

}  // namespace
