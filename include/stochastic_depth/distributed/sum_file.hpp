// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/distributed/fingerprint.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/training/named_matrices.hpp>

/// What is finished of a long sum, in a file.
///
/// Format, version 1, all numbers little-endian, a text being its length (4 bytes) and its letters:
/// "SDLONGSM", version (4), length of what follows but the hash (8); number of values that the sum
/// depends on (8), and for each its name and itself (texts); seconds that the sum has taken (8, IEEE
/// 754); number of sweeps (8), and for each the number of its nodes (8), and for each the first
/// subtree below it, the number of subtrees below it, and that of its entries (8 each), and the
/// entries, IEEE 754; at the end FNV-1a of all bytes before (8).
namespace stochastic_depth::detail {

inline constexpr std::string_view sum_magic = "SDLONGSM";
inline constexpr std::uint32_t sum_version = 1;

/// A number of subtrees that follow each other, and what they come to.
template <class Scalar>
struct SumNode {
    std::uint64_t first, count;
    std::vector<Scalar> numbers;
};

/// All that is finished: nodes for each sweep over the tree.
template <class Scalar>
struct FinishedSum {
    double seconds = 0;
    std::vector<std::vector<SumNode<Scalar>>> sweeps;
};

template <class Scalar>
class SumFile {
public:
    /// \param who     Named in messages.
    /// \param path    Empty: there is no file.
    /// \param values  What the sum depends on.
    SumFile(std::string who, std::string path, std::vector<AgreedValue> values)
        : who_(std::move(who)), path_(std::move(path)), values_(std::move(values)) {}

    [[nodiscard]] bool is_none() const { return path_.empty(); }

    /// What an earlier run has finished; nothing if there is no file yet.
    /// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is
    ///                             damaged, or belongs to another sum.
    [[nodiscard]] FinishedSum<Scalar> load() const {
        if (is_none() || !std::filesystem::exists(path_)) return {};
        const std::vector<std::uint8_t> content = read_sealed(who_, path_, sum_magic, sum_version);
        FinishedSum<Scalar> sum;
        named_in_failures([&] {
            ByteReader reader{content};
            check_values(reader);
            sum = read(reader);
            if (reader.left() != 0)
                throw std::runtime_error(
                    message("the file has ", reader.left(), " bytes after the last record"));
        });
        return sum;
    }

    /// Takes over what the file holds.
    /// \throws std::runtime_error  naming the file, where `take` throws one.
    template <class Take>
    void named_in_failures(const Take& take) const {
        try {
            take();
        } catch (const std::runtime_error& error) {
            throw std::runtime_error(message(who_, ": ", path_, ": ", error.what()));
        }
    }

    /// Replaces the file in one step.
    /// \param for_each_node  for_each_node(sweep, visit) calls visit(first, count, numbers).
    /// \throws std::runtime_error  naming the file and the reason, if it cannot be written.
    template <class ForEachNode>
    void save(double seconds, std::size_t sweeps, const ForEachNode& for_each_node) const {
        if (is_none()) return;
        std::vector<std::uint8_t> content;
        ByteWriter writer{content};
        writer.number(static_cast<std::uint64_t>(values_.size()));
        for (const AgreedValue& each : values_) {
            writer.text(each.name);
            writer.text(each.value);
        }
        writer.number(std::bit_cast<std::uint64_t>(seconds));
        writer.number(static_cast<std::uint64_t>(sweeps));
        for (std::size_t sweep = 0; sweep < sweeps; ++sweep) {
            std::uint64_t nodes = 0;
            for_each_node(sweep, [&](auto&&...) { ++nodes; });
            writer.number(nodes);
            for_each_node(sweep, [&](std::uint64_t first, std::uint64_t count,
                                     const std::vector<Scalar>& numbers) {
                writer.number(first);
                writer.number(count);
                writer.number(static_cast<std::uint64_t>(numbers.size()));
                for (const Scalar number : numbers) writer.number(std::bit_cast<Bits>(number));
            });
        }
        write_sealed(who_, path_, sum_magic, sum_version, content);
    }

private:
    using Bits = typename BitsOf<Scalar>::type;

    void check_values(ByteReader& reader) const {
        std::vector<AgreedValue> found;
        for (auto left = reader.number<std::uint64_t>(); left > 0; --left) {
            const std::string name(reader.text());
            found.push_back({name, std::string(reader.text())});
        }
        const std::size_t k = first_difference(values_, found);
        if (k == values_.size() && k == found.size()) return;
        const auto shown = [k](const std::vector<AgreedValue>& values) {
            return k < values.size() ? beginning(values[k].value, most_of_text)
                                     : std::string("missing");
        };
        const std::string& name = k < values_.size() ? values_[k].name : found[k].name;
        throw std::runtime_error(message("the file is of another sum: its ", name, " is ",
                                         shown(found), ", that of this one ", shown(values_)));
    }

    [[nodiscard]] static FinishedSum<Scalar> read(ByteReader& reader) {
        FinishedSum<Scalar> sum;
        sum.seconds = std::bit_cast<double>(reader.number<std::uint64_t>());
        for (auto sweeps = reader.number<std::uint64_t>(); sweeps > 0; --sweeps) {
            std::vector<SumNode<Scalar>>& nodes = sum.sweeps.emplace_back();
            for (auto left = reader.number<std::uint64_t>(); left > 0; --left) {
                SumNode<Scalar> node{
                    reader.number<std::uint64_t>(), reader.number<std::uint64_t>(), {}};
                const auto entries = reader.number<std::uint64_t>();
                if (entries > reader.left() / sizeof(Scalar))
                    throw std::runtime_error(message("a node needs ", entries, " numbers, ",
                                                     reader.left(), " bytes are left"));
                for (std::uint64_t k = 0; k < entries; ++k)
                    node.numbers.push_back(std::bit_cast<Scalar>(reader.number<Bits>()));
                nodes.push_back(std::move(node));
            }
        }
        return sum;
    }

    std::string who_, path_;
    std::vector<AgreedValue> values_;
};

}  // namespace stochastic_depth::detail
