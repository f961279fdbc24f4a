// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/communicator.hpp>

namespace stochastic_depth::detail {

struct AgreedNumber {
    const char* name;
    std::uint64_t value;
};

/// What check_agreement and together do, of a few numbers and a failure in one small message: cheap
/// enough for every step.
/// \throws  as throw_together does, if one rank has failed.
/// \throws std::invalid_argument  as check_agreement does, if a number differs.
template <std::size_t count>
void agree_on(const Communicator& ranks, const Failure& failure,
              const std::array<AgreedNumber, count>& numbers) {
    // The largest of all ranks and, as the largest of their complements, the smallest.
    std::array<std::uint64_t, 2 * count + 1> extremes{};
    for (std::size_t i = 0; i < count; ++i) {
        extremes[2 * i] = numbers[i].value;
        extremes[2 * i + 1] = ~numbers[i].value;
    }
    extremes.back() = failure ? 1 : 0;
    check_mpi("MPI_Allreduce",
              MPI_Allreduce(MPI_IN_PLACE, extremes.data(), static_cast<int>(extremes.size()),
                            MPI_UINT64_T, MPI_MAX, ranks.get()));
    if (extremes.back() != 0) throw_together(ranks, failure);
    for (std::size_t i = 0; i < count; ++i)
        if (extremes[2 * i] != ~extremes[2 * i + 1])
            check_agreement(ranks, {{numbers[i].name, message(numbers[i].value)}});
}

}  // namespace stochastic_depth::detail
