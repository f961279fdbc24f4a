// SPDX-License-Identifier: MIT
// Trains a network, finds its best smaller ones, and writes one of them as a header that needs no
// library:  written_header_write FILE
#include <stochastic_depth/all.hpp>
#include <stochastic_depth/export/header.hpp>

#include <cmath>
#include <cstdio>
#include <exception>
#include <vector>
namespace sd = stochastic_depth;

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: written_header_write FILE\n"), 2;
    sd::Philox random{1};
    using Branch = sd::Sequential<sd::Linear<float>, sd::SiLU<float>, sd::Linear<float>>;
    std::vector<sd::StochasticDepth<sd::Residual<Branch>>> layers;
    for (const double p : sd::linear_decay(4, 0.6))
        layers.emplace_back(
            sd::Residual{Branch{
                sd::Linear<float>{16, 16, random}, {}, sd::Linear<float>{16, 16, random, 0.5}}},
            sd::SurvivalProbability{p});
    sd::Sequential network{sd::Linear<float>{1, 16, random}, sd::Stack{layers},
                           sd::Linear<float>{16, 1, random}};

    // A sine, in one step of a synthesiser.
    sd::Matrix<float> x(1, 400);
    for (sd::Index j = 0; j < x.cols(); ++j) x(0, j) = static_cast<float>(j) / 200 - 1;
    const sd::Matrix<float> targets = (3.0F * x).array().sin();
    sd::Trainer{{.batch_size = 20, .epochs = 60}}.fit(
        network, sd::Dataset{x, targets}, sd::MeanSquaredError<float>{}, sd::Adam{network});

    // Without its third layer.
    const sd::SurvivalMask mask{1, 1, 0, 1};
    try {
        sd::write_header(argv[1], network, mask, {.name_space = "sine"});
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
    for (const float at : {-0.5F, 0.0F, 0.5F}) {
        const float y = network(sd::Matrix<float>::Constant(1, 1, at), mask)(0, 0);
        std::printf("sine(%g) = %a, about %.2f\n", static_cast<double>(at), static_cast<double>(y),
                    std::sin(3 * static_cast<double>(at)));
    }
}
