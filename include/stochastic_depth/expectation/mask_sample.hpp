// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/control_variates.hpp>
#include <stochastic_depth/expectation/sample_weights.hpp>
#include <stochastic_depth/expectation/sorted_masks.hpp>
#include <stochastic_depth/survival/designed_mask_sampler.hpp>

namespace stochastic_depth::detail {

/// How masks are drawn, and what their outputs make.
struct SampleDesign {
    MaskDesign design = MaskDesign::independent;
    /// Independent groups of a stratified or lattice design.
    Index groups = 1;
    Index enumerated_layers = 0;
    ControlVariates control_variates = ControlVariates::none;
    std::uint64_t seed = 0;
};

/// Some sampled masks, ready to be evaluated.
struct MaskSample {
    /// Masks that were drawn.
    Index samples;
    /// Those to evaluate.
    SortedMasks masks;
    /// An item is a weighted mean of the outputs under masks.place(i terms), ..., one for each
    /// weight.
    std::vector<double> terms;
    SampleWeights weights;
};

/// Draws masks for a network.
class MaskSource {
public:
    MaskSource(Eigen::VectorXd p, std::vector<Index> enclosing, const SampleDesign& design)
        : p_(std::move(p)),
          enclosing_(std::move(enclosing)),
          design_(design),
          layers_(layers_by_variance(p_)) {
        const auto enumerated =
            std::min(static_cast<std::size_t>(design.enumerated_layers), layers_.size());
        const auto end = layers_.begin() + static_cast<std::ptrdiff_t>(enumerated);
        enumerated_.assign(layers_.begin(), end);
        layers_.erase(layers_.begin(), end);
        // The sampler keeps them always; combinations of them take the place of its bits.
        for (const Index l : enumerated_) {
            skipped_.push_back(1 - p_(l));
            p_(l) = 1;
        }
    }

    /// Masks that a group has if a sample of about `samples` masks is drawn.
    [[nodiscard]] Index group_size(Index samples) const {
        if (design_.design == MaskDesign::independent) return 1;
        if (design_.design == MaskDesign::antithetic) return 2;
        return std::max<Index>(1, samples / design_.groups);
    }

    /// The largest number of masks, up to `samples`, that fills whole groups.
    [[nodiscard]] Index rounded(Index samples) const {
        const Index size = group_size(samples);
        return in_groups() ? size * design_.groups : samples / size * size;
    }

    /// The fewest masks that tell a standard error.
    [[nodiscard]] Index fewest() const {
        return in_groups() ? std::max<Index>(2, design_.groups) : 2 * group_size(2);
    }

    /// \param first    Groups that are drawn already.
    /// \param samples  As `rounded` gives it.
    [[nodiscard]] SortedMasks draw(Index first, Index samples) const {
        return SortedMasks(enclosing_, expanded(drawn(first, samples)));
    }

    /// The groups that a sample of `samples` masks uses up.
    [[nodiscard]] Index groups_of(Index samples) const {
        return in_groups() ? design_.groups : samples / group_size(samples);
    }

    [[nodiscard]] MaskSample sample(Index first, Index samples) const {
        const SurvivalMasks masks = drawn(first, samples);
        MaskSample result{samples, SortedMasks(enclosing_, expanded(masks)), {}, {}};
        const bool single = in_groups() && (design_.groups == 1 || regresses());
        const Index item = single ? 1 : group_size(samples);
        for (Index k = 0; k < item; ++k)
            for (std::size_t c = 0; c < combinations(); ++c)
                result.terms.push_back(probability_of(c) / static_cast<double>(item));
        weigh(result.weights, centred_bits(masks, item), single);
        return result;
    }

private:
    [[nodiscard]] bool in_groups() const {
        return design_.design == MaskDesign::stratified || design_.design == MaskDesign::lattice;
    }

    [[nodiscard]] std::size_t combinations() const { return std::size_t{1} << enumerated_.size(); }

    /// Bit b of a combination skips the enumerated layer b.
    [[nodiscard]] double probability_of(std::size_t combination) const {
        double product = 1;
        for (std::size_t b = 0; b < enumerated_.size(); ++b)
            product *= (combination >> b & 1u) != 0 ? skipped_[b] : 1 - skipped_[b];
        return product;
    }

