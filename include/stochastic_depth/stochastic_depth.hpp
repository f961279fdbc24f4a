// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/walk.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

namespace stochastic_depth {
namespace detail {

/// Epilogue: x + p (value - x).
template <class Scalar>
struct Mix {
    const Scalar* x;
    Index x_stride;
    Scalar p;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index i, Index j) const {
        const P skipped = P::load(x + i + j * x_stride);
        return multiply_add(P::broadcast(p), value - skipped, skipped);
    }
};

}  // namespace detail

/// A skippable layer: kept with probability p, it is the layer; skipped, it is the layer's
/// shortcut, which is the identity for a layer that has none.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Eq. (2).
template <ForwardLayer Layer>
class StochasticDepth : public LayerBase<StochasticDepth<Layer>, typename Layer::Scalar, Layer> {
public:
    using Scalar = typename Layer::Scalar;
    using Shortcut = typename detail::ShortcutOf<Layer>::type;
    static constexpr bool is_skippable = true;
    static constexpr bool skips_more_than_a_branch = !detail::is_residual<Layer>;
    /// Whether a skipped layer hands its input on as it is.
    static constexpr bool skips_to_identity = std::is_same_v<Shortcut, Identity<Scalar>>;
    static_assert(!detail::has_skippable_layers<Shortcut>,
                  "what stands in for a skipped layer cannot be skipped itself");

    /// \throws std::invalid_argument  if the layer is an AnyLayer that holds a Residual, whose
    ///                                shortcut is out of reach here.
    StochasticDepth(Layer layer, SurvivalProbability survival_probability)
        : layer_(std::move(layer)), survival_probability_(survival_probability) {
        if constexpr (requires { layer_.hides_a_shortcut(); })
            if (layer_.hides_a_shortcut())
                detail::refuse("StochasticDepth: layer must not hide a Residual in an AnyLayer; "
                               "AnyLayer{StochasticDepth{Residual{...}, p}} knows its shortcut");
    }

    [[nodiscard]] const Layer& layer() const { return layer_; }
    [[nodiscard]] SurvivalProbability survival_probability() const { return survival_probability_; }
    /// What a skipped layer does instead.
    [[nodiscard]] decltype(auto) shortcut() const { return detail::ShortcutOf<Layer>::of(layer_); }

    [[nodiscard]] std::string description() const {
        return detail::message("StochasticDepth, survival probability ",
                               survival_probability_.value());
    }

    /// \throws std::invalid_argument  if the layer and its shortcut give different sizes.
    [[nodiscard]] Index output_size(Index input_size) const {
        const Index outputs = layer_.output_size(input_size);
        const Index skipped = shortcut().output_size(input_size);
        if (outputs != skipped)
            detail::refuse("StochasticDepth: layer must have ", skipped,
                           " outputs as its shortcut has, got ", outputs);
        return outputs;
    }

    /// What a pass leaves: which columns kept the layer, and the record of each way.
    template <class Memory>
    struct Record {
        /// An empty batch has gone one of the ways too.
        enum class Ways { layer, shortcut, each } ways = Ways::layer;
        Index inputs = 0;
        detail::ColumnList kept;
        detail::ColumnList skipped;
        detail::RecordOf<Layer, Memory> layer;
        detail::RecordOf<Shortcut, Memory> shortcut;
    };

