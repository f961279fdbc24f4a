// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Which skippable layers some sample of a step keeps, and which some sample skips, where it gets
/// there: known from the masks alone, before anything is computed.
class ReachedBySome {
public:
    template <class Network>
    explicit ReachedBySome(const Network& network) : enclosing_(enclosing_layers(network)) {
        const std::size_t depth = enclosing_.size();
        kept_.resize(depth);
        skipped_.resize(depth);
        behind_.resize(depth);
        for (std::size_t l = 0; l < depth; ++l) {
            std::size_t next = l + 1;
            while (next < depth && enclosing_[next] >= static_cast<Index>(l)) ++next;
            behind_[l] = static_cast<Index>(next);
        }
    }

    /// Of one mask for so many samples.
    void take(const SurvivalMask& mask, Index samples) {
        for (std::size_t l = 0; l < kept_.size(); ++l) {
            const Index around = enclosing_[l];
            const bool gets_there =
                samples > 0 && (around < 0 || kept_[static_cast<std::size_t>(around)] != 0);
            const bool keeps = mask[static_cast<Index>(l)];
            kept_[l] = gets_there && keeps;
            skipped_[l] = gets_there && !keeps;
        }
    }
    /// Of one mask for each sample.
    void take(const SurvivalMasks& masks, Index samples) {
        if (kept_.empty()) return;
        const std::size_t words = masks.words(0).size();
        there_.resize(kept_.size() * words);
        for (std::size_t l = 0; l < kept_.size(); ++l) {
            const auto kept = masks.words(static_cast<Index>(l));
            const Index around = enclosing_[l];
            Index get_there = around < 0 ? samples : 0, keep = 0;
            for (std::size_t w = 0; w < words; ++w) {
                std::uint64_t there = kept[w];
                if (around >= 0) {
                    const std::uint64_t outside =
                        there_[static_cast<std::size_t>(around) * words + w];
                    there &= outside;
                    get_there += std::popcount(outside);
                }
                there_[l * words + w] = there;
                keep += std::popcount(there);
            }
            kept_[l] = keep > 0;
            skipped_[l] = get_there > keep;
        }
    }

    [[nodiscard]] Index depth() const { return static_cast<Index>(kept_.size()); }
    [[nodiscard]] bool keeps(Index l) const { return kept_[static_cast<std::size_t>(l)] != 0; }
    [[nodiscard]] bool skips(Index l) const { return skipped_[static_cast<std::size_t>(l)] != 0; }
    /// The layer behind l and those inside it.
    [[nodiscard]] Index behind(Index l) const { return behind_[static_cast<std::size_t>(l)]; }

private:
    std::vector<Index> enclosing_, behind_;
    std::vector<unsigned char> kept_, skipped_;
    /// Samples that get to each layer and keep it, as words of bits, layer by layer.
    std::vector<std::uint64_t> there_;
};

/// A skippable layer that a visitor is in, and its gradient's flags before.
struct EnteredLayer {
    Index layer;
    bool reached, shortcut_reached;
};

/// A visitor of parameters, for which a gradient counts as reached what some sample of the step
/// reaches, whatever it holds already. Afterwards the gradient's flags say so, too.
///
/// Calls numbers(slope) for each matrix of the gradient, and passes(flag) when it leaves a skippable
/// layer that is in no other one and that some sample keeps or skips, the flag being its gradient's
/// `reached`.
template <class Numbers, class Passes>
class VisitReachedBySome {
public:
    /// \param room  For the layers that it is in: memory that is used again.
    VisitReachedBySome(const ReachedBySome& reached, const Numbers& numbers, const Passes& passes,
                       std::vector<EnteredLayer>& room)
        : reached_(reached), numbers_(numbers), passes_(passes), inside_(room) {
        inside_.clear();
    }

    void enter_skippable(bool& reached, bool& shortcut_reached) const {
        if (next_ >= reached_.depth())
            refuse("TrainingStep: network must name its skippable layers once each, got more than ",
                   reached_.depth());
        inside_.push_back({next_, reached, shortcut_reached});
        reached = reached_.keeps(next_);
        shortcut_reached = reached_.skips(next_);
        ++next_;
    }
    void leave_skippable(bool& reached, bool& shortcut_reached) const {
        const EnteredLayer before = inside_.back();
        inside_.pop_back();
        next_ = reached_.behind(before.layer);
        if (inside_.empty()) passes_(reached);
        reached = reached || before.reached;
        shortcut_reached = shortcut_reached || before.shortcut_reached;
    }
    template <class Parameter, class Slope>
    void operator()(const char*, const Parameter&, Slope& slope) const {
        numbers_(slope, !inside_.empty());
    }

    /// Skippable layers that were come to.
    [[nodiscard]] Index layers() const { return next_; }

private:
    const ReachedBySome& reached_;
    const Numbers& numbers_;
    const Passes& passes_;
    std::vector<EnteredLayer>& inside_;
    // A layer may hand a visitor on as one that is const.
    mutable Index next_ = 0;
};

}  // namespace stochastic_depth::detail
