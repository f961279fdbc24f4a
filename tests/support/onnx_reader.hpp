// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/io/tensor_copy.hpp>
#include <stochastic_depth/types.hpp>

#include "support/files.hpp"

/// A small reader of ONNX files, written from the format's description, and what their operations
/// on rows of features do.
namespace stochastic_depth::test {

/// A field of a message of protobuf: a whole number, a float's bits, or bytes.
struct WireField {
    std::uint64_t whole = 0;
    Bytes bytes;

    [[nodiscard]] std::string text() const { return {bytes.begin(), bytes.end()}; }
};

/// The fields of a message, by their numbers.
class WireMessage {
public:
    explicit WireMessage(const Bytes& bytes) {
        for (std::size_t at = 0; at < bytes.size();) {
            const std::uint64_t tag = varint(bytes, at);
            WireField field;
            if (tag % 8 == 0) {
                field.whole = varint(bytes, at);
            } else if (tag % 8 == 5 && at + 4 <= bytes.size()) {
                field.whole = detail::load_little<std::uint32_t>(bytes.data() + at);
                at += 4;
            } else if (const std::uint64_t size = tag % 8 == 2 ? varint(bytes, at) : ~0ull;
                       size <= bytes.size() - at) {
                const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
                field.bytes.assign(first, first + static_cast<std::ptrdiff_t>(size));
                at += size;
            } else {
                throw std::runtime_error("a field that can't be");
            }
            fields_[tag / 8].push_back(std::move(field));
        }
    }

    [[nodiscard]] const std::vector<WireField>& all(std::uint64_t number) const {
        static const std::vector<WireField> none;
        const auto found = fields_.find(number);
        return found == fields_.end() ? none : found->second;
    }
    /// The only one.
    [[nodiscard]] const WireField& one(std::uint64_t number) const {
        return fields_.at(number).at(0);
    }
    [[nodiscard]] WireMessage message(std::uint64_t number) const {
        return WireMessage(one(number).bytes);
    }

private:
    static std::uint64_t varint(const Bytes& bytes, std::size_t& at) {
        std::uint64_t value = 0;
        for (int shift = 0;; shift += 7) {
            const std::uint8_t byte = bytes.at(at++);
            value |= std::uint64_t{byte & 0x7Fu} << shift;
            if (byte < 0x80) return value;
        }
    }

    std::map<std::uint64_t, std::vector<WireField>> fields_;
};

struct OnnxTensor {
    std::vector<Index> shape;
    int type = 0;
    Bytes raw;

    template <class Number>
    [[nodiscard]] std::vector<Number> numbers() const {
        std::vector<Number> result;
        for (std::size_t at = 0; at < raw.size(); at += sizeof(Number))
            result.push_back(detail::load_little<Number>(raw.data() + at));
        return result;
    }
};

struct OnnxNode {
    std::string operation;
    std::vector<std::string> inputs;
    std::string output;
    std::map<std::string, std::vector<std::int64_t>> attributes;
};

struct OnnxFile {
    std::int64_t ir_version = 0, operator_set = 0;
    std::string producer, about;
    std::vector<OnnxNode> nodes;
    std::map<std::string, OnnxTensor> tensors;
    /// "input [batch,4]", with the axes as they are declared.
    std::vector<std::string> inputs, outputs;
    std::map<std::string, std::string> metadata;

    [[nodiscard]] static OnnxFile read(const std::string& path) {
        OnnxFile file;
        const WireMessage model(test::read(path)), graph = model.message(7);
        file.ir_version = static_cast<std::int64_t>(model.one(1).whole);
        file.operator_set = static_cast<std::int64_t>(model.message(8).one(2).whole);
        file.producer = model.one(2).text();
        file.about = graph.one(10).text();
        for (const WireField& entry : model.all(14)) {
            const WireMessage pair(entry.bytes);
            file.metadata[pair.one(1).text()] = pair.one(2).text();
        }
        for (const WireField& field : graph.all(1))
            file.nodes.push_back(node(WireMessage(field.bytes)));
        for (const WireField& field : graph.all(5)) {
            const WireMessage tensor(field.bytes);
            OnnxTensor& to = file.tensors[tensor.one(8).text()];
            for (const WireField& size : tensor.all(1))
                to.shape.push_back(static_cast<Index>(size.whole));
            to.type = static_cast<int>(tensor.one(2).whole);
            to.raw = tensor.one(9).bytes;
        }
        for (const WireField& field : graph.all(11)) file.inputs.push_back(declared(field));
        for (const WireField& field : graph.all(12)) file.outputs.push_back(declared(field));
        return file;
    }

