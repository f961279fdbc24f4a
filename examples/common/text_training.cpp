// SPDX-License-Identifier: MIT
#include "text_training.hpp"

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <stdexcept>
#include <utility>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/predictive_uncertainty.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/survival/time_schedules.hpp>
#include <stochastic_depth/text/length_blocks.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/gradient_clipping.hpp>
#include <stochastic_depth/training/learning_rate.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/token_dropout.hpp>
#include <stochastic_depth/training/trainer.hpp>

#include "training_file.hpp"
#include "training_progress.hpp"

namespace common {
namespace {

/// Share of the test texts that weight scaling gets wrong.
[[nodiscard]] double test_error(const TextNetwork& network, const sd::Dataset<float>& test) {
    sd::Matrix<float> scores(test.classes(), test.size());
    for (const auto& block : sd::length_blocks(test.inputs(), 256)) {
        const sd::Matrix<float> answers = sd::WeightScaling{}(network, block.inputs).mean;
        for (sd::Index j = 0; j < answers.cols(); ++j)
            scores.col(block.samples[static_cast<std::size_t>(j)]) = answers.col(j);
    }
    return sd::error_rate(scores, test.labels());
}

/// An optimizer that first clips the gradient's norm to 1.
class ClippingAdamW {
public:
    explicit ClippingAdamW(sd::AdamW<TextNetwork>& adam) : adam_(adam) {}

    template <class... Team>
    void step(TextNetwork& network, TextNetwork::Gradient& gradient, Team&&... team) {
        sd::clip_gradient_norm(network, gradient, 1.0);
        adam_.step(network, gradient, std::forward<Team>(team)...);
    }
    void set_learning_rate(double rate) { adam_.set_learning_rate(rate); }

private:
    sd::AdamW<TextNetwork>& adam_;
};

/// Of each skippable layer; none: linear decay.
[[nodiscard]] Eigen::VectorXd survival(const TextSettings& settings) {
    if (settings.survival_decay == SurvivalDecay::linear) return {};
    return sd::uniform_survival(2 * settings.blocks, settings.final_survival);
}

}  // namespace

TextNetwork text_network(const TextSettings& settings, sd::Index vocabulary, sd::Index classes) {
    try {
        sd::Philox random{settings.seed};
        return sd::transformer_classifier<float>(
            {.vocabulary = vocabulary,
             .positions = settings.positions,
             .width = settings.width,
             .heads = settings.heads,
             .feed_forward = settings.feed_forward,
             .blocks = settings.blocks,
             .classes = classes,
             .final_survival = settings.final_survival,
             .survival = survival(settings),
             .dropout = settings.dropout,
             .encoding =
                 settings.rotary ? sd::PositionEncoding::none : sd::PositionEncoding::learned,
             .rotary = settings.rotary},
            random);
    } catch (const std::invalid_argument& error) {
        throw UsageError(error.what());
    }
}

TextTraining train_texts(const Texts& texts, const TextSettings& settings,
                         const TextTrainingOptions& options, Progress& progress,
                         const std::function<void(const TextTraining&)>& on_epoch) {
    TextTraining training{
        text_network(settings, texts.tokenizer.vocabulary_size(), texts.train.classes()), {}};
    sd::AdamW<TextNetwork> adam{
        training.network,
        {.learning_rate = settings.learning_rate, .weight_decay = settings.weight_decay}};
    const TrainingFile checkpoint{options.checkpoint, json_of(settings, texts.name)};
    const sd::Index first_step = options.resume && checkpoint.exists()
                                     ? checkpoint.load(training.network, adam, training.history)
                                     : 0;
    const sd::Index steps = (texts.train.size() + settings.batch_size - 1) / settings.batch_size;

    const sd::Dataset<float>& held_out = texts.dev ? *texts.dev : texts.test;
    std::clock_t start = std::clock();
    const auto after_epoch = [&](const sd::EpochRecord& record) {
        const double cpu_seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        training.history.push_back(
            {.loss = record.loss,
             .share_of_layers = record.layer_evaluations / record.full_depth_evaluations,
             .seconds = record.seconds,
             .cpu_seconds = cpu_seconds,
             .test_error = test_error(training.network, held_out)});
        checkpoint.save(training.network, adam, training.history,
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
        .batching = sd::SimilarLengths{},
        .learning_rate =
            sd::LinearWarmUp{{.share = 0.1},
                             sd::CosineLearningRate{{.initial = settings.learning_rate}}},
        .on_step = TrainingReport{progress, options.name},
        .on_epoch = after_epoch};
    if (settings.token_dropout > 0)
        trainer.augmentation =
            sd::TokenDropout{{.rate = settings.token_dropout, .seed = settings.seed}};
    if (settings.skipping == SkippingTime::early)
        trainer.survival = sd::EarlyStochasticDepth{0.5};
    if (settings.skipping == SkippingTime::late) trainer.survival = sd::LateStochasticDepth{0.5};
    (void)sd::Trainer{trainer}.fit(
        training.network, texts.train,
        sd::SoftmaxCrossEntropy<float>{{.label_smoothing = settings.label_smoothing}},
        ClippingAdamW{adam});
    return training;
}

std::vector<Row> evaluate(const TextNetwork& network, const sd::Dataset<float>& test,
                          const EvaluationOptions& options, Progress& progress) {
    return Evaluation{network, test, options, progress}.run();
}

TextAnswer answer(const TextNetwork& network, const sd::Matrix<float>& tokens, unsigned threads) {
    const auto ask = [&](const auto& rule) {
        const auto moments = rule(sd::Sequential{network, sd::Softmax<float>{}}, tokens);
        const auto uncertainty = sd::predictive_uncertainty(rule, network, tokens);
        TextAnswer result;
        result.probabilities = moments.mean.col(0).template cast<double>();
        result.deviations = moments.variance.col(0).template cast<double>().cwiseMax(0).cwiseSqrt();
        result.entropy = static_cast<double>(uncertainty.predictive_entropy(0));
        result.mutual_information = static_cast<double>(uncertainty.mutual_information(0));
        result.is_exact = moments.method == sd::ExpectationMethod::exact;
        return result;
    };
    try {
        return ask(sd::ExactExpectation{
            {.threads = threads, .max_layer_evaluations = std::uint64_t{1} << 16}});
    } catch (const std::length_error&) {
        return ask(sd::MonteCarloExpectation{{.samples = 1000, .threads = threads}});
    }
}

}  // namespace common
