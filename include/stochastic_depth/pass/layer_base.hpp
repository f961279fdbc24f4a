// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/pass/run_into.hpp>

namespace stochastic_depth {

/// What a layer that takes part in passes itself has besides: everything here follows from its
/// members `Record`, `run`, `backpropagate`, `walk` and `visit_parts` (docs/extending.md).
///
/// \tparam Derived  The layer.
/// \tparam Scalar_  What it computes in.
/// \tparam Layers   The types of its parts, in the order in which `visit_parts` visits them.
template <class Derived, class Scalar_, class... Layers>
class LayerBase {
public:
    using Scalar = Scalar_;

    /// NN(x, S), [outputs x batch], for x [features x batch].
    /// \param mask  One SurvivalMask for the batch, or SurvivalMasks, one mask for each sample.
    /// \throws std::invalid_argument  if sizes don't match.
    template <class Mask>
    [[nodiscard]] Matrix<Scalar> operator()(const ConstMatrixRef<Scalar>& x,
                                            const Mask& mask) const {
        detail::check_mask("masked_forward", derived(), mask, x.cols());
        Matrix<Scalar> y(derived().output_size(x.rows()), x.cols());
        detail::run_into(derived(), x, detail::MaskView{mask}, y);
        return y;
    }

    /// Full depth: every layer runs. [outputs x batch], for x [features x batch].
    /// \throws std::invalid_argument  if sizes don't match.
    [[nodiscard]] Matrix<Scalar> operator()(const ConstMatrixRef<Scalar>& x) const {
        Matrix<Scalar> y(derived().output_size(x.rows()), x.cols());
        forward(x, y);
        return y;
    }

    /// Number of skippable layers: the length of a mask.
    [[nodiscard]] Index depth() const { return detail::depth(derived()); }

    /// p_l of the skippable layers, in order of depth; of one around others, before theirs.
    [[nodiscard]] Eigen::VectorXd survival_probabilities() const {
        return detail::survival_probabilities(derived());
    }

    /// Every layer runs.
    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward(class_name, derived(), x, y);
        detail::run_into(derived(), x, detail::EveryLayer{}, y);
    }

    /// What `backward` needs of a forward pass.
    struct Cache {
        detail::Tape tape;
        typename Derived::template Record<detail::Records> record;
        /// Of the batch; 0 before the first pass.
        Index rows = 0;
        Index columns = 0;
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::check_forward(class_name, derived(), x, y);
        cache.rows = cache.columns = 0;
        cache.tape.clear();
        detail::Batch<Scalar, detail::Records> batch(detail::Team::alone(), cache.tape,
                                                     detail::const_view(x));
        // The caller's x may be gone when the way back begins.
        (void)batch.writable();
        detail::run(derived(), batch, cache.record, detail::EveryLayer{});
        detail::copy_columns(batch.current(), y);
        cache.rows = x.rows();
        cache.columns = x.cols();
    }

    [[nodiscard]] auto zero_gradient() const {
        typename Derived::Gradient gradient;
        Derived::visit_parts(
            derived(),
            [](const auto&, const auto& part, auto& of_part) { of_part = part.zero_gradient(); },
            gradient);
        gradient.set_zero();
        return gradient;
    }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    /// \throws std::invalid_argument  if sizes don't match, or the cache is of another batch.
    // Self: clang 14 looks into Derived, which is not complete yet, for a constraint that names it.
    template <class Gradient, class Self = Derived>
        requires std::same_as<Gradient, typename Self::Gradient>
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::check_backward(class_name, derived(), x, dy, dx);
        if (cache.columns != x.cols())
            detail::refuse(class_name, ": cache must be of ", x.cols(), " columns, got ",
                           cache.columns);
        if (cache.rows != x.rows())
            detail::refuse(class_name, ": cache must be of ", x.rows(), " rows, got ", cache.rows);
        detail::SparePiece spare;
        detail::GradientBatch<Scalar> batch(detail::Team::alone(), {&spare},
                                            detail::const_view(dy));
        detail::backpropagate(derived(), batch, cache.record, gradient);
        detail::copy_columns(batch.current(), dx);
    }

private:
    static constexpr std::string_view class_name = detail::name_of<Derived>();

    [[nodiscard]] const Derived& derived() const { return static_cast<const Derived&>(*this); }
};

}  // namespace stochastic_depth
