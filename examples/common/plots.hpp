// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "output_file.hpp"
#include "usage_error.hpp"

/// Plots of a program with an option --plot-dir: gnuplot, where it is installed, draws NAME.svg from
/// NAME.gp and NAME.dat.
namespace common {

/// Makes the folder if it is not there.
/// \throws UsageError  if NAME.dat cannot be written into it.
inline void prepare_plots(const std::string& folder, const std::string& name) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error)
        throw UsageError("--plot-dir: cannot make the folder " + folder + ": " + error.message());
    check_writable("--plot-dir", folder + "/" + name + ".dat");
}

/// A word of the shell that stands for exactly this text.
[[nodiscard]] inline std::string shell_word(std::string_view text) {
    std::string word = "'";
    for (const char letter : text) {
        if (letter == '\'')
            word += "'\\''";
        else
            word += letter;
    }
    return word + "'";
}

/// What a script begins with. Scripts run one after another in one gnuplot.
[[nodiscard]] inline std::string svg_head(const std::string& name, const std::string& x,
                                          const std::string& y) {
    return "reset\nset terminal svg size 900,540 dynamic background rgb 'white'\nset output '" + name +
           ".svg'\nset xlabel '" + x + "'\nset ylabel '" + y + "'\nset grid\n";
}

/// Writes points and script of a plot.
inline void write_plot(const std::string& folder, const std::string& name,
                       const std::string& points, const std::string& script) {
    write_file("--plot-dir", folder + "/" + name + ".dat", points);
    write_file("--plot-dir", folder + "/" + name + ".gp", script);
}

/// A line of a plot.
struct Curve {
    std::string title;
    std::vector<std::pair<double, double>> points;
};

/// Writes points and script of lines side by side.
/// \param settings  Of gnuplot, each ending in a newline; may be empty.
inline void write_curves(const std::string& folder, const std::string& name, const std::string& x,
                         const std::string& y, const std::vector<Curve>& curves,
                         const std::string& settings = {}) {
    std::ostringstream points;
    std::string script =
        svg_head(name, x, y) + settings + "set key outside below maxcols 2\nplot ";
    for (std::size_t i = 0; i < curves.size(); ++i) {
        points << "# " << curves[i].title << ": " << x << ", " << y << '\n';
        for (const auto& [at, value] : curves[i].points) points << at << ' ' << value << '\n';
        points << "\n\n";
        script += (i > 0 ? ", \\\n     '" : "'") + name + ".dat' index " + std::to_string(i) +
                  " with lines title '" + curves[i].title + "'";
    }
    write_plot(folder, name, points.str(), script + "\n");
}

/// Has gnuplot draw the plots that were written.
/// \returns  What came of it, in one sentence.
[[nodiscard]] inline std::string draw_plots(const std::string& folder,
                                            const std::vector<std::string>& names) {
    std::string scripts, pictures;
    for (const std::string& name : names) {
        scripts += " " + name + ".gp";
        pictures += (pictures.empty() ? "" : " and ") + folder + "/" + name + ".svg";
    }
    if (std::system("command -v gnuplot >/dev/null 2>&1") != 0)
        return "No plots: gnuplot is not installed (Debian: gnuplot-nox); in " + folder +
               ", gnuplot" + scripts + " draws them.";
    // "./", so that no folder's name is taken for an option.
    const std::string there = folder.starts_with('/') ? folder : "./" + folder;
    const std::string draw = "cd " + shell_word(there) + " && gnuplot" + scripts;
    if (std::system(draw.c_str()) != 0)
        return "No plots: gnuplot failed on" + scripts + " in " + folder + ".";
    return "Plots: " + pictures + ".";
}

}  // namespace common
