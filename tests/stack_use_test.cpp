// SPDX-License-Identifier: MIT
// The stack that a call takes does not grow with the depth of a Stack.
#include <pthread.h>

#include <cstddef>
#include <vector>

#include <stochastic_depth/expectation/certified_interval.hpp>
#include <stochastic_depth/expectation/expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

// A sanitizer's frames are larger.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t stack_bytes = std::size_t{1} << 20;
#else
constexpr std::size_t stack_bytes = std::size_t{1} << 16;
#endif

/// Runs task on a thread that has so little stack.
template <class Task>
void on_a_small_stack(const Task& task) {
    const auto start = [](void* pointer) -> void* {
        (*static_cast<const Task*>(pointer))();
        return nullptr;
    };
    pthread_attr_t attributes;
    pthread_t thread;
    REQUIRE(pthread_attr_init(&attributes) == 0);
    REQUIRE(pthread_attr_setstacksize(&attributes, stack_bytes) == 0);
    REQUIRE(pthread_create(&thread, &attributes, start, const_cast<Task*>(&task)) == 0);
    REQUIRE(pthread_join(thread, nullptr) == 0);
    REQUIRE(pthread_attr_destroy(&attributes) == 0);
}

using Block = StochasticDepth<Residual<Sequential<Linear<float>, ReLU<float>>>>;

/// Of `depth` blocks the first four are kept with probability p, the others with `other`.
Stack<Block> network_of(int depth, double p, double other) {
    Philox random{1};
    std::vector<Block> blocks;
    for (int l = 0; l < depth; ++l)
        blocks.emplace_back(Residual{Sequential{Linear<float>{4, 4, random, 0.001}, ReLU<float>{}}},
                            SurvivalProbability{l < 4 ? p : other});
    return Stack{blocks};
}

TEST_CASE("stack use: a thousand blocks and more in 64 KB, by every rule", "[stack_use]") {
    for (const int depth : {1000, 12'000}) {
        CAPTURE(depth);
        const Stack<Block> random = network_of(depth, 0.99, 0.99);
        const Stack<Block> sure = network_of(depth, 0.5, 1);
        const Matrix<float> x = Matrix<float>::Ones(4, 3);
        Matrix<float> full, sampled, exact, chosen, scaled;
        CertifiedBounds certified;
        on_a_small_stack([&] {
            full = random(x);
            scaled = WeightScaling{}(random, x).mean;
            sampled = MonteCarloExpectation{{.samples = 10}}(random, x).mean;
            exact = ExactExpectation{}(sure, x).mean;
            chosen = Expectation{}(random, x).mean;
            certified = CertifiedInterval{{.lowest = -1e4,
                                           .highest = 1e4,
                                           .uncovered = 0.5,
                                           .max_layer_evaluations = 1u << 20}}(sure, x);
        });
        CHECK((exact.cast<double>().array() <= certified.upper.array()).all());
        CHECK((exact.cast<double>().array() >= certified.lower.array()).all());
        CHECK((sampled.array() <= full.array()).all());
        CHECK((sampled.array() >= x.array()).all());
        CHECK((chosen.array() <= full.array()).all());
        CHECK((chosen.array() >= x.array()).all());
        CHECK(scaled.allFinite());
    }
}

}  // namespace
