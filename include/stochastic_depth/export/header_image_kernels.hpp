// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/export/header_kernels.hpp>

/// What written headers compute images with. Channels lie side by side, positions row after row.
namespace stochastic_depth::detail {

/// Behind header_kernels, which they need.
inline constexpr HeaderKernel header_image_kernels[] = {
    {"convolve", "add_products", R"(
/// The outputs of a convolution at one position, channels [First, Outputs). Its window begins at
/// column u and row v of the image; what of it is in the image counts.
template <int Inputs, int Height, int Width, int Outputs, int Kernel, int First, int Count>
inline void convolve_at(const Scalar* weights, const Scalar* bias, const Scalar* x, int u, int v,
                        Scalar* y) {
    const int left = u < 0 ? -u : 0, right = u + Kernel > Width ? Width - u : Kernel;
    int first = First;
    for (; first + Count <= Outputs; first += Count) {
        Scalar sums[static_cast<std::size_t>(Count)];
        for (int i = 0; i < Count; ++i) sums[i] = bias ? bias[first + i] : Scalar(0);
        for (int row = 0; row < Kernel && left < right; ++row)
            if (v + row >= 0 && v + row < Height)
                add_products<Count, Outputs>(
                    Inputs * (right - left),
                    weights + first + Outputs * Inputs * (Kernel * row + left),
                    x + Inputs * (Width * (v + row) + u + left), sums);
        for (int i = 0; i < Count; ++i) y[first + i] = sums[i];
    }
    constexpr int next = First + (Outputs - First) / Count * Count;
    if constexpr (next < Outputs)
        convolve_at<Inputs, Height, Width, Outputs, Kernel, next, Count / 2>(weights, bias, x, u, v,
                                                                             y);
}

template <int Inputs, int Height, int Width, int Outputs, int Kernel, int Stride, int Padding>
inline void convolve(const Scalar* weights, const Scalar* bias, const Scalar* x, Scalar* y) {
    for (int v = -Padding; v + Kernel <= Height + Padding; v += Stride)
        for (int u = -Padding; u + Kernel <= Width + Padding; u += Stride, y += Outputs)
            convolve_at<Inputs, Height, Width, Outputs, Kernel, 0, rows_at_once>(weights, bias, x,
                                                                                 u, v, y);
}
)"},
    {"pool", "", R"(
/// Each window's numbers of a channel, joined by Join(number, next number) and ended by
/// End(number, how many).
template <int Channels, int Height, int Width, int Kernel, int Stride, int Padding,
          Scalar (*Join)(Scalar, Scalar), Scalar (*End)(Scalar, int)>
inline void pool(const Scalar* x, Scalar* y) {
    for (int v = -Padding; v + Kernel <= Height + Padding; v += Stride)
        for (int u = -Padding; u + Kernel <= Width + Padding; u += Stride, y += Channels) {
            int count = 0;
            for (int row = v; row < v + Kernel; ++row)
                for (int column = u; column < u + Kernel; ++column) {
                    if (row < 0 || row >= Height || column < 0 || column >= Width) continue;
                    const Scalar* const from = x + Channels * (Width * row + column);
                    for (int c = 0; c < Channels; ++c)
                        y[c] = count == 0 ? from[c] : Join(y[c], from[c]);
                    ++count;
                }
            for (int c = 0; c < Channels; ++c) y[c] = End(y[c], count);
        }
}
)"},
    {"average_pool", "pool", R"(
inline Scalar sum_of(Scalar a, Scalar b) { return a + b; }
inline Scalar mean_of(Scalar sum, int count) { return sum / static_cast<Scalar>(count); }

template <int Channels, int Height, int Width, int Kernel, int Stride, int Padding>
inline void average_pool(const Scalar* x, Scalar* y) {
    pool<Channels, Height, Width, Kernel, Stride, Padding, sum_of, mean_of>(x, y);
}
)"},
    {"max_pool", "pool", R"(
/// NaN is larger than any number.
inline Scalar largest_of(Scalar a, Scalar b) { return b > a || (b != b && a == a) ? b : a; }
inline Scalar as_it_is(Scalar largest, int) { return largest; }

template <int Channels, int Height, int Width, int Kernel, int Stride, int Padding>
inline void max_pool(const Scalar* x, Scalar* y) {
    pool<Channels, Height, Width, Kernel, Stride, Padding, largest_of, as_it_is>(x, y);
}
)"},
    {"global_average_pool", "", R"(
template <int Channels, int Positions>
inline void global_average_pool(const Scalar* x, Scalar* y) {
    for (int c = 0; c < Channels; ++c) {
        double sum = 0;
        for (int p = 0; p < Positions; ++p) sum += static_cast<double>(x[c + p * Channels]);
        y[c] = static_cast<Scalar>(sum / double{Positions});
    }
}
)"},
    {"pad_channels", "", R"(
template <int Channels, int Outputs, int Positions>
inline void pad_channels(const Scalar* x, Scalar* y) {
    for (int p = 0; p < Positions; ++p)
        for (int c = 0; c < Outputs; ++c)
            y[c + p * Outputs] = c < Channels ? x[c + p * Channels] : Scalar(0);
}
)"},
};

}  // namespace stochastic_depth::detail
