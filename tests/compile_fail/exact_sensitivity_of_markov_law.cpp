// EXPECT: derivatives by p_l are those of independent masks
// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/markov_law.hpp>

namespace sd = stochastic_depth;

void run(const sd::StochasticDepth<sd::Linear<double>>& network, const sd::Matrix<double>& x,
         const sd::MarkovLaw& law) {
    (void)sd::ExactSensitivity{}(network, x, law);
}
