// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/packet.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/packet_pair.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/packets.hpp"
#include "support/product.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// Numbers that rounding, signs and branches could treat unlike.
template <class Scalar>
std::vector<Scalar> telling_numbers() {
    using Limits = std::numeric_limits<Scalar>;
    std::vector<Scalar> numbers{
        Scalar(0),     Scalar(-0.0),       Scalar(1),           Scalar(-1),
        Scalar(0.1),   Scalar(-0.3),       Scalar(1e-6),        Scalar(-4e-4),
        Scalar(9.5),   Scalar(-40),        Limits::max(),       Limits::lowest(),
        Limits::min(), Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN()};
    Philox random{17};
    while (numbers.size() < 512) numbers.push_back(uniform<Scalar>(random, -8, 8));
    return numbers;
}

/// Four packets of the widest kind, as one.
template <class Scalar>
using FourPackets =
    detail::PacketPair<detail::PacketPair<detail::Packet<Scalar, detail::widest_lanes<Scalar>>>>;

/// operation(packet, packet) on all telling numbers with packets of type P.
template <class P, class Scalar, class Operation>
Vector<Scalar> lane_by_lane(const std::vector<Scalar>& numbers, const Operation& operation) {
    const auto size = static_cast<Index>(numbers.size());
    const Vector<Scalar> a = Eigen::Map<const Vector<Scalar>>(numbers.data(), size);
    const Vector<Scalar> b = a.reverse();
    Vector<Scalar> result(size);
    for (Index i = 0; i < size; i += P::size)
        operation(P::load(a.data() + i), P::load(b.data() + i)).store(result.data() + i);
    return result;
}

/// Entries are equal, or both NaN: IEEE leaves a NaN's sign and payload open.
template <class A, class B>
bool same_numbers(const A& a, const B& b) {
    for (Index i = 0; i < a.size(); ++i)
        if (!(std::isnan(a(i)) ? std::isnan(b(i)) : same_bits(a.segment(i, 1), b.segment(i, 1))))
            return false;
    return a.size() == b.size();
}

TEMPLATE_TEST_CASE("Packet: every operation acts on each lane as on a scalar, in every width",
                   "[packet]", float, double) {
    using Scalar = TestType;
    const std::vector<Scalar> numbers = telling_numbers<Scalar>();
    const auto size = static_cast<Index>(numbers.size());
    const auto check = [&](const auto& packets, const auto& scalars) {
        Vector<Scalar> expected(size);
        for (Index i = 0; i < size; ++i)
            expected(i) = scalars(numbers[static_cast<std::size_t>(i)],
                                  numbers[static_cast<std::size_t>(size - 1 - i)]);
        for_each_width<Scalar>([&](auto lanes) {
            CAPTURE(lanes());
            CHECK(same_numbers(lane_by_lane<detail::Packet<Scalar, lanes>>(numbers, packets),
                               expected));
        });
        CHECK(same_numbers(lane_by_lane<FourPackets<Scalar>>(numbers, packets), expected));
    };
    check([](auto a, auto b) { return a + b; }, [](Scalar a, Scalar b) { return a + b; });
    check([](auto a, auto b) { return a - b; }, [](Scalar a, Scalar b) { return a - b; });
    check([](auto a, auto b) { return a * b; }, [](Scalar a, Scalar b) { return a * b; });
    check([](auto a, auto b) { return multiply_add(a, b, a); },
          [](Scalar a, Scalar b) { return multiply_add(a, b, a); });
    check([](auto a, auto b) { return a.on_each_lane([](Scalar z) { return std::sin(z); }) + b; },
          [](Scalar a, Scalar b) { return std::sin(a) + b; });
    // max(a, b) is a where a is NaN, and where both are zero.
    check([](auto a, auto) { return max(a, decltype(a)::broadcast(Scalar(0))); },
          [](Scalar a, Scalar) { return a < Scalar(0) ? Scalar(0) : a; });
}

TEMPLATE_TEST_CASE("Packet: an activation gives the same bits in every width, and by itself",
                   "[packet]", float, double) {
    const std::vector<TestType> numbers = telling_numbers<TestType>();
    const auto size = static_cast<Index>(numbers.size());
    const auto check = [&](const auto& layer) {
        Vector<TestType> expected(size);
        for (Index i = 0; i < size; ++i)
            expected(i) = layer.value(numbers[static_cast<std::size_t>(i)]);
        const detail::ApplyElementwise<std::remove_cvref_t<decltype(layer)>> apply{layer};
        const auto on_packets = [&](auto packet, auto) { return apply(packet, 0, 0); };
        for_each_width<TestType>([&](auto lanes) {
            CAPTURE(lanes());
            CHECK(same_numbers(lane_by_lane<detail::Packet<TestType, lanes>>(numbers, on_packets),
                               expected));
        });
        CHECK(same_numbers(lane_by_lane<FourPackets<TestType>>(numbers, on_packets), expected));
        return expected;
    };
    check(ReLU<TestType>{});
    check(GELU<TestType>{});
    // Within 4 units in the last place of tanh itself: the polynomial is no loose approximation.
    const Vector<TestType> tanh = check(Tanh<TestType>{});
    for (Index i = 0; i < size; ++i) {
        const auto exact =
            std::tanh(static_cast<long double>(numbers[static_cast<std::size_t>(i)]));
        CAPTURE(numbers[static_cast<std::size_t>(i)], tanh(i));
        if (std::isnan(exact))
            CHECK(std::isnan(tanh(i)));
        else
            CHECK(std::abs(tanh(i) - exact) <=
                  4 * std::abs(exact) *
                      static_cast<long double>(std::numeric_limits<TestType>::epsilon()));
    }
}

}  // namespace
