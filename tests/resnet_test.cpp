// SPDX-License-Identifier: MIT
#include <stochastic_depth/models/resnet.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr ResNetStyle pre_projected{ActivationOrder::pre, ShapeShortcut::projection};
constexpr ResNetStyle post_projected{ActivationOrder::post, ShapeShortcut::projection};

/// A small one: every other of its numbers is the default.
const ResNetOptions small{.input = {2, 5, 6}, .depth = 8, .classes = 3, .channels = 2};

template <class Network>
void check_exact_expectation(const Network& network, const Matrix<double>& x) {
    Matrix<double> mean = Matrix<double>::Zero(3, x.cols());
    double total = 0;
    Index masks = 0;
    for (const auto& row : enumerate_masks(network, x)) {
        if (masks++ % 16 == 0) CHECK(same_bits(row.output, network(x, row.mask)));
        mean += row.probability * row.output;
        total += row.probability;
    }
    CHECK(masks == Index{1} << network.depth());
    CHECK(std::abs(total - 1) <= 1e-14);
    CHECK(largest_difference(ExactExpectation{}(network, x).mean, mean) <= 1e-12);
}

TEST_CASE("resnet: blocks, probabilities and shapes are the paper's", "[resnet]") {
    Philox random{1};
    const auto network = resnet<float>({.depth = 20}, random);
    CHECK(network.depth() == 9);
    CHECK(network.output_size(3 * 32 * 32) == 10);
    CHECK(same_bits(network.survival_probabilities(), linear_decay(9, 0.5)));
    const auto others = resnet<float>({.depth = 20, .survival = uniform_survival(9, 0.8)}, random);
    CHECK(same_bits(others.survival_probabilities(), uniform_survival(9, 0.8)));
    // He et al. 2016, Table 6: 0.27 million parameters.
    Index parameters = 0;
    detail::visit_parameters(network,
                             [&](const char*, const auto& matrix) { parameters += matrix.size(); });
    CHECK(parameters == 269722);
    const std::string lines = describe(network);
    CAPTURE(lines);
    CHECK(lines.find("0.0: Conv2d 3 x 32 x 32 -> 16 x 32 x 32, kernel 3, stride 1, padding 1, no "
                     "bias\n") != std::string::npos);
    CHECK(lines.find("2.0.shortcut.0: AveragePool2d 16 x 32 x 32 -> 16 x 16 x 16, kernel 2, stride "
                     "2, padding 0\n") != std::string::npos);
    CHECK(lines.find("4.0.branch.0: Conv2d 32 x 16 x 16 -> 64 x 8 x 8, kernel 3, stride 2") !=
          std::string::npos);
    CHECK(lines.find("6.0: GlobalAveragePool2d 64 x 8 x 8\n") != std::string::npos);
    static_assert(DifferentiableLayer<ResNet<float>> && MaskedNetwork<ResNet<float>>);
}

TEST_CASE("resnet: a skipped block is its shortcut", "[resnet]") {
    Philox random{3};
    const auto network = resnet<double>(small, random);
    const Matrix<double> x = random_matrix<double>(random, 60, 3);
    const auto& [stem, stage1, change2, stage2, change3, stage3, head] = network.layers();
    const auto run = [](const auto& layer, const Matrix<double>& in) {
        Matrix<double> out(layer.output_size(in.rows()), in.cols());
        layer.forward(in, out);
        return out;
    };
    const auto& second = std::get<0>(change2.layers()).shortcut();
    const auto& third = std::get<0>(change3.layers()).shortcut();
    CHECK(same_bits(network(x, SurvivalMask::none(3)),
                    run(head, run(third, run(second, run(stem, x))))));
    CHECK(same_bits(network(x, SurvivalMask{0, 1, 0}),
                    run(head, run(third, run(change2, run(stem, x))))));
    // Masks for the samples: each column as under its own.
    SurvivalMasks masks{3, 3};
    masks.set_mask(1, SurvivalMask{1, 0, 1});
    masks.set_mask(2, SurvivalMask{0, 1, 1});
    const Matrix<double> y = network(x, masks);
    for (Index j = 0; j < 3; ++j)
        CHECK(same_bits(y.col(j), network(x.col(j), SurvivalMask{j == 1, j == 2, j != 0})));
}

