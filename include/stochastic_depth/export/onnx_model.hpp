// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/onnx_wire.hpp>
#include <stochastic_depth/io/tensor_copy.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/types.hpp>
#include <stochastic_depth/version.hpp>

namespace stochastic_depth {

/// What an ONNX operation is told beside its inputs: {"axis", -1}.
struct OnnxAttribute {
    std::string name;
    std::variant<std::int64_t, float, std::vector<std::int64_t>> value;
};

namespace detail {

/// An axis of a value: its size, or, where that is any, what the size is called.
struct OnnxAxis {
    Index size = 0;
    std::string name = {};
};

/// What ONNX calls types of numbers.
enum class OnnxType { float32 = 1, int64 = 7, float64 = 11 };

/// An ONNX model as it is built: operations, constant tensors, inputs and outputs by name.
///
/// \source ONNX, onnx.proto, IR version 8, for the numbers of the fields.
class OnnxModel {
public:
    static constexpr std::int64_t ir_version = 8, operator_set = 17;
    /// Of a message of protobuf.
    static constexpr std::size_t most_bytes = (std::size_t{1} << 31) - 1;

    explicit OnnxModel(OnnxType number) : number_(number) { (void)unique(output_name); }

    /// Of the network's numbers.
    [[nodiscard]] OnnxType number() const { return number_; }

    /// An operation's output. Of the same one on the same inputs there is only one.
    /// \param place  In the network, for names.
    [[nodiscard]] std::string node(const std::string& place, std::string_view operation,
                                   const std::vector<std::string>& inputs,
                                   const std::vector<OnnxAttribute>& attributes) {
        WireWriter what;
        for (const std::string& input : inputs) what.text(1, input);
        what.text(4, operation);
        for (const OnnxAttribute& attribute : attributes) what.message(5, bytes_of(attribute));
        const auto [known, is_new] = outputs_.try_emplace(what.bytes());
        if (!is_new) return known->second;
        known->second = unique(message(place, place.empty() ? "" : "/", operation));
        nodes_.push_back({std::string(operation), inputs, known->second, attributes});
        return known->second;
    }

    /// The name of a tensor of a layer's numbers.
    /// \throws std::invalid_argument  if the file would be larger than protobuf can have it.
    template <class Number>
    [[nodiscard]] std::string tensor(const std::string& place, const TensorForm& form,
                                     const Number* first) {
        const std::string name = unique(message(place, place.empty() ? "" : ".", form.name));
        const bool is_single = number_ == OnnxType::float32;
        const std::size_t width = is_single ? sizeof(float) : sizeof(double);
        const std::size_t count = count_of(form.shape, width);
        std::uint8_t* const to = add_tensor(name, number_, form.shape, count * width);
        if (sizeof(Number) == width) {
            write_tensor(form, first, to);
        } else {
            std::vector<std::uint8_t> numbers(count * sizeof(Number));
            write_tensor(form, first, numbers.data());
            for (std::size_t i = 0; i < count; ++i) {
                const auto number = load_little<Number>(numbers.data() + i * sizeof(Number));
                if (is_single)
                    store_little(to + i * width, static_cast<float>(number));
                else
                    store_little(to + i * width, static_cast<double>(number));
            }
        }
        return name;
    }

    /// The name of a tensor of constants, row-major; of the same ones there is only one.
    /// \param called  Its name, if that is free.
    template <class Number>
    [[nodiscard]] std::string constants(const std::string& called, OnnxType type,
                                        const std::vector<Index>& shape,
                                        const std::vector<Number>& numbers) {
        const std::size_t width = type == OnnxType::float32 ? sizeof(float) : sizeof(double);
        std::vector<std::uint8_t> bytes(numbers.size() * width);
        std::size_t end = 0;
        for (const Number number : numbers) {
            std::uint8_t* const to = bytes.data() + width * end++;
            if (type == OnnxType::float32)
                store_little(to, static_cast<float>(number));
            else if (type == OnnxType::float64)
                store_little(to, static_cast<double>(number));
            else
                store_little(to, static_cast<std::int64_t>(number));
        }
        const auto [known, is_new] = constants_.try_emplace(std::tuple{type, shape, bytes});
        if (is_new) {
            known->second = unique(called);
            std::uint8_t* const to = add_tensor(known->second, type, shape, bytes.size());
            if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
        }
        return known->second;
    }

    /// \returns  Its name.
    std::string add_input(const std::string& name, OnnxType type,
                          const std::vector<OnnxAxis>& axes) {
        inputs_.message(graph_input, bytes_of(unique(name), type, axes));
        return name;
    }

