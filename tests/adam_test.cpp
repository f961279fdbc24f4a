// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/adam.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/one_weight.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::check_weights;
using test::one_weight;
using test::OneWeight;
using test::parameters;
using test::trajectory;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

/// The published algorithms, number by number, for each parameter that a gradient reaches.
struct PlainAdam {
    long double rate, beta1, beta2, epsilon, coupled, decoupled;

    struct State {
        std::vector<long double> w, m, v;
        int t = 0;
    };
    std::map<const void*, State> states;

    template <class Options>
    PlainAdam(const Options& options, double coupled_, double decoupled_)
        : rate(options.learning_rate),
          beta1(options.beta1),
          beta2(options.beta2),
          epsilon(options.epsilon),
          coupled(coupled_),
          decoupled(decoupled_) {}

    template <class Network>
    void start(const Network& network) {
        detail::visit_parameters(network, [&](const char*, const auto& parameter) {
            const auto count = static_cast<std::size_t>(parameter.size());
            State& state = states[parameter.data()];
            state.w.assign(parameter.data(), parameter.data() + parameter.size());
            state.m.assign(count, 0);
            state.v.assign(count, 0);
        });
    }

    template <class Network>
    void step(const Network& network, typename Network::Gradient& gradient) {
        detail::visit_parameters(
            network,
            [&](const char*, const auto& parameter, const auto& slope) {
                State& state = states.at(parameter.data());
                ++state.t;
                for (std::size_t i = 0; i < state.w.size(); ++i) {
                    long double &w = state.w[i], &m = state.m[i], &v = state.v[i];
                    const long double g = static_cast<long double>(slope.data()[i]) + coupled * w;
                    w -= rate * decoupled * w;
                    m = beta1 * m + (1 - beta1) * g;
                    v = beta2 * v + (1 - beta2) * g * g;
                    const long double mean = m / (1 - std::pow(beta1, state.t));
                    const long double square = v / (1 - std::pow(beta2, state.t));
                    w -= rate * mean / (std::sqrt(square) + epsilon);
                }
            },
            gradient);
    }

    /// The largest distance to the network's numbers, each over 1 or the number if that is larger.
    template <class Network>
    double distance(const Network& network) const {
        long double largest = 0;
        detail::visit_parameters(network, [&](const char*, const auto& parameter) {
            const State& state = states.at(parameter.data());
            for (std::size_t i = 0; i < state.w.size(); ++i) {
                const long double w = state.w[i];
                const long double off =
                    std::abs(static_cast<long double>(parameter.data()[i]) - w) /
                    std::max(1.0L, std::abs(w));
                if (!(off <= largest)) largest = off;
            }
        });
        return static_cast<double>(largest);
    }
};

using Block = StochasticDepth<Residual<Linear<double>>>;
using WithShortcut = StochasticDepth<Residual<Linear<double>, Linear<double>>>;
using Network = Sequential<Linear<double>, Stack<Block>, WithShortcut>;

Network some_network(std::uint32_t seed) {
    Philox random{seed};
    std::vector<Block> blocks;
    for (int l = 0; l < 3; ++l)
        blocks.emplace_back(Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5});
    return Sequential{
        Linear<double>{2, 3, random}, Stack{blocks},
        WithShortcut{Residual{Linear<double>{3, 2, random}, Linear<double>{3, 2, random}},
                     SurvivalProbability{0.5}}};
}

/// A gradient of random numbers that has reached the layers of a mask's bits, and the shortcut of
/// the last.
void set_gradient(const Network& network, Network::Gradient& gradient, Philox& random,
                  std::uint32_t mask) {
    gradient.set_zero();
    auto& [first, blocks, last] = gradient.layers;
    for (std::size_t l = 0; l < 3; ++l) blocks.layers[l].reached = (mask >> l & 1) != 0;
    last.reached = (mask >> 3 & 1) != 0;
    last.shortcut_reached = (mask >> 4 & 1) != 0;
    detail::visit_parameters(
        network,
        [&](const char*, const auto&, auto& slope) {
            slope = test::random_matrix<double>(random, slope.rows(), slope.cols());
        },
        gradient);
}

template <template <class> class Optimizer, class Options>
void check_against_plain_loop(const Options& options, double coupled, double decoupled) {
    Philox random{11};
    Network network = some_network(12);
    Optimizer<Network> optimizer{network, options};
    PlainAdam plain{options, coupled, decoupled};
    plain.start(network);
    auto gradient = network.zero_gradient();
    for (int step = 0; step < 300; ++step) {
        if (step == 150) {
            plain.rate = options.learning_rate / 3;
            optimizer.set_learning_rate(options.learning_rate / 3);
        }
        // Every set of layers, some of them many times; layer 1 stays away for a hundred steps.
        std::uint32_t mask = static_cast<std::uint32_t>(random() % 32);
        if (step < 100) mask &= ~2u;
        set_gradient(network, gradient, random, mask);
        optimizer.step(network, gradient);
        plain.step(network, gradient);
        INFO("step " << step << ", reached " << mask);
        REQUIRE(plain.distance(network) <= 1e-13);
    }
    CHECK(optimizer.options().learning_rate == options.learning_rate / 3);
}

