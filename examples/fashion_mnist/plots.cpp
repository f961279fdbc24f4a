// SPDX-License-Identifier: MIT
#include "plots.hpp"

#include <sstream>

#include "../common/plots.hpp"

namespace fashion_mnist {

std::string plot(const std::string& folder, const Subnetworks& found) {
    std::ostringstream points;
    points << "# layers kept, negative log-likelihood, error in per cent\n";
    for (const auto& best : found.best)
        points << best.mask.count() << ' ' << best.negative_log_likelihood << ' '
               << 100 * best.error << '\n';
    common::write_plot(folder, "frontier", points.str(),
                       common::svg_head("frontier", "layers kept, the best of each number",
                                        "negative log-likelihood") +
                           "set y2label 'error, %'\nset y2tics\nset ytics nomirror\n"
                           "plot 'frontier.dat' using 1:2 with linespoints title 'negative "
                           "log-likelihood', \\\n     'frontier.dat' using 1:3 axes x1y2 with "
                           "linespoints title 'error'\n");
    std::ostringstream pairs;
    pairs << "# Shapley interaction of each pair of layers, for minus the negative "
             "log-likelihood\n"
          << found.pairs << '\n';
    common::write_plot(folder, "interactions", pairs.str(),
                       common::svg_head("interactions", "layer", "layer") +
                           "set palette defined (-1 'dark-blue', 0 'white', 1 'dark-red')\n"
                           "stats 'interactions.dat' matrix nooutput\n"
                           "far = STATS_max > -STATS_min ? STATS_max : -STATS_min\n"
                           "set cbrange [-far:far]\nset cblabel 'Shapley interaction'\n"
                           "unset grid\nset size ratio 1\n"
                           "set xrange [0.5:STATS_size_x + 0.5]\n"
                           "set yrange [0.5:STATS_size_y + 0.5]\n"
                           "plot 'interactions.dat' matrix using ($1 + 1):($2 + 1):3 with image "
                           "notitle\n");
    return common::draw_plots(folder, {"frontier", "interactions"});
}

}  // namespace fashion_mnist
