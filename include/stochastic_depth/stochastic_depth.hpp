// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <utility>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/pass/survivors.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

namespace stochastic_depth {

/// A skippable layer: kept with probability p, it is the layer; skipped, it is the layer's
/// shortcut, which is the identity for a layer that has none.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Eq. (2).
template <ForwardLayer Layer>
class StochasticDepth {
public:
    using Scalar = typename Layer::Scalar;
    using Shortcut = typename detail::ShortcutOf<Layer>::type;
    static constexpr bool has_skippable_layers = true;
    static constexpr bool skips_branches_alone =
        detail::is_residual<Layer> && detail::skips_branches_alone<Layer>;
    static constexpr bool has_statistics =
        detail::has_statistics<Layer> || detail::has_statistics<Shortcut>;
    static constexpr bool parts_are_differentiable = DifferentiableLayer<Layer>;
    /// Whether a skipped layer hands its input on as it is.
    static constexpr bool skips_to_identity = std::is_same_v<Shortcut, Identity<Scalar>>;
    static_assert(!detail::has_skippable_layers<Shortcut>,
                  "what stands in for a skipped layer cannot be skipped itself");

    StochasticDepth(Layer layer, SurvivalProbability survival_probability)
        : layer_(std::move(layer)), survival_probability_(survival_probability) {}

    [[nodiscard]] const Layer& layer() const { return layer_; }
    [[nodiscard]] SurvivalProbability survival_probability() const { return survival_probability_; }
    /// What a skipped layer does instead.
    [[nodiscard]] decltype(auto) shortcut() const { return detail::ShortcutOf<Layer>::of(layer_); }

    /// \throws std::invalid_argument  if the layer and its shortcut give different sizes.
    [[nodiscard]] Index output_size(Index input_size) const {
        const Index outputs = layer_.output_size(input_size);
        const Index skipped = shortcut().output_size(input_size);
        if (outputs != skipped)
            detail::refuse("StochasticDepth: layer must have ", skipped,
                           " outputs as its shortcut has, got ", outputs);
        return outputs;
    }

    /// NN(x, S), [outputs x batch], for x [features x batch].
    /// \param mask  One SurvivalMask for the batch, or SurvivalMasks, one mask for each sample.
    /// \throws std::invalid_argument  if sizes don't match.
    template <class Mask>
    [[nodiscard]] Matrix<Scalar> operator()(const ConstMatrixRef<Scalar>& x,
                                            const Mask& mask) const {
        return masked_forward(*this, x, mask);
    }

    /// Number of skippable layers: this one and those inside.
    [[nodiscard]] Index depth() const { return 1 + detail::depth(layer_); }

    /// p of this layer, then of those inside.
    [[nodiscard]] Eigen::VectorXd survival_probabilities() const {
        return detail::survival_probabilities(*this);
    }

    /// The layer runs, and every layer in it.
    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("StochasticDepth", *this, x, y);
        layer_.forward(x, y);
    }

    template <class Epilogue>
    void forward_fused(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                       const Epilogue& epilogue) const {
        detail::forward_fused(layer_, x, y, epilogue);
    }

    void propagate(detail::Activations<Scalar>& activations, const detail::MaskView& mask) const {
        if (mask.is_one_for_all()) return run_all(activations, mask, mask.keeps(0));
        const Index batch = activations.current().cols();
        const detail::ScratchArray<Index> survivors(batch);
        const Index kept = mask.list_survivors(batch, survivors.data());
        if (kept == batch || kept == 0) return run_all(activations, mask, kept == batch);
        detail::run_survivors<skips_to_identity>(layer_, shortcut(), activations, mask.from(1),
                                                 survivors.data(), kept);
    }

    [[nodiscard]] Index widest(Index input_size) const {
        return detail::widest(layer_, input_size);
    }

    [[nodiscard]] Index random_layers() const { return detail::random_layers(layer_); }

    void write_survival_probabilities(double*& first) const {
        *first++ = survival_probability_.value();
        detail::write_survival_probabilities(layer_, first);
    }

    void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const {
        *first++ = enclosing;
        const Index here = next++;
        detail::write_enclosing_layers(layer_, first, next, here);
    }

    /// What a recorded pass leaves: which columns kept the layer, and the record of each way.
    struct Recorded {
        Index inputs = 0;
        detail::KeptColumns kept;
        detail::KeptColumns skipped;
        detail::Record<Layer> layer;
        detail::Record<Shortcut> shortcut;
    };
    using Cache = detail::RecordedPass<Recorded>;

