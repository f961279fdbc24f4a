// SPDX-License-Identifier: MIT
// Writes the networks of written_header_benchmark as headers:  write_benchmark_headers DIRECTORY
#include <stochastic_depth/export/header.hpp>

#include <cstdio>
#include <exception>
#include <string>

#include "network.hpp"
namespace sd = stochastic_depth;

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: write_benchmark_headers DIRECTORY\n"), 2;
    try {
        for (const int width : {8, 32, 64, 128}) {
            const std::string name = "width_" + std::to_string(width);
            sd::write_header(argv[1] + ("/" + name) + ".hpp", network_of_width(width),
                             sd::SurvivalMask::all(8), {.name_space = name});
        }
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
}
