// SPDX-License-Identifier: MIT
// One column at a time, as a controller or a codec has it: what a call takes, and depth as a dial
// that another thread turns. Nothing here allocates or waits once the loop is warm.
#include <stochastic_depth/all.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <stop_token>
#include <thread>
#include <vector>
namespace sd = stochastic_depth;

using Branch = sd::Sequential<sd::Linear<float>, sd::ReLU<float>>;
using Layer = sd::StochasticDepth<sd::Residual<Branch>>;

/// Prints percentiles of the time of a call, over so many of them.
template <class Call>
void measure(const char* name, std::size_t calls, const Call& call) {
    using Clock = std::chrono::steady_clock;
    std::vector<double> microseconds(calls);
    for (std::size_t i = 0; i < calls / 20; ++i) call();
    for (double& time : microseconds) {
        const auto start = Clock::now();
        call();
        time = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    }
    std::sort(microseconds.begin(), microseconds.end());
    const auto percentile = [&](double share) {
        return microseconds[static_cast<std::size_t>(share * static_cast<double>(calls - 1))];
    };
    std::printf("%-34s %8.2f %8.2f %8.2f %8.2f\n", name, percentile(0.5), percentile(0.99),
                percentile(0.999), percentile(1));
}

int main() {
    sd::Philox random{2026};
    std::vector<Layer> layers;
    for (const double p : sd::linear_decay(12, 0.5))
        layers.emplace_back(sd::Residual{Branch{sd::Linear<float>{32, 32, random, 0.5}, {}}},
                            sd::SurvivalProbability{p});
    const sd::Stack network{layers};
    const sd::Vector<float> x = sd::Vector<float>::Ones(32);
    sd::Matrix<float> y(32, 1);
    sd::ExpectationResult<float> result;
    const auto plan = sd::MonteCarloExpectation{{.samples = 32}}.plan(network);

    std::printf("microseconds for each column     %8s %8s %8s %8s\n", "median", "99 %", "99.9 %",
                "longest");
    measure("full depth", 20'000, [&] { network.forward(x, y); });
    measure("weight scaling", 20'000, [&] { sd::WeightScaling{}(network, x, result); });
    measure("32 masks, with standard errors", 20'000, [&] { plan(network, x, result); });
    measure("exact, all 4096 masks", 2'000, [&] { sd::ExactExpectation{}(network, x, result); });

    sd::MaskDial dial{sd::SurvivalMask::all(12)};
    std::jthread other{[&](const std::stop_token& stop) {
        for (sd::Index depth = 0; !stop.stop_requested(); depth = (depth + 1) % 13) {
            sd::SurvivalMask first = sd::SurvivalMask::none(12);
            for (sd::Index l = 0; l < depth; ++l) first.keep(l);
            dial.set(first);
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    }};
    measure("depth turned by another thread", 20'000,
            [&] { sd::masked_forward(network, x, dial.get(), y); });
}
