// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/onnx_model.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// What the axes of a value in an ONNX graph are. The first one is the batch.
enum class OnnxLayout {
    tokens,     ///< [batch, positions], ids of tokens.
    features,   ///< [batch, rows of the column].
    positions,  ///< [batch, positions, width], sequences.
    images      ///< [batch, channels, height, width].
};

/// The columns of a batch as a value in an ONNX graph: what a layer gets there, and gives.
struct OnnxValue {
    std::string name;
    OnnxLayout layout = OnnxLayout::features;
    /// Rows of a column of features, or numbers of a position; 0: not known.
    Index size = 0;
    /// Positions of a sequence; 0: any number, that of the network's input.
    Index positions = 0;
    /// Of images.
    ImageShape shape = {};
    /// Whether sequences have lengths, which are an input of the network.
    bool has_lengths = false;
    /// Whether columns are the positions of sequences: there is an axis of positions before that of
    /// the features.
    bool is_position = false;

    /// The same columns after an operation that keeps their layout.
    [[nodiscard]] OnnxValue renamed(std::string other) const {
        OnnxValue value = *this;
        value.name = std::move(other);
        return value;
    }
    /// Features of other rows.
    [[nodiscard]] OnnxValue renamed(std::string other, Index rows) const {
        OnnxValue value = renamed(std::move(other));
        value.size = rows;
        return value;
    }
};

/// What an export makes of the skippable layers from one on: each kept or skipped, or each its mean.
class OnnxMask {
public:
    /// Every layer is kept.
    OnnxMask() = default;
    explicit OnnxMask(const SurvivalMask& mask) : mask_(&mask) {}
    /// Weight scaling.
    [[nodiscard]] static OnnxMask of_means() {
        OnnxMask mask;
        mask.takes_means_ = true;
        return mask;
    }

    /// That of the layers inside of the skippable layer at hand.
    [[nodiscard]] OnnxMask inside() const {
        OnnxMask mask = *this;
        ++mask.first_;
        return mask;
    }
    /// That of the layers behind a part that begins here.
    template <class Layer>
    [[nodiscard]] OnnxMask behind(const Layer& layer) const {
        OnnxMask mask = *this;
        mask.first_ += detail::depth(layer);
        return mask;
    }
    /// Whether the layer at hand is kept.
    [[nodiscard]] bool keeps() const { return !mask_ || (*mask_)[first_]; }
    /// What the branch of the layer at hand is multiplied by where it is kept.
    /// \param p  The layer's survival probability.
    [[nodiscard]] double scale(double p) const { return takes_means_ ? p : 1; }

private:
    const SurvivalMask* mask_ = nullptr;
    bool takes_means_ = false;
    Index first_ = 0;
};

class OnnxGraph;

namespace detail {

template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes_of(OnnxGraph& graph, const Layer& layer, const OnnxValue& x,
                                      const OnnxMask& mask);

}  // namespace detail

/// An ONNX graph that layers write themselves into. A layer of one's own has a member for it
/// (docs/extending.md):
///
///     OnnxValue write_onnx(OnnxGraph& graph, const OnnxValue& x) const {
///         const OnnxValue rows = graph.features(x);
///         return rows.renamed(graph.node("Mul", {rows.name, graph.parameter("gain", gain_)}));
///     }
class OnnxGraph {
public:
    explicit OnnxGraph(detail::OnnxModel& model) : model_(&model) {}

    /// The first output of an operation, of ONNX's operator set 17.
    [[nodiscard]] std::string node(std::string_view operation,
                                   const std::vector<std::string>& inputs,
                                   const std::vector<OnnxAttribute>& attributes = {}) {
        return model_->node(place_, operation, inputs, attributes);
    }

    /// A constant tensor of a matrix, [rows, columns], or a vector.
    template <class Entries>
    [[nodiscard]] std::string parameter(const char* name, const Entries& entries) {
        struct Any {};
        return parameter(detail::tensor_form(Any{}, name, entries), entries.data());
    }
    /// One of another shape.
    template <class Number>
    [[nodiscard]] std::string parameter(const TensorForm& form, const Number* first) {
        return model_->tensor(place_, form, first);
    }
    /// A number of the network's type.
    [[nodiscard]] std::string number(double value) {
        return model_->constants(detail::message("number_", value), model_->number(), {},
                                 std::vector{value});
    }
    /// Several, row-major.
    [[nodiscard]] std::string numbers(const std::string& called, const std::vector<Index>& shape,
                                      const std::vector<double>& values) {
        return model_->constants(called, model_->number(), shape, values);
    }
    /// A whole number, or a list of them, as shapes and places are given.
    [[nodiscard]] std::string whole_number(Index value) {
        return model_->constants(detail::message("whole_", value), detail::OnnxType::int64, {},
                                 std::vector{value});
    }
    [[nodiscard]] std::string whole_numbers(const std::vector<Index>& values) {
        std::string called = "list";
        for (const Index value : values) called += detail::message("_", value);
        return model_->constants(called, detail::OnnxType::int64,
                                 {static_cast<Index>(values.size())}, values);
    }
    /// Whole numbers as the network's.
    [[nodiscard]] std::string as_numbers(const std::string& whole) {
        return node("Cast", {whole}, {{"to", static_cast<std::int64_t>(model_->number())}});
    }

