// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/training/shard_stack.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Rows of numbers, one of each shard, added over all ranks in the order of a ShardTree.
///
/// The row is cut into pieces, each of which travels by itself, and each piece into a slice for each
/// rank. A rank sends its own sums of each slice to the slice's rank, which adds those of all ranks in
/// order and sends the total to all. With one sum of each rank that is the traffic of a ring: of R
/// ranks each sends 2 (R - 1) / R times the row.
///
/// No call waits but `finish`; memory is used again.
template <class Scalar>
class OrderedSums {
public:
    /// \param ranks, tree, own  Must outlive this. `own` has the sums of this rank's shards.
    OrderedSums(const Communicator& ranks, const ShardTree& tree, ShardStack<Scalar>& own)
        : ranks_(&ranks), tree_(&tree), own_(&own), own_nodes_(tree.nodes_of(ranks.rank())) {
        int* largest = nullptr;
        int is_set = 0;
        check_mpi("MPI_Comm_get_attr", MPI_Comm_get_attr(ranks.get(), MPI_TAG_UB,
                                                         static_cast<void*>(&largest), &is_set));
        if (is_set) most_pieces_ = static_cast<std::size_t>(*largest) / 2;
    }

    /// Before each use: as many numbers in a row, in these pieces. The same on every rank.
    /// \throws std::length_error  if a slice is too large for a message.
    void prepare(Index numbers, std::span<const Consecutive> pieces) {
        if (pieces.size() > most_pieces_)
            throw std::length_error(message(ranks_->who(), ": MPI has numbers for ", most_pieces_,
                                            " pieces of a gradient, got ", pieces.size()));
        pieces_.clear();
        pending_.clear();
        bytes_sent_ = 0;
        const auto others = static_cast<std::size_t>(ranks() - 1);
        const auto nodes = static_cast<std::size_t>(tree_->nodes() - own_nodes_.count);
        Index received = 0;
        for (const Consecutive& piece : pieces) {
            (void)mpi_count(static_cast<std::size_t>(part_of(piece.count, ranks(), 0).count));
            pieces_.push_back({piece, received});
            received += static_cast<Index>(nodes) * slice(pieces_.back(), ranks_->rank()).count;
        }
        if (others > 0 || own_nodes_.count == 0) grow(total_, numbers);
        grow(received_, received);
        receives_.assign(pieces_.size() * nodes, MPI_REQUEST_NULL);
        pending_.reserve(pieces_.size() * others *
                         (2 + static_cast<std::size_t>(own_nodes_.count)));
        nodes_.resize(static_cast<std::size_t>(tree_->nodes()));
    }

    /// The rank's sums of this piece are complete: off they go.
    void start(std::size_t number) {
        Piece& piece = pieces_[number];
        piece.is_started = true;
        if (ranks() == 1) return;
        const int tag = static_cast<int>(2 * number);
        const Consecutive mine = slice(piece, ranks_->rank());
        Scalar* to = received_.data() + piece.received;
        MPI_Request* request = receives_of(number).data();
        for (int r = 0; r < ranks(); ++r) {
            if (r == ranks_->rank()) continue;
            for (Index i = tree_->nodes_of(r).count; i > 0; --i, to += mine.count, ++request)
                if (mine.count > 0) receive(to, mine.count, r, tag, *request);
        }
        for_each_other([&](int r) {
            const Consecutive theirs = slice(piece, r);
            if (theirs.count == 0) return;
            receive(total_.data() + theirs.first, theirs.count, r, tag + 1, add_pending());
            for (Index i = 0; i < own_nodes_.count; ++i)
                send(own_->row(i) + theirs.first, theirs.count, r, tag, add_pending());
        });
    }

    /// Goes on with what has come in since.
    void progress() {
        if (ranks() == 1) return;
        for (std::size_t number = 0; number < pieces_.size(); ++number) {
            Piece& piece = pieces_[number];
            if (!piece.is_started || piece.is_added) continue;
            const auto receives = receives_of(number);
            int all_here = 0;
            check_mpi("MPI_Testall", MPI_Testall(static_cast<int>(receives.size()), receives.data(),
                                                 &all_here, MPI_STATUSES_IGNORE));
            if (all_here) add(number);
        }
    }

