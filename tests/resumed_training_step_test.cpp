// SPDX-License-Identifier: MIT
// TrainingStep goes on from a file as if the training had not been interrupted.
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;

using Block = StochasticDepth<Residual<Sequential<Linear<float>, ReLU<float>>>>;
using Network = Sequential<Linear<float>, Stack<Block>, Linear<float>>;

constexpr std::uint64_t all_steps = 60;

Network network_of(std::uint32_t seed) {
    Philox random{seed};
    std::vector<Block> blocks;
    for (int l = 0; l < 4; ++l)
        blocks.emplace_back(Residual{Sequential{Linear<float>{5, 5, random}, ReLU<float>{}}},
                            SurvivalProbability{0.3 + 0.1 * l});
    return Sequential{Linear<float>{3, 5, random}, Stack{blocks}, Linear<float>{5, 2, random}};
}

/// Steps from where the training stands up to `end`, with the options that its state holds.
template <class Optimizer>
void train(Network& network, Optimizer& optimizer, TrainingState& state, std::uint64_t end,
           unsigned threads) {
    TrainingStep step{network, MeanSquaredError<float>{},
                      TrainingStepOptions{.mask_scope = state.mask_scope,
                                          .scaling = state.scaling,
                                          .seed = state.seed,
                                          .threads = threads}};
    for (; state.step < end; ++state.step) {
        // The data of a step are a function of its number.
        Philox random{static_cast<std::uint32_t>(state.step)};
        const Matrix<float> x = test::random_matrix<float>(random, 3, 5);
        const Matrix<float> targets = test::random_matrix<float>(random, 2, 5);
        step.differentiate(network, x, targets, state.step);
        optimizer.step(network, step.gradient());
        step.finish(network);
    }
}

template <template <class> class Optimizer, class Options>
void check_resumed(const Options& options, const TrainingState& start) {
    Network uninterrupted = network_of(1);
    Optimizer<Network> whole{uninterrupted, options};
    TrainingState state = start;
    train(uninterrupted, whole, state, all_steps, 1);

    const test::TemporaryDirectory directory;
    const std::string path = directory.file("training");
    const Network first = network_of(1);
    save_training(path, first, Optimizer<Network>{first, options}, start);
    Philox random{static_cast<std::uint32_t>(start.seed)};
    std::set<std::uint64_t> stops{all_steps};
    while (stops.size() < 6) stops.insert(1 + random() % (all_steps - 1));
    unsigned threads = 1;
    for (const std::uint64_t stop : stops) {
        // Nothing but the file and the program's options; the threads may be others.
        Network network = network_of(2);
        Optimizer<Network> optimizer{network, options};
        TrainingState here = load_training(path, network, optimizer);
        CHECK(here.seed == start.seed);
        train(network, optimizer, here, stop, threads++ % 3 + 1);
        save_training(path, network, optimizer, here);
        CHECK(test::same_bits(test::parameters(network), test::parameters(uninterrupted)) ==
              (stop == all_steps));
    }
}

TEST_CASE(
    "load_training: TrainingStep interrupted five times equals the uninterrupted one bit for "
    "bit",
    "[resumed_training_step]") {
    const SgdOptions sgd{.learning_rate = 3e-4, .momentum = 0.9, .weight_decay = 1e-4};
    std::uint64_t seed = 2016;
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset})
        for (const Scaling scaling : {Scaling::none, Scaling::inverted}) {
            const TrainingState start{.seed = ++seed, .mask_scope = scope, .scaling = scaling};
            check_resumed<Sgd>(sgd, start);
            check_resumed<AdamW>(AdamWOptions{.learning_rate = 0.01}, start);
        }
}

}  // namespace
