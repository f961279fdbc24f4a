// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/folds.hpp>

/// How many evaluations of skippable layers something takes. Layers inside a skipped one don't run,
/// whatever the mask says of them.
namespace stochastic_depth::detail {

/// Writes for each skippable layer of a network, in order of depth, the index of the innermost
/// skippable layer around it; -1 where there is none.
template <class Network>
void list_enclosing_layers(const Network& network, Index* to) {
    Index next = 0;
    write_enclosing_layers(network, to, next, -1);
}

template <class Network>
[[nodiscard]] std::vector<Index> enclosing_layers(const Network& network) {
    std::vector<Index> enclosing(static_cast<std::size_t>(depth(network)));
    list_enclosing_layers(network, enclosing.data());
    return enclosing;
}

/// Of a mask of up to 62 layers, bit l for layer l, the layers that run: those inside a skipped one
/// don't.
[[nodiscard]] inline Index layers_that_run(Index mask, const std::vector<Index>& enclosing) {
    for (std::size_t l = 0; l < enclosing.size(); ++l)
        if (enclosing[l] >= 0 && !((mask >> enclosing[l]) & 1)) mask &= ~(Index{1} << l);
    return mask;
}

/// As `evaluations_of_tree`, for layers with these layers around them.
[[nodiscard]] inline double evaluations_of_layers(const Index* enclosing,
                                                  const Eigen::Ref<const Eigen::VectorXd>& p) {
    // Prefixes that skip layer l, which go on after the layers inside it.
    const ScratchArray<double> waiting(p.size());
    double prefixes = 1;
    double evaluations = 0;
    Index innermost = -1;
    for (Index l = 0; l < p.size(); ++l) {
        for (; innermost != enclosing[l]; innermost = enclosing[innermost])
            prefixes += waiting[innermost];
        evaluations += prefixes;
        innermost = l;
        waiting[l] = p(l) == 1.0 ? 0.0 : prefixes;
    }
    return evaluations;
}

/// Evaluations that the tree of mask prefixes makes for each column, where a layer with p_l = 1
/// does not branch: 2^L - 1 if all of L layers do.
template <class Network>
[[nodiscard]] double evaluations_of_tree(const Network& network,
                                         const Eigen::Ref<const Eigen::VectorXd>& p) {
    const ScratchArray<Index> enclosing(p.size());
    list_enclosing_layers(network, enclosing.data());
    return evaluations_of_layers(enclosing.data(), p);
}

/// The same where every layer branches, those with p_l = 1 too.
template <class Network>
[[nodiscard]] double evaluations_of_whole_tree(const Network& network) {
    return evaluations_of_tree(network, Eigen::VectorXd::Constant(network.depth(), 0.5));
}

/// Counts the evaluations under one mask for each sample.
class EvaluationsUnderMasks {
public:
    template <class Network>
    explicit EvaluationsUnderMasks(const Network& network)
        : enclosing_(enclosing_layers(network)) {}

    /// The mean over masks, for one sample: the sum of the probabilities that a layer is reached and
    /// kept.
    [[nodiscard]] double expected(const Eigen::Ref<const Eigen::VectorXd>& p) const {
        const ScratchArray<double> runs(p.size());
        double sum = 0;
        for (Index l = 0; l < p.size(); ++l) {
            const Index around = enclosing_[static_cast<std::size_t>(l)];
            runs[l] = (around < 0 ? 1 : runs[around]) * p(l);
            sum += runs[l];
        }
        return sum;
    }

    /// \param masks  SurvivalMasks of the network's depth.
    template <class Masks>
    [[nodiscard]] double operator()(const Masks& masks) {
        if (enclosing_.empty()) return 0;
        const std::size_t words = masks.words(0).size();
        reached_.resize(enclosing_.size() * words);
        double count = 0;
        for (std::size_t l = 0; l < enclosing_.size(); ++l) {
            const auto kept = masks.words(static_cast<Index>(l));
            for (std::size_t w = 0; w < words; ++w) {
                std::uint64_t& reached = reached_[l * words + w];
                reached = kept[w];
                if (enclosing_[l] >= 0)
                    reached &= reached_[static_cast<std::size_t>(enclosing_[l]) * words + w];
                count += std::popcount(reached);
            }
        }
        return count;
    }

private:
    std::vector<Index> enclosing_;
    /// Samples that reach each layer and keep it, as words of bits, layer by layer.
    std::vector<std::uint64_t> reached_;
};

}  // namespace stochastic_depth::detail
