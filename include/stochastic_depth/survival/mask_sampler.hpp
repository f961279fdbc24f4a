// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/random/philox_lanes.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/mask_tile.hpp>
#include <stochastic_depth/survival/sample_range.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {
/// Draws survival masks: s_l = 1 with probability p_l, independently, exactly for p_l as a double.
///
/// A mask bit is a pure function of (seed, step, sample, layer) and of its own p_l. Threads, the
/// order of calls, the batch size, the other layers, a restart and a recomputation cannot change
/// it.
///
/// \complexity  About five Philox blocks of 128 bits for 64 mask bits of a layer; layers with p = 1
///              draw nothing. Where the output is the caller's, nothing is allocated.
/// \source      Salmon et al. 2011 for the counter-based generator.
class MaskSampler {
public:
    /// Changes whenever the bits drawn for the same (seed, step, sample, layer, p_l) change, which
    /// is a breaking change of the library.
    static constexpr std::uint32_t stream_version = 1;

    /// \param p     Survival probabilities p_1, ..., p_L, each in (0, 1]; L < 2^22.
    /// \param seed  Any value. Different seeds give independent masks.
    /// \throws std::invalid_argument  outside these ranges.
    MaskSampler(Eigen::VectorXd p, std::uint64_t seed)
        : p_{std::move(p)},
          seed_{seed},
          key_{detail::stream_key(seed, detail::StreamPurpose::survival_masks, stream_version)} {
        if (p_.size() >= max_depth)
            detail::refuse("MaskSampler: depth must be less than ", max_depth, ", got ", p_.size());
        detail::check_survival_probabilities("MaskSampler", p_);
        digits_.reserve(static_cast<std::size_t>(p_.size()));
        for (Index l = 0; l < p_.size(); ++l) digits_.emplace_back(p_(l));
    }

    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const { return p_; }
    [[nodiscard]] std::uint64_t seed() const { return seed_; }

    /// Number of layers L.
    [[nodiscard]] Index depth() const { return p_.size(); }

    /// One mask for a whole batch: that of sample 0.
    [[nodiscard]] SurvivalMask sample(std::uint64_t step) const {
        SurvivalMask mask = SurvivalMask::none(depth());
        sample(step, mask);
        return mask;
    }

    /// One mask for a whole batch, written into `mask`.
    /// \param mask  Of depth() layers.
    /// \throws std::invalid_argument  if it has another size.
    void sample(std::uint64_t step, SurvivalMask& mask) const {
        if (mask.size() != depth())
            detail::refuse("MaskSampler: mask must have ", depth(), " layers, got ", mask.size());
        mask.resize(depth());
        draw(step, 0, 1, {&mask, nullptr, 0});
    }

    /// One mask for each of samples 0, ..., batch_size - 1.
    /// \param batch_size  In [0, 2^38].
    /// \throws std::invalid_argument  outside that range.
    [[nodiscard]] SurvivalMasks sample(std::uint64_t step, Index batch_size) const {
        detail::check_sample_range("MaskSampler", 0, batch_size);
        SurvivalMasks masks{depth(), batch_size};
        sample(step, 0, masks);
        return masks;
    }

    /// One mask for each of samples 0, ..., masks.batch_size() - 1, written into `masks`.
    /// \param masks  Of depth() layers.
    /// \throws std::invalid_argument  if it has another depth.
    void sample(std::uint64_t step, SurvivalMasks& masks) const { sample(step, 0, masks); }

    /// One mask for each of samples first_sample, ..., first_sample + masks.batch_size() - 1,
    /// written into `masks`: a part of a batch, drawn by itself.
    /// \param first_sample  At least 0; the last sample is less than 2^38.
    /// \param masks         Of depth() layers.
    /// \throws std::invalid_argument  outside these ranges, or if masks has another depth.
    void sample(std::uint64_t step, Index first_sample, SurvivalMasks& masks) const {
        if (masks.depth() != depth())
            detail::refuse("MaskSampler: masks must have ", depth(), " layers, got ",
                           masks.depth());
        detail::check_sample_range("MaskSampler", first_sample, masks.batch_size());
        if (first_sample % 64 != 0) masks.resize(depth(), masks.batch_size());
        draw(step, first_sample, masks.batch_size(),
             {nullptr, &masks, static_cast<std::uint64_t>(first_sample)});
    }

private:
    static constexpr Index max_depth = Index{1} << 22;

    /// Where the words that are drawn go: into one mask, or into masks of which the first belongs
    /// to sample `first`. Where words are shared or shifted, bits are added to those before.
    struct Words {
        SurvivalMask* mask;
        SurvivalMasks* masks;
        std::uint64_t first;

        void operator()(std::uint64_t layer, std::uint64_t group, std::uint64_t word) const {
            if (mask) {
                mask->set_word(layer / 64, mask->words()[layer / 64] | word << layer % 64);
                return;
            }
            const Index l = static_cast<Index>(layer);
            const std::uint64_t w = group - first / 64;
            const std::uint64_t shift = first % 64;
            if (shift == 0) {
                masks->set_word(l, w, word);
            } else {
                add(l, w, word >> shift);
                if (w > 0) add(l, w - 1, word << (64 - shift));
            }
        }
        void add(Index l, std::uint64_t w, std::uint64_t bits) const {
            if (w < masks->words(l).size()) masks->set_word(l, w, masks->words(l)[w] | bits);
        }
    };

    /// Calls emit(layer, group, word) for each layer and each group of 64 samples that holds wanted
    /// ones, in any order, perhaps twice: bits that are missing at first come later. Unwanted ones
    /// are 0.
    void draw(std::uint64_t step, Index first_sample, Index count, Words emit) const {
        if (count == 0) return;
        const std::uint64_t first = static_cast<std::uint64_t>(first_sample);
        const std::uint64_t last = first + static_cast<std::uint64_t>(count) - 1;

        // Eight digits decide most words, and four a single bit. What they leave open is gathered
        // and drawn to the end, so that a few late bits don't hold up whole tiles.
        const std::uint32_t first_blocks = count < 8 ? 2 : 4;
        detail::MaskTile fresh, late;
        const auto finish_late = [&] {
            for (std::uint32_t block = first_blocks; late.draw(block, block + 1, step, key_);)
                ++block;
            late.for_each(emit);
            late.clear();
        };
        const auto finish_fresh = [&] {
            fresh.draw(0, first_blocks, step, key_);
            fresh.for_each(emit);
            for (std::uint32_t open = fresh.undecided(); open != 0; open &= open - 1) {
                late.add(fresh, static_cast<std::size_t>(std::countr_zero(open)));
                if (late.full()) finish_late();
            }
            fresh.clear();
        };
        for (Index l = 0; l < depth(); ++l) {
            const std::uint64_t layer = static_cast<std::uint64_t>(l);
            for (std::uint64_t group = first / 64; group <= last / 64; ++group) {
                std::uint64_t wanted = ~std::uint64_t{0};
                if (group == first / 64) wanted &= ~std::uint64_t{0} << first % 64;
                if (group == last / 64) wanted &= ~std::uint64_t{0} >> (63 - last % 64);
                if (p_(l) == 1.0) {
                    emit(layer, group, wanted);
                    continue;
                }
                fresh.add(layer, group, digits_[layer], wanted);
                if (fresh.full()) finish_fresh();
            }
        }
        finish_fresh();
        finish_late();
    }

    Eigen::VectorXd p_;
    std::uint64_t seed_;
    detail::PhiloxSchedule key_;
    std::vector<detail::BinaryDigits> digits_;
};

}  // namespace stochastic_depth
