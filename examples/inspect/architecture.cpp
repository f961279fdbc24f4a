// SPDX-License-Identifier: MIT
#include "architecture.hpp"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <vector>

#include <stochastic_depth/io/torch_names.hpp>

namespace inspect {
namespace {

/// \throws common::UsageError  if the file is not there, is not JSON, has a field twice, or is
///                             nested so deep that it would take the stack.
nlohmann::json parse_file(const std::string& path) {
    errno = 0;
    std::ifstream file(path);
    std::ostringstream text;
    if (file) text << file.rdbuf();
    if (!file.is_open() || text.bad())
        throw common::UsageError(path +
                                 ": cannot be read: " + std::generic_category().message(errno));
    std::vector<std::set<std::string>> open;
    const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
        using Event = nlohmann::json::parse_event_t;
        if (depth > 100) throw common::UsageError(path + ": is nested more than 100 deep");
        if (event == Event::object_start) open.emplace_back();
        if (event == Event::object_end) open.pop_back();
        if (event == Event::key && !open.back().insert(parsed.get<std::string>()).second)
            throw common::UsageError(path + ": the field " + Fields::short_text(parsed) +
                                     " is there twice");
        return true;
    };
    try {
        return nlohmann::json::parse(text.str(), watch);
    } catch (const nlohmann::json::exception& error) {
        // Behind "[json.exception.parse_error.101] ".
        const std::string what = error.what();
        throw common::UsageError(path + ": cannot be read as JSON: " +
                                 what.substr(std::min(what.size(), what.find("] ") + 2)));
    }
}

/// The text that --survival has in place of the field.
std::string survival_text(Fields& fields) {
    const auto* const value = fields.find("survival");
    if (!value) return {};
    if (value->is_string()) return value->get<std::string>();
    if (value->is_number()) return value->dump();
    std::string text;
    bool is_list = value->is_array() && !value->empty();
    for (const auto& each : is_list ? *value : nlohmann::json::array()) {
        is_list = is_list && each.is_number();
        text += (text.empty() ? "" : ",") + each.dump();
    }
    if (!is_list) fields.refuse_value("survival", "a number, a list of numbers or a text", *value);
    return text;
}

/// Adds what one entry of the field `names` stands for.
void add_names(const nlohmann::json& entry, const std::string& where, sd::Index resnet_depth,
               const std::optional<sd::NormOrder>& norm, sd::TensorNames& names) {
    const auto add = [&](const sd::TensorNames& more) {
        names.insert(names.end(), more.begin(), more.end());
    };
    const bool is_pair =
        entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string();
    if (is_pair) return add({{entry[0].get<std::string>(), entry[1].get<std::string>()}});
    const std::string text = entry.is_string() ? entry.get<std::string>() : "";
    if (text == "torchvision_resnet" && resnet_depth > 0)
        return add(sd::torchvision_resnet_names(resnet_depth));
    const std::string encoder = "torch_encoder";
    if (text.starts_with(encoder) && norm &&
        (text.size() == encoder.size() || text[encoder.size()] == ':'))
        return add(
            sd::torch_encoder_names(*norm, text.substr(std::min(text.size(), encoder.size() + 1))));
    throw common::UsageError(
        where +
        " must be a pair of names, in the file and in the network, or torchvision_resnet "
        "(of a resnet with activation post) or torch_encoder (of a transformer), got " +
        Fields::short_text(entry));
}

sd::TensorNames names_of(Fields& fields, const std::string& model) {
    const auto* const list = fields.find("names");
    if (!list) return {};
    if (!list->is_array()) fields.refuse_value("names", "a list", *list);
    const bool is_post_resnet =
        model == "resnet" && fields.choice("activation", {"post", "pre"}) == "post";
    const sd::Index depth = is_post_resnet ? fields.count("depth", 8, 10'000) : 0;
    std::optional<sd::NormOrder> norm;
    if (model == "transformer")
        norm = fields.choice("norm", {"pre", "post"}) == "pre" ? sd::NormOrder::pre
                                                               : sd::NormOrder::post;
    sd::TensorNames names;
    for (std::size_t k = 0; k < list->size(); ++k)
        add_names((*list)[k], fields.path("names") + "[" + std::to_string(k) + "]", depth, norm,
                  names);
    return names;
}

}  // namespace

Architecture read_architecture(const std::string& path) {
    const nlohmann::json json = parse_file(path);
    Fields fields(json, path + ": ");
    (void)fields.at("model");
    const std::string model = fields.choice("model", {"dense", "resnet", "transformer"});
    Architecture architecture = model == "dense"    ? dense_architecture(fields)
                                : model == "resnet" ? resnet_architecture(fields)
                                                    : transformer_architecture(fields);
    architecture.is_classifier = fields.flag("classifier", model != "dense");
    architecture.survival = survival_text(fields);
    architecture.names = names_of(fields, model);
    if (fields.choice("extra_tensors", {"refuse", "ignore"}) == "ignore")
        architecture.extra = sd::ExtraTensors::ignore;
    fields.finish();
    try {
        architecture.depth = architecture.make({}).depth();
    } catch (const std::invalid_argument& error) {
        fields.refuse(error.what());
    }
    return architecture;
}

std::string template_of(const std::string& kind) {
    if (kind == "resnet")
        return R"({
  "model": "resnet",
  "depth": 20,
  "input": [3, 32, 32],
  "channels": 16,
  "classes": 10,
  "activation": "post",
  "shortcut": "projection",
  "survival": "linear:0.5",
  "names": ["torchvision_resnet"]
}
)";
    if (kind == "transformer")
        return R"({
  "model": "transformer",
  "vocabulary": 8000,
  "positions": 64,
  "width": 64,
  "heads": 4,
  "feed_forward": 256,
  "blocks": 6,
  "classes": 2,
  "norm": "pre",
  "skipped": "sublayer",
  "encoding": "learned",
  "rotary": false,
  "pooling": "mean",
  "survival": "linear:0.5",
  "names": ["torch_encoder:encoder."]
}
)";
    return R"({
  "model": "dense",
  "inputs": 8,
  "layers": [
    {"type": "linear", "outputs": 32},
    {"type": "block", "repeat": 6, "branch": [
      {"type": "layer_norm"},
      {"type": "linear", "outputs": 64},
      {"type": "relu"},
      {"type": "linear", "outputs": 32}
    ]},
    {"type": "linear", "outputs": 3}
  ],
  "classifier": true,
  "survival": "linear:0.5",
  "names": [["blocks.*.fc1.weight", "1.*.branch.1.weight"]]
}
)";
}

}  // namespace inspect
