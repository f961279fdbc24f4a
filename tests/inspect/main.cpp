// SPDX-License-Identifier: MIT
//
// Writes networks and inputs for the program inspect, and checks what it makes of them against
// every mask, one after another:
//     inspect_files write FOLDER
//     inspect_files check KIND JSON
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/io/npy.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/io/torch_names.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/random/uniform.hpp>

namespace sd = stochastic_depth;
using sd::Index;

namespace {

using Block = sd::StochasticDepth<sd::Residual<sd::Sequential<sd::Linear<float>, sd::ReLU<float>>>>;
using Dense =
    sd::Sequential<sd::Linear<float>, sd::Stack<Block>, sd::ReLU<float>, sd::Linear<float>>;

Dense dense(Index depth) {
    sd::Philox random{3};
    const sd::Linear<float> first{4, 6, random};
    std::vector<Block> blocks;
    for (const double p : sd::linear_decay(depth, 0.5))
        blocks.emplace_back(
            sd::Residual{sd::Sequential{sd::Linear<float>{6, 6, random, 0.7}, sd::ReLU<float>{}}},
            sd::SurvivalProbability{p});
    return Dense{first, sd::Stack{blocks}, {}, sd::Linear<float>{6, 3, random}};
}

const sd::ImageShape image{2, 6, 5};

auto residual() {
    sd::Philox random{4};
    return sd::resnet<float, sd::ResNetStyle{.shortcut = sd::ShapeShortcut::projection}>(
        {.input = image, .depth = 8, .classes = 3, .channels = 4}, random);
}

const sd::TransformerOptions transformer_options{
    .vocabulary = 11, .positions = 6, .width = 8, .heads = 2, .feed_forward = 12, .blocks = 2};

auto transformer() {
    sd::Philox random{5};
    return sd::transformer_classifier<float>(transformer_options, random);
}

sd::Matrix<float> numbers(Index rows, Index columns) {
    sd::Philox random{6};
    sd::Matrix<float> x(rows, columns);
    for (float& number : x.reshaped()) number = sd::uniform<float>(random, -1.0f, 1.0f);
    return x;
}

/// Sequences of 2 to 6 tokens.
sd::Matrix<float> tokens() {
    sd::Matrix<float> x(6, 7);
    for (Index j = 0; j < x.cols(); ++j)
        for (Index t = 0; t < x.rows(); ++t)
            x(t, j) = t < 2 + j % 5 ? static_cast<float>((3 * j + 5 * t) % 11) : -1.0f;
    return x;
}

/// More than go through the network at once.
constexpr Index dense_inputs = 300;

Eigen::VectorXd labels(Index batch) {
    Eigen::VectorXd classes(batch);
    for (Index j = 0; j < batch; ++j) classes(j) = static_cast<double>(j % 3);
    return classes;
}

void write_text(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text << std::flush;
    if (!file) throw std::runtime_error(path + " cannot be written");
}

std::string dense_text(Index depth) {
    return R"({"model": "dense", "inputs": 4, "classifier": true, "layers": [
        {"type": "linear", "outputs": 6},
        {"type": "block", "repeat": )" +
           std::to_string(depth) +
           R"(, "branch": [{"type": "linear", "outputs": 6}, {"type": "relu"}]},
        {"type": "relu"},
        {"type": "linear", "outputs": 3}]})";
}

/// y = (1 + s_2 / 2) (1 + s_1) x.
void write_two_layers(const std::string& folder) {
    std::vector<sd::StochasticDepth<sd::Residual<sd::Sequential<sd::Linear<float>>>>> layers;
    for (const float weight : {1.0f, 0.5f})
        layers.emplace_back(
            sd::Residual{sd::Sequential{sd::Linear<float>{sd::Matrix<float>::Constant(1, 1, weight),
                                                          sd::Vector<float>::Zero(1)}}},
            sd::SurvivalProbability{weight == 1.0f ? 0.5 : 0.8});
    sd::save_safetensors(folder + "/two.safetensors", sd::Stack{layers});
    const std::string block = R"({"type": "block", "branch": [{"type": "linear", "outputs": 1}]})";
    write_text(folder + "/two.json", R"({"model": "dense", "inputs": 1, "survival": [0.5, 0.8],
        "layers": [)" + block + ", " + block +
                                         "]}");
    sd::save_npy(folder + "/two.npy", sd::Matrix<float>(sd::Matrix<float>::Ones(1, 1)));
}

