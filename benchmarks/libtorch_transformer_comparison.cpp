// SPDX-License-Identifier: MIT
//
// Transformer encoders for text beside LibTorch's: 6 blocks, width 64, 4 heads, feed-forward 256,
// exact GELU, post-norm (the only order that LibTorch's module in C++ has), no dropout, float.
// Forward passes through the blocks, and training steps of a classifier (embedding, blocks, mean
// over the positions, softmax cross-entropy, backward, SGD with momentum 0.9) at full depth and with
// survival 0.75 of each sublayer, one mask for each sample. Both sides have the same weights and go
// through the same masks; outputs, losses, gradients and updates are compared before anything is
// measured, on sequences of all lengths, padded.
//
// LibTorch's blocks are one of
//     Module     torch::nn::TransformerEncoderLayer, [positions x sequences x width]
//     Plain      linear, matmul, softmax, layer_norm, gelu, add, [sequences x positions x width],
//                queries, keys and values by one product
//     Scaled     the same with at::_scaled_dot_product_attention
//     Fused      at::_transformer_encoder_layer_fwd, without gradients: what PyTorch calls its fast
//                path
//     Frozen     Plain as a torch::jit::Module defined from source, frozen
//     Optimized  the same after optimize_for_inference
// and with masks one of
//     Row        every sublayer runs, and its branch is multiplied by a column of bits: torchvision's
//                stochastic_depth in mode "row"
//     Select     the sublayer runs on the surviving sequences alone: index_select, index_add
// The fastest is the peer; Select, which nobody offers, has a line of its own. LibTorch's masks lie
// ready, as bits and as indices; the library draws its own inside the step.
//
// One thread is measured by its CPU time, two threads by real time. LibTorch's steps gain where the
// C library keeps the memory that is freed: MALLOC_MMAP_MAX_=0
// MALLOC_TRIM_THRESHOLD_=64000000000 MALLOC_TOP_PAD_=2000000000. For a machine without AVX-512 on
// one that has it: the preset x86-64-v3, and OPENBLAS_CORETYPE=HASWELL, DNNL_MAX_CPU_ISA=AVX2 and
// ATEN_CPU_CAPABILITY=avx2 for LibTorch. A part of the comparison by --benchmark_filter: Forward,
// Step.*survival:100, Step.*survival:75, Lengths.
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <ATen/ops/_scaled_dot_product_attention.h>
#include <ATen/ops/_transformer_encoder_layer_fwd.h>
#include <benchmark/benchmark.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "libtorch.hpp"
#include "ratio_reporter.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;
using torch::Tensor;
using Matrix = sd::Matrix<float>;

constexpr sd::TransformerStyle style{.norm = sd::NormOrder::post};
using Network = sd::TransformerClassifier<float, style>;

constexpr double epsilon = 1e-5;
constexpr double partial_survival = 0.75;
/// Large where updates are compared, so that the rounding of the weights does not blur them; small
/// where they are measured over and over on the same batch.
constexpr double checked_rate = 0.01;
constexpr double measured_rate = 1e-4;

/// How far the two sides may be apart, relative to the largest entry; an update, to its length.
constexpr double output_tolerance = 1e-5;
constexpr double gradient_tolerance = 1e-4;
constexpr double update_tolerance = 1e-3;

[[nodiscard]] sd::TransformerOptions measured_options() {
    return {.vocabulary = 1000,
            .positions = 64,
            .width = 64,
            .heads = 4,
            .feed_forward = 256,
            .blocks = 6,
            .classes = 6,
            .final_survival = 1};
}

[[nodiscard]] Index whole(sd::Philox& random, Index low, Index high) {
    return low + static_cast<Index>(random() % static_cast<std::uint32_t>(high - low + 1));
}

enum class Lengths { full, uniform };

/// Token ids, [positions x sequences], -1 behind the ends: of all lengths, or of one.
[[nodiscard]] Matrix random_tokens(sd::Philox& random, Index vocabulary, Index positions,
                                   Index sequences, Lengths lengths) {
    Matrix tokens = Matrix::Constant(positions, sequences, -1.0F);
    for (Index j = 0; j < sequences; ++j) {
        const Index length = lengths == Lengths::full ? positions : whole(random, 1, positions);
        for (Index t = 0; t < length; ++t)
            tokens(t, j) = static_cast<float>(whole(random, 0, vocabulary - 1));
    }
    return tokens;
}

/// Moves all parameters a little, so that no gain is 1 and no bias 0.
[[nodiscard]] Network make_network(const sd::TransformerOptions& options, sd::Philox& random) {
    Network network = sd::transformer_classifier<float, style>(options, random);
    sd::detail::visit_parameters(network, [&](const char*, auto& parameter) {
        for (Index i = 0; i < parameter.size(); ++i)
            parameter.data()[i] += sd::uniform<float>(random, -0.1F, 0.1F);
    });
    return network;
}

