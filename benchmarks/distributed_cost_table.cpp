// SPDX-License-Identifier: MIT
//
// What many ranks would take, by a model with four numbers. Work and messages are measured here,
//
//     mpiexec -n 2 distributed_cost_table
//
// and two more networks of cables stand beside this machine's by what their makers say. The model:
//
//     step(R) = work of a rank's samples + 2 (R - 1) groups latency + 2 (R - 1) / R bytes / bandwidth
//
// A group of layers travels at once (DataParallel), 2^15 parameters or more; each rank sends a message to
// each other one, twice. Nothing is hidden behind the way back, so this is an upper bound of what
// messages take. All layers are sent: under one mask for each batch it is sum(p) / L of it.
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/training/parameters.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "residual_network.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

template <class Run>
double median_seconds(int rounds, const Run& run) {
    std::vector<double> seconds;
    for (int round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        run();
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        seconds.push_back(time.count());
    }
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
}

/// How messages travel.
struct Wire {
    std::string name;
    double latency;    ///< seconds of a short message
    double bandwidth;  ///< bytes a second of a rank
};

/// Of so many bytes from rank 0 to rank 1 and back, half the time.
double message_seconds(int rank, std::size_t bytes) {
    std::vector<std::uint8_t> data(bytes);
    const int count = sd::detail::mpi_count(bytes);
    const double both = median_seconds(bytes > 1000 ? 51 : 2001, [&] {
        if (rank == 0) {
            MPI_Send(data.data(), count, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
            MPI_Recv(data.data(), count, MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else if (rank == 1) {
            MPI_Recv(data.data(), count, MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(data.data(), count, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
        }
    });
    return both / 2;
}

/// What a training step of a network comes to.
struct Training {
    std::string name;
    double seconds_of_sample;
    double parameters;

    [[nodiscard]] double message_seconds(const Wire& wire, double ranks) const {
        const double groups = std::ceil(parameters / 32768);
        return 2 * (ranks - 1) * groups * wire.latency +
               2 * (ranks - 1) / ranks * parameters * sizeof(float) / wire.bandwidth;
    }
};

template <class Network, class Inputs>
Training measure(const std::string& name, const Network& network, const Inputs& x, int classes) {
    Eigen::VectorXi labels(x.cols());
    for (Index j = 0; j < x.cols(); ++j) labels(j) = static_cast<int>(j) % classes;
    sd::TrainingStep step{network, sd::SoftmaxCrossEntropy<float>{}, {.seed = 42}};
    std::uint64_t t = 0;
    Training training{name, 0, 0};
    training.seconds_of_sample =
        median_seconds(15, [&] { (void)step.differentiate(network, x, labels, t++); }) /
        static_cast<double>(x.cols());
    sd::for_each_parameter(network, [&](const std::string&, const auto& matrix) {
        training.parameters += static_cast<double>(matrix.size());
    });
    return training;
}

std::vector<Training> measure_trainings() {
    sd::Philox random{7};
    const sd::Sequential dense{residual_network(dense_layers<float>(16, 256)),
                               sd::Linear<float>{256, 10, random, 1.0}};
    sd::Matrix<float> tokens(64, 16);
    for (Index k = 0; k < tokens.size(); ++k)
        tokens.data()[k] = static_cast<float>(random() % 256);
    const sd::Matrix<float> images = sd::Matrix<float>::Constant(3 * 32 * 32, 32, 0.5F);
    return {measure("16 blocks of width 256", dense, sd::Matrix<float>(sd::Matrix<float>::Ones(256, 128)), 10),
            measure("ResNet-20, 32 x 32 x 3", sd::resnet<float>({.depth = 20}, random), images, 10),
            measure("ResNet-110, 32 x 32 x 3", sd::resnet<float>({.depth = 110}, random), images, 10),
            measure("transformer, 6 x 64, 64 tokens",
                    sd::transformer_classifier<float>({.blocks = 6}, random), tokens, 2),
            measure("transformer, 6 x 512, 64 tokens",
                    sd::transformer_classifier<float>(
                        {.width = 512, .heads = 8, .feed_forward = 2048, .blocks = 6}, random),
                    tokens, 2)};
}

void print_trainings(const std::vector<Training>& trainings, const std::vector<Wire>& wires) {
    std::printf("\nA training step: samples that a rank must have for messages to take a fifth of the step\n"
                "at most, and the share of the step that is work with 64 samples for each rank.\n\n");
    std::printf("| network | parameters | ms a sample | network of | samples, 2 / 64 / 4096 ranks "
                "| work, 2 / 64 / 4096 ranks |\n| --- | --- | --- | --- | --- | --- |\n");
    for (const Training& training : trainings)
        for (const Wire& wire : wires) {
            std::printf("| %s | %.0f | %.4f | %s |", training.name.c_str(), training.parameters,
                        1e3 * training.seconds_of_sample, wire.name.c_str());
            for (const double ranks : {2.0, 64.0, 4096.0})
                std::printf("%s %.0f", ranks > 2 ? " /" : "",
                            std::ceil(4 * training.message_seconds(wire, ranks) /
                                      training.seconds_of_sample));
            std::printf(" |");
            for (const double ranks : {2.0, 64.0, 4096.0}) {
                const double work = 64 * training.seconds_of_sample;
                std::printf("%s %.2f", ranks > 2 ? " /" : "",
                            work / (work + training.message_seconds(wire, ranks)));
            }
            std::printf(" |\n");
        }
}

/// Layer evaluations a second of a tree over one input.
double evaluations_a_second(Index width) {
    constexpr Index depth = 20;
    const auto network = residual_network(dense_layers<float>(depth, width));
    const sd::Matrix<float> x = sd::Matrix<float>::Ones(width, 1);
    sd::ExpectationResult<float> result;
    const sd::ExactExpectation exact;
    const double seconds = median_seconds(5, [&] { exact(network, x, result); });
    return result.layer_evaluations / seconds;
}

/// Subtrees grow with the root of the work above 2^16 of them, and the last one may begin when all
/// others have ended.
double tree_seconds(double evaluations, double rate, double ranks) {
    const double work = evaluations / rate;
    constexpr double many = 65536, seconds_of_piece = 0.01;
    double pieces = std::max(1.0, work / seconds_of_piece);
    if (pieces > many) pieces = many * std::sqrt(pieces / many);
    return work / ranks + work / pieces;
}

void print_depths() {
    std::printf("\nThe deepest exact expectation in an hour, one input, float.\n\n"
                "| width | evaluations a second and rank | 1 / 2 / 64 / 4096 ranks |\n| --- | --- | --- |\n");
    for (const Index width : {16, 64, 256}) {
        const double rate = evaluations_a_second(width);
        std::printf("| %td | %.3g |", width, rate);
        for (const double ranks : {1.0, 2.0, 64.0, 4096.0}) {
            int depth = 1;
            while (tree_seconds(std::ldexp(1.0, depth + 1), rate, ranks) < 3600) ++depth;
            std::printf("%s %d", ranks > 1 ? " /" : "", depth);
        }
        std::printf(" |\n");
    }
}

}  // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    std::vector<Wire> wires{{"Ethernet, 10 Gbit/s", 30e-6, 1.25e9}, {"InfiniBand, 100 Gbit/s", 2e-6, 12.5e9}};
    if (ranks > 1) {
        const double latency = message_seconds(rank, 8);
        constexpr std::size_t large = 4 << 20;
        const double bandwidth = static_cast<double>(large) / message_seconds(rank, large);
        wires.insert(wires.begin(), {"this machine's", latency, bandwidth});
    }
    // Work is measured where nobody else computes: the others are gone.
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    if (rank != 0) return 0;
    std::printf("| network of | latency, us | bandwidth, GB/s |\n| --- | --- | --- |\n");
    for (const Wire& wire : wires)
        std::printf("| %s | %.2f | %.2f |\n", wire.name.c_str(), 1e6 * wire.latency,
                    1e-9 * wire.bandwidth);
    print_trainings(measure_trainings(), wires);
    print_depths();
}
