// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

/// What every layer promises, checked on any layer: the contract that concepts.hpp states beyond
/// the syntax. The checks see a layer through `LayerCalls`, so that they are compiled once for each
/// Scalar and not for each of many types.
namespace stochastic_depth::test {

/// layer(x), by `forward` into a matrix of its own.
template <class Layer>
[[nodiscard]] Matrix<typename Layer::Scalar> run(const Layer& layer,
                                                 const ConstMatrixRef<typename Layer::Scalar>& x) {
    Matrix<typename Layer::Scalar> y(layer.output_size(x.rows()), x.cols());
    y.setConstant(std::numeric_limits<typename Layer::Scalar>::quiet_NaN());
    layer.forward(x, y);
    return y;
}

/// The largest |actual - expected| in units of the entry's own size; entries below a thousandth of
/// the largest count as that large.
[[nodiscard]] inline double relative_error(const Matrix<double>& actual,
                                           const Matrix<double>& expected) {
    const double floor = 1e-3 * (expected.size() == 0 ? 0 : expected.cwiseAbs().maxCoeff());
    double largest = 0;
    for (Index k = 0; k < expected.size(); ++k) {
        const double error = std::abs(actual.data()[k] - expected.data()[k]);
        const double size = std::max(std::abs(expected.data()[k]), floor);
        const double relative = error == 0 ? 0 : error / size;
        if (!(relative <= largest)) largest = relative;
    }
    return largest;
}

/// d/dz sum(weight * function()) for each entry z of a parameter or an input, by central
/// differences of fourth order: error of h^4 / 30 fifth derivatives.
[[nodiscard]] inline Matrix<double> differences(Eigen::Ref<Matrix<double>> parameter,
                                                const Matrix<double>& weight, double h,
                                                const std::function<Matrix<double>()>& function) {
    Matrix<double> result(parameter.rows(), parameter.cols());
    for (Index j = 0; j < parameter.cols(); ++j)
        for (Index i = 0; i < parameter.rows(); ++i) {
            double& z = parameter(i, j);
            const double here = z;
            const auto at = [&](double step) {
                z = here + step;
                return function();
            };
            // Entry by entry before the sum, so that outputs which z does not touch leave no
            // rounding error.
            Matrix<double> near = at(h), far = at(2 * h);
            near -= at(-h);
            far -= at(-2 * h);
            z = here;
            result(i, j) = weight.cwiseProduct((8 * near - far) / (12 * h)).sum();
        }
    return result;
}

/// Calls visit(name, parameter, slope) with Eigen::Ref's of matrices for all that the gradient has
/// reached.
template <class Layer, class Visit>
void visit_with_gradient(Layer& layer, typename Layer::Gradient& gradient, const Visit& visit) {
    using Ref = MatrixRef<typename Layer::Scalar>;
    detail::visit_parameters(
        layer,
        [&](const char* name, auto& parameter, auto& slope) {
            visit(name,
                  Ref(Eigen::Map<Matrix<typename Layer::Scalar>>(parameter.data(), parameter.rows(),
                                                                 parameter.cols())),
                  Ref(Eigen::Map<Matrix<typename Layer::Scalar>>(slope.data(), slope.rows(),
                                                                 slope.cols())));
        },
        gradient);
}

/// The gradient's matrices, one after another in one column.
template <class Layer>
[[nodiscard]] Vector<typename Layer::Scalar> flattened(Layer layer,
                                                       typename Layer::Gradient gradient) {
    std::vector<typename Layer::Scalar> numbers;
    visit_with_gradient(layer, gradient, [&](const char*, const auto&, const auto& slope) {
        numbers.insert(numbers.end(), slope.data(), slope.data() + slope.size());
    });
    return Eigen::Map<const Vector<typename Layer::Scalar>>(numbers.data(),
                                                            static_cast<Index>(numbers.size()));
}

/// The calls of a training pass of one layer, with its cache and gradient.
template <class Scalar>
struct PassCalls {
    std::function<void(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y)> forward;
    std::function<void(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                       MatrixRef<Scalar> dx)>
        backward;
    /// The gradient, flattened.
    std::function<Vector<Scalar>()> gradient;
    std::function<void()> set_zero;
    /// Calls visit(layer, name, parameter, slope) with a copy of the layer that holds the
    /// parameter.
    using Visit = std::function<void(
        const std::function<Matrix<Scalar>(const ConstMatrixRef<Scalar>&)>& layer, const char* name,
        MatrixRef<Scalar> parameter, MatrixRef<Scalar> slope)>;
    std::function<void(const Visit&)> visit;
};

/// The calls of a layer of any type that computes in Scalar.
template <class Scalar>
struct LayerCalls {
    std::function<Index(Index)> output_size;
    std::function<void(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y)> forward;
    /// Adds to each parameter, and returns their number.
    std::function<Index(Scalar)> add_to_parameters;
    std::function<LayerCalls()> copy;
    /// Copies, and moves from the copy.
    std::function<LayerCalls()> move_a_copy;
    /// Takes the parameters of a layer of the same type.
    std::function<void(const LayerCalls&)> assign;
    /// Empty for layers without gradients.
    std::function<PassCalls<Scalar>()> pass;
    std::shared_ptr<void> layer;