/// The parts of a classifier: embedding, dropout, blocks and last normalisation; the blocks.
[[nodiscard]] const auto& body_of(const Network& network) { return std::get<0>(network.layers()); }
[[nodiscard]] const auto& blocks_of(const Network& network) {
    return std::get<2>(body_of(network).layers());
}

struct Shape {
    Index positions, sequences;

    [[nodiscard]] std::string label() const {
        return "positions:" + std::to_string(positions) + "/sequences:" + std::to_string(sequences);
    }
};

/// A network of ours and a batch.
struct Problem {
    Problem(const sd::TransformerOptions& options_, const Shape& shape_, Lengths lengths,
            double survival_ = 1, std::uint64_t seed = 7)
        : options(options_),
          shape(shape_),
          random(seed),
          network(make_network(options, random)),
          x(random_tokens(random, options.vocabulary, shape.positions, shape.sequences, lengths)),
          labels(shape.sequences),
          survival(Eigen::VectorXd::Constant(network.depth(), survival_)) {
        for (int& label : labels) label = static_cast<int>(whole(random, 0, options.classes - 1));
    }

    [[nodiscard]] bool full_depth() const { return (survival.array() == 1).all(); }
    [[nodiscard]] std::string label() const {
        return shape.label() + "/survival:" + (full_depth() ? "100" : "75");
    }
    [[nodiscard]] sd::SurvivalMasks masks(std::uint64_t step) const {
        return sd::MaskSampler{survival, mask_seed}.sample(step, shape.sequences);
    }
    [[nodiscard]] auto training(double rate, unsigned threads = 1) const {
        return LibraryTraining<Network>{network, x, labels, rate, threads, survival,
                                        static_cast<Index>(threads)};
    }

    sd::TransformerOptions options;
    Shape shape;
    sd::Philox random;
    Network network;
    Matrix x;
    Eigen::VectorXi labels;
    Eigen::VectorXd survival;
};

[[nodiscard]] Tensor to_vector(const Matrix& entries) { return to_torch(entries).flatten(); }
/// [outputs x inputs], on both sides.
[[nodiscard]] Tensor to_weights(const Matrix& weights) {
    return to_torch(weights).t().contiguous();
}

[[nodiscard]] Tensor to_labels(const Eigen::VectorXi& labels) {
    Tensor list = torch::empty({labels.size()}, torch::kLong);
    for (Index j = 0; j < labels.size(); ++j) list[j] = labels(j);
    return list;
}

/// A batch of token sequences as LibTorch has it.
struct TorchTokens {
    explicit TorchTokens(const Matrix& x) {
        const Tensor all = to_torch(x);
        ids = all.clamp_min(0).to(torch::kLong);
        if ((x.array() >= 0).all()) return;
        padding = all < 0;
        valid = padding.logical_not().to(torch::kFloat).unsqueeze(2);
        lengths = valid.sum(1);
    }
    /// [sequences x positions].
    Tensor ids;
    /// Where sequences have ended, [sequences x positions]; undefined if they are all full, as are
    /// the others: 1 where they have not, [sequences x positions x 1], and [sequences x 1].
    Tensor padding, valid, lengths;
};

/// The masks of one step, as LibTorch's programs have them.
struct TorchMasks {
    explicit TorchMasks(const sd::SurvivalMasks& masks) {
        for (Index l = 0; l < masks.depth(); ++l) {
            Tensor bits = torch::zeros({masks.batch_size(), 1, 1});
            for (Index j = 0; j < masks.batch_size(); ++j) bits[j] = masks(l, j) ? 1.0 : 0.0;
            survivors.push_back(bits.flatten().nonzero().flatten());
            multipliers.push_back(bits);
        }
    }
    std::vector<Tensor> multipliers;  ///< [sequences x 1 x 1]
    std::vector<Tensor> survivors;    ///< sequences that keep the sublayer
};

enum class Form { module, plain, scaled, fused };
enum class Masking { all, row, select };

struct TorchBlock {
    Tensor in_weight, in_bias, out_weight, out_bias, gain_1, bias_1;
    Tensor weight_1, shift_1, weight_2, shift_2, gain_2, bias_2;

    [[nodiscard]] std::vector<Tensor> parameters() const {
        return {in_weight, in_bias, out_weight, out_bias, gain_1, bias_1,
                weight_1,  shift_1, weight_2,   shift_2,  gain_2, bias_2};
    }
};

