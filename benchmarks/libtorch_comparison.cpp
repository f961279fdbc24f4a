// SPDX-License-Identifier: MIT
//
// The library beside LibTorch: the same network, h = h + s_l relu(W_l h + b_l), L = 12, width 64,
// float, the same weights, one thread, no gradients. Outputs are compared before anything is
// measured.
//
// A masked pass in LibTorch skips in C++ (only the kept layers run), in the forms that programs
// use:
//     Module    torch::nn::Linear, torch::relu, +
//     Linear    torch::linear, torch::relu, +
//     Addmm     torch::addmm on weights transposed beforehand, the rest in place
//     Mkldnn    tensors in oneDNN's layout
//     Multiply  every layer runs, and its branch is multiplied by its bit, as in torchvision
// and in two that take tuning by hand, for a fixed batch size and without autograd:
//     Out       Addmm into a buffer that exists: nothing is allocated
//     Addmv     the same by matrix-vector products, for one column
//
// Enumeration of all 2^L masks for one column: a loop of such passes, summed with the weights P(S).
// As extras, which are no plain enumeration: all masks as one batch (Batched), and the masks'
// prefixes as a batch that doubles with each layer (Doubling), which makes as many layer
// evaluations as ExactExpectation does.
//
// The reference BLAS makes LibTorch several times slower than OpenBLAS does (Debian: libopenblas0);
// the program names the one that it found.
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>

#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "libtorch.hpp"
#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

constexpr Index depth = 12;
constexpr Index width = 64;
constexpr double tolerance = 1e-4;

/// One layer's weights, in the forms that LibTorch's functions take.
struct TorchLayer {
    explicit TorchLayer(const sd::Linear<float>& layer) {
        // Column major [outputs x inputs] is row major [inputs x outputs].
        sd::Matrix<float> weights = layer.weights();
        sd::Vector<float> entries = layer.bias();
        transposed = torch::from_blob(weights.data(), {weights.cols(), weights.rows()}).clone();
        weight = transposed.t().contiguous();
        bias = torch::from_blob(entries.data(), {entries.size()}).clone();
        module->weight.set_data(weight);
        module->bias.set_data(bias);
        mkldnn_weight = weight.to_mkldnn();
        mkldnn_bias = bias.to_mkldnn();
    }

    torch::Tensor transposed, weight, bias;
    mutable torch::nn::Linear module{torch::nn::LinearOptions(width, width)};
    torch::Tensor mkldnn_weight, mkldnn_bias;
};

/// The network in both libraries.
struct Networks {
    std::vector<sd::Linear<float>> layers = dense_layers<float>(depth, width);
    ResidualNetwork<float> network = residual_network(layers);
    std::vector<TorchLayer> torch_layers{layers.begin(), layers.end()};
    torch::Tensor bits[2] = {torch::zeros({1, 1}), torch::ones({1, 1})};
};

/// NN(x, S) in LibTorch, x [batch x features]: `step` is h -> h + relu(W h + b).
template <class Step>
torch::Tensor skip(const Networks& networks, torch::Tensor h, const sd::SurvivalMask& mask,
                   const Step& step) {
    for (std::size_t l = 0; l < networks.torch_layers.size(); ++l)
        if (mask[static_cast<Index>(l)]) h = step(networks.torch_layers[l], h);
    return h;
}

torch::Tensor skip_module(const Networks& networks, const torch::Tensor& x,
                          const sd::SurvivalMask& mask) {
    return skip(networks, x, mask, [](const TorchLayer& layer, const torch::Tensor& h) {
        return h + torch::relu(layer.module->forward(h));
    });
}

torch::Tensor skip_linear(const Networks& networks, const torch::Tensor& x,
                          const sd::SurvivalMask& mask) {
    return skip(networks, x, mask, [](const TorchLayer& layer, const torch::Tensor& h) {
        return h + torch::relu(torch::linear(h, layer.weight, layer.bias));
    });
}

