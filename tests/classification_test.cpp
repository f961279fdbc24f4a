// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace sd = stochastic_depth;
using Catch::Matchers::Equals;
using sd::Index;
using sd::test::refusal;

namespace {

/// Four samples of three classes; the most probable are 0, 1, 2 and, of a tie, 1.
Eigen::MatrixXd four() {
    Eigen::MatrixXd p(3, 4);
    p << 0.75, 0.125, 0.25, 0.25,   //
        0.125, 0.625, 0.25, 0.375,  //
        0.125, 0.25, 0.5, 0.375;
    return p;
}

}  // namespace

TEST_CASE("error_rate: share of wrong answers, the first of equal classes answering",
          "[classification]") {
    CHECK(sd::error_rate(four(), Eigen::Vector4i(0, 1, 2, 1)) == 0.0);
    CHECK(sd::error_rate(four(), Eigen::Vector4i(0, 1, 2, 2)) == 0.25);
    CHECK(sd::error_rate(four(), Eigen::Vector4i(2, 2, 1, 2)) == 1.0);
    CHECK(sd::error_rate(Eigen::MatrixXf(four().cast<float>()), Eigen::Vector4i(0, 0, 2, 1)) ==
          0.25);
    // Logits of any size do as well, infinite ones too.
    Eigen::MatrixXd logits = four().array().log().matrix();
    logits(2, 0) = -std::numeric_limits<double>::infinity();
    CHECK(sd::error_rate(1e4 * logits, Eigen::Vector4i(0, 1, 2, 2)) == 0.25);
    CHECK(sd::error_rate(four().leftCols(2), Eigen::Vector2i(1, 1)) == 0.5);
}

TEST_CASE("negative_log_likelihood: mean of -log of the label's probability", "[classification]") {
    const double expected =
        -(std::log(0.75) + std::log(0.25) + std::log(0.25) + std::log(0.375)) / 4.0;
    const Eigen::Vector4i labels(0, 2, 1, 1);
    CHECK(std::abs(sd::negative_log_likelihood(four(), labels) - expected) <= 1e-15);
    // Powers of two and their sums are floats: the same numbers, the same answer.
    const Eigen::MatrixXf single = four().cast<float>();
    CHECK(sd::negative_log_likelihood(single, labels) ==
          sd::negative_log_likelihood(four(), labels));
    Eigen::MatrixXd certain = Eigen::MatrixXd::Identity(3, 3);
    CHECK(sd::negative_log_likelihood(certain, Eigen::Vector3i(0, 1, 2)) == 0.0);
    CHECK(sd::negative_log_likelihood(certain, Eigen::Vector3i(0, 1, 1)) ==
          std::numeric_limits<double>::infinity());
}

TEST_CASE("expected_calibration_error: bins by hand", "[classification]") {
    // Confidences 0.75, 0.625, 0.5, 0.375. Four bins: 0.75 and 0.625 share (0.5, 0.75], the others
    // share (0.25, 0.5], closed above. Right, wrong | right, wrong:
    const Eigen::Vector4i labels(0, 2, 2, 2);
    const double four_bins = (std::abs(1.0 - 1.375) + std::abs(1.0 - 0.875)) / 4.0;
    CHECK(std::abs(sd::expected_calibration_error(four(), labels, 4) - four_bins) <= 1e-16);
    // One bin: |mean accuracy - mean confidence|.
    CHECK(std::abs(sd::expected_calibration_error(four(), labels, 1) -
                   std::abs(0.5 - 2.25 / 4.0)) <= 1e-16);
    // 15 bins (the default) keep all four apart: mean of |correct - confidence|.
    const double apart = (0.25 + 0.625 + 0.5 + 0.375) / 4.0;
    CHECK(std::abs(sd::expected_calibration_error(four(), labels) - apart) <= 1e-16);
    CHECK(sd::expected_calibration_error(Eigen::MatrixXf(four().cast<float>()), labels) ==
          sd::expected_calibration_error(four(), labels, 15));
    // Certain and right, certain and wrong.
    const Eigen::MatrixXd certain = Eigen::MatrixXd::Identity(2, 2);
    CHECK(sd::expected_calibration_error(certain, Eigen::Vector2i(0, 1)) == 0.0);
    CHECK(sd::expected_calibration_error(certain, Eigen::Vector2i(1, 0)) == 1.0);
    CHECK(sd::expected_calibration_error(certain, Eigen::Vector2i(0, 0)) == 0.5);
}

TEST_CASE("expected_calibration_error: rounding above 1 stays in the last bin",
          "[classification]") {
    Eigen::MatrixXf p(2, 1);
    p << std::nextafter(1.0F, 2.0F), 0.0F;
    CHECK(sd::expected_calibration_error(p, Eigen::VectorXi::Zero(1)) <= 1.2e-7);
}

