// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/safetensors.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/image/batch_norm2d.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/normalisation/rms_norm.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::Bytes;
using test::read;
using test::same_bits;
using test::TemporaryFile;
using test::write;

/// A file, byte by byte as the format is described: length, header, data.
Bytes file_of(const std::string& header, const Bytes& data) {
    Bytes bytes;
    for (int i = 0; i < 8; ++i)
        bytes.push_back(static_cast<std::uint8_t>(std::uint64_t{header.size()} >> (8 * i)));
    bytes.insert(bytes.end(), header.begin(), header.end());
    bytes.insert(bytes.end(), data.begin(), data.end());
    return bytes;
}
void append(Bytes& bytes, std::uint64_t bits, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>(bits >> (8 * i)));
}
Bytes floats(const std::vector<float>& numbers) {
    Bytes bytes;
    for (const float number : numbers) append(bytes, std::bit_cast<std::uint32_t>(number), 4);
    return bytes;
}

std::string header_of(const Bytes& bytes) {
    std::size_t length = 0;
    for (std::size_t i = 8; i-- > 0;) length = length << 8 | bytes.at(i);
    return {bytes.begin() + 8, bytes.begin() + 8 + static_cast<std::ptrdiff_t>(length)};
}

/// All numbers of a network, parameters and state.
template <class Network>
std::vector<double> numbers_of(const Network& network) {
    std::vector<double> numbers;
    detail::for_each_tensor(network, [&](const std::string&, const TensorForm& form,
                                         const auto* first) {
        Index count = 1;
        for (const Index size : form.shape) count *= size;
        for (Index i = 0; i < count; ++i) numbers.push_back(static_cast<double>(first[i]));
    });
    return numbers;
}

template <class Network>
void set_numbers(Network& network, double first) {
    detail::for_each_tensor(network, [&]<class Number>(const std::string&, const TensorForm& form,
                                                       Number* to) {
        Index count = 1;
        for (const Index size : form.shape) count *= size;
        for (Index i = 0; i < count; ++i) to[i] = static_cast<Number>(first += 0.25);
    });
}

/// "name [shape]" of each tensor, in order.
template <class Network>
std::vector<std::string> tensors_of(const Network& network) {
    std::vector<std::string> list;
    detail::for_each_tensor(network,
                            [&](const std::string& name, const TensorForm& form, const auto*) {
                                list.push_back(name + " " + detail::text_of_shape(form.shape));
                            });
    return list;
}

template <class Network>
std::string load_error(const std::string& path, Network& network) {
    return thrown<std::runtime_error>([&] { load_safetensors(path, network); });
}

/// x -> W x + b, three inputs, two outputs.
Linear<float> linear(float first = 0) {
    Eigen::MatrixXf weights(2, 3);
    weights << first + 1, first + 2, first + 3, first + 4, first + 5, first + 6;
    return {weights, Eigen::Vector2f{first + 7, first + 8}};
}
const std::string linear_header =
    R"({"__metadata__":{"format":"pt"},"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
    R"("weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}})";
const std::vector<float> linear_numbers = {7, 8, 1, 2, 3, 4, 5, 6};

/// A layer of somebody else's, that says nothing of PyTorch.
struct Shift {
    using Scalar = float;
    struct Gradient {
        Eigen::VectorXf shift;
        void set_zero() { shift.setZero(); }
    };
    using Cache = detail::NoCache;
    Eigen::VectorXf shift = Eigen::VectorXf::Zero(2);
    Eigen::MatrixXf table = Eigen::MatrixXf::Zero(2, 1);
    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y) const {
        y = x.colwise() + shift;
    }
    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("shift", self.shift, gradients.shift...);
    }
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        visit("table", self.table);
    }
};

}  // namespace

TEST_CASE("save_safetensors: the bytes are those that the format describes", "[safetensors]") {
    const TemporaryFile file;
    save_safetensors(file.path(), linear());
    std::string header = linear_header;
    while (header.size() % 8 != 0) header += ' ';
    CHECK(read(file.path()) == file_of(header, floats(linear_numbers)));

    // Survival probabilities, and numbers of double.
    const Linear<double> half{Eigen::MatrixXd::Constant(1, 1, 0.5), Eigen::VectorXd::Constant(1, -2)};
    save_safetensors(file.path(),
                     Sequential{StochasticDepth{Residual{half}, SurvivalProbability{0.1}}});
    header = R"({"__metadata__":{"format":"pt","survival_probabilities":"[0.1]"},)"
             R"("0.branch.bias":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
             R"("0.branch.weight":{"dtype":"F64","shape":[1,1],"data_offsets":[8,16]}})";
    while (header.size() % 8 != 0) header += ' ';
    Bytes data;
    append(data, std::bit_cast<std::uint64_t>(-2.0), 8);
    append(data, std::bit_cast<std::uint64_t>(0.5), 8);
    CHECK(read(file.path()) == file_of(header, data));
}

