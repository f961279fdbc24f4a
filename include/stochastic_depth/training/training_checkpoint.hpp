// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/named_matrices.hpp>
#include <stochastic_depth/training/resumable_optimizer.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/version.hpp>

/// All that a training goes on from, in a file. Needs POSIX, for which reason it is not part of
/// all.hpp.
///
/// Format, version 2, all numbers little-endian, a text being its length (4 bytes) and its letters:
/// "SDRESUME", version (4), length of what follows but the hash (8); library version (text), stream
/// version of the masks (4); step, epoch, seed (8 each), mask scope, scaling (4 each), description
/// (text); optimizer (text), learning rate (8, IEEE 754), number of options (8), and for each name
/// and value (texts); structure, parameters and layers' state, as named_matrices.hpp describes them;
/// number of states of the optimizer (8), and for each its name (text) and a list, or the number of
/// counts (8) and counts (8 each); at the end FNV-1a of all bytes before (8).
namespace stochastic_depth {

/// Where a training stands, beside network and optimizer.
struct TrainingState {
    /// Steps done, over all epochs: the number of the next step, of which its masks are a function.
    std::uint64_t step = 0;
    /// The epoch of the next step, of which the order of its samples is a function.
    std::uint64_t epoch = 0;
    std::uint64_t seed = 0;
    MaskScope mask_scope = MaskScope::sample;
    Scaling scaling = Scaling::none;
    /// Whatever else the caller's program has to know again, such as its schedules.
    std::string description = {};
    /// Of the library that wrote the file; `save_training` writes its own, whatever stands here.
    std::string library_version = {};

    friend bool operator==(const TrainingState&, const TrainingState&) = default;
};

namespace detail {

inline constexpr std::string_view training_magic = "SDRESUME";
inline constexpr std::uint32_t training_version = 2;

/// The version of the stream that a training's masks are drawn from.
[[nodiscard]] inline std::uint32_t mask_stream_version(MaskScope scope) {
    return scope == MaskScope::subset ? FixedSizeMaskSampler::stream_version
                                      : MaskSampler::stream_version;
}

inline void write_state(ByteWriter& writer, const TrainingState& state) {
    writer.text(library_version());
    writer.number(mask_stream_version(state.mask_scope));
    writer.number(state.step);
    writer.number(state.epoch);
    writer.number(state.seed);
    writer.number(static_cast<std::uint32_t>(state.mask_scope));
    writer.number(static_cast<std::uint32_t>(state.scaling));
    writer.text(state.description);
}

template <class Enum>
[[nodiscard]] Enum read_enum(ByteReader& reader, std::string_view what, Enum last) {
    const auto value = reader.number<std::uint32_t>();
    if (value > static_cast<std::uint32_t>(last))
        throw std::runtime_error(
            message("the file has ", what, " ", value, ", which this library doesn't know"));
    return static_cast<Enum>(value);
}

[[nodiscard]] inline TrainingState read_state(ByteReader& reader) {
    TrainingState state;
    state.library_version = reader.text();
    const auto stream_version = reader.number<std::uint32_t>();
    state.step = reader.number<std::uint64_t>();
    state.epoch = reader.number<std::uint64_t>();
    state.seed = reader.number<std::uint64_t>();
    state.mask_scope = read_enum(reader, "mask scope", MaskScope::subset);
    state.scaling = read_enum(reader, "scaling", Scaling::inverted);
    state.description = reader.text();
    if (const auto own = mask_stream_version(state.mask_scope); stream_version != own)
        throw std::runtime_error(message("the masks of the training are of stream version ",
                                         stream_version, ", and this library draws version ", own));
    return state;
}

}  // namespace detail

/// Writes what a training goes on from into a file: the network's structure and parameters, what its
/// layers keep beside them (batch statistics), the optimizer's options and
/// state, and where the training stands.
///
/// The file is replaced in one step: whenever the process or the machine stops, the old file or the
/// new one is there, whole. (path + ".partial" may be left over; the next call overwrites it.) One
/// writer of a path at a time.
///
/// \param path     A std::filesystem::path does as well.
/// \param network  Between two steps, as is the optimizer: no gradient is stored.
/// \throws std::runtime_error  naming the file and the reason, if it cannot be written; the old
///                             file is untouched then.
template <class Network, ResumableOptimizer Optimizer>
void save_training(const std::string& path, const Network& network, const Optimizer& optimizer,
                   const TrainingState& state) {
    std::vector<std::uint8_t> content;
    detail::ByteWriter writer{content};
    detail::write_state(writer, state);
    detail::write_options(writer, optimizer);
    detail::write_network(writer, network);
    detail::write_optimizer_state(writer, network, optimizer);
    detail::write_sealed("save_training", path, detail::training_magic, detail::training_version,
                         content);
}

/// Reads a file that save_training wrote into a network and an optimizer of the same build. The
/// training goes on from there with the same bits as if it had not been interrupted.
///
/// What a step changes is read: parameters, the layers' state, the optimizer's state, its learning
/// rate. What the caller's program says and no step changes must be the same in both: the kind of
/// the optimizer, its other options, the network's layers with their survival probabilities.
///
/// \param path       A std::filesystem::path does as well.
/// \returns          Where the training stands.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
///                             short, damaged, of another kind or version, or comes from another
///                             network, optimizer or version of the masks; network and optimizer
///                             are unchanged then.
template <class Network, ResumableOptimizer Optimizer>
[[nodiscard]] TrainingState load_training(const std::string& path, Network& network,
                                          Optimizer& optimizer) {
    TrainingState state;
    detail::read_checkpoint("load_training", path, detail::training_magic, detail::training_version,
                            [&](detail::ByteReader& reader, detail::Pass pass) {
                                state = detail::read_state(reader);
                                detail::read_options(reader, optimizer, pass);
                                detail::read_network(reader, network, pass);
                                detail::read_optimizer_state(reader, network, optimizer, pass);
                            });
    return state;
}

}  // namespace stochastic_depth
