// SPDX-License-Identifier: MIT
#pragma once

#include <sys/resource.h>

/// The largest resident set that the process has had, MiB.
[[nodiscard]] inline double peak_memory() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
}
