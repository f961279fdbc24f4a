// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <vector>

#include "../common/mask_scope.hpp"
#include "../common/output_file.hpp"
#include "../common/rules_report.hpp"
#include "../common/text.hpp"

namespace fashion_mnist {
namespace {

using common::fixed;
namespace sd = stochastic_depth;

nlohmann::ordered_json json_of(const LayerImportance& importance) {
    auto layers = nlohmann::ordered_json::array();
    for (const auto& layer : importance.layers)
        layers.push_back({{"survival_probability", layer.survival_probability},
                          {"sensitivity", layer.sensitivity},
                          {"shapley_value", layer.shapley},
                          {"error_without", layer.error_without}});
    return {
        {"images", importance.images}, {"full_error", importance.full_error}, {"layers", layers}};
}

nlohmann::ordered_json json_of(const Subnetworks& found) {
    auto best = nlohmann::ordered_json::array();
    for (const auto& each : found.best)
        best.push_back({{"layers", each.mask.count()},
                        {"mask", to_string(each.mask)},
                        {"negative_log_likelihood", each.negative_log_likelihood},
                        {"error", each.error}});
    auto pairs = nlohmann::ordered_json::array();
    for (const auto& row : found.pairs.rowwise())
        pairs.push_back(std::vector<double>(row.begin(), row.end()));
    return {{"images", found.images}, {"best", best}, {"shapley_interactions", pairs}};
}

nlohmann::ordered_json json_of(const Options& options) {
    return {{"data", options.data},
            {"train", options.train},
            {"test", options.test},
            {"epochs", options.epochs},
            {"depth", options.depth},
            {"width", options.width},
            {"final_survival", options.final_survival},
            {"mask_scope", common::to_string(options.mask_scope)},
            {"batch_size", options.batch_size},
            {"learning_rate", options.learning_rate},
            {"seed", options.seed},
            {"threads", options.threads}};
}

nlohmann::ordered_json json_of(const Report& report) {
    auto losses = nlohmann::ordered_json::array();
    auto seconds = nlohmann::ordered_json::array();
    for (const auto& epoch : report.epochs) {
        losses.push_back(epoch.loss);
        seconds.push_back(epoch.seconds);
    }
    return {{"options", json_of(report.options)},
            {"training",
             {{"seconds", report.training_seconds()},
              {"share_of_layers_run", report.share_of_layers_run()},
              {"epoch_losses", losses},
              {"epoch_seconds", seconds}}},
            {"rules", common::json_of(report.rows)},
            {"layer_importance",
             report.importance ? json_of(*report.importance) : nlohmann::ordered_json(nullptr)},
            {"subnetworks",
             report.subnetworks ? json_of(*report.subnetworks) : nlohmann::ordered_json(nullptr)},
            {"seconds", report.seconds}};
}

void print(std::ostream& out, const LayerImportance& importance) {
    out << "\nWhat the layers do for the probability of the right class, mean over "
        << importance.images << " test images:\n"
        << "derivative of the exact expectation by p_l, and Shapley value; and the error of full depth\n"
        << "without this layer (with all: " << fixed(100 * importance.full_error, 1) << " %).\n\n"
        << "layer    p_l   derivative    Shapley    error without\n";
    for (std::size_t l = 0; l < importance.layers.size(); ++l) {
        const auto& layer = importance.layers[l];
        out << std::setw(5) << l + 1 << std::setw(7) << fixed(layer.survival_probability, 3)
            << std::setw(13) << fixed(layer.sensitivity, 4) << std::setw(11)
            << fixed(layer.shapley, 4) << std::setw(15) << fixed(100 * layer.error_without, 1)
            << " %\n";
    }
}

void print(std::ostream& out, const Subnetworks& found) {
    out << "\nThe best network of each size that is left when layers are taken out, of all masks, by "
           "the\nnegative log-likelihood of the same images, which chose it:\n\n"
        << "layers       NLL     error    kept\n";
    for (const auto& best : found.best)
        out << std::setw(6) << best.mask.count() << std::setw(10)
            << fixed(best.negative_log_likelihood, 4) << std::setw(8) << fixed(100 * best.error, 1)
            << " %    " << to_string(best.mask) << '\n';
    sd::Index one = 0, other = 0;
    if (found.pairs.rows() < 2) return;
    found.pairs.cwiseAbs().maxCoeff(&one, &other);
    out << "\nLayers " << std::min(one, other) + 1 << " and " << std::max(one, other) + 1
        << " do most together: a Shapley interaction of " << fixed(found.pairs(one, other), 4)
        << ".\n";
}

}  // namespace

double Report::training_seconds() const {
    double sum = 0;
    for (const auto& epoch : epochs) sum += epoch.seconds;
    return sum;
}

double Report::share_of_layers_run() const {
    double run = 0;
    double all = 0;
    for (const auto& epoch : epochs) {
        run += epoch.layer_evaluations;
        all += epoch.full_depth_evaluations;
    }
    return all > 0 ? run / all : 1;
}

void print(std::ostream& out, const Report& report) {
    const Options& options = report.options;
    out << "Fashion-MNIST, " << options.train << " training images, " << options.test
        << " test images\n"
        << options.depth << " skippable layers x + relu(W x + b) of width " << options.width
        << ", survival by linear decay to " << options.final_survival << '\n'
        << "training: " << report.epochs.size() << " epochs, "
        << fixed(report.training_seconds(), 1) << " s";
    if (!report.epochs.empty())
        out << ", loss " << fixed(report.epochs.front().loss, 3) << " to "
            << fixed(report.epochs.back().loss, 3) << ", "
            << fixed(100 * report.share_of_layers_run(), 1) << " % of the layers run";
    out << "\n\n";
    common::print(out, report.rows);
    common::print_legend(out, options.threads);
    out << "; " << fixed(report.seconds, 1) << " s in all.\n";
    if (report.importance) print(out, *report.importance);
    if (report.subnetworks) print(out, *report.subnetworks);
}

void write_json(const std::string& path, const Report& report) {
    common::write_file("--json", path, json_of(report).dump(2) + '\n');
}

}  // namespace fashion_mnist
