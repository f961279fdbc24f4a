// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <cstddef>
#include <deque>
#include <utility>

#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/distributed_options.hpp>
#include <stochastic_depth/distributed/shared_tree.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/expectation/progress.hpp>

/// What layers are worth, exactly, on many machines. Needs MPI and POSIX, for which reason it is not
/// part of all.hpp.
namespace stochastic_depth {

/// Shapley and Banzhaf values of the layers, computed by the ranks of a communicator: bit for bit
/// what `shapley_values` and `banzhaf_values` answer, whatever their number, and on every rank.
///
/// Subtrees, ranks and file are as DistributedExpectation has them; one file serves all sweeps of a
/// sum. There is no estimate to answer with: a sum that is asked to stop throws Cancelled, and goes
/// on from its file.
class DistributedLayerValues {
public:
    /// Collective, as every call is; as DistributedExpectation is made.
    DistributedLayerValues(SharedTreeOptions options, MPI_Comm ranks)
        : ranks_("DistributedLayerValues", ranks), options_(std::move(options)) {
        detail::together(ranks_, [&] { detail::check_options(ranks_.who(), options_); });
    }

    /// \param network  L skippable layers, the same on every rank.
    /// \param x        Inputs, [features x batch], the same on every rank.
    /// \throws Cancelled  on every rank, if the progress callback asks to stop; and as
    ///                    DistributedExpectation does.
    /// \complexity  ceil(L / 2) sweeps of 2^L - 1 layer evaluations for each column, over all ranks.
    template <MaskedNetwork Network>
    [[nodiscard]] LayerValues<typename Network::Scalar> shapley(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return compute("Shapley values", network, x, detail::SlopeRule::shapley(network.depth()));
    }

    /// The same of the Banzhaf values, in one sweep.
    template <MaskedNetwork Network>
    [[nodiscard]] LayerValues<typename Network::Scalar> banzhaf(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return compute("Banzhaf values", network, x, detail::SlopeRule::banzhaf());
    }

private:
    /// Survival probabilities of a sweep, as the tree takes them.
    struct Sweep {
        Eigen::VectorXd p;
        Eigen::Ref<const Eigen::VectorXd> probabilities{p};
        detail::IndependentBits bits{probabilities};

        explicit Sweep(Eigen::VectorXd p_) : p(std::move(p_)) {}
        Sweep(const Sweep&) = delete;
        Sweep& operator=(const Sweep&) = delete;
    };

    template <class Network, class Scalar = typename Network::Scalar>
    [[nodiscard]] LayerValues<Scalar> compute(const char* what, const Network& network,
                                              const ConstMatrixRef<Scalar>& x,
                                              const detail::SlopeRule& rule) const {
        const Index depth = network.depth(), nodes = rule.nodes.size();
        double evaluations = 0;
        Index outputs = 0;
        detail::together(ranks_, [&] {
            outputs = network.output_size(x.rows());
            evaluations = detail::evaluations_of_whole_tree(network);
            detail::check_budget(ranks_.who(), depth, static_cast<double>(nodes) * evaluations,
                                 options_.max_layer_evaluations, "use sampled_shapley_values");
        });
        // None is moved: the tree holds on to them.
        std::deque<Sweep> sweeps;
        for (Index k = 0; k < nodes; ++k)
            sweeps.emplace_back(Eigen::VectorXd::Constant(depth, rule.nodes(k)));
        detail::SharedTree<detail::Sweep::derivatives, Network, detail::IndependentBits> tree(
            ranks_, network, x, sweeps[0].bits, {what, evaluations, static_cast<int>(nodes)},
            options_);
        Matrix<Scalar> mean(outputs, x.cols()), variance(outputs, x.cols());
        const Index size = mean.size();
        try {
            return detail::mean_slopes_by<Scalar>(
                outputs, x.cols(), depth, static_cast<double>(nodes) * evaluations, rule,
                [&](Index k, const Eigen::VectorXd&) {
                    ByLayer<Scalar> slopes(outputs, x.cols(), depth);
                    detail::MomentsView<Scalar> to{mean.data(), variance.data(), outputs};
                    // The tree counts layers from the last one on.
                    if (size > 0 && depth > 0) {
                        to.derivatives = {slopes.values().col(depth - 1).data(), -size, false};
                        tree.run(network, x, sweeps[static_cast<std::size_t>(k)].bits, to);
                    }
                    return slopes;
                });
        } catch (const detail::SweepStopped&) {
            throw Cancelled("DistributedLayerValues: stopped by its progress callback");
        }
    }

    detail::Communicator ranks_;
    SharedTreeOptions options_;
};

}  // namespace stochastic_depth
