// SPDX-License-Identifier: MIT
// The written networks give the library's bits, and need neither memory nor a C++ library: this
// program is linked without one.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int checked = 0, wrong = 0;

/// Whether two numbers have the same bits, or are both NaN, whatever its payload.
template <class Scalar>
bool same(Scalar a, Scalar b) {
    return std::memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

template <int Inputs, int Outputs, class Scalar, class Bits>
void check(const char* name, void (*forward)(const Scalar*, Scalar*) noexcept, const Bits* x,
           const Bits* y, int samples) {
    static_assert(sizeof(Bits) == sizeof(Scalar), "bits of the network's numbers");
    Scalar input[static_cast<std::size_t>(Inputs)], output[static_cast<std::size_t>(Outputs)];
    for (int j = 0; j < samples; ++j) {
        std::memcpy(input, x + j * Inputs, sizeof input);
        for (Scalar& number : output) number = 12345;
        forward(input, output);
        for (int i = 0; i < Outputs; ++i) {
            Scalar expected;
            std::memcpy(&expected, y + j * Outputs + i, sizeof expected);
            ++checked;
            if (same(output[i], expected)) continue;
            if (++wrong <= 20)
                std::printf("%s: output %d of sample %d is %a, not %a\n", name, i, j,
                            static_cast<double>(output[i]), static_cast<double>(expected));
        }
    }
}

}  // namespace

#include "cases.hpp"

/// What the linker calls for malloc, calloc and realloc of this program.
static int allocations = 0;
extern "C" void* __wrap_malloc(std::size_t) { return ++allocations, nullptr; }
extern "C" void* __wrap_calloc(std::size_t, std::size_t) { return ++allocations, nullptr; }
extern "C" void* __wrap_realloc(void*, std::size_t) { return ++allocations, nullptr; }

int main() {
    check_all();
    std::printf("%d numbers checked, %d wrong, %d allocations\n", checked, wrong, allocations);
    return wrong > 0 || allocations > 0 || checked == 0;
}
