// SPDX-License-Identifier: MIT
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/philox_lanes.hpp>
#include <stochastic_depth/random/stream_key.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <iomanip>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

using Counter = std::array<std::uint32_t, 4>;
using Key = std::array<std::uint32_t, 2>;

// Random123, tests/kat_vectors.
struct KnownAnswer {
    Counter counter;
    Key key;
    Counter output;
};
constexpr KnownAnswer known_answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};

static_assert(std::uniform_random_bit_generator<Philox>);
static_assert(philox4x32_10(known_answers[2].counter, known_answers[2].key) ==
              known_answers[2].output);
static_assert(!std::is_convertible_v<int, Philox> && std::is_trivially_copyable_v<Philox>);
static_assert(!std::is_constructible_v<Philox, std::string&>);

TEST_CASE("philox4x32_10: gives Random123's known answers", "[philox]") {
    for (const KnownAnswer& known : known_answers)
        CHECK(philox4x32_10(known.counter, known.key) == known.output);
}

TEST_CASE("philox_lanes: every lane is philox4x32_10 of its own counter", "[philox]") {
    Philox random{1};
    for (int repeat = 0; repeat < 50; ++repeat) {
        const Key key{static_cast<std::uint32_t>(random()), static_cast<std::uint32_t>(random())};
        std::uint64_t words[4][detail::lane_count];
        for (auto& lanes : words)
            for (std::uint64_t& word : lanes)
                word = random() << 32 | random();  // dirty high halves
        detail::Lanes in[4], out[4];
        std::memcpy(in, words, sizeof words);
        const detail::LaneBlock block =
            detail::philox_lanes({in[0], in[1], in[2], in[3]}, detail::PhiloxSchedule{key});
        out[0] = block.w0, out[1] = block.w1, out[2] = block.w2, out[3] = block.w3;
        std::uint64_t results[4][detail::lane_count];
        std::memcpy(results, out, sizeof results);
        for (std::size_t lane = 0; lane < detail::lane_count; ++lane) {
            Counter counter{}, result{};
            for (std::size_t j = 0; j < 4; ++j) {
                counter[j] = static_cast<std::uint32_t>(words[j][lane]);
                result[j] = static_cast<std::uint32_t>(results[j][lane]);
            }
            CHECK(result == philox4x32_10(counter, key));
        }
    }
}

TEST_CASE("Philox: has the parameters of std::philox4x32", "[philox]") {
    STATIC_REQUIRE(std::is_same_v<Philox::result_type, std::uint_fast32_t>);
    STATIC_REQUIRE(Philox::word_size == 32);
    STATIC_REQUIRE(Philox::word_count == 4);
    STATIC_REQUIRE(Philox::round_count == 10);
    STATIC_REQUIRE(Philox::multipliers ==
                   std::array<std::uint_fast32_t, 2>{0xCD9E8D57, 0xD2511F53});
    STATIC_REQUIRE(Philox::round_consts ==
                   std::array<std::uint_fast32_t, 2>{0x9E3779B9, 0xBB67AE85});
    STATIC_REQUIRE(Philox::default_seed == 20111115);
    STATIC_REQUIRE(Philox::min() == 0);
    STATIC_REQUIRE(Philox::max() == 0xFFFFFFFF);
}

TEST_CASE("Philox: the 10000th value of a default engine is the standard's", "[philox]") {
    Philox random;
    for (int n = 1; n < 10000; ++n) (void)random();
    CHECK(random() == 1955073260);
}

TEST_CASE("Philox: gives the words of the blocks in order, from counter 0", "[philox]") {
    Philox random{2026};
    for (std::uint32_t block = 0; block < 100; ++block)
        for (const std::uint32_t word : philox4x32_10({block, 0, 0, 0}, {2026, 0}))
            CHECK(random() == word);
}

TEST_CASE("Philox: seeding again starts again", "[philox]") {
    Philox random{5};
    random.discard(7);
    random.seed(5);
    CHECK(random == Philox{5});
    random.discard(2);
    random.seed();
    CHECK(random == Philox{});
    CHECK_FALSE(Philox{5} == Philox{6});
}

TEST_CASE("Philox: the seed is taken modulo 2^32", "[philox]") {
    if constexpr (std::numeric_limits<Philox::result_type>::digits > 32) {
        CHECK(Philox{(Philox::result_type{1} << 16 << 16) + 9} == Philox{9});
    }
}

TEST_CASE("Philox: a seed sequence gives both words of the key", "[philox]") {
    std::seed_seq sequence{1, 2, 3};
    Key key{};
    sequence.generate(key.begin(), key.end());
    Philox random{sequence};
    const Philox same = random;
    for (const std::uint32_t word : philox4x32_10({0, 0, 0, 0}, key)) CHECK(random() == word);
    random.seed(sequence);
    CHECK(random == same);
}

