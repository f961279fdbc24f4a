// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/expectation/moments.hpp>
#include <stochastic_depth/kernels/matrix_tile.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// How wide the blocks of columns are that the tree of mask prefixes is walked in.
template <class Scalar, Sweep sweep>
class BlockWidths {
public:
    /// \param most_rows  Of activations on their way.
    /// \param outputs    Rows of the network's output.
    BlockWidths(Index most_rows, Index outputs, unsigned threads)
        : threads_(threads), block_(of_block(most_rows, outputs)) {}

    /// Columns to reach in the wide phase, which one thread walks: enough for all to share, and no
    /// more.
    [[nodiscard]] Index wide() const {
        return threads_ > 1 ? pieces_of_thread * std::min<Index>(threads_, 64) * fewest()
                            : 2 * block_;
    }

    /// The width of the pieces that some columns are dealt out in: whole blocks, or less where
    /// threads would be left without.
    [[nodiscard]] Index of_piece(Index columns) const {
        if (threads_ == 1) return block_;
        const Index share = columns / (pieces_of_thread * threads_);
        const Index tiles = (share + tile_columns - 1) / tile_columns * tile_columns;
        return std::clamp(tiles, fewest(), block_);
    }

private:
    /// Pieces for each of several threads, so that they share evenly.
    static constexpr Index pieces_of_thread = 4;

    /// As many columns as keep the blocks that are in use at a time in the second-level cache, in
    /// whole tiles of the product. A node with r layers after it has r derivatives waiting: of the
    /// last eight layers these are 28 blocks, in use all the time.
    [[nodiscard]] static Index of_block(Index most_rows, Index outputs) {
        const auto columns_in = [](Index bytes, Index rows) {
            return bytes / (std::max<Index>(rows, 1) * static_cast<Index>(sizeof(Scalar)));
        };
        Index fitting = columns_in(24 * 1024, most_rows);
        if constexpr (sweep == Sweep::derivatives)
            fitting = std::min(fitting, columns_in(6 * 1024, outputs));
        return std::clamp<Index>(fitting / tile_columns * tile_columns, 4 * tile_columns,
                                 32 * tile_columns);
    }

    /// The fewest columns of a piece: as many as make a good product.
    [[nodiscard]] Index fewest() const { return std::min<Index>(8 * tile_columns, block_); }

    unsigned threads_;
    Index block_;
};

}  // namespace stochastic_depth::detail
