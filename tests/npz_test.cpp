// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/npz.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::Bytes;
using test::read;
using test::same_bits;
using test::TemporaryFile;
using test::write;

const Eigen::MatrixXd two_by_two{{1, 2}, {3, 4}};

void append(Bytes& bytes, std::uint64_t bits, int count) {
    for (int i = 0; i < count; ++i, bits >>= 8) bytes.push_back(static_cast<std::uint8_t>(bits));
}

}  // namespace

TEST_CASE("crc32: known answers", "[npz]") {
    const auto crc = [](const std::string& text) {
        return detail::crc32_of(Bytes(text.begin(), text.end()));
    };
    CHECK(crc("") == 0);
    CHECK(crc("123456789") == 0xCBF43926);  // the check value of the catalogues of CRCs
    // Of eight bytes at once as of one: what is appended to a text and its remainder is a constant.
    std::string text;
    for (char c = 'a'; c < 'z'; ++c) {
        text += c;
        const std::uint32_t remainder = crc(text);
        std::string whole = text;
        for (int i = 0; i < 4; ++i) whole += static_cast<char>(remainder >> (8 * i) & 0xFF);
        CHECK(crc(whole) == 0x2144DF1C);
    }
}

TEST_CASE("save_npz: the bytes are those of a zip archive of npy files", "[npz]") {
    const TemporaryFile file, alone;
    save_npz(file.path(), {{"a", two_by_two}});
    save_npy(alone.path(), two_by_two);
    const Bytes npy = read(alone.path());
    const auto header = [&](Bytes& bytes) {
        append(bytes, 20, 2);  // version needed
        append(bytes, 0, 2);   // flags
        append(bytes, 0, 2);   // stored
        append(bytes, 0, 2);   // time
        append(bytes, 33, 2);  // 1 January 1980
        append(bytes, detail::crc32_of(npy), 4);
        append(bytes, npy.size(), 4);
        append(bytes, npy.size(), 4);
        append(bytes, 5, 2);  // length of the name
        append(bytes, 0, 2);  // of what else there is
    };
    Bytes expected = {'P', 'K', 3, 4};
    header(expected);
    for (const char c : {'a', '.', 'n', 'p', 'y'}) expected.push_back(static_cast<std::uint8_t>(c));
    expected.insert(expected.end(), npy.begin(), npy.end());
    const std::size_t directory = expected.size();
    for (const char c : {'P', 'K', '\1', '\2'}) expected.push_back(static_cast<std::uint8_t>(c));
    append(expected, 20, 2);  // version made by
    header(expected);
    append(expected, 0, 10);  // comment, disk, attributes
    append(expected, 0, 4);   // place
    for (const char c : {'a', '.', 'n', 'p', 'y'}) expected.push_back(static_cast<std::uint8_t>(c));
    const std::size_t end = expected.size();
    for (const char c : {'P', 'K', '\5', '\6'}) expected.push_back(static_cast<std::uint8_t>(c));
    append(expected, 0, 4);
    append(expected, 1, 2);
    append(expected, 1, 2);
    append(expected, end - directory, 4);
    append(expected, directory, 4);
    append(expected, 0, 2);
    CHECK(read(file.path()) == expected);
}

TEST_CASE("NpzFile: gives what was saved, by name", "[npz]") {
    const TemporaryFile file;
    Philox random{1};
    const Eigen::MatrixXf matrix = test::random_matrix<float>(random, 5, 7);
    const Eigen::VectorXd vector = test::random_matrix<double>(random, 9, 1);
    const std::vector<SurvivalMask> masks = {{1, 0, 1}, {0, 1, 1}};
    save_npz(file.path(), {{"matrix", matrix}, {"vector", vector}, {"masks", masks},
                           {"count", Index{-3}}, {"number", 0.25}});
    const NpzFile found{file.path()};
    CHECK(found.names() ==
          std::vector<std::string>{"count", "masks", "matrix", "number", "vector"});
    CHECK(same_bits(found.matrix<float>("matrix"), matrix));
    CHECK(same_bits(found.matrix<double>("vector"), Eigen::MatrixXd(vector)));
    CHECK(found.masks("masks") == masks);
    CHECK(same_bits(found.matrix<double>("number"), Eigen::MatrixXd::Constant(1, 1, 0.25)));
    CHECK(same_bits(found.matrix<float>("matrix"), matrix));  // again
    const auto error = [&](const auto& call) { return thrown<std::runtime_error>(call); };
    CHECK(holds(error([&] { (void)found.matrix<float>("other"); }),
                "NpzFile: " + file.path() + ": there is no array other"));
    CHECK(holds(error([&] { (void)found.matrix<float>("vector"); }), "vector: numbers of type <f8"));
    save_npz(file.path(), {});
    CHECK(NpzFile{file.path()}.names().empty());
}

