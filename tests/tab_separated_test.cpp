// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/tab_separated.hpp>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::VectorXi;
using Texts = std::vector<std::string>;

LabelledTexts parsed(std::string_view text, const TabSeparatedOptions& options = {}) {
    return parse_tab_separated(test::Bytes(text.begin(), text.end()), "some.tsv", options);
}

void refuses_file(std::string_view text, std::initializer_list<const char*> fragments,
                  const TabSeparatedOptions& options = {}) {
    test::refuses<std::runtime_error>([&] { (void)parsed(text, options); }, fragments);
}

TEST_CASE("parse_tab_separated: a line is a label, a tab and a text", "[tab_separated]") {
    const std::string_view file = "no\tbad film\nyes\tgood\tfilm\r\nno\t dull \nmaybe\tso";
    const LabelledTexts sorted = parsed(file);
    CHECK(sorted.texts == Texts{"bad film", "good\tfilm", " dull ", "so"});
    CHECK(sorted.classes == Texts{"maybe", "no", "yes"});
    CHECK(sorted.labels == VectorXi{{1, 2, 1, 0}});
    const LabelledTexts first = parsed(file, {.order = LabelOrder::first_appearance});
    CHECK(first.texts == sorted.texts);
    CHECK(first.classes == Texts{"no", "yes", "maybe"});
    CHECK(first.labels == VectorXi{{0, 1, 0, 2}});
}

TEST_CASE("parse_tab_separated: given labels keep their numbers, whatever the file has",
          "[tab_separated]") {
    const Texts classes{"yes", "no", "other"};
    for (const LabelOrder order : {LabelOrder::sorted, LabelOrder::first_appearance}) {
        const LabelledTexts parsed_as_given =
            parsed("no\ta\nyes\tb\n", {.order = order, .classes = classes});
        CHECK(parsed_as_given.classes == classes);
        CHECK(parsed_as_given.labels == VectorXi{{1, 0}});
    }
    refuses_file("no\ta\nnone\tb\n",
                 {"parse_tab_separated: some.tsv: line 2", "one of 3 labels, found none"},
                 {.classes = classes});
    test::refuses(
        [&] {
            (void)parsed("a\tb", {.classes = {"x", "y", "x"}});
        },
        {"parse_tab_separated: classes must differ, got x twice"});
}

TEST_CASE("parse_tab_separated: what is no label, tab and text is refused with its line",
          "[tab_separated]") {
    refuses_file("", {"parse_tab_separated: some.tsv: expected at least 1 line, found none"});
    refuses_file("a\tb\nab\n", {"some.tsv: line 2", "found no tab"});
    refuses_file("a\tb\r\n\r\na\tb\r\n", {"some.tsv: line 2", "found no tab"});
    refuses_file("\tb\n", {"some.tsv: line 1", "expected a label"});
    refuses_file("a\tb\na\tb\na\t", {"some.tsv: line 3", "expected a text"});
    refuses_file("a\t\r\n", {"some.tsv: line 1", "expected a text"});
}

TEST_CASE("read_tab_separated: reads a file", "[tab_separated]") {
    const test::TemporaryFile file;
    const std::string_view text = "x\tone\n";
    test::write(file.path(), {text.begin(), text.end()});
    CHECK(read_tab_separated(file.path()).texts == Texts{"one"});
    test::refuses<std::runtime_error>(
        [] { (void)read_tab_separated("no-such-folder/no-such-file"); },
        {"read_tab_separated", "no-such-folder/no-such-file", "open"});
}

}  // namespace
