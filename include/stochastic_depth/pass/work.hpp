// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/threads/parallel.hpp>

/// How much there is to do, and how many threads pay for that.
namespace stochastic_depth::detail {

/// Multiply-adds for one column, or as long as they take: of the layers inside skippable ones, all
/// kept, and of the others.
struct Work {
    double skippable = 0;
    double always = 0;
};

/// Adds the work of a layer. It is guessed from below: a layer that does not say what it takes is
/// given `rows` numbers, and one that runs along with others, nothing.
template <class Layer>
void add_work(const Layer& layer, Index rows, bool inside_skippable, Work& work) {
    const bool inside = inside_skippable || is_skippable<Layer>;
    if constexpr (hides_its_parts<Layer>)
        layer.add_work(rows, inside, work);
    else if constexpr (HasParts<Layer>)
        for_each_part(layer, [&](const auto& part) { add_work(part, rows, inside, work); });
    else if constexpr (!ElementwiseLayer<Layer> &&
                       (!RunsItself<Layer> || requires { layer.work(); }))
        (inside ? work.skippable : work.always) += work_of(layer, rows, rows);
}

/// Multiply-adds, or as long as they take, for a column that meets so many evaluations of skippable
/// layers.
template <class Network>
[[nodiscard]] double work_of_column(const Network& network, Index rows, double evaluations) {
    Work work;
    add_work(network, std::min(rows, static_cast<Index>(network.output_size(rows))), false, work);
    const auto depth = static_cast<double>(network.depth());
    // Of tokens each position goes through.
    const double positions = takes_tokens(network) ? static_cast<double>(rows) : 1;
    return positions * (work.always + (depth > 0 ? evaluations * work.skippable / depth : 0));
}

/// As many of `threads` as pay for `columns` columns of `rows` numbers that meet so many
/// evaluations each.
template <class Network>
[[nodiscard]] unsigned threads_for(const Network& network, Index rows, Index columns,
                                   double evaluations, unsigned threads) {
    if (threads == 1) return 1;
    return threads_worth(static_cast<double>(columns) * work_of_column(network, rows, evaluations),
                         threads);
}

}  // namespace stochastic_depth::detail