TEST_CASE("save_game: the arrays are those that shapiq's Game.load_values asks for", "[npz]") {
    const TemporaryFile file;
    const std::vector<SurvivalMask> masks = {{0, 0}, {1, 0}, {0, 1}, {1, 1}};
    const Eigen::Vector4d values{0.5, 1, 2, 4};
    save_game(file.path(), masks, values);
    const NpzFile game{file.path()};
    CHECK(game.names() == std::vector<std::string>{"coalitions", "n_players",
                                                   "normalization_value", "values"});
    CHECK(same_bits(game.matrix<double>("values"), Eigen::MatrixXd(values)));
    CHECK(game.masks("coalitions") == masks);
    CHECK(game.matrix<double>("normalization_value")(0, 0) == 0);
    CHECK(holds(thrown<std::invalid_argument>([&] { save_game(file.path(), {}, values); }),
                "save_game: values must be one for each of 0 masks"));
}

TEST_CASE("save_npz: names that are none are refused", "[npz]") {
    const TemporaryFile file;
    const auto error = [&](const std::vector<NpzArray>& arrays) {
        return thrown<std::invalid_argument>([&] { save_npz(file.path(), arrays); });
    };
    CHECK(holds(error({{"", 1.0}}), "save_npz: names must have 1 to 1020 letters, got 0"));
    CHECK(holds(error({{std::string(1021, 'a'), 1.0}}), "got 1021"));
    CHECK(holds(error({{"a", 1.0}, {"a", 2.0}}), "save_npz: names must differ, got a twice"));
}

TEST_CASE("NpzFile: archives as Python writes streams and large ones are read", "[npz]") {
    // Sizes behind the file, none in its header; in the directory sizes and place in 64 bits, and a
    // second end of it.
    const TemporaryFile file;
    save_npy(file.path(), two_by_two);
    const Bytes npy = read(file.path());
    const std::string name = "a.npy";
    const auto append_text = [](Bytes& bytes, std::string_view text) {
        bytes.insert(bytes.end(), text.begin(), text.end());
    };
    Bytes bytes;
    append_text(bytes, "PK\3\4");
    append(bytes, 45, 2);
    append(bytes, 8, 2);  // sizes are behind the file
    append(bytes, 0, 2 + 4 + 4);
    append(bytes, 0xFFFFFFFF, 4);
    append(bytes, 0xFFFFFFFF, 4);
    append(bytes, name.size(), 2);
    append(bytes, 20, 2);
    append_text(bytes, name);
    append(bytes, 1, 2);
    append(bytes, 16, 2);
    append(bytes, 0, 8);
    append(bytes, 0, 8);
    bytes.insert(bytes.end(), npy.begin(), npy.end());
    append_text(bytes, "PK\7\x08");
    append(bytes, detail::crc32_of(npy), 4);
    append(bytes, npy.size(), 8);
    append(bytes, npy.size(), 8);
    const std::size_t directory = bytes.size();
    append_text(bytes, "PK\1\2");
    append(bytes, 45, 2);
    append(bytes, 45, 2);
    append(bytes, 8, 2);
    append(bytes, 0, 2 + 4);
    append(bytes, detail::crc32_of(npy), 4);
    append(bytes, 0xFFFFFFFF, 4);
    append(bytes, 0xFFFFFFFF, 4);
    append(bytes, name.size(), 2);
    append(bytes, 6 + 28, 2);
    append(bytes, 0, 2 + 2 + 2 + 4);
    append(bytes, 0xFFFFFFFF, 4);
    append_text(bytes, name);
    append(bytes, 0xCAFE, 2);  // something else first
    append(bytes, 2, 2);
    append(bytes, 0, 2);
    append(bytes, 1, 2);
    append(bytes, 24, 2);
    const std::size_t sizes = bytes.size();
    append(bytes, npy.size(), 8);
    append(bytes, npy.size(), 8);
    append(bytes, 0, 8);
    const std::size_t end = bytes.size();
    append_text(bytes, "PK\6\6");
    append(bytes, 44, 8);
    append(bytes, 45, 2);
    append(bytes, 45, 2);
    append(bytes, 0, 4 + 4);
    append(bytes, 1, 8);
    append(bytes, 1, 8);
    append(bytes, end - directory, 8);
    append(bytes, directory, 8);
    append_text(bytes, "PK\6\7");
    append(bytes, 0, 4);
    append(bytes, end, 8);
    append(bytes, 1, 4);
    append_text(bytes, "PK\5\6");
    append(bytes, 0, 4);
    append(bytes, 1, 2);
    append(bytes, 1, 2);
    append(bytes, 0xFFFFFFFF, 4);
    append(bytes, 0xFFFFFFFF, 4);
    append(bytes, 0, 2);
    const auto error = [&](std::size_t at, std::uint8_t byte) {
        Bytes changed = bytes;
        changed.at(at) = byte;
        write(file.path(), changed);
        return thrown<std::runtime_error>([&] {
            if (!same_bits(NpzFile{file.path()}.matrix<double>("a"), two_by_two))
                throw std::logic_error("a");
        });
    };
    CHECK(error(0, 'P') == "nothing thrown");
    // The last end may have the numbers too, where they fit.
    std::uint8_t* const last = bytes.data() + bytes.size() - 22;
    detail::store_little(last + 12, static_cast<std::uint32_t>(end - directory));
    detail::store_little(last + 16, static_cast<std::uint32_t>(directory));
    CHECK(error(0, 'P') == "nothing thrown");
    CHECK(holds(error(sizes, 7), "a.npy has ", " bytes, not 7"));
    CHECK(holds(error(sizes + 15, 1), "a.npy goes on past the directory"));
    CHECK(holds(error(sizes + 23, 1), "a.npy is not where the directory says"));
    CHECK(holds(error(sizes - 2, 12), "a.npy has no size or place in the directory"));
    CHECK(holds(error(sizes - 2, 25), "a.npy is not where the directory says"));
    for (const std::size_t at : {end, end + 4, end + 16, end + 24, end + 32, end + 40, end + 48,
                                 end + 56 + 8, end + 56 + 16})
        CHECK(holds(error(at, 99), "the end of the directory doesn't fit the file"));
}

