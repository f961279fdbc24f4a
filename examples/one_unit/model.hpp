// SPDX-License-Identifier: MIT
// A model behind signatures without templates: who includes this compiles none of the mathematics.
#pragma once

#include <stochastic_depth/layers/composition/any_layer.hpp>

#include <cstdint>
#include <string>

/// A network from a line of text, a word for each layer: "linear:16", "relu", "block:0.8", the last
/// a residual block that is kept with that probability. Throws std::invalid_argument for a word that
/// it doesn't know, naming it.
[[nodiscard]] stochastic_depth::AnyLayer<float> read_network(const std::string& text,
                                                             stochastic_depth::Index inputs,
                                                             std::uint32_t seed);

struct Answer {
    stochastic_depth::Matrix<float> mean, standard_error;
};

/// f_SD(x) for a budget of layer evaluations, [outputs x batch] for x [inputs x batch].
[[nodiscard]] Answer expectation(const stochastic_depth::AnyLayer<float>& network,
                                 const stochastic_depth::Matrix<float>& x,
                                 std::uint64_t max_layer_evaluations);
