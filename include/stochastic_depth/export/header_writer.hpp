// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/export/header_functions.hpp>
#include <stochastic_depth/export/header_script.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/structure.hpp>

namespace stochastic_depth {

class HeaderWriter;

/// A type of layer that an AnyLayer may hold (`held_layers`, export/header_any_layer.hpp).
struct HeaderHeldLayer {
    /// Writes what an AnyLayer of this Scalar holds, if it is of the type.
    bool (*write)(HeaderWriter& writer, const void* any_layer, const std::type_info& scalar);
};

namespace detail {

/// How a layer of the library is written: write(writer, layer).
template <class Layer>
struct HeaderForm;

}  // namespace detail

/// Writes the function that a network is, layer by layer, as C++: what a layer's member
/// `write_header(writer)` is handed.
///
/// There are always numbers at hand, those that the layer is to take; it leaves its output in their
/// place. What it says is C++17 in which `Scalar` is the network's. A product and a sum are rounded
/// one by one; where a target has a fused multiply-add, `multiply_add(a, b, c)` uses it.
class HeaderWriter {
public:
    /// Numbers of the function that is written.
    using Numbers = detail::HeaderNumbers;

    /// \param who     Named in messages.
    /// \param inputs  Rows of the network's input.
    /// \param means   Of the layers of a mask in order: what a kept one's branch is multiplied by,
    ///                or 0 for a skipped one.
    /// \param held    What layers of type AnyLayer may hold.
    HeaderWriter(std::string_view who, Index inputs, const double* means,
                 std::span<const HeaderHeldLayer> held)
        : who_(who), mean_(means), held_(held), here_{{}, checked(inputs)} {}

    /// How many numbers are at hand.
    [[nodiscard]] Index rows() const { return here_.rows; }

    /// Those at hand become y, [outputs], by statements that read x, [rows()]:
    ///
    ///     writer.function(1, "y[0] = x[0] * x[1];");
    void function(Index outputs, std::string_view statements) {
        script_.need("multiply_add");
        apply(script_.define_function(
                  own_name(), "void",
                  "([[maybe_unused]] const Scalar* x, [[maybe_unused]] Scalar* y)", statements),
              "", outputs);
    }
    /// Each of them, z, becomes the value of an expression: writer.elementwise("z * z").
    void elementwise(std::string_view expression) {
        script_.need("multiply_add each");
        change_each(script_.define_function(own_name(), "Scalar", "([[maybe_unused]] Scalar z)",
                                            detail::message("return ", expression, ";")));
    }
    /// An array of constants; returns its name.
    /// \throws std::invalid_argument  if one of the numbers is not finite.
    template <class Scalar>
    [[nodiscard]] std::string constant(std::string_view name, const Scalar* numbers, Index count) {
        const std::string called = script_.unique(detail::message(own_name(), "_", name));
        std::string text = detail::message("\nalignas(64) inline constexpr Scalar ", called, "[",
                                           checked(count), "] = {");
        for (Index i = 0; i < count; ++i) {
            if (!std::isfinite(numbers[i]))
                refuse(detail::message(name, " must be finite, got ", numbers[i], " as number ", i));
            text += i % 6 == 0 ? "\n    " : " ";
            text += header_literal(numbers[i]);
            text += ',';
        }
        script_.define(text + "\n};\n");
        return called;
    }

