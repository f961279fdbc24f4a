// SPDX-License-Identifier: MIT
// A program that has forgotten MPI_Init, and one that comes after MPI_Finalize, are told so.
#include <cstdio>
#include <stdexcept>
#include <string>

#include <stochastic_depth/distributed/data_parallel.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

namespace {

namespace sd = stochastic_depth;

std::string refusal() {
    sd::Philox random{1};
    const sd::Stack network{std::vector{
        sd::StochasticDepth{sd::Linear<double>{2, 2, random, 1.0}, sd::SurvivalProbability{0.5}}}};
    try {
        const sd::DataParallel step{network, sd::MeanSquaredError<double>{}, {}, MPI_COMM_WORLD};
        return "none";
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::string before = refusal();
    MPI_Init(&argc, &argv);
    const std::string between = refusal();
    MPI_Finalize();
    const std::string after = refusal();
    std::printf("%s\n%s\n%s\n", before.c_str(), between.c_str(), after.c_str());
    return before == "DataParallel: MPI_Init must have been called before" && between == "none" &&
                   after == "DataParallel: must be made before MPI_Finalize"
               ? 0
               : 1;
}
