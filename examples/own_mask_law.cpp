// SPDX-License-Identifier: MIT
// A law of masks of your own: a layer is skipped with probability 1/2, but never two in a row. It
// is given as P(s_l = 1 | the bits before), through a state that says what of these bits matters.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>
#include <vector>
namespace sd = stochastic_depth;

struct NeverTwoInARow {
    sd::Index layers;
    sd::Index depth() const { return layers; }
    bool start() const { return true; }  // the state: whether the layer before was kept
    double survival_probability(sd::Index, bool kept_before) const { return kept_before ? 0.5 : 1; }
    bool next(sd::Index, bool, bool kept) const { return kept; }
};
static_assert(sd::MaskLaw<NeverTwoInARow>);

int main() {
    sd::Philox random{1};
    using Branch = sd::Sequential<sd::Linear<double>, sd::Tanh<double>>;
    std::vector<sd::StochasticDepth<sd::Residual<Branch>>> blocks;
    for (int l = 0; l < 10; ++l)
        blocks.emplace_back(sd::Residual{Branch{sd::Linear<double>{4, 4, random, 1.0}, {}}},
                            sd::SurvivalProbability{0.5});
    sd::Stack network{blocks};
    const NeverTwoInARow law{network.depth()};
    const sd::Matrix<double> x = sd::Matrix<double>::Constant(4, 1, 0.5);  // [features x batch]

    const auto exact = sd::ExactExpectation{}(network, x, law);
    const auto sampled = sd::MonteCarloExpectation{{.samples = 1000}}(network, x, law);
    double listed = 0;
    const auto masks = sd::enumerate_masks(network, x, law);
    for (const auto& row : masks) listed += row.probability * row.output(0, 0);
    std::printf("%zu of 1024 masks, %g of 1023 layer evaluations\n", masks.size(),
                exact.layer_evaluations);
    std::printf("exact   %.12f, standard deviation %.6f\nlisted  %.12f\nsampled %.4f +- %.4f\n",
                exact.mean(0, 0), std::sqrt(exact.variance(0, 0)), listed, sampled.mean(0, 0),
                sampled.standard_error(0, 0));

    // Training under the law: masks are a function of law, seed and step.
    const sd::Dataset<double, sd::Matrix<double>> data{sd::Matrix<double>::Random(4, 256),
                                                       sd::Matrix<double>::Zero(4, 256)};
    const auto history = sd::Trainer{{.epochs = 5, .seed = 1, .law = law}}.fit(
        network, data, sd::MeanSquaredError<double>{});
    std::printf("loss %.4f -> %.4f\n", history.front().loss, history.back().loss);
    return std::abs(exact.mean(0, 0) - listed) < 1e-12 ? 0 : 1;
}
