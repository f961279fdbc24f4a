// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <Eigen/Core>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/version.hpp>

/// Much that must be the same on every rank, agreed on at once.
namespace stochastic_depth::detail {

/// What the code was made by, and what for: other builds may compute other bits.
[[nodiscard]] inline std::string build() {
    return message(library_version(), " by ", __VERSION__, " with Eigen ", EIGEN_WORLD_VERSION, ".",
                   EIGEN_MAJOR_VERSION, ".", EIGEN_MINOR_VERSION, ", ",
                   Eigen::SimdInstructionSetsInUse());
}

[[nodiscard]] inline std::uint64_t hash_of_text(std::string_view text) {
    return fnv1a({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

/// Lines of which each rank has its own, and which must be the same. Only where their hashes differ
/// they go to the others, to say which line it is. Collective.
inline void check_lines(const Communicator& ranks, const std::vector<AgreedValue>& lines) {
    std::string all;
    for (const AgreedValue& line : lines) all += message(line.name, "=", line.value, "\n");
    const std::string hash = message(hash_of_text(all));
    bool is_same = true;
    for (const std::string& of_rank : ranks.all_texts(hash)) is_same = is_same && of_rank == hash;
    // If one rank has found another hash, then every one has.
    if (!is_same) check_agreement(ranks, lines);
}

}  // namespace stochastic_depth::detail
