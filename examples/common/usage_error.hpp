// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>

namespace common {

/// Something that the user can put right: the message is one sentence.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace common
