// SPDX-License-Identifier: MIT
//
// The C++ side of torch_exchange.py: a classifier with residual blocks under PyTorch's names.
//
//     torch_exchange read FILE < INPUTS > OUTPUTS    a sample in each line
//     torch_exchange write FILE                      one that is trained here, with a self-test
#include <stochastic_depth/all.hpp>
#include <stochastic_depth/io/safetensors.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sd = stochastic_depth;

namespace {

using Branch =
    sd::Sequential<sd::LayerNorm<float>, sd::Linear<float>, sd::GELU<float>, sd::Linear<float>>;
using Block = sd::StochasticDepth<sd::Residual<Branch>>;
using Network = sd::Sequential<sd::Linear<float>, sd::Stack<Block>, sd::Linear<float>>;

Network make_network(sd::Philox& random) {
    std::vector<Block> blocks;
    for (int k = 0; k < 3; ++k)
        blocks.emplace_back(
            sd::Residual{Branch{sd::LayerNorm<float>{8}, sd::Linear<float>{8, 16, random},
                                sd::GELU<float>{}, sd::Linear<float>{16, 8, random}}},
            sd::SurvivalProbability{0.75});
    return Network{sd::Linear<float>{5, 8, random}, sd::Stack{std::move(blocks)},
                   sd::Linear<float>{8, 3, random}};
}

/// What the Python program calls them.
sd::TensorNames names() {
    sd::TensorNames list;
    const auto add = [&](const std::string& in_file, const std::string& in_network) {
        for (const char* const tensor : {"weight", "bias"})
            list.push_back({sd::detail::message(in_file, ".", tensor),
                            sd::detail::message(in_network, ".", tensor)});
    };
    add("stem", "0");
    add("blocks.*.norm", "1.*.branch.0");
    add("blocks.*.fc1", "1.*.branch.1");
    add("blocks.*.fc2", "1.*.branch.3");
    add("head", "2");
    return list;
}

void read(const std::string& path) {
    sd::Philox random{1};
    Network network = make_network(random);
    sd::load_safetensors(path, network, names());
    sd::Matrix<float> x(5, 1);
    while (std::cin >> x(0) >> x(1) >> x(2) >> x(3) >> x(4)) {
        const sd::Matrix<float> y = network(x);
        std::printf("%.9g %.9g %.9g\n", static_cast<double>(y(0)), static_cast<double>(y(1)),
                    static_cast<double>(y(2)));
    }
}

void write(const std::string& path) {
    sd::Philox random{2};
    Network network = make_network(random);
    sd::Matrix<float> x(5, 64);
    for (float& number : x.reshaped()) number = sd::uniform<float>(random, -2.0F, 2.0F);
    Eigen::VectorXi labels(64);
    for (sd::Index j = 0; j < 64; ++j) x.col(j).head(3).maxCoeff(&labels(j));
    sd::TrainingStep step{network, sd::SoftmaxCrossEntropy<float>{}, {.seed = 3}};
    sd::Adam optimizer{network, {.learning_rate = 0.01}};
    for (std::uint64_t t = 0; t < 50; ++t) {
        (void)step.differentiate(network, x, labels, t);
        optimizer.step(network, step.gradient());
        step.finish(network);
    }
    sd::save_safetensors(path, network, names(), x.leftCols(7));
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string_view what = argc == 3 ? argv[1] : "";
    if (what == "read")
        read(argv[2]);
    else if (what == "write")
        write(argv[2]);
    else
        return 2;
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "torch_exchange: %s\n", error.what());
    return 2;
}