    /// Gradient of the layer; the flags tell whether a sample has gone through the layer, or
    /// through the shortcut of a skipped one, since set_zero.
    struct Gradient {
        typename Layer::Gradient layer;
        bool reached = false;
        bool shortcut_reached = false;
        void set_zero() {
            if (reached || (shortcut_reached && !skips_to_identity)) layer.set_zero();
            reached = shortcut_reached = false;
        }
    };

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        if (mask.is_one_for_all())
            return run_all(batch, record, mask, mask.keeps(0), epilogue);
        const Index columns = batch.columns();
        // The columns that keep the layer, and the others; of a mask that renumbers, their samples;
        // of sequences, their lengths.
        const auto list = batch.template array<Index>(
            (mask.renumbers() ? 2 * columns : columns) + (batch.lengths() ? columns : 0));
        const Index kept = mask.list_survivors(columns, list.data());
        if (kept == 0 || kept == columns)
            return run_all(batch, record, mask, kept == columns, epilogue);
        detail::list_others(columns, list.data(), kept, list.data() + kept);
        record.ways = Record<typename Batch::Memory>::Ways::each;
        record.inputs = batch.rows();
        record.kept = {list.data(), kept};
        record.skipped = {list.data() + kept, columns - kept};
        Index* const samples = list.data() + columns;
        Index* const lengths = mask.renumbers() ? samples + columns : samples;
        const detail::SequenceLengths of_all = batch.lengths();
        each_way(
            batch, record, output_size(batch.rows()), epilogue,
            [&](Batch& part, const auto& behind) {
                part.set_lengths(of_all.gathered(record.kept.columns, kept, lengths));
                run_kept(part, record, mask, of_columns(mask.inside(), record.kept, samples),
                         behind);
            },
            [&](Batch& part, const auto& behind) {
                part.set_lengths(
                    of_all.gathered(record.skipped.columns, columns - kept, lengths + kept));
                run_skipped(part, record, of_columns(mask, record.skipped, samples + kept), behind);
            });
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        gradient.reached = gradient.reached || record.kept.count > 0;
        gradient.shortcut_reached =
            gradient.shortcut_reached || (!skips_to_identity && record.skipped.count > 0);
        using Ways = typename Record<detail::Records>::Ways;
        if (record.ways == Ways::layer)
            return detail::backpropagate(layer_, batch, record.layer, gradient.layer, epilogue);
        if (record.ways == Ways::shortcut)
            return backpropagate_skipped(batch, record, gradient, epilogue);
        each_way(
            batch, record, record.inputs, epilogue,
            [&](Batch& kept, const auto& behind) {
                detail::backpropagate(layer_, kept, record.layer, gradient.layer, behind);
            },
            [&](Batch& skipped, const auto& behind) {
                backpropagate_skipped(skipped, record, gradient, behind);
            });
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        visit(detail::Unnamed{}, self.layer_, others.layer...);
    }

    /// Where gradients are given, visits only what the first of them was reached by, or all if the
    /// visitor asks for it.
    template <class Self, class Visit>
    static void visit_parameters(Self& self, Visit&& visit) {
        detail::visit_parameters(self.layer_, visit);
    }
    template <class Self, class Visit, class First, class... More>
    static void visit_parameters(Self& self, Visit&& visit, First& gradient, More&... more) {
        detail::enter_skippable(visit, gradient.reached, gradient.shortcut_reached);
        if (gradient.reached || detail::visits_unreached(visit))
            detail::visit_parameters(self.layer_, visit, gradient.layer, more.layer...);
        else if constexpr (!skips_to_identity)
            if (gradient.shortcut_reached)
                detail::descend_into_parts(
                    self.layer_, visit,
                    [&]<class Part>(Part& part, auto&... of_part) {
                        if (static_cast<const void*>(&part) == &self.shortcut())
                            detail::visit_parameters(part, visit, of_part...);
                    },
                    gradient.layer, more.layer...);
        detail::leave_skippable(visit, gradient.reached, gradient.shortcut_reached);
    }

    /// Of the ways that a sample has gone.
    void update_statistics(const Record<detail::Records>& record) {
        if (record.kept.count > 0) detail::update_statistics(layer_, record.layer);
        if constexpr (detail::has_statistics<Shortcut>)
            if (record.skipped.count > 0)
                detail::for_each_part(layer_, [&]<class Part>(Part& part) {
                    if constexpr (std::is_same_v<Part, Shortcut>)
                        if (static_cast<const void*>(&part) == &shortcut())
                            detail::update_statistics(part, record.shortcut);
                });
    }

