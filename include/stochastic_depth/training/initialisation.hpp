// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <numbers>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/normal.hpp>

/// Linear layers with random weights, by the rules of the literature. Biases are 0. The same state
/// of the generator gives the same weights with every compiler and standard library; float weights
/// are the double ones rounded, where the distribution is normal.
///
///     auto branch = Sequential{he_normal<float>(64, 64, random), ReLU<float>{},
///                              zero_linear<float>(64, 64)};
namespace stochastic_depth {
namespace detail {

inline void check_widths(std::string_view who, Index inputs, Index outputs) {
    if (inputs < 1) refuse(who, ": inputs must be at least 1, got ", inputs);
    if (outputs < 1) refuse(who, ": outputs must be at least 1, got ", outputs);
}

template <class Scalar, RandomBitGenerator Random>
[[nodiscard]] Linear<Scalar> normal_linear(Index inputs, Index outputs, Random& random,
                                           double deviation) {
    Matrix<Scalar> weights(outputs, inputs);
    for (Index k = 0; k < weights.size(); ++k)
        weights.data()[k] = static_cast<Scalar>(deviation * normal<double>(random));
    return {weights, Vector<Scalar>::Zero(outputs)};
}

/// number^(1 / degree) for number >= 1, by Newton's iteration from above: std::pow is rounded
/// differently by each library.
[[nodiscard]] inline double portable_root(double number, Index degree) {
    const auto n = static_cast<double>(degree);
    double root = 1 + (number - 1) / n;
    while (true) {
        double power = 1;
        for (Index k = 1; k < degree; ++k) power *= root;
        const double next = std::fma(n - 1, root, number / power) / n;
        if (!(next < root)) return root;
        root = next;
    }
}

}  // namespace detail

/// W(i, j) normal with variance 2 / inputs: keeps the variance of a ReLU network's activations.
///
/// \param inputs, outputs  Widths, at least 1.
/// \param random           A uniform random bit generator; it advances.
/// \throws std::invalid_argument  for a width below 1; nothing is drawn then.
/// \source He et al. 2015, Delving Deep into Rectifiers, Eq. (10).
template <class Scalar, RandomBitGenerator Random>
[[nodiscard]] Linear<Scalar> he_normal(Index inputs, Index outputs, Random& random) {
    detail::check_widths("he_normal", inputs, outputs);
    return detail::normal_linear<Scalar>(inputs, outputs, random,
                                         std::sqrt(2.0 / static_cast<double>(inputs)));
}

/// W(i, j) uniform on +-sqrt(6 / inputs), whose variance is 2 / inputs too: what Linear's own
/// constructor draws.
///
/// \param inputs, outputs  Widths, at least 1.
/// \param random           A uniform random bit generator; it advances.
/// \throws std::invalid_argument  for a width below 1; nothing is drawn then.
/// \source He et al. 2015, Delving Deep into Rectifiers, Eq. (10).
template <class Scalar, RandomBitGenerator Random>
[[nodiscard]] Linear<Scalar> he_uniform(Index inputs, Index outputs, Random& random) {
    detail::check_widths("he_uniform", inputs, outputs);
    return {inputs, outputs, random, std::numbers::sqrt2};
}

/// W(i, j) normal with variance 2 / (inputs + outputs): a compromise between keeping the variance
/// of activations and that of gradients, for activations that are the identity near 0, like tanh.
///
/// \param inputs, outputs  Widths, at least 1.
/// \param random           A uniform random bit generator; it advances.
/// \throws std::invalid_argument  for a width below 1; nothing is drawn then.
/// \source Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural
///         networks, Eq. (12).
template <class Scalar, RandomBitGenerator Random>
[[nodiscard]] Linear<Scalar> xavier_normal(Index inputs, Index outputs, Random& random) {
    detail::check_widths("xavier_normal", inputs, outputs);
    const double sum = static_cast<double>(inputs) + static_cast<double>(outputs);
    return detail::normal_linear<Scalar>(inputs, outputs, random, std::sqrt(2.0 / sum));
}

/// W(i, j) uniform on +-sqrt(6 / (inputs + outputs)), of the same variance.
///
/// \param inputs, outputs  Widths, at least 1.
/// \param random           A uniform random bit generator; it advances.
/// \throws std::invalid_argument  for a width below 1; nothing is drawn then.
/// \source Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural
///         networks, Eq. (16).
template <class Scalar, RandomBitGenerator Random>
[[nodiscard]] Linear<Scalar> xavier_uniform(Index inputs, Index outputs, Random& random) {
    detail::check_widths("xavier_uniform", inputs, outputs);
    const double sum = static_cast<double>(inputs) + static_cast<double>(outputs);
    const auto limit = static_cast<Scalar>(std::sqrt(6.0 / sum));
    Matrix<Scalar> weights(outputs, inputs);
    for (Index k = 0; k < weights.size(); ++k)
        weights.data()[k] = uniform<Scalar>(random, -limit, limit);
    return {weights, Vector<Scalar>::Zero(outputs)};
}

/// W = 0: as the last layer of a branch it makes the residual layer the identity at the start of
/// training, whatever the depth and whichever layers are skipped.
///
/// \param inputs, outputs  Widths, at least 1.
/// \throws std::invalid_argument  for a width below 1.
/// \source Goyal et al. 2017, Accurate, Large Minibatch SGD, section 5.1, does this by a gain of 0
///         in the last normalisation of a branch (LayerNorm's constructor takes one); Zhang et al.
///         2019, Fixup Initialization, by the last weights.
template <class Scalar>
[[nodiscard]] Linear<Scalar> zero_linear(Index inputs, Index outputs) {
    detail::check_widths("zero_linear", inputs, outputs);
    return {Matrix<Scalar>::Zero(outputs, inputs), Vector<Scalar>::Zero(outputs)};
}

/// The place of a layer for `fixup_normal`.
struct FixupShape {
    /// L, the number of residual branches in the network, at least 1.
    Index branches = 1;
    /// m, the number of Linear layers in each branch, at least 2.
    Index layers_of_branch = 2;
};

/// L^(-1 / (2m - 2)): what Fixup multiplies the weights by in the first m - 1 layers of a branch
/// with m layers, so that L branches together change the output by as much as one would.
///
/// \throws std::invalid_argument  if L < 1 or m < 2.
/// \source Zhang et al. 2019, Fixup Initialization: Residual Learning Without Normalization,
///         section 3.
[[nodiscard]] inline double fixup_scale(FixupShape shape) {
    if (shape.branches < 1)
        detail::refuse("fixup_scale: branches must be at least 1, got ", shape.branches);
    if (shape.layers_of_branch < 2)
        detail::refuse("fixup_scale: layers_of_branch must be at least 2, got ",
                       shape.layers_of_branch);
    return 1 / std::sqrt(detail::portable_root(static_cast<double>(shape.branches),
                                               shape.layers_of_branch - 1));
}

/// One of the first m - 1 layers of a branch: `he_normal` times `fixup_scale(shape)`. The last one
/// is `zero_linear`, and so is, in the paper, the network's last layer.
///
/// \param inputs, outputs  Widths, at least 1.
/// \param random           A uniform random bit generator; it advances.
/// \throws std::invalid_argument  for a width below 1, L < 1 or m < 2; nothing is drawn then.
/// \source Zhang et al. 2019, Fixup Initialization: Residual Learning Without Normalization,
///         section 3.
template <class Scalar, RandomBitGenerator Random>
[[nodiscard]] Linear<Scalar> fixup_normal(Index inputs, Index outputs, FixupShape shape,
                                          Random& random) {
    detail::check_widths("fixup_normal", inputs, outputs);
    const double scale = fixup_scale(shape);
    return detail::normal_linear<Scalar>(inputs, outputs, random,
                                         scale * std::sqrt(2.0 / static_cast<double>(inputs)));
}

}  // namespace stochastic_depth
