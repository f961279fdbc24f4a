// SPDX-License-Identifier: MIT
#pragma once

#include <any>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/erased_layer.hpp>
#include <stochastic_depth/pass/erased_walk.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/pass/walked_layer_model.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/types.hpp>

/// Layers of any type, as an AnyLayer holds them: a table of all that is asked of one, and visitors
/// and gradients whose types such a table can name.
namespace stochastic_depth::detail {

/// A visitor of what a layer keeps beside its parameters, of any type.
struct ErasedStateVisit {
    FunctionRef<void(const char*, Eigen::Map<Matrix<float>>&)> visit_float;
    FunctionRef<void(const char*, Eigen::Map<Matrix<double>>&)> visit_double;
    FunctionRef<void(std::string_view)> enter_part;
    FunctionRef<void()> leave_part;

    void enter(std::string_view name) const { enter_part(name); }
    void enter(std::size_t number) const { enter_part(message(number)); }
    void leave() const { leave_part(); }
    template <class Entries>
    void operator()(const char* name, Entries& entries) const {
        auto map = ErasedVisit<typename Entries::Scalar>::of(entries);
        if constexpr (std::is_same_v<typename Entries::Scalar, float>)
            visit_float(name, map);
        else
            visit_double(name, map);
    }
};

/// A visitor of what a layer's parameters and state are elsewhere.
struct ErasedTensorVisit {
    FunctionRef<void(const TensorForm&, float*)> visit_float;
    FunctionRef<void(const TensorForm&, double*)> visit_double;
    FunctionRef<void(std::string_view)> enter_part;
    FunctionRef<void()> leave_part;

    void enter(std::string_view name) const { enter_part(name); }
    void enter(std::size_t number) const { enter_part(message(number)); }
    void leave() const { leave_part(); }
    void operator()(const TensorForm& form, float* first) const { visit_float(form, first); }
    void operator()(const TensorForm& form, double* first) const { visit_double(form, first); }
};

/// A gradient of any type; empty until a layer makes one.
struct ErasedGradient {
    std::any value;
    void (*set_to_zero)(std::any&) = nullptr;

    void set_zero() {
        if (set_to_zero) set_to_zero(value);
    }
};

/// What an AnyLayer asks of the layer that it holds.
template <class Scalar>
class HeldLayerInterface : public WalkedLayerInterface<Scalar> {
public:
    using NodeInRow = ErasedNode<Scalar, false, true>;

    [[nodiscard]] virtual std::unique_ptr<HeldLayerInterface> copy() const = 0;
    [[nodiscard]] virtual Index random_layers() const = 0;
    [[nodiscard]] virtual bool skips_more_than_branches() const = 0;
    [[nodiscard]] virtual bool takes_tokens() const = 0;
    [[nodiscard]] virtual bool is_residual() const = 0;
    virtual void send_shapes(std::string_view who, ShapesOnTheWay& shapes) const = 0;
    /// The layer, if it is of this type; else null.
    [[nodiscard]] virtual const void* find(const std::type_info& type) const = 0;
    virtual void write_survival_probabilities(double*& first) const = 0;
    virtual void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const = 0;
    virtual void add_work(Index rows, bool inside_skippable, Work& work) const = 0;
    virtual void visit_layers(
        const FunctionRef<void(const std::string&, const std::string&)>& visit,
        const std::string& path) const = 0;
    virtual void visit_parameters(const ErasedVisit<Scalar>& visit,
                                  std::span<ErasedGradient* const> gradients) = 0;
    virtual void visit_state(const ErasedStateVisit& visit) = 0;
    virtual void visit_tensors(const ErasedTensorVisit& visit) = 0;
    virtual void update_statistics(const ErasedRecord& record) = 0;
    virtual void begin_statistics() = 0;
    [[nodiscard]] virtual ErasedGradient zero_gradient() const = 0;
    /// Its own type's gradient. Refuses another's.
    [[nodiscard]] virtual void* own(ErasedGradient& gradient) const = 0;

