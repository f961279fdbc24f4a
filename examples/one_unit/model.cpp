// SPDX-License-Identifier: MIT
// The one translation unit that compiles the mathematics.
#include "model.hpp"

#include <stochastic_depth/all.hpp>

#include <sstream>
#include <stdexcept>
#include <vector>
namespace sd = stochastic_depth;

sd::AnyLayer<float> read_network(const std::string& text, sd::Index inputs, std::uint32_t seed) {
    sd::Philox random{seed};
    std::istringstream words{text};
    std::vector<sd::AnyLayer<float>> layers;
    sd::Index width = inputs;
    for (std::string word; words >> word;) {
        const std::string kind = word.substr(0, word.find(':'));
        std::istringstream number{word.substr(word.find(':') + 1)};
        double p = 0;
        if (word == "relu") {
            layers.push_back(sd::ReLU<float>{});
        } else if (sd::Index outputs = 0; kind == "linear" && number >> outputs) {
            layers.push_back(sd::Linear<float>{width, outputs, random});
            width = outputs;
        } else if (kind == "block" && number >> p) {
            const sd::Sequential branch{sd::Linear<float>{width, width, random, 0.5},
                                        sd::ReLU<float>{}};
            layers.push_back(
                sd::StochasticDepth{sd::Residual{branch}, sd::SurvivalProbability{p}});
        } else {
            throw std::invalid_argument("read_network: unknown layer " + word);
        }
    }
    return sd::Stack{layers};
}

Answer expectation(const sd::AnyLayer<float>& network, const sd::Matrix<float>& x,
                   std::uint64_t max_layer_evaluations) {
    auto result =
        sd::Expectation{{.max_layer_evaluations = max_layer_evaluations}}(network, x);
    return {std::move(result.mean), std::move(result.standard_error)};
}
