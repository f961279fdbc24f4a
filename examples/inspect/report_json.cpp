// SPDX-License-Identifier: MIT
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../common/output_file.hpp"
#include "report.hpp"

namespace inspect {
namespace {

using Json = nlohmann::ordered_json;

/// A list for each input.
template <class Matrix>
Json json_of_matrix(const Matrix& matrix) {
    Json lists = Json::array();
    for (sd::Index j = 0; j < matrix.cols(); ++j) {
        Json list = Json::array();
        for (sd::Index i = 0; i < matrix.rows(); ++i) list.push_back(matrix(i, j));
        lists.push_back(std::move(list));
    }
    return lists;
}
Json json_of_vector(const sd::Vector<float>& vector) {
    return std::vector<float>(vector.begin(), vector.end());
}

/// Adds the figures that there are.
void add(const Score& score, Json& json) {
    if (score.error) json["error"] = *score.error;
    if (score.negative_log_likelihood)
        json["negative_log_likelihood"] = *score.negative_log_likelihood;
    if (score.squared_error) json["mean_squared_error"] = *score.squared_error;
}

Json json_of(const Ensemble& ensemble, bool is_classifier) {
    const auto& moments = ensemble.moments;
    const bool is_exact = moments.method == sd::ExpectationMethod::exact;
    Json json{{"method", is_exact ? "exact" : "sampled"},
              {"masks", moments.samples},
              {"layer_evaluations", moments.layer_evaluations},
              {"mean", json_of_matrix(moments.mean)},
              {"variance", json_of_matrix(moments.variance)},
              {"standard_error", json_of_matrix(moments.standard_error)}};
    add(ensemble.score, json);
    if (is_classifier) {
        json["predictive_entropy"] = json_of_vector(ensemble.predictive_entropy);
        json["expected_entropy"] = json_of_vector(ensemble.expected_entropy);
        json["mutual_information"] = json_of_vector(ensemble.mutual_information);
    }
    if (ensemble.bounds)
        json["bounds"] = {{"covered", ensemble.bounds->covered},
                          {"masks", ensemble.bounds->masks},
                          {"lower", json_of_matrix(ensemble.bounds->lower)},
                          {"upper", json_of_matrix(ensemble.bounds->upper)}};
    return json;
}

Json json_of(const std::vector<Rule>& rules) {
    Json list = Json::array();
    for (const Rule& rule : rules) {
        Json json{
            {"rule", rule.name}, {"mean_gap", rule.mean_gap}, {"largest_gap", rule.largest_gap}};
        add(rule.score, json);
        json["outputs"] = json_of_matrix(rule.outputs);
        list.push_back(std::move(json));
    }
    return list;
}

Json json_of(const LayerFindings& findings) {
    Json layers = Json::array();
    for (const LayerRow& layer : findings.layers)
        layers.push_back({{"path", layer.path},
                          {"survival_probability", layer.survival_probability},
                          {"sensitivity", layer.sensitivity},
                          {"sensitivity_error_at_most", layer.sensitivity_error},
                          {"shapley_value", layer.shapley},
                          {"shapley_error_at_most", layer.shapley_error}});
    return {{"judged_by", findings.judged_by},
            {"sensitivity_evaluations", findings.sensitivity_evaluations},
            {"shapley_evaluations", findings.shapley_evaluations},
            {"layers", layers}};
}

Json json_of(const Subnetworks& subnetworks) {
    Json json{{"judged_by", subnetworks.judged_by}};
    if (!subnetworks.found) {
        json["skipped"] = subnetworks.skipped;
        return json;
    }
    json["search"] =
        subnetworks.found->search == sd::SubnetworkSearch::every_mask ? "every mask" : "beam";
    json["layer_evaluations"] = subnetworks.found->layer_evaluations;
    Json best = Json::array();
    for (std::size_t k = 0; k < subnetworks.found->by_size.size(); ++k) {
        const sd::Subnetwork& each = subnetworks.found->by_size[k];
        Json row{{"layers", each.mask.count()},
                 {"mask", to_string(each.mask)},
                 {"score", 0.0 - each.score}};
        add(subnetworks.scores[k], row);
        best.push_back(std::move(row));
    }
    json["best"] = best;
    return json;
}

Json json_of(const Options& options) {
    return {
        {"network", options.network}, {"weights", options.weights}, {"inputs", options.inputs},
        {"labels", options.labels},   {"targets", options.targets}, {"survival", options.survival},
        {"budget", options.budget},   {"seed", options.seed},       {"threads", options.threads}};
}

}  // namespace

void write_json(const std::string& path, const Report& report) {
    const Json json{{"options", json_of(*report.options)},
                    {"inputs", report.question->batch()},
                    {"outputs", report.question->outputs()},
                    {"expectation", json_of(report.ensemble, report.question->is_classifier)},
                    {"rules", json_of(report.ensemble.rules)},
                    {"layers", json_of(report.layers)},
                    {"subnetworks", json_of(report.subnetworks)},
                    {"seconds", report.seconds}};
    common::write_file("--json", path,
                       json.dump(2, ' ', false, Json::error_handler_t::replace) + '\n');
}

}  // namespace inspect
