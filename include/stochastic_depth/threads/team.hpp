// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Members that share the outputs of one operation after another, as the operation sees them: how
/// many there are, and how to split work among them. Who they are and how they are called is their
/// crew's affair (`ThreadTeam`), so that an operation needs nothing of threads.
class Team {
public:
    /// A part of an operation: part(first, count).
    using Run = void (*)(const void* part, Index first, Index count);
    /// Has a crew run the parts of 0, ..., size - 1, all of `width` but the last one; returns when
    /// all are done, and throws the first exception of one then.
    using Share = void (*)(void* crew, Index size, Index width, Run run, const void* part);

    /// The most members.
    static constexpr unsigned largest = 65535;

    /// Nobody but the caller.
    constexpr Team() = default;
    /// \param size   In [1, largest], the caller among them.
    /// \param crew   Outlives this and its copies.
    constexpr Team(Index size, void* crew, Share share) : size_(size), crew_(crew), share_(share) {}

    [[nodiscard]] static const Team& alone() {
        static constexpr Team team;
        return team;
    }

    [[nodiscard]] Index size() const { return size_; }

    /// Runs part(first, count) for consecutive parts of 0, ..., size - 1, one for each member, all
    /// but the last of a multiple of `grain`. What a part computes must not depend on where it
    /// begins or ends.
    /// \param work  Operations for one of size; what takes less time than it takes to call the
    ///              others is done alone.
    template <class Part>
    void split(Index size, Index grain, double work, const Part& part) const {
        if (size_ == 1 || size <= grain || static_cast<double>(size) * work < worth_calling) {
            if (size > 0) part(Index{0}, size);
            return;
        }
        const Index grains = (size + grain - 1) / grain;
        share_(
            crew_, size, (grains + size_ - 1) / size_ * grain,
            [](const void* self, Index first, Index count) {
                (*static_cast<const Part*>(self))(first, count);
            },
            &part);
    }

private:
    /// Multiply-adds, or as long as they take.
    static constexpr double worth_calling = 100e3;

    Index size_ = 1;
    void* crew_ = nullptr;
    Share share_ = nullptr;
};

}  // namespace stochastic_depth::detail

namespace stochastic_depth {

/// The threads of a training step, as an optimizer sees them: `team.split(size, grain, work, part)`.
using detail::Team;

}  // namespace stochastic_depth
