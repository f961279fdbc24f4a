// SPDX-License-Identifier: MIT
//
// The case of Huang et al. 2016: a convolutional residual network for small images, whose blocks
// are skipped at random in training,
//
//     H_l = relu(s_l F_l(H_{l-1}) + shortcut(H_{l-1})),  P(s_l = 1) = p_l,  p_l = 1 - l/L (1 - p_L),
//
// and none in use, where each branch counts with its probability (weight scaling). With
// --final-survival 1 no block is ever skipped: the same network at constant depth. At the end all
// rules for using the network stand side by side; the exact expectation over all masks for up to 12
// blocks, on some of the test images.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/image_training.hpp"
#include "../common/output_file.hpp"
#include "../common/program.hpp"
#include "../common/ranks.hpp"
#include "../common/rules.hpp"
#include "../common/rules_report.hpp"
#include "../common/text.hpp"
#include "../common/training_outputs.hpp"
#include "options.hpp"

namespace image_classification {
namespace {

namespace sd = stochastic_depth;
using common::fixed;

struct Report {
    std::string images;
    std::vector<common::ImageEpoch> history = {};
    std::vector<common::Row> all = {};    // on all test images
    std::vector<common::Row> exact = {};  // on some, with the exact expectation
};

void print_epoch(std::ostream& out, std::size_t number, const common::ImageEpoch& epoch) {
    out << std::setw(5) << number << std::setw(9) << fixed(epoch.loss, 4) << std::setw(12)
        << fixed(epoch.share_of_blocks, 3) << std::setw(9) << fixed(epoch.seconds, 1)
        << std::setw(13) << fixed(100 * epoch.test_error, 2) << " %" << std::endl;
}

void write_json(const Options& options, const Report& report) {
    const nlohmann::ordered_json figures{
        {"settings", common::json_of(options, report.images)},
        {"threads", options.threads},
        {"epochs", nlohmann::json(report.history)},
        {"rules", common::json_of(report.all)},
        {"exact_images", options.exact_images},
        {"rules_on_exact_images", common::json_of(report.exact)}};
    common::write_file("--json", options.json, figures.dump(2) + "\n");
}

/// On all test images, and with the exact expectation on the first ones.
void evaluate(const common::ImageNetwork& network, const sd::Dataset<float>& test,
              const Options& options, common::Progress& progress, Report& report) {
    common::EvaluationOptions rules{.masks = {10},
                                    .samples_at_once = 100,
                                    .seed = options.seed,
                                    .threads = options.threads};
    report.all = common::evaluate(network, test, rules, progress);
    const sd::Index images = std::min(options.exact_images, test.size());
    if (images == 0) return;
    rules.masks = {10, 100};
    rules.exact_evaluations = 1 << 13;  // 12 blocks
    rules.samples_at_once = 10;
    report.exact = common::evaluate(network, test.head(images), rules, progress);
}

void run(const Options& options) {
    common::check_outputs(options);
    const common::Images images = common::load_images(options);

    Report report{images.name};
    {
        common::Progress progress;
        std::cout << "epoch     loss  blocks run  seconds   test error (weight scaling)\n";
        const auto training = common::train_images(
            images, options,
            {.threads = options.threads,
             .checkpoint = options.checkpoint,
             .resume = options.resume},
            progress, [&](const common::ImageTraining& so_far) {
                progress.clear();
                print_epoch(std::cout, so_far.history.size(), so_far.history.back());
            });
        report.history = training.history;
        if (!common::is_first_rank()) return;
        evaluate(training.network, images.test, options, progress, report);
    }
    std::cout << "\nOn all " << images.test.size() << " test images:\n\n";
    common::print(std::cout, report.all);
    if (!report.exact.empty()) {
        std::cout << "\nOn the first " << std::min(options.exact_images, images.test.size())
                  << ":\n\n";
        common::print(std::cout, report.exact);
    }
    common::print_legend(std::cout, options.threads);
    std::cout << ".\n";
    if (!options.json.empty()) write_json(options, report);
    if (!options.plot_dir.empty())
        std::cout << '\n'
                  << common::plot_errors(options.plot_dir, report.images, report.history) << '\n';
}

}  // namespace
}  // namespace image_classification

int main(int argc, char** argv) {
    return common::run_on_ranks(argc, argv, [&] {
        return common::run_program("image_classification", argc, argv,
                                   image_classification::parse_options, image_classification::run);
    });
}
