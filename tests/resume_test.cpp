// SPDX-License-Identifier: MIT
// A training that is interrupted and goes on from its file is the training that was not.
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/gradient_clipping.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/recorded_pass.hpp"

namespace {

using namespace stochastic_depth;
using test::TemporaryDirectory;

using Block = StochasticDepth<Residual<Sequential<Linear<float>, ReLU<float>>>>;
using Network = Sequential<Linear<float>, Stack<Block>, Linear<float>>;

constexpr Index samples = 24, batch = 4;
constexpr std::uint64_t steps_per_epoch = samples / batch, epochs = 10;
constexpr std::uint64_t all_steps = steps_per_epoch * epochs;

Network network_of(std::uint32_t seed) {
    Philox random{seed};
    std::vector<Block> blocks;
    for (int l = 0; l < 4; ++l)
        blocks.emplace_back(Residual{Sequential{Linear<float>{5, 5, random}, ReLU<float>{}}},
                            SurvivalProbability{0.3 + 0.1 * l});
    return Sequential{Linear<float>{3, 5, random}, Stack{blocks}, Linear<float>{5, 2, random}};
}

struct Data {
    Matrix<float> x, y;
};
Data some_data() {
    Philox random{77};
    return {test::random_matrix<float>(random, 3, samples),
            test::random_matrix<float>(random, 2, samples)};
}

/// Steps from where the training stands up to `end`.
template <class Optimizer>
void train(Network& network, Optimizer& optimizer, TrainingState& state, std::uint64_t end) {
    const Data data = some_data();
    const MaskSampler sampler{network.survival_probabilities(), state.seed};
    auto gradient = network.zero_gradient();
    test::RecordedPass<Network> pass;
    for (; state.step < end; ++state.step) {
        state.epoch = state.step / steps_per_epoch;
        const std::vector<Index> order = detail::random_order(
            samples, detail::stream_key(state.seed, detail::StreamPurpose::shuffling, 1),
            state.epoch);
        Matrix<float> h(3, batch), targets(2, batch), slopes(2, batch);
        for (Index j = 0; j < batch; ++j) {
            const auto place = state.step % steps_per_epoch * batch + static_cast<std::uint64_t>(j);
            h.col(j) = data.x.col(order[static_cast<std::size_t>(place)]);
            targets.col(j) = data.y.col(order[static_cast<std::size_t>(place)]);
        }
        SurvivalMasks masks(network.depth(), batch);
        sampler.sample(state.step, masks);
        pass.forward(network, h, detail::MaskView{masks});
        (void)MeanSquaredError<float>{}.value_and_gradient(h, targets, slopes);
        pass.backward(network, slopes, gradient);
        clip_gradient_norm(network, gradient, 0.5);
        // Half way, the rate falls for good: the file has to remember.
        if (state.step == all_steps / 2)
            optimizer.set_learning_rate(optimizer.options().learning_rate / 10);
        optimizer.step(network, gradient);
        gradient.set_zero();
    }
}

template <template <class> class Optimizer, class Options>
void check_resumed(const Options& options) {
    TrainingState state{.seed = 2016};
    Network uninterrupted = network_of(1);
    Optimizer<Network> whole{uninterrupted, options};
    train(uninterrupted, whole, state, all_steps);

    Philox random{99};
    std::set<std::uint64_t> stops;
    while (stops.size() < 5) stops.insert(1 + random() % (all_steps - 1));
    const TemporaryDirectory directory;
    const std::string path = directory.file("training");
    {
        const Network network = network_of(1);
        save_training(path, network, Optimizer<Network>{network, options}, {.seed = 2016});
    }
    // Each leg starts with nothing but the file and the program's options.
    stops.insert(all_steps);
    for (const std::uint64_t stop : stops) {
        Network network = network_of(2);
        Optimizer<Network> optimizer{network, options};
        TrainingState here = load_training(path, network, optimizer);
        if (stop == all_steps) {
            // Parameters alone would not do: a new optimizer goes elsewhere.
            Network other = network;
            Optimizer<Network> fresh{other, options};
            fresh.set_learning_rate(optimizer.options().learning_rate);
            TrainingState there = here;
            train(other, fresh, there, all_steps);
            CHECK_FALSE(test::same_bits(test::parameters(other), test::parameters(uninterrupted)));
        }
        train(network, optimizer, here, stop);
        CHECK(here.step == stop);
        CHECK(test::same_bits(test::parameters(network), test::parameters(uninterrupted)) ==
              (stop == all_steps));
        CHECK((optimizer.options().learning_rate == options.learning_rate) ==
              (stop <= all_steps / 2));
        save_training(path, network, optimizer, here);
    }
}

TEST_CASE(
    "load_training: a training interrupted five times equals the uninterrupted one bit for "
    "bit",
    "[resume]") {
    for (const UnreachedLayers unreached :
         {UnreachedLayers::frozen, UnreachedLayers::as_zero_gradient}) {
        check_resumed<Sgd>(SgdOptions{.learning_rate = 0.05,
                                      .momentum = 0.9,
                                      .weight_decay = 1e-4,
                                      .unreached_layers = unreached});
        check_resumed<Sgd>(SgdOptions{.learning_rate = 0.05,
                                      .momentum = 0.9,
                                      .nesterov = true,
                                      .unreached_layers = unreached});
        check_resumed<Adam>(AdamOptions{.learning_rate = 0.01, .unreached_layers = unreached});
        check_resumed<AdamW>(AdamWOptions{.learning_rate = 0.01, .unreached_layers = unreached});
    }
}

}  // namespace
