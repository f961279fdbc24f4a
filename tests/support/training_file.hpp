// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/files.hpp"

/// What save_training writes, after the words of its format and by none of the library's code, so
/// that tests can say what a file holds and make files that hold something else.
namespace stochastic_depth::test {

struct TrainingFile {
    struct Record {
        std::string name;
        std::vector<double> entries;  // one column
    };
    struct State {
        std::string name;
        std::vector<Record> records;
        std::vector<std::uint64_t> counts = {};  // in place of records, if there are any
    };

    std::string library = {};
    std::uint32_t stream = 1;
    std::uint64_t step = 0, epoch = 0, seed = 0;
    std::uint32_t mask_scope = 0, scaling = 0;
    std::string description = {};
    std::string optimizer = {};
    double learning_rate = 0;
    std::vector<std::pair<std::string, std::string>> options;
    /// Of each layer its path and what it says of itself.
    std::vector<std::pair<std::string, std::string>> layers;
    std::vector<Record> parameters, layers_state;
    std::vector<State> states;

    /// What stands between the head and the hash.
    [[nodiscard]] Bytes content() const {
        Bytes bytes;
        text(bytes, library);
        number(bytes, stream, 4);
        for (const std::uint64_t value : {step, epoch, seed}) number(bytes, value, 8);
        for (const std::uint32_t value : {mask_scope, scaling}) number(bytes, value, 4);
        text(bytes, description);
        text(bytes, optimizer);
        real(bytes, learning_rate);
        number(bytes, options.size(), 8);
        for (const auto& [name, value] : options) {
            text(bytes, name);
            text(bytes, value);
        }
        number(bytes, layers.size(), 8);
        for (const auto& [path, words] : layers) {
            text(bytes, path);
            text(bytes, words);
        }
        records(bytes, parameters);
        records(bytes, layers_state);
        number(bytes, states.size(), 8);
        for (const State& state : states) {
            text(bytes, state.name);
            if (state.counts.empty()) {
                records(bytes, state.records);
            } else {
                number(bytes, state.counts.size(), 8);
                for (const std::uint64_t count : state.counts) number(bytes, count, 8);
            }
        }
        return bytes;
    }

    /// The whole file.
    [[nodiscard]] Bytes sealed(const Bytes& inside) const {
        Bytes bytes{'S', 'D', 'R', 'E', 'S', 'U', 'M', 'E', 2, 0, 0, 0};
        number(bytes, inside.size(), 8);
        bytes.insert(bytes.end(), inside.begin(), inside.end());
        std::uint64_t hash = 0xcbf29ce484222325;
        for (const std::uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
        number(bytes, hash, 8);
        return bytes;
    }
    [[nodiscard]] Bytes sealed() const { return sealed(content()); }

private:
    static void number(Bytes& bytes, std::uint64_t value, std::size_t count) {
        for (std::size_t byte = 0; byte < count; ++byte)
            bytes.push_back(static_cast<std::uint8_t>(value >> (8 * byte) & 0xff));
    }
    static void real(Bytes& bytes, double value) {
        number(bytes, std::bit_cast<std::uint64_t>(value), 8);
    }
    static void text(Bytes& bytes, const std::string& letters) {
        number(bytes, letters.size(), 4);
        bytes.insert(bytes.end(), letters.begin(), letters.end());
    }
    static void records(Bytes& bytes, const std::vector<Record>& list) {
        number(bytes, list.size(), 8);
        for (const Record& record : list) {
            text(bytes, record.name);
            number(bytes, 64, 4);
            number(bytes, record.entries.size(), 8);
            number(bytes, 1, 8);
            for (const double entry : record.entries) real(bytes, entry);
        }
    }
};

}  // namespace stochastic_depth::test