TEST_CASE("Classification metrics: random probabilities agree with the definitions in plain loops",
          "[classification]") {
    std::mt19937 engine(17);
    std::exponential_distribution<double> part;
    std::uniform_int_distribution<int> label(0, 4);
    const Index samples = 2000;
    Eigen::MatrixXd p(5, samples);
    Eigen::VectorXi labels(samples);
    for (Index j = 0; j < samples; ++j) {
        for (Index k = 0; k < 5; ++k) p(k, j) = part(engine);
        p.col(j) /= p.col(j).sum();
        labels(j) = label(engine);
    }
    double wrong = 0.0, likelihood = 0.0;
    for (Index j = 0; j < samples; ++j) {
        Index top = 0;
        (void)p.col(j).maxCoeff(&top);
        if (top != labels(j)) wrong += 1.0;
        likelihood -= std::log(p(labels(j), j));
    }
    const double n = static_cast<double>(samples);
    CHECK(sd::error_rate(p, labels) == wrong / n);
    CHECK(std::abs(sd::negative_log_likelihood(p, labels) - likelihood / n) <= 1e-14);
    for (const Index bins : {1, 2, 10, 15, 100}) {
        double expected = 0.0;
        for (Index m = 0; m < bins; ++m) {
            const double low = static_cast<double>(m) / static_cast<double>(bins);
            const double high = static_cast<double>(m + 1) / static_cast<double>(bins);
            double count = 0.0, right = 0.0, confidence = 0.0;
            for (Index j = 0; j < samples; ++j) {
                Index top = 0;
                const double c = p.col(j).maxCoeff(&top);
                if (!(c > low && c <= high)) continue;
                count += 1.0;
                confidence += c;
                if (top == labels(j)) right += 1.0;
            }
            if (count > 0.0) expected += count / n * std::abs(right / count - confidence / count);
        }
        CHECK(std::abs(sd::expected_calibration_error(p, labels, bins) - expected) <= 1e-13);
    }
}

TEST_CASE("Classification metrics: bad arguments are refused by function, argument and value",
          "[classification]") {
    const Eigen::Vector4i good(0, 1, 2, 0);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto with = [](Index k, Index j, double value) {
        Eigen::MatrixXd p = four();
        p(k, j) = value;
        return p;
    };
    struct Metric {
        const char* name;
        std::function<double(const Eigen::MatrixXd&, const Eigen::VectorXi&)> call;
    };
    const std::vector<Metric> metrics{
        {"error_rate", [](const auto& p, const auto& l) { return sd::error_rate(p, l); }},
        {"negative_log_likelihood",
         [](const auto& p, const auto& l) { return sd::negative_log_likelihood(p, l); }},
        {"expected_calibration_error",
         [](const auto& p, const auto& l) { return sd::expected_calibration_error(p, l); }}};
    for (const Metric& metric : metrics) {
        const std::string name = metric.name;
        const auto refused = [&](const Eigen::MatrixXd& p, const Eigen::VectorXi& labels,
                                 const std::string& rest) {
            CHECK_THAT(refusal([&] { (void)metric.call(p, labels); }), Equals(name + rest));
        };
        refused(four(), Eigen::Vector4i(0, 1, 3, 0),
                ": labels must lie in [0, 3), got 3 for sample 2");
        refused(four(), Eigen::Vector4i(0, -2, 0, 0),
                ": labels must lie in [0, 3), got -2 for sample 1");
        refused(four(), Eigen::Vector3i(0, 1, 2),
                ": labels must have one entry for each of 4 samples, got 3");
        refused(Eigen::MatrixXd(3, 0), Eigen::VectorXi(0),
                std::string(name == "error_rate" ? ": scores" : ": probabilities") +
                    " must have at least 1 column, got 0");
        if (name == "error_rate") {
            refused(with(1, 2, nan), good,
                    ": scores must be numbers, got nan for class 1 of sample 2");
            continue;
        }
        refused(with(1, 2, nan), good,
                ": probabilities must be at least 0, got nan for class 1 of sample 2");
        refused(with(0, 3, -0.25), good,
                ": probabilities must be at least 0, got -0.25 for class 0 of sample 3");
        refused(with(0, 1, 0.25), good,
                ": probabilities of a sample must sum to 1 within 0.001, got 1.125 for sample 1");
        refused(with(0, 1, std::numeric_limits<double>::infinity()), good,
                ": probabilities of a sample must sum to 1 within 0.001, got inf for sample 1");
        refused(Eigen::MatrixXd(0, 4), good,
                ": probabilities of a sample must sum to 1 within 0.001, got 0 for sample 0");
    }
    for (const Index bins : {0, -3})
        CHECK_THAT(refusal([&] { (void)sd::expected_calibration_error(four(), good, bins); }),
                   Equals("expected_calibration_error: bins must be at least 1, got " +
                          std::to_string(bins)));
}
