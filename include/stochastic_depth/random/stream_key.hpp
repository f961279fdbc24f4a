// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>

#include <stochastic_depth/random/philox.hpp>

namespace stochastic_depth::detail {

/// What a stream of counter-based random numbers is for. One seed gives each purpose a stream of
/// its own, so that masks stay what they are when something else comes to draw from the same seed.
enum class StreamPurpose : std::uint32_t {
    survival_masks = 1,
    shuffling = 2,
    mask_design = 3,
    layer_orders = 4,
    layer_coalitions = 5,
    fixed_size_masks = 6,
    dropout = 7,
    law_masks = 8,
    image_augmentation = 9,
    token_dropout = 10,
    batch_order = 11,
    token_generation = 12,
};

/// The Philox key of a purpose's stream.
[[nodiscard]] constexpr std::array<std::uint32_t, 2> stream_key(std::uint64_t seed,
                                                                StreamPurpose purpose,
                                                                std::uint32_t version) {
    const auto block = philox4x32_10(
        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32), 0, 0},
        {static_cast<std::uint32_t>(purpose), version});
    return {block[0], block[1]};
}

}  // namespace stochastic_depth::detail
