// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/analysis/best_subnetworks.hpp>
#include <stochastic_depth/pass/evaluations.hpp>

#include "support/catch.hpp"

namespace stochastic_depth::test {

[[nodiscard]] inline bool equal(const std::vector<Subnetwork>& a,
                                const std::vector<Subnetwork>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const Subnetwork& one, const Subnetwork& other) {
                          return one.mask == other.mask && one.score == other.score &&
                                 one.cost == other.cost;
                      });
}

[[nodiscard]] inline bool equal(const BestSubnetworks& a, const BestSubnetworks& b) {
    return equal(a.by_size, b.by_size) && equal(a.frontier, b.frontier);
}

/// Checks the best of each size and the frontier against every mask that skips at most `most`
/// layers, each passed by itself.
template <class Network, class Score>
void check_best(const BestSubnetworks& best, const Network& network,
                const Matrix<typename Network::Scalar>& x, const Score& score,
                const Eigen::VectorXd& costs, Index most = 62) {
    const Index depth = network.depth();
    const std::vector<Index> enclosing = detail::enclosing_layers(network);
    const auto cost_of = [&](const SurvivalMask& mask) {
        double cost = 0;
        for (Index l = 0; l < depth; ++l)
            if (mask[l]) cost += costs.size() == 0 ? 1.0 : costs(l);
        return cost;
    };
    std::vector<Subnetwork> all;
    for (Index k = 0; k < Index{1} << depth; ++k) {
        const SurvivalMask mask = mask_at(k, depth);
        bool runs = depth - mask.count() <= most;
        for (Index l = 0; l < depth; ++l) {
            const Index around = enclosing[static_cast<std::size_t>(l)];
            runs = runs && !(mask[l] && around >= 0 && !mask[around]);
        }
        if (runs) all.push_back({mask, score(network(x, mask)), cost_of(mask)});
    }
    const auto is_among = [&](const Subnetwork& found) {
        return std::count_if(all.begin(), all.end(), [&](const Subnetwork& each) {
            return each.mask == found.mask && each.score == found.score && each.cost == found.cost;
        });
    };

    Index size = std::max<Index>(0, depth - most);
    for (const Subnetwork& found : best.by_size) {
        CHECK(found.mask.count() == size++);
        CHECK(is_among(found) == 1);
        CHECK(std::none_of(all.begin(), all.end(), [&](const Subnetwork& each) {
            return each.mask.count() == found.mask.count() && each.score > found.score;
        }));
    }
    CHECK(size == depth + 1);

    std::vector<std::pair<double, double>> expected, frontier;
    for (const Subnetwork& each : all)
        if (std::none_of(all.begin(), all.end(), [&](const Subnetwork& other) {
                return other.cost <= each.cost && other.score >= each.score &&
                       (other.cost < each.cost || other.score > each.score);
            }))
            expected.emplace_back(each.cost, each.score);
    std::sort(expected.begin(), expected.end());
    expected.erase(std::unique(expected.begin(), expected.end()), expected.end());
    for (const Subnetwork& found : best.frontier) {
        frontier.emplace_back(found.cost, found.score);
        CHECK(is_among(found) == 1);
    }
    CHECK(frontier == expected);
}

}  // namespace stochastic_depth::test
