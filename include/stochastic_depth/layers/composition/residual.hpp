// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/pass/activations.hpp>
#include <stochastic_depth/pass/differentiation.hpp>

namespace stochastic_depth {

/// y = shortcut(x) + branch(x).
///
/// With the identity as shortcut, the addition happens in the branch's last matrix product.
/// \source He et al. 2016, Deep Residual Learning, Eq. (1) and (2).
template <ForwardLayer Branch, ForwardLayer Shortcut = Identity<typename Branch::Scalar>>
    requires(detail::one_scalar<Branch, Shortcut>)
class Residual {
public:
    using Scalar = typename Branch::Scalar;
    static constexpr bool has_skippable_layers =
        detail::has_skippable_layers<Branch> || detail::has_skippable_layers<Shortcut>;
    static constexpr bool skips_branches_alone =
        detail::skips_branches_alone<Branch> && detail::skips_branches_alone<Shortcut>;
    static constexpr bool has_statistics =
        detail::has_statistics<Branch> || detail::has_statistics<Shortcut>;
    static constexpr bool parts_are_differentiable =
        DifferentiableLayer<Branch> && DifferentiableLayer<Shortcut>;

    explicit Residual(Branch branch, Shortcut shortcut = Shortcut())
        : branch_(std::move(branch)), shortcut_(std::move(shortcut)) {}

    [[nodiscard]] const Branch& branch() const { return branch_; }
    [[nodiscard]] const Shortcut& shortcut() const { return shortcut_; }

    /// \throws std::invalid_argument  if branch and shortcut give different sizes.
    [[nodiscard]] Index output_size(Index input_size) const {
        const Index outputs = branch_.output_size(input_size);
        const Index expected = shortcut_.output_size(input_size);
        if (outputs != expected)
            detail::refuse("Residual: branch must have ", expected,
                           " outputs as the shortcut has, got ", outputs);
        return outputs;
    }

    /// NN(x, S), [outputs x batch], for x [features x batch].
    /// \param mask  One SurvivalMask for the batch, or SurvivalMasks, one mask for each sample.
    /// \throws std::invalid_argument  if sizes don't match.
    template <class Mask>
    [[nodiscard]] Matrix<Scalar> operator()(const ConstMatrixRef<Scalar>& x,
                                            const Mask& mask) const {
        return masked_forward(*this, x, mask);
    }

    /// Number of skippable layers inside.
    [[nodiscard]] Index depth() const { return detail::depth(branch_) + detail::depth(shortcut_); }

    /// p_l of the skippable layers inside: the branch's, then the shortcut's.
    [[nodiscard]] Eigen::VectorXd survival_probabilities() const {
        return detail::survival_probabilities(*this);
    }

    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Residual", *this, x, y);
        detail::forward_fused(*this, x, y, detail::Keep{});
    }

    template <class Epilogue>
    void forward_fused(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                       const Epilogue& epilogue) const {
        forward_scaled(x, y, Scalar(1), epilogue);
    }

    /// epilogue(shortcut(x) + scale branch(x)).
    template <class Epilogue>
    void forward_scaled(const detail::ConstView<Scalar>& x, detail::View<Scalar> y, Scalar scale,
                        const Epilogue& epilogue) const {
        const auto add = [&](const auto& shortcut) {
            detail::forward_fused(
                branch_, x, y,
                detail::Then{
                    detail::AddScaled<Scalar>{shortcut.data(), shortcut.outerStride(), scale},
                    epilogue});
        };
        if constexpr (identity_shortcut) {
            add(x);
        } else {
            detail::ScratchMatrix<Scalar> shortcut(y.rows(), y.cols());
            detail::forward_fused(shortcut_, x, *shortcut, detail::Keep{});
            add(*shortcut);
        }
    }

    /// Only for skippable layers inside the branch or the shortcut.
    template <class Mask>
    void propagate(detail::Activations<Scalar>& activations, const Mask& mask) const {
        const auto run = [&](const auto& from, auto to) {
            detail::Activations<Scalar> shortcut(from, detail::widest(shortcut_, from.rows()));
            detail::propagate(shortcut_, shortcut, mask.after(branch_));
            detail::Activations<Scalar> branch(from, detail::widest(branch_, from.rows()));
            detail::propagate(branch_, branch, mask);
            to = shortcut.current() + branch.current();
        };
        activations.replace(output_size(activations.current().rows()), run);
    }

    [[nodiscard]] Index widest(Index input_size) const {
        return std::max(detail::widest(branch_, input_size), detail::widest(shortcut_, input_size));
    }

    [[nodiscard]] Index random_layers() const {
        return detail::random_layers(branch_) + detail::random_layers(shortcut_);
    }

