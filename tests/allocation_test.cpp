// SPDX-License-Identifier: MIT

// Counts the calls of malloc and its kin in the whole program: Eigen's own switch
// (EIGEN_RUNTIME_NO_MALLOC) sees Eigen's allocations only, and a realloc escapes it.

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>
#include <stochastic_depth/survival/mask_dial.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/binary_cross_entropy.hpp>
#include <stochastic_depth/training/gradient_clipping.hpp>
#include <stochastic_depth/training/huber.hpp>
#include <stochastic_depth/training/sample_weighted.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/own_networks.hpp"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define STOCHASTIC_DEPTH_TESTS_SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STOCHASTIC_DEPTH_TESTS_SANITIZED
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<long> allocations{0};

void count_allocation() {
    if (counting.load(std::memory_order_relaxed))
        allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

#if defined(STOCHASTIC_DEPTH_TESTS_SANITIZED)

// A sanitizer has an allocator of its own, and offers to report each call. (g++ comes without the
// header, sanitizer/allocator_interface.h.)
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*,
                                                                  std::size_t),
                                                         void (*)(const volatile void*));
namespace {
[[maybe_unused]] const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { count_allocation(); }, [](const volatile void*) {});
constexpr bool counts = true;
}  // namespace

#elif defined(__GLIBC__)

// Operator new, aligned or not, calls one of these too.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
    count_allocation();
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
    count_allocation();
    return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) noexcept {
    count_allocation();
    return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
    count_allocation();
    return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
    count_allocation();
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : 12;  // ENOMEM
}
}
namespace {
constexpr bool counts = true;
}  // namespace

#else

namespace {
constexpr bool counts = false;
}  // namespace

#endif

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// The number of allocations that a call makes, on any thread; -1 where they can't be counted.
template <class Call>
long allocations_of(const Call& call) {
    allocations = 0;
    counting = true;
    call();
    counting = false;
    return counts ? allocations.load() : -1;
}

/// Allocations of a call like one before it.
template <class Call>
long allocations_when_warm(const Call& call) {
    call();
    call();  // The arena merges its chunks at the second call.
    return allocations_of(call);
}

constexpr long none = counts ? 0 : -1;

TEST_CASE("allocation: the counter sees every kind of allocation", "[allocation]") {
    if (!counts)
        WARN("allocations cannot be counted with this C library: these tests check nothing");
    const auto expect = [](long least, long got) { CHECK((counts ? got >= least : got == -1)); };
    struct alignas(128) Wide {
        char bytes[128];
    };
    // volatile: an allocation that nobody looks at may be left out.
    void* volatile seen = nullptr;
    expect(1, allocations_of([&] {
               seen = std::malloc(100);
               std::free(seen);
           }));
    expect(2, allocations_of([&] {
               seen = std::calloc(10, 10);
               seen = std::realloc(seen, 100000);
               std::free(seen);
           }));
    expect(1, allocations_of([&] {
               auto* const number = new double(1);
               seen = number;
               delete number;
           }));
    expect(1, allocations_of([&] {
               auto* const wide = new Wide;
               seen = wide;
               delete wide;
           }));
    expect(1, allocations_of([&] {
               const Matrix<float> matrix = Matrix<float>::Zero(30, 30);
               seen = const_cast<float*>(matrix.data());
           }));
    expect(1, allocations_of([&] {
               std::vector<int> numbers(100);
               seen = numbers.data();
           }));
    CHECK(allocations_of([&] { seen = nullptr; }) == none);
}

template <class Scalar, int Width = Eigen::Dynamic>
auto blocks(Philox& random, Index width, Index depth, double p = 0.5) {
    using Block = StochasticDepth<Residual<Sequential<Linear<Scalar, Width, Width>, ReLU<Scalar>>>>;
    std::vector<Block> list;
    for (Index l = 0; l < depth; ++l)
        list.emplace_back(
            Residual{Sequential{Linear<Scalar, Width, Width>{width, width, random, 0.5},
                                ReLU<Scalar>{}}},
            SurvivalProbability{p});
    return Stack{list};
}

