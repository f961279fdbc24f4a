// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/export/onnx.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/pass/protocol.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/onnx_reader.hpp"
#include "support/refusal.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

using Branch = Sequential<Linear<float>, Tanh<float>, Linear<float>>;
using Block = StochasticDepth<Residual<Branch>>;

/// p = 0.8, 1 and 0.4.
[[nodiscard]] auto residual_network(Philox& random) {
    std::vector<Block> blocks;
    for (const double p : {0.8, 1.0, 0.4})
        blocks.push_back(Block{Residual{Branch{linear<float>(random, 4, 6), Tanh<float>{},
                                               linear<float>(random, 6, 4)}},
                               SurvivalProbability{p}});
    return Sequential{linear<float>(random, 3, 4), Stack{std::move(blocks)},
                      linear<float>(random, 4, 2)};
}

template <class Network>
[[nodiscard]] OnnxFile exported(const Network& network, const OnnxOptions& options = {}) {
    const TemporaryFile file;
    export_onnx(file.path(), network, options);
    return OnnxFile::read(file.path());
}

/// A composite of one's own: x + first(x) second(x), side by side.
template <class First, class Second>
class Product : public LayerBase<Product<First, Second>, float, First, Second> {
public:
    Product(First first, Second second) : first_(std::move(first)), second_(std::move(second)) {}
    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    template <class Memory>
    struct Record {
        pass::RecordOf<First, Memory> first;
        pass::RecordOf<Second, Memory> second;
    };
    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        Batch a = batch.shared(), b = batch.shared();
        pass::run(first_, a, record.first, mask, detail::AsIs{});
        pass::run(second_, b, record.second, mask.behind(first_), detail::AsIs{});
        Batch y = batch.room(batch.rows());
        y.writable() = batch.current().array() + a.current().array() * b.current().array();
        batch = std::move(y);
        batch.apply(epilogue);
    }
    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        visit("first", self.first_, others.first...);
        visit("second", self.second_, others.second...);
    }
    [[nodiscard]] OnnxValue write_onnx(OnnxGraph& graph, const OnnxValue& x,
                                       const OnnxMask& mask) const {
        const OnnxValue a = graph.features(graph.part("first", first_, x, mask));
        const OnnxValue b = graph.features(graph.part("second", second_, x, mask.behind(first_)));
        return a.renamed(graph.node("Add", {x.name, graph.node("Mul", {a.name, b.name})}));
    }

private:
    First first_;
    Second second_;
};

template <class Network>
void check_outputs(const Network& network, Index inputs, const OnnxOptions& options) {
    Philox random{5};
    const auto x = random_matrix<float>(random, inputs, 6);
    const Matrix<float> y = options.weight_scaling ? WeightScaling{}(network, x).mean
                            : options.mask         ? network(x, *options.mask)
                                                   : network(x);
    const Matrix<double> found = exported(network, options).run(x.cast<double>());
    CHECK(largest_difference(found, y.cast<double>()) < 1e-6);
}

}  // namespace

TEST_CASE("export_onnx: the graph of a residual network", "[onnx]") {
    Philox random{1};
    const auto network = residual_network(random);
    const OnnxFile file = exported(network);
    CHECK(file.ir_version == 8);
    CHECK(file.operator_set == 17);
    CHECK(file.producer == "stochastic_depth");
    CHECK(file.about == describe(network));
    CHECK(file.metadata ==
          std::map<std::string, std::string>{{"survival_probabilities", "[0.8,1,0.4]"},
                                             {"survival_mask", "[1,1,1]"}});
    CHECK(file.inputs == std::vector<std::string>{"input [batch,3]"});
    CHECK(file.outputs == std::vector<std::string>{"output [batch,2]"});
    CHECK(file.operations() ==
          "MatMul Add "
          "MatMul Add Tanh MatMul Add Add MatMul Add Tanh MatMul Add Add "
          "MatMul Add Tanh MatMul Add Add MatMul Add");
    CHECK(file.nodes.back().output == "output");
    // Row-major [inputs, outputs], as W lies in memory.
    const OnnxTensor& weight = file.tensors.at("0.weight");
    const Matrix<float>& w = std::get<0>(network.layers()).weights();
    CHECK(weight.shape == std::vector<Index>{3, 4});
    CHECK(weight.numbers<float>() == std::vector<float>(w.data(), w.data() + w.size()));
    CHECK(file.tensors.at("1.2.branch.0.bias").shape == std::vector<Index>{6});
    check_outputs(network, 3, {});
}

