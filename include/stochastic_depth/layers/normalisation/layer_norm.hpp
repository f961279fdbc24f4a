// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/normalisation/gain_and_bias.hpp>
#include <stochastic_depth/numerics/batch_moments.hpp>
#include <stochastic_depth/numerics/column_moments.hpp>
#include <stochastic_depth/pass/layer_base.hpp>

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
class LayerNorm : public LayerBase<LayerNorm<Scalar_>, Scalar_> {
    struct Moments {
        double mean, inverse_deviation;
    };

public:
    using Scalar = Scalar_;

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

    [[nodiscard]] std::string description() const {
        return detail::message("LayerNorm ", features(), ", epsilon ", epsilon_);
    }

    /// \throws std::invalid_argument  unless input_size == features().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size != features())
            detail::refuse("LayerNorm: input must have ", features(), " rows, got ", input_size);
        return input_size;
    }

    /// The input, and mean and 1 / sqrt(variance + epsilon) of each column.
    template <class Memory>
    struct Record {
        detail::RecordedMatrix<Scalar> input;
        const Moments* moments = nullptr;
    };

    [[nodiscard]] Gradient zero_gradient() const { return Gradient::zero(features()); }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        const auto x = batch.current();
        const auto memory = batch.template array<Moments>(Batch::records ? x.cols() : 0);
        if constexpr (Batch::records) record = {batch.keep(), memory.data()};
        Batch result = batch.room(output_size(x.rows()));
        auto y = result.writable();
        batch.team().split(x.cols(), 1, work_of(features()), [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j) {
                const Scalar* const from = x.data() + j * x.outerStride();
                const Moments m = moments(from);
                if constexpr (Batch::records) memory[j] = m;
                normalise(m, from, y.data() + j * y.outerStride());
            }
        });
        batch = std::move(result);
        batch.apply(epilogue);
    }

    /// With g = gain * dy and averages over the features of a column:
    ///
    ///     dx = (g - average(g) - z average(g z)) / sqrt(variance + epsilon),
    ///     dgain += sum of dy * z,  dbias += sum of dy  over the columns.
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        gradient.check("LayerNorm", features());
        const auto x = record.input.view();
        const auto dy = batch.current();
        batch.team().split(features(), detail::moments_group, work_of(x.cols()),
                           [&](Index first, Index count) {
                               for (Index j = 0; j < x.cols(); ++j)
                                   add_gradient(record.moments[j], first, count,
                                                x.data() + j * x.outerStride(),
                                                dy.data() + j * dy.outerStride(), gradient);
                           });
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(features());
        auto dx = result.writable();
        batch.team().split(x.cols(), 1, work_of(features()), [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j)
                differentiate(record.moments[j], x.data() + j * x.outerStride(),
                              dy.data() + j * dy.outerStride(), dx.data() + j * dx.outerStride());
        });
        batch = std::move(result);
        batch.apply(epilogue);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
        visit("bias", self.bias_, gradients.bias...);
    }

private:
    [[nodiscard]] static double work_of(Index numbers) {
        return 4 * detail::work_of_moving * static_cast<double>(numbers);
    }

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

    // None of these is inlined: how a compiler contracts products and sums would depend on the place.
    [[gnu::noinline]] void normalise(Moments m, const Scalar* x, Scalar* y) const {
        const Scalar* const gain = gain_.data();
        const Scalar* const bias = bias_.data();
        for (Index i = 0; i < features(); ++i) {
            const double z = (static_cast<double>(x[i]) - m.mean) * m.inverse_deviation;
            y[i] = static_cast<Scalar>(static_cast<double>(gain[i]) * z +
                                       static_cast<double>(bias[i]));
        }
    }

    /// Of features [first, first + count).
    [[gnu::noinline]] void add_gradient(Moments m, Index first, Index count, const Scalar* x,
                                        const Scalar* dy, Gradient& gradient) const {
        for (Index i = first; i < first + count; ++i) {
            const double z = (static_cast<double>(x[i]) - m.mean) * m.inverse_deviation;
            gradient.gain(i) += static_cast<Scalar>(static_cast<double>(dy[i]) * z);
            gradient.bias(i) += dy[i];
        }
    }

    [[gnu::noinline]] void differentiate(Moments m, const Scalar* x, const Scalar* dy,
                                         Scalar* dx) const {
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
        for (Index i = 0; i < features(); ++i)
            dx[i] = static_cast<Scalar>(m.inverse_deviation * ((g(i) - mean_g) - z(i) * mean_gz));
    }

    double epsilon_;
    Vector<Scalar> gain_;
    Vector<Scalar> bias_;
};

}  // namespace stochastic_depth
