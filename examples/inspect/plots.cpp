// SPDX-License-Identifier: MIT
#include <sstream>

#include "../common/plots.hpp"
#include "report.hpp"

namespace inspect {

std::string plot(const std::string& folder, const Report& report) {
    std::vector<std::string> names;
    if (!report.layers.layers.empty()) {
        std::ostringstream points;
        points << "# layer, survival probability, derivative by it, Shapley value\n";
        for (std::size_t l = 0; l < report.layers.layers.size(); ++l) {
            const LayerRow& layer = report.layers.layers[l];
            points << l + 1 << ' ' << layer.survival_probability << ' ' << layer.sensitivity << ' '
                   << layer.shapley << '\n';
        }
        common::write_plot(
            folder, "layers", points.str(),
            common::svg_head("layers", "layer", "for " + report.layers.judged_by) +
                "set y2label 'survival probability'\nset y2range [0:1.05]\nset y2tics\n"
                "set ytics nomirror\nset style fill solid 0.6\nset boxwidth 0.35\n"
                "plot 'layers.dat' using ($1 - 0.2):3 with boxes title 'derivative by p_l', \\\n"
                "     'layers.dat' using ($1 + 0.2):4 with boxes title 'Shapley value', \\\n"
                "     'layers.dat' using 1:2 axes x1y2 with points title 'p_l'\n");
        names.emplace_back("layers");
    }
    if (report.subnetworks.found) {
        common::Curve curve{"the best of each size", {}};
        for (const sd::Subnetwork& best : report.subnetworks.found->by_size)
            curve.points.emplace_back(best.mask.count(), 0.0 - best.score);
        common::write_curves(folder, "subnetworks", "layers kept", report.subnetworks.judged_by,
                             {curve});
        names.emplace_back("subnetworks");
    }
    return names.empty() ? "No plots: there is no skippable layer."
                         : common::draw_plots(folder, names);
}

}  // namespace inspect
