// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/sample_range.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Draws survival masks of a law, independent of each other: what MaskSampler is for independent
/// layers.
///
/// A mask is a pure function of (law, seed, step, sample), and its bit of a layer one of the bits
/// before and of that layer's own random number: s_l = 1 with the probability that the law says, to
/// within 2^-53. Where that is 0 or 1 the bit is certain.
///
/// \complexity  A Philox block of 128 bits for two bits of a mask. Where the output is the
///              caller's, nothing is allocated but by the law.
template <MaskLaw Law>
class LawMaskSampler {
public:
    /// Changes whenever the bits drawn for the same (law, seed, step, sample) change, which is a
    /// breaking change of the library.
    static constexpr std::uint32_t stream_version = 1;

    /// \param law   Of L < 2^22 layers.
    /// \param seed  Any value. Different seeds give independent masks.
    /// \throws std::invalid_argument  outside that range.
    LawMaskSampler(Law law, std::uint64_t seed)
        : law_(std::move(law)),
          depth_(law_.depth()),
          seed_(seed),
          key_(detail::stream_key(seed, detail::StreamPurpose::law_masks, stream_version)) {
        if (!(depth_ >= 0 && depth_ < max_depth))
            detail::refuse("LawMaskSampler: depth must lie in [0, ", max_depth, "), got ", depth_);
    }

    [[nodiscard]] const Law& law() const { return law_; }
    [[nodiscard]] std::uint64_t seed() const { return seed_; }

    /// Number of layers L.
    [[nodiscard]] Index depth() const { return depth_; }

    /// One mask for a whole batch: that of sample 0.
    [[nodiscard]] SurvivalMask sample(std::uint64_t step) const {
        SurvivalMask mask = SurvivalMask::none(depth());
        sample(step, mask);
        return mask;
    }

    /// One mask for a whole batch, written into `mask`.
    /// \param mask  Of depth() layers.
    /// \throws std::invalid_argument  if it has another size, or if a probability of the law lies
    ///                                outside [0, 1].
    void sample(std::uint64_t step, SurvivalMask& mask) const {
        if (mask.size() != depth())
            detail::refuse("LawMaskSampler: mask must have ", depth(), " layers, got ",
                           mask.size());
        mask.resize(depth());
        draw(step, 0, [&](Index l) { mask.keep(l); });
    }

    /// One mask for each of samples 0, ..., batch_size - 1.
    /// \param batch_size  In [0, 2^38].
    /// \throws std::invalid_argument  outside that range, and as above.
    [[nodiscard]] SurvivalMasks sample(std::uint64_t step, Index batch_size) const {
        detail::check_sample_range("LawMaskSampler", 0, batch_size);
        SurvivalMasks masks{depth(), batch_size};
        sample(step, 0, masks);
        return masks;
    }

    /// One mask for each of samples 0, ..., masks.batch_size() - 1, written into `masks`.
    void sample(std::uint64_t step, SurvivalMasks& masks) const { sample(step, 0, masks); }

    /// One mask for each of samples first_sample, ..., first_sample + masks.batch_size() - 1,
    /// written into `masks`: a part of a batch, drawn by itself.
    /// \param first_sample  At least 0; the last sample is less than 2^38.
    /// \param masks         Of depth() layers.
    /// \throws std::invalid_argument  outside these ranges, and as above.
    void sample(std::uint64_t step, Index first_sample, SurvivalMasks& masks) const {
        if (masks.depth() != depth())
            detail::refuse("LawMaskSampler: masks must have ", depth(), " layers, got ",
                           masks.depth());
        detail::check_sample_range("LawMaskSampler", first_sample, masks.batch_size());
        masks.resize(depth(), masks.batch_size());
        for (Index j = 0; j < masks.batch_size(); ++j)
            draw(step, static_cast<std::uint64_t>(first_sample + j),
                 [&](Index l) { masks.keep(l, j); });
    }

private:
    static constexpr Index max_depth = Index{1} << 22;

    /// Calls keep(l) for each layer that the mask of a sample keeps.
    template <class Keep>
    void draw(std::uint64_t step, std::uint64_t sample, const Keep& keep) const {
        // The layers take the halves of a block in turn; 21 bits number the blocks of a mask.
        std::array<std::uint32_t, 4> counter{0, static_cast<std::uint32_t>(sample),
                                             static_cast<std::uint32_t>(step),
                                             static_cast<std::uint32_t>(step >> 32)};
        std::array<std::uint32_t, 4> block{};
        Index drawn = -1;
        LawState<Law> state = law_.start();
        for (Index l = 0; l < depth_; ++l) {
            const double p = detail::survival_probability(law_, l, state);
            bool kept = p == 1;
            if (p > 0 && p < 1) {
                if (l / 2 != drawn) {
                    drawn = l / 2;
                    counter[0] = static_cast<std::uint32_t>(drawn) |
                                 static_cast<std::uint32_t>(sample >> 32) << 21;
                    block = philox4x32_10(counter, key_);
                }
                const std::size_t half = l % 2 == 0 ? 0 : 2;
                const std::uint64_t bits = std::uint64_t{block[half]} << 32 | block[half + 1];
                kept = static_cast<double>(bits >> 11) * 0x1p-53 < p;
            }
            if (kept) keep(l);
            state = law_.next(l, state, kept);
        }
    }

    Law law_;
    Index depth_;
    std::uint64_t seed_;
    std::array<std::uint32_t, 2> key_;
};

}  // namespace stochastic_depth
