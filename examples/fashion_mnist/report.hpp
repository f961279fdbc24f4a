// SPDX-License-Identifier: MIT
#pragma once

#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "../common/rules.hpp"
#include "options.hpp"

namespace fashion_mnist {

/// What the skippable layers are worth to the probability of the right class.
struct LayerImportance {
    struct Layer {
        double survival_probability = 0;
        double sensitivity = 0;  // derivative by p_l
        double shapley = 0;
        double error_without = 0;  // of full depth with this layer removed
    };
    stochastic_depth::Index images = 0;
    double full_error = 0;
    std::vector<Layer> layers = {};
};

/// What is left when layers are taken out, by the negative log-likelihood of some images.
struct Subnetworks {
    struct Best {
        stochastic_depth::SurvivalMask mask;
        double negative_log_likelihood = 0;
        double error = 0;
    };
    stochastic_depth::Index images = 0;
    std::vector<Best> best = {};  // of 0, 1, ... layers
    Eigen::MatrixXd pairs = {};   // Shapley interactions, [L x L]
};

struct Report {
    Options options;
    std::vector<stochastic_depth::EpochRecord> epochs = {};
    std::vector<common::Row> rows = {};
    std::optional<LayerImportance> importance = std::nullopt;  // none for networks too deep
    std::optional<Subnetworks> subnetworks = std::nullopt;     // the same
    double seconds = 0;                                        // in all, reading the data included

    [[nodiscard]] double training_seconds() const;
    /// Share of the layer evaluations of full depth that training took.
    [[nodiscard]] double share_of_layers_run() const;
};

void print(std::ostream& out, const Report& report);

/// All figures, as JSON; a figure that there is none of, or that is infinite, is null.
/// \throws common::UsageError  if the file cannot be written.
void write_json(const std::string& path, const Report& report);

}  // namespace fashion_mnist
