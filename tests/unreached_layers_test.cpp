// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/unreached_layers.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/gradient_clipping.hpp>
#include <stochastic_depth/training/sgd.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/recorded_pass.hpp"

namespace {

using namespace stochastic_depth;
using test::parameters;

constexpr UnreachedLayers as_zero = UnreachedLayers::as_zero_gradient;

using Block = StochasticDepth<Residual<Linear<double>>>;
using Nested = StochasticDepth<Sequential<Linear<double>, Block>>;
using WithShortcut = StochasticDepth<Residual<Linear<double>, Linear<double>>>;
using Network = Sequential<Linear<double>, Stack<Block>, Nested, WithShortcut>;

constexpr std::uint32_t ways = 1u << 5;  // five skippable layers

Network some_network(std::uint32_t seed) {
    Philox random{seed};
    const auto square = [&] { return Linear<double>{3, 3, random}; };
    std::vector<Block> blocks;
    for (int l = 0; l < 2; ++l) blocks.emplace_back(Residual{square()}, SurvivalProbability{0.5});
    return Sequential{
        Linear<double>{2, 3, random}, Stack{blocks},
        Nested{Sequential{square(), Block{Residual{square()}, SurvivalProbability{0.5}}},
               SurvivalProbability{0.5}},
        WithShortcut{Residual{Linear<double>{3, 2, random}, Linear<double>{3, 2, random}},
                     SurvivalProbability{0.5}}};
}

SurvivalMask mask_of(std::uint32_t bits) {
    return {(bits & 1) != 0, (bits >> 1 & 1) != 0, (bits >> 2 & 1) != 0, (bits >> 3 & 1) != 0,
            (bits >> 4 & 1) != 0};
}

/// Adds the gradient of half the sum of the squares of the outputs under a mask.
void differentiate(const Network& network, Network::Gradient& gradient,
                   test::RecordedPass<Network>& pass, const SurvivalMask& mask,
                   const Matrix<double>& x) {
    Matrix<double> h = x;
    pass.forward(network, h, detail::MaskView{mask});
    pass.backward(network, h, gradient);
}

using Numbers = std::vector<long double>;

Numbers numbers(const Eigen::VectorXd& values) {
    return {values.data(), values.data() + values.size()};
}

/// PyTorch's SGD for a zero .grad, number by number: every number in every step.
struct PlainSgd {
    SgdOptions options;
    Numbers w, v;

    void step(const Eigen::VectorXd& slopes) {
        v.resize(w.size());
        for (std::size_t i = 0; i < w.size(); ++i) {
            const long double g = static_cast<long double>(slopes(static_cast<Index>(i))) +
                                  static_cast<long double>(options.weight_decay) * w[i];
            const auto mu = static_cast<long double>(options.momentum);
            v[i] = mu * v[i] + g;
            w[i] -= static_cast<long double>(options.learning_rate) *
                    (options.nesterov ? g + mu * v[i] : v[i]);
        }
    }
};

/// Adam and AdamW with one t for all numbers, which counts the steps.
struct PlainAdam {
    long double rate, beta1, beta2, epsilon, coupled, decoupled;
    Numbers w, m = {}, v = {};
    int t = 0;

