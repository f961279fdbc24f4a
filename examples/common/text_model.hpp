// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <exception>
#include <functional>
#include <istream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/io/tokenizer_file.hpp>
#include <stochastic_depth/training/checkpoint.hpp>

#include "json_file.hpp"
#include "output_file.hpp"
#include "text.hpp"
#include "text_training.hpp"
#include "usage_error.hpp"

namespace common {

/// A network with what its numbers mean.
struct TextModel {
    sd::Tokenizer tokenizer;
    std::vector<std::string> classes;
    TextNetwork network;
    sd::Index positions;  ///< tokens that the network takes
};

/// Writes PATH, PATH.tokens and PATH.json.
/// \throws UsageError  if a file cannot be written.
inline void save_model(const std::string& path, const TextModel& model,
                       const TextSettings& settings) {
    try {
        sd::save_parameters(path, model.network);
        sd::save_tokenizer(path + ".tokens", model.tokenizer);
    } catch (const std::exception& error) {
        throw UsageError(error.what());
    }
    const nlohmann::json json{{"classes", model.classes},
                              {"positions", settings.positions},
                              {"blocks", settings.blocks},
                              {"width", settings.width},
                              {"heads", settings.heads},
                              {"feed_forward", settings.feed_forward},
                              {"final_survival", settings.final_survival},
                              {"rotary", settings.rotary},
                              {"dropout", settings.dropout}};
    write_file("--save", path + ".json", json.dump(2) + "\n");
}

/// \throws UsageError  if a file is not there, or not what save_model wrote.
[[nodiscard]] inline TextModel load_model(const std::string& path) {
    try {
        const nlohmann::json json = read_json(path + ".json");
        const auto classes = json.at("classes").get<std::vector<std::string>>();
        TextSettings settings;
        json.at("positions").get_to(settings.positions);
        json.at("blocks").get_to(settings.blocks);
        json.at("width").get_to(settings.width);
        json.at("heads").get_to(settings.heads);
        json.at("feed_forward").get_to(settings.feed_forward);
        json.at("final_survival").get_to(settings.final_survival);
        json.at("rotary").get_to(settings.rotary);
        json.at("dropout").get_to(settings.dropout);
        const sd::Tokenizer tokenizer = sd::load_tokenizer(path + ".tokens");
        TextModel model{tokenizer, classes,
                        text_network(settings, tokenizer.vocabulary_size(),
                                     static_cast<sd::Index>(classes.size())),
                        settings.positions};
        sd::load_parameters(path, model.network);
        return model;
    } catch (const UsageError&) {
        throw;
    } catch (const std::exception& error) {
        throw UsageError(path + ": " + error.what());
    }
}

/// What the masks say of a text: the most probable classes, how far the masks disagree on them, and
/// the mutual information.
/// \throws std::invalid_argument  if the text is no UTF-8, or has no token.
inline void print_answer(std::ostream& out, const TextModel& model, const std::string& text,
                         unsigned threads) {
    const auto tokens =
        sd::tokens_of<float>(model.tokenizer, std::vector{text}, {.positions = model.positions});
    const sd::Index length = sd::lengths_of(tokens.ids)[0];
    const TextAnswer of = answer(model.network, tokens.ids.topRows(length), threads);
    std::vector<sd::Index> order(model.classes.size());
    for (std::size_t k = 0; k < order.size(); ++k) order[k] = static_cast<sd::Index>(k);
    std::stable_sort(order.begin(), order.end(), [&](sd::Index a, sd::Index b) {
        return of.probabilities(a) > of.probabilities(b);
    });
    for (std::size_t rank = 0; rank < std::min<std::size_t>(order.size(), 5); ++rank) {
        const sd::Index k = order[rank];
        out << "  " << fixed(100 * of.probabilities(k), 1) << " % +- "
            << fixed(100 * of.deviations(k), 1) << "  "
            << model.classes[static_cast<std::size_t>(k)] << '\n';
    }
    out << "  " << (of.is_exact ? "over all masks" : "over 1000 masks") << "; entropy "
        << fixed(of.entropy, 4) << ", of which the masks disagree about "
        << fixed(of.mutual_information, 4) << " nats" << (tokens.truncated > 0 ? "; cut" : "")
        << std::endl;
}

/// Answers line after line, until there is no more.
/// \param prepared  What stands for a line in the model's training.
inline void answer_lines(
    std::istream& in, std::ostream& out, const TextModel& model, unsigned threads,
    const std::function<std::string(const std::string&)>& prepared = std::identity{}) {
    out << "Type a text and Enter; the end of the input (Ctrl-D) ends the program.\n";
    for (std::string line; out << "> " << std::flush && std::getline(in, line);) {
        try {
            print_answer(out, model, prepared(line), threads);
        } catch (const std::invalid_argument& error) {
            out << "  " << error.what() << std::endl;
        }
    }
    out << std::endl;
}

}  // namespace common
