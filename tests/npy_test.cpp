// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/npy.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/survival/survival_mask.hpp>

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

void append(Bytes& bytes, std::uint64_t bits, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>(bits >> (8 * i)));
}

/// A file byte by byte as NumPy describes it.
Bytes file_of(std::string header, const Bytes& data, unsigned version = 1) {
    Bytes bytes = {0x93, 'N', 'U', 'M', 'P', 'Y', static_cast<std::uint8_t>(version), 0};
    const std::size_t before = version == 1 ? 10 : 12;
    while ((before + header.size() + 1) % 64 != 0) header += ' ';
    header += '\n';
    append(bytes, header.size(), version == 1 ? 2 : 4);
    bytes.insert(bytes.end(), header.begin(), header.end());
    bytes.insert(bytes.end(), data.begin(), data.end());
    return bytes;
}
std::string header_of(const std::string& type, const std::string& order, const std::string& shape) {
    return "{'descr': '" + type + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}
Bytes doubles(const std::vector<double>& numbers) {
    Bytes bytes;
    for (const double number : numbers) append(bytes, std::bit_cast<std::uint64_t>(number), 8);
    return bytes;
}
Bytes floats(const std::vector<float>& numbers) {
    Bytes bytes;
    for (const float number : numbers) append(bytes, std::bit_cast<std::uint32_t>(number), 4);
    return bytes;
}

const Eigen::MatrixXd six{{1, 2, 3}, {4, 5, 6}};

}  // namespace

TEST_CASE("save_npy: the bytes are those that NumPy describes", "[npy]") {
    const TemporaryFile file;
    save_npy(file.path(), six);
    CHECK(read(file.path()) ==
          file_of(header_of("<f8", "True", "(2, 3)"), doubles({1, 4, 2, 5, 3, 6})));
    save_npy(file.path(), Eigen::VectorXf(Eigen::Vector2f{0.5f, -1}));
    CHECK(read(file.path()) == file_of(header_of("<f4", "False", "(2,)"), floats({0.5f, -1})));
    save_npy(file.path(), Eigen::MatrixXf(0, 7));
    CHECK(read(file.path()) == file_of(header_of("<f4", "True", "(0, 7)"), {}));
    save_npy(file.path(), std::vector<SurvivalMask>{{1, 0, 1}, {0, 0, 1}});
    CHECK(read(file.path()) == file_of(header_of("|b1", "False", "(2, 3)"), {1, 0, 1, 0, 0, 1}));
}

TEST_CASE("load_npy: either order, every version and either byte order", "[npy]") {
    const TemporaryFile file;
    const auto check = [&](const Bytes& bytes) {
        write(file.path(), bytes);
        CHECK(same_bits(load_npy<double>(file.path()), six));
        return true;
    };
    for (const unsigned version : {1u, 2u, 3u}) {
        check(file_of(header_of("<f8", "False", "(2, 3)"), doubles({1, 2, 3, 4, 5, 6}), version));
        check(file_of(header_of("<f8", "True", "(2, 3)"), doubles({1, 4, 2, 5, 3, 6}), version));
    }
    Bytes turned;
    for (const double number : {1., 2., 3., 4., 5., 6.}) {
        const Bytes one = doubles({number});
        turned.insert(turned.end(), one.rbegin(), one.rend());
    }
    check(file_of(header_of(">f8", "False", "(2, 3)"), turned));
    // As other writers put it; numbers that are not aligned.
    check(file_of("{\"shape\":(2,3,),\"descr\":\"<f4\",\"fortran_order\":False}   ",
                  floats({1, 2, 3, 4, 5, 6})));
    Bytes whole;
    for (const unsigned number : {1u, 2u, 3u, 4u, 5u, 6u}) append(whole, number, 2);
    check(file_of(header_of("<i2", "False", "(2, 3)"), whole));
    check(file_of(header_of("<u2", "False", "(2, 3)"), whole));
    check(file_of(header_of("|u1", "False", "(2, 3)"), {1, 2, 3, 4, 5, 6}));
    check(file_of(header_of("<i1", "False", "(2, 3)"), {1, 2, 3, 4, 5, 6}));
    Bytes halves;
    for (const unsigned bits : {0x3c00u, 0x4000u, 0x4200u, 0x4400u, 0x4500u, 0x4600u})
        append(halves, bits, 2);
    check(file_of(header_of("<f2", "False", "(2, 3)"), halves));
    // A column, a number, nothing.
    write(file.path(), file_of(header_of("<f4", "False", "(3,)"), floats({1, 2, 3})));
    CHECK(same_bits(load_npy<float>(file.path()), Eigen::Vector3f{1, 2, 3}));
    write(file.path(), file_of(header_of("<f4", "False", "()"), floats({7})));
    CHECK(same_bits(load_npy<float>(file.path()), Eigen::MatrixXf::Constant(1, 1, 7)));
    write(file.path(), file_of(header_of("<f4", "False", "(0, 3)"), {}));
    CHECK(load_npy<float>(file.path()).cols() == 3);
    write(file.path(), file_of(header_of("<i4", "False", "(1,)"), {0xff, 0xff, 0xff, 0xff}));
    CHECK(load_npy<double>(file.path())(0, 0) == -1);
}

