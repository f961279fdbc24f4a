// EXPECT: error: [^\n]*a layer whose Gradient holds something must name its parameters
// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/sgd.hpp>

#include "gain.hpp"

void run(const NetworkOf<MemberGain>& network) { sd::Sgd sgd{network, {.learning_rate = 0.1}}; }
