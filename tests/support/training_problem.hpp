// SPDX-License-Identifier: MIT
#pragma once

#include <exception>

#include <stochastic_depth/random/philox.hpp>

#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"

/// What tests of wrong training have in common.
namespace stochastic_depth::test {

/// An exception of the user.
struct OwnError : std::exception {
    [[nodiscard]] const char* what() const noexcept override { return "a user's own error"; }
};

/// A network of 3 inputs, 2 outputs and 2 layers to skip, and a batch of 5.
struct Problem {
    Philox random{1};
    Network network = test::network(random, Eigen::VectorXd{{0.7, 0.5}});
    Eigen::MatrixXd x = random_matrix<double>(random, 3, 5);
    Eigen::MatrixXd targets = random_matrix<double>(random, 2, 5);
    Eigen::VectorXi labels = random_labels(random, 5, 2);

    [[nodiscard]] Eigen::MatrixXd x_with(double value) const {
        Eigen::MatrixXd changed = x;
        changed(1, 3) = value;
        return changed;
    }
    [[nodiscard]] Eigen::MatrixXd targets_with(double value) const {
        Eigen::MatrixXd changed = targets;
        changed(0, 4) = value;
        return changed;
    }
    [[nodiscard]] Eigen::VectorXi labels_with(int label) const {
        Eigen::VectorXi changed = labels;
        changed(2) = label;
        return changed;
    }
};

}  // namespace stochastic_depth::test
