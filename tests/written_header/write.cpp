// SPDX-License-Identifier: MIT
// Writes networks as headers, and their inputs and outputs, bit by bit:  write_headers DIRECTORY
#include <stochastic_depth/export/header_any_layer.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/models/resnet.hpp>

#include "support/matrices.hpp"
#include "support/structures.hpp"

namespace sd = stochastic_depth;
using sd::Index;

namespace {

/// A function of one number that says how it is written.
template <class Scalar_>
struct Leaky {
    using Scalar = Scalar_;
    Scalar slope;
    [[nodiscard]] Scalar value(Scalar z) const { return z > 0 ? z : slope * z; }
    [[nodiscard]] std::string header_expression() const {
        return "z > 0 ? z : " + sd::header_literal(slope) + " * z";
    }
};

/// A layer that does: neighbours' differences, times a gain, with a sum behind a product.
template <class Scalar_>
class Differences {
public:
    using Scalar = Scalar_;
    explicit Differences(sd::Vector<Scalar> gain) : gain_(std::move(gain)) {}
    [[nodiscard]] Index output_size(Index) const { return gain_.size(); }
    void forward(const sd::ConstMatrixRef<Scalar>& x, sd::MatrixRef<Scalar> y) const {
        for (Index j = 0; j < x.cols(); ++j)
            for (Index i = 0; i < gain_.size(); ++i)
                y(i, j) = std::fma(gain_(i), x(i + 1, j) - x(i, j), x(i, j));
    }
    template <class Writer>
    void write_header(Writer& writer) const {
        const std::string gain = writer.constant("gain", gain_.data(), gain_.size());
        writer.function(gain_.size(), "for (int i = 0; i < " + std::to_string(gain_.size()) +
                                          "; ++i) y[i] = std::fma(" + gain +
                                          "[i], x[i + 1] - x[i], x[i]);");
    }

private:
    sd::Vector<Scalar> gain_;
};

class Cases {
public:
    explicit Cases(std::string directory) : directory_(std::move(directory)) {}

    /// What a sub-network gives for some inputs.
    template <class Network, class Scalar = typename Network::Scalar>
    void add(const Network& network, const sd::Matrix<Scalar>& x, const sd::SurvivalMask& mask,
             const std::vector<sd::HeaderHeldLayer>& held = {}) {
        write(network, x, network(x, mask), mask, {.inputs = x.rows(), .held = held});
    }
    /// The same with its branches at their means.
    template <class Network, class Scalar = typename Network::Scalar>
    void add_weighted(const Network& network, const sd::Matrix<Scalar>& x,
                      const sd::SurvivalMask& mask) {
        Eigen::VectorXd means = network.survival_probabilities();
        for (Index l = 0; l < means.size(); ++l)
            if (!mask[l]) means(l) = 0;
        sd::Matrix<Scalar> y(network.output_size(x.rows()), x.cols());
        sd::detail::run_into(network, x, sd::detail::MeanOfMasks(means.data()), y);
        write(network, x, y, mask, {.weight_scaling = true, .inputs = x.rows()});
    }
    /// Random inputs, and a mask that keeps about two layers of three.
    template <class Network>
    void add_random(const Network& network, Index inputs, sd::Philox& random,
                    const std::vector<sd::HeaderHeldLayer>& held = {}) {
        const sd::SurvivalMask mask = random_mask(network.depth(), random);
        add(network, random_inputs<typename Network::Scalar>(inputs, random), mask, held);
    }
    template <class Network>
    void add_random_weighted(const Network& network, Index inputs, sd::Philox& random) {
        const sd::SurvivalMask mask = random_mask(network.depth(), random);
        add_weighted(network, random_inputs<typename Network::Scalar>(inputs, random), mask);
    }

