// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/batch_norm2d.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/layers/image/global_average_pool2d.hpp>
#include <stochastic_depth/layers/image/pad_channels.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

namespace stochastic_depth {

struct ResNetOptions {
    ImageShape input = {3, 32, 32};
    /// 6 n + 2 with n >= 1: a convolution, three stages of n blocks of two, and a Linear.
    Index depth = 20;
    /// Outputs: scores of the classes, before the softmax.
    Index classes = 10;
    /// p_L of the last block; earlier ones by linear decay. 1: all are always kept.
    double final_survival = 0.5;
    /// Of the first stage; the others have 2 and 4 times as many, at a half and a quarter of the
    /// height and width.
    Index channels = 16;
    /// p of each block, in place of linear decay (survival/schedules.hpp has others); empty: linear
    /// decay.
    Eigen::VectorXd survival = {};
};

/// Where a block's activations are: behind its sum, or before its convolutions.
/// \source He et al. 2016, Identity Mappings in Deep Residual Networks, for the second.
enum class ActivationOrder { post, pre };

/// What a block that changes the shape has as its shortcut, and is when it is skipped.
enum class ShapeShortcut {
    padded,     ///< Average pooling and channels of zeros: no parameters.
    projection  ///< A normalised 1 x 1 convolution.
};

/// What of a residual network is part of its type.
struct ResNetStyle {
    ActivationOrder activation = ActivationOrder::post;
    ShapeShortcut shortcut = ShapeShortcut::padded;
};

namespace detail {

/// The layers of a residual network, as its style has them.
template <class Scalar, ResNetStyle style>
struct ResNetParts {
    static constexpr bool is_post = style.activation == ActivationOrder::post;

    /// A convolution without bias, for a normalisation follows.
    template <class Random>
    [[nodiscard]] static Conv2d<Scalar> convolution(const ImageShape& input, Index channels,
                                                    Index kernel, Index stride, Random& random) {
        return {input,
                {.channels = channels,
                 .kernel = kernel,
                 .stride = stride,
                 .padding = kernel / 2,
                 .bias = false},
                random};
    }

    template <class Random>
    [[nodiscard]] static auto stem(const ImageShape& input, Index channels, Random& random) {
        Conv2d<Scalar> first = convolution(input, channels, 3, 1, random);
        if constexpr (is_post) {
            BatchNorm2d<Scalar> norm{first.output_shape()};
            return Sequential{std::move(first), std::move(norm), ReLU<Scalar>{}};
        } else {
            return first;
        }
    }

    template <class Random>
    [[nodiscard]] static auto branch(const ImageShape& input, Index channels, Index stride,
                                     Random& random) {
        Conv2d<Scalar> first = convolution(input, channels, 3, stride, random);
        Conv2d<Scalar> second = convolution(first.output_shape(), channels, 3, 1, random);
        BatchNorm2d<Scalar> before{input}, behind{first.output_shape()};
        if constexpr (is_post)
            return Sequential{std::move(first), behind, ReLU<Scalar>{}, std::move(second), behind};
        else
            return Sequential{std::move(before), ReLU<Scalar>{}, std::move(first),
                              std::move(behind), ReLU<Scalar>{}, std::move(second)};
    }

    template <class Random>
    [[nodiscard]] static auto shortcut(const ImageShape& input, Index channels, Index stride,
                                       Random& random) {
        if constexpr (style.shortcut == ShapeShortcut::projection) {
            Conv2d<Scalar> projection = convolution(input, channels, 1, stride, random);
            BatchNorm2d<Scalar> norm{projection.output_shape()};
            return Sequential{std::move(projection), std::move(norm)};
        } else {
            // Means of windows side by side, as many as the convolution has outputs; of an odd
            // number, as He et al. do, the first pixel of each.
            const bool is_even = input.height % stride == 0 && input.width % stride == 0;
            const AveragePool2d<Scalar> pool{input,
                                             {.kernel = is_even ? stride : 1, .stride = stride}};
            return Sequential{pool, PadChannels<Scalar>{pool.output_shape(), channels}};
        }
    }

    /// A skippable block: its sum, and what stands in for it, go through the activation.
    template <class Layer>
    [[nodiscard]] static auto block(Layer layer, double survival) {
        StochasticDepth skippable{std::move(layer), SurvivalProbability{survival}};
        if constexpr (is_post)
            return Sequential{std::move(skippable), ReLU<Scalar>{}};
        else
            return skippable;
    }

    template <class Random>
    [[nodiscard]] static auto changing_block(const ImageShape& input, double survival,
                                             Random& random) {
        const Index channels = 2 * input.channels;
        auto inside = branch(input, channels, 2, random);
        return block(Residual{std::move(inside), shortcut(input, channels, 2, random)}, survival);
    }

