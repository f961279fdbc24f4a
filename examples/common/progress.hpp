// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <chrono>
#include <iostream>
#include <string>

namespace common {

/// Progress on standard error: one line that rewrites itself on a terminal, elsewhere a line for
/// each thing done.
class Progress {
public:
    Progress() : on_terminal_(isatty(STDERR_FILENO) == 1) {}
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() { clear(); }

    /// Something is under way; shown on a terminal alone, ten times a second at most.
    void now(const std::string& text) {
        const auto time = std::chrono::steady_clock::now();
        if (!on_terminal_ || time < next_) return;
        next_ = time + std::chrono::milliseconds(100);
        std::cerr << "\r\033[K" << text << std::flush;
        dirty_ = true;
    }

    /// Something is done.
    void done(const std::string& text) {
        if (on_terminal_) {
            next_ = {};
            now(text);
        } else {
            std::cerr << text << '\n';
        }
    }

    /// Leaves the terminal's line empty.
    void clear() {
        if (dirty_) std::cerr << "\r\033[K" << std::flush;
        dirty_ = false;
    }

private:
    bool on_terminal_;
    bool dirty_ = false;
    std::chrono::steady_clock::time_point next_{};
};

}  // namespace common
