// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/file.hpp>
#include <stochastic_depth/io/plain_text.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Texts and what they are.
struct LabelledTexts {
    std::vector<std::string> texts;
    /// [texts], each an index into `classes`.
    Eigen::VectorXi labels;
    /// Labels as they stand in the file, in the order of their numbers.
    std::vector<std::string> classes;
};

/// How labels get their numbers.
enum class LabelOrder {
    first_appearance,
    /// By their bytes, whatever the order of the lines.
    sorted,
};

struct TabSeparatedOptions {
    LabelOrder order = LabelOrder::sorted;
    /// The labels that there are, in the order of their numbers, as another file had them: others
    /// are refused, and `order` says nothing. Empty: whatever the file has.
    std::vector<std::string> classes = {};
};

/// Reads labelled texts from memory: each line a label, a tab, and a text, which may hold further
/// tabs.
///
///     const auto train = read_tab_separated("train.tsv");
///     const auto test = read_tab_separated("test.tsv", {.classes = train.classes});
///
/// \param bytes  A whole file. Lines end as parse_lines says.
/// \param name   What to call it in error messages: the file's name.
/// \throws std::runtime_error     naming file and line, if there is no line, or one without a tab,
///                                with an empty label or text, or with a label that
///                                options.classes does not have.
/// \throws std::invalid_argument  if options.classes has a label twice.
[[nodiscard]] inline LabelledTexts parse_tab_separated(std::span<const std::uint8_t> bytes,
                                                       std::string_view name,
                                                       const TabSeparatedOptions& options = {}) {
    LabelledTexts result;
    result.classes = options.classes;
    std::vector<std::string>& classes = result.classes;
    for (auto label = classes.begin(); label != classes.end(); ++label)
        if (std::find(classes.begin(), label, *label) != label)
            detail::refuse("parse_tab_separated: classes must differ, got ", *label, " twice");

    std::vector<int> labels;
    detail::for_each_line(
        "parse_tab_separated", bytes, name, [&](std::string_view line, std::size_t number) {
            const auto fail = [&](const auto&... parts) {
                throw std::runtime_error(detail::message("parse_tab_separated: ", name, ": line ",
                                                         number, ": ", parts...));
            };
            const std::size_t tab = line.find('\t');
            if (tab == std::string_view::npos)
                fail("expected a label, a tab and a text, found no tab");
            const std::string_view label = line.substr(0, tab), text = line.substr(tab + 1);
            if (label.empty()) fail("expected a label, found none before the tab");
            if (text.empty()) fail("expected a text, found none behind the tab");
            const auto found = std::find(classes.begin(), classes.end(), label);
            labels.push_back(static_cast<int>(found - classes.begin()));
            if (found == classes.end()) {
                if (!options.classes.empty())
                    fail("expected one of ", classes.size(), " labels, found ", label);
                classes.emplace_back(label);
            }
            result.texts.emplace_back(text);
        });

    std::vector<int> new_number(classes.size());
    for (std::size_t k = 0; k < classes.size(); ++k) new_number[k] = static_cast<int>(k);
    if (options.classes.empty() && options.order == LabelOrder::sorted) {
        std::vector<std::string> sorted = classes;
        std::sort(sorted.begin(), sorted.end());
        for (std::size_t k = 0; k < classes.size(); ++k)
            new_number[k] = static_cast<int>(
                std::lower_bound(sorted.begin(), sorted.end(), classes[k]) - sorted.begin());
        classes = std::move(sorted);
    }
    result.labels.resize(static_cast<Index>(labels.size()));
    for (std::size_t j = 0; j < labels.size(); ++j)
        result.labels(static_cast<Index>(j)) = new_number[static_cast<std::size_t>(labels[j])];
    return result;
}

/// Reads a file of labelled texts: parse_tab_separated of its bytes.
/// \throws std::runtime_error  if the file cannot be read, or as parse_tab_separated does.
[[nodiscard]] inline LabelledTexts read_tab_separated(const std::string& path,
                                                      const TabSeparatedOptions& options = {}) {
    return parse_tab_separated(detail::read_file("read_tab_separated", path), path, options);
}

}  // namespace stochastic_depth
