// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/header_identifier.hpp>
#include <stochastic_depth/export/header_images.hpp>
#include <stochastic_depth/export/header_input.hpp>
#include <stochastic_depth/export/header_layers.hpp>
#include <stochastic_depth/export/header_writer.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

/// A network as one C++ header. Needs POSIX, for which reason it is not part of all.hpp.
namespace stochastic_depth {

struct HeaderOptions {
    /// The namespace of what is written, "a::b" too.
    std::string name_space = "network";
    /// The function that is the network.
    std::string function = "forward";
    /// Whether a kept layer is replaced by its mean given its input, shortcut(x) + p branch(x), as
    /// WeightScaling does; with a mask that keeps all layers this is the usual test-time rule.
    bool weight_scaling = false;
    /// Rows of x. 0: as the network's first layer has them.
    Index inputs = 0;
    /// What layers of type AnyLayer may hold (`held_layers`, export/header_any_layer.hpp).
    std::vector<HeaderHeldLayer> held = {};
};

namespace detail {

/// Around what is written: neither g++ nor clang++ makes one operation, which rounds once, of a
/// product and a sum.
inline constexpr std::string_view header_begin = R"(#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "this network cannot be computed under -ffast-math"
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
)";
inline constexpr std::string_view header_end = R"(
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#elif defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#endif
)";

/// What a kept layer's branch is multiplied by, 0 for a skipped one.
template <class Network>
[[nodiscard]] std::vector<double> header_means(const Network& network, const SurvivalMask& mask,
                                               bool weight_scaling) {
    const Eigen::VectorXd p = network.survival_probabilities();
    std::vector<double> means(static_cast<std::size_t>(p.size()));
    for (Index l = 0; l < p.size(); ++l)
        if (mask[l]) means[static_cast<std::size_t>(l)] = weight_scaling ? p(l) : 1;
    return means;
}

template <class Network>
[[nodiscard]] std::string write_header_text(std::string_view who, const Network& network,
                                            const SurvivalMask& mask,
                                            const HeaderOptions& options) {
    using Scalar = typename Network::Scalar;
    const Index inputs = header_inputs(who, network, options.inputs);
    const Index outputs = network.output_size(inputs);
    if (mask.size() != network.depth())
        refuse(who, ": mask must have ", network.depth(), " layers, got ", mask.size());
    check_header_names(who, options.name_space, options.function);
    const std::vector<double> means = header_means(network, mask, options.weight_scaling);
    HeaderWriter writer(who, inputs, means.data(), options.held);
    writer.run(network);
    Index numbers = 0;
    const std::string statements = writer.script().statements(writer.numbers(), numbers);
    const std::string scalar = std::is_same_v<Scalar, float> ? "float" : "double";
    std::string text =
        message("// A network, written by stochastic_depth::write_header.\n//\n//     ",
                options.name_space, "::", options.function, "(x, y);  // y, [", outputs,
                "], from x, [", inputs, "], of one sample; they must not overlap\n");
    text += header_begin;
    text +=
        message("\nnamespace ", options.name_space, " {\n\ninline constexpr int inputs = ", inputs,
                ";\ninline constexpr int outputs = ", outputs,
                ";\n/// Bytes that a call takes from the stack, besides a few hundred for sums.\n"
                "inline constexpr std::size_t working_memory = ",
                static_cast<std::size_t>(numbers) * sizeof(Scalar),
                ";\n\nnamespace detail {\n\nusing Scalar = ", scalar, ";\n");
    text += writer.script().definitions();
    text += "\ninline void run(const Scalar* x, Scalar* y) {\n";
    text += statements;
    text += message("}\n\n}  // namespace detail\n\n/// y = NN(x).\ninline void ", options.function,
                    "(const ", scalar, "* x, ", scalar,
                    "* y) noexcept { detail::run(x, y); }\n\n}  // namespace ", options.name_space,
                    "\n");
    text += header_end;
    return text;
}

}  // namespace detail

/// A sub-network as one C++17 header that needs neither this library nor Eigen, as text.
///
///     namespace network {
///     inline constexpr int inputs, outputs;
///     inline constexpr std::size_t working_memory;  // bytes on the stack
///     inline void forward(const float* x, float* y) noexcept;  // of one sample
///     }
///
/// Weights are constants in it, to the last bit, and sizes are known at compile time; it opens no
/// file, throws nothing and takes no memory but from the stack. What a mask skips is not there. Its
/// bits are those of `network(x, mask)` where both are compiled with the same flags
/// (docs/interoperability.md says for which layers and targets).
///
/// A layer of one's own says by a member `write_header(writer)` how it is written
/// (docs/extending.md); without one it is refused at compile time.
///
/// \param network  L skippable layers.
/// \param mask     S, L layers.
/// \throws std::invalid_argument  if sizes don't match, a name is not one that C++ takes, or a weight
///                                that is needed is not finite.
/// \complexity     Some 17 bytes of text for a weight of float, 24 of double.
template <MaskedNetwork Network>
[[nodiscard]] std::string header_text(const Network& network, const SurvivalMask& mask,
                                      const HeaderOptions& options = {}) {
    return detail::write_header_text("header_text", network, mask, options);
}

/// The same into a file, which is replaced in one step.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error  besides, naming the file and the reason, if it cannot be written.
template <MaskedNetwork Network>
void write_header(const std::string& path, const Network& network, const SurvivalMask& mask,
                  const HeaderOptions& options = {}) {
    const std::string text = detail::write_header_text("write_header", network, mask, options);
    detail::replace_file("write_header", path,
                         {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

}  // namespace stochastic_depth