/// The network in LibTorch.
class TorchNetwork {
public:
    TorchNetwork(const Network& network, const sd::TransformerOptions& options, Form form)
        : form_(form), width_(options.width), heads_(options.heads) {
        const std::vector<Matrix> from = parameters_of(network);
        std::size_t next = 0;
        const auto weights = [&] { return to_weights(from.at(next++)); };
        const auto vector = [&] { return to_vector(from.at(next++)); };
        tokens_ = to_torch(from.at(next++));
        positions_ = to_torch(from.at(next++));
        for (Index b = 0; b < options.blocks; ++b)
            blocks_.push_back({weights(), vector(), weights(), vector(), vector(), vector(),
                               weights(), vector(), weights(), vector(), vector(), vector()});
        gain_ = vector();
        bias_ = vector();
        last_weight_ = weights();
        last_bias_ = vector();
        if (form_ == Form::module) make_modules(options);
    }

    /// In the order of ours.
    [[nodiscard]] std::vector<Tensor> parameters() const {
        std::vector<Tensor> list{tokens_, positions_};
        for (const TorchBlock& block : blocks_) {
            const std::vector<Tensor> some = block.parameters();
            list.insert(list.end(), some.begin(), some.end());
        }
        list.insert(list.end(), {gain_, bias_, last_weight_, last_bias_});
        return list;
    }
    [[nodiscard]] const std::vector<TorchBlock>& blocks() const { return blocks_; }

    /// [sequences x positions x width], or the module's order of these.
    [[nodiscard]] Tensor in_order(const Tensor& h) const {
        return form_ == Form::module ? h.transpose(0, 1).contiguous() : h;
    }

    /// The blocks, of what is in their order.
    [[nodiscard]] Tensor encode(Tensor h, const Tensor& padding = {},
                                Masking masking = Masking::all,
                                const TorchMasks* masks = nullptr) const {
        for (std::size_t b = 0; b < blocks_.size(); ++b) {
            const TorchBlock& block = blocks_[b];
            if (form_ == Form::module) {
                h = (*modules_[b])(h, Tensor{}, padding);
            } else if (form_ == Form::fused) {
                h = fused(block, h, padding);
            } else {
                h = normalised(sublayer(h, padding, masking, masks, 2 * b,
                                        [&](const Tensor& x, const Tensor& of) {
                                            return attention(block, x, of);
                                        }),
                               block.gain_1, block.bias_1);
                h = normalised(
                    sublayer(h, padding, masking, masks, 2 * b + 1,
                             [&](const Tensor& x, const Tensor&) {
                                 return torch::linear(
                                     torch::gelu(torch::linear(x, block.weight_1, block.shift_1)),
                                     block.weight_2, block.shift_2);
                             }),
                    block.gain_2, block.bias_2);
            }
        }
        return h;
    }

    /// What the embedding, the blocks and the last normalisation make of a batch, in their order.
    [[nodiscard]] Tensor body(const TorchTokens& x, Masking masking = Masking::all,
                              const TorchMasks* masks = nullptr) const {
        const Tensor h = torch::embedding(tokens_, x.ids) + positions_.slice(0, 0, x.ids.size(1));
        return normalised(encode(in_order(h), x.padding, masking, masks), gain_, bias_);
    }

    [[nodiscard]] Tensor operator()(const TorchTokens& x, Masking masking = Masking::all,
                                    const TorchMasks* masks = nullptr) const {
        const Tensor h = body(x, masking, masks);
        const Index positions = form_ == Form::module ? 0 : 1;
        const Tensor mean =
            x.padding.defined()
                ? (h * (form_ == Form::module ? x.valid.transpose(0, 1) : x.valid)).sum(positions) /
                      x.lengths
                : h.mean(positions);
        return torch::linear(mean, last_weight_, last_bias_);
    }

private:
    void make_modules(const sd::TransformerOptions& options) {
        for (const TorchBlock& block : blocks_) {
            torch::nn::TransformerEncoderLayer layer{
                torch::nn::TransformerEncoderLayerOptions(options.width, options.heads)
                    .dim_feedforward(options.feed_forward)
                    .dropout(0)
                    .activation(torch::kGELU)};
            layer->self_attn->in_proj_weight = block.in_weight;
            layer->self_attn->in_proj_bias = block.in_bias;
            layer->self_attn->out_proj->weight = block.out_weight;
            layer->self_attn->out_proj->bias = block.out_bias;
            layer->norm1->weight = block.gain_1;
            layer->norm1->bias = block.bias_1;
            layer->linear1->weight = block.weight_1;
            layer->linear1->bias = block.shift_1;
            layer->linear2->weight = block.weight_2;
            layer->linear2->bias = block.shift_2;
            layer->norm2->weight = block.gain_2;
            layer->norm2->bias = block.bias_2;
            modules_.push_back(std::make_shared<torch::nn::TransformerEncoderLayer>(layer));
        }
    }

