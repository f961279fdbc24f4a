// SPDX-License-Identifier: MIT
#include "support/catch.hpp"

#ifndef STOCHASTIC_DEPTH_TESTS_HAVE_GZIP

TEST_CASE("read_gzip: tested where zlib is installed", "[gzip]") { WARN("skipped: no zlib"); }

#else

#include <stochastic_depth/io/gzip.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/io/idx.hpp>

#include "support/files.hpp"

namespace sd = stochastic_depth;
using Catch::Matchers::Equals;
using Catch::Matchers::StartsWith;
using sd::Index;
using Bytes = std::vector<std::uint8_t>;

namespace {

/// A file of its own for each test, removed at the end.
class TemporaryFile : public sd::test::TemporaryFile {
public:
    void write(const Bytes& bytes) const { sd::test::write(path(), bytes); }
    [[nodiscard]] Bytes raw() const { return sd::test::read(path()); }
    /// Adds one gzip member to the file's end.
    void compress(const Bytes& bytes) const {
        const gzFile file = gzopen(path().c_str(), "ab");
        REQUIRE(file != nullptr);
        REQUIRE(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) ==
                static_cast<int>(bytes.size()));
        REQUIRE(gzclose(file) == Z_OK);
    }
};

Bytes noise(std::size_t size) {
    std::mt19937 engine(3);
    Bytes bytes(size);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(engine() % 19);
    return bytes;
}

std::string read_error(const std::string& path) {
    try {
        (void)sd::read_gzip(path);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "nothing was thrown";
}

}  // namespace

TEST_CASE("read_gzip: compressed and plain files give the same bytes, of any length", "[gzip]") {
    // Around the block that is read at once.
    for (const std::size_t size : {0U, 1U, 100U, 131071U, 131072U, 131073U, 262144U, 1000000U}) {
        const Bytes bytes = noise(size);
        const TemporaryFile compressed, plain;
        compressed.compress(bytes);
        plain.write(bytes);
        CHECK(sd::read_gzip(compressed.path()) == bytes);
        CHECK(sd::read_gzip(std::filesystem::path(compressed.path())) == bytes);
        CHECK(sd::read_gzip(plain.path()) == bytes);
    }
    // Members written one after the other are one file.
    const TemporaryFile two;
    two.compress({1, 2, 3});
    two.compress({4, 5});
    CHECK(sd::read_gzip(two.path()) == Bytes{1, 2, 3, 4, 5});
}

TEST_CASE("read_gzip: a file that cannot be opened is named in the error", "[gzip]") {
    CHECK_THAT(
        read_error("no/such/file.gz"),
        Equals("read_gzip: no/such/file.gz: cannot open the file: No such file or directory"));
    const std::string directory = std::filesystem::temp_directory_path().string();
    CHECK_THAT(read_error(directory), StartsWith("read_gzip: " + directory + ": cannot "));
}

TEST_CASE("read_gzip: every truncation of a compressed file is an error", "[gzip]") {
    const TemporaryFile file;
    for (const std::size_t size : {0U, 5U, 700U}) {
        file.write({});
        file.compress(noise(size));
        const Bytes whole = file.raw();
        // One byte or none is no gzip file yet: it is returned as it is.
        for (std::size_t length = 2; length < whole.size(); ++length) {
            file.write(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)));
            CAPTURE(size, length, whole.size());
            CHECK_THAT(read_error(file.path()),
                       Equals("read_gzip: " + file.path() + ": the gzip data is cut short"));
        }
    }
}

TEST_CASE("read_gzip: a damaged file is an error or, where no byte depends on it, no change",
          "[gzip]") {
    const TemporaryFile file;
    const Bytes bytes = noise(300);
    file.compress(bytes);
    const Bytes whole = file.raw();
    std::size_t errors = 0;
    for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
        Bytes changed = whole;
        changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1U << bit % 8));
        file.write(changed);
        CAPTURE(bit);
        try {
            const Bytes read = sd::read_gzip(file.path());
            // Without its first two bytes it is no gzip file, and is returned as it is.
            CHECK(read == (bit < 16 ? changed : bytes));
        } catch (const std::runtime_error& error) {
            ++errors;
            CHECK_THAT(error.what(), StartsWith("read_gzip: " + file.path() + ": "));
        }
    }
    // No byte depends on the header's time and flags, nor on the up to 7 bits that fill the last
    // byte of the compressed data.
    CHECK(errors >= 8 * (whole.size() - 10) - 7);
    Bytes wrong_sum = whole;
    wrong_sum[whole.size() - 8] ^= 1;
    file.write(wrong_sum);
    CHECK_THAT(read_error(file.path()), Equals("read_gzip: " + file.path() +
                                               ": cannot read the file: incorrect data check"));
}