    [[nodiscard]] SurvivalMasks drawn(Index first, Index samples) const {
        SurvivalMasks masks(p_.size(), samples);
        DesignedMaskSampler(p_, design_.seed, design_.design, group_size(samples))
            .sample(first, masks);
        return masks;
    }

    /// Each mask under every combination of the enumerated layers.
    [[nodiscard]] SurvivalMasks expanded(SurvivalMasks masks) const {
        if (enumerated_.empty()) return masks;
        const auto count = static_cast<Index>(combinations());
        SurvivalMasks result(masks.depth(), masks.batch_size() * count);
        for (Index l = 0; l < masks.depth(); ++l) {
            const auto b =
                std::find(enumerated_.begin(), enumerated_.end(), l) - enumerated_.begin();
            const bool enumerated = b < static_cast<std::ptrdiff_t>(enumerated_.size());
            for (Index j = 0; j < result.batch_size(); ++j)
                if (enumerated ? (j % count >> b & 1) == 0 : masks(l, j / count)) result.keep(l, j);
        }
        return result;
    }

    /// Means of s_l - p_l over the masks of each item, [items x sampled layers].
    [[nodiscard]] Eigen::MatrixXd centred_bits(const SurvivalMasks& masks, Index item) const {
        Eigen::MatrixXd bits(masks.batch_size() / item, static_cast<Index>(layers_.size()));
        for (Index c = 0; c < bits.cols(); ++c) {
            const Index l = layers_[static_cast<std::size_t>(c)];
            for (Index i = 0; i < bits.rows(); ++i) {
                double kept = 0;
                for (Index k = 0; k < item; ++k) kept += masks(l, i * item + k) ? 1 : 0;
                bits(i, c) = kept / static_cast<double>(item) - p_(l);
            }
        }
        return bits;
    }

    [[nodiscard]] bool regresses() const {
        return design_.control_variates == ControlVariates::mask_bits;
    }

    /// The first columns, which are the layers that vary most, as far as they vary often enough:
    /// `least` is the least value of items p (1 - p). A slope that a few masks decide would hide
    /// their share of the error.
    [[nodiscard]] Index columns_to_fit(Index items, double least) const {
        Index count = 0;
        for (const Index l : layers_)
            if (static_cast<double>(items) * p_(l) * (1 - p_(l)) >= least) ++count;
        return std::clamp<Index>((items - 2) / 2, 0, count);
    }

    /// By hand, as a matrix made of a block is more of Eigen to compile.
    [[nodiscard]] static Eigen::MatrixXd first_columns(const Eigen::MatrixXd& from, Index count) {
        Eigen::MatrixXd columns(from.rows(), count);
        std::copy_n(from.data(), columns.size(), columns.data());
        return columns;
    }

    /// \param single  Whether masks of one group are items of their own.
    void weigh(SampleWeights& weights, const Eigen::MatrixXd& bits, bool single) const {
        const Index items = bits.rows();
        const auto set_basis = [&](Index columns) {
            weights.set_basis(MaskBasis(first_columns(bits, columns), 0, 0,
                                        std::vector<double>(static_cast<std::size_t>(columns))));
        };
        if (!regresses()) {
            weights.set_mean(std::vector<double>(static_cast<std::size_t>(items),
                                                 1 / static_cast<double>(items)));
            // Within a group the variance that single layers make is gone: what a fit of them
            // leaves counts.
            return set_basis(single ? columns_to_fit(items, often) : 0);
        }
        // Folds that are independent of each other: groups, or tenths of the sample.
        const Index fold = single ? items / design_.groups : std::max<Index>(1, items / 10);
        // A single group corrects itself, by little: more layers do no harm.
        const Index corrected =
            fold == items ? columns_to_fit(items, 1.5) : columns_to_fit(items - fold, often);
        auto means = corrected_means(first_columns(bits, corrected), fold);
        weights.set_mean(pooled(means, fold));
        if (design_.design == MaskDesign::lattice && design_.groups > 1)
            weights.set_replicates(std::move(means));
        else
            set_basis(single ? columns_to_fit(items, often) : corrected);
    }

    static constexpr double often = 5;

    Eigen::VectorXd p_;
    std::vector<Index> enclosing_;
    SampleDesign design_;
    /// Sampled layers with p < 1, the largest variance first.
    std::vector<Index> layers_;
    std::vector<Index> enumerated_;
    /// 1 - p of the enumerated layers.
    std::vector<double> skipped_;
};

}  // namespace stochastic_depth::detail
