// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <stochastic_depth/distributed/distributed_options.hpp>

namespace stochastic_depth::detail {

/// When rank 0 writes the file and tells of the progress, and what it tells. A sum is one sweep, or
/// several of as many pieces.
class SumWatch {
public:
    SumWatch(const DistributedOptions& options, int sweeps) : options_(options), sweeps_(sweeps) {}

    /// Seconds that earlier runs took.
    void begin_after(double seconds) { seconds_before_ = seconds; }
    [[nodiscard]] double seconds() const { return seconds_before_ + since(start_); }

    void begin_sweep() { ++sweep_; }
    /// A piece was computed in this run.
    void count() { ++computed_; }

    /// \param save  Writes the file.
    /// \returns     false where the callback has asked to stop.
    template <class Save>
    [[nodiscard]] bool go_on(std::uint64_t finished, std::uint64_t pieces, const Save& save) {
        if (Clock::now() >= next_save_) {
            save();
            next_save_ = Clock::now() + duration(options_.save_seconds);
        }
        const Clock::time_point now = Clock::now();
        if (now >= next_word_) {
            next_word_ = now + duration(0.2);
            tell(finished, pieces);
            // Whoever asks because something dies may not wait for the ranks to end.
            if (!goes_on_) save();
        }
        return goes_on_;
    }

    void tell(std::uint64_t finished, std::uint64_t pieces) {
        if (!options_.progress) return;
        const std::uint64_t all = pieces * static_cast<std::uint64_t>(sweeps_);
        const std::uint64_t done = pieces * static_cast<std::uint64_t>(sweep_ - 1) + finished;
        const auto left = static_cast<double>(all - done);
        const double fraction =
            left == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(all);
        // Columns that are swept once more are no step back.
        fraction_ = std::max(fraction_, fraction);
        const double seconds_left =
            left == 0 ? 0.0 : since(start_) * left / static_cast<double>(computed_);
        goes_on_ = options_.progress({fraction_, seconds(), seconds_left, all, done}) && goes_on_;
    }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] static double since(Clock::time_point start) {
        return std::chrono::duration<double>(Clock::now() - start).count();
    }
    [[nodiscard]] static Clock::duration duration(double seconds) {
        return std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(std::min(seconds, 1e9)));
    }

    const DistributedOptions& options_;
    int sweeps_;
    /// The sweep under way, from 1 on.
    int sweep_ = 0;
    double seconds_before_ = 0;
    std::uint64_t computed_ = 0;
    double fraction_ = 0;
    bool goes_on_ = true;
    Clock::time_point start_ = Clock::now();
    Clock::time_point next_save_ = start_ + duration(options_.save_seconds);
    Clock::time_point next_word_ = start_;
};

}  // namespace stochastic_depth::detail
