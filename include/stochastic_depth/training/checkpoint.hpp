// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/training/named_matrices.hpp>

/// A network in a file: its structure with the survival probabilities, its parameters, and what its
/// layers keep beside them, such as batch statistics. Needs POSIX, for which reason it is not part
/// of all.hpp.
///
/// Format, version 3, all numbers little-endian: "SDPARAMS", version (4 bytes), length of what
/// follows but the hash (8); structure, parameters and layers' state, as named_matrices.hpp
/// describes them; at the end FNV-1a of all bytes before (8).
namespace stochastic_depth {
namespace detail {

inline constexpr std::string_view parameters_magic = "SDPARAMS";
inline constexpr std::uint32_t parameters_version = 3;

/// All that makes a network what it has learned.
template <class Network>
void write_network(ByteWriter& writer, const Network& network) {
    write_structure(writer, network);
    write_matrices(writer, parameters_of(network));
    write_matrices(writer, state_of(network));
}
template <class Network>
void read_network(ByteReader& reader, Network& network, Pass pass) {
    match_structure(reader, network);
    read_matrices(reader, "parameter", parameters_of(network), pass);
    read_matrices(reader, "state record", state_of(network), pass);
}

}  // namespace detail

/// Writes a network into a file: all that it answers with.
///
/// Beside parameters and state, the file says what the network is made of, as `describe` does. What
/// a callable computes is not in it.
///
/// The file is replaced in one step: whenever the process or the machine stops, the old file or the
/// new one is there, whole. (path + ".partial" may be left over; the next call overwrites it.) One
/// writer of a path at a time.
///
/// \param path     A std::filesystem::path does as well.
/// \throws std::runtime_error  naming the file and the reason, if it cannot be written; the old
///                             file is untouched then.
template <class Network>
void save_parameters(const std::string& path, const Network& network) {
    std::vector<std::uint8_t> content;
    detail::ByteWriter writer{content};
    detail::write_network(writer, network);
    detail::write_sealed("save_parameters", path, detail::parameters_magic,
                         detail::parameters_version, content);
}

/// Reads the parameters of a network of the same build from a file that save_parameters wrote, and
/// the state of its layers. They have the same bits then, whatever the machine, and the network
/// answers as the saved one did.
///
/// \param path     A std::filesystem::path does as well.
/// \param network  Of the same structure: the same kinds of layers in the same places, with the
///                 same survival probabilities.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
///                             short, damaged, of another kind or version, or comes from a network
///                             of other layers, survival probabilities or parameters, by path, shape
///                             or scalar type; the network is unchanged then.
template <class Network>
void load_parameters(const std::string& path, Network& network) {
    detail::read_checkpoint("load_parameters", path, detail::parameters_magic,
                            detail::parameters_version,
                            [&](detail::ByteReader& reader, detail::Pass pass) {
                                detail::read_network(reader, network, pass);
                            });
}

}  // namespace stochastic_depth
