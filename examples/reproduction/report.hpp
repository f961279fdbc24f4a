// SPDX-License-Identifier: MIT
#pragma once

#include <string>

namespace reproduction {

/// Tables and figures of all runs that are finished in a folder: report.md, and of each figure
/// points, script and, where gnuplot is installed, picture.
/// \returns  The tables, and what came of the figures.
/// \throws common::UsageError  if there is no run, if runs differ in more than seed, survival and
///                             augmentation, or if a file cannot be read or written.
[[nodiscard]] std::string write_report(const std::string& folder);

}  // namespace reproduction