    [[nodiscard]] Tensor normalised(const Tensor& h, const Tensor& gain, const Tensor& bias) const {
        return torch::layer_norm(h, {width_}, gain, bias, epsilon);
    }

    [[nodiscard]] Tensor fused(const TorchBlock& b, const Tensor& h, const Tensor& padding) const {
        c10::optional<Tensor> mask;
        c10::optional<std::int64_t> mask_type;
        if (padding.defined()) {
            mask = padding;
            mask_type = 1;
        }
        return at::_transformer_encoder_layer_fwd(
            h, width_, heads_, b.in_weight, b.in_bias, b.out_weight, b.out_bias, true, false,
            epsilon, b.gain_1, b.bias_1, b.gain_2, b.bias_2, b.weight_1, b.shift_1, b.weight_2,
            b.shift_2, mask, mask_type);
    }

    [[nodiscard]] Tensor attention(const TorchBlock& block, const Tensor& h,
                                   const Tensor& padding) const {
        const Index sequences = h.size(0), positions = h.size(1), in_head = width_ / heads_;
        const Tensor projected = torch::linear(h, block.in_weight, block.in_bias)
                                     .view({sequences, positions, 3, heads_, in_head})
                                     .permute({2, 0, 3, 1, 4});
        const Tensor q = projected.select(0, 0), k = projected.select(0, 1),
                     v = projected.select(0, 2);
        Tensor context;
        if (form_ == Form::scaled) {
            c10::optional<Tensor> mask;
            if (padding.defined())
                mask = padding.logical_not()
                           .view({sequences, 1, 1, positions})
                           .expand({sequences, heads_, positions, positions});
            context = std::get<0>(at::_scaled_dot_product_attention(q, k, v, mask));
        } else {
            Tensor scores =
                torch::matmul(q * (1 / std::sqrt(static_cast<double>(in_head))), k.transpose(2, 3));
            if (padding.defined())
                scores = scores.masked_fill(padding.view({sequences, 1, 1, positions}),
                                            -std::numeric_limits<float>::infinity());
            context = torch::matmul(torch::softmax(scores, -1), v);
        }
        return torch::linear(context.transpose(1, 2).reshape({sequences, positions, width_}),
                             block.out_weight, block.out_bias);
    }

    /// h + bit branch(h), for each sequence.
    template <class Branch>
    [[nodiscard]] static Tensor sublayer(const Tensor& h, const Tensor& padding, Masking masking,
                                         const TorchMasks* masks, std::size_t l,
                                         const Branch& branch) {
        if (masking == Masking::all) return h + branch(h, padding);
        if (masking == Masking::row)
            return torch::addcmul(h, branch(h, padding), masks->multipliers[l]);
        const Tensor& rows = masks->survivors[l];
        return h.index_add(0, rows,
                           branch(h.index_select(0, rows),
                                  padding.defined() ? padding.index_select(0, rows) : padding));
    }

    Form form_;
    Index width_, heads_;
    Tensor tokens_, positions_;
    std::vector<TorchBlock> blocks_;
    std::vector<std::shared_ptr<torch::nn::TransformerEncoderLayer>> modules_;
    Tensor gain_, bias_, last_weight_, last_bias_;
};

/// The blocks in use, as source.
[[nodiscard]] torch::jit::Module script_of(const TorchNetwork& network,
                                           const sd::TransformerOptions& options) {
    torch::jit::Module module{"encoder"};
    module.register_attribute("training", c10::BoolType::get(), false);
    const std::string width = std::to_string(options.width), heads = std::to_string(options.heads),
                      in_head = std::to_string(options.width / options.heads);
    const std::string scale =
        std::to_string(1 / std::sqrt(static_cast<double>(options.width / options.heads)));
    std::string text = "def forward(self, h):\n    n = h.size(0)\n    t = h.size(1)\n";
    for (std::size_t b = 0; b < network.blocks().size(); ++b) {
        std::size_t next = 0;
        const std::vector<Tensor> parameters = network.blocks()[b].parameters();
        const auto take = [&] {
            const std::string name = "p" + std::to_string(b) + "_" + std::to_string(next);
            module.register_buffer(name, parameters.at(next++));
            return "self." + name;
        };
        const auto norm = [&] {
            const std::string gain = take(), bias = take();
            return "    h = torch.layer_norm(h, [" + width + "], " + gain + ", " + bias +
                   ", 1e-05)\n";
        };
        const auto linear = [&](const std::string& x) {
            const std::string weight = take(), bias = take();
            return "torch.linear(" + x + ", " + weight + ", " + bias + ")";
        };
        text += "    a = " + linear("h") + ".view([n, t, 3, " + heads + ", " + in_head +
                "]).permute([2, 0, 3, 1, 4])\n";
        text += "    s = torch.matmul(a.select(0, 0) * " + scale +
                ", a.select(0, 1).transpose(2, 3))\n";
        text += "    c = torch.matmul(torch.softmax(s, -1), a.select(0, 2))\n";
        text += "    h = h + " + linear("c.transpose(1, 2).reshape([n, t, " + width + "])") + "\n";
        text += norm();
        text += "    f = torch.gelu(" + linear("h") + ")\n";
        text += "    h = h + " + linear("f") + "\n";
        text += norm();
    }
    text += "    return h\n";
    module.define(text);
    return module;
}

