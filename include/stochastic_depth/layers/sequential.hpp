// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/composition/sequential.hpp>
