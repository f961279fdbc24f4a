// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// One survival mask for each sample of a batch.
///
/// Stored layer by layer, because a layer asks which samples survive it: the row of layer l is
/// words(l), batch_size() / 64 words rounded up, in which sample j is bit j % 64 of word j / 64.
/// Bits past batch_size() are zero.
class SurvivalMasks {
public:
    /// No layers, no samples.
    SurvivalMasks() = default;

    /// Masks that skip every layer for every sample.
    /// \throws std::invalid_argument  if depth < 0 or batch_size < 0.
    SurvivalMasks(Index depth, Index batch_size) { resize(depth, batch_size); }

    /// Masks that keep every layer for every sample.
    /// \throws std::invalid_argument  if depth < 0 or batch_size < 0.
    [[nodiscard]] static SurvivalMasks all(Index depth, Index batch_size) {
        SurvivalMasks masks{depth, batch_size};
        for (Index l = 0; l < depth; ++l)
            for (std::size_t w = 0; w < masks.words_per_layer_; ++w)
                masks.set_word(l, w, ~std::uint64_t{0});
        return masks;
    }

    /// Masks that skip every layer for every sample.
    /// \throws std::invalid_argument  if depth < 0 or batch_size < 0.
    [[nodiscard]] static SurvivalMasks none(Index depth, Index batch_size) {
        return SurvivalMasks{depth, batch_size};
    }

    /// Mask j for sample j.
    /// \param masks  At least one, all of one size, the depth.
    /// \throws std::invalid_argument  if there are none, or two sizes.
    [[nodiscard]] static SurvivalMasks from_masks(const std::vector<SurvivalMask>& masks) {
        if (masks.empty()) detail::refuse("SurvivalMasks: masks must not be empty, got 0 masks");
        SurvivalMasks result{masks.front().size(), static_cast<Index>(masks.size())};
        for (std::size_t j = 0; j < masks.size(); ++j)
            result.set_mask(static_cast<Index>(j), masks[j]);
        return result;
    }

    /// Number of layers L, kept or skipped.
    [[nodiscard]] Index depth() const { return depth_; }

    /// Number of samples, each with a mask of its own.
    [[nodiscard]] Index batch_size() const { return batch_size_; }

    /// s_l of sample j, 0 <= l < depth(), 0 <= j < batch_size().
    [[nodiscard]] bool operator()(Index l, Index j) const {
        eigen_assert(l >= 0 && l < depth_ && "SurvivalMasks: layer out of range");
        eigen_assert(j >= 0 && j < batch_size_ && "SurvivalMasks: sample out of range");
        return ((words_[word_of(l, j)] >> bit_of(j)) & 1u) != 0;
    }

    /// The mask of sample j.
    /// \throws std::invalid_argument  unless 0 <= j < batch_size().
    [[nodiscard]] SurvivalMask mask(Index j) const {
        check_sample(j);
        SurvivalMask mask = SurvivalMask::none(depth_);
        for (Index first = 0; first < depth_; first += 64) {
            std::uint64_t bits = 0;
            for (Index l = first; l < depth_ && l < first + 64; ++l)
                bits |= ((words_[word_of(l, j)] >> bit_of(j)) & 1u) << (l - first);
            mask.set_word(static_cast<std::size_t>(first) / 64, bits);
        }
        return mask;
    }

    /// Number of samples that keep layer l.
    /// \throws std::invalid_argument  unless 0 <= l < depth().
    [[nodiscard]] Index count(Index l) const {
        check_layer(l);
        Index kept = 0;
        for (const std::uint64_t word : words(l)) kept += std::popcount(word);
        return kept;
    }

    /// The packed row of layer l, 0 <= l < depth().
    [[nodiscard]] std::span<const std::uint64_t> words(Index l) const {
        eigen_assert(l >= 0 && l < depth_ && "SurvivalMasks: layer out of range");
        return {words_.data() + static_cast<std::size_t>(l) * words_per_layer_, words_per_layer_};
    }

