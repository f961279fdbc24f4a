// EXPECT: MaskedNetwork.*RunsItself
// SPDX-License-Identifier: MIT
// Depth and probabilities alone make no MaskedNetwork.
#include <stochastic_depth/masked_forward.hpp>

#include "wrapper.hpp"

sd::Matrix<double> run(const Wrapper& wrapper, const sd::Matrix<double>& x) {
    return sd::masked_forward(wrapper, x, sd::SurvivalMask{1});
}
