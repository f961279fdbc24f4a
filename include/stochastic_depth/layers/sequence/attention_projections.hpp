// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention_options.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Numbers without gaps as a matrix.
template <class Scalar>
[[nodiscard]] ConstView<Scalar> dense(Index rows, Index columns, const Scalar* data) {
    return {data, rows, columns, Eigen::OuterStride<>(rows)};
}
template <class Scalar>
[[nodiscard]] View<Scalar> dense(Index rows, Index columns, Scalar* data) {
    return {data, rows, columns, Eigen::OuterStride<>(rows)};
}

/// The parameters of a MultiHeadAttention: (q, k, v) = W x + b before its heads, y = V c + a behind
/// them. Tokens stand side by side, without gaps.
template <class Scalar>
class AttentionProjections {
public:
    /// By the parameters, in their shapes.
    struct Gradient {
        typename Linear<Scalar>::Gradient in;
        typename Linear<Scalar>::Gradient out;
        void set_zero() {
            in.set_zero();
            out.set_zero();
        }
    };

    /// \param options  Checked.
    template <RandomBitGenerator Random>
    AttentionProjections(const MultiHeadAttentionOptions& options, Random& random, double gain)
        : has_bias_(options.bias),
          in_(options.width, 3 * options.width, random, checked_gain(gain)),
          out_(options.width, options.width, random, gain) {}

    AttentionProjections(const MultiHeadAttentionOptions& options,
                         const ConstMatrixRef<Scalar>& in_weights,
                         const Eigen::Ref<const Vector<Scalar>>& in_bias,
                         const ConstMatrixRef<Scalar>& out_weights,
                         const Eigen::Ref<const Vector<Scalar>>& out_bias)
        : has_bias_(options.bias),
          in_(given("in", options, 3 * options.width, in_weights, in_bias)),
          out_(given("out", options, options.width, out_weights, out_bias)) {}

    [[nodiscard]] const Linear<Scalar>& in() const { return in_; }
    [[nodiscard]] const Linear<Scalar>& out() const { return out_; }

    [[nodiscard]] Gradient zero_gradient() const {
        return {in_.zero_gradient(), out_.zero_gradient()};
    }
    void check(const Gradient& gradient) const {
        if (gradient.in.weights.rows() != 3 * width() || gradient.in.weights.cols() != width())
            refuse("MultiHeadAttention: gradient must be of width ", width(), ", got ",
                   gradient.in.weights.cols());
    }

    /// projected = W x + b.
    /// \param x          [width x count].
    /// \param projected  [3 width x count].
    void project_in(const Team& team, Index count, const Scalar* x, Scalar* projected) const {
        team.split(count, columns_of_member, in_.work(), [&](Index k, Index part) {
            in_.forward_fused(dense(width(), part, x + k * width()),
                              dense(3 * width(), part, projected + 3 * width() * k), AsIs{});
        });
    }

    /// epilogue(V c + a), which stores it.
    /// \param context  c, [width x count].
    /// \param first    The number of the first token, for the epilogue.
    template <class Epilogue>
    void project_out(const Team& team, Index count, const Scalar* context, Index first,
                     const Epilogue& epilogue) const {
        team.split(count, columns_of_member, out_.work(), [&](Index k, Index part) {
            // Where the width is large, sums wait there.
            const ScratchArray<Scalar> sums(width() * part);
            out_.forward_fused(dense(width(), part, context + k * width()),
                               dense(width(), part, sums.data()), epilogue, {0, first + k});
        });
    }

