// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_gradient.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/plain_network.hpp"
#include "support/recorded_pass.hpp"
#include "support/thrown.hpp"

namespace sd = stochastic_depth;
using sd::Index;
using sd::test::random_matrix;
using sd::test::same_bits;

namespace {

using Numbers = std::vector<long double>;

/// A gradient entry, and the sum of the sizes of its terms: rounding is relative to that.
struct Slope {
    long double value = 0, size = 0;
    void add(long double term) {
        value += term;
        size += std::abs(term);
    }
};

/// Gradients by an affine map's weights (row by row, as plain::Affine has them) and bias.
struct AffineSlopes {
    std::vector<Slope> weights, bias;
    explicit AffineSlopes(const plain::Affine& affine)
        : weights(affine.weights.size()), bias(affine.outputs) {}
};

Numbers backward(const plain::Affine& affine, const Numbers& x, const Numbers& dy,
                 AffineSlopes& slopes) {
    Numbers dx(affine.inputs, 0.0L);
    for (std::size_t i = 0; i < affine.outputs; ++i) {
        slopes.bias[i].add(dy[i]);
        for (std::size_t k = 0; k < affine.inputs; ++k) {
            slopes.weights[i * affine.inputs + k].add(dy[i] * x[k]);
            dx[k] += static_cast<long double>(affine.weights[i * affine.inputs + k]) * dy[i];
        }
    }
    return dx;
}

struct PlainSlopes {
    AffineSlopes stem, head;
    std::vector<AffineSlopes> blocks;
    std::vector<Slope> x;
};

/// The gradient of sum_i dy_i f_SD(x)_i, mask by mask, for a network of tanh blocks with ends.
PlainSlopes brute_force(const plain::Network& network, const std::vector<Numbers>& columns,
                        const std::vector<Numbers>& dy) {
    PlainSlopes slopes{AffineSlopes(*network.stem), AffineSlopes(*network.head), {}, {}};
    for (const plain::Block& block : network.blocks) slopes.blocks.emplace_back(block.first);
    for (std::size_t j = 0; j < columns.size(); ++j) {
        std::vector<Slope> by_x(columns[j].size());
        for (std::uint64_t mask = 0; mask < std::uint64_t{1} << network.blocks.size(); ++mask) {
            std::vector<Numbers> h{(*network.stem)(columns[j])}, active;
            for (std::size_t l = 0; l < network.blocks.size(); ++l) {
                Numbers z = network.blocks[l].first(h.back());
                for (long double& value : z) value = std::tanh(value);
                active.push_back(z);
                Numbers y = h.back();
                if ((mask >> l & 1u) != 0)
                    for (std::size_t i = 0; i < y.size(); ++i) y[i] += z[i];
                h.push_back(y);
            }
            Numbers d = dy[j];
            for (long double& value : d) value *= network.probability(mask);
            d = backward(*network.head, h.back(), d, slopes.head);
            for (std::size_t l = network.blocks.size(); l-- > 0;) {
                if ((mask >> l & 1u) == 0) continue;
                Numbers dz = d;
                for (std::size_t i = 0; i < dz.size(); ++i)
                    dz[i] *= 1 - active[l][i] * active[l][i];
                const Numbers dx = backward(network.blocks[l].first, h[l], dz, slopes.blocks[l]);
                for (std::size_t i = 0; i < d.size(); ++i) d[i] += dx[i];
            }
            d = backward(*network.stem, columns[j], d, slopes.stem);
            for (std::size_t i = 0; i < d.size(); ++i) by_x[i].add(d[i]);
        }
        slopes.x.insert(slopes.x.end(), by_x.begin(), by_x.end());
    }
    return slopes;
}

void check_close(double value, const Slope& expected) {
    REQUIRE(std::abs(static_cast<long double>(value) - expected.value) <= 1e-12L * expected.size);
}

template <class LinearGradient>
void check_close(const LinearGradient& gradient, const AffineSlopes& expected) {
    const Index inputs = gradient.weights.cols();
    for (Index i = 0; i < gradient.weights.rows(); ++i) {
        check_close(gradient.bias(i), expected.bias[static_cast<std::size_t>(i)]);
        for (Index k = 0; k < inputs; ++k)
            check_close(gradient.weights(i, k),
                        expected.weights[static_cast<std::size_t>(i * inputs + k)]);
    }
}

using Branch = plain::OneLinear<double, sd::Tanh<double>>;
using Block = sd::StochasticDepth<sd::Residual<Branch>>;

Block block(sd::Philox& random, Index width, double p) {
    return {sd::Residual{Branch{sd::Linear<double>{width, width, random}, {}}},
            sd::SurvivalProbability{p}};
}

/// Skippable layers in every place: nested, with a shortcut of their own, in a residual layer's
/// branch, in its shortcut.
auto every_structure(sd::Philox& random) {
    const sd::Sequential inner{sd::Linear<double>{3, 3, random}, block(random, 3, 0.3)};
    const sd::StochasticDepth nested{sd::Residual{inner}, sd::SurvivalProbability{0.6}};
    const sd::Residual both{block(random, 3, 0.7), block(random, 3, 0.8)};
    const sd::StochasticDepth narrowing{
        sd::Residual{sd::Sequential{sd::Linear<double>{3, 2, random}, sd::Tanh<double>{}},
                     sd::Linear<double>{3, 2, random}},
        sd::SurvivalProbability{0.45}};
    return sd::Sequential{nested, both,
                          sd::Stack{std::vector{block(random, 3, 1.0), block(random, 3, 0.5)}},
                          narrowing};
}

}  // namespace

