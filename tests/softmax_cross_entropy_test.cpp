// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/loss_slopes.hpp"
#include "support/refusal.hpp"

namespace sd = stochastic_depth;
using Catch::Matchers::Equals;
using sd::Index;
using sd::test::loss_slope_error;
using sd::test::refusal;

namespace {

struct Problem {
    Eigen::MatrixXd logits;
    Eigen::VectorXi labels;
};

Problem random_problem(Index classes, Index batch, double spread, unsigned seed) {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<double> logit(-spread, spread);
    std::uniform_int_distribution<int> label(0, static_cast<int>(classes) - 1);
    Problem problem{Eigen::MatrixXd(classes, batch), Eigen::VectorXi(batch)};
    for (Index j = 0; j < batch; ++j) {
        problem.labels(j) = label(engine);
        for (Index k = 0; k < classes; ++k) problem.logits(k, j) = logit(engine);
    }
    return problem;
}

/// The definition in long double, written the other way round: log sum_k exp(z_k - z_label).
long double reference_loss(const Problem& problem) {
    long double total = 0.0L;
    for (Index j = 0; j < problem.logits.cols(); ++j) {
        long double others = 0.0L;
        for (Index k = 0; k < problem.logits.rows(); ++k)
            if (k != problem.labels(j))
                others += std::exp(static_cast<long double>(problem.logits(k, j)) -
                                   static_cast<long double>(problem.logits(problem.labels(j), j)));
        total += std::log1p(others);
    }
    return total / static_cast<long double>(problem.logits.cols());
}

long double reference_gradient(const Problem& problem, Index k, Index j) {
    long double others = 0.0L;  // sum over i != k of exp(z_i - z_k)
    for (Index i = 0; i < problem.logits.rows(); ++i)
        if (i != k)
            others += std::exp(static_cast<long double>(problem.logits(i, j)) -
                               static_cast<long double>(problem.logits(k, j)));
    const long double batch = static_cast<long double>(problem.logits.cols());
    if (k == problem.labels(j)) return -others / (1.0L + others) / batch;
    return 1.0L / (1.0L + others) / batch;
}

double relative_error(double value, long double expected) {
    return static_cast<double>(std::abs(static_cast<long double>(value) - expected) /
                               std::abs(expected));
}

}  // namespace

TEST_CASE("SoftmaxCrossEntropy: known answers", "[softmax_cross_entropy]") {
    const sd::SoftmaxCrossEntropy<double> loss;
    // Equal logits: log(classes), whatever their height.
    for (const double height : {0.0, 3.5, -1e4, 1e300}) {
        const Eigen::MatrixXd equal = Eigen::MatrixXd::Constant(7, 3, height);
        CHECK(std::abs(loss.value(equal, Eigen::Vector3i(0, 3, 6)) - std::log(7.0)) <= 1e-15);
    }
    // softmax(log 1, log 2, log 5) = (1, 2, 5) / 8.
    Eigen::MatrixXd z(3, 2);
    z << std::log(1.0), std::log(1.0), std::log(2.0), std::log(2.0), std::log(5.0), std::log(5.0);
    Eigen::MatrixXd gradient(3, 2);
    const double value = loss.value_and_gradient(z, Eigen::Vector2i(1, 2), gradient);
    CHECK(std::abs(value - 0.5 * (std::log(4.0) + std::log(8.0 / 5.0))) <= 1e-15);
    Eigen::MatrixXd expected(3, 2);
    expected << 1, 1, -6, 2, 5, -3;
    CHECK((gradient - expected / 16.0).cwiseAbs().maxCoeff() <= 1e-16);
    // One class is always right.
    Eigen::MatrixXd single(1, 1);
    CHECK(loss.value_and_gradient(Eigen::MatrixXd::Constant(1, 1, 5.0), Eigen::VectorXi::Zero(1),
                                  single) == 0.0);
    CHECK(single(0, 0) == 0.0);
}

TEST_CASE("SoftmaxCrossEntropy: value and gradient agree with long double in every entry",
          "[softmax_cross_entropy]") {
    const sd::SoftmaxCrossEntropy<double> loss;
    for (const double spread : {1e-3, 1.0, 30.0, 300.0})
        for (const Index classes : {2, 3, 10, 101}) {
            const Problem problem = random_problem(classes, 13, spread, 7);
            Eigen::MatrixXd gradient(classes, 13);
            const double value = loss.value_and_gradient(problem.logits, problem.labels, gradient);
            CHECK(relative_error(value, reference_loss(problem)) <= 1e-14);
            double worst = 0.0;
            for (Index j = 0; j < 13; ++j)
                for (Index k = 0; k < classes; ++k)
                    worst = std::max(
                        worst, relative_error(gradient(k, j), reference_gradient(problem, k, j)));
            // exp turns the rounding of z - max, at most 600, into a relative error of 600 * 2^-53.
            CHECK(worst <= 1e-13);
            CHECK(gradient.colwise().sum().cwiseAbs().maxCoeff() <= 1e-15);
        }
}

