// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/layer_contract.hpp"
#include "support/layers.hpp"
#include "support/recorded_pass.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

SurvivalMask mask_of(Index depth, std::uint64_t bits) {
    SurvivalMask mask = SurvivalMask::none(depth);
    if (depth > 0) mask.set_word(0, bits);
    return mask;
}

SurvivalMasks random_masks(Index depth, Index batch) {
    std::mt19937_64 random{static_cast<std::uint64_t>(1000 * depth + batch)};
    SurvivalMasks masks{depth, batch};
    for (Index l = 0; l < depth; ++l)
        for (std::size_t w = 0; w < masks.words(l).size(); ++w) masks.set_word(l, w, random());
    return masks;
}

/// NN(x, S) as it is defined, with nothing skipped, gathered or fused: every layer runs, its
/// shortcut too, and the mask selects. Only `forward` of layers that hold no other layer is used.
template <class Scalar>
class Naive {
public:
    explicit Naive(const SurvivalMask& mask) : mask_(mask) {}

    template <class Layer>
    Matrix<Scalar> operator()(const Layer& layer, const Matrix<Scalar>& x) {
        return run(layer, x);
    }
    template <class... Layers>
    Matrix<Scalar> operator()(const Sequential<Layers...>& network, const Matrix<Scalar>& x) {
        Matrix<Scalar> h = x;
        std::apply([&](const auto&... layer) { ((h = (*this)(layer, h)), ...); }, network.layers());
        return h;
    }
    template <class Layer>
    Matrix<Scalar> operator()(const Stack<Layer>& stack, const Matrix<Scalar>& x) {
        Matrix<Scalar> h = x;
        for (const Layer& layer : stack.layers()) h = (*this)(layer, h);
        return h;
    }
    template <class Branch, class Shortcut>
    Matrix<Scalar> operator()(const Residual<Branch, Shortcut>& layer, const Matrix<Scalar>& x) {
        const Matrix<Scalar> branch = (*this)(layer.branch(), x);
        const Matrix<Scalar> shortcut = (*this)(layer.shortcut(), x);
        return shortcut + branch;
    }
    template <class Layer>
    Matrix<Scalar> operator()(const StochasticDepth<Layer>& layer, const Matrix<Scalar>& x) {
        const bool kept = mask_[next_++];
        const Matrix<Scalar> active = (*this)(layer.layer(), x);
        const Matrix<Scalar> skipped = Naive(SurvivalMask{})(layer.shortcut(), x);
        return kept ? active : skipped;
    }

private:
    SurvivalMask mask_;
    Index next_ = 0;
};

/// Every way to run a network of any type: `check_masked_forward` is then compiled once for each
/// Scalar.
template <class Scalar>
struct AnyNetwork {
    Index outputs;
    std::function<Matrix<Scalar>(const ConstMatrixRef<Scalar>&)> without_mask;
    std::function<Matrix<Scalar>(const ConstMatrixRef<Scalar>&, const SurvivalMask&)> one_mask;
    std::function<Matrix<Scalar>(const ConstMatrixRef<Scalar>&, const SurvivalMasks&)> many_masks;
    std::function<void(const ConstMatrixRef<Scalar>&, const SurvivalMasks&, MatrixRef<Scalar>)>
        into;
    std::function<Matrix<Scalar>(const Matrix<Scalar>&, const SurvivalMask&)> naive;
};

