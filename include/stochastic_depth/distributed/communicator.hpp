// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

/// The ranks that work together. Needs MPI, for which reason it is not part of all.hpp.
namespace stochastic_depth::detail {

/// \throws std::runtime_error  naming the call and MPI's reason, unless `error` is MPI_SUCCESS.
inline void check_mpi(std::string_view call, int error) {
    if (error == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(error, text, &length) != MPI_SUCCESS) length = 0;
    throw std::runtime_error(
        message(call, ": ", std::string_view(text, static_cast<std::size_t>(length))));
}

/// Waits without keeping a core busy for long: there may be more ranks than cores, and one rank may
/// come much later than the others.
inline void wait_for(MPI_Request& request) {
    constexpr int at_once = 1000;
    int is_over = 0;
    for (int k = 0;; ++k) {
        check_mpi("MPI_Test", MPI_Test(&request, &is_over, MPI_STATUS_IGNORE));
        if (is_over) return;
        if (k >= at_once) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
}

/// MPI counts in int.
[[nodiscard]] inline int mpi_count(std::size_t count) {
    if (count > static_cast<std::size_t>(std::numeric_limits<int>::max()))
        throw std::length_error(message("MPI sends at most 2^31 - 1 values at once, got ", count));
    return static_cast<int>(count);
}

template <class Number>
[[nodiscard]] MPI_Datatype mpi_type() {
    if constexpr (std::is_same_v<Number, double>)
        return MPI_DOUBLE;
    else if constexpr (std::is_same_v<Number, float>)
        return MPI_FLOAT;
    else if constexpr (std::is_same_v<Number, int>)
        return MPI_INT;
    else if constexpr (std::is_same_v<Number, std::uint64_t>)
        return MPI_UINT64_T;
    else {
        static_assert(std::is_same_v<Number, std::uint8_t>, "a type that ranks send");
        return MPI_UINT8_T;
    }
}

/// A duplicate of a user's communicator: messages of ours never meet those of the program, and
/// errors come back as exceptions.
class Communicator {
public:
    /// Collective: every rank of `user` makes one.
    /// \param who  Named in messages.
    /// \throws std::invalid_argument  before MPI_Init, after MPI_Finalize, for MPI_COMM_NULL, and for
    ///                                an intercommunicator.
    Communicator(std::string_view who, MPI_Comm user) : who_(who) {
        int is_initialised = 0, is_finalised = 0;
        check_mpi("MPI_Initialized", MPI_Initialized(&is_initialised));
        if (!is_initialised) refuse(who, ": MPI_Init must have been called before");
        check_mpi("MPI_Finalized", MPI_Finalized(&is_finalised));
        if (is_finalised) refuse(who, ": must be made before MPI_Finalize");
        if (user == MPI_COMM_NULL) refuse(who, ": communicator must be one, got MPI_COMM_NULL");
        int is_between_groups = 0;
        check_mpi("MPI_Comm_test_inter", MPI_Comm_test_inter(user, &is_between_groups));
        if (is_between_groups)
            refuse(who, ": communicator must be of one group, got an intercommunicator");
        check_mpi("MPI_Comm_dup", MPI_Comm_dup(user, &comm_));
        check_mpi("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
        check_mpi("MPI_Comm_rank", MPI_Comm_rank(comm_, &rank_));
        check_mpi("MPI_Comm_size", MPI_Comm_size(comm_, &size_));
    }
    Communicator(Communicator&& other) noexcept
        : who_(std::move(other.who_)),
          comm_(std::exchange(other.comm_, MPI_COMM_NULL)),
          rank_(other.rank_),
          size_(other.size_) {}
    Communicator& operator=(Communicator&&) = delete;
    ~Communicator() {
        int is_finalised = 0;
        if (comm_ != MPI_COMM_NULL && MPI_Finalized(&is_finalised) == MPI_SUCCESS && !is_finalised)
            MPI_Comm_free(&comm_);
    }

    [[nodiscard]] const std::string& who() const { return who_; }
    [[nodiscard]] MPI_Comm get() const { return comm_; }
    [[nodiscard]] int rank() const { return rank_; }
    [[nodiscard]] int size() const { return size_; }

    /// Each rank's text, in the order of ranks. Collective.
    [[nodiscard]] std::vector<std::string> all_texts(const std::string& mine) const {
        const std::size_t ranks = static_cast<std::size_t>(size_);
        const int length = mpi_count(mine.size());
        std::vector<int> lengths(ranks), places(ranks);
        MPI_Request request = MPI_REQUEST_NULL;
        check_mpi("MPI_Iallgather", MPI_Iallgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT,
                                                   comm_, &request));
        wait_for(request);
        std::size_t end = 0;
        for (std::size_t r = 0; r < ranks; ++r) {
            places[r] = mpi_count(end);
            end += static_cast<std::size_t>(lengths[r]);
        }
        std::string all(end, '\0');
        check_mpi("MPI_Iallgatherv",
                  MPI_Iallgatherv(mine.data(), length, MPI_CHAR, all.data(), lengths.data(),
                                  places.data(), MPI_CHAR, comm_, &request));
        wait_for(request);
        std::vector<std::string> texts;
        for (std::size_t r = 0; r < ranks; ++r)
            texts.push_back(all.substr(static_cast<std::size_t>(places[r]),
                                       static_cast<std::size_t>(lengths[r])));
        return texts;
    }

    /// Rank 0's values, to all. Collective; each rank has as many.
    template <class Number>
    void share(std::span<Number> values) const {
        MPI_Request request = MPI_REQUEST_NULL;
        check_mpi("MPI_Ibcast", MPI_Ibcast(values.data(), mpi_count(values.size()),
                                           mpi_type<Number>(), 0, comm_, &request));
        wait_for(request);
    }

private:
    std::string who_;
    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0;
    int size_ = 1;
};

/// What must be the same wherever a job runs: its build, options, data. Ranks that differ would go on
/// with other numbers, or wait for each other for ever.
struct AgreedValue {
    std::string name;
    std::string value;
};

/// Collective; every rank has as many values, in the same order.
/// \throws std::invalid_argument  on every rank, naming the first value that differs, with the first
///                                rank that has another than rank 0.
inline void check_agreement(const Communicator& ranks, const std::vector<AgreedValue>& values) {
    for (const AgreedValue& each : values) {
        const std::vector<std::string> all = ranks.all_texts(each.value);
        for (std::size_t r = 1; r < all.size(); ++r)
            if (all[r] != all[0])
                refuse(ranks.who(), ": ", each.name, " must be the same on every rank, got ",
                       beginning(all[0]), " on rank 0 and ", beginning(all[r]), " on rank ", r);
    }
}

/// What an action of one rank has failed at, if it has.
struct Failure {
    std::exception_ptr exception = nullptr;
    std::string text = {};

    [[nodiscard]] explicit operator bool() const { return exception != nullptr; }
};

template <class Action>
[[nodiscard]] Failure attempt(const Action& action) {
    try {
        action();
        return {};
    } catch (const std::exception& error) {
        const std::string_view text = error.what();
        return {std::current_exception(), std::string(text.empty() ? "failed" : text)};
    } catch (...) {
        return {std::current_exception(), "failed"};
    }
}

/// For all ranks, once they know that one of them has failed. Collective.
/// \throws std::runtime_error  on every other rank, naming the first rank that failed and its
///                             message; the exception itself on the ranks that failed.
inline void throw_together(const Communicator& ranks, const Failure& failure) {
    const std::vector<std::string> texts = ranks.all_texts(failure.text);
    if (failure) std::rethrow_exception(failure.exception);
    for (std::size_t r = 0; r < texts.size(); ++r)
        if (!texts[r].empty())
            throw std::runtime_error(message(ranks.who(), ": rank ", r, ": ", texts[r]));
}

/// Runs what one rank may fail at, and lets all of them know: either it has succeeded everywhere, or
/// every rank throws. Collective.
/// \throws  as throw_together does.
template <class Action>
void together(const Communicator& ranks, const Action& action) {
    const Failure failure = attempt(action);
    int failed = failure ? 1 : 0, any = 0;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi("MPI_Iallreduce",
              MPI_Iallreduce(&failed, &any, 1, MPI_INT, MPI_MAX, ranks.get(), &request));
    wait_for(request);
    if (any != 0) throw_together(ranks, failure);
}

}  // namespace stochastic_depth::detail
