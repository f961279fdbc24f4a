// SPDX-License-Identifier: MIT
// What descriptions of the networks of models/ say.
#include <string>
#include <vector>

#include "architecture.hpp"
#include "resnet.hpp"
#include "transformer.hpp"

namespace inspect {
namespace {

/// [channels, height, width].
sd::ImageShape image_shape(Fields& fields, const std::string& name,
                           const sd::ImageShape& otherwise) {
    const auto* const list = fields.find(name);
    if (!list) return otherwise;
    std::vector<sd::Index> sizes;
    if (list->is_array())
        for (const auto& each : *list)
            if (each.is_number_integer() && each > 0 && each <= 4096)
                sizes.push_back(each.get<sd::Index>());
    if (sizes.size() != 3 || list->size() != 3)
        fields.refuse_value(name, "[channels, height, width], each from 1 to 4096", *list);
    return {sizes[0], sizes[1], sizes[2]};
}

/// make(options) with the survival probabilities that it is called with.
template <class Options, class Make>
auto with_survival(const Options& options, const Make& make) {
    return [options, make](const Eigen::VectorXd& survival) {
        Options changed = options;
        changed.survival = survival;
        return make(changed);
    };
}

}  // namespace

Architecture resnet_architecture(Fields& fields) {
    sd::ResNetOptions options;
    options.depth = fields.count("depth", 8, 10'000);
    options.input = image_shape(fields, "input", options.input);
    options.channels = fields.count("channels", 1, 4096, options.channels);
    options.classes = fields.count("classes", 1, 1'000'000, options.classes);
    const bool is_post = fields.choice("activation", {"post", "pre"}) == "post";
    const auto shortcut = fields.choice("shortcut", {"padded", "projection"}) == "padded"
                              ? sd::ShapeShortcut::padded
                              : sd::ShapeShortcut::projection;
    Architecture architecture;
    architecture.inputs = options.input.size();
    architecture.image = options.input;
    architecture.make = with_survival(options, [is_post, shortcut](const auto& changed) {
        return is_post ? post_activated_resnet(changed, shortcut)
                       : pre_activated_resnet(changed, shortcut);
    });
    return architecture;
}

Architecture transformer_architecture(Fields& fields) {
    sd::TransformerOptions options;
    options.vocabulary = fields.count("vocabulary", 1, sd::Index{1} << 24);
    options.positions = fields.count("positions", 1, 1'000'000);
    options.width = fields.count("width", 1, 1 << 16);
    options.heads = fields.count("heads", 1, 1 << 16);
    options.feed_forward = fields.count("feed_forward", 1, 1 << 20);
    options.blocks = fields.count("blocks", 0, 10'000);
    options.classes = fields.count("classes", 1, 1'000'000);
    const bool is_pre = fields.choice("norm", {"pre", "post"}) == "pre";
    const auto unit = fields.choice("skipped", {"sublayer", "block"}) == "sublayer"
                          ? sd::SkippedUnit::sublayer
                          : sd::SkippedUnit::block;
    const std::string encoding = fields.choice("encoding", {"learned", "sinusoidal", "none"});
    options.encoding = encoding == "learned"      ? sd::PositionEncoding::learned
                       : encoding == "sinusoidal" ? sd::PositionEncoding::sinusoidal
                                                  : sd::PositionEncoding::none;
    options.rotary = fields.flag("rotary", false);
    const std::string pooling = fields.choice("pooling", {"mean", "first", "last"});
    options.pooling = pooling == "mean"    ? sd::SequencePooling::mean
                      : pooling == "first" ? sd::SequencePooling::first
                                           : sd::SequencePooling::last;
    Architecture architecture;
    architecture.inputs = options.positions;
    architecture.takes_tokens = true;
    architecture.make = with_survival(options, [is_pre, unit](const auto& changed) {
        return is_pre ? pre_normalised_transformer(changed, unit)
                      : post_normalised_transformer(changed, unit);
    });
    return architecture;
}

}  // namespace inspect
