// SPDX-License-Identifier: MIT
//
// Prints what the library computes, as one hash for each kind of result of each kind of network:
// FNV-1a over the bytes of all results for 50 random networks. Two builds of the library that print
// the same give the same bits. `bits_table KIND` prints that kind of network alone, one line for
// each network.
#include <stochastic_depth/all.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

namespace sd = stochastic_depth;
using sd::Index;

constexpr int networks = 50;
constexpr std::uint64_t training_steps = 20;

class Hash {
public:
    template <class Scalar>
    void add(const sd::Matrix<Scalar>& matrix) {
        add(matrix.rows());
        add(matrix.cols());
        add_bytes(matrix.data(), static_cast<std::size_t>(matrix.size()) * sizeof(Scalar));
    }
    void add(double number) { add_bytes(&number, sizeof number); }
    void add(Index number) { add_bytes(&number, sizeof number); }
    void add(const Hash& other) { add_bytes(&other.value_, sizeof other.value_); }

    [[nodiscard]] unsigned long long value() const { return value_; }

private:
    void add_bytes(const void* data, std::size_t size) {
        const auto* bytes = static_cast<const unsigned char*>(data);
        for (std::size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
    }

    std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// Random networks and their inputs.
class Draw {
public:
    explicit Draw(int number) : random_(static_cast<std::uint64_t>(number) + 1), number_(number) {}

    [[nodiscard]] Index between(Index least, Index most) {
        return least + static_cast<Index>(random_() % static_cast<std::uint64_t>(most - least + 1));
    }
    /// Two of the networks, and their batches, are large enough for threads to share their layers.
    [[nodiscard]] bool is_large() const { return number_ % 25 == 24; }
    [[nodiscard]] Index width() { return is_large() ? between(70, 100) : between(1, 40); }
    [[nodiscard]] Index batch() { return is_large() ? between(60, 90) : between(0, 40); }
    [[nodiscard]] Index depth(Index most = 7) { return between(0, is_large() ? 3 : most); }

    /// Every third network has layers that are always kept.
    [[nodiscard]] bool some_always_survive() const { return number_ % 3 == 2; }
    [[nodiscard]] sd::SurvivalProbability survival() {
        if (some_always_survive() && between(0, 2) == 0) return sd::SurvivalProbability{1.0};
        return sd::SurvivalProbability{sd::uniform<double>(random_, 0.1, 1.0)};
    }

    [[nodiscard]] double factor() { return sd::uniform<double>(random_, 0.5, 1.5); }

    template <class Scalar>
    [[nodiscard]] sd::Matrix<Scalar> matrix(Index rows, Index columns) {
        sd::Matrix<Scalar> result(rows, columns);
        for (Index i = 0; i < result.size(); ++i)
            result.data()[i] = sd::uniform<Scalar>(random_, Scalar(-1), Scalar(1));
        return result;
    }

    template <class Layer>
    [[nodiscard]] Layer linear(Index inputs, Index outputs) {
        using Scalar = typename Layer::Scalar;
        const sd::Vector<Scalar> bias = matrix<Scalar>(outputs, 1);
        const Scalar scale = Scalar(1) / static_cast<Scalar>(inputs);
        return Layer{scale * matrix<Scalar>(outputs, inputs), bias};
    }

    [[nodiscard]] sd::SurvivalMask mask(Index depth) {
        sd::SurvivalMask result = sd::SurvivalMask::none(depth);
        for (Index l = 0; l < depth; ++l)
            if (between(0, 1) == 1) result.keep(l);
        return result;
    }
    [[nodiscard]] sd::SurvivalMasks masks(Index depth, Index batch) {
        sd::SurvivalMasks result{depth, batch};
        for (Index j = 0; j < batch; ++j) result.set_mask(j, mask(depth));
        return result;
    }

private:
    sd::Philox random_;
    int number_;
};

/// So many layers of one type.
template <class Make>
[[nodiscard]] auto stack(Index depth, const Make& make) {
    std::vector<decltype(make())> layers;
    for (Index l = 0; l < depth; ++l) layers.push_back(make());
    return sd::Stack{std::move(layers)};
}

template <class Layer>
[[nodiscard]] sd::StochasticDepth<Layer> skippable(Layer layer, Draw& draw) {
    return {std::move(layer), draw.survival()};
}

// The kinds of networks: each makes one, with the number of its inputs.

struct Dense {
    static constexpr const char* name = "dense";
    using Linear = sd::Linear<float>;
    static auto make(Draw& draw) {
        const Index width = draw.width(), inputs = draw.width();
        const auto block = [&] {
            const Index hidden = draw.width();
            return skippable(
                sd::Residual{sd::Sequential{draw.linear<Linear>(width, hidden), sd::ReLU<float>{},
                                            draw.linear<Linear>(hidden, width)}},
                draw);
        };
        return std::pair{
            inputs, sd::Sequential{draw.linear<Linear>(inputs, width), stack(draw.depth(), block),
                                   draw.linear<Linear>(width, draw.width())}};
    }
};

struct LayerNorms {
    static constexpr const char* name = "layer-norm";
    using Linear = sd::Linear<double>;
    static auto make(Draw& draw) {
        const Index width = draw.width(), inputs = draw.width();
        const auto block = [&] {
            return skippable(sd::Residual{sd::Sequential{
                                 sd::LayerNorm<double>{width}, draw.linear<Linear>(width, width),
                                 sd::GELU<double>{}, draw.linear<Linear>(width, width)}},
                             draw);
        };
        return std::pair{inputs,
                         sd::Sequential{draw.linear<Linear>(inputs, width), sd::ReLU<double>{},
                                        stack(draw.depth(), block), sd::LayerNorm<double>{width},
                                        draw.linear<Linear>(width, draw.width())}};
    }
};

/// Skippable layers without shortcut, in stacks of stacks.
struct NoShortcut {
    static constexpr const char* name = "no-shortcut";
    static constexpr bool no_branches = true;  // for inverted scaling to multiply
    using Linear = sd::Linear<double>;
    static auto make(Draw& draw) {
        const Index width = draw.width();
        const auto block = [&] {
            return skippable(sd::Sequential{draw.linear<Linear>(width, width), sd::Tanh<double>{}},
                             draw);
        };
        Index left = draw.depth();
        const auto part = [&] {
            const Index depth = draw.between(0, left);
            left -= depth;
            return stack(depth, block);
        };
        return std::pair{width, sd::Sequential{stack(draw.between(0, 3), part),
                                               draw.linear<Linear>(width, draw.width())}};
    }
};

/// Blocks that change the width, with a projection as shortcut.
struct Projections {
    static constexpr const char* name = "projection";
    using Linear = sd::Linear<float>;
    static auto make(Draw& draw) {
        const Index inputs = draw.width();
        Index width = inputs;
        const auto block = [&] {
            const Index from = width, hidden = draw.width();
            width = draw.width();
            return skippable(
                sd::Residual{sd::Sequential{draw.linear<Linear>(from, hidden), sd::Tanh<float>{},
                                            draw.linear<Linear>(hidden, width)},
                             draw.linear<Linear>(from, width)},
                draw);
        };
        return std::pair{inputs, stack(draw.depth(), block)};
    }
};

struct NestedInBranches {
    static constexpr const char* name = "nested-branch";
    using Linear = sd::Linear<double>;
    static auto make(Draw& draw) {
        const Index width = draw.width();
        const auto block = [&] {
            auto inside = skippable(
                sd::Residual{sd::Sequential{draw.linear<Linear>(width, width), sd::ReLU<double>{}}},
                draw);
            return skippable(
                sd::Residual{sd::Sequential{draw.linear<Linear>(width, width), std::move(inside),
                                            draw.linear<Linear>(width, width)}},
                draw);
        };
        return std::pair{width, sd::Sequential{stack(draw.depth(3), block),
                                               draw.linear<Linear>(width, draw.width())}};
    }
};

struct NestedInShortcuts {
    static constexpr const char* name = "nested-shortcut";
    static constexpr bool no_branches = true;
    using Linear = sd::Linear<float>;
    static auto make(Draw& draw) {
        const Index width = draw.width();
        const auto block = [&] {
            auto branch = skippable(
                sd::Sequential{draw.linear<Linear>(width, width), sd::Tanh<float>{}}, draw);
            auto shortcut = skippable(sd::Residual{draw.linear<Linear>(width, width)}, draw);
            return sd::Residual{std::move(branch), std::move(shortcut)};
        };
        return std::pair{width, sd::Sequential{stack(draw.depth(3), block),
                                               draw.linear<Linear>(width, draw.width())}};
    }
};

/// Layers that a training step treats otherwise than a pass.
struct Batches {
    static constexpr const char* name = "batch-norm";
    using Linear = sd::Linear<float>;
    static auto make(Draw& draw) {
        const Index width = draw.width(), inputs = draw.width();
        const auto block = [&] {
            return skippable(sd::Residual{sd::Sequential{
                                 sd::BatchNorm<float>{width}, sd::ReLU<float>{},
                                 draw.linear<Linear>(width, width), sd::Dropout<float>{0.25},
                                 draw.linear<Linear>(width, width)}},
                             draw);
        };
        return std::pair{
            inputs,
            sd::Sequential{draw.linear<Linear>(inputs, width), stack(draw.depth(), block),
                           sd::BatchNorm<float>{width}, draw.linear<Linear>(width, draw.width())}};
    }
};

/// Scaled branches, and several functions of the probabilities of classes.
struct Classes {
    static constexpr const char* name = "classes";
    using Linear = sd::Linear<double>;
    static auto make(Draw& draw) {
        const Index width = draw.width();
        const auto block = [&] {
            return skippable(
                sd::Residual{sd::Scaled{
                    sd::Sequential{draw.linear<Linear>(width, width), sd::GELU<double>{}},
                    draw.factor()}},
                draw);
        };
        return std::pair{
            width, sd::Sequential{stack(draw.depth(), block),
                                  draw.linear<Linear>(width, draw.width()), sd::Softmax<double>{},
                                  sd::Concatenate{sd::Identity<double>{}, sd::Entropy<double>{}}}};
    }
};

template <class Scalar, int width>
struct Fixed {
    static constexpr const char* name = width == 4 ? "width-4" : "width-8";
    using Linear = sd::Linear<Scalar, width, width>;
    using Last = sd::Linear<Scalar, width, Eigen::Dynamic>;
    static auto make(Draw& draw) {
        const auto block = [&] {
            return skippable(
                sd::Residual{sd::Sequential{draw.linear<Linear>(width, width), sd::ReLU<Scalar>{}}},
                draw);
        };
        return std::pair{Index{width}, sd::Sequential{stack(draw.depth(), block),
                                                      draw.linear<Last>(width, draw.width())}};
    }
};

/// Convolutions, pooling and normalisation, with blocks that change the shape.
struct Images {
    static constexpr const char* name = "images";
    static auto make(Draw& draw) {
        const sd::ImageShape shape{draw.between(1, 3), draw.between(3, 7), draw.between(3, 7)};
        sd::Philox random{static_cast<std::uint64_t>(draw.between(0, 1000))};
        return std::pair{shape.size(), sd::resnet<float>({.input = shape,
                                                          .depth = 8,
                                                          .classes = draw.between(1, 10),
                                                          .channels = draw.between(1, 9)},
                                                         random)};
    }
};

/// The results of one network, by the name of what computed them.
using Results = std::vector<std::pair<std::string, Hash>>;

/// Outputs under the full mask and under others: whatever parameter differs, an output does.
template <class Network>
void add_outputs(Hash& hash, const Network& network, const sd::Matrix<typename Network::Scalar>& x,
                 const sd::SurvivalMasks& masks) {
    hash.add(network(x, sd::SurvivalMask::all(network.depth())));
    hash.add(network(x, masks));
}

/// What a network has become after some steps of training, and the losses on the way.
template <class Network, class MakeOptimizer>
[[nodiscard]] Hash train(Network network, const MakeOptimizer& make_optimizer,
                         const sd::Matrix<typename Network::Scalar>& x,
                         const sd::Matrix<typename Network::Scalar>& targets,
                         const sd::SurvivalMasks& masks, const sd::TrainingStepOptions& options) {
    Hash hash;
    sd::TrainingStep step{network, sd::MeanSquaredError<typename Network::Scalar>{}, options};
    auto optimizer = make_optimizer(network);
    for (std::uint64_t t = 0; t < training_steps; ++t) {
        const sd::StepLedger ledger = step.differentiate(network, x, targets, t);
        hash.add(ledger.loss);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
    }
    add_outputs(hash, network, x, masks);
    return hash;
}

template <class Network>
void add_training(Results& results, const Network& network, bool has_branches,
                  const sd::Matrix<typename Network::Scalar>& x,
                  const sd::Matrix<typename Network::Scalar>& targets,
                  const sd::SurvivalMasks& masks) {
    using enum sd::MaskScope;
    const auto sgd = [](const Network& of) {
        return sd::Sgd{of, {.learning_rate = 0.005, .momentum = 0.9, .weight_decay = 1e-3}};
    };
    const auto adam = [](const Network& of) { return sd::AdamW{of, {.learning_rate = 0.002}}; };
    for (const auto& [scope, scope_name] :
         {std::pair{batch, "batch"}, std::pair{sample, "sample"}, std::pair{subset, "subset"}})
        for (const auto scaling : {sd::Scaling::none, sd::Scaling::inverted}) {
            if (scaling == sd::Scaling::inverted && !has_branches) continue;
            const std::string name =
                std::string("training, ") + scope_name +
                (scaling == sd::Scaling::none ? ", no scaling, " : ", inverted, ");
            for (const unsigned threads : {1u, 2u}) {
                const sd::TrainingStepOptions options{
                    .mask_scope = scope, .scaling = scaling, .seed = 5, .threads = threads};
                const std::string end = threads == 1 ? "1 thread" : "2 threads";
                results.emplace_back(name + "Sgd, " + end,
                                     train(network, sgd, x, targets, masks, options));
                results.emplace_back(name + "AdamW, " + end,
                                     train(network, adam, x, targets, masks, options));
            }
        }
}

template <class Network>
void add_expectations(Results& results, const Network& network, bool some_always_survive,
                      const sd::Matrix<typename Network::Scalar>& x) {
    const auto add = [&](const std::string& name, const auto&... result) {
        Hash hash;
        (hash.add(result), ...);
        results.emplace_back(name, hash);
    };
    for (const unsigned threads : {1u, 2u}) {
        const std::string end = threads == 1 ? ", 1 thread" : ", 2 threads";
        const auto exact = sd::ExactExpectation{{.threads = threads}}(network, x);
        add("exact expectation, mean" + end, exact.mean);
        add("exact expectation, variance" + end, exact.variance);
    }
    const auto slopes = sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(network, x);
    const std::string survival = some_always_survive ? ", some p = 1" : ", all p < 1";
    add("exact sensitivity, mean" + survival, slopes.expectation.mean);
    add("exact sensitivity, variance" + survival, slopes.expectation.variance);
    add("exact sensitivity, by layer" + survival, slopes.by_layer.values());
    const auto sampled = [&](const std::string& name, const sd::MonteCarloExpectation& estimate) {
        const auto result = estimate(network, x);
        add("Monte Carlo, " + name + ", mean", result.mean);
        add("Monte Carlo, " + name + ", variance and error", result.variance,
            result.standard_error);
    };
    sampled("default", sd::MonteCarloExpectation{});
    sampled("7 masks, 2 threads", sd::MonteCarloExpectation{{.samples = 7, .threads = 2}});
    sampled("lattice and control variates",
            sd::MonteCarloExpectation{{.samples = 60,
                                       .design = sd::MaskDesign::lattice,
                                       .control_variates = sd::ControlVariates::mask_bits}});
    add("weight scaling", sd::WeightScaling{}(network, x).mean);
    const auto bounds =
        sd::CertifiedInterval{{.lowest = -1e4, .highest = 1e4, .uncovered = 0.1}}(network, x);
    add("certified interval", bounds.lower, bounds.upper);
}

/// Gradients have no public form that all networks share: a step of gradient descent shows them.
template <class Network>
void add_exact_gradients(Results& results, const Network& network,
                         const sd::Matrix<typename Network::Scalar>& x,
                         const sd::Matrix<typename Network::Scalar>& targets,
                         const sd::SurvivalMasks& masks) {
    using Scalar = typename Network::Scalar;
    const sd::ExactGradient exact{{.threads = 2}};
    const auto descended = [&](auto& gradient) {
        Network next = network;
        sd::Sgd{next, {.learning_rate = 0.1}}.step(next, gradient);
        Hash hash;
        add_outputs(hash, next, x, masks);
        return hash;
    };
    auto gradient = network.zero_gradient();
    sd::Matrix<Scalar> dx(x.rows(), x.cols());
    exact.of_mean(network, x, targets, gradient, dx);
    Hash by_input;
    by_input.add(dx);
    results.emplace_back("exact gradient of the mean, by input", by_input);
    results.emplace_back("exact gradient of the mean, by parameters", descended(gradient));
    gradient.set_zero();
    const double loss =
        exact.of_expected_loss(network, x, targets, sd::MeanSquaredError<Scalar>{}, gradient);
    Hash of_loss;
    of_loss.add(loss);
    of_loss.add(descended(gradient));
    results.emplace_back("exact gradient of the expected loss", of_loss);
}

template <class Kind>
[[nodiscard]] Results results_of(int number) {
    Draw draw{number};
    const auto [inputs, network] = Kind::make(draw);
    using Scalar = typename std::remove_cvref_t<decltype(network)>::Scalar;
    const sd::Matrix<Scalar> x = draw.matrix<Scalar>(inputs, draw.batch());
    const sd::Matrix<Scalar> targets = draw.matrix<Scalar>(network.output_size(inputs), x.cols());
    const sd::SurvivalMask mask = draw.mask(network.depth());
    const sd::SurvivalMasks masks = draw.masks(network.depth(), x.cols());
    Results results;
    Hash one, each;
    one.add(network(x, mask));
    each.add(network(x, masks));
    results.emplace_back("masked forward, one mask", one);
    results.emplace_back("masked forward, masks for each sample", each);
    add_expectations(results, network, draw.some_always_survive(), x);
    add_exact_gradients(results, network, x, targets, masks);
    add_training(
        results, network, !requires { Kind::no_branches; }, x, targets, masks);
    return results;
}

void print(const char* kind, const std::string& what, const Hash& hash) {
    std::printf("%-16s %-56s %016llx\n", kind, what.c_str(), hash.value());
}

template <class Kind>
void print_kind(std::string_view only) {
    if (!only.empty() && only != Kind::name) return;
    std::vector<std::string> order;
    std::map<std::string, Hash> sums;
    for (int number = 0; number < networks; ++number)
        for (const auto& [what, hash] : results_of<Kind>(number)) {
            if (!only.empty()) print(Kind::name, std::to_string(number) + ": " + what, hash);
            const auto [sum, is_new] = sums.try_emplace(what);
            sum->second.add(hash);
            if (is_new) order.push_back(what);
        }
    if (only.empty())
        for (const std::string& what : order) print(Kind::name, what, sums.at(what));
}

template <class... Kinds>
void print_kinds(std::string_view only) {
    (print_kind<Kinds>(only), ...);
}

}  // namespace

int main(int count, char** arguments) {
    print_kinds<Dense, LayerNorms, NoShortcut, Projections, NestedInBranches, NestedInShortcuts,
                Batches, Classes, Images, Fixed<float, 4>, Fixed<double, 8>>(
        count > 1 ? arguments[1] : "");
}
