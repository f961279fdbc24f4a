// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

/// More channels, of zeros, behind those of an image: behind an AveragePool2d, the shortcut without
/// parameters of a block that changes the shape.
///
/// \source He et al. 2016, Deep Residual Learning, section 3.3, option (A); Huang et al. 2016, Deep
///         Networks with Stochastic Depth, section 4.
template <class Scalar_>
class PadChannels {
public:
    using Scalar = Scalar_;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;

    /// \param channels  Of the output, at least those of the input.
    /// \throws std::invalid_argument  otherwise, or unless the shape is that of an image.
    PadChannels(const ImageShape& input, Index channels) : input_(input), channels_(channels) {
        detail::check_image_shape("PadChannels", "input", input);
        if (channels < input.channels)
            detail::refuse("PadChannels: channels must be at least ", input.channels, ", got ",
                           channels);
        detail::check_image_shape("PadChannels", "output", output_shape());
    }

    [[nodiscard]] const ImageShape& input_shape() const { return input_; }
    [[nodiscard]] ImageShape output_shape() const {
        return {channels_, input_.height, input_.width};
    }

    [[nodiscard]] std::string description() const {
        return detail::message("PadChannels ", detail::text_of(input_), " -> ",
                               detail::text_of(output_shape()));
    }

    /// \throws std::invalid_argument  unless input_size == input_shape().size().
    [[nodiscard]] Index output_size(Index input_size) const {
        detail::check_image_size("PadChannels", input_, input_size);
        return output_shape().size();
    }

    /// \param x  [input_shape().size() x batch].
    /// \param y  [output_shape().size() x batch], overwritten.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("PadChannels", *this, x, y);
        for (Index j = 0; j < x.cols(); ++j)
            for (Index p = 0; p < input_.positions(); ++p) {
                Scalar* const to = y.data() + p * channels_ + j * y.outerStride();
                std::copy_n(x.data() + p * input_.channels + j * x.outerStride(), input_.channels,
                            to);
                std::fill_n(to + input_.channels, channels_ - input_.channels, Scalar(0));
            }
    }
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = dy of the channels that were there.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        detail::check_backward("PadChannels", *this, x, dy, dx);
        for (Index j = 0; j < dx.cols(); ++j)
            for (Index p = 0; p < input_.positions(); ++p)
                std::copy_n(dy.data() + p * channels_ + j * dy.outerStride(), input_.channels,
                            dx.data() + p * input_.channels + j * dx.outerStride());
    }

private:
    ImageShape input_;
    Index channels_;
};

}  // namespace stochastic_depth
