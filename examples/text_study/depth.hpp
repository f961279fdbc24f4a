// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include <stochastic_depth/training/dataset.hpp>

#include "../common/text_training.hpp"

/// A trained network is made shorter: which layers may go, and what time does it save?
namespace text_study {

namespace sd = stochastic_depth;

/// A way of choosing which layers stay.
struct Choice {
    std::string name;
    /// Test error with 0, 1, ..., L layers; NaN where it has no network of that size.
    std::vector<double> errors;
    /// Mean negative log-likelihood on the test texts, the same.
    std::vector<double> negative_log_likelihoods;
};

/// The usual choices:
///   the first k; the last k;
///   blocks spread evenly over the depth (for L / 2 layers: every other block, as LayerDrop has it);
///   sublayers spread evenly (for L / 2: every other one, which is all that is feed-forward);
/// and for comparison
///   the mean over all masks of a size: a choice at random;
///   the best of each size on the development texts (accuracy, of equal ones the likelihood);
///   the best of each size on the test texts themselves: what no choice can know.
/// \param dev, test  Every mask is looked at on both: 2^L - 1 layer evaluations for each text.
[[nodiscard]] std::vector<Choice> choices(const common::TextNetwork& network,
                                          const sd::Dataset<float>& dev,
                                          const sd::Dataset<float>& test, unsigned threads);

/// Seconds of the processor that the networks of the first 0, 1, ..., L layers take for the test texts, extracted by
/// `without_layers`; one thread, the least of several times.
[[nodiscard]] std::vector<double> extracted_seconds(const common::TextNetwork& network,
                                                    const sd::Dataset<float>& test);

/// The same network with other survival probabilities.
/// \param settings  Those of the other network, but for these.
[[nodiscard]] common::TextNetwork with_survival(const common::TextNetwork& network,
                                                const common::TextSettings& settings,
                                                sd::Index vocabulary, sd::Index classes);

}  // namespace text_study
