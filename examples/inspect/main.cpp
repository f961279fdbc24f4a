// SPDX-License-Identifier: MIT
//
// What does a trained network know about its own ensemble? Whoever has a residual network, from
// PyTorch, say, has 2^L networks, one for each set S of layers that are kept:
//
//     f_SD(x) = sum_S P(S) NN(x, S).
//
// This program reads what the network is made of (JSON), its weights (safetensors) and inputs
// (npy), and answers with mean and variance over all masks, exact where 2^L allows it and sampled
// where it doesn't; how far full depth and weight scaling are from that; what each layer does,
// by derivative and Shapley value; and which layers can go.
#include <chrono>
#include <iostream>

#include "../common/output_file.hpp"
#include "../common/plots.hpp"
#include "../common/program.hpp"
#include "report.hpp"

namespace inspect {
namespace {

void answer(const Options& options) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.json.empty()) common::check_writable("--json", options.json);
    if (!options.plot_dir.empty()) common::prepare_plots(options.plot_dir, "layers");
    const Question question = read_question(options);
    Report report{.options = &options, .question = &question};
    {
        common::Progress progress;
        report.ensemble = ask_ensemble(question, options, progress);
        report.layers = ask_layers(question, report.ensemble, options, progress);
        report.subnetworks = ask_subnetworks(question, report.ensemble, options, progress);
    }
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    print(std::cout, report);
    if (!options.json.empty()) write_json(options.json, report);
    if (!options.plot_dir.empty()) std::cout << '\n' << plot(options.plot_dir, report) << '\n';
}

void run(const Options& options) {
    if (!options.start.empty())
        std::cout << template_of(options.start);
    else if (options.describe)
        std::cout << describe(read_network(options));
    else
        answer(options);
}

}  // namespace
}  // namespace inspect

int main(int argc, char** argv) {
    return common::run_program("inspect", argc, argv, inspect::parse_options, inspect::run);
}