/// Ours, of LibTorch's [sequences x positions x width].
[[nodiscard]] Matrix from_sequences(const Tensor& h) { return from_torch<float>(h.flatten(1)); }

constexpr std::pair<const char*, Form> eager_forms[] = {{"Module", Form::module},
                                                        {"Plain", Form::plain},
                                                        {"Scaled", Form::scaled},
                                                        {"Fused", Form::fused}};

/// The blocks alone, all ways, without gradients.
struct ForwardComparison {
    struct Way {
        std::string name;
        TorchNetwork network;
        std::function<Tensor(const Tensor&)> run;
    };

    ForwardComparison() : problem(measured_options(), {1, 1}, Lengths::full) {
        for (const auto& [name, form] : eager_forms) {
            const TorchNetwork network{problem.network, problem.options, form};
            ways.push_back(
                {name, network, [network](const Tensor& h) { return network.encode(h); }});
        }
        const TorchNetwork network{problem.network, problem.options, Form::plain};
        const auto add = [&](const char* name, torch::jit::Module module) {
            ways.push_back({name, network,
                            [script = std::make_shared<torch::jit::Module>(module)](
                                const Tensor& h) { return script->forward({h}).toTensor(); }});
        };
        add("Frozen", torch::jit::freeze(script_of(network, problem.options)));
        torch::jit::Module script = script_of(network, problem.options);
        add("Optimized", torch::jit::optimize_for_inference(script));
    }

    [[nodiscard]] Matrix input(const Shape& shape) const {
        sd::Philox random{5};
        return Matrix::NullaryExpr(problem.options.width * shape.positions, shape.sequences,
                                   [&] { return sd::uniform<float>(random, -1.0F, 1.0F); });
    }
    [[nodiscard]] Tensor input(const Shape& shape, const Way& way) const {
        return way.network.in_order(
            to_torch(input(shape)).view({shape.sequences, shape.positions, problem.options.width}));
    }

    /// Requires the same outputs.
    void check(const Shape& shape) const {
        const c10::InferenceMode no_gradients;
        const Matrix ours = blocks_of(problem.network)(input(shape));
        double found = 0;
        for (const Way& way : ways)
            // The first calls of a script are those that it is compiled in.
            for (int call = 0; call < 3; ++call) {
                const Tensor theirs = way.network.in_order(way.run(input(shape, way)));
                const double apart = error(ours, from_sequences(theirs));
                require(shape.label() + ", " + way.name + ": outputs", apart, output_tolerance);
                found = worse(found, apart);
            }
        std::printf("forward, %s: outputs differ by %.1e relative at most\n", shape.label().c_str(),
                    found);
    }

    Problem problem;
    std::vector<Way> ways;
};

/// A way to train by LibTorch's autograd and its optimizer.
struct Way {
    std::string name;
    Form form;
    Masking masking;
};
[[nodiscard]] std::vector<Way> ways(bool full_depth) {
    if (full_depth)
        return {{"Module", Form::module, Masking::all},
                {"Plain", Form::plain, Masking::all},
                {"Scaled", Form::scaled, Masking::all}};
    return {{"Row", Form::plain, Masking::row},
            {"RowScaled", Form::scaled, Masking::row},
            {"Select", Form::plain, Masking::select},
            {"SelectScaled", Form::scaled, Masking::select}};
}

/// LibTorch's side.
class TorchTraining {
public:
    TorchTraining(const Problem& problem, const Way& way, double rate)
        : way_(way),
          network_(problem.network, problem.options, way.form),
          x_(problem.x),
          labels_(to_labels(problem.labels)),
          parameters_(network_.parameters()),
          optimizer_(parameters_, torch::optim::SGDOptions(rate).momentum(momentum)) {
        for (Tensor& parameter : parameters_) parameter.requires_grad_();
        for (std::uint64_t t = 0; t < mask_steps; ++t) masks_.emplace_back(problem.masks(t));
    }

