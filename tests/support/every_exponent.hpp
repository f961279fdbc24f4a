// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <stochastic_depth/kernels/packet.hpp>

#include "support/catch.hpp"
#include "support/packets.hpp"

/// Functions of packets, tested over numbers of every exponent.
namespace stochastic_depth::test {

/// Calls visit(x, y) with y = function(x) for half a million numbers of both signs, every exponent and
/// many significands, and for infinities, zeros and NaNs. Packets of every width must give the same
/// bits, in every lane.
template <class Scalar, class Function, class Visit>
void for_every_exponent(const Function& function, const Visit& visit) {
    using Bits = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
    constexpr std::size_t count = 64;
    constexpr Scalar infinity = std::numeric_limits<Scalar>::infinity();
    std::array<Scalar, count> x{0, Scalar(-0.0), infinity, -infinity}, y, by_width;
    std::size_t filled = 4;
    // A step that takes half a million numbers over all of them, odd: each position of each bit occurs.
    constexpr Bits step = (Bits{1} << (8 * sizeof(Scalar) - 19)) + 3;
    Bits bits = 0;
    for (bool all = false; !all; bits += step) {
        all = bits > std::numeric_limits<Bits>::max() - step;
        x[filled++] = std::bit_cast<Scalar>(bits);
        if (filled < count && !all) continue;
        std::fill(x.begin() + static_cast<std::ptrdiff_t>(filled), x.end(), Scalar(0));
        filled = 0;
        const auto run = [&]<int lanes>(std::integral_constant<int, lanes>, auto& to) {
            using P = detail::Packet<Scalar, lanes>;
            for (std::size_t i = 0; i < count; i += static_cast<std::size_t>(lanes))
                function(P::load(x.data() + i)).store(to.data() + i);
        };
        run(std::integral_constant<int, detail::widest_lanes<Scalar>>{}, y);
        for_each_width<Scalar>([&](auto lanes) {
            run(lanes, by_width);
            for (std::size_t i = 0; i < count; ++i)
                if (std::bit_cast<Bits>(by_width[i]) != std::bit_cast<Bits>(y[i]) &&
                    !(std::isnan(y[i]) && std::isnan(by_width[i]))) {
                    CAPTURE(x[i], y[i], by_width[i], lanes());
                    FAIL("bits depend on the packet");
                }
        });
        for (std::size_t i = 0; i < count; ++i) visit(x[i], y[i]);
    }
}

/// |y - exact| in units of the last place of `exact`; of a number below the smallest normal one, of
/// that.
template <class Scalar>
double error_in_ulps(Scalar y, long double exact) {
    const auto value = static_cast<long double>(y);
    if (value == exact) return 0;
    const auto rounded = static_cast<Scalar>(exact);
    if (!std::isfinite(rounded) && y == rounded) return 0;
    using Limits = std::numeric_limits<Scalar>;
    const int exponent =
        exact == 0 ? Limits::min_exponent : std::max(std::ilogb(exact) + 1, Limits::min_exponent);
    return static_cast<double>(std::ldexp(std::abs(value - exact), Limits::digits - exponent));
}

/// The largest of what it was shown, and where it was; NaN counts as infinity.
class Largest {
public:
    void see(double error, double at) {
        if (error <= error_) return;
        error_ = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
        at_ = at;
    }
    [[nodiscard]] double error() const { return error_; }
    [[nodiscard]] double at() const { return at_; }

private:
    double error_ = 0;
    double at_ = 0;
};

}  // namespace stochastic_depth::test
