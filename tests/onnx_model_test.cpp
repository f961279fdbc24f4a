// SPDX-License-Identifier: MIT
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/export/onnx_model.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;
using detail::OnnxModel;
using detail::OnnxType;

void append(Bytes& bytes, const std::string& text) {
    bytes.insert(bytes.end(), text.begin(), text.end());
}

}  // namespace

TEST_CASE("OnnxModel: a model of one operation, byte by byte", "[onnx_model]") {
    OnnxModel model(OnnxType::float32);
    const std::string x = model.add_input("input", OnnxType::float32, {{0, "batch"}, {2}});
    const float number = 0.5f;
    const std::string half = model.tensor("", {"half", {1}, {1}}, &number);
    const std::string y = model.node("", "Mul", {x, half}, {});
    const std::string version =
        detail::message(STOCHASTIC_DEPTH_VERSION_MAJOR, ".", STOCHASTIC_DEPTH_VERSION_MINOR, ".",
                        STOCHASTIC_DEPTH_VERSION_PATCH);
    REQUIRE(version.size() == 5);

    Bytes expected{0x08, 0x08, 0x12, 0x10};  // IR version 8, the producer
    append(expected, "stochastic_depth");
    expected.insert(expected.end(), {0x1a, 0x05});
    append(expected, version);
    expected.insert(expected.end(), {0x42, 0x04, 0x0a, 0x00, 0x10, 0x11});  // operator set 17
    expected.insert(expected.end(), {0x72, 0x06, 0x0a, 0x01, 'k', 0x12, 0x01, 'v'});
    expected.insert(expected.end(), {0x3a, 0x72});  // the graph
    expected.insert(expected.end(), {0x0a, 0x22, 0x0a, 0x05});
    append(expected, "input");
    expected.insert(expected.end(), {0x0a, 0x04});
    append(expected, "half");
    expected.insert(expected.end(), {0x12, 0x06});
    append(expected, "output");
    expected.insert(expected.end(), {0x1a, 0x06});
    append(expected, "output");
    expected.insert(expected.end(), {0x22, 0x03});
    append(expected, "Mul");
    expected.insert(expected.end(), {0x12, 0x07});
    append(expected, "network");
    // The tensor: one axis of 1, floats, its name, 0.5.
    expected.insert(expected.end(), {0x2a, 0x10, 0x08, 0x01, 0x10, 0x01, 0x42, 0x04});
    append(expected, "half");
    expected.insert(expected.end(), {0x4a, 0x04, 0x00, 0x00, 0x00, 0x3f});
    expected.insert(expected.end(), {0x52, 0x01, 'a'});
    // Input, [batch, 2], and output, without axes.
    expected.insert(expected.end(), {0x5a, 0x1c, 0x0a, 0x05});
    append(expected, "input");
    expected.insert(expected.end(),
                    {0x12, 0x13, 0x0a, 0x11, 0x08, 0x01, 0x12, 0x0d, 0x0a, 0x07, 0x12, 0x05});
    append(expected, "batch");
    expected.insert(expected.end(), {0x0a, 0x02, 0x08, 0x02});
    expected.insert(expected.end(), {0x62, 0x10, 0x0a, 0x06});
    append(expected, "output");
    expected.insert(expected.end(), {0x12, 0x06, 0x0a, 0x04, 0x08, 0x01, 0x12, 0x00});
    CHECK(model.finish(y, {}, "a", {{"k", "v"}}) == expected);
}

TEST_CASE("OnnxModel: names are there once, operations and constants too", "[onnx_model]") {
    OnnxModel model(OnnxType::float64);
    const std::string x = model.add_input("input", OnnxType::float64, {{0, "batch"}, {2}});
    const std::string exp = model.node("0", "Exp", {x}, {});
    CHECK(exp == "0/Exp");
    CHECK(model.node("1", "Exp", {x}, {}) == exp);
    CHECK(model.node("0", "Exp", {exp}, {}) == "0/Exp_2");
    CHECK(model.node("0", "Softmax", {x}, {{"axis", 0}}) == "0/Softmax");
    CHECK(model.node("0", "Softmax", {x}, {{"axis", 1}}) == "0/Softmax_2");
    CHECK(model.node("1", "Softmax", {x}, {{"axis", 1}}) == "0/Softmax_2");
    const double numbers[] = {1, 2, 3, 4};
    CHECK(model.tensor("0", {"weight", {2, 2}, {1, 2}}, numbers) == "0.weight");
    CHECK(model.tensor("0", {"weight", {2, 2}, {1, 2}}, numbers) == "0.weight_2");
    // What the network's input and output are called is taken.
    CHECK(model.tensor("", {"input", {4}, {1}}, numbers) == "input_2");
    CHECK(model.tensor("", {"output", {4}, {1}}, numbers) == "output_2");
    const auto half = [&] {
        return model.constants("half", OnnxType::float64, {}, std::vector{0.5});
    };
    CHECK(half() == "half");
    CHECK(half() == "half");
    CHECK(model.constants("half", OnnxType::float64, {1}, std::vector{0.5}) == "half_2");
    CHECK(model.constants("half", OnnxType::float32, {}, std::vector{0.5}) == "half_3");
}

TEST_CASE("OnnxModel: what protobuf has no room for is refused before memory is taken",
          "[onnx_model]") {
    OnnxModel model(OnnxType::float32);
    const float number = 0;
    const Index side = Index{1} << 16;
    const auto tensor_of = [&](const std::vector<Index>& shape) {
        return refusal([&] {
            (void)model.tensor("0", {"weight", shape, std::vector<Index>(shape.size(), 0)},
                               &number);
        });
    };
    CHECK(tensor_of({side, side / 8}) ==
          "export_onnx: file must have at most 2147483647 bytes, as a message of protobuf, got "
          "2147483648");
    // No size overflows.
    CHECK(tensor_of({side * side, side * side}) != "accepted");
    CHECK(tensor_of({std::numeric_limits<Index>::max(), std::numeric_limits<Index>::max()}) !=
          "accepted");
    CHECK(tensor_of({side, 4}) == "accepted");
    CHECK(tensor_of({side, side / 8 - 4}) != "accepted");
}
