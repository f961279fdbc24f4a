// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/gradient_error.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/huber.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "../examples/own_composite.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::linear;
using test::random_matrix;
using test::refusal;

/// y = a tanh(x) with a gain for each feature; wrong by a relative `fault` in one place.
class GainedTanh {
public:
    using Scalar = double;
    struct Cache {};
    struct Gradient {
        VectorXd gain;
        void set_zero() { gain.setZero(); }
    };
    enum class Fault { none, gain, input, nan };

    GainedTanh(VectorXd gain, Fault fault, double size)
        : gain_(std::move(gain)), fault_(fault), size_(size) {}
    Index output_size(Index) const { return gain_.size(); }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        y = gain_.asDiagonal() * tanh(x);
    }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y, Cache&) const {
        forward(x, y);
    }
    Gradient zero_gradient() const { return {VectorXd::Zero(gain_.size())}; }
    void backward(const ConstMatrixRef<double>& x, const ConstMatrixRef<double>& dy, const Cache&,
                  Gradient& gradient, MatrixRef<double> dx) const {
        gradient.gain += dy.cwiseProduct(tanh(x)).rowwise().sum();
        dx = gain_.asDiagonal() * (dy.array() * (1 - tanh(x).array().square())).matrix();
        if (fault_ == Fault::gain) gradient.gain(2) *= 1 + size_;
        if (fault_ == Fault::input) dx(1, 3) *= 1 + size_;
        if (fault_ == Fault::nan) gradient.gain(1) = std::numeric_limits<double>::quiet_NaN();
    }
    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("gain", self.gain_, gradients.gain...);
    }

private:
    static MatrixXd tanh(const ConstMatrixRef<double>& x) {
        return x.unaryExpr([](double z) { return std::tanh(z); });
    }
    VectorXd gain_;
    Fault fault_;
    double size_;
};
using Fault = GainedTanh::Fault;

GradientError error_of(Fault fault, double size) {
    Philox random{1};
    const MatrixXd x = random_matrix<double>(random, 3, 5), t = random_matrix<double>(random, 3, 5);
    const Sequential network{GainedTanh{VectorXd{{0.5, -1, 2}}, fault, size}};
    return gradient_error(network, x, SurvivalMask::all(0), MeanSquaredError<double>{}, t);
}

TEST_CASE("gradient_error: a right layer has none, and a wrong one is found where it is wrong",
          "[gradient_error]") {
    CHECK(error_of(Fault::none, 0).largest <= 1e-10);
    for (const double size : {1e-6, 1e-3, 1.0}) {
        const GradientError of_gain = error_of(Fault::gain, size);
        CHECK(of_gain.where == "0.gain(2, 0)");
        CHECK(std::abs(of_gain.slope / of_gain.difference - (1 + size)) <= 1e-8);
        // In units of the largest slope of the matrix, wrong or not.
        CHECK(of_gain.largest <= size * (1 + 1e-6));
        CHECK(of_gain.largest >= size / 100);
        CHECK(error_of(Fault::input, size).where == "x(1, 3)");
    }
    const GradientError broken = error_of(Fault::nan, 0);
    CHECK(broken.where == "0.gain(1, 0)");
    CHECK(std::isnan(broken.largest));
    CHECK_FALSE(broken.largest <= 1e-8);
}

TEST_CASE("gradient_error: under a mask, of a composite of one's own and with any loss",
          "[gradient_error]") {
    Philox random{2};
    const auto branch = [&] { return Sequential{linear<double>(random, 4, 4), Tanh<double>{}}; };
    const Sequential network{
        linear<double>(random, 3, 4),
        StochasticDepth{Residual{Gated{branch(), branch()}}, SurvivalProbability{0.5}},
        StochasticDepth{Residual{branch()}, SurvivalProbability{0.7}},
        linear<double>(random, 4, 2)};
    const MatrixXd x = random_matrix<double>(random, 3, 5), t = random_matrix<double>(random, 2, 5);
    for (std::uint64_t bits = 0; bits < 4; ++bits) {
        SurvivalMask mask = SurvivalMask::none(2);
        mask.set_word(0, bits);
        CHECK(gradient_error(network, x, mask, Huber<double>{{.delta = 10}}, t).largest <= 1e-9);
    }
    SurvivalMasks masks{2, 5};
    for (Index j = 0; j < 5; ++j) {
        SurvivalMask mask = SurvivalMask::none(2);
        mask.set_word(0, static_cast<std::uint64_t>(j % 4));
        masks.set_mask(j, mask);
    }
    const SoftmaxCrossEntropy<double> smooth{{.label_smoothing = 0.1}};
    const Eigen::VectorXi labels{{0, 1, 1, 0, 1}};
    CHECK(gradient_error(network, x, masks, smooth, labels).largest <= 1e-9);
    CHECK(
        gradient_error(network, x, masks, smooth, labels, {.scaling = Scaling::inverted}).largest <=
        1e-9);
    // No sample: nothing differs.
    CHECK(
        gradient_error(network, x.leftCols(0), SurvivalMask::all(2), Huber<double>{}, t.leftCols(0))
            .where.empty());
}

