// EXPECT: gradient_is_empty_or_visit_parameters_names_it
// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "gain.hpp"

void run(const NetworkOf<MemberGain>& network) {
    sd::TrainingStep step{network, sd::MeanSquaredError<double>{}};
}