/// Against the definition, for all of the 2^depth masks.
template <class Scalar>
void check_masked_forward(const AnyNetwork<Scalar>& network, Index inputs, Index depth) {
    Philox random{41};
    const Index batch = 70;  // More than one word of masks.
    const Matrix<Scalar> x = random_matrix<Scalar>(random, inputs, batch);
    const Index outputs = network.outputs;
    const double tolerance = 1e3 * static_cast<double>(std::numeric_limits<Scalar>::epsilon());

    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << depth; ++bits) {
        const SurvivalMask mask = mask_of(depth, bits);
        INFO(to_string(mask));
        const Matrix<Scalar> y = network.one_mask(x, mask);
        const Matrix<Scalar> expected = network.naive(x, mask);
        REQUIRE(y.rows() == outputs);
        REQUIRE(largest_difference(y, expected) <=
                tolerance * (1 + static_cast<double>(expected.cwiseAbs().maxCoeff())));
        // One mask, or the same mask for each sample.
        const std::vector<SurvivalMask> copies(static_cast<std::size_t>(batch), mask);
        REQUIRE(same_bits(network.many_masks(x, SurvivalMasks::from_masks(copies)), y));
        if (bits + 1 == std::uint64_t{1} << depth) CHECK(same_bits(network.without_mask(x), y));
    }

    for (const Index columns : {Index{0}, Index{1}, Index{2}, Index{13}, Index{64}, batch}) {
        const SurvivalMasks masks = random_masks(depth, columns);
        const Matrix<Scalar> y = network.many_masks(x.leftCols(columns), masks);
        for (Index j = 0; j < columns; ++j) {
            INFO(to_string(masks.mask(j)));
            REQUIRE(same_bits(y.col(j), network.one_mask(x.col(j), masks.mask(j))));
        }
        // Into the caller's memory, from the middle of a matrix into the middle of a matrix.
        Matrix<Scalar> around_x = Matrix<Scalar>::Constant(inputs + 3, columns + 2, Scalar(1e30));
        around_x.block(1, 1, inputs, columns) = x.leftCols(columns);
        const Matrix<Scalar> unchanged = around_x;
        Matrix<Scalar> around_y = Matrix<Scalar>::Constant(outputs + 3, columns + 2, Scalar(77));
        network.into(around_x.block(1, 1, inputs, columns), masks,
                     around_y.block(2, 1, outputs, columns));
        CHECK(same_bits(around_y.block(2, 1, outputs, columns), y));
        around_y.block(2, 1, outputs, columns).setConstant(Scalar(77));
        CHECK((around_y.array() == Scalar(77)).all());
        CHECK(same_bits(around_x, unchanged));
    }
}

template <class Network>
void check_masked_forward(const char* name, const Network& network, Index inputs, Index depth) {
    using Scalar = typename Network::Scalar;
    INFO(name);
    REQUIRE(network.depth() == depth);
    REQUIRE(network.survival_probabilities().size() == depth);
    using X = ConstMatrixRef<Scalar>;
    const AnyNetwork<Scalar> any{
        network.output_size(inputs),
        [&](const X& x) { return run(network, x); },
        [&](const X& x, const SurvivalMask& mask) { return network(x, mask); },
        [&](const X& x, const SurvivalMasks& masks) { return network(x, masks); },
        [&](const X& x, const SurvivalMasks& masks, MatrixRef<Scalar> y) {
            masked_forward(network, x, masks, y);
        },
        [&](const Matrix<Scalar>& x, const SurvivalMask& mask) {
            return Naive<Scalar>{mask}(network, x);
        }};
    check_masked_forward(any, inputs, depth);
}

template <class Scalar>
auto block(Philox& random, Index width, double p) {
    return StochasticDepth{
        Residual{Sequential{linear<Scalar>(random, width, width), ReLU<Scalar>{}}},
        SurvivalProbability{p}};
}

TEMPLATE_TEST_CASE("masked forward: equal to running every layer and selecting, column j by mask j",
                   "[stochastic_depth]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    const SurvivalProbability p{0.5};
    for (const Index width : {1, 3, 8, 19}) {
        check_masked_forward("one block", block<Scalar>(random, width, 0.5), width, 1);
        check_masked_forward(
            "three blocks",
            Sequential{block<Scalar>(random, width, 0.9), block<Scalar>(random, width, 1.0),
                       block<Scalar>(random, width, 0.1)},
            width, 3);
    }
    std::vector<decltype(block<Scalar>(random, 5, 0.5))> blocks;
    for (int l = 0; l < 6; ++l) blocks.push_back(block<Scalar>(random, 5, 0.5));
    const Stack trunk{blocks};
    check_masked_forward("stack", trunk, 5, 6);
    check_masked_forward("stem, stack, head",
                         Sequential{linear<Scalar>(random, 9, 5), trunk, Tanh<Scalar>{},
                                    linear<Scalar>(random, 5, 3), Softmax<Scalar>{}},
                         9, 6);
    check_masked_forward(
        "no residual",
        Sequential{StochasticDepth{Tanh<Scalar>{}, p},
                   StochasticDepth{linear<Scalar>(random, 4, 4), p},
                   StochasticDepth{Softmax<Scalar>{}, p},
                   StochasticDepth{Sequential{linear<Scalar>(random, 4, 9), GELU<Scalar>{},
                                              linear<Scalar>(random, 9, 4)},
                                   p}},
        4, 4);
    check_masked_forward(
        "fixed widths",
        Sequential{StochasticDepth{
                       Residual{Sequential{linear<Scalar, 8, 8>(random, 8, 8), Tanh<Scalar>{}}}, p},
                   ReLU<Scalar>{}, StochasticDepth{linear<Scalar, 8, 8>(random, 8, 8), p},
                   linear<Scalar, 8, 2>(random, 8, 2)},
        8, 2);
}

