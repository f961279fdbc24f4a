// SPDX-License-Identifier: MIT
// What a network does not know: a curve is learned on [-1, 1], and asked for there and outside. The
// spread of the answers over all masks, exact, is the wider the further the question lies from what
// was seen.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>
#include <vector>
namespace sd = stochastic_depth;

int main() {
    sd::Philox random{2026};
    sd::Matrix<double> x(1, 1000), y(1, 1000);
    for (double& number : x.reshaped()) number = sd::uniform<double>(random, -1, 1);
    for (sd::Index j = 0; j < x.cols(); ++j) y(0, j) = std::sin(4 * x(0, j));

    using Branch = sd::Sequential<sd::Linear<double>, sd::ReLU<double>>;
    using Layer = sd::StochasticDepth<sd::Residual<Branch>>;
    std::vector<Layer> layers;
    for (const double p : sd::linear_decay(8, 0.7))
        layers.emplace_back(sd::Residual{Branch{sd::Linear<double>{16, 16, random, 0.5}, {}}},
                            sd::SurvivalProbability{p});
    sd::Sequential network{sd::Linear<double>{1, 16, random}, sd::Stack{layers},
                           sd::Linear<double>{16, 1, random}};
    sd::Trainer{{.batch_size = 50, .epochs = 60}}.fit(
        network, sd::Dataset{x, y}, sd::MeanSquaredError<double>{}, sd::Adam{network});

    const auto spread = [&](double from, double to) -> sd::Vector<double> {
        const sd::Matrix<double> questions = Eigen::RowVectorXd::LinSpaced(200, from, to);
        return sd::ExactExpectation{}(network, questions).variance.cwiseSqrt().transpose();
    };
    std::printf("standard deviation of the answer over the masks, mean over an interval:\n");
    for (const double from : {-1.0, 0.0, 1.0, 2.0, 3.0})
        std::printf("    [%2.0f, %2.0f]  %.3f\n", from, from + 1, spread(from, from + 1).mean());

    sd::Vector<double> scores(400);
    scores << spread(-1, 1), spread(2, 4);
    Eigen::VectorXi is_outside(400);
    is_outside << Eigen::VectorXi::Zero(200), Eigen::VectorXi::Ones(200);
    const double area = sd::area_under_roc(scores, is_outside);
    std::printf("AUROC of [2, 4] against [-1, 1]: %.3f\n", area);
    return area > 0.9 ? 0 : 1;
}
