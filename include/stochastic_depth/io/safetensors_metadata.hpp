// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/json_reader.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

/// What the metadata of a safetensors file say of its network: texts that hold JSON.
namespace stochastic_depth::detail {

/// A list of numbers, "[0.5,1]".
template <class Numbers>
[[nodiscard]] std::string json_numbers(const Numbers& numbers) {
    std::string text = "[";
    for (const auto number : numbers) {
        if (text.size() > 1) text += ',';
        Piece(number).append_to(text);
    }
    return text += "]";
}

inline constexpr std::string_view survival_key = "survival_probabilities",
                                  self_test_key = "self_test";
/// Of numbers in metadata.
inline constexpr std::size_t most_numbers = std::size_t{1} << 20;

/// An input and its output, a list for each sample, as texts in metadata have them.
struct SelfTest {
    static constexpr std::size_t most_samples = std::size_t{1} << 16;

    std::vector<std::vector<double>> input, output;
    double tolerance = 1e-4;

    /// \param text  Changed in reading.
    /// \throws std::runtime_error  if the text is something else.
    [[nodiscard]] static SelfTest parse(std::span<char> text) {
        JsonReader reader{text};
        SelfTest test;
        std::size_t count = 0;
        bool has_input = false, has_output = false, has_tolerance = false;
        const auto read_lists = [&](bool& has, std::vector<std::vector<double>>& lists) {
            if (std::exchange(has, true)) reader.fail("a field is there twice");
            reader.array([&] {
                lists.emplace_back();
                if (lists.size() > most_samples) reader.fail("there are too many samples");
                reader.array([&] {
                    if (++count > most_numbers) reader.fail("there are too many numbers");
                    lists.back().push_back(reader.real());
                });
                if (lists.back().size() != lists.front().size())
                    reader.fail("samples differ in size");
            });
        };
        reader.object([&](std::string_view field) {
            if (field == "input") {
                read_lists(has_input, test.input);
            } else if (field == "output") {
                read_lists(has_output, test.output);
            } else if (field == "tolerance") {
                if (std::exchange(has_tolerance, true)) reader.fail("a field is there twice");
                test.tolerance = reader.real();
            } else {
                reader.fail("unknown field ", beginning(field));
            }
        });
        reader.expect_end();
        if (!has_input || !has_output) reader.fail("it must have an input and its output");
        if (test.input.size() != test.output.size() || test.input.empty())
            reader.fail("it must have an output for each of its inputs");
        return test;
    }

    /// \throws std::runtime_error  unless a network gives the output, up to the tolerance times the
    ///                             largest of its numbers.
    template <class Network>
    void check(const Network& network) const {
        using Scalar = typename Network::Scalar;
        const auto samples = static_cast<Index>(input.size());
        const auto inputs = static_cast<Index>(input.front().size()),
                   outputs = static_cast<Index>(output.front().size());
        double largest = 0;
        for (const auto& list : output)
            for (const double number : list) largest = std::max(largest, std::abs(number));
        const auto number_of = [](const std::vector<std::vector<double>>& lists, Index i, Index j) {
            return lists[static_cast<std::size_t>(j)][static_cast<std::size_t>(i)];
        };
        try {
            if (const Index own = network.output_size(inputs); own != outputs)
                throw std::runtime_error(message("self-test: output must have ", own,
                                                 " numbers for each sample, found ", outputs));
            // A few samples at once: all of them may need any memory on their way.
            constexpr Index at_once = 16;
            Matrix<Scalar> x(inputs, std::min(samples, at_once)), y(outputs, x.cols());
            for (Index first = 0; first < samples; first += at_once) {
                const Index count = std::min(at_once, samples - first);
                for (Index j = 0; j < count; ++j)
                    for (Index i = 0; i < inputs; ++i)
                        x(i, j) = scalar<Scalar>(number_of(input, i, first + j));
                network.forward(x.leftCols(count), y.leftCols(count));
                for (Index j = 0; j < count; ++j)
                    for (Index i = 0; i < outputs; ++i) {
                        const double expected = number_of(output, i, first + j);
                        const auto found = static_cast<double>(y(i, j));
                        if (!(std::abs(found - expected) <= tolerance * largest))
                            throw std::runtime_error(
                                message("self-test: output ", i, " of sample ", first + j,
                                        " must be ", expected, ", got ", found));
                    }
            }
        } catch (const std::invalid_argument& error) {
            throw std::runtime_error(message("self-test: ", error.what()));
        }
    }

private:
    template <class Scalar>
    [[nodiscard]] static Scalar scalar(double number) {
        if (!(std::abs(number) <= static_cast<double>(std::numeric_limits<Scalar>::max())))
            throw std::runtime_error(
                message("self-test: input is out of the network's range: ", number));
        return static_cast<Scalar>(number);
    }
};

/// \throws std::invalid_argument  if a number is not finite, or there are more than are read.
template <class Network, class Scalar>
[[nodiscard]] std::string self_test_of(const Network& network, const Matrix<Scalar>& x) {
    Matrix<Scalar> y(network.output_size(x.rows()), x.cols());
    constexpr auto most_samples = static_cast<Index>(SelfTest::most_samples),
                   most = static_cast<Index>(most_numbers);
    if (x.cols() > most_samples || x.size() + y.size() > most)
        refuse("save_safetensors: self-test must have at most ", most_samples, " samples and ",
               most, " numbers, got ", x.cols(), " and ", x.size() + y.size());
    network.forward(x, y);
    const auto lists = [](const char* name, const Matrix<Scalar>& matrix) {
        if (!matrix.allFinite()) refuse("save_safetensors: self-test must be finite");
        std::string text;
        for (Index j = 0; j < matrix.cols(); ++j) {
            if (j > 0) text += ',';
            text += json_numbers(std::span<const Scalar>(
                matrix.data() + j * matrix.rows(), static_cast<std::size_t>(matrix.rows())));
        }
        return message(json_string(name), ":[", text, "]");
    };
    return message("{", lists("input", x), ",", lists("output", y), "}");
}

/// \throws std::runtime_error  if metadata tell other survival probabilities.
template <class Network>
void check_survival(const Network& network, std::span<char> text) {
    std::vector<double> found;
    JsonReader reader{text};
    reader.array([&] {
        if (found.size() == most_numbers) reader.fail("there are too many numbers");
        found.push_back(reader.real());
    });
    reader.expect_end();
    const Eigen::VectorXd expected = survival_probabilities(network);
    if (found.size() != static_cast<std::size_t>(expected.size()))
        throw std::runtime_error(message("the file holds ", found.size(),
                                         " survival probabilities, the network has ",
                                         expected.size()));
    for (std::size_t l = 0; l < found.size(); ++l)
        if (const double p = expected(static_cast<Index>(l)); found[l] != p)
            throw std::runtime_error(message("survival probability of layer ", l,
                                             " of the file is ", found[l], ", the network's is ",
                                             p));
}

}  // namespace stochastic_depth::detail
