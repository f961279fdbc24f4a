// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/plain_text.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Lines = std::vector<std::string>;

Lines parsed(std::string_view text) {
    return parse_lines(test::Bytes(text.begin(), text.end()), "some.txt");
}

TEST_CASE("parse_lines: lines end at line feeds, with or without a carriage return before",
          "[plain_text]") {
    CHECK(parsed("one\ntwo\n") == Lines{"one", "two"});
    CHECK(parsed("one\ntwo") == Lines{"one", "two"});
    CHECK(parsed("one\r\n\r\ntwo\r\n") == Lines{"one", "", "two"});
    CHECK(parsed("\n") == Lines{""});
    CHECK(parsed("\n\n") == Lines{"", ""});
    // Elsewhere a carriage return is a letter, and so are zero and what is no UTF-8.
    CHECK(parsed("a\rb\n\xFF") == Lines{"a\rb", "\xFF"});
    CHECK(parsed(std::string_view("a\0b\n", 4)) == Lines{std::string("a\0b", 3)});
    CHECK(parsed("\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo") == Lines{"one", "\xEF\xBB\xBFtwo"});
}

TEST_CASE("read_lines: reads a file, and names one that it cannot take", "[plain_text]") {
    const test::TemporaryFile file;
    test::write(file.path(), {'a', '\n', 'b'});
    CHECK(read_lines(file.path()) == Lines{"a", "b"});
    test::refuses<std::runtime_error>([] { (void)parsed(""); },
                                      {"parse_lines: some.txt: expected at least 1 line"});
    test::refuses<std::runtime_error>([] { (void)parsed("\xEF\xBB\xBF"); },
                                      {"parse_lines: some.txt: expected at least 1 line"});
    test::refuses<std::runtime_error>([] { (void)read_lines("no-such-folder/no-such-file"); },
                                      {"read_lines", "no-such-folder/no-such-file", "open"});
}

}  // namespace