    void write_survival_probabilities(double*& first) const {
        detail::write_survival_probabilities(branch_, first);
        detail::write_survival_probabilities(shortcut_, first);
    }

    void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const {
        detail::write_enclosing_layers(branch_, first, next, enclosing);
        detail::write_enclosing_layers(shortcut_, first, next, enclosing);
    }

    struct Recorded {
        detail::Record<Branch> branch;
        detail::Record<Shortcut> shortcut;
        /// What the branch was multiplied by.
        Scalar scale = 1;
    };
    using Cache = detail::RecordedPass<Recorded>;

    struct Gradient {
        typename Branch::Gradient branch;
        typename Shortcut::Gradient shortcut;
        void set_zero() {
            branch.set_zero();
            shortcut.set_zero();
        }
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Residual", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const {
        return {branch_.zero_gradient(), shortcut_.zero_gradient()};
    }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Residual", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        record_scaled(flow, recorded, mask, Scalar(1), epilogue);
    }

    /// epilogue(shortcut(x) + scale branch(x)).
    template <class Mask, class Epilogue>
    void record_scaled(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                       Scalar scale, const Epilogue& epilogue) const {
        recorded.scale = scale;
        detail::Flow<Scalar> shortcut = flow.shared();
        if constexpr (!identity_shortcut)
            detail::record(shortcut_, shortcut, recorded.shortcut, mask.after(branch_));
        const auto x = shortcut.keep();
        detail::record(
            branch_, flow, recorded.branch, mask,
            detail::Then{detail::Multiply<Scalar>{scale},
                         detail::Then{detail::AddMatrix<Scalar>{x.data, x.stride}, epilogue}});
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient& gradient,
                       const Epilogue& epilogue) const {
        detail::Slopes<Scalar> branch = slopes.shared();
        if (recorded.scale != Scalar(1)) branch.apply(detail::Multiply<Scalar>{recorded.scale});
        if constexpr (std::is_same_v<Epilogue, detail::Discard>) {
            detail::backpropagate(branch_, branch, recorded.branch, gradient.branch, epilogue);
            detail::backpropagate(shortcut_, slopes, recorded.shortcut, gradient.shortcut,
                                  epilogue);
        } else {
            detail::Slopes<Scalar> shortcut = slopes.shared();
            if constexpr (!identity_shortcut)
                detail::backpropagate(shortcut_, shortcut, recorded.shortcut, gradient.shortcut);
            const auto dy = shortcut.current();
            detail::backpropagate(
                branch_, branch, recorded.branch, gradient.branch,
                detail::Then{detail::AddMatrix<Scalar>{dy.data(), dy.outerStride()}, epilogue});
            slopes = std::move(branch);
        }
    }

    void update_statistics(const Recorded& recorded) {
        detail::update_statistics(branch_, recorded.branch);
        detail::update_statistics(shortcut_, recorded.shortcut);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parts(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("branch", self.branch_, gradients.branch...);
        visit("shortcut", self.shortcut_, gradients.shortcut...);
    }
    template <class Self, class Visit, class... Gradients>
    static void visit_shortcut_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        detail::visit_parameters(self.shortcut_, visit, gradients.shortcut...);
    }

private:
    static constexpr bool identity_shortcut = std::is_same_v<Shortcut, Identity<Scalar>>;

    Branch branch_;
    Shortcut shortcut_;
};

namespace detail {

template <class Layer>
inline constexpr bool is_residual = false;
template <class Branch, class Shortcut>
inline constexpr bool is_residual<Residual<Branch, Shortcut>> = true;

/// What stands in for a layer that is skipped: its shortcut, or the identity if it has none.
template <class Layer>
struct ShortcutOf {
    using type = Identity<typename Layer::Scalar>;
    [[nodiscard]] static type of(const Layer&) { return {}; }
    [[nodiscard]] static NoGradient gradient(auto&) { return {}; }
};
template <class Branch, class Shortcut>
struct ShortcutOf<Residual<Branch, Shortcut>> {
    using type = Shortcut;
    [[nodiscard]] static const Shortcut& of(const Residual<Branch, Shortcut>& layer) {
        return layer.shortcut();
    }
    /// The shortcut's part of the layer's gradient.
    [[nodiscard]] static auto& gradient(auto& layer) { return layer.shortcut; }
};

/// Whether a layer is x + branch(x).
template <class Layer>
struct IdentityResidual : std::false_type {};
template <class Branch>
struct IdentityResidual<Residual<Branch, Identity<typename Branch::Scalar>>> : std::true_type {};

}  // namespace detail

}  // namespace stochastic_depth
