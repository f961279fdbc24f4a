// SPDX-License-Identifier: MIT
#include "resnet.hpp"

namespace inspect {

Network post_activated_resnet(const sd::ResNetOptions& options, sd::ShapeShortcut shortcut) {
    return make_resnet<sd::ActivationOrder::post>(options, shortcut);
}

}  // namespace inspect
