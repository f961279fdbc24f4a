// EXPECT: gradient_is_empty_or_visit_parameters_names_it
// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "gain.hpp"

static_assert(sd::DifferentiableLayer<MemberGain>);
sd::TrainingStep<NetworkOf<MemberGain>, sd::MeanSquaredError<double>>* step = nullptr;
