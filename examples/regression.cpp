// SPDX-License-Identifier: MIT
// A first regression: noisy samples of sin(3 a) + b^2 are learned by a network of four skippable
// layers, until the loss on samples that were set aside no longer falls.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>
#include <vector>
namespace sd = stochastic_depth;

int main() {
    sd::Philox random{2026};
    const auto samples = [&](sd::Index count, double noise) {
        sd::Matrix<double> x(2, count), y(1, count);  // [features x samples], [outputs x samples]
        for (double& number : x.reshaped()) number = sd::uniform<double>(random, -1, 1);
        for (sd::Index j = 0; j < count; ++j)
            y(0, j) = std::sin(3 * x(0, j)) + x(1, j) * x(1, j) +
                      noise * sd::uniform<double>(random, -1, 1);
        return sd::Dataset{x, y};
    };
    const auto training = samples(1000, 0.3), validation = samples(300, 0.3);
    const auto test = samples(1000, 0);

    using Branch = sd::Sequential<sd::Linear<double>, sd::Tanh<double>>;
    using Layer = sd::StochasticDepth<sd::Residual<Branch>>;  // x + tanh(W x + b), or x if skipped
    std::vector<Layer> layers;
    for (const double p : sd::linear_decay(4, 0.9))
        layers.emplace_back(sd::Residual{Branch{sd::Linear<double>{16, 16, random}, {}}},
                            sd::SurvivalProbability{p});
    sd::Sequential network{sd::Linear<double>{2, 16, random}, sd::Stack{layers},
                           sd::Linear<double>{16, 1, random}};

    const auto tell = [](const sd::EpochRecord& record) {
        if (record.epoch % 10 == 0)
            std::printf("epoch %3td: loss %.4f, validation %.4f\n", record.epoch, record.loss,
                        record.validation_loss);
        return true;  // go on
    };
    const sd::MeanSquaredError<double> loss;
    const sd::Trainer trainer{{.batch_size = 32,
                               .epochs = 200,
                               .on_epoch = tell,
                               .early_stopping = sd::EarlyStoppingOptions{.patience = 15}}};
    trainer.fit(network, training, loss, sd::Adam{network}, validation);

    const auto answer = sd::ExactExpectation{}(network, test.inputs());  // over all 2^4 masks
    const double error = std::sqrt(loss.value(answer.mean, test.targets()));
    std::printf("root mean squared error without the noise: %.3f\n", error);
    return error < 0.1 ? 0 : 1;
}
