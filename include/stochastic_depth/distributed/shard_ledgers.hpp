// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What each shard of a step came to, and what all of them did.
class ShardLedgers {
public:
    /// \param ranks, tree  Must outlive this.
    ShardLedgers(const Communicator& ranks, const ShardTree& tree)
        : ranks_(&ranks),
          shards_(tree.shards_of(ranks.rank())),
          tree_of_one_(tree.shards(), 1),
          own_(static_cast<std::size_t>(shards_.count)) {
        int place = 0;
        for (int r = 0; r < ranks.size(); ++r) {
            counts_.push_back(static_cast<int>(of_rank + of_shard * tree.shards_of(r).count));
            places_.push_back(place);
            place += counts_.back();
        }
        told_.resize(static_cast<std::size_t>(counts_[static_cast<std::size_t>(ranks.rank())]));
        heard_.resize(static_cast<std::size_t>(place));
    }

    void clear() { std::fill(own_.begin(), own_.end(), StepLedger{}); }
    /// Of a shard of this rank.
    [[nodiscard]] StepLedger& of(Index shard) {
        return own_[static_cast<std::size_t>(shard - shards_.first)];
    }

    /// Loss and evaluations of all shards, the loss added in the tree's order; seconds of the slowest
    /// rank. Collective.
    /// \throws  as throw_together does, if one rank has failed.
    [[nodiscard]] StepLedger of_all(const Failure& failure) {
        tell(failure);
        check_mpi("MPI_Allgatherv", MPI_Allgatherv(told_.data(), static_cast<int>(told_.size()),
                                                   MPI_DOUBLE, heard_.data(), counts_.data(),
                                                   places_.data(), MPI_DOUBLE, ranks_->get()));
        bool any_failed = false;
        losses_.clear();
        StepLedger all;
        for (std::size_t r = 0; r < counts_.size(); ++r) {
            const double* told = heard_.data() + places_[r];
            const double* const end = told + counts_[r];
            any_failed = any_failed || told[0] != 0.0;
            all.forward_seconds = std::max(all.forward_seconds, told[1]);
            all.backward_seconds = std::max(all.backward_seconds, told[2]);
            for (told += of_rank; told != end; told += of_shard) {
                losses_.push_back(told[0]);
                all.layer_evaluations += told[1];
            }
        }
        if (any_failed) throw_together(*ranks_, failure);
        all.loss = tree_of_one_.sum(losses_);
        return all;
    }

private:
    /// Whether the rank has failed, and its seconds; of each shard loss and evaluations.
    static constexpr Index of_rank = 3, of_shard = 2;

    void tell(const Failure& failure) {
        double* to = told_.data() + of_rank;
        double forward_seconds = 0, backward_seconds = 0;
        for (const StepLedger& shard : own_) {
            forward_seconds += shard.forward_seconds;
            backward_seconds += shard.backward_seconds;
            *to++ = shard.loss;
            *to++ = shard.layer_evaluations;
        }
        told_[0] = failure ? 1 : 0;
        told_[1] = forward_seconds;
        told_[2] = backward_seconds;
    }

    const Communicator* ranks_;
    Consecutive shards_;  ///< this rank's
    ShardTree tree_of_one_;
    std::vector<StepLedger> own_;
    std::vector<int> counts_, places_;
    std::vector<double> told_, heard_, losses_;
};

}  // namespace stochastic_depth::detail
