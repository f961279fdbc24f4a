// SPDX-License-Identifier: MIT
//
// A residual network, h + W_2 relu(W_1 h + b_1) + b_2 in each of 12 layers, whose branches are
// TorchScript modules, as Python saves them one by one (docs/interoperability.md). Layer l is kept
// with probability p_l. What is the output over all 2^12 sub-networks? A program on LibTorch alone
// runs one after another; here they share what they have in common, and LibTorch runs the branches.
//
//     libtorch_blocks                        branches that are made here
//     libtorch_blocks WIDTH BRANCH.pt ...    branches from files, of so many inputs
#include <stochastic_depth/adapters/libtorch.hpp>
#include <stochastic_depth/all.hpp>

#include <dlfcn.h>
#include <torch/script.h>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <utility>
#include <vector>

namespace sd = stochastic_depth;
using Layer = sd::StochasticDepth<sd::Residual<sd::TorchLayer<float>>>;

namespace {

/// One thread for LibTorch, and for the BLAS beneath it, which may have threads of its own.
void use_one_thread() {
    at::set_num_threads(1);
    if (void* const set = dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))
        reinterpret_cast<void (*)(int)>(set)(1);
}

/// What torch.jit.script makes of a branch.
torch::jit::Module make_branch(sd::Index width) {
    torch::jit::Module branch{"Branch"};
    const double size = 1 / std::sqrt(static_cast<double>(width));
    // Theirs would require gradients; here nothing is trained.
    branch.register_parameter("weight_1", size * torch::randn({width, width}), false);
    branch.register_parameter("bias_1", 0.1 * torch::randn({width}), false);
    branch.register_parameter("weight_2", size * torch::randn({width, width}), false);
    branch.register_parameter("bias_2", 0.1 * torch::randn({width}), false);
    branch.define(
        "def forward(self, h):\n"
        "    hidden = torch.relu(torch.linear(h, self.weight_1, self.bias_1))\n"
        "    return torch.linear(hidden, self.weight_2, self.bias_2)\n");
    return branch;
}

/// The sum over all masks of P(S) NN(x, S), in LibTorch alone.
torch::Tensor enumerate(std::vector<torch::jit::Module>& branches, const Eigen::VectorXd& p,
                        const torch::Tensor& x) {
    const c10::InferenceMode no_gradients;
    torch::Tensor mean = torch::zeros_like(x, torch::kDouble);
    for (std::size_t mask = 0; mask < std::size_t{1} << branches.size(); ++mask) {
        torch::Tensor h = x;
        double probability = 1;
        for (std::size_t l = 0; l < branches.size(); ++l) {
            const bool kept = mask >> l & 1;
            const double p_l = p(static_cast<sd::Index>(l));
            probability *= kept ? p_l : 1 - p_l;
            if (kept) h = h + branches[l].forward({h}).toTensor();
        }
        mean += probability * h;
    }
    return mean;
}

/// Milliseconds of processor time that a call takes.
template <class Call>
double time_of(const Call& call) {
    const std::clock_t start = std::clock();
    call();
    return 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace

int main(int argc, char** argv) try {
    use_one_thread();
    torch::manual_seed(2026);
    const sd::Index width = argc > 1 ? std::atol(argv[1]) : 64, batch = 16;
    std::vector<torch::jit::Module> branches;
    for (int k = 2; k < argc; ++k) branches.push_back(torch::jit::load(argv[k]));
    while (argc <= 2 && branches.size() < 12) branches.push_back(make_branch(width));

    const Eigen::VectorXd p = sd::linear_decay(static_cast<sd::Index>(branches.size()), 0.5);
    std::vector<Layer> layers;
    for (std::size_t l = 0; l < branches.size(); ++l)
        layers.emplace_back(sd::Residual{sd::TorchLayer<float>{branches[l], width}},
                            sd::SurvivalProbability{p(static_cast<sd::Index>(l))});
    const sd::Stack network{std::move(layers)};
    for (const Layer& layer : network.layers())
        std::printf("%s", sd::describe(layer.layer().branch()).c_str());

    const torch::Tensor inputs = torch::randn({batch, width});
    // [batch x features] there is [features x batch] here.
    const Eigen::Map<const sd::Matrix<float>> x(inputs.data_ptr<float>(), width, batch);

    // The first passes through a script are those that LibTorch compiles it in.
    for (int pass = 0; pass < 3; ++pass) (void)network(x);
    sd::ExpectationResult<float> exact;
    torch::Tensor sum;
    const double spent = time_of([&] { exact = sd::ExactExpectation{}(network, x); });
    const double enumerated = time_of([&] { sum = enumerate(branches, p, inputs); });
    const Eigen::Map<const sd::Matrix<double>> expected(sum.data_ptr<double>(), width, batch);
    const double apart = (exact.mean.cast<double>() - expected).cwiseAbs().maxCoeff() /
                         expected.cwiseAbs().maxCoeff();
    std::printf(
        "f_SD over 2^%zu masks: %.0f ms, LibTorch one mask after another: %.0f ms, %.1f times "
        "as long\n",
        branches.size(), spent, enumerated, enumerated / spent);
    std::printf("largest difference: %.1e of the largest output\n", apart);

    const auto sampled = sd::MonteCarloExpectation{{.samples = 1000, .seed = 1}}(network, x);
    const auto scaled = sd::WeightScaling{}(network, x);
    std::printf(
        "output 0 of sample 0: exact %.4f, Monte Carlo %.4f +- %.4f, weight scaling %.4f, "
        "full depth %.4f\n",
        exact.mean(0, 0), sampled.mean(0, 0), sampled.standard_error(0, 0), scaled.mean(0, 0),
        network(x)(0, 0));

    const auto sensitivities = sd::ExactSensitivity{}(network, x);
    std::printf("layer  p_l   |d f_SD / d p_l|\n");
    for (sd::Index l = 0; l < network.depth(); ++l)
        std::printf("%5td  %.2f  %.3f\n", l + 1, p(l),
                    sensitivities.by_layer.of(l).norm() / std::sqrt(static_cast<double>(batch)));
    return apart <= 1e-5 ? 0 : 1;
} catch (const c10::Error& error) {
    std::fprintf(stderr, "libtorch_blocks: %s\n", error.what_without_backtrace());
    return 2;
} catch (const std::exception& error) {
    std::fprintf(stderr, "libtorch_blocks: %s\n", error.what());
    return 2;
}
