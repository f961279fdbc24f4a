// SPDX-License-Identifier: MIT
#include <stochastic_depth/export/header.hpp>

#include <cstddef>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/export/header_any_layer.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

// What written headers compute, written_headers compiles and compares with the library
// (tests/written_header).

namespace {

using namespace stochastic_depth;

using Block = StochasticDepth<Residual<Sequential<Linear<float>, ReLU<float>>>>;
using Network = Sequential<Linear<float>, Stack<Block>, Linear<float>>;

/// 3 inputs, `depth` skippable layers of width 4, 2 outputs. All weights of layer l are l + 1.
Network network(Index depth) {
    const auto linear = [](Index inputs, Index outputs, float weight) {
        return Linear<float>{Matrix<float>::Constant(outputs, inputs, weight),
                             Vector<float>::Zero(outputs)};
    };
    std::vector<Block> blocks;
    for (Index l = 0; l < depth; ++l)
        blocks.emplace_back(
            Residual{Sequential{linear(4, 4, static_cast<float>(l + 1)), ReLU<float>{}}},
            SurvivalProbability{0.75});
    return Network{linear(3, 4, 100), Stack{std::move(blocks)}, linear(4, 2, 200)};
}

template <class Call>
std::string refusal(const Call& call) {
    return thrown<std::invalid_argument>(call);
}

TEST_CASE("header_literal: the number to the last bit", "[header]") {
    CHECK(header_literal(1.5F) == "0x1.8p+0F");
    CHECK(header_literal(-1.5) == "-0x1.8p+0");
    CHECK(header_literal(0.0F) == "0x0p+0F");
    CHECK(header_literal(-0.0) == "-0x0p+0");
    CHECK(header_literal(0.1F) == "0x1.99999ap-4F");
    CHECK(header_literal(0.1) == "0x1.999999999999ap-4");
    for (const float number : {std::numeric_limits<float>::denorm_min(),
                               std::numeric_limits<float>::max(), 1.0F / 3.0F}) {
        const std::string text = header_literal(number);
        CHECK(std::stof(text.substr(0, text.size() - 1)) == number);
    }
}

TEST_CASE("header_text: what a mask skips is not there", "[header]") {
    const Network three = network(3);
    const std::string text = header_text(three, SurvivalMask{1, 0, 1});
    CHECK(holds(text, "layer_1_0_branch_0_weights[16]", "layer_1_2_branch_0_weights[16]",
                "linear<3, 4>", "linear<4, 2>", "each<4, relu>"));
    CHECK(text.find("layer_1_1") == std::string::npos);
    CHECK(text.find(header_literal(2.0F)) == std::string::npos);
    CHECK(header_text(three, SurvivalMask{0, 0, 0}).find("relu") == std::string::npos);
    CHECK(holds(header_text(network(0), SurvivalMask::all(0)), "linear<3, 4>", "linear<4, 2>"));
}

TEST_CASE("header_text: with weight scaling a kept branch is multiplied by p", "[header]") {
    const std::string factor = header_literal(0.75F);
    const Network two = network(2);
    CHECK(header_text(two, SurvivalMask{1, 0}).find(factor) == std::string::npos);
    const std::string text = header_text(two, SurvivalMask{1, 0}, {.weight_scaling = true});
    CHECK(holds(text, "add_scaled<4>(" + factor));
    CHECK(text.find("layer_1_1") == std::string::npos);
}

TEST_CASE("header_text: names, sizes and memory", "[header]") {
    const std::string text = header_text(network(1), SurvivalMask{1},
                                         {.name_space = "plug_in::small", .function = "run_2"});
    CHECK(holds(text, "namespace plug_in::small {", "inline constexpr int inputs = 3;",
                "inline constexpr int outputs = 2;",
                "inline void run_2(const float* x, float* y) noexcept"));
    // Two pieces for 4 numbers, each 16 long.
    CHECK(holds(text, "working_memory = 128;", "Scalar memory[32];"));
    // The only product's result goes where the output does.
    CHECK(holds(
        header_text(Sequential{Linear<float>{Matrix<float>::Ones(2, 3), Vector<float>::Zero(2)},
                               ReLU<float>{}},
                    SurvivalMask::all(0)),
        "working_memory = 0;", "x, y);", "each<2, relu>(y);"));
}

TEST_CASE("write_header: a file that holds the text, replaced in one step", "[header]") {
    const test::TemporaryDirectory directory;
    const std::string path = directory.file("network.hpp");
    test::write(path, {1, 2, 3});
    write_header(path, network(2), SurvivalMask{0, 1}, {.function = "f"});
    const test::Bytes bytes = test::read(path);
    CHECK(std::string(bytes.begin(), bytes.end()) ==
          header_text(network(2), SurvivalMask{0, 1}, {.function = "f"}));
    CHECK(directory.count() == 1);

    const std::string nowhere = directory.file("no such directory/network.hpp");
    CHECK(holds(thrown<std::runtime_error>([&] {
                    write_header(nowhere, network(2), SurvivalMask{0, 1});
                }),
                "write_header: ", nowhere, "cannot create the file"));
    // What is refused leaves the old file.
    CHECK(holds(refusal([&] { write_header(path, network(2), SurvivalMask{1}); }),
                "write_header: mask must have 2 layers, got 1"));
    CHECK(test::read(path) == bytes);
}

TEST_CASE("header_text: refuses names that C++ does not take", "[header]") {
    const Network one = network(1);
    const SurvivalMask mask{1};
    for (const char* name : {"", "2d", "a-b", "a b", "float", "std", "detail", "inputs", "_x",
                             "a__b", "f()", "na\xc3\xafve", "x;"}) {
        CAPTURE(name);
        CHECK(holds(refusal([&] { (void)header_text(one, mask, {.function = name}); }),
                    "header_text: function must be an identifier, got "));
        CHECK(holds(refusal([&] { (void)header_text(one, mask, {.name_space = name}); }),
                    "header_text: name_space must be an identifier"));
    }
    for (const char* name : {"::a", "a::", "a:b", "a::::b", "a::int", "a.b"}) {
        CAPTURE(name);
        CHECK(holds(refusal([&] { (void)header_text(one, mask, {.name_space = name}); }), "got ",
                    name));
    }
}

TEST_CASE("header_text: refuses weights that are not finite, of layers that are kept", "[header]") {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        Matrix<float> weights = Matrix<float>::Ones(4, 4);
        weights(1, 2) = bad;
        const Stack<Block> stack{{Block{
            Residual{Sequential{Linear<float>{weights, Vector<float>::Zero(4)}, ReLU<float>{}}},
            SurvivalProbability{0.5}}}};
        CHECK(holds(refusal([&] { (void)header_text(stack, SurvivalMask{1}); }),
                    "header_text: layer 0.branch.0: Linear 4 -> 4: weights must be finite, got ",
                    "as number 9"));
        CHECK(holds(header_text(stack, SurvivalMask{0}), "copy<4>(x, y);"));
    }
}

