// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>

#include <benchmark/benchmark.h>

#include <string>
#include <utility>

#include "ratio_reporter.hpp"

/// What the machine's multiply-adders can do at most: what a product is measured against.

inline constexpr int peak_chains = 12;
inline constexpr int peak_steps = 1000;

/// Operations of one iteration of `multiply_add_peak`, a multiply-add as two.
template <class Scalar>
inline constexpr double flops_of_peak =
    2.0 * static_cast<int>(Eigen::internal::packet_traits<Scalar>::size) * peak_chains * peak_steps;

/// The line of the summary that says which share of the peak, registered as BM_MultiplyAddPeak, a
/// benchmark of so many operations reaches.
[[nodiscard]] inline Ratio share_of_peak(std::string claim, std::string subject, double flops,
                                         double target = 0) {
    return {std::move(claim),
            std::move(subject),
            {"BM_MultiplyAddPeak"},
            target,
            flops / flops_of_peak<float>};
}

/// Independent chains of multiply-adds in registers.
template <class Scalar>
void multiply_add_peak(benchmark::State& state) {
    using Packet = typename Eigen::internal::packet_traits<Scalar>::type;
    constexpr int chains = peak_chains;
    constexpr int steps = peak_steps;
    Scalar factor(0.999F), term(0.001F);
    benchmark::DoNotOptimize(factor);
    benchmark::DoNotOptimize(term);
    const Packet a = Eigen::internal::pset1<Packet>(factor);
    const Packet b = Eigen::internal::pset1<Packet>(term);
    for (auto _ : state) {
        Packet sum[chains];
        for (int i = 0; i < chains; ++i)
            sum[i] = Eigen::internal::pset1<Packet>(static_cast<Scalar>(i));
        for (int step = 0; step < steps; ++step)
            for (int i = 0; i < chains; ++i) sum[i] = Eigen::internal::pmadd(sum[i], a, b);
        for (int i = 1; i < chains; ++i) sum[0] = Eigen::internal::padd(sum[0], sum[i]);
        Scalar total = Eigen::internal::predux(sum[0]);
        benchmark::DoNotOptimize(total);
    }
    count_flops(state, flops_of_peak<Scalar>);
}
