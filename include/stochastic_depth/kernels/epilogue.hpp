// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>

/// Epilogues: what happens to the numbers of a product before they are stored. An epilogue maps
/// (packet, i, j) to a packet, where the packet holds rows i, i + 1, ... of column j.
namespace stochastic_depth::detail {

/// Applies an element-wise layer: by its own packet function where it has one, else lane by lane.
template <class Layer>
struct ApplyElementwise {
    const Layer& layer;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index) const {
        if constexpr (requires { layer.packet(value); })
            return layer.packet(value);
        else
            return value.on_each_lane([this](auto z) { return layer.value(z); });
    }

    [[nodiscard]] static bool crosses_columns(Index) { return true; }
};

/// On the way back through an element-wise layer: multiplies by its derivative at the entries of
/// its input, or as a function of its output, a matrix of the product's shape. By its own packet
/// function where it has one, else lane by lane.
template <class Layer, bool of_output>
struct MultiplyByDerivative {
    const Layer& layer;
    const typename Layer::Scalar* entries;
    Index stride;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        return value * derivative(Packet::load(entries + i + j * stride));
    }

    [[nodiscard]] bool crosses_columns(Index rows) const { return stride == rows; }

private:
    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet derivative(Packet at) const {
        if constexpr (!of_output) {
            if constexpr (requires { layer.packet_derivative(at); })
                return layer.packet_derivative(at);
            else
                return at.on_each_lane([this](auto z) { return layer.derivative(z); });
        } else {
            if constexpr (requires { layer.packet_derivative_of_output(at); })
                return layer.packet_derivative_of_output(at);
            else
                return at.on_each_lane([this](auto y) { return layer.derivative_of_output(y); });
        }
    }
};

/// The way back through an element-wise layer whose input was z, or whose output, if the derivative
/// is to be a function of that.
template <bool of_output = false, class Layer, class Z>
[[nodiscard]] MultiplyByDerivative<Layer, of_output> by_derivative(const Layer& layer, const Z& z) {
    return {layer, z.data(), z.outerStride()};
}

/// Multiplies by a number.
template <class Scalar>
struct Multiply {
    Scalar factor;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index) const {
        return Packet::broadcast(factor) * value;
    }
    [[nodiscard]] static bool crosses_columns(Index) { return true; }
};

/// Leaves the numbers in a matrix of the product's shape too, on their way.
template <class Scalar>
struct StoreInto {
    Scalar* data;
    Index stride;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        value.store(data + i + j * stride);
        return value;
    }
    [[nodiscard]] bool crosses_columns(Index rows) const { return stride == rows; }
};

/// Adds the entries of a matrix of the product's shape.
template <class Scalar>
struct AddMatrix {
    const Scalar* data;
    Index stride;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        return Packet::load(data + i + j * stride) + value;
    }

    [[nodiscard]] bool crosses_columns(Index rows) const { return stride == rows; }
};

/// Adds a multiple of the numbers to the entries of a matrix of the product's shape, rounded once
/// where the target has a fused multiply-add; with a factor of 1 as AddMatrix does.
template <class Scalar>
struct AddScaled {
    const Scalar* data;
    Index stride;
    Scalar factor;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        return multiply_add(Packet::broadcast(factor), value, Packet::load(data + i + j * stride));
    }

    [[nodiscard]] bool crosses_columns(Index rows) const { return stride == rows; }
};

/// Stores the numbers in chosen columns of another matrix: column j in columns[j].
template <class Scalar>
struct ScatterInto {
    static constexpr bool stores_elsewhere = true;
    Scalar* data;
    Index stride;
    const Index* columns;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        value.store(data + i + columns[j] * stride);
        return value;
    }
};

/// Stores the numbers in another matrix of the product's shape, by `redirect`.
template <class Scalar>
struct StoreTo {
    static constexpr bool stores_elsewhere = true;
    Scalar* data;
    Index stride;

    [[nodiscard]] static AsIs before_store() { return {}; }
    [[nodiscard]] Destination<Scalar> destination(const Origin& origin) const {
        return {data + origin.row + origin.column * stride, stride};
    }
};
template <class To>
[[nodiscard]] auto store_to(const To& to) {
    return StoreTo<typename To::Scalar>{view(to).data(), to.outerStride()};
}

/// One epilogue after another, and no more than the first where the second is AsIs.
template <class First, class Second>
[[nodiscard]] auto in_turn(const First& first, const Second& second);

template <class First, class Second>
struct Then {
    static constexpr bool stores_elsewhere = detail::stores_elsewhere<Second>;
    First first;
    Second second;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        return second(first(value, i, j), i, j);
    }

    [[nodiscard]] bool crosses_columns(Index rows) const {
        return detail::crosses_columns(first, rows) && detail::crosses_columns(second, rows);
    }

    [[nodiscard]] auto before_store() const requires is_redirected<Second> {
        return in_turn(first, second.before_store());
    }
    [[nodiscard]] auto destination(const Origin& origin) const requires is_redirected<Second> {
        return second.destination(origin);
    }
};
template <class First, class Second>
Then(First, Second) -> Then<First, Second>;

template <class First, class Second>
[[nodiscard]] auto in_turn(const First& first, const Second& second) {
    if constexpr (std::is_same_v<Second, AsIs>)
        return first;
    else
        return Then{first, second};
}

/// y = epilogue(x), for the layers that no product precedes. y may be x itself. `origin` is where x
/// and y stand in what the epilogue knows.
template <int Lanes, class Scalar, class Epilogue>
void transform_columns(Index rows, Index columns, const Scalar* x, Index x_stride,
                       Destination<Scalar> y, const Epilogue& epilogue, Origin origin) {
    using P = Packet<Scalar, Lanes>;
    if constexpr (Lanes > 1) {
        if (rows < Lanes)
            return transform_columns<P::narrower>(rows, columns, x, x_stride, y, epilogue, origin);
    }
    for (Index j = 0; j < columns; ++j) {
        const Scalar* from = x + j * x_stride;
        // The last packet may overlap the one before: it is computed while x is still whole.
        const P last = epilogue(P::load(from + rows - Lanes), origin.row + rows - Lanes,
                                origin.column + j);
        for (Index i = 0; i + Lanes < rows; i += Lanes)
            finish(epilogue, P::load(from + i), i, j, y, origin);
        if constexpr (!stores_elsewhere<Epilogue>) last.store(y.data + rows - Lanes + j * y.stride);
    }
}

template <class Scalar, class X, class Y, class Epilogue>
void transform(const X& x, const Y& y, const Epilogue& epilogue, Origin origin = {}) {
    if (x.size() == 0) return;
    redirect(Destination<Scalar>{view(y).data(), y.outerStride()}, epilogue, origin,
             [&](const Destination<Scalar>& to, const auto& last_step) {
                 transform_columns<widest_lanes<Scalar>>(x.rows(), x.cols(), x.data(),
                                                         x.outerStride(), to, last_step, origin);
             });
}

}  // namespace stochastic_depth::detail