TEST_CASE("load_safetensors: a file put together byte by byte is read", "[safetensors]") {
    const TemporaryFile file;
    Linear<float> network = linear(10);
    write(file.path(), file_of(linear_header, floats(linear_numbers)));
    load_safetensors(std::filesystem::path(file.path()), network);
    CHECK(same_bits(network.weights(), linear().weights()));
    CHECK(same_bits(network.bias(), linear().bias()));
    // Other order, white space, escapes, no metadata, data that is not aligned.
    network = linear(10);
    write(file.path(),
          file_of("{ \"we\\u0069ght\" :\t{\"data_offsets\": [0 , 24],\n\"shape\":[2,3],"
                  "\"dtype\":\"F32\"}, \"bias\":{\"dtype\":\"\\u00463\\u0032\",\"shape\":[ 2 ],"
                  "\"data_offsets\":[24,32]}}\r\n",
                  floats({1, 2, 3, 4, 5, 6, 7, 8})));
    load_safetensors(file.path(), network);
    CHECK(same_bits(network.weights(), linear().weights()));
    CHECK(same_bits(network.bias(), linear().bias()));
}

TEST_CASE("load_safetensors: F16 and BF16 are widened, F64 is for networks of double",
          "[safetensors]") {
    const TemporaryFile file;
    const std::string header =
        R"({"bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
        R"("weight":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]}})";
    Bytes data;
    // 1.5, -0.0078125; 1, -2, 65504, 2^-24, infinity, 0.333251953125
    for (const unsigned bits : {0x3fc0u, 0xbc00u, 0x3c00u, 0xc000u, 0x7bffu, 0x0001u, 0x7c00u, 0x3555u})
        append(data, bits, 2);
    write(file.path(), file_of(header, data));
    const auto check = [&](auto network) {
        load_safetensors(file.path(), network);
        CHECK(network.bias()(0) == 1.5);
        CHECK(network.bias()(1) == -0.0078125);
        CHECK(network.weights()(0, 0) == 1);
        CHECK(network.weights()(0, 1) == -2);
        CHECK(network.weights()(0, 2) == 65504);
        CHECK(static_cast<double>(network.weights()(1, 0)) == 0x1p-24);
        CHECK(std::isinf(network.weights()(1, 1)));
        CHECK(network.weights()(1, 2) == 0.333251953125);
    };
    check(linear());
    const Linear<double> wide{Eigen::MatrixXd::Constant(2, 3, 1.0 / 3), Eigen::Vector2d(1, 2)};
    check(wide);
    save_safetensors(file.path(), wide);
    Linear<double> other{Eigen::MatrixXd::Zero(2, 3), Eigen::Vector2d(0, 0)};
    load_safetensors(file.path(), other);
    CHECK(same_bits(other.weights(), wide.weights()));
    Linear<float> narrow = linear();
    CHECK(holds(load_error(file.path(), narrow), "must be of F16, BF16 or F32, found F64"));
}

TEST_CASE("save_safetensors: names and shapes are PyTorch's", "[safetensors]") {
    Philox random{1};
    const ImageShape image{3, 5, 4};
    const auto images =
        Sequential{Conv2d<float>{image, {.channels = 2, .kernel = 3, .padding = 1}, random},
                   BatchNorm2d<float>{{2, 5, 4}}};
    CHECK(tensors_of(images) ==
          std::vector<std::string>{"0.weight [2, 3, 3, 3]", "0.bias [2]", "1.weight [2]",
                                   "1.bias [2]", "1.running_mean [2]", "1.running_var [2]"});
    const auto sequences =
        Sequential{Embedding<float>{{.vocabulary = 7, .positions = 3, .width = 4}, random},
                   MultiHeadAttention<float>{{.width = 4, .heads = 2}, random},
                   PerPosition{4, Sequential{RmsNorm<float>{4}, LayerNorm<float>{4}}}};
    CHECK(tensors_of(sequences) ==
          std::vector<std::string>{"0.weight [7, 4]", "0.positions [3, 4]",
                                   "1.in_proj_weight [12, 4]", "1.in_proj_bias [12]",
                                   "1.out_proj.weight [4, 4]", "1.out_proj.bias [4]",
                                   "2.0.weight [4]", "2.1.weight [4]", "2.1.bias [4]"});
    // One input or output, known when compiling: a matrix is still one.
    CHECK(tensors_of(Linear<float, 1, 4>{random}).front() == "weight [4, 1]");
    CHECK(tensors_of(Linear<float, 4, 1>{random}).front() == "weight [1, 4]");
    // A layer of somebody else's keeps its names.
    CHECK(tensors_of(Sequential{Shift{}}) ==
          std::vector<std::string>{"0.shift [2]", "0.table [2, 1]"});
    CHECK(tensors_of(AnyLayer<float>{Shift{}}) ==
          std::vector<std::string>{"shift [2]", "table [2, 1]"});
}

