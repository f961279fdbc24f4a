// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/dense/linear.hpp>
