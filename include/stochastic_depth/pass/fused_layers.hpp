// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>

#include <stochastic_depth/kernels/epilogue.hpp>

namespace stochastic_depth::detail {

/// A layer that takes an epilogue, and the element-wise layers after it, as one layer: one pass
/// over the output. Refers to the layers; lives for one call.
template <class Product, class... Elementwise>
struct FusedLayers {
    using Scalar = typename Product::Scalar;
    const Product& product;
    std::tuple<const Elementwise&...> elementwise;

    [[nodiscard]] Index output_size(Index input_size) const {
        return product.output_size(input_size);
    }

    template <class Epilogue>
    void forward_fused(const ConstView<Scalar>& x, View<Scalar> y, const Epilogue& epilogue) const {
        product.forward_fused(x, y, chain<0>(epilogue));
    }

private:
    template <std::size_t I, class Epilogue>
    auto chain(const Epilogue& epilogue) const {
        if constexpr (I == sizeof...(Elementwise)) {
            return epilogue;
        } else {
            using Layer = std::tuple_element_t<I, std::tuple<Elementwise...>>;
            return Then{ApplyElementwise<Layer>{std::get<I>(elementwise)}, chain<I + 1>(epilogue)};
        }
    }
};

}  // namespace stochastic_depth::detail
