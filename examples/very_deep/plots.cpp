// SPDX-License-Identifier: MIT
#include "plots.hpp"

#include <cstddef>
#include <vector>

#include "../common/plots.hpp"

namespace very_deep {
namespace {

constexpr const char* logarithmic = "set logscale y\nset format y '%g'\n";

void write_loss(const std::string& folder, const Report& report) {
    std::vector<common::Curve> curves;
    for (const Run& run : report.runs) {
        auto& curve = curves.emplace_back(common::Curve{run.name(), {}});
        for (const auto& point : run.losses) curve.points.emplace_back(point.epoch, point.loss);
    }
    common::write_curves(folder, "loss", "epoch", "training loss", curves, logarithmic);
}

/// Of the first seed alone. The depth is shown as a share, so that networks of 110 and of 1,000
/// blocks lie side by side.
void write_gradient_norms(const std::string& folder, const Report& report) {
    std::vector<common::Curve> curves;
    const auto add = [&](const Run& run, const std::vector<double>& norms, const std::string& at) {
        auto& curve = curves.emplace_back(common::Curve{run.name() + at, {}});
        for (std::size_t l = 0; l < norms.size(); ++l)
            curve.points.emplace_back(
                static_cast<double>(l + 1) / static_cast<double>(norms.size()), norms[l]);
    };
    for (const Run& run : report.runs) {
        if (run.seed != report.runs.front().seed) continue;
        add(run, run.norms_at_beginning, ", beginning");
        add(run, run.norms_at_end, ", end");
    }
    common::write_curves(folder, "gradient_norm", "depth, l / L", "gradient norm of a block",
                         curves, logarithmic);
}

}  // namespace

std::string plot(const std::string& folder, const Report& report) {
    write_loss(folder, report);
    write_gradient_norms(folder, report);
    return common::draw_plots(folder, {"loss", "gradient_norm"});
}

}  // namespace very_deep
