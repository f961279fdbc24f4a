// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iosfwd>

namespace stochastic_depth {

/// The block function Philox4x32-10: a bijection of 128-bit counters for each 64-bit key.
///
/// \source  Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"; words are numbered
///          as in the authors' Random123.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox4x32_10(
    const std::array<std::uint32_t, 4>& counter, const std::array<std::uint32_t, 2>& key) {
    auto [x0, x1, x2, x3] = counter;
    auto [k0, k1] = key;
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * x0;
        const std::uint64_t b = std::uint64_t{0xCD9E8D57} * x2;
        x0 = static_cast<std::uint32_t>(b >> 32) ^ x1 ^ k0;
        x1 = static_cast<std::uint32_t>(b);
        x2 = static_cast<std::uint32_t>(a >> 32) ^ x3 ^ k1;
        x3 = static_cast<std::uint32_t>(a);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return {x0, x1, x2, x3};
}

namespace detail {

template <class Sequence>
concept SeedSequence = requires(Sequence& sequence, std::uint32_t* key) {
    sequence.generate(key, key);
};

}  // namespace detail

/// Random number engine: std::philox4x32 of C++26, for C++20.
///
/// The state is a counter X (128 bits), a key K (64 bits) and the place i in the block of four
/// words that was computed last, Y = philox4x32_10(X - 1, K). A copy continues the same sequence.
///
/// \complexity  `discard` is O(1).
class Philox {
public:
    using result_type = std::uint_fast32_t;

    static constexpr std::size_t word_size = 32;
    static constexpr std::size_t word_count = 4;
    static constexpr std::size_t round_count = 10;
    static constexpr std::array<result_type, 2> multipliers{0xCD9E8D57, 0xD2511F53};
    static constexpr std::array<result_type, 2> round_consts{0x9E3779B9, 0xBB67AE85};
    static constexpr result_type default_seed = 20111115;

    [[nodiscard]] static constexpr result_type min() { return 0; }
    [[nodiscard]] static constexpr result_type max() { return 0xFFFFFFFF; }

    constexpr Philox() : Philox{default_seed} {}

    /// Key (value mod 2^32, 0), counter 0.
    constexpr explicit Philox(result_type value) { seed(value); }

    /// Key from 64 bits of a seed sequence, counter 0.
    template <detail::SeedSequence Sequence>
    explicit Philox(Sequence& sequence) {
        seed(sequence);
    }

    constexpr void seed(result_type value = default_seed) {
        restart({static_cast<std::uint32_t>(value), 0});
    }

    template <detail::SeedSequence Sequence>
    void seed(Sequence& sequence) {
        std::array<std::uint32_t, 2> key{};
        sequence.generate(key.data(), key.data() + key.size());
        restart(key);
    }

    /// Moves to the start of a block.
    /// \param counter  The new counter, most significant word first: X_j = counter[3 - j] mod 2^32.
    constexpr void set_counter(const std::array<result_type, 4>& counter) {
        for (std::size_t j = 0; j < 4; ++j)
            counter_[j] = static_cast<std::uint32_t>(counter[3 - j]);
        place_ = 3;
    }

    constexpr result_type operator()() {
        if (++place_ == 4) {
            block_ = philox4x32_10(counter_, key_);
            advance_counter(1);
            place_ = 0;
        }
        return block_[place_];
    }

    /// As `count` calls.
    constexpr void discard(unsigned long long count) {
        const unsigned long long place = place_ + count % 4;
        const unsigned long long blocks = count / 4 + place / 4;
        place_ = static_cast<std::uint32_t>(place % 4);
        if (blocks == 0) return;
        advance_counter(blocks - 1);
        block_ = philox4x32_10(counter_, key_);
        advance_counter(1);
    }

    /// Equal states, hence equal futures.
    friend constexpr bool operator==(const Philox& a, const Philox& b) {
        return a.key_ == b.key_ && a.counter_ == b.counter_ && a.place_ == b.place_;
    }

    /// Writes K, X and i, in decimal.
    template <class Char, class Traits>
    friend std::basic_ostream<Char, Traits>& operator<<(std::basic_ostream<Char, Traits>& out,
                                                        const Philox& random) {
        using Stream = std::basic_ostream<Char, Traits>;
        const auto flags = out.flags(Stream::dec | Stream::left);
        const Char space = out.widen(' ');
        const Char fill = out.fill(space);
        for (const std::uint32_t word : random.key_) out << word << space;
        for (const std::uint32_t word : random.counter_) out << word << space;
        out << random.place_;
        out.flags(flags);
        out.fill(fill);
        return out;
    }

    /// Reads what << wrote; sets failbit and leaves the engine alone if that is no state of an
    /// engine.
    template <class Char, class Traits>
    friend std::basic_istream<Char, Traits>& operator>>(std::basic_istream<Char, Traits>& in,
                                                        Philox& random) {
        using Stream = std::basic_istream<Char, Traits>;
        const auto flags = in.flags(Stream::dec | Stream::skipws);
        Philox read;
        for (std::uint32_t& word : read.key_) in >> word;
        for (std::uint32_t& word : read.counter_) in >> word;
        in >> read.place_;
        in.flags(flags);
        if (in.fail()) return in;
        if (read.place_ > 3) {
            in.setstate(Stream::failbit);
            return in;
        }
        read.advance_counter(~0ull, ~0ull);
        read.block_ = philox4x32_10(read.counter_, read.key_);
        read.advance_counter(1);
        random = read;
        return in;
    }

private:
    constexpr void restart(const std::array<std::uint32_t, 2>& key) {
        key_ = key;
        set_counter({0, 0, 0, 0});
    }

    /// X += high 2^64 + low, modulo 2^128.
    constexpr void advance_counter(std::uint64_t low, std::uint64_t high = 0) {
        std::uint64_t carry = 0;
        for (std::size_t j = 0; j < 4; ++j) {
            const std::uint64_t addend = j < 2 ? low >> 32 * j : high >> 32 * (j - 2);
            carry += std::uint64_t{counter_[j]} + (addend & 0xFFFFFFFF);
            counter_[j] = static_cast<std::uint32_t>(carry);
            carry >>= 32;
        }
    }

    std::array<std::uint32_t, 4> counter_{};
    std::array<std::uint32_t, 4> block_{};
    std::array<std::uint32_t, 2> key_{};
    std::uint32_t place_ = 3;
};

}  // namespace stochastic_depth
