// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>

/// Layers whose type is known at run time alone: everything that a pass asks of a layer, as a table
/// of functions, and a layer that calls it. How a walk gets through them is in erased_walk.hpp.
namespace stochastic_depth::detail {

/// A function that somebody else owns.
template <class Signature>
class FunctionRef;
template <class Result, class... Arguments>
class FunctionRef<Result(Arguments...)> {
public:
    template <class Function>
        requires(!std::is_same_v<Function, FunctionRef>)
    FunctionRef(const Function& function)
        : function_(&function), call_([](const void* f, Arguments... arguments) -> Result {
              return (*static_cast<const Function*>(f))(static_cast<Arguments>(arguments)...);
          }) {}

    Result operator()(Arguments... arguments) const {
        return call_(function_, static_cast<Arguments>(arguments)...);
    }

private:
    const void* function_;
    Result (*call_)(const void*, Arguments...);
};

/// Stands for a type: one address for each.
template <class Type>
inline constexpr char kind_of{};

/// What a pass leaves of a layer of any type. The memory is used again by passes of the same type.
class ErasedRecord {
public:
    /// The record, made anew if it is of another type yet.
    template <class Type>
    [[nodiscard]] Type& as() {
        if (kind_ != &kind_of<Type>) {
            value_ = {new Type(), [](void* value) { delete static_cast<Type*>(value); }};
            kind_ = &kind_of<Type>;
        }
        return *static_cast<Type*>(value_.get());
    }
    /// Null: of another type.
    template <class Type>
    [[nodiscard]] const Type* find() const {
        return kind_ == &kind_of<Type> ? static_cast<const Type*>(value_.get()) : nullptr;
    }

private:
    const void* kind_ = nullptr;
    std::unique_ptr<void, void (*)(void*)> value_{nullptr, [](void*) {}};
};

/// A visitor of parameters, of any type.
template <class Scalar>
struct ErasedVisit {
    using Map = Eigen::Map<Matrix<Scalar>>;

    FunctionRef<void(const char*, Map&, std::span<Map>)> visit;
    FunctionRef<void(std::string_view)> enter_part;
    FunctionRef<void()> leave_part;
    FunctionRef<void(bool&, bool&)> enter_layer;
    FunctionRef<void(bool&, bool&)> leave_layer;
    bool unreached;

    // As a visitor itself.
    [[nodiscard]] bool visits_unreached() const { return unreached; }
    void enter(std::string_view name) const { enter_part(name); }
    void enter(std::size_t number) const { enter_part(message(number)); }
    void leave() const { leave_part(); }
    void enter_skippable(bool& reached, bool& shortcut_reached) const {
        enter_layer(reached, shortcut_reached);
    }
    void leave_skippable(bool& reached, bool& shortcut_reached) const {
        leave_layer(reached, shortcut_reached);
    }
    template <class Parameter, class... Gradients>
    void operator()(const char* name, Parameter& parameter, Gradients&... gradients) const {
        Map map = of(parameter);
        std::array<Map, sizeof...(Gradients)> maps{of(gradients)...};
        visit(name, map, maps);
    }

    template <class Entries>
    [[nodiscard]] static Map of(Entries& entries) {
        static_assert(!Entries::IsRowMajor || Entries::IsVectorAtCompileTime,
                      "a layer whose type is erased must have parameters in columns");
        return {const_cast<Scalar*>(entries.data()), entries.rows(), entries.cols()};
    }
};

/// Whether gradients pass through a layer. (A piece of one is no layer, and says so itself.)
template <class Layer>
inline constexpr bool has_way_back = [] {
    if constexpr (requires { Layer::has_way_back; })
        return Layer::has_way_back;
    else
        return DifferentiableLayer<Layer>;
}();

/// What a pass asks of a layer.
template <class Scalar>
class LayerInterface {
public:
    virtual ~LayerInterface() = default;

    [[nodiscard]] virtual Index output_size(Index input_size) const = 0;
    [[nodiscard]] virtual Index depth() const = 0;

    using ForgettingBatch = Batch<Scalar, Forgets>;
    using RecordingBatch = Batch<Scalar, Records>;
    virtual void run(ForgettingBatch& batch, const EveryLayer& mask) const = 0;
    virtual void run(ForgettingBatch& batch, const MeanOfMasks& mask) const = 0;
    virtual void run(ForgettingBatch& batch, const MaskView& mask) const = 0;
    virtual void run(RecordingBatch& batch, ErasedRecord& record, const EveryLayer& mask) const = 0;
    virtual void run(RecordingBatch& batch, ErasedRecord& record, const MaskView& mask) const = 0;

