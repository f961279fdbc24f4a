// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/types.hpp>

#include "../common/usage_error.hpp"

namespace inspect {

using stochastic_depth::Index;

/// The fields of a JSON object whose form is known. What is not asked for must not be there.
class Fields {
public:
    /// \param json   Outlives this.
    /// \param where  Named in messages: "network.json: layers[2]".
    /// \throws common::UsageError  unless it is an object.
    Fields(const nlohmann::json& json, std::string where) : json_(&json), where_(std::move(where)) {
        if (!json.is_object()) refuse("must be an object in braces, got " + short_text(json));
    }

    [[nodiscard]] const std::string& where() const { return where_; }

    /// Where a field is, for messages.
    [[nodiscard]] std::string path(const std::string& name) const {
        return where_ + (where_.ends_with(": ") ? "" : ".") + name;
    }

    /// \returns  Null if the field is not there.
    [[nodiscard]] const nlohmann::json* find(const std::string& name) {
        if (std::find(known_.begin(), known_.end(), name) == known_.end()) known_.push_back(name);
        const auto found = json_->find(name);
        return found == json_->end() ? nullptr : &*found;
    }
    /// \throws common::UsageError  if the field is not there.
    [[nodiscard]] const nlohmann::json& at(const std::string& name) {
        const auto* const found = find(name);
        if (!found) refuse("the field " + name + " is missing");
        return *found;
    }

    /// A whole number in [lowest, highest].
    [[nodiscard]] Index count(const std::string& name, Index lowest, Index highest) {
        return count_of(at(name), name, lowest, highest);
    }
    [[nodiscard]] Index count(const std::string& name, Index lowest, Index highest,
                              Index otherwise) {
        const auto* const found = find(name);
        return found ? count_of(*found, name, lowest, highest) : otherwise;
    }

    /// A number above 0, at most 1.
    [[nodiscard]] double small_number(const std::string& name, double otherwise) {
        const auto* const found = find(name);
        if (!found) return otherwise;
        const bool is_valid =
            found->is_number() && found->get<double>() > 0 && found->get<double>() <= 1;
        if (!is_valid) refuse_value(name, "a number in (0, 1]", *found);
        return found->get<double>();
    }

    [[nodiscard]] bool flag(const std::string& name, bool otherwise) {
        const auto* const found = find(name);
        if (!found) return otherwise;
        if (!found->is_boolean()) refuse_value(name, "true or false", *found);
        return found->get<bool>();
    }

    /// One of some words, the first if the field is not there.
    [[nodiscard]] std::string choice(const std::string& name,
                                     std::initializer_list<std::string_view> words) {
        const auto* const found = find(name);
        if (!found) return std::string(*words.begin());
        std::string list;
        for (const std::string_view word : words) {
            if (found->is_string() && found->get<std::string>() == word) return std::string(word);
            list += (list.empty() ? "" : ", ") + std::string(word);
        }
        refuse_value(name, "one of " + list, *found);
    }

    /// \throws common::UsageError  naming a field that has not been asked for.
    void finish() const {
        for (const auto& [name, value] : json_->items()) {
            if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
            std::string list;
            for (const std::string& known : known_) list += (list.empty() ? "" : ", ") + known;
            refuse("unknown field " + short_text(name) + " (there may be: " + list + ")");
        }
    }

    [[noreturn]] void refuse(const std::string& what) const {
        throw common::UsageError(where_ + (where_.ends_with(": ") ? "" : ": ") + what);
    }
    [[noreturn]] void refuse_value(const std::string& name, const std::string& what,
                                   const nlohmann::json& value) const {
        throw common::UsageError(path(name) + " must be " + what + ", got " + short_text(value));
    }

    /// A value as it stands in a message.
    [[nodiscard]] static std::string short_text(const nlohmann::json& value) {
        constexpr std::size_t longest = 60;
        const std::string text =
            value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
        return text.size() > longest ? text.substr(0, longest) + "..." : text;
    }

private:
    [[nodiscard]] Index count_of(const nlohmann::json& value, const std::string& name, Index lowest,
                                 Index highest) const {
        // Not get<Index> alone, which wraps what is unsigned and too large.
        const bool is_whole = value.is_number_integer() &&
                              !(value.is_number_unsigned() &&
                                value.get<std::uint64_t>() > static_cast<std::uint64_t>(highest));
        if (!is_whole || value.get<Index>() < lowest || value.get<Index>() > highest)
            refuse_value(
                name,
                "a whole number from " + std::to_string(lowest) + " to " + std::to_string(highest),
                value);
        return value.get<Index>();
    }

    const nlohmann::json* json_;
    std::string where_;
    std::vector<std::string> known_;
};

}  // namespace inspect
