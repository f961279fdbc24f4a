// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/layers/composition/held_layer.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/erased_layer.hpp>
#include <stochastic_depth/pass/erased_walk.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A layer of any type, chosen at run time: a value that holds a Linear today and a
/// StochasticDepth<Residual<...>> tomorrow. `Stack<AnyLayer<float>>` is a network whose
/// architecture comes from a file.
///
/// It is all that the layer is that it holds: skippable, in the tree of masks, trained, described
/// and saved like that (a checkpoint of either loads into the other). What it costs is an indirect
/// call for each layer and pass, and that nothing is fused across its border: hold whole blocks
/// rather than single layers. A copy copies the layer.
///
/// A skippable layer goes inside, AnyLayer{StochasticDepth{Residual{...}, p}}: StochasticDepth
/// around an AnyLayer takes the identity for its shortcut, and refuses to hold a Residual.
///
/// A layer that is not differentiable is refused when it is to be trained, with
/// std::invalid_argument.
template <class Scalar_>
class AnyLayer : public LayerBase<AnyLayer<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    using Gradient = detail::ErasedGradient;
    static constexpr bool hides_its_parts = true;
    static constexpr bool has_statistics = true;
    static constexpr bool draws_random_numbers = true;

    /// Not explicit: a list of layers of several types is a list of these.
    template <class Layer>
        requires(!std::is_same_v<Layer, AnyLayer> &&
                 std::is_same_v<typename Layer::Scalar, Scalar> && ForwardLayer<Layer>)
    AnyLayer(Layer layer)
        : layer_(std::make_unique<detail::HeldLayerModel<Layer>>(std::move(layer))) {}

    AnyLayer(const AnyLayer& other) : layer_(other.layer_->copy()) {}
    AnyLayer(AnyLayer&&) noexcept = default;
    AnyLayer& operator=(const AnyLayer& other) { return *this = AnyLayer(other); }
    AnyLayer& operator=(AnyLayer&&) noexcept = default;
    ~AnyLayer() = default;

    /// \throws std::invalid_argument  if the layer cannot take the input.
    [[nodiscard]] Index output_size(Index input_size) const {
        return layer_->output_size(input_size);
    }

    /// Number of skippable layers: the length of a mask.
    [[nodiscard]] Index depth() const { return layer_->depth(); }

    /// The layer that it holds, if that is of this type; else null.
    template <class Layer>
    [[nodiscard]] const Layer* held() const {
        return static_cast<const Layer*>(layer_->find(typeid(Layer)));
    }

    template <class Memory>
    using Record = detail::RecordOfErased<Memory>;

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        detail::run_erased<Scalar>(*layer_, batch, record, mask, epilogue);
    }
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        detail::backpropagate_erased<Scalar>(*layer_, batch, record, layer_->own(gradient),
                                             epilogue);
    }

    template <class Walk, class X, class Then, class State, class... Gradients>
    void walk(const Walk& walk, X& x, const Then& then, const State& state,
              Gradients&... gradients) const {
        // What needs no walk inside is one step of this walk.
        const auto at = [&](const auto& node) {
            if constexpr (sizeof...(Gradients) > 0) {
                auto gradient = layer_->node_gradient(layer_->own(gradients...));
                walk(node, x, then, state, gradient);
            } else {
                walk(node, x, then, state);
            }
        };
        if (layer_->as_node(at)) return;
        if (layer_->depth() == 0)
            run_in(walk, x, then, state, gradients...);
        else
            detail::walk_erased<Scalar>(*layer_, walk, x, then, state, layer_->own(gradients)...);
    }

    /// A step of a walk through a row of layers.
    template <class Walk, class Way>
    [[nodiscard]] bool step(const Walk& walk, Way& way) const {
        bool through = false;
        if (layer_->as_node([&](const auto& node) { through = walk.step(node, way); }))
            return through;
        if (layer_->depth() > 0) return false;
        way.run_through(detail::ErasedPart<Scalar, false>(*layer_));
        return true;
    }

    [[nodiscard]] Gradient zero_gradient() const { return layer_->zero_gradient(); }

    // What folds over parts ask.
    [[nodiscard]] Index random_layers() const { return layer_->random_layers(); }
    [[nodiscard]] bool skips_more_than_branches() const {
        return layer_->skips_more_than_branches();
    }
    [[nodiscard]] bool takes_tokens() const { return layer_->takes_tokens(); }
    /// Whether it holds a layer that has a shortcut.
    [[nodiscard]] bool hides_a_shortcut() const { return layer_->is_residual(); }
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        layer_->send_shapes(who, shapes);
    }
    void write_survival_probabilities(double*& first) const {
        layer_->write_survival_probabilities(first);
    }
    void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const {
        layer_->write_enclosing_layers(first, next, enclosing);
    }
    void add_work(Index rows, bool inside_skippable, detail::Work& work) const {
        layer_->add_work(rows, inside_skippable, work);
    }
    template <class Visit>
    void visit_layers(const Visit& visit, const std::string& path) const {
        layer_->visit_layers(visit, path);
    }
    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        static_assert(sizeof...(Gradients) <= 3);
        using Map = Eigen::Map<Matrix<Scalar>>;
        const auto pass_on = [&](const char* name, Map& parameter, std::span<Map> of) {
            [&]<std::size_t... k>(std::index_sequence<k...>) {
                if constexpr (std::is_const_v<Self>)
                    visit(name, std::as_const(parameter), of[k]...);
                else
                    visit(name, parameter, of[k]...);
            }
            (std::make_index_sequence<sizeof...(Gradients)>{});
        };
        const std::array<Gradient*, sizeof...(Gradients)> list{
            const_cast<Gradient*>(&gradients)...};
        self.layer_->visit_parameters(
            detail::ErasedVisit<Scalar>{pass_on, enter(visit), leave(visit),
                                        [&visit](bool& reached, bool& shortcut_reached) {
                                            detail::enter_skippable(visit, reached, shortcut_reached);
                                        },
                                        [&visit](bool& reached, bool& shortcut_reached) {
                                            detail::leave_skippable(visit, reached, shortcut_reached);
                                        },
                                        detail::visits_unreached(visit)},
            list);
    }
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        const auto pass_on = [&](const char* name, auto& entries) {
            if constexpr (std::is_const_v<Self>)
                visit(name, std::as_const(entries));
            else
                visit(name, entries);
        };
        self.layer_->visit_state(
            detail::ErasedStateVisit{pass_on, pass_on, enter(visit), leave(visit)});
    }
    template <class Self, class Visit>
    static void visit_tensors(Self& self, Visit&& visit) {
        const auto pass_on = [&]<class Number>(const TensorForm& form, Number* first) {
            if constexpr (std::is_const_v<Self>)
                visit(form, static_cast<const Number*>(first));
            else
                visit(form, first);
        };
        self.layer_->visit_tensors(
            detail::ErasedTensorVisit{pass_on, pass_on, enter(visit), leave(visit)});
    }
    void update_statistics(const Record<detail::Records>& record) {
        layer_->update_statistics(record.record);
    }
    void begin_statistics() { layer_->begin_statistics(); }

private:
    template <class Visit>
    [[nodiscard]] static auto enter(Visit& visit) {
        return [&visit](std::string_view part) { detail::enter_part(visit, part); };
    }
    template <class Visit>
    [[nodiscard]] static auto leave(Visit& visit) {
        return [&visit] { detail::leave_part<std::string_view>(visit); };
    }

    template <class Walk, class X, class Then, class State, class... Gradients>
    void run_in(const Walk& walk, X& x, const Then& then, const State& state,
                Gradients&... gradients) const {
        using Part = detail::ErasedPart<Scalar, false>;
        if constexpr (sizeof...(Gradients) > 0) {
            typename Part::Gradient gradient{layer_->own(gradients...)};
            walk(Part(*layer_), x, then, state, gradient);
        } else {
            walk(Part(*layer_), x, then, state);
        }
    }

    std::unique_ptr<detail::HeldLayerInterface<Scalar>> layer_;
};

}  // namespace stochastic_depth
