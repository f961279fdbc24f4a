// SPDX-License-Identifier: MIT
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstdio>
#ifdef CONSUMER_HAS_GZIP
#include <stochastic_depth/io/gzip.hpp>
#endif

namespace sd = stochastic_depth;

int main() {
    const auto layer = [](double slope, double p) {
        return sd::StochasticDepth{
            sd::Residual{sd::Linear<double>{Eigen::MatrixXd::Constant(1, 1, slope),
                                            Eigen::VectorXd::Zero(1)}},
            sd::SurvivalProbability{p}};
    };
    const sd::Sequential network{layer(1.0, 0.8), layer(2.0, 0.7), layer(3.0, 0.6)};
    const auto exact = sd::ExactExpectation{{.threads = 2}}(network, Eigen::MatrixXd::Ones(1, 1));
    std::printf("version %d.%d.%d, exact mean %.3f\n", STOCHASTIC_DEPTH_VERSION_MAJOR,
                STOCHASTIC_DEPTH_VERSION_MINOR, STOCHASTIC_DEPTH_VERSION_PATCH, exact.mean(0, 0));
#ifdef CONSUMER_HAS_GZIP
    std::printf("%zu bytes read through zlib\n", sd::read_gzip(CONSUMER_HAS_GZIP).size());
#endif
    return std::abs(exact.mean(0, 0) - 12.096) < 1e-12 ? 0 : 1;
}
