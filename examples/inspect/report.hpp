// SPDX-License-Identifier: MIT
#pragma once

#include <iosfwd>
#include <string>

#include "findings.hpp"

namespace inspect {

struct Report {
    const Options* options;
    const Question* question;
    Ensemble ensemble = {};
    LayerFindings layers = {};
    Subnetworks subnetworks = {};
    double seconds = 0;  // in all, reading included
};

void print(std::ostream& out, const Report& report);

/// All figures, as JSON.
/// \throws common::UsageError  if the file cannot be written.
void write_json(const std::string& path, const Report& report);

/// Writes layers.dat, layers.gp, subnetworks.dat and subnetworks.gp, and has gnuplot, where it is
/// installed, draw layers.svg and subnetworks.svg from them.
/// \returns  What came of it, in one sentence.
/// \throws common::UsageError  if a file cannot be written.
[[nodiscard]] std::string plot(const std::string& folder, const Report& report);

}  // namespace inspect
