// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/parameters.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::random_matrix;
using test::same_bits;

/// Gradient descent with momentum, of what the library tells everyone.
class OwnMomentum {
public:
    explicit OwnMomentum(const test::Network& network) : velocity_(network.zero_gradient()) {}
    void set_learning_rate(double rate) { rate_ = rate; }
    void step(test::Network& network, test::Network::Gradient& gradient) {
        for_each_parameter(
            network,
            [&](const std::string&, auto& w, const auto& g, auto& v) {
                v = 0.5 * v + g;
                w -= rate_ * v;
            },
            gradient, velocity_);
    }

private:
    double rate_ = 0.1;
    test::Network::Gradient velocity_;
};

const std::vector<std::string> all_paths{"0.weights",
                                         "0.bias",
                                         "1.0.branch.0.weights",
                                         "1.0.branch.0.bias",
                                         "1.1.branch.0.weights",
                                         "1.1.branch.0.bias",
                                         "2.weights",
                                         "2.bias"};

TEST_CASE("for_each_parameter: each by its path, to be read and to be written", "[parameters]") {
    Philox random{1};
    test::Network network = test::network(random, VectorXd{{0.7, 0.5}});
    std::vector<std::string> paths;
    Index numbers = 0;
    for_each_parameter(std::as_const(network), [&](const std::string& path, const auto& matrix) {
        paths.push_back(path);
        numbers += matrix.size();
    });
    CHECK(paths == all_paths);
    CHECK(numbers == test::parameters(network).size());
    for_each_parameter(network, [](const std::string& path, auto& matrix) {
        if (path == "1.1.branch.0.bias") matrix.setConstant(3);
    });
    const auto& second = std::get<1>(network.layers()).layers()[1].layer().branch();
    CHECK((std::get<0>(second.layers()).bias().array() == 3).all());
}

TEST_CASE("for_each_parameter: with gradients, what the first of them was reached by",
          "[parameters]") {
    Philox random{2};
    const test::Network network = test::network(random, VectorXd{{0.7, 0.5}});
    TrainingStep step{network, MeanSquaredError<double>{}};
    const MatrixXd x = random_matrix<double>(random, 3, 4), y = random_matrix<double>(random, 2, 4);
    const auto reached = [&](std::uint64_t bits) {
        test::Network copy = network;
        SurvivalMask mask = SurvivalMask::none(2);
        mask.set_word(0, bits);
        step.differentiate(copy, x, y, mask);
        std::vector<std::string> paths;
        for_each_parameter(
            network,
            [&](const std::string& path, const auto& parameter, const auto& slope) {
                paths.push_back(path);
                CHECK(slope.rows() == parameter.rows());
                CHECK(slope.cols() == parameter.cols());
                CHECK(slope.squaredNorm() > 0);
            },
            std::as_const(step).gradient());
        step.finish(copy);
        return paths;
    };
    CHECK(reached(0b11) == all_paths);
    CHECK(reached(0b00) == std::vector<std::string>{"0.weights", "0.bias", "2.weights", "2.bias"});
    CHECK(reached(0b10) == std::vector<std::string>{"0.weights", "0.bias", "1.1.branch.0.weights",
                                                    "1.1.branch.0.bias", "2.weights", "2.bias"});
}

TEST_CASE("for_each_parameter: an optimizer of one's own trains as the library's does",
          "[parameters]") {
    Philox random{3};
    const test::Network start = test::network(random, VectorXd{{0.6, 0.3}});
    const Dataset data{random_matrix<double>(random, 3, 30), random_matrix<double>(random, 2, 30)};
    const Trainer trainer{{.batch_size = 3, .epochs = 3, .mask_scope = MaskScope::batch}};
    test::Network own = start, library = start;
    (void)trainer.fit(own, data, MeanSquaredError<double>{}, OwnMomentum{own});
    (void)trainer.fit(library, data, MeanSquaredError<double>{},
                      Sgd{library, {.learning_rate = 0.1, .momentum = 0.5}});
    CHECK_FALSE(same_bits(test::parameters(own), test::parameters(start)));
    CHECK(test::largest_difference(test::parameters(own), test::parameters(library)) <= 1e-14);
}

}  // namespace
