// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth {

/// What a tensor is called in a file, and in the network. A `*` stands for any number, the first one
/// in the one name for that in the other, and so on:
///
///     {"encoder.layer.*.mlp.fc1.weight", "0.*.branch.0.weight"}
struct TensorName {
    std::string in_file;
    std::string in_network;
};

/// The first that fits counts; what none fits has the same name in both.
using TensorNames = std::vector<TensorName>;

namespace detail {

/// Whether a name fits a pattern; then `numbers` are what its wildcards stand for.
[[nodiscard]] inline bool fits(std::string_view pattern, std::string_view name,
                               std::vector<std::string_view>& numbers) {
    numbers.clear();
    std::size_t at = 0;
    for (const char c : pattern) {
        if (c != '*') {
            if (at == name.size() || name[at] != c) return false;
            ++at;
            continue;
        }
        const std::size_t begin = at;
        while (at < name.size() && name[at] >= '0' && name[at] <= '9') ++at;
        if (at == begin) return false;
        numbers.push_back(name.substr(begin, at - begin));
    }
    return at == name.size();
}

/// The name in the file of what is called `name` in the network.
/// \param who  Named in messages.
/// \throws std::invalid_argument  if the names that fit don't have as many wildcards.
[[nodiscard]] inline std::string name_in_file(std::string_view who, const TensorNames& names,
                                              const std::string& name) {
    std::vector<std::string_view> numbers;
    for (const TensorName& pair : names) {
        if (!fits(pair.in_network, name, numbers)) continue;
        const auto wildcards = std::count(pair.in_file.begin(), pair.in_file.end(), '*');
        if (wildcards != static_cast<std::ptrdiff_t>(numbers.size()))
            refuse(who, ": names must have as many * in the file as in the network, got ",
                   pair.in_file, " for ", pair.in_network);
        std::string result;
        std::size_t next = 0;
        for (const char c : pair.in_file) {
            if (c == '*')
                result += numbers[next++];
            else
                result += c;
        }
        return result;
    }
    return name;
}

}  // namespace detail
}  // namespace stochastic_depth
