// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/computing_thread.hpp>
#include <stochastic_depth/io/sealed_file.hpp>

/// Numbered pieces of work, handed out to the ranks as they get free.
namespace stochastic_depth::detail {

/// Rank 0's side of it: which piece comes next, and what becomes of a result. All calls come from
/// the thread that called share_out.
template <class Ledger>
concept WorkLedger = requires(Ledger& ledger, std::uint64_t piece, ComputingThread::Bytes result) {
    /// The next piece to hand out, each once; none if there is none left.
    { ledger.next() } -> std::same_as<std::optional<std::uint64_t>>;
    ledger.take(piece, std::move(result));
    /// Whether all results are there.
    { ledger.is_finished() } -> std::same_as<bool>;
    /// Called a thousand times a second or so; false asks to stop.
    { ledger.go_on() } -> std::same_as<bool>;
};

enum class SharedWork { finished, stopped };

/// Every rank computes on a thread of its own, rank 0 as well, and talks to rank 0 on the caller's;
/// each has one piece more than it computes, so that it never waits for the next.
class WorkSharing {
public:
    using Bytes = ComputingThread::Bytes;

    explicit WorkSharing(const Communicator& ranks) : ranks_(ranks) {}

    /// Rank 0's part.
    template <WorkLedger Ledger>
    SharedWork lead(Ledger& ledger, const ComputingThread::Compute& compute) {
        ComputingThread computing(compute);
        End end;
        std::exception_ptr own_failure;
        try {
            for (int k = 0; k < pieces_ahead; ++k)
                for (int rank = 0; rank < ranks_.size(); ++rank) hand_out(ledger, computing, rank);
            end = lead_until_end(ledger, computing);
        } catch (const std::exception& error) {
            own_failure = std::current_exception();
            end = {End::failed, 0, error.what()};
        } catch (...) {
            own_failure = std::current_exception();
            end = {End::failed, 0, "failed"};
        }
        for (int rank = 1; rank < ranks_.size(); ++rank) send(rank, end_tag, end.bytes());
        computing.stop();
        const auto take = [&](std::uint64_t piece, Bytes result) {
            if (end.kind != End::failed) ledger.take(piece, std::move(result));
        };
        while (auto done = computing.wait_for(std::chrono::seconds(0)))
            if (!done->failure) take(done->piece, std::move(done->result));
        for (int waiting = ranks_.size() - 1; waiting > 0;) {
            Message last = receive(probe(MPI_ANY_SOURCE));
            if (last.tag == farewell_tag) --waiting;
            if (last.tag == result_tag) take(last.piece(), last.rest());
        }
        wait_for_sends();
        return conclude(end, own_failure ? own_failure : failure_of_computing_);
    }

    /// The part of any other rank.
    SharedWork follow(const ComputingThread::Compute& compute) {
        ComputingThread computing(compute);
        End end;
        while (end.kind == End::none) {
            while (const auto arrived = probe_at_once(0)) {
                const Message message = receive(*arrived);
                if (message.tag == piece_tag)
                    computing.add(message.piece());
                else
                    end = End::of(message.bytes);
            }
            if (end.kind != End::none) break;
            if (auto done = computing.wait_for(patience)) report(std::move(*done));
        }
        computing.stop();
        while (auto done = computing.wait_for(std::chrono::seconds(0)))
            if (!done->failure) report(std::move(*done));
        send(0, farewell_tag, {});
        wait_for_sends();
        return conclude(end, failure_of_computing_);
    }

private:
    static constexpr int piece_tag = 1, result_tag = 2, failure_tag = 3, end_tag = 4,
                         farewell_tag = 5;
    static constexpr int pieces_ahead = 2;
    static constexpr std::chrono::milliseconds patience{1};

    struct Message {
        int rank, tag;
        Bytes bytes;

        [[nodiscard]] std::uint64_t piece() const {
            ByteReader reader{bytes};
            return reader.number<std::uint64_t>();
        }
        [[nodiscard]] Bytes rest() const { return {bytes.begin() + 8, bytes.end()}; }
        [[nodiscard]] std::string text() const { return {bytes.begin(), bytes.end()}; }
    };

    /// Why the work is over, as every rank gets to know it.
    struct End {
        enum Kind : std::uint32_t { none, finished, stopped, failed };
        Kind kind = none;
        int rank = 0;
        std::string reason = {};

        [[nodiscard]] Bytes bytes() const {
            Bytes bytes;
            ByteWriter writer{bytes};
            writer.number(static_cast<std::uint32_t>(kind));
            writer.number(static_cast<std::uint32_t>(rank));
            writer.text(reason);
            return bytes;
        }
        [[nodiscard]] static End of(const Bytes& bytes) {
            ByteReader reader{bytes};
            const auto kind = static_cast<Kind>(reader.number<std::uint32_t>());
            const auto rank = static_cast<int>(reader.number<std::uint32_t>());
            return {kind, rank, std::string(reader.text())};
        }
    };