torch::Tensor skip_addmm(const Networks& networks, const torch::Tensor& x,
                         const sd::SurvivalMask& mask) {
    return skip(networks, x, mask, [](const TorchLayer& layer, const torch::Tensor& h) {
        return torch::addmm(layer.bias, h, layer.transposed).relu_().add_(h);
    });
}

torch::Tensor skip_out(const Networks& networks, const torch::Tensor& x,
                       const sd::SurvivalMask& mask) {
    static torch::Tensor h, branch;
    if (!h.defined() || h.sizes() != x.sizes()) {
        h = torch::empty_like(x);
        branch = torch::empty_like(x);
    }
    h.copy_(x);
    return skip(networks, h, mask, [](const TorchLayer& layer, torch::Tensor& sum) {
        torch::addmm_out(branch, layer.bias, sum, layer.transposed);
        return sum.add_(branch.relu_());
    });
}

torch::Tensor skip_addmv(const Networks& networks, const torch::Tensor& x,
                         const sd::SurvivalMask& mask) {
    static torch::Tensor h = torch::empty({width}), branch = torch::empty({width});
    h.copy_(x[0]);
    return skip(networks, h, mask,
                [](const TorchLayer& layer, torch::Tensor& sum) {
                    torch::addmv_out(branch, layer.bias, layer.weight, sum);
                    return sum.add_(branch.relu_());
                })
        .unsqueeze(0);
}

torch::Tensor skip_mkldnn(const Networks& networks, const torch::Tensor& x,
                          const sd::SurvivalMask& mask) {
    return skip(networks, x.to_mkldnn(), mask,
                [](const TorchLayer& layer, const torch::Tensor& h) {
                    return h + torch::relu(
                                   torch::mkldnn_linear(h, layer.mkldnn_weight, layer.mkldnn_bias));
                })
        .to_dense();
}

torch::Tensor multiply(const Networks& networks, const torch::Tensor& x,
                       const sd::SurvivalMask& mask) {
    torch::Tensor h = x;
    for (std::size_t l = 0; l < networks.torch_layers.size(); ++l) {
        const TorchLayer& layer = networks.torch_layers[l];
        const torch::Tensor& bit = networks.bits[mask[static_cast<Index>(l)] ? 1 : 0];
        h = h + bit * torch::relu(torch::linear(h, layer.weight, layer.bias));
    }
    return h;
}

using MaskedPass = torch::Tensor (*)(const Networks&, const torch::Tensor&,
                                     const sd::SurvivalMask&);
struct Way {
    std::string name;
    MaskedPass pass;
};
const std::vector<Way>& usual_ways() {
    static const std::vector<Way> all{{"Module", skip_module},
                                      {"Linear", skip_linear},
                                      {"Addmm", skip_addmm},
                                      {"Mkldnn", skip_mkldnn},
                                      {"Multiply", multiply}};
    return all;
}
std::vector<Way> tuned_ways(Index columns) {
    if (columns == 1) return {{"Out", skip_out}, {"Addmv", skip_addmv}};
    return {{"Out", skip_out}};
}
std::vector<Way> all_ways(Index columns) {
    std::vector<Way> all = usual_ways();
    for (const Way& way : tuned_ways(columns)) all.push_back(way);
    return all;
}

template <MaskedPass pass>
torch::Tensor enumerate(const Networks& networks, const torch::Tensor& x) {
    const Eigen::VectorXd p = networks.network.survival_probabilities();
    torch::Tensor sum = torch::zeros_like(x);
    sd::SurvivalMask mask = sd::SurvivalMask::none(depth);
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << depth; ++bits) {
        mask.set_word(0, bits);
        sum.add_(pass(networks, x, mask), sd::probability(mask, p));
    }
    return sum;
}

