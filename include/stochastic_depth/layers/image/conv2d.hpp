// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/image/grouped_convolution.hpp>
#include <stochastic_depth/layers/image/way_back.hpp>
#include <stochastic_depth/numerics/batch_moments.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

namespace stochastic_depth {

struct Conv2dOptions {
    /// Of the output, at least 1.
    Index channels = 1;
    /// Side of the window, at least 1, and at most that of the padded image.
    Index kernel = 3;
    Index stride = 1;
    /// Rows and columns of zeros around the image.
    Index padding = 0;
    /// Divides the channels of input and output into groups, of which an output sees its own alone;
    /// at least 1. As many as channels: depthwise.
    Index groups = 1;
    /// Whether a bias is added, as is of no use before a normalisation.
    bool bias = true;
};

/// Convolution (as the field says; in mathematics, cross-correlation) of images:
///
///     y(o, u, v) = b(o) + sum over window rows dv, window columns du, channels c of
///                  W(o; c, du, dv) x(c, stride u + du - padding, stride v + dv - padding),
///
/// where taps outside of the image are left out. (So an infinite weight leaves the border alone,
/// where padding by zeros would make it NaN.) With groups, c is of those in o's group.
///
/// Each output sums in that order with fused multiply-adds, so that an image has the same bits alone
/// and in any batch, and for any number of threads. Element-wise layers behind it, and
/// in use a normalisation of its channels, run in its registers.
template <class Scalar_>
class Conv2d : public LayerBase<Conv2d<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    /// By the parameters, in their shapes; without a bias, of none.
    using Gradient = typename Linear<Scalar>::Gradient;
    /// Each of the output's positions is a column of the product.
    static constexpr bool rows_are_channels = true;
    static constexpr bool reads_chosen_columns = true;

    /// Weights drawn uniformly from +-gain sqrt(3 / (input channels / groups kernel^2)), bias 0.
    ///
    /// \param input   The shape of the images.
    /// \param random  A uniform random bit generator; it advances.
    /// \param gain    As Linear's.
    /// \throws std::invalid_argument  if the shape, an option or the gain lies outside its range;
    ///                                nothing is drawn then.
    template <RandomBitGenerator Random>
    Conv2d(const ImageShape& input, const Conv2dOptions& options, Random& random,
           double gain = std::numbers::sqrt2)
        : Conv2d(input, options) {
        if (!(gain >= 0 && std::isfinite(gain)))
            detail::refuse("Conv2d: gain must be finite and at least 0, got ", gain);
        weights_ = Linear<Scalar>(window_size(), options_.channels, random, gain).weights();
        bias_.setZero(options_.bias ? options_.channels : 0);
    }

    /// \param weights  W, [channels x (input channels / groups, kernel column, kernel row)], input
    ///                 channels fastest.
    /// \param bias     b, [channels]; empty where options.bias is false.
    /// \throws std::invalid_argument  if the shape or an option lies outside its range, or sizes
    ///                                don't match.
    Conv2d(const ImageShape& input, const Conv2dOptions& options,
           const ConstMatrixRef<Scalar>& weights, const Eigen::Ref<const Vector<Scalar>>& bias)
        : Conv2d(input, options) {
        if (weights.rows() != options_.channels || weights.cols() != window_size())
            detail::refuse("Conv2d: weights must be [", options_.channels, " x ", window_size(),
                           "], got [", weights.rows(), " x ", weights.cols(), "]");
        const Index entries = options_.bias ? options_.channels : 0;
        if (bias.size() != entries)
            detail::refuse("Conv2d: bias must have ", entries, " entries, got ", bias.size());
        weights_ = weights;
        bias_ = bias;
    }

    [[nodiscard]] const ImageShape& input_shape() const { return input_; }
    [[nodiscard]] ImageShape output_shape() const {
        return window().output_shape(input_, options_.channels);
    }
    [[nodiscard]] const Conv2dOptions& options() const { return options_; }
    /// W, [channels x (input channels / groups, kernel column, kernel row)].
    [[nodiscard]] const Matrix<Scalar>& weights() const { return weights_; }
    /// b, [channels], or empty.
    [[nodiscard]] const Vector<Scalar>& bias() const { return bias_; }

