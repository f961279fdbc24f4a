// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/normalisation/batch_statistics.hpp>
#include <stochastic_depth/layers/normalisation/gain_and_bias.hpp>
#include <stochastic_depth/layers/normalisation/running_statistics.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/numerics/batch_moments.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Batch normalisation:
///
///     y = gain * z + bias,  z = (x - mean) / sqrt(variance + epsilon),  feature by feature.
///
/// In a training step mean and (biased) variance are those of the samples that reach the layer: in
/// a branch that some samples of the batch skip, of the survivors. `TrainingStep::finish` then
/// moves the running statistics,
///
///     running = (1 - momentum) running + momentum batch,
///
/// with the unbiased variance of the batch, n / (n - 1) times the biased one, as is the custom. A
/// single survivor is normalised by the running statistics and leaves them alone; without a
/// survivor the layer does not run. Outside of a training step the running statistics normalise,
/// so that a column of the output depends on its own column of the input alone; they do so as a
/// scale and a shift in one rounding, behind a Linear in its product's registers.
///
/// Parameters are gain and bias. The running statistics are state that checkpoints hold and no
/// optimizer moves.
///
/// \source Ioffe & Szegedy 2015, Batch Normalization, Algorithms 1 and 2.
template <class Scalar_>
class BatchNorm : public LayerBase<BatchNorm<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    static constexpr bool has_statistics = true;

    using Gradient = detail::GainAndBias<Scalar>;

    /// Gain 1, bias 0, running mean 0, running variance 1.
    /// \param features  At least 1.
    /// \throws std::invalid_argument  if features or an option lie outside their range.
    explicit BatchNorm(Index features, BatchNormOptions options = {})
        : running_(features, options),
          gain_(Vector<Scalar>::Ones(features)),
          bias_(Vector<Scalar>::Zero(features)) {}

    /// Of what was learned elsewhere; options.momentum is the newest batch's share.
    /// \param gain, bias, running_mean, running_variance  [features], at least 1, all finite; the
    ///                                                    variances at least 0.
    /// \throws std::invalid_argument  otherwise, or if an option lies outside its range.
    BatchNorm(const Eigen::Ref<const Vector<Scalar>>& gain,
              const Eigen::Ref<const Vector<Scalar>>& bias,
              const Eigen::Ref<const Vector<Scalar>>& running_mean,
              const Eigen::Ref<const Vector<Scalar>>& running_variance,
              BatchNormOptions options = {})
        : BatchNorm(gain.size(), options) {
        detail::check_feature_values<Scalar>("gain", features(), gain);
        detail::check_feature_values<Scalar>("bias", features(), bias);
        set_running_statistics(running_mean, running_variance);
        gain_ = gain;
        bias_ = bias;
    }

    [[nodiscard]] Index features() const { return gain_.size(); }
    [[nodiscard]] const BatchNormOptions& options() const { return running_.options(); }
    /// [features].
    [[nodiscard]] const Vector<Scalar>& gain() const { return gain_; }
    [[nodiscard]] const Vector<Scalar>& bias() const { return bias_; }
    [[nodiscard]] const Vector<Scalar>& running_mean() const { return running_.mean(); }
    [[nodiscard]] const Vector<Scalar>& running_variance() const { return running_.variance(); }

    /// \param mean, variance  [features]; the variances at least 0, all finite.
    /// \throws std::invalid_argument  otherwise; nothing is changed then.
    void set_running_statistics(const Eigen::Ref<const Vector<Scalar>>& mean,
                                const Eigen::Ref<const Vector<Scalar>>& variance) {
        running_.set(mean, variance);
    }

    [[nodiscard]] std::string description() const {
        return detail::message("BatchNorm ", features(), ", epsilon ", options().epsilon);
    }

    /// \throws std::invalid_argument  unless input_size == features().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size != features())
            detail::refuse("BatchNorm: input must have ", features(), " rows, got ", input_size);
        return input_size;
    }

    template <class Memory>
    using Record = detail::BatchNormRecord<Scalar>;

    [[nodiscard]] Gradient zero_gradient() const { return Gradient::zero(features()); }

    /// Normalises by the statistics of the batch in a training step, by the running ones elsewhere.
    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        if constexpr (Batch::records)
            run_recorded(batch, record, mask, epilogue);
        else
            run_by_running(batch, epilogue);
    }

    /// With averages over the batch where its statistics were used, and 0 for them elsewhere:
    ///
    ///     dx = gain (dy - average(dy) - z average(dy z)) / sqrt(variance + epsilon),
    ///     dgain += sum of dy z,  dbias += sum of dy.
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        gradient.check("BatchNorm", features());
        const auto x = record.input.view();
        const Statistics& by = record.statistics;
        const detail::ScratchArray<double> averages(2 * features());
        const auto dy = batch.current();
        add_gradient(record, gradient, averages.data(), [&](double* slopes, double* products) {
            batch.team().split(features(), detail::moments_group, work_of(x.cols()),
                               [&](Index first, Index count) {
                                   detail::batch_slope_sums(x, dy, by.mean, by.inverse_deviation,
                                                            first, count, slopes, products);
                               });
        });
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(features());
        auto dx = result.writable();
        batch.team().split(x.cols(), 1, work_of(features()), [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j)
                differentiate(by, averages.data(), averages.data() + features(),
                              x.data() + j * x.outerStride(), dy.data() + j * dy.outerStride(),
                              dx.data() + j * dx.outerStride());
        });
        batch = std::move(result);
        batch.apply(epilogue);
    }

    /// Of the running statistics (AffineInUse).
    [[nodiscard]] Index affine_channels() const { return features(); }
    void write_affine(Scalar* scale, Scalar* shift) const {
        const detail::ScratchArray<double> memory(3 * features());
        const Statistics by{memory.data(), features()};
        running_.write(by);
        fold(by, scale, shift);
    }

    /// Before a pass over the data with cumulative statistics: the first batch counts alone.
    void begin_statistics() { running_.begin(); }

    /// Takes the statistics of a recorded training step over into the running ones.
    void update_statistics(const Record<detail::Records>& record) {
        running_.update(record);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
        visit("bias", self.bias_, gradients.bias...);
    }

    /// The running statistics, which no gradient belongs to.
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        detail::RunningStatistics<Scalar>::visit_state(self.running_, visit);
    }

    /// As torch.nn.BatchNorm1d's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        return std::move(form).renamed("gain", "weight").renamed("running_variance", "running_var");
    }