TEST_CASE("save_safetensors: entries of convolutions and embeddings are where PyTorch has them",
          "[safetensors]") {
    const TemporaryFile file;
    Philox random{2};
    // 40 channels and a kernel of 3: more than one tile each way.
    const Conv2d<float> convolution{{5, 6, 6}, {.channels = 40, .kernel = 3, .bias = false}, random};
    save_safetensors(file.path(), convolution);
    const Bytes bytes = read(file.path());
    const std::size_t data = 8 + header_of(bytes).size();
    REQUIRE(bytes.size() == data + 40 * 5 * 9 * 4);
    const auto number = [&](Index k) {
        return detail::load_little<float>(bytes.data() + data + 4 * static_cast<std::size_t>(k));
    };
    Index next = 0;
    bool is_same = true;
    for (Index o = 0; o < 40; ++o)
        for (Index c = 0; c < 5; ++c)
            for (Index row = 0; row < 3; ++row)
                for (Index column = 0; column < 3; ++column)
                    is_same = is_same && number(next++) == convolution.weights()(
                                                              o, c + 5 * (column + 3 * row));
    CHECK(is_same);
    Conv2d<float> other{{5, 6, 6}, {.channels = 40, .kernel = 3, .bias = false}, random};
    load_safetensors(file.path(), other);
    CHECK(same_bits(other.weights(), convolution.weights()));

    const Embedding<float> embedding{
        {.vocabulary = 50, .positions = 1, .width = 3, .encoding = PositionEncoding::none}, random};
    save_safetensors(file.path(), embedding);
    const Bytes embedded = read(file.path());
    const std::size_t first = 8 + header_of(embedded).size();
    for (Index token = 0; token < 50; ++token)
        for (Index i = 0; i < 3; ++i)
            REQUIRE(detail::load_little<float>(embedded.data() + first +
                                               4 * static_cast<std::size_t>(3 * token + i)) ==
                    embedding.tokens()(i, token));
}

TEST_CASE("load_safetensors: gives a network the bits that were saved", "[safetensors]") {
    const TemporaryFile file, other_file;
    const auto check = [&](auto saved, auto other) {
        set_numbers(saved, 1);
        set_numbers(other, -100);
        save_safetensors(file.path(), saved);
        REQUIRE(numbers_of(other) != numbers_of(saved));
        load_safetensors(file.path(), other);
        CHECK(numbers_of(other) == numbers_of(saved));
    };
    Philox random{3};
    const auto transformer = transformer_classifier<float>(
        {.vocabulary = 9, .positions = 4, .width = 8, .heads = 2, .feed_forward = 70, .blocks = 2},
        random);
    check(transformer, transformer);
    const ImageShape image{2, 4, 4};
    const auto block = [&](auto p) {
        return StochasticDepth{
            Residual{Sequential{Conv2d<float>{image, {.channels = 2, .padding = 1}, random},
                                BatchNorm2d<float>{image}, ReLU<float>{}}},
            SurvivalProbability{p}};
    };
    const Stack images{std::vector{block(0.9), block(0.7)}};
    check(images, images);
    // Layers of types known at run time alone are the same file.
    Stack<AnyLayer<float>> erased{{AnyLayer<float>{block(0.9)}, AnyLayer<float>{block(0.7)}}};
    auto plain = images;
    set_numbers(plain, 5);
    set_numbers(erased, 6);
    save_safetensors(file.path(), plain);
    load_safetensors(file.path(), erased);
    CHECK(numbers_of(erased) == numbers_of(plain));
    save_safetensors(other_file.path(), std::as_const(erased));
    CHECK(read(other_file.path()) == read(file.path()));
}

TEST_CASE("load_safetensors: tensors are found by a map of names", "[safetensors]") {
    const TemporaryFile file;
    const TensorNames names = {{"head.*", "3.*"},  // no number: never fits
                               {"encoder.layer.*.fc.weight", "*.branch.weight"},
                               {"encoder.layer.*.fc.bias", "*.branch.bias"}};
    auto network = Stack{std::vector{Residual{linear(1)}, Residual{linear(2)}}};
    using Square = Linear<float, 2, 2>;
    Philox random{4};
    auto saved = Stack{std::vector{Residual{Square{random}}, Residual{Square{random}}}};
    save_safetensors(file.path(), saved, names);
    const std::string header = header_of(read(file.path()));
    for (const char* name : {"\"encoder.layer.0.fc.weight\"", "\"encoder.layer.1.fc.bias\""})
        CHECK(header.find(name) != std::string::npos);
    CHECK(header.find("branch") == std::string::npos);
    auto other = Stack{std::vector{Residual{Square{random}}, Residual{Square{random}}}};
    CHECK(holds(load_error(file.path(), other), "the file has no tensor 0.branch.weight [2, 2]"));
    load_safetensors(file.path(), other, names);
    CHECK(numbers_of(other) == numbers_of(saved));
    CHECK(holds(thrown<std::runtime_error>([&] { load_safetensors(file.path(), network, names); }),
                "encoder.layer.0.fc.weight (0.branch.weight) must be [2, 3], found [2, 2]"));
    // One tensor for two layers.
    write(file.path(), file_of(linear_header, floats(linear_numbers)));
    load_safetensors(file.path(), network, {{"weight", "0.branch.weight"},
                                            {"bias", "0.branch.bias"},
                                            {"weight", "1.branch.weight"},
                                            {"bias", "1.branch.bias"}});
    CHECK(numbers_of(network) ==
          numbers_of(Stack{std::vector{Residual{linear()}, Residual{linear()}}}));
    CHECK(holds(thrown<std::invalid_argument>([&] {
                    save_safetensors(file.path(), network, {{"weight", "*.branch.weight"}});
                }),
                "save_safetensors: names must have as many * in the file as in the network, got "
                "weight for *.branch.weight"));
    CHECK(holds(thrown<std::invalid_argument>([&] {
                    save_safetensors(file.path(), network, {{"a", "0.branch.weight"},
                                                            {"a", "0.branch.bias"}});
                }),
                "save_safetensors: tensors must have different names, got a twice"));
}

