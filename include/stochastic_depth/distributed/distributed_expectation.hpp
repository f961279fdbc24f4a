// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/distributed_options.hpp>
#include <stochastic_depth/distributed/shared_tree.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

/// The exact tree on many machines. Needs MPI and POSIX, for which reason it is not part of all.hpp.
namespace stochastic_depth {

struct DistributedExpectationOptions : SharedTreeOptions {
    /// Masks of the estimate that is the answer where the progress callback has asked to stop; 0:
    /// Cancelled is thrown then.
    Index samples_when_stopped = 1000;
    /// Of those masks.
    std::uint64_t seed = 0;
};

/// Exact mean and variance of the network output over all 2^L survival masks, computed by the ranks
/// of a communicator: bit for bit what `ExactExpectation` answers, whatever their number, and on
/// every rank.
///
/// The tree of masks is cut into the subtrees below the prefixes of its first layers, many more than
/// there are ranks. Rank 0 hands them out as ranks get free, computes like the others, and combines
/// what comes back in the order of the tree. What is finished is kept in a file, from which a run that was
/// killed goes on, on any number of ranks, with the same bits.
///
/// A rank that throws lets all of them throw. A rank that dies ends the job, as MPI's launchers see
/// to; all but the last `save_seconds` are in the file then.
class DistributedExpectation {
public:
    /// Collective, as every call is.
    ///
    /// \param ranks  Of a program that has called MPI_Init. Duplicated; the object must be gone
    ///               before MPI_Finalize.
    /// \throws std::invalid_argument  if an option is out of range, MPI_Init was not called, or ranks
    ///                                is MPI_COMM_NULL or between two groups.
    DistributedExpectation(DistributedExpectationOptions options, MPI_Comm ranks)
        : ranks_("DistributedExpectation", ranks), options_(std::move(options)) {
        detail::together(ranks_, [&] {
            detail::check_options(ranks_.who(), options_);
            if (options_.samples_when_stopped < 0)
                detail::refuse(ranks_.who(), ": samples_when_stopped must be at least 0, got ",
                               options_.samples_when_stopped);
        });
    }

    /// \param network  L skippable layers, the same on every rank.
    /// \param x        Inputs, [features x batch], the same on every rank.
    /// \returns        Mean and variance, [outputs x batch]; standard errors of 0. Where the progress
    ///                 callback has asked to stop, the estimate of MonteCarloExpectation:
    ///                 `ExpectationResult::method` tells.
    /// \throws std::invalid_argument  if the network cannot take x, or build, network, inputs or
    ///                                options are not the same on every rank, which is named.
    /// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
    /// \throws std::runtime_error     naming the file and what is wrong, if it cannot be read or
    ///                                written, or is of another sum, whose difference is named;
    ///                                naming the rank, if one of the others has failed.
    /// \throws Cancelled              on every rank, if the progress callback asks to stop and no
    ///                                estimate is wanted.
    /// \complexity     2^L - 1 layer evaluations for each column, over all ranks, and the prefix once
    ///                 more for each subtree; O(L) blocks of memory for each thread, and on rank 0,
    ///                 O(L) moments for each rank that is behind the others.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return of_independent(network, x, network.survival_probabilities());
    }

    /// The same over the masks of a law, in place of independent ones of the network's p_l.
    ///
    /// \param law  A MaskLaw of L layers.
    /// \throws std::invalid_argument  besides, if the law has another depth or a probability outside
    ///                                [0, 1].
    /// \throws std::length_error      besides, if more than 2^20 of its states differ behind a layer.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        detail::together(ranks_, [&] { detail::check_law(ranks_.who(), law, network.depth()); });
        if constexpr (std::is_same_v<Law, IndependentLaw>) {
            return of_independent(network, x, law.survival_probabilities());
        } else {
            const detail::TreeLaw<Network, Law> tree_law{law};
            return compute(network, x, tree_law, law);
        }
    }

private:
    template <class Network, class Scalar = typename Network::Scalar>
    [[nodiscard]] ExpectationResult<Scalar> of_independent(const Network& network,
                                                           const ConstMatrixRef<Scalar>& x,
                                                           const Eigen::VectorXd& p) const {
        const Eigen::Ref<const Eigen::VectorXd> probabilities(p);
        return compute(network, x, detail::IndependentBits{probabilities}, IndependentLaw{p});
    }

    /// \param tree_law  The law as the tree takes it.
    template <class Network, class TreeLaw, class Law, class Scalar = typename Network::Scalar>
    [[nodiscard]] ExpectationResult<Scalar> compute(const Network& network,
                                                    const ConstMatrixRef<Scalar>& x,
                                                    const TreeLaw& tree_law, const Law& law) const {
        ExpectationResult<Scalar> result;
        detail::together(ranks_, [&] {
            const Index outputs = network.output_size(x.rows());
            result.layer_evaluations = detail::evaluations_under(tree_law, network);
            detail::check_budget(ranks_.who(), law.depth(), result.layer_evaluations,
                                 options_.max_layer_evaluations);
            result.degrees_of_freedom = std::numeric_limits<double>::infinity();
            result.mean.resize(outputs, x.cols());
            result.variance.resize(outputs, x.cols());
            result.standard_error.setConstant(outputs, x.cols(), Scalar(0));
        });
        try {
            detail::SharedTree<detail::Sweep::moments, Network, TreeLaw> tree(
                ranks_, network, x, tree_law,
                {.what = "mean and variance",
                 .evaluations = result.layer_evaluations,
                 .agreed = {{"samples_when_stopped",
                             detail::message(options_.samples_when_stopped)},
                            {"seed", detail::message(options_.seed)}}},
                options_);
            tree.run(network, x, tree_law,
                     {result.mean.data(), result.variance.data(), result.mean.rows()});
            return result;
        } catch (const detail::SweepStopped&) {
            if (options_.samples_when_stopped == 0)
                throw Cancelled("DistributedExpectation: stopped by its progress callback");
            return MonteCarloExpectation{{.samples = options_.samples_when_stopped,
                                          .seed = options_.seed,
                                          .threads = options_.threads}}(network, x, law);
        }
    }

    detail::Communicator ranks_;
    DistributedExpectationOptions options_;
};

}  // namespace stochastic_depth
