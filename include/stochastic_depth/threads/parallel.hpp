// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include <stochastic_depth/threads/helpers.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The part of parallel_for that is the same for every task.
inline void run_on_threads(Index tasks, Index workers, void (*run)(const void*, Index),
                           const void* task) {
    std::atomic<Index> next{0};
    std::exception_ptr failure;
    std::mutex failure_access;
    const auto work = [&] {
        try {
            for (Index i = next++; i < tasks; i = next++) run(task, i);
        } catch (...) {
            next = tasks;
            const std::lock_guard lock(failure_access);
            if (!failure) failure = std::current_exception();
        }
    };
    {
        const Helpers helpers(workers - 1, work);
        work();
    }
    if (failure) std::rethrow_exception(failure);
}

/// Runs task(0), ..., task(tasks - 1), each once, on up to `threads` threads, the caller's among
/// them. Tasks are taken in order by whoever is free. The first exception ends the work and is
/// thrown here.
template <class Task>
void parallel_for(Index tasks, unsigned threads, const Task& task) {
    const Index workers = std::min(static_cast<Index>(threads), tasks);
    if (workers <= 1)
        for (Index i = 0; i < tasks; ++i) task(i);
    else
        run_on_threads(
            tasks, workers, [](const void* self, Index i) { (*static_cast<const Task*>(self))(i); },
            &task);
}

/// What a thread must find to do, in multiply-adds: some 0.3 ms, where the start of one takes 0.1.
/// (A variable for tests, whose work is small.)
inline double work_of_thread = 1.2e7;

/// As many of `threads` as find enough to do, at least one.
/// \param work  In multiply-adds, or as long as they take; guessed from below.
[[nodiscard]] inline unsigned threads_worth(double work, unsigned threads) {
    if (work >= threads * work_of_thread) return threads;
    return static_cast<unsigned>(std::max(1.0, work / work_of_thread));
}

/// Runs task(first, count) for the blocks [first, first + count) of 0, ..., size - 1, all of `width` but
/// the last one, on up to `threads` threads.
template <class Task>
void parallel_blocks(Index size, Index width, unsigned threads, const Task& task) {
    parallel_for((size + width - 1) / width, threads, [&](Index block) {
        const Index first = block * width;
        task(first, std::min(width, size - first));
    });
}

}  // namespace stochastic_depth::detail
