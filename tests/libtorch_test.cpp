// SPDX-License-Identifier: MIT
#include <stochastic_depth/adapters/libtorch.hpp>

#include <torch/script.h>
#include <torch/torch.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/image/batch_norm2d.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/layer_contract.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
// LibTorch has a detail of its own.
namespace inner = stochastic_depth::detail;
using test::largest_difference;
using test::random_matrix;
using test::refusal;
using test::same_bits;
using torch::Tensor;

constexpr Index width = 6;

template <class Scalar>
Tensor random_tensor(Philox& random, const std::vector<std::int64_t>& sizes, double size) {
    Tensor tensor = torch::empty(sizes, c10::CppTypeToScalarType<Scalar>::value);
    for (std::int64_t i = 0; i < tensor.numel(); ++i)
        tensor.data_ptr<Scalar>()[i] =
            static_cast<Scalar>(size) * uniform<Scalar>(random, Scalar(-1), Scalar(1));
    return tensor;
}

/// y = W2 tanh(W1 x + b1), from source, as torch.jit.script makes of a module.
template <class Scalar>
torch::jit::Module scripted(Philox& random, Index outputs = width) {
    torch::jit::Module module{"Branch"};
    module.register_attribute("training", c10::BoolType::get(), true);
    const auto add = [&](const char* name, const std::vector<std::int64_t>& sizes) {
        const Tensor parameter = random_tensor<Scalar>(random, sizes, 0.7);
        module.register_parameter(name, parameter.set_requires_grad(true), false);
    };
    add("fc1", {8, width});
    add("shift", {8});
    add("fc2", {outputs, 8});
    module.define(
        "def forward(self, x):\n"
        "    return torch.linear(torch.tanh(torch.linear(x, self.fc1, self.shift)), self.fc2)\n");
    return module;
}

/// A script of one expression of x.
torch::jit::Module script_of(const std::string& expression) {
    torch::jit::Module module{"Script"};
    module.define("def forward(self, x):\n    return " + expression + "\n");
    return module;
}

template <class Scalar>
Tensor to_tensor(const Matrix<Scalar>& x) {
    return inner::as_tensor(inner::const_view(x), std::nullopt).clone();
}
template <class Scalar>
Matrix<Scalar> to_matrix(const Tensor& tensor) {
    return inner::TensorColumns<Scalar>(tensor).view();
}

/// A network of scripts, for this library and for LibTorch.
template <class Scalar>
struct Scripts {
    explicit Scripts(Index depth) {
        Philox random{5};
        p = linear_decay(depth, 0.4);
        for (Index l = 0; l < depth; ++l) branches.push_back(scripted<Scalar>(random));
        head = scripted<Scalar>(random, 2);
    }

    using Layer = StochasticDepth<Residual<TorchLayer<Scalar>>>;
    [[nodiscard]] auto network() const {
        std::vector<Layer> layers;
        for (std::size_t l = 0; l < branches.size(); ++l)
            layers.emplace_back(Residual{TorchLayer<Scalar>{branches[l], width}},
                                SurvivalProbability{p(static_cast<Index>(l))});
        return Sequential{Stack{std::move(layers)}, TorchLayer<Scalar>{head, width}};
    }

    /// Bit l of `mask`: whether layer l is kept.
    [[nodiscard]] Tensor run(Tensor h, std::size_t mask) {
        for (std::size_t l = 0; l < branches.size(); ++l)
            if (mask >> l & 1) h = h + branches[l].forward({h}).toTensor();
        return head.forward({h}).toTensor();
    }
    [[nodiscard]] double probability(std::size_t mask) const {
        double product = 1;
        for (std::size_t l = 0; l < branches.size(); ++l) {
            const double p_l = p(static_cast<Index>(l));
            product *= mask >> l & 1 ? p_l : 1 - p_l;
        }
        return product;
    }

    Eigen::VectorXd p;
    std::vector<torch::jit::Module> branches;
    torch::jit::Module head;
};

