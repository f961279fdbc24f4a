// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include <stochastic_depth/text/tokenizer.hpp>
#include <stochastic_depth/training/step_options.hpp>

#include "mask_scope.hpp"

namespace common {

[[nodiscard]] inline std::string to_string(stochastic_depth::TokenUnit unit) {
    using stochastic_depth::TokenUnit;
    switch (unit) {
        case TokenUnit::byte:
            return "bytes";
        case TokenUnit::character:
            return "characters";
        case TokenUnit::word:
            return "words";
    }
    return {};
}

/// How survival probabilities go from layer to layer.
enum class SurvivalDecay { linear, none };

/// When layers are skipped in a training: throughout, in its first or in its second half.
enum class SkippingTime { always, early, late };

[[nodiscard]] inline std::string to_string(SurvivalDecay decay) {
    return decay == SurvivalDecay::linear ? "linear" : "none";
}
[[nodiscard]] inline std::string to_string(SkippingTime time) {
    return time == SkippingTime::always ? "always" : time == SkippingTime::early ? "early" : "late";
}

/// What decides which network a training on texts gives; threads do not.
struct TextSettings {
    stochastic_depth::TokenUnit tokens = stochastic_depth::TokenUnit::word;
    bool lower_case = true;                    ///< letters of ASCII
    stochastic_depth::Index minimum_count = 1;  ///< of a token in the training texts
    stochastic_depth::Index positions = 64;     ///< tokens of a text that count
    stochastic_depth::Index blocks = 4;
    stochastic_depth::Index width = 64;
    stochastic_depth::Index heads = 4;
    stochastic_depth::Index feed_forward = 128;
    double final_survival = 0.5;  ///< 1: constant depth
    SurvivalDecay survival_decay = SurvivalDecay::linear;
    SkippingTime skipping = SkippingTime::always;
    stochastic_depth::MaskScope mask_scope = stochastic_depth::MaskScope::sample;
    bool rotary = false;  ///< positions turn queries and keys, in place of learned vectors
    double dropout = 0.2;
    double token_dropout = 0.1;
    stochastic_depth::Index epochs = 20;
    stochastic_depth::Index batch_size = 32;
    stochastic_depth::Index shards = 0;  ///< of a batch; 0: 1
    double learning_rate = 0.001;
    double weight_decay = 0.01;
    double label_smoothing = 0.0;
    std::uint64_t seed = 0;
};

/// \param texts  What the data set is called.
[[nodiscard]] inline nlohmann::json json_of(const TextSettings& settings,
                                            const std::string& texts) {
    return {{"texts", texts},
            {"tokens", to_string(settings.tokens)},
            {"lower_case", settings.lower_case},
            {"minimum_count", settings.minimum_count},
            {"positions", settings.positions},
            {"blocks", settings.blocks},
            {"width", settings.width},
            {"heads", settings.heads},
            {"feed_forward", settings.feed_forward},
            {"final_survival", settings.final_survival},
            {"survival_decay", to_string(settings.survival_decay)},
            {"skipping", to_string(settings.skipping)},
            {"mask_scope", to_string(settings.mask_scope)},
            {"rotary", settings.rotary},
            {"dropout", settings.dropout},
            {"token_dropout", settings.token_dropout},
            {"epochs", settings.epochs},
            {"batch_size", settings.batch_size},
            {"shards", settings.shards},
            {"learning_rate", settings.learning_rate},
            {"weight_decay", settings.weight_decay},
            {"label_smoothing", settings.label_smoothing},
            {"seed", settings.seed}};
}

/// What an epoch of a training came to.
struct TextEpoch {
    double loss = 0;             ///< of training, under masks
    double share_of_layers = 0;  ///< of all skippable layers, over all samples: what ran
    double seconds = 0;          ///< of training, without the test
    double cpu_seconds = 0;      ///< the same, of the processor, all threads
    double test_error = 0;       ///< by weight scaling, on development or test texts
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(TextEpoch, loss, share_of_layers, seconds, cpu_seconds,
                                   test_error)

}  // namespace common
