// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "report.hpp"

namespace very_deep {

/// Writes loss.dat, loss.gp, gradient_norm.dat and gradient_norm.gp, and has gnuplot, where it is
/// installed, draw loss.svg and gradient_norm.svg from them.
/// \returns  What came of it, in one sentence.
/// \throws common::UsageError  if a file cannot be written.
[[nodiscard]] std::string plot(const std::string& folder, const Report& report);

}  // namespace very_deep