    [[nodiscard]] std::string description() const {
        const Index groups = options_.groups;
        return detail::message("Conv2d ", detail::text_of(input_), " -> ",
                               detail::text_of(output_shape()), ", kernel ", options_.kernel,
                               ", stride ", options_.stride, ", padding ", options_.padding,
                               groups == 1 ? "" : detail::message(", groups ", groups),
                               options_.bias ? "" : ", no bias");
    }

    /// \throws std::invalid_argument  unless input_size == input_shape().size().
    [[nodiscard]] Index output_size(Index input_size) const {
        detail::check_image_size("Conv2d", input_, input_size);
        return output_shape().size();
    }

    /// Multiply-adds for an image, those at the border that are left out among them.
    [[nodiscard]] double work() const {
        return static_cast<double>(output_shape().positions()) *
               static_cast<double>(weights_.size());
    }

    template <class Memory>
    struct Record {
        detail::RecordedMatrix<Scalar> input;
        /// Which columns of the matrix there; null: the first ones.
        const Index* columns = nullptr;
    };

    [[nodiscard]] Gradient zero_gradient() const {
        Gradient gradient{weights_, bias_};
        gradient.set_zero();
        return gradient;
    }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        if constexpr (Batch::records) {
            record.input = batch.keep();
            record.columns = batch.chosen_columns();
        }
        Batch result = batch.room(output_size(batch.rows()));
        const detail::Windows forward = windows();
        const detail::PackedGroups<Scalar> weights(groups(), weights_);
        in_each_image(batch.team(), batch, result, epilogue, work(),
                      [&](const Scalar* from, Scalar* to, Index j, const auto& last_step) {
                          detail::convolve_in_groups(forward, groups(), weights.data(),
                                                     bias_or_null(), from, to, j, last_step);
                      });
        batch = std::move(result);
    }

    /// dW += dy * windows^T, db += sum of dy over positions and images; dx = the convolution of dy
    /// with the turned weights.
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        if (gradient.weights.rows() != weights_.rows() ||
            gradient.weights.cols() != weights_.cols())
            detail::refuse("Conv2d: gradient must be [", weights_.rows(), " x ", weights_.cols(),
                           "], got [", gradient.weights.rows(), " x ", gradient.weights.cols(),
                           "]");
        const auto by_position = detail::by_position(batch, output_shape());
        const auto dy = batch.current();
        const bool by_groups = groups().is_copied();
        const Index parts = by_groups ? options_.groups : weights_.cols();
        batch.team().split(parts, by_groups ? 1 : detail::tile_columns,
                           static_cast<double>(dy.cols()) * work() / static_cast<double>(parts),
                           [&](Index first, Index count) {
                               detail::add_gradient_in_groups(
                                   windows(), groups(), record.input.view(), record.columns, dy,
                                   first, count, gradient.weights.data());
                               if (first == 0) add_bias_gradient(by_position, gradient);
                           });
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(input_.size());
        write_input_gradient(batch.team(), batch, result, epilogue);
        batch = std::move(result);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("weights", self.weights_, gradients.weights...);
        if (self.options_.bias) visit("bias", self.bias_, gradients.bias...);
    }

    /// As torch.nn.Conv2d's: [channels, input channels / groups, kernel row, kernel column].
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        if (form.name != "weights") return form;
        const Index o = weights_.rows(), k = options_.kernel, c = weights_.cols() / (k * k);
        return {"weight", {o, c, k, k}, {1, o, o * c * k, o * c}};
    }

