// SPDX-License-Identifier: MIT
//
// Survival probabilities that are learned, on the network of examples/fashion_mnist: the curve of
// loss against expected depth. For each cost of a layer evaluation and each seed a network is
// trained, and after each epoch its p take steps down E[loss] + cost sum_l p_l, with E[loss] over
// all masks, exact, from the loss of 200 training images. Beside it stands a network of the same
// seed with the same expected depth spread evenly, p_l = sum p / L.
//
// depth: sum_l p_l. NLL, error: of the exact expectation on the test images, under these p.
//
// usage: learned_survival_table [seeds 3] [epochs 10] [training images 20000] [depth 10]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include "../examples/common/data.hpp"
#include "fashion_mnist/network.hpp"

namespace {

namespace sd = stochastic_depth;
using fashion_mnist::Classifier;
using fashion_mnist::Network;
using sd::Index;

/// p of a training after an epoch, given its network.
using NextSurvival = std::function<Eigen::VectorXd(const Network&, const Eigen::VectorXd&)>;

struct Trained {
    Network network;
    Eigen::VectorXd p;
};

Trained train(const sd::Dataset<float>& data, const fashion_mnist::Options& options,
              Eigen::VectorXd p, const NextSurvival& next) {
    Network network = fashion_mnist::make_network(data.features(), options);
    const sd::Trainer trainer{
        {.batch_size = options.batch_size,
         .epochs = options.epochs,
         .seed = options.seed,
         .threads = 1,
         .optimizer = {.learning_rate = options.learning_rate,
                       .momentum = 0.9,
                       .nesterov = true,
                       .weight_decay = 5e-4},
         .learning_rate = sd::CosineLearningRate{{.initial = options.learning_rate}},
         .survival = [&](const Eigen::VectorXd&, const sd::TrainingTime&) { return p; },
         .on_epoch =
             [&](const sd::EpochRecord&) {
                 p = next(network, p);
                 return true;
             }}};
    trainer.fit(network, data, sd::SoftmaxCrossEntropy<float>{});
    return {std::move(network), std::move(p)};
}

struct Figures {
    double negative_log_likelihood, error;
};

Figures test(const Trained& trained, const sd::Dataset<float>& data) {
    const Classifier classifier{trained.network, sd::Softmax<float>{}};
    const auto exact =
        sd::ExactExpectation{{.threads = 2}}(classifier, data.inputs(), sd::IndependentLaw{trained.p});
    return {sd::negative_log_likelihood(exact.mean, data.labels()),
            sd::error_rate(exact.mean, data.labels())};
}

/// Ten steps down the expected loss of some training images.
NextSurvival learning(const sd::Dataset<float>& data, double cost) {
    const Index images = std::min<Index>(200, data.size());
    return [=, x = sd::Matrix<float>(data.inputs().leftCols(images)),
            labels = Eigen::VectorXi(data.labels().head(images))](const Network& network,
                                                                  Eigen::VectorXd p) {
        const sd::SoftmaxCrossEntropy<float> loss;
        const auto score = [&](const sd::ConstMatrixRef<float>& y) { return loss.value(y, labels); };
        const Eigen::VectorXd losses = sd::mask_values(network, x, score);
        for (int step = 0; step < 10; ++step)
            p = sd::survival_probability_step(
                p, sd::expected_value(losses, p).by_survival_probability,
                {.learning_rate = 0.5, .depth_cost = cost, .least = 0.05});
        return p;
    };
}

void run(std::uint64_t seeds, fashion_mnist::Options options) {
    const auto data = common::load_data(options);
    std::printf("%td images, %td epochs, %td skippable layers of width %td\n\n", data.train.size(),
                options.epochs, options.depth, options.width);
    std::printf("| cost | seed | depth | NLL | error | even: NLL | error | learned p |\n"
                "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (const double cost : {0.0, 0.003, 0.01, 0.03, 0.1})
        for (options.seed = 0; options.seed < seeds; ++options.seed) {
            const Eigen::VectorXd half = Eigen::VectorXd::Constant(options.depth, 0.5);
            const Trained learned = train(data.train, options, half, learning(data.train, cost));
            const Eigen::VectorXd spread =
                Eigen::VectorXd::Constant(options.depth, learned.p.mean());
            const Trained even = train(data.train, options, spread,
                                       [&](const Network&, const Eigen::VectorXd& p) { return p; });
            const Figures of_learned = test(learned, data.test), of_even = test(even, data.test);
            std::printf("| %.3f | %d | %.2f | %.4f | %.2f %% | %.4f | %.2f %% |", cost,
                        static_cast<int>(options.seed), learned.p.sum(),
                        of_learned.negative_log_likelihood, 100 * of_learned.error,
                        of_even.negative_log_likelihood, 100 * of_even.error);
            for (const double p : learned.p) std::printf(" %.2f", p);
            std::printf(" |\n");
            std::fflush(stdout);
        }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto number = [&](int place, long otherwise) {
            return argc > place ? std::stol(argv[place]) : otherwise;
        };
        fashion_mnist::Options options;
        const auto seeds = static_cast<std::uint64_t>(number(1, 3));
        options.epochs = number(2, 10);
        options.train = number(3, 20'000);
        options.depth = number(4, 10);
        run(seeds, options);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "learned_survival_table: %s\n", error.what());
        return 1;
    }
}
