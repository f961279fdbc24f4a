// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/export/onnx.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/matrices.hpp"
#include "support/whole.hpp"

/// Models in a folder, with inputs and what the networks make of them, for others to compare with.
namespace stochastic_depth::test {

/// A tensor in models.json, row-major.
template <class Numbers>
[[nodiscard]] std::string json_tensor(std::string_view type, const std::vector<Index>& dims,
                                      const Numbers& numbers) {
    return detail::message("{\"type\":\"", type, "\",\"dims\":", detail::json_numbers(dims),
                           ",\"data\":", detail::json_numbers(numbers), "}");
}

/// Images, [channels (width height) x batch], with positions fastest, as other libraries have them.
template <class Scalar>
[[nodiscard]] Matrix<Scalar> channels_slowest(const ImageShape& shape, const Matrix<Scalar>& x) {
    Matrix<Scalar> result(x.rows(), x.cols());
    for (Index j = 0; j < x.cols(); ++j)
        for (Index c = 0; c < shape.channels; ++c)
            for (Index p = 0; p < shape.positions(); ++p)
                result(p + c * shape.positions(), j) = x(c + p * shape.channels, j);
    return result;
}

/// Draws all numbers of a network anew, so that none is 0 or 1 as it was made.
template <class Network>
void draw_numbers(Network& network, Philox& random) {
    detail::for_each_tensor(
        network, [&]<class Number>(const std::string& name, const TensorForm& form, Number* first) {
            Index count = 1, inputs = 1;
            for (std::size_t k = 0; k < form.shape.size(); ++k) {
                count *= form.shape[k];
                if (k > 0) inputs *= form.shape[k];
            }
            const Number size = 1 / std::sqrt(static_cast<Number>(inputs));
            for (Index i = 0; i < count; ++i)
                first[i] = name.ends_with("running_var")
                               ? uniform<Number>(random, Number(0.5), Number(2))
                               : size * uniform<Number>(random, Number(-1), Number(1));
        });
}

class ModelFolder {
public:
    explicit ModelFolder(std::string path) : path_(std::move(path)) {}

    /// A network as a model, and cases.
    template <class Network>
    void add(const std::string& name, const Network& network, const OnnxOptions& options,
             const std::vector<std::string>& cases) {
        const std::string file = name + ".onnx";
        export_onnx(path_ + "/" + file, network, options);
        const bool is_double =
            std::is_same_v<typename Network::Scalar, double> && !options.single_precision;
        std::string list;
        for (const std::string& one : cases) list += (list.empty() ? "" : ",\n") + one;
        models_ += detail::message(models_.empty() ? "" : ",\n", "{\"file\":\"", file,
                                   "\",\"tolerance\":", is_double ? 1e-12 : 1e-5, ",\"cases\":[\n",
                                   list, "]}");
    }

    void finish() const {
        std::ofstream(path_ + "/models.json") << "{\"models\":[\n" << models_ << "]}\n";
    }

    /// What a network makes of x as it is exported with these options.
    template <class Network>
    [[nodiscard]] static Matrix<typename Network::Scalar> output(
        const Network& network, const Matrix<typename Network::Scalar>& x,
        const OnnxOptions& options) {
        Matrix<typename Network::Scalar> y(network.output_size(x.rows()), x.cols());
        if constexpr (MaskedNetwork<Network>) {
            if (options.weight_scaling) return WeightScaling{}(network, x).mean;
            if (options.mask) return network(x, *options.mask);
        }
        network.forward(x, y);
        return y;
    }

    /// Numbers of the model's type.
    template <class Scalar>
    [[nodiscard]] static std::string tensor(const std::vector<Index>& dims, const Matrix<Scalar>& x,
                                            const OnnxOptions& options) {
        const std::vector<Scalar> numbers(x.data(), x.data() + x.size());
        const bool is_single = options.single_precision || std::is_same_v<Scalar, float>;
        return json_tensor(is_single ? "float32" : "float64", dims, numbers);
    }

    /// Columns of features, or of so many positions.
    template <class Network>
    void add_dense(const std::string& name, const Network& network, Index inputs,
                   const OnnxOptions& options, Philox& random,
                   const std::vector<Index>& batches = {0, 1, 7}, Index positions = 0) {
        using Scalar = typename Network::Scalar;
        std::vector<std::string> cases;
        for (const Index batch : batches) {
            const auto x = random_matrix<Scalar>(random, inputs, batch);
            const auto y = output(network, x, options);
            std::vector<Index> dims{batch, inputs};
            if (positions > 0) dims = {batch, positions, inputs / positions};
            cases.push_back(case_of("\"input\":" + tensor(dims, x, options),
                                    tensor({batch, y.rows()}, y, options)));
        }
        add(name, network, options, cases);
    }

    enum class Gives { features, images };

    /// Images; outputs are images of a shape, or as many features.
    template <class Network>
    void add_images(const std::string& name, const Network& network, const ImageShape& in,
                    Gives gives, const ImageShape& out, const OnnxOptions& options, Philox& random,
                    const std::vector<Index>& batches) {
        using Scalar = typename Network::Scalar;
        std::vector<std::string> cases;
        for (const Index batch : batches) {
            const auto x = random_matrix<Scalar>(random, in.size(), batch);
            const auto y = output(network, x, options);
            const std::vector<Index> in_dims{batch, in.channels, in.height, in.width};
            const std::vector<Index> dims{batch, out.channels, out.height, out.width};
            cases.push_back(
                case_of("\"input\":" + tensor(in_dims, channels_slowest(in, x), options),
                        gives == Gives::images ? tensor(dims, channels_slowest(out, y), options)
                                               : tensor({batch, y.rows()}, y, options)));
        }
        add(name, network, options, cases);
    }

    /// Sequences of tokens; outputs have a size, for each position where that is asked for.
    template <class Network>
    void add_tokens(const std::string& name, const Network& network, Index vocabulary, Index size,
                    bool for_each_position, const OnnxOptions& options, Philox& random,
                    const std::vector<std::vector<Index>>& batches) {
        using Scalar = typename Network::Scalar;
        std::vector<std::string> cases;
        for (const std::vector<Index>& lengths : batches) {
            const auto batch = static_cast<Index>(lengths.size());
            // One position of padding more than the longest has.
            Index positions = 2;
            for (const Index length : lengths) positions = std::max(positions, length);
            Matrix<Scalar> x = Matrix<Scalar>::Constant(positions, batch, -1);
            std::vector<Index> tokens;
            for (Index j = 0; j < batch; ++j)
                for (Index t = 0; t < positions; ++t) {
                    const Index token = whole(random, 0, vocabulary - 1);
                    const bool is_real = t < lengths[static_cast<std::size_t>(j)];
                    if (is_real) x(t, j) = static_cast<Scalar>(token);
                    // Behind the end is anything.
                    tokens.push_back(is_real || t % 2 == 0 ? token : 100000 + token);
                }
            const auto y = output(network, x, options);
            cases.push_back(case_of(
                detail::message("\"tokens\":", json_tensor("int64", {batch, positions}, tokens),
                                ",\"lengths\":", json_tensor("int64", {batch}, lengths)),
                for_each_position ? tensor({batch, positions, size}, y, options)
                                  : tensor({batch, size}, y, options)));
        }
        add(name, network, options, cases);
    }

private:
    [[nodiscard]] static std::string case_of(const std::string& inputs, const std::string& output) {
        return detail::message("{\"inputs\":{", inputs, "},\"output\":", output, "}");
    }

    std::string path_;
    std::string models_;
};

}  // namespace stochastic_depth::test
