// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The left factor of a product, [rows x inner]: its columns are contiguous, `stride` apart.
template <class Scalar>
struct LeftFactor {
    const Scalar* data;
    Index stride;
};

/// The right factor, [inner x columns]: entry (k, j) is data[k * inner_stride + j * column_stride],
/// so that a transpose is a matter of strides.
template <class Scalar>
struct RightFactor {
    const Scalar* data;
    Index inner_stride;
    Index column_stride;
};

/// How the inner dimension falls into segments of equal length that do not follow each other in the
/// factors, as the rows of a window on an image: from the end of one to the begin of the next, the
/// left factor moves on by `left` numbers and the right one by `right`.
struct Segments {
    Index count = 1;
    Index left = 0;
    Index right = 0;
};

/// What the sums start from: entry (i, j) is data[i + j * column_stride], so that a stride of 0
/// repeats one column; null: zero.
template <class Scalar>
struct Start {
    const Scalar* data;
    Index column_stride = 0;
};

/// Where the product goes, [rows x columns]: columns are contiguous, `stride` apart.
template <class Scalar>
struct Destination {
    Scalar* data;
    Index stride;
};

/// Where a part of a matrix begins in the whole one, which is what epilogues count in.
struct Origin {
    Index row = 0;
    Index column = 0;
};

/// Epilogue: stores the product as it is.
struct AsIs {
    [[nodiscard]] static bool crosses_columns(Index) { return true; }

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index) const {
        return value;
    }
};

/// The factors of a product, what it starts from, and where it goes; its origin is the epilogue's.
/// The order of the members was measured: in others a call for one column took up to twice as long,
/// presumably because loads wait for the stores of two members at a time.
template <class Scalar>
struct Operands {
    LeftFactor<Scalar> left;
    Start<Scalar> start;
    Destination<Scalar> out;
    RightFactor<Scalar> right;
    Index inner;  ///< of a segment
    Origin origin;
    Segments segments;
    Index columns;

    /// The same product from a row on.
    [[nodiscard, gnu::noinline]] Operands below(Index row) const {
        Operands rest = *this;
        rest.left.data += row;
        if (start.data) rest.start.data += row;
        rest.out.data += row;
        rest.origin.row += row;
        return rest;
    }
};

/// Whether an epilogue takes packets that go on from the end of one column to the next. It does if
/// it says so, as it may where all that it reads and writes has columns of `rows` numbers without
/// gaps.
template <class Epilogue>
[[nodiscard]] bool crosses_columns(const Epilogue& epilogue, Index rows) {
    if constexpr (requires { epilogue.crosses_columns(rows); })
        return epilogue.crosses_columns(rows);
    else
        return false;
}

/// Whether an epilogue stores what it returns itself, at a place of its own.
template <class Epilogue>
inline constexpr bool stores_elsewhere = requires {
    requires Epilogue::stores_elsewhere;
};

/// Whether an epilogue ends by storing into another matrix of the product's shape, so that the same
/// comes of `before_store()` with `destination(origin)` as the place where the product goes.
template <class Epilogue>
inline constexpr bool is_redirected = requires(const Epilogue& epilogue, const Origin& origin) {
    epilogue.before_store();
    epilogue.destination(origin);
};

/// Calls run(destination, epilogue) without the store that the epilogue may end in: one kernel then
/// serves every place.
template <class Scalar, class Epilogue, class Run>
EIGEN_ALWAYS_INLINE void redirect(const Destination<Scalar>& out, const Epilogue& epilogue,
                                  const Origin& origin, const Run& run) {
    if constexpr (is_redirected<Epilogue>)
        run(epilogue.destination(origin), epilogue.before_store());
    else
        run(out, epilogue);
}

/// Puts a packet through an epilogue, and what comes of it into entries i, i + 1, ... of column j.
template <class Epilogue, class Packet, class Scalar>
EIGEN_ALWAYS_INLINE void finish(const Epilogue& epilogue, const Packet& value, Index i, Index j,
                                const Destination<Scalar>& out, const Origin& origin) {
    const auto result = epilogue(value, origin.row + i, origin.column + j);
    if constexpr (!stores_elsewhere<Epilogue>) result.store(out.data + i + j * out.stride);
}

}  // namespace stochastic_depth::detail
