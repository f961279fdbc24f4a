// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <stochastic_depth/random/philox_lanes.hpp>

namespace stochastic_depth::detail {

/// The binary digits of a probability p in (0, 1), p = sum of d_i 2^-i, i = 1, 2, ...
class BinaryDigits {
public:
    explicit BinaryDigits(double p) {
        int exponent = 0;
        mantissa_ = static_cast<std::uint64_t>(std::ldexp(std::frexp(p, &exponent), 64));
        zeros_ = -exponent;
        count_ = zeros_ + 64 - std::countr_zero(mantissa_);
    }

    /// Number of digits up to the last 1.
    [[nodiscard]] int count() const { return count_; }

    /// d_i for i = first + 1, ..., first + 64, most significant first.
    [[nodiscard]] std::uint64_t window(int first) const {
        const int shift = zeros_ - first;
        if (shift <= -64 || shift >= 64) return 0;
        return shift >= 0 ? mantissa_ >> shift : mantissa_ << -shift;
    }

private:
    std::uint64_t mantissa_;
    int zeros_;
    int count_;
};

/// Up to sixteen words of 64 mask bits, each word for one layer, drawn together.
///
/// A mask bit is U < p for a uniform U in [0, 1) whose binary digits are drawn one by one, most
/// significant first, and compared with those of p: the first that differs decides. So a bit has
/// exactly the probability p, a double, and 64 of them take about eight random words.
class MaskTile {
public:
    [[nodiscard]] bool full() const { return size_ == capacity; }
    void clear() { size_ = 0; }

    /// Adds the word of a layer and a group of 64 samples, of which `wanted` are the ones that
    /// matter.
    void add(std::uint64_t layer, std::uint64_t group, const BinaryDigits& digits,
             std::uint64_t wanted) {
        // Philox counter: (layer 2^10 + block of digits, group of 64 samples, step).
        counter_[size_] = layer << 10;
        group_[size_] = group;
        digits_[size_] = &digits;
        load_window(size_, 0);
        undecided_[size_] = wanted;
        kept_[size_] = 0;
        ++size_;
    }

    /// Adds word n of another tile, as far as it has been drawn.
    void add(const MaskTile& other, std::size_t n) {
        counter_[size_] = other.counter_[n];
        group_[size_] = other.group_[n];
        digits_[size_] = other.digits_[n];
        window_[size_] = other.window_[n];
        more_[size_] = other.more_[n];
        undecided_[size_] = other.undecided_[n];
        kept_[size_] = other.kept_[n];
        ++size_;
    }

    /// Draws two more digits for each of the blocks first, ..., last - 1, none of them a multiple
    /// of 32 but the first. True while some bit is undecided.
    bool draw(std::uint32_t first, std::uint32_t last, std::uint64_t step,
              const PhiloxSchedule& key) {
        if (first > 0 && first % 32 == 0)
            for (std::size_t n = 0; n < size_; ++n) load_window(n, 2 * static_cast<int>(first));
        const Lanes step_low = Lanes{} + (step & 0xFFFFFFFF);
        const Lanes step_high = Lanes{} + (step >> 32);
        Lanes busy{};
        // Words between the last one and a multiple of lane_count are computed and ignored.
        for (std::size_t n = 0; n < size_; n += lane_count) {
            const Lanes counter = load(counter_ + n);
            const Lanes group = load(group_ + n);
            Lanes window = load(window_ + n);
            Lanes undecided = load(undecided_ + n);
            Lanes kept = load(kept_ + n);
            const auto compare = [&](const Lanes& u) {
                const Lanes digit = 0 - (window >> 63);
                kept |= undecided & digit & ~u;
                undecided &= ~(digit ^ u);
                window <<= 1;
            };
            for (std::uint32_t block = first; block < last; ++block) {
                const LaneBlock u =
                    philox_lanes({counter + std::uint64_t{block}, group, step_low, step_high}, key);
                compare((u.w0 & 0xFFFFFFFF) | u.w1 << 32);
                compare((u.w2 & 0xFFFFFFFF) | u.w3 << 32);
            }
            // Past the last 1 of p, a U that agreed with all of p is not less than p.
            undecided &= load(more_ + n) | (0 - ((window | (0 - window)) >> 63));
            store(window_ + n, window);
            store(undecided_ + n, undecided);
            store(kept_ + n, kept);
            busy |= undecided;
        }
        std::uint64_t words[lane_count];
        store(words, busy);
        std::uint64_t any = 0;
        for (const std::uint64_t word : words) any |= word;
        return any != 0;
    }

    /// Bit n is set where word n has undecided bits.
    [[nodiscard]] std::uint32_t undecided() const {
        std::uint32_t set = 0, bit = 1;
        for (std::size_t n = 0; n < size_; ++n, bit <<= 1)
            if (undecided_[n] != 0) set |= bit;
        return set;
    }

    /// Calls emit(layer, group, word) for each word; undecided bits are 0 so far.
    template <class Emit>
    void for_each(Emit& emit) const {
        for (std::size_t n = 0; n < size_; ++n) emit(counter_[n] >> 10, group_[n], kept_[n]);
    }

private:
    static constexpr std::size_t capacity = 16;

    /// The next 64 digits of p, and all ones in `more` if digits remain after these.
    void load_window(std::size_t n, int first) {
        window_[n] = digits_[n]->window(first);
        more_[n] = digits_[n]->count() > first + 64 ? ~std::uint64_t{0} : 0;
    }

    static Lanes load(const std::uint64_t* from) {
        Lanes lanes;
        std::memcpy(&lanes, from, sizeof lanes);
        return lanes;
    }
    static void store(std::uint64_t* to, const Lanes& lanes) {
        std::memcpy(to, &lanes, sizeof lanes);
    }

    alignas(64) std::uint64_t counter_[capacity]{};
    alignas(64) std::uint64_t group_[capacity]{};
    alignas(64) std::uint64_t window_[capacity]{};
    alignas(64) std::uint64_t more_[capacity]{};
    alignas(64) std::uint64_t undecided_[capacity]{};
    alignas(64) std::uint64_t kept_[capacity]{};
    const BinaryDigits* digits_[capacity]{};
    std::size_t size_ = 0;
};

}  // namespace stochastic_depth::detail