private:
    template <class>
    friend class BatchNorm2d;
    using Statistics = detail::BatchStatistics;

    /// dgain += sum of dy z, dbias += sum of dy, which take_sums(slopes, products) finds; leaves the
    /// averages of dy and, behind them, those of dy z, or 0 for both where the running statistics
    /// were used.
    template <class TakeSums>
    void add_gradient(const Record<detail::Records>& record, Gradient& gradient, double* averages,
                      const TakeSums& take_sums) const {
        double* const of_products = averages + features();
        const double share =
            record.of_batch ? 1 / static_cast<double>(record.input.columns) : 0.0;
        take_sums(averages, of_products);
        for (Index i = 0; i < features(); ++i) {
            gradient.gain(i) += static_cast<Scalar>(of_products[i]);
            gradient.bias(i) += static_cast<Scalar>(averages[i]);
        }
        for (Index i = 0; i < 2 * features(); ++i) averages[i] *= share;
    }

    template <class Batch, class Mask, class Epilogue>
    void run_recorded(Batch& batch, Record<detail::Records>& record, const Mask& mask,
                      const Epilogue& epilogue) const {
        const auto memory = batch.template array<double>(3 * features());
        const auto x = batch.current();
        (void)batch.keep();
        const Statistics by =
            running_.of_pass(x, mask, memory.data(), record, [&](const Statistics& of_batch) {
                batch.team().split(features(), detail::moments_group, work_of(x.cols()),
                                   [&](Index first, Index count) {
                                       detail::batch_moments(x, first, count, of_batch.mean,
                                                             of_batch.variance);
                                   });
            });
        if (!record.of_batch) return run_by_running(batch, epilogue);
        Batch result = batch.room(features());
        auto y = result.writable();
        batch.team().split(x.cols(), 1, work_of(features()), [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j)
                normalise(by, x.data() + j * x.outerStride(), y.data() + j * y.outerStride());
        });
        batch = std::move(result);
        batch.apply(epilogue);
    }

    /// The same bits as behind a product.
    template <class Batch, class Epilogue>
    void run_by_running(Batch& batch, const Epilogue& epilogue) const {
        const detail::FoldedLayer<Scalar> folded{*this};
        batch.apply(detail::followed_by(folded.epilogue(), epilogue));
    }

    [[nodiscard]] static double work_of(Index numbers) {
        return 2 * detail::work_of_moving * static_cast<double>(numbers);
    }

    /// The shift is that of the scale as rounded: a large mean costs no digits but its own.
    [[gnu::noinline]] void fold(const Statistics& by, Scalar* scale, Scalar* shift) const {
        for (Index i = 0; i < features(); ++i) {
            scale[i] = static_cast<Scalar>(static_cast<double>(gain_.data()[i]) *
                                           by.inverse_deviation[i]);
            shift[i] = static_cast<Scalar>(static_cast<double>(bias_.data()[i]) -
                                           by.mean[i] * static_cast<double>(scale[i]));
        }
    }

    // Neither is inlined: how a compiler contracts products and sums would depend on the place.
    [[gnu::noinline]] void normalise(const Statistics& by, const Scalar* x, Scalar* y) const {
        for (Index i = 0; i < features(); ++i) {
            const double z = (static_cast<double>(x[i]) - by.mean[i]) * by.inverse_deviation[i];
            y[i] = static_cast<Scalar>(static_cast<double>(gain_.data()[i]) * z +
                                       static_cast<double>(bias_.data()[i]));
        }
    }

    [[gnu::noinline]] void differentiate(const Statistics& by, const double* mean_slope,
                                         const double* mean_product, const Scalar* x,
                                         const Scalar* dy, Scalar* dx) const {
        for (Index i = 0; i < features(); ++i) {
            const double z = (static_cast<double>(x[i]) - by.mean[i]) * by.inverse_deviation[i];
            const double d = (static_cast<double>(dy[i]) - mean_slope[i]) - z * mean_product[i];
            dx[i] = static_cast<Scalar>(static_cast<double>(gain_.data()[i]) *
                                        by.inverse_deviation[i] * d);
        }
    }

    detail::RunningStatistics<Scalar> running_;
    Vector<Scalar> gain_;
    Vector<Scalar> bias_;
};

}  // namespace stochastic_depth
