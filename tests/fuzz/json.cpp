// SPDX-License-Identifier: MIT

// JsonReader: the texts in the metadata of safetensors files, and strings.

#include <stochastic_depth/io/safetensors_metadata.hpp>

#include "fuzz.hpp"

namespace {

using namespace stochastic_depth;

void read_self_test(std::span<char> text) {
    const auto test = detail::SelfTest::parse(text);
    fuzz::expect(!test.input.empty() && test.input.size() == test.output.size(),
                 "there is an output for each input");
    const auto lists = [](const std::vector<std::vector<double>>& numbers) {
        std::string json = "[";
        for (const auto& list : numbers) {
            if (json.size() > 1) json += ',';
            json += detail::json_numbers(list);
        }
        return json + "]";
    };
    std::string again = detail::message("{\"input\":", lists(test.input), ",\"output\":",
                                        lists(test.output), ",\"tolerance\":", test.tolerance, "}");
    const auto other = detail::SelfTest::parse(again);
    fuzz::expect(other.input == test.input && other.output == test.output &&
                     other.tolerance == test.tolerance,
                 "what is written again reads the same");
}

void read_strings(std::span<char> text) {
    detail::JsonReader reader{text};
    reader.array([&] {
        const std::string_view string = reader.string();
        std::string again = detail::json_string(string);
        detail::JsonReader other{again};
        fuzz::expect(other.string() == string, "what is written again reads the same");
        other.expect_end();
    });
    reader.expect_end();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> bytes{data, size};
    const bool is_self_test = fuzz::take_choice(bytes, 2) == 0;
    std::string text(bytes.begin(), bytes.end());
    fuzz::expect_memory(size, [&] {
        (void)fuzz::is_refused([&] { is_self_test ? read_self_test(text) : read_strings(text); });
    });
    return 0;
}