void write(const std::string& folder) {
    write_two_layers(folder);
    for (const Index depth : {5, 12}) {
        const std::string name = folder + "/dense" + std::to_string(depth);
        sd::save_safetensors(name + ".safetensors", dense(depth));
        write_text(name + ".json", dense_text(depth));
    }
    sd::save_npy(folder + "/dense.npy", sd::Matrix<float>(numbers(4, dense_inputs).transpose()));
    sd::save_npy(folder + "/labels.npy", labels(dense_inputs));

    sd::save_safetensors(folder + "/resnet.safetensors", residual(),
                         sd::torchvision_resnet_names(8));
    write_text(folder + "/resnet.json",
               R"({"model": "resnet", "depth": 8, "input": [2, 6, 5], "channels": 4, "classes": 3,
                   "shortcut": "projection", "names": ["torchvision_resnet"]})");
    // As PyTorch has them: channels first.
    const sd::Matrix<float> x = numbers(image.size(), 4);
    sd::Matrix<float> turned(x.cols(), x.rows());
    for (Index c = 0; c < image.channels; ++c)
        for (Index k = 0; k < image.positions(); ++k)
            turned.col(c * image.positions() + k) = x.row(c + image.channels * k).transpose();
    sd::save_npy(folder + "/images.npy", turned);

    auto names = sd::torch_encoder_names(sd::NormOrder::pre, "encoder.");
    names.push_back({"head.weight", "2.weight"});
    sd::save_safetensors(folder + "/transformer.safetensors", transformer(), names);
    write_text(folder + "/transformer.json",
               R"({"model": "transformer", "vocabulary": 11, "positions": 6, "width": 8, "heads": 2,
                   "feed_forward": 12, "blocks": 2, "classes": 2, "survival": "linear:0.5",
                   "names": ["torch_encoder:encoder.", ["head.weight", "2.weight"]]})");
    sd::save_npy(folder + "/tokens.npy", sd::Matrix<float>(tokens().transpose()));
}

void require(bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error(what);
}

/// |a - b| is at most the error, which a NaN is not.
void require_near(double a, double b, double error, const std::string& what) {
    require(std::abs(a - b) <= error, what + ": " + std::to_string(a) + " is not " +
                                          std::to_string(b) + " +- " + std::to_string(error));
}

/// k! (n - 1 - k)! / n!
double shapley_weight(Index k, Index n) {
    double weight = 1 / static_cast<double>(n);
    for (Index i = 1; i <= k; ++i) weight *= static_cast<double>(i) / static_cast<double>(n - i);
    return weight;
}

/// Everything that inspect says, from the probabilities under each mask.
class Oracle {
public:
    template <class Network>
    Oracle(const Network& network, const sd::Matrix<float>& x, const Eigen::VectorXd& p) : p_(p) {
        for (Index m = 0; m < Index{1} << p.size(); ++m) {
            sd::SurvivalMask mask = sd::SurvivalMask::none(p.size());
            double probability = 1;
            for (Index l = 0; l < p.size(); ++l) {
                const bool kept = m >> l & 1;
                if (kept) mask.keep(l);
                probability *= kept ? p(l) : 1 - p(l);
            }
            const sd::Matrix<float> scores = network(x, mask);
            sd::Matrix<float> y(scores.rows(), scores.cols());
            sd::Softmax<float>{}.forward(scores, y);
            outputs_.push_back(y.cast<double>());
            masks_.push_back(mask);
            probabilities_.push_back(probability);
        }
        mean_ = average([](const auto& y) { return y; });
    }

    /// \param has_labels  Whether inspect was told labels(batch).
    void check(const nlohmann::json& json, bool has_labels) const {
        const auto& expectation = json.at("expectation");
        const bool is_exact = expectation.at("method") == "exact";
        const Eigen::MatrixXd variance =
            average([&](const auto& y) { return (y - mean_).cwiseAbs2().eval(); });
        const auto entropy = [](const Eigen::MatrixXd& y) -> Eigen::MatrixXd {
            return -(y.array() * y.array().log()).colwise().sum().matrix();
        };
        const Eigen::MatrixXd expected = average(entropy), predictive = entropy(mean_);
        for (Index j = 0; j < mean_.cols(); ++j) {
            const auto of = [&](const char* what) { return expectation.at(what).at(at(j)); };
            for (Index i = 0; i < mean_.rows(); ++i) {
                const double error = of("standard_error").at(at(i));
                require(is_exact == (error == 0), "standard_error");
                require_near(of("mean").at(at(i)), mean_(i, j), 6 * error + 1e-5, "mean");
                require_near(of("variance").at(at(i)), variance(i, j), is_exact ? 1e-5 : 0.03,
                             "variance");
                if (is_exact) continue;
                const auto& bounds = expectation.at("bounds");
                require(bounds.at("lower").at(at(j)).at(at(i)) <= mean_(i, j) + 1e-6, "lower");
                require(bounds.at("upper").at(at(j)).at(at(i)) >= mean_(i, j) - 1e-6, "upper");
            }
            const double error = is_exact ? 1e-5 : 0.03;
            require_near(of("expected_entropy"), expected(0, j), error, "expected_entropy");
            require_near(of("predictive_entropy"), predictive(0, j), error, "predictive_entropy");
            require_near(of("mutual_information"), predictive(0, j) - expected(0, j), error,
                         "mutual_information");
        }
        check_full_depth(json.at("rules").at(0));
        check_layers(json.at("layers").at("layers"), has_labels);
        check_subnetworks(json.at("subnetworks"), has_labels);
    }

private:
    static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

