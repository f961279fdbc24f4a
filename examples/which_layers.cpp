// SPDX-License-Identifier: MIT
//
// A network of 12 residual layers has learned sin(3 a) cos(2 b) with stochastic depth. Which 4 of
// its layers can go? Of 12 over 4 = 495 answers one sweep over all 2^12 masks finds the best, and
// the best of every other size too. Values of single layers (Shapley) and removing the layer that
// is missed least, again and again (greedy: a beam of width 1), answer more cheaply, and not always
// as well. What remains is a network of 8 layers, as fast as one.
#include <stochastic_depth/all.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

namespace sd = stochastic_depth;

namespace {

/// The best microseconds of 200 passes.
template <class Network>
double time_of(const Network& network, const sd::Matrix<float>& x) {
    using clock = std::chrono::steady_clock;
    sd::Matrix<float> y(1, x.cols());
    const sd::SurvivalMask all = sd::SurvivalMask::all(network.depth());
    double best = 1e9;
    for (int k = 0; k < 200; ++k) {
        const auto start = clock::now();
        sd::masked_forward(network, x, all, y);
        const std::chrono::duration<double, std::micro> spent = clock::now() - start;
        best = std::min(best, spent.count());
    }
    return best;
}

}  // namespace

int main() {
    constexpr sd::Index depth = 12, width = 32;
    sd::Philox random{2026};
    const auto p = sd::linear_decay(depth, 0.5);
    using Branch = sd::Sequential<sd::Linear<float>, sd::Tanh<float>, sd::Linear<float>>;
    std::vector<sd::StochasticDepth<sd::Residual<Branch>>> layers;
    for (const double p_l : p)
        layers.emplace_back(
            sd::Residual{Branch{sd::Linear<float>{width, width, random, 1.0}, sd::Tanh<float>{},
                                sd::Linear<float>{width, width, random, 0.1}}},
            sd::SurvivalProbability{p_l});
    sd::Sequential network{sd::Linear<float>{2, width, random, 1.0}, sd::Tanh<float>{},
                           sd::Stack{layers}, sd::Linear<float>{width, 1, random, 1.0}};

    sd::Matrix<float> x(2, 2048);  // [features x batch]
    for (float& entry : x.reshaped()) entry = sd::uniform<float>(random, -1.0f, 1.0f);
    const sd::Matrix<float> y =
        (3 * x.row(0)).array().sin() * (2 * x.row(1)).array().cos();
    const sd::MeanSquaredError<float> loss;
    (void)sd::Trainer{{.batch_size = 64, .epochs = 40, .seed = 1}}.fit(
        network, sd::Dataset<float, sd::Matrix<float>>{x.leftCols(1536), y.leftCols(1536)}, loss,
        sd::Adam{network, {.learning_rate = 0.003}});

    const sd::Matrix<float> held_x = x.rightCols(512), held_y = y.rightCols(512);
    const auto score = [&](const sd::ConstMatrixRef<float>& outputs) {
        return -loss.value(outputs, held_y);
    };
    const Eigen::VectorXd values = sd::mask_values(network, held_x, score);
    const sd::BestSubnetworks best = sd::best_subnetworks(network, values);
    const sd::BestSubnetworks greedy = sd::beam_search_subnetworks(network, held_x, score, 1);
    const Eigen::VectorXd interactions = sd::shapley_interactions(values);
    std::vector<sd::Index> order(depth);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](sd::Index a, sd::Index b) {
        return interactions(sd::Index{1} << a) > interactions(sd::Index{1} << b);
    });

    std::printf("mean squared error with the k best layers:\n");
    std::printf(" k       best     greedy    Shapley   layers of the best\n");
    sd::SurvivalMask shapley = sd::SurvivalMask::none(depth);
    for (std::size_t k = 0; k <= static_cast<std::size_t>(depth); ++k) {
        if (k > 0) shapley.keep(order[k - 1]);
        std::printf("%2zu %10.6f %10.6f %10.6f   %s\n", k, -best.by_size[k].score,
                    -greedy.by_size[k].score, -values(sd::index_of(shapley)),
                    to_string(best.by_size[k].mask).c_str());
    }
    std::printf("what layers do together for minus the error, the largest Shapley interactions:\n");
    for (const sd::Interaction& each : sd::largest_interactions(interactions, 4)) {
        std::printf("  %9.6f, layers", each.value);
        for (const sd::Index l : each.layers) std::printf(" %d", static_cast<int>(l) + 1);
        std::printf("\n");
    }

    const sd::SurvivalMask& kept = best.by_size[8].mask;
    const auto smaller = sd::without_layers(network, kept);
    std::printf("512 samples: %.0f us with 12 layers, %.0f us with 8\n", time_of(network, held_x),
                time_of(smaller, held_x));
    const bool same = smaller(held_x, sd::SurvivalMask::all(8)) == network(held_x, kept);
    return same ? 0 : 1;
}
