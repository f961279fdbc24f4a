// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace stochastic_depth::detail {

/// A key, and the number of what it belongs to.
using KeyedNumber = std::pair<std::uint64_t, std::size_t>;

/// Sorts by keys, equal keys by numbers. One function for all: each type and each order that
/// std::sort is called for makes another of it.
inline void sort_by_key(std::vector<KeyedNumber>& numbers) {
    std::sort(numbers.begin(), numbers.end());
}

}  // namespace stochastic_depth::detail
