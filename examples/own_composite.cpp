// SPDX-License-Identifier: MIT
// What own_composite.hpp can do: it is masked, trained and summed over all masks as the library's
// composites are, here with skippable layers in both of its parts.
#include "own_composite.hpp"

#include <cmath>
#include <cstdint>
#include <cstdio>

int main() {
    sd::Philox random{1};
    const auto skippable = [&](double p) {
        return sd::StochasticDepth{
            sd::Residual{sd::Sequential{sd::Linear<double>{4, 4, random}, sd::Tanh<double>{}}},
            sd::SurvivalProbability{p}};
    };
    sd::Sequential network{Gated{skippable(0.5), skippable(0.8)}, sd::Linear<double>{4, 1, random}};
    const sd::Matrix<double> x = sd::Matrix<double>::Ones(4, 1), target = sd::Matrix<double>::Ones(1, 1);

    double mean = 0;
    for (const auto& row : sd::enumerate_masks(network, x))
        mean += row.probability * row.output(0, 0);
    const double exact = sd::ExactExpectation{}(network, x).mean(0, 0);
    std::printf("exact expectation %.12f, sum over its 4 masks %.12f\n", exact, mean);

    sd::TrainingStep step{network, sd::MeanSquaredError<double>{}};
    sd::Sgd optimizer{network, {.learning_rate = 0.05}};
    double first = 0, loss = 0;
    for (std::uint64_t t = 0; t < 200; ++t) {
        loss = step.differentiate(network, x, target, t).loss;
        if (t == 0) first = loss;
        optimizer.step(network, step.gradient());
        step.finish(network);
    }
    std::printf("loss %.3g, after 200 steps %.3g\n", first, loss);
    return std::abs(exact - mean) < 1e-12 && loss < first ? 0 : 1;
}
