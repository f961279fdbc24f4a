// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/cifar.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using test::Bytes;
using test::refuses;

/// What byte (plane, row, column) of an image is.
[[nodiscard]] std::uint8_t pixel(std::size_t image, std::size_t plane, std::size_t row,
                                 std::size_t column) {
    return static_cast<std::uint8_t>(97 * image + 31 * plane + 7 * row + 3 * column);
}

/// Images with these labels, as many for each as the records have.
[[nodiscard]] Bytes records(const std::vector<Bytes>& labels) {
    Bytes bytes;
    for (std::size_t j = 0; j < labels.size(); ++j) {
        bytes.insert(bytes.end(), labels[j].begin(), labels[j].end());
        for (std::size_t c = 0; c < 3; ++c)
            for (std::size_t v = 0; v < 32; ++v)
                for (std::size_t u = 0; u < 32; ++u) bytes.push_back(pixel(j, c, v, u));
    }
    return bytes;
}

void check_pixels(const Matrix<std::uint8_t>& pixels) {
    REQUIRE(pixels.rows() == 3072);
    bool equal = true;
    for (Index j = 0; j < pixels.cols(); ++j)
        for (Index v = 0; v < 32; ++v)
            for (Index u = 0; u < 32; ++u)
                for (Index c = 0; c < 3; ++c)
                    equal = equal &&
                            pixels(c + 3 * (u + 32 * v), j) ==
                                pixel(static_cast<std::size_t>(j), static_cast<std::size_t>(c),
                                      static_cast<std::size_t>(v), static_cast<std::size_t>(u));
    CHECK(equal);
}

TEST_CASE("parse_cifar10 and parse_cifar100: labels and pixels as the file has them", "[cifar]") {
    const CifarImages ten = parse_cifar10(records({{9}, {0}, {3}}), "ten");
    CHECK(ten.labels == Eigen::Vector3i(9, 0, 3));
    CHECK(ten.superclasses.size() == 0);
    CHECK(ten.pixels.cols() == 3);
    check_pixels(ten.pixels);

    const CifarImages hundred = parse_cifar100(records({{19, 99}, {0, 42}}), "hundred");
    CHECK(hundred.labels == Eigen::Vector2i(99, 42));
    CHECK(hundred.superclasses == Eigen::Vector2i(19, 0));
    check_pixels(hundred.pixels);
    CHECK(parse_cifar10({}, "none").pixels.cols() == 0);
}

TEST_CASE("read_cifar10 and read_cifar100 read files", "[cifar]") {
    const test::TemporaryFile file;
    test::write(file.path(), records({{7}}));
    CHECK(read_cifar10(file.path()).labels(0) == 7);
    test::write(file.path(), records({{7, 70}}));
    CHECK(read_cifar100(file.path()).labels(0) == 70);
    refuses<std::runtime_error>([&] { (void)read_cifar10(file.path()); },
                                {"parse_cifar10: ", file.path().c_str(), "found 3074 bytes"});
    refuses<std::runtime_error>([] { (void)read_cifar10("/nowhere/at/all"); },
                                {"read_cifar10: /nowhere/at/all"});
}

TEST_CASE("bad input: bytes that are no CIFAR file are refused", "[cifar]") {
    Bytes bytes = records({{9}, {0}});
    bytes[3073] = 10;
    refuses<std::runtime_error>([&] { (void)parse_cifar10(bytes, "ten"); },
                                {"parse_cifar10: ten", "below 10", "found 10 of image 1"});
    bytes.pop_back();
    refuses<std::runtime_error>([&] { (void)parse_cifar10(bytes, "ten"); },
                                {"parse_cifar10: ten", "records of 3073 bytes", "found 6145"});
    refuses<std::runtime_error>(
        [&] {
            (void)parse_cifar100(records({{20, 1}}), "hundred");
        },
        {"parse_cifar100: hundred", "below 20", "found 20 of image 0"});
    refuses<std::runtime_error>(
        [&] {
            (void)parse_cifar100(records({{1, 100}}), "hundred");
        },
        {"parse_cifar100: hundred", "below 100", "found 100"});
    refuses<std::runtime_error>([&] { (void)parse_cifar100(Bytes(3073), "hundred"); },
                                {"records of 3074 bytes"});
}

}  // namespace