TEST_CASE("masked forward: a shortcut of its own, also one that changes the width",
          "[stochastic_depth]") {
    Philox random{2};
    const SurvivalProbability p{0.5};
    const auto change = [&](Index inputs, Index outputs) {
        return StochasticDepth{
            Residual{Sequential{linear<double>(random, inputs, outputs), ReLU<double>{}},
                     linear<double>(random, inputs, outputs)},
            p};
    };
    check_masked_forward("widening", change(3, 20), 3, 1);
    check_masked_forward("narrowing", change(20, 3), 20, 1);
    check_masked_forward("back and forth",
                         Sequential{change(3, 9), block<double>(random, 9, 0.5), change(9, 2),
                                    change(2, 30), ReLU<double>{}, change(30, 1)},
                         3, 5);
    check_masked_forward(
        "a shortcut with an activation",
        StochasticDepth{Residual{linear<double>(random, 4, 4),
                                 Sequential{linear<double>(random, 4, 4), Tanh<double>{}}},
                        p},
        4, 1);
}

TEST_CASE("masked forward: skippable layers inside skippable layers, branches and shortcuts",
          "[stochastic_depth]") {
    Philox random{3};
    const SurvivalProbability p{0.5};
    const auto inner = [&] { return block<double>(random, 5, 0.5); };
    const Sequential both{inner(), inner()};
    check_masked_forward("in a skippable branch", StochasticDepth{Residual{both}, p}, 5, 3);
    check_masked_forward("in a skippable layer", StochasticDepth{both, p}, 5, 3);
    check_masked_forward("twice skippable", StochasticDepth{StochasticDepth{inner(), p}, p}, 5, 3);
    check_masked_forward(
        "three levels",
        Sequential{
            StochasticDepth{Residual{Sequential{inner(), StochasticDepth{Residual{both}, p}}}, p},
            inner()},
        5, 6);
    check_masked_forward("in a branch that is always there", Residual{both}, 5, 2);
    check_masked_forward(
        "in branch and shortcut",
        Residual{Sequential{inner(), linear<double>(random, 5, 7)},
                 Sequential{linear<double>(random, 5, 7), block<double>(random, 7, 0.5)}},
        5, 2);
    check_masked_forward("in a shortcut only", Residual{linear<double>(random, 5, 5), both}, 5, 2);
    check_masked_forward(
        "own shortcut around skippable layers",
        Sequential{StochasticDepth{Residual{Sequential{both, linear<double>(random, 5, 8)},
                                            linear<double>(random, 5, 8)},
                                   p},
                   block<double>(random, 8, 0.5)},
        5, 4);
    check_masked_forward(
        "stack of nested layers",
        Stack{std::vector{StochasticDepth{Residual{both}, p}, StochasticDepth{Residual{both}, p}}},
        5, 6);
}

TEST_CASE("masked forward: order of depth is the layer, then those inside, then those after",
          "[stochastic_depth]") {
    Philox random{4};
    const auto inner = [&](double p) { return block<double>(random, 3, p); };
    const Sequential network{
        inner(0.1),
        StochasticDepth{Residual{Sequential{inner(0.3), inner(0.4)}}, SurvivalProbability{0.2}},
        Residual{Sequential{inner(0.5), Tanh<double>{}}, Sequential{inner(0.6)}},
        Stack{std::vector{inner(0.7), inner(0.8)}}, linear<double>(random, 3, 2)};
    Eigen::VectorXd expected(8);
    expected << 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8;
    CHECK(network.depth() == 8);
    CHECK(network.survival_probabilities() == expected);
    CHECK(std::get<1>(network.layers()).depth() == 3);
    CHECK(std::get<1>(network.layers()).survival_probability() == SurvivalProbability{0.2});
}

/// Doubles its input, counts calls and columns, and remembers nothing else.
struct Counting {
    using Scalar = double;
    long* calls;
    long* columns;
    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        ++*calls;
        *columns += x.cols();
        y = 2.0 * x;
    }
};

