// SPDX-License-Identifier: MIT
#include "options.hpp"

#include "../common/image_options.hpp"

namespace reproduction {

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.train = 4000;
    options.test = 1000;
    options.epochs = 80;
    options.depth = 32;
    options.batch_size = 64;
    // A mask for each batch, as in the paper.
    options.mask_scope = stochastic_depth::MaskScope::batch;

    CLI::App app{
        "Constant against stochastic depth, as in Huang et al. 2016: trains a network for each "
        "seed, survival probability and choice of augmentation, and writes tables and figures of all "
        "that the output folder holds. What is finished there is skipped, and a training that was "
        "interrupted goes on."};
    app.name("reproduction");
    app.option_defaults()->always_capture_default();
    app.add_option("--output", options.output, "Folder of results, which is made if need be")
        ->type_name("DIR")
        ->required();
    common::add_image_settings(app, options);
    app.add_option("--final-survivals", options.survivals,
                   "Survival probabilities of the last block, earlier ones by linear decay; 1: "
                   "constant depth")
        ->type_name("P")
        ->delimiter(',')
        ->check(common::above_zero(1.0, "1"));
    app.add_option("--seeds", options.seeds, "A training for each")
        ->type_name("S")
        ->delimiter(',')
        ->check(common::seed());
    app.add_option("--augmentation", options.augmentation,
                   "Trainings without or with augmentation, or both: without, with or both")
        ->type_name("WHICH")
        ->check([](const std::string& text) {
            return text == "without" || text == "with" || text == "both"
                       ? std::string{}
                       : "must be without, with or both, got " + text;
        });
    common::add_threads(app, options);
    common::add_exact_images(app, options);
    app.add_option("--sampled-images", options.sampled_images,
                   "Test images on which sampled expectations stand beside the other rules")
        ->type_name("N")
        ->check(common::count(1, 10'000));
    app.add_option("--lesion-images", options.lesion_images,
                   "Test images that networks without some of their blocks are given")
        ->type_name("N")
        ->check(common::count(1, 10'000));
    app.add_flag("--report", options.report, "Train nothing: write tables and figures alone");
    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

}  // namespace reproduction
