// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/pass/differentiation.hpp>

namespace stochastic_depth::test {

/// A recorded pass through a network under a mask, and the way back, with matrices in place.
template <class Network>
class RecordedPass {
public:
    using Scalar = typename Network::Scalar;

    explicit RecordedPass(const detail::Team& team = detail::Team::alone()) : team_(team) {}

    /// h = network(h).
    template <class Mask>
    void forward(const Network& network, Matrix<Scalar>& h, const Mask& mask) {
        input_ = h;
        tape_.clear();
        detail::Flow<Scalar> flow(tape_, team_, input_);
        detail::record(network, flow, record_, mask);
        h = flow.current();
    }

    /// d = gradient by the input, given d = gradient by the output.
    void backward(const Network& network, Matrix<Scalar>& d,
                  typename Network::Gradient& gradient) const {
        const Matrix<Scalar> by_output = d;
        detail::Slopes<Scalar> slopes(team_, by_output);
        detail::backpropagate(network, slopes, record_, gradient);
        d = slopes.current();
    }

    [[nodiscard]] std::size_t bytes() const { return tape_.bytes(); }

private:
    const detail::Team& team_;
    Matrix<Scalar> input_;
    detail::Tape tape_;
    detail::Record<Network> record_;
};

}  // namespace stochastic_depth::test
