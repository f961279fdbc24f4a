// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "options.hpp"

namespace very_deep {

/// What one training came to.
struct Run {
    struct LossAt {
        double epoch = 0;  // epochs done
        double loss = 0;   // mean over the steps since the point before
    };

    stochastic_depth::Index blocks = 0;
    double final_survival = 1;  // 1: without stochastic depth
    std::uint64_t seed = 0;

    double seconds = 0;      // of training
    double cpu_seconds = 0;  // the same, summed over all threads
    std::vector<double> epoch_losses = {};
    std::vector<LossAt> losses = {};
    double test_error = 0;         // full depth
    double test_error_scaled = 0;  // weight scaling

    /// Of blocks, over all images of the training.
    double layer_evaluations = 0;
    double expected_layer_evaluations = 0;
    double full_depth_evaluations = 0;

    /// Norm of the gradient by the parameters of each block, before clipping: root mean square over
    /// the first steps and over the last ones.
    std::vector<double> norms_at_beginning = {};
    std::vector<double> norms_at_end = {};
    stochastic_depth::Index measured_steps = 0;
    /// Of the gradient by all parameters, before clipping, over all steps.
    double largest_gradient_norm = 0;

    /// "1000 blocks, p_L = 0.5, seed 0".
    [[nodiscard]] std::string name() const;
};

struct Report {
    Options options;
    std::vector<Run> runs = {};
    double seconds = 0;  // in all, reading the data included
};

void print(std::ostream& out, const Report& report);

/// All figures, as JSON.
/// \throws common::UsageError  if the file cannot be written.
void write_json(const std::string& path, const Report& report);

}  // namespace very_deep
