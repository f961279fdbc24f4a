// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cmath>
#include <string>
#include <utility>

#include <stochastic_depth/training/trainer_options.hpp>

#include "progress.hpp"
#include "text.hpp"

namespace common {

/// "1 h 02 min", "3 min 20 s", "5 s".
[[nodiscard]] inline std::string duration(double seconds) {
    const auto whole = static_cast<long long>(std::ceil(seconds));
    const auto two_digits = [](long long n) {
        return std::string{static_cast<char>('0' + n / 10), static_cast<char>('0' + n % 10)};
    };
    if (whole >= 3600)
        return std::to_string(whole / 3600) + " h " + two_digits(whole / 60 % 60) + " min";
    if (whole >= 60) return std::to_string(whole / 60) + " min " + two_digits(whole % 60) + " s";
    return std::to_string(whole) + " s";
}

/// What Trainer is to call after each step: shows loss and time left.
class TrainingReport {
public:
    /// \param name  What is trained, at the beginning of each line: "seed 0: "; may be empty.
    explicit TrainingReport(Progress& progress, std::string name = {})
        : progress_(&progress), name_(std::move(name)) {}

    void operator()(const stochastic_depth::TrainingProgress& at) {
        if (at.step == 0) seen_ = loss_ = 0;
        ++seen_;
        loss_ += (at.loss - loss_) / seen_;
        ++done_;
        const double taken =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
        const auto left = static_cast<double>((at.epochs - at.epoch) * at.steps - at.step - 1);
        const std::string epoch =
            name_ + "epoch " + std::to_string(at.epoch + 1) + " of " + std::to_string(at.epochs);
        const std::string rest =
            ": loss " + fixed(loss_, 4) + ", " + duration(taken / done_ * left) + " left";
        if (at.step + 1 == at.steps)
            progress_->done(epoch + rest);
        else
            progress_->now(epoch + ", step " + std::to_string(at.step + 1) + " of " +
                           std::to_string(at.steps) + rest);
    }

private:
    Progress* progress_;
    std::string name_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    double done_ = 0;  // steps
    double seen_ = 0;  // steps of the epoch
    double loss_ = 0;  // their mean
};

}  // namespace common
