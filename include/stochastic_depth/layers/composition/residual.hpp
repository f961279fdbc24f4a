// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/walk.hpp>

namespace stochastic_depth {
namespace detail {

/// Joins two ways by their sum.
struct Sum {
    template <class A, class B, class Y>
    void operator()(const A& a, const B& b, Y&& y) const {
        y = b + a;
    }
    template <class A, class B, class D>
    void backpropagate(const A&, const B&, const D& dy, D& da, D& db) const {
        da = dy;
        db = dy;
    }
};

}  // namespace detail

/// y = shortcut(x) + branch(x).
///
/// With the identity as shortcut, the addition happens in the branch's last matrix product.
/// \source He et al. 2016, Deep Residual Learning, Eq. (1) and (2).
template <ForwardLayer Branch, ForwardLayer Shortcut = Identity<typename Branch::Scalar>>
    requires(detail::one_scalar<Branch, Shortcut>)
class Residual
    : public LayerBase<Residual<Branch, Shortcut>, typename Branch::Scalar, Branch, Shortcut> {
public:
    using Scalar = typename Branch::Scalar;
    static constexpr bool reads_chosen_columns = detail::reads_chosen_columns<Branch>;

    /// \throws std::invalid_argument  if branch and shortcut take or give other shapes, where both
    ///                                have one.
    explicit Residual(Branch branch, Shortcut shortcut = Shortcut())
        : branch_(std::move(branch)), shortcut_(std::move(shortcut)) {
        detail::check_shapes("Residual", *this);
    }

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

    /// The shapes of images, both ways.
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        detail::ShapesOnTheWay beside = shapes;
        detail::send_shapes(who, branch_, shapes);
        if (!beside.now && beside.is_first) beside.now = shapes.first;
        detail::send_shapes(who, shortcut_, beside);
        if (!beside.now) return;
        if (shapes.now) return shapes.meet(who, *beside.now);
        shapes.become(beside.now);
    }

    template <class Memory>
    struct Record {
        detail::RecordOf<Branch, Memory> branch;
        detail::RecordOf<Shortcut, Memory> shortcut;
        /// What the branch was multiplied by.
        Scalar scale = 1;
    };

    struct Gradient {
        typename Branch::Gradient branch;
        typename Shortcut::Gradient shortcut;
        void set_zero() {
            branch.set_zero();
            shortcut.set_zero();
        }
    };

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        run_scaled(batch, record, mask, Scalar(1), epilogue);
    }

    /// batch = epilogue(shortcut(batch) + scale branch(batch)).
    template <class Batch, class Mask, class Epilogue>
    void run_scaled(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
                    Scalar scale, const Epilogue& epilogue) const {
        record.scale = scale;
        Batch shortcut = batch.shared(), branch = batch.shared();
        detail::run(shortcut_, shortcut, record.shortcut, mask.behind(branch_));
        const detail::AddScaled<Scalar> add{shortcut.data(), shortcut.stride(), scale};
        if constexpr (Batch::records && reads_chosen_columns)
            detail::run(branch_, branch, record.branch, mask,
                        detail::followed_by(
                            detail::InPlaces<detail::AddScaled<Scalar>>{
                                add, shortcut.chosen_columns()},
                            epilogue));
        else
            detail::run(branch_, branch, record.branch, mask, detail::followed_by(add, epilogue));
        batch = std::move(branch);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        Batch shortcut = batch.shared(), branch = batch.shared();
        if (record.scale != Scalar(1)) branch.apply(detail::Multiply<Scalar>{record.scale});
        detail::backpropagate(shortcut_, shortcut, record.shortcut, gradient.shortcut,
                              detail::HandOn<Epilogue>{});
        const auto by_shortcut = shortcut.current();
        detail::backpropagate(
            branch_, branch, record.branch, gradient.branch,
            detail::followed_by(
                detail::AddMatrix<Scalar>{by_shortcut.data(), by_shortcut.outerStride()},
                epilogue));
        batch = std::move(branch);
    }

    template <class Walk, class X, class Then, class State, class... Gradients>
    void walk(const Walk& walk, X& x, const Then& then, const State& state,
              Gradients&... gradients) const {
        walk.join(detail::Sum{}, detail::Place{branch_, gradients.branch...},
                  detail::Place{shortcut_, gradients.shortcut...}, x, then, state);
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        visit("branch", self.branch_, others.branch...);
        visit("shortcut", self.shortcut_, others.shortcut...);
    }

    /// The residual layer of f(branch) and f(shortcut).
    template <class Function>
    [[nodiscard]] friend auto map_parts(const Residual& self, const Function& f) {
        using Mapped = Residual<decltype(f(self.branch_)), decltype(f(self.shortcut_))>;
        return Mapped{f(self.branch_), f(self.shortcut_)};
    }

private:
    Branch branch_;
    Shortcut shortcut_;
};

/// A residual layer around a residual layer is no copy of it. Constrained as the class is: else the
/// copy would be the better guide.
template <ForwardLayer Branch, ForwardLayer Shortcut>
    requires(detail::one_scalar<Branch, Shortcut>)
Residual(Residual<Branch, Shortcut>) -> Residual<Residual<Branch, Shortcut>>;

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
};
template <class Branch, class Shortcut>
struct ShortcutOf<Residual<Branch, Shortcut>> {
    using type = Shortcut;
    [[nodiscard]] static const Shortcut& of(const Residual<Branch, Shortcut>& layer) {
        return layer.shortcut();
    }
};

}  // namespace detail
}  // namespace stochastic_depth
