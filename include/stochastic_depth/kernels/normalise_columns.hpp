// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/operands.hpp>
#include <stochastic_depth/kernels/sums_in_double.hpp>
#include <stochastic_depth/threads/team.hpp>

/// Normalisation of each column by moments of its own. Sums are taken in double, from there on
/// packets of Scalar go through; what a column gives does not depend on the others.
namespace stochastic_depth::detail {

/// How many columns are treated at once: while one waits for a root, others go on.
inline constexpr Index normalised_at_once = 8;

/// to[j] = the sum over i < rows of what term(packet type P, i, j, sum) adds to a packet, for
/// j < columns. Four columns at a time, so that no sum waits for its last addition.
template <class Term>
EIGEN_ALWAYS_INLINE void sums_of_columns(Index rows, Index columns, double* to, const Term& term) {
    constexpr int together = 4;
    Index j = 0;
    for (; j + together <= columns; j += together)
        sums_in_double<together>(
            rows,
            [&]<class P>(std::type_identity<P> packet, Index i, P* sums) {
                unroll<together>([&](auto k) { term(packet, i, j + k, sums[k]); });
            },
            to + j);
    for (; j < columns; ++j)
        sums_in_double<1>(
            rows,
            [&]<class P>(std::type_identity<P> packet, Index i, P* sums) {
                term(packet, i, j, sums[0]);
            },
            to + j);
}

/// 1 / sqrt(square), as large as Scalar can say.
template <class Scalar>
[[nodiscard]] Scalar inverse_root(double square) {
    return static_cast<Scalar>(
        std::min(1 / std::sqrt(square), static_cast<double>(std::numeric_limits<Scalar>::max())));
}

/// Of a column, its mean in two parts, since its numbers may differ by less than a rounding of it,
/// and 1 / sqrt(variance + epsilon).
template <class Scalar_>
struct MeanAndDeviation {
    using Scalar = Scalar_;
    static constexpr bool centres = true;
    Scalar mean, rest_of_mean, inverse;

    /// By two passes, in double.
    /// \source Chan et al. 1983, Algorithms for Computing the Sample Variance.
    static void take(Index rows, Index columns, const Scalar* x, Index stride, double epsilon,
                     MeanAndDeviation* to) {
        const auto count = static_cast<double>(rows);
        Array<double, normalised_at_once> mean, squares;
        sums_of_columns(rows, columns, mean,
                        [&]<class P>(std::type_identity<P>, Index i, Index j, P& sum) {
                            sum = sum + P::load_converted(x + i + j * stride);
                        });
        for (Index j = 0; j < columns; ++j) mean[j] /= count;
        sums_of_columns(
            rows, columns, squares, [&]<class P>(std::type_identity<P>, Index i, Index j, P& sum) {
                const P deviation = P::load_converted(x + i + j * stride) - P::broadcast(mean[j]);
                sum = multiply_add(deviation, deviation, sum);
            });
        for (Index j = 0; j < columns; ++j) {
            const auto rounded = static_cast<Scalar>(mean[j]);
            to[j] = {rounded, static_cast<Scalar>(mean[j] - static_cast<double>(rounded)),
                     inverse_root<Scalar>(squares[j] / count + epsilon)};
        }
    }

    /// (x - mean) / sqrt(variance + epsilon).
    template <class P>
    [[nodiscard]] EIGEN_ALWAYS_INLINE P normalise(P x) const {
        using Number = typename P::Scalar;
        const auto as_packet = [](Scalar value) {
            return P::broadcast(static_cast<Number>(value));
        };
        return ((x - as_packet(mean)) - as_packet(rest_of_mean)) * as_packet(inverse);
    }
};

/// Of a column, 1 / sqrt(mean square + epsilon).
template <class Scalar_>
struct RootMeanSquare {
    using Scalar = Scalar_;
    static constexpr bool centres = false;
    Scalar inverse;

    static void take(Index rows, Index columns, const Scalar* x, Index stride, double epsilon,
                     RootMeanSquare* to) {
        const auto count = static_cast<double>(rows);
        Array<double, normalised_at_once> squares;
        sums_of_columns(rows, columns, squares,
                        [&]<class P>(std::type_identity<P>, Index i, Index j, P& sum) {
                            const P number = P::load_converted(x + i + j * stride);
                            sum = multiply_add(number, number, sum);
                        });
        for (Index j = 0; j < columns; ++j)
            to[j] = {inverse_root<Scalar>(squares[j] / count + epsilon)};
    }

