// SPDX-License-Identifier: MIT
//
// How noisy is the stochastic gradient, by who shares a mask? Prints the variance that masks add to
// the gradient of a batch of n samples, exactly, over all masks: E|g - grad|^2 / |grad|^2 with grad
// the gradient of the expected loss of that batch. A network of 8 residual blocks with linear decay
// to 0.5 learns which of two classes the sign of a random quadratic form of 4 features gives; the
// table is taken before the first step and after the last.
//
// usage: gradient_variance_table [width 6] [steps 500]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <stochastic_depth/analysis/gradient_variance.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

namespace {

namespace sd = stochastic_depth;
using sd::Index;

constexpr Index features = 4;

using Branch = sd::Sequential<sd::Linear<double>, sd::ReLU<double>, sd::Linear<double>>;
using Block = sd::StochasticDepth<sd::Residual<Branch>>;
using Network = sd::Sequential<sd::Linear<double>, sd::Stack<Block>, sd::Linear<double>>;

Network network_of(Index width, sd::Philox& random) {
    std::vector<Block> blocks;
    for (const double p : sd::linear_decay(8, 0.5))
        blocks.emplace_back(
            sd::Residual{Branch{sd::Linear<double>{width, width, random}, sd::ReLU<double>{},
                                sd::Linear<double>{width, width, random, 0.3}}},
            sd::SurvivalProbability{p});
    return Network{sd::Linear<double>{features, width, random, 1.0}, sd::Stack{blocks},
                   sd::Linear<double>{width, 2, random, 1.0}};
}

sd::Matrix<double> inputs(Index count, sd::Philox& random) {
    sd::Matrix<double> x(features, count);
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = sd::uniform<double>(random, -1.0, 1.0);
    return x;
}

Eigen::VectorXi labels(const sd::Matrix<double>& x, const sd::Matrix<double>& form) {
    Eigen::VectorXi classes(x.cols());
    for (Index j = 0; j < x.cols(); ++j) classes(j) = x.col(j).dot(form * x.col(j)) > 0 ? 1 : 0;
    return classes;
}

void print(const char* when, const Network& network, const sd::Matrix<double>& x,
           const Eigen::VectorXi& classes) {
    for (const Index n : {2, 8, 32, 128}) {
        const auto variance = sd::gradient_variance(network, x.leftCols(n), classes.head(n),
                                                    sd::SoftmaxCrossEntropy<double>{});
        std::printf("%-9s %5td %10.4f %10.4f %10.4f %14.3g\n", when, n, variance.batch.relative,
                    variance.sample.relative, variance.subset.relative, variance.squared_norm);
    }
}

}  // namespace

int main(int count, char** values) {
    const Index width = count > 1 ? std::atoi(values[1]) : 6;
    const int steps = count > 2 ? std::atoi(values[2]) : 500;
    if (count > 3 || width < 1 || steps < 0) {
        std::fprintf(stderr, "usage: gradient_variance_table [width 6] [steps 500]\n");
        return 2;
    }
    sd::Philox random{2026};
    const sd::Matrix<double> form = sd::Matrix<double>(inputs(features, random));
    Network network = network_of(width, random);
    const sd::Matrix<double> x = inputs(128, random);
    const Eigen::VectorXi classes = labels(x, form);
    std::printf("%-9s %5s %10s %10s %10s %14s\n", "training", "n", "batch", "sample", "subset",
                "|grad|^2");
    print("before", network, x, classes);
    const sd::SoftmaxCrossEntropy<double> loss;
    sd::TrainingStep step{network, loss, sd::TrainingStepOptions{.seed = 1}};
    sd::Sgd optimizer{network, {.learning_rate = 0.05, .momentum = 0.9}};
    for (int t = 0; t < steps; ++t) {
        const sd::Matrix<double> batch = inputs(32, random);
        step.differentiate(network, batch, labels(batch, form), static_cast<std::uint64_t>(t));
        optimizer.step(network, step.gradient());
        step.finish(network);
    }
    print("after", network, x, classes);
}
