// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Given masks with weights: an ensemble of chosen sub-networks. All others have probability 0.
///
/// \complexity  At most one node for each layer of each mask.
class MaskListLaw {
public:
    /// \param masks    At least one, all of one size; one that is there twice counts twice.
    /// \param weights  One for each mask, finite and at least 0, not all 0; they are divided by
    ///                 their sum.
    /// \throws std::invalid_argument  otherwise.
    MaskListLaw(const std::vector<SurvivalMask>& masks, const Eigen::VectorXd& weights) {
        if (masks.empty()) detail::refuse("MaskListLaw: masks must not be empty, got 0 masks");
        if (weights.size() != static_cast<Index>(masks.size()))
            detail::refuse("MaskListLaw: weights must be ", masks.size(), ", got ", weights.size());
        detail::check_weights("MaskListLaw", weights);
        depth_ = masks.front().size();
        for (std::size_t k = 0; k < masks.size(); ++k) {
            if (masks[k].size() != depth_)
                detail::refuse("MaskListLaw: mask ", k, " must have ", depth_, " layers, got ",
                               masks[k].size());
            if (weights(static_cast<Index>(k)) > 0) add(masks[k], weights(static_cast<Index>(k)));
        }
    }

    [[nodiscard]] Index depth() const { return depth_; }
    /// The place of the bits before among those of all masks.
    [[nodiscard]] std::size_t start() const { return root; }
    [[nodiscard]] double survival_probability(Index, std::size_t node) const {
        const double kept = nodes_[nodes_[node].kept].weight;
        const double skipped = nodes_[nodes_[node].skipped].weight;
        return kept == 0 ? 0 : kept / (kept + skipped);
    }
    [[nodiscard]] std::size_t next(Index, std::size_t node, bool kept) const {
        return kept ? nodes_[node].kept : nodes_[node].skipped;
    }

private:
    /// Bits that no mask has; all that follow them as well.
    static constexpr std::size_t nowhere = 0;
    static constexpr std::size_t root = 1;

    struct Node {
        double weight = 0;
        std::size_t kept = nowhere;
        std::size_t skipped = nowhere;
    };

    void add(const SurvivalMask& mask, double weight) {
        std::size_t node = root;
        for (Index l = 0; l < depth_; ++l) {
            std::size_t child = mask[l] ? nodes_[node].kept : nodes_[node].skipped;
            if (child == nowhere) {
                child = nodes_.size();
                (mask[l] ? nodes_[node].kept : nodes_[node].skipped) = child;
                nodes_.emplace_back();
            }
            nodes_[child].weight += weight;
            node = child;
        }
    }

    Index depth_ = 0;
    std::vector<Node> nodes_{Node{}, Node{}};
};

}  // namespace stochastic_depth
