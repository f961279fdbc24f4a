// SPDX-License-Identifier: MIT
#include "question.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include <stochastic_depth/io/npy.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/survival/schedules.hpp>

namespace inspect {
namespace {

/// A survival probability.
double probability(const std::string& text, const std::string& where) {
    double p = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, p);
    if (error != std::errc{} || rest != end || !(p > 0 && p <= 1))
        throw common::UsageError(
            where + ": a survival probability must be a number in (0, 1], got " + text);
    return p;
}

/// \param text   A number, linear:NUMBER, or a list of numbers.
/// \param where  It comes from.
Eigen::VectorXd survival_of(const std::string& text, sd::Index depth, const std::string& where) {
    const std::string linear = "linear:";
    if (text.starts_with(linear))
        return sd::linear_decay(depth, probability(text.substr(linear.size()), where));
    if (text.find(',') == std::string::npos && depth != 1)
        return sd::uniform_survival(depth, probability(text, where));
    std::vector<double> p;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        p.push_back(probability(text.substr(begin, end - begin), where));
        begin = end + 1;
    }
    if (static_cast<sd::Index>(p.size()) != depth)
        throw common::UsageError(where + ": there must be a survival probability for each of " +
                                 std::to_string(depth) + " skippable layers, got " +
                                 std::to_string(p.size()));
    return Eigen::Map<const Eigen::VectorXd>(p.data(), depth);
}

/// What a safetensors file says of survival probabilities, as --survival has it; empty if it says
/// nothing, or cannot be read, of which load_safetensors tells more.
std::string survival_in_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    unsigned char bytes[8] = {};
    file.read(reinterpret_cast<char*>(bytes), 8);
    std::uint64_t size = 0;
    for (int i = 8; i-- > 0;) size = size << 8 | bytes[i];
    constexpr std::uint64_t largest_header = 100'000'000;
    if (!file || size > largest_header) return {};
    std::string header(static_cast<std::size_t>(size), ' ');
    file.read(header.data(), static_cast<std::streamsize>(size));
    const auto json = nlohmann::json::parse(header, nullptr, false);
    if (!file || !json.is_object()) return {};
    const auto metadata = json.find("__metadata__");
    if (metadata == json.end() || !metadata->is_object()) return {};
    const auto found = metadata->find("survival_probabilities");
    if (found == metadata->end() || !found->is_string()) return {};
    const auto list = found->get<std::string>();
    return list.starts_with('[') && list.ends_with(']') && list.size() > 2
               ? list.substr(1, list.size() - 2)
               : std::string();
}

/// An array of finite numbers, a column for each input.
sd::Matrix<double> read_array(const std::string& option, const std::string& path) {
    sd::Matrix<double> array;
    try {
        array = sd::load_npy<double>(path).transpose();
    } catch (const std::runtime_error& error) {
        throw common::UsageError(option + ": " + error.what());
    }
    for (sd::Index j = 0; j < array.cols(); ++j)
        for (sd::Index i = 0; i < array.rows(); ++i)
            if (!std::isfinite(array(i, j)))
                throw common::UsageError(option + ": " + path + ": numbers must be finite, got " +
                                         common::fixed(array(i, j), 0) + " at [" +
                                         std::to_string(j) + ", " + std::to_string(i) + "]");
    return array;
}

sd::Matrix<float> read_inputs(const Options& options, const Architecture& architecture) {
    const std::string where = "--inputs: " + options.inputs + ": ";
    sd::Matrix<double> x = read_array("--inputs", options.inputs);
    if (options.samples)
        x.conservativeResize(Eigen::NoChange, std::min(*options.samples, x.cols()));
    if (x.cols() == 0) throw common::UsageError(where + "there is no input");
    const bool fits = architecture.takes_tokens ? x.rows() >= 1 && x.rows() <= architecture.inputs
                                                : x.rows() == architecture.inputs;
    if (!fits)
        throw common::UsageError(where + "must be [batch, " +
                                 (architecture.takes_tokens ? "at most " : "") +
                                 std::to_string(architecture.inputs) + "], got [" +
                                 std::to_string(x.cols()) + ", " + std::to_string(x.rows()) + "]");
    if (!options.channels_first) return x.cast<float>();
    if (!architecture.image)
        throw common::UsageError("--channels-first: the network takes no images");
    const sd::ImageShape& shape = *architecture.image;
    sd::Matrix<float> turned(x.rows(), x.cols());
    const sd::Index positions = shape.height * shape.width;
    for (sd::Index c = 0; c < shape.channels; ++c)
        for (sd::Index k = 0; k < positions; ++k)
            turned.row(c + shape.channels * k) = x.row(k + positions * c).cast<float>();
    return turned;
}

