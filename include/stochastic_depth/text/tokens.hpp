// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/text/lengths.hpp>
#include <stochastic_depth/text/tokenizer.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Texts as a network takes them.
template <std::floating_point Scalar>
struct Tokens {
    /// Token ids as numbers, [positions x samples], -1 past the end of a shorter sequence.
    Matrix<Scalar> ids;
    /// Texts of more tokens than positions, whose last ones were left out.
    Index truncated = 0;
};

struct TokensOptions {
    /// Rows; 0: as many as the longest text has tokens.
    Index positions = 0;
    /// The id that stands for a text without any token; none: such a text is refused, since a
    /// sequence has at least one token.
    std::optional<Index> empty = std::nullopt;
};

/// Token ids of texts, a column for each.
///
///     const Tokens<float> tokens = tokens_of<float>(tokenizer, texts, {.positions = 40});
///     const Dataset data{tokens.ids, labels, classes};
///
/// \param encoder  Tokenizer, or another (TextEncoder); its ids must be numbers that Scalar has: of
///                 float 2^24 at most.
/// \param texts    Any range of texts.
/// \throws std::invalid_argument  naming the sample, if a text has no token and options.empty is
///                                none, or the encoder refuses it; if an option or an id lies
///                                outside its range.
template <std::floating_point Scalar, TextEncoder Encoder, TextRange Texts>
[[nodiscard]] Tokens<Scalar> tokens_of(const Encoder& encoder, Texts&& texts,
                                       const TokensOptions& options = {}) {
    const Index ids = encoder.vocabulary_size();
    constexpr Index most = Index{1} << std::min(std::numeric_limits<Scalar>::digits, 62);
    if (ids < 1 || ids > most)
        detail::refuse("tokens_of: vocabulary must have 1 to ", most, " ids, got ", ids);
    if (options.positions < 0)
        detail::refuse("tokens_of: positions must be at least 0, got ", options.positions);
    if (options.empty && !(*options.empty >= 0 && *options.empty < ids))
        detail::refuse("tokens_of: empty must lie in [0, ", ids, "), got ", *options.empty);

    std::vector<std::vector<Index>> sequences;
    Index longest = 0;
    for (auto&& text : texts) {
        const std::size_t sample = sequences.size();
        std::vector<Index>& sequence = sequences.emplace_back();
        try {
            sequence = encoder.encode(std::string_view(text));
        } catch (const std::invalid_argument& error) {
            detail::refuse("tokens_of: sample ", sample, ": ", error.what());
        }
        if (sequence.empty() && options.empty) sequence.push_back(*options.empty);
        if (sequence.empty())
            detail::refuse("tokens_of: texts must have at least 1 token, got none in sample ",
                           sample);
        for (const Index id : sequence)
            if (id < 0 || id >= ids)
                detail::refuse("tokens_of: ids must lie in [0, ", ids, "), got ", id, " in sample ",
                               sample);
        longest = std::max(longest, static_cast<Index>(sequence.size()));
    }

    Tokens<Scalar> result;
    const Index positions = options.positions > 0 ? options.positions : longest;
    result.ids.setConstant(positions, static_cast<Index>(sequences.size()), Scalar(-1));
    Index sample = 0;
    for (const std::vector<Index>& sequence : sequences) {
        const auto length = static_cast<Index>(sequence.size());
        if (length > positions) ++result.truncated;
        for (Index t = 0; t < std::min(length, positions); ++t)
            result.ids(t, sample) = static_cast<Scalar>(sequence[static_cast<std::size_t>(t)]);
        ++sample;
    }
    return result;
}

/// The texts of token ids, one for each column: the way back from tokens_of.
///
/// \param ids  [positions x samples], -1 past the end of a shorter sequence.
/// \throws std::invalid_argument  naming row and sample, unless each entry is an id or stands past
///                                the end.
template <class Derived>
[[nodiscard]] std::vector<std::string> texts_of(const Tokenizer& tokenizer,
                                                const Eigen::MatrixBase<Derived>& ids) {
    using Scalar = typename Derived::Scalar;
    const std::vector<Index> lengths = lengths_of(ids);
    std::vector<std::string> texts;
    std::vector<Index> sequence;
    for (Index j = 0; j < ids.cols(); ++j) {
        sequence.clear();
        for (Index t = 0; t < lengths[static_cast<std::size_t>(j)]; ++t) {
            const Scalar entry = ids(t, j);
            // Written so that NaN fails; only then may it become an Index.
            const bool in_range =
                entry >= Scalar(0) && entry < static_cast<Scalar>(tokenizer.vocabulary_size());
            if (!in_range || static_cast<Scalar>(static_cast<Index>(entry)) != entry)
                detail::refuse("texts_of: ids must be whole numbers in [0, ",
                               tokenizer.vocabulary_size(), "), got ", entry, " in row ", t,
                               " of sample ", j);
            sequence.push_back(static_cast<Index>(entry));
        }
        texts.push_back(tokenizer.decode(sequence));
    }
    return texts;
}

}  // namespace stochastic_depth
