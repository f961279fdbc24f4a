// SPDX-License-Identifier: MIT

// load_safetensors, for networks of several kinds, from bytes in memory.

#include <stochastic_depth/io/safetensors.hpp>

#include <stochastic_depth/layers/image/conv2d.hpp>

#include "fuzz.hpp"
#include "networks.hpp"

namespace {

using namespace stochastic_depth;
using fuzz::Bytes;

/// The bits of all numbers of a network.
template <class Network>
Bytes numbers_of(const Network& network) {
    Bytes bytes;
    detail::for_each_tensor(network, [&]<class Number>(const std::string&, const TensorForm& form,
                                                       const Number* first) {
        std::size_t count = sizeof(Number);
        for (const Index size : form.shape) count *= static_cast<std::size_t>(size);
        const auto* const from = reinterpret_cast<const std::uint8_t*>(first);
        bytes.insert(bytes.end(), from, from + count);
    });
    return bytes;
}

template <class Network>
void read(const Network& fresh, std::span<const std::uint8_t> input, ExtraTensors extra) {
    const Bytes before = numbers_of(fresh);
    Network network = fresh;
    bool refused = false;
    fuzz::expect_memory(input.size(), [&] {
        Bytes bytes(input.begin(), input.end());
        refused = fuzz::is_refused(
            [&] { detail::read_safetensors(bytes, network, {}, extra); });
    });
    if (refused) return fuzz::expect(numbers_of(network) == before, "nothing is changed");
    // What is written again reads the same, whatever stood beside it.
    Bytes again = detail::safetensors_bytes(network, {}, {});
    Network other = fresh;
    detail::read_safetensors(again, other, {}, ExtraTensors::refuse);
    fuzz::expect(numbers_of(other) == numbers_of(network), "what is written again reads the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> bytes{data, size};
    static const auto narrow = fuzz::network<float>();
    static const auto wide = fuzz::network<double>();
    static const auto images = [] {
        Philox random{2};
        return Conv2d<float>{ImageShape{2, 3, 3}, {.channels = 2, .kernel = 2}, random};
    }();
    switch (fuzz::take_choice(bytes, 4)) {
        case 0: read(narrow, bytes, ExtraTensors::refuse); break;
        case 1: read(narrow, bytes, ExtraTensors::ignore); break;
        case 2: read(wide, bytes, ExtraTensors::refuse); break;
        default: read(images, bytes, ExtraTensors::ignore); break;
    }
    return 0;
}
