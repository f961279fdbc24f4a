// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/work.hpp>

#include <chrono>
#include <cstddef>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <stochastic_depth/analysis/lesion_study.hpp>
#include <stochastic_depth/expectation/certified_interval.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/sampled_layer_values.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

/// The rule of the library, which the other tests set aside.
class RuleOfLibrary {
public:
    RuleOfLibrary() { detail::work_of_thread = 1.2e7; }
    ~RuleOfLibrary() { detail::work_of_thread = 0; }
};

/// y = x / 2; says that it takes `multiply_adds`, and notes who calls it.
struct Claims {
    using Scalar = double;
    struct Callers {
        std::mutex access;
        std::set<std::thread::id> ids;
        /// Until there are so many, each waits a little for others to come.
        std::size_t awaited = 1;
    };

    double multiply_adds;
    Callers* callers;

    [[nodiscard]] double work() const { return multiply_adds; }
    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        y = x / 2;
        if (x.cols() == 0) return;
        const auto enough = [this] {
            const std::lock_guard lock(callers->access);
            callers->ids.insert(std::this_thread::get_id());
            return callers->ids.size() >= callers->awaited;
        };
        for (int looks = 0; !enough() && looks < 2; ++looks)
            std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
};

using Network = Stack<StochasticDepth<Claims>>;

Network network_of(Index depth, double work, Claims::Callers& callers) {
    return Network{std::vector(static_cast<std::size_t>(depth),
                               StochasticDepth{Claims{work, &callers}, SurvivalProbability{0.5}})};
}

/// How many threads `call(network, x, threads)` lets evaluate a network of nine layers, each of
/// which takes `work`.
template <class Call>
std::size_t threads_of(const Call& call, double work, Index batch, std::size_t awaited = 1) {
    Claims::Callers callers;
    callers.awaited = awaited;
    call(network_of(9, work, callers), Eigen::MatrixXd::Ones(2, batch).eval(), 3u);
    return callers.ids.size();
}

TEST_CASE("work_of_column: convolutions, attention, and a layer at each position count",
          "[work]") {
    Philox random{3};
    const auto close = [](double found, double expected) {
        return found >= expected && found < 1.1 * expected;
    };
    const Conv2d<double> convolution{{4, 8, 8}, {.channels = 4, .padding = 1}, random};
    const StochasticDepth block{Residual{convolution}, SurvivalProbability{0.5}};
    CHECK(close(detail::work_of_column(Sequential{block}, 256, 3.0), 3 * convolution.work()));
    const auto network = transformer_classifier<double>(
        {.vocabulary = 9, .positions = 20, .width = 64, .feed_forward = 256, .blocks = 1}, random);
    // Of each position: four squares of attention, eight of feed-forward, kept one and a half times.
    CHECK(close(detail::work_of_column(network, 10, 3.0), 10 * 1.5 * 12 * 64 * 64));
}

}  // namespace

TEST_CASE("Work: what layers say, and a guess for those that say nothing", "[work]") {
    Philox random{3};
    const auto block = [&](Index width) {
        return StochasticDepth{Residual{Sequential{Linear<float>{width, width, random},
                                                   ReLU<float>{}}},
                               SurvivalProbability{0.5}};
    };
    const Sequential network{Linear<float>{7, 4, random}, Stack{std::vector{block(4), block(4)}},
                             Linear<float>{4, 3, random}};
    // The first and the last layer once, a block for each evaluation.
    CHECK(detail::work_of_column(network, 7, 0) == 7 * 4 + 4 * 3);
    CHECK(detail::work_of_column(network, 7, 3) == 7 * 4 + 4 * 3 + 3 * 16);
    CHECK(detail::work_of_column(AnyLayer<float>{network}, 7, 3) == 7 * 4 + 4 * 3 + 3 * 16);
    CHECK(detail::work_of_column(Stack<AnyLayer<float>>{{block(4), block(4)}}, 4, 3) == 3 * 16);
    // A skippable layer inside a skippable one: two evaluations take both.
    const StochasticDepth nest{Sequential{Linear<float>{4, 4, random}, block(4)},
                               SurvivalProbability{0.5}};
    CHECK(detail::work_of_column(nest, 4, 2) == 32);
    // Nothing to skip.
    CHECK(detail::work_of_column(Sequential{Linear<float>{4, 2, random}}, 4, 0) == 8);
    // Layers that say nothing.
    struct Silent {
        using Scalar = float;
        Index output_size(Index rows) const { return rows; }
        void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y) const { y = x; }
    };
    CHECK(detail::work_of_column(Stack<Silent>{{Silent{}, Silent{}}}, 5, 0) ==
          2 * detail::work_of(Silent{}, 5, 5));
}

TEST_CASE("Work: each thread finds enough to do", "[work]") {
    const RuleOfLibrary rule;
    const double enough = detail::work_of_thread;
    CHECK(detail::threads_worth(0, 8) == 1);
    CHECK(detail::threads_worth(1.99 * enough, 8) == 1);
    CHECK(detail::threads_worth(2 * enough, 8) == 2);
    CHECK(detail::threads_worth(7.5 * enough, 8) == 7);
    CHECK(detail::threads_worth(1e300, 8) == 8);
    CHECK(detail::threads_worth(1e300, 1) == 1);
}

TEST_CASE("Work: threads begin where they pay, and only there", "[work]") {
    const RuleOfLibrary rule;
    const auto check = [](const auto& call, Index batch) {
        // Nothing to do, more than enough for two threads and less than for three, for all.
        CHECK(threads_of(call, 1, batch) == 1);
        CHECK(threads_of(call, 1e12, batch, 2) > 1);
    };
    SECTION("exact expectation") {
        const auto call = [](const Network& network, const Eigen::MatrixXd& x, unsigned threads) {
            (void)ExactExpectation{{.threads = threads}}(network, x);
        };
        check(call, 2000);
        // 511 evaluations for each of 2000 columns.
        const double enough = detail::work_of_thread / (511 * 2000);
        CHECK(threads_of(call, 1.9 * enough, 2000) == 1);
        CHECK(threads_of(call, 2.1 * enough, 2000, 2) == 2);
    }
    SECTION("values of all masks") {
        check([](const Network& network, const Eigen::MatrixXd& x,
                 unsigned threads) { (void)mask_outputs(network, x, {.threads = threads}); },
              100);
    }
    SECTION("Monte Carlo, many columns and few") {
        const auto call = [](const Network& network, const Eigen::MatrixXd& x, unsigned threads) {
            (void)MonteCarloExpectation{{.samples = 200, .threads = threads}}(network, x);
        };
        check(call, 2000);
        check(call, 90);
    }
    SECTION("bounds, many columns and few") {
        const auto call = [](const Network& network, const Eigen::MatrixXd& x, unsigned threads) {
            (void)CertifiedInterval{
                {.lowest = 0, .highest = 1, .uncovered = 0.01, .threads = threads}}(network, x);
        };
        check(call, 2000);
        check(call, 40);
    }
    SECTION("sampled values of layers") {
        check([](const Network& network, const Eigen::MatrixXd& x, unsigned threads) {
            (void)sampled_shapley_values(network, x, {.pairs = 2, .threads = threads});
        }, 400);
    }
    SECTION("lesion study") {
        const auto score = [](const Eigen::MatrixXd& y) { return y.sum(); };
        check([&](const Network& network, const Eigen::MatrixXd& x, unsigned threads) {
            (void)lesion_study(network, x, score, {.threads = threads});
        }, 1000);
    }
}
