// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <type_traits>
#include <utility>

#include "../common/image_settings.hpp"
#include "../common/json_file.hpp"
#include "../common/output_file.hpp"
#include "../common/plots.hpp"
#include "../common/spread.hpp"
#include "curves.hpp"

namespace reproduction {
namespace {

using common::fixed;
using common::mean_and_deviation;
using nlohmann::json;

/// The runs that differ in nothing but the seed.
struct Group {
    bool augment = false;
    double survival = 1;
    std::vector<json> runs = {};

    [[nodiscard]] std::string name() const {
        std::ostringstream text;
        if (survival < 1)
            text << "stochastic depth " << survival;
        else
            text << "constant depth";
        return text.str() + (augment ? ", augmented" : "");
    }
    /// value(run) of each.
    template <class Value>
    [[nodiscard]] auto each(const Value& value) const {
        std::vector<std::decay_t<decltype(value(runs.front()))>> values;
        for (const json& run : runs) values.push_back(value(run));
        return values;
    }
};

/// Without augmentation first, constant depth first.
std::vector<Group> read_groups(const std::string& folder) {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
    if (paths.empty()) throw common::UsageError(folder + ": holds no finished run");
    std::sort(paths.begin(), paths.end());
    std::map<std::pair<bool, double>, Group> groups;
    json common_settings;
    for (const std::string& path : paths) {
        json run = common::read_json(path);
        json settings = run.at("settings");
        const bool augment = settings.at("augment");
        const double survival = settings.at("final_survival");
        for (const char* const own : {"augment", "final_survival", "seed"}) settings.erase(own);
        if (common_settings.is_null()) common_settings = settings;
        common::check_same_settings(path, settings, common_settings);
        Group& group = groups[{augment, -survival}];
        group.augment = augment;
        group.survival = survival;
        group.runs.push_back(std::move(run));
    }
    std::vector<Group> sorted;
    for (auto& [key, group] : groups) sorted.push_back(std::move(group));
    return sorted;
}

/// A figure of the history, epoch after epoch.
auto history(const char* what) {
    return [what](const json& run) {
        std::vector<double> values;
        for (const json& epoch : run.at("history")) values.push_back(epoch.at(what));
        return values;
    };
}

double total(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
}
double mean(const std::vector<double>& values) { return common::spread(values).mean; }

double cpu_seconds(const json& run) { return total(history("cpu_seconds")(run)); }

/// What a rule came to, where its name begins so; NaN (null in the file) where it did not run.
auto of_rule(const char* part, const std::string& rule, const char* figure, double factor = 1) {
    return [=](const json& run) {
        for (const json& row : run.at("measured").at(part).at("rules"))
            if (row.at("rule").get<std::string>().starts_with(rule) && row.contains(figure) &&
                !row.at(figure).is_null())
                return factor * row.at(figure).get<double>();
        return std::numeric_limits<double>::quiet_NaN();
    };
}

using Cells = std::vector<std::string>;

std::string line(const Cells& cells) {
    std::string text = "|";
    for (const std::string& cell : cells) text += " " + cell + " |";
    return text + "\n";
}

std::string table(const Cells& head, const std::vector<Group>& groups,
                  const std::function<Cells(const Group&)>& cells) {
    std::string text = line(head) + line(Cells(head.size(), "---"));
    for (const Group& group : groups) {
        Cells all = cells(group);
        all.insert(all.begin(), group.name());
        text += line(all);
    }
    return text + "\n";
}

std::string errors(const std::vector<Group>& groups) {
    return "Test error after the last epoch, %, mean +- standard deviation over the seeds:\n\n" +
           table({"", "seeds", "weight scaling", "each seed", "full depth", "last training loss"},
                 groups, [](const Group& group) -> Cells {
                     const auto scaled = group.each(of_rule("test", "weight", "error", 100));
                     std::string each;
                     for (const double error : scaled)
                         each += (each.empty() ? "" : ", ") + fixed(error, 2);
                     return {std::to_string(group.runs.size()), mean_and_deviation(scaled, 2), each,
                             mean_and_deviation(
                                 group.each(of_rule("test", "full", "error", 100)), 2),
                             mean_and_deviation(group.each([](const json& run) {
                                                    return history("loss")(run).back();
                                                }),
                                                4)};
                 });
}

/// The group of constant depth beside this one; null without.
const Group* constant_depth(const std::vector<Group>& groups, const Group& group) {
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& other) {
        return other.augment == group.augment && other.survival == 1;
    });
    return found == groups.end() ? nullptr : &*found;
}

