// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/batch.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/sequence_lengths.hpp>

namespace stochastic_depth {

/// A mean of a sequence's positions whose weights are learned: y, [width x batch], of x,
/// [width T x batch],
///
///     y = sum over t of a(t) x(t),  a = softmax(q^T x(t) / sqrt(width)),
///
/// over the positions that belong to the sequence. It begins with q = 0, as their mean.
///
/// \source Yang et al. 2016, Hierarchical Attention Networks for Document Classification, Eq. (6)
///         and (7), with the positions themselves as keys.
template <class Scalar_>
class AttentionPool : public LayerBase<AttentionPool<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;

    /// \param width  Numbers of a position, at least 1.
    /// \throws std::invalid_argument  if it is less.
    explicit AttentionPool(Index width) {
        if (width < 1) detail::refuse("AttentionPool: width must be at least 1, got ", width);
        query_.setZero(width);
    }
    /// \param query  [width], not empty.
    /// \throws std::invalid_argument  if it is.
    explicit AttentionPool(const Eigen::Ref<const Vector<Scalar>>& query)
        : AttentionPool(query.size()) {
        query_ = query;
    }

    [[nodiscard]] Index width() const { return query_.size(); }
    /// q, [width].
    [[nodiscard]] const Vector<Scalar>& query() const { return query_; }

    [[nodiscard]] std::string description() const {
        return detail::message("AttentionPool, width ", width());
    }

    /// \throws std::invalid_argument  unless input_size is a multiple of width().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size < 1 || input_size % width() != 0)
            detail::refuse("AttentionPool: input must have a multiple of ", width(), " rows, got ",
                           input_size);
        return width();
    }

    struct Gradient {
        Vector<Scalar> query;
        void set_zero() { query.setZero(); }
    };

    /// The input, and the weights a of each column's positions.
    template <class Memory>
    struct Record {
        detail::RecordedMatrix<Scalar> input;
        detail::SequenceLengths lengths;
        const double* weights = nullptr;
    };

    [[nodiscard]] Gradient zero_gradient() const {
        return {Vector<Scalar>::Zero(width())};
    }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        batch.flatten();
        Batch result = batch.room(output_size(batch.rows()));
        const auto x = batch.current();
        const Index in_column = x.rows() / width();
        const detail::SequenceLengths lengths = batch.lengths();
        const auto weights = batch.template array<double>(in_column * x.cols());
        auto y = result.writable();
        batch.team().split(x.cols(), 1, work_of(x.rows()), [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j)
                pool(x.data() + j * x.outerStride(),
                     detail::length_of_sequence(lengths, j, in_column),
                     weights.data() + j * in_column, y.data() + j * y.outerStride());
        });
        if constexpr (Batch::records) record = {batch.keep(), lengths, weights.data()};
        batch = std::move(result);
        batch.set_lengths({});
        batch.apply(epilogue);
    }

    /// With b(t) = dy^T x(t) and c(t) = a(t) (b(t) - sum over s of a(s) b(s)) / sqrt(width):
    ///
    ///     dx(t) = a(t) dy + c(t) q,  dq += sum over t of c(t) x(t).
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        if (gradient.query.size() != width())
            detail::refuse("AttentionPool: gradient must have ", width(), " entries, got ",
                           gradient.query.size());
        const auto x = record.input.view();
        const auto dy = batch.current();
        const Index in_column = x.rows() / width();
        Batch result = batch.room(x.rows());
        auto dx = result.writable();
        // A column for each sample, added up in order.
        const detail::ScratchArray<double> by_query(width() * x.cols());
        batch.team().split(x.cols(), 1, 2 * work_of(x.rows()), [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j)
                differentiate(x.data() + j * x.outerStride(),
                              detail::length_of_sequence(record.lengths, j, in_column),
                              record.weights + j * in_column, dy.data() + j * dy.outerStride(),
                              dx.data() + j * dx.outerStride(), x.rows(),
                              by_query.data() + j * width());
        });
        for (Index i = 0; i < width(); ++i) {
            double sum = 0;
            for (Index j = 0; j < x.cols(); ++j) sum += by_query[j * width() + i];
            gradient.query(i) += static_cast<Scalar>(sum);
        }
        if constexpr (detail::is_discarded<Epilogue>) return;
        batch = std::move(result);
        batch.apply(epilogue);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("query", self.query_, gradients.query...);
    }

private:
    [[nodiscard]] static double work_of(Index numbers) {
        return 4 * detail::work_of_moving * static_cast<double>(numbers);
    }

    // Not inlined: how a compiler contracts products and sums would depend on the place.
    [[nodiscard, gnu::noinline]] double dot(const Scalar* a, const Scalar* b) const {
        double sum = 0;
        for (Index i = 0; i < width(); ++i)
            sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
        return sum;
    }

    [[gnu::noinline]] void pool(const Scalar* x, Index length, double* weights, Scalar* y) const {
        const double scale = 1 / std::sqrt(static_cast<double>(width()));
        double largest = -std::numeric_limits<double>::infinity();
        for (Index t = 0; t < length; ++t) {
            weights[t] = scale * dot(query_.data(), x + t * width());
            largest = std::max(largest, weights[t]);
        }
        double sum = 0;
        for (Index t = 0; t < length; ++t) sum += weights[t] = std::exp(weights[t] - largest);
        const detail::ScratchArray<double> means(width());
        std::fill_n(means.data(), width(), 0.0);
        for (Index t = 0; t < length; ++t) {
            weights[t] /= sum;
            for (Index i = 0; i < width(); ++i)
                means[i] += weights[t] * static_cast<double>(x[t * width() + i]);
        }
        for (Index i = 0; i < width(); ++i) y[i] = static_cast<Scalar>(means[i]);
    }

    [[gnu::noinline]] void differentiate(const Scalar* x, Index length, const double* weights,
                                         const Scalar* dy, Scalar* dx, Index rows,
                                         double* by_query) const {
        const double scale = 1 / std::sqrt(static_cast<double>(width()));
        const detail::ScratchArray<double> slopes(length);
        double mean = 0;
        for (Index t = 0; t < length; ++t) {
            slopes[t] = dot(dy, x + t * width());
            mean += weights[t] * slopes[t];
        }
        std::fill_n(by_query, width(), 0.0);
        for (Index t = 0; t < length; ++t) {
            const double slope = scale * weights[t] * (slopes[t] - mean);
            const Scalar* const from = x + t * width();
            for (Index i = 0; i < width(); ++i) {
                by_query[i] += slope * static_cast<double>(from[i]);
                dx[t * width() + i] =
                    static_cast<Scalar>(weights[t] * static_cast<double>(dy[i]) +
                                        slope * static_cast<double>(query_(i)));
            }
        }
        std::fill(dx + length * width(), dx + rows, Scalar(0));
    }

    Vector<Scalar> query_;
};

}  // namespace stochastic_depth