template <class Scalar>
void check_expectation(double tolerance) {
    constexpr Index depth = 6;
    Scripts<Scalar> scripts(depth);
    const auto network = scripts.network();
    Philox random{6};
    const Matrix<Scalar> x = random_matrix<Scalar>(random, width, 3);
    Matrix<double> mean = Matrix<double>::Zero(2, 3), squares = mean, slope = mean;
    {
        const c10::InferenceMode no_gradients;
        for (std::size_t mask = 0; mask < std::size_t{1} << depth; ++mask) {
            const Matrix<Scalar> y = to_matrix<Scalar>(scripts.run(to_tensor(x), mask));
            SurvivalMask kept = SurvivalMask::none(depth);
            for (Index l = 0; l < depth; ++l)
                if (mask >> l & 1) kept.keep(l);
            CHECK(largest_difference(network(x, kept), y) <= tolerance);
            const double weight = scripts.probability(mask);
            mean += weight * y.template cast<double>();
            squares += weight * y.template cast<double>().cwiseAbs2();
            // By p of layer 2.
            slope += weight / (mask >> 2 & 1 ? scripts.p(2) : scripts.p(2) - 1) *
                     y.template cast<double>();
        }
    }
    const auto exact = ExactExpectation{}(network, x);
    CHECK(largest_difference(exact.mean, mean) <= tolerance);
    CHECK(largest_difference(exact.variance, squares - mean.cwiseAbs2()) <= tolerance);
    CHECK(largest_difference(ExactSensitivity{}(network, x).by_layer.of(2), slope) <= tolerance);
    const auto values = shapley_values(network, x);
    Matrix<double> sum = Matrix<double>::Zero(2, 3);
    for (Index l = 0; l < depth; ++l) sum += values.value.of(l).template cast<double>();
    const Matrix<Scalar> all = network(x), none = network(x, SurvivalMask::none(depth));
    CHECK(largest_difference(sum, all - none) <= tolerance);
    // Many columns, on two threads.
    const Matrix<Scalar> many = x.replicate(1, 100);
    const auto shared = ExactExpectation{{.threads = 2}}(network, many);
    CHECK(largest_difference(shared.mean, mean.replicate(1, 100)) <= tolerance);
}

/// A module of torch::nn as users write them, which can be copied.
struct GainedSquareImpl : torch::nn::Cloneable<GainedSquareImpl> {
    explicit GainedSquareImpl(Tensor first_gain) : first(std::move(first_gain)) { reset(); }
    void reset() override { gain = register_parameter("gain", first.clone()); }
    Tensor forward(const Tensor& x) { return x * gain + x * x; }
    Tensor first, gain;
};
TORCH_MODULE(GainedSquare);

/// One that can't be.
struct PlainImpl : torch::nn::Module {
    PlainImpl() { fc = register_module("fc", torch::nn::Linear(width, width)); }
    Tensor forward(const Tensor& x) { return fc(x); }
    torch::nn::Linear fc{nullptr};
};

struct TwoInputsImpl : torch::nn::Module {
    Tensor forward(const Tensor& x, const Tensor& y) { return x + y; }
};

/// A hidden layer of torch::nn.
torch::nn::Sequential hidden(Index outputs = width) {
    torch::nn::Sequential module(torch::nn::Linear(width, 8), torch::nn::Tanh(),
                                 torch::nn::Linear(8, outputs));
    return module;
}
torch::nn::Sequential hidden_in_double(Index outputs = width) {
    torch::nn::Sequential module = hidden(outputs);
    module->to(torch::kDouble);
    return module;
}

/// The library's layers around modules of both kinds.
auto mixed_network() {
    torch::manual_seed(3);
    Philox random{8};
    return Sequential{Linear<double>{4, width, random},
                      StochasticDepth{Residual{TorchLayer<double>{hidden_in_double(), width}},
                                      SurvivalProbability{0.6}},
                      StochasticDepth{Residual{TorchLayer<double>{scripted<double>(random), width}},
                                      SurvivalProbability{0.7}},
                      TorchLayer<double>{hidden_in_double(3), width}};
}

template <class Network>
std::vector<std::string> parameter_names(const Network& network) {
    std::vector<std::string> names;
    for_each_parameter(network,
                       [&](const std::string& path, const auto&) { names.push_back(path); });
    return names;
}

template <class Module>
std::string module_refusal(const Module& module, Index inputs = width) {
    return refusal([&] { (void)TorchLayer<float>{module, inputs}; });
}

}  // namespace

TEST_CASE(
    "TorchLayer: the exact expectation of a scripted network is the sum over LibTorch's masks",
    "[libtorch]") {
    check_expectation<double>(1e-12);
    check_expectation<float>(1e-6);
}

