// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/loss.hpp>
#include <stochastic_depth/training/parameters.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct GradientErrorOptions {
    /// h, finite and above 0; 0: 1e-4 for double, 1e-2 for float.
    double step = 0.0;
    Scaling scaling = Scaling::none;
    /// Of the random decisions of layers, such as Dropout's.
    std::uint64_t seed = 0;
};

/// Where a gradient is furthest from differences of the loss.
struct GradientError {
    /// |slope - difference|, in units of the largest slope of the same matrix, or of a thousandth
    /// of the largest of all where that is more.
    double largest = 0.0;
    /// "0.branch.weights(2, 1)", or "x(0, 3)" for an input; empty where nothing differs.
    std::string where = {};
    double slope = 0.0;       ///< as backpropagation has it
    double difference = 0.0;  ///< as differences of the loss have it
};

namespace detail {

/// A training step's pass, forward and back as far as to the input.
template <class Network, class Masks, class Loss>
class CheckedPass {
public:
    using Scalar = typename Network::Scalar;

    CheckedPass(const Masks& masks, const Loss& loss, const typename Loss::Targets& targets,
                const GradientErrorOptions& options)
        : masks_(masks), loss_(loss), targets_(targets) {
        context_.scaling = options.scaling;
        context_.seed = options.seed;
    }

    /// The loss; the slopes by the output stay.
    [[nodiscard]] double loss(const Network& network, const Matrix<Scalar>& x) {
        tape_.clear();
        Batch<Scalar, Records> batch(Team::alone(), tape_, const_view(x));
        run(network, batch, record_, MaskView{masks_, &context_});
        slopes_.resize(batch.rows(), x.cols());
        return loss_.value_and_gradient(batch.current(), targets_, slopes_);
    }

    /// After `loss`: adds the gradient by the parameters, and returns that by x.
    [[nodiscard]] Matrix<Scalar> backpropagate(const Network& network,
                                               typename Network::Gradient& gradient) const {
        SparePiece spare;
        GradientBatch<Scalar> batch(Team::alone(), {&spare}, const_view(slopes_));
        detail::backpropagate(network, batch, record_, gradient);
        return batch.current();
    }

private:
    const Masks& masks_;
    const Loss& loss_;
    const typename Loss::Targets& targets_;
    StepContext context_;
    Tape tape_;
    RecordOf<Network, Records> record_;
    Matrix<Scalar> slopes_;
};

/// A matrix of slopes beside its differences.
struct ComparedSlopes {
    std::string path;
    Matrix<double> slopes, differences;

    /// The largest finite entry of either.
    [[nodiscard]] double largest() const {
        double largest = 0.0;
        for (const auto* matrix : {&slopes, &differences})
            for (const double entry : matrix->reshaped())
                if (std::isfinite(entry)) largest = std::max(largest, std::abs(entry));
        return largest;
    }
};

[[nodiscard]] inline GradientError largest_error(const std::vector<ComparedSlopes>& compared) {
    double largest = 0.0;
    for (const ComparedSlopes& matrix : compared) largest = std::max(largest, matrix.largest());
    GradientError worst;
    for (const ComparedSlopes& matrix : compared) {
        const double unit = std::max(matrix.largest(), 1e-3 * largest);
        for (Index j = 0; j < matrix.slopes.cols(); ++j)
            for (Index i = 0; i < matrix.slopes.rows(); ++i) {
                const double slope = matrix.slopes(i, j), difference = matrix.differences(i, j);
                const double error =
                    slope == difference ? 0.0 : std::abs(slope - difference) / unit;
                // The first NaN stays.
                if (error <= worst.largest || std::isnan(worst.largest)) continue;
                worst = {error, message(matrix.path, "(", i, ", ", j, ")"), slope, difference};
            }
    }
    return worst;
}

}  // namespace detail

/// How far the gradient of a training step is from differences of its loss, by every parameter and
/// every input that is no token: the check of a layer, a composite or a loss of one's own. For a layer,
///
///     const auto error = gradient_error(Sequential{MyLayer{}}, x, SurvivalMask::all(0),
///                                       MeanSquaredError<double>{}, targets);
///     CHECK(error.largest < 1e-8);  // error.where says where
///
/// Central differences of fourth order, (8 (l(h) - l(-h)) - (l(2h) - l(-2h))) / 12h: an error of
/// about h^4 times the fifth derivative, and of rounding in the loss over h. In double that leaves
/// 1e-9 and less where the loss is smooth; across a kink, as ReLU's at 0, they say nothing. In
/// float they show gross mistakes alone.
///
/// \param network  As a step has it: batch statistics are those of x, Dropout draws for step 0.
/// \param x        [features x batch].
/// \param masks    One SurvivalMask, or SurvivalMasks, one for each sample.
/// \param loss     Any (LossOf).
/// \throws std::invalid_argument  if sizes don't match, or the step lies outside its range.
/// \complexity     Four forward passes for each parameter and each input.
template <MaskedNetwork Network, class Masks, LossOf<typename Network::Scalar> Loss>
    requires(DifferentiableLayer<Network>)
[[nodiscard]] GradientError gradient_error(const Network& network,
                                           const ConstMatrixRef<typename Network::Scalar>& x,
                                           const Masks& masks, const Loss& loss,
                                           const typename Loss::Targets& targets,
                                           const GradientErrorOptions& options = {}) {
    using Scalar = typename Network::Scalar;
    if (!(options.step >= 0.0 && std::isfinite(options.step)))
        detail::refuse("gradient_error: step must be finite and above 0, or 0, got ", options.step);
    detail::check_mask("gradient_error", network, masks, x.cols());
    detail::check_targets(loss, network.output_size(x.rows()), targets);
    const double h = options.step > 0.0              ? options.step
                     : std::is_same_v<Scalar, float> ? 1e-2
                                                     : 1e-4;

    detail::CheckedPass<Network, Masks, Loss> pass{masks, loss, targets, options};
    Network moved = network;
    Matrix<Scalar> input = x;
    std::vector<detail::ComparedSlopes> compared;
    const auto compare = [&](const std::string& path, auto& numbers, const auto& slopes) {
        auto& [name, exact, differences] = compared.emplace_back();
        name = path;
        exact = slopes.template cast<double>();
        differences.resize(numbers.rows(), numbers.cols());
        for (Index j = 0; j < numbers.cols(); ++j)
            for (Index i = 0; i < numbers.rows(); ++i) {
                const Scalar here = numbers(i, j);
                const auto at = [&](double shift) {
                    numbers(i, j) = static_cast<Scalar>(static_cast<double>(here) + shift);
                    return pass.loss(moved, input);
                };
                differences(i, j) = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
                numbers(i, j) = here;
            }
    };
    auto gradient = network.zero_gradient();
    (void)pass.loss(network, input);
    const Matrix<Scalar> by_input = pass.backpropagate(network, gradient);
    if (!detail::takes_tokens(network)) compare("x", input, by_input);
    detail::visit_parameters(moved, detail::WithPaths{compare}, gradient);
    return detail::largest_error(compared);
}

}  // namespace stochastic_depth
