// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>
#include <torch/torch.h>

#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/types.hpp>

/// LibTorch's tensors as this library's matrices, and the other way round, the same numbers in
/// memory. Needs LibTorch, for which reason it is not part of all.hpp.
namespace stochastic_depth::detail {

template <class Scalar>
inline constexpr c10::ScalarType torch_type = c10::CppTypeToScalarType<Scalar>::value;

/// [features x batch] as a tensor [batch x features]; of images, [batch x channels x height x
/// width], which LibTorch calls channels_last. It reads x where it is, and is not to be written to.
template <class Scalar>
[[nodiscard]] torch::Tensor as_tensor(const ConstView<Scalar>& x,
                                      const std::optional<ImageShape>& image) {
    Scalar* const first = const_cast<Scalar*>(x.data());
    if (!image)
        return torch::from_blob(first, {x.cols(), x.rows()}, {x.outerStride(), 1},
                                torch_type<Scalar>);
    const Index c = image->channels, w = image->width;
    return torch::from_blob(first, {x.cols(), c, image->height, w}, {x.outerStride(), 1, c * w, c},
                            torch_type<Scalar>);
}

/// A tensor [batch x features] or [batch x channels x height x width] as columns: its own numbers
/// where they lie as those do, else a copy's.
template <class Scalar>
class TensorColumns {
public:
    TensorColumns() = default;
    explicit TensorColumns(const torch::Tensor& tensor) : numbers_(tensor.detach()) {
        if (numbers_.dim() == 4) numbers_ = numbers_.permute({0, 2, 3, 1}).contiguous().flatten(1);
        const bool side_by_side = numbers_.size(1) <= 1 || numbers_.stride(1) == 1;
        const bool apart = numbers_.size(0) <= 1 || numbers_.stride(0) >= numbers_.size(1);
        if (!side_by_side || !apart) numbers_ = numbers_.contiguous();
    }

    /// [features x batch]; as long as this lives.
    [[nodiscard]] ConstView<Scalar> view() const {
        const Index rows = numbers_.size(1), columns = numbers_.size(0);
        return {numbers_.data_ptr<Scalar>(), rows, columns,
                Eigen::OuterStride<>(columns <= 1 ? rows : numbers_.stride(0))};
    }

private:
    torch::Tensor numbers_;
};

/// "[2 x 3]".
[[nodiscard]] inline std::string text_of_sizes(const torch::Tensor& tensor) {
    std::string text = "[";
    for (const auto size : tensor.sizes()) {
        if (text.size() > 1) text += " x ";
        text += message(size);
    }
    return text += "]";
}

/// Refuses a tensor that a layer of this Scalar can't read.
template <class Scalar>
void check_tensor(std::string_view who, std::string_view what, const torch::Tensor& tensor) {
    if (!tensor.defined()) refuse(who, ": ", what, " must be a tensor, got an undefined one");
    if (!tensor.device().is_cpu())
        refuse(who, ": ", what, " must be on the CPU, got one on ", tensor.device().str());
    if (tensor.layout() != torch::kStrided)
        refuse(who, ": ", what, " must be dense, got one of another layout");
    if (tensor.scalar_type() != torch_type<Scalar>)
        refuse(who, ": ", what, " must be of ", c10::toString(torch_type<Scalar>), ", got ",
               c10::toString(tensor.scalar_type()));
}

/// What LibTorch says of a fault, without where in LibTorch it was met: of a script's, which come
/// with the lines that led there, what was wrong with the last one.
[[nodiscard]] inline std::string text_of_fault(const std::exception& error) {
    const auto* const of_torch = dynamic_cast<const c10::Error*>(&error);
    std::string_view text = of_torch ? of_torch->what_without_backtrace() : error.what();
    for (const std::string_view cause : {"\nRuntimeError: ", "\nbuiltins.Exception: "})
        if (const auto at = text.rfind(cause); at != std::string_view::npos)
            text.remove_prefix(at + cause.size());
    return std::string(text.substr(0, text.find('\n')));
}

}  // namespace stochastic_depth::detail
