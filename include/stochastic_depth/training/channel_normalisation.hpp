// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string_view>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/numerics/batch_moments.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Brings each channel of images to mean 0 and variance 1 over the images that it was made of:
/// (x - mean) / deviation, for the training images and for all others.
class ChannelNormalisation {
public:
    /// \param mean, deviation  [channels], finite; the deviations above 0.
    /// \throws std::invalid_argument  otherwise, or unless the shape is that of an image.
    ChannelNormalisation(const ImageShape& shape, Eigen::VectorXd mean, Eigen::VectorXd deviation)
        : shape_(shape), mean_(std::move(mean)), deviation_(std::move(deviation)) {
        detail::check_image_shape(name, "shape", shape);
        if (mean_.size() != shape.channels || deviation_.size() != shape.channels)
            detail::refuse(name, ": mean and deviation must have ", shape.channels,
                           " entries, got ", mean_.size(), " and ", deviation_.size());
        for (Index c = 0; c < shape.channels; ++c) {
            if (!std::isfinite(mean_(c)))
                detail::refuse(name, ": mean(", c, ") must be finite, got ", mean_(c));
            if (!(deviation_(c) > 0 && std::isfinite(deviation_(c))))
                detail::refuse(name, ": deviation(", c, ") must be finite and above 0, got ",
                               deviation_(c));
        }
    }

    /// Of images, at least one; a channel of one value keeps its scale.
    /// \param images  [shape.size() x images], finite: numbers of any kind, bytes among them.
    /// \throws std::invalid_argument  otherwise.
    template <class Images>
    [[nodiscard]] static ChannelNormalisation of(const ImageShape& shape,
                                                 const Eigen::PlainObjectBase<Images>& images) {
        detail::check_image_shape(name, "shape", shape);
        detail::check_image_size(name, shape, images.rows());
        if (images.cols() < 1) detail::refuse(name, ": images must be at least 1, got 0");
        Eigen::VectorXd mean(shape.channels), deviation(shape.channels);
        const auto positions = detail::positions_of(shape, images.data(), images.cols());
        detail::batch_moments(positions, 0, shape.channels, mean.data(), deviation.data());
        for (double& value : deviation) value = value == 0 ? 1 : std::sqrt(value);
        return {shape, std::move(mean), std::move(deviation)};
    }

    [[nodiscard]] const ImageShape& shape() const { return shape_; }
    /// [channels].
    [[nodiscard]] const Eigen::VectorXd& mean() const { return mean_; }
    [[nodiscard]] const Eigen::VectorXd& deviation() const { return deviation_; }

    /// \param images  [shape().size() x images].
    /// \returns       The same in mean 0 and variance 1.
    /// \throws std::invalid_argument  if the size is another.
    template <class Scalar, class Images>
    [[nodiscard]] Matrix<Scalar> apply(const Eigen::PlainObjectBase<Images>& images) const {
        detail::check_image_size(name, shape_, images.rows());
        Matrix<Scalar> result(images.rows(), images.cols());
        for (Index k = 0; k < result.size(); k += shape_.channels)
            for (Index c = 0; c < shape_.channels; ++c)
                result.data()[k + c] = static_cast<Scalar>(
                    (static_cast<double>(images.data()[k + c]) - mean_(c)) / deviation_(c));
        return result;
    }

private:
    static constexpr std::string_view name = "ChannelNormalisation";

    ImageShape shape_;
    Eigen::VectorXd mean_;
    Eigen::VectorXd deviation_;
};

}  // namespace stochastic_depth