TEST_CASE("TorchLayer: a module keeps what every layer promises, as far as it does itself",
          "[libtorch]") {
    Philox random{9};
    const TorchLayer<double> of_double{GainedSquare(random_tensor<double>(random, {width}, 1)),
                                       width};
    const TorchLayer<float> of_float{GainedSquare(random_tensor<float>(random, {width}, 1)), width};
    test::check_layer_contract("TorchLayer", of_double, width);
    test::check_layer_contract("TorchLayer", of_float, width);
    test::check_refuses_other_inputs(
        of_double, width, inner::message("TorchLayer ", GainedSquareImpl(torch::ones(1)).name()));
}

TEST_CASE("TorchLayer: gradients are autograd's", "[libtorch]") {
    torch::manual_seed(1);
    torch::nn::Sequential module = hidden_in_double(3);
    const TorchLayer<double> layer{module, width};
    Philox random{4};
    const Matrix<double> x = random_matrix<double>(random, width, 5);
    const Matrix<double> dy = random_matrix<double>(random, 3, 5);
    Matrix<double> y(3, 5), dx(width, 5);
    TorchLayer<double>::Cache cache;
    auto gradient = layer.zero_gradient();
    layer.forward(x, y, cache);
    layer.backward(x, dy, cache, gradient, dx);
    for (const Tensor& parameter : module->parameters()) CHECK_FALSE(parameter.grad().defined());

    const Tensor input = to_tensor(x).set_requires_grad(true);
    const Tensor output = module->forward(input);
    output.backward(to_tensor(dy));
    CHECK(largest_difference(y, to_matrix<double>(output)) <= 1e-15);
    CHECK(largest_difference(dx, to_matrix<double>(input.grad())) <= 1e-15);
    const auto parameters = module->parameters();
    REQUIRE(parameters.size() == gradient.parameters.size());
    for (std::size_t k = 0; k < parameters.size(); ++k) {
        const Tensor slope = parameters[k].grad();
        const Matrix<double> expected =
            to_matrix<double>(slope.dim() == 1 ? slope.unsqueeze(0) : slope);
        CHECK(largest_difference(gradient.parameters[k], expected) <= 1e-14);
    }
}

TEST_CASE("TorchLayer: a mixed network's gradients agree with differences, and it is trained",
          "[libtorch]") {
    auto network = mixed_network();
    Philox random{10};
    const Matrix<double> x = random_matrix<double>(random, 4, 6);
    const Matrix<double> targets = random_matrix<double>(random, 3, 6);
    SurvivalMasks masks(2, 6);
    masks.set_mask(1, SurvivalMask::all(2));
    masks.set_mask(3, SurvivalMask::all(2));
    SurvivalMask second = SurvivalMask::none(2);
    second.keep(1);
    masks.set_mask(4, second);
    const MeanSquaredError<double> loss;
    const auto error = gradient_error(network, x, masks, loss, targets);
    INFO(error.where);
    CHECK(error.largest <= 1e-8);

    TrainingStep step{network, loss, {.seed = 1}};
    Sgd optimizer{network, {.learning_rate = 0.05, .momentum = 0.9}};
    const double before = loss.value(network(x), targets);
    {
        // Whatever the caller's mode is.
        const c10::InferenceMode no_gradients;
        for (std::uint64_t t = 0; t < 200; ++t) {
            (void)step.differentiate(network, x, targets, t);
            optimizer.step(network, step.gradient());
            step.finish(network);
        }
    }
    CHECK(loss.value(network(x), targets) < 0.2 * before);
    const std::vector<std::string> names = parameter_names(network);
    CHECK(names == std::vector<std::string>{
                       "0.weights", "0.bias", "1.branch.0.weight", "1.branch.0.bias",
                       "1.branch.2.weight", "1.branch.2.bias", "2.branch.fc1", "2.branch.shift",
                       "2.branch.fc2", "3.0.weight", "3.0.bias", "3.2.weight", "3.2.bias"});
}