TEST_CASE("load_npy: gives the bits that were saved", "[npy]") {
    const TemporaryFile file;
    Philox random{1};
    const auto check = [&]<class Scalar>(const Matrix<Scalar>& matrix) {
        save_npy(file.path(), matrix);
        CHECK(same_bits(load_npy<Scalar>(file.path()), matrix));
    };
    check(test::random_matrix<float>(random, 70, 1100));
    check(test::random_matrix<double>(random, 1, 40));
    check(Eigen::MatrixXf(3, 0));
    const std::vector<SurvivalMask> masks = {{1, 0, 0, 1}, {0, 0, 0, 0}, {1, 1, 1, 1}};
    save_npy(file.path(), masks);
    CHECK(load_npy_masks(file.path()) == masks);
    // A file of row-major numbers larger than a tile.
    const Eigen::MatrixXf large = test::random_matrix<float>(random, 45, 1030);
    const std::vector<float> by_row = [&] {
        std::vector<float> numbers;
        for (Index i = 0; i < large.rows(); ++i)
            for (Index j = 0; j < large.cols(); ++j) numbers.push_back(large(i, j));
        return numbers;
    }();
    write(file.path(), file_of(header_of("<f4", "False", "(45, 1030)"), floats(by_row)));
    CHECK(same_bits(load_npy<float>(file.path()), large));
}

TEST_CASE("load_npy: whole numbers of any width are read where each is one of the matrix's",
          "[npy]") {
    const TemporaryFile file;
    const auto read = [&](const char* type, const std::vector<std::uint64_t>& numbers, int bytes) {
        Bytes data;
        for (const std::uint64_t number : numbers) append(data, number, bytes);
        const std::string shape = detail::message("(", numbers.size(), ",)");
        write(file.path(), file_of(header_of(type, "False", shape), data));
    };
    // What NumPy makes of a list of whole numbers.
    read("<i8", {3, ~std::uint64_t{0}, std::uint64_t{1} << 24}, 8);
    CHECK(same_bits(load_npy<float>(file.path()), Eigen::Vector3f{3, -1, 0x1p24f}));
    CHECK(same_bits(load_npy<double>(file.path()), Eigen::Vector3d{3, -1, 0x1p24}));
    read("<u4", {7, 0}, 4);
    CHECK(same_bits(load_npy<float>(file.path()), Eigen::Vector2f{7, 0}));
    const auto error = [&](auto scalar) {
        return thrown<std::runtime_error>(
            [&] { (void)load_npy<decltype(scalar)>(file.path()); });
    };
    read("<i4", {(1u << 24) + 1}, 4);
    CHECK(holds(error(0.0f), "whole numbers must be at most 2^24 in size, found 16777217"));
    CHECK(load_npy<double>(file.path())(0, 0) == 16777217);
    read("<i8", {0 - ((std::uint64_t{1} << 53) + 1)}, 8);
    CHECK(holds(error(0.0), "at most 2^53 in size, found -9007199254740993"));
    read("<i8", {std::uint64_t{1} << 63}, 8);
    CHECK(holds(error(0.0), "at most 2^53 in size, found -9223372036854775808"));
    read("<u8", {std::uint64_t{1} << 63}, 8);
    CHECK(holds(error(0.0), "at most 2^53 in size, found 9223372036854775808"));
}

