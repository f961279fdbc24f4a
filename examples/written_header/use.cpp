// SPDX-License-Identifier: MIT
// The network that written_header_write left, in a program without the library. Prints the same.
#include "sine.hpp"

#include <cmath>
#include <cstdio>

static_assert(sine::inputs == 1 && sine::outputs == 1 && sine::working_memory <= 1024,
              "what this program was made for");

int main() {
    const float places[] = {-0.5F, 0.0F, 0.5F};
    for (const float at : places) {
        float y;
        sine::forward(&at, &y);
        std::printf("sine(%g) = %a, about %.2f\n", static_cast<double>(at), static_cast<double>(y),
                    std::sin(3 * static_cast<double>(at)));
    }
}