    void finish() const {
        std::ofstream(directory_ + "/cases.hpp")
            << "#pragma once\n"
            << includes_ << numbers_ << "inline void check_all() {\n"
            << calls_ << "}\n";
    }

private:
    [[nodiscard]] static sd::SurvivalMask random_mask(Index depth, sd::Philox& random) {
        sd::SurvivalMask mask = sd::SurvivalMask::all(depth);
        for (Index l = 0; l < depth; ++l)
            if (random() % 3 == 0) mask.skip(l);
        return mask;
    }
    template <class Scalar>
    [[nodiscard]] static sd::Matrix<Scalar> random_inputs(Index rows, sd::Philox& random) {
        return 3 * sd::test::random_matrix<Scalar>(random, rows, 3);
    }

    template <class Network, class Scalar = typename Network::Scalar>
    void write(const Network& network, const sd::Matrix<Scalar>& x, const sd::Matrix<Scalar>& y,
               const sd::SurvivalMask& mask, sd::HeaderOptions options) {
        const std::string name = "case_" + std::to_string(count_++);
        options.name_space = name;
        sd::write_header(directory_ + "/" + name + ".hpp", network, mask, options);
        includes_ += "#include \"" + name + ".hpp\"\n";
        calls_ += "    check<" + name + "::inputs, " + name + "::outputs>(\"" + name + "\", " +
                  name + "::forward, " + bits(x) + ", " + bits(y) + ", " +
                  std::to_string(x.cols()) + ");\n";
    }

    template <class Scalar>
    [[nodiscard]] std::string bits(const sd::Matrix<Scalar>& x) {
        using Bits = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
        const std::string name = "numbers_" + std::to_string(arrays_++);
        numbers_ += std::string("static const std::uint") + (sizeof(Scalar) == 4 ? "32" : "64") +
                    "_t " + name + "[] = {";
        for (const Scalar number : x.reshaped())
            numbers_ += std::to_string(std::bit_cast<Bits>(number)) + "u,";
        numbers_ += "};\n";
        return name;
    }

    std::string directory_;
    std::string includes_;
    std::string numbers_;
    std::string calls_;
    int count_ = 0;
    int arrays_ = 0;
};

/// Layers and networks of random widths.
template <class Scalar>
class Drawn {
public:
    explicit Drawn(sd::Philox& random) : random_(random) {}

    Index width() { return static_cast<Index>(1 + random_() % 70); }
    sd::Vector<Scalar> vector(Index rows) {
        return sd::test::random_matrix<Scalar>(random_, rows, 1);
    }
    sd::Linear<Scalar> linear(Index inputs, Index outputs) {
        return {sd::test::random_matrix<Scalar>(random_, outputs, inputs), vector(outputs)};
    }
    sd::SurvivalProbability probability() {
        return sd::SurvivalProbability{sd::uniform<double>(random_, 0.1, 1.0)};
    }
    sd::BatchNorm<Scalar> batch_norm(Index features) {
        return {vector(features), vector(features), vector(features),
                sd::Vector<Scalar>(vector(features).array().square() + Scalar(0.1))};
    }

