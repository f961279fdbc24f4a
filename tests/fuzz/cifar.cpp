// SPDX-License-Identifier: MIT

// parse_cifar10 and parse_cifar100. Records have 3,073 and 3,074 bytes: a seed of each length is
// what it takes to get past the first check.

#include <stochastic_depth/io/cifar.hpp>

#include <algorithm>

#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace stochastic_depth;
    std::span<const std::uint8_t> bytes{data, size};
    const bool has_superclasses = fuzz::take_choice(bytes, 2) == 1;
    CifarImages images;
    bool refused = false;
    fuzz::expect_memory(bytes.size(), [&] {
        refused = fuzz::is_refused([&] {
            images = has_superclasses ? parse_cifar100(bytes, "bytes")
                                      : parse_cifar10(bytes, "bytes");
        });
    });
    if (refused) return 0;
    // The format has one way to say a thing.
    fuzz::Bytes again;
    const Index plane = CifarImages::shape.positions();
    for (Index j = 0; j < images.pixels.cols(); ++j) {
        if (has_superclasses) again.push_back(static_cast<std::uint8_t>(images.superclasses(j)));
        again.push_back(static_cast<std::uint8_t>(images.labels(j)));
        for (Index c = 0; c < 3; ++c)
            for (Index p = 0; p < plane; ++p) again.push_back(images.pixels(c + 3 * p, j));
    }
    fuzz::expect(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()),
                 "what is written again is the same");
    return 0;
}
