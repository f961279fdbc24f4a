// SPDX-License-Identifier: MIT
#include "image_training.hpp"

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/training/gradient_clipping.hpp>
#include <stochastic_depth/training/image_augmentation.hpp>
#include <stochastic_depth/training/learning_rate.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "ranks.hpp"
#include "training_file.hpp"
#include "training_progress.hpp"

namespace common {
namespace {

/// Share of the test images that weight scaling gets wrong.
[[nodiscard]] double test_error(const ImageNetwork& network, const sd::Dataset<float>& test) {
    constexpr sd::Index images_at_once = 100;
    sd::Matrix<float> scores(test.classes(), test.size());
    for (sd::Index first = 0; first < test.size(); first += images_at_once) {
        const sd::Index count = std::min(images_at_once, test.size() - first);
        scores.middleCols(first, count) =
            sd::WeightScaling{}(network, test.inputs().middleCols(first, count)).mean;
    }
    return sd::error_rate(scores, test.labels());
}

/// An optimizer that notes the gradients' norms: of all parameters, and of the first layers', which
/// the gradient reaches last.
class MeasuringSgd {
public:
    explicit MeasuringSgd(sd::Sgd<ImageNetwork>& sgd) : sgd_(sgd) {}

    template <class... Team>
    void step(ImageNetwork& network, ImageNetwork::Gradient& gradient, Team&&... team) {
        // A norm that may be infinite clips nothing, and so only measures.
        constexpr double no_limit = std::numeric_limits<double>::infinity();
        all_ += sd::clip_gradient_norm(network, gradient, no_limit);
        first_ += sd::clip_gradient_norm(std::get<0>(network.layers()),
                                         std::get<0>(gradient.layers), no_limit);
        ++steps_;
        sgd_.step(network, gradient, std::forward<Team>(team)...);
    }
    void set_learning_rate(double rate) { sgd_.set_learning_rate(rate); }

    /// Means over the steps since the call before: of all, and of the first.
    [[nodiscard]] std::pair<double, double> take_norms() {
        const std::pair norms{all_ / steps_, first_ / steps_};
        all_ = first_ = steps_ = 0;
        return norms;
    }

private:
    sd::Sgd<ImageNetwork>& sgd_;
    double all_ = 0, first_ = 0, steps_ = 0;
};

}  // namespace

ImageTraining train_images(const Images& images, const ImageSettings& settings,
                           const ImageTrainingOptions& options, Progress& progress,
                           const std::function<void(const ImageTraining&)>& on_epoch) {
    sd::Philox random{settings.seed};
    ImageTraining training{sd::resnet<float>({.input = images.shape,
                                              .depth = settings.depth,
                                              .classes = images.train.classes(),
                                              .final_survival = settings.final_survival},
                                             random),
                           {}};
    sd::Sgd<ImageNetwork> sgd{training.network,
                              {.learning_rate = settings.learning_rate,
                               .momentum = 0.9,
                               .nesterov = true,
                               .weight_decay = settings.weight_decay}};
    const TrainingFile checkpoint{options.checkpoint, json_of(settings, images.name)};
    const sd::Index first_step =
        options.resume && checkpoint.exists()
            ? checkpoint.load(training.network, sgd, training.history)
            : 0;
    const sd::Index steps = (images.train.size() + settings.batch_size - 1) / settings.batch_size;

    MeasuringSgd measuring{sgd};
    std::clock_t start = std::clock();
    const auto after_epoch = [&](const sd::EpochRecord& record) {
        const double cpu_seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        const auto [norm, first_norm] = measuring.take_norms();
        training.history.push_back(
            {.loss = record.loss,
             .share_of_blocks = record.layer_evaluations / record.full_depth_evaluations,
             .seconds = record.seconds,
             .cpu_seconds = cpu_seconds,
             .test_error = test_error(training.network, images.test),
             .gradient_norm = norm,
             .first_gradient_norm = first_norm});
        if (is_first_rank())
            checkpoint.save(training.network, sgd, training.history,
                            static_cast<std::uint64_t>((record.epoch + 1) * steps));
        if (on_epoch) on_epoch(training);
        start = std::clock();
        return true;
    };
    sd::TrainerOptions trainer{
        .batch_size = settings.batch_size,
        .epochs = settings.epochs,
        .first_step = first_step,
        .seed = settings.seed,
        .mask_scope = settings.mask_scope,
        .threads = options.threads,
        .shards = settings.shards,
        .learning_rate = sd::StepLearningRate{{.initial = settings.learning_rate}},
        .on_step = TrainingReport{progress, options.name},
        .on_epoch = after_epoch};
    if (settings.augment)
        trainer.augmentation = sd::ImageAugmentation{images.shape, {.seed = settings.seed}};
    (void)fit(trainer, training.network, images.train, sd::SoftmaxCrossEntropy<float>{}, measuring);
    return training;
}

std::vector<Row> evaluate(const ImageNetwork& network, const sd::Dataset<float>& test,
                          const EvaluationOptions& options, Progress& progress) {
    return Evaluation{network, test, options, progress}.run();
}

}  // namespace common
