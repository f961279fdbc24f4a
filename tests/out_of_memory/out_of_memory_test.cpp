// SPDX-License-Identifier: MIT

// Memory runs out at each allocation of a pass in turn. Whatever was under way is given up with
// std::bad_alloc, and the thread goes on: later passes give the bits of a thread that never ran
// short. A program of its own, since it replaces operator new, and has the linker put another
// malloc in the place of the one that Eigen calls (CMakeLists.txt). With the address sanitizer it
// sees uses of freed memory too.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

/// Of this thread's allocations, the one that fails: 1 the next one; 0 none.
thread_local long countdown = 0;

bool fails() { return countdown > 0 && --countdown == 0; }

}  // namespace

extern "C" {
// Names that the linker gives.
void* __real_malloc(std::size_t size);   // NOLINT(bugprone-reserved-identifier)
void* __wrap_malloc(std::size_t size) {  // NOLINT(bugprone-reserved-identifier)
    return fails() ? nullptr : __real_malloc(size);
}
}

namespace {

void* allocate(std::size_t size) {
    void* const memory = fails() ? nullptr : __real_malloc(size == 0 ? 1 : size);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void* allocate(std::size_t size, std::align_val_t alignment) {
    const auto unit = static_cast<std::size_t>(alignment);
    void* const memory = fails() ? nullptr : std::aligned_alloc(unit, (size / unit + 1) * unit);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void* allocate_or_null(std::size_t size) noexcept {
    try {
        return allocate(size);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
// Those of a sanitizer would be its own.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate_or_null(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate_or_null(size); }
void* operator new(std::size_t size, std::align_val_t unit) { return allocate(size, unit); }
void* operator new[](std::size_t size, std::align_val_t unit) { return allocate(size, unit); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using namespace stochastic_depth;
using test::same_bits;

using Branch = Sequential<Linear<float>, ReLU<float>>;
using Network = Sequential<Linear<float>, Stack<StochasticDepth<Residual<Branch>>>, Linear<float>>;

/// 8 inputs, 3 layers of width 64, 4 outputs.
[[nodiscard]] Network network() {
    Philox random{1};
    std::vector<StochasticDepth<Residual<Branch>>> layers;
    for (int l = 0; l < 3; ++l)
        layers.emplace_back(Residual{Branch{test::linear<float>(random, 64, 64), ReLU<float>{}}},
                            SurvivalProbability{0.5});
    return Network{test::linear<float>(random, 8, 64), Stack{layers},
                   test::linear<float>(random, 64, 4)};
}

[[nodiscard]] Matrix<float> inputs(Index batch) {
    Philox random{2};
    return test::random_matrix<float>(random, 8, batch);
}

/// For allocation 1, 2, ... of `pass` in turn, in a thread with memory of its own: `before`, then
/// `pass`, which fails there, and then `after`. Ends with a pass that allocates no more than that.
/// \returns  The number of passes that failed.
template <class Before, class Pass, class After>
[[nodiscard]] long fail_each_allocation(const Before& before, const Pass& pass,
                                        const After& after) {
    for (long failing = 1;; ++failing) {
        bool failed = false;
        std::thread([&] {
            before();
            countdown = failing;
            try {
                pass();
            } catch (const std::bad_alloc&) {
                failed = true;
            }
            countdown = 0;
            after();
        }).join();
        if (!failed) return failing - 1;
    }
}

TEST_CASE("A forward pass that runs out of memory leaves the thread fit for the next",
          "[out_of_memory]") {
    const Network net = network();
    const Matrix<float> small = inputs(3), large = inputs(1000);
    const SurvivalMask mask = SurvivalMask::all(3);
    SurvivalMasks masks = SurvivalMasks::none(3, 1000);
    for (Index j = 0; j < 1000; ++j) masks.set_mask(j, SurvivalMask{1, j % 2 == 0, j % 3 == 0});
    const Matrix<float> of_mask = net(large, mask), of_masks = net(large, masks);
    const Matrix<float> exact = ExactExpectation{}(net, small).mean;
    const auto check = [&] {
        const Matrix<float> one = net(large, mask), each = net(large, masks);
        const Matrix<float> mean = ExactExpectation{}(net, small).mean;
        CHECK(same_bits(one, of_mask));
        CHECK(same_bits(each, of_masks));
        CHECK(same_bits(mean, exact));
    };
    const auto nothing = [] {};
    const auto warm = [&] { (void)net(small, mask); };
    Matrix<float> y(4, 1000);
    SECTION("one mask") {
        CHECK(fail_each_allocation(
                  nothing, [&] { masked_forward(net, large, mask, y); }, check) >= 1);
        CHECK(fail_each_allocation(
                  warm, [&] { masked_forward(net, large, mask, y); }, check) >= 1);
    }
    SECTION("masks for each sample") {
        CHECK(fail_each_allocation(
                  nothing, [&] { masked_forward(net, large, masks, y); }, check) >= 1);
        CHECK(fail_each_allocation(
                  warm, [&] { masked_forward(net, large, masks, y); }, check) >= 1);
    }
    SECTION("exact expectation") {
        CHECK(fail_each_allocation(
                  nothing, [&] { (void)ExactExpectation{}(net, large); }, check) >= 1);
    }
}

TEST_CASE("A training step that runs out of memory leaves the thread fit for the next",
          "[out_of_memory]") {
    using Step = TrainingStep<Network, MeanSquaredError<float>>;
    Network net = network();
    const auto x_of = [](Index batch) { return inputs(batch); };
    const auto gradient_of = [&](Step& step, const Matrix<float>& x) {
        const Matrix<float> targets = Matrix<float>::Zero(4, x.cols());
        (void)step.differentiate(net, x, targets, 7);
        const Eigen::VectorXd slopes = test::slopes(net, step.gradient());
        step.finish(net);
        return slopes;
    };
    const Matrix<float> small = x_of(64), medium = x_of(128), large = x_of(2000);
    const Matrix<float> targets = Matrix<float>::Zero(4, 2000);
    Step untroubled{net, {}};
    const Eigen::VectorXd of_small = gradient_of(untroubled, small);
    const Eigen::VectorXd of_medium = gradient_of(untroubled, medium);
    const Eigen::VectorXd of_large = gradient_of(untroubled, large);
    for (const bool warm : {false, true}) {
        CAPTURE(warm);
        std::vector<Step> step;
        const long failures = fail_each_allocation(
            [&] {
                step.clear();
                step.emplace_back(net, MeanSquaredError<float>{});
                if (warm) (void)gradient_of(step[0], small);
            },
            [&] { (void)step[0].differentiate(net, large, targets, 7); },
            [&] {
                step[0].finish(net);
                CHECK(same_bits(gradient_of(step[0], small), of_small));
                CHECK(same_bits(gradient_of(step[0], medium), of_medium));
                CHECK(same_bits(gradient_of(step[0], large), of_large));
                CHECK(same_bits(gradient_of(step[0], small), of_small));
            });
        CHECK(failures >= 3);
    }
}

}  // namespace
