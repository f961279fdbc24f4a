// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace stochastic_depth::detail {

/// A thread that computes numbered pieces of work, while the thread that owns it talks to other
/// ranks: whoever waits for an answer never waits for a piece.
class ComputingThread {
public:
    using Bytes = std::vector<std::uint8_t>;
    /// What a piece comes to. Where `stop` has become true, nobody wants it any longer: it may throw.
    using Compute = std::function<Bytes(std::uint64_t piece, const std::atomic<bool>& stop)>;

    struct Done {
        std::uint64_t piece;
        Bytes result;
        /// Null if there is a result.
        std::exception_ptr failure;
    };

    explicit ComputingThread(Compute compute)
        : compute_(std::move(compute)), thread_([this] { work(); }) {}
    ComputingThread(const ComputingThread&) = delete;
    ComputingThread& operator=(const ComputingThread&) = delete;
    ~ComputingThread() { stop(); }

    void add(std::uint64_t piece) {
        {
            const std::lock_guard lock(access_);
            pieces_.push_back(piece);
        }
        has_pieces_.notify_one();
    }

    /// The next piece that is done, unless none is within that time.
    template <class Time>
    [[nodiscard]] std::optional<Done> wait_for(Time time) {
        std::unique_lock lock(access_);
        if (!has_done_.wait_for(lock, time, [this] { return !done_.empty(); })) return {};
        Done done = std::move(done_.front());
        done_.pop_front();
        return done;
    }

    /// Ends the thread; pieces that it has not begun are dropped.
    void stop() {
        if (!thread_.joinable()) return;
        {
            const std::lock_guard lock(access_);
            pieces_.clear();
            stop_ = true;
        }
        has_pieces_.notify_one();
        thread_.join();
    }

private:
    void work() {
        for (;;) {
            std::unique_lock lock(access_);
            has_pieces_.wait(lock, [this] { return stop_ || !pieces_.empty(); });
            if (stop_) return;
            Done done{pieces_.front(), {}, nullptr};
            pieces_.pop_front();
            lock.unlock();
            try {
                done.result = compute_(done.piece, stop_);
            } catch (...) {
                if (stop_) return;
                done.failure = std::current_exception();
            }
            lock.lock();
            done_.push_back(std::move(done));
            lock.unlock();
            has_done_.notify_one();
        }
    }

    Compute compute_;
    std::mutex access_;
    std::condition_variable has_pieces_, has_done_;
    std::deque<std::uint64_t> pieces_;
    std::deque<Done> done_;
    std::atomic<bool> stop_{false};
    /// Last, so that it finds the others.
    std::thread thread_;
};

}  // namespace stochastic_depth::detail
