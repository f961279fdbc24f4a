// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/idx.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"

namespace sd = stochastic_depth;
using Catch::Matchers::EndsWith;
using Catch::Matchers::Equals;
using Catch::Matchers::StartsWith;
using sd::Index;
using Bytes = std::vector<std::uint8_t>;

namespace {

template <class Error>
std::string message_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "nothing was thrown";
}

Bytes idx(std::uint8_t type, const std::vector<std::uint32_t>& dimensions, const Bytes& values) {
    Bytes bytes{0, 0, type, static_cast<std::uint8_t>(dimensions.size())};
    for (const std::uint32_t dimension : dimensions)
        for (const int shift : {24, 16, 8, 0})
            bytes.push_back(static_cast<std::uint8_t>(dimension >> shift & 0xff));
    bytes.insert(bytes.end(), values.begin(), values.end());
    return bytes;
}

/// Two images of 2 rows and 3 columns.
Bytes two_images() { return idx(8, {2, 2, 3}, {0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255}); }

std::string parse_error(const Bytes& bytes) {
    return message_of<std::runtime_error>([&] { (void)sd::parse_idx(bytes, "digits"); });
}

/// A file of these bytes, removed at the end.
class TemporaryFile {
public:
    explicit TemporaryFile(const Bytes& bytes) { sd::test::write(file_.path(), bytes); }
    [[nodiscard]] std::filesystem::path path() const { return file_.path(); }

private:
    sd::test::TemporaryFile file_;
};

}  // namespace

TEST_CASE("parse_idx: dimensions and values as the file has them", "[idx]") {
    const sd::IdxArray images = sd::parse_idx(two_images(), "digits");
    CHECK(images.dimensions == std::vector<Index>{2, 2, 3});
    CHECK(images.values == Bytes{0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255});
    const sd::IdxArray labels = sd::parse_idx(idx(8, {4}, {9, 0, 3, 1}), "labels");
    CHECK(labels.dimensions == std::vector<Index>{4});
    CHECK(labels.values == Bytes{9, 0, 3, 1});
    CHECK(sd::parse_idx(idx(8, {1, 2, 1, 2}, {1, 2, 3, 4}), "").dimensions ==
          std::vector<Index>{1, 2, 1, 2});
    // Every byte of a dimension counts.
    CHECK(sd::parse_idx(idx(8, {0x010203}, Bytes(0x010203, 7)), "").values.size() == 0x010203);
    // No images are images too.
    const sd::IdxArray none = sd::parse_idx(idx(8, {0, 28, 28}, {}), "none");
    CHECK(none.dimensions == std::vector<Index>{0, 28, 28});
    CHECK(none.values.empty());
}

