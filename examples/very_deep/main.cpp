// SPDX-License-Identifier: MIT
//
// Does a network of 1,000 residual blocks train, and what does stochastic depth change? Block l,
//
//     h_l = h_(l-1) + s_l F_l(h_(l-1)),  F(x) = W_2 relu(W_1 x + b_1) + b_2,
//
// survives with p_l = 1 - l/L (1 - p_L), so of L blocks about L (1 + p_L) / 2 run in a step. This
// program trains perceptrons of such blocks on Fashion-MNIST, with stochastic depth and without
// (p_L = 1), and compares time, test error, the loss over time, the gradient's norm from block to
// block, and how many blocks were evaluated.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <string>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>

#include "../common/data.hpp"
#include "../common/output_file.hpp"
#include "../common/plots.hpp"
#include "../common/program.hpp"
#include "../common/progress.hpp"
#include "network.hpp"
#include "options.hpp"
#include "plots.hpp"
#include "report.hpp"
#include "training.hpp"

namespace very_deep {
namespace {

/// Share of the test images that a rule, logits of a batch of images, gets wrong.
template <class Rule>
double test_error(const sd::Dataset<float>& test, const Rule& rule) {
    constexpr sd::Index images_at_once = 1000;
    sd::Matrix<float> logits(common::classes, test.size());
    for (sd::Index first = 0; first < test.size(); first += images_at_once) {
        const sd::Index images = std::min(images_at_once, test.size() - first);
        logits.middleCols(first, images) = rule(test.inputs().middleCols(first, images));
    }
    return sd::error_rate(logits, test.labels());
}

Run train_and_test(const common::Data& data, const Options& options, Run run,
                   common::Progress& progress) {
    Network network = make_network(data.train.features(), run.blocks, options.width,
                                   run.final_survival, run.seed);
    train(network, data.train, options, run, progress);
    progress.now(run.name() + ": test images");
    run.test_error = test_error(data.test, [&](const sd::ConstMatrixRef<float>& x) {
        return network(x, sd::SurvivalMask::all(network.depth()));
    });
    run.test_error_scaled = test_error(data.test, [&](const sd::ConstMatrixRef<float>& x) {
        return sd::WeightScaling{}(network, x).mean;
    });
    return run;
}

void run(const Options& options) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.json.empty()) common::check_writable("--json", options.json);
    if (!options.plot_dir.empty()) common::prepare_plots(options.plot_dir, "loss");
    const common::Data data = common::load_data(options);

    std::vector<double> final_survivals{1.0};
    if (options.final_survival < 1.0) final_survivals.push_back(options.final_survival);
    Report report{.options = options};
    {
        common::Progress progress;
        for (const std::uint64_t seed : options.seeds)
            for (const sd::Index blocks : options.blocks)
                for (const double p : final_survivals)
                    report.runs.push_back(train_and_test(
                        data, options, {.blocks = blocks, .final_survival = p, .seed = seed},
                        progress));
    }
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    print(std::cout, report);
    if (!options.json.empty()) write_json(options.json, report);
    if (!options.plot_dir.empty()) std::cout << plot(options.plot_dir, report) << '\n';
}

}  // namespace
}  // namespace very_deep

int main(int argc, char** argv) {
    return common::run_program("very_deep", argc, argv, very_deep::parse_options, very_deep::run);
}