TEST_CASE("ExactGradient: 210 random networks against backward passes in long double, mask by mask",
          "[exact_gradient]") {
    sd::Philox random{40};
    for (int trial = 0; trial < 210; ++trial) {
        INFO("trial " << trial);
        const plain::Network plain_network =
            plain::random_network(random, {.depth = static_cast<std::size_t>(1 + trial % 7),
                                           .width = static_cast<std::size_t>(1 + trial % 4),
                                           .linears = 1,
                                           .activation = plain::Activation::tanh,
                                           .ends = true});
        const auto network = plain::to_library<Branch>(plain_network);
        const auto x = random_matrix<double>(random, 3, 2),
                   dy = random_matrix<double>(random, 2, 2);
        auto gradient = network.zero_gradient();
        sd::Matrix<double> dx(3, 2);
        sd::ExactGradient{}.of_mean(network, x, dy, gradient, dx);
        const PlainSlopes expected =
            brute_force(plain_network, {plain::column(x, 0), plain::column(x, 1)},
                        {plain::column(dy, 0), plain::column(dy, 1)});
        const auto& [stem, blocks, head] = gradient.layers;
        check_close(stem, expected.stem);
        check_close(head, expected.head);
        for (std::size_t l = 0; l < expected.blocks.size(); ++l) {
            REQUIRE(blocks.layers[l].reached);
            check_close(std::get<0>(blocks.layers[l].layer.branch.layers), expected.blocks[l]);
        }
        for (Index k = 0; k < dx.size(); ++k)
            check_close(dx.data()[k], expected.x[static_cast<std::size_t>(k)]);
    }
}

TEST_CASE(
    "ExactGradient: the gradient of the expected loss is the mean over all masks of a masked pass's",
    "[exact_gradient]") {
    sd::Philox random{41};
    auto network = every_structure(random);
    using Network = decltype(network);
    const auto x = random_matrix<double>(random, 3, 5), t = random_matrix<double>(random, 2, 5);
    const sd::MeanSquaredError<double> loss;
    sd::test::RecordedPass<Network> pass;
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(sd::test::parameters(network).size());
    double expected = 0;
    for (const auto& row : sd::enumerate_masks(network, x)) {
        auto gradient = network.zero_gradient();
        sd::Matrix<double> h = x, d(2, 5);
        pass.forward(network, h, sd::detail::MaskView{row.mask});
        expected += row.probability * loss.value_and_gradient(h, t, d);
        pass.backward(network, d, gradient);
        mean += row.probability * sd::test::slopes(network, gradient);
    }
    auto gradient = network.zero_gradient();
    const double value = sd::ExactGradient{}.of_expected_loss(network, x, t, loss, gradient);
    CHECK(std::abs(value - expected) <= 1e-14);
    CHECK((sd::test::slopes(network, gradient) - mean).cwiseAbs().maxCoeff() <= 1e-14);
    CHECK(mean.cwiseAbs().minCoeff() > 0);
}

TEST_CASE("ExactGradient: the gradient of a loss of the mean is that of central differences",
          "[exact_gradient]") {
    sd::Philox random{42};
    auto network = every_structure(random);
    sd::Matrix<double> x = random_matrix<double>(random, 3, 3);
    const auto t = random_matrix<double>(random, 2, 3);
    const sd::MeanSquaredError<double> loss;
    const auto value = [&] { return loss.value(sd::ExactExpectation{}(network, x).mean, t); };
    sd::Matrix<double> slopes(2, 3), dx(3, 3);
    (void)loss.value_and_gradient(sd::ExactExpectation{}(network, x).mean, t, slopes);
    auto gradient = network.zero_gradient();
    sd::ExactGradient{}.of_mean(network, x, slopes, gradient, dx);
    const Eigen::VectorXd analytic = sd::test::slopes(network, gradient);
    // h = 1e-5: a few times h^2 = 1e-10 from the third derivative, 1e-11 from rounding.
    const auto difference = [&](double& number) {
        const double before = number;
        number = before + 1e-5;
        const double above = value();
        number = before - 1e-5;
        const double below = value();
        number = before;
        return (above - below) / 2e-5;
    };
    Index at = 0;
    sd::test::for_each_parameter(network, [&](double& parameter) {
        CHECK(std::abs(difference(parameter) - analytic(at)) <= 1e-8);
        ++at;
    });
    for (Index k = 0; k < x.size(); ++k)
        CHECK(std::abs(difference(x.data()[k]) - dx.data()[k]) <= 1e-8);
}

