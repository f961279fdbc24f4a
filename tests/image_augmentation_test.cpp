// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/channel_normalisation.hpp>
#include <stochastic_depth/training/image_augmentation.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/images.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("ImageAugmentation: pad, crop and flip as it says", "[image_augmentation]") {
    Philox random{1};
    const ImageShape shape{3, 4, 6};
    const ImageAugmentation augmentation{shape, {.padding = 2, .seed = 5}};
    const std::vector<Index> samples{7, 0, 1234567890123, 3, 3};
    const Matrix<float> x = random_matrix<float>(random, shape.size(), 5);
    bool flips[2] = {};
    for (std::uint64_t epoch = 0; epoch < 20; ++epoch) {
        Matrix<float> y(shape.size(), 5);
        augmentation.apply(epoch, samples, x, y);
        for (Index j = 0; j < 5; ++j) {
            const auto sample = static_cast<std::uint64_t>(samples[static_cast<std::size_t>(j)]);
            const auto change = augmentation.change(epoch, sample);
            flips[change.flipped] = true;
            for (Index v = 0; v < 4; ++v)
                for (Index u = 0; u < 6; ++u)
                    for (Index c = 0; c < 3; ++c) {
                        const Index from_u = (change.flipped ? 5 - u : u) + change.right;
                        const Index from_v = v + change.down;
                        const bool inside = from_u >= 0 && from_u < 6 && from_v >= 0 && from_v < 4;
                        REQUIRE(y(row_of(shape, c, u, v), j) ==
                                (inside ? x(row_of(shape, c, from_u, from_v), j) : 0.0f));
                    }
        }
        // A function of seed, epoch and sample, whatever stands beside.
        Matrix<float> alone(shape.size(), 1);
        augmentation.apply(epoch, std::vector<Index>{samples[2]}, x.col(2), alone);
        REQUIRE(same_bits(alone, y.col(2)));
    }
    CHECK((flips[0] && flips[1]));
    Matrix<float> same(shape.size(), 5);
    ImageAugmentation{shape, {.padding = 0, .flip = false}}.apply(3, samples, x, same);
    CHECK(same_bits(same, x));
}

TEST_CASE("ImageAugmentation: places are uniform, half of the images are flipped, epochs differ",
          "[image_augmentation]") {
    const ImageAugmentation augmentation{{1, 8, 8}, {.padding = 1, .seed = 9}};
    const ImageAugmentation other{{1, 8, 8}, {.padding = 1, .seed = 10}};
    std::array<int, 18> counts{};
    int again = 0, as_other = 0;
    const int count = 18000;
    const auto number = [](const ImageAugmentation::Change& c) {
        return static_cast<std::size_t>((c.right + 1) + 3 * (c.down + 1) + 9 * Index{c.flipped});
    };
    for (std::uint64_t sample = 0; sample < count; ++sample) {
        const std::size_t here = number(augmentation.change(2, sample));
        ++counts[here];
        again += here == number(augmentation.change(3, sample));
        as_other += here == number(other.change(2, sample));
    }
    // 6 sigma of a binomial with p = 1 / 18: a false alarm in 10^7 seeds.
    const double bound = 6 * std::sqrt(count * (1.0 / 18) * (17.0 / 18));
    for (const int seen : counts) CHECK(std::abs(seen - 1000) < bound);
    CHECK(std::abs(again - 1000) < bound);
    CHECK(std::abs(as_other - 1000) < bound);
}

TEST_CASE("ImageAugmentation: the stream is pinned", "[image_augmentation]") {
    const auto change =
        ImageAugmentation{{1, 8, 8}, {.padding = 4, .seed = 2026}}.change(17, 12345);
    CHECK(change.right == 4);
    CHECK(change.down == -3);
    CHECK(change.flipped);
}

