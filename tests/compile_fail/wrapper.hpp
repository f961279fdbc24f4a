// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace sd = stochastic_depth;

/// Says how deep it is, and hands no mask on.
struct Wrapper {
    using Scalar = double;
    sd::Sequential<sd::StochasticDepth<sd::Residual<sd::Linear<double>>>> inner;
    sd::Index output_size(sd::Index n) const { return inner.output_size(n); }
    void forward(const sd::ConstMatrixRef<double>& x, sd::MatrixRef<double> y) const {
        inner.forward(x, y);
    }
    sd::Index depth() const { return inner.depth(); }
    Eigen::VectorXd survival_probabilities() const { return inner.survival_probabilities(); }
};
