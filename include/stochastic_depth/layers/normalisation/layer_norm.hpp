// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/normalisation/gain_and_bias.hpp>
#include <stochastic_depth/numerics/column_moments.hpp>
#include <stochastic_depth/pass/structure.hpp>

namespace stochastic_depth {

/// Layer normalisation: each column is brought to mean 0 and variance 1, then scaled and shifted,
///
///     y = gain * z + bias,  z = (x - mean) / sqrt(variance + epsilon),
///
/// with the mean and the (biased) variance over the features of that column. Both are taken in
/// double in two passes, so a large common offset costs no digits. A column of equal entries gives
/// the bias, up to rounding; one with a NaN or an infinity is NaN throughout.
///
/// \source Ba et al. 2016, Layer Normalization, Eq. (4).
template <class Scalar_>
class LayerNorm {
public:
    using Scalar = Scalar_;

    /// Mean and 1 / sqrt(variance + epsilon) of each column.
    struct Cache {
        Eigen::VectorXd mean;
        Eigen::VectorXd inverse_deviation;
    };

    using Gradient = detail::GainAndBias<Scalar>;

    /// Gain 1, bias 0.
    /// \param features  At least 1.
    /// \param epsilon   Finite and above 0.
    /// \throws std::invalid_argument  outside these ranges.
    explicit LayerNorm(Index features, double epsilon = 1e-5) : epsilon_(epsilon) {
        check(features);
        gain_.setOnes(features);
        bias_.setZero(features);
    }

    /// \param gain, bias  [features], at least 1.
    /// \param epsilon     Finite and above 0.
    /// \throws std::invalid_argument  outside these ranges, or if the sizes differ.
    LayerNorm(const Eigen::Ref<const Vector<Scalar>>& gain,
              const Eigen::Ref<const Vector<Scalar>>& bias, double epsilon = 1e-5)
        : epsilon_(epsilon) {
        check(gain.size());
        if (bias.size() != gain.size())
            detail::refuse("LayerNorm: bias must have ", gain.size(), " entries, got ",
                           bias.size());
        gain_ = gain;
        bias_ = bias;
    }

    [[nodiscard]] Index features() const { return gain_.size(); }
    [[nodiscard]] double epsilon() const { return epsilon_; }
    /// [features].
    [[nodiscard]] const Vector<Scalar>& gain() const { return gain_; }
    /// [features].
    [[nodiscard]] const Vector<Scalar>& bias() const { return bias_; }

    /// \throws std::invalid_argument  unless input_size == features().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size != features())
            detail::refuse("LayerNorm: input must have ", features(), " rows, got ", input_size);
        return input_size;
    }

    /// \param x  [features x batch].
    /// \param y  [features x batch], overwritten; may be x itself.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("LayerNorm", *this, x, y);
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar* const from = x.data() + j * x.outerStride();
            normalise(moments(from), from, y.data() + j * y.outerStride());
        }
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::check_forward("LayerNorm", *this, x, y);
        cache.mean.resize(x.cols());
        cache.inverse_deviation.resize(x.cols());
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar* const from = x.data() + j * x.outerStride();
            const auto [mean, inverse] = moments(from);
            normalise({mean, inverse}, from, y.data() + j * y.outerStride());
            cache.mean(j) = mean;
            cache.inverse_deviation(j) = inverse;
        }
    }

    [[nodiscard]] Gradient zero_gradient() const { return Gradient::zero(features()); }

    /// With g = gain * dy and averages over the features of a column:
    ///
    ///     dx = (g - average(g) - z average(g z)) / sqrt(variance + epsilon),
    ///     dgain += sum of dy * z,  dbias += sum of dy  over the columns.
    ///
    /// \param x   [features x batch], the input of forward.
    /// \param dy  [features x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    /// \throws std::invalid_argument  if sizes don't match.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::check_backward("LayerNorm", *this, x, dy, dx);
        if (cache.mean.size() != x.cols())
            detail::refuse("LayerNorm: cache must be of ", x.cols(), " columns, got ",
                           cache.mean.size());
        gradient.check("LayerNorm", features());
        for (Index j = 0; j < x.cols(); ++j)
            backward_column({cache.mean(j), cache.inverse_deviation(j)},
                            x.data() + j * x.outerStride(), dy.data() + j * dy.outerStride(),
                            gradient, dx.data() + j * dx.outerStride());
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
        visit("bias", self.bias_, gradients.bias...);
    }

private:
    struct Moments {
        double mean, inverse_deviation;
    };

    void check(Index features) const {
        if (features < 1) detail::refuse("LayerNorm: features must be at least 1, got ", features);
        if (!(epsilon_ > 0 && std::isfinite(epsilon_)))
            detail::refuse("LayerNorm: epsilon must be finite and above 0, got ", epsilon_);
    }

    [[nodiscard]] Moments moments(const Scalar* x) const {
        const double mean = detail::column_mean(x, features());
        const double variance = detail::column_variance(x, features(), mean);
        return {mean, 1 / std::sqrt(variance + epsilon_)};
    }

    // Neither is inlined: how a compiler contracts products and sums would depend on the place.
    [[gnu::noinline]] void normalise(Moments m, const Scalar* x, Scalar* y) const {
        const Scalar* const gain = gain_.data();
        const Scalar* const bias = bias_.data();
        for (Index i = 0; i < features(); ++i) {
            const double z = (static_cast<double>(x[i]) - m.mean) * m.inverse_deviation;
            y[i] = static_cast<Scalar>(static_cast<double>(gain[i]) * z +
                                       static_cast<double>(bias[i]));
        }
    }

    [[gnu::noinline]] void backward_column(Moments m, const Scalar* x, const Scalar* dy,
                                           Gradient& gradient, Scalar* dx) const {
        const Scalar* const gain = gain_.data();
        const auto z = [&](Index i) {
            return (static_cast<double>(x[i]) - m.mean) * m.inverse_deviation;
        };
        const auto g = [&](Index i) {
            return static_cast<double>(gain[i]) * static_cast<double>(dy[i]);
        };
        const auto count = static_cast<double>(features());
        const double mean_g = detail::sum_of(features(), g) / count;
        const double mean_gz =
            detail::sum_of(features(), [&](Index i) { return g(i) * z(i); }) / count;
        for (Index i = 0; i < features(); ++i) {
            gradient.gain(i) += static_cast<Scalar>(static_cast<double>(dy[i]) * z(i));
            gradient.bias(i) += dy[i];
            dx[i] = static_cast<Scalar>(m.inverse_deviation * ((g(i) - mean_g) - z(i) * mean_gz));
        }
    }

    double epsilon_;
    Vector<Scalar> gain_;
    Vector<Scalar> bias_;
};

}  // namespace stochastic_depth