TEST_CASE("export_onnx: what a mask skips is not in the file", "[onnx]") {
    Philox random{2};
    const auto network = residual_network(random);
    const OnnxFile some = exported(network, {.mask = SurvivalMask{0, 1, 0}});
    CHECK(some.operations() == "MatMul Add MatMul Add Tanh MatMul Add Add MatMul Add");
    CHECK(some.metadata.at("survival_mask") == "[0,1,0]");
    CHECK_FALSE(some.has_tensor_below("1.0."));
    CHECK(some.has_tensor_below("1.1."));
    CHECK_FALSE(some.has_tensor_below("1.2."));
    const OnnxFile none = exported(network, {.mask = SurvivalMask::none(3)});
    CHECK(none.operations() == "MatMul Add MatMul Add");
    CHECK(none.tensors.size() == 4);
    for (int bits = 0; bits < 8; ++bits)
        check_outputs(network, 3, {.mask = SurvivalMask{bits & 1, bits >> 1 & 1, bits >> 2}});
}

TEST_CASE("export_onnx: weight scaling multiplies the branches that may be skipped", "[onnx]") {
    Philox random{3};
    const auto network = residual_network(random);
    const OnnxFile file = exported(network, {.weight_scaling = true});
    CHECK(file.operations() ==
          "MatMul Add "
          "MatMul Add Tanh MatMul Add Mul Add MatMul Add Tanh MatMul Add Add "
          "MatMul Add Tanh MatMul Add Mul Add MatMul Add");
    CHECK(file.metadata ==
          std::map<std::string, std::string>{{"survival_probabilities", "[0.8,1,0.4]"},
                                             {"weight_scaling", "true"}});
    check_outputs(network, 3, {.weight_scaling = true});
    // Of a layer without a branch, the mean of what it gives and what it gets.
    const StochasticDepth layer{linear<float>(random, 3, 3), SurvivalProbability{0.25}};
    CHECK(exported(layer, {.weight_scaling = true}).operations() == "MatMul Add Sub Mul Add");
    check_outputs(layer, 3, {.weight_scaling = true});
    check_outputs(layer, 3, {.mask = SurvivalMask{0}});
}

TEST_CASE("export_onnx: layers inside skippable layers, and composites of one's own", "[onnx]") {
    Philox random{4};
    const auto block = [&](double p) {
        return StochasticDepth{Residual{linear<float>(random, 3, 3)}, SurvivalProbability{p}};
    };
    const StochasticDepth outer{Residual{Sequential{block(0.5), ReLU<float>{}, block(0.25)}},
                                SurvivalProbability{0.75}};
    const Sequential network{Product{outer, block(0.3)}, block(0.6)};
    REQUIRE(network.depth() == 5);
    CHECK(exported(network, {.inputs = 3}).operations() == exported(network).operations());
    CHECK(exported(network, {.mask = SurvivalMask{0, 1, 1, 0, 0}}).operations() == "Mul Add");
    for (int bits = 0; bits < 32; ++bits) {
        SurvivalMask mask = SurvivalMask::none(5);
        for (Index l = 0; l < 5; ++l)
            if (bits >> l & 1) mask.keep(l);
        check_outputs(network, 3, {.mask = mask});
    }
}

TEST_CASE("export_onnx: networks without a layer, or that tell nothing of their input", "[onnx]") {
    const Sequential activation{ReLU<float>{}};
    CHECK(refusal([&] { (void)exported(activation); }) ==
          "export_onnx: the network's first layer doesn't tell how many rows it takes: "
          "OnnxOptions::inputs must");
    CHECK(exported(activation, {.inputs = 7}).inputs ==
          std::vector<std::string>{"input [batch,7]"});
    CHECK(refusal([&] { (void)exported(activation, {.inputs = -1}); }) ==
          "export_onnx: inputs must be at least 0, got -1");
    const Stack nothing{std::vector<Block>{}};
    const OnnxFile file = exported(nothing, {.inputs = 2});
    CHECK(file.operations() == "Identity");
    CHECK(file.metadata.empty());
    CHECK(file.outputs == std::vector<std::string>{"output [batch,2]"});
    Philox random{5};
    const auto network = residual_network(random);
    CHECK(refusal([&] { (void)exported(network, {.inputs = 4}); }) ==
          "Linear: input must have 3 rows, got 4");
    CHECK(exported(network, {.inputs = 3}).inputs == std::vector<std::string>{"input [batch,3]"});
}

