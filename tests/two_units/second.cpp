// SPDX-License-Identifier: MIT
#include "units.hpp"

double expectation_in_second_unit() { return expectation_of_worked_example(); }

std::string mask_in_second_unit() {
    namespace sd = stochastic_depth;
    return to_string(sd::MaskSampler{sd::linear_decay(20, 0.5), 42}.sample(7));
}
