// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/threads/team.hpp>

namespace stochastic_depth {

/// y = W x + b.
///
/// Inputs and Outputs are widths known at compile time, or Eigen::Dynamic. Small fixed widths run
/// several times faster. Whatever the batch, each output sums its inputs in one order with fused
/// multiply-adds, so a column has the same bits alone and in any batch.
template <class Scalar_, int Inputs = Eigen::Dynamic, int Outputs = Eigen::Dynamic>
class Linear {
public:
    using Scalar = Scalar_;
    using Weights = Eigen::Matrix<Scalar, Outputs, Inputs>;
    using Bias = Eigen::Matrix<Scalar, Outputs, 1>;
    using Cache = detail::NoCache;

    /// Gradient by the parameters, in their shapes.
    struct Gradient {
        Weights weights;
        Bias bias;
        void set_zero() {
            std::fill_n(weights.data(), weights.size(), Scalar(0));
            std::fill_n(bias.data(), bias.size(), Scalar(0));
        }
    };

    /// \param weights  W, [outputs x inputs].
    /// \param bias     b, [outputs].
    /// \throws std::invalid_argument  if W is empty, sizes differ, or a fixed width is
    ///                                contradicted.
    Linear(const ConstMatrixRef<Scalar>& weights, const Eigen::Ref<const Vector<Scalar>>& bias) {
        check_width("inputs", Inputs, weights.cols());
        check_width("outputs", Outputs, weights.rows());
        if (bias.size() != weights.rows())
            detail::refuse("Linear: bias must have ", weights.rows(), " entries, got ",
                           bias.size());
        weights_ = weights;
        bias_ = bias;
    }

    /// Weights drawn uniformly from +-gain sqrt(3 / inputs), bias 0.
    ///
    /// \param inputs, outputs  Widths, at least 1.
    /// \param random           A uniform random bit generator; it advances.
    /// \param gain             Standard deviation of W times sqrt(inputs), at least 0.
    /// \throws std::invalid_argument  for a width below 1, or a gain that is negative or not
    ///                                finite.
    /// \source He et al. 2015, Delving Deep into Rectifiers, Eq. (10): gain sqrt(2) keeps the
    ///         variance of a ReLU network.
    template <RandomBitGenerator Random>
    Linear(Index inputs, Index outputs, Random& random, double gain = std::numbers::sqrt2) {
        check_width("inputs", Inputs, inputs);
        check_width("outputs", Outputs, outputs);
        const auto limit = static_cast<Scalar>(gain * std::sqrt(3.0 / static_cast<double>(inputs)));
        if (!(gain >= 0 && std::isfinite(2 * limit)))
            detail::refuse("Linear: gain must be finite and at least 0, got ", gain);
        weights_.resize(outputs, inputs);
        for (Index i = 0; i < weights_.size(); ++i)
            weights_.data()[i] = limit > 0 ? uniform<Scalar>(random, -limit, limit) : Scalar(0);
        bias_.resize(outputs);
        std::fill_n(bias_.data(), outputs, Scalar(0));
    }

    /// The same for widths known at compile time.
    template <RandomBitGenerator Random>
        requires(Inputs != Eigen::Dynamic && Outputs != Eigen::Dynamic)
    explicit Linear(Random& random, double gain = std::numbers::sqrt2)
        : Linear(Inputs, Outputs, random, gain) {}

    [[nodiscard]] Index inputs() const { return weights_.cols(); }
    [[nodiscard]] Index outputs() const { return weights_.rows(); }
    /// W, [outputs x inputs].
    [[nodiscard]] const Weights& weights() const { return weights_; }
    /// b, [outputs].
    [[nodiscard]] const Bias& bias() const { return bias_; }

    [[nodiscard]] std::string description() const {
        return detail::message("Linear ", inputs(), " -> ", outputs());
    }

    /// \throws std::invalid_argument  unless input_size == inputs().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size != inputs())
            detail::refuse("Linear: input must have ", inputs(), " rows, got ", input_size);
        return outputs();
    }