    /// The model's bytes.
    /// \param y         What the network gives.
    /// \param axes      Of that.
    /// \param about     The network in words.
    /// \param metadata  Pairs of a key and its value.
    [[nodiscard]] std::vector<std::uint8_t> finish(
        const std::string& y, const std::vector<OnnxAxis>& axes, const std::string& about,
        const std::vector<std::pair<std::string, std::string>>& metadata) {
        rename_output(y);
        WireWriter nodes, end;
        for (const Node& node : nodes_) nodes.message(1, bytes_of(node));
        nodes.text(2, "network");
        end.text(10, about);
        end.append(inputs_);
        end.message(12, bytes_of(output_name, number_, axes));
        WireWriter model;
        model.whole(1, ir_version);
        model.text(2, "stochastic_depth");
        model.text(3, library_version());
        WireWriter operators;
        operators.text(1, "");
        operators.whole(2, operator_set);
        model.message(8, operators);
        for (const auto& [key, value] : metadata) {
            WireWriter entry;
            entry.text(1, key);
            entry.text(2, value);
            model.message(14, entry);
        }
        const std::size_t graph = nodes.size() + tensors_.size() + end.size();
        if (const std::size_t bytes = graph + model.size() + tag_and_length; bytes > most_bytes)
            refuse_size(static_cast<double>(bytes));
        model.reserve(model.size() + tag_and_length + graph);
        model.begin(7, graph);
        model.append(nodes);
        model.append(tensors_);
        model.append(end);
        return std::move(model).bytes();
    }

private:
    static constexpr std::uint32_t graph_input = 11;
    static constexpr std::size_t tag_and_length = 11;
    static constexpr const char* output_name = "output";

    struct Node {
        std::string operation;
        std::vector<std::string> inputs;
        std::string output;
        std::vector<OnnxAttribute> attributes;
    };

    [[noreturn]] static void refuse_size(double bytes) {
        refuse("export_onnx: file must have at most ", most_bytes,
               " bytes, as a message of protobuf, got ", bytes);
    }
    /// Numbers of a tensor, of `width` bytes each, for which there must be room.
    [[nodiscard]] std::size_t count_of(const std::vector<Index>& shape, std::size_t width) const {
        double bytes = static_cast<double>(width);
        for (const Index size : shape) bytes *= static_cast<double>(size);
        bytes += static_cast<double>(tensors_.size());
        if (!(bytes <= static_cast<double>(most_bytes))) refuse_size(bytes);
        std::size_t count = 1;
        for (const Index size : shape) count *= static_cast<std::size_t>(size);
        return count;
    }

    /// A name that nothing else has.
    [[nodiscard]] std::string unique(const std::string& wanted) {
        std::string name = wanted;
        for (Index& count = names_[wanted]; count++ > 0;) {
            name = message(wanted, "_", count);
            if (names_.try_emplace(name, 1).second) break;
        }
        return name;
    }

    /// \returns  Where its bytes are to be written.
    [[nodiscard]] std::uint8_t* add_tensor(const std::string& name, OnnxType type,
                                           const std::vector<Index>& shape, std::size_t bytes) {
        WireWriter tensor, raw;
        for (const Index size : shape) tensor.whole(1, size);
        tensor.whole(2, static_cast<std::int64_t>(type));
        tensor.text(8, name);
        raw.begin(9, bytes);
        tensors_.begin(5, tensor.size() + raw.size() + bytes);
        tensors_.append(tensor);
        return tensors_.room(9, bytes);
    }

    /// What a node gives gets the output's name; of an input or a tensor, the output is a copy.
    void rename_output(const std::string& y) {
        const auto is_y = [&](const Node& node) { return node.output == y; };
        if (std::none_of(nodes_.begin(), nodes_.end(), is_y))
            return nodes_.push_back({"Identity", {y}, output_name, {}});
        for (Node& node : nodes_) {
            if (is_y(node)) node.output = output_name;
            std::replace(node.inputs.begin(), node.inputs.end(), y, std::string(output_name));
        }
    }

    [[nodiscard]] static WireWriter bytes_of(const OnnxAttribute& attribute) {
        WireWriter bytes;
        bytes.text(1, attribute.name);
        if (const auto* const single = std::get_if<float>(&attribute.value)) {
            bytes.single(2, *single);
            bytes.whole(20, 1);
        } else if (const auto* const whole = std::get_if<std::int64_t>(&attribute.value)) {
            bytes.whole(3, *whole);
            bytes.whole(20, 2);
        } else {
            for (const std::int64_t number : std::get<std::vector<std::int64_t>>(attribute.value))
                bytes.whole(8, number);
            bytes.whole(20, 7);
        }
        return bytes;
    }
    [[nodiscard]] static WireWriter bytes_of(const Node& node) {
        WireWriter bytes;
        for (const std::string& input : node.inputs) bytes.text(1, input);
        bytes.text(2, node.output);
        bytes.text(3, node.output);
        bytes.text(4, node.operation);
        for (const OnnxAttribute& attribute : node.attributes)
            bytes.message(5, bytes_of(attribute));
        return bytes;
    }
    [[nodiscard]] static WireWriter bytes_of(const std::string& name, OnnxType type,
                                             const std::vector<OnnxAxis>& axes) {
        WireWriter shape, tensor, any, value;
        for (const OnnxAxis& axis : axes) {
            WireWriter dimension;
            if (axis.size > 0)
                dimension.whole(1, axis.size);
            else if (!axis.name.empty())
                dimension.text(2, axis.name);
            shape.message(1, dimension);
        }
        tensor.whole(1, static_cast<std::int64_t>(type));
        tensor.message(2, shape);
        any.message(1, tensor);
        value.text(1, name);
        value.message(2, any);
        return value;
    }

    OnnxType number_;
    std::vector<Node> nodes_;
    WireWriter tensors_, inputs_;
    std::map<std::vector<std::uint8_t>, std::string> outputs_;
    std::map<std::tuple<OnnxType, std::vector<Index>, std::vector<std::uint8_t>>, std::string>
        constants_;
    std::map<std::string, Index> names_;
};

}  // namespace detail
}  // namespace stochastic_depth
