// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>

#include <type_traits>

#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/layer_contract.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// What generic code does, whatever the branch is.
template <class Branch>
[[nodiscard]] auto block(const Branch& branch) {
    return StochasticDepth{Residual{branch}, SurvivalProbability{0.5}};
}

/// 3 x.
[[nodiscard]] auto triple() {
    return elementwise<double>([](double z) { return 3 * z; }, [](double) { return 3.0; });
}

TEST_CASE("Residual: a residual branch is a branch, and no copy is made of it instead",
          "[residual]") {
    const auto f = triple();
    using Once = Residual<std::remove_const_t<decltype(f)>>;
    const Once once{f};
    CHECK(std::is_same_v<decltype(Residual{f}), Once>);
    CHECK(std::is_same_v<decltype(Residual{Residual{f}}), Residual<Once>>);
    CHECK(std::is_same_v<decltype(Residual{once}), Residual<Once>>);
    CHECK(std::is_same_v<decltype(Residual(once)), Residual<Once>>);
    CHECK(std::is_same_v<decltype(Residual{Residual{once}}), Residual<Residual<Once>>>);
    CHECK(std::is_same_v<decltype(Residual{once, Identity<double>{}}), Residual<Once>>);
    CHECK(std::is_same_v<decltype(Residual{f, once}),
                         Residual<std::remove_const_t<decltype(f)>, Once>>);

    const Matrix<double> x = Matrix<double>::Ones(1, 1);
    CHECK(run(Residual{f}, x)(0, 0) == 4);            // x + 3 x
    CHECK(run(Residual{Residual{f}}, x)(0, 0) == 5);  // x + (x + 3 x)
    CHECK(run(Residual{Residual{Residual{f}}}, x)(0, 0) == 6);
    CHECK(block(f)(x, SurvivalMask{1})(0, 0) == 4);
    CHECK(block(Residual{f})(x, SurvivalMask{1})(0, 0) == 5);
    CHECK(block(Residual{f})(x, SurvivalMask{0})(0, 0) == 1);
}

TEST_CASE("Residual: copies of a residual layer are what it is", "[residual]") {
    const Residual<Identity<double>> layer{Identity<double>{}};
    const auto copy = layer;  // NOLINT(performance-unnecessary-copy-initialization): the claim
    const Residual<Identity<double>> again(layer);
    const Matrix<double> x = Matrix<double>::Ones(2, 3);
    CHECK(run(copy, x) == 2 * x);
    CHECK(run(again, x) == 2 * x);
}

TEST_CASE("Residual of a Residual keeps the layer contract", "[residual]") {
    check_layer_contract("Residual", Residual{Residual{triple()}}, 5);
}

}  // namespace
