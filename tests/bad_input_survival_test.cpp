// SPDX-License-Identifier: MIT
#include <limits>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/survival/drop_probability.hpp>
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/survival/time_schedules.hpp>

#include "support/catch.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::VectorXd;
using test::inf;
using test::nan;
using test::refuses;

TEST_CASE("bad input: SurvivalProbability and DropProbability refuse what is no probability",
          "[bad_input_survival]") {
    refuses([] { (void)SurvivalProbability{0.0}; },
            {"SurvivalProbability: value", "(0, 1]", "got 0"});
    refuses([] { (void)SurvivalProbability{-0.1}; }, {"SurvivalProbability: value", "got -0.1"});
    refuses([] { (void)SurvivalProbability{1.2}; }, {"SurvivalProbability: value", "got 1.2"});
    refuses([] { (void)SurvivalProbability{1.0000001}; },
            {"SurvivalProbability: value", "got 1.0000001"});
    refuses([] { (void)SurvivalProbability{nan}; }, {"SurvivalProbability: value", "got nan"});
    refuses([] { (void)SurvivalProbability{inf}; }, {"SurvivalProbability: value", "got inf"});
    refuses([] { (void)DropProbability{1.0}; }, {"DropProbability: value", "[0, 1)", "got 1"});
    refuses([] { (void)DropProbability{-0.25}; }, {"DropProbability: value", "got -0.25"});
    refuses([] { (void)DropProbability{nan}; }, {"DropProbability: value", "got nan"});
}

TEST_CASE(
    "bad input: uniform_survival and linear_decay refuse depths and probabilities out of range",
    "[bad_input_survival]") {
    refuses([] { (void)uniform_survival(-1, 0.5); }, {"uniform_survival: depth", "got -1"});
    refuses([] { (void)uniform_survival(3, 0.0); },
            {"uniform_survival:", "survival probability", "got 0"});
    refuses([] { (void)uniform_survival(0, nan); },
            {"uniform_survival:", "survival probability", "got nan"});
    refuses([] { (void)linear_decay(-2, 0.5); }, {"linear_decay: depth", "got -2"});
    refuses([] { (void)linear_decay(3, 1.5); },
            {"linear_decay: final survival probability", "got 1.5"});
    refuses([] { (void)linear_decay(3, nan); },
            {"linear_decay: final survival probability", "got nan"});
}

TEST_CASE("bad input: SurvivalMask refuses entries, sizes and layers, and stays as it was",
          "[bad_input_survival]") {
    SurvivalMask mask{1, 0, 1};
    const auto mask_is_101 = [&] { return mask == SurvivalMask{1, 0, 1}; };

    refuses([] { (void)SurvivalMask{0, 2}; }, {"SurvivalMask: entry 1", "got 2"});
    refuses([] { (void)SurvivalMask{-1}; }, {"SurvivalMask: entry 0", "got -1"});
    refuses([] { (void)SurvivalMask::all(-1); }, {"SurvivalMask: size", "got -1"});
    refuses([] { (void)SurvivalMask::none(-3); }, {"SurvivalMask: size", "got -3"});
    refuses([&] { mask.resize(-2); }, {"SurvivalMask: size", "got -2"}, mask_is_101);
    refuses([&] { mask.keep(3); }, {"SurvivalMask: layer", "[0, 3)", "got 3"}, mask_is_101);
    refuses([&] { mask.skip(-1); }, {"SurvivalMask: layer", "got -1"}, mask_is_101);
}

