// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <concepts>
#include <stdexcept>
#include <string>
#include <string_view>

namespace stochastic_depth::detail {

inline void append(std::string& text, std::string_view part) { text += part; }

/// Numbers appear in the shortest form that reads back equal: 1.0000001 is not shown as 1.
template <class Number>
    requires(std::integral<Number> || std::floating_point<Number>)
void append(std::string& text, Number number) {
    char digits[64];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    text.append(digits, end);
}

template <class... Parts>
[[nodiscard]] std::string message(const Parts&... parts) {
    std::string text;
    (append(text, parts), ...);
    return text;
}

/// Reports a caller's mistake: refuse("Class: argument must ..., got ", value).
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    throw std::invalid_argument(message(parts...));
}

/// Refuses a forward call whose matrices don't fit: x [inputs x batch], y [outputs x batch].
template <class Layer, class Input, class Output>
void check_forward(std::string_view name, const Layer& layer, const Input& x, const Output& y) {
    const auto outputs = layer.output_size(x.rows());
    if (y.rows() != outputs) refuse(name, ": output must have ", outputs, " rows, got ", y.rows());
    if (y.cols() != x.cols()) refuse(name, ": output must have ", x.cols(), " columns, got ", y.cols());
}

/// Refuses a backward call whose matrices don't fit: dy [outputs x batch], dx [inputs x batch].
template <class Layer, class Input, class Delta, class InputDelta>
void check_backward(std::string_view name, const Layer& layer, const Input& x, const Delta& dy,
                    const InputDelta& dx) {
    check_forward(name, layer, x, dy);
    if (dx.rows() != x.rows() || dx.cols() != x.cols())
        refuse(name, ": dx must be [", x.rows(), " x ", x.cols(), "], got [", dx.rows(), " x ", dx.cols(),
               "]");
}

}  // namespace stochastic_depth::detail
