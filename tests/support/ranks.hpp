// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

/// Where a test stands among the processes that run it.
namespace stochastic_depth::test {

[[nodiscard]] inline int rank() {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}
[[nodiscard]] inline int ranks() {
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size;
}

}  // namespace stochastic_depth::test
