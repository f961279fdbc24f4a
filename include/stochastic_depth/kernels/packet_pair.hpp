// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/packet.hpp>

namespace stochastic_depth::detail {

/// Two packets, or two such pairs, that follow each other in memory, with the operations of one
/// packet: what is written for a packet then works on several at a time, and while one waits for
/// its last multiply-add, the others go on.
template <class Half>
class PacketPair {
public:
    using Scalar = typename Half::Scalar;
    static constexpr int lanes = Half::lanes;
    /// Numbers in the pair.
    static constexpr int size = 2 * Half::size;

    EIGEN_ALWAYS_INLINE PacketPair(Half first, Half second) : first_(first), second_(second) {}

    static EIGEN_ALWAYS_INLINE PacketPair load(const Scalar* from) {
        return {Half::load(from), Half::load(from + Half::size)};
    }
    static EIGEN_ALWAYS_INLINE PacketPair broadcast(Scalar value) {
        return {Half::broadcast(value), Half::broadcast(value)};
    }
    /// The same packet throughout.
    static EIGEN_ALWAYS_INLINE PacketPair filled_with(Packet<Scalar, lanes> packet) {
        return {Half::filled_with(packet), Half::filled_with(packet)};
    }
    template <int Group, int k>
    EIGEN_ALWAYS_INLINE PacketPair broadcast_in_groups() const {
        return {first_.template broadcast_in_groups<Group, k>(),
                second_.template broadcast_in_groups<Group, k>()};
    }
    template <int Group, int Part, int n>
    EIGEN_ALWAYS_INLINE PacketPair repeat_part() const {
        return {first_.template repeat_part<Group, Part, n>(),
                second_.template repeat_part<Group, Part, n>()};
    }
    EIGEN_ALWAYS_INLINE void store(Scalar* to) const {
        first_.store(to);
        second_.store(to + Half::size);
    }

    friend EIGEN_ALWAYS_INLINE PacketPair operator+(PacketPair a, PacketPair b) {
        return {a.first_ + b.first_, a.second_ + b.second_};
    }
    friend EIGEN_ALWAYS_INLINE PacketPair operator-(PacketPair a, PacketPair b) {
        return {a.first_ - b.first_, a.second_ - b.second_};
    }
    friend EIGEN_ALWAYS_INLINE PacketPair operator*(PacketPair a, PacketPair b) {
        return {a.first_ * b.first_, a.second_ * b.second_};
    }
    friend EIGEN_ALWAYS_INLINE PacketPair max(PacketPair a, PacketPair b) {
        return {max(a.first_, b.first_), max(a.second_, b.second_)};
    }
    friend EIGEN_ALWAYS_INLINE PacketPair multiply_add(PacketPair a, PacketPair b, PacketPair c) {
        return {multiply_add(a.first_, b.first_, c.first_),
                multiply_add(a.second_, b.second_, c.second_)};
    }
    EIGEN_ALWAYS_INLINE PacketPair is_positive() const {
        return {first_.is_positive(), second_.is_positive()};
    }
    EIGEN_ALWAYS_INLINE PacketPair tanh() const { return {first_.tanh(), second_.tanh()}; }
    template <class Function>
    EIGEN_ALWAYS_INLINE PacketPair on_each_packet(const Function& function) const {
        return {first_.on_each_packet(function), second_.on_each_packet(function)};
    }
    template <class Function>
    EIGEN_ALWAYS_INLINE PacketPair on_each_lane(const Function& function) const {
        return {first_.on_each_lane(function), second_.on_each_lane(function)};
    }

private:
    Half first_;
    Half second_;
};

}  // namespace stochastic_depth::detail
