// SPDX-License-Identifier: MIT

// Kills exact_at_scale at random moments, one rank or all, goes on from its file on another number of
// ranks, and compares the bits that it prints with those of an undisturbed run:
//
//     killed_sum LAUNCHER FLAG PROGRAM FOLDER LAYERS MOMENTS SEED
//
// where LAUNCHER FLAG n PROGRAM starts n ranks, FOLDER is for files, and LAYERS are to take a second or so.

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

void wait_a_little() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

std::string text_of(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

struct Command {
    std::string launcher, flag, program;
    fs::path folder;
    std::string layers;
};

/// A run of the program, whose output goes to files.
class Run {
public:
    Run(const Command& command, int ranks, bool has_file) : folder_(command.folder), ranks_(ranks) {
        std::vector<std::string> words{
            command.launcher, command.flag,   std::to_string(ranks), command.program,
            "--layers",       command.layers, "--prefix-layers",     "10",
            "--save-seconds", "0.02"};
        if (has_file) {
            words.push_back("--file");
            words.push_back(folder_ / "sum");
        }
        std::vector<char*> arguments;
        for (std::string& word : words) arguments.push_back(word.data());
        arguments.push_back(nullptr);
        const std::string out = folder_ / "out", err = folder_ / "err";
        // What an earlier run has said is not this one's.
        fs::remove(out);
        fs::remove(err);
        process_ = fork();
        if (process_ < 0) throw std::runtime_error("fork failed");
        if (process_ == 0) {
            dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), STDOUT_FILENO);
            dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), STDERR_FILENO);
            execvp(arguments[0], arguments.data());
            _exit(127);
        }
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    ~Run() {
        if (is_running()) kill_all();
    }

    [[nodiscard]] bool is_running() {
        if (process_ > 0 && waitpid(process_, &status_, WNOHANG) == process_) process_ = 0;
        return process_ > 0;
    }
    [[nodiscard]] bool has_succeeded() const {
        return WIFEXITED(status_) && WEXITSTATUS(status_) == 0;
    }
    /// Waits until all ranks have said who they are.
    /// \returns  Whether the run is not over by then.
    [[nodiscard]] bool wait_for_ranks() {
        while (is_running() && static_cast<int>(processes().size()) < ranks_) wait_a_little();
        return is_running();
    }
    /// \throws std::runtime_error  if it is not over in a minute.
    void wait_for_end() {
        const Clock::time_point start = Clock::now();
        for (; is_running(); wait_a_little())
            if (since(start) > 60) throw std::runtime_error("the ranks hang:\n" + errors());
    }
    void kill_rank(int rank) { kill(processes().at(static_cast<std::size_t>(rank)), SIGKILL); }
    void kill_all() {
        kill(process_, SIGKILL);
        for (const pid_t each : processes()) kill(each, SIGKILL);
        wait_for_end();
        // Those whose parent is gone as well.
        for (const pid_t each : processes())
            while (kill(each, 0) == 0 && !is_zombie(each)) wait_a_little();
    }

    [[nodiscard]] std::string errors() const { return text_of(folder_ / "err"); }
    /// The lines with the numbers, but not the time and the memory that they took.
    [[nodiscard]] std::string answer() const {
        const std::string all = text_of(folder_ / "out");
        const std::size_t table = all.find("  output ");
        return table == std::string::npos ? "no answer" : all.substr(table);
    }

private:
    /// Those of the ranks, in their order, as far as they have told.
    [[nodiscard]] std::vector<pid_t> processes() const {
        std::vector<pid_t> found;
        for (int rank = 0; rank < ranks_; ++rank) {
            const std::string name =
                "rank " + std::to_string(rank) + " of " + std::to_string(ranks_) + ": process ";
            const std::string text = errors();
            const std::size_t at = text.find(name);
            if (at == std::string::npos || text.find('\n', at) == std::string::npos) break;
            found.push_back(std::stoi(text.substr(at + name.size())));
        }
        return found;
    }
    [[nodiscard]] static bool is_zombie(pid_t process) {
        const std::string status = text_of("/proc/" + std::to_string(process) + "/stat");
        return status.empty() || status.find(") Z ") != std::string::npos;
    }

    fs::path folder_;
    int ranks_;
    pid_t process_ = 0;
    int status_ = 0;
};

int test(const Command& command, int moments, unsigned seed) {
    std::string expected;
    double seconds = 0;
    {
        const Clock::time_point start = Clock::now();
        Run undisturbed(command, 1, false);
        undisturbed.wait_for_end();
        seconds = since(start);
        expected = undisturbed.answer();
        if (!undisturbed.has_succeeded() || expected == "no answer")
            throw std::runtime_error("an undisturbed run fails:\n" + undisturbed.errors());
    }
    std::cout << "undisturbed: " << seconds << " s\n";
    std::mt19937 random(seed);
    const auto below = [&](unsigned bound) { return static_cast<int>(random() % bound); };
    int failures = 0, kills = 0;
    for (int moment = 0; moment < moments;) {
        fs::remove(command.folder / "sum");
        std::string story;
        // Up to three kills, and then the rest.
        for (int left = 1 + below(3);; --left) {
            const int ranks = 1 + below(4);
            const double after = seconds * (1 + below(1000)) / 1000 / std::min(ranks, 2);
            const int rank = below(2) == 0 ? -1 : below(static_cast<unsigned>(ranks));
            Run run(command, ranks, true);
            story += std::to_string(ranks) + " rank(s)";
            if (left > 0 && run.wait_for_ranks()) {
                for (const Clock::time_point start = Clock::now();
                     since(start) < after && run.is_running();)
                    wait_a_little();
            }
            if (left > 0 && run.is_running()) {
                ++moment, ++kills;
                story += rank < 0 ? ", all" : ", rank " + std::to_string(rank);
                story += " killed after " + std::to_string(after) + " s; ";
                if (rank < 0)
                    run.kill_all();
                else
                    run.kill_rank(rank);
                run.wait_for_end();
                if (!run.has_succeeded()) continue;
            }
            run.wait_for_end();
            const bool is_same = run.has_succeeded() && run.answer() == expected;
            const std::string errors = run.errors();
            const std::size_t begins = errors.find("begins with ");
            if (begins != std::string::npos)
                story += " " + errors.substr(begins, errors.find('\n', begins) - begins);
            std::cout << story << (is_same ? ": same bits\n" : ": ANOTHER ANSWER\n" + run.errors())
                      << std::flush;
            failures += is_same ? 0 : 1;
            break;
        }
    }
    std::cout << kills << " kills, " << failures << " wrong\n";
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 8) throw std::runtime_error("LAUNCHER FLAG PROGRAM FOLDER LAYERS MOMENTS SEED");
        const Command command{argv[1], argv[2], argv[3], argv[4], argv[5]};
        fs::create_directories(command.folder);
        return test(command, std::stoi(argv[6]), static_cast<unsigned>(std::stoul(argv[7])));
    } catch (const std::exception& error) {
        std::cerr << "killed_sum: " << error.what() << '\n';
        return 2;
    }
}