template <class Network>
void check_no_allocation(const std::string& name, const Network& network, Index inputs) {
    using Scalar = typename Network::Scalar;
    Philox random{61};
    const Eigen::VectorXd p = network.survival_probabilities();
    const MaskSampler sampler{p, 7};
    for (const Index batch : {Index{1}, Index{6}, Index{130}}) {
        CAPTURE(name, batch);
        const Matrix<Scalar> x = random_matrix<Scalar>(random, inputs, batch);
        Matrix<Scalar> y(network.output_size(inputs), batch);
        SurvivalMask mask = SurvivalMask::all(p.size());
        SurvivalMasks masks{p.size(), batch};
        CHECK(allocations_when_warm([&] { masked_forward(network, x, mask, y); }) == none);
        CHECK(allocations_when_warm([&] { network.forward(x, y); }) == none);
        mask = SurvivalMask::none(p.size());
        CHECK(allocations_when_warm([&] { masked_forward(network, x, mask, y); }) == none);
        // All masks that keep more than half of the layers come after the widest one: no step
        // allocates.
        masked_forward(network, x, SurvivalMasks::all(p.size(), batch), y);
        masked_forward(network, x, masks, y);
        for (std::uint64_t step = 0; step < 3; ++step)
            CHECK(allocations_when_warm([&] {
                      sampler.sample(step, mask);
                      masked_forward(network, x, mask, y);
                      sampler.sample(step, masks);
                      masked_forward(network, x, masks, y);
                  }) == none);
    }
}

TEMPLATE_TEST_CASE("masked forward: a warmed pass allocates nothing", "[allocation]", float,
                   double) {
    using Scalar = TestType;
    Philox random{1};
    check_no_allocation("stack", blocks<Scalar>(random, 19, 5), 19);
    check_no_allocation("fixed widths", blocks<Scalar, 8>(random, 8, 5), 8);
    check_no_allocation(
        "stem, stack, head",
        Sequential{Linear<Scalar>{50, 64, random}, GELU<Scalar>{}, blocks<Scalar>(random, 64, 6),
                   Linear<Scalar>{64, 10, random}, Softmax<Scalar>{}},
        50);
    const SurvivalProbability half{0.5};
    check_no_allocation(
        "nested, with own shortcuts",
        Sequential{StochasticDepth{Residual{Sequential{blocks<Scalar>(random, 9, 2), Tanh<Scalar>{},
                                                       Linear<Scalar>{9, 12, random}},
                                            Linear<Scalar>{9, 12, random}},
                                   half},
                   Residual{blocks<Scalar>(random, 12, 2)}, StochasticDepth{Tanh<Scalar>{}, half}},
        9);
    // Wider than Eigen's limit for temporaries on the stack.
    check_no_allocation("wide", blocks<Scalar>(random, 300, 2), 300);
}

TEST_CASE("masked forward: a warmed pass through a composite of the user's own allocates nothing",
          "[allocation]") {
    check_no_allocation("own composite", own::residual_network(1), 3);
    check_no_allocation("own composite, mixed", own::mixed_network(2), 3);
}

TEST_CASE("masked forward: a pass needs no memory that its masks don't", "[allocation]") {
    // The value that `network(x, mask)` returns is the one allocation of a warmed pass.
    Philox random{2};
    const auto network = blocks<float>(random, 32, 4);
    const Matrix<float> x = random_matrix<float>(random, 32, 10);
    const SurvivalMask mask{1, 0, 1, 1};
    Matrix<float> y;
    CHECK(allocations_when_warm([&] { y = network(x, mask); }) <= 1);
}

TEST_CASE("allocation: samplers draw into the caller's masks without allocating", "[allocation]") {
    const MaskSampler sampler{Eigen::VectorXd::LinSpaced(54, 1.0, 0.5), 3};
    SurvivalMask mask = SurvivalMask::none(54);
    SurvivalMasks masks{54, 1024}, part{54, 100};
    CHECK(allocations_of([&] { sampler.sample(11, mask); }) == none);
    CHECK(allocations_of([&] { sampler.sample(11, masks); }) == none);
    CHECK(allocations_of([&] { sampler.sample(11, 37, part); }) == none);
    CHECK(mask.count() > 0);
    CHECK(part.mask(0) == masks.mask(37));
    const FixedSizeMaskSampler fixed_size{sampler.survival_probabilities(), 3};
    CHECK(allocations_of([&] { fixed_size.sample(11, masks); }) == none);
    CHECK(masks.count(53) == 512);
}

