// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/global_average_pool2d.hpp>
#include <stochastic_depth/layers/image/pad_channels.hpp>

#include <string>

#include <stochastic_depth/layers/composition/sequential.hpp>

#include "support/images.hpp"
#include "support/layer_contract.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("GlobalAveragePool2d is the mean of each channel", "[global_average_pool2d]") {
    Philox random{1};
    for (int trial = 0; trial < 100; ++trial) {
        const ImageShape shape{whole(random, 1, 19), whole(random, 1, 9), whole(random, 1, 9)};
        const Matrix<double> x = random_matrix<double>(random, shape.size(), 3);
        const Matrix<double> y = run(GlobalAveragePool2d<double>{shape}, x);
        for (Index j = 0; j < 3; ++j) {
            const Eigen::Map<const Matrix<double>> positions(x.col(j).data(), shape.channels,
                                                             shape.positions());
            REQUIRE(largest_difference(y.col(j), positions.rowwise().mean()) <= 1e-14);
        }
    }
}

TEMPLATE_TEST_CASE("GlobalAveragePool2d and PadChannels keep the layer contract",
                   "[global_average_pool2d]", float, double) {
    using Scalar = TestType;
    const ImageShape shape{9, 3, 2};
    check_layer_contract("GlobalAveragePool2d", GlobalAveragePool2d<Scalar>{shape}, shape.size());
    check_layer_contract("GlobalAveragePool2d", GlobalAveragePool2d<Scalar>{{1, 1, 1}}, 1);
    check_layer_contract("PadChannels", PadChannels<Scalar>{shape, 13}, shape.size());
    check_layer_contract("PadChannels", PadChannels<Scalar>{shape, 9}, shape.size());
    check_refuses_other_inputs(GlobalAveragePool2d<Scalar>{shape}, 54, "GlobalAveragePool2d");
    check_refuses_other_inputs(PadChannels<Scalar>{shape, 13}, 54, "PadChannels");
}

TEST_CASE("PadChannels adds channels of zeros at each position", "[global_average_pool2d]") {
    Philox random{2};
    const ImageShape shape{3, 4, 6};
    const AveragePool2d<double> pool{shape};
    const PadChannels<double> pad{pool.output_shape(), 7};
    CHECK(pad.output_shape() == ImageShape{7, 2, 3});
    const Matrix<double> x = random_matrix<double>(random, shape.size(), 2);
    const Matrix<double> pooled = run(pool, x), y = run(Sequential{pool, pad}, x);
    for (Index j = 0; j < 2; ++j)
        for (Index v = 0; v < 2; ++v)
            for (Index u = 0; u < 3; ++u)
                for (Index c = 0; c < 7; ++c)
                    CHECK(y(row_of({7, 2, 3}, c, u, v), j) ==
                          (c < 3 ? pooled(row_of({3, 2, 3}, c, u, v), j) : 0.0));
}

TEST_CASE("bad input: GlobalAveragePool2d and PadChannels refuse shapes that are none",
          "[global_average_pool2d]") {
    refuses(
        [] {
            (void)GlobalAveragePool2d<double>({0, 1, 1});
        },
        {"GlobalAveragePool2d: input", "0 x 1 x 1"});
    refuses([] { (void)PadChannels<double>({1, 1, 0}, 2); }, {"PadChannels: input", "1 x 1 x 0"});
    refuses(
        [] {
            (void)PadChannels<double>({3, 2, 2}, 2);
        },
        {"PadChannels: channels", "at least 3", "got 2"});
    refuses(
        [] {
            (void)PadChannels<double>({3, 2, 2}, Index{1} << 40);
        },
        {"PadChannels: output", "2^40"});
}

}  // namespace