TEST_CASE("Adam: follows a plain long double loop under random masks", "[adam]") {
    for (const AdamOptions& options :
         {AdamOptions{}, AdamOptions{.learning_rate = 0.05, .weight_decay = 0.1},
          AdamOptions{.learning_rate = 0.01, .beta1 = 0, .beta2 = 0.5, .epsilon = 0.1},
          AdamOptions{.beta2 = 0, .epsilon = 1e-3}, AdamOptions{.beta1 = 0.99, .beta2 = 0.9999}})
        check_against_plain_loop<Adam>(options, options.weight_decay, 0);
}

TEST_CASE("AdamW: follows a plain long double loop under random masks", "[adam]") {
    for (const AdamWOptions& options :
         {AdamWOptions{}, AdamWOptions{.learning_rate = 0.05, .weight_decay = 0.3},
          AdamWOptions{.learning_rate = 0.01, .beta1 = 0.5, .beta2 = 0.9, .weight_decay = 0}})
        check_against_plain_loop<AdamW>(options, 0, options.weight_decay);
}

TEST_CASE("Adam and AdamW: two steps by hand", "[adam]") {
    // beta_1 = beta_2 = 1/2, epsilon = 1. g = 3: m = 1.5, v = 4.5, corrected 3 and 9; step 3 / (3 +
    // 1). g = 0: m = 0.75, v = 2.25, over 3/4: 1 and 3; step 1 / (sqrt 3 + 1) = (sqrt 3 - 1) / 2.
    const AdamOptions halves{.learning_rate = 1, .beta1 = 0.5, .beta2 = 0.5, .epsilon = 1};
    check_weights(trajectory<Adam>(halves, 4, {3, 0}), {3.25, 3.25 - (std::sqrt(3.0) - 1) / 2},
                  1e-14);
    // With lambda = 1/4, g = 2 + 4/4 = 3.
    AdamOptions decaying = halves;
    decaying.weight_decay = 0.25;
    check_weights(trajectory<Adam>(decaying, 4, {2}), {3.25}, 1e-14);
    // Decoupled, w loses a quarter, 4/4 and then 2.25/4, beside the same steps.
    const AdamWOptions decoupled{
        .learning_rate = 1, .beta1 = 0.5, .beta2 = 0.5, .epsilon = 1, .weight_decay = 0.25};
    check_weights(trajectory<AdamW>(decoupled, 4, {3, 0}),
                  {2.25, 1.6875 - (std::sqrt(3.0) - 1) / 2}, 1e-14);
}

TEST_CASE("Adam: constant gradients of any size move a weight by eta in each step", "[adam]") {
    for (const double slope : {1e-3, 1.0, -1e6}) {
        const double step = slope > 0 ? 0.125 : -0.125;
        const AdamOptions options{.learning_rate = 0.125, .epsilon = 1e-300};
        check_weights(trajectory<Adam>(options, 0, std::vector<double>(5, slope)),
                      {-step, -2 * step, -3 * step, -4 * step, -5 * step}, 1e-14);
    }
}

TEST_CASE("Adam: a layer that is seldom reached takes steps as if trained in those alone",
          "[adam]") {
    // Gradients by the step at which the last block is reached; with pauses or without, the same
    // path.
    const auto run = [](const std::vector<std::optional<double>>& slopes_of_last) {
        Network network = some_network(21);
        AdamW optimizer{network, {.learning_rate = 0.1, .weight_decay = 0.1}};
        auto gradient = network.zero_gradient();
        Philox random{22};
        for (const std::optional<double>& slope : slopes_of_last) {
            set_gradient(network, gradient, random, slope ? 0b11100 : 0b11011);
            if (slope)
                std::get<1>(gradient.layers).layers[2].layer.branch.weights.setConstant(*slope);
            if (slope) std::get<1>(gradient.layers).layers[2].layer.branch.bias.setConstant(*slope);
            const Eigen::VectorXd before = parameters(std::get<1>(network.layers()).layers()[2]);
            optimizer.step(network, gradient);
            const Eigen::VectorXd after = parameters(std::get<1>(network.layers()).layers()[2]);
            CHECK(test::same_bits(before, after) != slope.has_value());
        }
        return parameters(std::get<1>(network.layers()).layers()[2]);
    };
    std::vector<std::optional<double>> with_pauses(1000), without;
    with_pauses[7] = 0.5, with_pauses[300] = -2, with_pauses[999] = 3;
    for (const auto& slope : with_pauses)
        if (slope) without.push_back(slope);
    CHECK(test::same_bits(run(with_pauses), run(without)));
}

