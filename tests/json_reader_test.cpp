// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/json_reader.hpp>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/thrown.hpp"

namespace {

using stochastic_depth::detail::json_string;
using stochastic_depth::detail::JsonReader;

std::string decoded(std::string text) {
    JsonReader reader{text};
    const std::string found(reader.string());
    reader.expect_end();
    return found;
}
double real(std::string text) {
    JsonReader reader{text};
    const double number = reader.real();
    reader.expect_end();
    return number;
}
std::string real_error(const std::string& text) {
    return thrown<std::runtime_error>([&] { (void)real(text); });
}

}  // namespace

TEST_CASE("JsonReader: strings are decoded, whatever their escapes", "[json_reader]") {
    CHECK(decoded(R"("")").empty());
    CHECK(decoded(" \"abc\"\n") == "abc");
    CHECK(decoded(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
    CHECK(decoded(R"("a\u0062\u00e9\u20AC\uD83D\uDE00z")") == "ab\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z");
    CHECK(decoded("\"\xC3\xA9\xF0\x9F\x98\x80\"") == "\xC3\xA9\xF0\x9F\x98\x80");
    CHECK(decoded(R"("\u0000")") == std::string(1, '\0'));
    CHECK(decoded(R"("\uFFFF\u0800\u07ff")") == "\xEF\xBF\xBF\xE0\xA0\x80\xDF\xBF");
    // Every byte that a string may hold, and back.
    std::string all;
    for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
    CHECK(decoded(json_string(all)) == all);
}

TEST_CASE("JsonReader: numbers as JSON writes them, and no others", "[json_reader]") {
    CHECK(real("0") == 0);
    CHECK(real("-0.5e+1") == -5);
    CHECK(real(" 1.7976931348623157e308") == 1.7976931348623157e308);
    CHECK(real("10E-1") == 1);
    for (const char* text : {"01", "-01"}) CHECK(holds(real_error(text), "a number begins with 0"));
    for (const char* text : {"", "-", ".5", "+1", "1.", "1e", "1e+", "nan", "Infinity"})
        CHECK(holds(real_error(text), "expected a digit, found "));
    CHECK(holds(real_error("1e999"), "a number is out of range"));
    CHECK(holds(real_error("0x10"), "expected the end, found x"));
    std::string most = "18446744073709551615";
    CHECK(JsonReader{most}.natural() == 18446744073709551615u);
    std::string more = "18446744073709551616";
    CHECK(holds(thrown<std::runtime_error>([&] { (void)JsonReader{more}.natural(); }),
                "a number is out of range"));
}

TEST_CASE("JsonReader: objects and arrays are read in order", "[json_reader]") {
    std::string text = " { \"a\" : [ 1 , 2 ] , \"b\":[],\"c\":[3]}\t";
    std::vector<std::uint64_t> numbers;
    std::string keys;
    JsonReader reader{text};
    reader.object([&](std::string_view key) {
        keys += key;
        reader.array([&] { numbers.push_back(reader.natural()); });
    });
    reader.expect_end();
    CHECK(keys == "abc");
    CHECK(numbers == std::vector<std::uint64_t>{1, 2, 3});
    for (std::string bad : {"[1,]", "[1 2]", "[,1]", "[1", "[", "1]"}) {
        INFO(bad);
        CHECK(thrown<std::runtime_error>([&] {
                  JsonReader of_bad{bad};
                  of_bad.array([&] { (void)of_bad.natural(); });
              }) != "nothing thrown");
    }
}
