// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// How far a sum on many ranks is.
struct DistributedProgress {
    /// Share of the pieces that are finished, in [0, 1], those of earlier runs among them.
    double fraction = 0;
    /// Seconds that it has taken, earlier runs with it.
    double seconds = 0;
    /// Seconds that it will take, guessed from this run; infinite before its first piece.
    double seconds_left = 0;
    /// What ranks are handed out: subtrees, or blocks of masks.
    std::uint64_t pieces = 0;
    std::uint64_t finished_pieces = 0;
};

/// Called on rank 0 alone, on the thread that asked for the sum, some times a second; false asks to
/// stop.
using DistributedProgressCallback = std::function<bool(const DistributedProgress&)>;

/// How a sum is shared by the ranks.
struct DistributedOptions {
    /// Threads of each rank, at least 1. (A launcher may bind a rank to one core: Open MPI's
    /// --bind-to none lets it have more.)
    unsigned threads = 1;
    /// The file that finished pieces are kept in, and that a sum goes on from if it is there; ""
    /// keeps none. Rank 0 alone reads and writes it.
    std::string path = {};
    /// Seconds from one writing of the file to the next, above 0.
    double save_seconds = 30;
    /// Told of the progress, on rank 0.
    DistributedProgressCallback progress = nullptr;
};

/// How a tree is.
struct SharedTreeOptions : DistributedOptions {
    /// The most evaluations of skippable layers that one column may take, over all ranks: 2^L - 1
    /// for L layers with p < 1.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 40;
    /// The masks of this many first layers make the subtrees that ranks are handed out, at most 40;
    /// 0: as many as make subtrees of some 10 ms.
    Index prefix_layers = 0;
};

namespace detail {

inline void check_options(std::string_view who, const DistributedOptions& options) {
    if (options.threads < 1) refuse(who, ": threads must be at least 1, got 0");
    if (!(options.save_seconds > 0 && std::isfinite(options.save_seconds)))
        refuse(who, ": save_seconds must be finite and above 0, got ", options.save_seconds);
}
inline void check_options(std::string_view who, const SharedTreeOptions& options) {
    check_options(who, static_cast<const DistributedOptions&>(options));
    if (options.prefix_layers < 0 || options.prefix_layers > 40)
        refuse(who, ": prefix_layers must lie in [0, 40], got ", options.prefix_layers);
}

}  // namespace detail
}  // namespace stochastic_depth