    /// The columns as features, channels of images fastest, as the library has them.
    [[nodiscard]] OnnxValue features(const OnnxValue& x) {
        OnnxValue y = x;
        y.layout = OnnxLayout::features;
        if (x.layout == OnnxLayout::tokens)
            refuse("ids of tokens have no features: an Embedding must come first");
        if (x.layout == OnnxLayout::positions) {
            y.size = x.positions * x.size;
            y.name = reshaped(x.name, {y.size > 0 ? y.size : -1});
        } else if (x.layout == OnnxLayout::images) {
            y.size = x.shape.size();
            y.name = reshaped(channels_last(x), {y.size});
        }
        return y;
    }

    /// The columns as images of a shape, [batch, channels, height, width].
    [[nodiscard]] OnnxValue images(const OnnxValue& x, const ImageShape& shape) {
        if (x.layout == OnnxLayout::images && x.shape == shape) return x;
        OnnxValue y = whole_columns(x, "images");
        y.layout = OnnxLayout::images;
        y.shape = shape;
        // In the library's order.
        y.name = reshaped(y.name, {shape.height, shape.width, shape.channels});
        y.name = node("Transpose", {y.name}, {{"perm", std::vector<std::int64_t>{0, 3, 1, 2}}});
        return y;
    }

    /// The columns as positions of `width` numbers, [batch, positions, width].
    [[nodiscard]] OnnxValue positions(const OnnxValue& x, Index width) {
        if (x.layout == OnnxLayout::positions && x.size == width) return x;
        OnnxValue y = whole_columns(x, "sequences");
        if (y.size == 0)
            refuse("positions of another width need OnnxOptions::inputs, the number of rows");
        y.layout = OnnxLayout::positions;
        y.positions = y.size / width;
        y.size = width;
        y.name = reshaped(y.name, {y.positions, width});
        return y;
    }

    /// 0, 1, ..., as many as a value has positions, whole numbers.
    [[nodiscard]] std::string places(const OnnxValue& x) {
        const std::string count =
            x.positions > 0
                ? whole_number(x.positions)
                : node("Gather", {node("Shape", {sequences_}), whole_number(1)}, {{"axis", 0}});
        return node("Range", {whole_number(0), count, whole_number(1)});
    }
    /// How many positions of each sequence are its own, [batch], whole numbers.
    [[nodiscard]] const std::string& lengths() const { return lengths_; }
    /// Which positions belong to their sequence, [batch, positions], truth values.
    [[nodiscard]] std::string real_positions(const OnnxValue& x) {
        return node("Less", {places(x), node("Unsqueeze", {lengths_, whole_numbers({1})})});
    }
    /// The same positions, [batch, positions, width], with zeros behind their sequences' ends.
    [[nodiscard]] OnnxValue without_padding(const OnnxValue& x) {
        if (!x.has_lengths) return x;
        const std::string real = node("Unsqueeze", {real_positions(x), whole_numbers({2})});
        return x.renamed(node("Where", {real, x.name, number(0)}));
    }

    /// What a part of a layer makes of x.
    /// \param name  Of the part, as visit_parts has it.
    /// \param mask  From the part's first skippable layer on.
    template <class Name, class Layer>
    [[nodiscard]] OnnxValue part(const Name& name, const Layer& layer, const OnnxValue& x,
                                 const OnnxMask& mask = {}) {
        const std::string place = std::exchange(place_, detail::path_of_part(place_, name));
        OnnxValue y = detail::onnx_nodes_of(*this, layer, x, mask);
        place_ = place;
        return y;
    }

    /// Reports what cannot be exported, with its place in the network.
    template <class... Parts>
    [[noreturn]] void refuse(const Parts&... parts) const {
        const std::string place = place_.empty() ? "" : detail::message(place_, ": ");
        detail::refuse("export_onnx: ", place, parts...);
    }

    /// \param sequences, lengths  Inputs: what has positions as its second axis, and how many of
    ///                            them are real.
    void set_sequences(std::string sequences, std::string lengths) {
        sequences_ = std::move(sequences);
        lengths_ = std::move(lengths);
    }

    /// The longest sequence that is known of; 0: none.
    [[nodiscard]] Index most_positions(const OnnxValue& x) const {
        return x.positions > 0 ? x.positions : most_positions_;
    }
    void set_most_positions(Index count) { most_positions_ = count; }

private:
    /// Another shape behind the batch.
    [[nodiscard]] std::string reshaped(const std::string& x, std::vector<Index> shape) {
        shape.insert(shape.begin(), 0);
        return node("Reshape", {x, whole_numbers(shape)});
    }
    [[nodiscard]] std::string channels_last(const OnnxValue& x) {
        if (x.shape.positions() == 1) return x.name;
        return node("Transpose", {x.name}, {{"perm", std::vector<std::int64_t>{0, 2, 3, 1}}});
    }
    [[nodiscard]] OnnxValue whole_columns(const OnnxValue& x, std::string_view what) {
        if (x.is_position)
            refuse("a layer of ", what, " inside PerPosition has no form in ONNX here");
        return features(x);
    }

    detail::OnnxModel* model_;
    std::string place_;
    std::string sequences_, lengths_;
    Index most_positions_ = 0;
};

}  // namespace stochastic_depth
