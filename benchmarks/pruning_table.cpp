// SPDX-License-Identifier: MIT
//
// Which layers to keep, if k of L may stay? Trains the network of examples/fashion_mnist and prints
// for each k the negative log-likelihood of the first test images with the layers kept that
//     best         are the best of all masks of k layers
//     beam         a beam search of width 10 finds
//     greedy       are left when the layer that is missed least is removed, again and again
//     Shapley      have the k largest Shapley values
//     slope        have the k largest derivatives of the expected score by p
//     first        come first
// and the error on the test images behind them, which chose nothing, for best, greedy and Shapley.
//
// usage: pruning_table [depth 12] [epochs 15] [images 500] [folder of the data set]
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include "trained_classifier.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

/// The layers with the k largest values, for k = 0, ..., L.
std::vector<sd::SurvivalMask> largest(const Eigen::VectorXd& values) {
    std::vector<Index> order(static_cast<std::size_t>(values.size()));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return values(a) > values(b); });
    std::vector<sd::SurvivalMask> masks{sd::SurvivalMask::none(values.size())};
    for (const Index l : order) {
        masks.push_back(masks.back());
        masks.back().keep(l);
    }
    return masks;
}

std::vector<sd::SurvivalMask> masks_of(const sd::BestSubnetworks& found) {
    std::vector<sd::SurvivalMask> masks;
    for (const sd::Subnetwork& each : found.by_size) masks.push_back(each.mask);
    return masks;
}

void run(const fashion_mnist::Options& options, Index images) {
    const auto data = common::load_data(options);
    const auto network = trained_classifier(data.train, options);
    const Index depth = network.depth(), others = data.test.size() - images;
    const sd::Matrix<float> x = data.test.inputs().leftCols(images),
                            x_behind = data.test.inputs().rightCols(others);
    const Eigen::VectorXi labels = data.test.labels().head(images),
                          labels_behind = data.test.labels().tail(others);
    const auto score = [&](const sd::ConstMatrixRef<float>& probabilities) {
        return -sd::negative_log_likelihood(probabilities, labels);
    };
    const Eigen::VectorXd values = sd::mask_values(network, x, score);
    const auto of_single_layers = [&](const Eigen::VectorXd& of_sets) {
        Eigen::VectorXd single(depth);
        for (Index l = 0; l < depth; ++l) single(l) = of_sets(Index{1} << l);
        return single;
    };
    const Eigen::VectorXd by_depth = Eigen::VectorXd::LinSpaced(depth, 0.0, -1.0);
    const std::vector<std::vector<sd::SurvivalMask>> choices{
        masks_of(sd::best_subnetworks(network, values)),
        masks_of(sd::beam_search_subnetworks(network, x, score, 10)),
        masks_of(sd::beam_search_subnetworks(network, x, score, 1)),
        largest(of_single_layers(sd::shapley_interactions(values))),
        largest(of_single_layers(
            sd::ensemble_interactions(values, network.survival_probabilities()))),
        largest(by_depth)};

    std::printf("depth %td, width %td, %td epochs; chosen on %td images, errors on %td others\n\n",
                depth, options.width, options.epochs, images, others);
    std::printf("| k | best | beam | greedy | Shapley | slope | first | error: best | greedy | "
                "Shapley |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (std::size_t k = 0; k <= static_cast<std::size_t>(depth); ++k) {
        std::printf("| %zu |", k);
        for (const auto& masks : choices)
            std::printf(" %.4f |", -values(sd::index_of(masks[k])));
        for (const std::size_t choice : {0u, 2u, 3u}) {
            const sd::Matrix<float> y =
                sd::masked_forward(network, x_behind, choices[choice][k]);
            std::printf(" %.2f %% |", 100 * sd::error_rate(y, labels_behind));
        }
        std::printf("\n");
    }
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto number = [&](int place, long otherwise) {
            return argc > place ? std::stol(argv[place]) : otherwise;
        };
        fashion_mnist::Options options;
        options.depth = number(1, 12);
        options.epochs = number(2, 15);
        const long images = number(3, 500);
        if (argc > 4) options.data = argv[4];
        run(options, images);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "pruning_table: %s\n", error.what());
        return 1;
    }
}
