// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/matrices.hpp"
#include "support/whole.hpp"

/// Images, and what slides over them, in plain loops.
namespace stochastic_depth::test {

/// The row of an entry of an image.
[[nodiscard]] inline Index row_of(const ImageShape& shape, Index c, Index u, Index v) {
    return c + shape.channels * (u + shape.width * v);
}

/// What a layer with a square window slides over.
struct Sliding {
    ImageShape input;
    Index kernel = 1, stride = 1, padding = 0;

    [[nodiscard]] ImageShape output(Index channels) const {
        return {channels, (input.height + 2 * padding - kernel) / stride + 1,
                (input.width + 2 * padding - kernel) / stride + 1};
    }

    /// Calls visit(u, v, from_u, from_v, tap) for each output position and each tap of its window
    /// that is in the image, window rows first.
    template <class Visit>
    void for_each_tap(const Visit& visit) const {
        const ImageShape out = output(1);
        for (Index v = 0; v < out.height; ++v)
            for (Index u = 0; u < out.width; ++u)
                for (Index dv = 0; dv < kernel; ++dv)
                    for (Index du = 0; du < kernel; ++du) {
                        const Index from_u = u * stride + du - padding;
                        const Index from_v = v * stride + dv - padding;
                        if (from_u >= 0 && from_v >= 0 && from_u < input.width &&
                            from_v < input.height)
                            visit(u, v, from_u, from_v, du + kernel * dv);
                    }
    }
};

/// Any shape that the window fits into: kernels larger than the image, one pixel, one channel.
[[nodiscard]] inline Sliding random_sliding(Philox& random, Index largest_padding) {
    for (;;) {
        Sliding s{{whole(random, 1, 5), whole(random, 1, 8), whole(random, 1, 8)},
                  whole(random, 1, 5),
                  whole(random, 1, 3),
                  0};
        s.padding = whole(random, 0, std::min(largest_padding, s.kernel + 1));
        if (s.kernel <= std::min(s.input.height, s.input.width) + 2 * s.padding) return s;
    }
}

/// A Conv2d with random weights and bias.
template <class Scalar>
[[nodiscard]] Conv2d<Scalar> convolution(Philox& random, const Sliding& s, Index channels,
                                         bool bias = true, Index groups = 1) {
    const Index inputs = s.input.channels / groups * s.kernel * s.kernel;
    const Matrix<Scalar> weights = random_matrix<Scalar>(random, channels, inputs);
    const Vector<Scalar> shift = random_matrix<Scalar>(random, bias ? channels : 0, 1);
    return {s.input,
            {.channels = channels,
             .kernel = s.kernel,
             .stride = s.stride,
             .padding = s.padding,
             .groups = groups,
             .bias = bias},
            weights,
            shift};
}

}  // namespace stochastic_depth::test
