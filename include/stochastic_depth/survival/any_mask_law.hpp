// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/law_mask_sampler.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

namespace stochastic_depth {
namespace detail {

/// What draws the masks of a law: for independent ones the sampler that they always have.
template <MaskLaw Law>
[[nodiscard]] auto sampler_of(const Law& law, std::uint64_t seed) {
    if constexpr (std::is_same_v<Law, IndependentLaw>)
        return MaskSampler(law.survival_probabilities(), seed);
    else
        return LawMaskSampler<Law>(law, seed);
}

/// A law whose type nobody needs to know any more, and what draws its masks.
struct ErasedLaw {
    Eigen::VectorXd marginals;
    std::function<double(const SurvivalMask&)> probability_of_keeping;
    std::function<void(std::uint64_t, SurvivalMask&)> sample_one;
    std::function<void(std::uint64_t, SurvivalMasks&)> sample_each;
};

}  // namespace detail

/// A law of masks of any type, as the options of a training hold it, or none.
class AnyMaskLaw {
public:
    /// None: masks are independent, with the network's survival probabilities.
    AnyMaskLaw() = default;

    template <class Law>
        requires(!std::same_as<Law, AnyMaskLaw>)
    &&MaskLaw<Law> AnyMaskLaw(Law law)
        : erase_([law = std::move(law)](std::uint64_t seed) -> detail::ErasedLaw {
              const auto sampler = std::make_shared<const decltype(detail::sampler_of(law, seed))>(
                  detail::sampler_of(law, seed));
              return {marginal_survival_probabilities(law),
                      [law](const SurvivalMask& layers) {
                          return detail::probability_of_keeping(law, layers);
                      },
                      [sampler](std::uint64_t step, SurvivalMask& mask) {
                          sampler->sample(step, mask);
                      },
                      [sampler](std::uint64_t step, SurvivalMasks& masks) {
                          sampler->sample(step, masks);
                      }};
          }) {}

    /// Whether there is a law.
    [[nodiscard]] explicit operator bool() const { return erase_ != nullptr; }

    /// The law, with masks of this seed; there must be one.
    [[nodiscard]] detail::ErasedLaw with_seed(std::uint64_t seed) const { return erase_(seed); }

private:
    std::function<detail::ErasedLaw(std::uint64_t)> erase_;
};

}  // namespace stochastic_depth
