// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/sequence/per_position.hpp>

#include <limits>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/layer_contract.hpp"
#include "support/refusal.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// A layer of one's own: the numbers of a column backwards, three times each.
struct Backwards {
    using Scalar = double;
    struct Cache {};
    struct Gradient {
        void set_zero() {}
    };
    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        y = 3 * x.colwise().reverse();
    }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y, Cache&) const {
        forward(x, y);
    }
    void backward(const ConstMatrixRef<double>&, const ConstMatrixRef<double>& dy, const Cache&,
                  Gradient&, MatrixRef<double> dx) const {
        dx = 3 * dy.colwise().reverse();
    }
    [[nodiscard]] Gradient zero_gradient() const { return {}; }
};

TEST_CASE("PerPosition: a layer at each position, for any layer", "[per_position]") {
    Philox random{1};
    for (const Index count : {1, 2, 5}) {
        const Linear<double> linear{3, 4, random};
        const PerPosition each{3, linear};
        const Matrix<double> x = random_matrix<double>(random, 3 * count, 6);
        const Matrix<double> y = each(x);
        REQUIRE(y.rows() == 4 * count);
        for (Index j = 0; j < 6; ++j)
            for (Index t = 0; t < count; ++t)
                CHECK(same_bits(y.col(j).segment(4 * t, 4),
                                run(linear, x.col(j).segment(3 * t, 3)).col(0)));
    }
    const Matrix<double> x = random_matrix<double>(random, 6, 2);
    const Matrix<double> y = PerPosition{2, Backwards{}}(x);
    for (Index j = 0; j < 2; ++j)
        for (Index t = 0; t < 3; ++t) {
            CHECK(y(2 * t, j) == 3 * x(2 * t + 1, j));
            CHECK(y(2 * t + 1, j) == 3 * x(2 * t, j));
        }
}

TEST_CASE("PerPosition keeps the layer contract", "[per_position]") {
    Philox random{2};
    check_layer_contract("PerPosition", PerPosition{3, Linear<double>{3, 5, random}}, 12);
    check_layer_contract("PerPosition", PerPosition{1, Linear<double>{1, 1, random}}, 1);
    check_layer_contract("PerPosition", PerPosition{2, Backwards{}}, 8);
    check_layer_contract(
        "PerPosition",
        PerPosition{4, Residual{Sequential{Linear<double>{4, 6, random}, Tanh<double>{},
                                           Linear<double>{6, 4, random}}}},
        8);
}

/// Embedding, and then `layer` in a residual branch, so that its epilogue adds.
template <class Layer>
auto behind_embedding(Philox& random, Layer layer, Index width) {
    return Sequential{Embedding<double>{{9, 6, width}, random},
                      StochasticDepth{Residual{std::move(layer)}, SurvivalProbability{0.5}}};
}

TEST_CASE("PerPosition: padding holds zeros, whatever the layer makes of zeros", "[per_position]") {
    Philox random{3};
    Linear<double> shifting{Matrix<double>::Identity(3, 3), Vector<double>::Ones(3)};
    const auto network = behind_embedding(random, PerPosition{3, shifting}, 3);
    const Sequences x = random_sequences(random, 6, 7, 9);
    for (const SurvivalMask& mask : {SurvivalMask{0}, SurvivalMask{1}}) {
        const Matrix<double> y = network(x.tokens, mask);
        for (Index j = 0; j < 7; ++j) {
            CHECK(same_bits(y.col(j).head(3 * x.length(j)), network(x.alone(j), mask).col(0)));
            CHECK((y.col(j).tail(18 - 3 * x.length(j)).array() == 0).all());
        }
    }
}

TEST_CASE("PerPosition: steps on any number of threads give the same bits, with Dropout inside",
          "[per_position]") {
    Philox random{4};
    const auto make = [&] {
        return Sequential{
            behind_embedding(random,
                             PerPosition{8, Sequential{Linear<double>{8, 16, random}, Tanh<double>{},
                                                       Dropout<double>{0.3},
                                                       Linear<double>{16, 8, random}}},
                             8),
            SequencePool<double>{8}};
    };
    const auto network = make();
    const Sequences x = random_sequences(random, 6, 50, 9);
    const Matrix<double> targets = random_matrix<double>(random, 8, 50);
    std::vector<Matrix<double>> first;
    for (const unsigned threads : {1u, 2u, 3u}) {
        TrainingStep step{network, MeanSquaredError<double>{}, {.seed = 5, .threads = threads}};
        (void)step.differentiate(network, x.tokens, targets, 0);
        std::vector<Matrix<double>> slopes;
        visit_parameters(
            network,
            [&](const char*, const auto&, const auto& slope) { slopes.emplace_back(slope); },
            step.gradient());
        if (threads == 1) first = slopes;
        REQUIRE(slopes.size() == first.size());
        for (std::size_t k = 0; k < slopes.size(); ++k) CHECK(same_bits(slopes[k], first[k]));
    }
    // A sample drops the same entries in longer company, and other ones at other positions.
    const Sequential dropping{Embedding<double>{Matrix<double>::Ones(64, 9), Matrix<double>::Zero(64, 6)},
                              PerPosition{64, Dropout<double>{0.5}}};
    const auto dropped = [&](const Matrix<double>& tokens) {
        detail::Tape tape;
        detail::RecordOf<std::remove_cvref_t<decltype(dropping)>, detail::Records> record;
        detail::Batch<double, detail::Records> batch(detail::Team::alone(), tape,
                                                     detail::const_view(tokens));
        const detail::StepContext context{.seed = 8, .step = 3};
        const SurvivalMask none{};
        detail::run(dropping, batch, record, detail::MaskView{none, &context});
        return Matrix<double>(batch.current());
    };
    const Matrix<double> all = dropped(x.tokens), alone = dropped(x.alone(0));
    CHECK(same_bits(alone.col(0), all.col(0).head(alone.rows())));
    const Matrix<double> full = dropped(Matrix<double>::Zero(6, 2));
    for (Index t = 1; t < 6; ++t)
        CHECK_FALSE(same_bits(full.col(0).segment(64 * t, 64), full.col(0).head(64)));
    CHECK_FALSE(same_bits(full.col(0), full.col(1)));
}

TEST_CASE("PerPosition refuses sizes that don't fit, by name", "[per_position]") {
    Philox random{5};
    const PerPosition each{3, Linear<double>{3, 2, random}};
    CHECK(refusal([&] { (void)each(Matrix<double>::Zero(4, 2)); }) ==
          "PerPosition: input must have a multiple of 3 rows, got 4");
    CHECK(refusal([&] { (void)each.output_size(0); }) ==
          "PerPosition: input must have a multiple of 3 rows, got 0");
    CHECK(refusal([&] { PerPosition(0, Tanh<double>{}); }) ==
          "PerPosition: width must be at least 1, got 0");
    CHECK(refusal([&] { PerPosition(2, Linear<double>{3, 2, random}); }) ==
          "Linear: input must have 3 rows, got 2");
}

}  // namespace
