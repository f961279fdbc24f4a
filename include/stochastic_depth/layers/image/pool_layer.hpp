// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/window.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

struct Pool2dOptions {
    /// Side of the window, at least 1, and at most that of the padded image.
    Index kernel = 2;
    /// At least 1; 0: the kernel, so that windows lie side by side.
    Index stride = 0;
    /// Rows and columns around the image that no window counts, fewer than the kernel.
    Index padding = 0;
};

namespace detail {

/// A leaf that makes one number of each channel of a window. Pool has a name, and
///     static void forward(x, taps, y): y(c) from x[taps(t) + c] for each channel,
///     static void backward(x, taps, dy, dx): adds to dx at the same places.
template <class Pool, class Scalar_>
class PoolLayer {
public:
    using Scalar = Scalar_;
    using Cache = NoCache;
    using Gradient = NoGradient;

    /// \throws std::invalid_argument  if the shape or an option lies outside its range.
    explicit PoolLayer(const ImageShape& input, const Pool2dOptions& options = {})
        : input_(input),
          window_{options.kernel, options.stride == 0 ? options.kernel : options.stride,
                  options.padding} {
        window_.check(Pool::name, input, std::max<Index>(options.kernel - 1, 0));
    }

    [[nodiscard]] const ImageShape& input_shape() const { return input_; }
    [[nodiscard]] ImageShape output_shape() const {
        return window_.output_shape(input_, input_.channels);
    }
    [[nodiscard]] Pool2dOptions options() const {
        return {window_.kernel, window_.stride, window_.padding};
    }

    [[nodiscard]] std::string description() const {
        return message(Pool::name, " ", text_of(input_), " -> ", text_of(output_shape()),
                       ", kernel ", window_.kernel, ", stride ", window_.stride, ", padding ",
                       window_.padding);
    }

    /// \throws std::invalid_argument  unless input_size == input_shape().size().
    [[nodiscard]] Index output_size(Index input_size) const {
        check_image_size(Pool::name, input_, input_size);
        return output_shape().size();
    }

    /// \param x  [input_shape().size() x batch].
    /// \param y  [output_shape().size() x batch], overwritten.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        check_forward(Pool::name, *this, x, y);
        for (Index j = 0; j < x.cols(); ++j) {
            Scalar* to = y.data() + j * y.outerStride();
            for_each_window([&](const Taps& taps) {
                Pool::forward(x.data() + j * x.outerStride(), taps, to);
                to += input_.channels;
            });
        }
    }
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// \param x   The input of forward.
    /// \param dy  Gradient by the output.
    /// \param dx  Gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        check_backward(Pool::name, *this, x, dy, dx);
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar* from = dy.data() + j * dy.outerStride();
            Scalar* const to = dx.data() + j * dx.outerStride();
            std::fill_n(to, dx.rows(), Scalar(0));
            for_each_window([&](const Taps& taps) {
                Pool::backward(x.data() + j * x.outerStride(), taps, from, to);
                from += input_.channels;
            });
        }
    }

private:
    /// The taps of a window that are in the image: `count` of them, window rows first.
    struct Taps {
        Index channels, columns, count;
        Index first, row;

        /// Where tap t stands.
        [[nodiscard]] Index operator()(Index t) const {
            return first + channels * (t % columns) + row * (t / columns);
        }
    };

    template <class Visit>
    void for_each_window(const Visit& visit) const {
        const WindowAxis across = window_.axis(input_.width), down = window_.axis(input_.height);
        const Index row = input_.channels * input_.width;
        for (Index v = 0; v < down.outputs; ++v)
            for (Index u = 0; u < across.outputs; ++u) {
                const WindowRun in_row = window_at(across, u), in_column = window_at(down, v);
                const Index columns = in_row.high - in_row.low;
                visit(Taps{input_.channels, columns, columns * (in_column.high - in_column.low),
                           input_.channels * (across.first + across.step * u + in_row.low) +
                               row * (down.first + down.step * v + in_column.low),
                           row});
            }
    }

    ImageShape input_;
    Window window_;
};

}  // namespace detail
}  // namespace stochastic_depth
