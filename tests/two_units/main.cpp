// SPDX-License-Identifier: MIT
#include "units.hpp"

#include <cmath>
#include <cstdio>

// Two units that include everything must link to one program and agree.
int main() {
    namespace sd = stochastic_depth;
    const std::string mask = to_string(sd::MaskSampler{sd::linear_decay(20, 0.5), 42}.sample(7));
    const double mean = expectation_of_worked_example();
    std::printf("mean %.6f and %.6f, mask %s and %s\n", mean, expectation_in_second_unit(),
                mask.c_str(), mask_in_second_unit().c_str());
    const bool agree = mean == expectation_in_second_unit() && mask == mask_in_second_unit();
    return agree && std::abs(mean - 12.096) < 1e-12 ? 0 : 1;
}
