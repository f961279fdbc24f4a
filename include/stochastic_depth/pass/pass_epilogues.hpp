// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/pass/memory_kinds.hpp>
#include <stochastic_depth/types.hpp>

/// Epilogues by which the parts of a network hand on what they compute, or don't.
namespace stochastic_depth::detail {

/// Epilogue on the way back: nobody wants the gradient by the input, so that it need not be
/// computed.
struct Discard : AsIs {};

template <class Epilogue>
inline constexpr bool is_discarded = std::is_same_v<Epilogue, Discard>;

/// What a part does with its result whose composite goes on to do something with it: nothing,
/// unless nobody wants what comes of that.
template <class Epilogue>
using HandOn = std::conditional_t<is_discarded<Epilogue>, Discard, AsIs>;

/// `first`, and then `second`; a result that nobody wants needs neither.
template <class First, class Second>
[[nodiscard]] auto followed_by(const First& first, const Second& second) {
    if constexpr (is_discarded<Second>)
        return Discard{};
    else
        return in_turn(first, second);
}

/// Epilogue of some columns (null: all): what that of the whole does in their places.
template <class Epilogue>
struct InPlaces {
    static constexpr bool stores_elsewhere = detail::stores_elsewhere<Epilogue>;
    Epilogue epilogue;
    const Index* columns;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        return epilogue(value, i, columns ? columns[j] : j);
    }
};
template <class Epilogue>
[[nodiscard]] auto in_places(const Epilogue& epilogue, const ColumnList& chosen) {
    if constexpr (std::is_same_v<Epilogue, AsIs>)
        return epilogue;
    else
        return InPlaces<Epilogue>{epilogue, chosen.columns};
}

}  // namespace stochastic_depth::detail