    /// Blocks that keep the shape.
    template <class Random>
    [[nodiscard]] static auto blocks(const ImageShape& shape, Index count, const double* survival,
                                     Random& random) {
        const auto make = [&](double p) {
            return block(Residual{branch(shape, shape.channels, 1, random)}, p);
        };
        std::vector<decltype(make(1.0))> layers;
        layers.reserve(static_cast<std::size_t>(count));
        for (Index l = 0; l < count; ++l) layers.push_back(make(survival[l]));
        return Stack{std::move(layers)};
    }

    template <class Random>
    [[nodiscard]] static auto head(const ImageShape& input, Index classes, Random& random) {
        GlobalAveragePool2d<Scalar> pool{input};
        Linear<Scalar> last{input.channels, classes, random, 1.0};
        if constexpr (is_post)
            return Sequential{std::move(pool), std::move(last)};
        else
            return Sequential{BatchNorm2d<Scalar>{input}, ReLU<Scalar>{}, std::move(pool),
                              std::move(last)};
    }
};

}  // namespace detail

/// A residual network for small images, with 3 n = (depth - 2) / 2 skippable blocks:
///
///     auto network = resnet<float>({.depth = 32, .classes = 10, .final_survival = 0.5}, random);
///     auto other = resnet<float, ResNetStyle{.activation = ActivationOrder::pre}>({}, random);
///
/// A skipped block is its shortcut, in the first block of the second and third stage too, which
/// changes the shape. The activation behind a sum changes nothing there but a projection, for what
/// comes in is not negative.
///
/// \param options  See there.
/// \param random   Draws the weights (as Conv2d and Linear do); it advances.
/// \throws std::invalid_argument  if an option lies outside its range; nothing is drawn then.
/// \source He et al. 2016, Deep Residual Learning, section 4.2; Huang et al. 2016, Deep Networks
///         with Stochastic Depth, section 4.
template <class Scalar, ResNetStyle style = ResNetStyle{}, RandomBitGenerator Random>
[[nodiscard]] auto resnet(const ResNetOptions& options, Random& random) {
    detail::check_image_shape("resnet", "input", options.input);
    if (options.depth < 8 || (options.depth - 2) % 6 != 0)
        detail::refuse("resnet: depth must be 6 n + 2 with n >= 1, got ", options.depth);
    if (options.classes < 1)
        detail::refuse("resnet: classes must be at least 1, got ", options.classes);
    if (!(options.final_survival > 0 && options.final_survival <= 1))
        detail::refuse("resnet: final_survival must lie in (0, 1], got ", options.final_survival);
    if (!(options.channels >= 1 && options.channels <= 1 << 20))
        detail::refuse("resnet: channels must lie in [1, 2^20], got ", options.channels);
    const Index n = (options.depth - 2) / 6;
    if (options.survival.size() != 0 && options.survival.size() != 3 * n)
        detail::refuse("resnet: survival must be empty or have one entry for each of ", 3 * n,
                       " blocks, got ", options.survival.size());
    detail::check_survival_probabilities("resnet", options.survival);
    using Parts = detail::ResNetParts<Scalar, style>;
    const Eigen::VectorXd p = options.survival.size() > 0
                                  ? options.survival
                                  : linear_decay(3 * n, options.final_survival);
    const detail::Window halving{3, 2, 1};
    const ImageShape first{options.channels, options.input.height, options.input.width};
    const ImageShape second = halving.output_shape(first, 2 * first.channels);
    const ImageShape third = halving.output_shape(second, 2 * second.channels);
    detail::check_image_shape("resnet", "first stage", first);
    // In this order: each draws its weights.
    auto stem = Parts::stem(options.input, options.channels, random);
    auto stage1 = Parts::blocks(first, n, p.data(), random);
    auto change2 = Parts::changing_block(first, p(n), random);
    auto stage2 = Parts::blocks(second, n - 1, p.data() + n + 1, random);
    auto change3 = Parts::changing_block(second, p(2 * n), random);
    auto stage3 = Parts::blocks(third, n - 1, p.data() + 2 * n + 1, random);
    auto head = Parts::head(third, options.classes, random);
    return Sequential{std::move(stem),    std::move(stage1), std::move(change2), std::move(stage2),
                      std::move(change3), std::move(stage3), std::move(head)};
}

/// The type of such a network.
template <class Scalar, ResNetStyle style = ResNetStyle{}>
using ResNet =
    decltype(resnet<Scalar, style>(std::declval<const ResNetOptions&>(), std::declval<Philox&>()));

}  // namespace stochastic_depth