private:
    /// All columns the same way.
    template <class Batch, class Mask, class Epilogue>
    void run_all(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask, bool keep,
                 const Epilogue& epilogue) const {
        using Ways = typename Record<typename Batch::Memory>::Ways;
        record.ways = keep ? Ways::layer : Ways::shortcut;
        record.kept = {nullptr, keep ? batch.columns() : 0};
        record.skipped = {nullptr, keep ? 0 : batch.columns()};
        if (keep)
            run_kept(batch, record, mask, mask.inside(), epilogue);
        else
            run_skipped(batch, record, mask, epilogue);
    }

    /// The layer on columns that all keep it, with its branch multiplied as the mask says.
    template <class Batch, class Mask, class Inside, class Epilogue>
    void run_kept(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
                  const Inside& inside, const Epilogue& epilogue) const {
        const auto scale = static_cast<Scalar>(mask.scale(survival_probability_.value()));
        if constexpr (detail::is_residual<Layer>) {
            layer_.run_scaled(batch, record.layer, inside, scale, epilogue);
        } else if constexpr (Mask::takes_means) {
            if (scale == Scalar(1)) return detail::run(layer_, batch, record.layer, inside, epilogue);
            Batch layer = batch.shared();
            const auto x = batch.current();
            detail::run(layer_, layer, record.layer, inside,
                        detail::followed_by(
                            detail::Mix<Scalar>{x.data(), x.outerStride(), scale}, epilogue));
            batch = std::move(layer);
        } else {
            detail::run(layer_, batch, record.layer, inside, epilogue);
        }
    }

    template <class Batch, class Mask, class Epilogue>
    void run_skipped(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
                     const Epilogue& epilogue) const {
        if constexpr (skips_to_identity)
            batch.apply(epilogue);
        else
            detail::run(shortcut(), batch, record.shortcut, mask.inside().behind(layer_.branch()),
                        epilogue);
    }

    /// The mask of chosen columns. Samples that have other numbers are listed in `room`.
    template <class Mask>
    [[nodiscard]] static auto of_columns(const Mask& mask, const detail::ColumnList& chosen,
                                         Index* room) {
        if (!mask.renumbers()) return mask.of_samples(chosen.columns);
        for (Index k = 0; k < chosen.count; ++k) room[k] = mask.sample(chosen.columns[k]);
        return mask.of_samples(room);
    }

    /// Each column its own way, and then the epilogue: those that keep the layer, and, if they don't
    /// stay as they are, the others are gathered, and go back to their places.
    /// \param rows         Of the result.
    /// \param run_kept, run_skipped  Called with the columns, and their epilogue.
    template <class Batch, class Record, class Epilogue, class RunKept, class RunSkipped>
    void each_way(Batch& batch, const Record& record, Index rows, const Epilogue& epilogue,
                  const RunKept& run_kept, [[maybe_unused]] const RunSkipped& run_skipped) const {
        // No column of it is needed any more where its result goes.
        constexpr bool needs_no_room =
            detail::is_discarded<Epilogue> || detail::stores_elsewhere<Epilogue>;
        Batch kept = [&] {
            if constexpr (Batch::records && detail::reads_chosen_columns<Layer>)
                return batch.chosen(record.kept);
            else
                return batch.gathered(record.kept);
        }();
        if constexpr (!skips_to_identity) {
            Batch skipped = batch.gathered(record.skipped);
            if constexpr (!needs_no_room) batch = batch.room(rows);
            run_skipped(skipped, Batch::in_columns(record.skipped, epilogue, batch));
        } else if constexpr (!detail::is_discarded<Epilogue>) {
            if (needs_no_room || batch.owns()) {
                if constexpr (!std::is_same_v<Epilogue, detail::AsIs>)
                    batch.apply_to_columns(record.skipped, epilogue, batch);
            } else {
                Batch result = batch.room(rows);
                batch.apply_to_columns(record.skipped, epilogue, result);
                batch = std::move(result);
            }
        }
        run_kept(kept, Batch::in_columns(record.kept, epilogue, batch));
    }

    template <class Batch, class Epilogue>
    void backpropagate_skipped(Batch& batch, const Record<detail::Records>& record,
                               Gradient& gradient, const Epilogue& epilogue) const {
        if constexpr (skips_to_identity)
            batch.apply(epilogue);
        else
            detail::backpropagate(shortcut(), batch, record.shortcut, gradient.layer.shortcut,
                                  epilogue);
    }

    Layer layer_;
    SurvivalProbability survival_probability_;
};

}  // namespace stochastic_depth
