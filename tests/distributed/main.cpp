// SPDX-License-Identifier: MIT
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_RUNNER
#endif
#include "support/catch.hpp"

#include <mpi.h>

// Every rank runs the same test cases in the same order. Where one fails, the others may wait for it:
// it ends the job (with Catch2's option --abort, at its first failure).
int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    const int failures = Catch::Session().run(argc, argv);
    if (failures != 0) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
    return 0;
}
