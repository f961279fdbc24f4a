// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Mean squared error over all entries, of d outputs and n samples alike:
///
///     loss = 1/(d n) sum_ij (y_ij - t_ij)^2,  d loss / d y_ij = 2 (y_ij - t_ij) / (d n)
///
/// Computed in double, whatever the scalar. An empty batch has loss 0.
template <std::floating_point Scalar_>
class MeanSquaredError {
public:
    using Scalar = Scalar_;
    using Targets = Matrix<Scalar>;

    /// \param output   [outputs x batch].
    /// \param targets  [outputs x batch].
    /// \returns        Mean over all entries of (output - targets)^2.
    /// \throws std::invalid_argument  if sizes do not match.
    [[nodiscard]] double value(const ConstMatrixRef<Scalar>& output,
                               const ConstMatrixRef<Scalar>& targets) const {
        check_size("targets", output, targets.rows(), targets.cols());
        return sum_of_squares(output, targets, [](Index, Index, double) {}) * per_entry(output);
    }

    /// The value, the same bits as value(), and its derivative by the output.
    ///
    /// \param output    [outputs x batch].
    /// \param targets   [outputs x batch].
    /// \param gradient  Out, [outputs x batch]; may be the memory of `output`.
    /// \returns         Mean over all entries of (output - targets)^2.
    /// \throws std::invalid_argument  if sizes do not match; nothing is written then.
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<Scalar>& output,
                                            const ConstMatrixRef<Scalar>& targets,
                                            MatrixRef<Scalar> gradient) const {
        check_size("targets", output, targets.rows(), targets.cols());
        check_size("gradient", output, gradient.rows(), gradient.cols());
        const double scale = per_entry(output);
        return sum_of_squares(output, targets,
                              [&](Index i, Index j, double difference) {
                                  gradient(i, j) = static_cast<Scalar>(2.0 * difference * scale);
                              }) *
               scale;
    }

private:
    static void check_size(const char* what, const ConstMatrixRef<Scalar>& output, Index rows,
                           Index cols) {
        if (rows != output.rows() || cols != output.cols())
            detail::refuse("MeanSquaredError: ", what, " must be ", output.rows(), " x ",
                           output.cols(), " like the output, got ", rows, " x ", cols);
    }

    template <class Store>
    static double sum_of_squares(const ConstMatrixRef<Scalar>& output,
                                 const ConstMatrixRef<Scalar>& targets, Store store) {
        double total = 0.0;
        for (Index j = 0; j < output.cols(); ++j)
            for (Index i = 0; i < output.rows(); ++i) {
                const double difference =
                    static_cast<double>(output(i, j)) - static_cast<double>(targets(i, j));
                total += difference * difference;
                store(i, j, difference);
            }
        return total;
    }

    static double per_entry(const ConstMatrixRef<Scalar>& output) {
        return output.size() == 0 ? 0.0 : 1.0 / static_cast<double>(output.size());
    }
};

}  // namespace stochastic_depth