    template <class Ledger>
    End lead_until_end(Ledger& ledger, ComputingThread& computing) {
        while (!ledger.is_finished()) {
            if (!ledger.go_on()) return {End::stopped};
            // No more than one of each rank, so that all else gets its turn.
            for (int k = 1; k < ranks_.size(); ++k) {
                const auto arrived = probe_at_once(MPI_ANY_SOURCE);
                if (!arrived) break;
                const Message message = receive(*arrived);
                if (message.tag == failure_tag) return {End::failed, message.rank, message.text()};
                hand_out(ledger, computing, message.rank);
                ledger.take(message.piece(), message.rest());
            }
            auto done =
                computing.wait_for(ledger.is_finished() ? std::chrono::milliseconds(0) : patience);
            if (!done) continue;
            if (done->failure) {
                failure_of_computing_ = done->failure;
                return {End::failed, 0, reason_of(done->failure)};
            }
            hand_out(ledger, computing, 0);
            ledger.take(done->piece, std::move(done->result));
        }
        return {End::finished};
    }

    template <class Ledger>
    void hand_out(Ledger& ledger, ComputingThread& computing, int rank) {
        const std::optional<std::uint64_t> piece = ledger.next();
        if (!piece) return;
        if (rank == 0) return computing.add(*piece);
        Bytes bytes;
        ByteWriter{bytes}.number(*piece);
        send(rank, piece_tag, std::move(bytes));
    }

    void report(ComputingThread::Done done) {
        Bytes bytes;
        if (done.failure) {
            failure_of_computing_ = done.failure;
            const std::string reason = reason_of(done.failure);
            return send(0, failure_tag, Bytes(reason.begin(), reason.end()));
        }
        bytes.reserve(8 + done.result.size());
        ByteWriter{bytes}.number(done.piece);
        bytes.insert(bytes.end(), done.result.begin(), done.result.end());
        send(0, result_tag, std::move(bytes));
    }

    [[nodiscard]] static std::string reason_of(const std::exception_ptr& failure) {
        try {
            std::rethrow_exception(failure);
        } catch (const std::exception& error) {
            return error.what();
        } catch (...) {
            return "failed";
        }
    }

    [[nodiscard]] SharedWork conclude(const End& end, const std::exception_ptr& failure) const {
        if (end.kind == End::failed) {
            if (failure && end.rank == ranks_.rank()) std::rethrow_exception(failure);
            throw std::runtime_error(message(ranks_.who(), ": rank ", end.rank, ": ", end.reason));
        }
        return end.kind == End::stopped ? SharedWork::stopped : SharedWork::finished;
    }

    // No send waits for its receiver, which may be sending itself.
    struct Sending {
        Bytes bytes;
        MPI_Request request = MPI_REQUEST_NULL;
    };
    void send(int rank, int tag, Bytes bytes) {
        sends_.remove_if([](Sending& sending) {
            int is_over = 0;
            check_mpi("MPI_Test", MPI_Test(&sending.request, &is_over, MPI_STATUS_IGNORE));
            return is_over != 0;
        });
        Sending& sending = sends_.emplace_back();
        sending.bytes = std::move(bytes);
        check_mpi("MPI_Isend", MPI_Isend(sending.bytes.data(), mpi_count(sending.bytes.size()),
                                         MPI_BYTE, rank, tag, ranks_.get(), &sending.request));
    }
    void wait_for_sends() {
        for (Sending& sending : sends_)
            check_mpi("MPI_Wait", MPI_Wait(&sending.request, MPI_STATUS_IGNORE));
        sends_.clear();
    }

    [[nodiscard]] std::optional<MPI_Status> probe_at_once(int rank) const {
        int is_there = 0;
        MPI_Status status;
        check_mpi("MPI_Iprobe", MPI_Iprobe(rank, MPI_ANY_TAG, ranks_.get(), &is_there, &status));
        return is_there ? std::optional(status) : std::nullopt;
    }
    [[nodiscard]] MPI_Status probe(int rank) const {
        MPI_Status status;
        check_mpi("MPI_Probe", MPI_Probe(rank, MPI_ANY_TAG, ranks_.get(), &status));
        return status;
    }
    [[nodiscard]] Message receive(MPI_Status status) const {
        int count = 0;
        check_mpi("MPI_Get_count", MPI_Get_count(&status, MPI_BYTE, &count));
        Message message{status.MPI_SOURCE, status.MPI_TAG, Bytes(static_cast<std::size_t>(count))};
        check_mpi("MPI_Recv", MPI_Recv(message.bytes.data(), count, MPI_BYTE, message.rank,
                                       message.tag, ranks_.get(), MPI_STATUS_IGNORE));
        return message;
    }

    const Communicator& ranks_;
    std::list<Sending> sends_;
    std::exception_ptr failure_of_computing_;
};

}  // namespace stochastic_depth::detail
