// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/survival/depth_mixture_law.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/layer_count_law.hpp>
#include <stochastic_depth/survival/markov_law.hpp>
#include <stochastic_depth/survival/mask_list_law.hpp>

namespace stochastic_depth::test {

/// A law that the library does not know: a layer is the likelier kept the fewer of the two before
/// it are, and the third of three skipped ones in a row is not.
class TwoBackLaw {
public:
    struct State {
        int last = 1, second_last = 1;
        friend auto operator<=>(const State&, const State&) = default;
    };

    explicit TwoBackLaw(Index depth) : depth_(depth) {}
    Index depth() const { return depth_; }
    State start() const { return {}; }
    double survival_probability(Index layer, const State& before) const {
        if (before.last + before.second_last == 0) return 1;
        return 0.8 - 0.3 * before.last - 0.1 * before.second_last -
               0.2 / static_cast<double>(layer + 1);
    }
    State next(Index, const State& before, bool kept) const { return {kept ? 1 : 0, before.last}; }

private:
    Index depth_;
};

[[nodiscard]] inline Eigen::VectorXd random_probabilities(Philox& random, Index size) {
    Eigen::VectorXd p(size);
    for (Index l = 0; l < size; ++l) p(l) = 1 - 0.999 * uniform<double>(random);
    return p;
}

/// Every one of 2^L masks, the last layer changing fastest.
[[nodiscard]] inline std::vector<SurvivalMask> all_masks(Index depth) {
    std::vector<SurvivalMask> masks;
    for (std::uint64_t skipped = 0; skipped < std::uint64_t{1} << depth; ++skipped) {
        SurvivalMask mask = SurvivalMask::all(depth);
        for (Index l = 0; l < depth; ++l)
            if ((skipped >> (depth - 1 - l)) & 1u) mask.skip(l);
        masks.push_back(mask);
    }
    return masks;
}

/// Calls check(law) with a random law of each kind; some bits of some laws are certain.
template <class Check>
void for_each_law(Philox& random, Index depth, const Check& check) {
    const auto below = [&](Index bound) {
        return static_cast<Index>(uniform<double>(random) * static_cast<double>(bound));
    };
    check(IndependentLaw{random_probabilities(random, depth)});
    Eigen::VectorXd after_skipped = random_probabilities(random, depth);
    if (depth > 0) after_skipped(below(depth)) = static_cast<double>(below(2));
    check(MarkovLaw{random_probabilities(random, depth), after_skipped});
    const Index most = below(depth + 1), fewest = below(most + 1);
    check(LayerCountLaw{random_probabilities(random, depth), fewest, most});
    check(LayerCountLaw::exactly(depth, most));
    Eigen::VectorXd weights = random_probabilities(random, depth + 1);
    if (depth > 1) weights(below(depth)) = 0;
    check(DepthMixtureLaw{weights});
    std::vector<SurvivalMask> masks;
    for (int k = 0; k < 5; ++k) {
        SurvivalMask mask = SurvivalMask::none(depth);
        for (Index l = 0; l < depth; ++l)
            if (below(2) == 1) mask.keep(l);
        masks.push_back(mask);
    }
    check(MaskListLaw{masks, random_probabilities(random, 5)});
    check(TwoBackLaw{depth});
}

}  // namespace stochastic_depth::test
