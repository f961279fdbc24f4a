// SPDX-License-Identifier: MIT
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/adapters/torch_module.hpp>
#include <stochastic_depth/adapters/torch_passes.hpp>
#include <stochastic_depth/adapters/torch_tensors.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/types.hpp>

/// Modules of LibTorch as layers. Needs LibTorch (the target stochastic_depth::libtorch), for which
/// reason it is not part of all.hpp.
namespace stochastic_depth {

/// A module of torch::nn, or a TorchScript module, as a layer: it is skipped, trained and summed
/// over all masks as the library's layers are, among them.
///
///     TorchLayer<float> block{torch::jit::load("block0.pt"), 64};
///     StochasticDepth layer{Residual{std::move(block)}, SurvivalProbability{0.8}};
///
/// The module's [batch x features] is the layer's [features x batch], the same numbers in memory;
/// of images it is [batch x channels x height x width] in LibTorch's channels_last. Outputs are
/// read where LibTorch has left them by what happens next to them: an addition, a store.
///
/// The module is one of inference always, in training too: `eval()`. Its dropout drops nothing, its
/// batch normalisations keep their running statistics. Gradients are autograd's. They go into the
/// layer's Gradient, so that the library's optimizers train its parameters; the module's own .grad
/// stays as it is. Parameters that require no gradient are not trained.
///
/// The layer shares the module with the caller who has made it, and a layer that is moved still
/// does; a copy has a module of its own. Whoever changes a shared module, or its mode, while passes
/// run breaks them.
///
/// What it can't promise: the same bits in any company (LibTorch's products depend on the number of
/// columns and of its threads), and passes without allocation. `forward` may run in many threads at
/// once if the module's own may, as those of torch::nn do; LibTorch's threads come on top
/// (`at::set_num_threads(1)`).
///
/// \tparam Scalar_  float or double: what the module computes in.
template <class Scalar_>
class TorchLayer : public LayerBase<TorchLayer<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;

    /// \param module  Takes [batch x inputs], returns [batch x outputs], or images. It is run twice,
    ///                to see what it returns.
    /// \param inputs  At least 1.
    /// \throws std::invalid_argument  if the module is empty, cannot take such a tensor, returns
    ///         something else than a tensor with a row for each of its rows, computed from that row
    ///         alone, computes in another type of numbers, or is not on the CPU.
    template <LibTorchModule Module>
    TorchLayer(const Module& module, Index inputs)
        : passes_(detail::AnyTorchModule(module), inputs, std::nullopt) {}
    /// \param images  What the module takes: [batch x channels x height x width].
    template <LibTorchModule Module>
    TorchLayer(const Module& module, const ImageShape& images)
        : passes_(detail::AnyTorchModule(module), images.size(), images) {}

