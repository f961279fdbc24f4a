// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/gradient_clipping.hpp>
#include <stochastic_depth/training/learning_rate.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "../common/data.hpp"
#include "../common/progress.hpp"
#include "../common/text.hpp"
#include "network.hpp"
#include "options.hpp"
#include "report.hpp"

namespace very_deep {

/// The gradient's norm block by block: root mean square over the steps that were added.
class GradientNorms {
public:
    explicit GradientNorms(sd::Index blocks) : squares_(static_cast<std::size_t>(blocks), 0.0) {}

    void add(const Network& network, Network::Gradient& gradient) {
        const auto& blocks = std::get<blocks_at>(network.layers()).layers();
        auto& gradients = std::get<blocks_at>(gradient.layers).layers;
        for (std::size_t l = 0; l < blocks.size(); ++l) {
            // A norm that may be infinite clips nothing, and so only measures.
            const double norm = sd::clip_gradient_norm(blocks[l], gradients[l],
                                                       std::numeric_limits<double>::infinity());
            squares_[l] += norm * norm;
        }
        ++steps_;
    }

    [[nodiscard]] std::vector<double> root_mean_square() const {
        std::vector<double> norms;
        for (const double sum : squares_)
            norms.push_back(std::sqrt(sum / static_cast<double>(std::max<sd::Index>(steps_, 1))));
        return norms;
    }

private:
    std::vector<double> squares_;
    sd::Index steps_ = 0;
};

/// A training by hand: batches, learning rate, TrainingStep, clipping, optimizer.
template <class Optimizer>
class Training {
public:
    Training(Network& network, Optimizer optimizer, const sd::Dataset<float>& data,
             const Options& options, std::uint64_t seed, common::Progress& progress)
        : network_(network),
          optimizer_(std::move(optimizer)),
          data_(data),
          options_(options),
          progress_(progress),
          step_(network, sd::SoftmaxCrossEntropy<float>{},
                {.mask_scope = options.mask_scope, .seed = seed, .threads = options.threads}),
          shuffling_(~seed),  // another stream than that of the weights
          steps_((data.size() + options.batch_size - 1) / options.batch_size) {
        order_.resize(static_cast<std::size_t>(data.size()));
        for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<sd::Index>(i);
    }

    /// \param run  Says which training this is; the figures are filled in.
    /// \throws std::runtime_error  if a loss is not finite.
    void operator()(Run& run) {
        const auto start = std::chrono::steady_clock::now();
        const std::clock_t cpu_start = std::clock();
        const sd::Index all = steps_ * options_.epochs;
        const sd::Index window = std::clamp<sd::Index>(all / 10, 1, most_measured);
        const sd::Index interval = std::max<sd::Index>(1, all / most_points);
        GradientNorms beginning(network_.depth()), end(network_.depth());
        const sd::LinearWarmUp rate{
            {.share = 0.05},
            sd::CosineLearningRate{
                {.initial = options_.learning_rate, .last = 0.01 * options_.learning_rate}}};
        double recent = 0;
        double epoch_loss = 0;
        for (sd::Index t = 0; t < all; ++t) {
            if (t % steps_ == 0) {
                shuffle();
                epoch_loss = 0;
            }
            take_batch(t % steps_);
            optimizer_.set_learning_rate(rate(static_cast<double>(t) / static_cast<double>(all)));
            const sd::StepLedger ledger =
                step_.differentiate(network_, x_, labels_, static_cast<std::uint64_t>(t));
            if (t < window) beginning.add(network_, step_.gradient());
            if (t >= all - window) end.add(network_, step_.gradient());
            const double norm = sd::clip_gradient_norm(network_, step_.gradient(), largest_norm);
            run.largest_gradient_norm = std::max(run.largest_gradient_norm, norm);
            optimizer_.step(network_, step_.gradient(), step_.team());
            step_.finish(network_);

            run.layer_evaluations += ledger.layer_evaluations;
            run.expected_layer_evaluations += ledger.expected_layer_evaluations;
            run.full_depth_evaluations += ledger.full_depth_evaluations;
            recent += ledger.loss;
            if ((t + 1) % interval == 0) {
                run.losses.push_back({static_cast<double>(t + 1) / static_cast<double>(steps_),
                                      recent / static_cast<double>(interval)});
                recent = 0;
            }
            epoch_loss += ledger.loss * static_cast<double>(x_.cols());
            report(run, t, epoch_loss);
        }
        run.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        run.cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
        run.norms_at_beginning = beginning.root_mean_square();
        run.norms_at_end = end.root_mean_square();
        run.measured_steps = window;
    }

private:
    static constexpr double largest_norm = 1.0;
    static constexpr sd::Index most_measured = 50;  // steps, at the beginning and at the end
    static constexpr sd::Index most_points = 100;   // of the curve of the loss

    /// \source Fisher & Yates 1938.
    void shuffle() {
        for (std::size_t i = order_.size(); i-- > 1;) {
            const double place =
                sd::uniform<double>(shuffling_) * static_cast<double>(i + 1);  // below i + 1
            std::swap(order_[i], order_[std::min(i, static_cast<std::size_t>(place))]);
        }
    }

    void take_batch(sd::Index batch) {
        const sd::Index first = batch * options_.batch_size;
        const sd::Index images = std::min(options_.batch_size, data_.size() - first);
        x_.resize(data_.features(), images);
        labels_.resize(images);
        data_.gather(order_, first, images, x_, labels_);
    }

    void report(Run& run, sd::Index t, double epoch_loss) {
        const sd::Index epoch = t / steps_;
        const sd::Index step = t % steps_ + 1;
        const std::string where = run.name() + ": epoch " + std::to_string(epoch + 1) + " of " +
                                  std::to_string(options_.epochs);
        const auto seen = static_cast<double>(std::min(step * options_.batch_size, data_.size()));
        const std::string loss = "loss " + common::fixed(epoch_loss / seen, 4);
        if (step < steps_)
            return progress_.now(where + ", step " + std::to_string(step) + " of " +
                                 std::to_string(steps_) + ", " + loss);
        progress_.done(where + ", " + loss);
        run.epoch_losses.push_back(epoch_loss / seen);
    }

    Network& network_;
    Optimizer optimizer_;
    const sd::Dataset<float>& data_;
    const Options& options_;
    common::Progress& progress_;
    sd::TrainingStep<Network, sd::SoftmaxCrossEntropy<float>> step_;
    sd::Philox shuffling_;
    sd::Index steps_;  // in an epoch
    std::vector<sd::Index> order_;
    sd::Matrix<float> x_;
    Eigen::VectorXi labels_;
};

/// Trains with the optimizer that the options name.
inline void train(Network& network, const sd::Dataset<float>& data, const Options& options,
                  Run& run, common::Progress& progress) {
    const auto with = [&](auto optimizer) {
        Training{network, std::move(optimizer), data, options, run.seed, progress}(run);
    };
    if (options.optimizer == OptimizerKind::sgd)
        with(sd::Sgd<Network>{network,
                              {.learning_rate = options.learning_rate,
                               .momentum = 0.9,
                               .nesterov = true,
                               .weight_decay = 5e-4}});
    else
        with(sd::AdamW<Network>{network, {.learning_rate = options.learning_rate}});
}

}  // namespace very_deep
