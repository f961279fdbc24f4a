// SPDX-License-Identifier: MIT
// A loss and an optimizer of your own: quantile regression, trained by the signs of its gradients.
// It finds the line below which nine of ten samples lie. docs/extending.md explains both.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
namespace sd = stochastic_depth;

struct QuantileLoss {  // mean of q (t - y) where y lies below its target t, (1 - q) (y - t) above
    using Targets = sd::Matrix<double>;  // as the Dataset has them
    double q;

    double value_and_gradient(const sd::ConstMatrixRef<double>& y, const Targets& t,
                              sd::MatrixRef<double> gradient) const {
        check_targets(y.rows(), t);
        if (t.cols() != y.cols()) throw std::invalid_argument("QuantileLoss: samples");
        const double n = static_cast<double>(y.size());
        gradient = y.binaryExpr(t, [&](double a, double b) { return (a < b ? -q : 1 - q) / n; });
        return gradient.cwiseProduct(y - t).sum();
    }
    void check_targets(sd::Index outputs, const Targets& t) const {  // optional: asked beforehand
        if (t.rows() != outputs) throw std::invalid_argument("QuantileLoss: outputs");
    }
};

class SignDescent {  // w = w - eta sign(g), for all that a sample has reached
    double eta_ = 0.01;

public:
    void set_learning_rate(double eta) { eta_ = eta; }
    template <class Network>
    void step(Network& network, typename Network::Gradient& gradient) {
        sd::for_each_parameter(
            network, [&](const std::string&, auto& w, const auto& g) { w -= eta_ * g.cwiseSign(); },
            gradient);
    }
};

int main() {
    sd::Philox random{2026};
    sd::Matrix<double> x(1, 2000), y(1, 2000);
    for (double& number : x.reshaped()) number = sd::uniform<double>(random, -1, 1);
    for (sd::Index j = 0; j < x.cols(); ++j)
        y(0, j) = x(0, j) + (2 + x(0, j)) * sd::uniform<double>(random, 0, 1);
    sd::Sequential network{sd::Linear<double>{1, 1, random}};
    const sd::Trainer trainer{{.batch_size = 100,
                               .epochs = 100,
                               .learning_rate = sd::CosineLearningRate{{.initial = 0.02}}}};
    trainer.fit(network, sd::Dataset{x, y}, QuantileLoss{0.9}, SignDescent{});
    const double below = (y.array() < network(x).array()).cast<double>().mean();
    const double at_0 = network(sd::Matrix<double>::Zero(1, 1))(0, 0);
    std::printf("%.3f of the samples lie below; at 0 the line is at %.2f (1.80)\n", below, at_0);
    return std::abs(below - 0.9) < 0.01 && std::abs(at_0 - 1.8) < 0.1 ? 0 : 1;
}
