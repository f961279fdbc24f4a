// SPDX-License-Identifier: MIT
// Trains a network and leaves it in a file:  saved_model_train FILE
#include <cstdio>

#include "model.hpp"
namespace sd = stochastic_depth;

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: saved_model_train FILE\n"), 2;
    auto network = make_network(1);
    sd::Philox random{2};
    sd::Matrix<float> x(3, 500);
    for (float& number : x.reshaped()) number = sd::uniform<float>(random, -1, 1);
    const sd::Matrix<float> targets = x.colwise().sum();
    sd::Trainer{{.batch_size = 25, .epochs = 20}}.fit(
        network, sd::Dataset{x, targets}, sd::MeanSquaredError<float>{}, sd::Adam{network});
    sd::save_parameters(argv[1], network);
    const sd::Matrix<float> ones = sd::Matrix<float>::Ones(3, 1);
    std::printf("f_SD(1, 1, 1) = %.9g\n",
                static_cast<double>(sd::ExactExpectation{}(network, ones).mean(0, 0)));
}
