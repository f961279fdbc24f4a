// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

/// y = x.
template <class Scalar_>
class Identity {
public:
    using Scalar = Scalar_;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;
    /// Of images.
    static constexpr bool keeps_shape = true;
    static constexpr bool reads_chosen_columns = true;

    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }

    /// \param x  [features x batch].
    /// \param y  [features x batch], overwritten.
    /// \throws std::invalid_argument  if sizes differ.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Identity", *this, x, y);
        y = x;
    }

    template <class Memory>
    struct Record {};

    template <class Batch, class Record, class Mask, class Epilogue>
    void run(Batch& batch, Record&, const Mask&, const Epilogue& epilogue) const {
        batch.apply(epilogue);
    }
    template <class Batch, class Record, class Epilogue>
    void backpropagate(Batch& batch, const Record&, Gradient&, const Epilogue& epilogue) const {
        batch.apply(epilogue);
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = dy.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        detail::check_backward("Identity", *this, x, dy, dx);
        dx = dy;
    }
};

}  // namespace stochastic_depth
