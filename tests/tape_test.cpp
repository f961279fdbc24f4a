// SPDX-License-Identifier: MIT
#include <stochastic_depth/memory/tape.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"

namespace {

using stochastic_depth::Index;
using stochastic_depth::detail::Tape;

/// What a tape hands out for so many bytes.
std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

bool is_aligned(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 64 == 0; }

/// A piece of the tape, filled with a number of its own.
struct Piece {
    double* start;
    Index count;
    double mark;

    [[nodiscard]] bool is_whole() const {
        return std::all_of(start, start + count, [this](double entry) { return entry == mark; });
    }
};

std::vector<Piece> fill(Tape& tape, const std::vector<Index>& counts) {
    std::vector<Piece> pieces;
    for (const Index count : counts) {
        pieces.push_back(
            {tape.take<double>(count), count, 0.5 + static_cast<double>(pieces.size())});
        std::fill_n(pieces.back().start, count, pieces.back().mark);
    }
    return pieces;
}

bool all_whole(const std::vector<Piece>& pieces) {
    return std::all_of(pieces.begin(), pieces.end(),
                       [](const Piece& piece) { return piece.is_whole(); });
}

bool one_behind_the_other(const std::vector<Piece>& pieces) {
    for (std::size_t k = 1; k < pieces.size(); ++k) {
        const auto bytes = static_cast<std::size_t>(pieces[k - 1].count) * sizeof(double);
        if (pieces[k].start != pieces[k - 1].start + padded(bytes) / sizeof(double)) return false;
    }
    return true;
}

// From a few numbers to far more than the first piece of memory holds, so that several are needed.
const std::vector<Index> growing{1, 7, 8, 9, 1000, 0, 5000, 3, 20000, 2, 100'000, 1, 17, 30'000};

TEST_CASE("Tape: pieces are aligned, apart from each other, and counted in whole lines", "[tape]") {
    Tape tape;
    CHECK(tape.bytes() == 0);
    const std::vector<Piece> pieces = fill(tape, growing);
    std::size_t bytes = 0;
    for (const Piece& piece : pieces) {
        CHECK(is_aligned(piece.start));
        bytes += padded(static_cast<std::size_t>(piece.count) * sizeof(double));
    }
    CHECK(all_whole(pieces));
    CHECK(tape.bytes() == bytes);
    // Numbers of other sizes share it.
    auto* const letters = tape.take<char>(65);
    auto* const counts = tape.take<Index>(3);
    CHECK(is_aligned(letters));
    CHECK(is_aligned(counts));
    CHECK(tape.bytes() == bytes + 128 + 64);
    std::fill_n(letters, 65, 'x');
    std::fill_n(counts, 3, Index{-1});
    CHECK(all_whole(pieces));
}

TEST_CASE("Tape: a pass after a clear has all its memory in one place, and the next the same",
          "[tape]") {
    Tape tape;
    const std::vector<Piece> first = fill(tape, growing);
    REQUIRE_FALSE(one_behind_the_other(first));
    const std::size_t bytes = tape.bytes();
    tape.clear();
    CHECK(tape.bytes() == 0);
    const std::vector<Piece> second = fill(tape, growing);
    CHECK(all_whole(second));
    CHECK(one_behind_the_other(second));
    CHECK(tape.bytes() == bytes);
    for (int pass = 0; pass < 3; ++pass) {
        tape.clear();
        CHECK(tape.bytes() == 0);
        const std::vector<Piece> next = fill(tape, growing);
        for (std::size_t k = 0; k < next.size(); ++k) CHECK(next[k].start == second[k].start);
        CHECK(all_whole(next));
    }
}

TEST_CASE("Tape: a piece may have all the size that is left, and one number more goes elsewhere",
          "[tape]") {
    Tape tape;
    // Larger than any piece of memory that a tape begins with, and whole lines.
    (void)fill(tape, {100'000, 120'000});
    tape.clear();
    const std::vector<Piece> full = fill(tape, {220'000 - 8, 8});
    CHECK(one_behind_the_other(full));
    const std::vector<Piece> more = fill(tape, {1});
    CHECK(more[0].start != full[0].start + 220'000);
    CHECK(all_whole(full));
    tape.clear();
    const std::vector<Piece> again = fill(tape, {220'000 - 8, 9, 1});
    CHECK(one_behind_the_other(again));
    CHECK(all_whole(again));
}

TEST_CASE("Tape: release takes back what was handed out after the mark, and nothing before",
          "[tape]") {
    Tape tape;
    const Tape::Mark empty = tape.mark();
    // The mark lies in a piece of memory that others follow, or in the last one.
    for (const std::vector<Index>& before :
         {std::vector<Index>{}, {5}, {8000}, {8000, 9000, 1}, growing}) {
        CAPTURE(before.size());
        tape.clear();
        const std::vector<Piece> kept = fill(tape, before);
        const std::size_t bytes = tape.bytes();
        const Tape::Mark mark = tape.mark();
        const std::vector<Piece> first = fill(tape, growing);
        const Tape::Mark inner = tape.mark();
        (void)fill(tape, growing);
        tape.release(inner);
        CHECK(all_whole(first));
        (void)fill(tape, {3, 50'000});
        CHECK(all_whole(first));
        tape.release(mark);
        CHECK(tape.bytes() == bytes);
        const std::vector<Piece> second = fill(tape, growing);
        for (std::size_t k = 0; k < second.size(); ++k) CHECK(second[k].start == first[k].start);
        CHECK(all_whole(second));
        CHECK(all_whole(kept));
        tape.release(mark);
        tape.release(mark);
        CHECK(tape.bytes() == bytes);
        CHECK(all_whole(kept));
    }
    tape.release(empty);
    CHECK(tape.bytes() == 0);
    Tape untouched;
    untouched.release(untouched.mark());
    CHECK(untouched.bytes() == 0);
}

TEST_CASE("Tape: give_back_last takes back the last piece, and no other", "[tape]") {
    Tape tape;
    const double somewhere = 0;
    tape.give_back_last(&somewhere, 1);
    CHECK(tape.bytes() == 0);

    const std::vector<Piece> pieces = fill(tape, {3, 100, 9});
    const std::size_t bytes = tape.bytes();
    // In the middle, the wrong size, not of the tape.
    tape.give_back_last(pieces[1].start, 100);
    tape.give_back_last(pieces[2].start, 8);
    tape.give_back_last(pieces[2].start, 17);
    tape.give_back_last(pieces[0].start, 1'000'000);
    tape.give_back_last(&somewhere, 9);
    CHECK(tape.bytes() == bytes);

    tape.give_back_last(pieces[2].start, 9);
    CHECK(tape.bytes() == bytes - 128);
    CHECK(tape.take<double>(9) == pieces[2].start);
    tape.give_back_last(pieces[2].start, 9);
    tape.give_back_last(pieces[1].start, 100);
    CHECK(tape.bytes() == 64);
    CHECK(tape.take<double>(1) == pieces[1].start);
    CHECK(pieces[0].is_whole());
}

TEST_CASE("Tape: give_back_last leaves a piece of memory of its own for the next", "[tape]") {
    Tape tape;
    const std::vector<Piece> first = fill(tape, {8000});
    double* const large = tape.take<double>(20'000);
    tape.give_back_last(large, 20'000);
    CHECK(tape.bytes() == 64'000);
    CHECK(tape.take<double>(10'000) == large);
    CHECK(first[0].is_whole());
}

}  // namespace
