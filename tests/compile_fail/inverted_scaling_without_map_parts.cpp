// EXPECT: error: .*a composite with skippable layers inside needs a friend map_parts\(self, f\)
// SPDX-License-Identifier: MIT
#include <stochastic_depth/inverted_scaling.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>

namespace sd = stochastic_depth;
using Skippable = sd::StochasticDepth<sd::Residual<sd::Linear<double>>>;

/// A composite of one part, with all that a masked pass needs.
struct Around : sd::LayerBase<Around, double, Skippable> {
    Skippable part;

    sd::Index output_size(sd::Index inputs) const { return part.output_size(inputs); }
    template <class Memory>
    struct Record {
        sd::detail::RecordOf<Skippable, Memory> part;
    };
    void run(auto& batch, auto& record, const auto& mask, const auto& epilogue) const {
        sd::detail::run(part, batch, record.part, mask, epilogue);
    }
    static void visit_parts(auto& self, auto&& visit, auto&... others) {
        visit("part", self.part, others.part...);
    }
};
static_assert(sd::MaskedNetwork<Around>);

auto convert(const Around& network) { return sd::without_inverted_scaling(network); }
