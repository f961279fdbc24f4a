// SPDX-License-Identifier: MIT
//
// Which estimator of f_SD tells most for its layer evaluations? Trains the network of
// examples/fashion_mnist, softmax inside, and prints for each estimator, at the layer evaluations
// of 10 and of 100 plain samples, over many replications:
//     masks   that the budget pays, prefixes shared
//     total   variance of plain sampling / variance of the estimator, each summed over classes and images
//     entry   1 / mean over wide outputs of (variance of the estimator / that of plain sampling)
//     se      square root of the mean of (standard error)^2 / variance: 1 is honest, more is careful
//     95 %    share of the 95 % intervals of wide outputs that hold the true mean
//     narrow  the same for the other outputs, where rare masks decide
// Wide outputs are the class probabilities whose standard deviation over the masks is above 0.01.
// Plain sampling, one pass for each mask, has total = entry = 1.
//
// usage: estimator_table [depth 12] [epochs 15] [images 50] [replications 200] [folder of the data
// set]
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/confidence_interval.hpp>
#include <stochastic_depth/expectation/options_within_budget.hpp>

#include "trained_classifier.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

struct Arguments {
    fashion_mnist::Options network;
    Index images = 50;
    int replications = 200;
};

Arguments parse(int argc, char** argv) {
    Arguments arguments;
    const auto number = [&](int place, long otherwise) {
        return argc > place ? std::stol(argv[place]) : otherwise;
    };
    arguments.network.depth = number(1, 12);
    arguments.network.epochs = number(2, 15);
    arguments.images = number(3, 50);
    arguments.replications = static_cast<int>(number(4, 200));
    if (argc > 5) arguments.network.data = argv[5];
    return arguments;
}

struct Estimator {
    std::string name;
    sd::MonteCarloExpectationOptions options;
};

std::vector<Estimator> estimators() {
    using Design = sd::MaskDesign;
    constexpr auto bits = sd::ControlVariates::mask_bits;
    std::vector<Estimator> rows{
        {"independent", {}},
        {"independent, regression", {.control_variates = bits}},
        {"antithetic", {.design = Design::antithetic}},
        {"antithetic, regression", {.design = Design::antithetic, .control_variates = bits}},
        {"stratified", {.design = Design::stratified}},
        {"stratified, regression", {.design = Design::stratified, .control_variates = bits}},
        {"stratified, 5 groups", {.design = Design::stratified, .groups = 5}},
        {"lattice, 1 group", {.design = Design::lattice, .groups = 1}},
        {"lattice, 1 group, regression",
         {.design = Design::lattice, .groups = 1, .control_variates = bits}},
        {"lattice, 5 groups", {.design = Design::lattice}},
        {"lattice, 5 groups, regression", {.design = Design::lattice, .control_variates = bits}},
        {"lattice, 10 groups, regression",
         {.design = Design::lattice, .groups = 10, .control_variates = bits}}};
    for (const Index k : {2, 4}) {
        const std::string last = ", " + std::to_string(k) + " enumerated";
        rows.push_back({"independent" + last, {.enumerated_layers = k}});
        rows.push_back(
            {"stratified" + last, {.design = Design::stratified, .enumerated_layers = k}});
        rows.push_back(
            {"lattice, 5 groups, regr." + last,
             {.design = Design::lattice, .enumerated_layers = k, .control_variates = bits}});
    }
    return rows;
}

template <class Estimate>
void print_row(const std::string& name, const sd::ExpectationResult<double>& exact,
               double plain_samples, int replications, const Estimate& estimate) {
    Eigen::ArrayXXd square = Eigen::ArrayXXd::Zero(exact.mean.rows(), exact.mean.cols()),
                    error = square;
    const Eigen::ArrayXXd wide = (exact.variance.array() > 1e-4).cast<double>();
    double wide_covered = 0, narrow_covered = 0, masks = 0, evaluations = 0;
    for (int r = 0; r < replications; ++r) {
        const sd::ExpectationResult<float> sampled = estimate(static_cast<std::uint64_t>(r));
        const auto interval = sd::confidence_interval(sampled, 0.95);
        const Eigen::ArrayXXd mean = exact.mean.array();
        square += (sampled.mean.cast<double>().array() - mean).square() / replications;
        error += sampled.standard_error.cast<double>().array().square() / replications;
        const Eigen::ArrayXXd holds = (interval.lower.cast<double>().array() <= mean &&
                                       mean <= interval.upper.cast<double>().array())
                                          .cast<double>();
        wide_covered += (holds * wide).sum() / wide.sum() / replications;
        narrow_covered += (holds * (1 - wide)).sum() / (1 - wide).sum() / replications;
        masks += static_cast<double>(sampled.samples) / replications;
        evaluations += sampled.layer_evaluations / replications;
    }
    const Eigen::ArrayXXd plain = exact.variance.array() / plain_samples;
    std::printf("%-38s %7.0f %9.0f %9.1f %8.2f %7.2f %7.1f %7.1f\n", name.c_str(), masks,
                evaluations, plain.sum() / square.sum(), wide.sum() / (square / plain * wide).sum(),
                std::sqrt(error.sum() / square.sum()), 100 * wide_covered, 100 * narrow_covered);
    std::fflush(stdout);
}

void run(const Arguments& arguments) {
    const auto data = common::load_data(arguments.network);
    const auto network = trained_classifier(data.train, arguments.network);
    const Eigen::VectorXd p = network.survival_probabilities();
    const sd::Matrix<float> x = data.test.inputs().leftCols(arguments.images);

    // The truth in double; where it takes too long, from so many masks that its error can be
    // ignored.
    sd::ExpectationResult<double> exact;
    const bool is_exact = network.depth() <= 16;
    const auto answer =
        is_exact ? sd::MonteCarloExpectation{{.samples = 2, .enumerated_layers = network.depth()}}(
                       network, x)
                 : sd::MonteCarloExpectation{{.samples = 1 << 17,
                                              .seed = std::uint64_t{1} << 40,
                                              .design = sd::MaskDesign::lattice,
                                              .control_variates = sd::ControlVariates::mask_bits}}(
                       network, x);
    exact.mean = answer.mean.cast<double>();
    exact.variance = answer.variance.cast<double>();
    std::printf(
        "depth %td, width %td, %td epochs, %td images, %td of %td outputs wide, %d replications\n"
        "sum of p %.2f; true means from %s\n",
        network.depth(), arguments.network.width, arguments.network.epochs, x.cols(),
        (exact.variance.array() > 1e-4).count(), exact.mean.size(), arguments.replications, p.sum(),
        is_exact ? "all masks" : "131072 masks");

    for (const double samples : {10.0, 100.0}) {
        const double budget = samples * p.sum();
        std::printf("\n%.0f layer evaluations, those of %.0f plain samples\n", budget, samples);
        std::printf("%-38s %7s %9s %9s %8s %7s %7s %7s\n", "estimator", "masks", "evaluated",
                    "total", "entry", "se", "95 %", "narrow");
        for (const Estimator& row : estimators())
            print_row(row.name, exact, samples, arguments.replications, [&](std::uint64_t seed) {
                auto options = row.options;
                options.samples = static_cast<Index>(4 * budget);
                options.max_layer_evaluations = budget;
                options.seed = seed;
                return sd::MonteCarloExpectation{options}(network, x);
            });
        print_row(
            "options_within_budget", exact, samples, arguments.replications, [&](std::uint64_t seed) {
                return sd::MonteCarloExpectation{sd::options_within_budget(budget, p, seed)}(network, x);
            });
    }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run(parse(argc, argv));
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "estimator_table: %s\n", error.what());
        return 1;
    }
}
