// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/distributed/agreement.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/distributed_options.hpp>
#include <stochastic_depth/distributed/fingerprint.hpp>
#include <stochastic_depth/distributed/merged_blocks.hpp>
#include <stochastic_depth/distributed/sum_file.hpp>
#include <stochastic_depth/distributed/sum_ledger.hpp>
#include <stochastic_depth/distributed/sum_watch.hpp>
#include <stochastic_depth/distributed/work_sharing.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/law_mask_source.hpp>
#include <stochastic_depth/expectation/mask_sample.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/expectation/sample_moments.hpp>
#include <stochastic_depth/expectation/sampled_blocks.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

/// Many sampled masks on many machines. Needs MPI and POSIX, for which reason it is not part of
/// all.hpp.
namespace stochastic_depth {

struct DistributedMonteCarloOptions : DistributedOptions {
    /// Number of masks, at least 1.
    Index samples = 1'000'000;
    std::uint64_t seed = 0;
};

/// Mean and variance of the network output, estimated from random masks by the ranks of a
/// communicator: the same bits whatever their number, and on every rank.
///
/// The masks are those of MonteCarloExpectation with independent masks: mask k is that of sample k
/// of step 0 of `MaskSampler{p, seed}`. Blocks of 8192 of them, the last one with what is left
/// besides, are the pieces that ranks are handed out; their estimates are merged in the order of the
/// blocks. A mean differs from that of MonteCarloExpectation by rounding, a variance by what blocks
/// don't know of each other.
///
/// Ranks, file and failures are as DistributedExpectation has them.
class DistributedMonteCarlo {
public:
    /// Collective, as every call is; as DistributedExpectation is made.
    /// \throws std::invalid_argument  besides, if samples is less than 1.
    DistributedMonteCarlo(DistributedMonteCarloOptions options, MPI_Comm ranks)
        : ranks_("DistributedMonteCarlo", ranks), options_(std::move(options)) {
        detail::together(ranks_, [&] {
            detail::check_options(ranks_.who(), options_);
            if (options_.samples < 1)
                detail::refuse(ranks_.who(), ": samples must be at least 1, got ",
                               options_.samples);
        });
    }

    /// \param network  L skippable layers, the same on every rank.
    /// \param x        Inputs, [features x batch], the same on every rank.
    /// \returns        The estimate. Where the progress callback has asked to stop, that from the
    ///                 first blocks that are finished, which is what fewer samples would have given.
    /// \throws Cancelled  on every rank, if there is none; and as DistributedExpectation does.
    /// \complexity     As MonteCarloExpectation, shared by the ranks.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return (*this)(network, x, IndependentLaw{network.survival_probabilities()});
    }

    /// The same from masks of a law: mask k is that of sample k of step 0 of
    /// `LawMaskSampler{law, seed}`.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        Index outputs = 0;
        std::vector<detail::AgreedValue> values;
        detail::together(ranks_, [&] {
            outputs = network.output_size(x.rows());
            detail::check_law(ranks_.who(), law, network.depth());
            values = detail::fingerprint(network, x, law);
            values.push_back({"number of samples", detail::message(options_.samples)});
            values.push_back({"seed", detail::message(options_.seed)});
        });
        std::vector<detail::AgreedValue> all{{"the build", detail::build()}};
        all.insert(all.end(), values.begin(), values.end());
        all.push_back({"path", options_.path});
        detail::check_lines(ranks_, all);
        const auto source = source_of(network, law);
        Blocks blocks{outputs, x.cols(), options_.samples};
        run(blocks, values, [&](std::uint64_t block) {
            const auto [first, count] = blocks.samples_of(block);
            const detail::MaskSample sample = source.sample(first, count);
            detail::SampleMoments moments(outputs, x.cols());
            const detail::SampledBlocks<Network> columns(network, x, sample, options_.threads,
                                                         moments.view());
            columns.run(0, columns.count());
            moments.samples = count;
            moments.spread = detail::spread_of(sample);
            return blocks.numbers_of(moments, sample.masks.layer_evaluations());
        });
        return result_of<typename Network::Scalar>(blocks, outputs, x.cols());
    }

private:
    using Blocks = detail::MergedBlocks;

    template <class Network, class Law>
    [[nodiscard]] auto source_of(const Network& network, const Law& law) const {
        std::vector<Index> enclosing = detail::enclosing_layers(network);
        if constexpr (std::is_same_v<Law, IndependentLaw>)
            return detail::MaskSource(law.survival_probabilities(), std::move(enclosing),
                                      {.seed = options_.seed});
        else
            return detail::LawMaskSource<Law>(law, std::move(enclosing), options_.seed);
    }

    template <class Compute>
    void run(Blocks& blocks, const std::vector<detail::AgreedValue>& values,
             const Compute& compute) const {
        const detail::SumFile<double> file(ranks_.who(), options_.path, values);
        detail::SumWatch watch(options_, 1);
        watch.begin_sweep();
        const auto save = [&] {
            file.save(watch.seconds(), 1,
                      [&](std::size_t, const auto& visit) { blocks.for_each_node(visit); });
        };
        detail::SumLedger<double, Blocks, decltype(save)> ledger(blocks, watch, save);
        const bool leads = ranks_.rank() == 0;
        detail::together(ranks_, [&] {
            if (!leads) return;
            const detail::FinishedSum<double> before = file.load();
            watch.begin_after(before.seconds);
            file.named_in_failures([&] {
                for (const auto& sweep : before.sweeps)
                    for (const auto& node : sweep)
                        blocks.restore(node.first, node.count, node.numbers);
            });
            save();
        });
        detail::WorkSharing sharing(ranks_);
        const auto bytes_of = [&](std::uint64_t block, const std::atomic<bool>&) {
            return detail::bytes_of_numbers(compute(block));
        };
        try {
            (void)(leads ? sharing.lead(ledger, bytes_of) : sharing.follow(bytes_of));
        } catch (...) {
            try {
                if (leads) save();
            } catch (const std::exception&) {
                // The caller has to hear of what has failed first.
            }
            throw;
        }
        detail::together(ranks_, [&] {
            if (!leads) return;
            save();
            watch.tell(blocks.finished(), blocks.count());
        });
    }

    /// What rank 0 has merged, on every rank.
    template <class Scalar>
    [[nodiscard]] ExpectationResult<Scalar> result_of(Blocks& blocks, Index outputs,
                                                      Index batch) const {
        std::vector<double> numbers = blocks.merged();
        numbers.resize(blocks.numbers());
        ranks_.share(std::span<double>(numbers));
        detail::SampleMoments moments = blocks.moments_of(numbers);
        if (moments.samples == 0)
            throw Cancelled("DistributedMonteCarlo: stopped by its progress callback");
        ExpectationResult<Scalar> result;
        detail::write_result(moments.view(), outputs, batch, result);
        result.degrees_of_freedom = detail::degrees_of_freedom(moments.samples, moments.spread);
        result.layer_evaluations = blocks.evaluations_of(numbers);
        result.samples = moments.samples;
        return result;
    }

    detail::Communicator ranks_;
    DistributedMonteCarloOptions options_;
};

}  // namespace stochastic_depth
