// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// T[N] with the signed sizes that Eigen's indices call for.
template <class T, int N>
using Array = T[static_cast<std::size_t>(N)];

// Register types carry an alignment attribute, which g++ notes wherever one is a template argument.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

/// Lanes of Eigen's widest SIMD register for Scalar; 1 where there is none.
template <class Scalar>
inline constexpr int widest_lanes =
    Eigen::internal::unpacket_traits<typename Eigen::internal::packet_traits<Scalar>::type>::size;

/// Eigen's register of `Lanes` scalars: the widest one, or the half of it, and so on; the scalar
/// itself for one lane.
template <class Scalar, int Lanes,
          class Candidate = typename Eigen::internal::packet_traits<Scalar>::type>
struct RegisterOf {
    using Half = typename Eigen::internal::unpacket_traits<Candidate>::half;
    using Next = std::conditional_t<std::is_same_v<Half, Candidate>, Scalar, Half>;
    using Found =
        std::conditional_t<Eigen::internal::unpacket_traits<Candidate>::size == Lanes,
                           std::type_identity<Candidate>, RegisterOf<Scalar, Lanes, Next>>;
    using type = typename Found::type;
};

/// Whether multiply_add rounds once.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
inline constexpr bool has_fused_multiply_add = true;
#else
inline constexpr bool has_fused_multiply_add = false;
#endif

/// `Lanes` numbers in one SIMD register. Every operation acts on each lane by itself and rounds as
/// the scalar operation does, so a result does not depend on the packet that a number travelled in.
template <class Scalar_, int Lanes>
class Packet {
    template <class T, int n>
    struct VectorOf {
        typedef T type __attribute__((vector_size(sizeof(T) * static_cast<std::size_t>(n))));
    };
    template <class T>
    struct VectorOf<T, 1> {
        using type = T;
    };

public:
    using Scalar = Scalar_;
    static constexpr int lanes = Lanes;
    /// Lanes of the smallest packet, from which a wider one is filled in one instruction.
    static constexpr int lanes_of_16_bytes = 16 / static_cast<int>(sizeof(Scalar));
    /// Numbers in the packet; a pair of packets has twice as many, and as many lanes.
    static constexpr int size = Lanes;
    using Register = typename RegisterOf<Scalar, Lanes>::type;
    /// Lanes of the next narrower packet.
    static constexpr int narrower =
        Lanes > Eigen::internal::unpacket_traits<
                    typename Eigen::internal::unpacket_traits<Register>::half>::size
            ? Lanes / 2
            : 1;

    Packet() = default;
    EIGEN_ALWAYS_INLINE explicit Packet(Register value) : register_(value) {}