TEST_CASE("save_npz: names that are not ASCII are marked as UTF-8", "[npz]") {
    const TemporaryFile file;
    save_npz(file.path(), {{"\xC3\xA4", 1.0}});
    const Bytes bytes = read(file.path());
    CHECK(bytes.at(7) == 8);  // bit 11 of the flags; without it the name is one of code page 437
    const std::vector<std::string> names = NpzFile{file.path()}.names();
    CHECK(names == std::vector<std::string>{"\xC3\xA4"});
    CHECK(holds(thrown<std::invalid_argument>(
                    [&] { save_npz(file.path(), {{"\xff", 1.0}}); }),
                "save_npz: names: text must be UTF-8, got byte 0xff at byte 0"));
}

TEST_CASE("NpzFile: malformed files are refused", "[npz]") {
    const TemporaryFile file;
    save_npz(file.path(), {{"a", two_by_two}, {"b", 1.5}});
    const Bytes good = read(file.path());
    const auto whole = [&](const Bytes& bytes) {
        write(file.path(), bytes);
        return thrown<std::runtime_error>([&] {
            const NpzFile found{file.path()};
            const std::vector<std::string> names = found.names();
            if (names != std::vector<std::string>{"a", "b"}) throw std::runtime_error("names");
            if (!same_bits(found.matrix<double>("a"), two_by_two)) throw std::logic_error("a");
            if (found.matrix<double>("b")(0, 0) != 1.5) throw std::logic_error("b");
        });
    };
    REQUIRE(whole(good) == "nothing thrown");
    for (std::size_t length = 0; length < good.size(); ++length)
        REQUIRE(whole(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))) !=
                "nothing thrown");
    // A flipped bit is refused, or in what nobody reads: times, versions and the like.
    int unread = 0;
    for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
        INFO("bit " << bit);
        Bytes changed = good;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << (bit % 8)));
        std::string message;
        REQUIRE_NOTHROW(message = whole(changed));
        unread += message == "nothing thrown";
    }
    CHECK(unread < 8 * 2 * (2 + 2 + 4 + 12 + 18));
    // Single fields of the directory: its end is the last 22 bytes, an entry before has 51.
    const std::size_t end = good.size() - 22, entry = end - 51;
    const auto with = [&](std::size_t at, std::uint64_t bits, int count) {
        Bytes bytes = good, field;
        append(field, bits, count);
        std::copy(field.begin(), field.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
        return whole(bytes);
    };
    CHECK(holds(with(end, 0, 4), "doesn't end as a zip archive does"));
    CHECK(holds(with(end + 4, 1, 2), "the end of the directory doesn't fit"));
    CHECK(holds(with(end + 10, 3, 2), "the end of the directory doesn't fit"));
    CHECK(holds(with(end + 8, 0x00010001, 4), "the directory has 51 bytes too many"));
    CHECK(holds(with(end + 8, 0x00030003, 4), "file 2 is not in the directory"));
    CHECK(holds(with(end + 12, 0xFFFFFFFF, 4), "doesn't fit the file"));
    CHECK(holds(with(end + 16, 0, 4), "doesn't fit the file"));
    CHECK(holds(with(entry + 8, 1, 2), "b.npy is encrypted"));
    CHECK(holds(with(entry + 10, 12, 2), "b.npy must be stored or deflated, found method 12"));
    CHECK(holds(with(entry + 16, 0, 4), "b: it is damaged: its bytes don't match their CRC-32"));
    CHECK(holds(with(entry + 20, 0xFFFFFFFF, 4), "b.npy goes on past the directory"));
    CHECK(holds(with(entry + 24, 135, 4), "b.npy has 136 bytes, not 135"));
    CHECK(holds(with(entry + 28, 60000, 2), "a name that goes on past the directory"));
    CHECK(holds(with(entry + 42, 0, 4), "b.npy has another name where it is"));
    CHECK(holds(with(entry + 42, 1, 4), "b.npy is not where the directory says"));
    CHECK(holds(with(entry + 42, 0xFFFFFFFF, 4), "b.npy is not where the directory says"));
}