    /// dW += (dq, dk, dv) x^T, dV += dy c^T, and those by the biases.
    /// \param slopes         dy, [width x count].
    /// \param slopes_inside  (dq, dk, dv), [3 width x count].
    void add_gradient(const Team& team, Index count, const Scalar* x, const Scalar* context,
                      const Scalar* slopes, const Scalar* slopes_inside, Gradient& gradient) const {
        out_.add_gradient(team, dense(width(), count, context), dense(width(), count, slopes),
                          gradient.out);
        in_.add_gradient(team, dense(width(), count, x), dense(3 * width(), count, slopes_inside),
                         gradient.in);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, const Visit& visit, Gradients&... gradients) {
        const auto visit_one = [&](const char* weights, const char* bias, auto& part,
                                   auto&... slopes) {
            std::remove_cvref_t<decltype(part)>::visit_parameters(
                part,
                [&](const char* name, auto& parameter, auto&... slope) {
                    const bool is_bias = name[0] == 'b';
                    if (!is_bias || self.has_bias_)
                        visit(is_bias ? bias : weights, parameter, slope...);
                },
                slopes...);
        };
        visit_one("in_weights", "in_bias", self.in_, gradients.in...);
        visit_one("out_weights", "out_bias", self.out_, gradients.out...);
    }

private:
    [[nodiscard]] Index width() const { return out_.inputs(); }

    [[nodiscard]] static double checked_gain(double gain) {
        if (!(gain >= 0 && std::isfinite(gain)))
            refuse("MultiHeadAttention: gain must be finite and at least 0, got ", gain);
        return gain;
    }
    [[nodiscard]] static Linear<Scalar> given(const char* name,
                                              const MultiHeadAttentionOptions& options,
                                              Index outputs, const ConstMatrixRef<Scalar>& weights,
                                              const Eigen::Ref<const Vector<Scalar>>& bias) {
        if (weights.rows() != outputs || weights.cols() != options.width)
            refuse("MultiHeadAttention: ", name, "_weights must be [", outputs, " x ",
                   options.width, "], got [", weights.rows(), " x ", weights.cols(), "]");
        const Index entries = options.bias ? outputs : 0;
        if (bias.size() != entries)
            refuse("MultiHeadAttention: ", name, "_bias must have ", entries, " entries, got ",
                   bias.size());
        if (options.bias) return {weights, bias};
        return {weights, Vector<Scalar>::Zero(outputs)};
    }

    bool has_bias_;
    Linear<Scalar> in_;
    Linear<Scalar> out_;
};

/// The same on the way back, by their transposed weights: dc = V^T dy, dx = W^T (dq, dk, dv).
template <class Scalar>
class TransposedProjections {
public:
    /// \param with_in  Whether dx is wanted.
    TransposedProjections(const AttentionProjections<Scalar>& forward, bool with_in)
        : in_(with_in ? forward.in().weights().size() : 0),
          out_(forward.out().weights().size()),
          width_(forward.out().inputs()),
          work_(forward.out().work()) {
        const auto write = [this](const Linear<Scalar>& from, Scalar* to) {
            transpose(from.outputs(), width_, from.weights().data(), from.outputs(), to, width_);
        };
        write(forward.out(), out_.data());
        if (with_in) write(forward.in(), in_.data());
    }

    /// \param slopes      dy, [width x count].
    /// \param by_context  dc, [width x count], written.
    void by_context(const Team& team, Index count, const Scalar* slopes, Scalar* by_context) const {
        team.split(count, columns_of_member, work_, [&](Index k, Index part) {
            product<Scalar>(width_, width_, part, {out_.data(), width_}, nullptr,
                            {slopes + k * width_, 1, width_}, {by_context + k * width_, width_},
                            AsIs{});
        });
    }

    /// epilogue(dx), which stores it.
    /// \param slopes_inside  (dq, dk, dv), [3 width x count].
    /// \param sums           [width x count], where sums may wait.
    /// \param first          The number of the first token, for the epilogue.
    template <class Epilogue>
    void by_input(const Team& team, Index count, const Scalar* slopes_inside, Scalar* sums,
                  Index first, const Epilogue& epilogue) const {
        team.split(count, columns_of_member, 3 * work_, [&](Index k, Index part) {
            product<Scalar>(width_, 3 * width_, part, {in_.data(), width_}, nullptr,
                            {slopes_inside + 3 * k * width_, 1, 3 * width_},
                            {sums + k * width_, width_}, epilogue, {0, first + k});
        });
    }

private:
    ScratchArray<Scalar> in_, out_;
    Index width_;
    double work_;
};

}  // namespace stochastic_depth::detail