TEMPLATE_TEST_CASE("layers: warmed forward and backward calls allocate nothing", "[allocation]",
                   float, double) {
    using Scalar = TestType;
    Philox random{4};
    const auto check = [&](const std::string& name, const auto& layer, Index inputs) {
        using Layer = std::remove_cvref_t<decltype(layer)>;
        INFO(name);
        const Matrix<Scalar> x = random_matrix<Scalar>(random, inputs, 40);
        Matrix<Scalar> y(layer.output_size(inputs), 40), dx(inputs, 40);
        const Matrix<Scalar> dy = random_matrix<Scalar>(random, y.rows(), 40);
        typename Layer::Cache cache;
        typename Layer::Gradient gradient = layer.zero_gradient();
        CHECK(allocations_when_warm([&] { layer.forward(x, y); }) == none);
        CHECK(allocations_when_warm([&] { layer.forward(x, y, cache); }) == none);
        CHECK(allocations_when_warm([&] { layer.backward(x, dy, cache, gradient, dx); }) == none);
    };
    check("Linear", Linear<Scalar>{70, 50, random}, 70);
    check("Linear 8", Linear<Scalar, 8, 8>{random}, 8);
    check("ReLU", ReLU<Scalar>{}, 33);
    check("Tanh", Tanh<Scalar>{}, 33);
    check("GELU", GELU<Scalar>{}, 33);
    check("Identity", Identity<Scalar>{}, 33);
    check("Softmax", Softmax<Scalar>{}, 33);
}

TEMPLATE_TEST_CASE(
    "ExactExpectation: one thread allocates its answer, and nothing that grows with depth",
    "[allocation]", float, double) {
    using Scalar = TestType;
    Philox random{5};
    long expected = 0;
    for (const Index depth : {4, 8, 11}) {
        const Sequential network{Linear<Scalar>{20, 16, random}, blocks<Scalar>(random, 16, depth),
                                 Linear<Scalar>{16, 4, random}, Softmax<Scalar>{}};
        for (const Index batch : {Index{1}, Index{10}, Index{300}}) {
            const Matrix<Scalar> x = random_matrix<Scalar>(random, 20, batch);
            const ExactExpectation exact;
            double sum = 0;
            const long count = allocations_when_warm([&] {
                const auto answer = exact(network, x);
                sum += static_cast<double>(answer.mean(0, 0));
            });
            CAPTURE(depth, batch, sum);
            CHECK(count <= 3);  // Mean, variance and standard error.
            if (expected == 0) expected = count;
            CHECK(count == expected);
        }
    }
}

TEST_CASE("allocation: rules write into the caller's result without allocating", "[allocation]") {
    Philox random{10};
    const Sequential network{Linear<float>{20, 16, random}, blocks<float>(random, 16, 6),
                             Linear<float>{16, 4, random}, Softmax<float>{}};
    const auto plan =
        MonteCarloExpectation{{.samples = 64, .control_variates = ControlVariates::mask_bits}}.plan(
            network);
    for (const Index batch : {Index{1}, Index{300}}) {
        CAPTURE(batch);
        const Matrix<float> x = random_matrix<float>(random, 20, batch);
        ExpectationResult<float> result;
        CHECK(allocations_when_warm([&] { ExactExpectation{}(network, x, result); }) == none);
        CHECK(allocations_when_warm([&] { WeightScaling{}(network, x, result); }) == none);
        CHECK(allocations_when_warm([&] { plan(network, x, result); }) == none);
        CHECK(result.samples == 64);
    }
}

TEST_CASE("allocation: a mask is handed from thread to thread without allocating", "[allocation]") {
    const SurvivalMask mask = SurvivalMask::all(300);
    MaskDial dial{SurvivalMask::none(300)};
    CHECK(allocations_of([&] { dial.set(mask); }) == none);
    Index kept = 0;
    CHECK(allocations_of([&] { kept = dial.get().count(); }) == none);
    CHECK(kept == 300);
}

