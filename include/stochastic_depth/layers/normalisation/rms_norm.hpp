// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/normalise_columns.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

namespace stochastic_depth {

/// Normalisation by the root mean square: each column is brought to mean square 1, then scaled,
///
///     y = gain * z,  z = x / sqrt(mean square + epsilon),
///
/// with the mean over the features of that column, taken in double. A column of zeros gives zeros;
/// one with a NaN is NaN throughout. One with an infinity is NaN there and 0 elsewhere.
///
/// \source Zhang & Sennrich 2019, Root Mean Square Layer Normalization, Eq. (4).
template <class Scalar_>
class RmsNorm : public LayerBase<RmsNorm<Scalar_>, Scalar_> {
    using Moments = detail::RootMeanSquare<Scalar_>;

public:
    using Scalar = Scalar_;

    /// By the gain, in its shape.
    struct Gradient {
        Vector<Scalar> gain;
        void set_zero() { gain.setZero(); }
    };

    /// Gain 1.
    /// \param features  At least 1.
    /// \param epsilon   Finite and above 0.
    /// \throws std::invalid_argument  outside these ranges.
    explicit RmsNorm(Index features, double epsilon = 1e-5) : epsilon_(epsilon) {
        check(features);
        gain_.setOnes(features);
    }

    /// \param gain     [features], at least 1.
    /// \param epsilon  Finite and above 0.
    /// \throws std::invalid_argument  outside these ranges.
    explicit RmsNorm(const Eigen::Ref<const Vector<Scalar>>& gain, double epsilon = 1e-5)
        : epsilon_(epsilon) {
        check(gain.size());
        gain_ = gain;
    }

    [[nodiscard]] Index features() const { return gain_.size(); }
    [[nodiscard]] double epsilon() const { return epsilon_; }
    /// [features].
    [[nodiscard]] const Vector<Scalar>& gain() const { return gain_; }

    [[nodiscard]] std::string description() const {
        return detail::message("RmsNorm ", features(), ", epsilon ", epsilon_);
    }

    /// \throws std::invalid_argument  unless input_size == features().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size != features())
            detail::refuse("RmsNorm: input must have ", features(), " rows, got ", input_size);
        return input_size;
    }

    /// The input, and 1 / sqrt(mean square + epsilon) of each column.
    template <class Memory>
    struct Record {
        detail::RecordedMatrix<Scalar> input;
        const Moments* moments = nullptr;
    };

    [[nodiscard]] Gradient zero_gradient() const { return {Vector<Scalar>::Zero(features())}; }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        const auto x = batch.current();
        const auto memory = batch.template array<Moments>(Batch::records ? x.cols() : 0);
        if constexpr (Batch::records) record = {batch.keep(), memory.data()};
        Batch result = batch.room(output_size(x.rows()));
        detail::normalise_batch<Moments>(batch.team(), x, gain_.data(), nullptr, epsilon_,
                                         Batch::records ? memory.data() : nullptr,
                                         result.writable(), epilogue);
        batch = std::move(result);
    }

    /// With g = gain * dy and the average over the features of a column:
    ///
    ///     dx = (g - z average(g z)) / sqrt(mean square + epsilon),
    ///     dgain += sum of dy * z  over the columns.
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        if (gradient.gain.size() != features())
            detail::refuse("RmsNorm: gradient must have ", features(), " features, got ",
                           gradient.gain.size());
        const auto x = record.input.view();
        const auto dy = batch.current();
        detail::add_parameter_gradient(batch.team(), x, dy, record.moments, gradient.gain.data(),
                                       nullptr);
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(features());
        detail::differentiate_batch(batch.team(), x, dy, gain_.data(), record.moments,
                                    result.writable(), epilogue);
        batch = std::move(result);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
    }

    /// As torch.nn.RMSNorm's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        return std::move(form).renamed("gain", "weight");
    }

private:
    void check(Index features) const {
        if (features < 1) detail::refuse("RmsNorm: features must be at least 1, got ", features);
        if (!(epsilon_ > 0 && std::isfinite(epsilon_)))
            detail::refuse("RmsNorm: epsilon must be finite and above 0, got ", epsilon_);
    }

    double epsilon_;
    Vector<Scalar> gain_;
};

}  // namespace stochastic_depth
