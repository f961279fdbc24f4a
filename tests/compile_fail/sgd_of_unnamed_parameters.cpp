// EXPECT: error: .*a layer whose Gradient holds something must name its parameters
// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/sgd.hpp>

#include "gain.hpp"

void run(NetworkOf<Gain>& network, NetworkOf<Gain>::Gradient& gradient) {
    sd::Sgd sgd{network, {.learning_rate = 0.1}};
    sgd.step(network, gradient);
}
