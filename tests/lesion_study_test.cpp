// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/lesion_study.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"

namespace {

using namespace stochastic_depth;

/// x + slope x.
StochasticDepth<Residual<Linear<double>>> scaling_layer(double slope, double p) {
    return StochasticDepth{
        Residual{Linear<double>{Eigen::MatrixXd::Constant(1, 1, slope), Eigen::VectorXd::Zero(1)}},
        SurvivalProbability{p}};
}

const auto sum = [](const Matrix<double>& outputs) { return outputs.sum(); };

TEST_CASE("lesion_study: four factors by hand", "[lesion_study]") {
    // Factors 2, 5, 1, 3 of x = 1 and x = 10: the whole product is 30 for each unit of x.
    const Stack network{std::vector{scaling_layer(1, 0.5), scaling_layer(4, 0.9),
                                    scaling_layer(0, 1.0), scaling_layer(2, 0.1)}};
    const Matrix<double> x{{1, 10}};
    const LesionStudy study = lesion_study(network, x, sum);
    CHECK(study.full_score == 330);
    CHECK(test::same_bits(study.score_without, Eigen::VectorXd{{165, 66, 330, 110}}));
    CHECK(study.ranking == std::vector<Index>{1, 3, 0, 2});
    CHECK(test::same_bits(study.curve, Eigen::VectorXd{{11, 55, 165, 330, 330}}));

    const LesionStudy supplied = lesion_study(network, x, sum, {.ranking = {2, 0, 3, 1}});
    CHECK(supplied.ranking == std::vector<Index>{2, 0, 3, 1});
    CHECK(test::same_bits(supplied.score_without, study.score_without));
    CHECK(test::same_bits(supplied.curve, Eigen::VectorXd{{11, 11, 22, 66, 330}}));

    // The score may be any number but NaN; the lower it gets without a layer, the better the layer.
    const double infinity = std::numeric_limits<double>::infinity();
    const auto small_or_nothing = [&](const Matrix<double>& outputs) {
        return outputs.sum() > 100 ? -infinity : -outputs.sum();
    };
    CHECK(lesion_study(network, x, small_or_nothing).ranking == std::vector<Index>{0, 2, 3, 1});
}

TEST_CASE("lesion_study: equal scores rank the earlier layer first", "[lesion_study]") {
    const Stack network{std::vector(6, scaling_layer(1, 0.5))};
    const LesionStudy study = lesion_study(network, Matrix<double>{{1}}, sum);
    CHECK(study.ranking == std::vector<Index>{0, 1, 2, 3, 4, 5});
    CHECK(test::same_bits(study.curve, Eigen::VectorXd{{1, 2, 4, 8, 16, 32, 64}}));
}

TEST_CASE("lesion_study: layers inside a removed one go with it", "[lesion_study]") {
    const StochasticDepth outer{
        Sequential{scaling_layer(1, 0.5),
                   Linear<double>{Matrix<double>{{3}}, Eigen::VectorXd::Zero(1)}},
        SurvivalProbability{0.5}};
    const LesionStudy study = lesion_study(outer, Matrix<double>{{1}}, sum);
    CHECK(study.full_score == 6);
    CHECK(test::same_bits(study.score_without, Eigen::VectorXd{{1, 3}}));
    CHECK(test::same_bits(study.curve, Eigen::VectorXd{{1, 3, 6}}));
    const LesionStudy inner_first =
        lesion_study(outer, Matrix<double>{{1}}, sum, {.ranking = {1, 0}});
    CHECK(test::same_bits(inner_first.curve, Eigen::VectorXd{{1, 1, 6}}));
}

TEST_CASE("lesion_study: no layers, no columns", "[lesion_study]") {
    const Stack nothing{std::vector<StochasticDepth<Residual<Linear<double>>>>{}};
    int calls = 0;
    const auto counted = [&](const Matrix<double>& outputs) {
        ++calls;
        return outputs.sum();
    };
    const LesionStudy study = lesion_study(nothing, Matrix<double>{{2}}, counted);
    CHECK(study.full_score == 2);
    CHECK(study.score_without.size() == 0);
    CHECK(study.ranking.empty());
    CHECK(test::same_bits(study.curve, Eigen::VectorXd{{2}}));
    CHECK(calls == 1);

    calls = 0;
    const Stack two{std::vector(2, scaling_layer(1, 0.5))};
    CHECK(lesion_study(two, Matrix<double>(1, 0), counted).full_score == 0);
    CHECK(calls == 4);
}

TEST_CASE("lesion_study: the scores are those of masked forward passes, with any number of threads",
          "[lesion_study]") {
    Philox random{61};
    using Branch = plain::OneLinear<float, ReLU<float>>;
    const auto network = plain::to_library<Branch>(
        plain::random_network(random, {7, 6, 1, plain::Activation::relu, true}));
    const Matrix<float> x = test::random_matrix<float>(random, 3, 1000);
    Eigen::VectorXi labels(1000);
    for (Index j = 0; j < 1000; ++j) labels(j) = uniform<float>(random) < 0.5f ? 0 : 1;
    const auto accuracy = [&](const Matrix<float>& outputs) {
        return 1 - error_rate(outputs, labels);
    };
    const LesionStudy study = lesion_study(network, x, accuracy);
    const auto score = [&](const SurvivalMask& mask) { return accuracy(network(x, mask)); };
    CHECK(study.full_score == score(SurvivalMask::all(7)));
    SurvivalMask kept = SurvivalMask::none(7);
    for (Index k = 0; k < 7; ++k) {
        SurvivalMask without = SurvivalMask::all(7);
        without.skip(k);
        CHECK(study.score_without(k) == score(without));
        CHECK(study.curve(k) == score(kept));
        const auto at = static_cast<std::size_t>(k);
        kept.keep(study.ranking[at]);
        if (k > 0)
            CHECK(study.score_without(study.ranking[at - 1]) <=
                  study.score_without(study.ranking[at]));
    }
    CHECK(study.curve(7) == study.full_score);

    const auto all_bits = [](const Matrix<float>& outputs) {
        double value = 0;
        for (Index i = 0; i < outputs.size(); ++i)
            value += static_cast<double>(outputs.data()[i]) * std::sin(static_cast<double>(i));
        return value;
    };
    const LesionStudy one = lesion_study(network, x, all_bits);
    for (const unsigned threads : {2u, 3u, 8u}) {
        const LesionStudy many = lesion_study(network, x, all_bits, {.threads = threads});
        CHECK(test::same_bits(many.score_without, one.score_without));
        CHECK(test::same_bits(many.curve, one.curve));
        CHECK(many.ranking == one.ranking);
    }
}

}  // namespace
