// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

/// What written headers compute with, as text: the library's kernels for one sample, number by number.
///
/// Each does what a lane of the library's packets does, in the same order and with the same
/// roundings: products and sums that are one operation there go through multiply_add, all others
/// are rounded one by one. That is so because the library's own bits depend neither on the packet
/// nor on the column that a number stands in.
namespace stochastic_depth::detail {

/// A piece of text, and the pieces before it that it needs, separated by spaces.
struct HeaderKernel {
    std::string_view name;
    std::string_view needs;
    std::string_view text;
};

/// Each behind what it needs. Those of images are in header_image_kernels.hpp.
inline constexpr HeaderKernel header_kernels[] = {
    {"multiply_add", "", R"(
/// a b + c, rounded once where the target has such an instruction.
template <class Number>
inline Number multiply_add(Number a, Number b, Number c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}
)"},
    {"smaller", "", R"(
/// a where one of them is NaN.
template <class Number>
inline Number smaller(Number a, Number b) {
    return b < a ? b : a;
}
)"},
    {"larger", "", R"(
/// a where one of them is NaN.
template <class Number>
inline Number larger(Number a, Number b) {
    return a < b ? b : a;
}
)"},
    {"each", "", R"(
/// y = Function(y), number by number.
template <int Size, Scalar (*Function)(Scalar)>
inline void each(Scalar* y) {
    for (int i = 0; i < Size; ++i) y[i] = Function(y[i]);
}
)"},
    {"copy", "", R"(
template <int Size>
inline void copy(const Scalar* x, Scalar* y) {
    for (int i = 0; i < Size; ++i) y[i] = x[i];
}
)"},
    {"add", "", R"(
/// y = x + y.
template <int Size>
inline void add(const Scalar* x, Scalar* y) {
    for (int i = 0; i < Size; ++i) y[i] = x[i] + y[i];
}
)"},
    {"add_scaled", "multiply_add", R"(
/// y = x + factor y.
template <int Size>
inline void add_scaled(Scalar factor, const Scalar* x, Scalar* y) {
    for (int i = 0; i < Size; ++i) y[i] = multiply_add(factor, y[i], x[i]);
}
)"},
    {"mix", "multiply_add", R"(
/// y = x + share (y - x).
template <int Size>
inline void mix(Scalar share, const Scalar* x, Scalar* y) {
    for (int i = 0; i < Size; ++i) y[i] = multiply_add(share, y[i] - x[i], x[i]);
}
)"},
    {"multiply", "", R"(
template <int Size>
inline void multiply(Scalar factor, Scalar* y) {
    for (int i = 0; i < Size; ++i) y[i] = factor * y[i];
}
)"},
    {"affine", "multiply_add", R"(
/// A scale and a shift for each channel.
template <int Size, int Channels>
inline void affine(const Scalar* scale, const Scalar* shift, Scalar* y) {
    for (int p = 0; p < Size; p += Channels)
        for (int c = 0; c < Channels; ++c) y[p + c] = multiply_add(scale[c], y[p + c], shift[c]);
}
)"},
    {"add_products", "multiply_add", R"(
/// Rows of a sum of products that stay in registers.
inline constexpr int rows_at_once = static_cast<int>(128 / sizeof(Scalar));

/// Adds to Count sums the products of `steps` columns of weights, Stride apart, with numbers of x.
template <int Count, int Stride>
inline void add_products(int steps, const Scalar* weights, const Scalar* x, Scalar* sums) {
    for (int k = 0; k < steps; ++k)
        for (int i = 0; i < Count; ++i)
            sums[i] = multiply_add(weights[k * Stride + i], x[k], sums[i]);
}
)"},
    {"linear", "add_products", R"(
/// y = W x + b, rows [First, Rows) of it, so many at a time. The weights of an input lie side by side.
template <int Columns, int Rows, int First = 0, int Count = rows_at_once>
inline void linear(const Scalar* weights, const Scalar* bias, const Scalar* x, Scalar* y) {
    int first = First;
    for (; first + Count <= Rows; first += Count) {
        Scalar sums[static_cast<std::size_t>(Count)];
        for (int i = 0; i < Count; ++i) sums[i] = bias[first + i];
        add_products<Count, Rows>(Columns, weights + first, x, sums);
        for (int i = 0; i < Count; ++i) y[first + i] = sums[i];
    }
    constexpr int next = First + (Rows - First) / Count * Count;
    if constexpr (next < Rows) linear<Columns, Rows, next, Count / 2>(weights, bias, x, y);
}
)"},
    {"eight_sums", "", R"(
/// What add(i, sum) makes of eight sums side by side, in double.
template <int Count, class Add>
inline double eight_sums(const Add& add) {
    double sums[8] = {};
    int i = 0;
    for (; i + 8 <= Count; i += 8)
        for (int lane = 0; lane < 8; ++lane) sums[lane] = add(i + lane, sums[lane]);
    for (; i < Count; ++i) sums[0] = add(i, sums[0]);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}
)"},
    {"inverse_root", "smaller", R"(
inline Scalar inverse_root(double square) {
    constexpr auto most = static_cast<double>(std::numeric_limits<Scalar>::max());
    return static_cast<Scalar>(smaller(1 / std::sqrt(square), most));
}
)"},
    {"layer_norm", "eight_sums inverse_root multiply_add", R"(
/// Mean and variance in two passes, in double; the mean in two parts.
template <int Size>
inline void layer_norm(const Scalar* gain, const Scalar* bias, double epsilon, const Scalar* x,
                       Scalar* y) {
    const double mean =
        eight_sums<Size>([&](int i, double sum) { return sum + static_cast<double>(x[i]); }) /
        double{Size};
    const double squares = eight_sums<Size>([&](int i, double sum) {
        const double deviation = static_cast<double>(x[i]) - mean;
        return multiply_add(deviation, deviation, sum);
    });
    const auto rounded = static_cast<Scalar>(mean);
    const auto rest = static_cast<Scalar>(mean - static_cast<double>(rounded));
    const Scalar inverse = inverse_root(squares / double{Size} + epsilon);
    for (int i = 0; i < Size; ++i)
        y[i] = multiply_add(((x[i] - rounded) - rest) * inverse, gain[i], bias[i]);
}
)"},
    {"rms_norm", "eight_sums inverse_root multiply_add", R"(
template <int Size>
inline void rms_norm(const Scalar* gain, double epsilon, const Scalar* x, Scalar* y) {
    const double squares = eight_sums<Size>([&](int i, double sum) {
        const auto number = static_cast<double>(x[i]);
        return multiply_add(number, number, sum);
    });
    const Scalar inverse = inverse_root(squares / double{Size} + epsilon);
    for (int i = 0; i < Size; ++i) y[i] = x[i] * inverse * gain[i];
}
)"},
    {"top_of", "", R"(
/// Where the first of the largest numbers stands.
template <int Size>
inline int top_of(const Scalar* x) {
    int top = 0;
    for (int i = 1; i < Size; ++i)
        if (x[top] < x[i]) top = i;
    return top;
}
)"},
    {"softmax", "top_of", R"(
template <int Size>
inline void softmax(const Scalar* x, Scalar* y) {
    const Scalar largest = x[top_of<Size>(x)];
    Scalar sum = 0;
    for (int i = 0; i < Size; ++i) {
        y[i] = std::exp(x[i] - largest);
        sum += y[i];
    }
    for (int i = 0; i < Size; ++i) y[i] /= sum;
}
)"},
    {"log_softmax", "top_of", R"(
template <int Size>
inline void log_softmax(const Scalar* x, Scalar* y) {
    const int top = top_of<Size>(x);
    const Scalar largest = x[top];
    Scalar rest = largest - largest;
    for (int i = 0; i < Size; ++i)
        if (i != top) rest += std::exp(x[i] - largest);
    const Scalar log_sum = std::log1p(rest);
    for (int i = 0; i < Size; ++i) y[i] = x[i] - largest - log_sum;
}
)"},
    {"entropy", "", R"(
template <int Size>
inline void entropy(const Scalar* x, Scalar* y) {
    Scalar sum = 0;
    for (int i = 0; i < Size; ++i)
        if (x[i] != Scalar(0)) sum = std::fma(-x[i], std::log(x[i]), sum);
    y[0] = sum;
}
)"},
};

}  // namespace stochastic_depth::detail