    /// Runs a part on the numbers at hand. Parts with skippable layers inside come in the order of
    /// the mask.
    /// \param name  What `visit_parts` calls it; left out, the part has the layer's own path.
    /// \throws std::invalid_argument  if it cannot take the numbers.
    template <class Name, class Layer>
    void run(const Name& name, const Layer& layer) {
        const std::string path_around = std::exchange(path_, detail::path_of_part(path_, name));
        const std::string text_around = std::exchange(text_, detail::description(layer));
        const double* const behind = mean_ + detail::depth(layer);
        const Index outputs = layer.output_size(rows());
        if constexpr (requires { layer.write_header(*this); }) {
            layer.write_header(*this);
        } else {
            static_assert(requires(HeaderWriter & writer) {
                detail::HeaderForm<Layer>::write(writer, layer);
            }, "a header cannot hold this layer. Give it a member write_header(writer) that says how "
               "it is written (docs/extending.md)");
            detail::HeaderForm<Layer>::write(*this, layer);
        }
        if (rows() != outputs)
            refuse(detail::message("write_header must leave ", outputs, " numbers, got ", rows()));
        mean_ = behind;
        text_ = text_around;
        path_ = path_around;
    }
    template <class Layer>
    void run(const Layer& layer) {
        run(detail::Unnamed{}, layer);
    }

    /// The numbers at hand, to come back to.
    [[nodiscard]] Numbers numbers() const { return here_; }
    void go_on_with(Numbers numbers) { here_ = std::move(numbers); }
    /// Adds as many others to those at hand.
    void add(const Numbers& others) { join("add", "", others); }

    /// \throws std::invalid_argument  naming the layer at hand.
    [[noreturn]] void refuse(std::string_view what) const {
        detail::refuse(who_, ": layer ", detail::line_of_layer(path_, text_), ": ", what);
    }

    // What follows is for the library's own layers and may change.

    /// What the branch of the skippable layer at hand is multiplied by.
    [[nodiscard]] double mean() const { return *mean_; }
    void go_inside() { ++mean_; }

    [[nodiscard]] std::span<const HeaderHeldLayer> held() const { return held_; }

    [[nodiscard]] detail::HeaderScript& script() { return script_; }

    /// y, [outputs], by a kernel(constants, x, y).
    void apply(const std::string& kernel, const std::string& constants, Index outputs) {
        Numbers result = script_.room(checked(outputs));
        script_.call(kernel, constants, here_, result, comment());
        here_ = std::move(result);
    }
    /// A kernel(constants, y) that changes them where they stand.
    void change(const std::string& kernel, const std::string& constants) {
        own();
        script_.call(kernel, constants, here_, comment());
    }
    void change_each(const std::string& function) {
        change(detail::message("each<", rows(), ", ", function, ">"), "");
    }
    /// kernel<rows>(constants, others, y).
    void join(std::string_view kernel, const std::string& constants, const Numbers& others) {
        script_.need(kernel);
        own();
        script_.call(detail::message(kernel, "<", rows(), ">"), constants, others, here_, comment(),
                     false);
    }
    /// Copies them into a part of others.
    void copy_into(const Numbers& others, bool is_first) {
        script_.need("copy");
        script_.call(detail::message("copy<", rows(), ">"), "", here_, others, comment(), is_first);
    }

private:
    [[nodiscard]] Index checked(Index count) const {
        constexpr Index most = std::numeric_limits<int>::max() - 64;
        if (count > most)
            detail::refuse(who_, ": a layer must have at most ", most, " numbers, got ", count);
        return count;
    }

    /// Numbers that nobody else reads.
    void own() {
        if (here_.piece.use_count() == 1) return;
        script_.need("copy");
        apply(detail::message("copy<", rows(), ">"), "", rows());
    }

    /// "layer_0_branch_1".
    [[nodiscard]] std::string own_name() const {
        std::string name = path_.empty() ? "layer" : "layer_" + path_;
        for (char& c : name)
            if (!is_of_identifier(c)) c = '_';
        return name;
    }
    [[nodiscard]] static bool is_of_identifier(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    }
    /// Of one line, whatever a layer says of itself.
    [[nodiscard]] std::string comment() const {
        std::string line = detail::line_of_layer(path_, text_);
        for (char& c : line)
            if (static_cast<unsigned char>(c) < ' ' || c == '\\') c = '/';
        return line;
    }

    std::string who_;
    std::string path_;
    std::string text_;
    const double* mean_;
    std::span<const HeaderHeldLayer> held_;
    Numbers here_;
    detail::HeaderScript script_;
};

}  // namespace stochastic_depth
