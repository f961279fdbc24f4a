// SPDX-License-Identifier: MIT
#pragma once

#include <string>

/// The message of the Error that a call throws; another exception passes through.
template <class Error, class Call>
std::string thrown(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "nothing thrown";
}

/// Whether a message holds every one of the fragments.
template <class... Fragments>
bool holds(const std::string& message, const Fragments&... fragments) {
    return ((message.find(fragments) != std::string::npos) && ...);
}
