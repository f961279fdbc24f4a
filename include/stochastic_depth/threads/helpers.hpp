// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <thread>
#include <vector>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Threads that run one function, and are waited for at the end.
class Helpers {
public:
    /// \param count  How many are wanted. Where threads or memory run out there are fewer, perhaps
    ///               none: whoever shares work with helpers can do all of it.
    /// \param work   Called once by each; throws nothing.
    template <class Work>
    Helpers(Index count, const Work& work) {
        try {
            threads_.reserve(static_cast<std::size_t>(count));
            for (Index k = 0; k < count; ++k) threads_.emplace_back(work);
        } catch (...) {
            // A thread that has begun cannot be taken back: it helps.
        }
    }
    Helpers(const Helpers&) = delete;
    Helpers& operator=(const Helpers&) = delete;
    ~Helpers() {
        for (std::thread& thread : threads_) thread.join();
    }

    [[nodiscard]] Index count() const { return static_cast<Index>(threads_.size()); }

private:
    std::vector<std::thread> threads_;
};

}  // namespace stochastic_depth::detail