TEST_CASE("load_safetensors: what the network has no place for is refused, or ignored if asked",
          "[safetensors]") {
    const TemporaryFile file;
    const auto with = [&](const std::string& name, const std::string& type) {
        std::string header = linear_header;
        header.pop_back();
        header += ",\"" + name + "\":{\"dtype\":\"" + type +
                  "\",\"shape\":[],\"data_offsets\":[32,40]}}";
        Bytes data = floats(linear_numbers);
        append(data, 3, 8);
        write(file.path(), file_of(header, data));
    };
    Linear<float> network = linear(5);
    with("bn1.num_batches_tracked", "I64");
    load_safetensors(file.path(), network);
    CHECK(same_bits(network.weights(), linear().weights()));
    network = linear(5);
    with("extra", "F64");
    CHECK(holds(load_error(file.path(), network), "the network has no place for the tensor extra []"));
    CHECK(same_bits(network.weights(), linear(5).weights()));
    load_safetensors(file.path(), network, {}, ExtraTensors::ignore);
    CHECK(same_bits(network.weights(), linear().weights()));
}

TEST_CASE("load_safetensors: a self-test in the metadata is made", "[safetensors]") {
    const TemporaryFile file;
    Philox random{5};
    const auto network = [&](auto activation) {
        return Sequential{linear(), activation,
                          StochasticDepth{Residual{Linear<float>{2, 2, random}},
                                          SurvivalProbability{0.5}}};
    };
    const auto saved = network(ReLU<float>{});
    // Where ReLU and GELU differ.
    const Eigen::MatrixXf x = test::random_matrix<float>(random, 3, 4).array() - 1.2f;
    save_safetensors(file.path(), saved, {}, x);
    auto other = network(ReLU<float>{});
    load_safetensors(file.path(), other);
    CHECK(numbers_of(other) == numbers_of(saved));
    // The same parameters, but another function.
    auto changed = network(GELU<float>{});
    const auto before = numbers_of(changed);
    CHECK(holds(load_error(file.path(), changed),
                "metadata self_test: self-test: output ", " of sample ", " must be "));
    CHECK(numbers_of(changed) == before);
    const Eigen::MatrixXf bad = Eigen::MatrixXf::Constant(3, 1, std::numeric_limits<float>::quiet_NaN());
    CHECK(holds(thrown<std::invalid_argument>([&] { save_safetensors(file.path(), saved, {}, bad); }),
                "save_safetensors: self-test must be finite"));
    const auto error = [&](const std::string& self_test) {
        std::string header = linear_header;
        header.replace(header.find("\"pt\""), 4, "\"pt\",\"self_test\":" + detail::json_string(self_test));
        write(file.path(), file_of(header, floats(linear_numbers)));
        Linear<float> plain = linear(3);
        const std::string message = load_error(file.path(), plain);
        CHECK(same_bits(plain.weights(),
                        linear(message == "nothing thrown" ? 0.0f : 3.0f).weights()));
        return message;
    };
    CHECK(error(R"({"input":[[1,0,0],[0,0,-1e0]],"output":[[8,12],[4,2.0]]})") == "nothing thrown");
    CHECK(holds(error(R"({"input":[[1,0,0]],"output":[[8,12.1]]})"),
                "output 1 of sample 0 must be 12.1, got 12"));
    CHECK(error(R"({"tolerance":0.1,"input":[[1,0,0]],"output":[[8,12.1]]})") == "nothing thrown");
    CHECK(holds(error(R"({"input":[[1,0]],"output":[[8,12]]})"), "Linear: input must have 3 rows"));
    CHECK(holds(error(R"({"input":[[1,0,0]],"output":[[8]]})"), "output must have 2 numbers"));
    CHECK(holds(error(R"({"input":[[1,0,0],[1]],"output":[[8,12]]})"), "samples differ in size"));
    CHECK(holds(error(R"({"input":[],"output":[]})"), "an output for each of its inputs"));
    CHECK(holds(error(R"({"input":[[1,0,0]]})"), "must have an input and its output"));
    CHECK(holds(error(R"({"input":[[1,0,0]],"input":[],"output":[]})"), "is there twice"));
    CHECK(holds(error(R"({"inputs":[]})"), "unknown field inputs"));
    CHECK(holds(error("{"), "expected \", found the end"));
    CHECK(holds(error(R"({"tolerance":[]})"), "expected a digit, found ["));
    CHECK(holds(error(R"({"input":[[1,0,1e39]],"output":[[8,12]]})"),
                "input is out of the network's range: 1e+39"));
}