TEST_CASE("ChannelNormalisation: channels of mean 0 and variance 1", "[image_augmentation]") {
    Philox random{2};
    const ImageShape shape{3, 4, 5};
    Matrix<std::uint8_t> images(shape.size(), 9);
    for (Index k = 0; k < images.size(); ++k)
        images.data()[k] =
            static_cast<std::uint8_t>(k % 3 == 2 ? 7 : whole(random, 0, 99 + 60 * (k % 3)));
    const auto normalisation = ChannelNormalisation::of(shape, images);
    const Matrix<double> y = normalisation.apply<double>(images);
    for (Index c = 0; c < 3; ++c) {
        const Matrix<double> channel = Eigen::Map<const Matrix<double>>(y.data(), 3, 180).row(c);
        CHECK(std::abs(channel.mean()) <= 1e-14);
        CHECK(std::abs(channel.squaredNorm() / 180 - (c == 2 ? 0 : 1)) <= 1e-13);
    }
    CHECK(normalisation.mean()(2) == 7);
    CHECK(normalisation.deviation()(2) == 1);
    // Another set by the same numbers.
    const ChannelNormalisation given{{2, 1, 1}, Eigen::Vector2d(1, 2), Eigen::Vector2d(2, 4)};
    CHECK(given.apply<float>(Eigen::Vector2f(5, 4).eval()) == Eigen::Vector2f(2, 0.5));
}

TEST_CASE("bad input: augmentation and normalisation refuse what doesn't fit",
          "[image_augmentation]") {
    refuses([] { (void)ImageAugmentation{{0, 2, 2}}; }, {"ImageAugmentation: shape", "0 x 2 x 2"});
    refuses(
        [] {
            (void)ImageAugmentation({1, 2, 2}, {.padding = -1});
        },
        {"ImageAugmentation: padding", "got -1"});
    refuses(
        [] {
            (void)ImageAugmentation({1, 2, 2}, {.padding = Index{1} << 40});
        },
        {"ImageAugmentation: padding", "2^20"});
    const ImageAugmentation augmentation{{1, 2, 2}};
    Matrix<double> y = Matrix<double>::Constant(4, 2, 7);
    const auto unchanged = [&] { return (y.array() == 7).all(); };
    const auto apply = [&](const std::vector<Index>& samples, Index rows, Index columns) {
        return [&augmentation, &y, samples, rows, columns] {
            augmentation.apply(0, samples, Matrix<double>::Zero(rows, columns), y);
        };
    };
    refuses(apply({0, 1}, 5, 2), {"ImageAugmentation: x", "[4 x 2]", "[5 x 2]"}, unchanged);
    refuses(apply({0, 1}, 4, 3), {"ImageAugmentation: x", "[4 x 2]", "[4 x 3]"}, unchanged);
    refuses(apply({0}, 4, 1), {"ImageAugmentation: y", "[4 x 1]", "[4 x 2]"}, unchanged);
    refuses(apply({0, -3}, 4, 2), {"ImageAugmentation: samples", "got -3"}, unchanged);

    using Eigen::Vector2d;
    const auto normalise = [](const Vector2d& mean, const Vector2d& deviation) {
        return [=] { (void)ChannelNormalisation({2, 1, 1}, mean, deviation); };
    };
    refuses(
        [] {
            (void)ChannelNormalisation({3, 1, 1}, Vector2d(0, 0), Vector2d(1, 1));
        },
        {"ChannelNormalisation: mean and deviation", "3 entries", "2 and 2"});
    refuses(normalise({0, test::nan}, {1, 1}), {"ChannelNormalisation: mean(1)", "got nan"});
    refuses(normalise({0, 0}, {0, 1}), {"ChannelNormalisation: deviation(0)", "got 0"});
    refuses(normalise({0, 0}, {1, inf}), {"ChannelNormalisation: deviation(1)", "got inf"});
    refuses(
        [] {
            (void)ChannelNormalisation::of({1, 2, 2}, Matrix<float>(5, 1));
        },
        {"ChannelNormalisation: input", "4 rows", "got 5"});
    refuses(
        [] {
            (void)ChannelNormalisation::of({1, 2, 2}, Matrix<float>(4, 0));
        },
        {"ChannelNormalisation: images", "got 0"});
}

}  // namespace
