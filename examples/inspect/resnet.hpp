// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/models/resnet.hpp>

#include "architecture.hpp"

namespace inspect {

// A translation unit for each order of activations.
[[nodiscard]] Network post_activated_resnet(const sd::ResNetOptions& options,
                                            sd::ShapeShortcut shortcut);
[[nodiscard]] Network pre_activated_resnet(const sd::ResNetOptions& options,
                                           sd::ShapeShortcut shortcut);

template <sd::ActivationOrder activation>
[[nodiscard]] Network make_resnet(const sd::ResNetOptions& options, sd::ShapeShortcut shortcut) {
    using enum sd::ShapeShortcut;
    sd::Philox random{0};
    if (shortcut == projection)
        return sd::resnet<float, sd::ResNetStyle{activation, projection}>(options, random);
    return sd::resnet<float, sd::ResNetStyle{activation, padded}>(options, random);
}

}  // namespace inspect
