// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/distributed/agreement.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/survival/any_mask_law.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/training/parameters.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

template <class Numbers>
[[nodiscard]] std::uint64_t hash_of_numbers(const Numbers& numbers) {
    return fnv1a({reinterpret_cast<const std::uint8_t*>(numbers.data()),
                  static_cast<std::size_t>(numbers.size()) * sizeof(typename Numbers::Scalar)});
}

/// \throws std::invalid_argument  on every rank, naming what differs, unless the network has the
///                                same layers and the same parameters everywhere. Collective.
template <class Network>
void check_same_network(const Communicator& ranks, const Network& network) {
    std::vector<AgreedValue> layers;
    visit_layers(network, [&](const std::string& path, const std::string& description) {
        layers.push_back({path.empty() ? "the network" : message("layer ", path), description});
    });
    check_agreement(ranks, {{"the number of layers", message(layers.size())}});
    check_lines(ranks, layers);
    std::vector<AgreedValue> parameters;
    const auto add = [&](const std::string& name, const auto& matrix) {
        parameters.push_back(
            {message("the hash of ", name, " [", matrix.rows(), " x ", matrix.cols(), "]"),
             message(hash_of_numbers(matrix))});
    };
    visit_parameters(network, WithPaths{add});
    visit_state(network, WithPaths{add});
    check_agreement(ranks, {{"the number of parameters", message(parameters.size())}});
    check_lines(ranks, parameters);
}

[[nodiscard]] inline const char* name_of_scope(MaskScope scope) {
    if (scope == MaskScope::batch) return "batch";
    return scope == MaskScope::sample ? "sample" : "subset";
}

template <class Network, class Loss>
void check_same_training(const Communicator& ranks, const Network& network, const Loss& loss,
                         const TrainingStepOptions& options) {
    const AnyMaskLaw& law = options.law;
    check_agreement(ranks,
                    {{"the build", build()},
                     {"the bits of a number", message(8 * sizeof(typename Network::Scalar))},
                     {"the loss", description(loss)},
                     {"mask_scope", name_of_scope(options.mask_scope)},
                     {"scaling", options.scaling == Scaling::none ? "none" : "inverted"},
                     {"seed", message(options.seed)},
                     {"shards", message(options.shards)},
                     {"law", law ? message("of ", law.with_seed(options.seed).marginals.size(),
                                           " layers, the hash of its marginals ",
                                           hash_of_numbers(law.with_seed(options.seed).marginals))
                                 : "none"}});
    check_same_network(ranks, network);
}

}  // namespace stochastic_depth::detail
