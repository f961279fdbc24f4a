// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>
#include <vector>

#include "../common/json_file.hpp"
#include "../common/output_file.hpp"
#include "../common/plots.hpp"
#include "../common/spread.hpp"
#include "variants.hpp"

namespace text_study {
namespace {

using common::fixed;
using common::mean_and_deviation;
using nlohmann::json;

/// The runs that differ in nothing but the seed.
struct Group {
    std::string title;
    std::vector<json> runs = {};

    /// value(run) of each.
    template <class Value>
    [[nodiscard]] auto each(const Value& value) const {
        std::vector<std::decay_t<decltype(value(runs.front()))>> values;
        for (const json& run : runs) values.push_back(value(run));
        return values;
    }
};

/// The runs on one data set, in the order of the variants.
struct Set {
    std::string name;
    std::vector<Group> groups = {};

    [[nodiscard]] const json& first() const { return groups.front().runs.front(); }
};

std::vector<Set> read_sets(const std::string& folder) {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
    if (paths.empty()) throw common::UsageError(folder + ": holds no finished run");
    std::sort(paths.begin(), paths.end());
    std::map<std::string, std::map<std::string, std::vector<json>>> runs;
    std::map<std::string, json> common_settings;
    for (const std::string& path : paths) {
        json run = common::read_json(path);
        const std::string set = run.at("settings").at("texts");
        json settings = run.at("settings");
        for (const char* const own : {"final_survival", "survival_decay", "skipping", "seed"})
            settings.erase(own);
        const auto [found, is_first] = common_settings.emplace(set, settings);
        if (!is_first) common::check_same_settings(path, settings, found->second);
        const std::string variant = run.at("variant");
        runs[set][variant].push_back(std::move(run));
    }
    std::vector<Set> sets;
    for (auto& [name, of_set] : runs) {
        Set& set = sets.emplace_back(Set{name});
        for (const Variant& variant : variants)
            if (const auto found = of_set.find(variant.name); found != of_set.end())
                set.groups.push_back({variant.title, std::move(found->second)});
        if (set.groups.empty())
            throw common::UsageError(folder + ": holds no run of a variant that is known");
    }
    return sets;
}

constexpr double none = std::numeric_limits<double>::quiet_NaN();

/// A number, or NaN (null in the file).
double number(const json& value) { return value.is_null() ? none : value.get<double>(); }

/// A figure of the history, epoch after epoch.
auto history(const char* what) {
    return [what](const json& run) {
        std::vector<double> values;
        for (const json& epoch : run.at("history")) values.push_back(epoch.at(what));
        return values;
    };
}
double mean(const std::vector<double>& values) { return common::spread(values).mean; }

/// What a rule came to, where its name begins so; NaN where it did not run.
auto of_rule(const std::string& rule, const char* figure, double factor = 1) {
    return [=](const json& run) {
        for (const json& row : run.at("measured").at("rules"))
            if (row.at("rule").get<std::string>().starts_with(rule) && row.contains(figure))
                return factor * number(row.at(figure));
        return none;
    };
}

/// Figures of a way to choose layers, for 0, 1, ..., L of them.
auto of_choice(const std::string& name, const char* what = "errors") {
    return [=](const json& run) {
        std::vector<double> values;
        for (const json& choice : run.at("measured").at("choices"))
            if (choice.at("name") == name)
                for (const json& value : choice.at(what)) values.push_back(number(value));
        return values;
    };
}

/// Mean of several curves of the same length, point by point.
std::vector<double> mean_curve(const std::vector<std::vector<double>>& curves) {
    std::vector<double> result(curves.front().size(), 0.0);
    for (const auto& curve : curves)
        for (std::size_t i = 0; i < result.size(); ++i)
            result[i] += curve.at(i) / static_cast<double>(curves.size());
    return result;
}

std::vector<std::string> choice_names(const json& run) {
    std::vector<std::string> names;
    for (const json& choice : run.at("measured").at("choices")) names.push_back(choice.at("name"));
    return names;
}

using Cells = std::vector<std::string>;

std::string line(const Cells& cells) {
    std::string text = "|";
    for (const std::string& cell : cells) text += " " + cell + " |";
    return text + "\n";
}
std::string head_of(const Cells& head) { return line(head) + line(Cells(head.size(), "---")); }

std::string table(const Cells& head, const Set& set,
                  const std::function<Cells(const Group&)>& cells) {
    std::string text = head_of(head);
    for (const Group& group : set.groups) {
        Cells all = cells(group);
        all.insert(all.begin(), group.title);
        text += line(all);
    }
    return text;
}

constexpr const char* nll = "negative_log_likelihood";

std::string rules(const Set& set) {
    const std::string masks = set.first().at("measured").at("masks").dump() + " masks";
    const json& bayes = set.first().at("measured").at("baseline");
    const auto part = [&](const char* figure, double factor, int decimals) {
        const auto cell = [&](const Group& group, const char* rule) {
            return mean_and_deviation(group.each(of_rule(rule, figure, factor)), decimals);
        };
        return table({"", "full depth", "weight scaling", masks, "exact"}, set,
                     [&](const Group& group) -> Cells {
                         return {cell(group, "full"), cell(group, "weight"),
                                 cell(group, "Monte Carlo"), cell(group, "exact")};
                     }) +
               line({bayes.at("rule"), fixed(factor * number(bayes.at(figure)), decimals), "", "",
                     ""}) +
               "\n";
    };
    std::size_t fewest = set.groups.front().runs.size(), most = fewest;
    for (const Group& group : set.groups) {
        fewest = std::min(fewest, group.runs.size());
        most = std::max(most, group.runs.size());
    }
    const std::string seeds = std::to_string(fewest) +
                              (most > fewest ? " to " + std::to_string(most) : "") +
                              (most > 1 ? " seeds" : " seed");
    return "Test error, %, mean +- standard deviation over " + seeds +
           ", by each rule for using the network:\n\n" + part("error", 100, 2) +
           "Mean negative log-likelihood on the same texts:\n\n" + part(nll, 1, 4) +
           "Expected calibration error:\n\n" + part("expected_calibration_error", 1, 4);
}

std::string training(const Set& set) {
    return "Training: loss of the last epoch, under masks and dropout; error on the development "
           "texts after it, by weight scaling; the share of skippable layers that ran; seconds of the processor:\n\n" +
           table({"", "last training loss", "development error, %", "layers run, %", "CPU seconds"},
                 set,
                 [](const Group& group) -> Cells {
                     const auto last = [&](const char* what, double factor) {
                         return group.each(
                             [=](const json& run) { return factor * history(what)(run).back(); });
                     };
                     return {mean_and_deviation(last("loss", 1), 4),
                             mean_and_deviation(last("test_error", 100), 2),
                             fixed(100 * mean(group.each([](const json& run) {
                                       return mean(history("share_of_layers")(run));
                                   })),
                                   1),
                             mean_and_deviation(group.each([](const json& run) {
                                 double sum = 0;
                                 for (const double s : history("cpu_seconds")(run)) sum += s;
                                 return sum;
                             }),
                                                1)};
                 }) +
           "\n";
}

std::size_t depth_of(const Set& set) {
    return of_choice(choice_names(set.first()).front())(set.first()).size() - 1;
}

std::string cell_of(double value, int decimals) {
    return std::isnan(value) ? "" : fixed(value, decimals);
}

/// Errors of all choices, for each variant.
std::string depths(const Set& set) {
    const std::size_t depth = depth_of(set);
    std::string text = "Test error, %, with so many of the " + std::to_string(depth) +
                       " skippable layers kept and the others taken out, mean over the seeds:\n\n";
    for (const Group& group : set.groups) {
        Cells head{group.title};
        for (std::size_t k = 0; k <= depth; ++k) head.push_back(std::to_string(k));
        text += head_of(head);
        for (const std::string& name : choice_names(set.first())) {
            Cells cells{name};
            for (const double error : mean_curve(group.each(of_choice(name))))
                cells.push_back(cell_of(100 * error, 1));
            text += line(cells);
        }
        text += "\n";
    }
    return text;
}

/// How far a choice is from the best that the development texts know: mean over the sizes that it
/// has, without 0 and L.
double distance_from_best(const json& run, const std::string& choice) {
    const auto errors = of_choice(choice)(run);
    const auto best = of_choice("best on development texts")(run);
    double sum = 0, count = 0;
    for (std::size_t k = 1; k + 1 < errors.size(); ++k)
        if (!std::isnan(errors[k])) {
            sum += 100 * (errors[k] - best[k]);
            ++count;
        }
    return count > 0 ? sum / count : none;
}

std::string distances(const Set& set) {
    std::vector<std::string> names = choice_names(set.first());
    std::erase(names, "best on development texts");
    Cells head{""};
    head.insert(head.end(), names.begin(), names.end());
    return "How far the choices are from the best network of each size by the development texts, in "
           "percentage points of test error, mean over the sizes 1, ..., " +
           std::to_string(depth_of(set) - 1) +
           " that a choice has, and standard deviation over the seeds (below 0: better):\n\n" +
           table(head, set,
                 [&](const Group& group) {
                     Cells cells;
                     for (const std::string& name : names) {
                         const auto values = group.each(
                             [&](const json& run) { return distance_from_best(run, name); });
                         cells.push_back(
                             std::isnan(values.front()) ? "" : mean_and_deviation(values, 2));
                     }
                     return cells;
                 }) +
           "\n";
}

/// Of the extracted networks, over that of all layers: one run after another, whatever its variant.
std::string extracted_times(const Set& set) {
    const std::size_t depth = depth_of(set);
    Cells head{"layers"}, ratios{"time / time of all"}, layers{"layers / all"};
    std::vector<std::vector<double>> all;
    for (const Group& group : set.groups)
        for (const json& run : group.runs) {
            auto seconds = run.at("measured").at("extracted_seconds").get<std::vector<double>>();
            const double full = seconds.back();
            for (double& value : seconds) value /= full;
            all.push_back(std::move(seconds));
        }
    for (std::size_t k = 0; k <= depth; ++k) {
        std::vector<double> of_size;
        for (const auto& seconds : all) of_size.push_back(seconds.at(k));
        head.push_back(std::to_string(k));
        ratios.push_back(mean_and_deviation(of_size, 2));
        layers.push_back(fixed(static_cast<double>(k) / static_cast<double>(depth), 2));
    }
    return "Processor time of the extracted network of the first layers, for all test texts, over that "
           "of all layers; mean +- standard deviation over " +
           std::to_string(all.size()) + " networks:\n\n" + head_of(head) + line(ratios) +
           line(layers) + "\n";
}

std::vector<std::string> figures(const std::string& folder, const Set& set) {
    std::vector<common::Curve> depth_curves, epochs;
    for (const Group& group : set.groups) {
        common::Curve by_epoch{group.title, {}};
        for (const double error : mean_curve(group.each(history("test_error"))))
            by_epoch.points.emplace_back(static_cast<double>(by_epoch.points.size() + 1),
                                         100 * error);
        epochs.push_back(std::move(by_epoch));
        for (const char* const name : {"the first", "at random", "best on development texts"}) {
            common::Curve curve{group.title + ": " + name, {}};
            for (const double error : mean_curve(group.each(of_choice(name))))
                curve.points.emplace_back(static_cast<double>(curve.points.size()),
                                          100 * (1 - error));
            // Three curves for each of two variants can be told apart, eighteen cannot.
            if (group.title == variants[0].title || group.title == variants[2].title)
                depth_curves.push_back(std::move(curve));
        }
    }
    std::vector<std::string> names{set.name + "_epochs"};
    common::write_curves(folder, names[0], "epoch", "error on development texts, %", epochs);
    if (!depth_curves.empty()) {
        names.push_back(set.name + "_depth");
        common::write_curves(folder, names[1], "layers kept", "test accuracy, %", depth_curves);
    }
    return names;
}

std::string description(const Set& set) {
    const json& settings = set.first().at("settings");
    const json& texts = set.first().at("measured").at("texts");
    const auto of = [&](const char* name) { return settings.at(name).dump(); };
    return "## " + set.name + "\n\n" + texts.at("train").dump() + " texts to train on, " +
           texts.at("dev").dump() + " for development, " + texts.at("test").dump() +
           " to test on; " + texts.at("token_ids").dump() + " words. " + of("blocks") +
           " blocks of width " + of("width") + ", " + of("heads") + " heads, feed-forward " +
           of("feed_forward") + ", dropout " + of("dropout") + ", token dropout " +
           of("token_dropout") + "; " + of("epochs") + " epochs of batches of " + of("batch_size") +
           ", learning rate " + of("learning_rate") + ", weight decay " + of("weight_decay") +
           ".\n\n";
}

}  // namespace

std::string write_report(const std::string& folder) {
    std::string report;
    std::vector<std::string> plots;
    for (const Set& set : read_sets(folder)) {
        report += description(set) + rules(set) + training(set) + distances(set) + depths(set) +
                  extracted_times(set);
        for (const std::string& name : figures(folder, set)) plots.push_back(name);
    }
    common::write_file("--output", folder + "/report.md", report);
    return report + common::draw_plots(folder, plots);
}

}  // namespace text_study
