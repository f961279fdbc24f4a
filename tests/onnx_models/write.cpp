// SPDX-License-Identifier: MIT

// Writes models into a folder, with inputs and what the networks make of them: write FOLDER
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/export/onnx.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/models/transformer.hpp>

#include "onnx_models/model_folder.hpp"
#include "support/layers.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// A layer of one's own.
template <class Scalar_>
class Gain {
public:
    using Scalar = Scalar_;
    explicit Gain(Vector<Scalar> gain) : gain_(std::move(gain)) {}
    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        y = x.array().colwise() * gain_.array();
    }
    [[nodiscard]] OnnxValue write_onnx(OnnxGraph& graph, const OnnxValue& x) const {
        const OnnxValue rows = graph.features(x);
        return rows.renamed(graph.node("Mul", {rows.name, graph.parameter("gain", gain_)}));
    }

private:
    Vector<Scalar> gain_;
};

/// An element-wise layer of one's own.
template <class Scalar_>
struct Cube {
    using Scalar = Scalar_;
    [[nodiscard]] Scalar value(Scalar z) const { return z * z * z; }
    [[nodiscard]] OnnxValue write_onnx(OnnxGraph& graph, const OnnxValue& x) const {
        const std::string square = graph.node("Mul", {x.name, x.name});
        return x.renamed(graph.node("Mul", {square, x.name}));
    }
};

template <class Scalar, class... Layers>
[[nodiscard]] auto block(double p, Layers... layers) {
    return StochasticDepth{Residual{Sequential{std::move(layers)...}}, SurvivalProbability{p}};
}

/// The layers of columns.
template <class Scalar>
[[nodiscard]] auto dense(Philox& random) {
    const Vector<Scalar> gain = random_matrix<Scalar>(random, 8, 1);
    Sequential network{
        Linear<Scalar>{5, 8, random},
        block<Scalar>(0.9, LayerNorm<Scalar>{8}, Linear<Scalar>{8, 16, random}, Tanh<Scalar>{},
                      Linear<Scalar>{16, 8, random}),
        block<Scalar>(0.7, BatchNorm<Scalar>{8}, Linear<Scalar>{8, 8, random}, SiLU<Scalar>{},
                      Dropout<Scalar>{0.5}),
        // Not a residual one: weight scaling mixes what it gives with what it gets.
        StochasticDepth{Sequential{Linear<Scalar>{8, 8, random}, GELUTanh<Scalar>{}},
                        SurvivalProbability{0.5}},
        Stack{std::vector{block<Scalar>(0.4, RmsNorm<Scalar>{8}, Gain<Scalar>{gain}),
                          block<Scalar>(1.0, RmsNorm<Scalar>{8}, Gain<Scalar>{gain})}},
        Elementwise<Cube<Scalar>>{}, Scaled{Linear<Scalar>{8, 4, random}, Scalar(0.5)}};
    draw_numbers(network, random);
    return network;
}

void add_dense(ModelFolder& folder, Philox& random) {
    const auto network = dense<float>(random);
    folder.add_dense("dense", network, 5, {}, random);
    folder.add_dense("dense_none", network, 5, {.mask = SurvivalMask::none(5)}, random);
    folder.add_dense("dense_some", network, 5, {.mask = SurvivalMask{0, 1, 1, 0, 1}}, random);
    folder.add_dense("dense_scaled", network, 5, {.weight_scaling = true}, random);
    const auto in_double = dense<double>(random);
    folder.add_dense("dense_double", in_double, 5, {.mask = SurvivalMask{1, 1, 0, 1, 1}}, random);
    folder.add_dense("dense_rounded", in_double, 5, {.single_precision = true}, random);
    // ONNX Runtime takes an empty batch's parts for equally wide when it puts them side by side.
    folder.add_dense(
        "probabilities",
        Sequential{linear<float>(random, 5, 4), Softmax<float>{},
                   Concatenate{Identity<float>{}, Entropy<float>{}, LogSoftmax<float>{}}},
        5, {}, random, {1, 7});
    // Depth 0, in three ways; what the last one takes it doesn't tell.
    folder.add_dense("linear", linear<float>(random, 3, 2), 3, {}, random);
    folder.add_dense("activation", Sequential{ReLU<float>{}, GELU<float>{}}, 6, {.inputs = 6},
                     random);
    folder.add_dense("nothing", Stack{std::vector<Linear<float>>{}}, 4, {.inputs = 4}, random);
}