std::string times(const std::vector<Group>& groups) {
    return "Training: seconds of the processor, without tests; saved, of the mean at constant depth; "
           "what the survival probabilities promise, 1 - sum(p) / L; and the blocks that ran:\n\n" +
           table({"", "CPU seconds", "wall seconds", "saved", "1 - sum(p) / L", "blocks run"},
                 groups, [&](const Group& group) -> Cells {
                     const auto seconds = group.each(cpu_seconds);
                     const Group* const constant = constant_depth(groups, group);
                     const auto& p = group.runs.front().at("survival_probabilities");
                     return {mean_and_deviation(seconds, 1),
                             mean_and_deviation(group.each([](const json& run) {
                                                    return total(history("seconds")(run));
                                                }),
                                                1),
                             constant ? fixed(100 * time_saved(constant->each(cpu_seconds), seconds), 1) +
                                            " %"
                                      : "-",
                             fixed(100 * theoretical_saving(p.get<std::vector<double>>()), 1) + " %",
                             mean_and_deviation(
                                 group.each([](const json& run) {
                                     return 100 * mean(history("share_of_blocks")(run));
                                 }),
                                 1) +
                                 " %"};
                 });
}

std::string gradients(const std::vector<Group>& groups) {
    const auto norms = [](const Group& group, const char* what) -> Cells {
        const auto curve = mean_curve(group.each(history(what)));
        return {fixed(curve.front(), 4), fixed(curve[curve.size() / 2], 4), fixed(curve.back(), 4)};
    };
    return "Norm of the gradient, mean over the steps of an epoch and over the seeds: of all "
           "parameters, and of the first layer's:\n\n" +
           table({"", "all: first epoch", "middle", "last", "first layer: first epoch", "middle",
                  "last"},
                 groups, [&](const Group& group) {
                     Cells cells = norms(group, "gradient_norm");
                     for (const std::string& cell : norms(group, "first_gradient_norm"))
                         cells.push_back(cell);
                     return cells;
                 });
}

std::string rules(const std::vector<Group>& groups) {
    const auto images = [&](const char* part) {
        return groups.front().runs.front().at("measured").at(part).at("images").dump();
    };
    const auto cell = [](const Group& group, const char* part, const char* rule, const char* figure,
                         double factor, int decimals) {
        return mean_and_deviation(group.each(of_rule(part, rule, figure, factor)), decimals);
    };
    return "Rules on the first " + images("sampled") +
           " test images, error in % and mean negative log-likelihood; best sampled: the estimate of "
           "the expectation that takes as many layer evaluations as 100 masks:\n\n" +
           table({"", "full depth", "weight scaling", "best sampled", "NLL full depth",
                  "NLL weight scaling", "NLL best sampled"},
                 groups,
                 [&](const Group& group) -> Cells {
                     constexpr const char* nll = "negative_log_likelihood";
                     return {cell(group, "sampled", "full", "error", 100, 2),
                             cell(group, "sampled", "weight", "error", 100, 2),
                             cell(group, "sampled", "best", "error", 100, 2),
                             cell(group, "sampled", "full", nll, 1, 4),
                             cell(group, "sampled", "weight", nll, 1, 4),
                             cell(group, "sampled", "best", nll, 1, 4)};
                 }) +
           "The exact expectation over all masks on the first " + images("exact") +
           " test images, mean negative log-likelihood, and the mean L1 distance of the other rules' "
           "class probabilities from its (of weight scaling: the weight-scaling gap):\n\n" +
           table({"", "NLL exact", "NLL full depth", "NLL weight scaling", "distance full depth",
                  "distance weight scaling"},
                 groups, [&](const Group& group) -> Cells {
                     constexpr const char* nll = "negative_log_likelihood";
                     constexpr const char* distance = "mean_l1_distance_to_exact";
                     return {cell(group, "exact", "exact", nll, 1, 4),
                             cell(group, "exact", "full", nll, 1, 4),
                             cell(group, "exact", "weight", nll, 1, 4),
                             cell(group, "exact", "full", distance, 1, 4),
                             cell(group, "exact", "weight", distance, 1, 4)};
                 });
}

