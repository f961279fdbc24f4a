// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/survival/independent_law.hpp>

#include "../common/progress.hpp"
#include "../common/text.hpp"
#include "architecture.hpp"
#include "options.hpp"

namespace inspect {

/// A network and what it is asked about.
struct Question {
    /// As its weights have it.
    Network network;
    /// The same with a softmax behind a classifier's scores.
    Network asked;
    bool is_classifier = false;
    /// Of the masks that are asked about.
    sd::IndependentLaw law;
    sd::Matrix<float> x;                                      // [features x batch]
    std::optional<Eigen::VectorXi> labels = std::nullopt;     // [batch]
    std::optional<sd::Matrix<float>> targets = std::nullopt;  // [outputs x batch]

    [[nodiscard]] sd::Index depth() const { return law.depth(); }
    [[nodiscard]] sd::Index batch() const { return x.cols(); }
    [[nodiscard]] sd::Index outputs() const { return asked.output_size(x.rows()); }
};

/// Reads description, weights, inputs and what they should give.
/// \throws common::UsageError  if one is not there, not what it should be, or does not fit.
[[nodiscard]] Question read_question(const Options& options);

/// The network of a description, of random weights.
/// \throws common::UsageError  as read_architecture.
[[nodiscard]] Network read_network(const Options& options);

/// Calls visit(inputs, first, callback) for parts of the inputs, `first` being their first column,
/// and callback what a computation is to tell its progress.
template <class Visit>
void for_each_part(const sd::Matrix<float>& x, const std::string& name, common::Progress& progress,
                   const Visit& visit) {
    constexpr sd::Index samples_at_once = 256;
    const auto all = static_cast<double>(x.cols());
    for (sd::Index first = 0; first < x.cols(); first += samples_at_once) {
        const sd::Index count = std::min(samples_at_once, x.cols() - first);
        const auto tell = [&, first, count](double done) {
            const double share =
                (static_cast<double>(first) + done * static_cast<double>(count)) / all;
            progress.now(name + ": " + common::fixed(100 * share, 0) + " %");
            return true;
        };
        (void)tell(0);
        visit(x.middleCols(first, count), first, sd::ProgressCallback(tell));
    }
}

}  // namespace inspect