    /// Sets s_l = 1 for sample j.
    /// \throws std::invalid_argument  unless 0 <= l < depth() and 0 <= j < batch_size().
    void keep(Index l, Index j) {
        check_layer(l);
        check_sample(j);
        words_[word_of(l, j)] |= std::uint64_t{1} << bit_of(j);
    }

    /// Sets s_l = 0 for sample j.
    /// \throws std::invalid_argument  unless 0 <= l < depth() and 0 <= j < batch_size().
    void skip(Index l, Index j) {
        check_layer(l);
        check_sample(j);
        words_[word_of(l, j)] &= ~(std::uint64_t{1} << bit_of(j));
    }

    /// Gives sample j a mask of depth() layers.
    /// \throws std::invalid_argument  unless 0 <= j < batch_size() and mask.size() == depth().
    void set_mask(Index j, const SurvivalMask& mask) {
        check_sample(j);
        if (mask.size() != depth_)
            detail::refuse("SurvivalMasks: mask of sample ", j, " must have ", depth_,
                           " layers, got ", mask.size());
        for (Index l = 0; l < depth_; ++l) {
            std::uint64_t& word = words_[word_of(l, j)];
            word &= ~(std::uint64_t{1} << bit_of(j));
            word |= static_cast<std::uint64_t>(mask[l]) << bit_of(j);
        }
    }

    /// Sets 64 samples of layer l at once, from sample 64 w on. Bits past batch_size() are dropped.
    /// \param l  In [0, depth()).
    /// \param w  In [0, words(l).size()).
    void set_word(Index l, std::size_t w, std::uint64_t bits) {
        eigen_assert(l >= 0 && l < depth_ && "SurvivalMasks: layer out of range");
        eigen_assert(w < words_per_layer_ && "SurvivalMasks: word out of range");
        const unsigned used = bit_of(batch_size_);
        const bool partial = w + 1 == words_per_layer_ && used != 0;
        words_[static_cast<std::size_t>(l) * words_per_layer_ + w] =
            partial ? bits & ((std::uint64_t{1} << used) - 1) : bits;
    }

    /// Makes these masks of `depth` layers for `batch_size` samples, all skipped; allocates only
    /// past the largest size yet.
    ///
    /// \throws std::invalid_argument  if depth < 0 or batch_size < 0.
    void resize(Index depth, Index batch_size) {
        if (depth < 0) detail::refuse("SurvivalMasks: depth must be at least 0, got ", depth);
        if (batch_size < 0)
            detail::refuse("SurvivalMasks: batch size must be at least 0, got ", batch_size);
        const std::size_t words_per_layer = (static_cast<std::size_t>(batch_size) + 63) / 64;
        words_.assign(static_cast<std::size_t>(depth) * words_per_layer, 0);
        words_per_layer_ = words_per_layer;
        depth_ = depth;
        batch_size_ = batch_size;
    }

    /// Equal shapes and equal bits.
    friend bool operator==(const SurvivalMasks&, const SurvivalMasks&) = default;

private:
    std::size_t word_of(Index l, Index j) const {
        return static_cast<std::size_t>(l) * words_per_layer_ + static_cast<std::size_t>(j) / 64;
    }
    static unsigned bit_of(Index j) { return static_cast<unsigned>(j) % 64; }

    void check_layer(Index l) const {
        if (!(l >= 0 && l < depth_))
            detail::refuse("SurvivalMasks: layer must lie in [0, ", depth_, "), got ", l);
    }
    void check_sample(Index j) const {
        if (!(j >= 0 && j < batch_size_))
            detail::refuse("SurvivalMasks: sample must lie in [0, ", batch_size_, "), got ", j);
    }

    Index depth_ = 0;
    Index batch_size_ = 0;
    std::size_t words_per_layer_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace stochastic_depth
