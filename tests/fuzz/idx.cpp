// SPDX-License-Identifier: MIT

// parse_idx, and what is made of arrays.

#include <stochastic_depth/io/idx.hpp>

#include <algorithm>

#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace stochastic_depth;
    const std::span<const std::uint8_t> bytes{data, size};
    IdxArray array;
    bool refused = false;
    fuzz::expect_memory(size, [&] {
        refused = fuzz::is_refused([&] { array = parse_idx(bytes, "bytes"); });
    });
    if (refused) return 0;
    // The format has one way to say a thing.
    fuzz::Bytes again{0, 0, 8, static_cast<std::uint8_t>(array.dimensions.size())};
    for (const Index dimension : array.dimensions)
        for (int shift = 24; shift >= 0; shift -= 8)
            again.push_back(static_cast<std::uint8_t>(dimension >> shift & 0xFF));
    again.insert(again.end(), array.values.begin(), array.values.end());
    fuzz::expect(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()),
                 "what is written again is the same");
    const auto value = [&](Index i) { return array.values[static_cast<std::size_t>(i)]; };
    if (array.dimensions.size() == 1) {
        const Eigen::VectorXi labels = idx_labels(array);
        for (Index i = 0; i < labels.size(); ++i)
            fuzz::expect(labels(i) == value(i), "labels are the values");
        return 0;
    }
    const Matrix<float> images = idx_images<float>(array);
    fuzz::expect(images.cols() == array.dimensions[0], "an image is a column");
    for (Index i = 0; i < images.size(); ++i)
        fuzz::expect(images.data()[i] == static_cast<float>(value(i)) / 255.0f,
                     "pixels are the values");
    return 0;
}
