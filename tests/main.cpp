// SPDX-License-Identifier: MIT

// Catch2 3 brings a compiled main; in 2.13 one file asks for it.
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif
