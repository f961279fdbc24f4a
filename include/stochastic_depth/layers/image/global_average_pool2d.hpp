// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/numerics/batch_moments.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

/// The mean of each channel over all positions: an image of one position, [channels x batch]. Sums
/// are taken in double.
template <class Scalar_>
class GlobalAveragePool2d {
public:
    using Scalar = Scalar_;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;

    /// \throws std::invalid_argument  unless the shape is that of an image.
    explicit GlobalAveragePool2d(const ImageShape& input) : input_(input) {
        detail::check_image_shape("GlobalAveragePool2d", "input", input);
    }

    [[nodiscard]] const ImageShape& input_shape() const { return input_; }
    [[nodiscard]] ImageShape output_shape() const { return {input_.channels, 1, 1}; }

    [[nodiscard]] std::string description() const {
        return detail::message("GlobalAveragePool2d ", detail::text_of(input_));
    }

    /// \throws std::invalid_argument  unless input_size == input_shape().size().
    [[nodiscard]] Index output_size(Index input_size) const {
        detail::check_image_size("GlobalAveragePool2d", input_, input_size);
        return input_.channels;
    }

    /// \param x  [input_shape().size() x batch].
    /// \param y  [channels x batch], overwritten.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("GlobalAveragePool2d", *this, x, y);
        const auto positions = static_cast<double>(input_.positions());
        for (Index j = 0; j < x.cols(); ++j)
            detail::for_each_group(0, input_.channels, [&](Index i, Index rows) {
                const Scalar* const from = x.data() + i + j * x.outerStride();
                double sums[detail::moments_group];
                detail::sum_columns(rows, input_.positions(), sums, [&](Index k, Index p) {
                    return static_cast<double>(from[k + p * input_.channels]);
                });
                for (Index k = 0; k < rows; ++k)
                    y.data()[i + k + j * y.outerStride()] =
                        static_cast<Scalar>(sums[k] / positions);
            });
    }
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = dy / positions, at each of them.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        detail::check_backward("GlobalAveragePool2d", *this, x, dy, dx);
        const auto positions = static_cast<Scalar>(input_.positions());
        for (Index j = 0; j < dx.cols(); ++j)
            for (Index p = 0; p < input_.positions(); ++p)
                for (Index c = 0; c < input_.channels; ++c)
                    dx.data()[c + p * input_.channels + j * dx.outerStride()] =
                        dy.data()[c + j * dy.outerStride()] / positions;
    }

private:
    ImageShape input_;
};

}  // namespace stochastic_depth
