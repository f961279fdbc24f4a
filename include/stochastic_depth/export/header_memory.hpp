// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The working memory of a written function, shared out while it is written: a piece for each set of
/// numbers that is still needed, used again by the next once it no longer is.
class HeaderMemory {
public:
    /// A piece, by its number; given back with the last copy of this.
    using Piece = std::shared_ptr<const std::size_t>;

    /// A piece for so many numbers: the smallest free one that has room, else the largest, made
    /// larger, else a new one.
    [[nodiscard]] Piece take(Index size) {
        State& state = *state_;
        const auto suits_better = [&](std::size_t a, std::size_t b) {
            const Index of_a = state.sizes[a], of_b = state.sizes[b];
            if ((of_a >= size) != (of_b >= size)) return of_a >= size;
            return of_a >= size ? of_a < of_b : of_a > of_b;
        };
        const auto best = std::min_element(state.free.begin(), state.free.end(), suits_better);
        std::size_t number = state.sizes.size();
        if (best == state.free.end()) {
            state.sizes.push_back(size);
        } else {
            number = *best;
            state.free.erase(best);
            state.sizes[number] = std::max(state.sizes[number], size);
        }
        return {new std::size_t(number), [shared = state_](const std::size_t* piece) {
                    shared->free.push_back(*piece);
                    delete piece;
                }};
    }

    /// How many numbers each piece holds.
    [[nodiscard]] const std::vector<Index>& sizes() const { return state_->sizes; }

private:
    struct State {
        std::vector<Index> sizes;
        std::vector<std::size_t> free;
    };
    std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace stochastic_depth::detail
