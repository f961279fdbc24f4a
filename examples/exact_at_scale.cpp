// SPDX-License-Identifier: MIT
//
// The exact mean and variance of a residual network's output over all 2^L survival masks,
//
//     f_SD(x) = E[NN(x, S)] = sum_S P(S) NN(x, S),    h_l = h_(l-1) + s_l relu(W_l h_(l-1) + b_l),
//
// for an L that one machine would be long at: L = 30 is a sum over 10^9 networks. The processes that
// MPI's launcher starts share the sum, as does one process without a launcher:
//
//     mpirun -n 8 exact_at_scale --layers 34 --file sum.state
//
// Kill it, start it again, on as many processes as you like: it goes on, to the same bits.
#include <mpi.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <stochastic_depth/core.hpp>
#include <stochastic_depth/distributed/distributed_expectation.hpp>

#include "common/command_line.hpp"
#include "common/progress.hpp"

namespace {

namespace sd = stochastic_depth;
using Layer = sd::StochasticDepth<sd::Residual<sd::Sequential<sd::Linear<float>, sd::ReLU<float>>>>;

struct Options {
    sd::Index layers = 30;
    sd::Index width = 16;
    sd::Index inputs = 1;
    double final_survival = 0.5;
    std::uint32_t seed = 1;
    std::string file;
    double save_seconds = 30;
    double seconds = std::numeric_limits<double>::infinity();
    unsigned threads = 1;
    sd::Index prefix_layers = 0;
};

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    CLI::App app{
        "The exact mean and variance of a residual network's output over all 2^L survival masks, on "
        "all processes that MPI's launcher starts. A sum with a file goes on from it."};
    app.name("exact_at_scale");
    app.option_defaults()->always_capture_default();
    app.add_option("--layers", options.layers, "Residual blocks, L")->check(common::count(0, 48));
    app.add_option("--width", options.width, "Numbers from block to block")
        ->check(common::count(1, 4096));
    app.add_option("--inputs", options.inputs, "Random inputs of which the answer is wanted")
        ->check(common::count(1, 100'000));
    app.add_option("--final-survival", options.final_survival,
                   "Survival probability of the last block; it falls linearly from 1")
        ->check(common::above_zero(1, "1"));
    app.add_option("--seed", options.seed, "Fixes weights and inputs")
        ->check(common::count(0, 1'000'000'000));
    app.add_option("--file", options.file, "Keeps what is finished, and is gone on from")
        ->type_name("FILE");
    app.add_option("--save-seconds", options.save_seconds, "From one writing of it to the next")
        ->check(common::above_zero(1e6, "10^6"));
    app.add_option("--seconds", options.seconds,
                   "Stop then, with an estimate from a sample of masks")
        ->check(common::above_zero(1e9, "10^9"))
        ->default_str("no end");
    app.add_option("--threads", options.threads, "Threads of each process")
        ->check(common::count(1, 1024));
    app.add_option("--prefix-layers", options.prefix_layers,
                   "Blocks whose masks make the subtrees that are handed out; 0: chosen")
        ->check(common::count(0, 40));
    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

/// Weights that keep the numbers of about their size, whatever the depth.
sd::Stack<Layer> make_network(const Options& options, sd::Philox& random) {
    std::vector<Layer> layers;
    for (const double p : sd::linear_decay(options.layers, options.final_survival))
        layers.emplace_back(
            sd::Residual{sd::Sequential{
                sd::Linear<float>{options.width, options.width, random,
                                  1 / std::sqrt(static_cast<double>(options.layers))},
                sd::ReLU<float>{}}},
            sd::SurvivalProbability{p});
    return sd::Stack<Layer>{layers};
}

sd::Matrix<float> make_inputs(const Options& options, sd::Philox& random) {
    sd::Matrix<float> x(options.width, options.inputs);
    for (float* number = x.data(); number != x.data() + x.size(); ++number)
        *number = sd::uniform<float>(random, -1.0F, 1.0F);
    return x;
}

volatile std::sig_atomic_t is_asked_to_stop = 0;
/// What rank 0 says when a signal asks it to stop, as launchers do where a rank has died.
std::string farewell;

extern "C" void stop_on(int) {
    is_asked_to_stop = 1;
    (void)!write(STDERR_FILENO, farewell.data(), farewell.size());
}

std::string duration(double seconds) {
    char text[32];
    if (!(seconds < 1e9)) return "?";
    std::snprintf(text, sizeof text, seconds < 120 ? "%.1f s" : "%.1f min",
                  seconds < 120 ? seconds : seconds / 60);
    return text;
}

/// The most memory that this process has had, in MB.
double peak_memory() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// Who is who where something dies: launchers name the process, or the rank.
void introduce(const Options& options, int rank, int ranks) {
    char host[256] = {};
    gethostname(host, sizeof host - 1);
    std::cerr << "rank " + std::to_string(rank) + " of " + std::to_string(ranks) + ": process " +
                     std::to_string(getpid()) + " on " + host + "\n";
    if (rank > 0) return;
    const std::string next = options.file.empty()
                                 ? "there is no --file: a run that dies begins anew\n"
                                 : "the same command goes on from " + options.file + "\n";
    std::cerr << "if a rank dies: " + next;
    farewell = "exact_at_scale: asked to stop; " + next;
}

void run(const Options& options, int rank, int ranks) {
    introduce(options, rank, ranks);
    sd::Philox random{options.seed};
    const sd::Stack<Layer> network = make_network(options, random);
    const sd::Matrix<float> x = make_inputs(options, random);

    common::Progress line;
    bool is_told = false;
    double next_line = 10;
    const auto start = std::chrono::steady_clock::now();
    const auto seconds_so_far = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    sd::DistributedExpectationOptions sum;
    sum.threads = options.threads;
    sum.max_layer_evaluations = std::numeric_limits<std::uint64_t>::max();
    sum.prefix_layers = options.prefix_layers;
    sum.path = options.file;
    sum.save_seconds = options.save_seconds;
    sum.progress = [&](const sd::DistributedProgress& progress) {
        if (!is_told && progress.finished_pieces > 0)
            std::cerr << "begins with " + std::to_string(progress.finished_pieces) + " of " +
                             std::to_string(progress.pieces) + " subtrees\n";
        is_told = true;
        char percent[16];
        std::snprintf(percent, sizeof percent, "%.1f %%", 100 * progress.fraction);
        const std::string text = std::string(percent) + " of " + std::to_string(progress.pieces) +
                                 " subtrees, " + duration(progress.seconds) + ", " +
                                 duration(progress.seconds_left) + " left";
        // Under a launcher standard error is no terminal: a line now and then.
        if (seconds_so_far() < next_line) {
            line.now(text);
        } else {
            line.done(text);
            next_line += 10;
        }
        return is_asked_to_stop == 0 && seconds_so_far() < options.seconds;
    };

    const double memory_before = peak_memory();
    const double begun = seconds_so_far();
    const auto result = sd::DistributedExpectation{sum, MPI_COMM_WORLD}(network, x);
    const double seconds = seconds_so_far() - begun;
    line.clear();

    double memory[2] = {peak_memory(), peak_memory() - memory_before}, most[2] = {};
    MPI_Reduce(memory, most, 2, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    const bool is_exact = result.method == sd::ExpectationMethod::exact;
    if (rank == 0) {
        std::printf("%s, %td layers of width %td, %td input(s), %d rank(s): %s\n",
                    is_exact ? "exact" : "sampled", options.layers, options.width, options.inputs,
                    ranks, duration(seconds).c_str());
        std::printf("memory of a rank: %.1f MB at most, of which the sum %.1f MB\n", most[0],
                    most[1]);
        std::printf("%8s %14s %14s %14s\n", "output", "mean", "variance", "standard error");
        for (sd::Index i = 0; i < result.mean.size(); ++i)
            std::printf("%8td %14.6g %14.6g %14.6g   %a %a\n", i,
                        static_cast<double>(result.mean.data()[i]),
                        static_cast<double>(result.variance.data()[i]),
                        static_cast<double>(result.standard_error.data()[i]),
                        static_cast<double>(result.mean.data()[i]),
                        static_cast<double>(result.variance.data()[i]));
    }
}

}  // namespace

/// \returns  0 for an answer, 2 for what the user can put right, 1 for any other error.
int main(int argc, char** argv) {
    // MPI is called from this thread alone, beside which others compute.
    int provided = 0, rank = 0, ranks = 1;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, stop_on);
    // Rank 0 speaks for all.
    if (rank > 0) std::cout.setstate(std::ios::failbit);
    int code = 0;
    try {
        if (const auto options = parse_options(argc, argv)) run(*options, rank, ranks);
    } catch (const common::UsageError& error) {
        if (rank == 0) std::cerr << "exact_at_scale: " << error.what() << '\n';
        code = 2;
    } catch (const std::exception& error) {
        std::cerr << "exact_at_scale: rank " + std::to_string(rank) + ": " + error.what() + "\n";
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    MPI_Finalize();
    return code;
}
