// SPDX-License-Identifier: MIT
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/adapters/torch_module.hpp>
#include <stochastic_depth/adapters/torch_tensors.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/types.hpp>

/// Passes through a module of LibTorch, forward and back. Needs LibTorch, for which reason it is
/// not part of all.hpp.
namespace stochastic_depth::detail {

/// What autograd has recorded of a pass.
template <class Scalar>
struct TorchRecord {
    torch::Tensor x, y;
    TensorColumns<Scalar> outputs;
};

/// A module that takes and returns columns of known sizes. A value: a copy has a module of its own.
template <class Scalar>
class TorchPasses {
public:
    /// \param inputs  Rows of its input; of images, their size.
    /// \throws std::invalid_argument  as TorchLayer does.
    TorchPasses(AnyTorchModule module, Index inputs, const std::optional<ImageShape>& images)
        : module_(std::move(module)),
          name_(message("TorchLayer ", module_->name())),
          inputs_(inputs),
          input_(images) {
        if (images) check_image_shape(name_, "images", *images);
        if (inputs < 1) refuse(name_, ": inputs must be at least 1, got ", inputs);
        module_.for_each_tensor([&](const NamedTensor& each) {
            if (each.tensor.is_floating_point() || each.tensor.is_complex())
                check_tensor<Scalar>(name_, each.name, each.tensor);
        });
        try_out();
    }

    [[nodiscard]] const AnyTorchModule& module() const { return module_; }
    /// As messages call it.
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] Index inputs() const { return inputs_; }
    [[nodiscard]] Index outputs() const { return outputs_; }
    /// Where they are images.
    [[nodiscard]] const std::optional<ImageShape>& input_shape() const { return input_; }
    [[nodiscard]] const std::optional<ImageShape>& output_shape() const { return output_; }

    /// The module's output. x has at least one column.
    /// \throws std::runtime_error  if LibTorch throws, or the output is of another size.
    [[nodiscard]] TensorColumns<Scalar> run(const ConstView<Scalar>& x) const {
        return in_torch([&] {
            const WithoutGradients mode;
            const torch::Tensor input = as_tensor(x, input_);
            return TensorColumns<Scalar>(
                checked(module_->forward(writes_to_input_ ? input.clone() : input), x.cols()));
        });
    }

    /// The same, with what the way back needs. x must stay as it is until then.
    [[nodiscard]] TorchRecord<Scalar> record(const ConstView<Scalar>& x) const {
        return in_torch([&] {
            const WithGradients mode;
            const torch::Tensor input = as_tensor(x, input_).set_requires_grad(true);
            const torch::Tensor y =
                checked(module_->forward(writes_to_input_ ? input.clone() : input), x.cols());
            if (!y.requires_grad())
                throw std::runtime_error("output has no derivative that autograd knows");
            return TorchRecord<Scalar>{input, y, TensorColumns<Scalar>(y)};
        });
    }

    /// The gradient by the input, if that is wanted, given dy, that by the output. Calls
    /// add(k, slope) with that by parameter k, a tensor of its shape, for each of them.
    template <class Add>
    [[nodiscard]] TensorColumns<Scalar> differentiate(const TorchRecord<Scalar>& record,
                                                      const ConstView<Scalar>& dy, bool is_wanted,
                                                      const Add& add) const {
        std::vector<torch::Tensor> by;
        for (const NamedTensor& each : module_.parameters()) by.push_back(each.tensor);
        if (is_wanted) by.push_back(record.x);
        if (by.empty()) return {};
        const std::vector<torch::Tensor> slopes = in_torch([&] {
            const WithGradients mode;
            auto list = torch::autograd::grad({record.y}, by, {as_tensor(dy, output_)},
                                              /*retain_graph=*/true, /*create_graph=*/false,
                                              /*allow_unused=*/true);
            for (std::size_t k = 0; k < list.size(); ++k)
                if (!list[k].defined()) list[k] = torch::zeros_like(by[k]);
            return list;
        });
        for (std::size_t k = 0; k < module_.parameters().size(); ++k)
            add(k, slopes[k].contiguous());
        if (!is_wanted) return {};
        return TensorColumns<Scalar>(slopes.back());
    }

private:
    /// Whatever the caller's own mode is.
    struct WithoutGradients {
        c10::InferenceMode no_inference{false};
        torch::NoGradGuard no_gradients;
    };
    struct WithGradients {
        c10::InferenceMode no_inference{false};
        torch::AutoGradMode gradients{true};
    };

    /// Finds out what the module makes of two samples, and that one alone is the same to it.
    void try_out() {
        Matrix<Scalar> x(inputs_, 2);
        for (Index i = 0; i < x.size(); ++i)
            x.data()[i] = static_cast<Scalar>(std::sin(static_cast<double>(i + 1)));
        const Matrix<Scalar> first = x.leftCols(1);
        std::string sizes;
        torch::Tensor y;
        try {
            const WithoutGradients mode;
            const torch::Tensor input = as_tensor(const_view(x), input_);
            sizes = text_of_sizes(input);
            const auto version = input._version();
            y = module_->forward(input);
            writes_to_input_ = input._version() != version;
        } catch (const std::exception& error) {
            refuse(name_, ": module must take a tensor ", sizes,
                   " and return one: ", text_of_fault(error));
        }
        check_tensor<Scalar>(name_, "output", y);
        if ((y.dim() != 2 && y.dim() != 4) || y.size(0) != 2 || y.numel() == 0)
            refuse(name_,
                   ": output must be [batch x features] or [batch x channels x height x width], "
                   "with a batch of 2, got ",
                   text_of_sizes(y));
        outputs_ = y.numel() / 2;
        if (y.dim() == 4) output_ = ImageShape{y.size(1), y.size(2), y.size(3)};

        const Matrix<Scalar> both = TensorColumns<Scalar>(y).view();
        TensorColumns<Scalar> alone;
        try {
            alone = run(const_view(first));
        } catch (const std::runtime_error& error) {
            refuse(error.what(), ", of one sample alone");
        }
        for (Index i = 0; i < outputs_; ++i) {
            const Scalar a = alone.view()(i, 0), b = both(i, 0);
            const bool is_same = a == b || (std::isnan(a) && std::isnan(b));
            if (!is_same && !(std::abs(a - b) <= Scalar(1e-3) * std::max(Scalar(1), std::abs(a))))
                refuse(name_, ": output of a sample must depend on that sample alone, got ", a,
                       " by itself and ", b, " beside another");
        }
    }

    /// What LibTorch throws becomes the library's.
    template <class Call>
    auto in_torch(const Call& call) const {
        try {
            return call();
        } catch (const std::exception& error) {
            throw std::runtime_error(message(name_, ": ", text_of_fault(error)));
        }
    }

    /// \throws std::runtime_error  unless a module's output is of the shape that it was.
    [[nodiscard]] torch::Tensor checked(torch::Tensor y, Index batch) const {
        const bool fits = y.defined() && y.dim() == (output_ ? 4 : 2) && y.size(0) == batch &&
                          y.numel() == batch * outputs_ && y.scalar_type() == torch_type<Scalar>;
        if (!fits)
            throw std::runtime_error(message("output must have ", outputs_,
                                             " features for each of ", batch, " samples, got ",
                                             y.defined() ? text_of_sizes(y) : "none"));
        return y;
    }

    AnyTorchModule module_;
    std::string name_;
    Index inputs_;
    Index outputs_ = 0;
    std::optional<ImageShape> input_, output_;
    /// Whether the module writes to what it is given, which then must be a copy.
    bool writes_to_input_ = false;
};

}  // namespace stochastic_depth::detail
