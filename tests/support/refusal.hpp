// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>
#include <string>

namespace stochastic_depth::test {

/// The message with which a call refuses its arguments.
template <class Call>
[[nodiscard]] std::string refusal(const Call& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "accepted";
}

}  // namespace stochastic_depth::test