    static EIGEN_ALWAYS_INLINE Packet load(const Scalar* from) {
        return Packet{Eigen::internal::ploadu<Register>(from)};
    }
    /// Numbers of another type, each converted.
    template <class From>
    static EIGEN_ALWAYS_INLINE Packet load_converted(const From* from) {
        if constexpr (std::is_same_v<From, Scalar>) {
            return load(from);
        } else if constexpr (Lanes == 1) {
            return Packet{static_cast<Scalar>(*from)};
        } else {
            // g++ makes the general conversion of wide packets from those of narrow ones.
#ifdef EIGEN_VECTORIZE_AVX512
            if constexpr (std::is_same_v<From, float> && Lanes == 8)
                return Packet{_mm512_cvtps_pd(_mm256_loadu_ps(from))};
#endif
#ifdef EIGEN_VECTORIZE_AVX
            if constexpr (std::is_same_v<From, float> && Lanes == 4)
                return Packet{_mm256_cvtps_pd(_mm_loadu_ps(from))};
#endif
            using To = typename VectorOf<Scalar, Lanes>::type;
            typename VectorOf<From, Lanes>::type numbers;
            std::memcpy(&numbers, from, sizeof(numbers));
            return Packet{std::bit_cast<Register>(__builtin_convertvector(numbers, To))};
        }
    }
    static EIGEN_ALWAYS_INLINE Packet broadcast(Scalar value) {
        return Packet{Eigen::internal::pset1<Register>(value)};
    }
    static EIGEN_ALWAYS_INLINE Packet filled_with(Packet packet) { return packet; }
    /// Lanes fall into groups of Group lanes; from[0], ..., from[Group - 1] in each of them.
    template <int Group>
    static EIGEN_ALWAYS_INLINE Packet repeat(const Scalar* from) {
        return [from]<int... lane>(std::integer_sequence<int, lane...>) {
            if constexpr (Group == lanes_of_16_bytes && Group < Lanes) {
                const auto half = Packet<Scalar, Lanes / 2>::template repeat<Group>(from).value();
                return Packet{static_cast<Register>(
                    __builtin_shufflevector(half, half, lane % (Lanes / 2)...))};
            } else if constexpr (Group == Lanes) {
                return load(from);
            } else {
                return Packet{Register{from[lane % Group]...}};
            }
        }
        (std::make_integer_sequence<int, Lanes>{});
    }
    /// The k-th lane of each group, in every lane of that group.
    template <int Group, int k>
    EIGEN_ALWAYS_INLINE Packet broadcast_in_groups() const {
        return [this]<int... lane>(std::integer_sequence<int, lane...>) {
            return Packet{static_cast<Register>(
                __builtin_shufflevector(register_, register_, (lane / Group * Group + k)...))};
        }
        (std::make_integer_sequence<int, Lanes>{});
    }
    /// Groups fall into parts of Part lanes; the n-th part of each group, in every part of it. That
    /// and a broadcast within parts are two shuffles, and remain so: the one that a compiler would
    /// make of both crosses 128-bit borders each time, and takes the multipliers' ports.
    template <int Group, int Part, int n>
    EIGEN_ALWAYS_INLINE Packet repeat_part() const {
        if constexpr (Part == Group) {
            return *this;
        } else {
            const Packet repeated = [this]<int... lane>(std::integer_sequence<int, lane...>) {
                return Packet{static_cast<Register>(__builtin_shufflevector(
                    register_, register_, (lane / Group * Group + n * Part + lane % Part)...))};
            }
            (std::make_integer_sequence<int, Lanes>{});
#ifdef EIGEN_VECTORIZE_AVX512
            return repeated.in_register();
#else
            return repeated;
#endif
        }
    }
    /// The same numbers, in a register: a compiler cannot read parts of them from memory instead.
    EIGEN_ALWAYS_INLINE Packet in_register() const {
        Packet same = *this;
#ifdef EIGEN_VECTORIZE_AVX512
        asm("" : "+v"(same.register_));
#else
        EIGEN_OPTIMIZATION_BARRIER(same.register_);
#endif
        return same;
    }
    EIGEN_ALWAYS_INLINE void store(Scalar* to) const { Eigen::internal::pstoreu(to, register_); }
    EIGEN_ALWAYS_INLINE Register value() const { return register_; }
    EIGEN_ALWAYS_INLINE Scalar first() const { return Eigen::internal::pfirst(register_); }

    friend EIGEN_ALWAYS_INLINE Packet operator+(Packet a, Packet b) {
        return Packet{Eigen::internal::padd(a.register_, b.register_)};
    }
    friend EIGEN_ALWAYS_INLINE Packet operator-(Packet a, Packet b) {
        return Packet{Eigen::internal::psub(a.register_, b.register_)};
    }
    friend EIGEN_ALWAYS_INLINE Packet operator*(Packet a, Packet b) {
        Packet product{Eigen::internal::pmul(a.register_, b.register_)};
        // g++ would contract this product and a sum that uses it, in some instantiations and not in
        // others.
#if defined(__GNUC__) && !defined(__clang__)
        EIGEN_OPTIMIZATION_BARRIER(product.register_);
#endif
        return product;
    }
    friend EIGEN_ALWAYS_INLINE Packet operator/(Packet a, Packet b) {
        return Packet{Eigen::internal::pdiv(a.register_, b.register_)};
    }
    /// The larger of each pair; a where a is NaN.
    friend EIGEN_ALWAYS_INLINE Packet max(Packet a, Packet b) {
        return Packet{Eigen::internal::pmax(a.register_, b.register_)};
    }
    /// The smaller of each pair; a where a is NaN.
    friend EIGEN_ALWAYS_INLINE Packet min(Packet a, Packet b) {
        return Packet{Eigen::internal::pmin(a.register_, b.register_)};
    }
    EIGEN_ALWAYS_INLINE Packet abs() const { return Packet{Eigen::internal::pabs(register_)}; }
    /// 1 where a number is above 0, and 0 elsewhere, as where it is NaN.
    EIGEN_ALWAYS_INLINE Packet is_positive() const {
        if constexpr (Lanes == 1)
            return Packet{register_ > Scalar(0) ? Scalar(1) : Scalar(0)};
        else
            return Packet{Eigen::internal::pand(
                Eigen::internal::pcmp_lt(broadcast(Scalar(0)).register_, register_),
                broadcast(Scalar(1)).register_)};
    }
    EIGEN_ALWAYS_INLINE Packet tanh() const { return Packet{Eigen::internal::ptanh(register_)}; }
    /// a b + c, rounded once wherever the target has a fused multiply-add.
    friend EIGEN_ALWAYS_INLINE Packet multiply_add(Packet a, Packet b, Packet c) {
        if constexpr (has_fused_multiply_add && Lanes == 1)
            return Packet{std::fma(a.register_, b.register_, c.register_)};
        else
            return Packet{Eigen::internal::pmadd(a.register_, b.register_, c.register_)};
    }

