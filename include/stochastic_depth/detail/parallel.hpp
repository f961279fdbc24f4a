// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Runs task(0), ..., task(tasks - 1), each once, on up to `threads` threads, the caller's among them.
/// Tasks are taken in order by whoever is free. The first exception ends the work and is thrown here.
template <class Task>
void parallel_for(Index tasks, unsigned threads, const Task& task) {
    const auto workers = std::min(static_cast<Index>(threads), tasks);
    if (workers <= 1) {
        for (Index i = 0; i < tasks; ++i) task(i);
        return;
    }
    std::atomic<Index> next{0};
    std::exception_ptr failure;
    std::mutex failure_access;
    const auto work = [&] {
        try {
            for (Index i = next++; i < tasks; i = next++) task(i);
        } catch (...) {
            next = tasks;
            const std::lock_guard lock(failure_access);
            if (!failure) failure = std::current_exception();
        }
    };
    {
        std::vector<std::jthread> helpers;
        helpers.reserve(static_cast<std::size_t>(workers - 1));
        for (Index i = 1; i < workers; ++i) helpers.emplace_back(work);
        work();
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace stochastic_depth::detail
