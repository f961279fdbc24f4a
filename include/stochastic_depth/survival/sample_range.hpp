// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Refuses samples of a step that a sampler has no numbers for: all lie in [0, 2^38).
inline void check_sample_range(std::string_view who, Index first_sample, Index count) {
    constexpr Index most = Index{1} << 38;
    if (first_sample < 0) refuse(who, ": first sample must be at least 0, got ", first_sample);
    if (count < 0) refuse(who, ": batch size must be at least 0, got ", count);
    if (count > most || first_sample > most - count)
        refuse(who, ": samples must be less than ", most, ", got ", count, " samples from ",
               first_sample);
}

}  // namespace stochastic_depth::detail
