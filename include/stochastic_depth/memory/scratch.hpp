// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <stochastic_depth/memory/pool.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// `size` uninitialised numbers of this thread's pool, for as long as the object lives.
template <class Number>
class ScratchArray {
    static_assert(std::is_trivially_copyable_v<Number>, "scratch memory holds plain numbers");

public:
    explicit ScratchArray(Index size)
        : size_(static_cast<std::size_t>(size) * sizeof(Number)), bytes_(Pool::take(size_)) {}
    ScratchArray(ScratchArray&& other) noexcept : ScratchArray(0) { *this = std::move(other); }
    ScratchArray& operator=(ScratchArray&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~ScratchArray() { Pool::give_back(bytes_, size_); }

    [[nodiscard]] Number* data() const { return reinterpret_cast<Number*>(bytes_); }
    [[nodiscard]] Number& operator[](Index i) const { return data()[i]; }

private:
    std::size_t size_;
    std::byte* bytes_;
};

/// A matrix [rows x columns] in this thread's pool.
template <class Scalar>
class ScratchMatrix {
public:
    ScratchMatrix(Index rows, Index columns)
        : memory_(rows * columns), matrix_(memory_.data(), rows, columns) {}

    [[nodiscard]] Eigen::Map<Matrix<Scalar>>& operator*() { return matrix_; }
    [[nodiscard]] Eigen::Map<Matrix<Scalar>>* operator->() { return &matrix_; }

private:
    ScratchArray<Scalar> memory_;
    Eigen::Map<Matrix<Scalar>> matrix_;
};

}  // namespace stochastic_depth::detail