TEST_CASE(
    "ExactGradient: same bits for any number of threads; a batch of several blocks is their sum",
    "[exact_gradient]") {
    sd::Philox random{43};
    const sd::Sequential network{block(random, 3, 0.5), block(random, 3, 0.7),
                                 block(random, 3, 0.2)};
    const Index batch = 700;  // more than eight blocks of 64
    const auto x = random_matrix<double>(random, 3, batch),
               dy = random_matrix<double>(random, 3, batch);
    auto one = network.zero_gradient();
    sd::Matrix<double> dx(3, batch);
    sd::ExactGradient{}.of_mean(network, x, dy, one, dx);
    auto columns = network.zero_gradient();
    for (Index j = 0; j < batch; ++j) {
        sd::Matrix<double> dx_j(3, 1);
        sd::ExactGradient{}.of_mean(network, x.col(j), dy.col(j), columns, dx_j);
        REQUIRE((dx_j - dx.col(j)).cwiseAbs().maxCoeff() <= 1e-14);
    }
    auto copy = network;
    CHECK((sd::test::slopes(copy, one) - sd::test::slopes(copy, columns)).cwiseAbs().maxCoeff() <=
          1e-11);
    for (const unsigned threads : {2u, 3u, 8u}) {
        auto many = network.zero_gradient();
        sd::Matrix<double> dx_many(3, batch);
        sd::ExactGradient{{.threads = threads}}.of_mean(network, x, dy, many, dx_many);
        CHECK(same_bits(sd::test::slopes(copy, many), sd::test::slopes(copy, one)));
        CHECK(same_bits(dx_many, dx));
    }
}

TEST_CASE("ExactGradient: descending the expected loss learns, labels included",
          "[exact_gradient]") {
    sd::Philox random{44};
    auto network = sd::Sequential{block(random, 2, 0.8), block(random, 2, 0.5)};
    const auto x = random_matrix<double>(random, 2, 100);
    Eigen::VectorXi labels(100);
    for (Index j = 0; j < 100; ++j) labels(j) = x(0, j) * x(1, j) > 0 ? 1 : 0;
    const sd::SoftmaxCrossEntropy<double> loss;
    double first = 0, last = 0;
    for (int step = 0; step < 200; ++step) {
        auto gradient = network.zero_gradient();
        last = sd::ExactGradient{}.of_expected_loss(network, x, labels, loss, gradient);
        if (step == 0) first = last;
        sd::detail::visit_parameters(
            network,
            [](const char*, auto& parameter, const auto& slope) { parameter -= 0.5 * slope; },
            gradient);
    }
    INFO(first << " to " << last);
    CHECK(last < first - 0.1);
}

TEST_CASE("ExactGradient: edge cases", "[exact_gradient]") {
    sd::Philox random{45};
    const sd::Stack<Block> none{std::vector<Block>{}};
    const auto x = random_matrix<double>(random, 3, 2), dy = random_matrix<double>(random, 3, 2);
    auto no_gradient = none.zero_gradient();
    sd::Matrix<double> dx(3, 2), nothing(3, 0);
    sd::ExactGradient{}.of_mean(none, x, dy, no_gradient, dx);
    CHECK(dx == dy);
    const sd::Sequential network{block(random, 3, 0.5)};
    auto gradient = network.zero_gradient();
    sd::ExactGradient{}.of_mean(network, x.leftCols(0), dy.leftCols(0), gradient, nothing);
    CHECK_FALSE(std::get<0>(gradient.layers).reached);
    CHECK(sd::ExactGradient{}.of_expected_loss(network, x.leftCols(0), sd::Matrix<double>(3, 0),
                                               sd::MeanSquaredError<double>{}, gradient) == 0);
}

TEST_CASE("ExactGradient: bad input names what is wrong; progress can stop it",
          "[exact_gradient]") {
    sd::Philox random{46};
    const sd::Stack network{std::vector<Block>(21, block(random, 3, 0.5))};
    const auto x = random_matrix<double>(random, 3, 2);
    auto gradient = network.zero_gradient();
    sd::Matrix<double> dx(3, 2), wrong(2, 2);
    CHECK(holds(thrown<std::length_error>(
                    [&] { sd::ExactGradient{}.of_mean(network, x, x, gradient, dx); }),
                "ExactGradient: depth 21 takes 2097151 layer evaluations"));
    CHECK(holds(thrown<std::invalid_argument>(
                    [&] { sd::ExactGradient{}.of_mean(network, x, wrong, gradient, dx); }),
                "ExactGradient", "got"));
    CHECK(holds(thrown<std::invalid_argument>(
                    [&] { sd::ExactGradient{}.of_mean(network, x, x, gradient, wrong); }),
                "ExactGradient", "got"));
    CHECK(thrown<std::invalid_argument>([] { (void)sd::ExactGradient{{.threads = 0}}; }) ==
          "ExactGradient: threads must be at least 1, got 0");
    const sd::Stack shallow{std::vector<Block>(9, block(random, 3, 0.5))};
    auto shallow_gradient = shallow.zero_gradient();
    int calls = 0;
    const sd::ExactGradient stopping{{.progress = [&](double) { return ++calls < 3; }}};
    CHECK_THROWS_AS(stopping.of_mean(shallow, x, x, shallow_gradient, dx), sd::Cancelled);
}