/// Tells its derivative from its output too: a step keeps that.
struct OwnSigmoid {
    using Scalar = double;
    double value(double z) const { return 1 / (1 + std::exp(-z)); }
    double derivative(double z) const { return derivative_of_output(value(z)); }
    double derivative_of_output(double y) const { return factor * y * (1 - y); }
    double factor = 1;  ///< 1 is right.
};

TEST_CASE("gradient_error: a function of one's own that tells its derivative from its output",
          "[gradient_error]") {
    Philox random{3};
    const MatrixXd x = random_matrix<double>(random, 3, 5), t = random_matrix<double>(random, 4, 5);
    SurvivalMasks masks{1, 5};
    masks.set_word(0, 0, 0b10110);
    const auto error = [&](double factor) {
        const Elementwise sigmoid{OwnSigmoid{factor}};
        // Behind a product, alone, at the end of a branch, behind a skippable layer, and at the end.
        const Sequential network{
            linear<double>(random, 3, 4), sigmoid, sigmoid,
            StochasticDepth{Residual{Sequential{linear<double>(random, 4, 4), sigmoid}},
                            SurvivalProbability{0.5}},
            sigmoid, linear<double>(random, 4, 4), sigmoid};
        return gradient_error(network, x, masks, MeanSquaredError<double>{}, t).largest;
    };
    CHECK(error(1) <= 1e-7);
    CHECK(error(1.1) >= 1e-2);
}

TEST_CASE("gradient_error: it checks the gradient of a training step, with its scaling and its seed",
          "[gradient_error]") {
    Philox random{5};
    const MatrixXd x = random_matrix<double>(random, 3, 9), t = random_matrix<double>(random, 3, 9);
    const GainedTanh wrong{VectorXd{{0.5, -1, 2}}, Fault::gain, 1};
    const Sequential network{StochasticDepth{Residual{wrong}, SurvivalProbability{0.5}},
                             Dropout<double>{0.4}};
    const MeanSquaredError<double> loss;
    const SurvivalMask mask = SurvivalMask::all(1);
    for (const Scaling scaling : {Scaling::none, Scaling::inverted})
        for (const std::uint64_t seed : {0u, 1u, 2u}) {
            TrainingStep step{network, loss, {.scaling = scaling, .seed = seed}};
            step.differentiate(network, x, t, mask, 0);
            const GradientError error =
                gradient_error(network, x, mask, loss, t, {.scaling = scaling, .seed = seed});
            CHECK(error.where == "0.branch.gain(2, 0)");
            CHECK(error.slope == std::get<0>(step.gradient().layers).layer.branch.gain(2));
        }
}

TEST_CASE("gradient_error: float networks show gross mistakes", "[gradient_error]") {
    Philox random{3};
    const Sequential network{linear<float>(random, 3, 4), Tanh<float>{},
                             linear<float>(random, 4, 2)};
    CHECK(gradient_error(network, random_matrix<float>(random, 3, 6), SurvivalMask::all(0),
                         MeanSquaredError<float>{}, random_matrix<float>(random, 2, 6))
              .largest <= 1e-3);
}

TEST_CASE("gradient_error: what does not fit is refused", "[gradient_error]") {
    Philox random{4};
    const Sequential network{linear<double>(random, 3, 2)};
    const MatrixXd x = MatrixXd::Zero(3, 4), t = MatrixXd::Zero(2, 4);
    const MeanSquaredError<double> loss;
    CHECK(refusal([&] { (void)gradient_error(network, x, SurvivalMask::all(1), loss, t); }) ==
          "gradient_error: mask must have 0 layers, got 1");
    CHECK(refusal([&] {
              (void)gradient_error(network, x, SurvivalMasks{0, 3}, loss, t);
          }) == "gradient_error: masks must be for 4 samples, got 3");
    CHECK(refusal([&] { (void)gradient_error(network, t, SurvivalMask::all(0), loss, t); }) ==
          "Linear: input must have 3 rows, got 2");
    CHECK(refusal([&] { (void)gradient_error(network, x, SurvivalMask::all(0), loss, x); }) ==
          "MeanSquaredError: targets must be 2 x 4 like the output, got 3 x 4");
    for (const double step : {-1e-4, std::nan(""), HUGE_VAL})
        CHECK(refusal([&] {
                  (void)gradient_error(network, x, SurvivalMask::all(0), loss, t, {.step = step});
              }).starts_with("gradient_error: step must be finite and above 0, or 0, got "));
}

}  // namespace