TEST_CASE("parse_idx: anything but an IDX file is an error that names what was found", "[idx]") {
    Bytes excess = two_images();
    excess.push_back(0);
    Bytes cut = two_images();
    cut.pop_back();
    const std::uint32_t most = 0xffffffff;
    struct Case {
        Bytes bytes;
        const char* message;
    };
    for (const Case& bad : std::vector<Case>{
             {{}, "expected a magic number of 4 bytes, found 0 bytes"},
             {{0, 0, 8}, "expected a magic number of 4 bytes, found 3 bytes"},
             {{0x89, 'P', 'N', 'G'},
              "expected a magic number that starts with 0x0000, found 0x89504e47"},
             {{3, 8, 0, 0}, "expected a magic number that starts with 0x0000, found 0x03080000"},
             {idx(0x0d, {1}, {0, 0, 0, 0}),
              "expected values of type 0x08 (unsigned byte), found type 0x0d in magic number "
              "0x00000d01"},
             {{0, 0, 8, 0}, "expected 1 to 4 dimensions, found 0 in magic number 0x00000800"},
             {idx(8, {1, 1, 1, 1, 1}, {1}),
              "expected 1 to 4 dimensions, found 5 in magic number 0x00000805"},
             {{0, 0, 8, 255}, "expected 1 to 4 dimensions, found 255 in magic number 0x000008ff"},
             {{0, 0, 8, 3, 0, 0, 0, 1},
              "expected a header of 16 bytes for 3 dimensions, found 8 bytes"},
             {{0, 0, 8, 1, 0, 0, 0},
              "expected a header of 8 bytes for 1 dimensions, found 7 bytes"},
             {cut, "expected 12 bytes of values for dimensions 2 x 2 x 3, found 11"},
             {excess, "expected 12 bytes of values for dimensions 2 x 2 x 3, found 13"},
             {idx(8, {0, 28}, {1}), "expected 0 bytes of values for dimensions 0 x 28, found 1"},
             {idx(8, {most}, {1}),
              "expected 4294967295 bytes of values for dimensions 4294967295, found 1"},
             {idx(8, {0x80000000, 0x80000000, 2}, {1}),
              "expected dimensions that memory can hold, found 2147483648 x 2147483648 x 2"},
             {idx(8, {most, most, most, most}, {}),
              "expected dimensions that memory can hold, found 4294967295 x 4294967295 x "
              "4294967295 x 4294967295"},
             {idx(8, {0, most, most, most}, {}),
              "expected dimensions that memory can hold, found 0 x 4294967295 x 4294967295 x "
              "4294967295"},
             // 2^64 in all: a product that wraps to 0 would find its 0 bytes.
             {idx(8, {0x10000, 0x10000, 0x10000, 0x10000}, {}),
              "expected dimensions that memory can hold, found 65536 x 65536 x 65536 x 65536"}})
        CHECK_THAT(parse_error(bad.bytes),
                   Equals(std::string("parse_idx: digits: ") + bad.message));
    CHECK_THAT(parse_error({0x1f, 0x8b, 8, 0, 0, 0, 0, 0}),
               Equals("parse_idx: digits: expected plain IDX bytes, found gzip data (1f 8b): use "
                      "stochastic_depth::read_gzip from <stochastic_depth/io/gzip.hpp> and parse "
                      "what it returns"));
}

TEST_CASE("parse_idx: every truncation and every flipped header bit is a clear error", "[idx]") {
    const Bytes whole = two_images();
    for (std::size_t length = 0; length < whole.size(); ++length) {
        // A copy of that very size, so that a sanitizer sees any read past its end.
        const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        const std::string message = parse_error(part);
        CHECK_THAT(message, StartsWith("parse_idx: digits: expected"));
    }
    for (std::size_t bit = 0; bit < 16 * 8; ++bit) {
        Bytes changed = whole;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1U << bit % 8));
        // No one bit of this header gives another valid one: the product of the sizes changes.
        CHECK_THAT(parse_error(changed), StartsWith("parse_idx: digits: expected"));
    }
    // Random headers over random bytes: an error, or an array that is consistent.
    std::mt19937 engine(1);
    for (int round = 0; round < 20000; ++round) {
        Bytes bytes(engine() % 24);
        for (auto& byte : bytes) byte = static_cast<std::uint8_t>(engine() % 3);
        if (bytes.size() >= 4) bytes[0] = bytes[1] = 0, bytes[2] = 8;
        try {
            const sd::IdxArray array = sd::parse_idx(bytes, "noise");
            Index product = 1;
            for (const Index dimension : array.dimensions) product *= dimension;
            REQUIRE(product == static_cast<Index>(array.values.size()));
        } catch (const std::runtime_error&) {
        }
    }
}

TEST_CASE("read_idx: a file is read whole, of any length", "[idx]") {
    // Around the block that the reader reads at once.
    for (const std::uint32_t count : {0U, 1U, 65527U, 65528U, 65529U, 200000U}) {
        Bytes values(count);
        for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::uint8_t>(i * 31 % 251);
        const TemporaryFile file(idx(8, {count}, values));
        CHECK(sd::read_idx(file.path()).values == values);           // as a path
        CHECK(sd::read_idx(file.path().string()).values == values);  // as a name
    }
}

