// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>

#include <cstdio>
#include <cstdlib>

/// Translation units of one program must agree on what Eigen aligns memory to, which the `-m` flags
/// decide: the linker keeps one unit's functions for all, and what one of them allocates another one
/// would free as something else. A program of units that differ ends as it starts, saying so.
namespace stochastic_depth::detail {

/// Of the unit whose definition the linker keeps.
inline int alignment_of_program = EIGEN_MAX_ALIGN_BYTES;

namespace {

struct AlignmentOfUnit {
    AlignmentOfUnit() {
        // Volatile: a compiler may take the definition that it sees for the one that is kept.
        const int program = *static_cast<const volatile int*>(&alignment_of_program);
        if (program == EIGEN_MAX_ALIGN_BYTES) return;
        std::fprintf(stderr,
                     "stochastic_depth: units of this program were compiled with different -m flags: "
                     "Eigen aligns to %d bytes in one and to %d in another\n",
                     program, EIGEN_MAX_ALIGN_BYTES);
        std::_Exit(EXIT_FAILURE);
    }
};
[[maybe_unused]] const AlignmentOfUnit alignment_of_unit;

}  // namespace
}  // namespace stochastic_depth::detail
