// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <tuple>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// What is done to the samples of a batch before a training step sees them:
/// `augmentation.apply(epoch, samples, x, y)` writes y(:, j), what epoch `epoch` sees of sample
/// samples[j], whose inputs are x(:, j).
///
/// Beyond the syntax: each column of y is a function of (epoch, sample, column of x) alone, and of
/// what the augmentation was made with (a seed), all of y is written, and `apply` changes nothing
/// else. Then no batch, thread or restart can change a training.
///
/// Models: ImageAugmentation; a user's type that has the member. Taken by
/// TrainerOptions::augmentation. The smallest:
///
///     struct Mirror {
///         void apply(std::uint64_t epoch, std::span<const Index> samples,
///                    const ConstMatrixRef<float>& x, MatrixRef<float> y) const {
///             y = epoch % 2 ? -x : x;
///         }
///     };
template <class Augmentation, class Scalar>
concept AugmentationOf =
    requires(const Augmentation& augmentation, std::uint64_t epoch, std::span<const Index> samples,
             const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) {
    augmentation.apply(epoch, samples, x, y);
};

/// An augmentation of any type, as the options of a training hold it, or none.
class AnyAugmentation {
    template <class Scalar>
    using Apply = std::function<void(std::uint64_t, std::span<const Index>,
                                     const ConstMatrixRef<Scalar>&, MatrixRef<Scalar>)>;
    using Functions = std::tuple<Apply<float>, Apply<double>, Apply<long double>>;

public:
    /// None: a step sees the samples as they are.
    AnyAugmentation() = default;

    template <class Augmentation>
        requires(!std::same_as<Augmentation, AnyAugmentation> &&
                 (AugmentationOf<Augmentation, float> || AugmentationOf<Augmentation, double> ||
                  AugmentationOf<Augmentation, long double>))
    AnyAugmentation(Augmentation augmentation) {
        const auto shared = std::make_shared<const Augmentation>(std::move(augmentation));
        set<float>(shared);
        set<double>(shared);
        set<long double>(shared);
    }

    /// Whether there is an augmentation.
    [[nodiscard]] explicit operator bool() const {
        return std::apply([](const auto&... apply) { return (bool(apply) || ...); }, functions_);
    }

    /// \throws std::invalid_argument  if there is one, and it takes no such numbers.
    template <class Scalar>
    void check_takes() const {
        if (*this && !std::get<Apply<Scalar>>(functions_))
            detail::refuse("Trainer: augmentation must take numbers of ", sizeof(Scalar),
                           " bytes as the network, got one that does not");
    }

    /// See AugmentationOf; there must be one, and of such numbers.
    template <class Scalar>
    void apply(std::uint64_t epoch, std::span<const Index> samples,
               const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        std::get<Apply<Scalar>>(functions_)(epoch, samples, x, y);
    }

private:
    template <class Scalar, class Augmentation>
    void set(const std::shared_ptr<const Augmentation>& shared) {
        if constexpr (AugmentationOf<Augmentation, Scalar>)
            std::get<Apply<Scalar>>(functions_) =
                [shared](std::uint64_t epoch, std::span<const Index> samples,
                         const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) {
                    shared->apply(epoch, samples, x, y);
                };
    }

    Functions functions_;
};

}  // namespace stochastic_depth
