// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/pass/run.hpp>

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
        detail::Batch<Scalar, detail::Records> batch(team_, tape_, detail::const_view(input_));
        detail::run(network, batch, record_, mask);
        bytes_ = tape_.bytes();
        h = batch.current();
    }

    /// d = gradient by the input, given d = gradient by the output.
    void backward(const Network& network, Matrix<Scalar>& d,
                  typename Network::Gradient& gradient) const {
        const Matrix<Scalar> by_output = d;
        detail::SparePiece spare;
        detail::GradientBatch<Scalar> batch(team_, {&spare}, detail::const_view(by_output));
        detail::backpropagate(network, batch, record_, gradient);
        d = batch.current();
    }

    [[nodiscard]] std::size_t bytes() const { return bytes_; }

private:
    const detail::Team& team_;
    Matrix<Scalar> input_;
    detail::Tape tape_;
    std::size_t bytes_ = 0;
    detail::RecordOf<Network, detail::Records> record_;
};

}  // namespace stochastic_depth::test
