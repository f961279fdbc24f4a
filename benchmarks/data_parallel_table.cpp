// SPDX-License-Identifier: MIT
//
// Prints what data-parallel training costs and saves, for the ranks that it is started with:
//
//     mpiexec -n 2 data_parallel_table [SHARDS]
//
// The network is that of training_step_benchmark, float: 16 residual blocks of width 256, linear decay
// to p_L = 0.5, and a layer of 10 outputs; softmax cross-entropy, SGD with momentum 0.9; batches of
// 1,024, one thread for each rank.
//
// Steps of each way take turns, and the median is printed. `TrainingStep` is one process without
// shards, which only rank 0 runs while the others wait. CPU seconds are those of the slowest rank: on
// a machine that is busy with something else they say more than the clock, but what ranks wait for each
// other is in them too, since MPI waits by looking again and again.
//
// Then what a rank sends under one mask for each batch, by the side of full depth, and its memory.
#include <stochastic_depth/distributed/data_parallel.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "peak_memory.hpp"
#include "residual_network.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

constexpr Index depth = 16, width = 256, batch = 1024, classes = 10;
constexpr int rounds = 41;

using Network = sd::Sequential<ResidualNetwork<float>, sd::Linear<float>>;
using Loss = sd::SoftmaxCrossEntropy<float>;

Network make_network() {
    sd::Philox random{7};
    return Network{residual_network(dense_layers<float>(depth, width)),
                   sd::Linear<float>{width, classes, random, 1.0}};
}

struct Batch {
    sd::Matrix<float> x;
    Eigen::VectorXi labels;
};
Batch make_batch() {
    Batch made{sd::Matrix<float>(width, batch), Eigen::VectorXi(batch)};
    sd::Philox random{8};
    for (Index k = 0; k < made.x.size(); ++k)
        made.x.data()[k] = sd::uniform<float>(random, -1.0F, 1.0F);
    for (Index j = 0; j < batch; ++j) made.labels(j) = static_cast<int>(random() % classes);
    return made;
}

struct Seconds {
    double clock = 0, processor = 0;
};
Seconds now() {
    const std::chrono::duration<double> clock = std::chrono::steady_clock::now().time_since_epoch();
    return {clock.count(), static_cast<double>(std::clock()) / CLOCKS_PER_SEC};
}
double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

double largest_of_ranks(double value) {
    MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return value;
}

/// A training, of which one step is done at a time.
template <class Step>
struct Training {
    Network network = make_network();
    Step step;
    sd::Sgd<Network> optimizer{network, {.learning_rate = 1e-3, .momentum = 0.9}};
    std::uint64_t t = 0;
    std::vector<double> clock, processor;

    template <class Make>
    explicit Training(const Make& make) : step(make(network)) {}

    void run(const Batch& data) {
        const Seconds start = now();
        (void)step.differentiate(network, data.x, data.labels, t++);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
        const Seconds end = now();
        clock.push_back(end.clock - start.clock);
        processor.push_back(end.processor - start.processor);
    }
};

void print_times(const char* name, double clock, double processor, double of_one) {
    std::printf("%-24s %9.2f %9.2f %9.2f %9.2f\n", name, 1e3 * clock, 1 / clock, of_one / clock,
                1e3 * processor);
}

void print_speed(int rank, const Batch& data, Index shards) {
    Training<sd::TrainingStep<Network, Loss>> alone{[](const Network& network) {
        return sd::TrainingStep<Network, Loss>{network, Loss{}, {.seed = 42}};
    }};
    const auto on = [shards](MPI_Comm ranks) {
        return [ranks, shards](const Network& network) {
            return sd::DataParallel<Network, Loss>{
                network, Loss{}, {.seed = 42, .shards = shards}, ranks};
        };
    };
    Training<sd::DataParallel<Network, Loss>> one{on(MPI_COMM_SELF)}, all{on(MPI_COMM_WORLD)};
    for (int round = 0; round < rounds; ++round) {
        if (rank == 0) {
            alone.run(data);
            one.run(data);
        }
        // The others sleep meanwhile: a barrier would keep their processors busy.
        for (int is_here = 0; !is_here;) {
            MPI_Request request = MPI_REQUEST_NULL;
            MPI_Ibarrier(MPI_COMM_WORLD, &request);
            while (!is_here) {
                MPI_Test(&request, &is_here, MPI_STATUS_IGNORE);
                const timespec nap{0, 200000};
                if (!is_here) nanosleep(&nap, nullptr);
            }
        }
        all.run(data);
    }
    const double clock = largest_of_ranks(median(all.clock)),
                 processor = largest_of_ranks(median(all.processor));
    if (rank != 0) return;
    int ranks = 1;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    std::printf("%td shards, one mask for each sample\n", shards);
    std::printf("                               ms/step   steps/s   speed    CPU ms\n");
    const double of_one = median(one.clock);
    print_times("TrainingStep", median(alone.clock), median(alone.processor), of_one);
    print_times("DataParallel, 1 rank", of_one, median(one.processor), of_one);
    print_times(sd::detail::message("DataParallel, ", ranks, " ranks").c_str(), clock, processor,
                of_one);
}

void print_traffic(int rank, const Batch& data, Index shards) {
    Network network = make_network();
    constexpr int steps = 200;
    const Eigen::VectorXd p = network.survival_probabilities();
    sd::DataParallel step{network,
                          Loss{},
                          {.mask_scope = sd::MaskScope::batch, .seed = 42, .shards = shards},
                          MPI_COMM_WORLD};
    double sent = 0, kept = 0;
    for (std::uint64_t t = 0; t < steps; ++t) {
        const sd::StepLedger ledger = step.differentiate(network, data.x, data.labels, t);
        sent += static_cast<double>(step.bytes_sent());
        kept += ledger.layer_evaluations / ledger.full_depth_evaluations;
        step.finish(network);
    }
    step.set_survival_probabilities(Eigen::VectorXd::Ones(depth));
    (void)step.differentiate(network, data.x, data.labels, steps);
    const auto full = static_cast<double>(step.bytes_sent());
    const double memory = largest_of_ranks(peak_memory());
    if (rank != 0) return;
    std::printf("\none mask for each batch, %d steps\n", steps);
    std::printf("bytes sent by a rank, full depth           %12.0f\n", full);
    if (full > 0)
        std::printf("share of full depth's bytes sent           %12.4f\n", sent / (steps * full));
    std::printf("share of layers kept, expected: sum(p) / L %12.4f\n", p.mean());
    std::printf("share of layers kept, drawn                %12.4f\n", kept / steps);
    double numbers = 0;
    sd::for_each_parameter(network, [&](const std::string&, const auto& matrix) {
        numbers += static_cast<double>(matrix.size());
    });
    std::printf("\nMiB of a rank\nparameters                %9.1f\n", numbers * 4 / 1048576);
    std::printf("sums of shards, exchange  %9.1f\n",
                static_cast<double>(step.exchange_bytes()) / 1048576);
    std::printf("peak of the process       %9.1f\n", memory);
}

}  // namespace

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const Batch data = make_batch();
    const Index shards = argc > 1 ? std::atoi(argv[1]) : sd::DataParallel<Network, Loss>::default_shards;
    print_speed(rank, data, shards);
    print_traffic(rank, data, shards);
    MPI_Finalize();
}
