// SPDX-License-Identifier: MIT
#include <limits>
#include <tuple>

#include <stochastic_depth/analysis/lesion_study.hpp>
#include <stochastic_depth/analysis/roc.hpp>
#include <stochastic_depth/expectation/certified_interval.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/predictive_uncertainty.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/probability/entropy.hpp>
#include <stochastic_depth/layers/probability/log_softmax.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/most_probable_masks.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;
using test::inf;
using test::nan;
using test::refuses;

constexpr double max = std::numeric_limits<double>::max();

/// A layer that leaves nothing.
struct Nothing {
    using Scalar = double;
    Index output_size(Index) const { return 0; }
    void forward(const ConstMatrixRef<double>&, MatrixRef<double>) const {}
};

TEST_CASE("bad input: Concatenate refuses matrices of other shapes, and writes nothing",
          "[bad_input_analysis]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs) {
        return test::linear<double>(random, inputs, outputs);
    };
    const Concatenate both{linear(3, 2), Identity<double>{}};
    const MatrixXd x = test::random_matrix<double>(random, 3, 5), wrong_x = MatrixXd::Ones(2, 5);
    MatrixXd y = MatrixXd::Constant(5, 5, 7.0);
    decltype(both)::Cache cache;
    auto gradient = both.zero_gradient();
    {
        MatrixXd recorded(5, 5);
        both.forward(x, recorded, cache);
    }
    const auto unchanged = [&] {
        const auto& of_linear = std::get<0>(gradient.layers);
        return (y.array() == 7).all() && of_linear.weights.isZero(0) && of_linear.bias.isZero(0);
    };

    refuses([&] { (void)both.output_size(2); }, {"Linear: input must have 3 rows", "got 2"},
            unchanged);
    refuses([&] { both.forward(wrong_x, y); }, {"Linear: input must have 3 rows", "got 2"},
            unchanged);
    refuses([&] { both.forward(x, y.topRows(4)); },
            {"Concatenate: output must have 5 rows", "got 4"}, unchanged);
    refuses([&] { both.forward(x, y.leftCols(3)); },
            {"Concatenate: output must have 5 columns", "got 3"}, unchanged);
    refuses([&] { both.forward(x, y.topRows(2), cache); },
            {"Concatenate: output must have 5 rows", "got 2"}, unchanged);
    refuses([&] { both.backward(x, y.topRows(4), cache, gradient, y.topRows(3)); },
            {"Concatenate: output must have 5 rows", "got 4"}, unchanged);
    refuses([&] { both.backward(x, y, cache, gradient, y.topRows(2)); },
            {"Concatenate: dx must be [3 x 5]", "got [2 x 5]"}, unchanged);
}

TEST_CASE("bad input: Entropy and LogSoftmax refuse matrices of other shapes, and write nothing",
          "[bad_input_analysis]") {
    const MatrixXd x = MatrixXd::Constant(3, 5, 0.25);
    MatrixXd y = MatrixXd::Constant(5, 5, 7.0);
    detail::NoGradient none;
    const auto unchanged = [&] { return (y.array() == 7).all(); };

    refuses([&] { Entropy<double>{}.forward(x, y); }, {"Entropy: output must have 1 rows", "got 5"},
            unchanged);
    refuses([&] { Entropy<double>{}.forward(x, y.topLeftCorner(1, 4)); },
            {"Entropy: output must have 5 columns", "got 4"}, unchanged);
    refuses([&] { Entropy<double>{}.backward(x, x, {}, none, y.topRows(3)); },
            {"Entropy: output must have 1 rows", "got 3"}, unchanged);
    refuses([&] { LogSoftmax<double>{}.forward(x, y); },
            {"LogSoftmax: output must have 3 rows", "got 5"}, unchanged);
    refuses([&] { LogSoftmax<double>{}.backward(x, x, {}, none, y); },
            {"LogSoftmax: dx must be [3 x 5]", "got [5 x 5]"}, unchanged);
}

TEST_CASE("bad input: predictive_uncertainty refuses inputs, and networks without outputs",
          "[bad_input_analysis]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs) {
        return test::linear<double>(random, inputs, outputs);
    };
    const StochasticDepth block{Residual{linear(3, 3)}, SurvivalProbability{0.5}};
    const Sequential network{block, block, linear(3, 2)};
    const MatrixXd x = test::random_matrix<double>(random, 3, 5), wrong_x = MatrixXd::Ones(2, 5);

    refuses([&] { (void)predictive_uncertainty(ExactExpectation{}, network, wrong_x); },
            {"Linear: input must have 3 rows", "got 2"});
    refuses(
        [&] {
            (void)predictive_uncertainty(ExactExpectation{}, Sequential{block, Nothing{}}, x);
        },
        {"predictive_uncertainty: network", "at least 1 output", "got 0"});
}

