// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <limits>
#include <stdexcept>

#include <stochastic_depth/concepts.hpp>

/// Layers that tell what was done to them.
namespace probe {

using stochastic_depth::ConstMatrixRef;
using stochastic_depth::Index;
using stochastic_depth::MatrixRef;

/// y = |x| / 2 + 1, and counts the columns that it was given.
struct Counted {
    using Scalar = double;
    std::atomic<long>* columns;

    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        *columns += x.cols();
        y = (x.array().abs() / 2 + 1).matrix();
    }
};

/// y = |x| / 2 + 1, until it has been called as often as the counter says; that call throws.
struct Failing {
    using Scalar = double;
    std::atomic<long>* calls_left;

    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        if (--*calls_left == 0) throw std::domain_error("the user's layer failed");
        y = (x.array().abs() / 2 + 1).matrix();
    }
};

/// y = NaN.
struct NotANumber {
    using Scalar = double;

    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>&, MatrixRef<double> y) const {
        y.setConstant(std::numeric_limits<double>::quiet_NaN());
    }
};

}  // namespace probe
