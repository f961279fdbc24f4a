// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/binary_cross_entropy.hpp>

#include <cmath>
#include <limits>
#include <string>

#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/loss_slopes.hpp"
#include "support/refusal.hpp"

namespace sd = stochastic_depth;
using sd::test::loss_slope_error;
using sd::test::refusal;

namespace {

using Soft = sd::BinaryCrossEntropy<double, sd::Matrix<double>>;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// -log sigmoid(z), in long double.
long double minus_log_sigmoid(double z) {
    return std::log1p(std::exp(-static_cast<long double>(z)));
}

}  // namespace

TEST_CASE("BinaryCrossEntropy: the definition, with a weight of the positive and any target",
          "[binary_cross_entropy]") {
    std::srand(5);
    const Eigen::MatrixXd z = 8.0 * Eigen::MatrixXd::Random(3, 7);
    const Eigen::MatrixXd t = (Eigen::MatrixXd::Random(3, 7).array() + 1.0) / 2.0;
    for (const double weight : {1.0, 0.25, 30.0}) {
        const Soft loss{{.positive_weight = weight}};
        long double expected = 0.0L;
        for (sd::Index k = 0; k < z.size(); ++k)
            expected += static_cast<long double>(weight * t(k)) * minus_log_sigmoid(z(k)) +
                        static_cast<long double>(1.0 - t(k)) * minus_log_sigmoid(-z(k));
        expected /= 21.0L;
        Eigen::MatrixXd gradient(3, 7);
        CHECK(std::abs(loss.value(z, t) / static_cast<double>(expected) - 1.0) <= 1e-14);
        CHECK(loss.value_and_gradient(z, t, gradient) == loss.value(z, t));
        CHECK(loss_slope_error(loss, z, t) <= 1e-11);
    }
}

TEST_CASE("BinaryCrossEntropy: labels of one logit are those of two logits, 0 and z",
          "[binary_cross_entropy]") {
    std::srand(6);
    const Eigen::MatrixXd z = 5.0 * Eigen::MatrixXd::Random(1, 20);
    const Eigen::VectorXi labels = (Eigen::VectorXd::Random(20).array() > 0).cast<int>();
    Eigen::MatrixXd two(2, 20), of_two(2, 20), gradient(1, 20);
    two << Eigen::MatrixXd::Zero(1, 20), z;
    const double expected =
        sd::SoftmaxCrossEntropy<double>{}.value_and_gradient(two, labels, of_two);
    const sd::BinaryCrossEntropy<double> loss;
    CHECK(std::abs(loss.value_and_gradient(z, labels, gradient) - expected) <= 1e-15);
    CHECK((gradient - of_two.row(1)).cwiseAbs().maxCoeff() <= 1e-16);
    // The same with labels as a matrix.
    const Eigen::MatrixXd numbers = labels.cast<double>().transpose();
    CHECK(Soft{}.value(z, numbers) == loss.value(z, labels));
    // A weight of the positive is a weight of class 1.
    const sd::SoftmaxCrossEntropy<double> weighted{{.class_weights = Eigen::Vector2d(1, 7)}};
    CHECK(std::abs(sd::BinaryCrossEntropy<double>{{.positive_weight = 7}}.value(z, labels) -
                   weighted.value(two, labels)) <= 1e-14);
}

TEST_CASE("BinaryCrossEntropy: extreme logits neither overflow nor lose digits",
          "[binary_cross_entropy]") {
    const sd::BinaryCrossEntropy<double> loss;
    Eigen::MatrixXd z(1, 1), gradient(1, 1);
    const auto at = [&](double logit, int label) {
        z(0, 0) = logit;
        return loss.value_and_gradient(z, Eigen::VectorXi::Constant(1, label), gradient);
    };
    for (const double lead : {20.0, 100.0, 700.0}) {
        const double tiny = std::exp(-lead);
        CHECK(std::abs(at(lead, 1) / std::log1p(tiny) - 1.0) <= 1e-15);
        CHECK(std::abs(gradient(0, 0) * (1.0 + tiny) / -tiny - 1.0) <= 1e-15);
        CHECK(at(-lead, 0) == at(lead, 1));
        CHECK(std::abs(at(lead, 0) / lead - 1.0) <= 1e-9);
        CHECK(std::abs(gradient(0, 0) - 1.0) <= 1e-8);
    }
    CHECK(at(1e308, 0) == 1e308);
    CHECK(at(1e308, 1) == 0.0);
    CHECK(gradient(0, 0) == 0.0);
    CHECK(at(0.0, 1) == std::log(2.0));
    CHECK(gradient(0, 0) == -0.5);
    CHECK(std::isnan(at(not_a_number, 1)));
    CHECK(std::isnan(gradient(0, 0)));
    CHECK(loss.value(Eigen::MatrixXd(1, 0), Eigen::VectorXi(0)) == 0.0);
}

TEST_CASE("BinaryCrossEntropy: bad arguments are refused, and nothing is written",
          "[binary_cross_entropy]") {
    const sd::BinaryCrossEntropy<double> loss;
    Eigen::MatrixXd gradient = Eigen::MatrixXd::Constant(1, 3, 7.0);
    const Eigen::MatrixXd z = Eigen::MatrixXd::Zero(1, 3), two = Eigen::MatrixXd::Zero(2, 3);
    const auto refused = [&](const Eigen::MatrixXd& logits, const Eigen::VectorXi& labels) {
        return refusal([&] { (void)loss.value_and_gradient(logits, labels, gradient); });
    };
    const Eigen::Vector3i labels{0, 1, 0};
    for (const double weight : {0.0, -1.0, not_a_number, inf})
        CHECK(
            refusal([&] {
                (void)Soft{{.positive_weight = weight}};
            }).starts_with("BinaryCrossEntropy: positive_weight must be finite and above 0, got"));
    CHECK(refused(two, labels) == "BinaryCrossEntropy: labels are for 1 output, got 2 outputs");
    CHECK(refused(z, Eigen::Vector3i{0, 1, 2}) ==
          "BinaryCrossEntropy: labels must lie in [0, 2), got 2 for sample 2");
    CHECK(refused(z, labels.head(2)) ==
          "BinaryCrossEntropy: labels must have one entry for each of 3 samples, got 2");
    CHECK(refusal([&] { loss.check_targets(2, labels); }) ==
          "BinaryCrossEntropy: labels are for 1 output, got 2 outputs");
    CHECK(refusal([&] { (void)loss.value_and_gradient(z, labels, gradient.leftCols(2)); }) ==
          "BinaryCrossEntropy: gradient must be 1 x 3 like the output, got 1 x 2");
    const std::string range = "BinaryCrossEntropy: targets must lie in [0, 1], got ";
    CHECK(refusal([&] { Soft{}.check_targets(1, Eigen::RowVector3d(0, 1, -0.5)); }) ==
          range + "-0.5 in row 0 of sample 2");
    CHECK(refusal([&] { Soft{}.check_targets(1, Eigen::RowVector3d(0, not_a_number, 1)); }) ==
          range + "nan in row 0 of sample 1");
    CHECK(refusal([&] { Soft{}.check_targets(2, z); }) ==
          "BinaryCrossEntropy: targets must be 2 x 3 like the output, got 1 x 3");
    CHECK((gradient.array() == 7.0).all());
}