TEST_CASE("load_safetensors: a self-test of small outputs is as strict as of large ones",
          "[safetensors]") {
    const TemporaryFile file;
    for (const float size : {1e-6f, 1e6f}) {
        auto saved = Linear<float>{Eigen::MatrixXf::Constant(1, 1, size),
                                   Eigen::VectorXf::Zero(1)};
        save_safetensors(file.path(), saved, {}, Eigen::MatrixXf::Ones(1, 1));
        load_safetensors(file.path(), saved);
        // The same file for a network that doubles its outputs.
        auto other = Sequential{saved, function<float>([](auto x) { return x + x; })};
        CHECK(holds(thrown<std::runtime_error>([&] {
                        load_safetensors(file.path(), other,
                                         {{"weight", "0.weight"}, {"bias", "0.bias"}});
                    }),
                    "self-test: output 0 of sample 0 must be "));
    }
}

TEST_CASE("load_safetensors: numbers of every other type are read over", "[safetensors]") {
    const TemporaryFile file;
    Linear<float> network = linear(10);
    const auto load = [&](const std::string& type, int values, std::size_t bytes) {
        const std::string header = detail::message(
            R"({"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
            R"("weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},"x":{"dtype":")",
            type, R"(","shape":[)", values, R"(],"data_offsets":[32,)", 32 + bytes, "]}}");
        Bytes data = floats(linear_numbers);
        data.resize(32 + bytes);
        write(file.path(), file_of(header, data));
        return thrown<std::runtime_error>(
            [&] { load_safetensors(file.path(), network, {}, ExtraTensors::ignore); });
    };
    for (const char* type : {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ",
                             "F8_E5M2FNUZ"})
        CHECK(load(type, 3, 3) == "nothing thrown");
    for (const char* type : {"I16", "U16", "F16", "BF16"}) CHECK(load(type, 3, 6) == "nothing thrown");
    for (const char* type : {"I32", "U32", "F32"}) CHECK(load(type, 3, 12) == "nothing thrown");
    for (const char* type : {"I64", "U64", "F64", "C64"})
        CHECK(load(type, 3, 24) == "nothing thrown");
    CHECK(load("F4", 4, 2) == "nothing thrown");
    for (const char* type : {"F6_E2M3", "F6_E3M2"}) CHECK(load(type, 4, 3) == "nothing thrown");
    CHECK(holds(load("F4", 3, 2), "x needs 12 bits for its shape, which are no bytes"));
    CHECK(same_bits(network.weights(), linear().weights()));
}

TEST_CASE("save_safetensors: what could not be loaded is not written", "[safetensors]") {
    const TemporaryFile file;
    const auto error = [&](const std::string& name) {
        return thrown<std::invalid_argument>(
            [&] { save_safetensors(file.path(), linear(), {{name, "weight"}}); });
    };
    CHECK(holds(error("__metadata__"), "and be no __metadata__, got __metadata__"));
    CHECK(holds(error(std::string(4097, 'n')), "names must have at most 4096 bytes"));
    CHECK(holds(error("\xff"), "save_safetensors: names: text must be UTF-8, got byte 0xff"));
    CHECK(error(std::string(4096, 'n')) == "nothing thrown");
    const Linear<float> one{Eigen::MatrixXf::Ones(1, 1), Eigen::VectorXf::Ones(1)};
    const auto self_test = [&](Index samples) {
        return thrown<std::invalid_argument>([&] {
            save_safetensors(file.path(), one, {}, Eigen::MatrixXf::Zero(1, samples));
        });
    };
    CHECK(holds(self_test(65537), "self-test must have at most 65536 samples and 1048576 numbers"));
    CHECK(self_test(65536) == "nothing thrown");
    Linear<float> other = one;
    load_safetensors(file.path(), other);
}

TEST_CASE("save_safetensors: a layer's word for where its numbers are must be true",
          "[safetensors]") {
    struct Misplaced : Linear<float> {
        TensorForm own;
        [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
            return form.name == "bias" ? form : own;
        }
    };
    const TemporaryFile file;
    const auto error = [&](const TensorForm& form) {
        return thrown<std::invalid_argument>(
            [&] { save_safetensors(file.path(), Misplaced{linear(), form}); });
    };
    CHECK(error({"weight", {3, 2}, {2, 1}}) == "nothing thrown");
    const std::string reason = "tensor_form: weights must have shape and strides of its 6 numbers";
    for (const TensorForm& form : {TensorForm{"weight", {3, 2}, {3, 1}},
                                   TensorForm{"weight", {2, 2}, {2, 1}},
                                   TensorForm{"weight", {3, 3}, {2, 1}},
                                   TensorForm{"weight", {3, 2}, {2}},
                                   TensorForm{"weight", {3, 2}, {-2, 1}},
                                   TensorForm{"weight", {-3, -2}, {2, 1}},
                                   TensorForm{"weight", {0, 6}, {2, 1}},
                                   TensorForm{"weight", {Index{1} << 62, 6}, {0, 0}}})
        CHECK(holds(error(form), reason));
}

