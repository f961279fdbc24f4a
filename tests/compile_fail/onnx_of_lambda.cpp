// EXPECT: export_onnx: a layer of this type has no form in ONNX
// SPDX-License-Identifier: MIT
#include <stochastic_depth/export/onnx.hpp>
#include <stochastic_depth/layers/function.hpp>

namespace sd = stochastic_depth;

void run() {
    const sd::Sequential network{sd::function<float>([](const auto& x) { return 2 * x; })};
    sd::export_onnx("network.onnx", network);
}
