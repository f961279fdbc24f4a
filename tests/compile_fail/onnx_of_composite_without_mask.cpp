// EXPECT: write_onnx of a composite with skippable layers inside must take the mask
// SPDX-License-Identifier: MIT
#include <utility>

#include <stochastic_depth/export/onnx.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>

namespace sd = stochastic_depth;

using Inside = sd::StochasticDepth<sd::Linear<float>>;

/// Its network would run at full depth, whatever the mask.
class Outside : public sd::LayerBase<Outside, float, Inside> {
public:
    explicit Outside(Inside inside) : inside_(std::move(inside)) {}
    sd::Index output_size(sd::Index inputs) const { return inside_.output_size(inputs); }
    template <class Memory>
    struct Record {
        sd::detail::RecordOf<Inside, Memory> inside;
    };
    template <class Batch, class Record, class Mask, class Epilogue>
    void run(Batch& batch, Record& record, const Mask& mask, const Epilogue& epilogue) const {
        sd::detail::run(inside_, batch, record.inside, mask, epilogue);
    }
    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        visit("inside", self.inside_, others.inside...);
    }
    sd::OnnxValue write_onnx(sd::OnnxGraph& graph, const sd::OnnxValue& x) const {
        return graph.part("inside", inside_, x);
    }

private:
    Inside inside_;
};

void run(const Outside& network) { sd::export_onnx("network.onnx", network); }
