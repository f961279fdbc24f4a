// SPDX-License-Identifier: MIT
//
// Three residual layers that survive with p = (0.8, 0.7, 0.6), and have the branches F_l(x) = a_l x
// with a = (1, 2, 3):
//
//     x_l = x_(l-1) + s_l a_l x_(l-1),  P(s_l = 1) = p_l,   l = 1, 2, 3.
//
// A survival mask S = (s_1, s_2, s_3) fixes which layers are kept:
//
//     P(S) = prod_l p_l^s_l (1 - p_l)^(1 - s_l),   NN(x, S) = x prod_l (1 + s_l a_l).
//
// What is the expectation f_SD(x) = sum_S P(S) NN(x, S) at x = 1, and what is the variance? The
// layers are linear and independent, so the answer is known by hand:
//
//     E   = prod_l (1 + p_l a_l)                = 1.8 * 2.4 * 2.8  = 12.096
//     E^2 = prod_l (1 + p_l (2 a_l + a_l^2))    = 3.4 * 6.6 * 10.0 = 224.4   (second moment)
//     Var = 224.4 - 12.096^2                    = 78.086784
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>

namespace sd = stochastic_depth;

int main() {
    const auto layer = [](double a, double p) {
        const sd::Linear<double> branch{Eigen::MatrixXd::Constant(1, 1, a),
                                        Eigen::VectorXd::Zero(1)};
        return sd::StochasticDepth{sd::Residual{branch}, sd::SurvivalProbability{p}};
    };
    const sd::Sequential network{layer(1.0, 0.8), layer(2.0, 0.7), layer(3.0, 0.6)};
    const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(1, 1, 1.0);  // [features x batch]

    std::printf("mask S     P(S)  NN(x, S)  P(S) NN(x, S)\n");
    double total = 0.0;
    double sum = 0.0;
    for (const auto& row : sd::enumerate_masks(network, x)) {
        const double output = row.output(0, 0);
        std::printf("%s  %.3f  %8.0f  %13.3f\n", to_string(row.mask).c_str(), row.probability,
                    output, row.probability * output);
        total += row.probability;
        sum += row.probability * output;
    }
    std::printf("sum      %.3f            %13.3f\n\n", total, sum);

    const auto exact = sd::ExactExpectation{}(network, x);
    const double mean = exact.mean(0, 0);
    const double variance = exact.variance(0, 0);
    const double scaled = sd::WeightScaling{}(network, x).mean(0, 0);
    std::printf("exact expectation: mean %.3f, variance %.6f, %.0f layer evaluations\n", mean,
                variance, exact.layer_evaluations);
    std::printf("weight scaling:    mean %.3f, exact here because the branches are linear\n",
                scaled);

    const bool right = std::abs(sum - 12.096) < 1e-12 && std::abs(mean - 12.096) < 1e-12 &&
                       std::abs(variance - 78.086784) < 1e-10 && std::abs(scaled - 12.096) < 1e-12;
    return right ? 0 : 1;
}