TEST_CASE("load_safetensors: malformed files are refused, saying how, and nothing is changed",
          "[safetensors]") {
    const TemporaryFile file;
    const Bytes data = floats(linear_numbers);
    const auto refused = [&](const Bytes& bytes, const std::string& reason) {
        write(file.path(), bytes);
        Linear<float> network = linear(20);
        const std::string message = load_error(file.path(), network);
        INFO(message);
        CHECK(holds(message, "load_safetensors: " + file.path() + ": ", reason));
        CHECK(same_bits(network.weights(), linear(20).weights()));
        CHECK(same_bits(network.bias(), linear(20).bias()));
    };
    const std::string bias = R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
    const std::string weight = R"("weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]})";
    const auto with_bias = [&](const std::string& instead) {
        return file_of("{" + instead + "," + weight + "}", data);
    };
    const auto with_length = [&](std::uint64_t length) {
        Bytes bytes;
        append(bytes, length, 8);
        const Bytes whole = file_of(linear_header, data);
        bytes.insert(bytes.end(), whole.begin() + 8, whole.end());
        return bytes;
    };
    const auto fits = [&](const std::string& header) { return file_of(header, {}); };
    struct Malformed {
        std::string name;
        Bytes bytes;
        std::string reason;
    };
    const std::string many(200, 'a'), long_name(5000, 'n');
    const std::vector<Malformed> files = {
        {"empty", {}, "cut short: it has 0 bytes"},
        {"seven bytes", Bytes(7), "cut short: it has 7 bytes"},
        {"no header", Bytes(8), "must begin with {"},
        {"header of length 0", with_length(0), "must begin with {"},
        {"header past 100 MB", with_length(100'000'001), "at most 100000000 bytes, found 100000001"},
        {"header of 2^64 - 1", with_length(~std::uint64_t{0}), "found 18446744073709551615"},
        {"header past the end", with_length(1000), "cut short: its header has 1000 bytes"},
        {"header cut", with_length(100), "header: "},
        {"header one byte short", with_length(linear_header.size() - 1), "expected }, found the end"},
        {"header one byte long", with_length(linear_header.size() + 1), "expected the end"},
        {"space before the header", fits(" {}"), "must begin with {"},
        {"an array", fits("[]"), "must begin with {"},
        {"a byte order mark", fits("\xEF\xBB\xBF{}"), "must begin with {"},
        {"big-endian length", with_length(std::uint64_t{linear_header.size()} << 56), "at most"},
        {"nothing in it", fits("{}"), "the file has no tensor weight [2, 3]"},
        {"data without tensors", file_of("{}", data), "too long: tensors hold 0 of 32 bytes"},
        {"an open object", fits("{"), "expected \", found the end"},
        {"two objects", file_of(linear_header + "{}", data), "expected the end, found {"},
        {"a comment", fits("{/**/}"), "expected \", found /"},
        {"a trailing comma", file_of("{" + bias + "," + weight + ",}", data), "expected \", found }"},
        {"no comma", file_of("{" + bias + weight + "}", data), "expected }, found \""},
        {"a key without quotes", fits("{bias:{}}"), "expected \", found b"},
        {"single quotes", fits("{'bias':{}}"), "expected \", found '"},
        {"no colon", fits(R"({"bias" {}})"), "expected :, found {"},
        {"a tensor that is null", fits(R"({"bias":null})"), "expected {, found n"},
        {"a tensor that is an array", fits(R"({"bias":[]})"), "expected {, found ["},
        {"an open string", fits(R"({"bias)"), "a string has no end"},
        {"a string that ends in a backslash", fits("{\"a\\"), "a string has no end"},
        {"an unknown escape", fits(R"({"\x":{}})"), "an unknown escape, \\x"},
        {"\\u with three digits", fits(R"({"\u12":{}})"), "\\u without four hexadecimal digits"},
        {"half of a surrogate pair", fits(R"({"\ud800":{}})"), "half of a surrogate pair"},
        {"the other half", fits(R"({"\udc00":{}})"), "half of a surrogate pair"},
        {"two first halves", fits(R"({"\ud800\ud800":{}})"), "half of a surrogate pair"},
        {"a line break in a string", fits("{\"a\n\":{}}"), "the control character 0x0a"},
        {"a zero byte in a string", fits(std::string("{\"\0\":{}}", 8)), "the control character 0x00"},
        {"a string that is not UTF-8", fits("{\"\xff\":{}}"), "must be UTF-8, found byte 0xff"},
        {"an overlong form", fits("{\"\xc0\xaf\":{}}"), "must be UTF-8"},
        {"a zero byte for padding", file_of(linear_header + std::string(1, '\0'), data), "found 0x00"},
        {"tensor twice", file_of("{" + bias + "," + weight + "," + bias + "}", data), "overlaps"},
        {"empty tensor twice",
         file_of(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                 R"("\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                 {}),
         "a is there twice"},
        {"metadata twice", fits(R"({"__metadata__":{},"__metadata__":{}})"), "there twice"},
        {"a metadata key twice", fits(R"({"__metadata__":{"a":"1","a":"2"}})"), "metadata a is there twice"},
        {"metadata that is a number", fits(R"({"__metadata__":{"a":1}})"), "expected \", found 1"},
        {"metadata that is an object", fits(R"({"__metadata__":{"a":{}}})"), "expected \", found {"},
        {"metadata that is a string", fits(R"({"__metadata__":"a"})"), "expected {, found \""},
        {"a name of 5000 bytes", fits("{\"" + long_name + "\":{}}"), "at most 4096 bytes, found 5000"},
        {"a metadata key of 5000 bytes", fits("{\"__metadata__\":{\"" + long_name + "\":\"\"}}"),
         "at most 4096 bytes, found 5000"},
        {"no dtype", with_bias(R"("bias":{"shape":[2],"data_offsets":[0,8]})"), "bias has no dtype"},
        {"no shape", with_bias(R"("bias":{"dtype":"F32","data_offsets":[0,8]})"), "bias has no shape"},
        {"no offsets", with_bias(R"("bias":{"dtype":"F32","shape":[2]})"), "bias has no data_offsets"},
        {"dtype twice", with_bias(R"("bias":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})"),
         "bias has dtype twice"},
        {"shape twice", with_bias(R"("bias":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]})"),
         "bias has shape twice"},
        {"offsets twice",
         with_bias(R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]})"),
         "bias has data_offsets twice"},
        {"an unknown field", with_bias(R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})"),
         "bias has the field x: a tensor has dtype, shape and data_offsets"},
        {"an unknown dtype", with_bias(R"("bias":{"dtype":"F33","shape":[2],"data_offsets":[0,8]})"),
         "dtype of bias is unknown: F33"},
        {"a long dtype", with_bias("\"bias\":{\"dtype\":\"" + many + "\"}"), std::string(64, 'a') + "..."},
        {"a dtype in small letters", with_bias(R"("bias":{"dtype":"f32","shape":[2],"data_offsets":[0,8]})"),
         "is unknown: f32"},
        {"a dtype that is a number", with_bias(R"("bias":{"dtype":32,"shape":[2],"data_offsets":[0,8]})"),
         "expected \", found 3"},
        {"whole numbers", with_bias(R"("bias":{"dtype":"I32","shape":[2],"data_offsets":[0,8]})"),
         "bias must be of F16, BF16 or F32, found I32"},
        {"a shape that is a number", with_bias(R"("bias":{"dtype":"F32","shape":2,"data_offsets":[0,8]})"),
         "shape of bias must be an array"},
        {"a negative size", with_bias(R"("bias":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
         "expected a number without sign, found -"},
        {"a size with a fraction", with_bias(R"("bias":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"),
         "must be whole"},
        {"a size with an exponent", with_bias(R"("bias":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]})"),
         "must be whole"},
        {"a size that begins with 0", with_bias(R"("bias":{"dtype":"F32","shape":[02],"data_offsets":[0,8]})"),
         "a number begins with 0"},
        {"a size of 2^64", with_bias(R"("bias":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]})"),
         "a number is out of range"},
        {"sizes that overflow together",
         with_bias(R"("bias":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"),
         "more numbers than can be counted"},
        {"bytes that overflow",
         with_bias(R"("bias":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]})"),
         "more bits than can be counted"},
        {"an overflow that a 0 hides",
         with_bias(R"("bias":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]})"),
         "more numbers than can be counted"},
        {"nine dimensions",
         with_bias(R"("bias":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})"),
         "at most 8 dimensions"},
        {"an array in a shape", with_bias(R"("bias":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]})"),
         "expected a number without sign, found ["},
        {"one offset", with_bias(R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[8]})"),
         "must have 2 data_offsets, found 1"},
        {"three offsets", with_bias(R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})"),
         "must have 2 data_offsets"},
        {"offsets as strings", with_bias(R"("bias":{"dtype":"F32","shape":[2],"data_offsets":["0","8"]})"),
         "expected a number without sign, found \""},
        {"offsets swapped", with_bias(R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[8,0]})"),
         "ends at byte 0, before it begins at 8"},
        {"more bytes than numbers", with_bias(R"("bias":{"dtype":"F32","shape":[1],"data_offsets":[0,8]})"),
         "needs 4 bytes for its shape, and has 8"},
        {"fewer bytes than numbers", with_bias(R"("bias":{"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
         "needs 12 bytes for its shape, and has 8"},
        {"an overlap",
         file_of("{" + bias + R"(,"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]}})", data),
         "weight overlaps another tensor: it begins at byte 4 of the data, and 8 are taken"},
        {"a hole at the beginning",
         file_of(R"({"bias":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", Bytes(12)),
         "no tensor holds the bytes 0 to 4 of the data, before bias"},
        {"a hole between",
         file_of("{" + bias + R"(,"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[12,36]}})", Bytes(36)),
         "no tensor holds the bytes 8 to 12 of the data, before weight"},
        {"a byte too many", [&] { Bytes b = file_of(linear_header, data); b.push_back(0); return b; }(),
         "too long: tensors hold 32 of 33 bytes"},
        {"a byte too few", [&] { Bytes b = file_of(linear_header, data); b.pop_back(); return b; }(),
         "cut short: weight ends at byte 32 of the data, and 31 are there"},
        {"a tensor of an exabyte",
         with_bias(R"("bias":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]})"),
         "cut short: bias ends at byte 1152921504606846976 of the data, and 32 are there"},
        {"a tensor is missing",
         file_of(R"({"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", Bytes(24)),
         "the file has no tensor bias [2]"},
        {"a tensor of another shape",
         file_of("{" + bias + R"(,"weight":{"dtype":"F32","shape":[3,2],"data_offsets":[8,32]}})", data),
         "weight must be [2, 3], found [3, 2]"},
        {"a tensor of another rank",
         file_of("{" + bias + R"(,"weight":{"dtype":"F32","shape":[6],"data_offsets":[8,32]}})", data),
         "weight must be [2, 3], found [6]"},
        {"survival probabilities of another network",
         file_of(R"({"__metadata__":{"survival_probabilities":"[0.5]"},)" + bias + "," + weight + "}", data),
         "the file holds 1 survival probabilities, the network has 0"},
        {"survival probabilities that are none",
         file_of(R"({"__metadata__":{"survival_probabilities":"0.5"},)" + bias + "," + weight + "}", data),
         "metadata survival_probabilities: expected [, found 0"}};
    CHECK(files.size() >= 50);
    std::set<std::string> names;
    for (const Malformed& malformed : files) {
        INFO(malformed.name);
        CHECK(names.insert(malformed.name).second);
        refused(malformed.bytes, malformed.reason);
    }
    // What all these came from is good.
    Linear<float> network = linear(20);
    write(file.path(), file_of("{" + bias + "," + weight + "}", data));
    load_safetensors(file.path(), network);
    CHECK(same_bits(network.weights(), linear().weights()));
}