TEST_CASE("Adam: float parameters follow the same formulas in float", "[adam]") {
    Philox random{31};
    Sequential network{Linear<float>{3, 4, random}, Tanh<float>{}, Linear<float>{4, 2, random}};
    const AdamOptions options{.learning_rate = 0.01, .weight_decay = 0.01};
    Adam optimizer{network, options};
    PlainAdam plain{options, options.weight_decay, 0};
    plain.start(network);
    auto gradient = network.zero_gradient();
    for (int step = 0; step < 50; ++step) {
        detail::visit_parameters(
            network,
            [&](const char*, const auto&, auto& slope) {
                slope = test::random_matrix<float>(random, slope.rows(), slope.cols());
            },
            gradient);
        optimizer.step(network, gradient);
        plain.step(network, gradient);
        // 50 steps of a few roundings each.
        REQUIRE(plain.distance(network) <= 1e-5);
    }
}

TEST_CASE("Adam: copies go on alike and apart, with a network that has moved", "[adam]") {
    Philox random{41};
    Network network = some_network(42);
    Adam optimizer{network, {}};
    auto gradient = network.zero_gradient();
    for (const std::uint32_t mask : {0b11111u, 0b00101u}) {
        set_gradient(network, gradient, random, mask);
        optimizer.step(network, gradient);
    }
    Network other = network;
    Adam copy = optimizer;
    set_gradient(network, gradient, random, 0b10011);
    Network moved = std::move(network);
    optimizer.step(moved, gradient);
    CHECK_FALSE(test::same_bits(parameters(moved), parameters(other)));
    copy.step(other, gradient);
    CHECK(test::same_bits(parameters(moved), parameters(other)));
}

TEST_CASE("Adam and AdamW: bad options are refused by name, the rate stays", "[adam]") {
    const OneWeight network = one_weight(1);
    const auto adam = [&](AdamOptions options) {
        return test::refusal([&] { (void)Adam{network, options}; });
    };
    const auto adam_w = [&](AdamWOptions options) {
        return test::refusal([&] { (void)AdamW{network, options}; });
    };
    const std::string rate = ": learning_rate must be finite and above 0, got ";
    for (const double bad : {0.0, -0.1, inf, nan}) {
        CHECK(adam({.learning_rate = bad}).find("Adam" + rate) == 0);
        CHECK(adam_w({.learning_rate = bad}).find("AdamW" + rate) == 0);
        CHECK(adam({.epsilon = bad}).find("Adam: epsilon must be finite and above 0, got ") == 0);
        CHECK(adam_w({.epsilon = bad}).find("AdamW: epsilon must be finite and above 0, got ") ==
              0);
        Adam optimizer{network, {.learning_rate = 0.25}};
        CHECK(test::refusal([&] { optimizer.set_learning_rate(bad); }).find("Adam" + rate) == 0);
        CHECK(optimizer.options().learning_rate == 0.25);
        AdamW decoupled{network, {.learning_rate = 0.25}};
        CHECK(test::refusal([&] { decoupled.set_learning_rate(bad); }).find("AdamW" + rate) == 0);
        CHECK(decoupled.options().learning_rate == 0.25);
    }
    for (const double bad : {-0.1, 1.0, inf, nan}) {
        CHECK(adam({.beta1 = bad}).find("Adam: beta1 must lie in [0, 1), got ") == 0);
        CHECK(adam({.beta2 = bad}).find("Adam: beta2 must lie in [0, 1), got ") == 0);
        CHECK(adam_w({.beta1 = bad}).find("AdamW: beta1 must lie in [0, 1), got ") == 0);
        CHECK(adam_w({.beta2 = bad}).find("AdamW: beta2 must lie in [0, 1), got ") == 0);
    }
    for (const double bad : {-0.1, inf, nan}) {
        CHECK(adam({.weight_decay = bad})
                  .find("Adam: weight_decay must be finite and at least 0, got ") == 0);
        CHECK(adam_w({.weight_decay = bad})
                  .find("AdamW: weight_decay must be finite and at least 0, got ") == 0);
    }
    // 1e-50 is no float above 0.
    Philox random{51};
    const Linear<float> single{2, 2, random};
    CHECK(test::refusal([&] {
              (void)Adam{single, {.epsilon = 1e-50}};
          }) == "Adam: epsilon must be finite and above 0, got 1e-50");
}

}  // namespace
