// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <numeric>

#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/run.hpp>

/// A pass from a matrix into another one, which keeps nothing.
namespace stochastic_depth::detail {

/// y = epilogue(NN(x, S)), all columns at once.
template <class Network, class Mask, class Epilogue>
void run_columns(const Network& network, const ConstView<typename Network::Scalar>& x,
                 const Mask& mask, const Epilogue& epilogue, Index* most_rows = nullptr) {
    SparePiece spare;
    Batch<typename Network::Scalar, Forgets> batch(Team::alone(), {&spare, most_rows}, x);
    RecordOf<Network, Forgets> record;
    run(network, batch, record, mask, epilogue);
}

/// The largest number of rows that activations have on their way through a network: that of a pass
/// of no column.
template <class Network>
[[nodiscard]] Index most_rows(const Network& network, Index input_size) {
    Index most = std::max(input_size, static_cast<Index>(network.output_size(input_size)));
    run_columns(network, {nullptr, input_size, 0, Eigen::OuterStride<>(input_size)}, EveryLayer{},
                AsIs{}, &most);
    return most;
}

/// Whether a network has layers that take images: these run one by one, at full speed, and use their
/// weights at each position.
template <class Layer>
struct TakesImages {
    static constexpr bool value = requires(const Layer& layer) { layer.input_shape(); } ||
        any_part<TakesImages, PartsOf<Layer>>;
};

/// Images that go through a network together: as many as leave their activations, of one layer, in
/// the second-level cache; not fewer than four, for what is behind the last image.
template <class Network>
[[nodiscard]] Index images_at_once(const Network& network, Index input_size) {
    constexpr Index bytes = 512 * 1024;
    const Index of_image =
        most_rows(network, input_size) * static_cast<Index>(sizeof(typename Network::Scalar));
    return std::max<Index>(4, bytes / of_image);
}

/// y = NN(x, S). A column has the same bits in any company, so that images may go a few at a time:
/// each layer finds them where the one before has left them.
template <class Network, class X, class Mask, class Y>
void run_into(const Network& network, const X& x, const Mask& mask, const Y& y) {
    const auto all = const_view(x);
    if constexpr (TakesImages<Network>::value) {
        const Index at_once =
            all.cols() > 4 ? images_at_once(network, all.rows()) : all.cols();
        if (at_once < all.cols()) {
            const ScratchArray<Index> samples(all.cols());
            std::iota(samples.data(), samples.data() + all.cols(), Index{0});
            for (Index first = 0; first < all.cols(); first += at_once) {
                const Index count = std::min(at_once, all.cols() - first);
                const auto images = const_view(all.middleCols(first, count));
                run_columns(network, images, mask.of_samples(samples.data() + first),
                            store_to(view(y).middleCols(first, count)));
            }
            return;
        }
    }
    run_columns(network, all, mask, store_to(y));
}

}  // namespace stochastic_depth::detail
