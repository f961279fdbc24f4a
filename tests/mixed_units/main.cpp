// SPDX-License-Identifier: MIT
// With second.cpp a program of units that were compiled with different -m flags: it does not come as
// far as here.
#include <stochastic_depth/types.hpp>

int in_second_unit();

int main() { return in_second_unit(); }