TEST_CASE("bad input: SurvivalMasks refuses sizes, layers and samples, and stays as it was",
          "[bad_input_survival]") {
    const auto masks_before = SurvivalMasks::from_masks({{1, 0}, {0, 1}, {1, 1}});
    SurvivalMasks masks = masks_before;
    const auto masks_unchanged = [&] { return masks == masks_before; };

    refuses([] { (void)SurvivalMasks(-1, 2); }, {"SurvivalMasks: depth", "got -1"});
    refuses([] { (void)SurvivalMasks(2, -1); }, {"SurvivalMasks: batch size", "got -1"});
    refuses([] { (void)SurvivalMasks::all(-4, 2); }, {"SurvivalMasks: depth", "got -4"});
    refuses([] { (void)SurvivalMasks::none(2, -4); }, {"SurvivalMasks: batch size", "got -4"});
    refuses([] { (void)SurvivalMasks::from_masks({}); }, {"SurvivalMasks: masks", "got 0"});
    refuses(
        [] {
            (void)SurvivalMasks::from_masks({{1, 0}, {1}});
        },
        {"SurvivalMasks: mask of sample 1", "2 layers", "got 1"});
    refuses([&] { (void)masks.mask(3); }, {"SurvivalMasks: sample", "[0, 3)", "got 3"});
    refuses([&] { (void)masks.count(2); }, {"SurvivalMasks: layer", "[0, 2)", "got 2"});
    refuses([&] { masks.keep(2, 0); }, {"SurvivalMasks: layer", "got 2"}, masks_unchanged);
    refuses([&] { masks.keep(0, -1); }, {"SurvivalMasks: sample", "got -1"}, masks_unchanged);
    refuses([&] { masks.skip(0, 3); }, {"SurvivalMasks: sample", "got 3"}, masks_unchanged);
    refuses([&] { masks.skip(-1, 0); }, {"SurvivalMasks: layer", "got -1"}, masks_unchanged);
    refuses(
        [&] {
            masks.set_mask(3, {1, 1});
        },
        {"SurvivalMasks: sample", "got 3"}, masks_unchanged);
    refuses(
        [&] {
            masks.set_mask(1, {1, 1, 1});
        },
        {"SurvivalMasks: mask of sample 1", "2 layers", "got 3"}, masks_unchanged);
    refuses([&] { masks.resize(-1, 3); }, {"SurvivalMasks: depth", "got -1"}, masks_unchanged);
    refuses([&] { masks.resize(2, -3); }, {"SurvivalMasks: batch size", "got -3"}, masks_unchanged);
}

TEST_CASE("bad input: probability of a mask refuses other depths and what is no probability",
          "[bad_input_survival]") {
    const SurvivalMask mask{1, 0, 1};

    refuses([&] { (void)probability(mask, VectorXd::Constant(2, 0.5)); },
            {"probability: mask", "2 survival probabilities", "got 3"});
    refuses(
        [&] {
            (void)probability(mask, VectorXd{{0.5, 0.0, 0.5}});
        },
        {"probability:", "p(1)", "got 0"});
    refuses(
        [&] {
            (void)probability(mask, VectorXd{{0.5, 0.5, nan}});
        },
        {"probability:", "p(2)", "got nan"});
}

TEST_CASE("bad input: MaskSampler refuses probabilities, sizes and samples, and writes nothing",
          "[bad_input_survival]") {
    SurvivalMask mask{1, 0, 1};
    const auto mask_is_101 = [&] { return mask == SurvivalMask{1, 0, 1}; };
    const auto masks_before = SurvivalMasks::from_masks({{1, 0}, {0, 1}, {1, 1}});
    SurvivalMasks masks = masks_before;
    const auto masks_unchanged = [&] { return masks == masks_before; };
    const MaskSampler sampler{uniform_survival(2, 0.5), 1};

    refuses(
        [] {
            (void)MaskSampler(VectorXd{{0.5, 1.5}}, 0);
        },
        {"MaskSampler: survival probability p(1)", "got 1.5"});
    refuses([] { (void)MaskSampler(VectorXd::Constant(1, nan), 0); },
            {"MaskSampler:", "p(0)", "got nan"});
    refuses([] { (void)MaskSampler(VectorXd::Ones(Index{1} << 22), 0); },
            {"MaskSampler: depth", "4194304", "got 4194304"});
    refuses([&] { (void)sampler.sample(0, Index{-1}); }, {"MaskSampler: batch size", "got -1"});
    refuses([&] { (void)sampler.sample(0, (Index{1} << 38) + 1); },
            {"MaskSampler: samples", "274877906944", "got 274877906945"});
    refuses([&] { sampler.sample(0, mask); }, {"MaskSampler: mask", "2 layers", "got 3"},
            mask_is_101);
    refuses(
        [&] {
            SurvivalMasks other{3, 4};
            sampler.sample(0, other);
        },
        {"MaskSampler: masks", "2 layers", "got 3"});
    refuses([&] { sampler.sample(0, -64, masks); }, {"MaskSampler: first sample", "got -64"},
            masks_unchanged);
    refuses([&] { sampler.sample(0, (Index{1} << 38) - 2, masks); },
            {"MaskSampler: samples", "got 3 samples from 274877906942"}, masks_unchanged);
}

