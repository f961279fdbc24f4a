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
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/training/parameters.hpp>
#include <stochastic_depth/types.hpp>

/// What checkpoints are made of: lists of named matrices. Needs POSIX, for which reason it is not
/// part of all.hpp.
///
/// A structure, all numbers little-endian: number of layers (8 bytes), and for each, outer before
/// inner, its path and what it says of itself, texts, each its length (4) and its letters.
///
/// A list, all numbers little-endian: number of records (8 bytes), and for each, in the network's
/// order: length of its name (4), name, bits of its scalar, 32 or 64 (4), rows (8), columns (8),
/// entries column by column as IEEE 754 numbers. A name is the path of a parameter through the
/// network: "0.branch.weights" is the first layer's branch's.
namespace stochastic_depth::detail {

/// The unsigned number that has the bits of a Scalar.
template <class Scalar>
struct BitsOf {
    static_assert(std::is_same_v<Scalar, double>, "checkpoints hold numbers of float or double");
    using type = std::uint64_t;
};
template <>
struct BitsOf<float> {
    using type = std::uint32_t;
};

// Lists: functions that call visit(name, matrix) for each record.
template <class Network>
[[nodiscard]] auto parameters_of(Network& network) {
    return [&](const auto& visit) { visit_parameters(network, WithPaths{visit}); };
}
template <class Network>
[[nodiscard]] auto state_of(Network& network) {
    return [&](const auto& visit) { visit_state(network, WithPaths{visit}); };
}
/// What has the form of a network's gradient, whatever it holds.
template <class Network, class Gradient>
[[nodiscard]] auto entries_of(const Network& network, Gradient& gradient) {
    return [&](const auto& visit) {
        const auto pass_on = [&](const std::string& name, const auto&, auto& entries) {
            visit(name, entries);
        };
        visit_parameters(network, WithPaths{pass_on}, gradient);
    };
}

template <class List>
[[nodiscard]] std::uint64_t count_matrices(const List& list) {
    std::uint64_t count = 0;
    list([&](const std::string&, const auto&) { ++count; });
    return count;
}

template <class Entries, class Visit>
void for_each_entry(Entries& matrix, const Visit& visit) {
    for (Index j = 0; j < matrix.cols(); ++j)
        for (Index i = 0; i < matrix.rows(); ++i) visit(matrix(i, j));
}

template <class List>
void write_matrices(ByteWriter& writer, const List& list) {
    writer.number(count_matrices(list));
    list([&]<class Entries>(const std::string& name, const Entries& matrix) {
        using Bits = typename BitsOf<typename Entries::Scalar>::type;
        writer.text(name);
        writer.number(static_cast<std::uint32_t>(8 * sizeof(Bits)));
        writer.number(static_cast<std::uint64_t>(matrix.rows()));
        writer.number(static_cast<std::uint64_t>(matrix.cols()));
        for_each_entry(matrix, [&](auto entry) { writer.number(std::bit_cast<Bits>(entry)); });
    });
}

/// What a record says of its matrix: "0.weights [3 x 2] of 64 bits".
[[nodiscard]] inline std::string described(std::string_view name, std::uint64_t rows,
                                           std::uint64_t columns, std::uint32_t bits) {
    return message(name, " [", rows, " x ", columns, "] of ", bits, " bits");
}

/// Of a file's texts as messages show them.
inline constexpr std::size_t most_of_text = 1024;

/// Whoever reads a file goes through it twice, so that all of it has been checked before anything
/// is written.
enum class Pass { check, write };

/// \param what  A record, as messages call it.
/// \throws std::runtime_error  if the records are not those of the list.
template <class List>
void read_matrices(ByteReader& reader, std::string_view what, const List& list, Pass pass) {
    const auto count = reader.number<std::uint64_t>();
    if (const auto expected = count_matrices(list); count != expected)
        throw std::runtime_error(
            message("the file holds ", count, " ", what, "s, the network has ", expected));
    std::uint64_t index = 0;
    list([&]<class Entries>(const std::string& name, Entries& matrix) {
        using Scalar = typename Entries::Scalar;
        using Bits = typename BitsOf<Scalar>::type;
        const std::string_view found_name = reader.text();
        const auto bits = reader.number<std::uint32_t>();
        const auto rows = reader.number<std::uint64_t>(), columns = reader.number<std::uint64_t>();
        const auto own_rows = static_cast<std::uint64_t>(matrix.rows()),
                   own_columns = static_cast<std::uint64_t>(matrix.cols());
        constexpr std::uint32_t own_bits = 8 * sizeof(Scalar);
        if (found_name != name || bits != own_bits || rows != own_rows || columns != own_columns)
            throw std::runtime_error(message(
                what, " ", index, " of the file is ",
                described(beginning(found_name, most_of_text), rows, columns, bits),
                ", the network's is ", described(name, own_rows, own_columns, own_bits)));
        ++index;
        if (pass == Pass::check)
            reader.skip(static_cast<std::size_t>(matrix.size()) * sizeof(Scalar));
        else
            for_each_entry(matrix, [&](Scalar& entry) {
                entry = std::bit_cast<Scalar>(reader.number<Bits>());
            });
    });
}

template <class Network>
[[nodiscard]] std::uint64_t count_layers(const Network& network) {
    std::uint64_t count = 0;
    visit_layers(network, [&](const std::string&, const std::string&) { ++count; });
    return count;
}

template <class Network>
void write_structure(ByteWriter& writer, const Network& network) {
    writer.number(count_layers(network));
    visit_layers(network, [&](const std::string& path, const std::string& description) {
        writer.text(path);
        writer.text(description);
    });
}

/// \throws std::runtime_error  if the structure is not the network's.
template <class Network>
void match_structure(ByteReader& reader, const Network& network) {
    const auto count = reader.number<std::uint64_t>();
    std::uint64_t index = 0;
    visit_layers(network, [&](const std::string& path, const std::string& description) {
        if (index == count) return;
        const std::string_view found_path = reader.text(), found = reader.text();
        if (found_path != path || found != description)
            throw std::runtime_error(
                message("layer ", index, " of the file is ",
                        line_of_layer(beginning(found_path, most_of_text),
                                      beginning(found, most_of_text)),
                        ", the network's is ", line_of_layer(path, description)));
        ++index;
    });
    if (const auto expected = count_layers(network); count != expected)
        throw std::runtime_error(
            message("the file holds ", count, " layers, the network has ", expected));
}

/// Reads a sealed file's content by read(reader, pass), once to check and once to write.
template <class Read>
void read_checkpoint(std::string_view who, const std::string& path, std::string_view magic,
                     std::uint32_t version, const Read& read) {
    const std::vector<std::uint8_t> content = read_sealed(who, path, magic, version);
    try {
        ByteReader check{content}, write{content};
        read(check, Pass::check);
        if (check.left() != 0)
            throw std::runtime_error(
                message("the file has ", check.left(), " bytes after the last record"));
        read(write, Pass::write);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(message(who, ": ", path, ": ", error.what()));
    }
}

}  // namespace stochastic_depth::detail
