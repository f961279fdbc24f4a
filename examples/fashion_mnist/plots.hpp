// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "report.hpp"

namespace fashion_mnist {

/// Writes frontier.dat, frontier.gp, interactions.dat and interactions.gp, and has gnuplot, where it
/// is installed, draw frontier.svg and interactions.svg from them.
/// \returns  What came of it, in one sentence.
/// \throws common::UsageError  if a file cannot be written.
[[nodiscard]] std::string plot(const std::string& folder, const Subnetworks& found);

}  // namespace fashion_mnist
