// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/layers/image/channel_sums.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

namespace stochastic_depth {
namespace detail {

/// y = epilogue(value) for images [first, first + count): of(packet type, channel) is a function
/// whose value(k) is what comes of entry k and those behind it, counted through all images.
template <int Lanes, class Scalar, class ValueOf, class Epilogue>
void write_positions(const ImageShape& shape, Index first, Index count, Destination<Scalar> y,
                     const ValueOf& of, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    if constexpr (Lanes > 1) {
        if (shape.channels < Lanes)
            return write_positions<P::narrower>(shape, first, count, y, of, epilogue);
    }
    const Index channels = shape.channels, size = shape.size();
    // A copy: what a store of a packet might have changed would be read again for each.
    const Epilogue last_step = epilogue;
    for (Index j = first; j < first + count; ++j)
        for_each_block(shape.positions(), [&](Index position, Index positions) {
            const Index begin = position * channels, end = begin + positions * channels;
            for (Index i = 0; i < channels; i += Lanes) {
                // The last packet may overlap the one before.
                const Index channel = std::min(i, channels - Lanes);
                const auto value = of(std::type_identity<P>(), channel);
                for (Index p = begin + channel; p < end; p += channels)
                    finish(last_step, value(p + j * size), p, j, y, {});
            }
        });
}

}  // namespace detail

/// Batch normalisation of images: that of BatchNorm for each channel, with statistics over the batch
/// and all positions. In a training step a single image has statistics too, of its positions; where
/// it has one position, the running ones serve.
///
/// \source Ioffe & Szegedy 2015, Batch Normalization, section 3.2.
template <class Scalar_>
class BatchNorm2d : public LayerBase<BatchNorm2d<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    static constexpr bool has_statistics = true;
    using Gradient = typename BatchNorm<Scalar>::Gradient;

    /// Gain 1, bias 0, running mean 0, running variance 1.
    /// \throws std::invalid_argument  if the shape or an option lies outside its range.
    explicit BatchNorm2d(const ImageShape& shape, BatchNormOptions options = {})
        : BatchNorm2d(shape, BatchNorm<Scalar>{checked(shape).channels, options}) {}

    /// \param channels  What each channel is normalised by.
    /// \throws std::invalid_argument  unless it has shape.channels features.
    BatchNorm2d(const ImageShape& shape, BatchNorm<Scalar> channels)
        : shape_(checked(shape)), channels_(std::move(channels)) {
        if (channels_.features() != shape.channels)
            detail::refuse("BatchNorm2d: channels must be ", shape.channels, ", got ",
                           channels_.features());
    }

    [[nodiscard]] const ImageShape& input_shape() const { return shape_; }
    [[nodiscard]] const ImageShape& output_shape() const { return shape_; }
    /// Parameters and running statistics, a feature for each channel.
    [[nodiscard]] const BatchNorm<Scalar>& channels() const { return channels_; }

    [[nodiscard]] std::string description() const {
        return detail::message("BatchNorm2d ", detail::text_of(shape_), ", epsilon ",
                               channels_.options().epsilon);
    }

    /// \throws std::invalid_argument  unless input_size == input_shape().size().
    [[nodiscard]] Index output_size(Index input_size) const {
        detail::check_image_size("BatchNorm2d", shape_, input_size);
        return input_size;
    }

    /// That of the channels, with a column for each position of each image.
    template <class Memory>
    using Record = typename BatchNorm<Scalar>::template Record<Memory>;

    [[nodiscard]] Gradient zero_gradient() const { return channels_.zero_gradient(); }

    /// y = scale x + shift for each channel, in one rounding.
    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        const Index channels = shape_.channels;
        const auto x = detail::by_position(batch, shape_);
        const detail::ScratchArray<Scalar> scale(channels), shift(channels);
        if constexpr (Batch::records) {
            const auto memory = batch.template array<double>(3 * channels);
            (void)batch.keep();
            const Statistics by = channels_.running_.of_pass(
                x, mask, memory.data(), record, [&](const Statistics& of_batch) {
                    take_moments(batch.team(), x.data(), batch.columns(), of_batch);
                });
            channels_.fold(by, scale.data(), shift.data());
        } else {
            channels_.write_affine(scale.data(), shift.data());
        }
        write(batch, epilogue, [&]<class P>(std::type_identity<P>, Index i) {
            return [from = x.data(), a = P::load(scale.data() + i),
                    b = P::load(shift.data() + i)](Index k) {
                return multiply_add(a, P::load(from + k), b);
            };
        });
    }

    /// As BatchNorm does, with averages over the batch and all positions.
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        const Index channels = shape_.channels;
        gradient.check("BatchNorm2d", channels);
        const detail::ScratchArray<double> averages(2 * channels);
        const auto dy = detail::by_position(batch, shape_);
        channels_.add_gradient(
            record, gradient, averages.data(), [&](double* slopes, double* products) {
                take_slope_sums(batch.team(), record, dy.data(), batch.columns(), slopes, products);
            });
        if constexpr (detail::is_discarded<Epilogue>) return;
        // dx = of_slope dy + of_input x + shift.
        const detail::ScratchArray<Scalar> of_slope(channels), of_input(channels), shift(channels);
        fold_back(record.statistics, averages.data(), of_slope.data(), of_input.data(),
                  shift.data());
        const auto x = record.input.view();
        write(batch, epilogue, [&]<class P>(std::type_identity<P>, Index i) {
            return [slopes = dy.data(), input = x.data(), a = P::load(of_slope.data() + i),
                    b = P::load(of_input.data() + i), c = P::load(shift.data() + i)](Index k) {
                return multiply_add(a, P::load(slopes + k), multiply_add(b, P::load(input + k), c));
            };
        });
    }

    /// Of the running statistics (AffineInUse).
    [[nodiscard]] Index affine_channels() const { return shape_.channels; }
    void write_affine(Scalar* scale, Scalar* shift) const { channels_.write_affine(scale, shift); }

    void begin_statistics() { channels_.begin_statistics(); }
    void update_statistics(const Record<detail::Records>& record) {
        channels_.update_statistics(record);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        BatchNorm<Scalar>::visit_parameters(self.channels_, visit, gradients...);
    }
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        BatchNorm<Scalar>::visit_state(self.channels_, visit);
    }

    /// As torch.nn.BatchNorm2d's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        return channels_.tensor_form(std::move(form));
    }

