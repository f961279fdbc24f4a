// SPDX-License-Identifier: MIT
//
// What a network of L residual layers does under every one of its 2^L masks, linear decay to 0.5:
// the table of a scalar's values beside the exact mean and variance of the same network, and what
// is computed from the table: the best sub-networks with the frontier, interactions, Sobol indices,
// the distribution. The scalar is a linear function of the outputs of one sample.
//
// BM_Analysis is the table, the best sub-networks, Banzhaf interactions and Sobol indices at once.
// One thread's CPU time.
#include <stochastic_depth/analysis/best_subnetworks.hpp>
#include <stochastic_depth/analysis/interactions.hpp>
#include <stochastic_depth/analysis/mask_distribution.hpp>
#include <stochastic_depth/analysis/sobol_indices.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

using namespace stochastic_depth;

constexpr Index depth = 20, width = 64;

struct Problem {
    ResidualNetwork<float> network = residual_network(dense_layers<float>(depth, width));
    Matrix<float> x = Matrix<float>::Random(width, 1);
    Vector<float> slopes = Vector<float>::Random(width);
    Eigen::VectorXd p = network.survival_probabilities();

    [[nodiscard]] Eigen::VectorXd values() const {
        return mask_values(network, x, [&](const ConstMatrixRef<float>& y) {
            return slopes.dot(y.col(0));
        });
    }
};

/// Measures run(problem, its values).
template <class Run>
void add(const char* family, const Run& run) {
    benchmark::RegisterBenchmark(family, [run](benchmark::State& state) {
        const Problem problem;
        static const Eigen::VectorXd values = Problem{}.values();
        for (auto _ : state) {
            auto result = run(problem, values);
            benchmark::DoNotOptimize(result);
            benchmark::ClobberMemory();
        }
    })->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
    using Values = Eigen::VectorXd;
    add("BM_ExactExpectation", [](const Problem& of, const Values&) {
        return ExactExpectation{}(of.network, of.x);
    });
    add("BM_MaskValues", [](const Problem& of, const Values&) { return of.values(); });
    add("BM_BestSubnetworks", [](const Problem& of, const Values& values) {
        return best_subnetworks(of.network, values);
    });
    add("BM_HarsanyiDividends",
        [](const Problem&, const Values& values) { return harsanyi_dividends(values); });
    add("BM_BanzhafInteractions",
        [](const Problem&, const Values& values) { return banzhaf_interactions(values); });
    add("BM_ShapleyInteractions",
        [](const Problem&, const Values& values) { return shapley_interactions(values); });
    add("BM_SobolIndices",
        [](const Problem& of, const Values& values) { return sobol_indices(values, of.p); });
    add("BM_MaskDistribution",
        [](const Problem& of, const Values& values) { return MaskDistribution(values, of.p); });
    add("BM_Analysis", [](const Problem& of, const Values&) {
        const Values values = of.values();
        double sum = 0;
        sum += best_subnetworks(of.network, values).by_size[10].score;
        sum += largest_interactions(banzhaf_interactions(values), 10)[0].value;
        return sum + sobol_indices(values, of.p).total(0, 0);
    });
    const std::vector<std::string> mean{"BM_ExactExpectation"};
    const auto over_mean = [&](const std::string& what, const std::string& family, double limit) {
        // Printed is how many times the subject goes into its peer.
        return Ratio{what + " / exact mean", mean[0], {family}, 0, 1, limit};
    };
    return run_benchmarks(argc, argv,
                          {over_mean("table of all masks", "BM_MaskValues", 2),
                           over_mean("best sub-networks of the table", "BM_BestSubnetworks", 0),
                           over_mean("Banzhaf interactions", "BM_BanzhafInteractions", 0),
                           over_mean("Shapley interactions", "BM_ShapleyInteractions", 0),
                           over_mean("Sobol indices", "BM_SobolIndices", 0),
                           over_mean("distribution", "BM_MaskDistribution", 0),
                           over_mean("table, best, interactions, Sobol", "BM_Analysis", 0)});
}
