// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct TokenDropoutOptions {
    /// The chance of a token to be dropped, in [0, 1].
    double rate = 0.1;
    /// The id that takes its place: a vocabulary's unknown, or a reserved one.
    Index replacement = 0;
    std::uint64_t seed = 0;
};

/// Tokens of a training's sequences are replaced at random, each by itself, so that a network
/// learns from what stands around them, and what an unknown token is.
///
/// What is dropped is a function of (seed, epoch, sample, position): batches, threads and restarts
/// cannot change it.
///
/// \source Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text
///         Classification, section 3: word dropout.
class TokenDropout {
public:
    /// Changes whenever other tokens are dropped for the same arguments.
    static constexpr std::uint32_t stream_version = 1;

    /// \throws std::invalid_argument  unless rate lies in [0, 1], and replacement in [0, 2^24].
    explicit TokenDropout(TokenDropoutOptions options = {}) : options_(options) {
        if (!(options.rate >= 0 && options.rate <= 1))
            detail::refuse("TokenDropout: rate must lie in [0, 1], got ", options.rate);
        if (options.replacement < 0 || options.replacement > Index{1} << 24)
            detail::refuse("TokenDropout: replacement must lie in [0, 2^24], got ",
                           options.replacement);
    }

    [[nodiscard]] const TokenDropoutOptions& options() const { return options_; }

    /// y(:, j) = x(:, j) as epoch `epoch` sees sample samples[j].
    ///
    /// \param x  [positions x samples.size()], -1 past the end of a shorter sequence, which stays.
    /// \param y  The same, overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match, or a sample is negative; nothing is
    ///                                written then.
    template <class X>
    void apply(std::uint64_t epoch, std::span<const Index> samples, const Eigen::MatrixBase<X>& x,
               MatrixRef<typename X::Scalar> y) const {
        using Scalar = typename X::Scalar;
        const auto count = static_cast<Index>(samples.size());
        if (x.cols() != count)
            detail::refuse("TokenDropout: x must have a column for each of ", count,
                           " samples, got ", x.cols());
        if (y.rows() != x.rows() || y.cols() != count)
            detail::refuse("TokenDropout: y must be [", x.rows(), " x ", count, "], got [",
                           y.rows(), " x ", y.cols(), "]");
        for (const Index sample : samples)
            if (sample < 0)
                detail::refuse("TokenDropout: samples must be at least 0, got ", sample);
        y = x;
        for (Index j = 0; j < count; ++j)
            for (Index t = 0; t < x.rows(); ++t)
                if (y(t, j) >= Scalar(0) &&
                    drops(epoch, static_cast<std::uint64_t>(samples[static_cast<std::size_t>(j)]),
                          t))
                    y(t, j) = static_cast<Scalar>(options_.replacement);
    }

    /// Whether the token at a position of a sample is dropped in an epoch.
    [[nodiscard]] bool drops(std::uint64_t epoch, std::uint64_t sample, Index position) const {
        // Four positions share a block. Of an epoch 32 bits count: none is that late.
        const auto place = static_cast<std::uint64_t>(position);
        const auto bits = philox4x32_10(
            {static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(sample >> 32),
             static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(place / 4)},
            detail::stream_key(options_.seed, detail::StreamPurpose::token_dropout,
                               stream_version));
        return bits[place % 4] * 0x1p-32 < options_.rate;
    }

private:
    TokenDropoutOptions options_;
};

}  // namespace stochastic_depth