TEST_CASE("TorchLayer: modules of every kind are the same layer", "[libtorch]") {
    torch::manual_seed(2);
    torch::nn::Linear linear(width, 3);
    torch::jit::Module script{"Linear"};
    script.register_parameter("weight", linear->weight, false);
    script.register_parameter("bias", linear->bias, false);
    script.define("def forward(self, x):\n    return torch.linear(x, self.weight, self.bias)\n");
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, width, 4);
    const Matrix<float> expected = to_matrix<float>(linear->forward(to_tensor(x)));
    const TorchLayer<float> layers[] = {{linear, width},
                                        {linear.ptr(), width},
                                        {torch::nn::AnyModule(linear), width},
                                        {script, width}};
    for (const TorchLayer<float>& layer : layers) {
        CHECK(largest_difference(test::run(layer, x), expected) <= 1e-6);
        CHECK(parameter_names(layer) == std::vector<std::string>{"weight", "bias"});
        CHECK(layer.output_size(width) == 3);
        CHECK(layer.work() >= 21);
        // Of a whole batch, of one column, of none.
        CHECK(largest_difference(test::run(layer, x.leftCols(1)), expected.leftCols(1)) <= 1e-6);
        CHECK(test::run(layer, x.leftCols(0)).cols() == 0);
    }
    CHECK(layers[3].description() == "TorchLayer Linear 6 -> 3");
}

TEST_CASE("TorchLayer: a copy has a module of its own, a layer that is moved the caller's",
          "[libtorch]") {
    torch::nn::Sequential module = hidden();
    module[0]->as<torch::nn::Linear>()->bias.set_requires_grad(false);
    TorchLayer<float> layer{module, width};
    TorchLayer<float> copy = layer, assigned{hidden(), width};
    assigned = layer;
    const std::vector<std::string> trained{"0.weight", "2.weight", "2.bias"};
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, width, 4);
    const Matrix<float> before = test::run(layer, x);
    for (TorchLayer<float>* const each : {&copy, &assigned}) {
        CHECK(same_bits(test::run(*each, x), before));
        CHECK(parameter_names(*each) == trained);
        visit_parameters(*each, [](const char*, auto& entries) { entries.array() += 0.5F; });
        CHECK_FALSE(same_bits(test::run(*each, x), before));
        CHECK(same_bits(test::run(layer, x), before));
    }
    TorchLayer<float> moved = std::move(layer);
    visit_parameters(moved, [](const char*, auto& entries) { entries.array() += 0.5F; });
    CHECK(same_bits(test::run(moved, x), to_matrix<float>(module->forward(to_tensor(x)))));
    CHECK(same_bits(test::run(moved, x), test::run(copy, x)));

    const TorchLayer<float> of_script{scripted<float>(random), width};
    TorchLayer<float> of_copy = of_script;
    CHECK(parameter_names(of_copy) == std::vector<std::string>{"fc1", "shift", "fc2"});
    const Matrix<float> of_both = test::run(of_script, x);
    visit_parameters(of_copy, [](const char*, auto& entries) { entries.setZero(); });
    CHECK(same_bits(test::run(of_script, x), of_both));
    CHECK(test::run(of_copy, x).isZero(0));

    // What can't be cloned is a layer, in a network too, but none that can be copied.
    std::vector<Scripts<float>::Layer> layers;
    for (int l = 0; l < 3; ++l)
        layers.emplace_back(Residual{TorchLayer<float>{std::make_shared<PlainImpl>(), width}},
                            SurvivalProbability{0.5});
    CHECK(ExactExpectation{}(Stack{std::move(layers)}, x).mean.allFinite());
    const TorchLayer<float> plain{std::make_shared<PlainImpl>(), width};
    CHECK(holds(refusal([&] { (void)TorchLayer<float>(plain); }), "TorchLayer ", "PlainImpl",
                "module must be one that can be cloned, where the layer is copied: ",
                "Subclass torch::nn::Cloneable"));
}

