// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <iterator>
#include <numbers>
#include <string>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/header_script.hpp>
#include <stochastic_depth/kernels/exponential.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/gelu_tanh.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/silu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>

namespace stochastic_depth {

/// A finite number as C++17 has it, to the last bit: 0x1.8p-3F for a float.
template <std::floating_point Scalar>
[[nodiscard]] std::string header_literal(Scalar number) {
    char digits[64];
    const char* const end =
        std::to_chars(digits, std::end(digits), std::fabs(number), std::chars_format::hex).ptr;
    std::string text = std::signbit(number) ? "-0x" : "0x";
    text.append(std::begin(digits), static_cast<std::size_t>(end - digits));
    if constexpr (std::is_same_v<Scalar, float>) text += 'F';
    return text;
}

namespace detail {

/// What the library's element-wise functions are in written headers: `name`, a definition `text()`
/// with the constants that the library computes with, and what that needs: kernels, and of what is
/// below, the exponential, or that and the sigmoid.
template <class Function>
struct HeaderFunction;

enum class HeaderNeeds { kernels, exponential, sigmoid };

[[nodiscard]] inline std::string header_text_of(const std::string& text) { return text; }
template <std::floating_point Scalar>
[[nodiscard]] std::string header_text_of(Scalar number) {
    return header_literal(number);
}
template <class... Pieces>
[[nodiscard]] std::string header_pieces(const Pieces&... pieces) {
    std::string text;
    ((text += header_text_of(pieces)), ...);
    return text;
}

/// Horner's rule, as `polynomial` has it.
template <class Scalar, std::size_t n>
[[nodiscard]] std::string header_polynomial(const Scalar (&coefficients)[n], const char* x,
                                            const char* value) {
    std::string text = header_pieces("    Scalar ", value, " = ", coefficients[0], ";\n");
    for (std::size_t k = 1; k < n; ++k)
        text += header_pieces("    ", value, " = multiply_add(", value, ", ", x, ", ",
                              coefficients[k], ");\n");
    return text;
}

/// The exponential of kernels/exponential.hpp.
template <class Scalar>
[[nodiscard]] std::string header_exponential() {
    using Constants = ExponentialConstants<Scalar>;
    const std::string places = message(Constants::significand_bits);
    return header_pieces(
        "\nusing Bits = std::uint", message(8 * sizeof(Scalar)), "_t;\n", R"(
inline Bits bits_of(Scalar number) {
    Bits bits;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}
inline Scalar number_of(Bits bits) {
    Scalar number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

/// exp(high + low), for a high whose exponential is neither far below the least number nor above the
/// largest, and a low of a few of its roundings.
inline Scalar exponential_in_range(Scalar high, Scalar low) {
    constexpr Scalar rounder = )",
        Constants::rounder, ";\n    const Scalar rounded = multiply_add(high, ",
        std::numbers::log2e_v<Scalar>, R"(, rounder);
    const Scalar n = rounded - rounder;
    Scalar r = multiply_add(n, )",
        -Constants::ln2_high, ", high);\n    r = multiply_add(n, ", -Constants::ln2_low,
        ", r) + low;\n", header_polynomial(Constants::coefficients, "r", "value"),
        "    const Bits half = bits_of(rounded) >> 1, other = bits_of(rounded) - half;\n"
        "    return value * number_of(half << ",
        places, ") * number_of(other << ", places, R"();
}

inline Scalar exponential(Scalar x) {
    return exponential_in_range(smaller(larger(x, )",
        Constants::lowest, "), ", Constants::highest, R"(), Scalar(0));
}
)");
}

/// That of kernels/sigmoid.hpp: 1 / (1 + exp(-v)) as a quotient.
[[nodiscard]] inline std::string header_sigmoid() {
    return R"(
/// z / (1 + exp(-v)).
inline Scalar times_sigmoid(Scalar z, Scalar v) {
    const Scalar value = exponential(Scalar(0) - std::fabs(v));
    const Scalar above = v > Scalar(0) ? Scalar(1) : Scalar(0);
    const Scalar numerator = multiply_add(Scalar(1) - above, value, above);
    return z * numerator / (Scalar(1) + value);
}
)";
}

template <class Scalar>
struct HeaderFunction<ReLUFunction<Scalar>> {
    static constexpr const char* name = "relu";
    static constexpr const char* needs = "each";
    static constexpr auto more = HeaderNeeds::kernels;
    [[nodiscard]] static std::string text() {
        return "\ninline Scalar relu(Scalar z) { return z < Scalar(0) ? Scalar(0) : z; }\n";
    }
};

template <class Scalar>
struct HeaderFunction<SiLUFunction<Scalar>> {
    static constexpr const char* name = "silu";
    static constexpr const char* needs = "each larger";
    static constexpr auto more = HeaderNeeds::sigmoid;
    [[nodiscard]] static std::string text() {
        return header_pieces("\ninline Scalar silu(Scalar z) { return times_sigmoid(larger(z, ",
                             ExponentialConstants<Scalar>::lowest, "), z); }\n");
    }
};

template <class Scalar>
struct HeaderFunction<GELUTanhFunction<Scalar>> {
    static constexpr const char* name = "gelu_tanh";
    static constexpr const char* needs = "each larger";
    static constexpr auto more = HeaderNeeds::sigmoid;
    [[nodiscard]] static std::string text() {
        using Function = GELUTanhFunction<Scalar>;
        return header_pieces(
            "\ninline Scalar gelu_tanh(Scalar z) {\n    const Scalar bounded = larger(z, ",
            ExponentialConstants<Scalar>::lowest,
            ");\n    return times_sigmoid(bounded, bounded * multiply_add(bounded * "
            "bounded, ",
            Function::cubic, ", ", Function::linear, "));\n}\n");
    }
};

template <>
struct HeaderFunction<GELUFunction<float>> {
    static constexpr const char* name = "gelu";
    static constexpr const char* needs = "each larger";
    static constexpr auto more = HeaderNeeds::exponential;
    [[nodiscard]] static std::string text() {
        return header_pieces(
            R"(
/// max(z, 0) - |z| Phi(-|z|).
inline Scalar gelu(Scalar z) {
    const Scalar a = smaller(std::fabs(z), 14.5F);
    const Scalar square = a * a;
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    const Scalar error = std::fma(a, a, 0.0F - square);
#else
    const Scalar leading = number_of(bits_of(a) >> 12 << 12);
    const Scalar error = (leading * leading - square) + (a - leading) * (a + leading);
#endif
    const Scalar density = exponential_in_range(-0.5F * square, -0.5F * error);
    const Scalar r = 1.0F / (a + 2.5F);
    const Scalar q = multiply_add(r, -5.0F, 1.0F);
)",
            header_polynomial(NormalTail<Packet<float, 1>>::coefficients, "q", "value"),
            R"(    return multiply_add(a * (r * value), 0.0F - density, larger(z, 0.0F));
}
)");
    }
};

template <>
struct HeaderFunction<GELUFunction<double>> {
    static constexpr const char* name = "gelu";
    static constexpr const char* needs = "each larger";
    static constexpr auto more = HeaderNeeds::kernels;
    [[nodiscard]] static std::string text() {
        return header_pieces(
            "\n/// z Phi(z).\ninline Scalar gelu(Scalar z) {\n"
            "    return larger(z, -40.0) * (std::erfc(-z / ",
            std::numbers::sqrt2, ") / 2.0);\n}\n");
    }
};

/// Of doubles, and where there are no packets, the standard library's; else Eigen's.
template <class Scalar>
struct HeaderFunction<TanhFunction<Scalar>> {
    static constexpr bool is_eigens = TanhFunction<Scalar>::vectorized;
    static constexpr const char* name = is_eigens ? "quotient_tanh" : "standard_tanh";
    static constexpr const char* needs = is_eigens ? "each smaller larger multiply_add" : "each";
    static constexpr auto more = HeaderNeeds::kernels;
    [[nodiscard]] static std::string text() {
        if constexpr (is_eigens)
            return of_eigen;
        else
            return "\ninline Scalar standard_tanh(Scalar z) { return std::tanh(z); }\n";
    }

private:
    static constexpr const char* of_eigen = R"(
/// tanh(z) as a quotient of polynomials, that of Eigen 3.4.
inline Scalar quotient_tanh(Scalar z) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    constexpr Scalar end = 7.99881172180175781F;
#else
    constexpr Scalar end = 7.90531110763549805F;
#endif
    const Scalar x = larger(smaller(z, end), -end);
    const Scalar square = x * x;
    Scalar p = multiply_add(square, -2.76076847742355e-16F, 2.00018790482477e-13F);
    p = multiply_add(square, p, -8.60467152213735e-11F);
    p = multiply_add(square, p, 5.12229709037114e-08F);
    p = multiply_add(square, p, 1.48572235717979e-05F);
    p = multiply_add(square, p, 6.37261928875436e-04F);
    p = multiply_add(square, p, 4.89352455891786e-03F);
    Scalar q = multiply_add(square, 1.19825839466702e-06F, 1.18534705686654e-04F);
    q = multiply_add(square, q, 2.26843463243900e-03F);
    q = multiply_add(square, q, 4.89352518554385e-03F);
    const Scalar quotient = x * p / q;
    return std::fabs(z) < 0.0004F ? x : quotient;
}
)";
};

/// Defines the function of an element-wise layer, and what it needs, where that is not done yet.
template <class Function>
void define_header_function(HeaderScript& script) {
    using Form = HeaderFunction<Function>;
    script.need(Form::needs);
    if constexpr (Form::more != HeaderNeeds::kernels) {
        script.need("multiply_add smaller larger");
        script.define_once("exponential", header_exponential<typename Function::Scalar>());
    }
    if constexpr (Form::more == HeaderNeeds::sigmoid)
        script.define_once("times_sigmoid", header_sigmoid());
    script.define_once(Form::name, Form::text());
}

}  // namespace detail
}  // namespace stochastic_depth