void add_images(ModelFolder& folder, Philox& random) {
    auto network = resnet<float>({.depth = 20}, random);
    draw_numbers(network, random);
    const ImageShape input{3, 32, 32}, scores{10, 1, 1};
    const auto add = [&](const std::string& name, const auto& net, const OnnxOptions& options,
                         const ImageShape& in) {
        folder.add_images(name, net, in, ModelFolder::Gives::features, scores, options, random,
                          {1, 3});
    };
    add("resnet20", network, {}, input);
    add("resnet20_none", network, {.mask = SurvivalMask::none(9)}, input);
    add("resnet20_some", network, {.mask = SurvivalMask{1, 0, 1, 0, 1, 1, 1, 0, 0}}, input);
    add("resnet20_scaled", network, {.weight_scaling = true}, input);
    constexpr ResNetStyle other{ActivationOrder::pre, ShapeShortcut::projection};
    const ImageShape odd{2, 9, 7};
    auto pre = resnet<float, other>({.input = odd, .depth = 8, .channels = 4}, random);
    draw_numbers(pre, random);
    add("resnet8_pre", pre, {.mask = SurvivalMask{1, 0, 1}}, odd);
    // Windows that don't fit, images from features, features of images.
    const Conv2d<float> first{odd, {.channels = 4, .kernel = 3, .stride = 2, .padding = 1}, random};
    const MaxPool2d<float> largest{first.output_shape(), {.kernel = 3, .stride = 2, .padding = 1}};
    const AveragePool2d<float> mean{first.output_shape(), {.kernel = 2, .stride = 1, .padding = 1}};
    Sequential pools{first, mean, Conv2d<float>{mean.output_shape(), {.channels = 2}, random}};
    draw_numbers(pools, random);
    folder.add_images("pools", pools, odd, ModelFolder::Gives::images, {2, 4, 3}, {}, random,
                      {0, 1, 3});
    const ImageShape small = largest.output_shape();
    Sequential both_ways{first,
                         largest,
                         Linear<float>{small.size(), small.size(), random},
                         BatchNorm2d<float>{small},
                         Tanh<float>{},
                         Conv2d<float>{small, {.channels = 3, .kernel = 1}, random},
                         PerPosition{3, Linear<float>{3, 2, random}},
                         GlobalAveragePool2d<float>{{2, small.height, small.width}}};
    draw_numbers(both_ways, random);
    folder.add_images("both_ways", both_ways, odd, ModelFolder::Gives::images, {2, 1, 1}, {},
                      random, {0, 1, 3});
}

void add_sequences(ModelFolder& folder, Philox& random) {
    TransformerOptions options{.vocabulary = 12,
                               .positions = 9,
                               .width = 8,
                               .heads = 2,
                               .feed_forward = 16,
                               .blocks = 2,
                               .classes = 3};
    const std::vector<std::vector<Index>> batches{{1}, {9, 1, 4, 7}, {2, 2}, {}};
    const auto classifier = [&]<TransformerStyle style = TransformerStyle{}>(
        const std::string& name, const OnnxOptions& how) {
        auto network = transformer_classifier<float, style>(options, random);
        draw_numbers(network, random);
        folder.add_tokens(name, network, options.vocabulary, options.classes, false, how, random,
                          batches);
    };
    classifier("classifier", {});
    classifier("classifier_some", {.mask = SurvivalMask{0, 1, 1, 0}});
    classifier("classifier_none", {.mask = SurvivalMask::none(4)});
    classifier("classifier_scaled", {.weight_scaling = true});
    options.encoding = PositionEncoding::sinusoidal;
    options.pooling = SequencePooling::last;
    classifier("classifier_last", {.mask = SurvivalMask{1, 1, 0, 1}});
    options.pooling = SequencePooling::first;
    classifier.operator()<TransformerStyle{NormOrder::post, SkippedUnit::block}>(
        "classifier_first", {.mask = SurvivalMask{0, 1}});
    const auto language_model = [&](const std::string& name, const OnnxOptions& how) {
        auto network = transformer_language_model<float>(options, random);
        draw_numbers(network, random);
        folder.add_tokens(name, network, options.vocabulary, options.vocabulary, true, how, random,
                          batches);
    };
    language_model("language_model", {});
    language_model("language_model_none", {.mask = SurvivalMask::none(4)});
    options.encoding = PositionEncoding::none;
    options.rotary = true;
    language_model("rotary", {});
    language_model("rotary_some", {.mask = SurvivalMask{1, 0, 0, 1}});
    Sequential weighted{Embedding<float>{{.vocabulary = 12, .positions = 9, .width = 8}, random},
                        MultiHeadAttention<float>{{.width = 8, .heads = 4, .bias = false}, random},
                        AttentionPool<float>{8}};
    draw_numbers(weighted, random);
    // Sequences of numbers, of any length and of one that is known.
    Sequential numbers{PerPosition{4, linear<float>(random, 4, 8)},
                       MultiHeadAttention<float>{{.width = 8, .heads = 2, .causal = true}, random},
                       SequencePool<float>{8}};
    folder.add_dense("positions", numbers, 20, {}, random, {0, 1, 3}, 5);
    const MultiHeadAttention<float> turned{{.width = 8, .heads = 2, .rotary = true}, random};
    Sequential known{Linear<float>{6, 24, random}, turned,
                     SequencePool<float>{8, SequencePooling::last}, Linear<float>{8, 2, random}};
    folder.add_dense("known_positions", known, 6, {}, random);
    folder.add_tokens("attention_pool", weighted, 12, 8, false, {}, random, batches);
}

}  // namespace

int main(int argc, char** argv) try {
    const std::string folder = argc == 2 ? argv[1] : "";
    if (folder.empty()) {
        std::fputs("usage: write FOLDER\n", stderr);
        return 2;
    }
    std::filesystem::create_directories(folder);
    Philox random{16};
    ModelFolder models{folder};
    add_dense(models, random);
    add_images(models, random);
    add_sequences(models, random);
    models.finish();
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