TEST_CASE("TorchLayer: a module is in use, in training too", "[libtorch]") {
    torch::nn::Sequential module(torch::nn::Dropout(0.5), torch::nn::BatchNorm1d(width),
                                 torch::nn::Dropout(0.9));
    module->train();
    TorchLayer<float> layer{module, width};
    CHECK_FALSE(module->is_training());
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, width, 4);
    const Matrix<float> expected = x / std::sqrt(1.0F + 1e-5F);
    Matrix<float> y(width, 4);
    TorchLayer<float>::Cache cache;
    layer.forward(x, y, cache);
    CHECK(largest_difference(y, expected) <= 1e-6);
    std::vector<std::string> state;
    inner::visit_state(layer, [&](const char* name, auto&) { state.push_back(name); });
    CHECK(state == std::vector<std::string>{"1.running_mean", "1.running_var"});

    // A module that writes to its input gets a copy of it.
    torch::jit::Module in_place{"InPlace"};
    in_place.define("def forward(self, x):\n    return torch.relu_(x) * 2\n");
    const TorchLayer<float> writes{in_place, width};
    const Matrix<float> kept = x;
    CHECK(same_bits(test::run(writes, x), (2 * x).cwiseMax(0)));
    writes.forward(x, y, cache);
    Matrix<float> dx(width, 4);
    auto gradient = writes.zero_gradient();
    writes.backward(x, Matrix<float>::Ones(width, 4), cache, gradient, dx);
    CHECK(same_bits(dx, 2 * (x.array() > 0).cast<float>().matrix()));
    CHECK(same_bits(x, kept));
}

TEST_CASE("TorchLayer: images are LibTorch's in channels_last", "[libtorch]") {
    torch::manual_seed(4);
    torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(3, 2, 3).padding(1).stride(2));
    torch::nn::Sequential head(torch::nn::Flatten(), torch::nn::Linear(2 * 3 * 2, 4));
    const ImageShape in{3, 5, 4}, out{2, 3, 2};
    const TorchLayer<float> layer{convolution, in};
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, in.size(), 7);
    Tensor images = torch::empty({7, 3, 5, 4});
    for (Index j = 0; j < 7; ++j)
        for (Index c = 0; c < 3; ++c)
            for (Index v = 0; v < 5; ++v)
                for (Index u = 0; u < 4; ++u) images[j][c][v][u] = x(c + 3 * (u + 4 * v), j);
    const torch::NoGradGuard no_gradients;
    const Tensor expected = convolution->forward(images);
    const Matrix<float> y = test::run(layer, x);
    REQUIRE(y.rows() == out.size());
    double largest = 0;
    for (Index j = 0; j < 7; ++j)
        for (Index c = 0; c < 2; ++c)
            for (Index v = 0; v < 3; ++v)
                for (Index u = 0; u < 2; ++u)
                    largest = std::max(
                        largest, static_cast<double>(std::abs(y(c + 2 * (u + 2 * v), j) -
                                                              expected[j][c][v][u].item<float>())));
    CHECK(largest <= 1e-6);
    CHECK(layer.description() == "TorchLayer torch::nn::Conv2dImpl 3 x 5 x 4 -> 2 x 3 x 2");

    // Through a network of both, forward and back.
    torch::nn::Sequential double_head(torch::nn::Flatten(), torch::nn::Linear(2 * 3 * 2, 4));
    double_head->to(torch::kDouble);
    torch::nn::Conv2d double_convolution(torch::nn::Conv2dOptions(3, 2, 3).padding(1).stride(2));
    double_convolution->to(torch::kDouble);
    const Sequential network{TorchLayer<double>{double_convolution, in}, BatchNorm2d<double>{out},
                             TorchLayer<double>{double_head, out}};
    const auto error =
        gradient_error(network, random_matrix<double>(random, in.size(), 3), SurvivalMask::all(0),
                       MeanSquaredError<double>{}, random_matrix<double>(random, 4, 3));
    INFO(error.where);
    CHECK(error.largest <= 1e-8);
    CHECK(holds(refusal([&] {
                    (void)Sequential{layer, TorchLayer<float>{torch::nn::Flatten(), {2, 2, 3}}};
                }),
                "Sequential: TorchLayer torch::nn::FlattenImpl 2 x 2 x 3 -> 12 must have shape "
                "2 x 3 x 2 as TorchLayer torch::nn::Conv2dImpl 3 x 5 x 4 -> 2 x 3 x 2 has"));
}

