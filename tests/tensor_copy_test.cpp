// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/tensor_copy.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using detail::BrainFloat;
using detail::HalfFloat;

/// What 16 bits mean as IEEE 754 binary16.
double half(std::uint32_t bits) {
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    const int exponent = static_cast<int>(bits >> 10 & 0x1F);
    const double fraction = bits & 0x3FF;
    if (exponent == 0x1F)
        return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                             : std::numeric_limits<double>::quiet_NaN();
    if (exponent == 0) return sign * std::ldexp(fraction, -24);
    return sign * std::ldexp(1024 + fraction, exponent - 25);
}

}  // namespace

TEST_CASE("HalfFloat: every one of them is the float that it means", "[tensor_copy]") {
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const auto found =
            static_cast<double>(static_cast<float>(HalfFloat{static_cast<std::uint16_t>(bits)}));
        const double expected = half(bits);
        wrong += std::isnan(expected) ? !std::isnan(found)
                                      : found != expected ||
                                            std::signbit(found) != std::signbit(expected);
    }
    CHECK(wrong == 0);
    CHECK(static_cast<float>(BrainFloat{0xC0C0}) == -6.0f);
}

TEST_CASE("read_tensor, write_tensor: entries are where shape and strides say", "[tensor_copy]") {
    // Shapes below, at and above a tile; strides of matrices in columns, of convolutions, of rows,
    // of numbers two apart.
    const std::vector<TensorForm> forms = {
        {"", {}, {}},
        {"", {5}, {1}},
        {"", {2100}, {1}},
        {"", {7}, {2}},
        {"", {33, 70}, {1, 33}},
        {"", {33, 70}, {70, 1}},
        {"", {1, 70}, {1, 1}},
        {"", {70, 1}, {1, 70}},
        {"", {32, 64}, {2, 64}},
        {"", {40, 5, 3, 2}, {1, 40, 400, 200}},
        {"", {130, 9, 3, 3}, {1, 130, 3510, 1170}},
        {"", {2, 1, 70, 1, 3}, {210, 5, 1, 7, 70}},
        {"", {4, 5, 6}, {30, 6, 1}},
        {"", {3, 4, 5}, {1, 15, 3}},
        {"", {600, 300}, {1, 600}},
        {"", {530, 2}, {1, 530}},
        {"", {2, 530}, {1, 2}},
        {"", {3, 20000}, {1, 3}},
        {"", {0, 3}, {1, 0}},
        {"", {3, 0, 2}, {1, 3, 3}}};
    // Aligned or not.
    for (std::size_t n = 0; n < 2 * forms.size(); ++n) {
        const TensorForm& form = forms[n / 2];
        const std::size_t shift = n % 2;
        std::size_t count = 1, numbers = 1;
        for (std::size_t k = 0; k < form.shape.size(); ++k) {
            count *= static_cast<std::size_t>(form.shape[k]);
            if (form.shape[k] > 0)
                numbers += static_cast<std::size_t>((form.shape[k] - 1) * form.strides[k]);
        }
        std::vector<double> layer(numbers), back(numbers, -1);
        for (std::size_t i = 0; i < numbers; ++i) layer[i] = 1 + static_cast<double>(i);
        std::vector<std::uint8_t> bytes(8 * count + shift);
        detail::write_tensor(form, layer.data(), bytes.data() + shift);
        std::vector<Index> at(form.shape.size(), 0);
        bool is_right = true;
        for (std::size_t next = 0; next < count; ++next) {
            Index place = 0;
            for (std::size_t k = 0; k < at.size(); ++k) place += at[k] * form.strides[k];
            is_right = is_right && detail::load_little<double>(bytes.data() + shift + 8 * next) ==
                                       layer[static_cast<std::size_t>(place)];
            for (std::size_t k = at.size(); k-- > 0;) {
                if (++at[k] < form.shape[k]) break;
                at[k] = 0;
            }
        }
        INFO(count << " of " << numbers);
        CHECK(is_right);
        detail::read_tensor<double>(bytes.data() + shift, form, back.data());
        std::size_t read = 0;
        for (std::size_t i = 0; i < numbers; ++i) {
            if (back[i] != layer[i]) REQUIRE(back[i] == -1);
            read += back[i] == layer[i];
        }
        CHECK(read == count);
        // Of the other byte order, and converted.
        for (std::size_t i = 0; i < count; ++i) {
            std::uint8_t* const number = bytes.data() + shift + 8 * i;
            detail::store_little(number, static_cast<float>(detail::load_little<double>(number)));
            std::reverse(number, number + 4);
            std::copy_n(number, 4, bytes.data() + shift + 4 * i);
        }
        std::vector<double> turned(numbers, -1);
        detail::read_tensor<float>(bytes.data() + shift, form, turned.data(), std::endian::big);
        CHECK(turned == back);
    }
}