TEST_CASE("export_onnx: images are [batch, channels, height, width]", "[onnx]") {
    Philox random{6};
    const ImageShape shape{2, 5, 4};
    const Conv2d<double> convolution{
        shape, {.channels = 3, .kernel = 2, .stride = 3, .padding = 1}, random};
    const OnnxFile file = exported(convolution);
    CHECK(file.inputs == std::vector<std::string>{"input [batch,2,5,4]"});
    CHECK(file.outputs == std::vector<std::string>{"output [batch,3,2,2]"});
    REQUIRE(file.operations() == "Conv");
    using Numbers = std::vector<std::int64_t>;
    CHECK(file.nodes[0].attributes == std::map<std::string, Numbers>{{"kernel_shape", {2, 2}},
                                                                     {"pads", {1, 1, 1, 1}},
                                                                     {"strides", {3, 3}}});
    const OnnxTensor& weight = file.tensors.at("weight");
    REQUIRE(weight.shape == std::vector<Index>{3, 2, 2, 2});
    CHECK(weight.type == 11);
    std::vector<double> expected;
    for (Index o = 0; o < 3; ++o)
        for (Index c = 0; c < 2; ++c)
            for (Index v = 0; v < 2; ++v)
                for (Index u = 0; u < 2; ++u)
                    expected.push_back(convolution.weights()(o, c + 2 * (u + 2 * v)));
    CHECK(weight.numbers<double>() == expected);
    const OnnxFile rounded = exported(convolution, {.single_precision = true});
    CHECK(rounded.tensors.at("weight").type == 1);
    CHECK(rounded.tensors.at("weight").numbers<float>() ==
          std::vector<float>(expected.begin(), expected.end()));
    // Features of images are in the library's order.
    const Sequential with_head{convolution, Linear<double>{12, 2, random}};
    CHECK(exported(with_head).operations() == "Conv Transpose Reshape MatMul Add");
}

TEST_CASE("export_onnx: sequences have an input of their lengths", "[onnx]") {
    Philox random{7};
    const Embedding<float> embedding{{.vocabulary = 5, .positions = 7, .width = 4}, random};
    const MultiHeadAttention<float> attention{{.width = 4, .heads = 2, .rotary = true}, random};
    const Sequential network{embedding, attention};
    const OnnxFile file = exported(network);
    CHECK(file.inputs == std::vector<std::string>{"tokens [batch,positions]", "lengths [batch]"});
    CHECK(file.outputs == std::vector<std::string>{"output [batch,positions,4]"});
    CHECK(file.tensors.at("0.weight").shape == std::vector<Index>{5, 4});
    CHECK(file.tensors.at("rotary_cosines").shape == std::vector<Index>{7, 1});
    CHECK(exported(network, {.inputs = 6}).outputs ==
          std::vector<std::string>{"output [batch,6,4]"});
    // Without an embedding nothing tells how far positions go.
    CHECK(refusal([&] { (void)exported(Sequential{attention}); }) ==
          "export_onnx: 0: rotary positions need OnnxOptions::inputs, the number of rows");
    CHECK(exported(attention, {.inputs = 12}).inputs ==
          std::vector<std::string>{"input [batch,3,4]"});
    CHECK(refusal([&] {
              (void)exported(Sequential{Linear<float>{3, 4, random}, embedding});
          }) == "export_onnx: 1: an Embedding must be the network's first layer");
    CHECK(refusal([&] {
              (void)exported(Sequential{PerPosition{4, attention}});
          }) == "export_onnx: 0: a layer of sequences inside PerPosition has no form in ONNX here");
}

TEST_CASE("export_onnx: what is wrong with the options is said, and no file is written", "[onnx]") {
    Philox random{8};
    const auto network = residual_network(random);
    const TemporaryDirectory directory;
    const std::string path = directory.file("network.onnx");
    CHECK(refusal([&] {
              export_onnx(path, network, {.mask = SurvivalMask{1, 0}});
          }) == "export_onnx: mask must have 3 layers, got 2");
    CHECK(refusal([&] {
              export_onnx(path, network, {.mask = SurvivalMask::all(3), .weight_scaling = true});
          }) == "export_onnx: mask must not be given with weight_scaling");
    CHECK(directory.count() == 0);
}

TEST_CASE("export_onnx: a file that can't be written leaves the old one alone", "[onnx]") {
    Philox random{9};
    const auto network = residual_network(random);
    const TemporaryDirectory directory;
    const std::string path = directory.file("network.onnx");
    CHECK(holds(thrown<std::runtime_error>(
                    [&] { export_onnx(directory.file("none/network.onnx"), network); }),
                "export_onnx: ", "none/network.onnx: cannot create the file"));
    export_onnx(path, network);
    const Bytes before = read(path);
    // A directory stands where the new file would be written.
    std::filesystem::create_directory(path + ".partial");
    CHECK(holds(thrown<std::runtime_error>(
                    [&] { export_onnx(path, network, {.mask = SurvivalMask::none(3)}); }),
                path, "cannot create the file"));
    CHECK(read(path) == before);
    std::filesystem::remove(path + ".partial");
    export_onnx(path, network);
    CHECK(read(path) == before);
    CHECK(directory.count() == 1);
}

TEST_CASE("export_onnx: numbers that are not finite are written as they are", "[onnx]") {
    Matrix<float> weights(1, 3);
    weights << std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        -0.f;
    const Vector<float> bias{{std::numeric_limits<float>::quiet_NaN()}};
    const OnnxFile file = exported(Linear<float>{weights, bias});
    const std::vector<float> found = file.tensors.at("weight").numbers<float>();
    REQUIRE(found.size() == 3);
    CHECK(found[0] == weights(0));
    CHECK(found[1] == weights(1));
    CHECK(std::signbit(found[2]));
    CHECK(std::isnan(file.tensors.at("bias").numbers<float>().at(0)));
}
