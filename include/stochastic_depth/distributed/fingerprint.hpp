// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/version.hpp>

/// What makes a sum over masks what it is: the same on every rank, and in the file that a sum goes
/// on from.
namespace stochastic_depth::detail {

/// A hash as messages show it.
[[nodiscard]] inline std::string hash_of(std::span<const std::uint8_t> bytes) {
    std::uint64_t hash = fnv1a(bytes);
    std::string digits(16, '0');
    for (std::size_t k = digits.size(); k-- > 0; hash >>= 4)
        digits[k] = "0123456789abcdef"[hash & 15];
    return digits;
}

template <class Scalar>
[[nodiscard]] std::string hash_of(const ConstMatrixRef<Scalar>& matrix) {
    std::vector<std::uint8_t> columns;
    ByteWriter writer{columns};
    for (Index j = 0; j < matrix.cols(); ++j)
        writer.number(fnv1a({reinterpret_cast<const std::uint8_t*>(matrix.col(j).data()),
                             static_cast<std::size_t>(matrix.rows()) * sizeof(Scalar)}));
    return hash_of(columns);
}

/// Of what the network answers with when all layers are kept, none, and every other one: a layer
/// may hold more than its parameters, such as what a lambda has captured.
template <class Network, class Scalar = typename Network::Scalar>
[[nodiscard]] std::string hash_of_outputs(const Network& network, const ConstMatrixRef<Scalar>& x) {
    Matrix<Scalar> all(network.output_size(x.rows()), 3);
    all.setZero();
    if (x.cols() > 0) {
        SurvivalMask others = SurvivalMask::all(network.depth());
        SurvivalMask none = others;
        for (Index l = 0; l < none.size(); ++l) {
            none.skip(l);
            if (l % 2 == 1) others.skip(l);
        }
        all.col(0) = network(x.leftCols(1), SurvivalMask::all(network.depth()));
        all.col(1) = network(x.leftCols(1), none);
        all.col(2) = network(x.leftCols(1), others);
    }
    return hash_of<Scalar>(all);
}

/// Of all probabilities that the law has, state by state.
/// \throws std::invalid_argument  if a probability lies outside [0, 1].
/// \throws std::length_error      if there are too many states.
template <class Law>
[[nodiscard]] std::string hash_of_law(const Law& law) {
    std::vector<std::uint8_t> bytes;
    ByteWriter writer{bytes};
    LawStates<Law> states{{law.start(), 1.0}};
    for (Index l = 0; l < law.depth(); ++l) {
        for (const auto& [state, weight] : states) {
            writer.number(std::bit_cast<std::uint64_t>(weight));
            writer.number(std::bit_cast<std::uint64_t>(survival_probability(law, l, state)));
        }
        const std::uint64_t layer = fnv1a(bytes);
        bytes.clear();
        writer.number(layer);
        move_past(law, l, states);
    }
    return hash_of(bytes);
}

/// What decides each bit of a sum over the masks of a law. A value says how many of the next ones
/// there are.
template <class Network, class Law, class Scalar = typename Network::Scalar>
[[nodiscard]] std::vector<AgreedValue> fingerprint(const Network& network,
                                                   const ConstMatrixRef<Scalar>& x,
                                                   const Law& law) {
    std::vector<AgreedValue> layers;
    visit_layers(network, [&](const std::string& path, const std::string& description) {
        layers.push_back({message("layer ", layers.size()), line_of_layer(path, description)});
    });
    std::vector<AgreedValue> values{{"library version", library_version()},
                                    {"scalar type", message(8 * sizeof(Scalar), " bits")},
                                    {"number of layers", message(layers.size())}};
    values.insert(values.end(), layers.begin(), layers.end());
    std::vector<std::uint8_t> parameters;
    ByteWriter writer{parameters};
    write_matrices(writer, parameters_of(network));
    write_matrices(writer, state_of(network));
    values.insert(values.end(),
                  {{"hash of the parameters", hash_of(parameters)},
                   {"shape of the inputs", message("[", x.rows(), " x ", x.cols(), "]")},
                   {"hash of the inputs", hash_of<Scalar>(x)},
                   {"law of the masks", std::string(name_of<Law>())},
                   {"hash of the survival probabilities", hash_of_law(law)},
                   {"hash of some outputs", hash_of_outputs(network, x)}});
    return values;
}

/// The first value that differs, by its place; as many as there are where none does.
[[nodiscard]] inline std::size_t first_difference(const std::vector<AgreedValue>& a,
                                                  const std::vector<AgreedValue>& b) {
    const auto is_equal = [](const AgreedValue& one, const AgreedValue& other) {
        return one.name == other.name && one.value == other.value;
    };
    return static_cast<std::size_t>(
        std::mismatch(a.begin(), a.end(), b.begin(), b.end(), is_equal).first - a.begin());
}

}  // namespace stochastic_depth::detail