    void step(const Eigen::VectorXd& slopes) {
        ++t;
        m.resize(w.size());
        v.resize(w.size());
        for (std::size_t i = 0; i < w.size(); ++i) {
            const long double g =
                static_cast<long double>(slopes(static_cast<Index>(i))) + coupled * w[i];
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            w[i] -= rate * decoupled * w[i] +
                    rate * (m[i] / (1 - std::pow(beta1, t))) /
                        (std::sqrt(v[i] / (1 - std::pow(beta2, t))) + epsilon);
        }
    }
};

/// Trains under random masks, one of which skips everything, beside a plain loop.
template <class Optimizer, class Plain>
void check_against(Optimizer optimizer, Plain plain, Network network) {
    plain.w = numbers(parameters(network));
    auto gradient = network.zero_gradient();
    test::RecordedPass<Network> pass;
    Philox random{7};
    const Matrix<double> x = test::random_matrix<double>(random, 2, 3);
    int skipped_all = 0;
    for (int step = 0; step < 200; ++step) {
        const auto bits = static_cast<std::uint32_t>(random() % ways);
        skipped_all += bits == 0;
        differentiate(network, gradient, pass, mask_of(bits), x);
        const Eigen::VectorXd slopes = test::slopes(network, gradient);
        optimizer.step(network, gradient);
        gradient.set_zero();
        plain.step(slopes);
        const Eigen::VectorXd w = parameters(network);
        INFO("step " << step << ", mask " << bits);
        for (std::size_t i = 0; i < plain.w.size(); ++i)
            REQUIRE(std::abs(static_cast<long double>(w(static_cast<Index>(i))) - plain.w[i]) <=
                    1e-10L * std::max(1.0L, std::abs(plain.w[i])));
    }
    REQUIRE(skipped_all > 0);
}

TEST_CASE("UnreachedLayers: as_zero_gradient, Sgd follows a plain loop over all parameters",
          "[unreached_layers]") {
    const Network network = some_network(1);
    for (const SgdOptions& options :
         {SgdOptions{.learning_rate = 1e-3, .unreached_layers = as_zero},
          SgdOptions{.learning_rate = 1e-3, .momentum = 0.9, .unreached_layers = as_zero},
          SgdOptions{.learning_rate = 1e-3,
          .momentum = 0.8,
          .nesterov = true,
          .weight_decay = 0.1,
          .unreached_layers = as_zero}})
        check_against(Sgd{network, options}, PlainSgd{options, {}, {}}, network);
}

TEST_CASE("UnreachedLayers: as_zero_gradient, Adam and AdamW follow a plain loop with one t",
          "[unreached_layers]") {
    const Network network = some_network(2);
    // epsilon large enough that no rounding of a root near 0 is blown up.
    const AdamOptions adam{
        .learning_rate = 0.01, .epsilon = 1e-3, .weight_decay = 0.1, .unreached_layers = as_zero};
    check_against(
        Adam{network, adam},
        PlainAdam{
            adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon, adam.weight_decay, 0, {}},
        network);
    const AdamWOptions adam_w{.learning_rate = 0.01,
                              .beta1 = 0.8,
                              .beta2 = 0.9,
                              .epsilon = 1e-3,
                              .weight_decay = 0.3,
                              .unreached_layers = as_zero};
    check_against(AdamW{network, adam_w},
                  PlainAdam{adam_w.learning_rate,
                            adam_w.beta1,
                            adam_w.beta2,
                            adam_w.epsilon,
                            0,
                            adam_w.weight_decay,
                            {}},
                  network);
}

/// One skippable number w on the way of an input of 0: the bias has gradient 0 or 1, the weight
/// none.
using One = Sequential<StochasticDepth<Residual<Linear<double>>>>;

/// The bias of a skippable layer after each step; a step that keeps the layer gives it gradient 1.
template <template <class> class Optimizer, class Options>
std::vector<double> trajectory(const Options& options, double start,
                               const std::vector<bool>& kept) {
    One network{StochasticDepth{
        Residual{Linear<double>{Eigen::MatrixXd::Zero(1, 1), Eigen::VectorXd::Constant(1, start)}},
        SurvivalProbability{0.5}}};
    Optimizer<One> optimizer{network, options};
    auto gradient = network.zero_gradient();
    test::RecordedPass<One> pass;
    std::vector<double> found;
    for (const bool keep : kept) {
        Matrix<double> h = Matrix<double>::Zero(1, 1);
        pass.forward(network, h, detail::MaskView{SurvivalMask{keep}});
        h.setOnes();
        pass.backward(network, h, gradient);
        optimizer.step(network, gradient);
        gradient.set_zero();
        found.push_back(std::get<0>(network.layers()).layer().branch().bias()(0));
    }
    return found;
}

void check(const std::vector<double>& found, const std::vector<double>& expected) {
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        INFO("step " << i);
        CHECK(std::abs(found[i] - expected[i]) <= 1e-14);
    }
}

