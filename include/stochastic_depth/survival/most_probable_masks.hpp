// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A survival mask S with P(S).
struct ProbableMask {
    SurvivalMask mask;
    double probability = 0;
};

/// The survival masks in order of falling probability, without listing all 2^L.
///
///     MostProbableMasks masks{network.survival_probabilities()};
///     while (const auto next = masks.next()) ...  // next->mask, next->probability
///
/// Each mask with P(S) > 0 comes once; layers with p = 1 are always kept, so there are 2^K masks
/// for K layers with p < 1. Against the most probable mask (a layer is kept if p >= 1/2), a mask
/// costs sum |log(p_l / (1 - p_l))| over the layers in which it differs: the masks are the subsets
/// of these costs in order of their sums. With the layers ranked by cost, every subset but the
/// empty one follows from one that costs no more, by adding the layer of the next rank or by moving
/// its last layer up a rank.
///
/// `probability` never rises from one mask to the next, and is P(S) up to a relative error of 8 L
/// 2^-53 (as long as it does not underflow). Masks closer than that are ties; their order is fixed
/// by p alone.
///
/// \complexity  O(log k + L) for the k-th mask; O(k L / 64) memory.
/// \source      Lawler 1972, A Procedure for Computing the K Best Solutions to Discrete
///              Optimization Problems: the scheme, here for sums of subsets.
class MostProbableMasks {
public:
    /// \param p  Survival probabilities, L entries in (0, 1].
    /// \throws std::invalid_argument  if some p_l lies outside (0, 1].
    explicit MostProbableMasks(const Eigen::VectorXd& p) : depth_(p.size()) {
        detail::check_survival_probabilities("MostProbableMasks", p);
        SurvivalMask likely = SurvivalMask::all(depth_);
        for (Index l = 0; l < depth_; ++l) {
            if (p(l) < 0.5) likely.skip(l);
            if (p(l) < 1) layers_.push_back({static_cast<std::size_t>(l), p(l), 1 - p(l)});
        }
        std::stable_sort(layers_.begin(), layers_.end(),
                         [](const Layer& a, const Layer& b) { return a.odds() > b.odds(); });
        words_.assign(likely.words().begin(), likely.words().end());
        words_of_mask_ = words_.size();
        candidates_.push_back({probability_of(0), 0, 0});
    }

    /// The next mask, or nothing after the last.
    [[nodiscard]] std::optional<ProbableMask> next() {
        if (candidates_.empty()) return std::nullopt;
        std::pop_heap(candidates_.begin(), candidates_.end(), less_probable);
        const Candidate best = candidates_.back();
        candidates_.pop_back();
        ProbableMask result{SurvivalMask::none(depth_), best.probability};
        for (std::size_t w = 0; w < words_of_mask_; ++w)
            result.mask.set_word(w, words_[best.place * words_of_mask_ + w]);
        if (best.ranks == layers_.size()) {
            free_places_.push_back(best.place);
            return result;
        }
        if (best.ranks > 0) {
            const std::size_t copy = new_place();
            std::copy_n(words_.begin() + offset(best.place), words_of_mask_,
                        words_.begin() + offset(copy));
            flip(copy, best.ranks - 1);
            push(copy, best);
        }
        push(best.place, best);
        return result;
    }

private:
    /// A layer with p < 1.
    struct Layer {
        std::size_t index;
        double kept, skipped;
        /// Those of its unlikelier state.
        [[nodiscard]] double odds() const {
            return std::min(kept, skipped) / std::max(kept, skipped);
        }
    };
    /// A mask, its words in the place of that number.
    struct Candidate {
        double probability;
        /// 1 + the rank of the last layer in its unlikely state; 0: none is.
        std::size_t ranks;
        std::size_t place;
    };

    /// A strict order: no two candidates share a place.
    static bool less_probable(const Candidate& a, const Candidate& b) {
        return a.probability != b.probability ? a.probability < b.probability : a.place > b.place;
    }

    [[nodiscard]] std::ptrdiff_t offset(std::size_t place) const {
        return static_cast<std::ptrdiff_t>(place * words_of_mask_);
    }

    std::size_t new_place() {
        if (free_places_.empty()) {
            words_.resize(words_.size() + words_of_mask_);
            return words_.size() / words_of_mask_ - 1;
        }
        const std::size_t place = free_places_.back();
        free_places_.pop_back();
        return place;
    }

    void flip(std::size_t place, std::size_t rank) {
        const std::size_t l = layers_[rank].index;
        words_[place * words_of_mask_ + l / 64] ^= std::uint64_t{1} << (l % 64);
    }

    [[nodiscard]] double probability_of(std::size_t place) const {
        const std::uint64_t* const words = words_.data() + offset(place);
        double product = 1;
        for (const Layer& layer : layers_)
            product *= ((words[layer.index / 64] >> (layer.index % 64)) & 1u) != 0 ? layer.kept
                                                                                   : layer.skipped;
        return product;
    }

    /// Flips the layer of the next rank of the mask at `place`, which makes it no likelier than
    /// `before`, and adds it.
    void push(std::size_t place, const Candidate& before) {
        flip(place, before.ranks);
        // Rounding may lift the product above what it cannot exceed.
        const double probability = std::min(probability_of(place), before.probability);
        candidates_.push_back({probability, before.ranks + 1, place});
        std::push_heap(candidates_.begin(), candidates_.end(), less_probable);
    }

    Index depth_;
    std::vector<Layer> layers_;
    /// A heap, the most probable first.
    std::vector<Candidate> candidates_;
    std::size_t words_of_mask_ = 0;
    std::vector<std::uint64_t> words_;
    std::vector<std::size_t> free_places_;
};

}  // namespace stochastic_depth
