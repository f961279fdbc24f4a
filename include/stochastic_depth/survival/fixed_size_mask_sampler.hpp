// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/random/random_words.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Draws, for each layer of a batch of n samples, the random subset of samples that keep it, of a
/// size that hardly varies:
///
///     k_l = floor(p_l n), or one more, such that E[k_l] = p_l n exactly
///
/// and given k_l every subset of k_l samples is as likely as another. So the mask of each sample
/// has the distribution P(S) and layers are independent, but samples are not: every step takes
/// nearly the same work.
///
/// A mask bit is a pure function of (seed, step, sample, layer), of its own p_l and of n.
///
/// \complexity  min(k_l, n - k_l) random integers for each layer; layers with p = 1 draw nothing.
///              Where the output is the caller's, nothing is allocated.
/// \source      Bentley & Floyd 1987, "A Sample of Brilliance", for the subsets.
class FixedSizeMaskSampler {
public:
    /// Changes whenever the masks of the same (seed, step, p, batch size) change, which is a
    /// breaking change of the library.
    static constexpr std::uint32_t stream_version = 1;

    /// \param p     Survival probabilities p_1, ..., p_L, each in (0, 1]; L < 2^22.
    /// \param seed  Any value. Different seeds give independent masks.
    /// \throws std::invalid_argument  outside these ranges.
    FixedSizeMaskSampler(Eigen::VectorXd p, std::uint64_t seed)
        : p_{std::move(p)},
          seed_{seed},
          key_{detail::stream_key(seed, detail::StreamPurpose::fixed_size_masks, stream_version)} {
        if (p_.size() >= max_depth)
            detail::refuse("FixedSizeMaskSampler: depth must be less than ", max_depth, ", got ",
                           p_.size());
        detail::check_survival_probabilities("FixedSizeMaskSampler", p_);
    }

    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const { return p_; }
    [[nodiscard]] std::uint64_t seed() const { return seed_; }

    /// Number of layers L.
    [[nodiscard]] Index depth() const { return p_.size(); }

    /// The masks of a batch.
    /// \param batch_size  n, in [0, 2^32).
    /// \throws std::invalid_argument  outside that range.
    [[nodiscard]] SurvivalMasks sample(std::uint64_t step, Index batch_size) const {
        check_batch_size(batch_size);
        SurvivalMasks masks{depth(), batch_size};
        sample(step, masks);
        return masks;
    }

    /// The masks of a batch, written into `masks`.
    /// \param masks  Of depth() layers, for n < 2^32 samples.
    /// \throws std::invalid_argument  if it has another depth, or more samples.
    void sample(std::uint64_t step, SurvivalMasks& masks) const {
        if (masks.depth() != depth())
            detail::refuse("FixedSizeMaskSampler: masks must have ", depth(), " layers, got ",
                           masks.depth());
        check_batch_size(masks.batch_size());
        masks.resize(depth(), masks.batch_size());
        const std::uint64_t n = static_cast<std::uint64_t>(masks.batch_size());
        for (Index l = 0; l < depth(); ++l) {
            if (p_(l) == 1.0) {
                complement(masks, l);
                continue;
            }
            detail::RandomWords random{
                key_,
                {static_cast<std::uint32_t>(l), static_cast<std::uint32_t>(step),
                 static_cast<std::uint32_t>(step >> 32)}};
            const std::uint64_t k = subset_size(p_(l), n, random);
            keep_subset(masks, l, k <= n / 2 ? k : n - k, random);
            if (k > n / 2) complement(masks, l);
        }
    }

private:
    static constexpr Index max_depth = Index{1} << 22;
    static constexpr std::uint64_t max_batch_size = std::uint64_t{1} << 32;

    static void check_batch_size(Index batch_size) {
        if (!(batch_size >= 0 && static_cast<std::uint64_t>(batch_size) < max_batch_size))
            detail::refuse("FixedSizeMaskSampler: batch size must lie in [0, ", max_batch_size,
                           "), got ", batch_size);
    }

    static void complement(SurvivalMasks& masks, Index l) {
        for (std::size_t w = 0; w < masks.words(l).size(); ++w)
            masks.set_word(l, w, ~masks.words(l)[w]);
    }

    /// floor(p n) + [U < p n - floor(p n)], p in (0, 1), for a uniform U whose binary digits are
    /// drawn one by one and compared with those of the exact product.
    static std::uint64_t subset_size(double p, std::uint64_t n, detail::RandomWords& random) {
        // p n = (high 2^32 + low) 2^-point, where point >= 53.
        int exponent = 0;
        const auto mantissa = static_cast<std::uint64_t>(std::ldexp(std::frexp(p, &exponent), 53));
        const int point = 53 - exponent;
        const std::uint64_t low_product = (mantissa & 0xFFFFFFFF) * n;
        const std::uint64_t high = (mantissa >> 32) * n + (low_product >> 32);
        const std::uint64_t low = low_product & 0xFFFFFFFF;

        const std::uint64_t whole = point - 32 < 64 ? high >> (point - 32) : 0;
        std::uint32_t word = 0;
        int left = 0;
        for (int place = point; place-- > 0;) {
            const std::uint64_t digit =
                place < 32 ? low >> place & 1u : (place < 96 ? high >> (place - 32) & 1u : 0);
            if (left-- == 0) {
                word = random();
                left = 31;
            }
            if (digit != (word >> left & 1u)) return whole + digit;
        }
        return whole;
    }

    /// Keeps layer l for a random subset of `count` samples; until then nobody keeps it.
    static void keep_subset(SurvivalMasks& masks, Index l, std::uint64_t count,
                            detail::RandomWords& random) {
        const std::uint64_t n = static_cast<std::uint64_t>(masks.batch_size());
        for (std::uint64_t last = n - count; last < n; ++last) {
            const Index drawn = random.below(static_cast<std::uint32_t>(last) + 1);
            masks.keep(l, masks(l, drawn) ? static_cast<Index>(last) : drawn);
        }
    }

    Eigen::VectorXd p_;
    std::uint64_t seed_;
    std::array<std::uint32_t, 2> key_;
};

}  // namespace stochastic_depth
