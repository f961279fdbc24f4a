// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <iostream>

#include "usage_error.hpp"

namespace common {

/// The main() of a program: run(parse(argc, argv)), unless parse has answered by itself, as --help.
/// \returns  Its exit code: 2 for what the user can put right, 1 for any other error; both are said
///           in one line.
template <class Parse, class Run>
[[nodiscard]] int run_program(const char* name, int argc, const char* const* argv,
                              const Parse& parse, const Run& run) {
    try {
        if (const auto options = parse(argc, argv)) run(*options);
        return 0;
    } catch (const UsageError& error) {
        std::cerr << name << ": " << error.what() << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << name << ": " << error.what() << '\n';
        return 1;
    }
}

}  // namespace common