    /// Leaves the gradients in the parameters.
    double differentiate(std::uint64_t t) {
        const Tensor loss = torch::nn::functional::cross_entropy(
            network_(x_, way_.masking, &masks_[t % mask_steps]), labels_);
        loss.backward();
        return loss.item<double>();
    }
    void update() {
        optimizer_.step();
        for (Tensor& parameter : parameters_) parameter.mutable_grad().reset();
    }
    double step(std::uint64_t t) {
        const double loss = differentiate(t);
        update();
        return loss;
    }
    [[nodiscard]] const std::vector<Tensor>& parameters() const { return parameters_; }

private:
    Way way_;
    TorchNetwork network_;
    TorchTokens x_;
    Tensor labels_;
    std::vector<Tensor> parameters_;
    std::vector<TorchMasks> masks_;
    torch::optim::SGD optimizer_;
};

/// The largest differences that were found.
struct Differences {
    double outputs = 0, losses = 0, gradients = 0, updates = 0;
};

/// One of our parameters, from theirs: embeddings and vectors lie as ours do.
[[nodiscard]] Matrix like(const Tensor& theirs, bool is_embedding) {
    if (theirs.dim() == 1) return from_torch<float>(theirs.unsqueeze(0));
    return from_torch<float>(is_embedding ? theirs : theirs.t());
}

/// The body's outputs at real positions, all forms; zeros behind them.
void check_outputs(const Problem& problem, Differences& found) {
    const c10::InferenceMode no_gradients;
    const Matrix ours = body_of(problem.network)(problem.x);
    const TorchTokens x{problem.x};
    for (const auto& [name, form] : eager_forms) {
        const TorchNetwork network{problem.network, problem.options, form};
        Tensor theirs = network.in_order(network.body(x));
        if (x.padding.defined()) theirs = theirs.masked_fill(x.padding.unsqueeze(2), 0.0);
        const double apart = error(ours, from_sequences(theirs));
        require(problem.label() + ", " + name + ": outputs", apart, output_tolerance);
        found.outputs = worse(found.outputs, apart);
    }
}

/// Takes down gradients, zeros of skipped layers too.
struct TakeSlopes {
    static constexpr bool visits_unreached() { return true; }
    template <class Parameter, class Slope>
    void operator()(const char*, const Parameter&, const Slope& slope) const {
        slopes->emplace_back(slope);
    }
    std::vector<Matrix>* slopes;
};
[[nodiscard]] std::vector<Matrix> slopes_of(const Network& network, Network::Gradient gradient) {
    std::vector<Matrix> slopes;
    sd::detail::visit_parameters(network, TakeSlopes{&slopes}, gradient);
    return slopes;
}

/// Gradients of the first step, relative to the largest entry of any; losses and updates of so many.
void check_steps(const Problem& problem, std::uint64_t steps, Differences& found) {
    sd::TrainingStep<Network, sd::SoftmaxCrossEntropy<float>> first{
        problem.network, {}, {.seed = mask_seed}};
    first.set_survival_probabilities(problem.survival);
    (void)first.differentiate(problem.network, problem.x, problem.labels, 0);
    const std::vector<Matrix> slopes = slopes_of(problem.network, first.gradient());

    auto library = problem.training(checked_rate);
    const auto start = parameters_of(problem.network);
    std::vector<double> losses;
    for (std::uint64_t t = 0; t < steps; ++t) losses.push_back(library.step(t));
    const auto end = parameters_of(library.network());
    for (const Way& way : ways(problem.full_depth())) {
        const std::string label = problem.label() + ", " + way.name;
        TorchTraining theirs{problem, way, checked_rate};
        for (std::uint64_t t = 0; t < steps; ++t) {
            const double apart = std::abs(theirs.differentiate(t) / losses[t] - 1);
            require(label + ": losses", apart, output_tolerance);
            found.losses = worse(found.losses, apart);
            if (t == 0) {
                double largest = 0, by_gradient = 0;
                for (std::size_t i = 0; i < slopes.size(); ++i) {
                    const Matrix slope = like(theirs.parameters().at(i).grad(), i < 2);
                    const Matrix difference = slope - slopes[i];
                    largest = std::max(largest, static_cast<double>(slope.cwiseAbs().maxCoeff()));
                    by_gradient =
                        worse(by_gradient, static_cast<double>(difference.cwiseAbs().maxCoeff()));
                }
                require(label + ": gradients", by_gradient / largest, gradient_tolerance);
                found.gradients = worse(found.gradients, by_gradient / largest);
            }
            theirs.update();
        }
        double apart = 0, all = 0;
        for (std::size_t i = 0; i < start.size(); ++i) {
            apart += static_cast<double>(
                (end[i] - like(theirs.parameters().at(i), i < 2)).squaredNorm());
            all += static_cast<double>((end[i] - start[i]).squaredNorm());
        }
        require(label + ": updates", std::sqrt(apart / all), update_tolerance);
        found.updates = worse(found.updates, std::sqrt(apart / all));
    }
}

