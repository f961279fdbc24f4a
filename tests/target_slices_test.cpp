// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <cmath>
#include <cstdint>
#include <stdexcept>

#include <stochastic_depth/training/sample_weighted.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/weighted_targets.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/token_problem.hpp"

namespace {

using namespace stochastic_depth;
using Network = TransformerClassifier<double>;
using Step = TrainingStep<Network, SoftmaxCrossEntropy<double>>;

constexpr Index sequences = 31;

[[nodiscard]] Eigen::VectorXd numbers_of(const Network& network, Network::Gradient gradient) {
    return test::slopes(network, gradient);
}

TEST_CASE("TrainingStep: slices of a batch of tokens are its samples one by one",
          "[training_step]") {
    const test::TokenProblem p{sequences};
    Step whole{p.network, {}, {.seed = 9}}, alone{p.network, {}, {.seed = 9}};
    const StepLedger ledger = whole.differentiate(p.network, p.x, p.labels, 4);
    double loss = 0, evaluations = 0;
    for (Index j = 0; j < sequences; ++j) {
        const Eigen::VectorXi label = p.labels.segment(j, 1);
        const StepLedger part =
            alone.differentiate(p.network, p.x.middleCols(j, 1), label, 4, {j, sequences});
        loss += part.loss;
        evaluations += part.layer_evaluations;
    }
    CHECK(std::abs(ledger.loss - loss) < 1e-13);
    CHECK(ledger.layer_evaluations == evaluations);
    CHECK(ledger.full_depth_evaluations == 4.0 * sequences);
    const Step& a = whole;
    const Step& b = alone;
    const Eigen::VectorXd x = numbers_of(p.network, a.gradient()),
                          y = numbers_of(p.network, b.gradient());
    REQUIRE(x.size() == y.size());
    CHECK(test::largest_difference(x, y) < 1e-14);
}

TEST_CASE("TrainingStep: slices have the same bits for any number of threads", "[training_step]") {
    const test::TokenProblem p{sequences};
    Step one{p.network, {}, {.seed = 9}};
    (void)one.differentiate(p.network, p.x, p.labels, 4);
    for (const unsigned threads : {2U, 3U}) {
        Step more{p.network, {}, {.seed = 9, .threads = threads}};
        (void)more.differentiate(p.network, p.x, p.labels, 4);
        CHECK(numbers_of(p.network, one.gradient()) == numbers_of(p.network, more.gradient()));
    }
}

TEST_CASE("TrainingStep: slices of tokens take the weights of their samples", "[training_step]") {
    const test::TokenProblem p{sequences};
    const SampleWeighted loss{SoftmaxCrossEntropy<double>{}};
    const Eigen::VectorXd weights = Eigen::VectorXd::LinSpaced(sequences, 0, 2);
    const WeightedTargets<Eigen::VectorXi> targets{p.labels, weights};
    TrainingStep whole{p.network, loss, {.seed = 9}}, alone{p.network, loss, {.seed = 9}};
    const double of_whole = whole.differentiate(p.network, p.x, targets, 4).loss;
    double of_all = 0;
    for (Index j = 0; j < sequences; ++j)
        of_all += alone
                      .differentiate(p.network, p.x.middleCols(j, 1),
                                     {p.labels.segment(j, 1), weights.segment(j, 1)}, 4,
                                     {j, sequences})
                      .loss;
    CHECK(std::abs(of_whole - of_all) < 1e-13);
    CHECK(test::largest_difference(numbers_of(p.network, whole.gradient()),
                                   numbers_of(p.network, alone.gradient())) < 1e-14);
}

/// A loss whose targets can't be made without those that they refer to.
struct OnReferredLabels {
    struct Targets {
        const Eigen::VectorXi& labels;

        [[nodiscard]] Index samples() const { return labels.size(); }
        void take(const Targets&, Index, Index) { FAIL("nobody can have made a part"); }
    };
    double value_and_gradient(const ConstMatrixRef<double>& output, const Targets& targets,
                              MatrixRef<double> gradient) const {
        return SoftmaxCrossEntropy<double>{}.value_and_gradient(output, targets.labels, gradient);
    }
};
static_assert(!SliceableTargets<OnReferredLabels::Targets>);

TEST_CASE("TrainingStep: targets that can't be made without arguments stay whole",
          "[training_step]") {
    const test::TokenProblem p{sequences};
    Step slices{p.network, {}, {.seed = 9}};
    TrainingStep whole{p.network, OnReferredLabels{}, {.seed = 9}};
    const double of_slices = slices.differentiate(p.network, p.x, p.labels, 4).loss;
    const double of_whole = whole.differentiate(p.network, p.x, {p.labels}, 4).loss;
    CHECK(std::abs(of_slices - of_whole) < 1e-13);
    CHECK(test::largest_difference(numbers_of(p.network, slices.gradient()),
                                   numbers_of(p.network, whole.gradient())) < 1e-14);
}

TEST_CASE("TrainingStep: a bad token in the last slice leaves the gradient as it was",
          "[training_step]") {
    const test::TokenProblem p{sequences};
    Matrix<double> bad = p.x;
    bad(0, sequences - 1) = 11;  // of a vocabulary of 11
    Step step{p.network, {}, {.seed = 9}};
    CHECK_THROWS_AS(step.differentiate(p.network, bad, p.labels, 0), std::invalid_argument);
    for (const double slope : numbers_of(p.network, step.gradient())) CHECK(slope == 0.0);
    (void)step.differentiate(p.network, p.x, p.labels, 1);
    const Eigen::VectorXd before = numbers_of(p.network, step.gradient());
    CHECK_THROWS_AS(step.differentiate(p.network, bad, p.labels, 2), std::invalid_argument);
    CHECK(numbers_of(p.network, step.gradient()) == before);
    const Eigen::VectorXi few = p.labels.head(sequences - 1);
    CHECK_THROWS_AS(step.differentiate(p.network, p.x, few, 2), std::invalid_argument);
    CHECK(numbers_of(p.network, step.gradient()) == before);
}

}  // namespace
