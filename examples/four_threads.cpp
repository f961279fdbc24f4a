// SPDX-License-Identifier: MIT
// One const network, four threads: everything that reads a network may do so at the same time, each
// thread with memory of its own. The answers have the bits that one thread alone gets.
#include <stochastic_depth/all.hpp>

#include <array>
#include <cstdio>
#include <thread>
#include <vector>
namespace sd = stochastic_depth;

int main() {
    sd::Philox random{2026};
    using Branch = sd::Sequential<sd::Linear<float>, sd::ReLU<float>>;
    using Layer = sd::StochasticDepth<sd::Residual<Branch>>;
    std::vector<Layer> layers;
    for (const double p : sd::linear_decay(10, 0.5))
        layers.emplace_back(sd::Residual{Branch{sd::Linear<float>{24, 24, random, 0.5}, {}}},
                            sd::SurvivalProbability{p});
    const sd::Stack network{layers};
    const sd::MaskSampler sampler{network.survival_probabilities(), 1};
    const auto plan = sd::MonteCarloExpectation{{.samples = 50}}.plan(network);

    using Answers = std::array<sd::Matrix<float>, 3>;
    const auto ask = [&](std::uint64_t number) {
        const sd::Matrix<float> x = sd::Matrix<float>::Constant(24, 8, 0.1F) *
                                    static_cast<float>(number);
        return Answers{network(x, sampler.sample(number)), sd::ExactExpectation{}(network, x).mean,
                       plan(network, x).mean};
    };
    std::vector<Answers> together(4);
    {
        std::vector<std::jthread> threads;
        for (std::uint64_t k = 0; k < 4; ++k)
            threads.emplace_back([&, k] {
                for (int again = 0; again < 20; ++again) together[k] = ask(k);
            });
    }
    bool equal = true;
    for (std::uint64_t k = 0; k < 4; ++k) equal = equal && together[k] == ask(k);
    std::printf("four threads at a time and one alone: %s\n", equal ? "the same bits" : "differ");
    return equal ? 0 : 1;
}
