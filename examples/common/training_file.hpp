// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/training/training_checkpoint.hpp>
#include <stochastic_depth/types.hpp>

#include "json_file.hpp"
#include "usage_error.hpp"

namespace common {

/// Where a training stands between two epochs, as a file: network, optimizer, settings and history.
class TrainingFile {
public:
    /// \param path  Empty: there is no such file.
    TrainingFile(std::string path, nlohmann::json settings)
        : path_(std::move(path)), settings_(std::move(settings)) {}

    [[nodiscard]] bool exists() const { return !path_.empty() && std::filesystem::exists(path_); }

    template <class Network, class Optimizer, class Epoch>
    void save(const Network& network, const Optimizer& optimizer, const std::vector<Epoch>& history,
              std::uint64_t steps) const {
        if (path_.empty()) return;
        const nlohmann::json description{{"settings", settings_}, {"history", history}};
        stochastic_depth::save_training(
            path_, network, optimizer,
            {.step = steps, .epoch = history.size(), .description = description.dump()});
    }

    /// \returns  Steps that are done.
    /// \throws UsageError  if it was written by a training with other settings.
    template <class Network, class Optimizer, class Epoch>
    [[nodiscard]] stochastic_depth::Index load(Network& network, Optimizer& optimizer,
                                               std::vector<Epoch>& history) const {
        try {
            const stochastic_depth::TrainingState state =
                stochastic_depth::load_training(path_, network, optimizer);
            const nlohmann::json description = nlohmann::json::parse(state.description);
            check_same_settings(path_, description.at("settings"), settings_);
            history = description.at("history").template get<std::vector<Epoch>>();
            return static_cast<stochastic_depth::Index>(state.step);
        } catch (const UsageError&) {
            throw;
        } catch (const std::exception& error) {
            throw UsageError(error.what());
        }
    }

private:
    std::string path_;
    nlohmann::json settings_;
};

}  // namespace common