    /// Starts what has not been started, and waits for all.
    void finish() {
        for (std::size_t number = pieces_.size(); number-- > 0;)
            if (!pieces_[number].is_started) start(number);
        if (ranks() == 1) return;
        // The way back comes to the last ones first.
        for (std::size_t number = pieces_.size(); number-- > 0;) {
            if (pieces_[number].is_added) continue;
            const auto receives = receives_of(number);
            check_mpi("MPI_Waitall", MPI_Waitall(static_cast<int>(receives.size()), receives.data(),
                                                 MPI_STATUSES_IGNORE));
            add(number);
        }
        check_mpi("MPI_Waitall",
                  MPI_Waitall(mpi_count(pending_.size()), pending_.data(), MPI_STATUSES_IGNORE));
        pending_.clear();
    }

    /// The sums of all ranks, after `finish`.
    [[nodiscard]] const Scalar* total() const {
        return ranks() == 1 ? own_->row(0) : total_.data();
    }

    /// Of numbers, since `prepare`.
    [[nodiscard]] std::uint64_t bytes_sent() const { return bytes_sent_; }
    /// Of memory.
    [[nodiscard]] std::size_t bytes() const {
        return (total_.size() + received_.size()) * sizeof(Scalar);
    }

private:
    struct Piece {
        Consecutive numbers;
        Index received;  ///< where the others' sums of the own slice stand
        bool is_started = false;
        bool is_added = false;
    };

    [[nodiscard]] int ranks() const { return ranks_->size(); }
    [[nodiscard]] Consecutive slice(const Piece& piece, int rank) const {
        Consecutive part = part_of(piece.numbers.count, ranks(), rank);
        part.first += piece.numbers.first;
        return part;
    }
    [[nodiscard]] std::span<MPI_Request> receives_of(std::size_t number) {
        const auto nodes = static_cast<std::size_t>(tree_->nodes() - own_nodes_.count);
        return std::span(receives_).subspan(number * nodes, nodes);
    }
    [[nodiscard]] MPI_Request& add_pending() { return pending_.emplace_back(MPI_REQUEST_NULL); }

    /// From the one behind this rank on, so that not all send to the same one first.
    template <class Use>
    void for_each_other(const Use& use) const {
        for (int k = 1; k < ranks(); ++k) use((ranks_->rank() + k) % ranks());
    }

    void receive(Scalar* to, Index count, int rank, int tag, MPI_Request& request) {
        check_mpi("MPI_Irecv", MPI_Irecv(to, mpi_count(static_cast<std::size_t>(count)),
                                         mpi_type<Scalar>(), rank, tag, ranks_->get(), &request));
    }
    void send(const Scalar* from, Index count, int rank, int tag, MPI_Request& request) {
        check_mpi("MPI_Isend", MPI_Isend(from, mpi_count(static_cast<std::size_t>(count)),
                                         mpi_type<Scalar>(), rank, tag, ranks_->get(), &request));
        bytes_sent_ += static_cast<std::uint64_t>(count) * sizeof(Scalar);
    }

    /// Adds the sums of the own slice, and sends the total to the others.
    void add(std::size_t number) {
        Piece& piece = pieces_[number];
        piece.is_added = true;
        const Consecutive mine = slice(piece, ranks_->rank());
        if (mine.count == 0) return;
        Scalar* other = received_.data() + piece.received;
        auto node = nodes_.begin();
        for (int r = 0; r < ranks(); ++r)
            for (Index i = 0; i < tree_->nodes_of(r).count; ++i) {
                const bool is_own = r == ranks_->rank();
                *node++ = is_own ? own_->row(i) + mine.first : other;
                if (!is_own) other += mine.count;
            }
        add_nodes<Scalar>(*tree_, nodes_, {0, mine.count});
        Scalar* const total = total_.data() + mine.first;
        std::copy_n(nodes_[0], mine.count, total);
        const int tag = static_cast<int>(2 * number) + 1;
        for_each_other([&](int r) { send(total, mine.count, r, tag, add_pending()); });
    }

    static void grow(std::vector<Scalar>& row, Index numbers) {
        if (row.size() < static_cast<std::size_t>(numbers))
            row.resize(static_cast<std::size_t>(numbers));
    }

    const Communicator* ranks_;
    const ShardTree* tree_;
    ShardStack<Scalar>* own_;
    Consecutive own_nodes_;
    std::vector<Scalar> received_, total_;
    std::vector<Piece> pieces_;
    std::vector<Scalar*> nodes_;  ///< of one slice
    std::vector<MPI_Request> receives_, pending_;
    std::size_t most_pieces_ = 32767 / 2;
    std::uint64_t bytes_sent_ = 0;
};

}  // namespace stochastic_depth::detail