TEST_CASE("read_gzip: what stands behind the compressed data and is none is an error", "[gzip]") {
    const TemporaryFile file;
    file.compress(noise(300));
    const Bytes whole = file.raw();
    for (const Bytes& more : {Bytes{0}, Bytes{'x', 'y'}, Bytes{0x1f, 0x8c}, Bytes(100000, 7)}) {
        Bytes longer = whole;
        longer.insert(longer.end(), more.begin(), more.end());
        file.write(longer);
        CAPTURE(more.size());
        CHECK_THAT(read_error(file.path()),
                   Equals("read_gzip: " + file.path() + ": the gzip data is followed by " +
                          std::to_string(more.size()) + " bytes of something else"));
    }
    // A second member, cut short anywhere.
    for (std::size_t length = 1; length < whole.size(); ++length) {
        Bytes longer = whole;
        longer.insert(longer.end(), whole.begin(),
                      whole.begin() + static_cast<std::ptrdiff_t>(length));
        file.write(longer);
        CAPTURE(length);
        CHECK_THAT(read_error(file.path()),
                   Equals("read_gzip: " + file.path() + ": the gzip data is cut short"));
    }
}

TEST_CASE("read_gzip, parse_idx: Fashion-MNIST is what its authors say", "[gzip][idx]") {
    const std::string folder = "/usr/share/datasets/fashion-mnist/";  // where Debian puts it
    if (!std::filesystem::exists(std::filesystem::path(folder) / "train-images-idx3-ubyte.gz")) {
        WARN("skipped: Fashion-MNIST is not installed (Debian package dataset-fashion-mnist)");
        return;
    }
    const auto load = [&](const std::string& name) {
        return sd::parse_idx(sd::read_gzip(folder + name), name);
    };
    const sd::IdxArray images = load("train-images-idx3-ubyte.gz");
    CHECK(images.dimensions == std::vector<Index>{60000, 28, 28});
    const Eigen::MatrixXf pixels = sd::idx_images<float>(images);
    REQUIRE(pixels.rows() == 784);
    REQUIRE(pixels.cols() == 60000);
    CHECK(pixels.minCoeff() == 0.0F);
    CHECK(pixels.maxCoeff() == 1.0F);
    // Mean 0.2860 and standard deviation 0.3530 of all pixels: what everybody normalises by.
    double sum = 0.0, squares = 0.0;
    for (const std::uint8_t value : images.values) {
        sum += value;
        squares += static_cast<double>(value) * value;
    }
    const double mean = sum / 255.0 / 47040000.0;
    CHECK(std::abs(mean - 0.2860) <= 5e-5);
    CHECK(std::abs(std::sqrt(squares / 255.0 / 255.0 / 47040000.0 - mean * mean) - 0.3530) <= 5e-5);

    const auto check_labels = [&](const std::string& name, int each,
                                  const std::vector<int>& first) {
        const Eigen::VectorXi labels = sd::idx_labels(load(name));
        REQUIRE(labels.size() == 10 * each);
        for (int label = 0; label < 10; ++label) CHECK((labels.array() == label).count() == each);
        for (std::size_t j = 0; j < first.size(); ++j)
            CHECK(labels(static_cast<Index>(j)) == first[j]);
    };
    check_labels("train-labels-idx1-ubyte.gz", 6000, {9, 0, 0, 3, 0, 2, 7, 2, 5, 5});
    check_labels("t10k-labels-idx1-ubyte.gz", 1000, {9, 2, 1, 1, 6, 1, 4, 6, 5, 7});
    CHECK(load("t10k-images-idx3-ubyte.gz").dimensions == std::vector<Index>{10000, 28, 28});
    // The reader for plain files says what to do with these.
    const std::string compressed = folder + "t10k-labels-idx1-ubyte.gz";
    CHECK_THROWS_WITH(sd::read_idx(compressed),
                      StartsWith("parse_idx: " + compressed + ": expected plain IDX bytes"));
}

#endif  // STOCHASTIC_DEPTH_TESTS_HAVE_GZIP
