// SPDX-License-Identifier: MIT
#include "resnet.hpp"

namespace inspect {

Network pre_activated_resnet(const sd::ResNetOptions& options, sd::ShapeShortcut shortcut) {
    return make_resnet<sd::ActivationOrder::pre>(options, shortcut);
}

}  // namespace inspect
