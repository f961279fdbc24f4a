// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/run_into.hpp>

#include <algorithm>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// y = x, and writes down how many columns it was given.
struct Recording {
    using Scalar = float;
    std::vector<Index>* calls;

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y) const {
        if (x.cols() > 0) calls->push_back(x.cols());
        y = x;
    }
};
/// The same of images.
struct RecordingImages : Recording {
    ImageShape shape;
    [[nodiscard]] const ImageShape& input_shape() const { return shape; }
};

/// The columns of each call in a pass of `batch` columns.
template <class Layer>
std::vector<Index> calls(Layer layer, Index rows, Index batch) {
    std::vector<Index> result;
    layer.calls = &result;
    const Sequential network{layer};
    const Matrix<float> x = Matrix<float>::Ones(rows, batch);
    CHECK(same_bits(network(x), x));
    return result;
}

TEST_CASE("run_into: images go a few at a time, as many as fit into the cache", "[run_into]") {
    using Calls = std::vector<Index>;
    // 64 KB, 8 of them; 1 MB, of which four are too many for it all the same.
    CHECK(calls(RecordingImages{{}, {16, 32, 32}}, 16384, 20) == Calls{8, 8, 4});
    CHECK(calls(RecordingImages{{}, {256, 32, 32}}, 262144, 5) == Calls{4, 1});
    CHECK(calls(RecordingImages{{}, {16, 32, 32}}, 16384, 8) == Calls{8});
    CHECK(calls(RecordingImages{{}, {16, 32, 32}}, 16384, 1) == Calls{1});
    CHECK(calls(RecordingImages{{}, {16, 32, 32}}, 16384, 0).empty());
    CHECK(calls(RecordingImages{{}, {1, 2, 2}}, 4, 300) == Calls{300});
    CHECK(calls(Recording{}, 16384, 20) == Calls{20});
}

TEST_CASE("run_into: an image has the same bits in any company, under any mask", "[run_into]") {
    Philox random{1};
    const ImageShape shape{4, 64, 64};
    const auto block = [&] {
        return StochasticDepth{
            Residual{Sequential{Conv2d<float>{shape, {.channels = 4, .padding = 1}, random},
                                ReLU<float>{},
                                StochasticDepth{ReLU<float>{}, SurvivalProbability{0.5}}}},
            SurvivalProbability{0.7}};
    };
    const Sequential network{block(), block()};
    const Index batch = 19;
    const Matrix<float> x = random_matrix<float>(random, shape.size(), batch);
    const SurvivalMasks masks = MaskSampler{network.survival_probabilities(), 3}.sample(0, batch);
    const SurvivalMask mask{1, 0, 1, 1};
    const Matrix<float> all = network(x), masked = network(x, masks), same = network(x, mask);
    const Matrix<float> scaled = WeightScaling{}(network, x).mean;
    for (Index j = 0; j < batch; ++j) {
        const Matrix<float> one = x.col(j);
        CAPTURE(j);
        CHECK(same_bits(all.col(j), network(one)));
        CHECK(same_bits(masked.col(j), network(one, masks.mask(j))));
        CHECK(same_bits(same.col(j), network(one, mask)));
        CHECK(same_bits(scaled.col(j), WeightScaling{}(network, one).mean));
    }
    // Into columns of a larger matrix.
    Matrix<float> wide = Matrix<float>::Zero(shape.size() + 3, batch);
    network.forward(x, wide.topRows(shape.size()));
    CHECK(same_bits(wide.topRows(shape.size()), all));
    CHECK((wide.bottomRows(3).array() == 0).all());
}

}  // namespace
