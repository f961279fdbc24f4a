// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A number for each output of each sample, for each skippable layer.
template <class Scalar>
class ByLayer {
public:
    ByLayer() = default;

    /// Zeros for `layers` layers, [outputs x batch] each.
    ByLayer(Index outputs, Index batch, Index layers)
        : outputs_(outputs),
          batch_(batch),
          values_(Matrix<Scalar>::Zero(outputs * batch, layers)) {}

    [[nodiscard]] Index layers() const { return values_.cols(); }

    /// The numbers of layer l, [outputs x batch].
    /// \throws std::invalid_argument  unless 0 <= l < layers().
    [[nodiscard]] Eigen::Map<const Matrix<Scalar>> of(Index l) const {
        if (!(l >= 0 && l < layers()))
            detail::refuse("ByLayer: layer must lie in [0, ", layers(), "), got ", l);
        return {values_.col(l).data(), outputs_, batch_};
    }

    /// For a scalar of the outputs with these slopes: sum_ij slopes(i, j) of(l)(i, j) for each l,
    /// summed in double.
    /// \param slopes  [outputs x batch].
    /// \throws std::invalid_argument  if sizes differ.
    [[nodiscard]] Eigen::VectorXd contract(const ConstMatrixRef<Scalar>& slopes) const {
        if (slopes.rows() != outputs_ || slopes.cols() != batch_)
            detail::refuse("ByLayer: slopes must be [", outputs_, " x ", batch_, "], got [",
                           slopes.rows(), " x ", slopes.cols(), "]");
        Eigen::VectorXd sums(layers());
        for (Index l = 0; l < layers(); ++l)
            sums(l) =
                of(l).template cast<double>().cwiseProduct(slopes.template cast<double>()).sum();
        return sums;
    }

    /// All of them, [outputs batch x layers].
    [[nodiscard]] Matrix<Scalar>& values() { return values_; }
    [[nodiscard]] const Matrix<Scalar>& values() const { return values_; }

private:
    Index outputs_ = 0;
    Index batch_ = 0;
    Matrix<Scalar> values_;
};

/// A number for each output of each sample, for each pair of different skippable layers.
template <class Scalar>
class ByPair {
public:
    ByPair() = default;

    /// Zeros for all pairs of `layers` layers, [outputs x batch] each.
    ByPair(Index outputs, Index batch, Index layers)
        : outputs_(outputs),
          batch_(batch),
          layers_(layers),
          values_(Matrix<Scalar>::Zero(outputs * batch,
                                       std::max<Index>(layers * (layers - 1) / 2, 0))) {}

    [[nodiscard]] Index layers() const { return layers_; }

    /// The numbers of the pair {l, m}, [outputs x batch].
    /// \throws std::invalid_argument  unless l and m differ and lie in [0, layers()).
    [[nodiscard]] Eigen::Map<const Matrix<Scalar>> of(Index l, Index m) const {
        for (const Index layer : {l, m})
            if (!(layer >= 0 && layer < layers_))
                detail::refuse("ByPair: layer must lie in [0, ", layers_, "), got ", layer);
        if (l == m) detail::refuse("ByPair: the layers of a pair must differ, got ", l, " twice");
        return {values_.col(column(l, m)).data(), outputs_, batch_};
    }

    /// The numbers of the pair {l, m}, to be written, [outputs batch].
    [[nodiscard]] auto set(Index l, Index m) { return values_.col(column(l, m)); }

private:
    [[nodiscard]] static Index column(Index l, Index m) {
        const Index later = std::max(l, m);
        return later * (later - 1) / 2 + std::min(l, m);
    }

    Index outputs_ = 0;
    Index batch_ = 0;
    Index layers_ = 0;
    Matrix<Scalar> values_;
};

}  // namespace stochastic_depth
