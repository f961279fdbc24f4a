// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <tuple>

#include <stochastic_depth/export/header_writer.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/normalisation/rms_norm.hpp>
#include <stochastic_depth/layers/probability/entropy.hpp>
#include <stochastic_depth/layers/probability/log_softmax.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

/// How the library's layers are written.
namespace stochastic_depth::detail {

template <class... Layers>
struct HeaderForm<Sequential<Layers...>> {
    static void write(HeaderWriter& writer, const Sequential<Layers...>& layer) {
        for_each_index<sizeof...(Layers)>(
            [&](auto i) { writer.run(std::size_t{i}, std::get<i>(layer.layers())); });
    }
};

template <class Layer>
struct HeaderForm<Stack<Layer>> {
    static void write(HeaderWriter& writer, const Stack<Layer>& layer) {
        for (std::size_t i = 0; i < layer.layers().size(); ++i) writer.run(i, layer.layers()[i]);
    }
};

template <class Branch, class Shortcut>
struct HeaderForm<Residual<Branch, Shortcut>> {
    using Scalar = typename Branch::Scalar;

    static void write(HeaderWriter& writer, const Residual<Branch, Shortcut>& layer) {
        write_scaled(writer, layer, Scalar(1));
    }
    /// shortcut(x) + factor branch(x).
    static void write_scaled(HeaderWriter& writer, const Residual<Branch, Shortcut>& layer,
                             Scalar factor) {
        HeaderWriter::Numbers x = writer.numbers();
        writer.run("branch", layer.branch());
        HeaderWriter::Numbers branch = writer.numbers();
        writer.go_on_with(std::move(x));
        writer.run("shortcut", layer.shortcut());
        const HeaderWriter::Numbers shortcut = writer.numbers();
        writer.go_on_with(std::move(branch));
        if (factor == Scalar(1))
            writer.add(shortcut);
        else
            writer.join("add_scaled", header_literal(factor), shortcut);
    }
};

/// A skipped layer is its shortcut; a kept one, or its branch, is multiplied by what the writer says.
template <class Layer>
struct HeaderForm<StochasticDepth<Layer>> {
    static void write(HeaderWriter& writer, const StochasticDepth<Layer>& node) {
        using Scalar = typename Layer::Scalar;
        const double mean = writer.mean();
        const auto factor = static_cast<Scalar>(mean);
        writer.go_inside();
        if (!(mean > 0)) {
            if constexpr (!StochasticDepth<Layer>::skips_to_identity)
                writer.run("shortcut", node.shortcut());
        } else if constexpr (is_residual<Layer>) {
            HeaderForm<Layer>::write_scaled(writer, node.layer(), factor);
        } else {
            const HeaderWriter::Numbers x = writer.numbers();
            writer.run(node.layer());
            if (factor != Scalar(1)) writer.join("mix", header_literal(factor), x);
        }
    }
};

template <class Layer>
struct HeaderForm<Scaled<Layer>> {
    static void write(HeaderWriter& writer, const Scaled<Layer>& layer) {
        writer.run(layer.layer());
        writer.script().need("multiply");
        writer.change(message("multiply<", writer.rows(), ">"), header_literal(layer.factor()));
    }
};

template <class... Layers>
struct HeaderForm<Concatenate<Layers...>> {
    static void write(HeaderWriter& writer, const Concatenate<Layers...>& layer) {
        const HeaderWriter::Numbers x = writer.numbers();
        const HeaderWriter::Numbers y = writer.script().room(layer.output_size(x.rows));
        Index first = 0;
        for_each_index<sizeof...(Layers)>([&](auto i) {
            writer.go_on_with(x);
            writer.run(std::size_t{i}, std::get<i>(layer.layers()));
            writer.copy_into({y.piece, writer.rows(), first}, i == 0);
            first += writer.rows();
        });
        writer.go_on_with(y);
    }
};

template <class Scalar>
struct HeaderForm<Identity<Scalar>> {
    static void write(HeaderWriter&, const Identity<Scalar>&) {}
};

template <class Scalar>
struct HeaderForm<Dropout<Scalar>> {
    static void write(HeaderWriter&, const Dropout<Scalar>&) {}
};

template <class Scalar, int Inputs, int Outputs>
struct HeaderForm<Linear<Scalar, Inputs, Outputs>> {
    static void write(HeaderWriter& writer, const Linear<Scalar, Inputs, Outputs>& layer) {
        writer.script().need("linear");
        const std::string weights =
            writer.constant("weights", layer.weights().data(), layer.weights().size());
        const std::string bias = writer.constant("bias", layer.bias().data(), layer.outputs());
        writer.apply(message("linear<", layer.inputs(), ", ", layer.outputs(), ">"),
                     message(weights, ", ", bias), layer.outputs());
    }
};

template <class Function>
inline constexpr bool is_header_function = requires {
    HeaderFunction<Function>::name;
};

template <class Function>
    requires(is_header_function<Function> || requires(const Function& function) {
        function.header_expression();
    })
struct HeaderForm<Elementwise<Function>> {
    static void write(HeaderWriter& writer, const Elementwise<Function>& layer) {
        if constexpr (is_header_function<Function>) {
            define_header_function<Function>(writer.script());
            writer.change_each(HeaderFunction<Function>::name);
        } else {
            writer.elementwise(layer.function().header_expression());
        }
    }
};

template <class Scalar>
struct HeaderForm<LayerNorm<Scalar>> {
    static void write(HeaderWriter& writer, const LayerNorm<Scalar>& layer) {
        writer.script().need("layer_norm");
        const Index rows = layer.features();
        const std::string gain = writer.constant("gain", layer.gain().data(), rows);
        const std::string bias = writer.constant("bias", layer.bias().data(), rows);
        writer.apply(message("layer_norm<", rows, ">"),
                     message(gain, ", ", bias, ", ", header_literal(layer.epsilon())), rows);
    }
};

template <class Scalar>
struct HeaderForm<RmsNorm<Scalar>> {
    static void write(HeaderWriter& writer, const RmsNorm<Scalar>& layer) {
        writer.script().need("rms_norm");
        const Index rows = layer.features();
        const std::string gain = writer.constant("gain", layer.gain().data(), rows);
        writer.apply(message("rms_norm<", rows, ">"),
                     message(gain, ", ", header_literal(layer.epsilon())), rows);
    }
};

/// BatchNorm, BatchNorm2d and what is like them.
template <AffineInUse Layer>
struct HeaderForm<Layer> {
    static void write(HeaderWriter& writer, const Layer& layer) {
        writer.script().need("affine");
        const Index channels = layer.affine_channels();
        Vector<typename Layer::Scalar> scale(channels), shift(channels);
        layer.write_affine(scale.data(), shift.data());
        const std::string scale_name = writer.constant("scale", scale.data(), channels);
        const std::string shift_name = writer.constant("shift", shift.data(), channels);
        writer.change(message("affine<", writer.rows(), ", ", channels, ">"),
                      message(scale_name, ", ", shift_name));
    }
};

template <class Scalar>
struct HeaderForm<Softmax<Scalar>> {
    static void write(HeaderWriter& writer, const Softmax<Scalar>&) {
        writer.script().need("softmax");
        writer.apply(message("softmax<", writer.rows(), ">"), "", writer.rows());
    }
};

template <class Scalar>
struct HeaderForm<LogSoftmax<Scalar>> {
    static void write(HeaderWriter& writer, const LogSoftmax<Scalar>&) {
        writer.script().need("log_softmax");
        writer.apply(message("log_softmax<", writer.rows(), ">"), "", writer.rows());
    }
};

template <class Scalar>
struct HeaderForm<Entropy<Scalar>> {
    static void write(HeaderWriter& writer, const Entropy<Scalar>&) {
        writer.script().need("entropy");
        writer.apply(message("entropy<", writer.rows(), ">"), "", 1);
    }
};

}  // namespace stochastic_depth::detail
