// SPDX-License-Identifier: MIT
#pragma once

// Catch2 2.13 and 3 keep their parts in different headers.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

#include <stochastic_depth/threads/parallel.hpp>

namespace stochastic_depth::test {

/// What tests compute is little, and goes to as many threads as they ask for all the same.
inline const bool little_work_has_threads = [] {
    detail::work_of_thread = 0;
    return true;
}();

}  // namespace stochastic_depth::test
