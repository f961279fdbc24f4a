// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/analysis/lesion_study.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/training/dataset.hpp>

namespace reproduction {

namespace sd = stochastic_depth;

/// Errors of a trained network with 0, 1, ..., L of its blocks removed.
struct Lesions {
    std::vector<std::vector<double>> random;  ///< for each order, that of the blocks that go
    std::vector<double> last;                 ///< the last blocks go first
};

/// \param orders  Random orders, functions of the seed.
/// \source Veit et al. 2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks.
template <class Network>
[[nodiscard]] Lesions lesions(const Network& network, const sd::Dataset<float>& test,
                              std::uint64_t orders, std::uint64_t seed, unsigned threads) {
    const auto minus_error = [&](const sd::Matrix<float>& scores) {
        return -sd::error_rate(scores, test.labels());
    };
    // curve(k) is what the first k blocks of the ranking come to.
    const auto errors = [&](std::vector<sd::Index> ranking) {
        const Eigen::VectorXd curve =
            -sd::lesion_study(network, test.inputs(), minus_error,
                              {.ranking = std::move(ranking), .threads = threads})
                 .curve.reverse();
        return std::vector<double>(curve.begin(), curve.end());
    };
    std::vector<sd::Index> in_order(static_cast<std::size_t>(network.depth()));
    std::iota(in_order.begin(), in_order.end(), sd::Index{0});
    Lesions result;
    result.last = errors(in_order);
    for (std::uint64_t k = 0; k < orders; ++k) {
        sd::Philox random{seed};
        random.discard(k << 32);
        std::shuffle(in_order.begin(), in_order.end(), random);
        result.random.push_back(errors(in_order));
    }
    return result;
}

}  // namespace reproduction