    /// \param x  [inputs x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Linear", *this, x, y);
        detail::run_leaf(*this, detail::const_view(x), detail::view(y), detail::AsIs{});
    }

    /// y = epilogue(W x + b) in one pass.
    template <class Epilogue>
    void forward_fused(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                       const Epilogue& epilogue, detail::Origin origin = {}) const {
        detail::product<Scalar, Outputs, Inputs>(
            outputs(), inputs(), x.cols(), {weights_.data(), outputs()}, bias_.data(),
            {x.data(), 1, x.outerStride()}, {y.data(), y.outerStride()}, epilogue, origin);
    }

    /// Multiply-adds for a column.
    [[nodiscard]] double work() const {
        return static_cast<double>(outputs()) * static_cast<double>(inputs());
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const {
        Gradient gradient{weights_, bias_};
        gradient.set_zero();
        return gradient;
    }

    /// dW += dy x^T, db += dy 1, dx = W^T dy.
    /// \param x   [inputs x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [inputs x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::check_backward("Linear", *this, x, dy, dx);
        if (gradient.weights.rows() != outputs() || gradient.weights.cols() != inputs())
            detail::refuse("Linear: gradient must be [", outputs(), " x ", inputs(), "], got [",
                           gradient.weights.rows(), " x ", gradient.weights.cols(), "]");
        backward_fused(detail::Team::alone(), x, dy, gradient, dx, detail::AsIs{});
    }

    /// The same with dx = epilogue(W^T dy), shared by a team: each member has some of the inputs,
    /// or, where they are too few for that, of the columns.
    template <class X, class Slope, class InputSlope, class Epilogue>
    void backward_fused(const detail::Team& team, const X& x, const Slope& dy, Gradient& gradient,
                        InputSlope&& dx, const Epilogue& epilogue) const {
        if (x.cols() == 0) return;
        if (team.size() > 1 && inputs() <= inputs_for_each) {
            add_gradient(team, x, dy, gradient);
            const Transposed transposed(*this, 0, inputs());
            return team.split(x.cols(), detail::tile_columns, work(),
                              [&](Index first, Index count) {
                                  transposed.write(dy, dx, epilogue, {0, first}, count);
                              });
        }
        team.split(inputs(), inputs_for_each, 2.0 * work_for_each(x.cols()),
                   [&](Index first, Index count) {
                       add_weight_gradient(x, dy, gradient, first, count);
                       Transposed(*this, first, count)
                           .write(dy, dx, epilogue, {first, 0}, x.cols());
                       if (first == 0) add_bias_gradient(dy, gradient);
                   });
    }

    /// dW += dy x^T, db += dy 1, shared by a team.
    template <class X, class Slope>
    void add_gradient(const detail::Team& team, const X& x, const Slope& dy,
                      Gradient& gradient) const {
        if (x.cols() == 0) return;
        team.split(inputs(), detail::tile_columns, work_for_each(x.cols()),
                   [&](Index first, Index count) {
                       add_weight_gradient(x, dy, gradient, first, count);
                       if (first == 0) add_bias_gradient(dy, gradient);
                   });
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("weights", self.weights_, gradients.weights...);
        visit("bias", self.bias_, gradients.bias...);
    }

    /// As torch.nn.Linear's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        if (form.name != "weights") return form;
        return TensorForm::of_matrix("weight", outputs(), inputs());
    }

private:
    /// Whole tiles of rows of dx.
    static constexpr Index inputs_for_each = detail::tile_packets * detail::widest_lanes<Scalar>;

    [[nodiscard]] double work_for_each(Index batch) const {
        return static_cast<double>(outputs()) * static_cast<double>(batch);
    }

    /// Columns [first, first + count) of dW.
    template <class X, class Slope>
    void add_weight_gradient(const X& x, const Slope& dy, Gradient& gradient, Index first,
                             Index count) const {
        Scalar* const to = gradient.weights.data() + first * outputs();
        const auto run = [&](const Scalar* start, Scalar* out) {
            detail::product_onto<Scalar, Outputs>(
                outputs(), x.cols(), count, {dy.data(), dy.outerStride()}, {start, outputs()},
                {x.data() + first, x.outerStride(), 1}, {out, outputs()}, detail::AsIs{});
        };
        // Tiles that overlap compute some rows twice, and would add to them twice.
        if (outputs() % detail::widest_lanes<Scalar> == 0) return run(to, to);
        const detail::ScratchArray<Scalar> sum(outputs() * count);
        run(to, sum.data());
        std::copy_n(sum.data(), outputs() * count, to);
    }

    template <class Slope>
    void add_bias_gradient(const Slope& dy, Gradient& gradient) const {
        for (Index j = 0; j < dy.cols(); ++j) {
            const Scalar* const column = dy.data() + j * dy.outerStride();
            for (Index i = 0; i < outputs(); ++i) gradient.bias.data()[i] += column[i];
        }
    }

    /// W^T of inputs [first, first + count), for as long as this lives.
    class Transposed {
    public:
        Transposed(const Linear& layer, Index first, Index count)
            : layer_(layer), rows_(count), weights_(count * layer.outputs()) {
            detail::transpose(layer.outputs(), count,
                              layer.weights_.data() + first * layer.outputs(), layer.outputs(),
                              weights_.data(), count);
        }

        /// These rows of dx, from column `at.column` on.
        template <class Slope, class InputSlope, class Epilogue>
        void write(const Slope& dy, InputSlope& dx, const Epilogue& epilogue, detail::Origin at,
                   Index columns) const {
            const auto run = [&]<int Rows, int Inner>(std::integral_constant<int, Rows>,
                                                      std::integral_constant<int, Inner>) {
                detail::product<Scalar, Rows, Inner>(
                    rows_, layer_.outputs(), columns, {weights_.data(), rows_}, nullptr,
                    {dy.data() + at.column * dy.outerStride(), 1, dy.outerStride()},
                    {dx.data() + at.row + at.column * dx.outerStride(), dx.outerStride()},
                    epilogue, at);
            };
            using Fixed = std::integral_constant<int, Inputs>;
            using Any = std::integral_constant<int, Eigen::Dynamic>;
            if constexpr (Inputs != Eigen::Dynamic)
                if (rows_ == Inputs)
                    return run(Fixed{}, std::integral_constant<int, Outputs>{});
            run(Any{}, Any{});
        }

    private:
        const Linear& layer_;
        Index rows_;
        detail::ScratchArray<Scalar> weights_;
    };

    static void check_width(const char* name, Index fixed, Index width) {
        if (fixed != Eigen::Dynamic && width != fixed)
            detail::refuse("Linear: ", name, " must be ", fixed, ", got ", width);
        if (width < 1) detail::refuse("Linear: ", name, " must be at least 1, got ", width);
    }

    Weights weights_;
    Bias bias_;
};

}  // namespace stochastic_depth