TEST_CASE("masked forward: a branch runs for its survivors and for nobody else",
          "[stochastic_depth]") {
    Philox random{5};
    const SurvivalProbability p{0.5};
    const Matrix<double> x = random_matrix<double>(random, 3, 70);
    long calls[3] = {}, columns[3] = {};
    const auto counting = [&](int n) { return Counting{&calls[n], &columns[n]}; };
    const auto check = [&](const auto& network, const auto& expected_columns) {
        for (int repeat = 0; repeat < 20; ++repeat) {
            const Index batch = repeat == 0 ? 0 : 70;
            SurvivalMasks masks = random_masks(3, batch);
            if (repeat == 1) masks = SurvivalMasks::all(3, batch);
            if (repeat == 2) masks = SurvivalMasks::none(3, batch);
            if (repeat == 3 && batch > 0)
                for (Index j = 1; j < batch; ++j) masks.set_mask(j, SurvivalMask::none(3));
            long expected[3] = {};
            for (Index j = 0; j < batch; ++j)
                for (int n = 0; n < 3; ++n)
                    expected[n] += expected_columns(masks.mask(j), n) ? 1 : 0;
            std::fill(calls, calls + 3, 0);
            std::fill(columns, columns + 3, 0);
            (void)network(x.leftCols(batch), masks);
            for (int n = 0; n < 3; ++n) {
                CAPTURE(repeat, n);
                CHECK(columns[n] == expected[n]);
                CHECK((calls[n] == 0 || calls[n] == 1));
                if (expected[n] == 0 && batch > 0) CHECK(calls[n] == 0);
            }
        }
        for (std::uint64_t bits = 0; bits < 8; ++bits) {
            const SurvivalMask mask = mask_of(3, bits);
            std::fill(calls, calls + 3, 0);
            std::fill(columns, columns + 3, 0);
            (void)network(x, mask);
            for (int n = 0; n < 3; ++n) {
                CAPTURE(to_string(mask), n);
                CHECK(calls[n] == (expected_columns(mask, n) ? 1 : 0));
                CHECK(columns[n] == (expected_columns(mask, n) ? 70 : 0));
            }
        }
    };
    const auto flat = [](const SurvivalMask& mask, int n) { return mask[n]; };
    check(Sequential{StochasticDepth{counting(0), p}, StochasticDepth{Residual{counting(1)}, p},
                     StochasticDepth{Sequential{counting(2), ReLU<double>{}}, p}},
          flat);
    // The inner layers run only where the outer one does.
    const auto nested = [](const SurvivalMask& mask, int n) {
        return mask[0] && (n == 0 || mask[n]);
    };
    check(StochasticDepth{Residual{Sequential{counting(0), StochasticDepth{counting(1), p},
                                              StochasticDepth{Residual{counting(2)}, p}}},
                          p},
          nested);
    const auto chain = [](const SurvivalMask& mask, int n) {
        for (int l = 0; l <= n; ++l)
            if (!mask[l]) return false;
        return true;
    };
    check(
        StochasticDepth{
            Sequential{counting(0),
                       StochasticDepth{
                           Residual{Sequential{counting(1), StochasticDepth{counting(2), p}}}, p}},
            p},
        chain);
    // Inside the branch and the shortcut of a residual layer that is always there.
    check(Residual{Sequential{StochasticDepth{counting(0), p}, StochasticDepth{counting(1), p}},
                   StochasticDepth{counting(2), p}},
          flat);
}

TEST_CASE(
    "masked forward: a shortcut of its own runs for those who skip, not for those who don't need it",
    "[stochastic_depth]") {
    long calls[2] = {}, columns[2] = {};
    const StochasticDepth layer{
        Residual{Counting{&calls[0], &columns[0]}, Counting{&calls[1], &columns[1]}},
        SurvivalProbability{0.5}};
    const Matrix<double> x = Matrix<double>::Ones(2, 70);
    SurvivalMasks masks{1, 70};
    for (Index j = 0; j < 70; j += 3) masks.keep(0, j);
    const Matrix<double> y = layer(x, masks);
    for (Index j = 0; j < 70; ++j) CHECK(y(0, j) == (j % 3 == 0 ? 4.0 : 2.0));
    CHECK(columns[0] == 24);
    CHECK(columns[1] == 70);
}