void print(const std::string& what, const Differences& found) {
    std::printf(
        "%s: outputs differ by %.1e relative at most, losses by %.1e, gradients by %.1e, updates by "
        "%.1e\n",
        what.c_str(), found.outputs, found.losses, found.gradients, found.updates);
}

/// Small networks of one or two blocks, of random shapes and lengths.
void check_random_shapes() {
    sd::Philox random{11};
    Differences found;
    constexpr int trials = 300;
    for (int trial = 0; trial < trials; ++trial) {
        const Index heads = whole(random, 1, 5);
        const Index positions = whole(random, 1, 40);
        const Problem problem{{.vocabulary = whole(random, 1, 30),
                               .positions = positions,
                               // Deviations of very few numbers can all be rounding.
                               .width = heads * whole(random, 1 + 7 / heads, 20),
                               .heads = heads,
                               .feed_forward = whole(random, 1, 90),
                               .blocks = whole(random, 1, 2),
                               .classes = whole(random, 2, 5),
                               .final_survival = 1},
                              {positions, whole(random, 1, 9)},
                              trial % 4 == 0 ? Lengths::full : Lengths::uniform,
                              trial % 3 == 0 ? partial_survival : 1.0,
                              static_cast<std::uint64_t>(trial)};
        check_outputs(problem, found);
        // One step: of a layer that no sequence keeps, the momentum waits; LibTorch's would not.
        check_steps(problem, 1, found);
    }
    print(std::to_string(trials) + " networks of random shapes", found);
}

[[nodiscard]] std::string library_forward(const Shape& shape) {
    return "BM_StochasticDepthForward/" + shape.label();
}
[[nodiscard]] std::string torch_forward(const Shape& shape, const std::string& way) {
    return "BM_LibTorchForward" + way + "/" + shape.label();
}
[[nodiscard]] std::string library_step(const Problem& problem, int threads) {
    return "BM_StochasticDepthStep/" + problem.label() + "/threads:" + std::to_string(threads);
}
[[nodiscard]] std::string torch_step(const Problem& problem, const std::string& way) {
    return "BM_LibTorchStep" + way + "/" + problem.label() + "/threads:1";
}

benchmark::internal::Benchmark* add(const std::string& name,
                                    const std::function<void(benchmark::State&)>& body) {
    // Enough that the memory of the program that ran before is no longer felt.
    return benchmark::RegisterBenchmark(name.c_str(), body)
        ->Unit(benchmark::kMillisecond)
        ->MinTime(0.2);
}

template <class Layer>
void run_forward(benchmark::State& state, const Layer& layer, const Matrix& x) {
    Matrix y(layer.output_size(x.rows()), x.cols());
    layer.forward(x, y);
    for (auto _ : state) {
        layer.forward(x, y);
        benchmark::ClobberMemory();
    }
}

void add_forward(const ForwardComparison& comparison, const Shape& shape,
                 std::vector<Ratio>& ratios) {
    add(library_forward(shape), [&, shape](benchmark::State& state) {
        run_forward(state, blocks_of(comparison.problem.network), comparison.input(shape));
    });
    std::vector<std::string> peers;
    for (const ForwardComparison::Way& way : comparison.ways) {
        peers.push_back(torch_forward(shape, way.name));
        add(peers.back(), [&, shape](benchmark::State& state) {
            const c10::InferenceMode no_gradients;
            const Tensor x = comparison.input(shape, way);
            // The first calls of a script are those that it is compiled in.
            for (int call = 0; call < 3; ++call) (void)way.run(x);
            for (auto _ : state) {
                const Tensor y = way.run(x);
                benchmark::DoNotOptimize(y.data_ptr<float>());
            }
        });
    }
    ratios.push_back({"forward / LibTorch's fastest form, " + shape.label(), library_forward(shape),
                      peers, shape.sequences == 1 ? 4.0 : 2.0});
}

template <class Training>
void measure(benchmark::State& state, Training training) {
    std::uint64_t t = 0;
    double loss = 0;
    // The first steps find the memory that the later ones use again.
    while (t < 3) loss = training.step(t++);
    for (auto _ : state) {
        loss = training.step(t++);
        benchmark::DoNotOptimize(loss);
    }
    if (!std::isfinite(loss)) state.SkipWithError("the loss is not finite");
}