    /// The mean over the masks.
    template <class Function>
    Eigen::MatrixXd average(const Function& function) const {
        Eigen::MatrixXd sum = probabilities_[0] * function(outputs_[0]);
        for (std::size_t m = 1; m < outputs_.size(); ++m)
            sum += probabilities_[m] * function(outputs_[m]);
        return sum;
    }

    void check_full_depth(const nlohmann::json& rule) const {
        require(rule.at("rule") == "full depth", "rule");
        for (Index j = 0; j < mean_.cols(); ++j)
            for (Index i = 0; i < mean_.rows(); ++i)
                require_near(rule.at("outputs").at(at(j)).at(at(i)), outputs_.back()(i, j), 1e-5,
                             "full depth");
    }

    /// Mean over the inputs of the probability of the label, or of the most probable class.
    double judge(const Eigen::MatrixXd& y, bool has_labels) const {
        const Eigen::VectorXd classes = labels(y.cols());
        double sum = 0;
        for (Index j = 0; j < y.cols(); ++j) {
            Index top = static_cast<Index>(classes(j));
            if (!has_labels) mean_.col(j).maxCoeff(&top);
            sum += y(top, j);
        }
        return sum / static_cast<double>(y.cols());
    }

    void check_layers(const nlohmann::json& layers, bool has_labels) const {
        const Index depth = p_.size();
        require(layers.size() == at(depth), "number of layers");
        for (Index l = 0; l < depth; ++l) {
            double slope = 0, shapley = 0;
            for (std::size_t m = 0; m < outputs_.size(); ++m) {
                const double value = judge(outputs_[m], has_labels);
                const bool kept = masks_[m][l];
                const Index others = masks_[m].count() - kept;
                const double share = kept ? p_(l) : 1 - p_(l);
                if (share > 0) slope += (kept ? 1 : -1) * probabilities_[m] / share * value;
                shapley += (kept ? 1 : -1) * shapley_weight(others, depth) * value;
            }
            const auto& row = layers.at(at(l));
            require_near(row.at("survival_probability"), p_(l), 0, "survival_probability");
            require_near(row.at("sensitivity"), slope,
                         5 * row.at("sensitivity_error_at_most").get<double>() + 1e-5,
                         "sensitivity");
            require_near(row.at("shapley_value"), shapley,
                         5 * row.at("shapley_error_at_most").get<double>() + 1e-5, "shapley_value");
        }
    }

    double loss(const Eigen::MatrixXd& y, bool has_labels) const {
        if (!has_labels) return (y - mean_).squaredNorm() / static_cast<double>(y.size());
        const Eigen::VectorXd classes = labels(y.cols());
        double sum = 0;
        for (Index j = 0; j < y.cols(); ++j) sum -= std::log(y(static_cast<Index>(classes(j)), j));
        return sum / static_cast<double>(y.cols());
    }

    void check_subnetworks(const nlohmann::json& found, bool has_labels) const {
        const bool is_exact = found.at("search") == "every mask";
        for (const auto& row : found.at("best")) {
            double best = std::numeric_limits<double>::infinity(), its_own = best;
            for (std::size_t m = 0; m < outputs_.size(); ++m) {
                if (masks_[m].count() != row.at("layers").get<Index>()) continue;
                const double value = loss(outputs_[m], has_labels);
                best = std::min(best, value);
                if (to_string(masks_[m]) == row.at("mask")) its_own = value;
            }
            // Without labels a sampled mean is what they are near to.
            const double error = is_exact || has_labels ? 1e-5 : 0.01;
            require_near(row.at("score"), its_own, error, "score of a sub-network");
            if (is_exact) require_near(its_own, best, 1e-5, "best sub-network");
        }
    }

    Eigen::VectorXd p_;
    std::vector<Eigen::MatrixXd> outputs_;
    std::vector<sd::SurvivalMask> masks_;
    std::vector<double> probabilities_;
    Eigen::MatrixXd mean_;
};

template <class Network>
void check(const Network& network, const sd::Matrix<float>& x, const nlohmann::json& json) {
    Eigen::VectorXd p = network.survival_probabilities();
    const std::string survival = json.at("options").at("survival");
    if (!survival.empty()) p.setConstant(std::stod(survival));
    const Index batch = json.at("inputs");
    Oracle(network, x.leftCols(batch), p)
        .check(json, !json.at("options").at("labels").get<std::string>().empty());
}

void check(const std::string& kind, const nlohmann::json& json) {
    if (kind == "dense5" || kind == "dense12")
        check(dense(kind == "dense5" ? 5 : 12), numbers(4, dense_inputs), json);
    else if (kind == "resnet")
        check(residual(), numbers(image.size(), 4), json);
    else if (kind == "transformer")
        check(transformer(), tokens(), json);
    else
        throw std::invalid_argument("unknown kind " + kind);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const std::vector<std::string> words(argv + 1, argv + argc);
        if (words.size() == 2 && words[0] == "write") {
            write(words[1]);
        } else if (words.size() == 3 && words[0] == "check") {
            std::ifstream file(words[2]);
            check(words[1], nlohmann::json::parse(file));
        } else {
            throw std::invalid_argument("inspect_files write FOLDER | check KIND JSON");
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