    [[nodiscard]] Matrix<Scalar> run(const ConstMatrixRef<Scalar>& x) const {
        Matrix<Scalar> y(output_size(x.rows()), x.cols());
        y.setConstant(std::numeric_limits<Scalar>::quiet_NaN());
        forward(x, y);
        return y;
    }
};

template <DifferentiableLayer Layer>
[[nodiscard]] PassCalls<typename Layer::Scalar> calls_of_pass(const std::shared_ptr<Layer>& layer) {
    using Scalar = typename Layer::Scalar;
    const auto cache = std::make_shared<typename Layer::Cache>();
    const auto gradient = std::make_shared<typename Layer::Gradient>(layer->zero_gradient());
    PassCalls<Scalar> any;
    any.forward = [=](const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) {
        std::as_const(*layer).forward(x, y, *cache);
    };
    any.backward = [=](const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                       MatrixRef<Scalar> dx) {
        std::as_const(*layer).backward(x, dy, std::as_const(*cache), *gradient, dx);
    };
    any.gradient = [=] { return flattened(*layer, *gradient); };
    any.set_zero = [=] { gradient->set_zero(); };
    any.visit = [=](const typename PassCalls<Scalar>::Visit& visit) {
        Layer copy = *layer;
        const auto run_copy = [&](const ConstMatrixRef<Scalar>& x) { return test::run(copy, x); };
        visit_with_gradient(copy, *gradient, [&](const char* name, auto parameter, auto slope) {
            visit(run_copy, name, parameter, slope);
        });
    };
    return any;
}

template <ForwardLayer Layer>
[[nodiscard]] LayerCalls<typename Layer::Scalar> calls_of(const std::shared_ptr<Layer>& layer) {
    using Scalar = typename Layer::Scalar;
    LayerCalls<Scalar> any;
    any.output_size = [=](Index inputs) { return std::as_const(*layer).output_size(inputs); };
    any.forward = [=](const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) {
        std::as_const(*layer).forward(x, y);
    };
    any.add_to_parameters = [=](Scalar shift) {
        Index parameters = 0;
        detail::visit_parameters(*layer, [&](const char*, auto& parameter) {
            parameter.array() += shift;
            parameters += parameter.size();
        });
        return parameters;
    };
    any.copy = [=] { return calls_of(std::make_shared<Layer>(std::as_const(*layer))); };
    any.move_a_copy = [=] {
        Layer copy = std::as_const(*layer);
        return calls_of(std::make_shared<Layer>(std::move(copy)));
    };
    if constexpr (std::is_copy_assignable_v<Layer>)
        any.assign = [=](const LayerCalls<Scalar>& other) {
            *layer = *std::static_pointer_cast<const Layer>(other.layer);
        };
    if constexpr (DifferentiableLayer<Layer>) any.pass = [=] { return calls_of_pass(layer); };
    any.layer = layer;
    return any;
}

/// Blocks, maps, expressions and transposes bind to what the layer's own `forward` takes.
template <class Layer, class Scalar = typename Layer::Scalar>
concept TakesWhatEigenRefTakes = requires(
    const Layer& layer, const Matrix<Scalar>& x, Matrix<Scalar>& y,
    const Eigen::Map<const Matrix<Scalar>>& map, Eigen::Map<Matrix<Scalar>> y_map,
    const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>& row_major) {
    layer.forward(x, y);
    layer.forward(x.block(0, 0, 1, 1), y.block(0, 0, 1, 1));
    layer.forward(map, y_map);
    layer.forward(x.col(0), y.col(0));
    layer.forward(x + x, y.leftCols(1));
    layer.forward(x.transpose(), y);
    layer.forward(row_major, y);
};

/// Shapes, places in memory and company: nothing of these changes what a layer computes.
template <class Scalar>
void check_forward(const std::string& name, const LayerCalls<Scalar>& layer, Index inputs) {
    Philox random{31};
    const Index outputs = layer.output_size(inputs);
    const Index batch = 15;
    const Matrix<Scalar> x = random_matrix<Scalar>(random, inputs, batch);
    const Matrix<Scalar> unchanged = x;
    const Matrix<Scalar> y = layer.run(x);
    CHECK(y.allFinite());
    CHECK(same_bits(x, unchanged));
    CHECK(same_bits(layer.run(x), y));

    // Column j of a batch is the batch of column j, and any batch in between.
    for (Index columns = 0; columns <= batch; ++columns)
        CHECK(same_bits(layer.run(x.leftCols(columns)), y.leftCols(columns)));
    for (Index j = 0; j < batch; ++j) CHECK(same_bits(layer.run(x.col(j)), y.col(j)));

    // Blocks: input and output in the middle of larger matrices, whose other entries don't matter.
    const Scalar not_a_number = std::numeric_limits<Scalar>::quiet_NaN();
    Matrix<Scalar> around_x = Matrix<Scalar>::Constant(inputs + 3, batch + 2, not_a_number);
    around_x.block(2, 1, inputs, batch) = x;
    Matrix<Scalar> around_y = Matrix<Scalar>::Constant(outputs + 3, batch + 2, Scalar(77));
    layer.forward(around_x.block(2, 1, inputs, batch), around_y.block(1, 1, outputs, batch));
    CHECK(same_bits(around_y.block(1, 1, outputs, batch), y));
    around_y.block(1, 1, outputs, batch).setConstant(Scalar(77));
    CHECK((around_y.array() == Scalar(77)).all());

    // Maps of memory of the right size and not aligned, expressions, a transpose, another storage
    // order.
    std::vector<Scalar> memory_x(static_cast<std::size_t>(x.size() + 1)),
        memory_y(static_cast<std::size_t>(y.size() + 1));
    Eigen::Map<Matrix<Scalar>> map_x(memory_x.data() + 1, inputs, batch);
    Eigen::Map<Matrix<Scalar>> map_y(memory_y.data() + 1, outputs, batch);
    map_x = x;
    layer.forward(map_x, map_y);
    CHECK(same_bits(map_y, y));
    CHECK(same_bits(layer.run(Scalar(0.5) * (x + x)), y));
    const Matrix<Scalar> transposed = x.transpose();
    CHECK(same_bits(layer.run(transposed.transpose()), y));
    const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> row_major = x;
    CHECK(same_bits(layer.run(row_major), y));

    // Sizes that don't fit are refused, and the output stays as it was.
    const auto refused = [&](Index rows, Index columns) {
        Matrix<Scalar> wrong = Matrix<Scalar>::Constant(rows, columns, Scalar(77));
        const std::string message = refusal([&] { layer.forward(x, wrong); });
        CHECK((wrong.array() == Scalar(77)).all());
        return message;
    };
    const auto rows_message = [&](Index got) {
        return detail::message(name, ": output must have ", outputs, " rows, got ", got);
    };
    const auto columns_message = [&](Index got) {
        return detail::message(name, ": output must have ", batch, " columns, got ", got);
    };
    CHECK(refused(outputs + 1, batch) == rows_message(outputs + 1));
    CHECK(refused(outputs - 1, batch) == rows_message(outputs - 1));
    CHECK(refused(outputs, batch + 2) == columns_message(batch + 2));
    CHECK(refused(outputs, 0) == columns_message(0));
}

/// A layer with one input size refuses any other one, in every call, and says which layer refuses
/// it.
template <class Scalar>
void check_refusal_of_other_inputs(const LayerCalls<Scalar>& layer, Index inputs,
                                   const std::string& who) {
    const Index outputs = layer.output_size(inputs);
    for (const Index wrong : {Index{0}, inputs - 1, inputs + 1}) {
        const std::string expected =
            detail::message(who, ": input must have ", inputs, " rows, got ", wrong);
        const Matrix<Scalar> x = Matrix<Scalar>::Ones(wrong, 3);
        Matrix<Scalar> y = Matrix<Scalar>::Constant(outputs, 3, Scalar(77));
        CHECK(refusal([&] { (void)layer.output_size(wrong); }) == expected);
        CHECK(refusal([&] { layer.forward(x, y); }) == expected);
        CHECK((y.array() == Scalar(77)).all());
        if (!layer.pass) continue;
        const PassCalls<Scalar> pass = layer.pass();
        CHECK(refusal([&] { pass.forward(x, y); }) == expected);
        CHECK((y.array() == Scalar(77)).all());
    }
}

/// All of a differentiable layer's promises but the values of its derivatives.
template <class Scalar>
void check_backward(const std::string& name, const LayerCalls<Scalar>& layer, Index inputs) {
    Philox random{33};
    const Index outputs = layer.output_size(inputs);
    const Index batch = 9;
    const Matrix<Scalar> x = random_matrix<Scalar>(random, inputs, batch);
    const Matrix<Scalar> dy = random_matrix<Scalar>(random, outputs, batch);
    const Scalar not_a_number = std::numeric_limits<Scalar>::quiet_NaN();

    // The recorded pass computes what the plain one does.
    const PassCalls<Scalar> pass = layer.pass();
    Matrix<Scalar> y(outputs, batch);
    pass.forward(x, y);
    CHECK(same_bits(y, layer.run(x)));

    // backward reads the cache only: twice the same answer; and adds to the gradient: twice the
    // sum.
    Matrix<Scalar> dx = Matrix<Scalar>::Constant(inputs, batch, not_a_number), dx_again = dx;
    pass.backward(x, dy, dx);
    CHECK(dx.allFinite());
    const Vector<Scalar> once = pass.gradient();
    pass.backward(x, dy, dx_again);
    CHECK(same_bits(dx_again, dx));
    const auto few_roundings = 64 * static_cast<double>(std::numeric_limits<Scalar>::epsilon());
    const double size = once.size() == 0 ? 0 : static_cast<double>(once.cwiseAbs().maxCoeff());
    CHECK(largest_difference(pass.gradient(), 2 * once) <= few_roundings * (1 + 2 * size));

    // set_zero brings back the start.
    pass.set_zero();
    pass.backward(x, dy, dx_again);
    CHECK(same_bits(dx_again, dx));
    CHECK(same_bits(pass.gradient(), once));

    // One cache serves pass after pass, of any batch; column j of dx needs column j alone.
    for (const Index columns : {Index{0}, Index{1}, batch, Index{2}}) {
        Matrix<Scalar> part_y(outputs, columns), part_dx(inputs, columns);
        part_dx.setConstant(not_a_number);
        pass.forward(x.leftCols(columns), part_y);
        CHECK(same_bits(part_y, y.leftCols(columns)));
        pass.set_zero();
        pass.backward(x.leftCols(columns), dy.leftCols(columns), part_dx);
        CHECK(same_bits(part_dx, dx.leftCols(columns)));
        if (columns == 0) CHECK((pass.gradient().array() == Scalar(0)).all());
        if (columns == batch) CHECK(same_bits(pass.gradient(), once));
    }

    // Blocks of larger matrices for every argument.
    Matrix<Scalar> around_x = Matrix<Scalar>::Constant(inputs + 2, batch + 1, not_a_number);
    Matrix<Scalar> around_dy = Matrix<Scalar>::Constant(outputs + 2, batch + 1, not_a_number);
    Matrix<Scalar> around_dx = Matrix<Scalar>::Constant(inputs + 2, batch + 1, Scalar(77));
    around_x.block(1, 1, inputs, batch) = x;
    around_dy.block(1, 1, outputs, batch) = dy;
    pass.forward(around_x.block(1, 1, inputs, batch), y);
    pass.set_zero();
    pass.backward(around_x.block(1, 1, inputs, batch), around_dy.block(1, 1, outputs, batch),
                  around_dx.block(1, 1, inputs, batch));
    CHECK(same_bits(around_dx.block(1, 1, inputs, batch), dx));
    CHECK(same_bits(pass.gradient(), once));
    around_dx.block(1, 1, inputs, batch).setConstant(Scalar(77));
    CHECK((around_dx.array() == Scalar(77)).all());

    // Sizes that don't fit are refused, and nothing is added or written.
    const auto refused = [&](Index dy_rows, Index dy_columns, Index dx_rows, Index dx_columns) {
        Matrix<Scalar> wrong = Matrix<Scalar>::Constant(dx_rows, dx_columns, Scalar(77));
        const Matrix<Scalar> wrong_dy = Matrix<Scalar>::Ones(dy_rows, dy_columns);
        const std::string message = refusal([&] { pass.backward(x, wrong_dy, wrong); });
        CHECK((wrong.array() == Scalar(77)).all());
        return message;
    };
    CHECK(refused(outputs + 1, batch, inputs, batch) ==
          detail::message(name, ": output must have ", outputs, " rows, got ", outputs + 1));
    CHECK(refused(outputs, batch - 1, inputs, batch) ==
          detail::message(name, ": output must have ", batch, " columns, got ", batch - 1));
    const auto dx_message = [&](Index rows, Index columns) {
        return detail::message(name, ": dx must be [", inputs, " x ", batch, "], got [", rows,
                               " x ", columns, "]");
    };
    CHECK(refused(outputs, batch, inputs + 1, batch) == dx_message(inputs + 1, batch));
    CHECK(refused(outputs, batch, inputs, batch + 1) == dx_message(inputs, batch + 1));
    CHECK(same_bits(pass.gradient(), once));
}

/// A copy computes the same, and neither changes with the other.
template <class Scalar>
void check_copies(const LayerCalls<Scalar>& layer, Index inputs) {
    Philox random{34};
    const Matrix<Scalar> x = random_matrix<Scalar>(random, inputs, 5);
    const Matrix<Scalar> y = layer.run(x);
    const LayerCalls<Scalar> original = layer.copy();
    const LayerCalls<Scalar> copy = original.copy();
    CHECK(same_bits(copy.run(x), y));
    if (original.add_to_parameters(Scalar(0.25)) > 0) CHECK_FALSE(same_bits(original.run(x), y));
    CHECK(same_bits(copy.run(x), y));
    if (original.assign) {
        original.assign(copy);
        CHECK(same_bits(original.run(x), y));
        copy.add_to_parameters(Scalar(0.25));
        CHECK(same_bits(original.run(x), y));
    }
    CHECK(same_bits(layer.move_a_copy().run(x), y));
}

/// How exact the finite differences can be.
enum class Derivative {
    smooth,  ///< Steps of 5e-4; errors of 1e-8 and less.
    kinked   ///< Piecewise: steps of 1e-5, which stay on one piece; errors of 1e-6 and less.
};

/// Gradients by the input and by every parameter are equal to finite differences.
inline void check_derivatives(const LayerCalls<double>& layer, Index inputs, Derivative derivative) {
    Philox random{32};
    const double h = derivative == Derivative::smooth ? 5e-4 : 1e-5;
    const double tolerance = derivative == Derivative::smooth ? 1e-8 : 1e-6;
    const Index batch = 4;
    Matrix<double> x = random_matrix<double>(random, inputs, batch);
    const Matrix<double> dy = random_matrix<double>(random, layer.output_size(inputs), batch);
    const PassCalls<double> pass = layer.pass();
    Matrix<double> y(dy.rows(), batch), dx(inputs, batch);
    pass.forward(x, y);
    pass.backward(x, dy, dx);
    CHECK(relative_error(dx, differences(x, dy, h, [&] { return layer.run(x); })) <= tolerance);
    pass.visit([&](const auto& copy, const char* name, MatrixRef<double> parameter,
                   MatrixRef<double> slope) {
        INFO(name);
        REQUIRE(slope.rows() == parameter.rows());
        REQUIRE(slope.cols() == parameter.cols());
        CHECK(relative_error(slope, differences(parameter, dy, h, [&] { return copy(x); })) <=
              tolerance);
    });
}

/// Every check of this file that applies to a layer.
template <ForwardLayer Layer>
void check_layer_contract(const std::string& name, const Layer& layer, Index inputs,
                          Derivative derivative = Derivative::smooth) {
    static_assert(TakesWhatEigenRefTakes<Layer>);
    INFO(name);
    const auto any = calls_of(std::make_shared<Layer>(layer));
    check_forward(name, any, inputs);
    check_copies(any, inputs);
    if constexpr (DifferentiableLayer<Layer>) {
        check_backward(name, any, inputs);
        if constexpr (std::same_as<typename Layer::Scalar, double>)
            check_derivatives(any, inputs, derivative);
    }
}

template <ForwardLayer Layer>
void check_refuses_other_inputs(const Layer& layer, Index inputs, const std::string& who) {
    check_refusal_of_other_inputs(calls_of(std::make_shared<Layer>(layer)), inputs, who);
}

}  // namespace stochastic_depth::test