TEST_CASE("bad input: uniform refuses an empty or endless range, and draws nothing",
          "[bad_input_survival]") {
    Philox random{1};
    const Philox random_before = random;
    const auto random_unchanged = [&] { return random == random_before; };

    refuses([&] { (void)uniform<double>(random, 1.0, 1.0); }, {"uniform: range", "[1, 1)"},
            random_unchanged);
    refuses([&] { (void)uniform<double>(random, 2.0, 1.0); }, {"uniform: range", "[2, 1)"},
            random_unchanged);
    refuses([&] { (void)uniform<float>(random, 0.0f, std::numeric_limits<float>::infinity()); },
            {"uniform: range", "inf"}, random_unchanged);
    refuses([&] { (void)uniform<double>(random, nan, 1.0); }, {"uniform: range", "nan"},
            random_unchanged);
}

TEST_CASE("bad input: samplers of subsets and schedules over time refuse it",
          "[bad_input_survival]") {
    const FixedSizeMaskSampler sampler{VectorXd{{0.7, 0.5}}, 1}, empty{VectorXd(0), 1};
    SurvivalMasks masks = SurvivalMasks::all(2, 5), deep = SurvivalMasks::all(3, 5),
                  wide{0, Index{1} << 32};
    const auto unchanged = [&] {
        return masks == SurvivalMasks::all(2, 5) && deep == SurvivalMasks::all(3, 5) &&
               wide.batch_size() == Index{1} << 32;
    };
    const SurvivalWarmUp warm_up{0.5};
    const ProgressiveLayerDropping dropping{0.1};
    const VectorXd p{{0.7, 0.5}};
    const auto warm = [&](const TrainingTime& time) { return [=] { (void)warm_up(p, time); }; };
    const auto drop = [&](const VectorXd& targets, const TrainingTime& time) {
        return [=] { (void)dropping(targets, time); };
    };
    refuses([&] { sampler.sample(0, deep); }, {"FixedSizeMaskSampler: masks", "2 layers", "got 3"},
            unchanged);
    refuses([&] { empty.sample(0, masks); }, {"FixedSizeMaskSampler: masks", "0 layers", "got 2"},
            unchanged);
    refuses([&] { empty.sample(0, wide); },
            {"FixedSizeMaskSampler: batch size", "[0, 4294967296)", "got 4294967296"}, unchanged);
    refuses([&] { (void)sampler.sample(0, Index{-1}); },
            {"FixedSizeMaskSampler: batch size", "[0, 4294967296)", "got -1"}, unchanged);
    refuses(warm({5, 4}), {"SurvivalWarmUp: progress", "[0, 1]", "got 1.25"}, unchanged);
    refuses(warm({-1, 4}), {"SurvivalWarmUp: progress", "[0, 1]", "got -0.25"}, unchanged);
    refuses(warm({0, 0}), {"SurvivalWarmUp: progress", "[0, 1]", "nan"}, unchanged);
    refuses(drop(p, {-1, 4}), {"ProgressiveLayerDropping: step", "at least 0", "got -1"},
            unchanged);
    refuses(drop(VectorXd{{0.5, nan}}, {1, 4}),
            {"ProgressiveLayerDropping: survival probability p(1)", "(0, 1]", "got nan"},
            unchanged);
}

}  // namespace
