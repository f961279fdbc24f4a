// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/distributed/agreement.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/distributed_options.hpp>
#include <stochastic_depth/distributed/fingerprint.hpp>
#include <stochastic_depth/distributed/finished_subtrees.hpp>
#include <stochastic_depth/distributed/subtrees.hpp>
#include <stochastic_depth/distributed/sum_file.hpp>
#include <stochastic_depth/distributed/sum_ledger.hpp>
#include <stochastic_depth/distributed/sum_watch.hpp>
#include <stochastic_depth/distributed/tree_cut.hpp>
#include <stochastic_depth/distributed/work_sharing.hpp>
#include <stochastic_depth/expectation/prefix_tree.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/expectation/tree_sweep.hpp>
#include <stochastic_depth/pass/work.hpp>

namespace stochastic_depth::detail {

/// Thrown on every rank where the progress callback has asked to stop.
struct SweepStopped {};

/// What is summed up.
struct SharedSum {
    /// As messages call it.
    std::string what;
    /// Layer evaluations for each column, of each sweep.
    double evaluations;
    /// How often the tree is swept.
    int sweeps = 1;
    /// Whether derivatives by pairs of layers are wanted.
    bool pairs = false;
    /// What else the ranks must have in common.
    std::vector<AgreedValue> agreed = {};
};

/// The tree of mask prefixes on many ranks: rank 0 hands out its subtrees, combines what they come
/// to, keeps it in a file, and tells everyone in the end. All members are collective.
template <Sweep sweep, class Network, class Law>
class SharedTree {
public:
    using Scalar = typename Network::Scalar;

    /// \param law  As the tree takes it; of several sweeps, that of the first.
    /// \throws std::invalid_argument  if network, x, law or options are not the same on every rank.
    /// \throws std::runtime_error     if the file cannot be read or written, or is of another sum.
    SharedTree(const Communicator& ranks, const Network& network, const ConstMatrixRef<Scalar>& x,
               const Law& law, const SharedSum& sum, const SharedTreeOptions& options)
        : ranks_(ranks),
          options_(options),
          evaluations_(sum.evaluations),
          shape_{network.output_size(x.rows()), sum.pairs},
          cut_(cut_tree<sweep>(network, x.rows(), x.cols(), law, sum.evaluations,
                               shape_.size(1, law.depth()), options.prefix_layers)),
          watch_(options, sum.sweeps) {
        std::vector<AgreedValue> values{{"what is computed", sum.what}};
        together(ranks_, [&] {
            for (AgreedValue& each : fingerprint(network, x, law))
                values.push_back(std::move(each));
        });
        values.push_back({"prefix_layers", message(cut_.prefix_layers)});
        values.push_back({"number of columns of a tree", message(cut_.columns)});
        std::vector<AgreedValue> all{{"the build", build()}};
        all.insert(all.end(), values.begin(), values.end());
        all.push_back({"max_layer_evaluations", message(options.max_layer_evaluations)});
        all.push_back({"path", options.path});
        all.insert(all.end(), sum.agreed.begin(), sum.agreed.end());
        check_lines(ranks_, all);
        together(ranks_, [&] {
            if (ranks_.rank() != 0) return;
            file_.emplace(ranks_.who(), options_.path, std::move(values));
            restored_ = file_->load();
            watch_.begin_after(restored_.seconds);
            // A file that cannot be written is found out now, not after hours.
            if (restored_.sweeps.empty()) save();
        });
    }

    /// Sweeps the tree.
    /// \param law  For as long as this object is in use.
    /// \param to   Where every rank gets the moments.
    /// \throws SweepStopped        on every rank.
    /// \throws std::runtime_error  if something fails on any rank, naming it.
    void run(const Network& network, const ConstMatrixRef<Scalar>& x, const Law& law,
             const MomentsView<Scalar>& to) {
        watch_.begin_sweep();
        typename Sweeping::Options options{law, shape_.outputs, Scalar(1), this};
        Sweeping(options).walk(network, x, to);
        mend_overflow<Scalar, Sweeping>(network, x, options, to);
    }

private:
    using Finished = FinishedSubtrees<sweep, Law, Scalar>;

    /// In the form in which overflow is mended.
    class Sweeping {
    public:
        struct Options {
            const Law& law;
            Index outputs;
            Scalar scale;
            SharedTree* tree;
        };
        explicit Sweeping(const Options& options) : options_(options) {}
        void walk(const Network& network, const ConstMatrixRef<Scalar>& x,
                  const MomentsView<Scalar>& to) const {
            options_.tree->walk(network, x, options_.law, options_.scale, to);
        }

    private:
        Options options_;
    };

    /// One sweep.
    struct Part {
        const Law& law;
        Subtrees<Scalar, sweep, Law> subtrees;
        Finished finished;

        Part(const Law& law_, const Network& network, const SharedTree& tree, Index columns)
            : law(law_),
              subtrees(law_, layers_inside(network), tree.cut_.prefix_layers),
              finished(subtrees, tree.shape_, columns, tree.cut_.columns) {}
        // The one knows where the other is.
        Part(const Part&) = delete;
        Part& operator=(const Part&) = delete;
    };

