// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/header_image_kernels.hpp>
#include <stochastic_depth/export/header_kernels.hpp>
#include <stochastic_depth/export/header_memory.hpp>

namespace stochastic_depth::detail {

/// Numbers of a function that is being written: a piece of its memory, or, of none, its input.
struct HeaderNumbers {
    HeaderMemory::Piece piece;
    Index rows = 0;
    /// From this row of the piece on.
    Index first = 0;
};

/// What a function consists of as it is written: definitions that it needs, and calls one after
/// another.
class HeaderScript {
public:
    [[nodiscard]] HeaderNumbers room(Index rows) { return {memory_.take(rows), rows}; }

    /// Pieces of header_kernels, by their names, separated by spaces.
    void need(std::string_view names) { add_names(needed_, names); }
    void define(const std::string& text) { definitions_ += text; }
    /// The same for what may be needed more than once.
    void define_once(const std::string& name, const std::string& text) {
        if (names_.insert(name).second) define(text);
    }
    /// Defines a function, or finds the one that says the same; returns its name.
    [[nodiscard]] std::string define_function(const std::string& name, std::string_view result,
                                              std::string_view parameters, std::string_view body) {
        const std::string rest = message(parameters, " {\n    ", body, "\n}\n");
        const auto [found, is_new] = functions_.emplace(message(result, rest), std::string());
        if (is_new) {
            found->second = unique(name);
            define(message("\ninline ", result, " ", found->second, rest));
        }
        return found->second;
    }
    /// A name that nothing has yet.
    [[nodiscard]] std::string unique(const std::string& name) {
        std::string found = name;
        for (int n = 2; !names_.insert(found).second; ++n) found = message(name, "_", n);
        return found;
    }

    /// Appends kernel(constants, x, y): `y` from `x`.
    void call(const std::string& kernel, const std::string& constants, const HeaderNumbers& x,
              const HeaderNumbers& y, const std::string& comment, bool starts_y = true) {
        calls_.push_back({kernel, constants, {operand(x), operand(y)}, starts_y, comment});
    }
    /// Appends kernel(constants, y), which changes y.
    void call(const std::string& kernel, const std::string& constants, const HeaderNumbers& y,
              const std::string& comment) {
        calls_.push_back({kernel, constants, {operand(y)}, false, comment});
    }

    /// The kernels that are needed, and the definitions behind them.
    [[nodiscard]] std::string definitions() const {
        std::vector<HeaderKernel> kernels(std::begin(header_kernels), std::end(header_kernels));
        kernels.insert(kernels.end(), std::begin(header_image_kernels),
                       std::end(header_image_kernels));
        Names needed = needed_;
        for (auto kernel = kernels.rbegin(); kernel != kernels.rend(); ++kernel)
            if (needed.contains(kernel->name)) add_names(needed, kernel->needs);
        std::string text;
        for (const HeaderKernel& kernel : kernels)
            if (needed.contains(kernel.name)) text += kernel.text;
        return text + definitions_;
    }

    /// The statements of the function: x is its input, y its output, which is `result`. Call once,
    /// at the end.
    /// \param numbers  Set to how many numbers of working memory they declare.
    [[nodiscard]] std::string statements(const HeaderNumbers& result, Index& numbers) {
        write_result_into_output(result);
        constexpr Index line = 16;
        std::map<std::ptrdiff_t, Index> places;
        numbers = 0;
        for (const Call& call : calls_)
            for (const Operand& operand : call.operands)
                if (operand.piece >= 0 && places.emplace(operand.piece, numbers).second)
                    numbers +=
                        (memory_.sizes()[static_cast<std::size_t>(operand.piece)] + line - 1) /
                        line * line;
        std::string text;
        if (numbers > 0) text += message("    alignas(64) Scalar memory[", numbers, "];\n");
        for (const auto& [piece, place] : places)
            text += message("    Scalar* const h", piece, " = memory + ", place, ";\n");
        for (const Call& call : calls_) text += text_of(call);
        return text;
    }

private:
    static constexpr std::ptrdiff_t input = -1, output = -2;
    using Names = std::set<std::string, std::less<>>;

    static void add_names(Names& to, std::string_view names) {
        while (!names.empty()) {
            const std::size_t end = std::min(names.find(' '), names.size());
            to.emplace(names.substr(0, end));
            names.remove_prefix(std::min(end + 1, names.size()));
        }
    }

    struct Operand {
        std::ptrdiff_t piece;
        Index first;
    };
    struct Call {
        std::string kernel;
        std::string constants;
        std::vector<Operand> operands;
        /// Whether nothing of what the last operand held is used.
        bool starts;
        std::string comment;
    };

    [[nodiscard]] static Operand operand(const HeaderNumbers& numbers) {
        return {numbers.piece ? static_cast<std::ptrdiff_t>(*numbers.piece) : input, numbers.first};
    }

    /// From the call that starts the result on, it stands where the output goes.
    void write_result_into_output(const HeaderNumbers& result) {
        const std::ptrdiff_t piece = operand(result).piece;
        std::size_t from = calls_.size();
        while (piece != input && from-- > 0)
            if (calls_[from].starts && calls_[from].operands.back().piece == piece) break;
        if (piece == input) {
            need("copy");
            calls_.push_back(
                {message("copy<", result.rows, ">"), "", {{input, 0}, {output, 0}}, true, ""});
            return;
        }
        for (; from < calls_.size(); ++from)
            for (Operand& operand : calls_[from].operands)
                if (operand.piece == piece) operand.piece = output;
    }

    [[nodiscard]] static std::string text_of(const Call& call) {
        std::string text = message("    ", call.kernel, "(", call.constants);
        bool is_first = call.constants.empty();
        for (const auto& [piece, first] : call.operands) {
            if (!std::exchange(is_first, false)) text += ", ";
            text += piece == input ? "x" : piece == output ? "y" : message("h", piece);
            if (first > 0) text += message(" + ", first);
        }
        text += ");";
        if (!call.comment.empty()) text += message("  // ", call.comment);
        return text + "\n";
    }

    HeaderMemory memory_;
    Names needed_;
    std::set<std::string> names_;
    std::map<std::string, std::string> functions_;
    std::string definitions_;
    std::vector<Call> calls_;
};

}  // namespace stochastic_depth::detail