TEMPLATE_TEST_CASE("masked forward: what a skipped branch would give leaks nowhere",
                   "[stochastic_depth]", float, double) {
    using Scalar = TestType;
    Philox random{6};
    const SurvivalProbability p{0.5};
    const Index width = 21;
    for (const Scalar bad :
         {std::numeric_limits<Scalar>::quiet_NaN(), std::numeric_limits<Scalar>::infinity()}) {
        const Linear<Scalar> poison{Matrix<Scalar>::Constant(width, width, bad),
                                    Vector<Scalar>::Constant(width, bad)};
        const Sequential network{
            StochasticDepth{Residual{Sequential{poison, Tanh<Scalar>{}, poison}}, p},
            block<Scalar>(random, width, 0.5), StochasticDepth{poison, p}};
        const Sequential alone{std::get<1>(network.layers())};
        const Matrix<Scalar> x = random_matrix<Scalar>(random, width, 70);
        const SurvivalMasks masks = random_masks(3, 70);
        const Matrix<Scalar> y = network(x, masks);
        Index clean = 0;
        for (Index j = 0; j < 70; ++j) {
            CAPTURE(j, to_string(masks.mask(j)));
            if (masks(0, j) || masks(2, j)) {
                CHECK_FALSE(y.col(j).allFinite());
            } else {
                CHECK(same_bits(y.col(j), alone(x.col(j), SurvivalMask{masks(1, j) ? 1 : 0})));
                ++clean;
            }
        }
        CHECK(clean > 5);
        CHECK(network(x, SurvivalMask{0, 1, 0}).allFinite());
    }
}

TEMPLATE_TEST_CASE("masked forward: all skipped is the input, bit for bit", "[stochastic_depth]",
                   float, double) {
    using Scalar = TestType;
    Philox random{7};
    Matrix<Scalar> x = random_matrix<Scalar>(random, 6, 9);
    x(0, 0) = Scalar(-0.0);
    x(1, 1) = std::numeric_limits<Scalar>::quiet_NaN();
    x(2, 2) = -std::numeric_limits<Scalar>::infinity();
    x(3, 3) = std::numeric_limits<Scalar>::denorm_min();
    const auto inner = block<Scalar>(random, 6, 0.5);
    const Sequential network{
        inner, StochasticDepth{Residual{Sequential{inner, inner}}, SurvivalProbability{0.5}},
        Stack{std::vector{inner, inner}}};
    CHECK(same_bits(network(x, SurvivalMask::none(6)), x));
    CHECK(same_bits(network(x, SurvivalMasks::none(6, 9)), x));
}

TEST_CASE("masked forward: no skippable layers at all", "[stochastic_depth]") {
    Philox random{8};
    check_masked_forward("plain", Sequential{linear<double>(random, 4, 9), Tanh<double>{}}, 4, 0);
    check_masked_forward("empty stack", Stack{std::vector<StochasticDepth<Linear<double>>>{}}, 4,
                         0);
    check_masked_forward("residual", Residual{linear<double>(random, 4, 4)}, 4, 0);
    const Stack<StochasticDepth<Linear<double>>> empty{{}};
    const Matrix<double> x = random_matrix<double>(random, 4, 3);
    CHECK(same_bits(empty(x, SurvivalMask{}), x));
    CHECK(same_bits(empty(x, SurvivalMasks{0, 3}), x));
    check_masked_forward(
        "around an empty stack",
        Sequential{linear<double>(random, 5, 4), empty, block<double>(random, 4, 0.5)}, 5, 1);
}

TEST_CASE("masked forward: a layer with p = 1 follows the mask like any other",
          "[stochastic_depth]") {
    Philox random{9};
    const Sequential network{block<double>(random, 4, 1.0)};
    const Matrix<double> x = random_matrix<double>(random, 4, 3);
    CHECK(same_bits(network(x, SurvivalMask{0}), x));
    CHECK(same_bits(network(x, SurvivalMask{1}), run(network, x)));
    CHECK_FALSE(same_bits(network(x, SurvivalMask{1}), x));
}

TEST_CASE("masked forward: without a mask every layer runs", "[stochastic_depth]") {
    Philox random{12};
    const Sequential network{linear<double>(random, 4, 5), block<double>(random, 5, 0.5),
                             block<double>(random, 5, 0.2), linear<double>(random, 5, 3)};
    for (const Index columns : {Index{0}, Index{1}, Index{7}}) {
        const Matrix<double> x = random_matrix<double>(random, 4, columns);
        CHECK(same_bits(network(x), network(x, SurvivalMask::all(2))));
    }
    const Matrix<double> x = random_matrix<double>(random, 4, 3);
    CHECK_FALSE(same_bits(network(x), network(x, SurvivalMask{1, 0})));
    CHECK(refusal([&] { (void)network(Matrix<double>::Ones(7, 3)); }) ==
          "Linear: input must have 4 rows, got 7");
}