TEST_CASE("read_idx: a file that cannot be used is named in the error", "[idx]") {
    const auto error = [](const std::string& path) {
        return message_of<std::runtime_error>([&] { (void)sd::read_idx(path); });
    };
    CHECK_THAT(error("no/such/file"),
               Equals("read_idx: no/such/file: cannot open the file: No such file or directory"));
    const std::string directory = std::filesystem::temp_directory_path().string();
    CHECK_THAT(error(directory), StartsWith("read_idx: " + directory + ": cannot "));
    const TemporaryFile empty({});
    CHECK_THAT(
        error(empty.path().string()),
        EndsWith(empty.path().string() + ": expected a magic number of 4 bytes, found 0 bytes"));
    const TemporaryFile compressed({0x1f, 0x8b, 8, 0});
    CHECK_THAT(error(compressed.path().string()),
               StartsWith("parse_idx: " + compressed.path().string() +
                          ": expected plain IDX bytes, found gzip data"));
}

TEST_CASE("idx_images: one image in one column, from 0 to 1", "[idx]") {
    const sd::IdxArray array = sd::parse_idx(two_images(), "digits");
    const Eigen::MatrixXd images = sd::idx_images<double>(array);
    REQUIRE(images.rows() == 6);
    REQUIRE(images.cols() == 2);
    for (Index j = 0; j < 2; ++j)
        for (Index i = 0; i < 6; ++i)
            CHECK(images(i, j) == static_cast<double>(j == 0 ? i : 250 + i) / 255.0);
    CHECK(images(0, 0) == 0.0);
    CHECK(images(5, 1) == 1.0);
    const Eigen::MatrixXf single = sd::idx_images<float>(array);
    CHECK(single(5, 0) == 5.0F / 255.0F);
    CHECK(sd::idx_images<float>({{0, 28, 28}, {}}).rows() == 784);
    CHECK(sd::idx_images<float>({{0, 28, 28}, {}}).cols() == 0);
    CHECK(sd::idx_images<float>({{5, 0}, {}}).cols() == 5);
    CHECK(sd::idx_images<float>({{2, 1, 1, 2}, {1, 2, 3, 4}}).cols() == 2);
}

TEST_CASE("idx_labels: the values as class indices", "[idx]") {
    const Eigen::VectorXi labels = sd::idx_labels({{3}, {9, 0, 255}});
    CHECK(labels == Eigen::Vector3i(9, 0, 255));
    CHECK(sd::idx_labels({{0}, {}}).size() == 0);
}

TEST_CASE("idx_images, idx_labels: an array that does not fit is refused", "[idx]") {
    const auto images = [](const sd::IdxArray& array) {
        return message_of<std::invalid_argument>([&] { (void)sd::idx_images<float>(array); });
    };
    const auto labels = [](const sd::IdxArray& array) {
        return message_of<std::invalid_argument>([&] { (void)sd::idx_labels(array); });
    };
    CHECK_THAT(images({{3}, {1, 2, 3}}),
               Equals("idx_images: array must have 2 to 4 dimensions, got 1"));
    CHECK_THAT(images({}), Equals("idx_images: array must have 2 to 4 dimensions, got 0"));
    CHECK_THAT(images({{1, 1, 1, 1, 1}, {1}}),
               Equals("idx_images: array must have 2 to 4 dimensions, got 5"));
    CHECK_THAT(
        images({{2, 2}, {1, 2, 3}}),
        Equals("idx_images: array must have one value for each place of 2 x 2, got 3 values"));
    CHECK_THAT(
        images({{-1, -3}, {1, 2, 3}}),
        Equals("idx_images: array must have one value for each place of -1 x -3, got 3 values"));
    const Index most = std::numeric_limits<Index>::max();
    CHECK_THAT(images({{most, 2}, {}}),
               StartsWith("idx_images: array must have one value for each place"));
    CHECK_THAT(labels({{2, 2}, {1, 2, 3, 4}}),
               Equals("idx_labels: array must have 1 dimension, got 2"));
    CHECK_THAT(labels({{2}, {1}}),
               Equals("idx_labels: array must have one value for each place of 2, got 1 values"));
    CHECK_THAT(labels({{-1}, {}}),
               Equals("idx_labels: array must have one value for each place of -1, got 0 values"));
}