    /// \param gradient  Of the layer's own type.
    /// \param discard   Whether nobody wants the gradient by the input.
    virtual void backpropagate(ForgettingBatch& batch, const ErasedRecord& record, void* gradient,
                               bool discard) const = 0;
};

/// A layer of a known type as one of an unknown one.
template <class Layer, class Base = LayerInterface<typename Layer::Scalar>>
class LayerModel : public Base {
public:
    using Scalar = typename Layer::Scalar;
    using typename LayerInterface<Scalar>::ForgettingBatch;
    using typename LayerInterface<Scalar>::RecordingBatch;

    /// \param layer  Must outlive this.
    explicit LayerModel(const Layer& layer) : layer_(&layer) {}

    [[nodiscard]] Index output_size(Index input_size) const override {
        return layer_->output_size(input_size);
    }
    [[nodiscard]] Index depth() const override { return detail::depth(*layer_); }

    void run(ForgettingBatch& batch, const EveryLayer& mask) const override { pass(batch, mask); }
    void run(ForgettingBatch& batch, const MeanOfMasks& mask) const override { pass(batch, mask); }
    void run(ForgettingBatch& batch, const MaskView& mask) const override { pass(batch, mask); }
    void run(RecordingBatch& batch, ErasedRecord& record, const EveryLayer& mask) const override {
        pass(batch, record, mask);
    }
    void run(RecordingBatch& batch, ErasedRecord& record, const MaskView& mask) const override {
        pass(batch, record, mask);
    }

    void backpropagate(ForgettingBatch& batch, const ErasedRecord& record, void* gradient,
                       bool discard) const override {
        if constexpr (has_way_back<Layer>) {
            const auto* const own = record.find<RecordOf<Layer, Records>>();
            if (!own) refuse("AnyLayer: cache must be of a pass through this layer");
            auto& slopes = *static_cast<typename Layer::Gradient*>(gradient);
            if (discard)
                detail::backpropagate(*layer_, batch, *own, slopes, Discard{});
            else
                detail::backpropagate(*layer_, batch, *own, slopes);
        } else {
            refuse_to_differentiate();
        }
    }

protected:
    [[noreturn]] static void refuse_to_differentiate() {
        refuse("AnyLayer: layer must be differentiable, got ", name_of<Layer>());
    }

    const Layer* layer_;

private:
    template <class Mask>
    void pass(ForgettingBatch& batch, const Mask& mask) const {
        RecordOf<Layer, Forgets> record;
        detail::run(*layer_, batch, record, mask);
    }
    template <class Mask>
    void pass(RecordingBatch& batch, ErasedRecord& record, const Mask& mask) const {
        if constexpr (has_way_back<Layer>)
            detail::run(*layer_, batch, record.as<RecordOf<Layer, Records>>(), mask);
        else
            refuse_to_differentiate();
    }
};

/// What a pass leaves of a layer whose type is erased.
template <class Memory>
struct RecordOfErased {};
template <>
struct RecordOfErased<Records> {
    ErasedRecord record;
};

template <class Scalar, class Memory, class Mask, class Epilogue>
void run_erased(const LayerInterface<Scalar>& layer, Batch<Scalar, Memory>& batch,
                [[maybe_unused]] RecordOfErased<Memory>& record, const Mask& mask,
                const Epilogue& epilogue) {
    static_assert(std::is_same_v<Mask, EveryLayer> || std::is_same_v<Mask, MeanOfMasks> ||
                      std::is_same_v<Mask, MaskView>,
                  "a mask of another type would be taken for the one that it derives from");
    if constexpr (Memory::records)
        layer.run(batch, record.record, mask);
    else
        layer.run(batch, mask);
    batch.apply(epilogue);
}
template <class Scalar, class Epilogue>
void backpropagate_erased(const LayerInterface<Scalar>& layer, GradientBatch<Scalar>& batch,
                          const RecordOfErased<Records>& record, void* gradient,
                          const Epilogue& epilogue) {
    layer.backpropagate(batch, record.record, gradient, is_discarded<Epilogue>);
    batch.apply(epilogue);
}

}  // namespace stochastic_depth::detail
