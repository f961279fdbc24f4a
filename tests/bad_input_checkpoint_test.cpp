// SPDX-License-Identifier: MIT
// Files and calls that save_training and load_training cannot do anything with, each with the
// message that they get.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"
#include "support/thrown.hpp"
#include "support/training_file.hpp"

namespace {

using namespace stochastic_depth;
using test::TemporaryDirectory;
using test::TrainingFile;

using Block = StochasticDepth<Residual<Linear<double>>>;

Linear<double> linear(Index width = 1) {
    return Linear<double>{Eigen::MatrixXd::Constant(width, width, 0.5),
                          Eigen::VectorXd::Constant(width, -0.25)};
}
Block block(double p = 0.5, Index width = 1) {
    return Block{Residual{linear(width)}, SurvivalProbability{p}};
}

/// What save_training writes for block() with an Sgd or an AdamW of the options below.
const SgdOptions sgd{.learning_rate = 0.5, .momentum = 0.75, .weight_decay = 0.001};
TrainingFile sgd_file() {
    return {.library = "0.1.0",
            .optimizer = "Sgd",
            .learning_rate = 0.5,
            .options = {{"momentum", "0.75"},
                        {"nesterov", "false"},
                        {"weight_decay", "0.001"},
                        {"unreached_layers", "frozen"}},
            .layers = {{"", "StochasticDepth, survival probability 0.5"},
                       {"", "Residual"},
                       {"branch", "Linear 1 -> 1"},
                       {"shortcut", "Identity"}},
            .parameters = {{"branch.weights", {0.5}}, {"branch.bias", {-0.25}}},
            .layers_state = {},
            .states = {{"velocity", {{"branch.weights", {0}}, {"branch.bias", {0}}}}}};
}
const AdamWOptions adam_w{.learning_rate = 0.5,
                          .unreached_layers = UnreachedLayers::as_zero_gradient};
TrainingFile adam_w_file() {
    TrainingFile file = sgd_file();
    file.optimizer = "AdamW";
    file.options = {{"beta1", "0.9"},
                    {"beta2", "0.999"},
                    {"epsilon", "1e-08"},
                    {"weight_decay", "0.01"},
                    {"unreached_layers", "as_zero_gradient"}};
    const auto zeros = file.states[0].records;
    file.states = {{"first moment", zeros}, {"second moment", zeros}, {"updates", {}, {0, 0}}};
    return file;
}

/// Loads into a network and an optimizer, which must be left alone; the message without its start.
template <class Network, class Optimizer>
std::string refusal_of(const std::string& path, Network network, Optimizer optimizer) {
    // Another learning rate than any file's would show a change.
    optimizer.set_learning_rate(0.125);
    const Eigen::VectorXd before = test::parameters(network);
    const std::string message =
        thrown<std::runtime_error>([&] { (void)load_training(path, network, optimizer); });
    CHECK(test::same_bits(test::parameters(network), before));
    CHECK(optimizer.options().learning_rate == 0.125);
    Optimizer::visit_state(optimizer, [&]<class State>(const char*, const State& state) {
        if constexpr (std::is_same_v<State, std::vector<std::uint64_t>>)
            CHECK(state == std::vector<std::uint64_t>(state.size(), 0));
        else
            detail::entries_of(network, state)([](const std::string&, const auto& entries) {
                CHECK((entries.array() == 0).all());
            });
    });
    const std::string start = "load_training: " + path + ": ";
    CHECK(message.substr(0, start.size()) == start);
    return message.substr(std::min(message.size(), start.size()));
}
template <class Network, class Optimizer>
std::string refusal_of(const TrainingFile& file, const Network& network,
                       const Optimizer& optimizer) {
    const TemporaryDirectory directory;
    test::write(directory.file("training"), file.sealed());
    return refusal_of(directory.file("training"), network, optimizer);
}
std::string refusal_of(const TrainingFile& file) {
    return refusal_of(file, block(), Sgd{block(), sgd});
}
std::string refusal_of_adam_w(const TrainingFile& file) {
    return refusal_of(file, block(), AdamW{block(), adam_w});
}

TEST_CASE("save_training: the file is as its format says, byte by byte", "[bad_input_checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("training");
    TrainingFile file = sgd_file();
    file.step = 0x0102030405060708, file.epoch = 3, file.seed = 0xf1f2f3f4f5f6f7f8;
    file.mask_scope = 1, file.scaling = 1, file.description = "by hand";
    save_training(path, block(), Sgd{block(), sgd},
                  {.step = file.step,
                   .epoch = 3,
                   .seed = file.seed,
                   .mask_scope = MaskScope::sample,
                   .scaling = Scaling::inverted,
                   .description = "by hand",
                   .library_version = "not mine"});
    CHECK(test::read(path) == file.sealed());
    save_training(path, block(), AdamW{block(), adam_w}, {.mask_scope = MaskScope::batch});
    CHECK(test::read(path) == adam_w_file().sealed());
}

TEST_CASE("load_training: a file that cannot be had, or is of another kind",
          "[bad_input_checkpoint]") {
    const TemporaryDirectory directory;
    const auto refusal = [&](const std::string& path) {
        return refusal_of(path, block(), Sgd{block(), sgd});
    };
    const std::string path = directory.file("training");
    CHECK(holds(refusal(path), "cannot open the file: ", "No such file"));
    CHECK(holds(refusal(directory.file("")), "cannot read the file: ", "directory"));
    test::write(path, {});
    CHECK(refusal(path) == "the file is cut short: it has 0 bytes, fewer than the least of 28");
    save_parameters(path, block());
    CHECK(refusal(path) == "the file is of another kind: it doesn't begin with SDRESUME");
    test::Bytes bytes = sgd_file().sealed();
    bytes[8] = 1;
    test::write(path, bytes);
    CHECK(refusal(path) == "the file has format version 1, and this library reads version 2");
    // And the other way round.
    test::write(path, sgd_file().sealed());
    Block network = block();
    CHECK(thrown<std::runtime_error>([&] { load_parameters(path, network); }) ==
          "load_parameters: " + path +
              ": the file is of another kind: it doesn't begin with SDPARAMS");
}

TEST_CASE("load_training: another optimizer, or one of other options", "[bad_input_checkpoint]") {
    CHECK(refusal_of(adam_w_file()) == "the optimizer of the file is AdamW, the one given is Sgd");
    CHECK(refusal_of_adam_w(sgd_file()) ==
          "the optimizer of the file is Sgd, the one given is AdamW");
    CHECK(refusal_of(adam_w_file(), block(), Adam{block(), {}}) ==
          "the optimizer of the file is AdamW, the one given is Adam");
    const auto other_sgd = [](const auto& change) {
        SgdOptions options = sgd;
        change(options);
        return refusal_of(sgd_file(), block(), Sgd{block(), options});
    };
    CHECK(other_sgd([](SgdOptions& options) { options.momentum = 0.5; }) ==
          "Sgd has momentum 0.75 in the file, the one given has momentum 0.5");
    CHECK(other_sgd([](SgdOptions& options) { options.nesterov = true; }) ==
          "Sgd has nesterov false in the file, the one given has nesterov true");
    CHECK(other_sgd([](SgdOptions& options) { options.weight_decay = 0; }) ==
          "Sgd has weight_decay 0.001 in the file, the one given has weight_decay 0");
    CHECK(other_sgd([](SgdOptions& options) {
              options.unreached_layers = UnreachedLayers::as_zero_gradient;
          }) ==
          "Sgd has unreached_layers frozen in the file, the one given has unreached_layers "
          "as_zero_gradient");
    const auto other_adam_w = [](const auto& change) {
        AdamWOptions options = adam_w;
        change(options);
        return refusal_of(adam_w_file(), block(), AdamW{block(), options});
    };
    // The last digit counts.
    CHECK(other_adam_w([](AdamWOptions& options) { options.beta1 = 0.9000000000000001; }) ==
          "AdamW has beta1 0.9 in the file, the one given has beta1 0.9000000000000001");
    CHECK(other_adam_w([](AdamWOptions& options) { options.beta2 = 0.99; }) ==
          "AdamW has beta2 0.999 in the file, the one given has beta2 0.99");
    CHECK(other_adam_w([](AdamWOptions& options) { options.epsilon = 1e-7; }) ==
          "AdamW has epsilon 1e-08 in the file, the one given has epsilon 1e-07");
    CHECK(other_adam_w([](AdamWOptions& options) { options.weight_decay = 0.1; }) ==
          "AdamW has weight_decay 0.01 in the file, the one given has weight_decay 0.1");
    TrainingFile file = sgd_file();
    file.options.pop_back();
    CHECK(refusal_of(file) == "Sgd has 3 options in the file, the one given has 4");
    file.options.emplace_back("dampening", "0.1");
    CHECK(refusal_of(file) ==
          "Sgd has dampening 0.1 in the file, the one given has unreached_layers frozen");
}

TEST_CASE("load_training: another network", "[bad_input_checkpoint]") {
    const TrainingFile file = sgd_file();
    const auto refusal = [&](auto network) { return refusal_of(file, network, Sgd{network, sgd}); };
    CHECK(refusal(block(0.75)) ==
          "layer 0 of the file is StochasticDepth, survival probability 0.5, the network's is "
          "StochasticDepth, survival probability 0.75");
    const std::string first =
        "layer 0 of the file is StochasticDepth, survival probability 0.5, the network's is ";
    CHECK(refusal(Stack{std::vector<Block>(3, block())}) == first + "Stack");
    CHECK(refusal(linear()) == first + "Linear 1 -> 1");
    CHECK(refusal(block(0.5, 2)) ==
          "layer 2 of the file is branch: Linear 1 -> 1, the network's is branch: Linear 2 -> 2");
    CHECK(refusal(StochasticDepth{
              Residual{Linear<float>{Eigen::MatrixXf::Zero(1, 1), Eigen::VectorXf::Zero(1)}},
              SurvivalProbability{0.5}}) ==
          "parameter 0 of the file is branch.weights [1 x 1] of 64 bits, the network's is "
          "branch.weights [1 x 1] of 32 bits");
    CHECK(refusal(Sequential{block()}) == first + "Sequential");
    // An optimizer that was made for a network of another width.
    CHECK(refusal_of(file, block(), Sgd{block(0.5, 2), sgd}) ==
          "velocity record 0 of the file is branch.weights [1 x 1] of 64 bits, the network's is "
          "branch.weights [2 x 2] of 64 bits");
}

TEST_CASE("load_training: a file that no save_training of this library wrote",
          "[bad_input_checkpoint]") {
    const auto refused = [](const auto& change, const std::string& message) {
        TrainingFile file = sgd_file();
        change(file);
        CHECK(refusal_of(file) == message);
    };
    const auto adam_w_refused = [](const auto& change, const std::string& message) {
        TrainingFile file = adam_w_file();
        change(file);
        CHECK(refusal_of_adam_w(file) == message);
    };
    refused([](TrainingFile& file) { file.stream = 2; },
            "the masks of the training are of stream version 2, and this library draws version 1");
    refused([](TrainingFile& file) { file.stream = 7, file.mask_scope = 2; },
            "the masks of the training are of stream version 7, and this library draws version 1");
    refused([](TrainingFile& file) { file.mask_scope = 3; },
            "the file has mask scope 3, which this library doesn't know");
    refused([](TrainingFile& file) { file.mask_scope = 77; },
            "the file has mask scope 77, which this library doesn't know");
    refused([](TrainingFile& file) { file.scaling = 2; },
            "the file has scaling 2, which this library doesn't know");
    for (const auto& [rate, text] : {std::pair{0.0, "0"}, std::pair{-0.5, "-0.5"},
                                     std::pair{std::numeric_limits<double>::infinity(), "inf"},
                                     std::pair{std::numeric_limits<double>::quiet_NaN(), "nan"}}) {
        const auto change = [bad = rate](TrainingFile& file) { file.learning_rate = bad; };
        const std::string must = ": learning_rate must be finite and above 0, got ";
        refused(change, "Sgd" + must + text);
        adam_w_refused(change, "AdamW" + must + text);
    }
    refused([](TrainingFile& file) { file.layers.pop_back(); },
            "the file holds 3 layers, the network has 4");
    refused([](TrainingFile& file) { file.layers.emplace_back("", "Identity"); },
            "the file holds 5 layers, the network has 4");
    refused([](TrainingFile& file) { file.layers[3].first = "branch"; },
            "layer 3 of the file is branch: Identity, the network's is shortcut: Identity");
    refused([](TrainingFile& file) { file.parameters.pop_back(); },
            "the file holds 1 parameters, the network has 2");
    refused([](TrainingFile& file) { file.parameters[0].name = "weights"; },
            "parameter 0 of the file is weights [1 x 1] of 64 bits, the network's is "
            "branch.weights [1 x 1] of 64 bits");
    refused(
        [](TrainingFile& file) {
            file.layers_state = {{"branch.mean", {1}}};
        },
        "the file holds 1 state records, the network has 0");
    refused([](TrainingFile& file) { file.states.clear(); },
            "the file holds 0 states of the optimizer, the one given has 1");
    refused([](TrainingFile& file) { file.states[0].name = "momentum"; },
            "a state of the file's optimizer is momentum, of the one given velocity");
    refused([](TrainingFile& file) { file.states[0].records.pop_back(); },
            "the file holds 1 velocity records, the network has 2");
    refused([](TrainingFile& file) { file.states[0].records[1].name = "branch.weights"; },
            "velocity record 1 of the file is branch.weights [1 x 1] of 64 bits, the network's is "
            "branch.bias [1 x 1] of 64 bits");
    adam_w_refused([](TrainingFile& file) { std::swap(file.states[0], file.states[1]); },
                   "a state of the file's optimizer is second moment, of the one given first "
                   "moment");
    adam_w_refused([](TrainingFile& file) { file.states[2].counts.push_back(1); },
                   "the file holds 3 updates, the optimizer given has 2");
    // The learning rate is the last that is looked at, and the first that is written.
    const TemporaryDirectory directory;
    const std::string path = directory.file("training");
    test::Bytes longer = sgd_file().content();
    longer.resize(longer.size() + 5);
    test::write(path, sgd_file().sealed(longer));
    CHECK(refusal_of(path, block(), Sgd{block(), sgd}) ==
          "the file has 5 bytes after the last record");
}

TEST_CASE("load_training, save_training: an optimizer of a network of another depth",
          "[bad_input_checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("training");
    Stack network{std::vector<Block>(3, block())};
    Sgd optimizer{Stack{std::vector<Block>(2, block())}, sgd};
    const std::string message = "Stack: gradient must have 3 layers, got 2";
    CHECK(test::refusal([&] { save_training(path, network, optimizer, {}); }) == message);
    CHECK(directory.count() == 0);
    save_training(path, network, Sgd{network, sgd}, {});
    CHECK(test::refusal([&] { (void)load_training(path, network, optimizer); }) == message);
    CHECK(optimizer.options().learning_rate == sgd.learning_rate);
}

TEST_CASE("save_training: a file that cannot be written is named with the reason",
          "[bad_input_checkpoint]") {
    const TemporaryDirectory directory;
    const auto message = [](const std::string& path) {
        return thrown<std::runtime_error>([&] {
            save_training(path, block(), Sgd{block(), sgd}, {});
        });
    };
    const std::string inside = directory.file("gone/training");
    CHECK(holds(message(inside),
                "save_training: " + inside + ": cannot create the file: ", "No such file"));
    const std::string taken = directory.file("taken");
    std::filesystem::create_directory(taken);
    CHECK(holds(message(taken), "save_training: " + taken + ": cannot replace the file: "));
    CHECK(directory.count() == 1);
    if (std::filesystem::exists("/dev/full")) {
        const std::string old = directory.file("old");
        test::write(old, sgd_file().sealed());
        std::filesystem::create_symlink("/dev/full", old + ".partial");
        CHECK(holds(message(old),
                    "save_training: " + old + ": cannot write the file: ", "No space left"));
        CHECK(test::read(old) == sgd_file().sealed());
    }
}

}  // namespace
