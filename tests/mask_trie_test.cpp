// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/mask_trie.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <atomic>
#include <set>
#include <string>
#include <vector>

#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using test::random_matrix;
using test::same_bits;

/// Every output that the trie gives is that of the masked pass, bit by bit.
template <class Network, class Scalar>
void check_against_passes(const Network& network, const Matrix<Scalar>& x, Index samples,
                          unsigned threads) {
    const auto masks = MaskSampler{network.survival_probabilities(), 3}.sample(0, samples);
    const detail::SortedMasks sorted(detail::enclosing_layers(network), masks);
    const Index outputs = network.output_size(x.rows());
    Matrix<Scalar> y(outputs, x.cols() * sorted.size());
    y.setConstant(Scalar(-77));
    detail::MaskTrie<Scalar>(sorted, outputs, threads).walk(network, x, y.data());
    INFO("samples " << samples << ", columns " << x.cols() << ", threads " << threads);
    for (Index j = 0; j < samples; ++j)
        REQUIRE(same_bits(y.middleCols(sorted.place(j) * x.cols(), x.cols()),
                          network(x, masks.mask(j))));
}

TEST_CASE("MaskTrie: every structure has the outputs of its masked passes, bit by bit",
          "[mask_trie]") {
    test::Structures make{81};
    Philox random{82};
    const auto check = [&](const auto& network, Index rows) {
        for (const Index columns : {1, 3, 100})
            for (const Index samples : {1, 2, 40, 300})
                check_against_passes(network, random_matrix<double>(random, rows, columns), samples,
                                     1);
        check_against_passes(network, random_matrix<double>(random, rows, 7), 300, 3);
    };
    check(make.nested(), 5);
    check(make.residual_around(), 6);
    check(make.own_shortcuts(), 4);
    check(make.not_residual(), 6);
    check(make.fixed(), 4);
}

TEST_CASE("MaskTrie: deep networks, with more nodes than a block holds", "[mask_trie]") {
    Philox random{83};
    const auto network = plain::to_library<plain::OneLinear<float, ReLU<float>>>(
        plain::random_network(random, {70, 9, 1, plain::Activation::relu, true}));
    for (const unsigned threads : {1u, 4u}) {
        check_against_passes(network, random_matrix<float>(random, 3, 1), 900, threads);
        check_against_passes(network, random_matrix<float>(random, 3, 31), 150, threads);
    }
}

TEST_CASE("SortedMasks: what it counts is what the trie runs", "[mask_trie]") {
    std::atomic<long> columns{0};
    const auto counted = [&](double p) {
        return StochasticDepth{probe::Counted{&columns}, SurvivalProbability{p}};
    };
    // The middle layer does nothing by itself: it is counted by its first part, which always runs.
    const Sequential network{
        counted(0.6), counted(0.5),
        StochasticDepth{Sequential{probe::Counted{&columns}, counted(0.7), counted(0.6)},
                        SurvivalProbability{0.4}},
        counted(1.0), counted(0.3)};
    for (const Index samples : {1, 5, 30, 500}) {
        const auto masks = MaskSampler{network.survival_probabilities(), 5}.sample(0, samples);
        const detail::SortedMasks sorted(detail::enclosing_layers(network), masks);
        Eigen::MatrixXd y(2, 3 * sorted.size());
        columns = 0;
        detail::MaskTrie<double>(sorted, 2, 1).walk(network, Eigen::MatrixXd::Ones(2, 3), y.data());
        CHECK(static_cast<double>(columns) == 3 * sorted.layer_evaluations());
        CHECK(sorted.size() <= samples);
    }
    SECTION("all masks of the network make its whole tree") {
        const auto masks = MaskSampler{network.survival_probabilities(), 5}.sample(0, 20'000);
        const detail::SortedMasks sorted(detail::enclosing_layers(network), masks);
        // 1 + 2, then 4 nodes with 1 + 1 + 2 and 1 + 4 children, 5 behind each.
        CHECK(sorted.size() == 4 * 5 * 2);
        CHECK(sorted.layer_evaluations() == 1 + 2 + 4 * (1 + 1 + 2) + 4 * 5 + 4 * 5);
    }
}

TEST_CASE("SortedMasks: distinct masks, in descending order, more than 64 layers too",
          "[mask_trie]") {
    for (const Index depth : {5, 63, 64, 65, 130}) {
        const std::vector<Index> flat(static_cast<std::size_t>(depth), -1);
        const auto masks = MaskSampler{uniform_survival(depth, 0.97), 4}.sample(0, 200);
        const detail::SortedMasks sorted(flat, masks);
        std::set<std::string> distinct, prefixes;
        for (Index j = 0; j < 200; ++j) {
            std::string text;
            for (Index l = 0; l < depth; ++l) {
                CHECK(sorted.keeps(sorted.place(j), l) == masks(l, j));
                text += masks(l, j) ? '1' : '0';
                if (masks(l, j)) prefixes.insert(text);
            }
            distinct.insert(text);
        }
        CHECK(sorted.size() == static_cast<Index>(distinct.size()));
        CHECK(sorted.layer_evaluations() == static_cast<double>(prefixes.size()));
        std::string before(static_cast<std::size_t>(depth), '2');
        for (Index k = 0; k < sorted.size(); ++k) {
            std::string text;
            for (Index l = 0; l < depth; ++l) text += sorted.keeps(k, l) ? '1' : '0';
            CHECK(text < before);
            before = text;
        }
    }
}

}  // namespace
