// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/all.hpp>

#include <string>

// The same work in either unit, so that both emit the same templates and the linker has to merge
// them.
inline double expectation_of_worked_example() {
    namespace sd = stochastic_depth;
    const auto layer = [](double slope, double p) {
        return sd::StochasticDepth{
            sd::Residual{sd::Linear<double>{Eigen::MatrixXd::Constant(1, 1, slope),
                                            Eigen::VectorXd::Zero(1)}},
            sd::SurvivalProbability{p}};
    };
    const sd::Sequential network{layer(1.0, 0.8), layer(2.0, 0.7), layer(3.0, 0.6)};
    return sd::ExactExpectation{}(network, Eigen::MatrixXd::Ones(1, 1)).mean(0, 0);
}

[[nodiscard]] double expectation_in_second_unit();
[[nodiscard]] std::string mask_in_second_unit();