    void walk(const Network& network, const ConstMatrixRef<Scalar>& x, const Law& law, Scalar scale,
              const MomentsView<Scalar>& to) {
        together(ranks_, [&] {
            parts_.emplace_back(law, network, *this, x.cols());
            restore(parts_.back().finished);
        });
        Part& part = parts_.back();
        const auto compute = [&](std::uint64_t number, const std::atomic<bool>& stop) {
            return bytes_below(part, number, network, x, scale, stop);
        };
        const auto write_file = [&] { save(); };
        SumLedger<Scalar, Finished, decltype(write_file)> ledger(part.finished, watch_, write_file);
        WorkSharing sharing(ranks_);
        SharedWork end = SharedWork::finished;
        try {
            end = ranks_.rank() == 0 ? sharing.lead(ledger, compute) : sharing.follow(compute);
        } catch (...) {
            save_what_can_be();
            throw;
        }
        together(ranks_, [&] {
            save();
            if (ranks_.rank() == 0 && end == SharedWork::finished)
                watch_.tell(part.finished.finished(), part.finished.count());
        });
        if (end == SharedWork::stopped) throw SweepStopped{};
        if (ranks_.rank() == 0) write(part.finished, to);
        share(to, x.cols());
    }

    /// What an earlier run has finished of the sweep that begins.
    void restore(Finished& finished) {
        const std::size_t number = parts_.size() - 1;
        if (number >= restored_.sweeps.size()) return;
        file_->named_in_failures([&] {
            for (auto& node : restored_.sweeps[number])
                finished.restore(node.first, {node.count, std::move(node.numbers)});
        });
    }

    /// Mean, variance and derivatives of some columns below a prefix, as bytes.
    [[nodiscard]] std::vector<std::uint8_t> bytes_below(const Part& part, std::uint64_t number,
                                                        const Network& network,
                                                        const ConstMatrixRef<Scalar>& x,
                                                        Scalar scale,
                                                        const std::atomic<bool>& stop) const {
        using Tree = PrefixTree<Scalar, sweep, UnderPrefix<Law>>;
        const auto way = part.subtrees.way_to(number % part.subtrees.count());
        const Index columns = part.finished.columns_of(number);
        const double evaluations = evaluations_ / static_cast<double>(part.subtrees.count());
        const UnderPrefix<Law> law{part.law, way.bits};
        typename Tree::Options options{
            law, shape_.outputs, most_rows(network, x.rows()),
            threads_for(network, x.rows(), columns, evaluations, options_.threads)};
        options.scale = scale;
        // What takes long asks now and then whether to stop.
        const ProgressCallback goes_on = [&](double) { return !stop; };
        const auto columns_here = static_cast<double>(columns);
        ProgressMeter meter(goes_on, std::max(1.0, columns_here * evaluations));
        constexpr double much_work = 1e9;
        if (columns_here * work_of_column(network, x.rows(), evaluations) > much_work)
            options.progress = &meter;
        std::vector<Scalar> numbers(shape_.size(columns, way.layers));
        Tree(options).walk(network, x.middleCols(part.finished.first_column(number), columns),
                           shape_.view(numbers, columns));
        return bytes_of_numbers(numbers);
    }

    /// Calls visit(array) for each array of [outputs x columns] numbers.
    template <class Visit>
    void visit_arrays(const MomentsView<Scalar>& to, const Visit& visit) const {
        visit_results(to, parts_.back().law.depth(), [&](Scalar* array, int) { visit(array); });
    }

    void write(const Finished& finished, const MomentsView<Scalar>& to) const {
        finished.for_each_group(
            [&](Index first, Index columns, const std::vector<Scalar>& numbers) {
                const Scalar* from = numbers.data();
                visit_arrays(to, [&](Scalar* array) {
                    const Index size = shape_.outputs * columns;
                    std::copy_n(from, size, array + first * shape_.outputs);
                    from += size;
                });
            });
    }

    void share(const MomentsView<Scalar>& to, Index columns) const {
        constexpr Index most = Index{1} << 24;
        const Index size = shape_.outputs * columns;
        visit_arrays(to, [&](Scalar* array) {
            for (Index k = 0; k < size; k += most)
                ranks_.share(std::span<Scalar>(array + k,
                                               static_cast<std::size_t>(std::min(most, size - k))));
        });
    }

    /// Rank 0 replaces the file.
    void save() const {
        if (ranks_.rank() != 0) return;
        file_->save(watch_.seconds(), std::max(parts_.size(), restored_.sweeps.size()),
                    [&](std::size_t number, const auto& visit) {
                        if (number < parts_.size())
                            for (const auto& [first, node] : parts_[number].finished.nodes())
                                visit(first, node.count, node.numbers);
                        else
                            for (const auto& node : restored_.sweeps[number])
                                visit(node.first, node.count, node.numbers);
                    });
    }
    /// Where something has failed already, which is what the caller has to hear of.
    void save_what_can_be() const {
        try {
            save();
        } catch (const std::exception&) {
        }
    }

    const Communicator& ranks_;
    const SharedTreeOptions& options_;
    double evaluations_;
    NodeShape<sweep, Scalar> shape_;
    TreeCut cut_;
    std::deque<Part> parts_;
    // Of rank 0.
    SumWatch watch_;
    std::optional<SumFile<Scalar>> file_;
    FinishedSum<Scalar> restored_;
};

}  // namespace stochastic_depth::detail