    /// "MatMul Add Relu".
    [[nodiscard]] std::string operations() const {
        std::string text;
        for (const OnnxNode& node : nodes) text += (text.empty() ? "" : " ") + node.operation;
        return text;
    }
    [[nodiscard]] bool has_tensor_below(const std::string& place) const {
        for (const auto& [name, tensor] : tensors)
            if (name.starts_with(place)) return true;
        return false;
    }

    /// What "output" is for columns of features x, of a model of a few operations.
    [[nodiscard]] Matrix<double> run(const Matrix<double>& x) const {
        std::map<std::string, Matrix<double>> values{{"input", x.transpose()}};
        for (const auto& [name, tensor] : tensors) {
            const bool is_single = tensor.type == 1;
            if (!is_single && tensor.type != 11) continue;
            const Index columns = tensor.shape.empty() ? 1 : tensor.shape.back();
            const Index rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
            Matrix<double>& to = values[name];
            to.resize(rows, columns);
            for (Index i = 0; i < rows; ++i)
                for (Index j = 0; j < columns; ++j) {
                    const auto k = static_cast<std::size_t>(i * columns + j);
                    to(i, j) = is_single ? static_cast<double>(tensor.numbers<float>()[k])
                                         : tensor.numbers<double>()[k];
                }
        }
        for (const OnnxNode& node : nodes) {
            const Matrix<double>& a = values.at(node.inputs.at(0));
            Matrix<double>& y = values[node.output];
            if (node.operation == "Identity")
                y = a;
            else if (node.operation == "Relu")
                y = a.cwiseMax(0.0);
            else if (node.operation == "Tanh")
                y = a.unaryExpr([](double z) { return std::tanh(z); });
            else if (node.operation == "MatMul")
                y = a * values.at(node.inputs.at(1));
            else
                y = of_entries(node.operation, a, values.at(node.inputs.at(1)));
        }
        return values.at("output").transpose();
    }

private:
    static Matrix<double> of_entries(const std::string& operation, const Matrix<double>& a,
                                     const Matrix<double>& b) {
        // One number, or one for each column, goes with every row.
        Matrix<double> y = a;
        for (Index i = 0; i < a.rows(); ++i)
            for (Index j = 0; j < a.cols(); ++j) {
                const double number = b(b.rows() == 1 ? 0 : i, b.cols() == 1 ? 0 : j);
                if (operation == "Add")
                    y(i, j) += number;
                else if (operation == "Sub")
                    y(i, j) -= number;
                else if (operation == "Mul")
                    y(i, j) *= number;
                else
                    throw std::runtime_error("unknown operation " + operation);
            }
        return y;
    }

    static OnnxNode node(const WireMessage& message) {
        OnnxNode node;
        node.operation = message.one(4).text();
        for (const WireField& input : message.all(1)) node.inputs.push_back(input.text());
        node.output = message.one(2).text();
        for (const WireField& field : message.all(5)) {
            const WireMessage attribute(field.bytes);
            std::vector<std::int64_t>& to = node.attributes[attribute.one(1).text()];
            for (const std::uint64_t number : {3u, 8u})
                for (const WireField& value : attribute.all(number))
                    to.push_back(static_cast<std::int64_t>(value.whole));
        }
        return node;
    }

    static std::string declared(const WireField& field) {
        const WireMessage value(field.bytes);
        std::string text = value.one(1).text() + " [";
        const WireMessage shape = value.message(2).message(1).message(2);
        for (const WireField& axis : shape.all(1)) {
            const WireMessage dimension(axis.bytes);
            if (text.back() != '[') text += ',';
            text += dimension.all(1).empty() ? dimension.one(2).text()
                                             : std::to_string(dimension.one(1).whole);
        }
        return text + "]";
    }
};

}  // namespace stochastic_depth::test
