// SPDX-License-Identifier: MIT
#pragma once

#include <benchmark/benchmark.h>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

/// A line of the summary: how many times faster `subject` is than the fastest of `peers`.
struct Ratio {
    std::string claim;
    std::string subject;
    std::vector<std::string> peers;
    /// What the ratio ought to reach; 0 where nothing is claimed.
    double target = 0;
    /// How many times as much work the subject does in an iteration as the peers do.
    double work = 1;
    /// What the ratio ought to stay below; 0 where nothing is claimed.
    double limit = 0;
};

/// The name of one benchmark, as the reporter knows it: name({"BM_A", {{"width", 8}}}) is
/// BM_A/width:8.
struct Case {
    std::string family;
    std::vector<std::pair<std::string, long>> arguments;
};
[[nodiscard]] inline std::string name(const Case& benchmark) {
    std::string text = benchmark.family;
    for (const auto& [argument, value] : benchmark.arguments)
        text += "/" + argument + ":" + std::to_string(value);
    return text;
}

/// Prints the median of each benchmark, and then a line for each ratio of two medians of this run.
/// Times are those that a benchmark is measured by: real time where it says so, else the thread's
/// CPU time.
class RatioReporter : public benchmark::ConsoleReporter {
public:
    explicit RatioReporter(std::vector<Ratio> ratios)
        : ConsoleReporter(OO_Tabular), ratios_(std::move(ratios)) {}

    bool ReportContext(const Context& context) override {
        GetErrorStream() << "The benchmarks take turns; medians follow at the end.\n";
        return ConsoleReporter::ReportContext(context);
    }

    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            const bool one_of_many = run.run_type == Run::RT_Iteration && run.repetitions > 1;
            const bool other_statistic =
                run.run_type == Run::RT_Aggregate && run.aggregate_name != "median";
            if (one_of_many || other_statistic) continue;
            const bool real = run.run_name.time_type.find("real_time") != std::string::npos;
            const double time = real ? run.GetAdjustedRealTime() : run.GetAdjustedCPUTime();
            std::string key = run.run_name.function_name;
            if (!run.run_name.args.empty()) key += "/" + run.run_name.args;
            seconds_[key] = time / benchmark::GetTimeUnitMultiplier(run.time_unit);
            medians_.push_back(run);
        }
    }

    /// In the order in which the benchmarks were registered, not in that in which they finished.
    void Finalize() override {
        std::stable_sort(medians_.begin(), medians_.end(), [](const Run& a, const Run& b) {
            return std::pair{a.family_index, a.per_family_instance_index} <
                   std::pair{b.family_index, b.per_family_instance_index};
        });
        ConsoleReporter::ReportRuns(medians_);
        for (const Ratio& ratio : ratios_) print(ratio);
        GetOutputStream().flush();
    }

private:
    /// Nothing where a benchmark was filtered out or failed.
    void print(const Ratio& ratio) {
        const double subject = seconds(ratio.subject);
        double best = 0;
        std::string opponent;
        for (const std::string& peer : ratio.peers)
            if (const double time = seconds(peer); time > 0 && (opponent.empty() || time < best)) {
                best = time;
                opponent = peer;
            }
        if (!(subject > 0) || opponent.empty()) return;
        char figures[96];
        const double value = ratio.work * best / subject;
        if (ratio.target > 0)
            std::snprintf(figures, sizeof figures, ": %.2f (target %.2f%s)", value, ratio.target,
                          value < ratio.target ? ", MISSED" : "");
        else if (ratio.limit > 0)
            std::snprintf(figures, sizeof figures, ": %.3f (limit %.3f%s)", value, ratio.limit,
                          value > ratio.limit ? ", MISSED" : "");
        else
            std::snprintf(figures, sizeof figures, ": %.2f", value);
        GetOutputStream() << "ratio " << ratio.claim << figures;
        if (ratio.peers.size() > 1) GetOutputStream() << ", the best being " << opponent;
        GetOutputStream() << '\n';
    }

    [[nodiscard]] double seconds(const std::string& benchmark) const {
        const auto found = seconds_.find(benchmark);
        return found == seconds_.end() ? 0 : found->second;
    }

    std::vector<Ratio> ratios_;
    std::vector<Run> medians_;
    std::map<std::string, double> seconds_;
};

/// main() of a benchmark program. By default the benchmarks take turns at random, so that a slow
/// spell of the machine hits all of them, and medians are compared; flags on the command line win.
[[nodiscard]] inline int run_benchmarks(int argc, char** argv, std::vector<Ratio> ratios) {
    std::vector<std::string> texts{
        argc > 0 ? argv[0] : "benchmark", "--benchmark_repetitions=9", "--benchmark_min_time=0.02",
        "--benchmark_enable_random_interleaving=true", "--benchmark_display_aggregates_only=true"};
    for (int i = 1; i < argc; ++i) texts.emplace_back(argv[i]);
    std::vector<char*> arguments;
    for (std::string& text : texts) arguments.push_back(text.data());
    int count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
#if defined(__clang__)
    benchmark::AddCustomContext("compiler", __VERSION__);
#else
    benchmark::AddCustomContext("compiler", "g++ " __VERSION__);
#endif
    benchmark::AddCustomContext("vector instructions", Eigen::SimdInstructionSetsInUse());
    RatioReporter reporter{std::move(ratios)};
    benchmark::RunSpecifiedBenchmarks(&reporter);
    benchmark::Shutdown();
    return 0;
}

/// Counts `flops` floating-point operations in each iteration, a multiply-add as two; shown as a
/// rate.
inline void count_flops(benchmark::State& state, double flops) {
    state.counters["flop"] =
        benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}
