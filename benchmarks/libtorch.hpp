// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/types.hpp>

#include <dlfcn.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

/// What the comparisons with LibTorch share: its settings, its matrices, and how far two results
/// may be apart.

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
