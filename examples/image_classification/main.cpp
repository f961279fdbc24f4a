// SPDX-License-Identifier: MIT
//
// The case of Huang et al. 2016: a convolutional residual network for small images, whose blocks
// are skipped at random in training,
//
//     H_l = relu(s_l F_l(H_{l-1}) + shortcut(H_{l-1})),  P(s_l = 1) = p_l,  p_l = 1 - l/L (1 - p_L),
//
// and none in use, where each branch counts with its probability (weight scaling). With
// --final-survival 1 no block is ever skipped: the same network at constant depth. SGD with
// Nesterov's momentum; the learning rate falls to a tenth after a half and after three quarters of
// the training, as in the paper.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>
#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/training/image_augmentation.hpp>
#include <stochastic_depth/training/learning_rate.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "../common/mask_scope.hpp"
#include "../common/output_file.hpp"
#include "../common/program.hpp"
#include "../common/progress.hpp"
#include "../common/text.hpp"
#include "data.hpp"
#include "options.hpp"

namespace image_classification {
namespace {

using common::fixed;
using Network = sd::ResNet<float>;

struct Epoch {
    double loss = 0;
    /// Of all blocks, over all samples: what ran.
    double share_of_blocks = 0;
    double seconds = 0;
    /// Test errors.
    double full_depth = 0;
    double weight_scaling = 0;
};

/// network -> scores of all images, in blocks that the threads share.
template <class Rule>
double test_error(const sd::Dataset<float>& data, unsigned threads, const Rule& rule) {
    constexpr sd::Index block = 100;
    sd::Matrix<float> scores(data.classes(), data.size());
    const auto work = [&](sd::Index first) {
        for (; first < data.size(); first += block * threads) {
            const sd::Index count = std::min(block, data.size() - first);
            scores.middleCols(first, count) = rule(data.inputs().middleCols(first, count));
        }
    };
    std::vector<std::thread> others;
    for (unsigned k = 1; k < threads; ++k) others.emplace_back(work, block * k);
    work(0);
    for (std::thread& other : others) other.join();
    return sd::error_rate(scores, data.labels());
}

/// One pass over the training images, in an order of its own.
template <class Step, class Optimizer>
Epoch train_epoch(Network& network, Step& step, Optimizer& optimizer, const Images& images,
                  const Options& options, sd::Index epoch, common::Progress& progress) {
    const auto start = std::chrono::steady_clock::now();
    const sd::ImageAugmentation augmentation{images.shape, {.seed = options.seed}};
    std::vector<sd::Index> order(static_cast<std::size_t>(images.train.size()));
    std::iota(order.begin(), order.end(), sd::Index{0});
    sd::Philox random{options.seed};
    random.discard(static_cast<std::uint64_t>(epoch + 1) << 40);
    std::shuffle(order.begin(), order.end(), random);

    const sd::Index steps = (images.train.size() + options.batch_size - 1) / options.batch_size;
    const sd::StepLearningRate rate{{.initial = options.learning_rate}};
    optimizer.set_learning_rate(
        rate(static_cast<double>(epoch) / static_cast<double>(options.epochs)));
    Epoch result;
    double full = 0, ran = 0;
    sd::Matrix<float> x, augmented;
    Eigen::VectorXi labels;
    for (sd::Index s = 0; s < steps; ++s) {
        const sd::Index first = s * options.batch_size;
        const sd::Index count = std::min(options.batch_size, images.train.size() - first);
        x.resize(images.shape.size(), count);
        labels.resize(count);
        images.train.gather(order, first, count, x, labels);
        if (options.augment) {
            augmented.resize(x.rows(), count);
            augmentation.apply(static_cast<std::uint64_t>(epoch),
                               std::span(order).subspan(static_cast<std::size_t>(first),
                                                        static_cast<std::size_t>(count)),
                               x, augmented);
            x.swap(augmented);
        }
        const auto t = static_cast<std::uint64_t>(epoch * steps + s);
        const sd::StepLedger ledger = step.differentiate(network, x, labels, t);
        optimizer.step(network, step.gradient());
        step.finish(network);
        result.loss += ledger.loss * static_cast<double>(count);
        ran += ledger.layer_evaluations;
        full += ledger.full_depth_evaluations;
        progress.now("epoch " + std::to_string(epoch + 1) + " of " +
                     std::to_string(options.epochs) + ", step " + std::to_string(s + 1) + " of " +
                     std::to_string(steps) + ": loss " + fixed(ledger.loss, 3));
    }
    result.loss /= static_cast<double>(images.train.size());
    result.share_of_blocks = ran / full;
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

void write_json(const Options& options, const std::vector<Epoch>& epochs) {
    nlohmann::ordered_json figures;
    figures["data"] = options.data;
    figures["train"] = options.train;
    figures["depth"] = options.depth;
    figures["final_survival"] = options.final_survival;
    figures["mask_scope"] = common::to_string(options.mask_scope);
    figures["augment"] = options.augment;
    figures["seed"] = options.seed;
    for (const Epoch& epoch : epochs)
        figures["epochs"].push_back({{"loss", epoch.loss},
                                     {"share_of_blocks", epoch.share_of_blocks},
                                     {"seconds", epoch.seconds},
                                     {"full_depth_error", epoch.full_depth},
                                     {"weight_scaling_error", epoch.weight_scaling}});
    common::write_file("--json", options.json, figures.dump(2) + "\n");
}

void run(const Options& options) {
    if (!options.json.empty()) common::check_writable("--json", options.json);
    const Images images = load_images(options);
    sd::Philox random{options.seed};
    Network network = sd::resnet<float>({.input = images.shape,
                                         .depth = options.depth,
                                         .classes = images.train.classes(),
                                         .final_survival = options.final_survival},
                                        random);
    sd::TrainingStep step{
        network,
        sd::SoftmaxCrossEntropy<float>{},
        {.mask_scope = options.mask_scope, .seed = options.seed, .threads = options.threads}};
    sd::Sgd optimizer{network,
                      {.learning_rate = options.learning_rate,
                       .momentum = 0.9,
                       .nesterov = true,
                       .weight_decay = 1e-4}};
    std::cout << "epoch   loss  blocks run  seconds  test error: full depth  weight scaling\n";
    std::vector<Epoch> epochs;
    for (sd::Index e = 0; e < options.epochs; ++e) {
        common::Progress progress;
        Epoch epoch = train_epoch(network, step, optimizer, images, options, e, progress);
        epoch.full_depth =
            test_error(images.test, options.threads, [&](const auto& x) { return network(x); });
        epoch.weight_scaling = test_error(images.test, options.threads, [&](const auto& x) {
            return sd::WeightScaling{}(network, x).mean;
        });
        progress.clear();
        const auto padded = [](const std::string& text, std::size_t width) {
            return std::string(width - std::min(width, text.size()), ' ') + text;
        };
        std::cout << padded(std::to_string(e + 1), 5) << padded(fixed(epoch.loss, 4), 8)
                  << padded(fixed(epoch.share_of_blocks, 3), 11)
                  << padded(fixed(epoch.seconds, 1), 9)
                  << padded(fixed(100 * epoch.full_depth, 2) + " %", 24)
                  << padded(fixed(100 * epoch.weight_scaling, 2) + " %", 16) << std::endl;
        epochs.push_back(epoch);
        if (!options.json.empty()) write_json(options, epochs);
    }
}

}  // namespace
}  // namespace image_classification

int main(int argc, char** argv) {
    return common::run_program("image_classification", argc, argv, image_classification::parse_options, image_classification::run);
}