private:
    using Statistics = detail::BatchStatistics;

    [[nodiscard]] static const ImageShape& checked(const ImageShape& shape) {
        detail::check_image_shape("BatchNorm2d", "shape", shape);
        return shape;
    }

    /// Calls sum_image(image, channels' first numbers, channels' second numbers) for each image,
    /// shared by the team, and then join(image, the same) in order.
    template <class SumImage, class Join>
    void sum_images(const detail::Team& team, Index images, const SumImage& sum_image,
                    const Join& join) const {
        const Index channels = shape_.channels;
        const detail::ScratchArray<double> sums(2 * channels * images);
        const auto of = [&](Index j) { return sums.data() + 2 * channels * j; };
        team.split(images, 1, detail::work_of_moving * static_cast<double>(shape_.size()),
                   [&](Index first, Index count) {
                       for (Index j = first; j < first + count; ++j)
                           sum_image(j, of(j), of(j) + channels);
                   });
        for (Index j = 0; j < images; ++j) join(j, of(j), of(j) + channels);
    }

    /// Mean and biased variance.
    void take_moments(const detail::Team& team, const Scalar* x, Index images,
                      const Statistics& to) const {
        const Index channels = shape_.channels, positions = shape_.positions();
        std::fill_n(to.mean, channels, 0.0);
        std::fill_n(to.variance, channels, 0.0);
        sum_images(
            team, images,
            [&](Index j, double* mean, double* squares) {
                detail::image_moments(x + j * shape_.size(), channels, positions, mean, squares);
            },
            [&](Index j, const double* mean, const double* squares) {
                detail::join_moments(channels, static_cast<double>(positions), mean, squares,
                                     static_cast<double>(j * positions), to.mean, to.variance);
            });
        for (Index i = 0; i < channels; ++i)
            to.variance[i] /= static_cast<double>(images * positions);
    }

    /// The sums of dy, and of dy z.
    void take_slope_sums(const detail::Team& team, const Record<detail::Records>& record,
                         const Scalar* dy, Index images, double* of_slopes,
                         double* of_products) const {
        const Index channels = shape_.channels;
        const Statistics& by = record.statistics;
        const detail::ScratchArray<Scalar> center(channels);
        for (Index i = 0; i < channels; ++i) center[i] = static_cast<Scalar>(by.mean[i]);
        std::fill_n(of_slopes, channels, 0.0);
        std::fill_n(of_products, channels, 0.0);
        sum_images(
            team, images,
            [&](Index j, double* slopes, double* products) {
                const Index at = j * shape_.size();
                detail::image_slope_sums(record.input.data + at, dy + at, center.data(), channels,
                                         shape_.positions(), slopes, products);
            },
            [&](Index, const double* slopes, const double* products) {
                for (Index i = 0; i < channels; ++i) {
                    of_slopes[i] += slopes[i];
                    of_products[i] += products[i];
                }
            });
        scale_products(by, center.data(), of_slopes, of_products);
    }

    /// From products with x - center to those with z.
    [[gnu::noinline]] void scale_products(const Statistics& by, const Scalar* center,
                                          const double* of_slopes, double* of_products) const {
        for (Index i = 0; i < shape_.channels; ++i)
            of_products[i] =
                (of_products[i] + (static_cast<double>(center[i]) - by.mean[i]) * of_slopes[i]) *
                by.inverse_deviation[i];
    }

    /// batch = epilogue(value), shared by the team.
    template <class Batch, class Epilogue, class ValueOf>
    void write(Batch& batch, const Epilogue& epilogue, const ValueOf& of) const {
        Batch result = batch.room(shape_.size());
        const auto y = result.writable();
        detail::redirect(
            detail::Destination<Scalar>{detail::view(y).data(), y.outerStride()}, epilogue, {},
            [&](const detail::Destination<Scalar>& to, const auto& last_step) {
                batch.team().split(batch.columns(), 1,
                                   2 * detail::work_of_moving * static_cast<double>(shape_.size()),
                                   [&](Index first, Index count) {
                                       detail::write_positions<detail::widest_lanes<Scalar>>(
                                           shape_, first, count, to, of, last_step);
                                   });
            });
        batch = std::move(result);
    }

    [[gnu::noinline]] void fold_back(const Statistics& by, const double* averages, Scalar* of_slope,
                                     Scalar* of_input, Scalar* shift) const {
        const double* const of_products = averages + shape_.channels;
        for (Index i = 0; i < shape_.channels; ++i) {
            const double scale =
                static_cast<double>(channels_.gain().data()[i]) * by.inverse_deviation[i];
            of_slope[i] = static_cast<Scalar>(scale);
            of_input[i] = static_cast<Scalar>(-scale * by.inverse_deviation[i] * of_products[i]);
            shift[i] = static_cast<Scalar>(-scale * averages[i] -
                                           static_cast<double>(of_input[i]) * by.mean[i]);
        }
    }

    ImageShape shape_;
    BatchNorm<Scalar> channels_;
};

}  // namespace stochastic_depth