/// 40 steps like those before them, for each mask scope.
template <class Network>
void check_warmed_steps(Network network, const Matrix<float>& x,
                        std::initializer_list<unsigned> numbers_of_threads, Index shards = 1) {
    Sgd sgd{network, {.learning_rate = 1e-3, .momentum = 0.9}};
    const Eigen::VectorXi labels = Eigen::VectorXi::Constant(x.cols(), 2);
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset})
        for (const unsigned threads : numbers_of_threads) {
            CAPTURE(static_cast<int>(scope), threads);
            TrainingStep step{network, SoftmaxCrossEntropy<float>{},
                              TrainingStepOptions{
                                  .mask_scope = scope, .threads = threads, .shards = shards}};
            const auto steps = [&] {
                for (std::uint64_t t = 0; t < 40; ++t) {
                    (void)step.differentiate(network, x, labels, t);
                    sgd.step(network, step.gradient(), step.team());
                    step.finish(network);
                }
            };
            // Twice before: a tape in pieces becomes one when it is cleared. Whoever is free takes a
            // part, so that with more threads one may meet a part of a size that is new to it.
            steps();
            steps();
            CHECK(allocations_of(steps) <= (threads == 1 ? none : threads * 4L));
        }
}

TEST_CASE("TrainingStep: a step like those before it allocates nothing", "[allocation]") {
    Philox random{8};
    const Sequential network{Linear<float>{20, 64, random}, blocks<float>(random, 64, 6),
                             Linear<float>{64, 4, random}};
    for (const Index shards : {1, 4})
        check_warmed_steps(network, random_matrix<float>(random, 20, 100), {1, 2}, shards);
}

TEST_CASE("resnet: a warmed pass and a warmed step allocate nothing", "[allocation]") {
    Philox random{9};
    const auto network =
        resnet<float>({.input = {3, 8, 8}, .depth = 8, .classes = 4, .channels = 4}, random);
    check_no_allocation("resnet", network, 192);
    check_warmed_steps(network, random_matrix<float>(random, 192, 12), {1, 2});
    ExpectationResult<float> result;
    const Matrix<float> x = random_matrix<float>(random, 192, 2);
    CHECK(allocations_when_warm([&] { ExactExpectation{}(network, x, result); }) == none);
}

TEST_CASE("losses: weighted or not, a value and gradient allocates nothing", "[allocation]") {
    Philox random{9};
    const Matrix<float> z = random_matrix<float>(random, 4, 30);
    const Matrix<float> numbers = (random_matrix<float>(random, 4, 30).array() + 1) / 2;
    const Eigen::VectorXi labels = Eigen::VectorXi::Constant(30, 1);
    Matrix<float> gradient(4, 30);
    const auto check = [&](const auto& loss, const auto& targets, Index outputs) {
        const SampleWeighted weighted{loss};
        const WeightedTargets<std::remove_cvref_t<decltype(targets)>> of_weighted{
            targets, Eigen::VectorXd::Ones(30)};
        CHECK(allocations_of([&] {
                  (void)loss.value_and_gradient(z.middleRows(0, outputs), targets,
                                                gradient.topRows(outputs));
                  (void)weighted.value_and_gradient(z.middleRows(0, outputs), of_weighted,
                                                    gradient.topRows(outputs));
              }) == none);
    };
    check(SoftmaxCrossEntropy<float>{{.class_weights = Eigen::Vector4d(1, 2, 3, 4),
                                      .label_smoothing = 0.1}},
          labels, 4);
    check(BinaryCrossEntropy<float>{}, labels, 1);
    check(BinaryCrossEntropy<float, Matrix<float>>{}, numbers, 4);
    check(Huber<float>{}, numbers, 4);
}

TEST_CASE("optimizers, clip_gradient_norm: a step allocates nothing", "[allocation]") {
    Philox random{6};
    auto network = blocks<float>(random, 16, 5);
    auto gradient = network.zero_gradient();
    for (std::size_t l = 0; l < 5; l += 2) gradient.layers[l].reached = true;
    Sgd sgd{network, {.momentum = 0.9, .weight_decay = 0.1}};
    Adam adam{network, {}};
    AdamW adam_w{network, {}};
    CHECK(allocations_of([&] { sgd.step(network, gradient); }) == none);
    CHECK(allocations_of([&] { adam.step(network, gradient); }) == none);
    CHECK(allocations_of([&] { adam_w.step(network, gradient); }) == none);
    CHECK(allocations_of([&] { (void)clip_gradient_norm(network, gradient, 1e-3); }) == none);
}

}  // namespace