/// Mean errors with k blocks removed, over the seeds: orders at random, and the last ones.
std::vector<double> removed_at_random(const Group& group) {
    std::vector<std::vector<double>> all;
    for (const json& run : group.runs)
        for (const json& order : run.at("measured").at("lesions").at("random"))
            all.push_back(order.get<std::vector<double>>());
    return mean_curve(all);
}
std::vector<double> removed_from_the_end(const Group& group) {
    return mean_curve(group.each([](const json& run) {
        return run.at("measured").at("lesions").at("last").get<std::vector<double>>();
    }));
}

std::string lesions(const std::vector<Group>& groups) {
    std::vector<std::size_t> removed{0, 1, 2, 3, 5, 8, 12};
    const std::size_t blocks = removed_from_the_end(groups.front()).size() - 1;
    std::erase_if(removed, [&](std::size_t k) { return k > blocks; });
    const auto part = [&](const std::string& which, const auto& curve_of) {
        Cells head{which};
        for (const std::size_t k : removed) head.push_back(std::to_string(k));
        return table(head, groups, [&](const Group& group) {
            Cells cells;
            for (const std::size_t k : removed) cells.push_back(fixed(100 * curve_of(group)[k], 1));
            return cells;
        });
    };
    return "Error at full depth, %, with so many of the " + std::to_string(blocks) +
           " blocks removed, on the first " +
           groups.front().runs.front().at("measured").at("lesions").at("images").dump() +
           " test images, mean over the seeds:\n\n" + part("at random", removed_at_random) +
           part("the last ones", removed_from_the_end);
}

std::string figures(const std::string& folder, const std::vector<Group>& groups) {
    std::vector<common::Curve> by_epoch, by_time, norms, random, last;
    for (const Group& group : groups) {
        const auto curve = [&](const std::vector<double>& values, double factor, double first) {
            common::Curve result{group.name(), {}};
            for (const double value : values)
                result.points.emplace_back(
                    first + static_cast<double>(result.points.size()), factor * value);
            return result;
        };
        by_epoch.push_back(curve(mean_curve(group.each(history("test_error"))), 100, 1));
        norms.push_back(curve(mean_curve(group.each(history("first_gradient_norm"))), 1, 1));
        random.push_back(curve(removed_at_random(group), 100, 0));
        random.back().title += ", at random";
        last.push_back(curve(removed_from_the_end(group), 100, 0));
        last.back().title += ", the last";
        by_time.push_back(by_epoch.back());
        const auto seconds = mean_curve(group.each(history("cpu_seconds")));
        double at = 0;
        for (std::size_t e = 0; e < seconds.size(); ++e)
            by_time.back().points[e].first = at += seconds[e];
    }
    random.insert(random.end(), last.begin(), last.end());
    common::write_curves(folder, "error_by_epoch", "epoch", "test error, %", by_epoch);
    common::write_curves(folder, "error_by_time", "CPU seconds of training", "test error, %",
                         by_time);
    common::write_curves(folder, "gradient_norm", "epoch", "gradient norm of the first layer", norms,
                         "set logscale y\n");
    common::write_curves(folder, "lesions", "blocks removed", "error, %", random);
    return common::draw_plots(folder,
                              {"error_by_epoch", "error_by_time", "gradient_norm", "lesions"});
}

std::string description(const json& settings) {
    return settings.at("images").get<std::string>() + ": " + settings.at("train").dump() +
           " training images, " + settings.at("test").dump() + " test images. ResNet-" +
           settings.at("depth").dump() + ", " + settings.at("epochs").dump() +
           " epochs of batches of " + settings.at("batch_size").dump() + ", learning rate " +
           settings.at("learning_rate").dump() + ", weight decay " +
           settings.at("weight_decay").dump() + "; mask scope " +
           settings.at("mask_scope").get<std::string>() + ".\n\n";
}

}  // namespace

std::string write_report(const std::string& folder) {
    const std::vector<Group> groups = read_groups(folder);
    const std::string report = description(groups.front().runs.front().at("settings")) +
                               errors(groups) + times(groups) + gradients(groups) + rules(groups) +
                               lesions(groups);
    common::write_file("--output", folder + "/report.md", report);
    return report + figures(folder, groups);
}

}  // namespace reproduction
