// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/named_matrices.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;

/// y = x, and remembers a mean and a count of what it was told.
struct Remembering {
    using Scalar = double;
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(2);
    Eigen::MatrixXf count = Eigen::MatrixXf::Zero(1, 1);

    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const { y = x; }
    struct Cache {};
    using Gradient = detail::NoGradient;
    Gradient zero_gradient() const { return {}; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y, Cache&) const { y = x; }
    void backward(const ConstMatrixRef<double>&, const ConstMatrixRef<double>& dy, const Cache&,
                  Gradient&, MatrixRef<double> dx) const {
        dx = dy;
    }
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        visit("mean", self.mean);
        visit("count", self.count);
    }
};

using Branch = Sequential<Linear<double>, ReLU<double>, Remembering>;
using Block = StochasticDepth<Residual<Branch>>;
using Both = Concatenate<Linear<double>, Remembering>;
using WithShortcut = StochasticDepth<Residual<Linear<double>, Linear<double>>>;
using Network = Sequential<Stack<Block>, Both, WithShortcut>;

Network network_of(double mean) {
    Philox random{1};
    const auto linear = [&](Index inputs) { return Linear<double>{inputs, 2, random}; };
    const auto remembering = [&] {
        Remembering layer;
        layer.mean.setConstant(mean);
        layer.count.setConstant(static_cast<float>(mean) + 1);
        mean *= 2;
        return layer;
    };
    std::vector<Block> blocks;
    for (int l = 0; l < 2; ++l)
        blocks.emplace_back(Residual{Sequential{linear(2), ReLU<double>{}, remembering()}},
                            SurvivalProbability{0.5});
    return Sequential{Stack{blocks}, Concatenate{linear(2), remembering()},
                      WithShortcut{Residual{linear(4), linear(4)}, SurvivalProbability{0.5}}};
}

template <class List>
std::vector<std::string> names(const List& list) {
    std::vector<std::string> found;
    list([&](const std::string& name, const auto&) { found.push_back(name); });
    return found;
}

const std::vector<std::string> paths{
    "0.0.branch.0.weights", "0.0.branch.0.bias", "0.1.branch.0.weights", "0.1.branch.0.bias",
    "1.0.weights",          "1.0.bias",          "2.branch.weights",     "2.branch.bias",
    "2.shortcut.weights",   "2.shortcut.bias"};

TEST_CASE("named matrices: a parameter's name is its path through the network", "[named_matrices]") {
    const Network network = network_of(1);
    CHECK(names(detail::parameters_of(network)) == paths);
    CHECK(names(detail::parameters_of(std::get<1>(network.layers()))) ==
          std::vector<std::string>{"0.weights", "0.bias"});
    // A plain layer's has none.
    const Linear<double> linear{Eigen::MatrixXd::Zero(1, 1), Eigen::VectorXd::Zero(1)};
    CHECK(names(detail::parameters_of(linear)) == std::vector<std::string>{"weights", "bias"});
}

TEST_CASE("named matrices: what has the form of a gradient is listed whole, reached or not", "[named_matrices]") {
    const Network network = network_of(1);
    auto gradient = network.zero_gradient();
    CHECK(names(detail::entries_of(network, gradient)) == paths);
    CHECK(names(detail::entries_of(network, std::as_const(gradient))) == paths);
    std::get<0>(gradient.layers).layers[1].reached = true;
    std::get<2>(gradient.layers).shortcut_reached = true;
    CHECK(names(detail::entries_of(network, gradient)) == paths);
    // The entries are the gradient's own.
    detail::entries_of(network, gradient)([](const std::string& name, auto& entries) {
        entries.setConstant(name == "0.1.branch.0.bias" ? 3 : 2);
    });
    CHECK(std::get<0>(std::get<0>(gradient.layers).layers[1].layer.branch.layers).bias(1) == 3);
    CHECK(std::get<2>(gradient.layers).layer.shortcut.weights(0, 3) == 2);
}

const std::vector<std::string> state_paths{"0.0.branch.2.mean", "0.0.branch.2.count",
                                           "0.1.branch.2.mean", "0.1.branch.2.count",
                                           "1.1.mean",          "1.1.count"};

std::vector<double> states(const Network& network) {
    std::vector<double> values;
    detail::state_of(network)([&](const std::string&, const auto& matrix) {
        detail::for_each_entry(matrix,
                               [&](auto entry) { values.push_back(static_cast<double>(entry)); });
    });
    return values;
}

TEST_CASE("named matrices: what layers keep beside parameters is in the file of either kind",
          "[named_matrices]") {
    const Network saved = network_of(1.5);
    REQUIRE(names(detail::state_of(saved)) == state_paths);
    REQUIRE(states(saved) == std::vector<double>{1.5, 1.5, 2.5, 3, 3, 4, 6, 6, 7});
    const test::TemporaryDirectory directory;
    const std::string path = directory.file("network");
    save_parameters(path, saved);
    Network loaded = network_of(100);
    load_parameters(path, loaded);
    CHECK(states(loaded) == states(saved));

    save_training(path, saved, Sgd{saved, {}}, {});
    loaded = network_of(100);
    Sgd optimizer{loaded, {}};
    (void)load_training(path, loaded, optimizer);
    CHECK(states(loaded) == states(saved));

    // Of another shape, all stays as it was, the parameters before it too.
    Network other = network_of(100);
    detail::state_of(other)([&](const std::string& name, auto& matrix) {
        if (name == "1.1.mean") matrix.conservativeResize(3, 1);
    });
    detail::parameters_of(other)([](const std::string&, auto& matrix) { matrix.setConstant(9); });
    CHECK(thrown<std::runtime_error>([&] { (void)load_training(path, other, optimizer); }) ==
          "load_training: " + path +
              ": state record 4 of the file is 1.1.mean [2 x 1] of 64 bits, the network's is "
              "1.1.mean [3 x 1] of 64 bits");
    detail::parameters_of(other)(
        [](const std::string&, const auto& matrix) { CHECK((matrix.array() == 9).all()); });
    CHECK(states(other)[0] == 100);
}

}  // namespace
