// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace stochastic_depth::detail {

/// A piece of a message: text, or a number.
class Piece {
public:
    Piece(std::string_view text) : text_(text) {}
    Piece(const std::string& text) : text_(text) {}
    Piece(const char* text) : text_(text) {}
    Piece(float number) : kind_(Kind::single), real_(number) {}
    Piece(double number) : kind_(Kind::real), real_(number) {}
    template <std::signed_integral Number>
    Piece(Number number) : kind_(Kind::whole), whole_(number) {}
    template <std::unsigned_integral Number>
    Piece(Number number) : kind_(Kind::natural), natural_(number) {}

    /// Numbers appear in the shortest form that reads back equal: 1.0000001 is not shown as 1.
    void append_to(std::string& text) const {
        char digits[64];
        char* const end = digits + sizeof digits;
        switch (kind_) {
            case Kind::text:
                text += text_;
                return;
            case Kind::single:
                text.append(digits, std::to_chars(digits, end, static_cast<float>(real_)).ptr);
                return;
            case Kind::real:
                text.append(digits, std::to_chars(digits, end, real_).ptr);
                return;
            case Kind::whole:
                text.append(digits, std::to_chars(digits, end, whole_).ptr);
                return;
            case Kind::natural:
                text.append(digits, std::to_chars(digits, end, natural_).ptr);
                return;
        }
    }

private:
    enum class Kind { text, single, real, whole, natural };

    Kind kind_ = Kind::text;
    std::string_view text_;
    double real_ = 0;
    std::int64_t whole_ = 0;
    std::uint64_t natural_ = 0;
};

// Messages are made out of line, by functions that don't depend on the pieces' types: every check
// of every class would instantiate another.
[[nodiscard, gnu::cold, gnu::noinline]] inline std::string join(
    std::initializer_list<Piece> pieces) {
    std::string text;
    for (const Piece& piece : pieces) piece.append_to(text);
    return text;
}
[[noreturn, gnu::cold, gnu::noinline]] inline void refuse_because(
    std::initializer_list<Piece> pieces) {
    throw std::invalid_argument(join(pieces));
}

template <class... Parts>
[[nodiscard]] std::string message(const Parts&... parts) {
    return join({Piece(parts)...});
}

/// Reports a caller's mistake: refuse("Class: argument must ..., got ", value).
template <class... Parts>
[[noreturn, gnu::cold]] void refuse(const Parts&... parts) {
    refuse_because({Piece(parts)...});
}

/// The beginning of a text that a file may have made as long as it likes.
[[nodiscard]] inline std::string beginning(std::string_view text, std::size_t most = 64) {
    std::string start(text.substr(0, most));
    if (text.size() > most) start += "...";
    return start;
}

/// Refuses a forward call whose matrices don't fit: x [inputs x batch], y [outputs x batch].
template <class Layer, class Input, class Output>
void check_forward(std::string_view name, const Layer& layer, const Input& x, const Output& y) {
    const auto outputs = layer.output_size(x.rows());
    if (y.rows() != outputs) refuse(name, ": output must have ", outputs, " rows, got ", y.rows());
    if (y.cols() != x.cols())
        refuse(name, ": output must have ", x.cols(), " columns, got ", y.cols());
}

/// Refuses a backward call whose matrices don't fit: dy [outputs x batch], dx [inputs x batch].
template <class Layer, class Input, class Delta, class InputDelta>
void check_backward(std::string_view name, const Layer& layer, const Input& x, const Delta& dy,
                    const InputDelta& dx) {
    check_forward(name, layer, x, dy);
    if (dx.rows() != x.rows() || dx.cols() != x.cols())
        refuse(name, ": dx must be [", x.rows(), " x ", x.cols(), "], got [", dx.rows(), " x ",
               dx.cols(), "]");
}

}  // namespace stochastic_depth::detail
