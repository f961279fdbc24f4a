// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/numerics/sort_by_key.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/lattice_generator.hpp>
#include <stochastic_depth/survival/mask_design.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>

namespace stochastic_depth {

/// Draws survival masks in groups of a design. Masks of different groups are independent.
///
/// A mask bit is a pure function of (p, seed, design, group size, group, sample, layer). P(s_l = 1)
/// is p_l to within 2^-52; exactly p_l for independent masks. Layers with p = 1 are always kept.
///
/// \source McKay, Beckman & Conover 1979 for Latin hypercubes.
class DesignedMaskSampler {
public:
    /// Changes whenever the masks of a design other than `independent` change.
    static constexpr std::uint32_t stream_version = 1;

    /// \param p           Survival probabilities p_1, ..., p_L, each in (0, 1].
    /// \param seed        Any value. Different seeds give independent masks.
    /// \param group_size  Masks in a group, in [1, 2^32); even for antithetic masks.
    /// \throws std::invalid_argument  outside these ranges.
    DesignedMaskSampler(Eigen::VectorXd p, std::uint64_t seed, MaskDesign design, Index group_size)
        : independent_{std::move(p), seed},
          design_{design},
          group_size_{group_size},
          key_{detail::stream_key(seed, detail::StreamPurpose::mask_design, stream_version)} {
        if (!(group_size >= 1 && static_cast<std::uint64_t>(group_size) >> 32 == 0))
            detail::refuse("DesignedMaskSampler: group size must lie in [1, 2^32), got ",
                           group_size);
        if (design == MaskDesign::antithetic && group_size % 2 != 0)
            detail::refuse("DesignedMaskSampler: group size of antithetic masks must be even, got ",
                           group_size);
        if (design == MaskDesign::lattice)
            generator_ = detail::lattice_generator(survival_probabilities(), group_size);
    }

    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const {
        return independent_.survival_probabilities();
    }
    [[nodiscard]] Index depth() const { return independent_.depth(); }
    [[nodiscard]] Index group_size() const { return group_size_; }

    /// Masks of groups first_group, first_group + 1, ...: whole groups, one after the other.
    /// Independent masks are those of samples first_group group_size, ... of step 0 of
    /// MaskSampler{p, seed}.
    /// \param first_group  At least 0.
    /// \param masks        Of depth() layers and a multiple of group_size() samples.
    /// \throws std::invalid_argument  outside these ranges.
    void sample(Index first_group, SurvivalMasks& masks) const {
        if (first_group < 0)
            detail::refuse("DesignedMaskSampler: first group must be at least 0, got ",
                           first_group);
        if (masks.batch_size() % group_size_ != 0)
            detail::refuse("DesignedMaskSampler: number of masks must be a multiple of ",
                           group_size_, ", got ", masks.batch_size());
        if (design_ == MaskDesign::independent)
            return independent_.sample(0, first_group * group_size_, masks);
        if (masks.depth() != depth())
            detail::refuse("DesignedMaskSampler: masks must have ", depth(), " layers, got ",
                           masks.depth());
        std::vector<double> u(static_cast<std::size_t>(group_size_));
        std::vector<std::uint64_t> words;
        for (Index l = 0; l < depth(); ++l) {
            const double p = survival_probabilities()(l);
            words.assign(masks.words(l).size(), 0);
            for (Index first = 0; first < masks.batch_size(); first += group_size_) {
                if (p < 1.0)
                    draw(l, static_cast<std::uint64_t>(first_group + first / group_size_), u);
                for (Index i = 0; i < group_size_; ++i) {
                    const auto at = static_cast<std::size_t>(first + i);
                    if (p == 1.0 || u[static_cast<std::size_t>(i)] < p)
                        words[at / 64] |= std::uint64_t{1} << at % 64;
                }
            }
            for (std::size_t w = 0; w < words.size(); ++w) masks.set_word(l, w, words[w]);
        }
    }

private:
    struct Draw {
        /// A multiple of 2^-53, uniform on [0, 1).
        double u;
        std::uint64_t key;
    };

    [[nodiscard]] Draw random(Index layer, std::uint64_t group, std::size_t sample) const {
        const auto block = philox4x32_10(
            {static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(sample),
             static_cast<std::uint32_t>(group), static_cast<std::uint32_t>(group >> 32)},
            key_);
        return {static_cast<double>((std::uint64_t{block[0]} << 32 | block[1]) >> 11) * 0x1p-53,
                std::uint64_t{block[2]} << 32 | block[3]};
    }

    /// The numbers u of a layer in a group: the masks with u < p keep it.
    void draw(Index layer, std::uint64_t group, std::vector<double>& u) const {
        const std::size_t size = u.size();
        const auto points = static_cast<double>(group_size_);
        if (design_ == MaskDesign::antithetic) {
            for (std::size_t i = 0; i < size; i += 2) {
                u[i] = random(layer, group, i).u;
                u[i + 1] = (1 - 0x1p-53) - u[i];
            }
        } else if (design_ == MaskDesign::stratified) {
            std::vector<detail::KeyedNumber> order(size);
            for (std::size_t i = 0; i < size; ++i) {
                const Draw drawn = random(layer, group, i);
                u[i] = drawn.u;
                order[i] = {drawn.key, i};
            }
            detail::sort_by_key(order);
            for (std::size_t rank = 0; rank < size; ++rank) {
                double& place = u[order[rank].second];
                place = (static_cast<double>(rank) + place) / points;
            }
        } else {
            const double shift = random(layer, group, 0).u;
            const auto step = static_cast<std::size_t>(generator_[static_cast<std::size_t>(layer)]);
            for (std::size_t i = 0, at = 0; i < size; ++i, at = (at + step) % size) {
                const double sum = static_cast<double>(at) / points + shift;
                u[i] = sum < 1 ? sum : sum - 1;
            }
        }
    }

    MaskSampler independent_;
    MaskDesign design_;
    Index group_size_;
    std::array<std::uint32_t, 2> key_;
    std::vector<Index> generator_;
};

}  // namespace stochastic_depth
