// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/mask_law.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/survival/probable_masks.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/refusal.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::all_masks;
using test::refusal;

static_assert(MaskLaw<IndependentLaw> && MaskLaw<MarkovLaw> && MaskLaw<LayerCountLaw> &&
              MaskLaw<DepthMixtureLaw> && MaskLaw<MaskListLaw> && MaskLaw<test::TwoBackLaw>);
static_assert(!MaskLaw<Eigen::VectorXd> && !MaskLaw<SurvivalMask>);

/// P(S), with weights that need not sum to 1.
template <class Weight>
std::vector<double> normalised(Index depth, const Weight& weight) {
    std::vector<double> p;
    double sum = 0;
    for (const SurvivalMask& mask : all_masks(depth)) sum += p.emplace_back(weight(mask));
    for (double& probability : p) probability /= sum;
    return p;
}

template <class Law>
void check_probabilities(const Law& law, const std::vector<double>& expected) {
    const auto masks = all_masks(law.depth());
    for (std::size_t k = 0; k < masks.size(); ++k)
        CHECK(std::abs(probability(masks[k], law) - expected[k]) <= 1e-14);
}

TEST_CASE("MaskLaw: masks of every law have probabilities that sum to 1, and its marginals",
          "[mask_law]") {
    Philox random{3};
    for (Index depth = 0; depth <= 9; ++depth)
        test::for_each_law(random, depth, [&](const auto& law) {
            REQUIRE(law.depth() == depth);
            double sum = 0;
            Eigen::VectorXd marginals = Eigen::VectorXd::Zero(depth);
            const auto listed = probable_masks(law);
            std::size_t at = 0;
            for (const SurvivalMask& mask : all_masks(depth)) {
                const double p = probability(mask, law);
                REQUIRE(p >= 0);
                sum += p;
                for (Index l = 0; l < depth; ++l)
                    if (mask[l]) marginals(l) += p;
                // The list has those of probability above 0, in the same order.
                if (p == 0) continue;
                REQUIRE(at < listed.size());
                CHECK(listed[at].mask == mask);
                CHECK(std::abs(listed[at].probability - p) <= 1e-15);
                ++at;
            }
            CHECK(at == listed.size());
            CHECK(std::abs(sum - 1) <= 1e-13);
            const Eigen::VectorXd p = marginal_survival_probabilities(law);
            REQUIRE(p.size() == depth);
            for (Index l = 0; l < depth; ++l) CHECK(std::abs(p(l) - marginals(l)) <= 1e-13);
            // Several layers at once.
            SurvivalMask some = SurvivalMask::none(depth);
            for (Index l = 1; l < depth; l += 2) some.keep(l);
            double kept = 0;
            for (const SurvivalMask& mask : all_masks(depth)) {
                bool has_all = true;
                for (Index l = 1; l < depth; l += 2) has_all = has_all && mask[l];
                if (has_all) kept += probability(mask, law);
            }
            CHECK(std::abs(detail::probability_of_keeping(law, some) - kept) <= 1e-13);
        });
}

TEST_CASE("MaskLaw: the laws are what their definitions say", "[mask_law]") {
    const Eigen::VectorXd p = (Eigen::VectorXd(5) << 0.9, 0.2, 1.0, 0.5, 0.7).finished();
    const Eigen::VectorXd q = (Eigen::VectorXd(5) << 0.1, 0.0, 0.3, 1.0, 0.4).finished();
    check_probabilities(IndependentLaw{p}, normalised(5, [&](const SurvivalMask& mask) {
                            return probability(mask, p);
                        }));
    check_probabilities(MarkovLaw{p, q}, normalised(5, [&](const SurvivalMask& mask) {
                            double product = 1;
                            for (Index l = 0; l < 5; ++l) {
                                const double kept = l == 0 || mask[l - 1] ? p(l) : q(l);
                                product *= mask[l] ? kept : 1 - kept;
                            }
                            return product;
                        }));
    for (Index most = 1; most <= 5; ++most)
        for (Index fewest = 0; fewest <= most; ++fewest)
            check_probabilities(LayerCountLaw{p, fewest, most},
                                normalised(5, [&](const SurvivalMask& mask) {
                                    const bool in = fewest <= mask.count() && mask.count() <= most;
                                    return in ? probability(mask, p) : 0;
                                }));
    for (Index k = 0; k <= 5; ++k) {
        check_probabilities(
            LayerCountLaw::exactly(5, k),
            normalised(5, [&](const SurvivalMask& mask) -> double { return mask.count() == k; }));
        check_probabilities(
            LayerCountLaw::at_most(5, k),
            normalised(5, [&](const SurvivalMask& mask) -> double { return mask.count() <= k; }));
    }
    const Eigen::VectorXd weights = (Eigen::VectorXd(6) << 2, 0, 1, 3, 0.5, 0).finished();
    check_probabilities(DepthMixtureLaw{weights}, normalised(5, [&](const SurvivalMask& mask) {
                            Index first = 0;
                            while (first < 5 && mask[first]) ++first;
                            return first == mask.count() ? weights(first) : 0;
                        }));
    const std::vector<SurvivalMask> list{
        {1, 0, 1, 0, 0}, {1, 0, 1, 1, 0}, {0, 0, 0, 0, 0}, {1, 0, 1, 0, 0}, {1, 1, 1, 1, 1}};
    const Eigen::VectorXd each = (Eigen::VectorXd(5) << 1, 4, 2, 3, 0).finished();
    check_probabilities(MaskListLaw{list, each}, normalised(5, [&](const SurvivalMask& mask) {
                            double sum = 0;
                            for (std::size_t k = 0; k < list.size(); ++k)
                                if (list[k] == mask) sum += each(static_cast<Index>(k));
                            return sum;
                        }));
}

