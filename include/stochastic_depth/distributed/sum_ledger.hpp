// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <stochastic_depth/distributed/sum_watch.hpp>

/// Rank 0's view of a sum on many ranks.
namespace stochastic_depth::detail {

/// What a piece comes to, as ranks send it to each other: they are of one build.
template <class Number>
[[nodiscard]] std::vector<std::uint8_t> bytes_of_numbers(const std::vector<Number>& numbers) {
    std::vector<std::uint8_t> bytes(numbers.size() * sizeof(Number));
    if (!bytes.empty()) std::memcpy(bytes.data(), numbers.data(), bytes.size());
    return bytes;
}
template <class Number>
[[nodiscard]] std::vector<Number> numbers_of_bytes(const std::vector<std::uint8_t>& bytes) {
    std::vector<Number> numbers(bytes.size() / sizeof(Number));
    if (!bytes.empty()) std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
}

/// A WorkLedger of pieces that are added up as they are finished: FinishedSubtrees, MergedBlocks.
template <class Number, class Pieces, class Save>
class SumLedger {
public:
    /// \param save  Writes the file. All three must outlive this.
    SumLedger(Pieces& pieces, SumWatch& watch, const Save& save)
        : pieces_(pieces), watch_(watch), save_(save) {}

    [[nodiscard]] std::optional<std::uint64_t> next() {
        next_ = pieces_.next_unfinished(next_);
        if (next_ >= pieces_.count()) return {};
        return next_++;
    }
    void take(std::uint64_t piece, const std::vector<std::uint8_t>& bytes) {
        pieces_.add(piece, numbers_of_bytes<Number>(bytes));
        watch_.count();
    }
    [[nodiscard]] bool is_finished() const { return pieces_.finished() == pieces_.count(); }
    [[nodiscard]] bool go_on() { return watch_.go_on(pieces_.finished(), pieces_.count(), save_); }

private:
    Pieces& pieces_;
    SumWatch& watch_;
    const Save& save_;
    std::uint64_t next_ = 0;
};

}  // namespace stochastic_depth::detail
