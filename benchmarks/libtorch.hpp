// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/types.hpp>

#include <dlfcn.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

/// What the comparisons with LibTorch share: its settings, its matrices, how far two results may be
/// apart, and the library's side of a training.

inline void set_threads(int threads) {
    at::set_num_threads(threads);
    if (void* const set = dlsym(RTLD_DEFAULT, "openblas_set_num_threads"))
        reinterpret_cast<void (*)(int)>(set)(threads);
}

/// The file that LibTorch's matrix products come from, and the processor that it takes this one
/// for. A comparison depends on it: the reference BLAS is many times slower than OpenBLAS.
[[nodiscard]] inline std::string blas() {
    Dl_info info;
    void* const product = dlsym(RTLD_DEFAULT, "sgemm_");
    if (!product || dladdr(product, &info) == 0) return "unknown";
    std::string text = info.dli_fname;
    if (void* const name = dlsym(RTLD_DEFAULT, "openblas_get_corename"))
        text += std::string(", ") + reinterpret_cast<char* (*)()>(name)();
    return text;
}

template <class Scalar>
constexpr c10::ScalarType torch_type = c10::CppTypeToScalarType<Scalar>::value;

/// [rows x columns] of the library as [columns x rows] of LibTorch: the same numbers in memory.
template <class Scalar>
[[nodiscard]] torch::Tensor to_torch(stochastic_depth::Matrix<Scalar> matrix) {
    return torch::from_blob(matrix.data(), {matrix.cols(), matrix.rows()}, torch_type<Scalar>)
        .clone();
}

/// [columns x rows] of LibTorch as [rows x columns].
template <class Scalar>
[[nodiscard]] stochastic_depth::Matrix<Scalar> from_torch(const torch::Tensor& tensor) {
    const torch::Tensor dense = tensor.detach().contiguous();
    return Eigen::Map<const stochastic_depth::Matrix<Scalar>>(dense.data_ptr<Scalar>(),
                                                              dense.size(1), dense.size(0));
}

/// The largest difference, relative to the largest entry of theirs.
template <class Scalar>
[[nodiscard]] double error(const stochastic_depth::Matrix<Scalar>& ours,
                           const stochastic_depth::Matrix<Scalar>& theirs) {
    if (ours.rows() != theirs.rows() || ours.cols() != theirs.cols()) return INFINITY;
    if (!ours.allFinite() || !theirs.allFinite()) return INFINITY;
    const auto apart = static_cast<double>((ours - theirs).cwiseAbs().maxCoeff());
    return apart == 0 ? 0 : apart / static_cast<double>(theirs.cwiseAbs().maxCoeff());
}

/// The larger of the two; NaN if one of them is.
[[nodiscard]] inline double worse(double a, double b) { return a >= b ? a : b; }

/// Ends the program unless a difference that was found is within its tolerance.
inline void require(const std::string& what, double found, double allowed) {
    if (found <= allowed) return;
    std::fprintf(stderr, "%s differ by %g relative, more than %g\n", what.c_str(), found, allowed);
    std::exit(1);
}

/// The library's side of a training: SGD with momentum on one batch, a mask for each sample, over and
/// over those of the first `mask_steps` steps.
constexpr std::uint64_t mask_seed = 42;
constexpr std::uint64_t mask_steps = 16;
constexpr double momentum = 0.9;

/// Parameters in the order of the layers.
template <class Network>
[[nodiscard]] std::vector<stochastic_depth::Matrix<typename Network::Scalar>> parameters_of(
    const Network& network) {
    std::vector<stochastic_depth::Matrix<typename Network::Scalar>> list;
    stochastic_depth::detail::visit_parameters(
        network, [&](const char*, const auto& parameter) { list.emplace_back(parameter); });
    return list;
}

template <class Network>
class LibraryTraining {
public:
    using Scalar = typename Network::Scalar;
    using Step =
        stochastic_depth::TrainingStep<Network, stochastic_depth::SoftmaxCrossEntropy<Scalar>>;

    /// \param x, labels  The batch, which must outlive this.
    /// \param survival   p_l; empty: the network's own.
    /// \param shards     Of the batch, for threads that have one each.
    LibraryTraining(Network network, const stochastic_depth::Matrix<Scalar>& x,
                    const Eigen::VectorXi& labels, double rate, unsigned threads = 1,
                    const Eigen::VectorXd& survival = {}, stochastic_depth::Index shards = 1)
        : network_(std::move(network)),
          x_(x),
          labels_(labels),
          optimizer_(network_, {.learning_rate = rate, .momentum = momentum}),
          step_(network_, {}, {.seed = mask_seed, .threads = threads, .shards = shards}) {
        if (survival.size() > 0) step_.set_survival_probabilities(survival);
    }

    double step(std::uint64_t t) {
        const double loss = step_.differentiate(network_, x_, labels_, t % mask_steps).loss;
        optimizer_.step(network_, step_.gradient(), step_.team());
        step_.finish(network_);
        return loss;
    }
    [[nodiscard]] const Network& network() const { return network_; }

private:
    Network network_;
    const stochastic_depth::Matrix<Scalar>& x_;
    const Eigen::VectorXi& labels_;
    stochastic_depth::Sgd<Network> optimizer_;
    Step step_;
};
