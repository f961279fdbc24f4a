// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <atomic>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

namespace stochastic_depth {

/// A mask that one thread sets while another one uses it: depth as a dial. Neither ever waits, and
/// the user always has a whole mask, the latest.
///
/// Three masks change hands: the setter's, the user's, and one between them.
class MaskDial {
public:
    /// \param mask  To begin with; all later ones have its size.
    explicit MaskDial(const SurvivalMask& mask) : masks_{mask, mask, mask} {}
    MaskDial(const MaskDial&) = delete;
    MaskDial& operator=(const MaskDial&) = delete;

    /// Sets the mask; by one thread at a time. Wait-free, and allocates nothing.
    /// \throws std::invalid_argument  for a mask of another size; nothing changes then.
    void set(const SurvivalMask& mask) {
        SurvivalMask& own = masks_[setters_];
        if (mask.size() != own.size())
            detail::refuse("MaskDial: mask must have ", own.size(), " layers, got ", mask.size());
        own = mask;
        setters_ = between_.exchange(setters_ | fresh, std::memory_order_acq_rel) & ~fresh;
    }

    /// The latest mask; by one thread at a time, which may use it until its next call. Wait-free.
    [[nodiscard]] const SurvivalMask& get() {
        if ((between_.load(std::memory_order_relaxed) & fresh) != 0)
            users_ = between_.exchange(users_, std::memory_order_acq_rel) & ~fresh;
        return masks_[users_];
    }

private:
    static_assert(std::atomic<unsigned>::is_always_lock_free);
    /// Beside the number of the mask between them: the user has not seen it.
    static constexpr unsigned fresh = 4;

    std::array<SurvivalMask, 3> masks_;
    // Each on a cache line of its own, so that nobody's work slows the other's.
    alignas(64) unsigned setters_ = 0;
    alignas(64) std::atomic<unsigned> between_ = 1;
    alignas(64) unsigned users_ = 2;
};

}  // namespace stochastic_depth
