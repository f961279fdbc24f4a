// SPDX-License-Identifier: MIT
// Uses the network that saved_model_train left, in another program:  saved_model_use FILE
#include <cstdio>
#include <exception>

#include "model.hpp"
namespace sd = stochastic_depth;

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: saved_model_use FILE\n"), 2;
    auto network = make_network(3);  // other numbers, which the file's take the place of
    try {
        sd::load_parameters(argv[1], network);
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
    const sd::Matrix<float> ones = sd::Matrix<float>::Ones(3, 1);
    std::printf("f_SD(1, 1, 1) = %.9g\n",
                static_cast<double>(sd::ExactExpectation{}(network, ones).mean(0, 0)));
}
