// SPDX-License-Identifier: MIT
#pragma once

namespace stochastic_depth {

/// What is known of the masks beforehand and corrects the estimate.
enum class ControlVariates {
    none,
    /// Regression of each output on the mask bits, whose expectations are p_l.
    mask_bits,
};

}  // namespace stochastic_depth
