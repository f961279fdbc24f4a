// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <iostream>
#include <limits>
#include <string>
#include <system_error>

#include <stochastic_depth/types.hpp>

#include "mask_scope.hpp"
#include "usage_error.hpp"

namespace common {

using stochastic_depth::Index;

/// Accepts what reads as a Number in [lowest, highest], as a whole: no rest, no overflow, no NaN.
template <class Number>
[[nodiscard]] CLI::Validator number_in(Number lowest, Number highest, const std::string& range) {
    const auto check = [=](const std::string& text) -> std::string {
        Number value{};
        const char* const end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, value);
        if (error == std::errc{} && rest == end && value >= lowest && value <= highest) return {};
        return "must be " + range + ", got " + text;
    };
    return {check, ""};
}

[[nodiscard]] inline CLI::Validator count(Index lowest, Index highest) {
    return number_in(
        lowest, highest,
        "a whole number from " + std::to_string(lowest) + " to " + std::to_string(highest));
}

/// (0, highest].
[[nodiscard]] inline CLI::Validator above_zero(double highest, const std::string& name) {
    return number_in(std::numeric_limits<double>::min(), highest, "a number in (0, " + name + "]");
}

/// Adds --mask-scope. \param scope  Its default, and where the answer goes.
inline void add_mask_scope(CLI::App& app, stochastic_depth::MaskScope& scope) {
    using stochastic_depth::MaskScope;
    static constexpr MaskScope scopes[] = {MaskScope::sample, MaskScope::batch, MaskScope::subset};
    const auto choose = [&scope](const std::string& text) {
        for (const MaskScope each : scopes)
            if (text == to_string(each)) scope = each;
    };
    const auto check = [](const std::string& text) -> std::string {
        for (const MaskScope each : scopes)
            if (text == to_string(each)) return {};
        return "must be sample, batch or subset, got " + text;
    };
    app.add_option_function<std::string>(
           "--mask-scope", choose,
           "Who shares a mask in a training step: each sample has its own, the batch has one, or "
           "each layer keeps a subset of fixed size: sample, batch or subset")
        ->type_name("WHO")
        ->default_str(to_string(scope))
        ->check(check);
}

/// \returns  Whether the program should go on; --help has been answered otherwise.
/// \throws UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] inline bool parse(CLI::App& app, int argc, const char* const* argv) {
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        std::cout << app.help();
        return false;
    } catch (const CLI::ParseError& error) {
        throw UsageError(std::string(error.what()) + " (--help lists the options)");
    }
    return true;
}

}  // namespace common
