// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/reached_by_some.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// to += from.
template <class Scalar>
void add_numbers(const Scalar* from, Index count, Scalar* to) {
    using Row = Eigen::Array<Scalar, Eigen::Dynamic, 1>;
    Eigen::Map<Row>(to, count) += Eigen::Map<const Row>(from, count);
}

/// The matrices of a gradient that some sample of a step reaches, as one row of numbers, in the order
/// in which the network names its parameters. Refers to the gradient.
template <class Scalar>
class GradientPieces {
public:
    /// Consecutive numbers of a skippable layer with all that is in it, or of what is in none.
    struct Group {
        Consecutive numbers;
        Consecutive pieces;
        bool* reached = nullptr;  ///< the layer's flag; null outside of skippable layers
    };

    /// Lists them; the gradient's flags say afterwards what is reached.
    template <class Network>
    void list(const Network& network, typename Network::Gradient& gradient,
              const ReachedBySome& reached) {
        pieces_.clear();
        groups_.clear();
        numbers_ = 0;
        const auto add_slope = [&](auto& slope, bool is_inside) {
            add(slope.data(), slope.size());
            if (!is_inside) end_group(nullptr);
        };
        const auto pass = [&](bool& flag) { end_group(&flag); };
        VisitReachedBySome visit{reached, add_slope, pass, entered_};
        visit_parameters(network, visit, gradient);
        if (visit.layers() != reached.depth())
            refuse("TrainingStep: network must name all of its ", reached.depth(),
                   " skippable layers in visit_parameters, got ", visit.layers());
    }
    /// Appends numbers that stand elsewhere.
    void append(Scalar* numbers, Index count) {
        add(numbers, count);
        end_group(nullptr);
    }

    /// Room for as many as another one has.
    void reserve_as(const GradientPieces& other) {
        pieces_.reserve(other.pieces_.size());
        groups_.reserve(other.groups_.size());
    }

    [[nodiscard]] Index numbers() const { return numbers_; }
    [[nodiscard]] std::span<const Group> groups() const { return groups_; }

    /// Moves a group's numbers to their places in a row of all, which are overwritten, or added to:
    /// behind, the group is zero, and its layer counts as not reached.
    void move_to(Scalar* row, const Group& group, bool adds) const {
        for (Index i = group.pieces.first; i < group.pieces.end(); ++i) {
            const Piece& piece = pieces_[static_cast<std::size_t>(i)];
            if (adds)
                add_numbers(piece.numbers, piece.count, row + piece.first);
            else
                std::copy_n(piece.numbers, piece.count, row + piece.first);
            std::fill_n(piece.numbers, piece.count, Scalar(0));
        }
        if (group.reached) *group.reached = false;
    }
    /// Adds some numbers of a row where they belong.
    void add_from(const Scalar* row, const Consecutive& numbers) const {
        for (const Piece& piece : pieces_) {
            const Index first = std::max(piece.first, numbers.first);
            const Index end = std::min(piece.first + piece.count, numbers.end());
            if (first < end)
                add_numbers(row + first, end - first, piece.numbers + (first - piece.first));
        }
    }

private:
    struct Piece {
        Scalar* numbers;
        Index count;
        Index first;  ///< place in the row
    };

    void add(Scalar* numbers, Index count) {
        pieces_.push_back({numbers, count, numbers_});
        numbers_ += count;
    }
    void end_group(bool* reached) {
        const Consecutive before = groups_.empty() ? Consecutive{} : groups_.back().pieces;
        const auto end = static_cast<Index>(pieces_.size());
        if (end == before.end()) return;
        const Index first = pieces_[static_cast<std::size_t>(before.end())].first;
        groups_.push_back({{first, numbers_ - first}, {before.end(), end - before.end()}, reached});
    }

    std::vector<Piece> pieces_;
    std::vector<Group> groups_;
    std::vector<EnteredLayer> entered_;
    Index numbers_ = 0;
};

}  // namespace stochastic_depth::detail
