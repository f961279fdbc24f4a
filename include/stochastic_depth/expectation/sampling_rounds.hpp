// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The rounds in which an estimate draws its masks, within its limits.
struct SamplingRounds {
    /// The most masks.
    Index samples;
    /// Whether the estimate may end between rounds: they double then; else there is one.
    bool several;
    /// For each column.
    double max_layer_evaluations;

    struct Round {
        Index samples;
        bool is_last;
    };

    /// How many masks come next, 0 for none; as many as the budget of layer evaluations allows.
    /// \param source       A MaskSource, or a LawMaskSource.
    /// \param done         Masks so far.
    /// \param drawn        Groups so far.
    /// \param evaluations  Layer evaluations so far.
    template <class Source>
    [[nodiscard]] Round next(const Source& source, Index done, Index drawn,
                             double evaluations) const {
        const Index left = samples - done;
        const Index fewest = std::min(source.fewest(), source.rounded(samples));
        const Index least = std::max(fewest, std::min(first_round, left));
        Index count = left;
        const Index doubling = std::max(done, least);
        if (several && left - doubling >= least) count = doubling;
        if (done > 0 && left < least) return {0, true};
        count = source.rounded(count);
        const double budget = max_layer_evaluations - evaluations;
        const Round whole{count, count + done + least > samples};
        if (budget == std::numeric_limits<double>::infinity()) return whole;
        const auto fits = [&](Index some) {
            return source.draw(drawn, some).layer_evaluations() <= budget;
        };
        if (!fits(fewest)) return {done > 0 ? 0 : fewest, true};
        const Index fitting = most_that_fit(source, fewest, count, fits);
        return fitting == count ? whole : Round{fitting, true};
    }

private:
    /// Masks of the first round, if there are several.
    static constexpr Index first_round = 64;

    /// Doubled until they are too many, then halved between: the search costs little more than the
    /// last draw, and leaves less than a hundredth unused.
    template <class Source, class Fits>
    [[nodiscard]] static Index most_that_fit(const Source& source, Index fewest, Index most,
                                             const Fits& fits) {
        Index fitting = fewest, too_many = most;
        for (Index more = 2 * fewest; fitting < most; more *= 2) {
            const Index count = source.rounded(std::min(more, most));
            if (!fits(count)) {
                too_many = count;
                break;
            }
            fitting = count;
        }
        if (fitting == most) return most;
        while (too_many - fitting > fitting / 128) {
            const Index middle = source.rounded(fitting + (too_many - fitting) / 2);
            if (middle <= fitting) break;
            (fits(middle) ? fitting : too_many) = middle;
        }
        return fitting;
    }
};

}  // namespace stochastic_depth::detail
