// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/file.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// What a file of CIFAR-10 or CIFAR-100 holds.
struct CifarImages {
    static constexpr ImageShape shape{3, 32, 32};

    /// [3,072 x images], in the order of ImageShape: red, green, blue of a pixel, then the next one
    /// of the row.
    Matrix<std::uint8_t> pixels;
    /// [images], in [0, 10) or [0, 100).
    Eigen::VectorXi labels;
    /// [images], in [0, 20): the superclasses of CIFAR-100; of CIFAR-10 empty.
    Eigen::VectorXi superclasses;
};

namespace detail {

/// Records of label bytes, each below its limit, and planes of red, green and blue, rows first.
[[nodiscard]] inline CifarImages parse_cifar(std::string_view who,
                                             std::span<const std::uint8_t> bytes,
                                             std::string_view name, std::span<const int> limits) {
    const auto fail = [&](const auto&... parts) {
        throw std::runtime_error(message(who, ": ", name, ": ", parts...));
    };
    constexpr auto plane = static_cast<std::size_t>(CifarImages::shape.positions());
    const std::size_t record = limits.size() + 3 * plane;
    if (bytes.size() % record != 0)
        fail("expected records of ", record, " bytes, found ", bytes.size(), " bytes");
    const auto images = static_cast<Index>(bytes.size() / record);
    std::vector<Eigen::VectorXi> labels(limits.size(), Eigen::VectorXi(images));
    for (Index j = 0; j < images; ++j)
        for (std::size_t k = 0; k < limits.size(); ++k) {
            const int label = bytes[static_cast<std::size_t>(j) * record + k];
            if (label >= limits[k])
                fail("expected labels below ", limits[k], ", found ", label, " of image ", j);
            labels[k](j) = label;
        }
    CifarImages result;
    result.pixels.resize(CifarImages::shape.size(), images);
    for (Index j = 0; j < images; ++j) {
        const std::uint8_t* const from =
            bytes.data() + static_cast<std::size_t>(j) * record + limits.size();
        std::uint8_t* to = result.pixels.col(j).data();
        for (std::size_t p = 0; p < plane; ++p)
            for (std::size_t c = 0; c < 3; ++c) *to++ = from[p + c * plane];
    }
    result.labels = std::move(labels.back());
    if (labels.size() > 1) result.superclasses = std::move(labels.front());
    return result;
}

}  // namespace detail

/// Reads the binary version of CIFAR-10 from memory: records of a label and 3,072 bytes.
///
/// \param bytes  A whole file, of any number of records.
/// \param name   What to call it in error messages: the file's name.
/// \throws std::runtime_error  naming what was expected and what was found, if the bytes are
///                             anything else.
/// \source Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; the data set's
///         page, "Binary version".
[[nodiscard]] inline CifarImages parse_cifar10(std::span<const std::uint8_t> bytes,
                                               std::string_view name) {
    static constexpr int limits[] = {10};
    return detail::parse_cifar("parse_cifar10", bytes, name, limits);
}

/// The same of CIFAR-100: records of a superclass, a class and 3,072 bytes.
[[nodiscard]] inline CifarImages parse_cifar100(std::span<const std::uint8_t> bytes,
                                                std::string_view name) {
    static constexpr int limits[] = {20, 100};
    return detail::parse_cifar("parse_cifar100", bytes, name, limits);
}

/// Reads a file of CIFAR-10: data_batch_1.bin, ..., data_batch_5.bin, test_batch.bin.
/// \throws std::runtime_error  if the file cannot be read, or as parse_cifar10 does.
[[nodiscard]] inline CifarImages read_cifar10(const std::string& path) {
    return parse_cifar10(detail::read_file("read_cifar10", path), path);
}

/// Reads a file of CIFAR-100: train.bin, test.bin.
/// \throws std::runtime_error  if the file cannot be read, or as parse_cifar100 does.
[[nodiscard]] inline CifarImages read_cifar100(const std::string& path) {
    return parse_cifar100(detail::read_file("read_cifar100", path), path);
}

}  // namespace stochastic_depth
