// SPDX-License-Identifier: MIT
//
// What should be done with a network that was trained with stochastic depth? Its layers were
// skipped at random, so it is an ensemble of 2^L networks, and its answer is the expectation,
//
//     f_SD(x) = sum_S P(S) softmax(NN(x, S)).
//
// Usually nobody computes that: full depth ignores the question, weight scaling replaces each
// branch by its mean, Monte Carlo samples. This program trains such a network on Fashion-MNIST,
// computes the exact answer for every test image, and shows how far from it the other rules are,
// how well the masks' disagreement tells wrong predictions from right ones, and what each layer is
// worth, and which layers can go.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <numbers>
#include <vector>

#include "../common/data.hpp"
#include "../common/output_file.hpp"
#include "../common/plots.hpp"
#include "../common/program.hpp"
#include "../common/progress.hpp"
#include "../common/ranks.hpp"
#include "../common/rules.hpp"
#include "../common/training_progress.hpp"
#include "layer_importance.hpp"
#include "network.hpp"
#include "options.hpp"
#include "plots.hpp"
#include "report.hpp"
#include "subnetworks.hpp"

namespace fashion_mnist {
namespace {

/// Linear warm-up over the first twentieth of the training, and half a cosine.
double learning_rate(double highest, double done) {
    const double warm_up = std::min(1.0, 20.0 * done + 0.01);
    return highest * warm_up * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

std::vector<sd::EpochRecord> train(Network& network, const sd::Dataset<float>& data,
                                   const Options& options, common::Progress& progress) {
    return common::fit(
        {.batch_size = options.batch_size,
         .epochs = options.epochs,
         .seed = options.seed,
         .mask_scope = options.mask_scope,
         .optimizer = {.learning_rate = options.learning_rate,
                       .momentum = 0.9,
                       .nesterov = true,
                       .weight_decay = 5e-4},
         .learning_rate = [&](double done) { return learning_rate(options.learning_rate, done); },
         .on_step = common::TrainingReport{progress}},
        network, data, sd::SoftmaxCrossEntropy<float>{});
}

/// Layer evaluations that the exact answer may take, over all images: a minute or two.
constexpr std::uint64_t most_evaluations = std::uint64_t{1} << 28;

/// Deeper networks would take minutes for what their layers are worth.
constexpr sd::Index deepest_ranked = 14;

void run(const Options& options) {
    const auto start = std::chrono::steady_clock::now();
    if (!options.json.empty()) common::check_writable("--json", options.json);
    if (!options.plot_dir.empty()) common::prepare_plots(options.plot_dir, "frontier");
    const common::Data data = common::load_data(options);
    Network network = make_network(data.train.features(), options);

    Report report{.options = options};
    {
        common::Progress progress;
        report.epochs = train(network, data.train, options, progress);
        if (!common::is_first_rank()) return;
        const auto images = static_cast<std::uint64_t>(data.test.size());
        report.rows = common::Evaluation{network,
                                         data.test,
                                         {.exact_evaluations = most_evaluations / images,
                                          .hint = " (here it grows as --test shrinks)",
                                          .seed = options.seed,
                                          .threads = options.threads},
                                         progress}
                          .run();
        if (options.depth <= deepest_ranked) {
            report.importance = layer_importance(network, data.test, options, progress);
            report.subnetworks = subnetworks(network, data.test, options, progress);
        }
    }
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    print(std::cout, report);
    if (!options.json.empty()) write_json(options.json, report);
    if (!options.plot_dir.empty() && report.subnetworks)
        std::cout << '\n' << plot(options.plot_dir, *report.subnetworks) << '\n';
}

}  // namespace
}  // namespace fashion_mnist

int main(int argc, char** argv) {
    return common::run_on_ranks(argc, argv, [&] {
        return common::run_program("fashion_mnist", argc, argv, fashion_mnist::parse_options,
                                   fashion_mnist::run);
    });
}
