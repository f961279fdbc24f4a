// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/protocol.hpp>

#include <utility>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// A layer of one's own that mixes positions: each is what is missing to the sequence's last one,
/// y(t) = x(last) - x(t).
class LastDifference : public LayerBase<LastDifference, double> {
public:
    struct Gradient {
        void set_zero() {}
    };
    template <class Memory>
    struct Record {
        pass::SequenceLengths lengths;
    };

    explicit LastDifference(Index width) : width_(width) {}

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        record.lengths = batch.lengths();
        Batch result = batch.room(batch.rows());
        const auto x = batch.current();
        auto y = result.writable();
        y.setZero();
        for (Index j = 0; j < x.cols(); ++j) {
            const Index length = length_of(record.lengths, j, x.rows());
            for (Index t = 0; t < length; ++t)
                y.col(j).segment(t * width_, width_) =
                    x.col(j).segment((length - 1) * width_, width_) -
                    x.col(j).segment(t * width_, width_);
        }
        batch = std::move(result);
        batch.apply(epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<pass::Records>& record, Gradient&,
                       const Epilogue& epilogue) const {
        Batch result = batch.room(batch.rows());
        const auto dy = batch.current();
        auto dx = result.writable();
        dx.setZero();
        for (Index j = 0; j < dy.cols(); ++j) {
            const Index length = length_of(record.lengths, j, dy.rows());
            auto last = dx.col(j).segment((length - 1) * width_, width_);
            for (Index t = 0; t < length; ++t) {
                const auto slope = dy.col(j).segment(t * width_, width_);
                dx.col(j).segment(t * width_, width_) -= slope;
                last += slope;
            }
        }
        batch = std::move(result);
        batch.apply(epilogue);
    }

private:
    [[nodiscard]] Index length_of(const pass::SequenceLengths& lengths, Index j, Index rows) const {
        return pass::length_of_sequence(lengths, j, rows / width_);
    }

    Index width_;
};

TEST_CASE("A layer of one's own that mixes positions finds the lengths in every pass and tree",
          "[own_sequence_layer]") {
    Philox random{1};
    const auto block = [&](double p) {
        return StochasticDepth{
            Residual{Sequential{PerPosition{3, Linear<double>{3, 3, random}}, LastDifference{3}}},
            SurvivalProbability{p}};
    };
    const Sequential network{Embedding<double>{{9, 6, 3}, random}, block(0.5), block(0.7),
                             block(0.9), SequencePool<double>{3}};
    const Sequences x = random_sequences(random, 6, 7, 9);
    Matrix<double> mean = Matrix<double>::Zero(3, 7);
    for (const auto& row : enumerate_masks(network, x.tokens)) {
        for (Index j = 0; j < 7; ++j)
            CHECK(same_bits(network(x.alone(j), row.mask).col(0), row.output.col(j)));
        mean += row.probability * row.output;
    }
    CHECK((ExactExpectation{}(network, x.tokens).mean - mean).cwiseAbs().maxCoeff() < 1e-12);
    const SurvivalMasks masks = MaskSampler{network.survival_probabilities(), 5}.sample(0, 7);
    const Matrix<double> together = network(x.tokens, masks);
    for (Index j = 0; j < 7; ++j)
        CHECK(same_bits(network(x.alone(j), masks.mask(j)).col(0), together.col(j)));
    CHECK(gradient_error(network, x.tokens, masks, MeanSquaredError<double>{},
                         random_matrix<double>(random, 3, 7))
              .largest < 1e-8);
}

}  // namespace
