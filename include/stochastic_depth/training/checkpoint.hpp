// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/structure.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/types.hpp>

/// Parameters of a network in a file. Needs POSIX, for which reason it is not part of all.hpp.
///
/// Format, version 1, all numbers little-endian: "SDPARAMS", version (4 bytes), length of what
/// follows but the hash (8); number of parameters (8), and for each, in the network's order: length
/// of its name (4), name, bits of its scalar, 32 or 64 (4), rows (8), columns (8), entries column
/// by column as IEEE 754 numbers; at the end FNV-1a of all bytes before (8).
namespace stochastic_depth {
namespace detail {

inline constexpr std::string_view parameters_magic = "SDPARAMS";
inline constexpr std::uint32_t parameters_version = 1;

/// The unsigned number that has the bits of a Scalar.
template <class Scalar>
struct BitsOf {
    static_assert(std::is_same_v<Scalar, double>, "checkpoints hold parameters of float or double");
    using type = std::uint64_t;
};
template <>
struct BitsOf<float> {
    using type = std::uint32_t;
};

template <class Parameter>
using ParameterBits = typename BitsOf<typename Parameter::Scalar>::type;

/// What a record says of its parameter: "weights [3 x 2] of 64 bits".
[[nodiscard]] inline std::string described(std::string_view name, std::uint64_t rows,
                                           std::uint64_t columns, std::uint32_t bits) {
    return message(name, " [", rows, " x ", columns, "] of ", bits, " bits");
}

/// Reads one record's head, and refuses it unless it is this parameter's.
template <class Parameter>
void match_record(ByteReader& reader, std::uint64_t index, const char* name,
                  const Parameter& parameter) {
    const std::string found_name = reader.text();
    const auto bits = reader.number<std::uint32_t>();
    const auto rows = reader.number<std::uint64_t>(), columns = reader.number<std::uint64_t>();
    const std::string found = described(found_name, rows, columns, bits);
    const std::string expected = described(name, static_cast<std::uint64_t>(parameter.rows()),
                                           static_cast<std::uint64_t>(parameter.cols()),
                                           8 * sizeof(typename Parameter::Scalar));
    if (found != expected)
        throw std::runtime_error(message("parameter ", index, " of the file is ", found,
                                         ", the network's is ", expected));
}

template <class Parameter, class Visit>
void for_each_entry(Parameter& parameter, const Visit& visit) {
    for (Index j = 0; j < parameter.cols(); ++j)
        for (Index i = 0; i < parameter.rows(); ++i) visit(parameter(i, j));
}

}  // namespace detail

/// Writes all parameters of a network into a file.
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
    std::uint64_t count = 0;
    detail::visit_parameters(network, [&](const char*, const auto&) { ++count; });
    std::vector<std::uint8_t> content;
    detail::ByteWriter writer{content};
    writer.number(count);
    detail::visit_parameters(
        network, [&]<class Parameter>(const char* name, const Parameter& parameter) {
            using Bits = detail::ParameterBits<Parameter>;
            writer.text(name);
            writer.number(static_cast<std::uint32_t>(8 * sizeof(Bits)));
            writer.number(static_cast<std::uint64_t>(parameter.rows()));
            writer.number(static_cast<std::uint64_t>(parameter.cols()));
            detail::for_each_entry(parameter,
                                   [&](auto entry) { writer.number(std::bit_cast<Bits>(entry)); });
        });
    detail::write_sealed("save_parameters", path, detail::parameters_magic,
                         detail::parameters_version, content);
}

/// Reads the parameters of a network of the same build from a file that save_parameters wrote. They
/// have the same bits then, whatever the machine.
///
/// \param path     A std::filesystem::path does as well.
/// \param network  Keeps its survival probabilities; only parameters are read.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
///                             short, damaged, of another kind or version, or holds other
///                             parameters than the network has, by name, shape or scalar type; the network is unchanged then.
template <class Network>
void load_parameters(const std::string& path, Network& network) {
    const std::vector<std::uint8_t> content = detail::read_sealed(
        "load_parameters", path, detail::parameters_magic, detail::parameters_version);
    try {
        std::uint64_t expected = 0;
        detail::visit_parameters(network, [&](const char*, const auto&) { ++expected; });
        detail::ByteReader reader{content};
        const auto count = reader.number<std::uint64_t>();
        if (count != expected)
            throw std::runtime_error(detail::message("the file holds ", count,
                                                     " parameters, the network has ", expected));
        // Everything is read before anything is written.
        std::uint64_t index = 0;
        detail::ByteReader check = reader;
        detail::visit_parameters(
            network, [&]<class Parameter>(const char* name, const Parameter& parameter) {
                detail::match_record(check, index++, name, parameter);
                detail::for_each_entry(parameter, [&](auto) {
                    (void)check.number<detail::ParameterBits<Parameter>>();
                });
            });
        if (check.left() != 0)
            throw std::runtime_error(
                detail::message("the file has ", check.left(), " bytes after the last parameter"));
        index = 0;
        detail::visit_parameters(network, [&]<class Parameter>(const char* name,
                                                               Parameter& parameter) {
            using Scalar = typename Parameter::Scalar;
            detail::match_record(reader, index++, name, parameter);
            detail::for_each_entry(parameter, [&](Scalar& entry) {
                entry =
                    std::bit_cast<Scalar>(reader.number<typename detail::BitsOf<Scalar>::type>());
            });
        });
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(detail::message("load_parameters: ", path, ": ", error.what()));
    }
}

}  // namespace stochastic_depth