TEST_CASE("Philox: a copy of a non-const engine is a copy, not a seed", "[philox]") {
    Philox random{3};
    random.discard(5);
    Philox copy{random};
    CHECK(copy == random);
    CHECK(copy() == random());
}

TEST_CASE("Philox: discard equals stepping", "[philox]") {
    for (unsigned before = 0; before < 9; ++before)
        for (unsigned count = 0; count < 30; ++count) {
            Philox stepped{11}, jumped{11};
            for (unsigned n = 0; n < before; ++n) (void)stepped(), (void)jumped();
            for (unsigned n = 0; n < count; ++n) (void)stepped();
            jumped.discard(count);
            REQUIRE(stepped == jumped);
            for (int n = 0; n < 6; ++n) REQUIRE(stepped() == jumped());
        }
}

TEST_CASE("Philox: far discards add up and wrap with the counter", "[philox]") {
    constexpr unsigned long long far = std::numeric_limits<unsigned long long>::max();
    Philox once{1}, parts{1};
    once.discard(far);
    parts.discard(far / 2);
    parts.discard(far - far / 2);
    CHECK(once == parts);
    CHECK(once() == parts());

    // far = 4 (2^62 - 1) + 3: the next word is word 3 of block 2^62 - 1.
    Philox start{1};
    start.discard(far);
    CHECK(start() == philox4x32_10({0xFFFFFFFF, 0x3FFFFFFF, 0, 0}, {1, 0})[3]);
    CHECK(start() == philox4x32_10({0, 0x40000000, 0, 0}, {1, 0})[0]);

    Philox last{1};
    last.set_counter({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF});
    last.discard(4);
    CHECK(last == [] {
        Philox random{1};
        random.set_counter({0, 0, 0, 0});
        return random;
    }());
}

TEST_CASE("Philox: set_counter takes the most significant word first", "[philox]") {
    Philox random{1};
    random.discard(2);
    random.set_counter({1, 2, 3, 0xFFFFFFFF});
    for (const std::uint32_t word : philox4x32_10({0xFFFFFFFF, 3, 2, 1}, {1, 0}))
        CHECK(random() == word);
    for (const std::uint32_t word : philox4x32_10({0, 4, 2, 1}, {1, 0})) CHECK(random() == word);
}

TEST_CASE("Philox: a state written to a stream reads back at every place in a block", "[philox]") {
    std::seed_seq sequence{4};
    Philox random{sequence};
    random.set_counter({0, 0, 0, 0xFFFFFFFE});
    for (int n = 0; n < 20; ++n) {
        std::stringstream stream;
        stream << random;
        Philox read{99};
        stream >> read;
        REQUIRE(stream);
        CHECK(read == random);
        Philox next = random;
        for (int k = 0; k < 9; ++k) CHECK(read() == next());
        (void)random();
    }
}

TEST_CASE("Philox: the text is K, X and i in decimal, whatever the stream's format", "[philox]") {
    std::ostringstream stream;
    stream << std::hex << std::showbase << std::setfill('*');
    Philox random{17};
    random.discard(5);
    stream << random;
    CHECK(stream.str() == "17 0 2 0 0 0 0");
    CHECK((stream.flags() & std::ios_base::basefield) == std::ios_base::hex);
    CHECK(stream.fill() == '*');
}

TEST_CASE("Philox: reading what is no state fails and changes nothing", "[philox]") {
    for (const char* text :
         {"", "1 2 3 4 5 6", "1 2 3 4 5 6 4", "1 x 3 4 5 6 0", "4294967296 0 0 0 0 0 0"}) {
        std::istringstream stream{text};
        Philox random{8};
        stream >> random;
        CHECK(stream.fail());
        CHECK(random == Philox{8});
    }
}

TEST_CASE("Philox: serves a standard distribution", "[philox]") {
    // Mean of 10^5 uniforms: sigma = 1 / sqrt(12e5) = 9.1e-4; false alarms at 6 sigma: 2e-9.
    Philox random{2026};
    std::uniform_real_distribution<double> uniform;
    double sum = 0;
    for (int n = 0; n < 100000; ++n) sum += uniform(random);
    CHECK(std::abs(sum / 100000 - 0.5) < 6 * 9.13e-4);
}

TEST_CASE("stream_key: seed, purpose and version each change the key", "[philox]") {
    constexpr auto masks = detail::StreamPurpose::survival_masks;
    const Key key = detail::stream_key(42, masks, 1);
    const Counter block = philox4x32_10({42, 0, 0, 0}, {1, 1});
    CHECK(key == Key{block[0], block[1]});
    CHECK(key != detail::stream_key(42 + (std::uint64_t{1} << 32), masks, 1));
    CHECK(key != detail::stream_key(43, masks, 1));
    CHECK(key != detail::stream_key(42, masks, 2));
    CHECK(key != detail::stream_key(42, static_cast<detail::StreamPurpose>(2), 1));
}

}  // namespace
