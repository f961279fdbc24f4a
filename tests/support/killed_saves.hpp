// SPDX-License-Identifier: MIT
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"

namespace stochastic_depth::test {

/// A hundred times, a process that saves one generation after the other is killed at a random
/// moment; the file must then hold a generation whole, and none older than before.
///
/// \param name  The name of the file.
/// \param save  save(path, generation).
/// \param load  load(path) gives the generation, and requires that all of the file is of it.
template <class Save, class Load>
void check_killed_saves(const std::string& name, const Save& save, const Load& load) {
    const TemporaryDirectory directory;
    const std::string path = directory.file(name);
    // How long a save takes depends on the disk and on who else uses it.
    const auto start = std::chrono::steady_clock::now();
    save(path, std::uint64_t{0});
    const auto save_time = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - start);
    const auto longest = static_cast<std::uint64_t>(std::clamp<std::int64_t>(4 * save_time.count(), 8000, 200000));
    Philox random{5};
    int cut_short = 0;
    std::uint64_t last = 0;
    for (int round = 0; round < 100; ++round) {
        const pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            for (std::uint64_t generation = last + 1;; ++generation) {
                try {
                    save(path, generation);
                } catch (...) {
                    _exit(1);
                }
            }
        }
        usleep(static_cast<useconds_t>(500 + random() % longest));
        REQUIRE(kill(child, SIGKILL) == 0);
        int status = 0;
        REQUIRE(waitpid(child, &status, 0) == child);
        REQUIRE(WIFSIGNALED(status));
        const std::uint64_t generation = load(path);
        REQUIRE(generation >= last);
        last = generation;
        cut_short += std::filesystem::exists(path + ".partial");
    }
    // Most kills hit a save under way, or this would show little.
    CHECK(cut_short >= 20);
    CHECK(last > 0);
    save(path, last + 1);
    CHECK(load(path) == last + 1);
    CHECK(directory.count() == 1);
}

}  // namespace stochastic_depth::test
