// SPDX-License-Identifier: MIT
#include "depth.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <limits>
#include <map>

#include <stochastic_depth/analysis/best_subnetworks.hpp>
#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/text/length_blocks.hpp>
#include <stochastic_depth/training/assign_parameters.hpp>
#include <stochastic_depth/training/parameters.hpp>
#include <stochastic_depth/without_layers.hpp>

namespace text_study {
namespace {

/// What every mask comes to on some texts, [2^L] each.
struct MaskTable {
    Eigen::VectorXd error, negative_log_likelihood;
};

[[nodiscard]] MaskTable tabulate(const common::TextNetwork& network,
                                 const sd::Dataset<float>& texts, unsigned threads) {
    const sd::Index masks = sd::Index{1} << network.depth(), classes = texts.classes();
    MaskTable table{Eigen::VectorXd::Zero(masks), Eigen::VectorXd::Zero(masks)};
    const double share = 1.0 / static_cast<double>(texts.size());
    for (const auto& block : sd::length_blocks(texts.inputs(), 96)) {
        const sd::Matrix<double> outputs =
            sd::mask_outputs(network, block.inputs, {.threads = threads});
        for (sd::Index j = 0; j < block.inputs.cols(); ++j) {
            const int label = texts.labels()(block.samples[static_cast<std::size_t>(j)]);
            for (sd::Index mask = 0; mask < masks; ++mask) {
                const auto scores = outputs.row(mask).segment(j * classes, classes);
                sd::Index top = 0;
                const double highest = scores.maxCoeff(&top);
                table.error(mask) += top == label ? 0.0 : share;
                table.negative_log_likelihood(mask) +=
                    share *
                    (highest + std::log((scores.array() - highest).exp().sum()) - scores(label));
            }
        }
    }
    return table;
}

/// The best mask of each size: fewest errors, of equal ones the best likelihood.
[[nodiscard]] std::vector<sd::SurvivalMask> best_masks(const common::TextNetwork& network,
                                                       const MaskTable& table) {
    // No sum of such small parts makes up for an error in a million texts.
    const Eigen::VectorXd values =
        -table.error.array() - 1e-9 * table.negative_log_likelihood.array().min(1e3);
    std::vector<sd::SurvivalMask> masks;
    for (const sd::Subnetwork& best : sd::best_subnetworks(network, values).by_size)
        masks.push_back(best.mask);
    return masks;
}

/// k of n, spread evenly: the (i + 1/2) n / k-th ones, rounded down.
[[nodiscard]] std::vector<sd::Index> spread_evenly(sd::Index k, sd::Index n) {
    std::vector<sd::Index> places;
    for (sd::Index i = 0; i < k; ++i) places.push_back((2 * i + 1) * n / (2 * k));
    return places;
}

/// \param mask_of  mask_of(k), of k layers, or of another number where there is none of k.
template <class MaskOf>
[[nodiscard]] Choice judged(const std::string& name, const MaskTable& test, sd::Index depth,
                            const MaskOf& mask_of) {
    Choice choice{name, {}, {}};
    for (sd::Index k = 0; k <= depth; ++k) {
        const sd::SurvivalMask mask = mask_of(k);
        const bool is_there = mask.count() == k;
        constexpr double none = std::numeric_limits<double>::quiet_NaN();
        const sd::Index row = sd::index_of(mask);
        choice.errors.push_back(is_there ? test.error(row) : none);
        choice.negative_log_likelihoods.push_back(is_there ? test.negative_log_likelihood(row)
                                                           : none);
    }
    return choice;
}

/// The mean over all masks of each size.
[[nodiscard]] Choice at_random(const MaskTable& test, sd::Index depth) {
    const auto sizes = static_cast<std::size_t>(depth) + 1;
    Choice choice{"at random", std::vector<double>(sizes), std::vector<double>(sizes)};
    std::vector<double> masks(sizes);
    for (sd::Index mask = 0; mask < test.error.size(); ++mask) {
        const auto size = static_cast<std::size_t>(std::popcount(static_cast<std::uint64_t>(mask)));
        ++masks[size];
        choice.errors[size] += test.error(mask);
        choice.negative_log_likelihoods[size] += test.negative_log_likelihood(mask);
    }
    for (std::size_t k = 0; k < sizes; ++k) {
        choice.errors[k] /= masks[k];
        choice.negative_log_likelihoods[k] /= masks[k];
    }
    return choice;
}

}  // namespace

std::vector<Choice> choices(const common::TextNetwork& network, const sd::Dataset<float>& dev,
                            const sd::Dataset<float>& test, unsigned threads) {
    const sd::Index depth = network.depth();
    const MaskTable on_dev = tabulate(network, dev, threads);
    const MaskTable on_test = tabulate(network, test, threads);
    const auto mask_of = [&](const std::vector<sd::Index>& layers) {
        sd::SurvivalMask mask = sd::SurvivalMask::none(depth);
        for (const sd::Index layer : layers) mask.keep(layer);
        return mask;
    };
    const auto from = [&](sd::Index first, sd::Index k) {
        std::vector<sd::Index> layers;
        for (sd::Index l = first; l < first + k; ++l) layers.push_back(l);
        return mask_of(layers);
    };
    const auto blocks_of = [&](sd::Index k) {
        std::vector<sd::Index> layers;
        for (const sd::Index block : spread_evenly(k / 2, depth / 2)) {
            layers.push_back(2 * block);
            layers.push_back(2 * block + 1);
        }
        return mask_of(layers);
    };
    const auto best_on = [&](const MaskTable& table) {
        return [masks = best_masks(network, table)](sd::Index k) {
            return masks[static_cast<std::size_t>(k)];
        };
    };
    return {judged("the first", on_test, depth, [&](sd::Index k) { return from(0, k); }),
            judged("the last", on_test, depth, [&](sd::Index k) { return from(depth - k, k); }),
            judged("blocks evenly", on_test, depth, blocks_of),
            judged("sublayers evenly", on_test, depth,
                   [&](sd::Index k) { return mask_of(spread_evenly(k, depth)); }),
            at_random(on_test, depth),
            judged("best on development texts", on_test, depth, best_on(on_dev)),
            judged("best on the test texts", on_test, depth, best_on(on_test))};
}

std::vector<double> extracted_seconds(const common::TextNetwork& network,
                                      const sd::Dataset<float>& test) {
    const sd::Index depth = network.depth();
    const auto blocks = sd::length_blocks(test.inputs(), 64);
    using Extracted = decltype(sd::without_layers(network, sd::SurvivalMask::all(depth)));
    std::vector<Extracted> extracted;
    for (sd::Index k = 0; k <= depth; ++k) {
        sd::SurvivalMask mask = sd::SurvivalMask::none(depth);
        for (sd::Index l = 0; l < k; ++l) mask.keep(l);
        extracted.push_back(sd::without_layers(network, mask));
    }
    std::vector<double> least(extracted.size(), std::numeric_limits<double>::infinity());
    // Round after round, so that what else the machine does falls on all alike.
    for (int round = 0; round < 7; ++round)
        for (std::size_t k = 0; k < extracted.size(); ++k) {
            const auto mask = sd::SurvivalMask::all(extracted[k].depth());
            const std::clock_t start = std::clock();
            for (const auto& block : blocks)
                (void)sd::masked_forward(extracted[k], block.inputs, mask);
            least[k] =
                std::min(least[k], static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
        }
    return least;
}

common::TextNetwork with_survival(const common::TextNetwork& network,
                                  const common::TextSettings& settings, sd::Index vocabulary,
                                  sd::Index classes) {
    std::map<std::string, sd::Matrix<float>> parameters;
    sd::for_each_parameter(
        network, [&](const std::string& path, const auto& matrix) { parameters[path] = matrix; });
    common::TextNetwork other = common::text_network(settings, vocabulary, classes);
    sd::assign_parameters(other, parameters);
    return other;
}

}  // namespace text_study
