// SPDX-License-Identifier: MIT
#include <stochastic_depth/types.hpp>

int in_second_unit();
int in_second_unit() { return 0; }
