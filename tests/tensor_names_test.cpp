// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/tensor_names.hpp>

#include <stdexcept>
#include <string>

#include "support/catch.hpp"
#include "support/thrown.hpp"

using stochastic_depth::TensorNames;
using stochastic_depth::detail::name_in_file;

TEST_CASE("TensorNames: wildcards stand for numbers, the first pair that fits counts",
          "[tensor_names]") {
    const TensorNames names = {{"encoder.layer.*.attention.*.weight", "0.*.branch.*.weight"},
                               {"first.weight", "1.weight"},
                               {"never", "1.weight"},
                               {"*.*", "*-*"}};
    const auto found = [&](const std::string& name) { return name_in_file("test", names, name); };
    CHECK(found("0.12.branch.3.weight") == "encoder.layer.12.attention.3.weight");
    CHECK(found("1.weight") == "first.weight");
    CHECK(found("7-08") == "7.08");
    for (const char* name : {"0.a.branch.3.weight", "0..branch.3.weight", "0.1.branch.3.weights",
                             "00.1.branch.3.weight", "0.1.branch.3.weigh", "-1", "1-", "", "1.weight2"})
        CHECK(found(name) == name);
    CHECK(name_in_file("test", {}, "any") == "any");
    CHECK(holds(thrown<std::invalid_argument>(
                    [] { (void)name_in_file("test", {{"a.*.*", "*"}}, "1"); }),
                "test: names must have as many * in the file as in the network, got a.*.* for *"));
}
