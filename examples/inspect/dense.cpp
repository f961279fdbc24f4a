// SPDX-License-Identifier: MIT
// Residual networks of dense layers. What each layer is called is where it stands: "1.0.branch.2"
// is the third layer in the branch of the first of the blocks that stand second.
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/gelu_tanh.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/silu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/normalisation/rms_norm.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "architecture.hpp"

namespace inspect {
namespace {

constexpr sd::Index most_features = sd::Index{1} << 20;
constexpr sd::Index most_weights = sd::Index{1} << 31;
constexpr sd::Index most_layers = 1'000'000;
constexpr int deepest_nest = 16;

/// Makes the layers of a list, and keeps count of their width and of the skippable ones.
class DenseLayers {
public:
    /// \param survival  Of the skippable layers in their order; empty: 1 each.
    DenseLayers(sd::Index inputs, const Eigen::VectorXd& survival)
        : width_(inputs), survival_(&survival) {}

    /// Layers one after another.
    [[nodiscard]] sd::Stack<Network> make(const nlohmann::json& json, const std::string& where) {
        if (!json.is_array() || json.empty())
            throw common::UsageError(where + " must be a list of layers, got " +
                                     Fields::short_text(json));
        std::vector<Network> layers;
        for (std::size_t k = 0; k < json.size(); ++k)
            layers.push_back(layer(json[k], where + "[" + std::to_string(k) + "]"));
        return sd::Stack<Network>{std::move(layers)};
    }

private:
    [[nodiscard]] Network layer(const nlohmann::json& json, const std::string& where) {
        Fields fields(json, where);
        if (++layers_ > most_layers)
            fields.refuse("the network must have at most " + std::to_string(most_layers) +
                          " layers");
        (void)fields.at("type");
        const std::string type =
            fields.choice("type", {"linear", "block", "relu", "gelu", "gelu_tanh", "silu", "tanh",
                                   "layer_norm", "batch_norm", "rms_norm"});
        Network made = type == "linear"  ? linear(fields)
                       : type == "block" ? blocks(fields)
                       : type.ends_with("_norm")
                           ? normalisation(type, fields.small_number("epsilon", 1e-5))
                           : activation(type);
        fields.finish();
        return made;
    }

    [[nodiscard]] Network linear(Fields& fields) {
        const sd::Index outputs = fields.count("outputs", 1, most_features);
        weights_ += width_ * outputs;
        if (weights_ > most_weights) fields.refuse("the network must have at most 2^31 weights");
        const sd::Index inputs = std::exchange(width_, outputs);
        return sd::Linear<float>{inputs, outputs, random_};
    }

    [[nodiscard]] static Network activation(const std::string& type) {
        if (type == "relu") return sd::ReLU<float>{};
        if (type == "gelu") return sd::GELU<float>{};
        if (type == "gelu_tanh") return sd::GELUTanh<float>{};
        if (type == "silu") return sd::SiLU<float>{};
        return sd::Tanh<float>{};
    }

    [[nodiscard]] Network normalisation(const std::string& type, double epsilon) const {
        if (type == "layer_norm") return sd::LayerNorm<float>{width_, epsilon};
        if (type == "rms_norm") return sd::RmsNorm<float>{width_, epsilon};
        return sd::BatchNorm<float>{width_, {.epsilon = epsilon}};
    }

    /// One block, or with `repeat` a list of equal ones.
    [[nodiscard]] Network blocks(Fields& fields) {
        const bool is_list = fields.find("repeat") != nullptr;
        const sd::Index repeat = fields.count("repeat", 1, most_layers, 1);
        const bool is_residual = fields.flag("residual", true);
        const bool is_skippable = fields.flag("skippable", true);
        const nlohmann::json& branch = fields.at("branch");
        const std::string where = fields.path("branch");
        if (++nest_ > deepest_nest)
            fields.refuse("blocks must be nested at most " + std::to_string(deepest_nest) +
                          " deep");
        std::vector<Network> made;
        for (sd::Index k = 0; k < repeat; ++k) {
            const double p = is_skippable ? next_survival() : 1;
            const sd::Index before = width_;
            auto inside = make(branch, where);
            if (width_ != before)
                throw common::UsageError(where + " must give as many features as it takes, " +
                                         std::to_string(before) + ", got " +
                                         std::to_string(width_));
            made.push_back(block(std::move(inside), is_residual, is_skippable, p));
        }
        --nest_;
        if (is_list) return sd::Stack<Network>{std::move(made)};
        return std::move(made.front());
    }

    [[nodiscard]] static Network block(sd::Stack<Network> inside, bool is_residual,
                                       bool is_skippable, double p) {
        if (!is_residual && !is_skippable) return inside;
        if (!is_residual) return sd::StochasticDepth{std::move(inside), sd::SurvivalProbability{p}};
        sd::Residual residual{std::move(inside)};
        if (!is_skippable) return residual;
        return sd::StochasticDepth{std::move(residual), sd::SurvivalProbability{p}};
    }

    /// Outer layers come before inner ones.
    [[nodiscard]] double next_survival() {
        const sd::Index l = depth_++;
        return l < survival_->size() ? (*survival_)(l) : 1;
    }

    sd::Index width_;
    const Eigen::VectorXd* survival_;
    sd::Index depth_ = 0;
    sd::Index layers_ = 0;
    sd::Index weights_ = 0;
    int nest_ = 0;
    sd::Philox random_{0};
};

}  // namespace

Architecture dense_architecture(Fields& fields) {
    Architecture architecture;
    architecture.inputs = fields.count("inputs", 1, most_features);
    const nlohmann::json& layers = fields.at("layers");
    const std::string where = fields.path("layers");
    architecture.make = [layers, where,
                         inputs = architecture.inputs](const Eigen::VectorXd& survival) {
        return DenseLayers(inputs, survival).make(layers, where);
    };
    return architecture;
}

}  // namespace inspect
