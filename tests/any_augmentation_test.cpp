// SPDX-License-Identifier: MIT
// What a Trainer does to its batches before a step.
#include <stochastic_depth/training/any_augmentation.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/training/image_augmentation.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/files.hpp"
#include "support/parameters.hpp"
#include "support/refusals.hpp"
#include "support/training_problem.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using test::parameters;
using test::refuses;
using test::same_bits;
using Curve = Dataset<double, MatrixXd>;

constexpr Index samples = 11, batch = 4, steps = 3;

/// A user's own: a sample grows with its epoch and its number.
struct Growth {
    double rate = 0.01;

    void apply(std::uint64_t epoch, std::span<const Index> numbers,
               const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        for (Index j = 0; j < x.cols(); ++j) y.col(j) = x.col(j) * factor(epoch, numbers, j);
    }
    [[nodiscard]] double factor(std::uint64_t epoch, std::span<const Index> numbers,
                                Index j) const {
        const auto number = static_cast<double>(numbers[static_cast<std::size_t>(j)]);
        return 1.0 + rate * (number + 20.0 * static_cast<double>(epoch));
    }
};

struct Training {
    Philox random{1};
    const test::Network start = test::network(random, Eigen::VectorXd{{0.7, 0.5}});
    const Curve data{test::random_matrix<double>(random, 3, samples),
                     test::random_matrix<double>(random, 2, samples)};
    const MeanSquaredError<double> loss{};

    [[nodiscard]] TrainerOptions options(Index epochs) const {
        return {.batch_size = batch, .epochs = epochs, .seed = 5, .augmentation = Growth{}};
    }
    [[nodiscard]] test::Network trained(const TrainerOptions& options) const {
        test::Network network = start;
        (void)Trainer{options}.fit(network, data, loss);
        return network;
    }
};

TEST_CASE("Trainer: a step sees each sample as the augmentation of its epoch and number has it",
          "[any_augmentation]") {
    const Training training;
    test::Network by_hand = training.start;
    Sgd<test::Network> sgd{by_hand};
    TrainingStep step{by_hand, training.loss, {.seed = 5}};
    MatrixXd x, targets;
    for (Index s = 0; s < 2 * steps; ++s) {
        const auto epoch = static_cast<std::uint64_t>(s / steps);
        const std::vector<Index> order = detail::random_order(
            samples, detail::stream_key(5, detail::StreamPurpose::shuffling, 1), epoch);
        const Index first = s % steps * batch, count = std::min(batch, samples - first);
        const auto numbers = std::span(order).subspan(static_cast<std::size_t>(first),
                                                      static_cast<std::size_t>(count));
        x.resize(3, count);
        targets.resize(2, count);
        training.data.gather(numbers, x, targets);
        for (Index j = 0; j < count; ++j) x.col(j) *= Growth{}.factor(epoch, numbers, j);
        (void)step.differentiate(by_hand, x, targets, static_cast<std::uint64_t>(s));
        sgd.step(by_hand, step.gradient());
        step.finish(by_hand);
    }
    const auto options = training.options(2);
    CHECK(same_bits(parameters(training.trained(options)), parameters(by_hand)));
    auto other = options;
    other.augmentation = {};
    CHECK_FALSE(same_bits(parameters(training.trained(other)), parameters(by_hand)));
    for (const unsigned threads : {2u, 3u}) {
        other = options;
        other.threads = threads;
        CHECK(same_bits(parameters(training.trained(other)), parameters(by_hand)));
    }
}

TEST_CASE("Trainer: a training with augmentation goes on from a file, at any step, as if it had "
          "not been interrupted",
          "[any_augmentation]") {
    const Training training;
    const auto whole = parameters(training.trained(training.options(3)));
    const test::TemporaryDirectory directory;
    const std::string path = directory.file("training");
    for (Index stop = 1; stop < 3 * steps; ++stop) {
        struct Stopped : std::exception {};
        test::Network network = training.start;
        Sgd<test::Network> sgd{network};
        auto options = training.options(3);
        options.on_step = [&](const TrainingProgress& at) {
            const Index done = at.epoch * steps + at.step + 1;
            if (done < stop) return;
            save_training(path, network, sgd, {.step = static_cast<std::uint64_t>(done)});
            throw Stopped{};
        };
        CHECK_THROWS_AS(Trainer{options}.fit(network, training.data, training.loss, sgd), Stopped);

        test::Network other = training.start;
        Sgd<test::Network> again{other};
        options = training.options(3);
        options.first_step = static_cast<Index>(load_training(path, other, again).step);
        (void)Trainer{options}.fit(other, training.data, training.loss, again);
        CHECK(same_bits(parameters(other), whole));
    }
}

TEST_CASE("Trainer: validation data are not augmented", "[any_augmentation]") {
    const Training training;
    auto options = training.options(1);
    test::Network network = training.start;
    const auto history =
        Trainer{options}.fit(network, training.data, training.loss, training.data);
    const double loss = training.loss.value(WeightScaling{}(network, training.data.inputs()).mean,
                                            training.data.targets());
    CHECK(std::abs(history.front().validation_loss - loss) <= 1e-14);
}

TEST_CASE("AnyAugmentation: takes ImageAugmentation of any numbers, and what a type takes itself",
          "[any_augmentation]") {
    Philox random{3};
    const ImageAugmentation images{{1, 3, 2}, {.padding = 1, .seed = 4}};
    const AnyAugmentation any = images;
    CHECK(any);
    CHECK_FALSE(AnyAugmentation{});
    const std::vector<Index> numbers{7, 0};
    const auto check = [&](auto scalar) {
        using Scalar = decltype(scalar);
        const Matrix<Scalar> x = test::random_matrix<Scalar>(random, 6, 2);
        Matrix<Scalar> y(6, 2), expected(6, 2);
        any.apply<Scalar>(9, numbers, x, y);
        images.apply(9, numbers, x, expected);
        CHECK(same_bits(y, expected));
    };
    check(float{});
    check(double{});
}

TEST_CASE("bad input: Trainer refuses an augmentation of other numbers or another size",
          "[any_augmentation]") {
    struct OfFloat {
        void apply(std::uint64_t, std::span<const Index>, const ConstMatrixRef<float>& x,
                   MatrixRef<float> y) const {
            y = x;
        }
    };
    const Training training;
    test::Network network = training.start;
    const auto unchanged = [&] {
        return same_bits(parameters(network), parameters(training.start));
    };
    const auto fit = [&](AnyAugmentation augmentation) {
        return [&, augmentation] {
            auto options = training.options(1);
            options.augmentation = augmentation;
            (void)Trainer{options}.fit(network, training.data, training.loss);
        };
    };
    refuses(fit(OfFloat{}), {"Trainer: augmentation", "numbers of 8 bytes"}, unchanged);
    refuses(fit(ImageAugmentation{{1, 2, 2}}), {"ImageAugmentation: x", "[4 x 4]", "got [3 x 4]"},
            unchanged);
}

}  // namespace
