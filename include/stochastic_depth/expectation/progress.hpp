// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <stdexcept>

namespace stochastic_depth {

/// Thrown by a computation that has no valid answer yet when its progress callback asks it to stop.
class Cancelled : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Called now and then, never from two threads at once, with the fraction of the work that is done,
/// in [0, 1]; false asks to stop.
using ProgressCallback = std::function<bool(double)>;

namespace detail {

/// Adds up the work that the threads have done, and tells the caller's callback a hundred times or
/// so.
class ProgressMeter {
public:
    /// \param callback  Not empty.
    /// \param total     All the work, in the unit of `add`.
    ProgressMeter(const ProgressCallback& callback, double total)
        : callback_(callback), total_(total) {}

    /// \throws Cancelled  if the callback has asked to stop.
    void add(double work) {
        // Not fetch_add, which libc++ lacks for floating-point numbers.
        double before = done_.load(std::memory_order_relaxed);
        while (!done_.compare_exchange_weak(before, before + work, std::memory_order_relaxed)) {
        }
        if (before + work < next_.load(std::memory_order_relaxed)) return;
        const std::lock_guard lock(calling_);
        const double done = done_.load(std::memory_order_relaxed);
        if (done < next_.load(std::memory_order_relaxed)) return;
        stopped_ = stopped_ || !callback_(std::min(1.0, done / total_));
        next_.store(stopped_ ? 0 : done + total_ / 100, std::memory_order_relaxed);
        if (stopped_) throw Cancelled("stopped by its progress callback");
    }

private:
    const ProgressCallback& callback_;
    double total_;
    std::atomic<double> done_{0};
    std::atomic<double> next_{0};
    std::mutex calling_;
    bool stopped_ = false;
};

}  // namespace detail
}  // namespace stochastic_depth
