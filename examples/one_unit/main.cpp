// SPDX-License-Identifier: MIT
// Architecture at run time: the first argument is the network.
//     one_unit "linear:32 block:0.9 block:0.7 block:0.5 linear:2"
#include <cstdio>
#include <exception>

#include "model.hpp"

int main(int argc, char** argv) {
    const std::string text =
        argc > 1 ? argv[1] : "linear:32 block:0.9 block:0.8 block:0.7 block:0.6 relu linear:2";
    try {
        const auto network = read_network(text, 8, 2026);
        std::printf("%s", describe(network).c_str());
        const stochastic_depth::Matrix<float> x = stochastic_depth::Matrix<float>::Ones(8, 1);
        for (const unsigned budget : {8U, 1000U}) {
            const Answer answer = expectation(network, x, budget);
            for (stochastic_depth::Index i = 0; i < answer.mean.rows(); ++i)
                std::printf("budget %4u: output %d is %.4f +- %.4f\n", budget,
                            static_cast<int>(i), static_cast<double>(answer.mean(i, 0)),
                            static_cast<double>(answer.standard_error(i, 0)));
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