TEST_CASE("load_npy: malformed files are refused, saying how", "[npy]") {
    const TemporaryFile file;
    const Bytes data = floats({1, 2});
    const auto with = [&](const std::string& header) { return file_of(header, data); };
    const Bytes good = with(header_of("<f4", "False", "(2,)"));
    const auto changed = [&](std::size_t at, std::uint8_t byte) {
        Bytes bytes = good;
        bytes.at(at) = byte;
        return bytes;
    };
    struct Malformed {
        std::string name;
        Bytes bytes;
        std::string reason;
    };
    Bytes longer = good;
    longer.push_back(0);
    const std::vector<Malformed> files = {
        {"empty", {}, "cut short: it has 0 bytes"},
        {"another kind", {'P', 'K', 3, 4}, "of another kind"},
        {"version 0", changed(6, 0), "format version 0.0"},
        {"version 4", changed(6, 4), "format version 4.0"},
        {"version 1.1", changed(7, 1), "format version 1.1"},
        {"a header past the end", changed(9, 1), "cut short: its header has 374 bytes"},
        {"no line break", changed(127, ' '), "must end with a line break"},
        {"a byte too many", longer, "its numbers take 8 bytes, and 9 are there"},
        {"a byte too few", Bytes(good.begin(), good.end() - 1), "its numbers take 8 bytes, and 7 are there"},
        {"no dictionary", with("[]"), "expected {"},
        {"a list", with("{'descr': ['<f4'], 'fortran_order': False, 'shape': (2,)}"), "expected a string"},
        {"two dictionaries", with(header_of("<f4", "False", "(2,)") + "{}"), "something stands behind"},
        {"a key is missing", with("{'descr': '<f4', 'shape': (2,)}"), "must have descr, fortran_order and shape"},
        {"a key twice", with("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"),
         "descr is there twice"},
        {"an unknown key", with("{'x': 1}"), "unknown key x"},
        {"an open string", with("{'descr"), "a string has no end"},
        {"an escape", with("{'de\\x73cr': '<f4'}"), "a backslash"},
        {"a truth value in small letters", with("{'fortran_order': false}"), "must be True or False"},
        {"objects", with(header_of("|O", "False", "(2,)")), "descr must be of plain numbers, '<f4' for one, found |O"},
        {"complex numbers", with(header_of("<c8", "False", "(2,)")), "found <c8"},
        {"text", with(header_of("<U4", "False", "(2,)")), "found <U4"},
        {"the machine's order", with(header_of("=f4", "False", "(2,)")), "found =f4"},
        {"no order", with(header_of("|f4", "False", "(2,)")), "found |f4"},
        {"floats of a byte", with(header_of("<f1", "False", "(8,)")), "found <f1"},
        {"wide truth values", with(header_of("<b2", "False", "(4,)")), "found <b2"},
        {"a shape that is a number", with(header_of("<f4", "False", "2")), "expected ("},
        {"a shape that is none", with(header_of("<f4", "False", "(2)")), "expected , behind the only dimension"},
        {"a negative dimension", with(header_of("<f4", "False", "(-2,)")), "without sign"},
        {"a long dimension", with(header_of("<f4", "False", "(2L,)")), "expected"},
        {"a dimension that begins with 0", with(header_of("<f4", "False", "(02,)")), "begins with 0"},
        {"a dimension of 2^64", with(header_of("<f4", "False", "(18446744073709551616,)")), "out of range"},
        {"more than can be counted", with(header_of("<f4", "False", "(4294967296, 4294967296)")), "can be counted"},
        {"that a 0 hides", with(header_of("<f4", "False", "(0, 4294967296, 4294967296)")), "can be counted"},
        {"empty and out of range", file_of(header_of("<f4", "False", "(0, 281474976710657)"), {}), "out of range"},
        {"three dimensions", with(header_of("<f4", "False", "(1, 2, 1)")), "at most 2 dimensions, found 3"},
        {"too wide", with(header_of("<f8", "False", "(1,)")), "numbers of type <f8 don't all fit those of 32 bits"},
        {"too wide whole numbers", with(header_of("<i4", "False", "(2,)")), "whole numbers must be at most 2^24 in size, found 1065353216"},
        {"far too wide", with(header_of("<u8", "False", "(1,)")), "whole numbers must be at most 2^24 in size, found 4611686019492741120"}};
    std::set<std::string> names;
    for (const Malformed& malformed : files) {
        INFO(malformed.name);
        CHECK(names.insert(malformed.name).second);
        write(file.path(), malformed.bytes);
        const std::string message =
            thrown<std::runtime_error>([&] { (void)load_npy<float>(file.path()); });
        INFO(message);
        CHECK(holds(message, "load_npy: " + file.path() + ": ", malformed.reason));
    }
    write(file.path(), good);
    CHECK(same_bits(load_npy<float>(file.path()), Eigen::Vector2f{1, 2}));
    // Every truncation; every flipped bit is refused or read as it is.
    for (std::size_t length = 0; length < good.size(); ++length) {
        write(file.path(), Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)));
        REQUIRE(thrown<std::runtime_error>([&] { (void)load_npy<float>(file.path()); }) !=
                "nothing thrown");
    }
    for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
        INFO("bit " << bit);
        const auto byte = static_cast<std::uint8_t>(good[bit / 8] ^ (1u << (bit % 8)));
        write(file.path(), changed(bit / 8, byte));
        Eigen::MatrixXf found;
        const std::string message =
            thrown<std::runtime_error>([&] { found = load_npy<float>(file.path()); });
        if (message != "nothing thrown") {
            REQUIRE(bit / 8 < 128);
            continue;
        }
        // '<' and '>' differ by one bit: the other byte order.
        Bytes expected(good.end() - 8, good.end());
        if (bit / 8 >= 128) expected[bit / 8 - 128] = byte;
        if (bit / 8 < 128 && byte == '>') {
            std::reverse(expected.begin(), expected.begin() + 4);
            std::reverse(expected.begin() + 4, expected.end());
        }
        REQUIRE(found.size() == 2);
        REQUIRE(std::memcmp(found.data(), expected.data(), 8) == 0);
    }
}