TEST_CASE("header_text: inputs are as the network tells, or as the caller does", "[header]") {
    const SurvivalMask none;
    const Sequential any{ReLU<float>{}};
    CHECK(holds(refusal([&] { (void)header_text(any, none); }), "HeaderOptions::inputs must"));
    CHECK(holds(header_text(any, none, {.inputs = 7}), "inputs = 7;", "outputs = 7;"));
    CHECK(holds(refusal([&] { (void)header_text(any, none, {.inputs = -1}); }), "got -1"));
    CHECK(holds(refusal([&] { (void)header_text(network(0), none, {.inputs = 4}); }),
                "input must have 3 rows, got 4"));
}

TEST_CASE("header_text: an AnyLayer of a type that is not listed is refused by name", "[header]") {
    const Network inside = network(1);
    const Stack<AnyLayer<float>> stack{
        {std::get<0>(inside.layers()), std::get<1>(inside.layers()).layers().front()}};
    const SurvivalMask mask{1};
    CHECK(holds(refusal([&] {
                    (void)header_text(stack, mask, {.inputs = 3, .held = held_layers<Block>()});
                }),
                "header_text: layer 0: AnyLayer: ", "HeaderOptions::held"));
    const std::string text = header_text(
        stack, mask, {.inputs = 3, .held = held_layers<Block, Linear<float>, Linear<double>>()});
    CHECK(holds(text, "linear<3, 4>(layer_0_weights", "linear<4, 4>(layer_1_branch_0_weights"));
}

TEST_CASE("AnyLayer: the layer that it holds, by its type", "[header]") {
    const AnyLayer<float> layer = ReLU<float>{};
    CHECK(layer.held<ReLU<float>>() != nullptr);
    CHECK(layer.held<Linear<float>>() == nullptr);
}

}  // namespace