    auto blocks(Index width, Index depth) {
        using Branch = sd::Sequential<sd::LayerNorm<Scalar>, sd::Linear<Scalar>, sd::GELU<Scalar>,
                                      sd::Linear<Scalar>>;
        std::vector<sd::StochasticDepth<sd::Residual<Branch>>> blocks;
        for (Index l = 0; l < depth; ++l) {
            const Index inside = this->width();
            blocks.emplace_back(
                sd::Residual{Branch{sd::LayerNorm<Scalar>{vector(width), vector(width)},
                                    linear(width, inside),
                                    {},
                                    linear(inside, width)}},
                probability());
        }
        return sd::Stack{std::move(blocks)};
    }

private:
    sd::Philox& random_;
};

void add_dense(Cases& cases, sd::Philox& random) {
    Drawn<float> drawn(random);
    for (const Index depth : {0, 1, 4}) {
        const Index in = drawn.width(), w = drawn.width(), out = drawn.width();
        const sd::Sequential network{drawn.linear(in, w), drawn.blocks(w, depth), sd::ReLU<float>{},
                                     drawn.linear(w, out)};
        cases.add_random(network, in, random);
        cases.add_random_weighted(network, in, random);
    }
    const Index a = drawn.width(), b = drawn.width(), c = drawn.width();
    cases.add_random(
        sd::Sequential{drawn.linear(a, b), sd::Tanh<float>{}, drawn.linear(b, c), sd::SiLU<float>{},
                       drawn.linear(c, a), sd::GELUTanh<float>{}, sd::Dropout<float>{0.5},
                       drawn.linear(a, b), sd::LogSoftmax<float>{}},
        a, random);
    // Layers that no product precedes, products that end a branch, layers without a branch.
    const sd::Sequential mixed{
        sd::RmsNorm<float>{a},
        sd::Identity<float>{},
        sd::StochasticDepth{sd::Residual{sd::Sequential{drawn.linear(a, a), drawn.batch_norm(a)}},
                            drawn.probability()},
        drawn.batch_norm(a),
        sd::StochasticDepth{sd::Residual{sd::RmsNorm<float>{drawn.vector(a)}}, drawn.probability()},
        sd::StochasticDepth{sd::Residual{sd::Scaled{drawn.linear(a, a), 0.3F}},
                            drawn.probability()},
        sd::StochasticDepth{sd::Sequential{drawn.linear(a, a), sd::SiLU<float>{}},
                            drawn.probability()},
        sd::StochasticDepth{sd::Residual{sd::Identity<float>{}}, drawn.probability()},
        sd::StochasticDepth{sd::Softmax<float>{}, drawn.probability()}};
    cases.add_random(mixed, a, random);
    cases.add_random_weighted(mixed, a, random);
    cases.add_random(
        sd::Sequential{drawn.linear(a, b), sd::Softmax<float>{},
                       sd::Concatenate{sd::Identity<float>{}, sd::Entropy<float>{},
                                       sd::Sequential{drawn.linear(b, c), sd::ReLU<float>{}},
                                       sd::GELU<float>{}}},
        a, random);
    // Of the user's own.
    cases.add_random(
        sd::Sequential{drawn.linear(a, b + 1), Differences<float>{drawn.vector(b)},
                       sd::Elementwise{Leaky<float>{0.1F}},
                       sd::StochasticDepth{sd::Residual{sd::Elementwise{Leaky<float>{0.2F}}},
                                           drawn.probability()}},
        a, random);
    // Chosen at run time.
    using Layer =
        sd::StochasticDepth<sd::Residual<sd::Sequential<sd::Linear<float>, sd::Tanh<float>>>>;
    const auto layer = [&] {
        return Layer{sd::Residual{sd::Sequential{drawn.linear(b, b), sd::Tanh<float>{}}},
                     drawn.probability()};
    };
    cases.add_random(
        sd::Stack<sd::AnyLayer<float>>{{drawn.linear(a, b), layer(), layer(), drawn.linear(b, c)}},
        a, random, sd::held_layers<Layer, sd::Linear<float>>());
    // One number; nothing at all; all skipped.
    const auto one = [&] { return sd::Residual{drawn.linear(1, 1)}; };
    using One = sd::StochasticDepth<sd::Residual<sd::Linear<float>>>;
    cases.add_random(
        sd::Stack{std::vector<One>{{one(), drawn.probability()}, {one(), drawn.probability()}}}, 1,
        random);
    cases.add_random(sd::Stack{std::vector<One>{}}, 5, random);
    // A product that is rounded before it is added to something: a compiler that sees both at once
    // would round once.
    for (const Index rows : {1, 2})
        cases.add(sd::Sequential{sd::Residual{sd::Scaled{drawn.linear(rows, rows), 0.3F}},
                                 drawn.linear(rows, rows)},
                  sd::test::random_matrix<float>(random, rows, 40), sd::SurvivalMask::all(0));
    cases.add(sd::Stack{std::vector<One>{{sd::Residual{drawn.linear(a, a)}, drawn.probability()}}},
              sd::test::random_matrix<float>(random, a, 2), sd::SurvivalMask{0});
}

void add_doubles(Cases& cases, sd::Philox& random) {
    Drawn<double> drawn(random);
    const Index a = drawn.width(), b = drawn.width();
    cases.add_random_weighted(
        sd::Sequential{drawn.linear(a, b), drawn.blocks(b, 3), sd::RmsNorm<double>{drawn.vector(b)},
                       drawn.batch_norm(b), sd::LogSoftmax<double>{}},
        a, random);
}

/// Functions of one number, where they are hard.
template <class Scalar>
void add_functions(Cases& cases, sd::Philox& random) {
    using Limits = std::numeric_limits<Scalar>;
    const Index rows = 61, columns = 200;
    sd::Matrix<Scalar> x(rows, columns);
    for (Scalar& z : x.reshaped())
        z = static_cast<Scalar>(
            std::ldexp(sd::uniform<double>(random, -1, 1), static_cast<int>(random() % 24) - 12));
    const Scalar special[] = {0,
                              -Scalar(0),
                              Limits::infinity(),
                              -Limits::infinity(),
                              Limits::quiet_NaN(),
                              Limits::max(),
                              Limits::lowest(),
                              Limits::denorm_min(),
                              -Limits::denorm_min(),
                              Limits::min(),
                              89,
                              -104,
                              Scalar(0.0004),
                              Scalar(7.9988),
                              -Scalar(7.9988),
                              8,
                              Scalar(14.5)};
    for (std::size_t k = 0; k < std::size(special); ++k)
        for (const Index column : {0, 40}) x(static_cast<Index>(k) + column, column) = special[k];
    const auto add = [&](const auto& layer) {
        cases.add(sd::Sequential{layer}, x, sd::SurvivalMask::all(0));
    };
    add(sd::ReLU<Scalar>{});
    add(sd::Tanh<Scalar>{});
    add(sd::GELU<Scalar>{});
    add(sd::GELUTanh<Scalar>{});
    add(sd::SiLU<Scalar>{});
}

void add_structures(Cases& cases, sd::Philox& random) {
    sd::test::Structures structures(7);
    for (int k = 0; k < 3; ++k) {
        cases.add_random(structures.nested(), 5, random);
        cases.add_random(structures.residual_around(), 6, random);
        cases.add_random(structures.own_shortcuts(), 4, random);
        cases.add_random_weighted(structures.own_shortcuts(), 4, random);
    }
    cases.add_random(structures.fixed(), 4, random);
}

void add_images(Cases& cases, sd::Philox& random) {
    constexpr sd::ResNetStyle style{sd::ActivationOrder::pre, sd::ShapeShortcut::projection};
    const sd::ResNetOptions options{
        .input = {2, 9, 7}, .depth = 8, .classes = 3, .final_survival = 0.5, .channels = 5};
    cases.add_random(sd::resnet<float, style>(options, random), 2 * 9 * 7, random);
    const sd::Conv2d<float> first{{3, 8, 6},
                                  {.channels = 35, .kernel = 5, .stride = 2, .padding = 6},
                                  sd::test::random_matrix<float>(random, 35, 75),
                                  sd::test::random_matrix<float>(random, 35, 1)};
    const sd::BatchNorm2d<float> norm{first.output_shape(), Drawn<float>(random).batch_norm(35)};
    const sd::MaxPool2d<float> largest{norm.output_shape(),
                                       {.kernel = 3, .stride = 1, .padding = 2}};
    const sd::AveragePool2d<float> mean{largest.output_shape(), {.kernel = 2, .padding = 1}};
    const sd::PadChannels<float> padded{mean.output_shape(), 40};
    cases.add_random(sd::Sequential{first, norm, sd::ReLU<float>{}, largest, mean, padded},
                     3 * 8 * 6, random);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: write_headers DIRECTORY\n"), 2;
    try {
        Cases cases(argv[1]);
        sd::Philox random{16};
        for (int k = 0; k < 5; ++k) {
            add_dense(cases, random);
            add_doubles(cases, random);
        }
        add_functions<float>(cases, random);
        add_functions<double>(cases, random);
        add_structures(cases, random);
        add_images(cases, random);
        cases.finish();
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s\n", error.what()), 1;
    }
}