TEST_CASE("TorchLayer: files hold tensors under the module's names and shapes", "[libtorch]") {
    const test::TemporaryFile file;
    torch::nn::Sequential module(torch::nn::Linear(width, 3), torch::nn::BatchNorm1d(3));
    module[1]->as<torch::nn::BatchNorm1d>()->running_mean.fill_(0.5);
    const Sequential network{AnyLayer<float>{TorchLayer<float>{module, width}},
                             TorchLayer<float>{torch::nn::Linear(3, 2), 3}};
    std::vector<std::string> tensors;
    inner::for_each_tensor(network,
                           [&](const std::string& name, const TensorForm& form, const auto*) {
                               tensors.push_back(name + " " + inner::text_of_shape(form.shape));
                           });
    CHECK(tensors == std::vector<std::string>{"0.0.weight [3, 6]", "0.0.bias [3]", "0.1.weight [3]",
                                              "0.1.bias [3]", "0.1.running_mean [3]",
                                              "0.1.running_var [3]", "1.weight [2, 3]",
                                              "1.bias [2]"});
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, width, 4);
    for (const bool is_checkpoint : {false, true}) {
        Sequential other = network;
        inner::visit_parameters(other, [](const char*, auto& entries) { entries.setZero(); });
        inner::visit_state(other, [](const char*, auto& entries) { entries.setOnes(); });
        REQUIRE_FALSE(same_bits(other(x), network(x)));
        if (is_checkpoint) {
            save_parameters(file.path(), network);
            load_parameters(file.path(), other);
        } else {
            save_safetensors(file.path(), network);
            load_safetensors(file.path(), other);
        }
        CHECK(same_bits(other(x), network(x)));
    }
    // A Linear of the library reads what LibTorch's has written, in its own shape.
    Sequential ours{Linear<float>{3, 2, random}};
    save_safetensors(file.path(), TorchLayer<float>{torch::nn::Linear(3, 2), 3});
    load_safetensors(file.path(), ours, {{"weight", "0.weight"}, {"bias", "0.bias"}});
}

TEST_CASE("TorchLayer: a module that is no layer is refused, by its name", "[libtorch]") {
    const std::string script = "TorchLayer Script: ";
    CHECK(module_refusal(torch::nn::Linear(nullptr)) == "TorchLayer: module must not be empty");
    CHECK(module_refusal(std::shared_ptr<PlainImpl>{}) == "TorchLayer: module must not be empty");
    CHECK(module_refusal(torch::nn::AnyModule{}) == "TorchLayer: module must not be empty");
    CHECK(module_refusal(torch::jit::Module{"Empty"}) ==
          "TorchLayer: module must have a method forward, got a script without");
    CHECK(module_refusal(script_of("x"), 0) == script + "inputs must be at least 1, got 0");
    CHECK(refusal([] {
              (void)TorchLayer<float>{script_of("x"), ImageShape{3, 0, 2}};
          }) == script + "images must be at least 1 x 1 x 1, got 3 x 0 x 2");

    const std::string linear = "TorchLayer torch::nn::LinearImpl: ";
    CHECK(module_refusal(torch::nn::Linear(7, 2)) ==
          linear +
              "module must take a tensor [2 x 6] and return one: mat1 and mat2 shapes cannot "
              "be multiplied (2x6 and 7x2)");
    CHECK(module_refusal(script_of("torch.linear(x, torch.ones([2, 7]))")) ==
          script +
              "module must take a tensor [2 x 6] and return one: mat1 and mat2 shapes cannot "
              "be multiplied (2x6 and 7x2)");
    torch::nn::Linear other(width, 2);
    other->to(torch::kDouble);
    CHECK(module_refusal(other) == linear + "weight must be of Float, got Double");
    torch::jit::Module elsewhere = script_of("x");
    elsewhere.register_buffer("table", torch::empty({2, 6}, torch::kMeta));
    CHECK(module_refusal(elsewhere) == script + "table must be on the CPU, got one on meta");

    CHECK(module_refusal(script_of("(x, x)")) ==
          script +
              "module must take a tensor [2 x 6] and return one: it must return a tensor, got "
              "Tuple");
    CHECK(module_refusal(script_of("None")) ==
          script +
              "module must take a tensor [2 x 6] and return one: it must return a tensor, got "
              "None");
    CHECK(holds(module_refusal(torch::nn::AnyModule(std::make_shared<TwoInputsImpl>())),
                "module must take a tensor [2 x 6] and return one: ", "expects 2 argument(s)"));
    CHECK(module_refusal(script_of("x > 0")) == script + "output must be of Float, got Bool");
    CHECK(module_refusal(script_of("x.double()")) ==
          script + "output must be of Float, got Double");
    const std::string shape =
        "output must be [batch x features] or [batch x channels x height x width], with a batch of "
        "2, got ";
    CHECK(module_refusal(script_of("x.sum(1)")) == script + shape + "[2]");
    CHECK(module_refusal(script_of("x.unsqueeze(1)")) == script + shape + "[2 x 1 x 6]");
    CHECK(module_refusal(script_of("x.mean(0, keepdim=True)")) == script + shape + "[1 x 6]");
    CHECK(module_refusal(script_of("x[:, 0:0]")) == script + shape + "[2 x 0]");
    // What makes one sample's output depend on another's, or on chance.
    const std::string alone = "output of a sample must depend on that sample alone, got ";
    CHECK(holds(module_refusal(script_of("x - x.mean(0, keepdim=True)")), script + alone));
    CHECK(holds(module_refusal(script_of("torch.dropout(x, 0.5, True)")), script + alone));
    CHECK(holds(module_refusal(torch::nn::BatchNorm1d(
                    torch::nn::BatchNorm1dOptions(width).track_running_stats(false))),
                "TorchLayer torch::nn::BatchNorm1dImpl: Expected more than 1 value per channel",
                ", of one sample alone"));
}

