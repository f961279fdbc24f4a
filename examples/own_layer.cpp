// SPDX-License-Identifier: MIT
// A layer of your own: any type with a Scalar, output_size and forward is one. Here the branch is
// F(x) = sin(x), skipped with probability 0.3, so f_SD(x) = x + 0.7 sin(x) for one layer.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>
namespace sd = stochastic_depth;

struct Sine {
    using Scalar = double;
    sd::Index output_size(sd::Index input_size) const { return input_size; }
    void forward(const sd::ConstMatrixRef<double>& x, sd::MatrixRef<double> y) const {
        y = x.array().sin();
    }
};

int main() {
    const sd::StochasticDepth network{sd::Residual{Sine{}}, sd::SurvivalProbability{0.7}};
    const sd::Matrix<double> x = sd::Matrix<double>::Constant(1, 1, 2.0);  // [features x batch]
    const double mean = sd::ExactExpectation{}(network, x).mean(0, 0);
    std::printf("f_SD(2) = %.12f, 2 + 0.7 sin(2) = %.12f\n", mean, 2.0 + 0.7 * std::sin(2.0));
    return std::abs(mean - (2.0 + 0.7 * std::sin(2.0))) < 1e-15 ? 0 : 1;
}
