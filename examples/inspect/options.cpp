// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <thread>

#include "../common/command_line.hpp"

namespace inspect {
namespace {

void add_network(CLI::App& app, Options& options) {
    app.add_option("network", options.network, "JSON file that says what the network is made of")
        ->type_name("NETWORK");
    app.add_option("--weights", options.weights, "Its weights, a safetensors file")
        ->type_name("FILE");
    app.add_option("--inputs", options.inputs,
                   "Inputs, an npy file: [batch, features], or token ids, [batch, positions], -1 "
                   "behind a text's end")
        ->type_name("FILE");
    app.add_flag(
        "--channels-first", options.channels_first,
        "Inputs are images flattened from [batch, channels, height, width], as PyTorch has "
        "them; without: from [batch, height, width, channels]");
    app.add_flag("--describe", options.describe, "Only print what the network is made of");
    app.add_option("--template", options.start,
                   "Only print a NETWORK to start from: dense, resnet or transformer")
        ->type_name("KIND")
        ->check([](const std::string& kind) -> std::string {
            if (kind == "dense" || kind == "resnet" || kind == "transformer") return {};
            return "must be dense, resnet or transformer, got " + kind;
        });
}

void add_questions(CLI::App& app, Options& options) {
    app.add_option(
           "--survival", options.survival,
           "Ask about other survival probabilities than those of the training: 0.8 for each "
           "layer, linear:0.5 for linear decay to it, or a list, 0.9,0.8,0.7")
        ->type_name("P");
    auto* const labels =
        app.add_option(
               "--labels", options.labels,
               "Classes of the inputs, an npy file, [batch]: layers are then judged by their "
               "probability")
            ->type_name("FILE");
    app.add_option("--targets", options.targets,
                   "What the outputs should be, an npy file, [batch, outputs]: best sub-networks "
                   "are then those nearest to it")
        ->type_name("FILE")
        ->excludes(labels);
    app.add_option("--output", options.output,
                   "Output (class) that layers are judged by, from 0 on; without: the label, else "
                   "the most probable class, else the mean of all outputs")
        ->type_name("K")
        ->check(common::count(0, 1 << 24));
    app.add_option("--samples", options.samples, "Use the first inputs only")
        ->type_name("N")
        ->check(common::count(1, common::Index{1} << 40));
}

void add_work(CLI::App& app, Options& options) {
    app.add_option("--budget", options.budget,
                   "Layer evaluations that a figure may take for each input: exact where 2^L - 1 "
                   "are no more, else sampled, twice at least")
        ->type_name("N")
        ->check(common::number_in(std::uint64_t{1}, std::uint64_t{1} << 40,
                                  "a whole number from 1 to 2^40"));
    app.add_flag("--bounds", options.bounds,
                 "Where a classifier's mean is sampled, also bound the exact one, for as many "
                 "evaluations again");
    app.add_option("--seed", options.seed, "Fixes the masks that are sampled")
        ->type_name("S")
        ->check(common::seed());
    common::add_threads(app, options);
}

void add_outputs(CLI::App& app, Options& options) {
    app.add_option("--show", options.show, "Inputs whose answers are printed; --json has them all")
        ->type_name("N")
        ->check(common::count(0, 1'000'000));
    common::add_json(app, options);
    app.add_option("--plot-dir", options.plot_dir,
                   "Also plot the layers and the best sub-networks into this folder, which is made "
                   "if need be")
        ->type_name("DIR");
}

}  // namespace

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());
    CLI::App app{
        "Asks a trained residual network about its ensemble, the 2^L networks that are left when "
        "layers are skipped at random: mean and variance of its answers, and what each layer "
        "does."};
    app.name("inspect");
    app.option_defaults()->always_capture_default();
    add_network(app, options);
    add_questions(app, options);
    add_work(app, options);
    add_outputs(app, options);
    if (!common::parse(app, argc, argv)) return std::nullopt;

    if (!options.start.empty()) return options;
    if (options.network.empty())
        throw common::UsageError("NETWORK is required (--help lists the options)");
    if (options.describe) return options;
    if (options.weights.empty()) throw common::UsageError("--weights is required");
    if (options.inputs.empty()) throw common::UsageError("--inputs is required");
    return options;
}

}  // namespace inspect
