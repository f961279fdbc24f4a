// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/training/named_matrices.hpp>
#include <stochastic_depth/training/unreached_layers.hpp>

namespace stochastic_depth {

/// An optimizer whose state a file can hold.
///
/// Beyond the syntax: `visit_options` calls visit(name, option) for each option that is the same in
/// every step, a number, a bool or UnreachedLayers; `visit_state` calls visit(name, state) for what
/// the next step depends on beside these and the learning rate, each a Network::Gradient or a
/// std::vector<std::uint64_t> that keeps its size. An optimizer made anew is ready to be given the
/// state of another.
///
/// Models: Sgd, Adam, AdamW. Taken by save_training and load_training.
template <class Optimizer>
concept ResumableOptimizer = requires(Optimizer& optimizer, const Optimizer& constant, double rate,
                                      const detail::NoCache& visit) {
    { Optimizer::name } -> std::convertible_to<std::string_view>;
    { constant.options().learning_rate } -> std::convertible_to<double>;
    optimizer.set_learning_rate(rate);
    constant.visit_options(visit);
    Optimizer::visit_state(optimizer, visit);
};

namespace detail {

/// The shortest text that reads back equal.
template <class Option>
[[nodiscard]] std::string option_text(const Option& option) {
    if constexpr (std::is_same_v<Option, bool>)
        return option ? "true" : "false";
    else if constexpr (std::is_same_v<Option, UnreachedLayers>)
        return option == UnreachedLayers::frozen ? "frozen" : "as_zero_gradient";
    else
        return message(option);
}

template <class Optimizer>
void write_options(ByteWriter& writer, const Optimizer& optimizer) {
    writer.text(Optimizer::name);
    writer.number(
        std::bit_cast<std::uint64_t>(static_cast<double>(optimizer.options().learning_rate)));
    std::uint64_t count = 0;
    optimizer.visit_options([&](const char*, const auto&) { ++count; });
    writer.number(count);
    optimizer.visit_options([&](const char* name, const auto& option) {
        writer.text(name);
        writer.text(option_text(option));
    });
}

/// Sets the learning rate, which schedules move, and compares what no step changes.
template <class Optimizer>
void read_options(ByteReader& reader, Optimizer& optimizer, Pass pass) {
    const std::string_view own = Optimizer::name;
    if (const std::string_view found = reader.text(); found != own)
        throw std::runtime_error(message("the optimizer of the file is ", beginning(found),
                                         ", the one given is ", own));
    const auto rate = std::bit_cast<double>(reader.number<std::uint64_t>());
    std::uint64_t count = 0;
    optimizer.visit_options([&](const char*, const auto&) { ++count; });
    if (const auto found = reader.number<std::uint64_t>(); found != count)
        throw std::runtime_error(
            message(own, " has ", found, " options in the file, the one given has ", count));
    optimizer.visit_options([&](const char* name, const auto& option) {
        const std::string_view found_name = reader.text(), found = reader.text();
        if (const std::string value = option_text(option); found_name != name || found != value)
            throw std::runtime_error(message(own, " has ", beginning(found_name), " ", beginning(found),
                                             " in the file, the one given has ", name, " ", value));
    });
    // The first of all writes, and the only one that may throw: it then has changed nothing.
    try {
        if (pass == Pass::write) optimizer.set_learning_rate(rate);
    } catch (const std::invalid_argument& error) {
        throw std::runtime_error(error.what());
    }
}

using Counts = std::vector<std::uint64_t>;

template <class Network, class Optimizer>
void write_optimizer_state(ByteWriter& writer, const Network& network, const Optimizer& optimizer) {
    std::uint64_t count = 0;
    Optimizer::visit_state(optimizer, [&](const char*, const auto&) { ++count; });
    writer.number(count);
    Optimizer::visit_state(optimizer, [&]<class State>(const char* name, const State& state) {
        writer.text(name);
        if constexpr (std::is_same_v<State, Counts>) {
            writer.number(static_cast<std::uint64_t>(state.size()));
            for (const std::uint64_t value : state) writer.number(value);
        } else {
            write_matrices(writer, entries_of(network, state));
        }
    });
}

inline void read_counts(ByteReader& reader, std::string_view what, Counts& counts, Pass pass) {
    if (const auto found = reader.number<std::uint64_t>(); found != counts.size())
        throw std::runtime_error(message("the file holds ", found, " ", what,
                                         ", the optimizer given has ", counts.size()));
    for (std::uint64_t& count : counts) {
        const auto found = reader.number<std::uint64_t>();
        if (pass == Pass::write) count = found;
    }
}

template <class Network, class Optimizer>
void read_optimizer_state(ByteReader& reader, const Network& network, Optimizer& optimizer,
                          Pass pass) {
    std::uint64_t count = 0;
    Optimizer::visit_state(optimizer, [&](const char*, const auto&) { ++count; });
    if (const auto found = reader.number<std::uint64_t>(); found != count)
        throw std::runtime_error(message("the file holds ", found,
                                         " states of the optimizer, the one given has ", count));
    Optimizer::visit_state(optimizer, [&]<class State>(const char* name, State& state) {
        if (const std::string_view found = reader.text(); found != name)
            throw std::runtime_error(message("a state of the file's optimizer is ",
                                             beginning(found), ", of the one given ", name));
        if constexpr (std::is_same_v<State, Counts>)
            read_counts(reader, name, state, pass);
        else
            read_matrices(reader, message(name, " record"), entries_of(network, state), pass);
    });
}

}  // namespace detail
}  // namespace stochastic_depth
