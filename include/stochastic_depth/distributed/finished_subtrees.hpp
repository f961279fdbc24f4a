// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/subtrees.hpp>
#include <stochastic_depth/expectation/moments.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Mean, variance and derivatives of some columns below a node, one array after another.
template <Sweep sweep, class Scalar>
struct NodeShape {
    Index outputs;
    bool pairs = false;

    [[nodiscard]] Index arrays(Index layers) const {
        return 2 + (sweep == Sweep::derivatives
                        ? DerivativesView<Scalar>{nullptr, 0, pairs}.count(layers)
                        : 0);
    }
    [[nodiscard]] std::size_t size(Index columns, Index layers) const {
        return static_cast<std::size_t>(outputs * columns * arrays(layers));
    }
    [[nodiscard]] MomentsView<Scalar> view(std::vector<Scalar>& numbers, Index columns) const {
        const Index array = outputs * columns;
        MomentsView<Scalar> moments{numbers.data(), numbers.data() + array, outputs};
        if constexpr (sweep == Sweep::derivatives)
            moments.derivatives = {numbers.data() + 2 * array, array, pairs};
        return moments;
    }
};

/// What is known of a tree whose subtrees are finished in any order: siblings are combined as soon
/// as both are there, by the arithmetic of the whole tree, so that neither the order nor who has
/// computed them is seen in a bit. While subtrees are missing in g places, at most (g + 1) L nodes
/// are kept.
///
/// Groups of columns, each with a tree of its own, follow each other: subtree s of group g has
/// number g * subtrees + s.
template <Sweep sweep, class Law, class Scalar>
class FinishedSubtrees {
public:
    struct Node {
        /// Subtrees below.
        std::uint64_t count;
        std::vector<Scalar> numbers;
    };
    /// By the first subtree below each.
    using Nodes = std::map<std::uint64_t, Node>;

    /// \param columns_of_group  Columns of each group but the last, which has what is left.
    FinishedSubtrees(const Subtrees<Scalar, sweep, Law>& subtrees, NodeShape<sweep, Scalar> shape,
                     Index columns, Index columns_of_group)
        : subtrees_(subtrees),
          shape_(shape),
          columns_(columns),
          columns_of_group_(std::max<Index>(1, columns_of_group)) {}

    [[nodiscard]] std::uint64_t groups() const {
        return static_cast<std::uint64_t>((columns_ + columns_of_group_ - 1) / columns_of_group_);
    }
    [[nodiscard]] std::uint64_t count() const { return groups() * subtrees_.count(); }
    [[nodiscard]] std::uint64_t finished() const { return finished_; }
    [[nodiscard]] const Nodes& nodes() const { return nodes_; }

    /// Where the group of a subtree has its columns, and how many.
    [[nodiscard]] Index first_column(std::uint64_t number) const {
        return static_cast<Index>(number / subtrees_.count()) * columns_of_group_;
    }
    [[nodiscard]] Index columns_of(std::uint64_t number) const {
        return std::min(columns_of_group_, columns_ - first_column(number));
    }

    /// The first subtree from `number` on that is not finished; count() if there is none.
    [[nodiscard]] std::uint64_t next_unfinished(std::uint64_t number) const {
        auto node = nodes_.upper_bound(number);
        if (node != nodes_.begin()) {
            const auto before = std::prev(node);
            number = std::max(number, before->first + before->second.count);
        }
        for (; node != nodes_.end() && node->first == number; ++node) number += node->second.count;
        return std::min(number, count());
    }

    /// A subtree is finished.
    /// \param numbers  As NodeShape has them.
    void add(std::uint64_t number, std::vector<Scalar> numbers) {
        const std::uint64_t group = number / subtrees_.count() * subtrees_.count();
        const Index columns = columns_of(number);
        const auto way = subtrees_.way_to(number - group);
        ++finished_;
        Node mine{1, std::move(numbers)};
        for (std::size_t k = way.forks.size(); k-- > 0;) {
            const auto& fork = way.forks[k];
            const auto other = nodes_.find(group + fork.first + (fork.keeps ? fork.kept : 0));
            if (other == nodes_.end() ||
                other->second.count != (fork.keeps ? fork.skipped : fork.kept)) {
                nodes_.emplace(number, std::move(mine));
                return;
            }
            std::vector<Scalar>&kept = fork.keeps ? mine.numbers : other->second.numbers,
            &skipped = fork.keeps ? other->second.numbers : mine.numbers;
            mine = {fork.kept + fork.skipped, combined(fork, kept, skipped, columns)};
            nodes_.erase(other);
            number = group + fork.first;
        }
        nodes_.emplace(number, std::move(mine));
    }

    /// A node that another object has combined.
    /// \throws std::runtime_error  if the tree has no such node, or it is there already.
    void restore(std::uint64_t first, Node node) {
        const std::uint64_t next = first + node.count;
        bool fits = node.count > 0 && next > first && next <= count() && is_node(first, node) &&
                    next_unfinished(first) == first;
        const auto after = nodes_.lower_bound(first);
        fits = fits && (after == nodes_.end() || after->first >= next);
        if (!fits)
            throw std::runtime_error(
                message("the file has subtrees ", first, " to ", next, ", which are no node"));
        finished_ += node.count;
        nodes_.emplace(first, std::move(node));
    }

    /// Calls use(first column, columns, numbers) for each group, once all is finished.
    template <class Use>
    void for_each_group(const Use& use) const {
        for (const auto& [first, node] : nodes_)
            use(first_column(first), columns_of(first), node.numbers);
    }

private:
    [[nodiscard]] bool is_node(std::uint64_t first, const Node& node) const {
        const std::uint64_t number = first % subtrees_.count();
        const auto way = subtrees_.way_to(number);
        Index layers = way.layers;
        bool is_known = node.count == 1;
        for (const auto& fork : way.forks)
            if (node.count > 1 && fork.first == number && fork.kept + fork.skipped == node.count) {
                is_known = true;
                layers = fork.children.layers_of_active + 1;
            }
        return is_known && node.numbers.size() == shape_.size(columns_of(first), layers);
    }

    template <class Fork>
    [[nodiscard]] std::vector<Scalar> combined(const Fork& fork, std::vector<Scalar>& kept,
                                               std::vector<Scalar>& skipped, Index columns) const {
        std::vector<Scalar> numbers(shape_.size(columns, fork.children.layers_of_active + 1));
        const MomentsView<Scalar> from = shape_.view(skipped, columns),
                                  to = shape_.view(numbers, columns);
        const PendingSibling<Scalar> sibling =
            fork.children.sibling(shape_.view(kept, columns), {to});
        const auto mean_of = [&](const MomentsView<Scalar>& moments) {
            return View<Scalar>(moments.mean, shape_.outputs, columns,
                                Eigen::OuterStride<>(moments.stride));
        };
        transform<Scalar>(mean_of(from), mean_of(to),
                          StoreCombined<sweep, Scalar>{from, {to, &sibling}});
        return numbers;
    }

    const Subtrees<Scalar, sweep, Law>& subtrees_;
    NodeShape<sweep, Scalar> shape_;
    Index columns_;
    Index columns_of_group_;
    std::uint64_t finished_ = 0;
    Nodes nodes_;
};

}  // namespace stochastic_depth::detail
