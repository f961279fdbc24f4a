// SPDX-License-Identifier: MIT
//
// A training on many ranks that is killed again and again, and goes on from its last checkpoint each
// time: in the end it is bit for bit the network of a training that nobody disturbed.
//
//     killed_training drive FOLDER RANKS MPIEXEC ARGUMENTS...   the test
//     killed_training train FOLDER                              a training, under MPI's launcher
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <stochastic_depth/distributed/data_parallel.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_checkpoint.hpp>

namespace {

namespace sd = stochastic_depth;
namespace fs = std::filesystem;
using sd::Index;

constexpr std::uint64_t steps = 600;
constexpr Index width = 16, batch = 24;

auto make_network() {
    sd::Philox random{1};
    const auto block = [&](double p) {
        return sd::StochasticDepth{
            sd::Residual{sd::Sequential{sd::Linear<float>{width, width, random, 0.3},
                                        sd::BatchNorm<float>{width}}},
            sd::SurvivalProbability{p}};
    };
    return sd::Stack{std::vector{block(0.8), block(0.5), block(0.5), block(0.3)}};
}

/// From the last checkpoint on, with one after every step.
int train(const fs::path& folder) {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    std::ofstream(folder / ("process." + std::to_string(rank))) << getpid() << std::flush;
    auto network = make_network();
    sd::Adam optimizer{network};
    const std::string checkpoint = folder / "checkpoint";
    std::uint64_t t = 0;
    if (fs::exists(checkpoint)) t = sd::load_training(checkpoint, network, optimizer).step;
    // Who read it before rank 0 writes the next one has what the others have.
    MPI_Barrier(MPI_COMM_WORLD);
    sd::DataParallel step{network, sd::MeanSquaredError<float>{}, {.seed = 3}, MPI_COMM_WORLD};
    for (; t < steps; ++t) {
        sd::Philox numbers{100 + t};
        sd::Matrix<float> x(width, batch);
        for (Index k = 0; k < x.size(); ++k) x.data()[k] = sd::uniform<float>(numbers, -1.0F, 1.0F);
        const sd::Matrix<float> targets = x.array().square();
        (void)step.differentiate(network, x, targets, t);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
        if (rank == 0)
            sd::save_training(checkpoint, network, optimizer, {.step = t + 1, .seed = 3});
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) std::ofstream(folder / "done") << "done";
    return 0;
}

std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// The processes of the ranks, as far as they have told.
std::vector<pid_t> processes(const fs::path& folder, int ranks) {
    std::vector<pid_t> found;
    for (int r = 0; r < ranks; ++r)
        if (std::ifstream file(folder / ("process." + std::to_string(r))); file) {
            pid_t id = 0;
            if (file >> id && id > 0) found.push_back(id);
        }
    return found;
}

pid_t launch(const std::string& self, const fs::path& folder, int ranks,
             const std::vector<std::string>& launcher) {
    std::vector<std::string> words = launcher;
    words.insert(words.end(), {"-n", std::to_string(ranks), self, "train", folder.string()});
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        // The launcher tells at length that a rank was killed.
        if (!std::freopen("/dev/null", "w", stderr) || !std::freopen("/dev/null", "w", stdout))
            _exit(3);
        execvp(arguments[0], arguments.data());
        _exit(3);
    }
    return child;
}

void wait_for(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
}

int drive(const std::string& self, const fs::path& folder, int ranks,
          const std::vector<std::string>& launcher) {
    fs::remove_all(folder);
    fs::create_directories(folder / "killed");
    fs::create_directories(folder / "whole");
    wait_for(launch(self, folder / "whole", 1, launcher));
    if (!fs::exists(folder / "whole" / "done")) return std::puts("the training alone failed"), 1;

    const fs::path killed = folder / "killed";
    sd::Philox random{
        static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count())};
    int kills = 0, of_one = 0;
    for (int round = 0; !fs::exists(killed / "done"); ++round) {
        if (round == 200) return std::puts("the training never came to its end"), 1;
        for (int r = 0; r < ranks; ++r) fs::remove(killed / ("process." + std::to_string(r)));
        const pid_t launched = launch(self, killed, ranks, launcher);
        // Ten kills at random moments, of one rank or of all in turn; then the rest in peace.
        if (kills < 10) {
            const auto started = [&] {
                return static_cast<int>(processes(killed, ranks).size()) == ranks;
            };
            for (int wait = 0; wait < 10000 && !started(); ++wait) usleep(1000);
            usleep(static_cast<useconds_t>(random() % 250000));
            const std::vector<pid_t> found = processes(killed, ranks);
            if (kills % 2 == 0 && !found.empty()) {
                kill(found[random() % found.size()], SIGKILL);
                ++of_one;
            } else {
                for (const pid_t id : found) kill(id, SIGKILL);
            }
            ++kills;
        }
        wait_for(launched);
        // No rank of a job that has ended may write any more.
        for (const pid_t id : processes(killed, ranks))
            for (int wait = 0; wait < 10000 && kill(id, 0) == 0; ++wait) usleep(1000);
    }
    std::printf("%d ranks, %d kills, %d of them of one rank\n", ranks, kills, of_one);
    if (kills < 3) return std::puts("the training was over too soon"), 1;
    if (content(killed / "checkpoint") != content(folder / "whole" / "checkpoint"))
        return std::puts("the network is another one"), 1;
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> words(argv, argv + argc);
    if (argc == 3 && words[1] == "train") {
        MPI_Init(&argc, &argv);
        const int code = train(words[2]);
        MPI_Finalize();
        return code;
    }
    if (argc >= 5 && words[1] == "drive")
        return drive(words[0], words[2], std::stoi(words[3]), {words.begin() + 4, words.end()});
    std::puts("killed_training drive FOLDER RANKS MPIEXEC ARGUMENTS... | train FOLDER");
    return 2;
}
