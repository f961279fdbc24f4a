// EXPECT: error: .*a layer whose Gradient holds something must name its parameters
// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/checkpoint.hpp>

#include "gain.hpp"

void run(const NetworkOf<Gain>& network) { sd::save_parameters("parameters", network); }
