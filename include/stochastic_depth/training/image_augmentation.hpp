// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct ImageAugmentationOptions {
    /// Rows and columns of zeros around the image, of which the crop takes some in.
    Index padding = 4;
    /// Whether left and right change sides with probability 1/2.
    bool flip = true;
    std::uint64_t seed = 0;
};

/// Pad and crop, and the horizontal flip: images as a training sees them.
///
/// What is done to an image is a function of (seed, epoch, sample): batches, threads and restarts
/// cannot change it. The crop's place is uniform over (2 padding + 1)^2 places, up to 2^-32. Zeros
/// are the mean where images are normalised before, as they should be.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, section 4; He et al. 2016, Deep
///         Residual Learning, section 4.2.
class ImageAugmentation {
public:
    /// Changes whenever other things are done for the same arguments.
    static constexpr std::uint32_t stream_version = 1;

    /// \throws std::invalid_argument  unless the shape is that of an image, and padding lies in
    ///                                [0, 2^20].
    explicit ImageAugmentation(const ImageShape& shape, ImageAugmentationOptions options = {})
        : shape_(shape), options_(options) {
        detail::check_image_shape("ImageAugmentation", "shape", shape);
        if (!(options.padding >= 0 && options.padding <= Index{1} << 20))
            detail::refuse("ImageAugmentation: padding must lie in [0, 2^20], got ",
                           options.padding);
    }

    [[nodiscard]] const ImageShape& shape() const { return shape_; }
    [[nodiscard]] const ImageAugmentationOptions& options() const { return options_; }

    /// What is done to a sample in an epoch.
    struct Change {
        /// The result's position (u, v) is the image's (u + right, v + down), in
        /// [-padding, padding].
        Index right = 0;
        Index down = 0;
        /// Behind the crop.
        bool flipped = false;
    };

    [[nodiscard]] Change change(std::uint64_t epoch, std::uint64_t sample) const {
        const auto bits = philox4x32_10(
            {static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(sample >> 32),
             static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(epoch >> 32)},
            detail::stream_key(options_.seed, detail::StreamPurpose::image_augmentation,
                               stream_version));
        const auto place = [&](std::uint32_t word) {
            const auto places = static_cast<std::uint64_t>(2 * options_.padding + 1);
            return static_cast<Index>(places * word >> 32) - options_.padding;
        };
        return {place(bits[0]), place(bits[1]), options_.flip && bits[2] >> 31 != 0};
    }

    /// y(:, j) = x(:, j) as epoch `epoch` sees sample samples[j].
    ///
    /// \param x  [shape().size() x samples.size()].
    /// \param y  The same, overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match, or a sample is negative; nothing is
    ///                                written then.
    template <class X>
    void apply(std::uint64_t epoch, std::span<const Index> samples, const Eigen::MatrixBase<X>& x,
               MatrixRef<typename X::Scalar> y) const {
        const auto count = static_cast<Index>(samples.size());
        const ConstMatrixRef<typename X::Scalar> from(x.derived());
        if (from.rows() != shape_.size() || from.cols() != count)
            detail::refuse("ImageAugmentation: x must be [", shape_.size(), " x ", count,
                           "], got [", from.rows(), " x ", from.cols(), "]");
        if (y.rows() != from.rows() || y.cols() != count)
            detail::refuse("ImageAugmentation: y must be [", from.rows(), " x ", count, "], got [",
                           y.rows(), " x ", y.cols(), "]");
        for (const Index sample : samples)
            if (sample < 0)
                detail::refuse("ImageAugmentation: samples must be at least 0, got ", sample);
        for (Index j = 0; j < count; ++j)
            apply(change(epoch, static_cast<std::uint64_t>(samples[static_cast<std::size_t>(j)])),
                  from.data() + j * from.outerStride(), y.data() + j * y.outerStride());
    }

private:
    template <class Scalar>
    void apply(const Change& change, const Scalar* x, Scalar* y) const {
        const Index channels = shape_.channels, width = shape_.width;
        for (Index v = 0; v < shape_.height; ++v)
            for (Index u = 0; u < width; ++u, y += channels) {
                const Index from_u = (change.flipped ? width - 1 - u : u) + change.right;
                const Index from_v = v + change.down;
                const bool inside =
                    from_u >= 0 && from_v >= 0 && from_u < width && from_v < shape_.height;
                if (inside)
                    std::copy_n(x + channels * (from_u + width * from_v), channels, y);
                else
                    std::fill_n(y, channels, Scalar(0));
            }
    }

    ImageShape shape_;
    ImageAugmentationOptions options_;
};

}  // namespace stochastic_depth
