// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace layering {

/// Headers by path below include/, "stochastic_depth/types.hpp", with their text.
using Headers = std::map<std::string, std::string>;

inline constexpr std::string_view prefix = "stochastic_depth/";
inline constexpr std::string_view umbrella = "stochastic_depth/all.hpp";
/// Need zlib, POSIX, LibTorch or MPI, or serve those that do, so a program asks for them by name. A room
/// ends in '/'.
inline constexpr std::string_view apart[] = {"stochastic_depth/adapters/", "stochastic_depth/distributed/",
                                             "stochastic_depth/export/",
                                             "stochastic_depth/io/gzip.hpp",
                                             "stochastic_depth/io/json_reader.hpp",
                                             "stochastic_depth/io/little_endian.hpp",
                                             "stochastic_depth/io/npy.hpp",
                                             "stochastic_depth/io/npy_header.hpp",
                                             "stochastic_depth/io/npz.hpp",
                                             "stochastic_depth/io/npz_deflated.hpp",
                                             "stochastic_depth/io/safetensors.hpp",
                                             "stochastic_depth/io/safetensors_header.hpp",
                                             "stochastic_depth/io/safetensors_metadata.hpp",
                                             "stochastic_depth/io/sealed_file.hpp",
                                             "stochastic_depth/io/tensor_copy.hpp",
                                             "stochastic_depth/io/tensor_names.hpp",
                                             "stochastic_depth/io/tokenizer_file.hpp",
                                             "stochastic_depth/io/torch_names.hpp",
                                             "stochastic_depth/io/whole_file.hpp",
                                             "stochastic_depth/io/zip.hpp",
                                             "stochastic_depth/training/checkpoint.hpp",
                                             "stochastic_depth/training/named_matrices.hpp",
                                             "stochastic_depth/training/resumable_optimizer.hpp",
                                             "stochastic_depth/training/training_checkpoint.hpp"};

[[nodiscard]] inline bool is_apart(std::string_view path) {
    return std::any_of(std::begin(apart), std::end(apart), [&](std::string_view one) {
        return one.ends_with('/') ? path.starts_with(one) : path == one;
    });
}

[[nodiscard]] inline Headers read_headers(const std::filesystem::path& include_dir) {
    Headers headers;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(include_dir)) {
        if (!entry.is_regular_file()) continue;
        std::ifstream file(entry.path());
        headers[entry.path().lexically_relative(include_dir).generic_string()] =
            std::string(std::istreambuf_iterator<char>(file), {});
    }
    return headers;
}

/// The floor that a header stands on, or -1 for one that has no place yet.
[[nodiscard]] inline int floor_of(std::string_view path) {
    struct Place {
        std::string_view path;
        int floor;
    };
    static constexpr Place places[] = {
        {"types.hpp", 0},
        {"version.hpp", 0},
        {"detail/one_alignment.hpp", 0},
        {"detail/", 1},
        {"memory/", 1},
        {"threads/", 2},
        {"numerics/", 2},
        {"kernels/", 3},
        {"random/", 4},
        {"survival/", 5},
        {"text/", 5},
        {"pass/", 6},
        {"concepts.hpp", 6},
        {"layers/", 7},
        {"stochastic_depth.hpp", 8},
        {"masked_forward.hpp", 8},
        {"inverted_scaling.hpp", 8},
        {"without_layers.hpp", 8},
        {"expectation/", 9},
        {"training/", 9},
        {"analysis/", 9},
        {"io/", 9},
        {"export/", 9},
        {"models/", 9},
        {"adapters/", 9},
        {"core.hpp", 10},
        {"distributed/", 10},
        {"all.hpp", 11},
    };
    if (!path.starts_with(prefix)) return -1;
    path.remove_prefix(prefix.size());
    for (const Place& place : places)
        if (place.path.ends_with('/') ? path.starts_with(place.path) : path == place.path)
            return place.floor;
    return -1;
}

/// What stands behind #include, with its brackets or quotes.
[[nodiscard]] inline std::vector<std::string> includes_of(const std::string& text) {
    std::vector<std::string> includes;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string word, rest;
        words >> word;
        if (word == "#") words >> rest, word += rest;
        if (!word.starts_with("#include")) continue;
        std::string target = word.substr(8);
        if (target.empty()) words >> target;
        includes.push_back(target);
    }
    return includes;
}

using Edges = std::map<std::string, std::vector<std::string>>;
enum class Visit { open, done };

/// Marks every header that `path` reaches, and appends one line for each cycle met on the way.
inline void walk(const Edges& edges, const std::string& path, std::map<std::string, Visit>& visited,
                 std::vector<std::string>& faults) {
    visited[path] = Visit::open;
    for (const std::string& next : edges.at(path)) {
        if (!edges.contains(next)) continue;
        const auto seen = visited.find(next);
        if (seen == visited.end())
            walk(edges, next, visited, faults);
        else if (seen->second == Visit::open)
            faults.push_back(path + ": closes a cycle with " + next);
    }
    visited[path] = Visit::done;
}

/// Every breach of the rules that the headers' own text shows, one line each.
[[nodiscard]] inline std::vector<std::string> find_faults(const Headers& headers) {
    std::vector<std::string> faults;
    Edges edges;
    for (const auto& [path, text] : headers) {
        std::vector<std::string>& targets = edges[path];
        if (floor_of(path) < 0) faults.push_back(path + ": stands on no floor");
        if (!text.starts_with("// SPDX-License-Identifier: MIT\n#pragma once\n"))
            faults.push_back(path + ": must open with the SPDX line, then #pragma once");
        for (const std::string& include : includes_of(text)) {
            if (!include.starts_with('<') || include.find("..") != std::string::npos) {
                faults.push_back(path + ": includes " + include + ", not <stochastic_depth/...>");
                continue;
            }
            const std::string target = include.substr(1, include.find('>') - 1);
            if (!target.starts_with(prefix)) continue;
            targets.push_back(target);
            if (!headers.contains(target))
                faults.push_back(path + ": includes " + target + ", which does not exist");
            else if (floor_of(target) > floor_of(path))
                faults.push_back(path + ": includes " + target +
                                 ", which stands on a higher floor");
            if (target == umbrella || (is_apart(target) && !is_apart(path)))
                faults.push_back(path + ": includes " + target + ", which is for programs alone");
        }
    }
    // What all.hpp does not reach, a program that includes it does not get.
    std::map<std::string, Visit> visited;
    if (headers.contains(std::string(umbrella)))
        walk(edges, std::string(umbrella), visited, faults);
    for (const auto& [path, text] : headers) {
        if (visited.contains(path)) continue;
        if (!is_apart(path)) faults.push_back(path + ": is out of reach of all.hpp");
        walk(edges, path, visited, faults);
    }
    return faults;
}

}  // namespace layering
