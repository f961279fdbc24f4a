// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "rules.hpp"
#include "text.hpp"

/// How rows of rules are printed and written.
namespace common {
namespace detail {

using Cells = std::array<std::string, 8>;

inline void print_line(std::ostream& out, const Cells& cells) {
    constexpr std::array widths{0, 13, 9, 9, 9, 12, 8, 9};
    out << std::left << std::setw(28) << cells[0] << std::right;
    for (std::size_t i = 1; i < cells.size(); ++i) out << std::setw(widths[i]) << cells[i];
    out << '\n';
}

[[nodiscard]] inline Cells cells_of(const Row& row) {
    if (!row.skipped.empty()) return {row.rule, "-", "-", "-", "-", "-", "-", "-"};
    return {row.rule,
            fixed(row.layer_evaluations, 0),
            fixed(100 * row.error, 2) + " %",
            fixed(row.negative_log_likelihood, 4),
            fixed(row.calibration_error, 4),
            row.distance ? fixed(*row.distance, 6) : "-",
            row.disagreement_auroc ? fixed(*row.disagreement_auroc, 3) : "-",
            fixed(row.seconds, 2)};
}

}  // namespace detail

[[nodiscard]] inline nlohmann::ordered_json json_of(const Row& row) {
    nlohmann::ordered_json json{{"rule", row.rule}};
    if (!row.skipped.empty()) {
        json["skipped"] = row.skipped;
        return json;
    }
    json["layer_evaluations_per_sample"] = row.layer_evaluations;
    json["error"] = row.error;
    json["negative_log_likelihood"] = row.negative_log_likelihood;
    json["expected_calibration_error"] = row.calibration_error;
    json["mean_l1_distance_to_exact"] =
        row.distance ? nlohmann::ordered_json(*row.distance) : nlohmann::ordered_json(nullptr);
    json["mutual_information_auroc"] = row.disagreement_auroc
                                           ? nlohmann::ordered_json(*row.disagreement_auroc)
                                           : nlohmann::ordered_json(nullptr);
    json["seconds"] = row.seconds;
    return json;
}

[[nodiscard]] inline nlohmann::ordered_json json_of(const std::vector<Row>& rows) {
    auto rules = nlohmann::ordered_json::array();
    for (const Row& row : rows) rules.push_back(json_of(row));
    return rules;
}

inline void print(std::ostream& out, const std::vector<Row>& rows) {
    detail::print_line(out, {"rule", "evaluations", "error", "NLL", "ECE", "distance", "AUROC", "seconds"});
    for (const Row& row : rows) detail::print_line(out, detail::cells_of(row));
    for (const Row& row : rows)
        if (!row.skipped.empty()) out << "\n" << row.rule << " skipped: " << row.skipped << '\n';
}

/// What the columns are. \param threads  That the rules had.
inline void print_legend(std::ostream& out, unsigned threads) {
    out << "\nevaluations: of skippable layers, for each sample. "
           "NLL: mean negative log-likelihood.\n"
           "ECE: expected calibration error, 15 bins. distance: mean L1 distance between the\n"
           "rule's class probabilities and the exact ones. AUROC: of the mutual information of\n"
           "class and mask, as a test for wrong predictions. seconds: "
        << threads << (threads == 1 ? " thread" : " threads")
        << " for sampled\nand exact rows, one for the others";
}

}  // namespace common
