// EXPECT: DifferentiableLayer
// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

namespace sd = stochastic_depth;

void run() {
    sd::Sequential network{sd::function<double>([](const auto& x) { return 0.5 * x; })};
    sd::TrainingStep<decltype(network), sd::MeanSquaredError<double>> step(network, {});
}
