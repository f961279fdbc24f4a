// SPDX-License-Identifier: MIT

// load_npy and load_npy_masks, from bytes in memory.

#include <stochastic_depth/io/npy.hpp>

#include <cstring>

#include "fuzz.hpp"

namespace {

using namespace stochastic_depth;
using fuzz::Bytes;

/// Sizes and bits, so that a NaN equals itself.
template <class Scalar>
bool same(const Matrix<Scalar>& a, const Matrix<Scalar>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() &&
           (a.size() == 0 || std::memcmp(a.data(), b.data(),
                                         static_cast<std::size_t>(a.size()) * sizeof(Scalar)) == 0);
}

template <class Scalar>
void read_matrix(std::span<const std::uint8_t> bytes) {
    Matrix<Scalar> matrix;
    // A number of one byte becomes one of the matrix.
    fuzz::expect_memory(bytes.size() * sizeof(Scalar), [&] {
        if (fuzz::is_refused(
                [&] { matrix = detail::npy_matrix<Scalar>(detail::parse_npy(bytes)); }))
            matrix.resize(0, 0);
    });
    const Bytes again = detail::npy_bytes(matrix);
    fuzz::expect(same(detail::npy_matrix<Scalar>(detail::parse_npy(again)), matrix),
                 "what is written again reads the same");
    // Float is double's, wherever both take a number.
    if constexpr (std::is_same_v<Scalar, float>) {
        Matrix<double> wide;
        if (matrix.size() == 0) return;
        wide = detail::npy_matrix<double>(detail::parse_npy(bytes));
        for (Index i = 0; i < wide.size(); ++i) {
            const double a = wide.data()[i], b = static_cast<double>(matrix.data()[i]);
            fuzz::expect(a == b || (a != a && b != b), "both kinds of matrices are the same");
        }
    }
}

void read_masks(std::span<const std::uint8_t> bytes) {
    std::vector<SurvivalMask> masks;
    // Of a byte, a mask with its own memory.
    fuzz::expect_memory(bytes.size() * (sizeof(SurvivalMask) + 8), [&] {
        if (fuzz::is_refused([&] { masks = detail::npy_masks(detail::parse_npy(bytes)); }))
            masks.clear();
    });
    const Bytes again = detail::npy_bytes(masks);
    fuzz::expect(detail::npy_masks(detail::parse_npy(again)) == masks,
                 "what is written again reads the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> bytes{data, size};
    switch (fuzz::take_choice(bytes, 3)) {
        case 0: read_matrix<float>(bytes); break;
        case 1: read_matrix<double>(bytes); break;
        default: read_masks(bytes); break;
    }
    return 0;
}
