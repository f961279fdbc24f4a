// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// The shape of an image. It is a column of channels x width x height numbers, channels fastest:
/// entry (channel c, column u, row v) stands in row c + channels (u + width v).
struct ImageShape {
    Index channels = 1;
    Index height = 1;
    Index width = 1;

    /// Positions, each of `channels` numbers.
    [[nodiscard]] constexpr Index positions() const { return height * width; }
    /// Rows of the column.
    [[nodiscard]] constexpr Index size() const { return channels * positions(); }

    friend bool operator==(const ImageShape&, const ImageShape&) = default;
};

namespace detail {

/// "3 x 32 x 32": channels, height, width.
[[nodiscard]] inline std::string text_of(const ImageShape& shape) {
    return message(shape.channels, " x ", shape.height, " x ", shape.width);
}

/// Numbers in an image, or in a filter bank: what is larger is refused before anything is made.
inline constexpr double largest_image = 1099511627776.0;  // 2^40

/// \throws std::invalid_argument  unless the shape has something in it, and no more than memory.
inline void check_image_shape(std::string_view who, std::string_view what,
                              const ImageShape& shape) {
    if (shape.channels < 1 || shape.height < 1 || shape.width < 1)
        refuse(who, ": ", what, " must be at least 1 x 1 x 1, got ", text_of(shape));
    const auto size = static_cast<double>(shape.channels) * static_cast<double>(shape.height) *
                      static_cast<double>(shape.width);
    if (!(size <= largest_image))
        refuse(who, ": ", what, " must have at most 2^40 numbers, got ", text_of(shape));
}

/// \throws std::invalid_argument  unless a column is an image of this shape.
inline void check_image_size(std::string_view who, const ImageShape& shape, Index rows) {
    if (rows != shape.size()) refuse(who, ": input must have ", shape.size(), " rows, got ", rows);
}

/// Images that stand side by side, as the positions of all of them, [channels x positions images].
template <class Scalar>
[[nodiscard]] ConstView<Scalar> positions_of(const ImageShape& shape, const Scalar* images,
                                             Index count) {
    return {images, shape.channels, shape.positions() * count,
            Eigen::OuterStride<>(shape.channels)};
}

/// The same of a batch; images that don't stand side by side are copied first.
template <class Batch>
[[nodiscard]] auto by_position(Batch& batch, const ImageShape& shape) {
    if (batch.current().outerStride() != shape.size()) (void)batch.writable();
    return positions_of(shape, batch.current().data(), batch.columns());
}

}  // namespace detail
}  // namespace stochastic_depth
