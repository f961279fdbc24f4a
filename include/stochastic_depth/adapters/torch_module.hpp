// SPDX-License-Identifier: MIT
#pragma once

#include <torch/script.h>
#include <torch/torch.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/adapters/torch_tensors.hpp>
#include <stochastic_depth/detail/check.hpp>

/// LibTorch's modules, of whatever kind. Needs LibTorch, for which reason it is not part of
/// all.hpp.
namespace stochastic_depth {

/// A module of torch::nn that takes one tensor and returns one.
template <class Module>
concept TorchNnModule = std::derived_from<Module, torch::nn::Module> &&
    requires(Module& module, const torch::Tensor& x) {
    { module.forward(x) } -> std::same_as<torch::Tensor>;
};

namespace detail {

struct NamedTensor {
    std::string name;
    torch::Tensor tensor;
};

/// What is asked of a module.
class TorchModule {
public:
    virtual ~TorchModule() = default;
    /// Of its type.
    [[nodiscard]] virtual std::string name() const = 0;
    [[nodiscard]] virtual torch::Tensor forward(const torch::Tensor& x) const = 0;
    /// A module of the same, with tensors of its own.
    [[nodiscard]] virtual std::unique_ptr<TorchModule> clone() const = 0;
    /// Parameters and, behind them, buffers; those of its submodules too.
    [[nodiscard]] virtual std::vector<NamedTensor> tensors() const = 0;
};

[[nodiscard]] inline std::vector<NamedTensor> tensors_of(const torch::nn::Module& module) {
    std::vector<NamedTensor> list;
    for (const auto& each : module.named_parameters()) list.push_back({each.key(), each.value()});
    for (const auto& each : module.named_buffers()) list.push_back({each.key(), each.value()});
    return list;
}

/// A module of torch::nn whose type is known.
template <class Module>
class TorchNnModel : public TorchModule {
public:
    explicit TorchNnModel(std::shared_ptr<Module> module) : module_(std::move(module)) {
        module_->eval();
    }

    [[nodiscard]] std::string name() const override { return module_->name(); }
    [[nodiscard]] torch::Tensor forward(const torch::Tensor& x) const override {
        return module_->forward(x);
    }
    [[nodiscard]] std::unique_ptr<TorchModule> clone() const override {
        auto copy = std::dynamic_pointer_cast<Module>(module_->clone());
        if (!copy) throw std::runtime_error("its clone() is of another type");
        return std::make_unique<TorchNnModel>(std::move(copy));
    }
    [[nodiscard]] std::vector<NamedTensor> tensors() const override { return tensors_of(*module_); }

private:
    std::shared_ptr<Module> module_;
};

/// One whose type LibTorch has erased.
class TorchAnyModel : public TorchModule {
public:
    explicit TorchAnyModel(torch::nn::AnyModule module) : module_(std::move(module)) {
        module_.ptr()->eval();
    }

    [[nodiscard]] std::string name() const override { return module_.ptr()->name(); }
    [[nodiscard]] torch::Tensor forward(const torch::Tensor& x) const override {
        // It has no const way, and changes nothing.
        return const_cast<torch::nn::AnyModule&>(module_).forward(x);
    }
    [[nodiscard]] std::unique_ptr<TorchModule> clone() const override {
        return std::make_unique<TorchAnyModel>(module_.clone());
    }
    [[nodiscard]] std::vector<NamedTensor> tensors() const override {
        return tensors_of(*module_.ptr());
    }

private:
    torch::nn::AnyModule module_;
};

/// A TorchScript module.
class TorchScriptModel : public TorchModule {
public:
    /// \param module  Has a method forward.
    explicit TorchScriptModel(torch::jit::Module module)
        : module_(std::move(module)), forward_(module_.get_method("forward")) {
        module_.eval();
    }

