// SPDX-License-Identifier: MIT
#include "plots.hpp"

#include <cstddef>
#include <sstream>

#include "../common/plots.hpp"

namespace very_deep {
namespace {

/// What gnuplot's plot command says of curve `index`, whose points are block `index` of the file.
std::string curve(const std::string& file, std::size_t index, const Run& run,
                  const std::string& what) {
    return "'" + file + "' index " + std::to_string(index) + " with lines title '" + run.name() +
           what + "'";
}

std::string join(const std::vector<std::string>& curves) {
    std::string all = "plot ";
    for (std::size_t i = 0; i < curves.size(); ++i) all += (i > 0 ? ", \\\n     " : "") + curves[i];
    return all + "\n";
}

std::string head(const std::string& name, const std::string& x, const std::string& y) {
    return common::svg_head(name, x, y) +
           "set logscale y\nset format y '%g'\nset key outside below maxcols 2\n";
}

void write_loss(const std::string& folder, const Report& report) {
    std::ostringstream points;
    std::vector<std::string> curves;
    for (const Run& run : report.runs) {
        points << "# " << run.name() << ": epochs done, loss\n";
        for (const auto& point : run.losses) points << point.epoch << ' ' << point.loss << '\n';
        points << "\n\n";
        curves.push_back(curve("loss.dat", curves.size(), run, ""));
    }
    common::write_plot(folder, "loss", points.str(),
                       head("loss", "epoch", "training loss") + join(curves));
}

/// Of the first seed alone. The depth is shown as a share, so that networks of 110 and of 1,000
/// blocks lie side by side.
void write_gradient_norms(const std::string& folder, const Report& report) {
    std::ostringstream points;
    std::vector<std::string> curves;
    const auto add = [&](const Run& run, const std::vector<double>& norms, const std::string& at) {
        points << "# " << run.name() << at << ": depth l / L, gradient norm\n";
        for (std::size_t l = 0; l < norms.size(); ++l)
            points << static_cast<double>(l + 1) / static_cast<double>(norms.size()) << ' '
                   << norms[l] << '\n';
        points << "\n\n";
        curves.push_back(curve("gradient_norm.dat", curves.size(), run, at));
    };
    for (const Run& run : report.runs) {
        if (run.seed != report.runs.front().seed) continue;
        add(run, run.norms_at_beginning, ", beginning");
        add(run, run.norms_at_end, ", end");
    }
    common::write_plot(
        folder, "gradient_norm", points.str(),
        head("gradient_norm", "depth, l / L", "gradient norm of a block") + join(curves));
}

}  // namespace

std::string plot(const std::string& folder, const Report& report) {
    write_loss(folder, report);
    write_gradient_norms(folder, report);
    return common::draw_plots(folder, {"loss", "gradient_norm"});
}

}  // namespace very_deep
