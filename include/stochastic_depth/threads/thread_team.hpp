// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include <stochastic_depth/threads/helpers.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The threads of a team. They stay alive between operations and wait for the next by looking,
/// since operations of a training step last microseconds. Nobody waits for a thread that the system
/// has put aside: whoever is free takes the next part.
///
/// What a call asks for is written before its tickets are there, and stays until all its parts are
/// done: whoever has a ticket may read it.
class Crew {
public:
    explicit Crew(Index helpers)
        : patience_(static_cast<Index>(std::thread::hardware_concurrency()) > helpers ? 20000 : 0),
          helpers_(helpers, [this] { serve(); }) {}
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;
    ~Crew() {
        ended_ = true;
        tickets_ = next_call(tickets_, 0);
        wake();
    }

    /// The caller among them.
    [[nodiscard]] Index size() const { return helpers_.count() + 1; }

    /// A call that comes while another one is under way, from one of its parts or from a thread
    /// outside the team, is done by its caller alone.
    void share(Index size, Index width, Team::Run run, const void* part) {
        if (busy_.exchange(true, std::memory_order_acquire)) return run(part, 0, size);
        const Index parts = (size + width - 1) / width;
        run_ = run;
        part_ = part;
        size_ = size;
        width_ = width;
        open_.store(parts, std::memory_order_relaxed);
        const std::uint64_t tickets = next_call(tickets_.load(std::memory_order_relaxed), parts);
        tickets_.store(tickets);
        wake();
        take_parts(tickets);
        for (Index left; (left = open_.load(std::memory_order_acquire)) != 0;)
            await_change(open_, left);
        const std::exception_ptr failure = std::exchange(failure_, nullptr);
        busy_.store(false, std::memory_order_release);
        if (failure) std::rethrow_exception(failure);
    }

private:
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
        for (int looks = 0; looks < patience_; ++looks) {
            if (value.load(std::memory_order_acquire) != old) return;
            // The thread that will change it may wait for this very processor.
            if (looks % 128 == 127) std::this_thread::yield();
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#endif
        }
        std::unique_lock lock(access_);
        ++asleep_;
        changed_.wait(lock, [&] { return value.load() != old; });
        --asleep_;
    }

    /// Wakes who sleeps, after a change. In the one order of all these operations either the change
    /// comes before the sleeper's last look, or the sleeper is counted here.
    void wake() {
        if (asleep_.load() == 0) return;
        { const std::lock_guard lock(access_); }
        changed_.notify_all();
    }

    /// Takes parts and runs them, until there are none.
    void take_parts(std::uint64_t seen) {
        while (some_left(seen)) {
            if (!tickets_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel,
                                                std::memory_order_acquire))
                continue;
            const Index first = taken(seen) * width_;
            try {
                run_(part_, first, std::min(width_, size_ - first));
            } catch (...) {
                const std::lock_guard lock(access_);
                if (!failure_) failure_ = std::current_exception();
            }
            if (open_.fetch_sub(1) == 1) wake();
            seen = tickets_.load(std::memory_order_acquire);
        }
    }

    void serve() {
        while (!ended_.load(std::memory_order_acquire)) {
            const std::uint64_t seen = tickets_.load(std::memory_order_acquire);
            take_parts(seen);
            if (!some_left(seen)) await_change(tickets_, seen);
        }
    }

    /// The number of the call (32 bits), of its parts (16), and of those that are taken (16).
    std::atomic<std::uint64_t> tickets_{0};
    std::atomic<Index> open_{0};  ///< parts that are not done
    std::atomic<bool> ended_{false};
    std::atomic<bool> busy_{false};
    Team::Run run_ = nullptr;
    const void* part_ = nullptr;
    Index size_ = 0;
    Index width_ = 0;
    int patience_;
    std::mutex access_;
    std::exception_ptr failure_;
    std::condition_variable changed_;
    std::atomic<int> asleep_{0};
    Helpers helpers_;  // first to go, and last to come: they use all the others
};

/// A team of threads, made once and kept.
class ThreadTeam {
public:
    /// \param threads  In [1, Team::largest], the caller's among them. Where threads or memory run
    ///                 out the team has fewer.
    explicit ThreadTeam(unsigned threads) {
        if (threads <= 1) return;
        crew_ = std::make_unique<Crew>(static_cast<Index>(threads) - 1);
        team_ = Team(crew_->size(), crew_.get(),
                     [](void* crew, Index size, Index width, Team::Run run, const void* part) {
                         static_cast<Crew*>(crew)->share(size, width, run, part);
                     });
    }
    ThreadTeam(ThreadTeam&& other) noexcept
        : crew_(std::move(other.crew_)), team_(std::exchange(other.team_, Team())) {}
    ThreadTeam& operator=(ThreadTeam&&) = delete;

    /// What operations take; it lasts as long as this.
    [[nodiscard]] operator const Team&() const { return team_; }

private:
    std::unique_ptr<Crew> crew_;
    Team team_;
};

}  // namespace stochastic_depth::detail
