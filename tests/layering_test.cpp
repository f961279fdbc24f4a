// SPDX-License-Identifier: MIT
#include "support/layering.hpp"

#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

const std::string opening = "// SPDX-License-Identifier: MIT\n#pragma once\n";

std::string header(const std::vector<std::string>& includes) {
    std::string text = opening;
    for (const std::string& include : includes) text += "#include " + include + "\n";
    return text;
}

/// A tree of four headers without a fault.
layering::Headers sound_tree() {
    return {
        {"stochastic_depth/types.hpp", header({"<Eigen/Core>"})},
        {"stochastic_depth/layers/linear.hpp", header({"<stochastic_depth/types.hpp>"})},
        {"stochastic_depth/io/gzip.hpp", header({"<zlib.h>", "<stochastic_depth/types.hpp>"})},
        {"stochastic_depth/all.hpp",
         header({"<stochastic_depth/layers/linear.hpp>", "<stochastic_depth/types.hpp>"})},
    };
}

void require_only_fault(const layering::Headers& headers, const std::string& expected) {
    const std::vector<std::string> faults = layering::find_faults(headers);
    CAPTURE(faults, expected);
    REQUIRE(faults.size() == 1);
    REQUIRE(faults.front().find(expected) != std::string::npos);
}

}  // namespace

TEST_CASE("layering: the library's headers keep to their floors, form no cycle, and open alike",
          "[layering]") {
    const layering::Headers headers = layering::read_headers(STOCHASTIC_DEPTH_INCLUDE_DIR);
    REQUIRE(headers.contains("stochastic_depth/all.hpp"));
    for (const std::string& fault : layering::find_faults(headers)) {
        INFO(fault);
        CHECK(false);
    }
}

TEST_CASE("layering: a sound tree has no fault", "[layering]") {
    REQUIRE(layering::find_faults(sound_tree()).empty());
}

TEST_CASE("layering: an include of a higher floor is reported", "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/survival/survival_mask.hpp"] =
        header({"<stochastic_depth/layers/linear.hpp>"});
    headers["stochastic_depth/all.hpp"] +=
        "#include <stochastic_depth/survival/survival_mask.hpp>\n";
    require_only_fault(headers,
                       "survival_mask.hpp: includes stochastic_depth/layers/linear.hpp, "
                       "which stands on a higher floor");
}

TEST_CASE("layering: a cycle within a floor is reported", "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/layers/stack.hpp"] = header({"<stochastic_depth/layers/relu.hpp>"});
    headers["stochastic_depth/layers/relu.hpp"] = header({"<stochastic_depth/layers/gelu.hpp>"});
    headers["stochastic_depth/layers/gelu.hpp"] = header({"<stochastic_depth/layers/stack.hpp>"});
    headers["stochastic_depth/all.hpp"] +=
        "#include <stochastic_depth/layers/stack.hpp>\n"
        "#include <stochastic_depth/layers/relu.hpp>\n"
        "#include <stochastic_depth/layers/gelu.hpp>\n";
    require_only_fault(headers, "closes a cycle");
}

TEST_CASE("layering: a header that includes itself is a cycle", "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/types.hpp"] += "# include <stochastic_depth/types.hpp>\n";
    require_only_fault(headers, "types.hpp: closes a cycle");
}

TEST_CASE("layering: an include by quotes or by .. is reported", "[layering]") {
    for (const std::string include : {"\"linear.hpp\"", "\"../types.hpp\"", "<../types.hpp>"}) {
        layering::Headers headers = sound_tree();
        headers["stochastic_depth/layers/linear.hpp"] += "#  include " + include + "\n";
        require_only_fault(headers, "linear.hpp: includes " + include);
    }
}

TEST_CASE("layering: a header without licence line or guard is reported", "[layering]") {
    for (const std::string text :
         {"#pragma once\n", "// SPDX-License-Identifier: MIT\n\nint x;\n"}) {
        layering::Headers headers = sound_tree();
        headers["stochastic_depth/types.hpp"] = text;
        require_only_fault(headers, "types.hpp: must open with the SPDX line");
    }
}

TEST_CASE("layering: a header that all.hpp does not reach is reported", "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/version.hpp"] = opening;
    require_only_fault(headers, "version.hpp: is out of reach of all.hpp");
    headers["stochastic_depth/layers/linear.hpp"] += "#include <stochastic_depth/version.hpp>\n";
    REQUIRE(layering::find_faults(headers).empty());
}

TEST_CASE("layering: the gzip header in all.hpp is reported, for it needs zlib", "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/all.hpp"] += "#include <stochastic_depth/io/gzip.hpp>\n";
    require_only_fault(headers, "all.hpp: includes stochastic_depth/io/gzip.hpp");
}

TEST_CASE("layering: headers apart may include each other, and no others include them",
          "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/io/sealed_file.hpp"] = opening;
    headers["stochastic_depth/training/checkpoint.hpp"] =
        header({"<stochastic_depth/io/sealed_file.hpp>"});
    REQUIRE(layering::find_faults(headers).empty());
    headers["stochastic_depth/layers/linear.hpp"] +=
        "#include <stochastic_depth/io/sealed_file.hpp>\n";
    const std::vector<std::string> faults = layering::find_faults(headers);
    CAPTURE(faults);
    REQUIRE(faults.size() == 2);  // a higher floor, and for programs alone
    REQUIRE(faults[1].find("linear.hpp: includes stochastic_depth/io/sealed_file.hpp, which is for "
                           "programs alone") != std::string::npos);
}

TEST_CASE("layering: a missing header and one on no floor are reported", "[layering]") {
    layering::Headers headers = sound_tree();
    headers["stochastic_depth/types.hpp"] += "#include <stochastic_depth/gone.hpp>\n";
    require_only_fault(headers, "stochastic_depth/gone.hpp, which does not exist");

    headers = sound_tree();
    headers["stochastic_depth/misc/odds.hpp"] = opening;
    headers["stochastic_depth/all.hpp"] += "#include <stochastic_depth/misc/odds.hpp>\n";
    require_only_fault(headers, "misc/odds.hpp: stands on no floor");
}