void add_steps(const Problem& problem, std::vector<Ratio>& ratios) {
    for (const int threads : {1, 2}) {
        auto* const added = add(library_step(problem, threads), [&, threads](auto& state) {
            measure(state, problem.training(measured_rate, static_cast<unsigned>(threads)));
        });
        if (threads > 1) added->UseRealTime();
    }
    // What runs on the survivors alone is no form of LibTorch's own: beside it, no target.
    std::vector<std::string> peers, selecting;
    for (const Way& way : ways(problem.full_depth())) {
        const std::string peer = torch_step(problem, way.name);
        (way.masking == Masking::select ? selecting : peers).push_back(peer);
        add(peer, [&, way](benchmark::State& state) {
            measure(state, TorchTraining{problem, way, measured_rate});
        });
    }
    ratios.push_back({"training step / LibTorch's fastest form, " + problem.label(),
                      library_step(problem, 1), peers, problem.full_depth() ? 2.0 : 2.5});
    if (!problem.full_depth())
        ratios.push_back({"training step / LibTorch on the survivors alone, " + problem.label(),
                          library_step(problem, 1), selecting});
    ratios.push_back({"training step, two threads with a shard each / one thread, " + problem.label(),
                      library_step(problem, 2),
                      {library_step(problem, 1)},
                      1.8});
}

/// Sequences of all lengths up to 64 beside sequences of 64.
void add_lengths(const Problem& full, const Problem& uniform, std::vector<Ratio>& ratios) {
    const std::string names[] = {"full", "uniform"};
    const Problem* const problems[] = {&full, &uniform};
    for (int i = 0; i < 2; ++i) {
        const Problem& problem = *problems[i];
        add("BM_StochasticDepthLengthsForward/" + names[i],
            [&](benchmark::State& state) { run_forward(state, problem.network, problem.x); });
        add("BM_StochasticDepthLengthsStep/" + names[i],
            [&](benchmark::State& state) { measure(state, problem.training(measured_rate)); });
    }
    std::vector<std::string> forward, step;
    for (const auto& [name, form] : eager_forms) {
        forward.push_back(std::string("BM_LibTorchLengthsForward") + name + "/uniform");
        add(forward.back(), [&, form = form](benchmark::State& state) {
            const c10::InferenceMode no_gradients;
            const TorchNetwork network{uniform.network, uniform.options, form};
            const TorchTokens x{uniform.x};
            (void)network(x);
            for (auto _ : state) {
                const Tensor y = network(x);
                benchmark::DoNotOptimize(y.data_ptr<float>());
            }
        });
    }
    for (const Way& way : ways(true)) {
        step.push_back("BM_LibTorchLengthsStep" + way.name + "/uniform");
        add(step.back(), [&, way](benchmark::State& state) {
            measure(state, TorchTraining{uniform, way, measured_rate});
        });
    }
    const auto compare = [&](const std::string& claim, const std::string& what,
                             const std::vector<std::string>& theirs) {
        const std::string subject = "BM_StochasticDepthLengths" + what + "/uniform";
        ratios.push_back({claim + ", lengths from 1 to 64 / all of 64, " + full.shape.label(),
                          subject,
                          {"BM_StochasticDepthLengths" + what + "/full"},
                          1.6});
        ratios.push_back(
            {claim + ", lengths from 1 to 64 / LibTorch's fastest form, " + full.shape.label(),
             subject, theirs});
    };
    compare("forward", "Forward", forward);
    compare("training step", "Step", step);
}

}  // namespace

int main(int argc, char** argv) {
    at::set_num_interop_threads(1);
    set_threads(1);
    check_random_shapes();
    std::vector<Ratio> ratios;
    const ForwardComparison passes;
    for (const Shape& shape : {Shape{16, 64}, Shape{64, 32}, Shape{16, 1}}) {
        passes.check(shape);
        add_forward(passes, shape, ratios);
    }
    std::vector<std::unique_ptr<Problem>> problems;
    const auto problem = [&](const Shape& shape, Lengths lengths, double survival) -> Problem& {
        problems.push_back(std::make_unique<Problem>(measured_options(), shape, lengths, survival));
        Differences found;
        check_outputs(*problems.back(), found);
        check_steps(*problems.back(), 3, found);
        print(problems.back()->label() + (lengths == Lengths::full ? "" : ", of all lengths"),
              found);
        return *problems.back();
    };
    for (const Shape& shape : {Shape{16, 64}, Shape{64, 32}}) {
        std::string steps[2];
        for (const double survival : {1.0, partial_survival}) {
            const Problem& added = problem(shape, Lengths::full, survival);
            add_steps(added, ratios);
            steps[added.full_depth() ? 0 : 1] = library_step(added, 1);
        }
        ratios.push_back({"training step, survival 0.75 / full depth, " + shape.label(),
                          steps[0],
                          {steps[1]},
                          0,
                          1,
                          partial_survival + 0.05});
    }
    const Shape longest{64, 32};
    add_lengths(problem(longest, Lengths::full, 1), problem(longest, Lengths::uniform, 1), ratios);
    benchmark::AddCustomContext("LibTorch", TORCH_VERSION);
    benchmark::AddCustomContext("LibTorch's BLAS", blas());
    return run_benchmarks(argc, argv, std::move(ratios));
}
