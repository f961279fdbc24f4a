// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/pass/sequence_lengths.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

/// The positions of a batch's sequences side by side, as tokens: what runs over them knows nothing
/// of sequences, and padding costs nothing.
namespace stochastic_depth::detail {

/// Where a token stands: a position of the sequence in a column.
struct TokenPlace {
    Index position;
    Index column;
};

/// Tokens of a batch in the order of its columns; those of column j are number first[j] to
/// first[j + 1] - 1.
struct TokenList {
    const Index* first = nullptr;
    const TokenPlace* places = nullptr;
    Index columns = 0;

    [[nodiscard]] Index size() const { return first[columns]; }
    [[nodiscard]] Index length(Index column) const { return first[column + 1] - first[column]; }
    [[nodiscard]] Index longest() const {
        Index result = 0;
        for (Index j = 0; j < columns; ++j) result = std::max(result, length(j));
        return result;
    }

    /// Whether x, [width T x columns], is [width x tokens] as it stands.
    template <class X>
    [[nodiscard]] bool stand_side_by_side(const X& x, Index width) const {
        return size() * width == x.size() && (x.outerStride() == x.rows() || x.cols() < 2);
    }

    /// to = the tokens number `from` to `from + count - 1` of x, [width x count].
    template <class Scalar>
    void gather(const Team& team, const ConstView<Scalar>& x, Index width, Index from, Index count,
                Scalar* to) const {
        team.split(count, 1, 4.0 * static_cast<double>(width), [&](Index begin, Index some) {
            // Tokens that follow each other in a column are copied together.
            for (Index k = begin; k < begin + some;) {
                const TokenPlace place = places[from + k];
                const Index run = std::min(first[place.column + 1] - from, begin + some) - k;
                std::copy_n(x.data() + place.position * width + place.column * x.outerStride(),
                            run * width, to + k * width);
                k += run;
            }
        });
    }

    /// Calls run(team, j, end) for sequences j, ..., end - 1, a few at a time, of as many tokens as a
    /// product takes well and the cache holds: what one product leaves, the next finds there. A
    /// member of the team has sequences of its own; where they are few, it has a share in each.
    /// \param work  For a token.
    template <class Run>
    void in_groups(const Team& team, double work, const Run& run) const {
        constexpr Index tokens_at_once = 96;
        if (team.size() > 1 && columns < 4 * team.size()) return run(team, Index{0}, columns);
        team.split(size(), 1, work, [&](Index from, Index count) {
            const auto column_of = [&](Index token) {
                return std::lower_bound(first, first + columns, token) - first;
            };
            const Index end = column_of(from + count);
            for (Index j = column_of(from); j < end;) {
                Index next = j + 1;
                while (next < end && first[next + 1] - first[j] <= tokens_at_once) ++next;
                run(Team::alone(), j, next);
                j = next;
            }
        });
    }
};

/// The tokens of a batch, listed in memory of its own kind.
template <class Memory>
class ListedTokens {
public:
    /// \param in_column  Positions of a sequence that has no padding.
    template <class Batch>
    ListedTokens(const Batch& batch, Index in_column)
        : first_(count(batch, in_column)),
          places_(batch.template array<TokenPlace>(first_[batch.columns()])),
          list_{first_.data(), places_.data(), batch.columns()} {
        for (Index j = 0; j < list_.columns; ++j)
            for (Index k = first_[j]; k < first_[j + 1]; ++k) places_[k] = {k - first_[j], j};
    }

    /// As long as this, or its record, lives.
    [[nodiscard]] const TokenList& list() const { return list_; }

private:
    template <class Batch>
    [[nodiscard]] static auto count(const Batch& batch, Index in_column) {
        auto first = batch.template array<Index>(batch.columns() + 1);
        first[0] = 0;
        for (Index j = 0; j < batch.columns(); ++j)
            first[j + 1] = first[j] + length_of_sequence(batch.lengths(), j, in_column);
        return first;
    }

    typename Memory::template Array<Index> first_;
    typename Memory::template Array<TokenPlace> places_;
    TokenList list_;
};

/// Calls run(number of the first token, tokens, [width x tokens]) for those of x, [width positions x
/// sequences], all at once where they stand at equal distances.
template <class X, class Run>
void for_each_run_of_tokens(Index width, Index positions, const X& x, const Run& run) {
    const auto run_from = [&](Index j, Index columns) {
        run(positions * j,
            ConstView<typename X::Scalar>{x.data() + j * x.outerStride(), width,
                                          positions * columns, Eigen::OuterStride<>(width)});
    };
    if (positions == 1) return run(Index{0}, const_view(x));
    if (x.outerStride() == x.rows() || x.cols() == 1) return run_from(0, x.cols());
    for (Index j = 0; j < x.cols(); ++j) run_from(j, 1);
}

/// Epilogue of a product whose columns are tokens: what `epilogue` does in [width T x batch] at their
/// places, and there it is stored, unless that stores elsewhere itself.
template <class Scalar, class Epilogue>
struct AtTokens {
    static constexpr bool stores_elsewhere = true;
    Epilogue epilogue;
    Destination<Scalar> out;
    const TokenPlace* places;
    /// Rows of a token.
    Index width;

    /// That of the tokens from `first` on.
    [[nodiscard]] AtTokens from(Index first) const {
        return {epilogue, out, places + first, width};
    }

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index k) const {
        const Index row = i + places[k].position * width, column = places[k].column;
        const Packet result = epilogue(value, row, column);
        if constexpr (!detail::stores_elsewhere<Epilogue>)
            result.store(out.data + row + column * out.stride);
        return result;
    }
};

/// Rows from `row` on of `rows` rows of a column are zero but for the epilogue.
template <int Lanes, class Scalar, class Epilogue>
void finish_zeros(Index row, Index rows, Index column, const Destination<Scalar>& out,
                  const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    if constexpr (Lanes > 1)
        if (rows - row < Lanes)
            return finish_zeros<P::narrower>(row, rows, column, out, epilogue);
    for (; row < rows; row += Lanes)
        finish(epilogue, P::broadcast(Scalar(0)), std::min(row, rows - Lanes), column, out, {});
}

/// Calls run(epilogue) with the epilogue of a product over tokens, after the padding of y,
/// [width T x batch], has been written: y = epilogue(product), and there epilogue(0).
template <class Scalar, class Y, class Epilogue, class Run>
void run_at_tokens(const Team& team, const TokenList& tokens, Index width, const Y& y,
                   const Epilogue& epilogue, const Run& run) {
    redirect(Destination<Scalar>{view(y).data(), y.outerStride()}, epilogue, {},
             [&](const Destination<Scalar>& to, const auto& last_step) {
                 if (tokens.size() * width < y.size())
                     team.split(tokens.columns, 1, 4.0 * static_cast<double>(y.rows()),
                                [&](Index first, Index count) {
                                    for (Index j = first; j < first + count; ++j)
                                        finish_zeros<widest_lanes<Scalar>>(
                                            width * tokens.length(j), y.rows(), j, to, last_step);
                                });
                 using LastStep = std::remove_cvref_t<decltype(last_step)>;
                 run(AtTokens<Scalar, LastStep>{last_step, to, tokens.places, width});
             });
}

}  // namespace stochastic_depth::detail
