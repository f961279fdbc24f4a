// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/training_checkpoint.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/sgd.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/killed_saves.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::Bytes;
using test::same_bits;
using test::TemporaryDirectory;

using Block = StochasticDepth<Residual<Linear<float>>>;
using Network = Sequential<Linear<float>, Block>;

Network network_of(std::uint32_t seed, Index width = 2, double p = 0.5) {
    Philox random{seed};
    return Sequential{Linear<float>{1, width, random},
                      Block{Residual{Linear<float>{width, width, random}}, SurvivalProbability{p}}};
}

/// Moves all that an optimizer keeps, by `steps` steps of one gradient.
template <class Net, class Optimizer>
void move(Net& network, Optimizer& optimizer, int steps) {
    auto gradient = network.zero_gradient();
    std::get<1>(gradient.layers).reached = true;
    detail::visit_parameters(
        network,
        [&](const char*, const auto& parameter, auto& slope) {
            slope = parameter * 0.5f;
            slope.array() += 0.25f;
        },
        gradient);
    for (int step = 0; step < steps; ++step) optimizer.step(network, gradient);
}

/// All numbers that a training depends on, in one vector.
template <class Net, class Optimizer>
std::vector<double> everything(const Net& network, const Optimizer& optimizer) {
    const Eigen::VectorXd parameters = test::parameters(network);
    std::vector<double> all(parameters.data(), parameters.data() + parameters.size());
    all.push_back(optimizer.options().learning_rate);
    Optimizer::visit_state(optimizer, [&]<class State>(const char*, const State& state) {
        if constexpr (std::is_same_v<State, std::vector<std::uint64_t>>)
            for (const std::uint64_t count : state) all.push_back(static_cast<double>(count));
        else
            detail::entries_of(network, state)([&](const std::string&, const auto& entries) {
                detail::for_each_entry(
                    entries, [&](auto entry) { all.push_back(static_cast<double>(entry)); });
            });
    });
    return all;
}

const TrainingState some_state{.step = 1234567890123,
                               .epoch = 17,
                               .seed = 0xfedcba9876543210,
                               .mask_scope = MaskScope::batch,
                               .scaling = Scaling::inverted,
                               .description = "cosine from 0.1, \"warm\" up 5 %\n"};

template <class Net, class Optimizer>
std::string load_error(const std::string& path, Net& network, Optimizer& optimizer) {
    return thrown<std::runtime_error>([&] { (void)load_training(path, network, optimizer); });
}

template <template <class> class Optimizer, class Options>
void check_round_trip(const std::string& path, Options options) {
    Network saved = network_of(1);
    Optimizer<Network> saved_optimizer{saved, options};
    move(saved, saved_optimizer, 3);
    saved_optimizer.set_learning_rate(options.learning_rate / 3);
    save_training(path, saved, saved_optimizer, some_state);
    Network loaded = network_of(2);
    Optimizer<Network> loaded_optimizer{loaded, options};
    REQUIRE(everything(loaded, loaded_optimizer) != everything(saved, saved_optimizer));
    TrainingState state = load_training(path, loaded, loaded_optimizer);
    CHECK(state.library_version == detail::library_version());
    state.library_version.clear();
    CHECK(state == some_state);
    CHECK(everything(loaded, loaded_optimizer) == everything(saved, saved_optimizer));
    move(saved, saved_optimizer, 2);
    move(loaded, loaded_optimizer, 2);
    CHECK(everything(loaded, loaded_optimizer) == everything(saved, saved_optimizer));
}

TEST_CASE("load_training: gives network, optimizer and state as they were saved",
          "[training_checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("training");
    check_round_trip<Sgd>(path, SgdOptions{.momentum = 0.9, .nesterov = true, .weight_decay = 0.1});
    check_round_trip<Adam>(path, AdamOptions{});
    check_round_trip<AdamW>(
        path,
        AdamWOptions{.beta1 = 0.1 + 0.2, .unreached_layers = UnreachedLayers::as_zero_gradient});
    CHECK(directory.count() == 1);
}