TEST_CASE("resnet: the exact expectation of ResNet-20 is the weighted sum over its 512 masks",
          "[resnet]") {
    Philox random{4};
    const auto network = resnet<double>({.input = {3, 6, 6}, .classes = 3}, random);
    check_exact_expectation(network, random_matrix<double>(random, 108, 1));
    check_exact_expectation(resnet<double, pre_projected>(small, random),
                            random_matrix<double>(random, 60, 2));
}

TEST_CASE("resnet: of a block's four activations a step keeps three for the survivors alone",
          "[resnet]") {
    Philox random{10};
    constexpr ImageShape input{3, 16, 16};
    constexpr Index images = 6;
    const auto network = resnet<float>({.input = input, .depth = 14}, random);
    const Matrix<float> x = random_matrix<float>(random, input.size(), images);
    const Eigen::VectorXi labels = Eigen::VectorXi::LinSpaced(images, 0, 5);
    TrainingStep step{network, SoftmaxCrossEntropy<float>{}};
    // Numbers that are kept, where so many images keep block l, and all keep the other blocks.
    const auto kept = [&](Index l, Index survivors) {
        SurvivalMasks masks = SurvivalMasks::all(6, images);
        SurvivalMask mask = SurvivalMask::all(6);
        mask.skip(l);
        for (Index j = survivors; j < images; ++j) masks.set_mask(j, mask);
        (void)step.differentiate(network, x, labels, masks);
        return static_cast<double>(step.cache_bytes()) / sizeof(float);
    };
    const double full = kept(0, images);
    // The blocks that keep the shape.
    for (const auto& [l, shape] : {std::pair{Index{0}, ImageShape{16, 16, 16}},
                                   {1, {16, 16, 16}},
                                   {3, {32, 8, 8}},
                                   {5, {64, 4, 4}}})
        for (const Index survivors : {0, 1, 4}) {
            CAPTURE(l, survivors, full);
            const auto activation = static_cast<double>(shape.size());
            const double spared = full - kept(l, survivors);
            CHECK(spared >= 2.9 * activation * static_cast<double>(images - survivors));
        }
}

TEST_CASE("resnet: weight scaling multiplies the branch before the activation", "[resnet]") {
    Philox random{5};
    const auto network = resnet<double>(small, random);
    const Matrix<double> x = random_matrix<double>(random, 60, 2);
    Matrix<double> h(60, 2);
    const auto through = [&](const auto& layer) {
        Matrix<double> out(layer.output_size(h.rows()), h.cols());
        layer.forward(h, out);
        return out;
    };
    h = x;
    h = through(std::get<0>(network.layers()));
    const auto block = [&](const auto& activated) {
        const auto& skippable = std::get<0>(activated.layers());
        const Matrix<double> shortcut = through(skippable.shortcut());
        const Matrix<double> branch = through(skippable.layer().branch());
        h = (shortcut + skippable.survival_probability().value() * branch).cwiseMax(0.0);
    };
    block(std::get<1>(network.layers()).layers()[0]);
    block(std::get<2>(network.layers()));
    block(std::get<4>(network.layers()));
    CHECK(largest_difference(WeightScaling{}(network, x).mean,
                             through(std::get<6>(network.layers()))) <= 1e-12);
}

TEST_CASE("resnet: a step's gradient is that of its loss, with blocks skipped by samples",
          "[resnet]") {
    Philox random{6};
    const ResNetOptions tiny{.input = {1, 3, 3}, .depth = 8, .classes = 2, .channels = 1};
    const Matrix<double> x = random_matrix<double>(random, 9, 4);
    const Matrix<double> targets = random_matrix<double>(random, 2, 4);
    SurvivalMasks masks{3, 4};
    masks.set_mask(0, SurvivalMask{1, 1, 1});
    masks.set_mask(1, SurvivalMask{0, 1, 0});
    masks.set_mask(2, SurvivalMask{1, 0, 1});
    const auto check = [&](const auto& network) {
        // Steps so small that hardly one comes across a kink.
        const auto error =
            gradient_error(network, x, masks, MeanSquaredError<double>{}, targets, {.step = 1e-7});
        CAPTURE(error.where, error.slope, error.difference);
        CHECK(error.largest < 1e-5);
    };
    check(resnet<double>(tiny, random));
    check(resnet<double, post_projected>(tiny, random));
    check(resnet<double, pre_projected>(tiny, random));
}

