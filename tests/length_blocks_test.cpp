// SPDX-License-Identifier: MIT
#include <stochastic_depth/text/length_blocks.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::MatrixXf;

/// Sequences of these lengths, whose tokens are the numbers of their columns.
MatrixXf sequences(const std::vector<Index>& lengths, Index positions) {
    MatrixXf ids = MatrixXf::Constant(positions, static_cast<Index>(lengths.size()), -1);
    for (Index j = 0; j < ids.cols(); ++j)
        ids.col(j).head(lengths[static_cast<std::size_t>(j)]).setConstant(static_cast<float>(j));
    return ids;
}

TEST_CASE("length_blocks: each sequence is in one block, whole, from short to long",
          "[length_blocks]") {
    const std::vector<Index> lengths{3, 1, 5, 1, 2, 5, 4, 3, 1, 2};
    const MatrixXf ids = sequences(lengths, 7);
    for (const Index at_once : {1, 2, 3, 10, 100}) {
        std::vector<Index> seen;
        for (const auto& block : length_blocks(ids, at_once)) {
            REQUIRE(block.inputs.cols() == static_cast<Index>(block.samples.size()));
            CHECK(block.inputs.cols() <= at_once);
            Index longest = 0;
            for (Index j = 0; j < block.inputs.cols(); ++j) {
                const Index sample = block.samples[static_cast<std::size_t>(j)];
                const Index length = lengths[static_cast<std::size_t>(sample)];
                longest = std::max(longest, length);
                REQUIRE(block.inputs.rows() >= length);
                CHECK(block.inputs.col(j) == ids.col(sample).head(block.inputs.rows()));
                seen.push_back(sample);
            }
            CHECK(block.inputs.rows() == longest);
        }
        CHECK(seen == std::vector<Index>{1, 3, 8, 4, 9, 0, 7, 6, 2, 5});
    }
}

TEST_CASE("length_blocks: no sequences, and sequences without tokens, lose nothing",
          "[length_blocks]") {
    CHECK(length_blocks(MatrixXd(4, 0), 3).empty());
    const auto blocks = length_blocks(MatrixXd::Constant(4, 2, -1), 3);
    REQUIRE(blocks.size() == 1);
    CHECK(blocks[0].inputs == MatrixXd::Constant(1, 2, -1));
    CHECK(test::refusal([] { (void)length_blocks(MatrixXd(4, 2), 0); }) ==
          "length_blocks: samples_at_once must be at least 1, got 0");
}

}  // namespace
