// SPDX-License-Identifier: MIT
#pragma once

#include <string>

namespace text_study {

/// Tables and figures of all runs that are finished in a folder: report.md, and of each figure
/// points, script and, where gnuplot is installed, picture.
/// \returns  The tables, and what came of the figures.
/// \throws common::UsageError  if there is no run, if runs of a data set differ in more than seed and
///                             variant, or if a file cannot be read or written.
[[nodiscard]] std::string write_report(const std::string& folder);

}  // namespace text_study
