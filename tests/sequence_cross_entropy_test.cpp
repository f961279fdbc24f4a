// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/sequence_cross_entropy.hpp>

#include <cmath>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("SequenceCrossEntropy: the mean over sequences of the mean over their labels",
          "[sequence_cross_entropy]") {
    Philox random{5};
    const Matrix<double> scores = 3 * random_matrix<double>(random, 12, 3);
    Eigen::MatrixXi labels(4, 3);
    labels << 0, 2, -1, 1, -1, -1, 2, -1, -1, -1, 1, -1;
    double expected = 0;
    for (Index j = 0; j < 3; ++j) {
        double sum = 0, count = 0;
        for (Index t = 0; t < 4; ++t)
            if (labels(t, j) >= 0) {
                const auto z = scores.col(j).segment(3 * t, 3).array();
                sum += std::log(z.exp().sum()) - z(labels(t, j));
                ++count;
            }
        if (count > 0) expected += sum / count / 3;
    }
    const SequenceCrossEntropy<double> loss;
    Matrix<double> gradient(12, 3);
    CHECK(std::abs(loss.value_and_gradient(scores, labels, gradient) - expected) < 1e-14);
    CHECK(loss.value(scores, labels) == loss.value_and_gradient(scores, labels, gradient));
    const double h = 1e-5;
    for (Index j = 0; j < 3; ++j)
        for (Index i = 0; i < 12; ++i) {
            Matrix<double> up = scores, down = scores;
            up(i, j) += h;
            down(i, j) -= h;
            CHECK(std::abs((loss.value(up, labels) - loss.value(down, labels)) / (2 * h) -
                           gradient(i, j)) < 1e-9);
        }
    CHECK(loss.value(Matrix<double>(12, 0), Eigen::MatrixXi(4, 0)) == 0);
    CHECK(next_tokens<double>((Matrix<double>(3, 2) << 4, 1, 5, -1, 6, -1).finished()) ==
          (Eigen::MatrixXi(3, 2) << 5, -1, 6, -1, -1, -1).finished());

    labels(0, 0) = 3;
    CHECK(refusal([&] { (void)loss.value(scores, labels); }) ==
          "SequenceCrossEntropy: labels must lie in [0, 3) or be -1, got 3 at position 0 of "
          "sample 0");
    labels(0, 0) = -2;
    CHECK(refusal([&] { (void)loss.value(scores, labels); }) ==
          "SequenceCrossEntropy: labels must lie in [0, 3) or be -1, got -2 at position 0 of "
          "sample 0");
    CHECK(refusal([&] { (void)loss.value(scores, Eigen::MatrixXi::Zero(5, 3)); }) ==
          "SequenceCrossEntropy: labels must have a number of rows that divides the 12 outputs, "
          "got 5");
    CHECK(refusal([&] { (void)loss.value(scores, Eigen::MatrixXi::Zero(0, 3)); }) ==
          "SequenceCrossEntropy: labels must have a number of rows that divides the 12 outputs, "
          "got 0");
    CHECK(refusal([&] { (void)loss.value(scores, Eigen::MatrixXi::Zero(4, 2)); }) ==
          "SequenceCrossEntropy: labels must have 3 columns, got 2");
}

}  // namespace