TEST_CASE("masked forward: masks and matrices that don't fit are refused, the output untouched",
          "[stochastic_depth]") {
    Philox random{10};
    const Sequential network{linear<double>(random, 4, 5), block<double>(random, 5, 0.5),
                             block<double>(random, 5, 0.5), linear<double>(random, 5, 3)};
    const auto refused = [&](Index rows, Index columns, const auto& mask, Index y_rows,
                             Index y_columns) {
        const Matrix<double> x = Matrix<double>::Ones(rows, columns);
        Matrix<double> y = Matrix<double>::Constant(y_rows, y_columns, 77);
        const std::string message = refusal([&] { masked_forward(network, x, mask, y); });
        if (message != "accepted") CHECK((y.array() == 77).all());
        return message;
    };
    const SurvivalMask one{1, 0};
    CHECK(refused(4, 6, one, 3, 6) == "accepted");
    CHECK(refused(4, 6, SurvivalMasks{2, 6}, 3, 6) == "accepted");
    const struct {
        std::string got, expected;
    } cases[] = {
        {refused(4, 6, SurvivalMask{1}, 3, 6), "masked_forward: mask must have 2 layers, got 1"},
        {refused(4, 6, SurvivalMask{1, 0, 1}, 3, 6),
         "masked_forward: mask must have 2 layers, got 3"},
        {refused(4, 6, SurvivalMask{}, 3, 6), "masked_forward: mask must have 2 layers, got 0"},
        {refused(4, 6, SurvivalMasks{3, 6}, 3, 6),
         "masked_forward: masks must have 2 layers, got 3"},
        {refused(4, 6, SurvivalMasks{6, 2}, 3, 6),
         "masked_forward: masks must have 2 layers, got 6"},
        {refused(4, 6, SurvivalMasks{2, 5}, 3, 6),
         "masked_forward: masks must be for 6 samples, got 5"},
        {refused(4, 6, SurvivalMasks{2, 0}, 3, 6),
         "masked_forward: masks must be for 6 samples, got 0"},
        {refused(4, 0, SurvivalMasks{2, 1}, 3, 0),
         "masked_forward: masks must be for 0 samples, got 1"},
        {refused(7, 6, one, 3, 6), "Linear: input must have 4 rows, got 7"},
        {refused(7, 6, SurvivalMasks{2, 6}, 3, 6), "Linear: input must have 4 rows, got 7"},
        {refused(4, 6, one, 4, 6), "masked_forward: output must have 3 rows, got 4"},
        {refused(4, 6, one, 3, 7), "masked_forward: output must have 6 columns, got 7"},
        {refused(4, 6, SurvivalMasks{2, 6}, 2, 6),
         "masked_forward: output must have 3 rows, got 2"},
        {refused(4, 6, SurvivalMasks{2, 6}, 3, 0),
         "masked_forward: output must have 6 columns, got 0"},
    };
    for (const auto& bad : cases) CHECK(bad.got == bad.expected);
    const Matrix<double> x = Matrix<double>::Ones(4, 6);
    CHECK(refusal([&] { (void)network(x, SurvivalMask::all(9)); }) ==
          "masked_forward: mask must have 2 layers, got 9");
    CHECK(refusal([&] { (void)network(x, SurvivalMasks::all(2, 255)); }) ==
          "masked_forward: masks must be for 6 samples, got 255");
}

TEST_CASE("StochasticDepth: a layer without a shortcut must keep the width", "[stochastic_depth]") {
    Philox random{11};
    const SurvivalProbability p{0.5};
    const StochasticDepth narrowing{Linear<double>{5, 3, random}, p};
    const std::string expected =
        "StochasticDepth: layer must have 5 outputs as its shortcut has, got 3";
    CHECK(refusal([&] { (void)narrowing.output_size(5); }) == expected);
    CHECK(refusal([&] { (void)narrowing(Matrix<double>::Ones(5, 2), SurvivalMask{1}); }) ==
          expected);
    CHECK(refusal([&] { (void)narrowing(Matrix<double>::Ones(5, 2), SurvivalMask{0}); }) ==
          expected);
    const Sequential network{Linear<double>{4, 5, random}, Stack{std::vector{narrowing}}};
    CHECK(refusal([&] { (void)network(Matrix<double>::Ones(4, 2), SurvivalMask{0}); }) == expected);
}

// ---- Forward with a record, and backward through the survivors alone. ----

