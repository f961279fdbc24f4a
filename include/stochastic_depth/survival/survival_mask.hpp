// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A survival mask S = (s_1, ..., s_L): layer l is kept where s_l = 1 and skipped where s_l = 0.
///
/// Layers count from 0 in code. The bits are packed: layer l is bit l % 64 of word l / 64, and the
/// bits of the last word past size() are zero.
class SurvivalMask {
public:
    /// The mask of a network without skippable layers.
    SurvivalMask() = default;

    /// \param layers  s_1, ..., s_L, each 0 or 1.
    /// \throws std::invalid_argument  for any other entry.
    SurvivalMask(std::initializer_list<int> layers)
        : SurvivalMask{none(static_cast<Index>(layers.size()))} {
        Index l = 0;
        for (const int s : layers) {
            if (s != 0 && s != 1)
                detail::refuse("SurvivalMask: entry ", l, " must be 0 or 1, got ", s);
            words_[word_of(l)] |= static_cast<std::uint64_t>(s) << bit_of(l);
            ++l;
        }
    }

    /// The mask that keeps every one of `size` layers.
    /// \throws std::invalid_argument  if size < 0.
    [[nodiscard]] static SurvivalMask all(Index size) {
        SurvivalMask mask = none(size);
        for (std::size_t w = 0; w < mask.words_.size(); ++w) mask.set_word(w, ~std::uint64_t{0});
        return mask;
    }

    /// The mask that skips every one of `size` layers.
    /// \throws std::invalid_argument  if size < 0.
    [[nodiscard]] static SurvivalMask none(Index size) {
        SurvivalMask mask;
        mask.resize(size);
        return mask;
    }

    /// Number of layers L, kept or skipped.
    [[nodiscard]] Index size() const { return size_; }

    /// Number of kept layers.
    [[nodiscard]] Index count() const {
        Index kept = 0;
        for (const std::uint64_t word : words_) kept += std::popcount(word);
        return kept;
    }

    /// s_l, 0 <= l < size().
    [[nodiscard]] bool operator[](Index l) const {
        eigen_assert(l >= 0 && l < size_ && "SurvivalMask: layer out of range");
        return ((words_[word_of(l)] >> bit_of(l)) & 1u) != 0;
    }

    /// Sets s_l = 1.
    /// \throws std::invalid_argument  unless 0 <= l < size().
    void keep(Index l) {
        check_layer(l);
        words_[word_of(l)] |= std::uint64_t{1} << bit_of(l);
    }

    /// Sets s_l = 0.
    /// \throws std::invalid_argument  unless 0 <= l < size().
    void skip(Index l) {
        check_layer(l);
        words_[word_of(l)] &= ~(std::uint64_t{1} << bit_of(l));
    }

    /// Makes this a mask of `size` layers, all skipped; allocates only past the largest size yet.
    ///
    /// \throws std::invalid_argument  if size < 0.
    void resize(Index size) {
        if (size < 0) detail::refuse("SurvivalMask: size must be at least 0, got ", size);
        words_.assign((static_cast<std::size_t>(size) + 63) / 64, 0);
        size_ = size;
    }

    /// The packed bits, size() / 64 words rounded up.
    [[nodiscard]] std::span<const std::uint64_t> words() const { return words_; }

    /// Sets 64 layers at once, from layer 64 w on. Bits past size() are dropped.
    /// \param w  In [0, words().size()).
    void set_word(std::size_t w, std::uint64_t bits) {
        eigen_assert(w < words_.size() && "SurvivalMask: word out of range");
        const unsigned used = bit_of(size_);
        const bool partial = w + 1 == words_.size() && used != 0;
        words_[w] = partial ? bits & ((std::uint64_t{1} << used) - 1) : bits;
    }

    /// Equal sizes and equal bits.
    friend bool operator==(const SurvivalMask&, const SurvivalMask&) = default;

    /// As the mathematics writes it: "(1,0,1)"; "()" for no layers.
    [[nodiscard]] friend std::string to_string(const SurvivalMask& mask) {
        std::string text = "(";
        for (Index l = 0; l < mask.size(); ++l) {
            if (l > 0) text += ',';
            text += mask[l] ? '1' : '0';
        }
        return text += ')';
    }

private:
    static std::size_t word_of(Index l) { return static_cast<std::size_t>(l) / 64; }
    static unsigned bit_of(Index l) { return static_cast<unsigned>(l) % 64; }

    void check_layer(Index l) const {
        if (!(l >= 0 && l < size_))
            detail::refuse("SurvivalMask: layer must lie in [0, ", size_, "), got ", l);
    }

    Index size_ = 0;
    std::vector<std::uint64_t> words_;
};

/// P(S) = prod_l p_l^s_l (1 - p_l)^(1 - s_l).
///
/// \param mask  S, L layers.
/// \param p     Survival probabilities, L entries in (0, 1].
/// \throws std::invalid_argument  if the sizes differ or some p_l lies outside (0, 1].
[[nodiscard]] inline double probability(const SurvivalMask& mask, const Eigen::VectorXd& p) {
    if (mask.size() != p.size())
        detail::refuse("probability: mask must have one entry for each of ", p.size(),
                       " survival probabilities, got ", mask.size());
    detail::check_survival_probabilities("probability", p);
    double product = 1.0;
    for (Index l = 0; l < p.size(); ++l) product *= mask[l] ? p(l) : 1.0 - p(l);
    return product;
}

}  // namespace stochastic_depth