TEST_CASE("load_npy_masks: refuses what are no masks; save_npy masks that differ", "[npy]") {
    const TemporaryFile file;
    const auto error = [&](const Bytes& bytes) {
        write(file.path(), bytes);
        return thrown<std::runtime_error>([&] { (void)load_npy_masks(file.path()); });
    };
    CHECK(holds(error(file_of(header_of("|b1", "False", "(2,)"), {1, 0})),
                "load_npy_masks: ", "masks must have 2 dimensions, found 1"));
    CHECK(holds(error(file_of(header_of("|u1", "False", "(1, 2)"), {1, 2})),
                "masks must be of 0 and 1, found 2"));
    // Either order, any type.
    write(file.path(), file_of(header_of("<f8", "True", "(2, 3)"), doubles({1, 0, 0, 1, 1, 1})));
    CHECK(load_npy_masks(file.path()) == std::vector<SurvivalMask>{{1, 0, 1}, {0, 1, 1}});
    write(file.path(), file_of(header_of(">i2", "False", "(2, 3)"),
                               {0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1}));
    CHECK(load_npy_masks(file.path()) == std::vector<SurvivalMask>{{1, 0, 1}, {0, 1, 1}});
    // An array of no bytes, of more masks than there is memory for.
    CHECK(holds(error(file_of(header_of("|b1", "False", "(281474976710656, 0)"), {})),
                "masks without layers must be at most 1048576, found 281474976710656"));
    CHECK(holds(error(file_of(header_of("<f8", "False", "(1, 1)"), doubles({0.5}))),
                "masks must be of 0 and 1, found 0.5"));
    CHECK(holds(thrown<std::invalid_argument>([&] {
                    save_npy(file.path(), std::vector<SurvivalMask>{{1, 0}, {1}});
                }),
                "save_npy: masks must have 2 layers each, got 1"));
}
