// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/token_dropout.hpp>

#include <cmath>
#include <vector>

#include <stochastic_depth/training/any_augmentation.hpp>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using test::refusal;

static_assert(AugmentationOf<TokenDropout, float> && AugmentationOf<TokenDropout, double>);

TEST_CASE("TokenDropout: replaces the tokens that it says, and nothing past a sequence's end",
          "[token_dropout]") {
    const TokenDropout dropout{{.rate = 0.5, .replacement = 7, .seed = 3}};
    MatrixXf x = MatrixXf::Constant(6, 3, 2);
    x.col(1).tail(4).setConstant(-1);
    MatrixXf y(6, 3);
    const std::vector<Index> samples{40, 2, 11};
    bool dropped = false, kept = false;
    for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
        dropout.apply(epoch, samples, x, y);
        for (Index j = 0; j < 3; ++j)
            for (Index t = 0; t < 6; ++t) {
                const bool drops = dropout.drops(
                    epoch, static_cast<std::uint64_t>(samples[static_cast<std::size_t>(j)]), t);
                CHECK(y(t, j) == (x(t, j) == -1 ? -1.0f : drops ? 7.0f : 2.0f));
                (drops ? dropped : kept) = true;
            }
        // Alone, in other rows and in double: the same.
        MatrixXd alone(2, 1);
        dropout.apply(epoch, std::vector<Index>{2}, MatrixXd::Constant(2, 1, 2), alone);
        CHECK(alone == y.col(1).head(2).cast<double>());
    }
    CHECK(dropped);
    CHECK(kept);
}

TEST_CASE("TokenDropout: drops as often as it is told, each token by itself", "[token_dropout]") {
    const TokenDropout dropout{{.rate = 0.2, .seed = 1}};
    constexpr int samples = 4000, positions = 8;
    double count = 0, pairs = 0, epochs = 0, others = 0;
    const TokenDropout other{{.rate = 0.2, .seed = 2}};
    for (std::uint64_t sample = 0; sample < samples; ++sample)
        for (Index t = 0; t < positions; ++t) {
            const bool drops = dropout.drops(5, sample, t);
            count += drops;
            pairs += drops && dropout.drops(5, sample, t + 1);
            epochs += drops && dropout.drops(6, sample, t);
            others += drops && other.drops(5, sample, t);
        }
    // Six standard deviations: a false alarm in 5e8.
    constexpr double n = samples * positions;
    CHECK(std::abs(count / n - 0.2) < 6 * std::sqrt(0.2 * 0.8 / n));
    for (const double both : {pairs, epochs, others})
        CHECK(std::abs(both / n - 0.04) < 6 * std::sqrt(0.04 * 0.96 / n) * 1.2);
    for (Index t = 0; t < 100; ++t) {
        CHECK_FALSE(TokenDropout{{.rate = 0}}.drops(0, 0, t));
        CHECK(TokenDropout{{.rate = 1}}.drops(0, 0, t));
    }
}

TEST_CASE("TokenDropout: options and sizes that don't fit are refused, nothing is written",
          "[token_dropout]") {
    CHECK(refusal([] { (void)TokenDropout{{.rate = -0.1}}; }) ==
          "TokenDropout: rate must lie in [0, 1], got -0.1");
    CHECK(refusal([] { (void)TokenDropout{{.rate = std::nan("")}}; }) ==
          "TokenDropout: rate must lie in [0, 1], got nan");
    CHECK(refusal([] { (void)TokenDropout{{.replacement = -1}}; }) ==
          "TokenDropout: replacement must lie in [0, 2^24], got -1");
    const TokenDropout dropout{{.rate = 1}};
    const MatrixXd x = MatrixXd::Constant(2, 3, 5);
    MatrixXd y = MatrixXd::Constant(2, 3, 9), narrow(2, 2);
    CHECK(refusal([&] {
              dropout.apply(0, std::vector<Index>{1, 2}, x, y);
          }) == "TokenDropout: x must have a column for each of 2 samples, got 3");
    CHECK(refusal([&] {
              dropout.apply(0, std::vector<Index>{1, 2, 3}, x, narrow);
          }) == "TokenDropout: y must be [2 x 3], got [2 x 2]");
    CHECK(refusal([&] {
              dropout.apply(0, std::vector<Index>{1, 2, -3}, x, y);
          }) == "TokenDropout: samples must be at least 0, got -3");
    CHECK((y.array() == 9).all());
}

}  // namespace