/// One row for each mask.
torch::Tensor enumerate_batched(const Networks& networks, const torch::Tensor& x) {
    const Eigen::VectorXd p = networks.network.survival_probabilities();
    const torch::Tensor numbers = torch::arange(std::int64_t{1} << depth);
    torch::Tensor weights = torch::ones({1, std::int64_t{1} << depth});
    torch::Tensor h = x.expand({std::int64_t{1} << depth, width});
    for (Index l = 0; l < depth; ++l) {
        const TorchLayer& layer = networks.torch_layers[static_cast<std::size_t>(l)];
        const torch::Tensor kept = numbers.bitwise_right_shift(l).bitwise_and(1).to(torch::kFloat);
        weights = weights * (kept * p(l) + (1 - kept) * (1 - p(l)));
        h = h + kept.unsqueeze(1) * torch::relu(torch::linear(h, layer.weight, layer.bias));
    }
    return torch::mm(weights, h);
}

/// One row for each prefix of a mask.
torch::Tensor enumerate_doubling(const Networks& networks, const torch::Tensor& x) {
    const Eigen::VectorXd p = networks.network.survival_probabilities();
    torch::Tensor weights = torch::ones({1, 1});
    torch::Tensor h = x;
    for (Index l = 0; l < depth; ++l) {
        const TorchLayer& layer = networks.torch_layers[static_cast<std::size_t>(l)];
        h = torch::cat({torch::addmm(layer.bias, h, layer.transposed).relu_().add_(h), h});
        weights = torch::cat({weights * p(l), weights * (1 - p(l))}, 1);
    }
    return torch::mm(weights, h);
}

using Enumeration = torch::Tensor (*)(const Networks&, const torch::Tensor&);
struct EnumerationWay {
    std::string name;
    Enumeration run;
};
const std::vector<EnumerationWay>& enumerations() {
    static const std::vector<EnumerationWay> all{
        {"Linear", enumerate<skip_linear>}, {"Addmm", enumerate<skip_addmm>},
        {"Out", enumerate<skip_out>},       {"Addmv", enumerate<skip_addmv>},
        {"Multiply", enumerate<multiply>},  {"Batched", enumerate_batched},
        {"Doubling", enumerate_doubling}};
    return all;
}

/// A mask and a batch for the masked passes.
struct PassCase {
    PassCase(const std::string& mask_name, sd::SurvivalMask drawn, Index columns)
        : label("mask:" + mask_name + "/columns:" + std::to_string(columns)),
          mask(std::move(drawn)),
          x(sd::Matrix<float>::Random(width, columns)),
          torch_x(torch::from_blob(x.data(), {columns, width}).clone()) {}

    std::string label;
    sd::SurvivalMask mask;
    sd::Matrix<float> x;
    torch::Tensor torch_x;
};

/// Ends the program unless LibTorch's y [batch x features] is the library's y [features x batch].
void check(const std::string& what, const sd::Matrix<float>& ours, const torch::Tensor& theirs) {
    require(what + ": outputs", error(ours, from_torch<float>(theirs)), tolerance);
}

void check_all(const Networks& networks, const std::vector<PassCase>& cases) {
    for (const PassCase& pass : cases)
        for (const auto& [name, run] : all_ways(pass.x.cols()))
            check("masked pass " + pass.label + ", " + name, networks.network(pass.x, pass.mask),
                  run(networks, pass.torch_x, pass.mask));
    const auto exact = sd::ExactExpectation{}(networks.network, cases.front().x);
    for (const auto& [name, run] : enumerations())
        check("enumeration, " + name, exact.mean, run(networks, cases.front().torch_x));
}

template <class Body>
void measure(benchmark::State& state, const Body& body) {
    for (auto _ : state) {
        auto result = body();
        benchmark::DoNotOptimize(result);
        benchmark::ClobberMemory();
    }
}

std::string library_pass(const PassCase& pass) { return "BM_StochasticDepthMasked/" + pass.label; }
std::string torch_pass(const PassCase& pass, const std::string& way) {
    return "BM_LibTorchMasked" + way + "/" + pass.label;
}
const std::string library_expectation = "BM_StochasticDepthExactExpectation";
std::string torch_enumeration(const std::string& way) { return "BM_LibTorchEnumeration" + way; }