TEST_CASE("SoftmaxCrossEntropy: a loss near 0 and its gradient keep their digits",
          "[softmax_cross_entropy]") {
    const sd::SoftmaxCrossEntropy<double> loss;
    for (const double lead : {20.0, 100.0, 700.0}) {
        Eigen::MatrixXd z(2, 1);
        z << lead, 0.0;
        Eigen::MatrixXd gradient(2, 1);
        const double value = loss.value_and_gradient(z, Eigen::VectorXi::Zero(1), gradient);
        const double tiny = std::exp(-lead);  // log1p(t) = t - t^2/2 + ..., softmax - 1 = -t + ...
        CHECK(std::abs(value / std::log1p(tiny) - 1.0) <= 1e-15);
        CHECK(std::abs(gradient(0, 0) * (1.0 + tiny) / -tiny - 1.0) <= 1e-15);
        CHECK(gradient(1, 0) == -gradient(0, 0));
    }
}

TEST_CASE("SoftmaxCrossEntropy: extreme logits neither overflow nor lose the answer",
          "[softmax_cross_entropy]") {
    const auto check = [](auto scalar) {
        using Scalar = decltype(scalar);
        const sd::SoftmaxCrossEntropy<Scalar> loss;
        sd::Matrix<Scalar> z(3, 1), gradient(3, 1);
        z << Scalar(1e4), Scalar(-1e4), Scalar(0);
        const auto at = [&](int label) {
            return loss.value_and_gradient(z, Eigen::VectorXi::Constant(1, label), gradient);
        };
        CHECK(at(0) == 0.0);
        CHECK((gradient.array() == Scalar(0)).all());
        CHECK(at(1) == 2e4);
        CHECK(gradient == sd::Vector<Scalar>{{Scalar(1), Scalar(-1), Scalar(0)}});
        CHECK(at(2) == 1e4);
        CHECK(gradient == sd::Vector<Scalar>{{Scalar(1), Scalar(0), Scalar(-1)}});
        // The widest logits that there are: the difference of floats fits into double.
        z << std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(), Scalar(0);
        CHECK(at(1) == 2.0 * static_cast<double>(std::numeric_limits<float>::max()));
        CHECK(gradient.allFinite());
        z(1) = -std::numeric_limits<Scalar>::infinity();  // probability 0
        CHECK(at(1) == std::numeric_limits<double>::infinity());
        CHECK(at(0) == 0.0);
        CHECK(gradient(1, 0) == Scalar(0));
    };
    check(double{});
    check(float{});
}

TEST_CASE("SoftmaxCrossEntropy: a NaN logit shows in the loss and in its column alone",
          "[softmax_cross_entropy]") {
    const sd::SoftmaxCrossEntropy<double> loss;
    for (Index k = 0; k < 3; ++k) {
        Eigen::MatrixXd z = Eigen::MatrixXd::Random(3, 2);
        z(k, 1) = std::numeric_limits<double>::quiet_NaN();
        for (int label = 0; label < 3; ++label) {
            Eigen::MatrixXd gradient(3, 2);
            const double value =
                loss.value_and_gradient(z, Eigen::Vector2i(label, label), gradient);
            CHECK(std::isnan(value));
            CHECK(gradient.col(0).allFinite());
            CHECK(gradient.col(1).array().isNaN().all());
        }
    }
}

TEST_CASE("SoftmaxCrossEntropy: the gradient is the derivative of the value",
          "[softmax_cross_entropy]") {
    const sd::SoftmaxCrossEntropy<double> loss;
    const Problem problem = random_problem(6, 5, 4.0, 11);
    CHECK(loss_slope_error(loss, problem.logits, problem.labels) <= 3e-12);
}

