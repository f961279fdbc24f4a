// SPDX-License-Identifier: MIT
#include "plots.hpp"

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <system_error>

#include "../common/output_file.hpp"
#include "../common/usage_error.hpp"

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

std::string head(const std::string& picture, const std::string& x, const std::string& y) {
    return "set terminal svg size 900,540 dynamic background rgb 'white'\nset output '" + picture +
           "'\nset xlabel '" + x + "'\nset ylabel '" + y +
           "'\nset logscale y\nset format y '%g'\nset grid\nset key outside below maxcols 2\n";
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
    common::write_file("--plot-dir", folder + "/loss.dat", points.str());
    common::write_file("--plot-dir", folder + "/loss.gp",
                       head("loss.svg", "epoch", "training loss") + join(curves));
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
    common::write_file("--plot-dir", folder + "/gradient_norm.dat", points.str());
    common::write_file(
        "--plot-dir", folder + "/gradient_norm.gp",
        head("gradient_norm.svg", "depth, l / L", "gradient norm of a block") + join(curves));
}

/// A word of the shell that stands for exactly this text.
std::string shell_word(std::string_view text) {
    std::string word = "'";
    for (const char letter : text) {
        if (letter == '\'')
            word += "'\\''";
        else
            word += letter;
    }
    return word + "'";
}

}  // namespace

void prepare_plots(const std::string& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error)
        throw common::UsageError("--plot-dir: cannot make the folder " + folder + ": " +
                                 error.message());
    common::check_writable("--plot-dir", folder + "/loss.dat");
}

std::string plot(const std::string& folder, const Report& report) {
    write_loss(folder, report);
    write_gradient_norms(folder, report);
    if (std::system("command -v gnuplot >/dev/null 2>&1") != 0)
        return "No plots: gnuplot is not installed (Debian: gnuplot-nox); in " + folder +
               ", gnuplot loss.gp gradient_norm.gp draws them.";
    // "./", so that no folder's name is taken for an option.
    const std::string there = folder.starts_with('/') ? folder : "./" + folder;
    const std::string draw = "cd " + shell_word(there) + " && gnuplot loss.gp gradient_norm.gp";
    if (std::system(draw.c_str()) != 0)
        return "No plots: gnuplot failed on loss.gp and gradient_norm.gp in " + folder + ".";
    return "Plots: " + folder + "/loss.svg and " + folder + "/gradient_norm.svg.";
}

}  // namespace very_deep
