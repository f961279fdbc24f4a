// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/expectation/mask_trie.hpp>
#include <stochastic_depth/expectation/sample_moments.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/threads/parallel.hpp>

namespace stochastic_depth::detail {

/// A batch under the masks of a sample: blocks of columns, each of which passes the network under
/// all masks and leaves its moments.
template <class Network>
class SampledBlocks {
public:
    using Scalar = typename Network::Scalar;

    /// \param x   [features x batch].
    /// \param to  [outputs x batch].
    SampledBlocks(const Network& network, const ConstMatrixRef<Scalar>& x, const MaskSample& sample,
                  unsigned threads, const SampleMomentsView& to)
        : network_(network),
          x_(x),
          sample_(sample),
          threads_(threads),
          to_(to),
          outputs_(network.output_size(x.rows())),
          width_(std::clamp<Index>(
              kept_outputs / std::max<Index>(1, sample.masks.size() * outputs_), 1,
              block_columns)) {}

    [[nodiscard]] Index count() const { return (x_.cols() + width_ - 1) / width_; }

    /// Blocks [first, first + count).
    void run(Index first, Index count) const {
        const bool blocks_for_all = this->count() >= 4 * static_cast<Index>(threads_);
        const Index columns = std::min(width_, x_.cols()) * (blocks_for_all ? count : 1);
        const unsigned threads =
            threads_ == 1 ? 1
                          : threads_for(network_, x_.rows(), columns,
                                        sample_.masks.layer_evaluations(), threads_);
        parallel_for(count, blocks_for_all ? threads : 1,
                     [&](Index k) { run_block(first + k, blocks_for_all ? 1 : threads); });
    }

private:
    /// Columns of x that pass the network together, at most.
    static constexpr Index block_columns = 96;
    /// Outputs of all masks that are kept at a time.
    static constexpr Index kept_outputs = Index{1} << 22;

    void run_block(Index block, unsigned threads) const {
        const Index first = block * width_;
        const Index columns = std::min(width_, x_.cols() - first);
        const ScratchArray<Scalar> y(outputs_ * columns * sample_.masks.size());
        MaskTrie<Scalar>(sample_.masks, outputs_, threads)
            .walk(network_, x_.middleCols(first, columns), y.data());
        estimate_moments(sample_, y.data(), outputs_ * columns, to_.from(first * outputs_));
    }

    const Network& network_;
    const ConstMatrixRef<Scalar>& x_;
    const MaskSample& sample_;
    unsigned threads_;
    SampleMomentsView to_;
    Index outputs_;
    Index width_;
};

}  // namespace stochastic_depth::detail
