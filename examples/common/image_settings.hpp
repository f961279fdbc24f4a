// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include <stochastic_depth/training/step_options.hpp>

#include "mask_scope.hpp"

namespace common {

/// What decides which network a training on images gives; threads do not, and nor do ranks.
struct ImageSettings {
    stochastic_depth::Index train = 50000;  ///< images
    stochastic_depth::Index test = 10000;
    stochastic_depth::Index epochs = 20;
    stochastic_depth::Index depth = 20;
    double final_survival = 0.5;  ///< 1: constant depth
    stochastic_depth::MaskScope mask_scope = stochastic_depth::MaskScope::sample;
    stochastic_depth::Index batch_size = 128;
    stochastic_depth::Index shards = 0;  ///< of a batch; 0: 1, or on ranks 8
    double learning_rate = 0.1;
    double weight_decay = 1e-4;
    bool augment = false;
    std::uint64_t seed = 0;
};

/// \param images  What the data set is called.
[[nodiscard]] inline nlohmann::json json_of(const ImageSettings& settings,
                                            const std::string& images) {
    return {{"images", images},
            {"train", settings.train},
            {"test", settings.test},
            {"epochs", settings.epochs},
            {"depth", settings.depth},
            {"final_survival", settings.final_survival},
            {"mask_scope", to_string(settings.mask_scope)},
            {"batch_size", settings.batch_size},
            {"shards", settings.shards},
            {"learning_rate", settings.learning_rate},
            {"weight_decay", settings.weight_decay},
            {"augment", settings.augment},
            {"seed", settings.seed}};
}

/// What an epoch of a training came to.
struct ImageEpoch {
    double loss = 0;             ///< of training, under masks
    double share_of_blocks = 0;  ///< of all blocks, over all samples: what ran
    double seconds = 0;          ///< of training, without the test
    double cpu_seconds = 0;      ///< the same, summed over all threads
    double test_error = 0;       ///< by weight scaling
    /// Means over the steps: of the gradient by all parameters, and by the first layers'.
    double gradient_norm = 0;
    double first_gradient_norm = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ImageEpoch, loss, share_of_blocks, seconds, cpu_seconds,
                                   test_error, gradient_norm, first_gradient_norm)

}  // namespace common