    /// Each lane's bits, as an unsigned whole number, moved up or down by `places`; what leaves the
    /// lane is lost.
    template <int places>
    EIGEN_ALWAYS_INLINE Packet shift_bits_up() const {
        return from_bits(bits() << places);
    }
    template <int places>
    EIGEN_ALWAYS_INLINE Packet shift_bits_down() const {
        return from_bits(bits() >> places);
    }
    /// The difference of the bits as unsigned whole numbers.
    EIGEN_ALWAYS_INLINE Packet subtract_bits(Packet other) const {
        return from_bits(bits() - other.bits());
    }

    /// A function of packets; of a pair of packets, it would be applied to each.
    template <class Function>
    EIGEN_ALWAYS_INLINE Packet on_each_packet(const Function& function) const {
        return function(*this);
    }
    /// A function of scalars, applied to each lane.
    template <class Function>
    EIGEN_ALWAYS_INLINE Packet on_each_lane(const Function& function) const {
        alignas(64) Array<Scalar, Lanes> values;
        store(values);
        apply(function, values);
        return load(values);
    }

private:
    /// Not inlined: how g++ contracts the function's products and sums, with each other and with
    /// what follows, would depend on the place that it is inlined into.
    template <class Function>
    [[gnu::noinline]] static void apply(const Function& function, Scalar* values) {
        for (int lane = 0; lane < Lanes; ++lane) values[lane] = function(values[lane]);
    }

    using Unsigned = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
    using Bits = typename VectorOf<Unsigned, Lanes>::type;

    EIGEN_ALWAYS_INLINE Bits bits() const { return std::bit_cast<Bits>(register_); }
    static EIGEN_ALWAYS_INLINE Packet from_bits(Bits bits) {
        return Packet{std::bit_cast<Register>(bits)};
    }

    Register register_;
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Before a loop over registers: it is unrolled before the compiler decides what stays in them, at
/// -O2 too. Else g++ keeps the sums of some tiles in memory. Who would rather compile in three
/// quarters of the time than run fast defines it as nothing, throughout a program.
#ifndef STOCHASTIC_DEPTH_UNROLL
#if defined(__GNUC__) && !defined(__clang__)
#define STOCHASTIC_DEPTH_UNROLL _Pragma("GCC unroll 64")
#else
#define STOCHASTIC_DEPTH_UNROLL _Pragma("unroll")
#endif
#endif

/// The same object, read from here on and not before: what a compiler makes of it ahead of a loop
/// takes registers from that.
template <class T>
[[nodiscard]] EIGEN_ALWAYS_INLINE const T& read_anew(const T& object) {
    const T* here = &object;
    asm volatile("" : "+r"(here) : : "memory");
    return *here;
}

/// Calls function(0), ..., function(N - 1) with compile-time indices.
template <int N, class Function>
EIGEN_ALWAYS_INLINE void unroll(Function function) {
    [&]<int... i>(std::integer_sequence<int, i...>) {
        (function(std::integral_constant<int, i>{}), ...);
    }
    (std::make_integer_sequence<int, N>{});
}

}  // namespace stochastic_depth::detail
