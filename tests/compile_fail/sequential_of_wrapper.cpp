// EXPECT: error: .*a layer with survival probabilities has skippable layers inside: it must hand the mask on to them
// SPDX-License-Identifier: MIT
#include "wrapper.hpp"

sd::Matrix<double> run(const sd::Sequential<Wrapper>& network, const sd::Matrix<double>& x) {
    return network(x, sd::SurvivalMask{1});
}
