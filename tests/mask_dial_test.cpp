// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/mask_dial.hpp>

#include <atomic>
#include <thread>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;

/// The first `count` of 200 layers, so that a mask of two halves would show.
SurvivalMask first_layers(Index count) {
    SurvivalMask mask = SurvivalMask::none(200);
    for (Index l = 0; l < count; ++l) mask.keep(l);
    return mask;
}

TEST_CASE("MaskDial: gives the mask that was set last", "[mask_dial]") {
    MaskDial dial{first_layers(200)};
    CHECK(dial.get() == first_layers(200));
    dial.set(first_layers(1));
    CHECK(dial.get() == first_layers(1));
    CHECK(dial.get() == first_layers(1));
    for (Index count = 2; count < 9; ++count) dial.set(first_layers(count));
    CHECK(dial.get() == first_layers(8));
    // The one in use stays as it is until the next call.
    const SurvivalMask& used = dial.get();
    for (Index count = 10; count < 19; ++count) dial.set(first_layers(count));
    CHECK(used == first_layers(8));
    CHECK(dial.get() == first_layers(18));
}

TEST_CASE("MaskDial: of no layers", "[mask_dial]") {
    MaskDial dial{SurvivalMask{}};
    dial.set(SurvivalMask{});
    CHECK(dial.get().size() == 0);
}

TEST_CASE("MaskDial: refuses a mask of another size", "[mask_dial]") {
    MaskDial dial{first_layers(5)};
    CHECK(test::refusal([&] { dial.set(SurvivalMask::all(3)); }) ==
          "MaskDial: mask must have 200 layers, got 3");
    CHECK(dial.get() == first_layers(5));
}

TEST_CASE("MaskDial: two threads at a time; masks are whole and come in order", "[mask_dial]") {
    MaskDial dial{first_layers(0)};
    constexpr Index last = 200;
    std::thread setter([&] {
        for (int round = 0; round < 50; ++round)
            for (Index count = 0; count < last; ++count)
                if (round == 0 || count > 0) dial.set(first_layers(round == 49 ? last : count));
    });
    bool whole = true, arrived = false;
    while (!arrived) {
        const SurvivalMask& mask = dial.get();
        const Index count = mask.count();
        whole = whole && mask == first_layers(count);
        arrived = count == last;
    }
    setter.join();
    CHECK(whole);
    CHECK(dial.get() == first_layers(last));
}

}  // namespace