TEST_CASE("bad input: area_under_roc refuses scores and classes that do not fit",
          "[bad_input_analysis]") {
    const VectorXd scores{{0.1, 0.4, 0.4}};
    const auto roc = [&](const VectorXd& s, const VectorXi& positives) {
        return [=] { (void)area_under_roc(s, positives); };
    };

    refuses(roc(scores, VectorXi{{1, 0}}),
            {"area_under_roc: positives", "each of 3 scores", "got 2"});
    refuses(roc(scores, VectorXi{{1, 0, 1, 0}}),
            {"area_under_roc: positives", "each of 3", "got 4"});
    refuses(roc(scores, VectorXi{{1, 0, 2}}),
            {"area_under_roc: positives", "0 or 1", "got 2 for sample 2"});
    refuses(roc(scores, VectorXi{{-1, 0, 1}}),
            {"area_under_roc: positives", "got -1 for sample 0"});
    refuses(roc(VectorXd{{0.5, nan, 1}}, VectorXi{{1, 0, 1}}),
            {"area_under_roc: scores", "numbers", "got nan for sample 1"});
}

TEST_CASE("bad input: MostProbableMasks refuses what is no probability", "[bad_input_analysis]") {
    const auto masks = [](double p_0, double p_1) {
        return [=] { (void)MostProbableMasks{VectorXd{{p_0, p_1}}}; };
    };

    refuses(masks(0.5, 0), {"MostProbableMasks: survival probability p(1)", "(0, 1]", "got 0"});
    refuses(masks(1.5, 0.5), {"MostProbableMasks: survival probability p(0)", "(0, 1]", "got 1.5"});
    refuses(masks(0.5, nan), {"MostProbableMasks: survival probability p(1)", "(0, 1]", "got nan"});
    refuses(masks(-0.5, 1), {"MostProbableMasks: survival probability p(0)", "(0, 1]", "got -0.5"});
}

TEST_CASE("bad input: CertifiedInterval refuses bounds, shares, threads and inputs",
          "[bad_input_analysis]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs) {
        return test::linear<double>(random, inputs, outputs);
    };
    const StochasticDepth block{Residual{linear(3, 3)}, SurvivalProbability{0.5}};
    const Sequential network{block, block, linear(3, 2)};
    const MatrixXd x = test::random_matrix<double>(random, 3, 5), wrong_x = MatrixXd::Ones(2, 5);
    const auto interval = [](CertifiedIntervalOptions options) {
        return [=] { (void)CertifiedInterval{options}; };
    };

    refuses(interval({.lowest = nan}), {"CertifiedInterval: lowest", "finite", "got nan"});
    refuses(interval({.lowest = -inf}), {"CertifiedInterval: lowest", "finite", "got -inf"});
    refuses(interval({.highest = nan}), {"CertifiedInterval: highest", "above lowest", "got nan"});
    refuses(interval({.highest = inf}), {"CertifiedInterval: highest", "finite", "got inf"});
    refuses(interval({.lowest = 2, .highest = 1}),
            {"CertifiedInterval: highest", "which is 2", "got 1"});
    refuses(interval({.lowest = 1, .highest = 1}),
            {"CertifiedInterval: highest", "which is 1", "got 1"});
    refuses(interval({.lowest = -max, .highest = max}), {"CertifiedInterval: highest", "got 1.79"});
    refuses(interval({.uncovered = 1}), {"CertifiedInterval: uncovered", "[0, 1)", "got 1"});
    refuses(interval({.uncovered = -1e-9}),
            {"CertifiedInterval: uncovered", "[0, 1)", "got -1e-09"});
    refuses(interval({.uncovered = nan}), {"CertifiedInterval: uncovered", "[0, 1)", "got nan"});
    refuses(interval({.threads = 0}), {"CertifiedInterval: threads", "at least 1", "got 0"});
    refuses([&] { (void)CertifiedInterval{}(network, wrong_x); },
            {"Linear: input must have 3 rows", "got 2"});
    refuses([&] { (void)CertifiedInterval{{.lowest = 100, .highest = 200}}(network, x); },
            {"CertifiedInterval: outputs", "[100, 200]", "for output 0 of sample 0"});
}

TEST_CASE("bad input: lesion_study refuses threads, rankings, inputs and scores",
          "[bad_input_analysis]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs) {
        return test::linear<double>(random, inputs, outputs);
    };
    const StochasticDepth block{Residual{linear(3, 3)}, SurvivalProbability{0.5}};
    const Sequential network{block, block, linear(3, 2)};
    const MatrixXd x = test::random_matrix<double>(random, 3, 5), wrong_x = MatrixXd::Ones(2, 5);
    const auto sum = [](const MatrixXd& outputs) { return outputs.sum(); };
    const auto study = [&](LesionStudyOptions options) {
        return [=, &network, &x] { (void)lesion_study(network, x, sum, options); };
    };

    refuses(study({.threads = 0}), {"lesion_study: threads", "at least 1", "got 0"});
    refuses(study({.ranking = {0}}), {"lesion_study: ranking", "each of 2 layers", "got 1"});
    refuses(study({.ranking = {0, 1, 0}}), {"lesion_study: ranking", "each of 2 layers", "got 3"});
    refuses(study({.ranking = {0, 2}}), {"lesion_study: ranking", "[0, 2)", "got 2"});
    refuses(study({.ranking = {-1, 0}}), {"lesion_study: ranking", "[0, 2)", "got -1"});
    refuses(study({.ranking = {1, 1}}), {"lesion_study: ranking", "once", "got 1 twice"});
    refuses([&] { (void)lesion_study(network, wrong_x, sum); },
            {"Linear: input must have 3 rows", "got 2"});
    refuses([&] { (void)lesion_study(network, x, [](const MatrixXd&) { return nan; }); },
            {"lesion_study: score", "number", "got nan"});
}

}  // namespace
