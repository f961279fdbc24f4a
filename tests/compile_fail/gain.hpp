// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace sd = stochastic_depth;

/// y = a x, whose gradient by a nobody is told of.
struct Gain {
    using Scalar = double;
    struct Cache {};
    struct Gradient {
        sd::Matrix<double> a = sd::Matrix<double>::Zero(1, 1);
        void set_zero() { a.setZero(); }
    };
    sd::Matrix<double> a = sd::Matrix<double>::Ones(1, 1);
    sd::Index output_size(sd::Index n) const { return n; }
    void forward(const sd::ConstMatrixRef<double>& x, sd::MatrixRef<double> y) const {
        y = a(0) * x;
    }
    void forward(const sd::ConstMatrixRef<double>& x, sd::MatrixRef<double> y, Cache&) const {
        forward(x, y);
    }
    Gradient zero_gradient() const { return {}; }
    void backward(const sd::ConstMatrixRef<double>& x, const sd::ConstMatrixRef<double>& dy,
                  const Cache&, Gradient& gradient, sd::MatrixRef<double> dx) const {
        gradient.a(0) += x.cwiseProduct(dy).sum();
        dx = a(0) * dy;
    }
};

/// Names it, and not as a static member.
struct MemberGain : Gain {
    template <class Visit, class... Gradients>
    void visit_parameters(Visit&& visit, Gradients&... gradients) {
        visit("a", a, gradients.a...);
    }
};

template <class Layer>
using NetworkOf = sd::Sequential<sd::StochasticDepth<sd::Residual<Layer>>>;