TEST_CASE("UnreachedLayers: kept, skipped, kept, by hand", "[unreached_layers]") {
    const std::vector<bool> kept{true, false, true};
    // v = 1, 0.5, 1.25; frozen: 1, -, 1.5.
    SgdOptions sgd{.learning_rate = 1, .momentum = 0.5};
    check(trajectory<Sgd>(sgd, 0, kept), {-1, -1, -2.5});
    sgd.unreached_layers = as_zero;
    check(trajectory<Sgd>(sgd, 0, kept), {-1, -1.5, -2.75});
    // w halves in a skipped step: g = 1 + w/2, w - g.
    SgdOptions decaying{.learning_rate = 1, .weight_decay = 0.5};
    check(trajectory<Sgd>(decaying, 4, kept), {1, 1, -0.5});
    decaying.unreached_layers = as_zero;
    check(trajectory<Sgd>(decaying, 4, kept), {1, 0.5, -0.75});
    // Nesterov: w - (g + v/2) with v = 1, 0.5, 1.25: 1.5, 0.25, 1.625.
    check(
        trajectory<Sgd>(
            SgdOptions{
                .learning_rate = 1, .momentum = 0.5, .nesterov = true, .unreached_layers = as_zero},
            0, kept),
        {-1.5, -1.75, -3.375});
    // beta_1 = 1/2, beta_2 = 0, epsilon = 1, g = 1, 0, 1: m = 1/2, 1/4, 5/8 over 1/2, 3/4, 7/8;
    // v = 1, 0, 1: steps 1/2, 1/3, 5/14. Frozen, m = 1/2, 3/4 over 1/2, 3/4: 1/2, -, 1/2.
    AdamOptions adam{.learning_rate = 1, .beta1 = 0.5, .beta2 = 0, .epsilon = 1};
    check(trajectory<Adam>(adam, 0, kept), {-0.5, -0.5, -1});
    adam.unreached_layers = as_zero;
    check(trajectory<Adam>(adam, 0, kept), {-1 / 2.0, -5 / 6.0, -25 / 21.0});
    // The same steps, and a quarter of w in each: 4 -> 3 - 1/2 -> 15/8 - 1/3.
    AdamWOptions adam_w{
        .learning_rate = 1, .beta1 = 0.5, .beta2 = 0, .epsilon = 1, .weight_decay = 0.25};
    check(trajectory<AdamW>(adam_w, 4, {true, false}), {2.5, 2.5});
    adam_w.unreached_layers = as_zero;
    check(trajectory<AdamW>(adam_w, 4, {true, false}), {2.5, 37 / 24.0});
}

TEST_CASE(
    "UnreachedLayers: a shortcut that an earlier step went through is not reached in this one",
    "[unreached_layers]") {
    Philox random{9};
    Sequential network{
        WithShortcut{Residual{Linear<double>{3, 2, random}, Linear<double>{3, 2, random}},
                     SurvivalProbability{0.5}}};
    using Skipped = decltype(network);
    Sgd optimizer{network, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.1}};
    auto gradient = network.zero_gradient();
    test::RecordedPass<Skipped> pass;
    const auto step = [&](const Matrix<double>& x) {
        Matrix<double> h = x;
        pass.forward(network, h, detail::MaskView{SurvivalMask{0}});
        pass.backward(network, h, gradient);
        const Eigen::VectorXd before = parameters(network);
        optimizer.step(network, gradient);
        gradient.set_zero();
        return Eigen::VectorXd(parameters(network) - before);
    };
    const Matrix<double> x = test::random_matrix<double>(random, 3, 4);
    REQUIRE(step(x).norm() > 1e-3);
    // No sample, no step: neither the velocity nor the decay moves a weight.
    CHECK(step(x.leftCols(0)).isZero(0));
    const Eigen::VectorXd before = parameters(network);
    optimizer.step(network, gradient);
    CHECK(test::same_bits(parameters(network), before));
    REQUIRE(step(x).norm() > 1e-3);
}

template <template <class> class Optimizer, class Options>
Eigen::VectorXd trained(Options options, UnreachedLayers unreached, bool all_kept) {
    options.unreached_layers = unreached;
    Network network = some_network(3);
    Optimizer<Network> optimizer{network, options};
    auto gradient = network.zero_gradient();
    test::RecordedPass<Network> pass;
    Philox random{8};
    const Matrix<double> x = test::random_matrix<double>(random, 2, 4);
    for (int step = 0; step < 20; ++step) {
        const auto bits = static_cast<std::uint32_t>(random() % ways);
        differentiate(network, gradient, pass, mask_of(all_kept ? ways - 1 : bits), x);
        clip_gradient_norm(network, gradient, 1.0);
        optimizer.step(network, gradient);
        gradient.set_zero();
    }
    return parameters(network);
}

TEST_CASE("UnreachedLayers: the same bits by either policy if every step reaches every layer",
          "[unreached_layers]") {
    const auto check_optimizer = [](const auto& train) {
        for (const bool all_kept : {true, false})
            CHECK(test::same_bits(train(UnreachedLayers::frozen, all_kept),
                                  train(as_zero, all_kept)) == all_kept);
    };
    const SgdOptions sgd{.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.01};
    check_optimizer([&](UnreachedLayers unreached, bool all_kept) {
        return trained<Sgd>(sgd, unreached, all_kept);
    });
    check_optimizer([](UnreachedLayers unreached, bool all_kept) {
        return trained<Adam>(AdamOptions{}, unreached, all_kept);
    });
    check_optimizer([](UnreachedLayers unreached, bool all_kept) {
        return trained<AdamW>(AdamWOptions{}, unreached, all_kept);
    });
    // A plain gradient step of zero moves nothing.
    CHECK(test::same_bits(trained<Sgd>(SgdOptions{}, UnreachedLayers::frozen, false),
                          trained<Sgd>(SgdOptions{}, as_zero, false)));
}

}  // namespace