/// Makes a gradient's visit go everywhere.
template <class Gradient>
void mark_reached(Gradient& gradient) {
    if constexpr (requires { gradient.reached; }) {
        gradient.reached = true;
        mark_reached(gradient.layer);
    } else if constexpr (requires { gradient.branch; }) {
        mark_reached(gradient.branch);
        mark_reached(gradient.shortcut);
    } else if constexpr (requires { gradient.layers.begin(); }) {
        for (auto& layer : gradient.layers) mark_reached(layer);
    } else if constexpr (requires { gradient.layers; }) {
        std::apply([](auto&... layer) { (mark_reached(layer), ...); }, gradient.layers);
    }
}

/// One recorded pass and its gradient.
template <class Network>
struct MaskedGradient {
    explicit MaskedGradient(const Network& network) : gradient(network.zero_gradient()) {}

    /// Adds the gradient of sum(NN(x, S)).
    void run(const Network& network, Matrix<double> h, const SurvivalMasks& masks) {
        pass.forward(network, h, detail::MaskView{masks});
        h.setOnes();
        pass.backward(network, h, gradient);
    }

    test::RecordedPass<Network> pass;
    typename Network::Gradient gradient;
};

/// d sum(weight * NN(x, S)) by all parameters and by x, against central differences of the masked
/// pass.
template <class Network, class Mask, class View>
void check_masked_gradient(const Network& network, Matrix<double> x, const Mask& mask,
                           const View& view) {
    Philox random{51};
    const Matrix<double> weight =
        random_matrix<double>(random, network.output_size(x.rows()), x.cols());
    test::RecordedPass<Network> pass;
    typename Network::Gradient gradient = network.zero_gradient();
    // The cache has seen another batch before, under other masks.
    Matrix<double> warm = x.leftCols(x.cols() / 2);
    pass.forward(network, warm, detail::EveryLayer{});

    Matrix<double> h = x;
    pass.forward(network, h, view);
    CHECK(same_bits(h, network(x, mask)));
    Matrix<double> d = weight;
    pass.backward(network, d, gradient);
    REQUIRE(d.rows() == x.rows());
    REQUIRE(d.cols() == x.cols());
    CHECK(relative_error(d, differences(x, weight, 5e-4, [&] { return network(x, mask); })) <=
          1e-8);

    Network copy = network;
    typename Network::Gradient numeric = network.zero_gradient();
    const auto differentiate = [&](const char*, auto& parameter, auto& slope) {
        slope = differences(parameter, weight, 5e-4, [&] { return copy(x, mask); });
    };
    // Every parameter is differentiated, those that backward did not reach too: their differences
    // are 0.
    mark_reached(numeric);
    detail::visit_parameters(copy, differentiate, numeric);
    mark_reached(gradient);
    const Matrix<double> expected = flattened(network, numeric);
    const Matrix<double> actual = flattened(network, gradient);
    REQUIRE(expected.size() == actual.size());
    CHECK(expected.size() > 0);
    CHECK(relative_error(actual, expected) <= 1e-8);
    for (Index k = 0; k < expected.size(); ++k)
        if (expected(k) == 0) CHECK(actual(k) == 0);
}

template <class Network>
void check_masked_gradients(const std::string& name, const Network& network, Index inputs,
                            Index depth) {
    INFO(name);
    REQUIRE(network.depth() == depth);
    Philox random{52};
    const Matrix<double> x = random_matrix<double>(random, inputs, 6);
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << depth; ++bits) {
        const SurvivalMask mask = mask_of(depth, bits);
        INFO(to_string(mask));
        check_masked_gradient(network, x, mask, detail::MaskView{mask});
    }
    for (std::uint32_t seed = 0; seed < 3; ++seed) {
        SurvivalMasks masks{depth, 6};
        std::mt19937_64 bits{seed};
        for (Index l = 0; l < depth; ++l) masks.set_word(l, 0, bits());
        check_masked_gradient(network, x, masks, detail::MaskView{masks});
    }
}

auto smooth_block(Philox& random, Index width) {
    return StochasticDepth{
        Residual{Sequential{linear<double>(random, width, width), Tanh<double>{}}},
        SurvivalProbability{0.5}};
}

