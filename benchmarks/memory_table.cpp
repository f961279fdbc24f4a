// SPDX-License-Identifier: MIT
//
// Prints how much memory the exact expectation takes beyond the network: the growth of the
// process's peak resident set, width 64, one column, float. Memory grows with L, and not with 2^L.
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_sensitivity.hpp>

#include <cstdint>
#include <cstdio>

#include "peak_memory.hpp"
#include "residual_network.hpp"

namespace {

namespace sd = stochastic_depth;

}  // namespace

int main() {
    constexpr std::uint64_t budget = std::uint64_t{1} << 24;
    std::printf(
        "peak extra memory so far, MiB; one thread\n  L   mean and variance   derivatives too\n");
    const double before = peak_memory();
    for (const Eigen::Index depth : {12, 16, 20, 24}) {
        const auto network = residual_network(dense_layers<float>(depth, 64));
        const sd::Matrix<float> x = sd::Matrix<float>::Ones(64, 1);
        const auto exact = sd::ExactExpectation{{.max_layer_evaluations = budget}}(network, x);
        const double moments = peak_memory() - before;
        const auto slopes = sd::ExactSensitivity{{.max_layer_evaluations = budget}}(network, x);
        const double derivatives = peak_memory() - before;
        if (slopes.expectation.mean != exact.mean) return 1;
        std::printf("%3td %19.1f %17.1f\n", depth, moments, derivatives);
    }
}
