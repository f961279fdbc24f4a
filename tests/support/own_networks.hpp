// SPDX-License-Identifier: MIT
#pragma once

#include "../../examples/own_composite.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "support/layers.hpp"
#include "support/matrices.hpp"

/// Networks with a composite of the user's own in them, as an example shows one, nested with the
/// library's composites both ways; and the same networks in plain matrix products.
namespace own {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

using Numbers = Matrix<double>;

/// What a kept branch, or layer, counts for.
enum class Rule {
    as_it_is,
    inverted,  ///< A branch counts 1 / p.
    mean       ///< Weight scaling: every layer is kept, and counts p.
};

/// y = NN(x, S), written down again: matrix products, and a mask that is read bit by bit.
class Plain {
public:
    /// \param mask  Null: every layer is kept.
    explicit Plain(const SurvivalMask* mask, Rule rule = Rule::as_it_is)
        : mask_(mask), rule_(rule) {}

    /// p_l of the skippable layers so far, passed over or not.
    std::vector<double> p;

    Numbers operator()(const Linear<double>& layer, const Numbers& x) {
        return (layer.weights() * x).colwise() + Eigen::VectorXd(layer.bias());
    }
    Numbers operator()(const Tanh<double>&, const Numbers& x) {
        return x.unaryExpr([](double z) { return std::tanh(z); });
    }
    Numbers operator()(const Softmax<double>&, const Numbers& x) {
        const Numbers e = x.unaryExpr([](double z) { return std::exp(z); });
        return e.array().rowwise() / e.colwise().sum().array();
    }
    Numbers operator()(const Identity<double>&, const Numbers& x) { return x; }
    template <class Layer>
    Numbers operator()(const Scaled<Layer>& layer, const Numbers& x) {
        return layer.factor() * (*this)(layer.layer(), x);
    }
    template <class... Layers>
    Numbers operator()(const Sequential<Layers...>& layers, Numbers x) {
        std::apply([&](const auto&... layer) { ((x = (*this)(layer, x)), ...); }, layers.layers());
        return x;
    }
    template <class Layer>
    Numbers operator()(const Stack<Layer>& layers, Numbers x) {
        for (const Layer& layer : layers.layers()) x = (*this)(layer, x);
        return x;
    }
    template <class Branch, class Shortcut>
    Numbers operator()(const Residual<Branch, Shortcut>& layer, const Numbers& x) {
        const Numbers branch = (*this)(layer.branch(), x);
        return (*this)(layer.shortcut(), x) + branch;
    }
    template <class Gate, class Branch>
    Numbers operator()(const Gated<Gate, Branch>& layer, const Numbers& x) {
        Numbers gate, branch;
        Gated<Gate, Branch>::visit_parts(layer, [&](std::string_view name, const auto& part) {
            (name == "gate" ? gate : branch) = (*this)(part, x);
        });
        return gate.cwiseProduct(branch);
    }
    template <class Branch, class Shortcut>
    Numbers operator()(const StochasticDepth<Residual<Branch, Shortcut>>& node, const Numbers& x) {
        const double survival = node.survival_probability().value();
        if (!keeps_next(survival)) {
            pass_over(node.layer(), x);
            return Plain(nullptr)(node.layer().shortcut(), x);
        }
        const double scale = rule_ == Rule::mean       ? survival
                             : rule_ == Rule::inverted ? 1 / survival
                                                       : 1;
        const Numbers branch = (*this)(node.layer().branch(), x);
        return (*this)(node.layer().shortcut(), x) + scale * branch;
    }
    template <class Layer>
    Numbers operator()(const StochasticDepth<Layer>& node, const Numbers& x) {
        const double survival = node.survival_probability().value();
        if (!keeps_next(survival)) {
            pass_over(node.layer(), x);
            return x;
        }
        const Numbers y = (*this)(node.layer(), x);
        return rule_ == Rule::mean ? Numbers(survival * y + (1 - survival) * x) : y;
    }

private:
    [[nodiscard]] bool keeps_next(double survival) {
        p.push_back(survival);
        return !mask_ || (*mask_)[static_cast<Index>(p.size()) - 1];
    }
    /// Leaves the bits of what is inside a skipped layer aside.
    template <class Layer>
    void pass_over(const Layer& layer, const Numbers& x) {
        Plain inside(nullptr);
        inside(layer, x);
        p.insert(p.end(), inside.p.begin(), inside.p.end());
    }

