// SPDX-License-Identifier: MIT
// A trainable layer of your own, y = a tanh(x) with a gain a for each feature: it is skipped,
// trained and summed over all masks as the library's are. docs/extending.md explains its members.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
namespace sd = stochastic_depth;

class GainedTanh {
    Eigen::VectorXd gain_;
    static auto tanh(const auto& x) { return x.unaryExpr([](double z) { return std::tanh(z); }); }

public:
    using Scalar = double;
    struct Cache {};  // what backward needs beside x: nothing
    struct Gradient {
        Eigen::VectorXd gain;
        void set_zero() { gain.setZero(); }
    };
    explicit GainedTanh(const Eigen::VectorXd& gain) : gain_(gain) {}
    sd::Index output_size(sd::Index inputs) const {
        return inputs == gain_.size() ? inputs : throw std::invalid_argument("GainedTanh: inputs");
    }
    void forward(const sd::ConstMatrixRef<double>& x, sd::MatrixRef<double> y) const {
        y = gain_.asDiagonal() * tanh(x);
    }
    void forward(const auto& x, auto y, Cache&) const { forward(x, y); }
    Gradient zero_gradient() const { return {Eigen::VectorXd::Zero(gain_.size())}; }
    void backward(const sd::ConstMatrixRef<double>& x, const sd::ConstMatrixRef<double>& dy,
                  const Cache&, Gradient& gradient, sd::MatrixRef<double> dx) const {
        gradient.gain += dy.cwiseProduct(tanh(x)).rowwise().sum();
        dx = gain_.asDiagonal() * (dy.array() * (1 - tanh(x).array().square())).matrix();
    }
    static void visit_parameters(auto& self, auto&& visit, auto&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
    }
};

int main() {
    sd::StochasticDepth network{sd::Residual{GainedTanh{Eigen::VectorXd::Zero(1)}},
                                sd::SurvivalProbability{0.8}};
    const sd::Matrix<double> x = Eigen::RowVectorXd::LinSpaced(32, -2, 2);  // [features x batch]
    const sd::Matrix<double> target = x.array() + 1.5 * x.array().tanh();  // kept: a = 1.5
    sd::TrainingStep step{network, sd::MeanSquaredError<double>{}, {.seed = 1}};
    sd::Sgd optimizer{network, {.learning_rate = 0.5}};
    for (std::uint64_t t = 0; t < 100; ++t) {
        step.differentiate(network, x, target, t);
        optimizer.step(network, step.gradient());
        step.finish(network);
    }
    const double mean = sd::ExactExpectation{}(network, x.rightCols(1)).mean(0, 0);
    const double expected = 2 + 0.8 * 1.5 * std::tanh(2.0);
    std::printf("f_SD(2) = %.12f, 2 + 0.8 * 1.5 tanh(2) = %.12f\n", mean, expected);
    return std::abs(mean - expected) < 1e-12 ? 0 : 1;
}