TEST_CASE("MaskLaw: exactly k of many layers in closed form, without underflow", "[mask_law]") {
    const auto law = LayerCountLaw::exactly(3000, 7);
    for (const Index l : {0, 1000, 2990}) {
        const double expected = 7.0 / static_cast<double>(3000 - l);
        CHECK(std::abs(law.survival_probability(l, 0) / expected - 1) <= 1e-11);
    }
    CHECK(law.survival_probability(2999, 6) == 1);
    CHECK(law.survival_probability(2999, 7) == 0);
    CHECK(probable_masks(LayerCountLaw::exactly(300, 2)).size() == 300 * 299 / 2);
    // Layers with p = 1 are among the k.
    const Eigen::VectorXd p = (Eigen::VectorXd(3) << 1, 0.25, 1).finished();
    CHECK(probability(SurvivalMask{1, 0, 1}, LayerCountLaw::exactly(p, 2)) == 1);
    CHECK(refusal([&] { (void)LayerCountLaw::exactly(p, 1); }) ==
          "LayerCountLaw: layers with p = 1 must be at most 1, got 2");
}

TEST_CASE("MaskLaw: what is no law is refused by name", "[mask_law]") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    using V = Eigen::VectorXd;
    CHECK(refusal([&] { (void)IndependentLaw{V::Constant(2, 0.0)}; }) ==
          "IndependentLaw: survival probability p(0) must lie in (0, 1], got 0");
    CHECK(refusal([&] {
              (void)MarkovLaw{V::Constant(2, 0.5), V::Constant(3, 0.5)};
          }) == "MarkovLaw: after_skipped must have 2 entries as after_kept has, got 3");
    CHECK(refusal([&] {
              (void)MarkovLaw{V::Constant(1, nan), V::Constant(1, 0.5)};
          }) == "MarkovLaw: after_kept(0) must lie in [0, 1], got nan");
    CHECK(refusal([&] {
              (void)MarkovLaw{V::Constant(1, 0), V::Constant(1, 1.5)};
          }) == "MarkovLaw: after_skipped(0) must lie in [0, 1], got 1.5");
    CHECK(refusal([&] {
              (void)LayerCountLaw{V::Constant(3, 0.5), 2, 1};
          }) == "LayerCountLaw: fewest and most must be 0 <= fewest <= most <= 3, got 2 and 1");
    CHECK(refusal([&] { (void)LayerCountLaw::exactly(3, 4); }) ==
          "LayerCountLaw: fewest and most must be 0 <= fewest <= most <= 3, got 4 and 4");
    CHECK(refusal([&] { (void)LayerCountLaw::at_most(3, -1); }) ==
          "LayerCountLaw: fewest and most must be 0 <= fewest <= most <= 3, got 0 and -1");
    CHECK(refusal([&] { (void)LayerCountLaw::exactly(-1, 0); }) ==
          "LayerCountLaw: depth must be at least 0, got -1");
    CHECK(refusal([&] { (void)DepthMixtureLaw{V()}; }) ==
          "DepthMixtureLaw: sum of the weights must be above 0 and at most 1e300, got 0");
    CHECK(refusal([&] { (void)DepthMixtureLaw{V::Constant(2, -1)}; }) ==
          "DepthMixtureLaw: weight 0 must lie in [0, 1e300], got -1");
    CHECK(refusal([&] { (void)MaskListLaw({}, V()); }) ==
          "MaskListLaw: masks must not be empty, got 0 masks");
    CHECK(refusal([&] {
              (void)MaskListLaw({{1, 0}, {1}}, V::Constant(2, 1));
          }) == "MaskListLaw: mask 1 must have 2 layers, got 1");
    CHECK(refusal([&] {
              (void)MaskListLaw({{1, 0}}, V::Constant(2, 1));
          }) == "MaskListLaw: weights must be 1, got 2");
    CHECK(refusal([&] {
              (void)MaskListLaw({{1, 0}}, V::Constant(1, nan));
          }) == "MaskListLaw: weight 0 must lie in [0, 1e300], got nan");
    CHECK(refusal([&] {
              (void)probability({1, 0}, test::TwoBackLaw{3});
          }) == "probability: mask must have 3 layers, got 2");
}

/// A law that is wrong in its second layer, and one that remembers everything.
struct Wrong {
    double p;
    Index depth() const { return 3; }
    int start() const { return 0; }
    double survival_probability(Index layer, int) const { return layer == 1 ? p : 0.5; }
    int next(Index, int, bool) const { return 0; }
};
struct Remembers {
    Index depth() const { return 40; }
    long start() const { return 1; }
    double survival_probability(Index, long) const { return 0.5; }
    long next(Index, long before, bool kept) const { return 2 * before + (kept ? 1 : 0); }
};

TEST_CASE("MaskLaw: probabilities outside [0, 1] and too many states are refused", "[mask_law]") {
    for (const double p : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
        const std::string text =
            "MaskLaw: survival probability of layer 1 must lie in [0, 1], got ";
        CHECK(holds(refusal([&] { (void)marginal_survival_probabilities(Wrong{p}); }), text));
        CHECK(holds(refusal([&] { (void)probability({1, 1, 1}, Wrong{p}); }), text));
        CHECK(holds(refusal([&] { (void)probable_masks(Wrong{p}); }), text));
    }
    CHECK(
        holds(thrown<std::length_error>([] { (void)marginal_survival_probabilities(Remembers{}); }),
              "MaskLaw: states behind layer", "at most 1048576"));
    CHECK(thrown<std::length_error>([] { (void)probable_masks(Remembers{}, 1000); }) ==
          "probable_masks: masks must be at most 1000, got more");
}

}  // namespace
