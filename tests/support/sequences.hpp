// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/types.hpp>

#include "support/whole.hpp"

/// Sequences of tokens, for the tests of layers that take them.
namespace stochastic_depth::test {

struct Sequences {
    /// [positions x batch], -1 behind the end.
    Matrix<double> tokens;
    std::vector<Index> lengths;

    [[nodiscard]] Index length(Index j) const { return lengths[static_cast<std::size_t>(j)]; }
    /// The tokens of one sequence, without padding.
    [[nodiscard]] Matrix<double> alone(Index j) const { return tokens.col(j).head(length(j)); }
};

/// Lengths from 1 to `positions`, ids below `vocabulary`.
[[nodiscard]] inline Sequences random_sequences(Philox& random, Index positions, Index batch,
                                                Index vocabulary) {
    Sequences result{Matrix<double>::Constant(positions, batch, -1), {}};
    for (Index j = 0; j < batch; ++j) {
        result.lengths.push_back(whole(random, 1, positions));
        for (Index t = 0; t < result.lengths.back(); ++t)
            result.tokens(t, j) = static_cast<double>(whole(random, 0, vocabulary - 1));
    }
    return result;
}

}  // namespace stochastic_depth::test