    /// Gradient of the layer; the flags tell whether a sample has gone through the layer, or
    /// through the shortcut of a skipped one, since set_zero.
    struct Gradient {
        typename Layer::Gradient layer;
        bool reached = false;
        bool shortcut_reached = false;
        void set_zero() {
            if (reached || shortcut_reached) layer.set_zero();
            reached = shortcut_reached = false;
        }
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("StochasticDepth", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {layer_.zero_gradient()}; }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("StochasticDepth", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        recorded.inputs = flow.rows();
        split_columns(flow, mask, recorded);
        if (recorded.skipped.count == 0)
            return record_kept(flow, recorded, mask, mask.from(1), epilogue);
        if (recorded.kept.count == 0) return record_skipped(flow, recorded, mask, epilogue);
        detail::Flow<Scalar> kept = flow.gathered(recorded.kept);
        Index* const samples = flow.tape().template take<Index>(recorded.kept.count);
        for (Index k = 0; k < recorded.kept.count; ++k)
            samples[k] = mask.sample(recorded.kept.columns[k]);
        if constexpr (!skips_to_identity) {
            detail::Flow<Scalar> skipped = flow.gathered(recorded.skipped);
            flow.advance(flow.room(output_size(flow.rows())));
            record_skipped(skipped, recorded, mask, flow.scatter_into(recorded.skipped));
            skipped.give_back();
        }
        record_kept(kept, recorded, mask, mask.from(1).with(samples),
                    flow.scatter_into(recorded.kept));
        kept.give_back();
        flow.apply(epilogue);
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient& gradient,
                       const Epilogue& epilogue) const {
        gradient.reached = gradient.reached || recorded.kept.count > 0;
        gradient.shortcut_reached =
            gradient.shortcut_reached || (!skips_to_identity && recorded.skipped.count > 0);
        if (recorded.skipped.count == 0)
            return detail::backpropagate(layer_, slopes, recorded.layer, gradient.layer, epilogue);
        if (recorded.kept.count == 0)
            return backpropagate_skipped(slopes, recorded, gradient, epilogue);
        detail::Slopes<Scalar> kept = slopes.gathered(recorded.kept);
        if constexpr (std::is_same_v<Epilogue, detail::Discard>) {
            detail::backpropagate(layer_, kept, recorded.layer, gradient.layer, epilogue);
            if constexpr (!skips_to_identity) {
                detail::Slopes<Scalar> skipped = slopes.gathered(recorded.skipped);
                backpropagate_skipped(skipped, recorded, gradient, epilogue);
            }
        } else {
            if constexpr (!skips_to_identity) {
                detail::Slopes<Scalar> skipped = slopes.gathered(recorded.skipped);
                slopes = detail::Slopes<Scalar>(slopes.team(), recorded.inputs, slopes.columns());
                backpropagate_skipped(skipped, recorded, gradient,
                                      slopes.scatter_into(recorded.skipped));
            }
            detail::backpropagate(layer_, kept, recorded.layer, gradient.layer,
                                  slopes.scatter_into(recorded.kept));
            slopes.apply(epilogue);
        }
    }

    /// Nothing for a layer that no sample kept.
    void update_statistics(const Recorded& recorded) {
        if (recorded.kept.count > 0) detail::update_statistics(layer_, recorded.layer);
    }

    /// Where gradients are given, visits only what the first of them was reached by, or all if the
    /// visitor asks for it.
    template <class Self, class Visit>
    static void visit_parameters(Self& self, Visit&& visit) {
        detail::visit_parameters(self.layer_, visit);
    }
    template <class Self, class Visit, class First, class... More>
    static void visit_parameters(Self& self, Visit&& visit, First& gradient, More&... more) {
        if (gradient.reached || detail::visits_unreached(visit))
            detail::visit_parameters(self.layer_, visit, gradient.layer, more.layer...);
        else if constexpr (!skips_to_identity)
            if (gradient.shortcut_reached)
                Layer::visit_shortcut_parameters(self.layer_, visit, gradient.layer, more.layer...);
    }
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        detail::visit_state(self.layer_, visit);
    }

private:
    /// Lists the columns that keep the layer, and those that skip it.
    template <class Mask>
    static void split_columns(const detail::Flow<Scalar>& flow, const Mask& mask,
                              Recorded& recorded) {
        const Index batch = flow.columns();
        recorded.kept = recorded.skipped = {};
        if (mask.is_one_for_all()) {
            (mask.keeps(0) ? recorded.kept : recorded.skipped).count = batch;
            return;
        }
        Index* const kept = flow.tape().template take<Index>(batch);
        const Index count = mask.list_survivors(batch, kept);
        recorded.kept = {kept, count};
        // What goes on as it is needs no list.
        recorded.skipped = {nullptr, batch - count};
        if constexpr (!skips_to_identity) {
            Index* const skipped = flow.tape().template take<Index>(batch - count);
            detail::list_others(batch, kept, count, skipped);
            recorded.skipped.columns = skipped;
        }
    }

    /// The layer on columns that all keep it, with its branch multiplied as the mask says.
    template <class Mask, class Inside, class Epilogue>
    void record_kept(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                     const Inside& inside, const Epilogue& epilogue) const {
        if constexpr (detail::is_residual<Layer>)
            layer_.record_scaled(flow, recorded.layer, inside,
                                 static_cast<Scalar>(mask.scale(survival_probability_.value())),
                                 epilogue);
        else
            detail::record(layer_, flow, recorded.layer, inside, epilogue);
    }

    template <class Mask, class Epilogue>
    void record_skipped(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                        const Epilogue& epilogue) const {
        if constexpr (skips_to_identity)
            flow.apply(epilogue);
        else
            detail::record(shortcut(), flow, recorded.shortcut, mask.from(1), epilogue);
    }

    template <class Epilogue>
    void backpropagate_skipped(detail::Slopes<Scalar>& slopes, const Recorded& recorded,
                               Gradient& gradient, const Epilogue& epilogue) const {
        if constexpr (skips_to_identity)
            slopes.apply(epilogue);
        else
            detail::backpropagate(shortcut(), slopes, recorded.shortcut,
                                  detail::ShortcutOf<Layer>::gradient(gradient.layer), epilogue);
    }

    /// The same for every column.
    void run_all(detail::Activations<Scalar>& activations, const detail::MaskView& mask,
                 bool keeps) const {
        if (keeps)
            detail::propagate(layer_, activations, mask.from(1));
        else if constexpr (!skips_to_identity)
            activations.run(shortcut());
    }

    Layer layer_;
    SurvivalProbability survival_probability_;
};

}  // namespace stochastic_depth