TEST_CASE("TorchLayer: what goes wrong later is said, and nothing is written", "[libtorch]") {
    Philox random{3};
    const Matrix<float> x = random_matrix<float>(random, width, 4).cwiseAbs();
    Matrix<float> y = Matrix<float>::Constant(width, 4, 77), dx = y;
    TorchLayer<float>::Cache cache;
    // By what the numbers are.
    torch::jit::Module choosy{"Choosy"};
    choosy.define(
        "def forward(self, x):\n"
        "    assert bool(x.max() <= 10), 'too large'\n"
        "    if bool(x.max() > 5):\n"
        "        return x[:, 1:]\n"
        "    return x\n");
    const TorchLayer<float> layer{choosy, width};
    CHECK(thrown<std::runtime_error>([&] {
              layer.forward(Matrix<float>::Constant(width, 4, 20), y);
          }) == "TorchLayer Choosy: AssertionError: too large");
    CHECK(thrown<std::runtime_error>(
              [&] { layer.forward(Matrix<float>::Constant(width, 4, 7), y); }) ==
          "TorchLayer Choosy: output must have 6 features for each of 4 samples, got [4 x 5]");
    CHECK((y.array() == 77).all());

    // Without a derivative.
    const TorchLayer<float> detached{script_of("x.detach()"), width};
    CHECK(same_bits(test::run(detached, x), x));
    CHECK(thrown<std::runtime_error>([&] { detached.forward(x, y, cache); }) ==
          "TorchLayer Script: output has no derivative that autograd knows");

    const TorchLayer<float> linear{torch::nn::Linear(width, width), width};
    linear.forward(x, y, cache);
    TorchLayer<float>::Gradient none;
    CHECK(refusal([&] { linear.backward(x, y, cache, none, dx); }) ==
          "TorchLayer torch::nn::LinearImpl: gradient must be by 2 parameters, got 0");
    CHECK((dx.array() == 77).all());

    torch::nn::Linear transposed(width, width);
    transposed->weight.set_data(transposed->weight.detach().t());
    const TorchLayer<float> strided{transposed, width};
    CHECK(same_bits(test::run(strided, x), to_matrix<float>(transposed->forward(to_tensor(x)))));
    CHECK(
        refusal([&] { (void)strided.zero_gradient(); }) ==
        "TorchLayer torch::nn::LinearImpl: weight must be contiguous where it is trained or saved");

    // Sequences of several lengths.
    const Sequential padded{Embedding<float>{{.vocabulary = 3, .positions = 4, .width = 2}, random},
                            TorchLayer<float>{torch::nn::Linear(8, 2), 8}};
    Matrix<float> tokens = Matrix<float>::Zero(4, 2);
    tokens(3, 1) = -1;
    CHECK(refusal([&] { (void)padded(tokens); }) ==
          "TorchLayer torch::nn::LinearImpl: sequences must have one length; a module at each of "
          "their positions is PerPosition{width, TorchLayer{...}}");
    const Sequential by_position{
        Embedding<float>{{.vocabulary = 3, .positions = 4, .width = 2}, random},
        PerPosition{2, TorchLayer<float>{torch::nn::Linear(2, 5), 2}}};
    CHECK(by_position(tokens).bottomRightCorner(5, 1).isZero(0));
}