TEST_CASE("resnet: it trains, with the same bits for any number of threads, and is saved",
          "[resnet]") {
    Philox random{7};
    const auto start = resnet<float>({.input = {1, 12, 12}, .depth = 8, .channels = 8}, random);
    const Matrix<float> x = random_matrix<float>(random, 144, 16);
    Eigen::VectorXi labels(16);
    for (Index j = 0; j < 16; ++j) labels(j) = static_cast<int>(j % 10);
    const auto trained = [&](unsigned threads) {
        auto network = start;
        TrainingStep step{network, SoftmaxCrossEntropy<float>{}, {.seed = 3, .threads = threads}};
        Sgd optimizer{network, {.learning_rate = 0.05, .momentum = 0.9}};
        for (std::uint64_t t = 0; t < 5; ++t) {
            step.differentiate(network, x, labels, t);
            optimizer.step(network, step.gradient());
            step.finish(network);
        }
        return network;
    };
    const auto network = trained(1);
    const Matrix<float> y = network(x);
    CHECK(same_bits(trained(2)(x), y));
    CHECK_FALSE(same_bits(start(x), y));
    const TemporaryDirectory directory;
    save_parameters(directory.file("parameters"), network);
    auto loaded = start;
    load_parameters(directory.file("parameters"), loaded);
    CHECK(same_bits(loaded(x), y));
}

TEST_CASE("resnet: statistics of a projection are taken over whenever a sample goes through it",
          "[resnet]") {
    Philox random{8};
    auto network = resnet<double, post_projected>(small, random);
    const Matrix<double> x = random_matrix<double>(random, 60, 4);
    const Matrix<double> targets = Matrix<double>::Zero(3, 4);
    const auto mean = [&]() -> const Vector<double>& {
        const auto& block = std::get<0>(std::get<2>(network.layers()).layers());
        return std::get<1>(block.shortcut().layers()).channels().running_mean();
    };
    TrainingStep step{network, MeanSquaredError<double>{}};
    for (const SurvivalMask& mask : {SurvivalMask{1, 0, 1}, SurvivalMask{0, 1, 0}}) {
        const Vector<double> before = mean();
        step.differentiate(network, x, targets, mask);
        step.finish(network);
        CHECK((mean() - before).cwiseAbs().minCoeff() > 0);
    }
    // Where some keep the block and others skip it, too.
    const Vector<double> before = mean();
    SurvivalMasks masks{3, 4};
    for (Index j = 0; j < 4; ++j) masks.set_mask(j, SurvivalMask{1, j > 1, 1});
    step.differentiate(network, x, targets, masks);
    step.finish(network);
    CHECK((mean() - before).cwiseAbs().minCoeff() > 0);
}

TEST_CASE("bad input: resnet refuses options outside of their range, and draws nothing",
          "[resnet]") {
    Philox random{9};
    const Philox before = random;
    const auto refused = [&](const ResNetOptions& options,
                             std::initializer_list<const char*> fragments) {
        refuses([&] { (void)resnet<double>(options, random); }, fragments,
                [&] { return random == before; });
    };
    refused({.input = {3, 0, 32}}, {"resnet: input", "3 x 0 x 32"});
    for (const Index depth : {-4, 2, 19, 21, 7}) {
        CAPTURE(depth);
        refused({.depth = depth}, {"resnet: depth", "6 n + 2", "got"});
    }
    refused({.classes = 0}, {"resnet: classes", "got 0"});
    refused({.final_survival = 0}, {"resnet: final_survival", "got 0"});
    refused({.final_survival = 1.5}, {"resnet: final_survival", "got 1.5"});
    refused({.final_survival = test::nan}, {"resnet: final_survival", "got nan"});
    refused({.depth = 8, .survival = uniform_survival(2, 0.5)}, {"resnet: survival", "got 2"});
    refused({.depth = 8, .survival = Eigen::Vector3d(0.5, 0, 1)}, {"resnet: survival", "got 0"});
    refused({.channels = 0}, {"resnet: channels", "got 0"});
    refused({.channels = Index{1} << 40}, {"resnet: channels", "got"});
}

}  // namespace