TEST_CASE("load_safetensors: other survival probabilities are refused", "[safetensors]") {
    const TemporaryFile file;
    const auto network = [](double p) {
        const Linear<double> one{Eigen::MatrixXd::Ones(1, 1), Eigen::VectorXd::Ones(1)};
        return Sequential{StochasticDepth{Residual{one}, SurvivalProbability{p}}};
    };
    save_safetensors(file.path(), network(0.1));
    auto same = network(0.1);
    load_safetensors(file.path(), same);
    auto other = network(0.10000000000000002);  // the last digit counts
    CHECK(holds(load_error(file.path(), other),
                "metadata survival_probabilities: survival probability of layer 0 of the file is "
                "0.1, the network's is 0.10000000000000002"));
}

TEST_CASE("load_safetensors: every truncation is refused, every flipped bit refused or read as it is",
          "[safetensors]") {
    const TemporaryFile file;
    const auto saved = Sequential{StochasticDepth{
        Residual{Linear<float>{Eigen::Matrix2f{{1, 2}, {3, 4}}, Eigen::Vector2f{5, 6}}},
        SurvivalProbability{0.75}}};
    save_safetensors(file.path(), saved);
    const Bytes bytes = read(file.path());
    const std::size_t data = 8 + header_of(bytes).size();
    REQUIRE(bytes.size() == data + 24);
    auto network = saved;
    set_numbers(network, -10);
    const std::vector<double> before = numbers_of(network), whole = numbers_of(saved);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        write(file.path(), Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)));
        REQUIRE(holds(load_error(file.path(), network), "load_safetensors: ", file.path()));
        REQUIRE(numbers_of(network) == before);
    }
    int read_otherwise = 0;
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        INFO("bit " << bit);
        Bytes changed = bytes;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
        write(file.path(), changed);
        auto loaded = network;
        const std::string message = load_error(file.path(), loaded);
        if (message != "nothing thrown") {
            INFO(message);
            REQUIRE(bit / 8 < data);
            REQUIRE(numbers_of(loaded) == before);
            continue;
        }
        if (bit / 8 < data) {
            // In metadata that are ignored, or by which they now are.
            ++read_otherwise;
            REQUIRE(numbers_of(loaded) == whole);
            continue;
        }
        // Bias first, then the weights, row by row.
        Eigen::Vector2f bias;
        Eigen::Matrix2f weights;
        for (Index k = 0; k < 6; ++k) {
            const auto number = detail::load_little<float>(changed.data() + data + 4 * k);
            (k < 2 ? bias(k) : weights((k - 2) / 2, k % 2)) = number;
        }
        const auto expected = numbers_of(Linear<float>{weights, bias});
        REQUIRE(same_bits(Eigen::Map<const Eigen::VectorXd>(numbers_of(loaded).data(), 6),
                          Eigen::Map<const Eigen::VectorXd>(expected.data(), 6)));
    }
    // Letters of "__metadata__" make it a tensor; of "format", "pt" and the key of survival
    // probabilities, other metadata.
    CHECK(read_otherwise > 0);
    CHECK(read_otherwise < 8 * 32);
}

TEST_CASE("save_safetensors, load_safetensors: a file that cannot be had is named", "[safetensors]") {
    const test::TemporaryDirectory directory;
    Linear<float> network = linear();
    const std::string missing = directory.file("missing"), inside = directory.file("gone/network");
    CHECK(holds(load_error(missing, network),
                "load_safetensors: " + missing + ": cannot open the file: ", "No such file"));
    CHECK(holds(load_error(directory.file(""), network), "cannot read the file: "));
    CHECK(holds(thrown<std::runtime_error>([&] { save_safetensors(inside, network); }),
                "save_safetensors: " + inside + ": cannot create the file: ", "No such file"));
    CHECK(directory.count() == 0);
}