    /// Sends the shapes of its images, if it has some, to its neighbours.
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        if (const auto& shape = passes_.input_shape())
            shapes.meet(who, detail::ShapeOfLayer::of(*this, *shape));
        if (const auto& shape = passes_.output_shape())
            shapes.become(detail::ShapeOfLayer::of(*this, *shape));
        else
            shapes.become(std::nullopt);
    }

    [[nodiscard]] std::string description() const {
        const auto text = [](const std::optional<ImageShape>& shape, Index size) {
            return shape ? detail::text_of(*shape) : detail::message(size);
        };
        return detail::message(passes_.name(), " ", text(passes_.input_shape(), passes_.inputs()),
                               " -> ", text(passes_.output_shape(), passes_.outputs()));
    }

    /// \throws std::invalid_argument  unless input_size is the number of inputs.
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size != passes_.inputs())
            detail::refuse(passes_.name(), ": input must have ", passes_.inputs(), " rows, got ",
                           input_size);
        return passes_.outputs();
    }

    /// At least a multiply-add for each parameter and position.
    [[nodiscard]] double work() const {
        auto numbers = static_cast<double>(std::max(passes_.inputs(), passes_.outputs()));
        module().for_each_tensor([&](const detail::NamedTensor& each) {
            numbers += static_cast<double>(each.tensor.numel());
        });
        const auto& images = passes_.output_shape();
        return numbers * static_cast<double>(images ? images->positions() : 1);
    }

    /// What autograd has recorded; after a pass that forgets, nothing.
    template <class Memory>
    struct Record {
        struct Nothing {};
        std::conditional_t<Memory::records, detail::TorchRecord<Scalar>, Nothing> pass;
    };

    /// By the parameters, in their order.
    struct Gradient {
        std::vector<Matrix<Scalar>> parameters;
        void set_zero() {
            for (Matrix<Scalar>& parameter : parameters) parameter.setZero();
        }
    };

    /// \throws std::invalid_argument  if a parameter is none that can be trained.
    [[nodiscard]] Gradient zero_gradient() const {
        Gradient gradient;
        for (const detail::NamedTensor& each : module().parameters()) {
            const auto entries = entries_of<const Scalar>(each);
            gradient.parameters.push_back(Matrix<Scalar>::Zero(entries.rows(), entries.cols()));
        }
        return gradient;
    }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        if (batch.lengths())
            detail::refuse(passes_.name(),
                           ": sequences must have one length; a module at each of their "
                           "positions is PerPosition{width, TorchLayer{...}}");
        const Index rows = output_size(batch.rows());
        if (batch.columns() == 0) {
            record.pass = {};
            batch = batch.room(rows);
            return batch.apply(epilogue);
        }
        if constexpr (Batch::records) {
            record.pass = passes_.record(batch.keep().view());
            batch = batch.stored_in(record.pass.outputs.view());
            batch.apply(epilogue);
        } else {
            const auto y = passes_.run(batch.current());
            hand_on(batch, y.view(), epilogue);
        }
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        check(gradient);
        if (batch.columns() == 0) {
            batch = batch.room(passes_.inputs());
            return batch.apply(epilogue);
        }
        constexpr bool is_wanted = !detail::is_discarded<Epilogue>;
        const auto dx = passes_.differentiate(
            record.pass, batch.current(), is_wanted,
            [&](std::size_t k, const torch::Tensor& slope) {
                gradient.parameters[k] += entries_of<const Scalar>({{}, slope});
            });
        if constexpr (is_wanted) hand_on(batch, dx.view(), epilogue);
    }

    /// Under the names that they have in the module.
    /// \throws std::invalid_argument  if one is none that can be trained.
    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        (self.check(gradients), ...);
        const auto& list = self.module().parameters();
        for (std::size_t k = 0; k < list.size(); ++k) {
            auto entries = self.template entries_of<Entry<Self>>(list[k]);
            visit(list[k].name.c_str(), entries, gradients.parameters[k]...);
        }
    }
    /// Buffers, and parameters that are not trained; whole numbers are left out.
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        for (const detail::NamedTensor& each : self.module().others()) {
            if (each.tensor.scalar_type() != detail::torch_type<Scalar>) continue;
            auto entries = self.template entries_of<Entry<Self>>(each);
            visit(each.name.c_str(), entries);
        }
    }

    /// As the module's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        module().for_each_tensor([&](const detail::NamedTensor& each) {
            if (each.name != form.name) return;
            form.shape.assign(each.tensor.sizes().begin(), each.tensor.sizes().end());
            form.strides.assign(each.tensor.strides().begin(), each.tensor.strides().end());
        });
        return form;
    }

private:
    [[nodiscard]] const detail::AnyTorchModule& module() const { return passes_.module(); }

    template <class Self>
    using Entry = std::conditional_t<std::is_const_v<Self>, const Scalar, Scalar>;

    /// batch = epilogue(numbers), which are another's.
    template <class Batch, class Epilogue>
    static void hand_on(Batch& batch, const detail::ConstView<Scalar>& numbers,
                        const Epilogue& epilogue) {
        Batch result = batch.stored_in(numbers);
        if constexpr (std::is_same_v<Epilogue, detail::AsIs>)
            (void)result.writable();
        else
            result.apply(epilogue);
        batch = std::move(result);
    }

    /// A tensor's numbers as they lie in memory; of a matrix, [inputs x outputs].
    template <class Entry>
    [[nodiscard]] auto entries_of(const detail::NamedTensor& each) const {
        using Entries =
            std::conditional_t<std::is_const_v<Entry>, const Matrix<Scalar>, Matrix<Scalar>>;
        if (!each.tensor.is_contiguous())
            detail::refuse(passes_.name(), ": ", each.name,
                           " must be contiguous where it is trained or saved");
        const Index size = each.tensor.numel();
        const Index columns = each.tensor.dim() < 2 || size == 0 ? 1 : each.tensor.size(0);
        return Eigen::Map<Entries>(each.tensor.template data_ptr<Scalar>(), size / columns,
                                   columns);
    }

    void check(const Gradient& gradient) const {
        const std::size_t parameters = module().parameters().size();
        if (gradient.parameters.size() != parameters)
            detail::refuse(passes_.name(), ": gradient must be by ", parameters,
                           " parameters, got ", gradient.parameters.size());
    }

    detail::TorchPasses<Scalar> passes_;
};

}  // namespace stochastic_depth