TEST_CASE("SoftmaxCrossEntropy: value and value_and_gradient return the same bits",
          "[softmax_cross_entropy]") {
    const Problem problem = random_problem(10, 31, 9.0, 3);
    const sd::SoftmaxCrossEntropy<double> loss;
    Eigen::MatrixXd gradient(10, 31), again(10, 31);
    const double value = loss.value_and_gradient(problem.logits, problem.labels, gradient);
    CHECK(value == loss.value(problem.logits, problem.labels));
    CHECK(value == loss.value_and_gradient(problem.logits, problem.labels, again));
    CHECK(gradient == again);
    // In place: the gradient takes the memory of the logits.
    Eigen::MatrixXd in_place = problem.logits;
    CHECK(loss.value_and_gradient(in_place, problem.labels, in_place) == value);
    CHECK(in_place == gradient);
    // Column ranges, expressions and maps are read as they are.
    Eigen::MatrixXd part(10, 7);
    const double of_part = loss.value_and_gradient(problem.logits.middleCols(5, 7),
                                                   problem.labels.segment(5, 7), part);
    CHECK(of_part == loss.value(Eigen::MatrixXd(problem.logits.middleCols(5, 7)),
                                Eigen::VectorXi(problem.labels.segment(5, 7))));
    CHECK(std::abs(part(3, 2) * 7.0 - gradient(3, 7) * 31.0) <= 1e-15);
    CHECK(std::abs(loss.value(2.0 * problem.logits - problem.logits, problem.labels) - value) <=
          1e-14);
}

TEST_CASE("SoftmaxCrossEntropy: float logits lose only the last rounding",
          "[softmax_cross_entropy]") {
    const Problem problem = random_problem(10, 64, 8.0, 5);
    const Eigen::MatrixXf logits = problem.logits.cast<float>();
    const Problem rounded{logits.cast<double>(), problem.labels};
    Eigen::MatrixXf gradient(10, 64);
    Eigen::MatrixXd exact(10, 64);
    const double value =
        sd::SoftmaxCrossEntropy<float>{}.value_and_gradient(logits, problem.labels, gradient);
    const double expected =
        sd::SoftmaxCrossEntropy<double>{}.value_and_gradient(rounded.logits, problem.labels, exact);
    CHECK(value == expected);
    const Eigen::ArrayXXd error = (gradient.cast<double>() - exact).array() / exact.array();
    CHECK(error.abs().maxCoeff() <= 1.2e-7);  // two roundings of 2^-24
}

TEST_CASE("SoftmaxCrossEntropy: class weights and label smoothing are those of the definition",
          "[softmax_cross_entropy]") {
    const Problem problem = random_problem(5, 9, 6.0, 13);
    const Eigen::VectorXd weights{{0.5, 2.0, 0.0, 1.0, 3.5}};
    for (const Eigen::VectorXd& given : {Eigen::VectorXd{}, weights})
        for (const double smoothing : {0.0, 0.1, 0.9}) {
            const sd::SoftmaxCrossEntropy<double> loss{
                {.class_weights = given, .label_smoothing = smoothing}};
            long double expected = 0.0L;
            for (Index j = 0; j < 9; ++j)
                for (Index k = 0; k < 5; ++k) {
                    const Problem one{problem.logits.col(j),
                                      Eigen::VectorXi::Constant(1, static_cast<int>(k))};
                    const double w = given.size() > 0 ? given(k) : 1.0;
                    const double q =
                        (k == problem.labels(j) ? 1.0 - smoothing : 0.0) + smoothing / 5.0;
                    expected += static_cast<long double>(w * q) * reference_loss(one) / 9.0L;
                }
            CHECK(relative_error(loss.value(problem.logits, problem.labels), expected) <= 1e-14);
            Eigen::MatrixXd gradient(5, 9), in_place = problem.logits;
            CHECK(loss.value_and_gradient(problem.logits, problem.labels, gradient) ==
                  loss.value(problem.logits, problem.labels));
            CHECK(loss_slope_error(loss, problem.logits, problem.labels) <= 1e-11);
            // A common shift of a sample's logits changes nothing.
            CHECK(gradient.colwise().sum().cwiseAbs().maxCoeff() <= 1e-15);
            CHECK(loss.value_and_gradient(in_place, problem.labels, in_place) ==
                  loss.value(problem.logits, problem.labels));
            CHECK(in_place == gradient);
        }
    // At the smoothed distribution itself the gradient is 0.
    const sd::SoftmaxCrossEntropy<double> smooth{{.label_smoothing = 0.4}};
    const Eigen::Vector2d z{std::log(0.8), std::log(0.2)};
    Eigen::MatrixXd gradient(2, 1);
    (void)smooth.value_and_gradient(z, Eigen::VectorXi::Zero(1), gradient);
    CHECK(gradient.cwiseAbs().maxCoeff() <= 1e-16);
}

TEST_CASE("SoftmaxCrossEntropy: without options, and with those that say nothing, the same bits",
          "[softmax_cross_entropy]") {
    const Problem problem = random_problem(7, 12, 9.0, 17);
    const sd::SoftmaxCrossEntropy<double> plain;
    const sd::SoftmaxCrossEntropy<double> ones{{.class_weights = Eigen::VectorXd::Ones(7)}};
    Eigen::MatrixXd a(7, 12), b(7, 12);
    CHECK(plain.value_and_gradient(problem.logits, problem.labels, a) ==
          ones.value_and_gradient(problem.logits, problem.labels, b));
    CHECK(a == b);
}

