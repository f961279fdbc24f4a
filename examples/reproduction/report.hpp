// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

namespace reproduction {

/// 1 - sum(p) / L: what of the blocks' time the masks save.
/// \param survival  At least one.
[[nodiscard]] double theoretical_saving(const std::vector<double>& survival);

/// Mean of several curves, point by point, as far as all of them go.
/// \param curves  At least one.
[[nodiscard]] std::vector<double> mean_curve(const std::vector<std::vector<double>>& curves);

/// Tables and figures of all runs that are finished in a folder: report.md, and of each figure
/// points, script and, where gnuplot is installed, picture.
/// \returns  The tables, and what came of the figures.
/// \throws common::UsageError  if there is no run, if runs differ in more than seed, survival and
///                             augmentation, or if a file cannot be read or written.
[[nodiscard]] std::string write_report(const std::string& folder);

}  // namespace reproduction
