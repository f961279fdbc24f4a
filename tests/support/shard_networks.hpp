// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/pass/protocol.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/sgd.hpp>

#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"

/// What batches that are cut into shards are tested on.
namespace stochastic_depth::test {

/// Plain layers around skippable ones, with batch normalisation, dropout, layers inside layers, and one
/// that is always kept: 4 inputs, 3 classes.
[[nodiscard]] inline auto network_for_shards(std::uint64_t seed) {
    Philox random{seed};
    const auto linear = [&](Index inputs, Index outputs) {
        return Linear<float>{inputs, outputs, random, 1.0};
    };
    const auto block = [&](double p) {
        return StochasticDepth{Residual{Sequential{linear(6, 6), BatchNorm<float>{6}, ReLU<float>{},
                                                   Dropout<float>{0.3}, linear(6, 6)}},
                               SurvivalProbability{p}};
    };
    return Sequential{linear(4, 6), Stack{std::vector{block(0.4), block(1.0), block(0.2)}},
                      StochasticDepth{Residual{Sequential{linear(6, 6), block(0.5)}},
                                      SurvivalProbability{0.6}},
                      linear(6, 3)};
}
using NetworkForShards = decltype(network_for_shards(0));

struct LabelledBatch {
    Matrix<float> x;
    Eigen::VectorXi labels;
};
/// For that network, of step t.
[[nodiscard]] inline LabelledBatch batch_for_shards(Index samples, std::uint64_t t) {
    Philox random{1000 + t};
    Matrix<float> x = random_matrix<float>(random, 4, samples);
    return {std::move(x), random_labels(random, samples, 3)};
}

/// The bits of all that training leaves of a network.
using Bits = std::vector<std::uint32_t>;
template <class Network>
[[nodiscard]] Bits bits_of(const Network& network) {
    Bits numbers;
    const auto add = [&](const char*, const auto& matrix) {
        for (Index i = 0; i < matrix.size(); ++i)
            numbers.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(matrix.data()[i])));
    };
    detail::visit_parameters(network, add);
    detail::visit_state(network, add);
    return numbers;
}

/// What steps of Sgd make of that network, in batches of so many samples; `losses` has their losses.
/// \param step_of  Makes what computes the steps, of a network.
template <class StepOf>
[[nodiscard]] Bits trained_in_shards(const StepOf& step_of, Index samples, std::uint64_t steps,
                                     std::vector<double>& losses) {
    NetworkForShards network = network_for_shards(1);
    auto step = step_of(network);
    Sgd optimizer{network, {.learning_rate = 0.01, .momentum = 0.5}};
    for (std::uint64_t t = 0; t < steps; ++t) {
        const LabelledBatch batch = batch_for_shards(samples, t);
        losses.push_back(step.differentiate(network, batch.x, batch.labels, t).loss);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
    }
    return bits_of(network);
}

/// A layer of the user's, y = x + shift.
struct Shift {
    using Scalar = float;
    using Cache = detail::NoCache;
    struct Gradient {
        Eigen::VectorXf shift;
        void set_zero() { shift.setZero(); }
    };
    Eigen::VectorXf shift = Eigen::VectorXf::Zero(4);

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    [[nodiscard]] Gradient zero_gradient() const { return {Eigen::VectorXf::Zero(shift.size())}; }
    void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y) const {
        y = x.colwise() + shift;
    }
    void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y, Cache&) const {
        forward(x, y);
    }
    void backward(const ConstMatrixRef<float>&, const ConstMatrixRef<float>& dy, const Cache&,
                  Gradient& gradient, MatrixRef<float> dx) const {
        gradient.shift += dy.rowwise().sum();
        dx = dy;
    }
    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("shift", self.shift, gradients.shift...);
    }
};

/// A loss of the user's: the mean of |error|^3.
struct Cubes {
    using Targets = Matrix<float>;
    double value_and_gradient(const ConstMatrixRef<float>& output, const Targets& targets,
                              MatrixRef<float> gradient) const {
        const auto samples = static_cast<float>(output.cols());
        const Matrix<float> error = output - targets;
        gradient = error.array().square() * error.array().sign() * 3 / samples;
        return static_cast<double>(error.array().abs().cube().sum() / samples);
    }
};

/// A loss of the user's with targets of the user's, which can be cut: the squared distance from an
/// interval for each output.
struct OutsideInterval {
    struct Targets {
        Matrix<float> centres;
        Eigen::VectorXf widths;  // of each sample

        [[nodiscard]] Index samples() const { return widths.size(); }
        void take(const Targets& from, Index first, Index count) {
            centres = from.centres.middleCols(first, count);
            widths = from.widths.segment(first, count);
        }
    };
    double value_and_gradient(const ConstMatrixRef<float>& output, const Targets& targets,
                              MatrixRef<float> gradient) const {
        const auto samples = static_cast<float>(output.cols());
        const Matrix<float> error = output - targets.centres;
        const Matrix<float> outside =
            (error.cwiseAbs().rowwise() - targets.widths.transpose()).cwiseMax(0);
        gradient = outside.array() * error.array().sign() * 2 / samples;
        return static_cast<double>(outside.squaredNorm() / samples);
    }
};

/// A composite of the user's that goes through its part twice.
template <class Part>
struct Twice : LayerBase<Twice<Part>, float, Part> {
    Part part;
    explicit Twice(Part p) : part(std::move(p)) {}

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    template <class Memory>
    struct Record {
        pass::RecordOf<Part, Memory> part, again;
    };
    struct Gradient {
        typename Part::Gradient part;
        void set_zero() { part.set_zero(); }
    };
    void run(auto& batch, auto& record, const auto& mask, const auto& epilogue) const {
        pass::run(part, batch, record.part, mask);
        pass::run(part, batch, record.again, mask, epilogue);
    }
    void backpropagate(auto& batch, const auto& record, auto& gradient,
                       const auto& epilogue) const {
        pass::backpropagate(part, batch, record.again, gradient.part);
        pass::backpropagate(part, batch, record.part, gradient.part, epilogue);
    }
    void walk(const auto& walk, auto& x, const auto& then, const auto& state, auto&... of) const {
        walk(part, x, then, state, of.part...);
    }
    static void visit_parts(auto& self, auto&& visit, auto&... others) {
        visit("part", self.part, others.part...);
    }
};

}  // namespace stochastic_depth::test
