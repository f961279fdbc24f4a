// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/expectation/sample_moments.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Blocks of sampled masks, whose estimates are merged in their order: those that are finished out
/// of it wait.
///
/// Estimates go by as numbers: means, variances and squared errors, [outputs x batch] each, then the
/// number of samples, their spread, and layer evaluations.
class MergedBlocks {
public:
    MergedBlocks(Index outputs, Index batch, Index samples)
        : outputs_(outputs), batch_(batch), samples_(samples) {}

    /// The last block has what is left besides.
    [[nodiscard]] std::uint64_t count() const {
        return static_cast<std::uint64_t>(std::max<Index>(1, samples_ / samples_of_block));
    }
    [[nodiscard]] std::uint64_t finished() const { return merged_count_ + waiting_.size(); }
    /// The first sample of a block, and how many it has.
    [[nodiscard]] std::pair<Index, Index> samples_of(std::uint64_t block) const {
        const Index first = static_cast<Index>(block) * samples_of_block;
        return {first, block + 1 == count() ? samples_ - first : samples_of_block};
    }
    /// How many numbers an estimate has.
    [[nodiscard]] std::size_t numbers() const {
        return static_cast<std::size_t>(3 * outputs_ * batch_ + 3);
    }

    [[nodiscard]] std::vector<double> numbers_of(const SampleMoments& moments,
                                                 double evaluations) const {
        std::vector<double> numbers;
        for (const Eigen::MatrixXd* each :
             {&moments.mean, &moments.variance, &moments.squared_error})
            numbers.insert(numbers.end(), each->data(), each->data() + each->size());
        numbers.insert(numbers.end(),
                       {static_cast<double>(moments.samples), moments.spread, evaluations});
        return numbers;
    }
    [[nodiscard]] SampleMoments moments_of(const std::vector<double>& numbers) const {
        SampleMoments moments(outputs_, batch_);
        const double* from = numbers.data();
        for (Eigen::MatrixXd* each : {&moments.mean, &moments.variance, &moments.squared_error}) {
            std::copy_n(from, each->size(), each->data());
            from += each->size();
        }
        moments.samples = static_cast<Index>(from[0]);
        moments.spread = from[1];
        return moments;
    }
    [[nodiscard]] static double evaluations_of(const std::vector<double>& numbers) {
        return numbers.back();
    }

    [[nodiscard]] std::uint64_t next_unfinished(std::uint64_t block) const {
        block = std::max(block, merged_count_);
        while (waiting_.contains(block)) ++block;
        return block;
    }

    void add(std::uint64_t block, std::vector<double> numbers) {
        waiting_.emplace(block, std::move(numbers));
        for (auto next = waiting_.find(merged_count_); next != waiting_.end();
             next = waiting_.find(merged_count_)) {
            merge(next->second, 1);
            waiting_.erase(next);
        }
    }

    /// What another object has merged, or what waits in it: the former first.
    /// \throws std::runtime_error  if it is not of these blocks.
    void restore(std::uint64_t first, std::uint64_t blocks, const std::vector<double>& numbers) {
        if (blocks < 1 || blocks > count() || first > count() - blocks ||
            numbers.size() != this->numbers() || first != next_unfinished(first) ||
            (blocks > 1 && first != 0))
            throw std::runtime_error(message("the file has blocks ", first, " to ", first + blocks,
                                             ", which are none of this sum"));
        if (first == 0)
            merge(numbers, blocks);
        else
            waiting_.emplace(first, numbers);
    }

    /// Calls visit(first block, blocks, numbers) for all that is finished.
    template <class Visit>
    void for_each_node(const Visit& visit) const {
        if (merged_count_ > 0) visit(0, merged_count_, merged_);
        for (const auto& [block, numbers] : waiting_) visit(block, 1, numbers);
    }

    /// Empty if nothing is merged.
    [[nodiscard]] const std::vector<double>& merged() const { return merged_; }

private:
    static constexpr Index samples_of_block = 8192;

    void merge(const std::vector<double>& numbers, std::uint64_t blocks) {
        if (merged_count_ == 0) {
            merged_ = numbers;
        } else {
            SampleMoments moments = moments_of(merged_);
            moments.merge(moments_of(numbers));
            merged_ = numbers_of(moments, evaluations_of(merged_) + evaluations_of(numbers));
        }
        merged_count_ += blocks;
    }

    Index outputs_, batch_, samples_;
    std::uint64_t merged_count_ = 0;
    std::vector<double> merged_;
    std::map<std::uint64_t, std::vector<double>> waiting_;
};

}  // namespace stochastic_depth::detail
