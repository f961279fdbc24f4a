// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>

#include "../common/mask_scope.hpp"
#include "../common/output_file.hpp"
#include "../common/spread.hpp"
#include "../common/text.hpp"

namespace very_deep {
namespace {

using common::fixed;

/// Three digits that count.
std::string short_number(double value) { return common::significant(value, 3); }

template <std::size_t N>
void print_line(std::ostream& out, const std::array<int, N>& widths,
                const std::array<std::string, N>& cells) {
    for (std::size_t i = 0; i < N; ++i) out << std::setw(widths[i]) << cells[i];
    out << '\n';
}

std::string share(double part, double whole) { return fixed(100 * part / whole, 2) + " %"; }

void print_runs(std::ostream& out, const Report& report) {
    constexpr std::array widths{6, 6, 6, 9, 9, 12, 11, 12, 12, 12, 10};
    print_line(out, widths,
               {"blocks", "p_L", "seed", "seconds", "CPU s", "first loss", "last loss",
                "full depth", "weight sc.", "layers run", "expected"});
    for (const Run& run : report.runs)
        print_line(
            out, widths,
            {std::to_string(run.blocks), short_number(run.final_survival), std::to_string(run.seed),
             fixed(run.seconds, 1), fixed(run.cpu_seconds, 1), fixed(run.epoch_losses.front(), 4),
             fixed(run.epoch_losses.back(), 4), fixed(100 * run.test_error, 2) + " %",
             fixed(100 * run.test_error_scaled, 2) + " %",
             share(run.layer_evaluations, run.full_depth_evaluations),
             share(run.expected_layer_evaluations, run.full_depth_evaluations)});
}

/// The runs that differ in nothing but the seed.
std::vector<std::vector<const Run*>> groups_of(const Report& report) {
    std::vector<std::vector<const Run*>> groups;
    for (const Run& run : report.runs) {
        const auto same = [&](const auto& group) {
            return group.front()->blocks == run.blocks &&
                   group.front()->final_survival == run.final_survival;
        };
        const auto found = std::find_if(groups.begin(), groups.end(), same);
        if (found == groups.end())
            groups.push_back({&run});
        else
            found->push_back(&run);
    }
    return groups;
}

void print_summary(std::ostream& out, const Report& report) {
    out << "\nMean over the seeds +- standard deviation:\n\n";
    constexpr std::array widths{6, 6, 18, 20, 19, 19};
    print_line(out, widths,
               {"blocks", "p_L", "CPU s", "last loss", "full depth, %", "weight sc., %"});
    for (const auto& group : groups_of(report)) {
        const auto summary = [&](int decimals, const auto& value) {
            std::vector<double> values;
            for (const Run* run : group) values.push_back(value(*run));
            return common::mean_and_deviation(values, decimals);
        };
        print_line(
            out, widths,
            {std::to_string(group.front()->blocks), short_number(group.front()->final_survival),
             summary(1, [](const Run& run) { return run.cpu_seconds; }),
             summary(4, [](const Run& run) { return run.epoch_losses.back(); }),
             summary(2, [](const Run& run) { return 100 * run.test_error; }),
             summary(2, [](const Run& run) { return 100 * run.test_error_scaled; })});
    }
}

void print_norms(std::ostream& out, const Report& report) {
    out << "\nNorm of the gradient by a block's parameters, before clipping, root mean square over\n"
        << "the first " << report.runs.front().measured_steps
        << " steps and over as many at the end, of the first block, the middle one and the\n"
        << "last one; and the largest norm of the whole gradient in any step:\n\n";
    constexpr std::array widths{6, 6, 6, 12, 10, 10, 12, 10, 10, 10};
    print_line(out, widths,
               {"blocks", "p_L", "seed", "beginning", "", "", "end", "", "", "largest"});
    for (const Run& run : report.runs) {
        const auto& first = run.norms_at_beginning;
        const auto& last = run.norms_at_end;
        const std::size_t middle = first.size() / 2;
        print_line(
            out, widths,
            {std::to_string(run.blocks), short_number(run.final_survival), std::to_string(run.seed),
             short_number(first.front()), short_number(first[middle]), short_number(first.back()),
             short_number(last.front()), short_number(last[middle]), short_number(last.back()),
             short_number(run.largest_gradient_norm)});
    }
}

nlohmann::ordered_json json_of(const Options& options) {
    return {{"data", options.data},
            {"train", options.train},
            {"test", options.test},
            {"blocks", options.blocks},
            {"width", options.width},
            {"final_survival", options.final_survival},
            {"epochs", options.epochs},
            {"batch_size", options.batch_size},
            {"mask_scope", common::to_string(options.mask_scope)},
            {"optimizer", to_string(options.optimizer)},
            {"learning_rate", options.learning_rate},
            {"seeds", options.seeds},
            {"threads", options.threads}};
}

nlohmann::ordered_json json_of(const Run& run) {
    auto epochs = nlohmann::ordered_json::array();
    auto losses = nlohmann::ordered_json::array();
    for (const auto& point : run.losses) {
        epochs.push_back(point.epoch);
        losses.push_back(point.loss);
    }
    return {
        {"blocks", run.blocks},
        {"final_survival", run.final_survival},
        {"seed", run.seed},
        {"seconds", run.seconds},
        {"cpu_seconds", run.cpu_seconds},
        {"epoch_losses", run.epoch_losses},
        {"loss_over_time", {{"epochs_done", epochs}, {"loss", losses}}},
        {"test_error", {{"full_depth", run.test_error}, {"weight_scaling", run.test_error_scaled}}},
        {"layer_evaluations",
         {{"done", run.layer_evaluations},
          {"expected", run.expected_layer_evaluations},
          {"full_depth", run.full_depth_evaluations}}},
        {"gradient_norm_by_block",
         {{"steps", run.measured_steps},
          {"beginning", run.norms_at_beginning},
          {"end", run.norms_at_end}}},
        {"largest_gradient_norm", run.largest_gradient_norm}};
}

}  // namespace

std::string Run::name() const {
    return std::to_string(blocks) + " blocks, p_L = " + short_number(final_survival) + ", seed " +
           std::to_string(seed);
}

void print(std::ostream& out, const Report& report) {
    const Options& options = report.options;
    out << "Fashion-MNIST, " << options.train << " training images, " << options.test
        << " test images\n"
        << "blocks x + W_2 relu(W_1 x + b_1) + b_2 of width " << options.width << "; "
        << options.epochs << (options.epochs == 1 ? " epoch" : " epochs") << " of batches of "
        << options.batch_size << ", " << to_string(options.optimizer) << ", learning rate "
        << short_number(options.learning_rate) << ", mask scope "
        << common::to_string(options.mask_scope) << ", " << options.threads
        << (options.threads == 1 ? " thread" : " threads") << "\n\n";
    print_runs(out, report);
    out << "\np_L = 1: without stochastic depth. seconds, CPU s: of training; the latter over all\n"
           "threads. losses: mean over the first and over the last epoch. full depth, weight sc.: test\n"
           "error with every block, and with every branch multiplied by p_l. layers run, expected:\n"
           "block evaluations in training, as a share of those at full depth.\n";
    if (options.seeds.size() > 1) print_summary(out, report);
    print_norms(out, report);
    out << '\n' << fixed(report.seconds, 1) << " s in all.\n";
}

void write_json(const std::string& path, const Report& report) {
    auto runs = nlohmann::ordered_json::array();
    for (const Run& run : report.runs) runs.push_back(json_of(run));
    const nlohmann::ordered_json json{
        {"options", json_of(report.options)}, {"runs", runs}, {"seconds", report.seconds}};
    common::write_file("--json", path, json.dump(2) + '\n');
}

}  // namespace very_deep
