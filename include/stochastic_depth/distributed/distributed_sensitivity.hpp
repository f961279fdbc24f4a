// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <type_traits>
#include <utility>

#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/distributed_options.hpp>
#include <stochastic_depth/distributed/shared_tree.hpp>
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/survival/independent_law.hpp>

/// The exact tree with its derivatives on many machines. Needs MPI and POSIX, for which reason it is
/// not part of all.hpp.
namespace stochastic_depth {

struct DistributedSensitivityOptions : SharedTreeOptions {
    SensitivityOrder order = SensitivityOrder::layers;
};

/// Exact derivatives of f_SD by the survival probabilities, and what DistributedExpectation computes,
/// by the ranks of a communicator: bit for bit what `ExactSensitivity` answers, whatever their
/// number, and on every rank.
///
/// Subtrees, ranks and file are as DistributedExpectation has them. There is no estimate to answer
/// with: a sum that is asked to stop throws Cancelled, and goes on from its file.
class DistributedSensitivity {
public:
    /// Collective, as every call is; as DistributedExpectation is made.
    DistributedSensitivity(DistributedSensitivityOptions options, MPI_Comm ranks)
        : ranks_("DistributedSensitivity", ranks), options_(std::move(options)) {
        detail::together(ranks_, [&] { detail::check_options(ranks_.who(), options_); });
    }

    /// \param network  L skippable layers, the same on every rank.
    /// \param x        Inputs, [features x batch], the same on every rank.
    /// \throws Cancelled  on every rank, if the progress callback asks to stop; and as
    ///                    DistributedExpectation does.
    /// \complexity  As ExactSensitivity, shared by the ranks; on rank 0, the moments and derivatives
    ///              of O(L) nodes for each rank that is behind the others.
    template <MaskedNetwork Network>
    [[nodiscard]] Sensitivities<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return (*this)(network, x, IndependentLaw{network.survival_probabilities()});
    }

    /// The same at other survival probabilities than the network's.
    ///
    /// \param law  An IndependentLaw: masks of other laws have no p_l to differentiate by, which a
    ///             compile-time error says.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] Sensitivities<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        static_assert(std::is_same_v<Law, IndependentLaw>,
                      "DistributedSensitivity: derivatives by p_l are those of independent masks; "
                      "the law must be an IndependentLaw");
        using Scalar = typename Network::Scalar;
        double evaluations = 0;
        detail::together(ranks_, [&] {
            (void)network.output_size(x.rows());
            detail::check_law(ranks_.who(), law, network.depth());
            evaluations = detail::evaluations_of_whole_tree(network);
            detail::check_budget(ranks_.who(), network.depth(), evaluations,
                                 options_.max_layer_evaluations);
        });
        const Eigen::Ref<const Eigen::VectorXd> p(law.survival_probabilities());
        const detail::IndependentBits bits{p};
        const bool is_by_pair = options_.order == SensitivityOrder::pairs;
        const auto sweep = [&]<detail::Sweep what>(detail::SweepOf<what>,
                                                   const detail::MomentsView<Scalar>& to) {
            detail::SharedTree<what, Network, detail::IndependentBits> tree(
                ranks_, network, x, bits,
                {is_by_pair ? "derivatives by pairs of layers" : "derivatives by layers",
                 evaluations, 1, is_by_pair},
                options_);
            tree.run(network, x, bits, to);
        };
        try {
            return detail::differentiate_by<Scalar>(network.output_size(x.rows()), x.cols(),
                                                    network.depth(), evaluations, options_.order,
                                                    sweep);
        } catch (const detail::SweepStopped&) {
            throw Cancelled("DistributedSensitivity: stopped by its progress callback");
        }
    }

private:
    detail::Communicator ranks_;
    DistributedSensitivityOptions options_;
};

}  // namespace stochastic_depth