private:
    Conv2d(const ImageShape& input, const Conv2dOptions& options)
        : input_(input), options_(options) {
        window().check("Conv2d", input, Index{1} << 20);
        detail::check_image_shape(
            "Conv2d", "output", window().output_shape(input, std::max<Index>(options.channels, 1)));
        if (options.channels < 1)
            detail::refuse("Conv2d: channels must be at least 1, got ", options.channels);
        const Index groups = options.groups;
        if (!(groups >= 1 && input.channels % groups == 0 && options.channels % groups == 0))
            detail::refuse("Conv2d: groups must be at least 1 and divide ", input.channels,
                           " input channels and ", options.channels, " channels, got ", groups);
        const double size =
            static_cast<double>(window_size()) * static_cast<double>(options.channels);
        if (!(size <= detail::largest_image))
            detail::refuse("Conv2d: weights must be at most 2^40 numbers, got ", size);
    }

    [[nodiscard]] detail::Window window() const {
        return {options_.kernel, options_.stride, options_.padding};
    }
    [[nodiscard]] Index window_size() const {
        return input_.channels / options_.groups * options_.kernel * options_.kernel;
    }
    [[nodiscard]] detail::ChannelGroups groups() const {
        return {options_.groups, input_.channels, options_.channels};
    }
    [[nodiscard]] const Scalar* bias_or_null() const {
        return options_.bias ? bias_.data() : nullptr;
    }

    /// The windows of the way forward.
    [[nodiscard]] detail::Windows windows() const {
        detail::WindowAxis across = window().axis(input_.width),
                           down = window().axis(input_.height);
        // A window of one position: all of them are one row.
        if (options_.kernel == 1 && options_.stride == 1 && options_.padding == 0) {
            across.outputs = across.size = input_.positions();
            down.outputs = down.size = 1;
        }
        return detail::Windows{across, down, input_.channels, 0, 0, 0, 0}.with_outputs(
            options_.channels);
    }

    /// Calls run(from, to, j, epilogue) for each image and its result, shared by a team.
    template <class Batch, class Epilogue, class Run>
    static void in_each_image(const detail::Team& team, const Batch& x, Batch& result,
                              const Epilogue& epilogue, double work, const Run& run) {
        const auto y = result.writable();
        detail::redirect(detail::Destination<Scalar>{detail::view(y).data(), y.outerStride()},
                         epilogue, {},
                         [&](const detail::Destination<Scalar>& to, const auto& last_step) {
                             team.split(x.columns(), 1, work, [&](Index first, Index count) {
                                 for (Index j = first; j < first + count; ++j)
                                     run(x.column(j), to.data + j * to.stride, j, last_step);
                             });
                         });
    }

    template <class Slope>
    void add_bias_gradient(const Slope& dy, Gradient& gradient) const {
        if (!options_.bias) return;
        detail::for_each_group(0, options_.channels, [&](Index i, Index rows) {
            double sums[detail::moments_group];
            detail::sum_columns(rows, dy.cols(), sums, [&](Index k, Index j) {
                return static_cast<double>(dy.data()[i + k + j * dy.outerStride()]);
            });
            for (Index k = 0; k < rows; ++k) gradient.bias(i + k) += static_cast<Scalar>(sums[k]);
        });
    }

    template <class Batch, class Epilogue>
    void write_input_gradient(const detail::Team& team, const Batch& slopes, Batch& result,
                              const Epilogue& epilogue) const {
        const detail::Windows forward = windows();
        const detail::PackedGroups<Scalar> by_group(groups(), weights_);
        const detail::ScratchArray<Scalar> turned(weights_.size());
        const auto each_way = [&](const auto& visit) {
            Scalar* weights = turned.data();
            detail::for_each_way_back(
                forward, [&](const detail::Windows& way, const auto& across, const auto& down) {
                    visit(way, across, down, weights);
                    weights += weights_.rows() * (input_.channels / options_.groups) *
                               across.axis.taps * down.axis.taps;
                });
        };
        each_way([&](const detail::Windows&, const auto& across, const auto& down, Scalar* to) {
            detail::pack_way_back_in_groups(forward, groups(), by_group.data(), across, down, to);
        });
        in_each_image(team, slopes, result, epilogue, work(),
                      [&](const Scalar* from, Scalar* to, Index j, const auto& last_step) {
                          each_way([&](const detail::Windows& way, const auto&, const auto&,
                                       const Scalar* weights) {
                              detail::convolve_in_groups(way, groups().turned(), weights,
                                                         static_cast<const Scalar*>(nullptr), from,
                                                         to, j, last_step);
                          });
                      });
    }

    ImageShape input_;
    Conv2dOptions options_;
    Matrix<Scalar> weights_;
    Vector<Scalar> bias_;
};

}  // namespace stochastic_depth
