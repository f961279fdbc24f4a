// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/normalise_columns.hpp>
#include <stochastic_depth/layers/normalisation/gain_and_bias.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

namespace stochastic_depth {

/// Layer normalisation: each column is brought to mean 0 and variance 1, then scaled and shifted,
///
///     y = gain * z + bias,  z = (x - mean) / sqrt(variance + epsilon),
///
/// with the mean and the (biased) variance over the features of that column. Both are taken in
/// double in two passes, so a large common offset costs no digits; z and y are a few roundings off. A
/// column of equal entries gives the bias, up to rounding; one with a NaN or an infinity is NaN
/// throughout.
///
/// \source Ba et al. 2016, Layer Normalization, Eq. (4).
template <class Scalar_>
class LayerNorm : public LayerBase<LayerNorm<Scalar_>, Scalar_> {
    using Moments = detail::MeanAndDeviation<Scalar_>;

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
        detail::normalise_batch<Moments>(batch.team(), x, gain_.data(), bias_.data(), epsilon_,
                                         Batch::records ? memory.data() : nullptr,
                                         result.writable(), epilogue);
        batch = std::move(result);
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
        detail::add_parameter_gradient(batch.team(), x, dy, record.moments, gradient.gain.data(),
                                       gradient.bias.data());
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(features());
        detail::differentiate_batch(batch.team(), x, dy, gain_.data(), record.moments,
                                    result.writable(), epilogue);
        batch = std::move(result);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
        visit("bias", self.bias_, gradients.bias...);
    }

    /// As torch.nn.LayerNorm's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        return std::move(form).renamed("gain", "weight");
    }

private:
    void check(Index features) const {
        if (features < 1) detail::refuse("LayerNorm: features must be at least 1, got ", features);
        if (!(epsilon_ > 0 && std::isfinite(epsilon_)))
            detail::refuse("LayerNorm: epsilon must be finite and above 0, got ", epsilon_);
    }

    double epsilon_;
    Vector<Scalar> gain_;
    Vector<Scalar> bias_;
};

}  // namespace stochastic_depth
