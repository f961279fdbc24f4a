// SPDX-License-Identifier: MIT
#pragma once

#include <cerrno>
#include <fstream>
#include <string>
#include <system_error>

#include "usage_error.hpp"

namespace common {
namespace detail {

[[noreturn]] inline void refuse_file(const std::string& option, const std::string& path,
                                     int error) {
    throw UsageError(option + ": cannot write " + path + ": " +
                     std::generic_category().message(error));
}

}  // namespace detail

/// Leaves an existing file as it is.
/// \param option  Where the path comes from, for the message: "--json".
/// \throws UsageError  if the file cannot be written.
inline void check_writable(const std::string& option, const std::string& path) {
    errno = 0;
    if (!std::ofstream(path, std::ios::app)) detail::refuse_file(option, path, errno);
}

/// Replaces a file's content.
/// \throws UsageError  if the file cannot be written.
inline void write_file(const std::string& option, const std::string& path,
                       const std::string& content) {
    errno = 0;
    std::ofstream file(path);
    file << content << std::flush;
    if (!file) detail::refuse_file(option, path, errno);
}

}  // namespace common