    /// Calls use(node) if the layer is a skippable one that needs no walk inside.
    /// \returns  Whether it is.
    virtual bool as_node(const FunctionRef<void(const NodeInRow&)>& use) const = 0;
    [[nodiscard]] virtual typename NodeInRow::Gradient node_gradient(void* gradient) const = 0;
};

/// A base before the other, which refers to what is in it.
template <class Layer>
struct HeldLayer {
    Layer held;
};

template <class Layer>
class HeldLayerModel final
    : private HeldLayer<Layer>,
      public WalkedLayerModelOf<Layer, HeldLayerInterface<typename Layer::Scalar>> {
    using Scalar = typename Layer::Scalar;
    using Base = WalkedLayerModelOf<Layer, HeldLayerInterface<Scalar>>;
    using typename HeldLayerInterface<Scalar>::NodeInRow;
    using HeldLayer<Layer>::held;
    static constexpr bool is_node = [] {
        if constexpr (is_skippable<Layer>)
            return Layer::skips_to_identity && !any_part<HasSkippableLayers, PartsOf<Layer>>;
        else
            return false;
    }();

public:
    explicit HeldLayerModel(Layer layer) : HeldLayer<Layer>{std::move(layer)}, Base(held) {}

    [[nodiscard]] std::unique_ptr<HeldLayerInterface<Scalar>> copy() const override {
        return std::make_unique<HeldLayerModel>(held);
    }
    [[nodiscard]] Index random_layers() const override {
        return detail::random_layers(held);
    }
    [[nodiscard]] bool skips_more_than_branches() const override {
        return detail::skips_more_than_branches(held);
    }
    [[nodiscard]] bool takes_tokens() const override { return detail::takes_tokens(held); }
    [[nodiscard]] bool is_residual() const override { return detail::is_residual<Layer>; }
    void send_shapes(std::string_view who, ShapesOnTheWay& shapes) const override {
        detail::send_shapes(who, held, shapes);
    }
    [[nodiscard]] const void* find(const std::type_info& type) const override {
        return type == typeid(Layer) ? &held : nullptr;
    }
    void write_survival_probabilities(double*& first) const override {
        detail::write_survival_probabilities(held, first);
    }
    void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const override {
        detail::write_enclosing_layers(held, first, next, enclosing);
    }
    void add_work(Index rows, bool inside_skippable, Work& work) const override {
        detail::add_work(held, rows, inside_skippable, work);
    }
    void visit_layers(const FunctionRef<void(const std::string&, const std::string&)>& visit,
                      const std::string& path) const override {
        detail::visit_layers(held, visit, path);
    }
    void visit_parameters(const ErasedVisit<Scalar>& visit,
                          std::span<ErasedGradient* const> gradients) override {
        if constexpr (DifferentiableLayer<Layer>) {
            const auto of = [&](std::size_t k) -> auto& {
                return *static_cast<typename Layer::Gradient*>(own(*gradients[k]));
            };
            if (gradients.empty()) return detail::visit_parameters(held, visit);
            if (gradients.size() == 1) return detail::visit_parameters(held, visit, of(0));
            if (gradients.size() == 2)
                return detail::visit_parameters(held, visit, of(0), of(1));
            detail::visit_parameters(held, visit, of(0), of(1), of(2));
        } else if (!gradients.empty()) {
            this->refuse_to_differentiate();
        }
    }
    void visit_state(const ErasedStateVisit& visit) override {
        detail::visit_state(held, visit);
    }
    void visit_tensors(const ErasedTensorVisit& visit) override {
        detail::visit_tensors(held, visit);
    }
    void update_statistics(const ErasedRecord& record) override {
        if constexpr (has_statistics<Layer>)
            if (const auto* const own = record.find<RecordOf<Layer, Records>>())
                detail::update_statistics(held, *own);
    }
    void begin_statistics() override { detail::begin_statistics(held); }

    [[nodiscard]] ErasedGradient zero_gradient() const override {
        if constexpr (DifferentiableLayer<Layer>)
            return {held.zero_gradient(), [](std::any& value) {
                        std::any_cast<typename Layer::Gradient>(&value)->set_zero();
                    }};
        else
            this->refuse_to_differentiate();
    }
    [[nodiscard]] void* own(ErasedGradient& gradient) const override {
        if constexpr (DifferentiableLayer<Layer>) {
            void* const found = std::any_cast<typename Layer::Gradient>(&gradient.value);
            if (!found) refuse("AnyLayer: gradient must be of this layer, ", name_of<Layer>());
            return found;
        } else {
            this->refuse_to_differentiate();
        }
    }

    bool as_node(const FunctionRef<void(const NodeInRow&)>& use) const override {
        if constexpr (is_node) as_erased_node(held, use);
        return is_node;
    }
    [[nodiscard]] typename NodeInRow::Gradient node_gradient(
        [[maybe_unused]] void* gradient) const override {
        if constexpr (is_node && DifferentiableLayer<Layer>)
            return erased_gradient<NodeInRow>(*static_cast<typename Layer::Gradient*>(gradient));
        else
            this->refuse_to_differentiate();
    }
};

}  // namespace stochastic_depth::detail
