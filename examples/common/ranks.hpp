// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include <stochastic_depth/training/trainer.hpp>

#ifdef EXAMPLES_HAVE_MPI
#include <mpi.h>

#include <cstdlib>
#include <ctime>
#include <iostream>

#include <stochastic_depth/distributed/data_parallel_trainer.hpp>
#endif

/// Programs that share their training among the ranks of MPI, where they are started by its launcher:
/// `mpiexec -n 4 fashion_mnist ...`. The first rank does the rest, and says what there is to say.
/// Started without, or built without MPI, they train alone.
namespace common {

#ifdef EXAMPLES_HAVE_MPI

/// Whether MPI's launcher has started the program.
[[nodiscard]] inline bool has_ranks() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"})
        if (std::getenv(name)) return true;
    return false;
}

[[nodiscard]] inline bool is_first_rank() {
    int rank = 0;
    if (has_ranks()) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank == 0;
}

/// Waits for the other ranks without keeping a core busy.
inline void wait_for_ranks() {
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    for (int are_here = 0; !are_here;) {
        MPI_Test(&request, &are_here, MPI_STATUS_IGNORE);
        const std::timespec nap{0, 10000000};
        if (!are_here) nanosleep(&nap, nullptr);
    }
}

/// program(), on each rank. Where one fails, the others would wait for it: it ends all.
template <class Program>
[[nodiscard]] int run_on_ranks(int argc, char** argv, const Program& program) {
    if (!has_ranks()) return program();
    MPI_Init(&argc, &argv);
    if (!is_first_rank()) {
        std::cout.rdbuf(nullptr);
        std::cerr.rdbuf(nullptr);
    }
    if (const int code = program(); code != 0) MPI_Abort(MPI_COMM_WORLD, code);
    wait_for_ranks();
    MPI_Finalize();
    return 0;
}

#else

[[nodiscard]] inline bool is_first_rank() { return true; }

template <class Program>
[[nodiscard]] int run_on_ranks(int, char**, const Program& program) {
    return program();
}

#endif

/// Trainer{options}.fit(arguments...), by all ranks where there are some.
template <class... Arguments>
auto fit(stochastic_depth::TrainerOptions options, Arguments&&... arguments) {
#ifdef EXAMPLES_HAVE_MPI
    if (has_ranks())
        return stochastic_depth::DataParallelTrainer{std::move(options), MPI_COMM_WORLD}.fit(
            std::forward<Arguments>(arguments)...);
#endif
    return stochastic_depth::Trainer{std::move(options)}.fit(std::forward<Arguments>(arguments)...);
}

}  // namespace common