TEST_CASE("SoftmaxCrossEntropy: an empty batch has loss 0", "[softmax_cross_entropy]") {
    Eigen::MatrixXd gradient(4, 0);
    const sd::SoftmaxCrossEntropy<double> loss;
    CHECK(loss.value(Eigen::MatrixXd(4, 0), Eigen::VectorXi(0)) == 0.0);
    CHECK(loss.value_and_gradient(Eigen::MatrixXd(4, 0), Eigen::VectorXi(0), gradient) == 0.0);
}

TEST_CASE("SoftmaxCrossEntropy: every bad argument is refused by class, argument and value",
          "[softmax_cross_entropy]") {
    const sd::SoftmaxCrossEntropy<float> loss;
    const Eigen::MatrixXf z = Eigen::MatrixXf::Zero(4, 3);
    Eigen::MatrixXf gradient = Eigen::MatrixXf::Constant(4, 3, 7.0F);
    struct Case {
        const char* message;
        std::vector<int> labels;
    };
    for (const Case& bad : std::vector<Case>{
             {"SoftmaxCrossEntropy: labels must lie in [0, 4), got 4 for sample 2", {0, 3, 4}},
             {"SoftmaxCrossEntropy: labels must lie in [0, 4), got -1 for sample 0", {-1, 0, 0}},
             {"SoftmaxCrossEntropy: labels must have one entry for each of 3 samples, got 2",
              {0, 0}},
             {"SoftmaxCrossEntropy: labels must have one entry for each of 3 samples, got 4",
              {0, 0, 0, 0}},
             {"SoftmaxCrossEntropy: labels must have one entry for each of 3 samples, got 0",
              {}}}) {
        const Eigen::VectorXi labels = Eigen::Map<const Eigen::VectorXi>(
            bad.labels.data(), static_cast<Index>(bad.labels.size()));
        CHECK_THAT(refusal([&] { (void)loss.value(z, labels); }), Equals(bad.message));
        CHECK_THAT(refusal([&] { (void)loss.value_and_gradient(z, labels, gradient); }),
                   Equals(bad.message));
    }
    const Eigen::VectorXi labels = Eigen::VectorXi::Zero(3);
    CHECK_THAT(refusal([&] { (void)loss.value_and_gradient(z, labels, gradient.topRows(3)); }),
               Equals("SoftmaxCrossEntropy: gradient must be 4 x 3 like the logits, got 3 x 3"));
    CHECK_THAT(refusal([&] { (void)loss.value_and_gradient(z, labels, gradient.leftCols(2)); }),
               Equals("SoftmaxCrossEntropy: gradient must be 4 x 3 like the logits, got 4 x 2"));
    CHECK_THAT(refusal([&] { (void)loss.value(Eigen::MatrixXf(0, 3), labels); }),
               Equals("SoftmaxCrossEntropy: labels must lie in [0, 0), got 0 for sample 0"));
    const auto refused = [](sd::SoftmaxCrossEntropyOptions options) {
        return refusal([&] { (void)sd::SoftmaxCrossEntropy<float>{options}; });
    };
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const std::string weights =
        "SoftmaxCrossEntropy: class_weights(1) must be finite and at least 0, got ";
    CHECK(refused({.class_weights = Eigen::Vector2d(1, -1)}) == weights + "-1");
    CHECK(refused({.class_weights = Eigen::Vector2d(1, nan)}) == weights + "nan");
    CHECK(refused({.class_weights = Eigen::Vector2d(1, HUGE_VAL)}) == weights + "inf");
    for (const double smoothing : {-0.1, 1.0, nan})
        CHECK(refused({.label_smoothing = smoothing})
                  .starts_with("SoftmaxCrossEntropy: label_smoothing must lie in [0, 1), got "));
    const sd::SoftmaxCrossEntropy<float> of_three{{.class_weights = Eigen::Vector3d(1, 1, 1)}};
    CHECK(refusal([&] { (void)of_three.value_and_gradient(z, labels, gradient); }) ==
          "SoftmaxCrossEntropy: class_weights must be one for each of 4 classes, got 3");
    CHECK(refusal([&] { of_three.check_targets(4, labels); }) ==
          "SoftmaxCrossEntropy: class_weights must be one for each of 4 classes, got 3");
    CHECK(refusal([&] { loss.check_targets(1, Eigen::Vector3i(0, 0, 1)); }) ==
          "SoftmaxCrossEntropy: labels must lie in [0, 1), got 1 for sample 2");
    CHECK((gradient.array() == 7.0F).all());
}