    const SurvivalMask* mask_;
    Rule rule_;
};

/// Mask number k of all 2^L.
[[nodiscard]] inline SurvivalMask numbered(std::size_t k, Index layers) {
    SurvivalMask mask = SurvivalMask::none(layers);
    for (Index l = 0; l < layers; ++l)
        if ((k >> l) & 1u) mask.keep(l);
    return mask;
}

/// Each column under its own mask, by the plain formulas.
template <class Network>
[[nodiscard]] Numbers plain_outputs(const Network& network, const Numbers& x,
                                    const SurvivalMasks& masks, Rule rule = Rule::as_it_is) {
    Numbers y;
    for (Index j = 0; j < x.cols(); ++j) {
        const SurvivalMask mask = masks.mask(j);
        const Numbers column = Plain(&mask, rule)(network, x.col(j));
        if (j == 0) y.resize(column.rows(), x.cols());
        y.col(j) = column;
    }
    return y;
}

/// The outputs under all 2^L masks, and sums over them.
class AllMasks {
public:
    template <class Network>
    AllMasks(const Network& network, const Numbers& x) {
        Plain whole(nullptr);
        whole(network, x);
        p = Eigen::Map<const Eigen::VectorXd>(whole.p.data(), static_cast<Index>(whole.p.size()));
        for (std::size_t k = 0; k < std::size_t{1} << p.size(); ++k) {
            const SurvivalMask mask = numbered(k, p.size());
            y.push_back(Plain(&mask)(network, x));
        }
    }

    /// prod_l of p_l or 1 - p_l; for layers in `by` of 1 or -1, which differentiates by their p_l.
    [[nodiscard]] double weight(std::size_t k, std::vector<Index> by = {}) const {
        double product = 1;
        for (Index l = 0; l < p.size(); ++l) {
            const bool kept = ((k >> l) & 1u) != 0;
            bool is_by = false;
            for (const Index m : by) is_by = is_by || m == l;
            product *= is_by ? (kept ? 1 : -1) : (kept ? p(l) : 1 - p(l));
        }
        return product;
    }
    [[nodiscard]] Numbers sum(const std::function<double(std::size_t)>& weight_of) const {
        Numbers total = Numbers::Zero(y[0].rows(), y[0].cols());
        for (std::size_t k = 0; k < y.size(); ++k) total += weight_of(k) * y[k];
        return total;
    }
    [[nodiscard]] Numbers mean() const {
        return sum([&](std::size_t k) { return weight(k); });
    }
    [[nodiscard]] Numbers variance() const {
        const Numbers around = mean();
        Numbers total = Numbers::Zero(around.rows(), around.cols());
        for (std::size_t k = 0; k < y.size(); ++k) total += weight(k) * (y[k] - around).cwiseAbs2();
        return total;
    }
    /// sum over masks S without layer l of share(|S|) (NN(x, S + l) - NN(x, S)).
    [[nodiscard]] Numbers contributions(Index l, const std::function<double(int)>& share) const {
        return sum([&](std::size_t k) {
            int others = 0;
            for (Index m = 0; m < p.size(); ++m) others += m != l && ((k >> m) & 1u);
            return ((k >> l) & 1u ? 1 : -1) * share(others);
        });
    }

    Eigen::VectorXd p;
    std::vector<Numbers> y;
};

using Layer = Linear<double>;
using Skippable = StochasticDepth<Residual<Sequential<Layer, Tanh<double>>>>;

[[nodiscard]] inline Layer linear4(Philox& random) { return linear<double>(random, 4, 4); }

template <class Inside>
[[nodiscard]] StochasticDepth<Inside> with(double p, const Inside& inside) {
    return {inside, SurvivalProbability{p}};
}
[[nodiscard]] inline Skippable skippable(Philox& random, double p) {
    return with(p, Residual{Sequential{linear4(random), Tanh<double>{}}});
}

/// 7 skippable layers, each a residual one: a gated layer in a residual one in a stack, with
/// skippable layers in both of its parts, and one in a sequence. Outputs lie in (-1, 1).
[[nodiscard]] inline auto residual_network(std::uint32_t seed) {
    Philox random{seed};
    const auto block = [&](double p, double gate, double branch) {
        return with(p, Residual{Gated{skippable(random, gate),
                                      Sequential{skippable(random, branch), linear4(random)}}});
    };
    using Block = decltype(block(1, 1, 1));
    std::vector<Block> blocks{block(0.7, 0.4, 0.9), block(0.5, 0.8, 0.6)};
    return Sequential{linear<double>(random, 3, 4), Tanh<double>{},
                      Stack{std::move(blocks)},     Gated{skippable(random, 0.3), Tanh<double>{}},
                      linear<double>(random, 4, 2), Tanh<double>{}};
}

/// 6 skippable layers: a gated layer that is skipped as a whole, one in another, two side by side
/// in a residual layer, and one that stands in for a skipped layer, the network's last.
[[nodiscard]] inline auto mixed_network(std::uint32_t seed) {
    Philox random{seed};
    using Whole = Gated<Residual<Skippable>, Gated<Tanh<double>, Skippable>>;
    const Whole whole{Residual<Skippable>{skippable(random, 0.6)},
                      Gated{Tanh<double>{}, skippable(random, 0.35)}};
    return Sequential{
        linear<double>(random, 3, 4), with(0.55, whole),
        Residual{Gated{skippable(random, 0.8), linear4(random)},
                 Gated{Softmax<double>{}, skippable(random, 0.45)}},
        with(0.75, Residual{linear4(random), Gated{linear4(random), Tanh<double>{}}})};
}

[[nodiscard]] inline Numbers inputs(Index batch) {
    Philox random{77};
    return random_matrix<double>(random, 3, batch);
}

/// Tolerance of rounding.
inline constexpr double exact = 1e-12;

}  // namespace own
