// EXPECT: Trainer::fit trains the network in place: it must not be const
// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/trainer.hpp>

namespace sd = stochastic_depth;

void run(const sd::Sequential<sd::Linear<double>>& network,
         const sd::Dataset<double, sd::Matrix<double>>& data) {
    (void)sd::Trainer{}.fit(network, data, sd::MeanSquaredError<double>{});
}