    [[nodiscard]] std::string name() const override { return module_.type()->name()->name(); }
    [[nodiscard]] torch::Tensor forward(const torch::Tensor& x) const override {
        const torch::jit::IValue result = forward_({x});
        if (!result.isTensor())
            throw std::runtime_error(message("it must return a tensor, got ", result.tagKind()));
        return result.toTensor();
    }
    [[nodiscard]] std::unique_ptr<TorchModule> clone() const override {
        // Else copies of parameters would be results of an operation on them.
        const torch::NoGradGuard no_gradients;
        return std::make_unique<TorchScriptModel>(module_.deepcopy());
    }
    [[nodiscard]] std::vector<NamedTensor> tensors() const override {
        std::vector<NamedTensor> list;
        for (const auto& each : module_.named_parameters()) list.push_back({each.name, each.value});
        for (const auto& each : module_.named_buffers()) list.push_back({each.name, each.value});
        return list;
    }

private:
    torch::jit::Module module_;
    torch::jit::Method forward_;
};

/// A module of any kind, as a value: a copy has tensors of its own.
class AnyTorchModule {
public:
    // Each shares the module with its caller.
    /// \throws std::invalid_argument  if the module is empty.
    explicit AnyTorchModule(const torch::jit::Module& module) {
        if (!module.find_method("forward"))
            refuse("TorchLayer: module must have a method forward, got a script without");
        hold(std::make_unique<TorchScriptModel>(module));
    }
    explicit AnyTorchModule(const torch::nn::AnyModule& module) {
        check_is_there(!module.is_empty());
        hold(std::make_unique<TorchAnyModel>(module));
    }
    template <class Module>
    explicit AnyTorchModule(const std::shared_ptr<Module>& module) {
        static_assert(TorchNnModule<Module>,
                      "a module as a layer must have a member forward that takes one torch::Tensor "
                      "and returns one");
        check_is_there(module != nullptr);
        hold(std::make_unique<TorchNnModel<Module>>(module));
    }
    template <class Module>
    explicit AnyTorchModule(const torch::nn::ModuleHolder<Module>& module)
        : AnyTorchModule(module.is_empty() ? std::shared_ptr<Module>{} : module.ptr()) {}

    /// \throws std::invalid_argument  if the module can't be cloned.
    AnyTorchModule(const AnyTorchModule& other) {
        hold(clone_of(*other.module_));
        // Which parameters are trained is no part of what LibTorch clones.
        const auto from = other.module_->tensors(), to = module_->tensors();
        for (std::size_t k = 0; k < from.size() && k < to.size(); ++k)
            if (to[k].tensor.defined() && to[k].tensor.is_floating_point())
                to[k].tensor.set_requires_grad(from[k].tensor.requires_grad());
        hold(std::move(module_));
    }
    AnyTorchModule(AnyTorchModule&&) noexcept = default;
    AnyTorchModule& operator=(const AnyTorchModule& other) { return *this = AnyTorchModule(other); }
    AnyTorchModule& operator=(AnyTorchModule&&) noexcept = default;
    ~AnyTorchModule() = default;

    [[nodiscard]] const TorchModule* operator->() const { return module_.get(); }
    /// Parameters that are trained: those that require a gradient.
    [[nodiscard]] const std::vector<NamedTensor>& parameters() const { return parameters_; }
    /// Other parameters, and buffers.
    [[nodiscard]] const std::vector<NamedTensor>& others() const { return others_; }

    template <class Visit>
    void for_each_tensor(const Visit& visit) const {
        for (const NamedTensor& each : parameters_) visit(each);
        for (const NamedTensor& each : others_) visit(each);
    }

private:
    static void check_is_there(bool is_there) {
        if (!is_there) refuse("TorchLayer: module must not be empty");
    }

    [[nodiscard]] static std::unique_ptr<TorchModule> clone_of(const TorchModule& module) {
        try {
            return module.clone();
        } catch (const std::exception& error) {
            refuse("TorchLayer ", module.name(),
                   ": module must be one that can be cloned, where the layer is copied: ",
                   text_of_fault(error));
        }
    }

    /// Takes a module, and lists what it is made of.
    void hold(std::unique_ptr<TorchModule> module) {
        module_ = std::move(module);
        parameters_.clear();
        others_.clear();
        for (NamedTensor& each : module_->tensors()) {
            if (!each.tensor.defined()) continue;
            // A tied parameter is there once, under its first name.
            const auto is_known = [&](const NamedTensor& other) {
                return other.tensor.is_same(each.tensor);
            };
            auto& list = each.tensor.requires_grad() ? parameters_ : others_;
            if (std::none_of(list.begin(), list.end(), is_known)) list.push_back(std::move(each));
        }
    }

    std::unique_ptr<TorchModule> module_;
    std::vector<NamedTensor> parameters_, others_;
};

}  // namespace detail

/// What can be a layer: a torch::jit::Module, a torch::nn::AnyModule, a holder or a shared_ptr of a
/// TorchNnModule.
template <class Module>
concept LibTorchModule = std::constructible_from<detail::AnyTorchModule, const Module&>;

}  // namespace stochastic_depth
