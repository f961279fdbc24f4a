// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// How many tokens each sequence has: its rows up to the last entry that is not -1.
/// \param ids  [positions x samples], -1 past the end of a shorter sequence.
template <class Derived>
[[nodiscard]] std::vector<Index> lengths_of(const Eigen::MatrixBase<Derived>& ids) {
    using Scalar = typename Derived::Scalar;
    std::vector<Index> lengths(static_cast<std::size_t>(ids.cols()));
    for (Index j = 0; j < ids.cols(); ++j) {
        Index length = ids.rows();
        while (length > 0 && ids(length - 1, j) == Scalar(-1)) --length;
        lengths[static_cast<std::size_t>(j)] = length;
    }
    return lengths;
}

}  // namespace stochastic_depth
