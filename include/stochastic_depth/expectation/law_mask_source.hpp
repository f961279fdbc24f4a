// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/mask_sample.hpp>
#include <stochastic_depth/survival/law_mask_sampler.hpp>

namespace stochastic_depth::detail {

/// Draws masks of a law for a network: what MaskSource is for independent layers, with masks that
/// are independent of each other.
template <MaskLaw Law>
class LawMaskSource {
public:
    LawMaskSource(const Law& law, std::vector<Index> enclosing, std::uint64_t seed)
        : sampler_(law, seed), enclosing_(std::move(enclosing)) {}

    [[nodiscard]] Index rounded(Index samples) const { return samples; }
    /// The fewest masks that tell a standard error.
    [[nodiscard]] Index fewest() const { return 2; }
    [[nodiscard]] Index groups_of(Index samples) const { return samples; }

    /// \param first  Masks that are drawn already.
    [[nodiscard]] SortedMasks draw(Index first, Index samples) const {
        SurvivalMasks masks(sampler_.depth(), samples);
        sampler_.sample(0, first, masks);
        return SortedMasks(enclosing_, masks);
    }

    [[nodiscard]] MaskSample sample(Index first, Index samples) const {
        MaskSample result{samples, draw(first, samples), {1.0}, {}};
        const double share = 1 / static_cast<double>(samples);
        result.weights.set_mean(std::vector<double>(static_cast<std::size_t>(samples), share));
        result.weights.set_basis(MaskBasis(Eigen::MatrixXd(samples, 0), 0, 0, {}));
        return result;
    }

private:
    LawMaskSampler<Law> sampler_;
    std::vector<Index> enclosing_;
};

}  // namespace stochastic_depth::detail
