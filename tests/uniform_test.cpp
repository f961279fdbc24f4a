// SPDX-License-Identifier: MIT
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;

/// Gives one word for ever.
template <class Word, Word largest>
struct Constant {
    Word word;
    int calls = 0;
    static constexpr Word min() { return 0; }
    static constexpr Word max() { return largest; }
    Word operator()() {
        ++calls;
        return word;
    }
};
using Constant32 = Constant<std::uint32_t, 0xFFFFFFFF>;
using Constant64 = Constant<std::uint64_t, 0xFFFFFFFFFFFFFFFF>;
using Constant31 = Constant<std::uint32_t, 0x7FFFFFFF>;

static_assert(RandomBitGenerator<Philox> && RandomBitGenerator<std::mt19937> &&
              RandomBitGenerator<std::mt19937_64> && RandomBitGenerator<Constant32>);
static_assert(!RandomBitGenerator<Constant31> && !RandomBitGenerator<std::minstd_rand> &&
              !RandomBitGenerator<std::ranlux48> && !RandomBitGenerator<int>);

TEST_CASE("uniform: is the leading bits of the engine's words, by hand", "[uniform]") {
    Constant32 narrow{0xC0000080};
    CHECK(uniform<float>(narrow) == 0.75f);
    CHECK(narrow.calls == 1);
    narrow.word = 0xC0000180;
    CHECK(uniform<float>(narrow) == 0.75f + 0x1p-24f);
    narrow = {0x80000000};
    CHECK(uniform<double>(narrow) == 0.5 + 0x1p-33);
    CHECK(narrow.calls == 2);
    Constant64 wide{0xC0000000000007FF};
    CHECK(uniform<double>(wide) == 0.75);
    CHECK(uniform<float>(wide) == 0.75f);
    CHECK(wide.calls == 2);
}

TEST_CASE("uniform: the first of two narrow words is the high half", "[uniform]") {
    Philox random{3};
    Philox words{3};
    const std::uint64_t high = words();
    const std::uint64_t low = words();
    CHECK(uniform<double>(random) == static_cast<double>((high << 32 | low) >> 11) * 0x1p-53);
    CHECK(random == words);
}

TEST_CASE("uniform: reaches 0 and stays below 1", "[uniform]") {
    Constant32 zeros{0}, ones{0xFFFFFFFF};
    CHECK(uniform<float>(zeros) == 0.0f);
    CHECK(uniform<double>(zeros) == 0.0);
    CHECK(uniform<float>(ones) == std::nextafter(1.0f, 0.0f));
    CHECK(uniform<double>(ones) == std::nextafter(1.0, 0.0));
    CHECK(uniform<float>(zeros, -2.0f, 3.0f) == -2.0f);
    CHECK(uniform<double>(ones, -2.0, 3.0) < 3.0);
}

TEST_CASE("uniform: rounding never reaches the upper end", "[uniform]") {
    Constant32 ones{0xFFFFFFFF};
    CHECK(uniform<float>(ones, 1.0f, std::nextafter(1.0f, 2.0f)) == 1.0f);
    CHECK(uniform<float>(ones, -1e30f, 1.0f) < 1.0f);
    CHECK(uniform<double>(ones, 1e16, 1e16 + 4) < 1e16 + 4);
    CHECK(uniform<double>(ones, 0.0, 5e-324) == 0.0);
}

TEST_CASE("uniform: pinned values", "[uniform]") {
    Philox random{2026};
    CHECK(uniform<float>(random) == 0x1.b96cap-2f);
    CHECK(uniform<double>(random) == 0x1.0b6f7cb7679d6p-1);
    CHECK(uniform<float>(random, -0.25f, 0.25f) == -0x1.a0b208p-4f);
    CHECK(uniform<double>(random, -0.25, 0.25) == 0x1.f3ffd439653c2p-3);
}

TEST_CASE("uniform: mean, variance and bins are those of a uniform", "[uniform]") {
    // n = 10^6. Mean: sigma = 1 / sqrt(12 n) = 2.9e-4. Second moment about 1/2:
    // sigma = 1 / sqrt(180 n) = 7.5e-5. Each of 16 bins: sigma = sqrt(n 15) / 16 = 242. All within
    // 6 sigma: false alarms 4e-8.
    constexpr int n = 1000000;
    Philox random{7};
    double sum = 0, squares = 0;
    int bins[16] = {};
    for (int i = 0; i < n; ++i) {
        const double u = uniform<double>(random, -1.0, 1.0) / 2 + 0.5;
        sum += u - 0.5;
        squares += (u - 0.5) * (u - 0.5);
        ++bins[static_cast<int>(u * 16)];
    }
    CHECK(std::abs(sum / n) < 6 * 2.89e-4);
    CHECK(std::abs(squares / n - 1.0 / 12) < 6 * 7.46e-5);
    for (const int bin : bins) CHECK(std::abs(bin - n / 16) < 6 * 243);
}

TEST_CASE("uniform: a range that is none is refused and nothing is drawn", "[uniform]") {
    const double infinity = std::numeric_limits<double>::infinity();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double largest = std::numeric_limits<double>::max();
    const struct {
        double low, high;
        std::string got;
    } ranges[] = {{1, 1, "[1, 1)"},
                  {2, 1, "[2, 1)"},
                  {nan, 1, "[nan, 1)"},
                  {0, nan, "[0, nan)"},
                  {0, infinity, "[0, inf)"},
                  {-infinity, 0, "[-inf, 0)"},
                  {-largest, largest, "[-1.7976931348623157e+308, 1.7976931348623157e+308)"}};
    for (const auto& range : ranges) {
        Philox random{1};
        CHECK(test::refusal([&] { (void)uniform<double>(random, range.low, range.high); }) ==
              "uniform: range must be finite and not empty, got " + range.got);
        CHECK(random == Philox{1});
    }
}

}  // namespace
