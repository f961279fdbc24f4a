// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Threads that share the outputs of one operation after another. They stay alive in between and
/// wait for the next by looking, since operations of a training step last microseconds. Nobody
/// waits for a thread that the system has put aside: whoever is free takes the next part.
class Team {
public:
    /// \param threads  In [1, 65535], the caller's among them.
    explicit Team(unsigned threads) {
        if (threads <= 1) return;
        state_ = std::make_unique<State>();
        state_->patience = std::thread::hardware_concurrency() >= threads ? 20000 : 0;
        try {
            for (unsigned member = 1; member < threads; ++member)
                helpers_.emplace_back([state = state_.get()] { serve(*state); });
        } catch (const std::system_error&) {
            // No more threads to be had: those that there are do the work.
        }
    }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;
    Team(Team&&) noexcept = default;
    Team& operator=(Team&&) = delete;
    ~Team() {
        if (!state_) return;
        state_->ended = true;
        state_->tickets = State::next_call(state_->tickets, 0);
        state_->wake();
        for (std::thread& helper : helpers_) helper.join();
    }

    /// The most threads that tickets can be counted for.
    static constexpr unsigned largest = 65535;

    /// Nobody but the caller.
    [[nodiscard]] static const Team& alone() {
        static const Team team{1};
        return team;
    }

    [[nodiscard]] Index size() const { return static_cast<Index>(helpers_.size()) + 1; }

    /// Runs part(first, count) for consecutive parts of 0, ..., size - 1, one for each thread, all
    /// but the last of a multiple of `grain`. What a part computes must not depend on where it
    /// begins or ends.
    /// \param work  Operations for one of size; what takes less time than it takes to call the
    ///              others is done alone.
    template <class Part>
    void split(Index size, Index grain, double work, const Part& part) const {
        if (helpers_.empty() || size <= grain || static_cast<double>(size) * work < worth_calling) {
            if (size > 0) part(Index{0}, size);
            return;
        }
        const Index grains = (size + grain - 1) / grain;
        share(
            size, (grains + this->size() - 1) / this->size() * grain,
            [](const void* self, Index first, Index count) {
                (*static_cast<const Part*>(self))(first, count);
            },
            &part);
    }

private:
    using Run = void (*)(const void*, Index, Index);

    /// What a call asks for is written before its tickets are there, and stays until all its parts
    /// are done: whoever has a ticket may read it.
    struct State {
        /// The number of the call (32 bits), of its parts (16), and of those that are taken (16).
        std::atomic<std::uint64_t> tickets{0};
        std::atomic<Index> open{0};  ///< parts that are not done
        std::atomic<bool> ended{false};
        Run run = nullptr;
        const void* task = nullptr;
        Index size = 0;
        Index width = 0;
        int patience = 0;
        std::mutex access;
        std::exception_ptr failure;
        std::condition_variable changed;
        std::atomic<int> asleep{0};

        [[nodiscard]] static Index taken(std::uint64_t tickets) {
            return static_cast<Index>(tickets & 0xffff);
        }
        [[nodiscard]] static bool some_left(std::uint64_t tickets) {
            return taken(tickets) < static_cast<Index>(tickets >> 16 & 0xffff);
        }
        /// The tickets of the call after that of `tickets`, none taken.
        [[nodiscard]] static std::uint64_t next_call(std::uint64_t tickets, Index parts) {
            return ((tickets >> 32) + 1) << 32 | static_cast<std::uint64_t>(parts) << 16;
        }

        /// Looks for a while, and then sleeps, until `value` is no longer `old`.
        template <class Number>
        void await_change(const std::atomic<Number>& value, Number old) {
            for (int looks = 0; looks < patience; ++looks) {
                if (value.load(std::memory_order_acquire) != old) return;
                // The thread that will change it may wait for this very processor.
                if (looks % 128 == 127) std::this_thread::yield();
#if defined(__x86_64__) || defined(__i386__)
                __builtin_ia32_pause();
#endif
            }
            std::unique_lock lock(access);
            ++asleep;
            changed.wait(lock, [&] { return value.load() != old; });
            --asleep;
        }

        /// Wakes who sleeps, after a change. In the one order of all these operations either the
        /// change comes before the sleeper's last look, or the sleeper is counted here.
        void wake() {
            if (asleep.load() == 0) return;
            { const std::lock_guard lock(access); }
            changed.notify_all();
        }

        /// Takes parts and runs them, until there are none.
        void take_parts(std::uint64_t seen) {
            while (some_left(seen)) {
                if (!tickets.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel,
                                                   std::memory_order_acquire))
                    continue;
                const Index first = taken(seen) * width;
                try {
                    run(task, first, std::min(width, size - first));
                } catch (...) {
                    const std::lock_guard lock(access);
                    if (!failure) failure = std::current_exception();
                }
                if (open.fetch_sub(1) == 1) wake();
                seen = tickets.load(std::memory_order_acquire);
            }
        }
    };

    static void serve(State& state) {
        while (!state.ended.load(std::memory_order_acquire)) {
            const std::uint64_t seen = state.tickets.load(std::memory_order_acquire);
            state.take_parts(seen);
            if (!State::some_left(seen)) state.await_change(state.tickets, seen);
        }
    }

    void share(Index size, Index width, Run run, const void* task) const {
        State& state = *state_;
        const Index parts = (size + width - 1) / width;
        state.run = run;
        state.task = task;
        state.size = size;
        state.width = width;
        state.failure = nullptr;
        state.open.store(parts, std::memory_order_relaxed);
        const std::uint64_t tickets =
            State::next_call(state.tickets.load(std::memory_order_relaxed), parts);
        state.tickets.store(tickets);
        state.wake();
        state.take_parts(tickets);
        for (Index left; (left = state.open.load(std::memory_order_acquire)) != 0;)
            state.await_change(state.open, left);
        if (state.failure) std::rethrow_exception(state.failure);
    }

    /// Multiply-adds, or as long as they take.
    static constexpr double worth_calling = 100e3;

    std::unique_ptr<State> state_;
    std::vector<std::thread> helpers_;
};

}  // namespace stochastic_depth::detail