    /// x / sqrt(mean square + epsilon).
    template <class P>
    [[nodiscard]] EIGEN_ALWAYS_INLINE P normalise(P x) const {
        return x * P::broadcast(static_cast<typename P::Scalar>(inverse));
    }
};

/// Column j of out = epilogue(entry(P, 0), entry(P, Lanes), ...), by packets P of at most Lanes. An
/// entry may be read where the column goes: the last packet, which may overlap the one before, is
/// computed first.
template <int Lanes, class Scalar, class Entry, class Epilogue>
EIGEN_ALWAYS_INLINE void write_column(Index rows, Index j, const Entry& entry,
                                      const Destination<Scalar>& out, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    if constexpr (Lanes > 1) {
        if (rows < Lanes) return write_column<P::narrower>(rows, j, entry, out, epilogue);
    }
    const std::type_identity<P> packet;
    const P last = epilogue(entry(packet, rows - Lanes), rows - Lanes, j);
    for (Index i = 0; i + Lanes < rows; i += Lanes)
        finish(epilogue, entry(packet, i), i, j, out, Origin{});
    if constexpr (!stores_elsewhere<Epilogue>) last.store(out.data + rows - Lanes + j * out.stride);
}

/// out = epilogue(gain * z + bias) for columns [first, first + count), z = normalised x. A bias only
/// where the normalisation centres. `moments`, if not null, keeps those of every column.
template <class Moments, class Scalar, class Epilogue>
void normalise_columns(Index rows, Index first, Index count, const Scalar* x, Index stride,
                       const Scalar* gain, const Scalar* bias, double epsilon, Moments* moments,
                       const Destination<Scalar>& out, const Epilogue& epilogue) {
    for (Index begin = first; begin < first + count; begin += normalised_at_once) {
        const Index columns = std::min(normalised_at_once, first + count - begin);
        Array<Moments, normalised_at_once> taken;
        Moments::take(rows, columns, x + begin * stride, stride, epsilon, taken);
        if (moments) std::copy_n(taken, columns, moments + begin);
        for (Index k = 0; k < columns; ++k) {
            const Moments m = taken[k];
            const Scalar* const from = x + (begin + k) * stride;
            const auto entry = [&]<class P>(std::type_identity<P>, Index i) {
                const P z = m.normalise(P::load(from + i));
                if constexpr (Moments::centres)
                    return multiply_add(z, P::load(gain + i), P::load(bias + i));
                else
                    return z * P::load(gain + i);
            };
            write_column<widest_lanes<Scalar>>(rows, begin + k, entry, out, epilogue);
        }
    }
}

/// The way back, for columns [first, first + count): with g = gain * dy and averages over a column,
///
///     out = epilogue((g - average(g) - z average(g z)) * inverse),
///
/// without average(g) where the normalisation does not centre.
template <class Moments, class Scalar, class Epilogue>
void differentiate_columns(Index rows, Index first, Index count, const Scalar* x, Index x_stride,
                           const Scalar* dy, Index dy_stride, const Scalar* gain,
                           const Moments* moments, const Destination<Scalar>& out,
                           const Epilogue& epilogue) {
    for (Index begin = first; begin < first + count; begin += normalised_at_once) {
        const Index columns = std::min(normalised_at_once, first + count - begin);
        double averages[normalised_at_once][2];
        for (Index k = 0; k < columns; ++k) {
            const Moments m = moments[begin + k];
            const Scalar* const numbers = x + (begin + k) * x_stride;
            const Scalar* const slopes = dy + (begin + k) * dy_stride;
            const auto add = [&]<class P>(std::type_identity<P>, Index i, P* sums) {
                const P g = P::load_converted(gain + i) * P::load_converted(slopes + i);
                const P z = m.normalise(P::load_converted(numbers + i));
                if constexpr (Moments::centres) sums[1] = sums[1] + g;
                sums[0] = multiply_add(g, z, sums[0]);
            };
            sums_in_double<Moments::centres ? 2 : 1>(rows, add, averages[k]);
        }
        for (Index k = 0; k < columns; ++k) {
            const Moments m = moments[begin + k];
            const Scalar* const numbers = x + (begin + k) * x_stride;
            const Scalar* const slopes = dy + (begin + k) * dy_stride;
            const auto average = [&](int n) {
                return static_cast<Scalar>(averages[k][n] / static_cast<double>(rows));
            };
            const Scalar of_gz = -average(0), of_g = Moments::centres ? average(1) : Scalar(0);
            const auto entry = [&]<class P>(std::type_identity<P>, Index i) {
                P g = P::load(gain + i) * P::load(slopes + i);
                if constexpr (Moments::centres) g = g - P::broadcast(of_g);
                const P z = m.normalise(P::load(numbers + i));
                return multiply_add(z, P::broadcast(of_gz), g) * P::broadcast(m.inverse);
            };
            write_column<widest_lanes<Scalar>>(rows, begin + k, entry, out, epilogue);
        }
    }
}

/// Adds to entries [first, first + count) of the gain's gradient the sums of dy z over the columns,
/// and to those of the bias', where the normalisation centres, the sums of dy: blocks of columns in
/// Scalar, and these in double, in order.
template <int Lanes, class Moments, class Scalar>
void add_gain_gradient(Index first, Index count, Index columns, const Scalar* x, Index x_stride,
                       const Scalar* dy, Index dy_stride, const Moments* moments, Scalar* gain,
                       Scalar* bias) {
    using P = Packet<Scalar, Lanes>;
    constexpr Index block = 32;
    Index i = first;
    for (; i + Lanes <= first + count; i += Lanes) {
        alignas(64) Array<Scalar, Lanes> part;
        Array<double, Lanes> of_gain = {}, of_bias = {};
        const auto join = [&](P sum, double* total) {
            sum.store(part);
            for (int lane = 0; lane < Lanes; ++lane) total[lane] += static_cast<double>(part[lane]);
        };
        for (Index begin = 0; begin < columns; begin += block) {
            P gains = P::broadcast(0), biases = gains;
            const Index end = std::min(columns, begin + block);
            for (Index j = begin; j < end; ++j) {
                const P slope = P::load(dy + i + j * dy_stride);
                gains =
                    multiply_add(slope, moments[j].normalise(P::load(x + i + j * x_stride)), gains);
                if constexpr (Moments::centres) biases = biases + slope;
            }
            join(gains, of_gain);
            if constexpr (Moments::centres) join(biases, of_bias);
        }
        for (int lane = 0; lane < Lanes; ++lane) {
            gain[i + lane] += static_cast<Scalar>(of_gain[lane]);
            if constexpr (Moments::centres) bias[i + lane] += static_cast<Scalar>(of_bias[lane]);
        }
    }
    if constexpr (Lanes > 1)
        if (i < first + count)
            add_gain_gradient<P::narrower>(i, first + count - i, columns, x, x_stride, dy,
                                           dy_stride, moments, gain, bias);
}

/// Multiply-adds for so many numbers, or as long as they take.
[[nodiscard]] inline double work_of_normalising(Index numbers) {
    return 8 * static_cast<double>(numbers);
}

/// y = epilogue(gain * z + bias), shared by a team.
/// \param moments  Null, or [columns], to be kept.
template <class Moments, class X, class Scalar, class Y, class Epilogue>
void normalise_batch(const Team& team, const X& x, const Scalar* gain,
                     const std::type_identity_t<Scalar>* bias, double epsilon, Moments* moments,
                     const Y& y, const Epilogue& epilogue) {
    const Destination<Scalar> out{view(y).data(), y.outerStride()};
    redirect(out, epilogue, Origin{}, [&](const auto& to, const auto& last_step) {
        team.split(x.cols(), normalised_at_once, work_of_normalising(x.rows()),
                   [&](Index first, Index count) {
                       normalise_columns(x.rows(), first, count, x.data(), x.outerStride(), gain,
                                         bias, epsilon, moments, to, last_step);
                   });
    });
}

/// The way back, shared by a team.
template <class Moments, class X, class Slope, class Scalar, class InputSlope, class Epilogue>
void differentiate_batch(const Team& team, const X& x, const Slope& dy, const Scalar* gain,
                         const Moments* moments, const InputSlope& dx, const Epilogue& epilogue) {
    const Destination<Scalar> out{view(dx).data(), dx.outerStride()};
    redirect(out, epilogue, Origin{}, [&](const auto& to, const auto& last_step) {
        team.split(x.cols(), normalised_at_once, work_of_normalising(x.rows()),
                   [&](Index first, Index count) {
                       differentiate_columns(x.rows(), first, count, x.data(), x.outerStride(),
                                             dy.data(), dy.outerStride(), gain, moments, to,
                                             last_step);
                   });
    });
}

/// The parameters' gradient, shared by a team: each member has some of the features.
template <class Moments, class X, class Slope, class Scalar>
void add_parameter_gradient(const Team& team, const X& x, const Slope& dy, const Moments* moments,
                            Scalar* gain, std::type_identity_t<Scalar>* bias) {
    constexpr int lanes = widest_lanes<Scalar>;
    team.split(x.rows(), lanes, work_of_normalising(x.cols()), [&](Index first, Index count) {
        add_gain_gradient<lanes>(first, count, x.cols(), x.data(), x.outerStride(), dy.data(),
                                 dy.outerStride(), moments, gain, bias);
    });
}

}  // namespace stochastic_depth::detail