TEST_CASE("backward under masks: equal to finite differences of the masked pass",
          "[stochastic_depth]") {
    Philox random{12};
    const SurvivalProbability p{0.5};
    const auto inner = [&] { return smooth_block(random, 3); };
    const auto change = [&](Index inputs, Index outputs) {
        return StochasticDepth{
            Residual{Sequential{linear<double>(random, inputs, outputs), Tanh<double>{}},
                     linear<double>(random, inputs, outputs)},
            p};
    };
    check_masked_gradients("one block", inner(), 3, 1);
    check_masked_gradients(
        "stem, stack, head",
        Sequential{linear<double>(random, 4, 3), Stack{std::vector{inner(), inner()}},
                   GELU<double>{}, linear<double>(random, 3, 2), Softmax<double>{}},
        4, 2);
    check_masked_gradients("no residual",
                           Sequential{StochasticDepth{linear<double>(random, 3, 3), p},
                                      StochasticDepth{Softmax<double>{}, p}},
                           3, 2);
    check_masked_gradients("own shortcuts",
                           Sequential{change(2, 5), smooth_block(random, 5), change(5, 1)}, 2, 3);
    check_masked_gradients(
        "nested",
        StochasticDepth{Residual{Sequential{inner(), linear<double>(random, 3, 3), inner()}}, p}, 3,
        3);
    check_masked_gradients(
        "nested with its own shortcut",
        StochasticDepth{Residual{Sequential{inner(), linear<double>(random, 3, 5)},
                                 linear<double>(random, 3, 5)},
                        p},
        3, 2);
    check_masked_gradients(
        "in branch and shortcut",
        Residual{Sequential{inner(), linear<double>(random, 3, 2)},
                 Sequential{linear<double>(random, 3, 2), smooth_block(random, 2)}},
        3, 2);
}

TEST_CASE("backward under masks: what no sample reached stays zero, and is not visited",
          "[stochastic_depth]") {
    Philox random{13};
    const SurvivalProbability p{0.5};
    const auto inner = [&] { return smooth_block(random, 3); };
    const Sequential network{
        linear<double>(random, 2, 3), inner(),
        StochasticDepth{Residual{Sequential{linear<double>(random, 3, 3), inner()}}, p},
        Stack{std::vector{inner(), inner()}}};
    // Parameters in order: stem 2, inner 2, nested 2 + 2, stack 2 + 2.
    const auto visited = [&](const SurvivalMasks& masks) {
        MaskedGradient pass(network);
        pass.run(network, random_matrix<double>(random, 2, masks.batch_size()), masks);
        std::vector<const void*> reached;
        auto copy = network;
        detail::visit_parameters(
            copy,
            [&](const char*, const auto& parameter, const auto&) { reached.push_back(&parameter); },
            pass.gradient);
        std::vector<const void*> all;
        detail::visit_parameters(
            copy, [&](const char*, const auto& parameter) { all.push_back(&parameter); });
        REQUIRE(all.size() == 12);
        std::string pattern;
        for (std::size_t n = 0, next = 0; n < all.size(); n += 2) {
            const bool here = next < reached.size() && reached[next] == all[n];
            if (here) {
                REQUIRE(reached[next + 1] == all[n + 1]);
                next += 2;
            }
            pattern += here ? '1' : '0';
        }
        // What was not visited holds zeros, and the rest does not.
        mark_reached(pass.gradient);
        std::string nonzero;
        detail::visit_parameters(
            copy,
            [&](const char* name, const auto&, const auto& slope) {
                if (std::string(name) == "weights")
                    nonzero += (slope.array() == 0).all() ? '0' : '1';
            },
            pass.gradient);
        CHECK(nonzero == pattern);
        return pattern;
    };
    // Masks: inner, nested, nested's inner, two of the stack. Pattern: stem, inner, nested, its
    // inner, stack.
    const auto for_all = [](const SurvivalMask& mask, std::size_t samples) {
        return SurvivalMasks::from_masks(std::vector<SurvivalMask>(samples, mask));
    };
    CHECK(visited(for_all({1, 1, 1, 1, 1}, 4)) == "111111");
    CHECK(visited(for_all({0, 0, 0, 0, 0}, 4)) == "100000");
    CHECK(visited(for_all({0, 0, 1, 0, 1}, 4)) == "100001");
    CHECK(visited(for_all({1, 1, 0, 1, 0}, 4)) == "111010");
    CHECK(
        visited(SurvivalMasks::from_masks({SurvivalMask{0, 1, 0, 0, 0}, SurvivalMask{0, 0, 1, 0, 0},
                                           SurvivalMask{1, 0, 1, 0, 0}})) == "111000");
    CHECK(visited(SurvivalMasks::from_masks(
              {SurvivalMask{0, 0, 0, 0, 1}, SurvivalMask{0, 1, 1, 0, 0}})) == "101101");
}

}  // namespace