TEST_CASE("load_training: every truncation and every flipped bit is an error, nothing is changed",
          "[training_checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("training"), damaged = directory.file("damaged");
    Network saved = network_of(1), network = network_of(2);
    AdamW saved_optimizer{saved, {}}, optimizer{network, {}};
    move(saved, saved_optimizer, 2);
    move(network, optimizer, 1);
    save_training(path, saved, saved_optimizer, some_state);
    const Bytes bytes = test::read(path);
    const std::vector<double> before = everything(network, optimizer);
    const auto refused = [&](const Bytes& changed, const std::string& reason) {
        test::write(damaged, changed);
        const std::string message = load_error(damaged, network, optimizer);
        INFO(message);
        REQUIRE(holds(message, "load_training: " + damaged + ": the file ", reason));
        REQUIRE(everything(network, optimizer) == before);
    };
    for (std::size_t length = 0; length < bytes.size(); ++length)
        refused(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)),
                "is cut short");
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        INFO("bit " << bit);
        Bytes changed = bytes;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
        refused(changed, bit < 64    ? "is of another kind"
                         : bit < 96  ? "has format version "
                         : bit < 160 ? "content"  // too long or cut short, says the length
                                     : "is damaged");
    }
    Bytes longer = bytes;
    longer.push_back(0);
    refused(longer, "is too long");
    // The file that all these came from is good.
    (void)load_training(path, network, optimizer);
    CHECK(everything(network, optimizer) == everything(saved, saved_optimizer));
}

TEST_CASE("load_training: content that a good seal hides is refused wherever it is cut",
          "[training_checkpoint]") {
    const TemporaryDirectory directory;
    const std::string path = directory.file("training");
    Network network = network_of(1);
    Adam optimizer{network, {}};
    save_training(path, network, optimizer, some_state);
    const Bytes content = detail::read_sealed("test", path, "SDRESUME", 2);
    move(network, optimizer, 1);
    const std::vector<double> before = everything(network, optimizer);
    for (std::size_t length = 0; length < content.size(); ++length) {
        const auto end = content.begin() + static_cast<std::ptrdiff_t>(length);
        detail::write_sealed("test", path, "SDRESUME", 2, Bytes(content.begin(), end));
        const std::string message = load_error(path, network, optimizer);
        INFO(message);
        REQUIRE(holds(message, "load_training: " + path + ": a record needs "));
        REQUIRE(everything(network, optimizer) == before);
    }
}

TEST_CASE("save_training: killed at any moment, it leaves the old file or the new one",
          "[training_checkpoint]") {
    using Wide = Linear<double>;
    const auto constant = [](double value) {
        return Wide{Eigen::MatrixXd::Constant(150, 150, value),
                    Eigen::VectorXd::Constant(150, value)};
    };
    // A generation has its number in network, optimizer and state.
    const auto save = [&](const std::string& path, std::uint64_t generation) {
        const double value = static_cast<double>(generation);
        Wide network = constant(value);
        Sgd optimizer{network, {.learning_rate = 1.0, .momentum = 0.5}};
        Sgd<Wide>::visit_state(optimizer, [&](const char*, auto& velocity) {
            velocity.weights.setConstant(value);
            velocity.bias.setConstant(value);
        });
        save_training(path, network, optimizer, {.step = generation});
    };
    const auto load = [&](const std::string& path) {
        Wide network = constant(-1);
        Sgd optimizer{network, {.momentum = 0.5}};
        const TrainingState state = load_training(path, network, optimizer);
        std::vector<double> expected(std::size_t{2} * (150 * 150 + 150) + 1,
                                     static_cast<double>(state.step));
        expected[150 * 150 + 150] = 1.0;  // the learning rate
        REQUIRE(everything(network, optimizer) == expected);
        return state.step;
    };
    test::check_killed_saves("training", save, load);
}

}  // namespace
