// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/mask_tree.hpp>
#include <stochastic_depth/expectation/tree_sweep.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/pass/work.hpp>

namespace stochastic_depth {

/// A mask's place in a table of all 2^L: the sum of 2^l over the layers l that it keeps.
///
/// \throws std::invalid_argument  if the mask has more than 62 layers.
[[nodiscard]] inline Index index_of(const SurvivalMask& mask) {
    if (mask.size() > 62)
        detail::refuse("index_of: mask must have at most 62 layers, got ", mask.size());
    return mask.size() == 0 ? 0 : static_cast<Index>(mask.words()[0]);
}

/// The mask of `depth` layers that stands there.
///
/// \throws std::invalid_argument  unless 0 <= depth <= 62 and 0 <= index < 2^depth.
[[nodiscard]] inline SurvivalMask mask_at(Index index, Index depth) {
    if (!(depth >= 0 && depth <= 62))
        detail::refuse("mask_at: depth must lie in [0, 62], got ", depth);
    if (!(index >= 0 && index >> depth == 0))
        detail::refuse("mask_at: index must lie in [0, 2^", depth, "), got ", index);
    SurvivalMask mask = SurvivalMask::none(depth);
    if (depth > 0) mask.set_word(0, static_cast<std::uint64_t>(index));
    return mask;
}

struct MaskValueOptions {
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number; scores are then computed on several threads at once.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take: 2^L - 1.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 28;
    /// The largest table: 8 bytes for each mask and each value.
    std::uint64_t max_bytes = std::uint64_t{1} << 30;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

namespace detail {

/// A table [2^L x columns] whose rows write(bits, y, table) has written.
template <class Table, class Network, class Write, class Scalar = typename Network::Scalar>
[[nodiscard]] Table tabulate(std::string_view name, const Network& network,
                             const ConstMatrixRef<Scalar>& x, Index columns,
                             const MaskValueOptions& options, const Write& write) {
    if (options.threads < 1) refuse(name, ": threads must be at least 1, got 0");
    (void)network.output_size(x.rows());
    const Index depth = network.depth();
    const double evaluations = evaluations_of_whole_tree(network);
    check_budget(name, depth, evaluations, options.max_layer_evaluations);
    const double bytes = std::ldexp(
        8.0 * static_cast<double>(std::max<Index>(1, columns)), static_cast<int>(depth));
    if (!(bytes <= static_cast<double>(options.max_bytes)))
        throw std::length_error(message(name, ": depth ", depth, " takes a table of ", bytes,
                                        " bytes, and max_bytes is ", options.max_bytes));
    Table table;
    table.resize(Index{1} << depth, columns);
    const auto write_row = [&](std::uint64_t bits, const ConstMatrixRef<Scalar>& y) {
        write(static_cast<Index>(bits), y, table);
    };
    const auto walk = [&](ProgressMeter* progress) {
        MaskTree<Scalar>(
            x.cols(), threads_for(network, x.rows(), x.cols(), evaluations, options.threads),
            progress)
            .walk(network, x, write_row);
    };
    if (options.progress) {
        ProgressMeter progress(options.progress, evaluations * static_cast<double>(x.cols()));
        walk(&progress);
    } else {
        walk(nullptr);
    }
    // What a mask says of layers inside a skipped one makes no difference.
    const std::vector<Index> enclosing = enclosing_layers(network);
    if (std::all_of(enclosing.begin(), enclosing.end(), [](Index l) { return l < 0; }))
        return table;
    for (Index bits = 0; bits < table.rows(); ++bits) {
        const Index reached = layers_that_run(bits, enclosing);
        if (reached != bits) table.row(bits) = table.row(reached);
    }
    return table;
}

template <class Network, class Score, class Scalar = typename Network::Scalar>
[[nodiscard]] Eigen::VectorXd tabulate_scores(std::string_view name, const Network& network,
                                              const ConstMatrixRef<Scalar>& x, const Score& score,
                                              const MaskValueOptions& options) {
    return tabulate<Eigen::VectorXd>(name, network, x, 1, options,
                                     [&](Index mask, const auto& y, Eigen::VectorXd& table) {
                                         table(mask) = static_cast<double>(score(y));
                                     });
}

}  // namespace detail

/// A number for every mask: score(NN(x, S)) for all 2^L survival masks S, by one sweep of the
/// prefix tree.
///
/// What `best_subnetworks`, the interactions and the Sobol indices are computed from. The network's
/// own survival probabilities play no part.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \param score    score(y) with the outputs y [outputs x batch] of one mask, a number: an output
///                 of a single sample, a loss, an accuracy. Pure.
/// \returns        [2^L]; entry sum_l s_l 2^l is that of the mask S (`index_of`).
/// \throws std::invalid_argument  if the network cannot take x, or options.threads is 0.
/// \throws std::length_error      if evaluations or table exceed the budget; nothing has run then.
/// \throws Cancelled              if the progress callback asks to stop.
/// \complexity     2^L - 1 layer evaluations for each column, and 2^L scores; 2^L numbers in
///                 memory and, for each thread, L blocks of 96 columns or one batch, whichever is
///                 wider.
template <MaskedNetwork Network, class Score>
    requires(std::is_invocable_r_v<double, const Score&,
                                   const ConstMatrixRef<typename Network::Scalar>&>)
[[nodiscard]] Eigen::VectorXd mask_values(const Network& network,
                                          const ConstMatrixRef<typename Network::Scalar>& x,
                                          const Score& score,
                                          const MaskValueOptions& options = {}) {
    return detail::tabulate_scores("mask_values", network, x, score, options);
}

/// Every output under every mask.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \returns        [2^L x outputs batch]; output i of sample j is column i + j outputs, rows as in
///                 `mask_values`.
/// \throws as mask_values does.
/// \complexity     2^L - 1 layer evaluations for each column; 2^L outputs batch numbers in memory.
template <MaskedNetwork Network>
[[nodiscard]] Matrix<double> mask_outputs(const Network& network,
                                          const ConstMatrixRef<typename Network::Scalar>& x,
                                          const MaskValueOptions& options = {}) {
    return detail::tabulate<Matrix<double>>(
        "mask_outputs", network, x, network.output_size(x.rows()) * x.cols(), options,
        [](Index mask, const auto& y, Matrix<double>& table) {
            for (Index j = 0; j < y.cols(); ++j)
                for (Index i = 0; i < y.rows(); ++i)
                    table(mask, i + j * y.rows()) = static_cast<double>(y(i, j));
        });
}

}  // namespace stochastic_depth
