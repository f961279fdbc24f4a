// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <ostream>
#include <vector>

#include "../common/text.hpp"

namespace inspect {
namespace {

using common::fixed;
using common::significant;

/// A line of a table: the first cell to the left, the others to the right.
void print_line(std::ostream& out, int first_width, const std::vector<std::string>& cells) {
    constexpr int width = 15;
    out << std::left << std::setw(first_width) << cells.front() << std::right;
    for (std::size_t i = 1; i < cells.size(); ++i) out << std::setw(width) << cells[i];
    out << '\n';
}

std::string plural(sd::Index count, const std::string& noun) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

/// The cells of a score, of those figures that there are.
void add_cells(const Score& score, std::vector<std::string>& cells) {
    if (score.error) cells.push_back(fixed(100 * *score.error, 2) + " %");
    if (score.negative_log_likelihood) cells.push_back(fixed(*score.negative_log_likelihood, 4));
    if (score.squared_error) cells.push_back(significant(*score.squared_error, 5));
}
void add_heads(const Score& score, std::vector<std::string>& cells) {
    if (score.error) cells.emplace_back("error");
    if (score.negative_log_likelihood) cells.emplace_back("NLL");
    if (score.squared_error) cells.emplace_back("MSE");
}

void print_head(std::ostream& out, const Report& report) {
    const Question& question = *report.question;
    const auto& moments = report.ensemble.moments;
    out << report.options->network << ": " << plural(question.depth(), "skippable layer") << ", "
        << (question.is_classifier ? std::to_string(question.outputs()) + " classes"
                                   : plural(question.outputs(), "output"))
        << "; " << plural(question.batch(), "input") << '\n';
    if (moments.method == sd::ExpectationMethod::exact)
        out << "mean over all masks: exact, " << fixed(moments.layer_evaluations, 0)
            << " layer evaluations for each input\n";
    else
        out << "mean over the masks: from " << plural(moments.samples, "sampled mask") << ", "
            << fixed(moments.layer_evaluations, 0) << " layer evaluations for each input\n";
}

void print_classes(std::ostream& out, const Report& report) {
    const Ensemble& ensemble = report.ensemble;
    const bool is_exact = ensemble.moments.method == sd::ExpectationMethod::exact;
    std::vector<std::string> heads{"input", "class", "probability"};
    if (!is_exact) heads.emplace_back("+-");
    for (const char* head : {"deviation", "entropy", "mutual inf."}) heads.emplace_back(head);
    for (const Rule& rule : ensemble.rules) heads.push_back(rule.name);
    if (ensemble.bounds) heads.insert(heads.end(), {"at least", "at most"});
    print_line(out, 6, heads);
    const sd::Index shown = std::min(report.options->show, report.question->batch());
    for (sd::Index j = 0; j < shown; ++j) {
        sd::Index top = 0;
        const auto mean = static_cast<double>(ensemble.moments.mean.col(j).maxCoeff(&top));
        std::vector<std::string> cells{std::to_string(j), std::to_string(top), fixed(mean, 5)};
        const auto add = [&](float value) {
            cells.push_back(fixed(static_cast<double>(value), 5));
        };
        if (!is_exact) add(ensemble.moments.standard_error(top, j));
        add(std::sqrt(ensemble.moments.variance(top, j)));
        add(ensemble.predictive_entropy(j));
        add(ensemble.mutual_information(j));
        for (const Rule& rule : ensemble.rules) add(rule.outputs(top, j));
        if (ensemble.bounds)
            for (const auto* const bound : {&ensemble.bounds->lower, &ensemble.bounds->upper})
                cells.push_back(fixed((*bound)(top, j), 5));
        print_line(out, 6, cells);
    }
}

void print_outputs(std::ostream& out, const Report& report) {
    const Ensemble& ensemble = report.ensemble;
    const bool is_exact = ensemble.moments.method == sd::ExpectationMethod::exact;
    std::vector<std::string> heads{"input", "output", "mean"};
    if (!is_exact) heads.emplace_back("+-");
    heads.emplace_back("deviation");
    for (const Rule& rule : ensemble.rules) heads.push_back(rule.name);
    print_line(out, 6, heads);
    const sd::Index shown = std::min(report.options->show, report.question->batch());
    for (sd::Index j = 0; j < shown; ++j)
        for (sd::Index i = 0; i < ensemble.moments.mean.rows(); ++i) {
            std::vector<std::string> cells{std::to_string(j), std::to_string(i)};
            const auto add = [&](float value) {
                cells.push_back(significant(static_cast<double>(value), 6));
            };
            add(ensemble.moments.mean(i, j));
            if (!is_exact) add(ensemble.moments.standard_error(i, j));
            add(std::sqrt(ensemble.moments.variance(i, j)));
            for (const Rule& rule : ensemble.rules) add(rule.outputs(i, j));
            print_line(out, 6, cells);
        }
}

void print_rules(std::ostream& out, const Report& report) {
    const Ensemble& ensemble = report.ensemble;
    out << "\nDistance of an output from the mean over the masks, mean and largest"
        << (ensemble.score.error || ensemble.score.squared_error ? ", and what is right" : "")
        << ":\n\n";
    std::vector<std::string> heads{"rule", "mean", "largest"};
    add_heads(ensemble.score, heads);
    print_line(out, 20, heads);
    std::vector<std::string> of_mean{"mean over masks", "-", "-"};
    add_cells(ensemble.score, of_mean);
    print_line(out, 20, of_mean);
    for (const Rule& rule : ensemble.rules) {
        std::vector<std::string> cells{rule.name, significant(rule.mean_gap, 4),
                                       significant(rule.largest_gap, 4)};
        add_cells(rule.score, cells);
        print_line(out, 20, cells);
    }
    if (ensemble.bounds)
        out << "\nbounds: from the " << plural(ensemble.bounds->masks, "most probable mask")
            << ", which have the probability " << significant(ensemble.bounds->covered, 4)
            << " together\n";
}

void print_layers(std::ostream& out, const LayerFindings& findings) {
    if (findings.layers.empty()) return;
    const auto is_sampled = [&](double LayerRow::*error) {
        return std::any_of(findings.layers.begin(), findings.layers.end(),
                           [&](const LayerRow& layer) { return layer.*error > 0; });
    };
    const bool has_sensitivity_errors = is_sampled(&LayerRow::sensitivity_error);
    const bool has_shapley_errors = is_sampled(&LayerRow::shapley_error);
    out << "\nWhat the layers do for " << findings.judged_by
        << ", mean over the inputs:\nits derivative by p_l, and the Shapley value"
        << (has_sensitivity_errors || has_shapley_errors
                ? "; sampled, with standard errors of at most +-"
                : "")
        << ".\n\n";
    std::size_t widest = 5;
    for (const LayerRow& layer : findings.layers) widest = std::max(widest, layer.path.size());
    const int path_width = static_cast<int>(widest) + 2;
    std::vector<std::string> heads{"layer", "p_l", "derivative"};
    if (has_sensitivity_errors) heads.emplace_back("+-");
    heads.emplace_back("Shapley");
    if (has_shapley_errors) heads.emplace_back("+-");
    out << std::setw(4) << "l"
        << "  ";
    print_line(out, path_width, heads);
    for (std::size_t l = 0; l < findings.layers.size(); ++l) {
        const LayerRow& layer = findings.layers[l];
        std::vector<std::string> cells{layer.path, significant(layer.survival_probability, 4),
                                       fixed(layer.sensitivity, 5)};
        if (has_sensitivity_errors) cells.push_back(fixed(layer.sensitivity_error, 5));
        cells.push_back(fixed(layer.shapley, 5));
        if (has_shapley_errors) cells.push_back(fixed(layer.shapley_error, 5));
        out << std::setw(4) << l + 1 << "  ";
        print_line(out, path_width, cells);
    }
}

void print_subnetworks(std::ostream& out, const Subnetworks& subnetworks) {
    if (!subnetworks.found) {
        out << "\nNo best sub-networks: " << subnetworks.skipped << '\n';
        return;
    }
    const bool is_exact = subnetworks.found->search == sd::SubnetworkSearch::every_mask;
    out << "\nThe best sub-network of each size, "
        << (is_exact ? "of all masks" : "of those that a beam search came to") << ", by the "
        << subnetworks.judged_by << ":\n\n";
    const auto& by_size = subnetworks.found->by_size;
    const Score first = subnetworks.scores.empty() ? Score{} : subnetworks.scores.front();
    std::vector<std::string> heads{"layers", first.negative_log_likelihood ? "NLL"
                                             : first.squared_error         ? "MSE"
                                                                           : "distance"};
    if (first.error) heads.emplace_back("error");
    heads.emplace_back("   kept");
    print_line(out, 6, heads);
    for (std::size_t k = 0; k < by_size.size(); ++k) {
        std::vector<std::string> cells{std::to_string(by_size[k].mask.count()),
                                       significant(0.0 - by_size[k].score, 5)};
        if (subnetworks.scores[k].error)
            cells.push_back(fixed(100 * *subnetworks.scores[k].error, 2) + " %");
        cells.push_back("   " + to_string(by_size[k].mask));
        print_line(out, 6, cells);
    }
}

}  // namespace

void print(std::ostream& out, const Report& report) {
    print_head(out, report);
    if (report.options->show > 0) {
        out << '\n';
        report.question->is_classifier ? print_classes(out, report) : print_outputs(out, report);
        if (report.options->show < report.question->batch())
            out << "... (" << report.question->batch() - report.options->show
                << " more; --show or --json)\n";
    }
    print_rules(out, report);
    print_layers(out, report.layers);
    print_subnetworks(out, report.subnetworks);
    out << '\n' << fixed(report.seconds, 1) << " s in all.\n";
}

}  // namespace inspect
