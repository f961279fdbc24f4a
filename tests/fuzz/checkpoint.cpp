// SPDX-License-Identifier: MIT

// load_parameters and load_training: from files as they are, and from their contents, sealed, since
// a hash of 64 bits is not to be guessed.

#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>

#include <algorithm>

#include <stochastic_depth/training/adam.hpp>

#include "fuzz.hpp"
#include "networks.hpp"

namespace {

using namespace stochastic_depth;
using fuzz::Bytes;
using Network = fuzz::Network<float>;

Bytes content_of(const Network& network) {
    Bytes content;
    detail::ByteWriter writer{content};
    detail::write_network(writer, network);
    return content;
}
Bytes content_of(const Network& network, const Adam<Network>& optimizer,
                 const TrainingState& state) {
    Bytes content;
    detail::ByteWriter writer{content};
    detail::write_state(writer, state);
    detail::write_options(writer, optimizer);
    detail::write_network(writer, network);
    detail::write_optimizer_state(writer, network, optimizer);
    return content;
}
Bytes sealed_parameters(std::span<const std::uint8_t> content) {
    return detail::sealed_bytes(detail::parameters_magic, detail::parameters_version, content);
}
Bytes sealed_training(std::span<const std::uint8_t> content) {
    return detail::sealed_bytes(detail::training_magic, detail::training_version, content);
}

const Network& fresh() {
    static const Network network = fuzz::network<float>();
    return network;
}

void read_parameters(std::span<const std::uint8_t> bytes) {
    const fuzz::File file{bytes};
    Network network = fresh();
    bool refused = false;
    fuzz::expect_memory(bytes.size(), [&] {
        refused = fuzz::is_refused([&] { load_parameters(file.path(), network); });
    });
    const Bytes content = content_of(network);
    static const Bytes before = content_of(fresh());
    if (refused) return fuzz::expect(content == before, "nothing is changed");
    // The format has one way to say a thing.
    const Bytes again = sealed_parameters(content);
    fuzz::expect(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()),
                 "what is written again is the same");
}

void read_training(std::span<const std::uint8_t> bytes) {
    const fuzz::File file{bytes};
    Network network = fresh();
    Adam<Network> optimizer{network};
    static const Bytes before = content_of(network, optimizer, {});
    TrainingState state;
    bool refused = false;
    // The description may be as long as the file.
    fuzz::expect_memory(2 * bytes.size(), [&] {
        refused = fuzz::is_refused([&] { state = load_training(file.path(), network, optimizer); });
    });
    if (refused)
        return fuzz::expect(content_of(network, optimizer, {}) == before, "nothing is changed");
    const Bytes content = content_of(network, optimizer, state);
    const fuzz::File again{sealed_training(content)};
    Network other = fresh();
    Adam<Network> other_optimizer{other};
    const TrainingState other_state = load_training(again.path(), other, other_optimizer);
    fuzz::expect(content_of(other, other_optimizer, other_state) == content,
                 "what is written again reads the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> bytes{data, size};
    switch (fuzz::take_choice(bytes, 4)) {
        case 0: read_parameters(bytes); break;
        case 1: read_parameters(sealed_parameters(bytes)); break;
        case 2: read_training(bytes); break;
        default: read_training(sealed_training(bytes)); break;
    }
    return 0;
}