void add(const std::string& name, benchmark::TimeUnit unit,
         const std::function<void(benchmark::State&)>& body) {
    benchmark::RegisterBenchmark(name.c_str(), body)->Unit(unit);
}

void add_all(const Networks& networks, const std::vector<PassCase>& cases) {
    for (const PassCase& pass : cases) {
        add(library_pass(pass), benchmark::kMicrosecond, [&](benchmark::State& state) {
            sd::Matrix<float> y(width, pass.x.cols());
            measure(state, [&] {
                sd::masked_forward(networks.network, pass.x, pass.mask, y);
                return y.data();
            });
        });
        for (const auto& [name, run] : all_ways(pass.x.cols()))
            add(torch_pass(pass, name), benchmark::kMicrosecond,
                [&, run = run](benchmark::State& state) {
                    measure(state, [&] { return run(networks, pass.torch_x, pass.mask); });
                });
    }
    const PassCase& one_column = cases.front();
    add(library_expectation, benchmark::kMillisecond, [&](benchmark::State& state) {
        measure(state, [&] { return sd::ExactExpectation{}(networks.network, one_column.x); });
    });
    for (const auto& [name, run] : enumerations())
        add(torch_enumeration(name), benchmark::kMillisecond,
            [&, run = run](benchmark::State& state) {
                measure(state, [&] { return run(networks, one_column.torch_x); });
            });
}

[[nodiscard]] std::vector<Ratio> ratios(const std::vector<PassCase>& cases) {
    std::vector<Ratio> list;
    for (const PassCase& pass : cases) {
        std::vector<std::string> usual, tuned;
        for (const Way& way : usual_ways()) usual.push_back(torch_pass(pass, way.name));
        for (const Way& way : tuned_ways(pass.x.cols()))
            tuned.push_back(torch_pass(pass, way.name));
        list.push_back({"masked forward / LibTorch's usual forms, " + pass.label,
                        library_pass(pass), usual, pass.x.cols() == 1 ? 20.0 : 3.0});
        list.push_back(
            {"masked forward / LibTorch tuned by hand, " + pass.label, library_pass(pass), tuned});
        for (const char* const way : {"Linear", "Multiply"})
            list.push_back({"masked forward / LibTorch " + std::string(way) + ", " + pass.label,
                            library_pass(pass),
                            {torch_pass(pass, way)}});
    }
    const auto enumeration = [&](const std::string& claim, const std::vector<std::string>& peers,
                                 double target) {
        std::vector<std::string> names;
        for (const std::string& way : peers) names.push_back(torch_enumeration(way));
        list.push_back(
            {"exact expectation / LibTorch's " + claim, library_expectation, names, target});
    };
    enumeration("plain enumeration, usual forms", {"Linear", "Addmm", "Multiply"}, 300);
    enumeration("plain enumeration, tuned by hand", {"Out", "Addmv"}, 0);
    enumeration("plain enumeration, Linear", {"Linear"}, 0);
    enumeration("plain enumeration, Multiply", {"Multiply"}, 0);
    enumeration("batch of all masks", {"Batched"}, 0);
    enumeration("doubling batch of prefixes", {"Doubling"}, 0);
    return list;
}

}  // namespace

int main(int argc, char** argv) {
    at::set_num_interop_threads(1);
    set_threads(1);
    const c10::InferenceMode no_gradients;
    const Networks networks;
    const sd::SurvivalMask random =
        sd::MaskSampler{networks.network.survival_probabilities(), 42}.sample(0);
    std::vector<PassCase> cases;
    for (const Index columns : {1, 32}) {
        cases.emplace_back("full", sd::SurvivalMask::all(depth), columns);
        cases.emplace_back("random", random, columns);
    }
    check_all(networks, cases);
    add_all(networks, cases);
    benchmark::AddCustomContext("random mask", to_string(random));
    benchmark::AddCustomContext("LibTorch", TORCH_VERSION);
    benchmark::AddCustomContext("LibTorch's BLAS", blas());
    return run_benchmarks(argc, argv, ratios(cases));
}
