// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/max_pool2d.hpp>
#include <stochastic_depth/layers/image/pool_layer.hpp>

#include <cmath>
#include <limits>
#include <string>

#include "support/images.hpp"
#include "support/layer_contract.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

[[nodiscard]] Pool2dOptions options_of(const Sliding& s) {
    return {.kernel = s.kernel, .stride = s.stride, .padding = s.padding};
}

/// A window that always reaches into the image.
[[nodiscard]] Sliding random_pooling(Philox& random) {
    for (;;) {
        const Sliding s = random_sliding(random, 4);
        if (s.padding < s.kernel) return s;
    }
}

/// dx of a pooling layer, given dy.
template <class Pool>
[[nodiscard]] Matrix<double> way_back(const Pool& pool, const Matrix<double>& x,
                                      const Matrix<double>& dy) {
    typename Pool::Gradient gradient;
    Matrix<double> dx = Matrix<double>::Constant(x.rows(), x.cols(), 77.0);
    pool.backward(x, dy, {}, gradient, dx);
    return dx;
}

TEST_CASE("MaxPool2d and AveragePool2d are what they say, forward and back, for 500 random shapes",
          "[pool_layer]") {
    Philox random{1};
    for (int trial = 0; trial < 500; ++trial) {
        const Sliding s = random_pooling(random);
        const MaxPool2d<double> largest{s.input, options_of(s)};
        const AveragePool2d<double> mean{s.input, options_of(s)};
        CAPTURE(trial, largest.description());
        const ImageShape out = s.output(s.input.channels);
        REQUIRE(largest.output_shape() == out);
        const Matrix<double> x = random_matrix<double>(random, s.input.size(), 1);
        const Matrix<double> dy = random_matrix<double>(random, out.size(), 1);
        Matrix<double> most = Matrix<double>::Constant(out.size(), 1, -7), sum = 0 * dy,
                       taps = 0 * dy;
        Matrix<double> by_sum = 0 * x, by_most = by_sum;
        const auto each = [&](const auto& visit) {
            s.for_each_tap([&](Index u, Index v, Index from_u, Index from_v, Index) {
                for (Index c = 0; c < s.input.channels; ++c)
                    visit(row_of(out, c, u, v), row_of(s.input, c, from_u, from_v));
            });
        };
        each([&](Index to, Index from) {
            most(to) = std::max(most(to), x(from));
            sum(to) += x(from);
            taps(to) += 1;
        });
        each([&](Index to, Index from) {
            by_sum(from) += dy(to) / taps(to);
            if (x(from) == most(to)) by_most(from) += dy(to);
        });
        REQUIRE(same_bits(run(largest, x), most));
        REQUIRE(largest_difference(run(mean, x), sum.cwiseQuotient(taps)) <= 1e-14);
        REQUIRE(largest_difference(way_back(largest, x, dy), by_most) <= 1e-14);
        REQUIRE(largest_difference(way_back(mean, x, dy), by_sum) <= 1e-14);
    }
}

TEMPLATE_TEST_CASE("Pooling layers keep the layer contract", "[pool_layer]", float, double) {
    using Scalar = TestType;
    for (const Sliding& s :
         {Sliding{{3, 5, 4}, 2, 2, 0}, {{2, 4, 6}, 3, 2, 1}, {{1, 1, 1}, 1, 1, 0}}) {
        check_layer_contract("MaxPool2d", MaxPool2d<Scalar>{s.input, options_of(s)}, s.input.size(),
                             Derivative::kinked);
        check_layer_contract("AveragePool2d", AveragePool2d<Scalar>{s.input, options_of(s)},
                             s.input.size());
    }
    check_refuses_other_inputs(MaxPool2d<Scalar>{{3, 2, 2}}, 12, "MaxPool2d");
    static_assert(DifferentiableLayer<MaxPool2d<Scalar>> &&
                  DifferentiableLayer<AveragePool2d<Scalar>>);
}

TEST_CASE("MaxPool2d: the first of equal numbers has the gradient, and a NaN is the largest",
          "[pool_layer]") {
    const MaxPool2d<double> pool{{1, 2, 2}};
    Matrix<double> x(4, 1);
    const Matrix<double> dy = Matrix<double>::Constant(1, 1, 3.0);
    x << 1, 5, 5, 2;
    CHECK(way_back(pool, x, dy) == (Matrix<double>(4, 1) << 0, 3, 0, 0).finished());
    for (Index i = 0; i < 4; ++i) {
        x << 1, 5, 5, 2;
        x(i) = std::numeric_limits<double>::quiet_NaN();
        CHECK(std::isnan(run(pool, x)(0)));
        CHECK(way_back(pool, x, dy)(i) == 3);
    }
}

TEST_CASE("bad input: pooling layers refuse shapes and options outside of their range",
          "[pool_layer]") {
    const auto build = [](const ImageShape& shape, const Pool2dOptions& options) {
        return [shape, options] { (void)MaxPool2d<double>(shape, options); };
    };
    refuses(build({1, 0, 4}, {}), {"MaxPool2d: input", "1 x 0 x 4"});
    refuses(build({1, 4, 4}, {.kernel = 0}), {"MaxPool2d: kernel", "got 0"});
    refuses(build({1, 4, 3}, {.kernel = 4}), {"MaxPool2d: kernel", "at most 3", "got 4"});
    refuses(build({1, 4, 4}, {.stride = -1}), {"MaxPool2d: stride", "got -1"});
    refuses(build({1, 4, 4}, {.padding = 2}), {"MaxPool2d: padding", "[0, 1]", "got 2"});
    refuses(build({1, 4, 4}, {.padding = -1}), {"MaxPool2d: padding", "[0, 1]", "got -1"});
    refuses([] { (void)AveragePool2d<float>({1, 1, 1}); }, {"AveragePool2d: kernel", "got 2"});
}

}  // namespace