/// \param classes  Each label must be one of them.
Eigen::VectorXi read_labels(const Options& options, sd::Index batch, sd::Index classes) {
    const std::string where = "--labels: " + options.labels + ": ";
    const sd::Matrix<double> array = read_array("--labels", options.labels);
    if (array.rows() != 1 && array.cols() != 1)
        throw common::UsageError(where + "must be [batch], got [" + std::to_string(array.cols()) +
                                 ", " + std::to_string(array.rows()) + "]");
    if (array.size() < batch || (array.size() > batch && !options.samples))
        throw common::UsageError(where + "must have a label for each of " + std::to_string(batch) +
                                 " inputs, got " + std::to_string(array.size()));
    Eigen::VectorXi labels(batch);
    for (sd::Index j = 0; j < batch; ++j) {
        const double label = array.data()[j];
        if (!(label >= 0 && label < static_cast<double>(classes) && label == std::floor(label)))
            throw common::UsageError(where + "a label must be a whole number from 0 to " +
                                     std::to_string(classes - 1) + ", got " +
                                     common::significant(label, 6));
        labels(j) = static_cast<int>(label);
    }
    return labels;
}

sd::Matrix<float> read_targets(const Options& options, sd::Index batch, sd::Index outputs) {
    const sd::Matrix<double> array = read_array("--targets", options.targets);
    if (array.rows() != outputs || array.cols() < batch ||
        (array.cols() > batch && !options.samples))
        throw common::UsageError("--targets: " + options.targets + ": must be [" +
                                 std::to_string(batch) + ", " + std::to_string(outputs) +
                                 "], got [" + std::to_string(array.cols()) + ", " +
                                 std::to_string(array.rows()) + "]");
    return array.leftCols(batch).cast<float>();
}

/// What the description says, else what the file of weights says; empty: neither.
Eigen::VectorXd survival_of_training(const Options& options, const Architecture& architecture) {
    if (!architecture.survival.empty())
        return survival_of(architecture.survival, architecture.depth,
                           options.network + ": survival");
    const std::string in_file = survival_in_file(options.weights);
    if (in_file.empty()) return {};
    return survival_of(in_file, architecture.depth,
                       "--weights: " + options.weights + ": survival_probabilities");
}

}  // namespace

Network read_network(const Options& options) {
    const Architecture architecture = read_architecture(options.network);
    if (architecture.survival.empty()) return architecture.make({});
    return architecture.make(
        survival_of(architecture.survival, architecture.depth, options.network + ": survival"));
}

Question read_question(const Options& options) {
    const Architecture architecture = read_architecture(options.network);
    const Eigen::VectorXd trained = survival_of_training(options, architecture);
    Eigen::VectorXd p = trained;
    if (!options.survival.empty())
        p = survival_of(options.survival, architecture.depth, "--survival");
    else if (trained.size() == 0 && architecture.depth > 0)
        throw common::UsageError("--survival is required: neither " + options.network + " nor " +
                                 options.weights + " says how likely layers survive");
    Network network = architecture.make(trained);
    try {
        sd::load_safetensors(options.weights, network, architecture.names, architecture.extra);
    } catch (const std::runtime_error& error) {
        throw common::UsageError(std::string("--weights: ") + error.what());
    } catch (const std::invalid_argument& error) {
        throw common::UsageError(options.network + ": names: " + error.what());
    }
    sd::Matrix<float> x = read_inputs(options, architecture);
    // What the network itself refuses, such as a token that is not in its vocabulary.
    try {
        (void)network(x);
    } catch (const std::invalid_argument& error) {
        throw common::UsageError("--inputs: " + options.inputs + ": " + error.what());
    }
    Network asked = architecture.is_classifier
                        ? Network{sd::Sequential{network, sd::Softmax<float>{}}}
                        : network;
    Question question{.network = std::move(network),
                      .asked = std::move(asked),
                      .is_classifier = architecture.is_classifier,
                      .law = sd::IndependentLaw{std::move(p)},
                      .x = std::move(x)};
    const sd::Index batch = question.batch(), outputs = question.outputs();
    if (options.output && *options.output >= outputs)
        throw common::UsageError("--output must be from 0 to " + std::to_string(outputs - 1) +
                                 ", got " + std::to_string(*options.output));
    if (!options.labels.empty()) {
        if (!question.is_classifier)
            throw common::UsageError(
                "--labels: the network is no classifier (its outputs are what "
                "--targets says they should be)");
        question.labels = read_labels(options, batch, outputs);
    }
    if (!options.targets.empty()) question.targets = read_targets(options, batch, outputs);
    return question;
}

}  // namespace inspect
